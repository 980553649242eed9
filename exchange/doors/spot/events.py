"""Events of public streams."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from exchange.doors.spot.candles import next_start
from exchange.doors.spot.market import ms
from exchange.doors.spot.values import ZERO, Listed
from exchange.journal.candles import Candle


@dataclass(slots=True)
class Changes:
    """The levels of a book that changed since ``before``."""

    before: int
    last: int
    bids: dict[int, int] = field(default_factory=dict)
    asks: dict[int, int] = field(default_factory=dict)

    def add(self, other: Changes) -> None:
        """Add what changed after this."""
        self.last = other.last
        self.bids |= other.bids
        self.asks |= other.asks


def trade_event(
    listed: Listed, trade: dict[str, Any], now_ms: int
) -> dict[str, Any]:
    """Return a trade, from the native event."""
    return {
        "e": "trade",
        "E": now_ms,
        "s": listed.name,
        "t": trade["trade_id"],
        "p": listed.price(trade["price"]),
        "q": listed.qty(trade["qty"]),
        "T": ms(trade["ts"]),
        "m": trade["side"] == "sell",
        "M": True,
    }


def aggregate_event(trade: dict[str, Any]) -> dict[str, Any]:
    """Return a trade as an aggregate of its own, from its event."""
    number = trade["t"]
    event = {"e": "aggTrade", "E": trade["E"], "s": trade["s"], "a": number}
    event |= {name: trade[name] for name in ("p", "q", "T", "m", "M")}
    return event | {"f": number, "l": number}


def depth_event(
    listed: Listed, changes: Changes, now_ms: int
) -> dict[str, Any]:
    """Return the levels of a book that changed."""
    price, qty = listed.price, listed.qty
    return {
        "e": "depthUpdate",
        "E": now_ms,
        "s": listed.name,
        "U": changes.before + 1,
        "u": changes.last,
        "b": [[price(p), qty(q)] for p, q in changes.bids.items()],
        "a": [[price(p), qty(q)] for p, q in changes.asks.items()],
    }


def ticker_event(
    day: dict[str, Any], is_mini: bool, now_ms: int
) -> dict[str, Any]:
    """Return a ticker of 24 hours, from that of REST."""
    event = {
        "e": "24hrMiniTicker" if is_mini else "24hrTicker",
        "E": now_ms,
        "s": day["symbol"],
        "c": day["lastPrice"],
        "o": day["openPrice"],
        "h": day["highPrice"],
        "l": day["lowPrice"],
        "v": day["volume"],
        "q": day["quoteVolume"],
    }
    if is_mini:
        return event
    return event | {
        "p": day["priceChange"],
        "P": day["priceChangePercent"],
        "w": day["weightedAvgPrice"],
        "x": day["prevClosePrice"],
        "Q": day["lastQty"],
        "b": day["bidPrice"],
        "B": day["bidQty"],
        "a": day["askPrice"],
        "A": day["askQty"],
        "O": day["openTime"],
        "C": day["closeTime"],
        "F": day["firstId"],
        "L": day["lastId"],
        "n": day["count"],
    }


def kline_event(
    listed: Listed, interval: str, row: Candle, is_closed: bool, now_ms: int
) -> dict[str, Any]:
    """Return a candle."""
    start, first, high, low, close, volume = row
    return {
        "e": "kline",
        "E": now_ms,
        "s": listed.name,
        "k": {
            "t": ms(start),
            "T": ms(next_start(start, interval)) - 1,
            "s": listed.name,
            "i": interval,
            "f": -1,
            "L": -1,
            "o": listed.price(first),
            "c": listed.price(close),
            "h": listed.price(high),
            "l": listed.price(low),
            "v": listed.qty(volume),
            "n": 0,
            "x": is_closed,
            "q": listed.cost(close * volume),
            "V": ZERO,
            "Q": ZERO,
            "B": "0",
        },
    }
