"""The text language: upper case, fields parted by one blank."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from exchange.doors.challenge.messages import (
    CASH,
    DIRS,
    UNKNOWN_VERB,
    Dialect,
    Malformed,
    Message,
    read_add,
    read_cancel,
    read_convert,
    read_hello,
)
from orderbook import PriceLevel

_NUMBER = re.compile(r"-?[0-9]+")


class Text:
    """Reads and writes lines of text, in one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    # In ----------------------------------------------------------------------

    def read(self, line: bytes) -> Message:
        """Return what a line says; further fields are ignored."""
        verb, *fields = line.decode("ascii", "replace").split() or [""]
        padded: list[str | None] = [*fields, *[None] * 5]
        match verb:
            case "HELLO":
                return read_hello(padded[0])
            case "ADD":
                order_id, symbol, side, price, size = padded[:5]
                return read_add(
                    _number(order_id),
                    symbol,
                    side,
                    _number(price),
                    _number(size),
                )
            case "CONVERT":
                order_id, symbol, side, size = padded[:4]
                return read_convert(
                    _number(order_id), symbol, side, _number(size)
                )
            case "CANCEL":
                return read_cancel(_number(padded[0]))
        return Malformed(UNKNOWN_VERB)

    def is_cancel(self, line: bytes) -> bool:
        """Whether a line says to cancel."""
        return line.split(None, 1)[:1] == [b"CANCEL"]

    # Out ---------------------------------------------------------------------

    def hello(
        self, cash: int, positions: Sequence[tuple[str, int]], is_open: bool
    ) -> bytes:
        """Return the answer to a hello."""
        words = ["HELLO"]
        if self._dialect == "2015":
            words.append("OPEN" if is_open else "CLOSED")
        if self._dialect == "2017":
            positions = sorted([*positions, (CASH, cash)])
        else:
            words.append(str(cash))
        words += [f"{symbol}:{position}" for symbol, position in positions]
        return _line(words)

    def opened(self, symbols: Iterable[str]) -> bytes:
        """Return that symbols began to trade."""
        if self._dialect == "2015":
            return b"MARKET_OPEN\n"
        return _line(["OPEN", *symbols])

    def closed(self, symbols: Iterable[str]) -> bytes:
        """Return that symbols ceased to trade."""
        if self._dialect == "2015":
            return b"MARKET_CLOSED\n"
        return _line(["CLOSE", *symbols])

    def book(
        self,
        symbol: str,
        bids: Sequence[PriceLevel],
        asks: Sequence[PriceLevel],
    ) -> bytes:
        """Return the top of a book."""
        buy = [f"{price}:{size}" for price, size in bids]
        sell = [f"{price}:{size}" for price, size in asks]
        return _line(["BOOK", symbol, "BUY", *buy, "SELL", *sell])

    def trade(self, symbol: str, price: int, size: int) -> bytes:
        """Return a public trade."""
        return f"TRADE {symbol} {price} {size}\n".encode()

    def ack(self, order_id: int) -> bytes:
        """Return that an order was accepted, or a conversion made."""
        return b"ACK %d\n" % order_id

    def reject(self, order_id: int, word: str) -> bytes:
        """Return that an add or convert was refused."""
        return f"REJECT {order_id} {word}\n".encode()

    def fill(
        self, order_id: int, symbol: str, side: str, price: int, size: int
    ) -> bytes:
        """Return a fill of an own order."""
        text = f"FILL {order_id} {symbol} {DIRS[side]} {price} {size}\n"
        return text.encode()

    def out(self, order_id: int) -> bytes:
        """Return that an order is off the book."""
        return b"OUT %d\n" % order_id

    def error(self, text: str) -> bytes:
        """Return a complaint that belongs to no order."""
        return f"ERROR {text}\n".encode()


def _line(words: Iterable[str]) -> bytes:
    return f"{' '.join(words)}\n".encode()


def _number(word: str | None) -> int | None:
    if word is None or not _NUMBER.fullmatch(word):
        return None
    return int(word)
