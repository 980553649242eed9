"""Between the sessions and the engine: requests in, messages out.

The gateway stamps what a session asks with sequence number, time and
identity, lets the engine apply it, and sends what came of it to whom it
concerns. Subscriptions, tables and logins it answers itself, from the state
as it is at that moment, so that the replies of a connection come in the
order of its requests.

It is driven from outside: it starts nothing by itself, and what is to leave
it hands over, batch by batch, when the gate lets it go.
"""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Any, Protocol, TypeAlias, assert_never, get_args

from pydantic import TypeAdapter
from pydantic_core import to_json

from exchange.gateway.feed import Feed
from exchange.gateway.link import MakeFrames, Peer, Session
from exchange.gateway.rates import Bucket, Quotas, Rate
from exchange.journal.gate import Gate
from exchange.journal.history import RESUME_EVENTS, History, page
from exchange.market.accounts import ACCOUNTS_MAX, ORDERS_REMEMBERED, Account
from exchange.market.command import (
    Action,
    ClockStep,
    Command,
    Configure,
    Connect,
    Disconnect,
    Output,
    Restart,
    Shutdown,
    TimePassed,
)
from exchange.market.engine import Engine
from orderbook import (
    MAX_FRAME,
    MAX_INT,
    PROTOCOL_VERSION,
    REQUEST_TYPES,
    AccountReport,
    Admin,
    Amend,
    BookUpdate,
    Cancel,
    CancelAfter,
    CancelAll,
    Error,
    Event,
    Exec,
    Get,
    Heartbeat,
    Instrument,
    Login,
    Ok,
    Ping,
    Place,
    Refused,
    Request,
    Status,
    Subscribe,
    Table,
    Ticker,
    Trade,
    Unsubscribe,
    Welcome,
    encode,
    with_data,
    with_id,
)

# Commands that may be ahead of the disk: a second's worth and more. Beyond
# them new orders are refused, so that cancels get through.
COMMANDS_UNCOMMITTED = 20_000
BUSY_RETRY_MS = 1_000
DEBUG_LEVELS = 10  # of each side of a book, in what debug mode prints
# Cancels may be so many times as frequent as orders, so that a bot that is
# throttled can always get flat.
CANCELS_RATE = 5
# Bursts that may be refused as too many before a connection is cut; they
# are forgiven at the rate that is allowed, so who sends less than twice as
# much as that never is.
STRIKES_BURST = 10

# While more waits to be done, public data leave no more often than so: each
# reader costs the same however much has changed. And never more often than so
# for each reader, where they are many, which leaves half of the time and more
# for what traders ask.
FEED_US = 5_000
FEED_READER_US = 5
MANY_READERS = 100

# Rows of tables after which one more table is refused, in one turn: a frame
# gets 10,000, and what little comes before it in its turn. It is some
# milliseconds' worth, for which all others wait.
ROWS_PER_TURN = 10_200
# Orders or fills looked through that take as long as a row, and characters
# of a book.
ORDERS_PER_ROW = 32
BOOK_CHARS_PER_ROW = 40

FLOODING = 4002  # the close code of the protocol for abuse
Closing: TypeAlias = tuple[Session, int, str]  # close code, reason
Turn: TypeAlias = tuple[int, int]  # how many requests; when the first came
_INSTRUMENT = TypeAdapter(Instrument)


class Key(Protocol):
    """What somebody has logged in with."""

    @property
    def is_admin(self) -> bool:
        """Whether it is an administrator's."""


class Keys(Protocol):
    """Who may log in."""

    def lets_in(self, user: str) -> bool:
        """Whether a name alone is enough for this user."""

    def check(self, user: str, token: str | None) -> Key | None:
        """Return the key of a user whose token this is."""

    def is_valid(self, key: Any) -> bool:
        """Whether who logged in with a key may stay."""


@dataclass(slots=True)
class Batch:
    """What leaves together, in this order; last, what to print."""

    broadcasts: list[tuple[bytes, list[Session]]]
    frames: list[tuple[Session, bytes]]
    closings: list[Closing]
    answers: list[Callable[[], None]]  # to what was asked over HTTP
    turns: Sequence[Turn]
    report: str


@dataclass(slots=True)
class _Placed:
    """What debug mode tells of a batch: its new orders and their books."""

    lines: list[str] = field(default_factory=list)
    symbols: dict[str, None] = field(default_factory=dict)


WORDS: dict[type, str] = {
    Error: "bad_request",
    **{kind: word for word, kind in REQUEST_TYPES.items()},
}
# Requests that become commands; they need a login, whatever they ask for.
CommandRequest: TypeAlias = (
    Place | Amend | Cancel | CancelAll | CancelAfter | Admin
)
COMMANDS = get_args(CommandRequest)
PRIVATE_TABLES: tuple[Table, ...] = (
    "account",
    "positions",
    "fills",
    "orders",
)


class Gateway:
    """The exchange without its sockets.

    ``now`` returns microseconds since the epoch; ``let_go`` is called with
    each batch that may leave; ``make_frames`` frames messages; ``keys`` say
    who may log in, None: anybody, by name.
    """

    def __init__(
        self,
        now: Callable[[], int],
        let_go: Callable[[Batch], None],
        make_frames: MakeFrames,
        debug: bool = False,
        durable: bool = False,
        keys: Keys | None = None,
        quotas: Quotas = Quotas(),
    ) -> None:
        self.engine = Engine()
        self.history = History()
        self.feed = Feed(self._snapshot, self._ticker, self._hand_out)
        self._make_frames = make_frames
        self.sessions: dict[Session, None] = {}
        # Figures: requests by account ("" before the login) and class, and
        # errors answered, by code.
        self.requests: defaultdict[str, defaultdict[type, int]]
        self.requests = defaultdict(lambda: defaultdict(int))
        self.refusals: Counter[str] = Counter()
        self._now = now
        self._durable = durable
        self._keys = keys
        self._quotas = quotas
        self._buckets: dict[str, dict[type, Bucket | None]] = {}  # by account
        # In memory everything counts as committed: the gate stands open.
        self._committed = 0 if durable else MAX_INT
        self._gate: Gate[Batch] = Gate(let_go, self._committed)
        self._applied: list[Command] = []  # and not yet taken
        self._seq = 0  # of the last command applied without a failure
        self._flushed_ts = 0  # when public data last left
        # When to publish again, because public data wait; None: they do not.
        self.feed_due: int | None = None
        self.is_feed_busy = False  # not all have the last ones yet
        self._is_broken = False  # one failed: the books cannot be trusted
        self.disk_trouble = ""  # of the journal: no new orders meanwhile
        # Whose turn it is, and its commands of which nobody has been told.
        self._asking: Session
        self._untold: list[tuple[CommandRequest, list[Output]]] = []
        self._outgoing: dict[Session, None] = {}
        self._broadcasts: list[tuple[bytes, list[Session]]] = []
        self._online: dict[str, dict[Session, None]] = {}  # by account
        self._closings: list[Closing] = []
        self._answers: list[Callable[[], None]] = []
        self._rows_told = 0  # in the turn at hand
        # As it was at a seq of the engine: it takes a look at all accounts.
        self._leaderboard: tuple[int, list[dict[str, Any]]] = (-1, [])
        self._placed = _Placed() if debug else None

    # Life

    def replay(self, commands: Iterable[Command]) -> None:
        """Apply again what a journal holds; nothing leaves."""
        for command in commands:
            self._route(self.engine.apply(command))
            self._seq = command.seq
        self._flush_feed()

    def begin(self, market: Configure) -> None:
        """Open the market, or go on with the one that was replayed.

        The connections ended with the old process, so their orders are
        canceled before anything happens that was due meanwhile; that happens
        in the market as it was, before the new one is configured.
        """
        if self.engine.seq:
            self._route(self._apply("", "", Restart(), self._now()))
            self._fire(self._now())
        if self.engine.configured != market:
            self._route(self._apply("", "", market, self._now()))
        self._flush_feed()

    def shut_down(self) -> None:
        """End every session in order, and say so."""
        self._route(self._apply("", "", Shutdown(), self._now()))
        self._flush_feed()
        self.announce("the exchange is shutting down")
        for session in self.sessions:
            self._closings.append((session, 1001, "shutdown"))

    def requests_by_word(self, most: int) -> dict[str, dict[str, int]]:
        """Return the requests counted, by account and type.

        Of the accounts that asked most, so many.
        """
        busiest = nlargest(
            most, self.requests.items(), key=lambda item: sum(item[1].values())
        )
        return {
            account: {WORDS[kind]: count for kind, count in counts.items()}
            for account, counts in busiest
        }

    def announce(self, message: str) -> None:
        """Send a status to every connection."""
        self._broadcast([Status(ts=self._now(), message=message)])

    @property
    def trouble(self) -> str:
        """Say why new orders are refused, if they are: it is the disk."""
        if self.engine.seq < self._busy_from:
            return ""
        return self.disk_trouble or "the journal's disk is too slow"

    @property
    def _busy_from(self) -> int:
        """Return the seq from which on new orders are refused."""
        if self.disk_trouble:
            return 0
        return self._committed + COMMANDS_UNCOMMITTED

    @property
    def uncommitted(self) -> int:
        """Return how many commands are ahead of the disk."""
        return max(0, self.engine.seq - self._committed)

    # The journal

    def take_commands(self) -> list[Command]:
        """Return the commands applied since the last call, to commit them.

        Those of `replay` are not among them; without a journal none are.
        """
        commands, self._applied = self._applied, []
        return commands

    def commit(self, seq: int) -> None:
        """Let leave what depends on no command after ``seq``."""
        self._committed = seq
        self._gate.commit(seq)

    # Sessions

    def connect(self, peer: Peer) -> Session:
        """Return the session of a new connection."""
        session = Session(peer, self._outgoing, self._make_frames)
        session.counts = self.requests[""]
        if self._quotas.rate.per_s:
            session.bucket = Bucket(self._quotas.rate, self._now())
        self.sessions[session] = None
        return session

    def disconnect(self, session: Session) -> None:
        """Let a connection go that has ended, and what dies with it."""
        del self.sessions[session]
        self._outgoing.pop(session, None)
        self.feed.drop(session)
        if session.account:
            account, session_id = session.account, session.session_id
            self._log_out(session)
            self._route(
                self._apply(account, session_id, Disconnect(), self._now())
            )

    def handle(
        self, session: Session, requests: Iterable[Request | Error]
    ) -> None:
        """Carry out requests of a session and queue what came of them.

        The replies to successive commands are made after the last of them,
        because it is faster to do the same many times.
        """
        now, engine = self._now(), self.engine
        busy_from = self._busy_from
        self._asking = session
        self._rows_told = 0
        try:
            for request in requests:
                if session.is_cut:
                    break
                kind = request.__class__
                session.counts[kind] += 1
                try:
                    if session.buckets or session.bucket is not None:
                        self._charge(session, request)
                    if isinstance(request, COMMANDS):
                        if (
                            not session.account
                            or engine.seq >= busy_from
                            or kind is Admin
                        ):
                            self._check(session, request)
                        outputs = self._apply(
                            session.account, session.session_id, request, now
                        )
                        self._untold.append((request, outputs))
                    else:
                        self._tell()
                        self._answer(session, request)
                except Refused as refusal:
                    self._tell()
                    self.refusals[refusal.code] += 1
                    self._reply(session, request, refusal.as_error())
        finally:  # should the last one fail, those before it did happen
            self._tell()

    def check_keys(self) -> None:
        """Close the connections of those whose key is no longer valid."""
        keys = self._keys
        if keys is None:
            return
        for session in self.sessions:
            user, key = session.account, session.key
            if user and not (
                keys.is_valid(key) if key else keys.lets_in(user)
            ):
                self._cut_off(session, 4001, "key revoked")

    # Time

    def tick(self) -> None:
        """Fire every deadline that is due."""
        self._fire(self._now())

    def step_clock(self, forward_us: int) -> None:
        """Take note that the clock is about to be set forward so much."""
        step = ClockStep(forward_us=forward_us)
        self._route(self._apply("", "", step, self._now()))

    def heartbeat(self) -> None:
        """Tell every session what it should have got by now."""
        ts = self._now()
        for session in self.sessions:
            seq = self.feed.held(session)
            if session.account:
                seq["@"] = self.engine.accounts[session.account].seq
            session.send(encode(Heartbeat(ts=ts, seq=seq)))

    def publish(
        self, turns: Sequence[Turn] = (), is_more: bool = False
    ) -> None:
        """Send off all that was queued since the last time, in one batch.

        What was carried out since are these turns. Where there ``is_more``
        to come at once, or there are many readers, public data may wait
        until ``feed_due``.
        """
        rest = FEED_US if is_more else 0
        if self.feed.readers >= MANY_READERS:
            rest = max(rest, self.feed.readers * FEED_READER_US)
        now = self._now()
        due = self._flushed_ts + rest
        if self.is_feed_busy:
            due = max(due, now + FEED_US)
        self.feed_due = due if now < due else None
        if self.feed_due is None:
            self._flush_feed()
        if not (
            self._outgoing
            or self._broadcasts
            or self._closings
            or self._answers
        ):
            return
        broadcasts, self._broadcasts = self._broadcasts, []
        frames = [(session, session.seal()) for session in self._outgoing]
        self._outgoing.clear()
        closings, self._closings = self._closings, []
        answers, self._answers = self._answers, []
        batch = Batch(
            broadcasts, frames, closings, answers, turns, self._report()
        )
        self._gate.hold(self._seq, batch)

    # Requests

    def _check(self, session: Session, request: CommandRequest) -> None:
        """Raise Refused if a request may not become a command."""
        if not session.account:
            raise Refused("unauthorized", "log in first")
        if isinstance(request, (Place, Amend)) and self.trouble:
            raise Refused(
                "busy",
                f"{self.trouble}; cancels are taken",
                retry_after_ms=BUSY_RETRY_MS,
            )
        if isinstance(request, Admin) and not session.is_admin:
            raise Refused("forbidden", "only an administrator may do that")

    def _tell(self) -> None:
        """Send the replies to commands, and to everybody what they caused."""
        if not self._untold:
            return
        untold, self._untold = self._untold, []
        account = self._asking.account
        replies: list[str] = []
        # What each account is told; the one that asks without ids and errors.
        posts: dict[str, list[str]] = {account: []}
        reports = posts[account]
        try:
            for request, outputs in untold:
                reply: Any = outputs[0][1]
                text = encode(reply)
                replies.append(with_id(text, request.id))
                if reply.__class__ is Exec:
                    reports.append(text)
                    if self._placed is not None and reply.exec_type == "new":
                        self._note(account, reply)
                elif reply.__class__ is Error:
                    self.refusals[reply.code] += 1
                if len(outputs) > 1:
                    told = len(reports)
                    news = self._collect(outputs[1:], posts)
                    replies += reports[told:]
                    if news:
                        self._post(posts, replies)
                        self._broadcast(news)
        finally:  # should it fail, what was made before did happen
            self._post(posts, replies)

    def _route(self, outputs: Iterable[Output]) -> None:
        """Send events to whom they concern, where nobody has a reply."""
        posts: dict[str, list[str]] = {}
        news = self._collect(outputs, posts)
        self._post(posts)
        self._broadcast(news)

    def _collect(
        self, outputs: Iterable[Output], posts: dict[str, list[str]]
    ) -> list[Status]:
        """Add private events to what each account is told; return the news.

        Those leave after all private events of the command. Trades are
        recorded; mere replies are left out.
        """
        history = self.history
        news: list[Status] = []
        try:
            for recipient, event in outputs:
                if event.__class__ is Exec or event.__class__ is AccountReport:
                    texts = posts.get(recipient)
                    if texts is None:
                        if recipient not in self._online:
                            history.account(recipient).add(event)
                            continue
                        texts = posts[recipient] = []
                    text = encode(event)
                    texts.append(text)
                    if event.__class__ is Exec and event.exec_type == "trade":
                        history.account(recipient).add_fill(event, text)
                elif event.__class__ is Trade:
                    history.record_trade(event)
                    self.feed.record(event)
                elif event.__class__ is Status:
                    news.append(event)
        except Exception:
            self._is_broken = True
            raise
        return news

    def _post(
        self, posts: dict[str, list[str]], replies: list[str] | None = None
    ) -> None:
        """Send each account what it is told, keep it for later, clear it.

        ``replies`` are what the session gets instead that asked.
        """
        asking = None
        if replies:
            asking = self._asking
            asking.send(*replies)
            replies.clear()
        for account, texts in posts.items():
            if not texts:
                continue
            self.history.account(account).add_texts(texts)
            for session in self._online[account]:
                if session is not asking:
                    session.send(*texts)
            texts.clear()

    def _answer(self, session: Session, request: Request | Error) -> None:
        """Answer what is no command, or a login; raises Refused."""
        match request:
            case Error():
                self.refusals[request.code] += 1
                session.send(encode(request))
            case Login():
                self._login(session, request)
            case Subscribe():
                self._subscribe(session, request)
            case Unsubscribe():
                self.feed.unsubscribe(
                    session,
                    dict.fromkeys(request.channels),
                    self._symbols(request.symbols),
                )
                self._reply(session, request, Ok(ts=self._now()))
            case Get():
                ok = encode(Ok(ts=self._now()))
                text = with_data(ok, self._table(session, request))
                session.send(with_id(text, request.id))
            case Ping():
                self._reply(session, request, Ok(ts=self._now()))
            case _:
                raise AssertionError(request)

    def _charge(self, session: Session, request: Request | Error) -> None:
        """Let a request draw on its bucket, and refuse it if that is empty.

        What is to be refused anyway, for a reason that goes before, draws
        too. Who overdoes it for long is cut off.
        """
        bucket = session.buckets.get(request.__class__, session.bucket)
        if bucket is None or (session.is_admin and type(request) is Admin):
            return
        now = self._now()
        retry_after_ms = bucket.take(now)
        if not retry_after_ms:
            return
        strikes = session.strikes.get(bucket)
        if strikes is None:
            rate = bucket.rate
            patience = Rate(rate.per_s, rate.burst * STRIKES_BURST)
            strikes = session.strikes[bucket] = Bucket(patience, now)
        if strikes.take(now):
            self._cut_off(session, FLOODING, "far too many requests")
        if _is_refused_anyway(session, request):
            return
        raise Refused(
            "rate_limited",
            f"too many requests; there is room in {retry_after_ms} ms",
            retry_after_ms=retry_after_ms,
        )

    def _buckets_of(self, user: str) -> dict[type, Bucket | None]:
        """Return what an account's requests draw on, by their type."""
        buckets = self._buckets.get(user)
        if buckets is None:
            buckets = self._buckets[user] = {}
            rate = self._quotas.rates.get(user, self._quotas.rate)
            if not (rate.per_s or self._quotas.rate.per_s):
                return buckets
            orders = cancels = None  # or they drew on the connection's
            if rate.per_s:
                orders = Bucket(rate, self._now())
                cancels = Bucket(rate.times(CANCELS_RATE), self._now())
            buckets |= {Place: orders, Amend: orders}
            buckets |= {Cancel: cancels, CancelAll: cancels}
            buckets[CancelAfter] = cancels
        return buckets

    def _cut_off(self, session: Session, code: int, reason: str) -> None:
        if not session.is_cut:
            session.is_cut = True
            self._closings.append((session, code, reason))

    def _authenticate(self, session: Session, request: Login) -> None:
        """Note whose the session is; cut it off if it may not be."""
        user = request.user
        try:
            if self._keys is not None and not self._keys.lets_in(user):
                key = self._keys.check(user, request.token)
                if key is None:
                    raise Refused(
                        "unauthorized", "unknown user or wrong token"
                    )
                session.key, session.is_admin = key, key.is_admin
            accounts = self.engine.accounts
            if user not in accounts and len(accounts) >= ACCOUNTS_MAX:
                raise Refused("forbidden", f"{ACCOUNTS_MAX:,} accounts exist")
        except Refused:
            self._cut_off(session, 4001, "login failed")
            raise
        most = self._quotas.connections
        others = [
            other
            for other in self._online.get(user, ())
            if other.session_id != request.session
        ]
        if most and len(others) >= most:
            self._cut_off(session, FLOODING, "too many connections")
            raise Refused(
                "rate_limited", f"{user} has {most} connections already"
            )

    def _limits_of(self, account: Account) -> dict[str, int]:
        """Return what a welcome tells of an account's limits."""
        rate = self._quotas.rates.get(account.name, self._quotas.rate)
        limits = {
            "max_frame": MAX_FRAME,
            "orders_per_s": rate.per_s,
            "burst": rate.burst,
            "open_orders": account.limits.open_orders,
            "orders_remembered": ORDERS_REMEMBERED,
            "resume_events": RESUME_EVENTS,
            "connections": self._quotas.connections,
        }
        if account.limits.min_cash is not None:
            limits["min_cash"] = account.limits.min_cash
        return limits

    def _login(self, session: Session, request: Login) -> None:
        if session.account:
            raise Refused(
                "bad_request",
                f"already logged in as {session.account}",
                field="user",
            )
        self._authenticate(session, request)
        user, session_id = request.user, request.session or ""
        known = self.engine.accounts.get(user)
        is_known = known is not None and session_id in known.sessions
        if not is_known:
            session_id = secrets.token_hex(16)
        for other in list(self._online.get(user, ())):
            if other.session_id == session_id:
                self._log_out(other)
                self._cut_off(other, 4009, "session taken over")
        self._route(
            self._apply(
                user,
                session_id,
                Connect(request.cancel_on_disconnect, session.is_admin),
                self._now(),
            )
        )
        account = self.engine.accounts[user]
        session.account, session.session_id = user, session_id
        session.buckets = self._buckets_of(user)
        session.counts = self.requests[user]
        self._online.setdefault(user, {})[session] = None
        missed = None
        if is_known and request.last_seq is not None:
            missed = self.history.missed(user, request.last_seq, account.seq)
        self._reply(
            session,
            request,
            Welcome(
                protocol=PROTOCOL_VERSION,
                session=session_id,
                user=user,
                ts=self.engine.ts,
                seq=account.seq,
                resumed=missed is not None,
                durable=self._durable,
                limits=self._limits_of(account),
                instruments=tuple(
                    listing.as_told(account.max_position(listing.instrument))
                    for listing in self.engine.listings.values()
                ),
            ),
        )
        if missed is None:
            open_orders = account.open_orders.values()
            for report in self.engine.order_reports(open_orders):
                session.send(encode(report))
            session.send(encode(self.engine.account_report(account)))
        else:
            for text in missed:
                session.send(text)

    def public_rows(self, request: Get) -> list[str]:
        """Return the rows of a table, encoded; raises Refused."""
        return [*self._rows(None, request)]

    def answer(self, leave: Callable[[], None]) -> None:
        """Call back when all that has happened so far may be told."""
        self._answers.append(leave)

    def _subscribe(self, session: Session, request: Subscribe) -> None:
        self._check_rows()
        symbols = self._symbols(request.symbols)
        self._flush_feed()  # what came before is not for this reader
        self._reply(session, request, Ok(ts=self._now()))
        channels = dict.fromkeys(request.channels)
        self.feed.subscribe(session, channels, symbols)
        if "book" in channels:
            for symbol in symbols:
                self._book(symbol)

    def _check_rows(self) -> None:
        """Refuse what tells more, if those before in a frame told much."""
        if self._rows_told >= ROWS_PER_TURN:
            raise Refused(
                "busy",
                "the tables of one frame have too many rows; ask in another",
                retry_after_ms=1,
            )

    def _book(self, symbol: str | None) -> str:
        """Return a whole book, and count it as the rows that it is worth."""
        listing = self.engine.listing(symbol)
        text = self.feed.snapshot(listing.instrument.symbol, listing.seq)
        self._rows_told += len(text) // BOOK_CHARS_PER_ROW
        return text

    def _table(self, session: Session, request: Get) -> Iterable[str]:
        """Return the rows of a table, encoded; raises Refused."""
        if request.what in PRIVATE_TABLES and not session.account:
            raise Refused("unauthorized", "log in first")
        self._check_rows()
        rows = list(self._rows(session, request))
        self._rows_told += len(rows)
        return rows

    def _rows(self, session: Session | None, request: Get) -> Iterable[str]:
        """Return the rows of a table, encoded."""
        engine, after, limit = self.engine, request.after, request.limit
        match request.what:
            case "leaderboard":
                if self._leaderboard[0] != engine.seq:
                    self._rows_told += len(engine.accounts)
                    self._leaderboard = engine.seq, engine.leaderboard()
                return _json(self._leaderboard[1][:limit])
            case "instruments":
                listings = list(engine.listings.values())[:limit]
                return (
                    _INSTRUMENT.dump_json(
                        listing.as_told(), exclude_defaults=True
                    ).decode()
                    for listing in listings
                )
            case "book":
                return [self._book(request.symbol)]
            case "trades":
                symbol = engine.listing(request.symbol).instrument.symbol
                trades = self.history.trades(symbol, after, limit)
                return map(encode, trades)
            case "candles":
                symbol = engine.listing(request.symbol).instrument.symbol
                return _json(
                    self.history.candles(
                        symbol, request.interval, after, limit
                    )
                )
        assert session is not None, "only public tables go to nobody"
        account = engine.accounts[session.account]
        if request.symbol is not None:
            engine.listing(request.symbol)
        match request.what:
            case "account":
                return [encode(engine.account_report(account))]
            case "positions":
                rows = engine.positions(account, request.symbol)
                return _json(rows[:limit])
            case "fills":
                if request.symbol is not None:
                    kept = len(self.history.account(account.name).fills)
                    self._rows_told += kept // ORDERS_PER_ROW
                return self.history.fills(
                    account.name, request.symbol, after, limit
                )
            case "orders":
                orders = [
                    order
                    for order in account.orders.values()
                    if request.symbol in (None, order.symbol)
                ]
                self._rows_told += len(account.orders) // ORDERS_PER_ROW
                chosen = page(orders, lambda o: o.order_id, after, limit)
                return map(encode, engine.order_reports(chosen))
            case _:
                assert_never(request.what)

    # Within

    def _apply(
        self, account: str, session_id: str, action: Action, now: int
    ) -> list[Output]:
        """Stamp an action as the next command and apply it.

        Time passes by command: what is due comes before what is stamped,
        save for a restart, which happened before.
        """
        engine = self.engine
        ts = now if now > engine.ts else engine.ts + 1
        if ts >= engine.earliest and action.__class__ not in (
            TimePassed,
            Restart,
        ):
            ts = self._fire(now)
        seq = engine.seq + 1
        command = Command(seq, ts, account, session_id, action)
        try:
            outputs = engine.apply(command)
        except Exception as error:
            self._is_broken = True
            error.add_note(f"while applying {command}")
            raise
        self._seq = seq
        if self._durable:
            self._applied.append(command)
        return outputs

    def _fire(self, now: int) -> int:
        """Fire every deadline that is due; return the next command's ts."""
        engine = self.engine
        while True:
            ts = now if now > engine.ts else engine.ts + 1
            due = engine.next_deadline
            if due is None or due > ts:
                return ts
            self._tell()  # of what was before
            self._route(self._apply("", "", TimePassed(), ts))

    def _broadcast(self, news: Iterable[Status]) -> None:
        for status in news:
            text = encode(status)
            for session in self.sessions:
                session.send(text)
            if status.symbol is not None:
                self.feed.stir(status.symbol)  # a reset clears it

    def _flush_feed(self) -> None:
        self._flushed_ts = self._now()
        if not self._is_broken:
            self.feed.flush(self.engine.take_book_updates())

    def _reply(
        self, session: Session, request: Request | Error, event: Event
    ) -> None:
        session.send(with_id(encode(event), request.id))

    def _log_out(self, session: Session) -> None:
        others = self._online[session.account]
        del others[session]
        if not others:
            del self._online[session.account]
        session.account = session.session_id = ""
        session.key, session.is_admin, session.buckets = None, False, {}
        session.counts = self.requests[""]

    def _symbols(self, symbols: Iterable[str] | None) -> list[str]:
        """Return the symbols asked for, each once; all where none is."""
        if symbols is None:
            return list(self.engine.listings)
        chosen = list(dict.fromkeys(symbols))
        for symbol in chosen:
            self.engine.listing(symbol)
        return chosen

    def _hand_out(self, texts: list[str], readers: list[Session]) -> None:
        """Send public messages, framed once, to many sessions.

        They leave before what sessions are sent from now on, and after what
        some of them have been sent.
        """
        frames = self._make_frames(texts)
        late = self._outgoing.keys() & readers
        if late:
            for session in late:
                session.push(frames)
            readers = [session for session in readers if session not in late]
        self._broadcasts.append((frames, readers))

    def _snapshot(self, symbol: str) -> BookUpdate:
        return self.engine.snapshot(self.engine.listing(symbol))

    def _ticker(self, symbol: str) -> Ticker:
        return self.engine.ticker(self.engine.listing(symbol), self._now())

    def _note(self, account: str, placed: Exec) -> None:
        assert self._placed is not None
        price = "market" if placed.price is None else f"@ {placed.price}"
        self._placed.lines.append(
            f"{account} {placed.side} {placed.qty} {placed.symbol} {price}"
            f" is order {placed.order_id}"
        )
        self._placed.symbols[placed.symbol] = None

    def _report(self) -> str:
        """Return the new orders and their books as text, for debug mode."""
        if self._placed is None or not self._placed.lines:
            return ""
        books = [
            self.engine.listings[symbol].book.render(DEBUG_LEVELS)
            for symbol in self._placed.symbols
        ]
        report = "\n".join(self._placed.lines + books) + "\n\n"
        self._placed = _Placed()
        return report


def _is_refused_anyway(session: Session, request: Request | Error) -> bool:
    """Whether a reason applies that goes before that of too many requests."""
    if isinstance(request, Login):
        return bool(session.account)
    if session.account:
        return type(request) is Error
    if isinstance(request, Get):
        return request.what in PRIVATE_TABLES
    return type(request) is Error or isinstance(request, COMMANDS)


def _json(rows: Iterable[object]) -> Iterable[str]:
    return (to_json(row).decode() for row in rows)
