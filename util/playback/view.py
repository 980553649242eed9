"""The market of one viewer at one moment, without a socket.

It answers the requests of the protocol that change nothing, with the parts of
the exchange that answer them live. Its commands come from the recording.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from exchange.doors.native import Native
from exchange.gateway.gateway import report_match
from exchange.gateway.link import Link, Peer
from exchange.gateway.logins import (
    Keys,
    Logins,
    check_no_login,
    random_session,
)
from exchange.gateway.outbox import Batch
from exchange.gateway.rates import Limiter, Quotas
from exchange.gateway.requests import COMMANDS, Requests
from exchange.gateway.routing import Routing
from exchange.gateway.sequencer import Sequencer
from exchange.gateway.tables import PRIVATE_TABLES, Tables
from exchange.journal.checksum import Checksum
from exchange.market.accounts import Account
from exchange.market.tenders import open_tenders
from orderbook import (
    PROTOCOL_VERSION,
    Error,
    Get,
    Heartbeat,
    Login,
    Ok,
    Refused,
    Request,
    Welcome,
    encode,
    with_data,
    with_id,
)

from .recording import Moment, Recording

NATIVE = Native()
CHECK_COMMANDS = 50  # commands between two looks at the clock
NAMED = 50  # trades, and orders of each side, that are told with names
ONLY_LOOK = "this is a recording: nothing can be changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """Who sees what. ``keys`` None: there are none.

    ``is_published``: everybody may sign in as any account, and sees which
    accounts orders and trades belong to. ``public_positions`` and
    ``public_leaderboard`` are what the exchange had.
    """

    keys: Keys | None = None
    is_published: bool = False
    public_positions: bool = False
    public_leaderboard: bool = True


class _Recorded(Sequencer):
    """Time passes by the commands of the recording only."""

    def pass_time(self, now: int) -> int:
        return now


class _Readers(Logins):
    """Logins that connect no session: those are in the recording."""

    def __init__(self, rights: Rights, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, keys=rights.keys, **more)
        self._rights = rights

    def login(self, link: Link, request: Login) -> None:
        """Show a link an account as it was; raises Refused."""
        check_no_login(link)
        rights, user = self._rights, request.user
        key = None
        if rights.keys is not None:
            key = rights.keys.check(user, request.token)
        if key is None and not rights.is_published:
            self._routing.outbox.cut(link, 4001, "login failed")
            raise Refused("unauthorized", "unknown user or wrong token")
        if key is not None:
            link.key, link.role = key, key.role
        link.account, link.session_id = user, self._new_session()
        self._routing.online[user] = {link: None}
        engine = self._engine
        account = account_of(engine, user)
        money = engine.configured.money
        link.reply(
            request,
            Welcome(
                protocol=PROTOCOL_VERSION,
                session=link.session_id,
                user=user,
                ts=engine.ts,
                seq=account.seq,
                resumed=False,
                durable=False,
                limits=self._limits_of(account),
                instruments=tuple(
                    listing.current_instrument(
                        account.max_position(listing.instrument)
                    )
                    for listing in engine.listings.values()
                ),
                rules=engine.rules,
                unit=None if money is None else money.unit,
                currency=None if money is None else money.currency,
                round=engine.round,
                role=link.role,
                match=engine.match,
                speed=self._speed,
            ),
        )
        open_orders = account.open_orders.values()
        link.send(*engine.order_reports(open_orders))
        link.send(encode(engine.account_report(account)))
        for tender in open_tenders(engine, account):
            link.send(encode(tender))


def account_of(engine: Any, user: str) -> Account:
    """Return an account; before its first login, what it will begin with."""
    account: Account | None = engine.accounts.get(user)
    if account is None:
        limits = engine.limits(user)
        account = Account(user, limits.cash, limits)
    return account


class View:
    """What one connection sees, from a moment on; it only goes forward."""

    def __init__(
        self,
        recording: Recording,
        moment: Moment,
        ts: int,
        peer: Peer,
        rights: Rights,
    ) -> None:
        self.ts = ts  # the time that is shown
        self._engine = engine = moment.engine
        self._rights = rights
        self._commands = recording.after(engine.seq)
        self._next = next(self._commands, None)
        self._routing = routing = Routing(engine, self.now, self.now, False)
        self._history = routing.history = moment.history
        sequencer = _Recorded(engine, routing, self.now, False, Checksum())
        limiter = Limiter(Quotas(), self.now, Decimal(1))
        self._tables = Tables(
            engine,
            routing.history,
            routing.feed,
            public_positions=rights.public_positions,
            public_leaderboard=rights.public_leaderboard,
        )
        logins = _Readers(
            rights,
            engine,
            routing,
            sequencer,
            limiter,
            new_session=random_session,
            speed=None,
        )
        self._requests = Requests(
            engine,
            routing,
            sequencer,
            self._tables,
            logins,
            limiter=limiter,
            now=self.now,
        )
        self.link = Link(peer, NATIVE, routing.outbox.links)
        routing.links[self.link] = None

    def now(self) -> int:
        """Return the time that is shown, in microseconds."""
        return self.ts

    def close(self) -> None:
        """Read the journal no more."""
        self._commands.close()  # type: ignore[attr-defined]

    # Time

    def advance(self, ts: int, budget_s: float) -> bool:
        """Apply the commands up to a time; return whether all are applied.

        No more than fit into ``budget_s`` seconds.
        """
        engine, routing = self._engine, self._routing
        until = time.monotonic() + budget_s
        for count in itertools.count():
            command = self._next
            if command is None or command.ts > ts:
                self.ts = max(self.ts, ts)
                is_done = True
                break
            if count % CHECK_COMMANDS == 0 and time.monotonic() > until:
                is_done = False
                break
            routing.route(engine.apply(command))
            self.ts = command.ts
            self._next = next(self._commands, None)
        if routing.has_news:
            routing.publish()
        if routing.feed.is_ticker_due:
            routing.publish_tickers()
        return is_done

    # Requests

    def handle(self, request: Request | Error) -> None:
        """Answer a request, or refuse one that would change something."""
        link = self.link
        if link.is_cut:
            return
        try:
            if isinstance(request, COMMANDS) and link.account:
                raise Refused("forbidden", ONLY_LOOK)
            if not self._answer_newcomer(request):
                self._requests.handle(link, [request])
        except Refused as refusal:
            link.reply(request, refusal.as_error())

    def _answer_newcomer(self, request: Request | Error) -> bool:
        """Answer for an account that has not logged in yet at this time."""
        engine, account = self._engine, self.link.account
        if (
            not isinstance(request, Get)
            or request.what not in PRIVATE_TABLES
            or not account
            or account in engine.accounts
        ):
            return False
        rows = []
        if request.what == "account":
            new = account_of(engine, account)
            rows = [encode(engine.account_report(new))]
        text = with_data(encode(Ok(ts=self.ts)), rows)
        self.link.send(with_id(text, request.id))
        return True

    def heartbeat(self, speed: str) -> None:
        """Send the last ``seq`` of each sequence that the link got."""
        link = self.link
        seq = self._routing.feed.last_seqs(link)
        if link.account:
            seq["@"] = account_of(self._engine, link.account).seq
        beat = Heartbeat(ts=self.ts, seq=seq, speed=speed)
        link.send(encode(beat))

    # What only a replay tells

    @property
    def is_omniscient(self) -> bool:
        """Whether the link may know whose all orders and trades are."""
        return self._rights.is_published or self.link.role == "admin"

    def match(self) -> dict[str, Any]:
        """Return what `/v1/match` of the exchange told at this time."""
        return report_match(self._engine, self.ts)

    def names(self, symbol: str | None) -> dict[str, Any]:
        """Return whose the last trades and the best orders are.

        Trades are [trade_id, price, qty, buyer, seller], the newest first;
        orders [price, leaves_qty, account], in the order they trade.
        """
        listing = self._engine.listing(symbol)
        name = listing.instrument.symbol
        trades = []
        for trade in reversed(self._history.trades(name, None, NAMED)):
            parties = self._history.parties(name, trade.trade_id)
            sides = {fill.side: account for account, fill in parties}
            trades.append(
                (
                    *(trade.trade_id, trade.price, trade.qty),
                    *(sides.get("buy", ""), sides.get("sell", "")),
                )
            )
        report: dict[str, Any] = {"symbol": name, "trades": trades}
        for key, side in (("bids", "buy"), ("asks", "sell")):
            queue = listing.book.queue("buy" if side == "buy" else "sell")
            report[key] = [
                (order.price, order.leaves_qty, order.account)
                for order in itertools.islice(queue, NAMED)
            ]
        return report

    def send(self, text: str) -> None:
        """Queue one message."""
        self.link.send(text)

    def take(self) -> Batch | None:
        """Return what is to be sent."""
        return self._routing.outbox.seal((), "")
