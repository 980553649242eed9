"""The JSON language: one object on each line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic_core import from_json, to_json

from exchange.doors.challenge.messages import (
    CASH,
    DIRS,
    NOT_JSON,
    UNKNOWN_VERB,
    Cancel,
    Dialect,
    Malformed,
    Message,
    read_add,
    read_cancel,
    read_convert,
    read_hello,
)
from orderbook import PriceLevel


class Json:
    """Reads and writes lines of JSON, in one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    # In ----------------------------------------------------------------------

    def read(self, line: bytes) -> Message:
        """Return what a line says; unknown fields are ignored."""
        try:
            message = from_json(line, allow_inf_nan=False)
        except ValueError:
            return Malformed(NOT_JSON)
        if not isinstance(message, dict):
            return Malformed(NOT_JSON)
        get = message.get
        match get("type"):
            case "hello":
                return read_hello(get("team"))
            case "add":
                return read_add(
                    get("order_id"),
                    get("symbol"),
                    get("dir"),
                    get("price"),
                    get("size"),
                )
            case "convert":
                return read_convert(
                    get("order_id"), get("symbol"), get("dir"), get("size")
                )
            case "cancel":
                return read_cancel(get("order_id"))
        return Malformed(UNKNOWN_VERB)

    def is_cancel(self, line: bytes) -> bool:
        """Whether a line says to cancel; others have the word seldom."""
        return b'"cancel"' in line and isinstance(self.read(line), Cancel)

    # Out ---------------------------------------------------------------------

    def hello(
        self, cash: int, positions: Sequence[tuple[str, int]], is_open: bool
    ) -> bytes:
        """Return the answer to a hello."""
        if self._dialect == "2017":
            positions = sorted([*positions, (CASH, cash)])
        return _line(
            type="hello",
            cash=cash,
            symbols=[
                {"symbol": symbol, "position": position}
                for symbol, position in positions
            ],
            market_open=is_open,
        )

    def opened(self, symbols: Iterable[str]) -> bytes:
        """Return that symbols began to trade."""
        if self._dialect == "2015":
            return _line(type="market_open", open=True)
        return _line(type="open", symbols=[*symbols])

    def closed(self, symbols: Iterable[str]) -> bytes:
        """Return that symbols ceased to trade."""
        if self._dialect == "2015":
            return _line(type="market_open", open=False)
        return _line(type="close", symbols=[*symbols])

    def book(
        self,
        symbol: str,
        bids: Sequence[PriceLevel],
        asks: Sequence[PriceLevel],
    ) -> bytes:
        """Return the top of a book."""
        return _line(type="book", symbol=symbol, buy=bids, sell=asks)

    def trade(self, symbol: str, price: int, size: int) -> bytes:
        """Return a public trade."""
        return _line(type="trade", symbol=symbol, price=price, size=size)

    def ack(self, order_id: int) -> bytes:
        """Return that an order was accepted, or a conversion made."""
        return b'{"type":"ack","order_id":%d}\n' % order_id

    def reject(self, order_id: int, word: str) -> bytes:
        """Return that an add or convert was refused."""
        return _line(type="reject", order_id=order_id, error=word)

    def fill(
        self, order_id: int, symbol: str, side: str, price: int, size: int
    ) -> bytes:
        """Return a fill of an own order."""
        return _line(
            type="fill",
            order_id=order_id,
            symbol=symbol,
            dir=DIRS[side],
            price=price,
            size=size,
        )

    def out(self, order_id: int) -> bytes:
        """Return that an order is off the book."""
        return b'{"type":"out","order_id":%d}\n' % order_id

    def error(self, text: str) -> bytes:
        """Return a complaint that belongs to no order."""
        return _line(type="error", error=text)


def _line(**fields: Any) -> bytes:
    return to_json(fields) + b"\n"
