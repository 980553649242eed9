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
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from pydantic_core import to_json

from exchange.accounts import ORDERS_REMEMBERED
from exchange.engine import (
    Action,
    Command,
    Configure,
    Connect,
    Disconnect,
    Engine,
    Output,
    Restart,
    Shutdown,
    Tick,
)
from exchange.feed import Feed
from exchange.gate import Gate
from exchange.history import RESUME_EVENTS, History, page
from exchange.session import Peer, Session
from orderbook import (
    MAX_FRAME,
    MAX_INT,
    PROTOCOL_VERSION,
    AccountReport,
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
    Login,
    Ok,
    Ping,
    Place,
    Refused,
    Request,
    Status,
    Subscribe,
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


Closing: TypeAlias = tuple[Session, int, str]  # close code, reason


@dataclass(slots=True)
class Batch:
    """What leaves together: messages, then closings, then what to print."""

    messages: list[tuple[Session, list[str | bytes]]]
    closings: list[Closing]
    report: str


@dataclass(slots=True)
class _Placed:
    """What debug mode tells of a batch: its new orders and their books."""

    lines: list[str] = field(default_factory=list)
    symbols: dict[str, None] = field(default_factory=dict)


class Gateway:
    """The exchange without its sockets.

    ``now`` returns microseconds since the epoch; ``let_go`` is called with
    each batch that may leave; ``make_frames`` frames messages once for many
    readers.
    """

    def __init__(
        self,
        now: Callable[[], int],
        let_go: Callable[[Batch], None],
        make_frames: Callable[[list[str]], list[bytes]],
        debug: bool = False,
        durable: bool = False,
    ) -> None:
        self.engine = Engine()
        self.history = History()
        self.feed = Feed(self._snapshot, self._ticker, make_frames)
        self.sessions: dict[Session, None] = {}
        self._now = now
        self._durable = durable
        # In memory everything counts as committed: the gate stands open.
        self._committed = 0 if durable else MAX_INT
        self._gate: Gate[Batch] = Gate(let_go, self._committed)
        self._applied: list[Command] = []  # and not yet taken
        self._seq = 0  # of the last command applied without a failure
        self._is_broken = False  # one failed: the books cannot be trusted
        self.is_short_of_space = False
        self._outgoing: dict[Session, None] = {}
        self._online: dict[str, dict[Session, None]] = {}  # by account
        self._closings: list[Closing] = []
        self._placed = _Placed() if debug else None

    # Life

    def replay(self, commands: Iterable[Command]) -> None:
        """Apply again what a journal holds; nothing leaves."""
        for command in commands:
            for output in self.engine.apply(command):
                if not isinstance(output[1], (Error, Ok)):
                    self._route((output,))
            self._seq = command.seq
        self._flush_feed()

    def begin(self, market: Configure) -> None:
        """Open the market, or go on with the one that was replayed."""
        is_restart = self.engine.seq > 0
        listings = self.engine.listings
        if any(
            instrument.symbol not in listings
            or listings[instrument.symbol].instrument != instrument
            for instrument in market.instruments
        ):
            self._route(self._apply("", "", market))
        if is_restart:
            self._route(self._apply("", "", Restart()))
        self._flush_feed()

    def shut_down(self) -> None:
        """End every session in order, and say so."""
        self._route(self._apply("", "", Shutdown()))
        self._flush_feed()
        self.announce("the exchange is shutting down")
        for session in self.sessions:
            self._closings.append((session, 1001, "shutdown"))

    def announce(self, message: str) -> None:
        """Send a status to every connection."""
        status = encode(Status(ts=self._now(), message=message))
        for session in self.sessions:
            session.send(status)

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
        session = Session(peer, self._outgoing)
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
            self._route(self._apply(account, session_id, Disconnect()))

    def handle(self, session: Session, request: Request | Error) -> None:
        """Carry out one request of a session and queue what came of it."""
        try:
            match request:
                case Error():
                    session.send(encode(request))
                case (
                    Place() | Amend() | Cancel() | CancelAll() | CancelAfter()
                ):
                    self._execute(session, request)
                case Login():
                    self._login(session, request)
                case Subscribe():
                    self._subscribe(session, request)
                case Unsubscribe():
                    self.feed.unsubscribe(
                        session,
                        request.channels,
                        self._symbols(request.symbols),
                    )
                    self._reply(session, request, Ok(ts=self._now()))
                case Get():
                    ok = encode(Ok(ts=self._now()))
                    text = with_data(ok, self._rows(session, request))
                    session.send(with_id(text, request.id))
                case Ping():
                    self._reply(session, request, Ok(ts=self._now()))
                case _:
                    assert_never(request)
        except Refused as refusal:
            self._reply(session, request, refusal.as_error())

    # Time

    def tick(self) -> None:
        """Fire every deadline that is due."""
        self._fire()

    def heartbeat(self) -> None:
        """Tell every session what it should have got by now."""
        ts = self._now()
        for session in self.sessions:
            seq = self.feed.held(session)
            if session.account:
                seq["@"] = self.engine.accounts[session.account].seq
            session.send(encode(Heartbeat(ts=ts, seq=seq)))

    def publish(self) -> None:
        """Send off all that was queued since the last time, in one batch."""
        self._flush_feed()
        if not self._outgoing and not self._closings:
            return
        messages = [(s, s.seal()) for s in self._outgoing]
        self._outgoing.clear()
        closings, self._closings = self._closings, []
        batch = Batch(messages, closings, self._report())
        self._gate.hold(self._seq, batch)

    # Requests

    def _execute(
        self,
        session: Session,
        request: Place | Amend | Cancel | CancelAll | CancelAfter,
    ) -> None:
        account = session.account
        if not account:
            raise Refused("unauthorized", "log in first")
        if isinstance(request, (Place, Amend)):
            self._refuse_if_busy()
        outputs = self._apply(account, session.session_id, request)
        reply = outputs[0][1]
        text = encode(reply)
        session.send(with_id(text, request.id))
        if isinstance(reply, Exec):
            self.history.record(account, reply)
            for other in self._online[account]:
                if other is not session:
                    other.send(text)
            if self._placed is not None and reply.exec_type == "new":
                self._note(account, reply)
        self._route(outputs[1:])

    def _refuse_if_busy(self) -> None:
        """Refuse what may add to the book while the disk cannot follow."""
        if self.is_short_of_space:
            raise Refused(
                "busy",
                "the journal's disk is nearly full; cancels are taken",
                retry_after_ms=BUSY_RETRY_MS,
            )
        if self.engine.seq - self._committed >= COMMANDS_UNCOMMITTED:
            raise Refused(
                "busy",
                "the journal's disk is too slow; cancels are taken",
                retry_after_ms=BUSY_RETRY_MS,
            )

    def _login(self, session: Session, request: Login) -> None:
        if session.account:
            raise Refused(
                "bad_request",
                f"already logged in as {session.account}",
                field="user",
            )
        user, session_id = request.user, request.session or ""
        known = self.engine.accounts.get(user)
        is_known = known is not None and session_id in known.sessions
        if not is_known:
            session_id = secrets.token_hex(16)
        for other in list(self._online.get(user, ())):
            if other.session_id == session_id:
                self._log_out(other)
                self._closings.append((other, 4009, "session taken over"))
        self._route(
            self._apply(
                user, session_id, Connect(request.cancel_on_disconnect)
            )
        )
        account = self.engine.accounts[user]
        session.account, session.session_id = user, session_id
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
                limits={
                    "max_frame": MAX_FRAME,
                    "orders_per_s": 0,
                    "burst": 0,
                    "open_orders": 0,
                    "orders_remembered": ORDERS_REMEMBERED,
                    "resume_events": RESUME_EVENTS,
                },
                instruments=tuple(
                    listing.instrument
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
            for event in missed:
                session.send(encode(event))

    def _subscribe(self, session: Session, request: Subscribe) -> None:
        symbols = self._symbols(request.symbols)
        self._flush_feed()  # what came before is not for this reader
        self._reply(session, request, Ok(ts=self._now()))
        self.feed.subscribe(session, request.channels, symbols)

    def _rows(self, session: Session, request: Get) -> Iterable[str]:
        """Return the rows of a table, encoded."""
        engine, after, limit = self.engine, request.after, request.limit
        match request.what:
            case "leaderboard":
                return _json(engine.leaderboard()[:limit])
            case "instruments":
                listings = list(engine.listings.values())[:limit]
                return _json(listing.instrument for listing in listings)
            case "book":
                listing = engine.listing(request.symbol)
                return [encode(engine.snapshot(listing))]
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
        if not session.account:
            raise Refused("unauthorized", "log in first")
        account = engine.accounts[session.account]
        if request.symbol is not None:
            engine.listing(request.symbol)
        match request.what:
            case "account":
                return [encode(engine.account_report(account))]
            case "fills":
                fills = self.history.fills(
                    account.name, request.symbol, after, limit
                )
                return map(encode, fills)
            case "orders":
                orders = [
                    order
                    for order in account.orders.values()
                    if request.symbol in (None, order.symbol)
                ]
                rows = page(orders, lambda o: o.order_id, after, limit)
                return map(encode, engine.order_reports(rows))
            case _:
                assert_never(request.what)

    # Within

    def _fire(self) -> int:
        """Fire every deadline that is due; return the next command's ts.

        Time passes by command: what is due comes before what is stamped.
        """
        engine = self.engine
        while True:
            ts = max(engine.ts + 1, self._now())
            due = engine.next_deadline
            if due is None or due > ts:
                return ts
            self._route(self._step(ts, "", "", Tick()))

    def _apply(
        self, account: str, session_id: str, action: Action
    ) -> list[Output]:
        """Stamp an action as the next command and apply it."""
        return self._step(self._fire(), account, session_id, action)

    def _step(
        self, ts: int, account: str, session_id: str, action: Action
    ) -> list[Output]:
        seq = self.engine.seq + 1
        command = Command(seq, ts, account, session_id, action)
        try:
            outputs = self.engine.apply(command)
        except Exception as error:
            self._is_broken = True
            error.add_note(f"while applying {command}")
            raise
        self._seq = seq
        if self._durable:
            self._applied.append(command)
        return outputs

    def _route(self, outputs: Iterable[Output]) -> None:
        """Send events that are no replies to whom they concern."""
        for recipient, event in outputs:
            if isinstance(event, Trade):
                self.history.record_trade(event)
                self.feed.record(event)
                continue
            assert isinstance(event, (Exec, AccountReport))
            self.history.record(recipient, event)
            if recipient in self._online:
                text = encode(event)
                for session in self._online[recipient]:
                    session.send(text)

    def _flush_feed(self) -> None:
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

    def _symbols(self, symbols: Iterable[str] | None) -> list[str]:
        """Return the symbols asked for, all of them where none is."""
        if symbols is None:
            return list(self.engine.listings)
        for symbol in symbols:
            self.engine.listing(symbol)
        return list(symbols)

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


def _json(rows: Iterable[object]) -> Iterable[str]:
    return (to_json(row).decode() for row in rows)
