"""What a challenge bot says, and how the doors' languages differ.

A language reads one line and writes lines. `check_add` and its like judge the
fields that both languages share, in the order in which a line has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from orderbook import PriceLevel, Side

Dialect: TypeAlias = Literal["2015", "2016", "2017"]
ID_MAX = 2**64 - 1
NUMBER_MAX = 999_999  # of prices and sizes
CASH = "USD"  # the symbol that stands for cash; no instrument has it
SIDES: dict[object, Side] = {"BUY": "buy", "SELL": "sell"}
DIRS: dict[str, str] = {"buy": "BUY", "sell": "SELL"}
TEAM = re.compile(r"[A-Z]{1,32}")

# Texts of errors. Bots print them; one compares the first.
UNKNOWN_VERB = "PROTOCOL_ERROR:MALFORMED unknown verb"
NOT_JSON = "PROTOCOL_ERROR:MALFORMED not a JSON object"
BAD_ID = "PROTOCOL_ERROR:BAD_ID order_id must be 0 to 2**64-1"
BAD_TEAM = "PROTOCOL_ERROR:BAD_TEAM a team is 1 to 32 letters A to Z"
NO_HELLO = "PROTOCOL_ERROR:NO_HELLO say hello first"
SECOND_HELLO = "PROTOCOL_ERROR:SECOND_HELLO this connection has said hello"
TOO_LONG = "PROTOCOL_ERROR:TOO_LONG a line has at most 4096 bytes"
RATE_LIMIT = "RATE_LIMIT"
IGNORED = b""  # stands for lines that were ignored; no line is empty
IDLE = "IDLE"


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message; ``team`` None: it is no name of a team."""

    team: str | None


@dataclass(frozen=True, slots=True)
class Add:
    """A limit order that rests until it is filled or canceled."""

    order_id: int
    symbol: str
    side: Side
    price: int
    size: int


@dataclass(frozen=True, slots=True)
class Convert:
    """BUY: receive the symbol and give its basket; SELL: the reverse."""

    order_id: int
    symbol: str
    side: Side
    size: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel an order; the number is answered whatever it is."""

    order_id: int


@dataclass(frozen=True, slots=True)
class Faulty:
    """An add or convert with a valid id; ``word`` says what is wrong."""

    order_id: int
    word: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line that belongs to no order; ``text`` says what is wrong."""

    text: str
    is_last: bool = False  # the connection ends with it


Message: TypeAlias = Hello | Add | Convert | Cancel | Faulty | Malformed


class Language(Protocol):
    """Reads the lines of a bot, and writes the lines that it gets.

    Written lines are ASCII and end with a newline. A language knows the
    dialect, and never writes a word of another one.
    """

    def read(self, line: bytes) -> Message:
        """Return what a line without its end says; never raises."""

    def is_cancel(self, line: bytes) -> bool:
        """Whether a line says to cancel; quick if it does not."""

    def hello(
        self, cash: int, positions: Sequence[tuple[str, int]], is_open: bool
    ) -> bytes:
        """Return the answer to a hello; positions by sorted symbol."""

    def opened(self, symbols: Iterable[str]) -> bytes:
        """Return that symbols began to trade."""

    def closed(self, symbols: Iterable[str]) -> bytes:
        """Return that symbols ceased to trade."""

    def book(
        self,
        symbol: str,
        bids: Sequence[PriceLevel],
        asks: Sequence[PriceLevel],
    ) -> bytes:
        """Return the top of a book, best first."""

    def trade(self, symbol: str, price: int, size: int) -> bytes:
        """Return a public trade."""

    def ack(self, order_id: int) -> bytes:
        """Return that an order was accepted, or a conversion made."""

    def reject(self, order_id: int, word: str) -> bytes:
        """Return that an add or convert was refused."""

    def fill(
        self, order_id: int, symbol: str, side: str, price: int, size: int
    ) -> bytes:
        """Return a fill of an own order; ``side`` is "buy" or "sell"."""

    def out(self, order_id: int) -> bytes:
        """Return that an order is off the book."""

    def error(self, text: str) -> bytes:
        """Return a complaint that belongs to no order."""


def read_hello(team: Any) -> Message:
    """Return a hello of this team."""
    is_name = isinstance(team, str) and TEAM.fullmatch(team) is not None
    return Hello(team if is_name else None)


def read_add(
    order_id: Any, symbol: Any, side: Any, price: Any, size: Any
) -> Message:
    """Return an order, or its first fault in the order of the fields."""
    if not _is_within(order_id, 0, ID_MAX):
        return Malformed(BAD_ID)
    if not isinstance(symbol, str):
        return Faulty(order_id, "BAD_SYMBOL")
    if not (isinstance(side, str) and side in SIDES):
        return Faulty(order_id, "BAD_DIR")
    if not _is_within(price, 1, NUMBER_MAX):
        return Faulty(order_id, "BAD_PRICE")
    if not _is_within(size, 1, NUMBER_MAX):
        return Faulty(order_id, "BAD_SIZE")
    return Add(order_id, symbol, SIDES[side], price, size)


def read_convert(order_id: Any, symbol: Any, side: Any, size: Any) -> Message:
    """Return a conversion, or its first fault."""
    added = read_add(order_id, symbol, side, 1, size)
    if isinstance(added, Add):
        return Convert(order_id, symbol, added.side, size)
    return added


def read_cancel(order_id: Any) -> Message:
    """Return a cancel of any whole number."""
    return Cancel(order_id) if type(order_id) is int else Malformed(BAD_ID)


def _is_within(value: Any, least: int, most: int) -> bool:
    """Whether a value is a whole number in these bounds, and no boolean."""
    return type(value) is int and least <= value <= most
