"""The link of one challenge bot: its ids, its open orders, its books.

It gets the texts that a native link gets, and queues the lines that they
become for its bot. Ids are those of this connection; orders of others are
none of its business, and nor are those of other sessions of its account.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json

from exchange.doors.challenge import messages
from exchange.doors.challenge.audience import Audience
from exchange.doors.challenge.books import Books
from exchange.doors.challenge.common import Common
from exchange.doors.challenge.lines import Connection
from exchange.doors.challenge.messages import (
    Add,
    Cancel,
    Convert,
    Faulty,
    Hello,
    Malformed,
    Message,
)
from exchange.gateway.link import Deferred, Link
from exchange.gateway.outbox import FLOODING
from orderbook import Cancel as NativeCancel
from orderbook import Convert as NativeConvert
from orderbook import Error, Login, Place, Request, Subscribe

# Bytes that wait for the disk above which books wait too. A bot that reads
# ahead into a buffer of this size loses what does not fit.
BOOKS_SEALED = 8 * 1024
RATE_LIMIT_US = 1_000_000  # from one error that says so to the next
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


class ChallengeLink(Link):
    """One bot. Its door limits its requests: see `Common.buckets_of`."""

    is_limited_by_door = True
    line: Connection

    def __init__(
        self,
        connection: Connection,
        common: Common,
        audience: Audience,
    ) -> None:
        super().__init__(connection, audience, common.outgoing)
        self.line = connection
        self._common = common
        self._language = audience.language
        # 2015: the market opens and closes as a whole, and a hello is followed
        # by the books without orders too.
        self._is_one_market = common.terms.dialect == "2015"
        self._buckets = common.buckets_of("")
        self._limited_until = 0  # until then no RATE_LIMIT is sent
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
        self._books = Books(common, audience)

    # In ----------------------------------------------------------------------

    def receive(self, lines: list[bytes], now: int) -> None:
        """Put lines into the inbox, and ignore those beyond the rate.

        They are not even read, and one error a second says so in their place.
        """
        now_us = self._common.now_us()
        kept: list[bytes] = []
        for line in lines:
            bucket = self._buckets[self._language.is_cancel(line)]
            if not bucket.take(now_us):
                kept.append(line)
                continue
            self.line.is_beyond_rate = True
            self.counts[Deferred] += 1  # the figures name who floods
            self._common.count_refusal("rate_limited")
            if now_us >= self._limited_until:
                self._limited_until = now_us + RATE_LIMIT_US
                kept.append(messages.IGNORED)
        super().receive(kept, now)

    def resolve(self, deferred: Deferred) -> Sequence[Request | Error]:
        """Return native requests, or answer at once and return none."""
        self.release_outs()
        message = deferred.message
        self._asked = message  # type: ignore[assignment]
        if isinstance(message, Malformed):
            self._complain(message.text)
            if message.is_last:
                self._common.cut(self, FLOODING, "the line is too long")
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

    def _hello(self, hello: Hello) -> Sequence[Request | Error]:
        if self.account:
            self._complain(messages.SECOND_HELLO)
            return ()
        if hello.team is None:
            self._complain(messages.BAD_TEAM)
            return ()
        if self._common.vouches_for(hello.team, self.line.remote):
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
        listing = self._common.engine.listings[add.symbol]
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
        if message.symbol not in self._common.engine.listings:
            return "BAD_SYMBOL"
        if message.order_id in self._orders:
            return "DUPLICATE_ID"
        is_open = self._common.is_open(message.symbol) and not self._is_over
        return "" if is_open else "TRADING_CLOSED"

    def _complain(self, text: str) -> None:
        self._common.count_refusal("bad_request")
        self.push(self._language.error(text))

    def _reject(self, order_id: int, word: str) -> None:
        self._common.count_refusal("bad_request")
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
                    self._common.note_change(from_json(text)["symbol"])
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
        if self._ended and not self._common.engine.work:
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
                listing = self._common.engine.listings[asked.symbol]
                bounds = listing.instrument
                is_within = bounds.min_price <= asked.price <= bounds.max_price
                word = "LIMIT:PRICE_BAND" if is_within else "BAD_PRICE"
            self.push(self._language.reject(asked.order_id, word))
        else:
            self.push(self._language.error(f"HELLO:{code.upper()}"))

    # The market --------------------------------------------------------------

    def _greet(self, account: dict[str, Any]) -> None:
        """Answer a hello with the state of the account and of the market."""
        common, language = self._common, self._language
        engine = common.engine
        self.line.is_known = True
        self._buckets = common.buckets_of(self.account)
        self._round = engine.round
        symbols = sorted(engine.listings)
        self._open = dict.fromkeys(filter(common.is_open, symbols))
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
        self.push(self._books.begin(symbols, is_all=self._is_one_market))

    def _phase_changed(self, status: dict[str, Any]) -> None:
        """Note that an instrument opened or closed."""
        symbol, phase = status.get("symbol"), status.get("phase")
        if symbol is None or phase is None or self._open is None:
            return
        if status.get("round", 1) != self._round and not self._is_over:
            self._is_over = True
            self._note_change(status["ts"], closed=[*self._open])
            self._common.end_round(self, self.line)
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
        if self._change is not None:
            before, once_opened, _ = self._change
            # What opened and closed again is told in this order.
            if before != ts or not set(closed).isdisjoint(once_opened):
                self._tell_change()
        if self._change is None:
            self._change = ts, [], []
        self._change[1].extend(opened)
        self._change[2].extend(closed)
        if closed:
            self._common.note_close()
        for symbol in closed:
            del self._open[symbol]
            if not self._common.has_orders(symbol):
                self._books.skip(symbol)
        self._open |= dict.fromkeys(opened)
        self._outgoing[self] = None

    def _tell_change(self) -> None:
        """Send what opened and closed, then the orders that ended by it."""
        assert self._change is not None and self._open is not None
        (_, opened, closed), self._change = self._change, None
        is_one = self._is_one_market
        if closed and not (is_one and self._open):
            self.push(self._language.closed(sorted(closed)))
        self._tell_outs()
        if opened and not (is_one and len(self._open) > len(opened)):
            self.push(self._language.opened(sorted(opened)))

    def close_all(self) -> None:
        """Tell that all that is open closes, because the exchange stops."""
        if self._open:
            ts = self._common.engine.ts
            self._note_change(ts, closed=[*self._open])

    # By time -----------------------------------------------------------------

    def send_books(self, changed: Sequence[str]) -> bool:
        """Send the books that are due; return whether some must wait."""
        if self._open is None or self._is_over:
            return False
        self._books.owe(changed)
        if self._books.is_owed and not self._is_behind:
            self.push(self._books.due(self._open))
        return self._books.is_owed

    @property
    def _is_behind(self) -> bool:
        """Whether books wait, because the bot does not read what it has."""
        return self.line.buffered > 0 or self.sealed_bytes > BOOKS_SEALED

    def send_something(self) -> None:
        """Send one of the books in turn, or an error if all are empty.

        A bot whose socket has a time-out ends when it gets nothing.
        """
        line = self._books.next()
        self.push(line or self._language.error(messages.IDLE))
