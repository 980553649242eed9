"""The requests of one link, carried out in order.

Commands go through the sequencer. Subscriptions, tables and logins are
answered from the state as it is at that moment, so the replies of a
connection come in the order of its requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from exchange.gateway.busts import busting
from exchange.gateway.link import Deferred, Incoming, Link
from exchange.gateway.logins import Logins
from exchange.gateway.outbox import FLOODING
from exchange.gateway.rates import Limiter
from exchange.gateway.routing import Routing
from exchange.gateway.sequencer import Sequencer
from exchange.gateway.tables import PRIVATE_TABLES, Tables
from exchange.market.command import REQUESTS, Action, TaggedPlace
from exchange.market.engine import Engine
from exchange.market.work import touches
from orderbook import (
    REQUEST_TYPES,
    Admin,
    CommandRequest,
    Error,
    Get,
    Login,
    Ok,
    Ping,
    Refused,
    Request,
    Subscribe,
    Unsubscribe,
    encode,
    with_data,
    with_id,
)

BUSY_RETRY_MS = 1_000

TYPE_NAMES: dict[type, str] = {  # on the wire
    Error: "bad_request",
    Deferred: "line",
    TaggedPlace: "place",
    **{kind: name for name, kind in REQUEST_TYPES.items()},
}
# Requests that become commands; each needs a login.
COMMANDS: tuple[type[CommandRequest], ...] = tuple(
    kind for kind, row in REQUESTS.items() if row.is_command
)


class Requests:
    """What each request does. ``now`` returns microseconds since the epoch."""

    def __init__(
        self,
        engine: Engine,
        routing: Routing,
        sequencer: Sequencer,
        tables: Tables,
        logins: Logins,
        *,
        limiter: Limiter,
        now: Callable[[], int],
    ) -> None:
        self._engine = engine
        self._routing = routing
        self._sequencer = sequencer
        self._tables = tables
        self._logins = logins
        self._limiter = limiter
        self._now = now

    def handle(
        self, link: Link, requests: Iterable[Incoming]
    ) -> list[Incoming]:
        """Carry out requests of a link, and queue the messages that result.

        Returns the requests that wait for long work: the first one needs what
        is busy, and the others keep their order.

        The replies to successive commands are encoded after the last of them:
        it is faster to repeat one kind of work.
        """
        now, engine = self._now(), self._engine
        sequencer, routing = self._sequencer, self._routing
        busy_from = sequencer.busy_from
        routing.requester = link
        self._tables.rows_used = 0
        remaining = iter(requests)
        waiting: list[Incoming] = []
        try:
            if now >= engine.earliest:  # it may make something busy
                sequencer.pass_time(now)
            for request in remaining:
                if link.is_cut:
                    break
                if engine.work and self._must_wait(link, request):
                    waiting = [request, *remaining]
                    break
                kind = request.__class__
                link.counts[kind] += 1
                try:
                    if link.buckets or link.bucket is not None:
                        self._charge(link, request)
                    if isinstance(request, COMMANDS):
                        action: Action = request
                        if (
                            not link.account
                            or engine.seq >= busy_from
                            or kind is Admin
                        ):
                            action = self._checked(link, request)
                        outputs = sequencer.apply(
                            link.account, link.session_id, action, now
                        )
                        routing.unanswered.append((request, outputs))
                    elif isinstance(request, Deferred):
                        routing.send_replies()
                        if self._carry_out(link, request):
                            waiting = [request, *remaining]
                            break
                    else:
                        routing.send_replies()
                        self._answer(link, request)
                except Refused as refusal:
                    assert not isinstance(request, Deferred)
                    routing.send_replies()
                    routing.refusals[refusal.code] += 1
                    link.reply(request, refusal.as_error())
        finally:  # also after a failure: the commands before it are applied
            routing.send_replies()
        return waiting

    # Within

    def _carry_out(self, link: Link, request: Deferred) -> bool:
        """Do what a deferred request becomes; return whether it must wait."""
        becomes = link.resolve(request)
        while becomes:
            if self.handle(link, becomes):
                return True
            becomes = link.go_on()
        return False

    def _must_wait(self, link: Link, request: Incoming) -> bool:
        """Whether a request would become a command that needs what is busy."""
        return (
            isinstance(request, COMMANDS)
            and bool(link.account)
            and (link.role == "admin" or type(request) is not Admin)
            and touches(self._engine, link.account, link.session_id, request)
        )

    def _checked(self, link: Link, request: CommandRequest) -> Action:
        """Return the command's action; refuse what must not become one."""
        if not link.account:
            raise Refused("unauthorized", "log in first")
        draws_on = REQUESTS[request.__class__].bucket
        if draws_on == "orders" and self._sequencer.trouble:
            raise Refused(
                "busy",
                f"new orders are refused, because {self._sequencer.trouble};"
                " cancels are accepted",
                retry_after_ms=BUSY_RETRY_MS,
            )
        if isinstance(request, Admin) and link.role != "admin":
            raise Refused(
                "forbidden", "only an administrator may send this request"
            )
        if isinstance(request, Admin) and request.action == "bust":
            self._routing.send_replies()  # the trade may be of this turn
            return busting(self._routing.history, request)
        return request

    def _charge(self, link: Link, request: Incoming) -> None:
        """Take a token for a request; refuse it if there is none.

        A request refused for a higher-precedence reason still costs a token.
        A link that sends too many for long is cut off.
        """
        bucket = link.buckets.get(request.__class__, link.bucket)
        if bucket is None or (link.role == "admin" and type(request) is Admin):
            return
        retry_after_ms, is_flood = self._limiter.draw(bucket, link.strikes)
        if is_flood:
            self._routing.outbox.cut(link, FLOODING, "far too many requests")
        if retry_after_ms and not _has_earlier_refusal(link, request):
            raise Refused(
                "rate_limited",
                f"too many requests; try again in {retry_after_ms} ms",
                retry_after_ms=retry_after_ms,
            )

    def _answer(self, link: Link, request: Request | Error) -> None:
        """Answer a request that is not a command; raises Refused."""
        match request:
            case Error():
                self._routing.refusals[request.code] += 1
                link.send(encode(request))
            case Login():
                self._logins.login(link, request)
            case Subscribe():
                self._subscribe(link, request)
            case Unsubscribe():
                self._routing.feed.unsubscribe(
                    link,
                    dict.fromkeys(request.channels),
                    self._symbols(request.symbols),
                )
                link.reply(request, Ok(ts=self._now()))
            case Get():
                ok = encode(Ok(ts=self._now()))
                text = with_data(ok, self._tables.rows(link, request))
                link.send(with_id(text, request.id))
            case Ping():
                link.reply(request, Ok(ts=self._now()))
            case _:
                raise AssertionError(request)

    def _subscribe(self, link: Link, request: Subscribe) -> None:
        self._tables.check()
        symbols = self._symbols(request.symbols)
        self._routing.publish()  # the reader's snapshot has it
        link.reply(request, Ok(ts=self._now()))
        channels = dict.fromkeys(request.channels)
        self._routing.feed.subscribe(
            link,
            channels,
            {symbol: self._engine.listings[symbol].seq for symbol in symbols},
        )
        if "book" in channels:
            for symbol in symbols:
                self._tables.book(symbol)

    def _symbols(self, symbols: Iterable[str] | None) -> list[str]:
        """Return the symbols that are named, each once; None: all."""
        if symbols is None:
            return list(self._engine.listings)
        chosen = list(dict.fromkeys(symbols))
        for symbol in chosen:
            self._engine.listing(symbol)
        return chosen


def _has_earlier_refusal(link: Link, request: Incoming) -> bool:
    """Whether a reason that precedes "rate_limited" refuses a request."""
    if isinstance(request, Login):
        return bool(link.account)
    if link.account:
        return type(request) is Error
    if isinstance(request, Get):
        return request.what in PRIVATE_TABLES
    return type(request) is Error or isinstance(request, COMMANDS)
