"""Candles of one symbol's trades, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from orderbook import INTERVALS, Interval

CANDLES_KEPT = 10_000  # of each symbol and interval: 2.7 hours of seconds

# Trades are added to candles of the first interval, whose length divides that
# of the longer ones.
SHORTEST, *LONGER = INTERVALS
Candle = list[int]  # start_ts, open, high, low, close, volume


class Candles:
    """Open, high, low, close and volume of one symbol's trades.

    A trade changes only the candle of its second. A second that has ended is
    merged into the longer candles.
    """

    def __init__(self) -> None:
        self._kept: dict[Interval, deque[Candle]] = {
            interval: deque(maxlen=CANDLES_KEPT) for interval in INTERVALS
        }

    def add(self, ts: int, price: int, qty: int) -> None:
        """Add one trade."""
        seconds = self._kept[SHORTEST]
        start = ts - ts % INTERVALS[SHORTEST]
        if seconds:
            last = seconds[-1]
            if last[0] == start:
                _merge(last, price, price, price, qty)
                return
            for interval in LONGER:
                _fold(self._kept[interval], last, INTERVALS[interval])
        seconds.append([start, price, price, price, price, qty])

    def kept(self, interval: Interval) -> deque[Candle]:
        """Return the candles themselves; longer ones lack the last second."""
        return self._kept[interval]

    def rows(self, interval: Interval) -> Sequence[Candle]:
        """Return the candles of an interval; the last one is unfinished."""
        kept = self._kept[interval]
        if interval == SHORTEST or not self._kept[SHORTEST]:
            return kept
        rows = deque(kept, maxlen=CANDLES_KEPT)
        if rows:
            rows[-1] = list(rows[-1])
        _fold(rows, self._kept[SHORTEST][-1], INTERVALS[interval])
        return rows


def _fold(candles: deque[Candle], newer: Candle, length: int) -> None:
    """Merge a candle into the last longer one, or begin a new one."""
    start = newer[0] - newer[0] % length
    if not candles or candles[-1][0] != start:
        candles.append([start, *newer[1:]])
        return
    _merge(candles[-1], *newer[2:])


def _merge(candle: Candle, high: int, low: int, close: int, qty: int) -> None:
    if high > candle[2]:
        candle[2] = high
    if low < candle[3]:
        candle[3] = low
    candle[4] = close
    candle[5] += qty
