"""The names of streams, and what they stand for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from exchange.doors.spot.candles import INTERVALS
from exchange.doors.spot.errors import SHOWN, SpotError
from exchange.doors.spot.values import Listed, Symbols
from orderbook import Channel

TICKS_PER_S = 10  # looks at what is due
_DEPTH = re.compile(r"depth(5|10|20)?(@100ms|@1000ms)?")
_KLINE = re.compile(r"kline_(.+)")
ALL = {"!miniTicker@arr": "miniTicker", "!ticker@arr": "ticker"}
Kind: TypeAlias = Literal[
    "trade",
    "aggTrade",
    "depth",
    "levels",
    "bookTicker",
    "kline",
    "miniTicker",
    "ticker",
]
# Which channels of the feed a kind needs.
NEEDS: dict[Kind, tuple[Channel, ...]] = {
    "trade": ("trades",),
    "aggTrade": ("trades",),
    "depth": ("book",),
    "levels": ("book",),
    "bookTicker": ("book",),
}


@dataclass(frozen=True, slots=True)
class Stream:
    """What one name stands for. ``listed`` None: all symbols."""

    name: str
    kind: Kind
    listed: Listed | None
    levels: int = 0
    interval: str = ""
    ticks: int = TICKS_PER_S  # from one event to the next, of some kinds


def read_stream(text: str, symbols: Symbols) -> Stream:
    """Return the stream of a name; raises SpotError."""
    if text in ALL:
        kind: Any = ALL[text]
        return Stream(text, kind, None)
    symbol, _, what = text.partition("@")
    listed = symbols.by_name.get(symbol.upper())
    if listed is None:
        raise _unknown(text)
    name = f"{listed.name.lower()}@{what}"
    if what in ("trade", "aggTrade", "bookTicker", "miniTicker", "ticker"):
        plain: Any = what
        return Stream(name, plain, listed)
    depth = _DEPTH.fullmatch(what)
    if depth is not None:
        ticks = 1 if depth[2] == "@100ms" else TICKS_PER_S
        if depth[1]:
            return Stream(name, "levels", listed, int(depth[1]), ticks=ticks)
        return Stream(name, "depth", listed, ticks=ticks)
    kline = _KLINE.fullmatch(what)
    if kline is not None and kline[1] in INTERVALS:
        return Stream(name, "kline", listed, interval=kline[1])
    raise _unknown(text)


def _unknown(text: str) -> SpotError:
    return SpotError(2, f"Invalid request: no stream {text[:SHOWN]}")
