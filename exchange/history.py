"""What has happened, in bounded memory: the tables behind `get`.

Fed with every event of the engine, in order. It keeps the public trades and
candles of each symbol, and of each account its fills and its last private
events, from which a session is resumed. No clock, no socket.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TypeVar

from orderbook import AccountReport, Exec, Interval, Trade, encode

TRADES_KEPT = 100_000  # of each symbol, as the protocol promises
CANDLES_KEPT = 10_000  # of each symbol and interval: 2.7 hours of seconds
FILLS_KEPT = 10_000  # of each account
RESUME_EVENTS = 2_000  # of each account: what a broken connection may miss

INTERVALS: dict[Interval, int] = {  # in microseconds
    "1s": 1_000_000,
    "1m": 60_000_000,
    "5m": 300_000_000,
    "1h": 3_600_000_000,
    "1d": 86_400_000_000,
}
PrivateEvent = Exec | AccountReport
Candle = list[int]  # start_ts, open, high, low, close, volume
Row = TypeVar("Row")


def page(
    rows: Sequence[Row],
    key: Callable[[Row], int],
    after: int | None,
    limit: int,
) -> list[Row]:
    """Return at most ``limit`` of ``rows``, which ascend by ``key``.

    The first ones with a key greater than ``after``; the newest ones where
    ``after`` is None. Oldest first in either case.
    """
    if after is None:
        start = max(0, len(rows) - limit)
    else:
        start = bisect_right(rows, after, key=key)
    return list(islice(rows, start, start + limit))


class Candles:
    """Open, high, low, close and volume of one symbol's trades.

    A trade changes only the candle of its second; a finished second is
    folded into the longer candles.
    """

    def __init__(self) -> None:
        self._kept: dict[Interval, deque[Candle]] = {
            interval: deque(maxlen=CANDLES_KEPT) for interval in INTERVALS
        }

    def add(self, ts: int, price: int, qty: int) -> None:
        """Count in one trade."""
        seconds = self._kept["1s"]
        start = ts - ts % INTERVALS["1s"]
        if seconds:
            last = seconds[-1]
            if last[0] == start:
                _merge(last, price, price, price, qty)
                return
            for interval, length in INTERVALS.items():
                if interval != "1s":
                    _fold(self._kept[interval], last, length)
        seconds.append([start, price, price, price, price, qty])

    def rows(self, interval: Interval) -> Sequence[Candle]:
        """Return the candles of an interval, the last one unfinished."""
        kept = self._kept[interval]
        if interval == "1s" or not self._kept["1s"]:
            return kept
        rows = deque(kept, maxlen=CANDLES_KEPT)
        if rows:
            rows[-1] = list(rows[-1])
        _fold(rows, self._kept["1s"][-1], INTERVALS[interval])
        return rows


def _fold(candles: deque[Candle], newer: Candle, length: int) -> None:
    """Merge a candle into the last of longer ones, or begin a new one."""
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


class _AccountHistory:
    __slots__ = ("fills", "ring", "seq")

    def __init__(self) -> None:
        self.fills: deque[Exec] = deque(maxlen=FILLS_KEPT)
        self.ring: deque[PrivateEvent | str] = deque(maxlen=RESUME_EVENTS)
        self.seq = 0  # of the last one in the ring; the others go before it


class History:
    """The past of all symbols and accounts."""

    def __init__(self) -> None:
        self._trades: defaultdict[str, deque[Trade]] = defaultdict(
            lambda: deque(maxlen=TRADES_KEPT)
        )
        self._candles: defaultdict[str, Candles] = defaultdict(Candles)
        self._accounts: defaultdict[str, _AccountHistory] = defaultdict(
            _AccountHistory
        )

    def record(
        self, account: str, event: PrivateEvent, text: str | None = None
    ) -> None:
        """Take in one private event of an account, the next one by ``seq``.

        If its ``text`` is known, that is what is kept of most: the event
        itself, with its two dozen fields, is then soon freed.
        """
        history = self._accounts[account]
        history.ring.append(text or event)
        history.seq = event.seq
        if event.__class__ is Exec and event.exec_type == "trade":
            history.fills.append(event)

    def record_trade(self, trade: Trade) -> None:
        """Take in one public trade."""
        self._trades[trade.symbol].append(trade)
        self._candles[trade.symbol].add(trade.ts, trade.price, trade.qty)

    def trades(
        self, symbol: str, after: int | None, limit: int
    ) -> list[Trade]:
        """Return trades of a symbol; ``after`` is a trade id."""
        rows = self._trades[symbol]
        return page(rows, lambda trade: trade.trade_id, after, limit)

    def candles(
        self, symbol: str, interval: Interval, after: int | None, limit: int
    ) -> list[Candle]:
        """Return candles of a symbol; ``after`` is a start_ts."""
        rows = self._candles[symbol].rows(interval)
        return page(rows, lambda candle: candle[0], after, limit)

    def fills(
        self, account: str, symbol: str | None, after: int | None, limit: int
    ) -> list[Exec]:
        """Return fills of an account, all or of one symbol.

        ``after`` is an account seq.
        """
        rows = self._accounts[account].fills
        if symbol is not None:
            rows = deque(fill for fill in rows if fill.symbol == symbol)
        return page(rows, lambda fill: fill.seq, after, limit)

    def missed(
        self, account: str, last_seq: int, seq: int
    ) -> list[str] | None:
        """Return an account's events after ``last_seq``, up to ``seq``.

        Encoded. None: they are no longer, or not yet, known.
        """
        if last_seq == seq:
            return []
        history = self._accounts[account]
        missed = seq - last_seq
        if history.seq != seq or not 0 < missed <= len(history.ring):
            return None
        newest = islice(history.ring, len(history.ring) - missed, None)
        return [e if isinstance(e, str) else encode(e) for e in newest]
