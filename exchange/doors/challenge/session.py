"""The link of one challenge bot: its ids, its open orders, its books.

It gets the texts that a native link gets, and queues the lines that they
become for its bot. Ids are those of this connection; orders of others are
none of its business, and nor are those of other sessions of its account.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from pydantic_core import from_json

from exchange.doors.challenge import messages
from exchange.doors.challenge.lines import Connection
from exchange.doors.challenge.messages import (
    Add,
    Cancel,
    Convert,
    Faulty,
    Hello,
    Language,
    Malformed,
    Message,
)
from exchange.gateway.link import Deferred, Link
from exchange.gateway.outbox import FLOODING
from exchange.gateway.rates import Bucket
from exchange.market.engine import Engine
from orderbook import Cancel as NativeCancel
from orderbook import Convert as NativeConvert
from orderbook import Error, Login, Place, Request, Subscribe

# Unsent bytes above which books wait: a bot that reads ahead into a buffer of
# this size loses what does not fit.
BOOKS_UNREAD = 8 * 1024
RATE_LIMIT_S = 1.0  # between two errors that say so
REPLY = 1  # the ``id`` of all requests: one is carried out at a time
# Words of rejects, by the code of the native refusal.
WORDS = {
    "busy": "BUSY",
    "forbidden": "SUSPENDED",
    "unknown_symbol": "BAD_SYMBOL",
    "no_conversion": "NO_CONVERSION",
    "market_closed": "TRADING_CLOSED",
    "invalid_qty": "BAD_SIZE",
    "too_many_orders": "LIMIT:ORDERS",
    "position_limit": "LIMIT:POSITION",
    "insufficient_funds": "LIMIT:CASH",
}
# Orders that end for these reasons may do so by a change of phase, which is
# told first.
ENDS_WITH_PHASE = ("closed", "admin")


class Shared(Protocol):
    """What all bots with one language share."""

    language: Language
    engine: Engine
    # 2015: the market opens and closes as a whole, and a hello is followed by
    # the books without orders too.
    is_one_market: bool

    def decode(self, message: bytes) -> Sequence[Deferred]:
        """Return what a line says."""

    def encode(self, texts: list[str]) -> bytes:
        """Return public texts as lines."""

    def book(self, symbol: str) -> bytes:
        """Return the line of a whole book as it is now."""

    def now_s(self) -> float:
        """Return the time of the loop."""

    def buckets_of(self, account: str) -> tuple[Bucket, Bucket]:
        """Return the buckets of an account's messages and cancels."""

    def vouches_for(self, account: str, address: str) -> bool:
        """Whether this address may use an account without its key."""

    def changed(self, symbol: str) -> None:
        """Note that a book may have changed."""

    def refused(self) -> None:
        """Count a line that became no request."""

    def closed(self) -> None:
        """Note that trading ended."""

    def end(self, link: ChallengeLink) -> None:
        """Hang up because a round is over."""

    def cut(self, link: ChallengeLink, code: int, reason: str) -> None:
        """Hang up on a bot after what was sent to it."""


class ChallengeLink(Link):
    """One bot. Its door limits its requests: see `Shared.buckets_of`."""

    is_limited_by_door = True
    line: Connection

    def __init__(
        self,
        connection: Connection,
        shared: Shared,
        outgoing: dict[Link, None],
    ) -> None:
        super().__init__(connection, shared, outgoing)
        self.line = connection
        self._shared = shared
        self._language = shared.language
        self._buckets = shared.buckets_of("")
        self._limited_at = -RATE_LIMIT_S  # when a RATE_LIMIT was last sent
        self._admitted: Deferred | None = None  # the last that had a token
        self._asked: Message = Malformed("")  # what is being carried out
        # Own open orders: the bot's id and ours, both ways.
        self._orders: dict[int, int] = {}
        self._ids: dict[int, int] = {}
        # Symbols that are open, as the bot knows; None: no hello yet.
        self._open: dict[str, None] | None = None
        self._round = 0
        self._is_over = False  # the round ended; it will be hung up on
        # A change of phases that is not yet told: its time, and both lists.
        self._change: tuple[int, list[str], list[str]] | None = None
        self._ended: list[int] = []  # own orders whose end follows it
        self._owed: dict[str, None] = {}  # symbols whose book has changed
        self._sent_s: dict[str, float] = {}  # when a book was last sent
        self._last_book: dict[str, bytes] = {}
        self._turn = 0  # of books that are sent because nothing happens

    # In ----------------------------------------------------------------------

    def resolve(self, deferred: Deferred) -> Sequence[Request | Error]:
        """Return native requests, or answer at once and return none."""
        self.release_outs()
        message = deferred.message
        if deferred is not self._admitted:
            if not self._has_token(message):
                return ()
            self._admitted = deferred
        self._asked = message  # type: ignore[assignment]
        if isinstance(message, Malformed):
            self._complain(message.text)
            if message.is_last:
                self._shared.cut(self, FLOODING, "the line is too long")
        elif isinstance(message, Hello):
            return self._hello(message)
        elif not self.account:
            self._complain(messages.NO_HELLO)
        elif isinstance(message, Add):
            return self._add(message)
        elif isinstance(message, Cancel):
            order_id = self._orders.get(message.order_id)
            if order_id is not None:
                return [NativeCancel(id=REPLY, order_id=order_id)]
            self.push(self._language.out(message.order_id))
        elif isinstance(message, Convert):
            return self._convert(message)
        elif isinstance(message, Faulty):
            self._reject(message.order_id, message.word)
        return ()

    def _has_token(self, message: object) -> bool:
        """Whether a message is within the rate; say so once a second if not.

        What is beyond is ignored.
        """
        bucket = self._buckets[isinstance(message, Cancel)]
        now_s = self._shared.now_s()
        if not bucket.take(int(now_s * 1e6)):
            return True
        if now_s - self._limited_at >= RATE_LIMIT_S:
            self._limited_at = now_s
            self._complain(messages.RATE_LIMIT)
        return False

    def _hello(self, hello: Hello) -> Sequence[Request | Error]:
        if self.account:
            self._complain(messages.SECOND_HELLO)
            return ()
        if hello.team is None:
            self._complain(messages.BAD_TEAM)
            return ()
        if self._shared.vouches_for(hello.team, self.line.remote):
            self.vouched_for = hello.team
        return [
            Login(id=REPLY, user=hello.team),
            Subscribe(id=REPLY, channels=("book", "trades")),
        ]

    def _add(self, add: Add) -> Sequence[Request | Error]:
        word = self._fault_of(add)
        if word:
            self._reject(add.order_id, word)
            return ()
        listing = self._shared.engine.listings[add.symbol]
        self_trades = listing.instrument.self_trades
        return [
            Place(
                id=REPLY,
                symbol=add.symbol,
                side=add.side,
                qty=add.size,
                price=add.price,
                stp="none" if self_trades else "cancel_oldest",
            )
        ]

    def _convert(self, convert: Convert) -> Sequence[Request | Error]:
        word = self._fault_of(convert)
        if word:
            self._reject(convert.order_id, word)
            return ()
        return [
            NativeConvert(
                id=REPLY,
                symbol=convert.symbol,
                side=convert.side,
                qty=convert.size,
            )
        ]

    def _fault_of(self, message: Add | Convert) -> str:
        """Return what the door refuses by itself; "": nothing.

        Orders gather natively in phases in which nothing trades; a bot's do
        not.
        """
        listing = self._shared.engine.listings.get(message.symbol)
        if listing is None:
            return "BAD_SYMBOL"
        if message.order_id in self._orders:
            return "DUPLICATE_ID"
        is_open = listing.phase == "open" and not self._is_over
        return "" if is_open else "TRADING_CLOSED"

    def _complain(self, text: str) -> None:
        self._shared.refused()
        self.push(self._language.error(text))

    def _reject(self, order_id: int, word: str) -> None:
        self._shared.refused()
        self.push(self._language.reject(order_id, word))

    # Out ---------------------------------------------------------------------

    def send(self, *texts: str) -> None:
        """Queue the lines that native texts become, if any."""
        for text in texts:
            match text[9 : text.index('"', 9)]:  # {"type":"exec",...
                case "exec":
                    self._executed(from_json(text))
                case "status":
                    self._phase_changed(from_json(text))
                case "book" if not isinstance(self._asked, Hello):
                    # It was slow, and gets what it missed.
                    self._shared.changed(from_json(text)["symbol"])
                case "account":
                    if self.account and self._open is None:
                        self._greet(from_json(text))
                case "ok":
                    if isinstance(self._asked, Convert):
                        self.push(self._language.ack(self._asked.order_id))
                case "error":
                    self._refused(from_json(text))

    def push(self, frames: bytes) -> None:
        """Queue lines, after a change of phases that is not yet told."""
        if self._change is not None:
            self._tell_change()
        if frames:
            super().push(frames)

    def seal(self) -> bytes:
        """Empty the outbox and return what was in it."""
        if self._change is not None:
            self._tell_change()
        self.release_outs()
        return super().seal()

    def release_outs(self) -> None:
        """Tell the ends of orders, unless a change of phases is under way."""
        if self._ended and not self._shared.engine.work:
            self._tell_outs()

    def _executed(self, report: dict[str, Any]) -> None:
        """Tell what happened to an own order."""
        order_id, asked = report["order_id"], self._asked
        kind = report["exec_type"]
        if kind == "new" and "id" in report and isinstance(asked, Add):
            self._orders[asked.order_id] = order_id
            self._ids[order_id] = asked.order_id
            self.push(self._language.ack(asked.order_id))
            return
        own_id = self._ids.get(order_id)
        if own_id is None:
            return
        if kind == "trade":
            self.push(
                self._language.fill(
                    own_id,
                    report["symbol"],
                    report["side"],
                    report["last_price"],
                    report["last_qty"],
                )
            )
        if not report["leaves_qty"]:
            if report.get("reason") in ENDS_WITH_PHASE:
                self._ended.append(order_id)
                self._outgoing[self] = None
            else:
                self._tell_out(order_id)

    def _tell_out(self, order_id: int) -> None:
        """Tell that an order is off the book; its id is free again."""
        own_id = self._ids.pop(order_id)
        del self._orders[own_id]
        self.push(self._language.out(own_id))

    def _tell_outs(self) -> None:
        ended, self._ended = self._ended, []
        for order_id in ended:
            self._tell_out(order_id)

    def _refused(self, error: dict[str, Any]) -> None:
        """Tell that a native request was refused."""
        asked, code = self._asked, error["code"]
        if isinstance(asked, Cancel):
            self.push(self._language.out(asked.order_id))
        elif isinstance(asked, (Add, Convert)):
            word = WORDS.get(code, "BUSY")
            if code == "invalid_price" and isinstance(asked, Add):
                listing = self._shared.engine.listings[asked.symbol]
                bounds = listing.instrument
                is_within = bounds.min_price <= asked.price <= bounds.max_price
                word = "LIMIT:PRICE_BAND" if is_within else "BAD_PRICE"
            self.push(self._language.reject(asked.order_id, word))
        else:
            self.push(self._language.error(f"HELLO:{code.upper()}"))

    # The market --------------------------------------------------------------

    def _greet(self, account: dict[str, Any]) -> None:
        """Answer a hello with the state of the account and of the market."""
        shared, language = self._shared, self._language
        engine = shared.engine
        self.line.is_known = True
        self._buckets = shared.buckets_of(self.account)
        self._round = engine.round
        symbols = sorted(engine.listings)
        self._open = {
            s: None for s in symbols if engine.listings[s].phase == "open"
        }
        positions = account["positions"]
        self.push(
            language.hello(
                account["cash"],
                [(symbol, positions.get(symbol, 0)) for symbol in symbols],
                bool(self._open),
            )
        )
        if self._open:
            self.push(language.opened(self._open))
        for symbol in symbols:
            self._last_book[symbol] = shared.book(symbol)
            if shared.is_one_market or self._has_orders(symbol):
                self._send_book(symbol)

    def _phase_changed(self, status: dict[str, Any]) -> None:
        """Note that an instrument opened or closed."""
        symbol, phase = status.get("symbol"), status.get("phase")
        if symbol is None or phase is None or self._open is None:
            return
        if status.get("round", 1) != self._round and not self._is_over:
            self._is_over = True
            self._note_change(status["ts"], closed=[*self._open])
            self._shared.end(self)
        is_open = phase == "open" and not self._is_over
        if is_open and symbol not in self._open:
            self._note_change(status["ts"], opened=[symbol])
        elif not is_open and symbol in self._open:
            self._note_change(status["ts"], closed=[symbol])

    def _note_change(
        self,
        ts: int,
        *,
        opened: Sequence[str] = (),
        closed: Sequence[str] = (),
    ) -> None:
        """Collect what one command opens or closes."""
        assert self._open is not None
        if self._change is not None and self._change[0] != ts:
            self._tell_change()
        if self._change is None:
            self._change = ts, [], []
        self._change[1].extend(opened)
        self._change[2].extend(closed)
        for symbol in closed:
            del self._open[symbol]
        self._open |= dict.fromkeys(opened)
        self._outgoing[self] = None

    def _tell_change(self) -> None:
        """Send what opened and closed, then the orders that ended by it."""
        assert self._change is not None and self._open is not None
        (_, opened, closed), self._change = self._change, None
        is_one = self._shared.is_one_market
        if closed:
            self._shared.closed()
            if not (is_one and self._open):
                self.push(self._language.closed(sorted(closed)))
        self._tell_outs()
        if opened and not (is_one and len(self._open) > len(opened)):
            self.push(self._language.opened(sorted(opened)))

    def close_all(self) -> None:
        """Tell that all that is open closes, because the exchange stops."""
        if self._open:
            ts = self._shared.engine.ts
            self._note_change(ts, closed=[*self._open])

    # Books -------------------------------------------------------------------

    def owe(self, symbols: Sequence[str]) -> None:
        """Note that books have changed, if the bot gets any."""
        if self._open is not None and not self._is_over:
            self._owed |= dict.fromkeys(symbols)

    def send_books(self, now_s: float, pause_s: float) -> bool:
        """Send the books that are due; return whether some must wait.

        ``pause_s`` is the least time between two books of one symbol.
        """
        if self._owed and not self.is_behind:
            for symbol in list(self._owed):
                if now_s - self._sent_s.get(symbol, -pause_s) >= pause_s:
                    del self._owed[symbol]
                    self._send_change(symbol)
        return bool(self._owed)

    @property
    def is_behind(self) -> bool:
        """Whether the bot has too much unread for another book."""
        return self.sealed_bytes + self.line.buffered > BOOKS_UNREAD

    def send_something(self) -> None:
        """Send one of the books with orders in turn, or an error.

        A bot whose socket has a time-out ends when it gets nothing.
        """
        symbols = [
            s
            for s in sorted(self._shared.engine.listings)
            if self._has_orders(s)
        ]
        if symbols:
            self._turn += 1
            self._send_book(symbols[self._turn % len(symbols)])
        else:
            self.push(self._language.error(messages.IDLE))

    def _send_change(self, symbol: str) -> None:
        """Send a book that changed, unless it is that of a closed market."""
        assert self._open is not None
        is_shown = symbol in self._open or self._has_orders(symbol)
        if is_shown and self._shared.book(symbol) != self._last_book.get(
            symbol
        ):
            self._send_book(symbol)

    def _send_book(self, symbol: str) -> None:
        book = self._shared.book(symbol)
        self._sent_s[symbol] = self._shared.now_s()
        self._last_book[symbol] = book
        self.push(book)

    def _has_orders(self, symbol: str) -> bool:
        bid, ask = self._shared.engine.listings[symbol].book.top()
        return bid is not None or ask is not None
