"""Candles of every interval that clients ask for, without gaps.

The history has candles of five intervals, with trades only. Longer ones are
merged from those, and times without a trade are filled in: open, high, low
and close are the previous close, and the volume is 0.
"""

from __future__ import annotations

from exchange.journal.candles import Candle
from exchange.journal.history import History
from orderbook import Interval

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3_600 * SECOND, 86_400 * SECOND
WEEK = 7 * DAY
MONDAY = 4 * DAY  # the first Monday after the epoch
MONTH = "1M"
# Of each interval its length, and the shorter one that it is merged from.
INTERVALS: dict[str, tuple[int, Interval]] = {
    "1s": (SECOND, "1s"),
    "1m": (MINUTE, "1m"),
    "3m": (3 * MINUTE, "1m"),
    "5m": (5 * MINUTE, "5m"),
    "15m": (15 * MINUTE, "5m"),
    "30m": (30 * MINUTE, "5m"),
    "1h": (HOUR, "1h"),
    "2h": (2 * HOUR, "1h"),
    "4h": (4 * HOUR, "1h"),
    "6h": (6 * HOUR, "1h"),
    "8h": (8 * HOUR, "1h"),
    "12h": (12 * HOUR, "1h"),
    "1d": (DAY, "1d"),
    "3d": (3 * DAY, "1d"),
    "1w": (WEEK, "1d"),
    MONTH: (31 * DAY, "1d"),
}


def _day_of_month(days: int) -> int:
    """Return the day of the month, from 0, of days since the epoch.

    Years begin in March here, so that a leap day is the last of its year, and
    five months from there always have 153 days.
    """
    days += 719_468  # since March 1 of the year 0
    day_of_era = days % 146_097  # 400 years
    year = (
        day_of_era
        - day_of_era // 1_460
        + day_of_era // 36_524
        - day_of_era // 146_096
    ) // 365
    day_of_year = day_of_era - (365 * year + year // 4 - year // 100)
    month = (5 * day_of_year + 2) // 153
    return day_of_year - (153 * month + 2) // 5


def start_of(ts: int, interval: str) -> int:
    """Return when the candle of a time starts, in microseconds."""
    if interval == MONTH:
        return (ts // DAY - _day_of_month(ts // DAY)) * DAY
    length = INTERVALS[interval][0]
    if interval == "1w":
        return ts - (ts - MONDAY) % WEEK
    return ts - ts % length


def next_start(start: int, interval: str) -> int:
    """Return when the candle after the one of a start begins."""
    return start_of(start + INTERVALS[interval][0], interval)


def _shifted(start: int, interval: str, count: int) -> int:
    """Return a start ``count`` candles earlier, at least."""
    length = INTERVALS[interval][0]
    return max(0, start_of(max(0, start - count * length), interval))


def candles(
    history: History,
    symbol: str,
    interval: str,
    *,
    now: int,
    start: int | None,
    end: int | None,
    limit: int,
) -> list[Candle]:
    """Return at most ``limit`` candles, the last one may be running.

    The first ones from ``start`` on, or without it the last ones up to
    ``end``. Times are in microseconds.
    """
    last = start_of(min(now, end if end is not None else now), interval)
    if start is None:
        first = _shifted(last, interval, limit - 1)
    else:
        first = start_of(start, interval)
        if first < start:
            first = next_start(first, interval)
    before, rows = history.candles_since(symbol, INTERVALS[interval][1], first)
    close = None if before is None else before[4]
    if close is None:  # nothing traded before: begin with the first trade
        if not rows:
            return []
        first = max(first, start_of(rows[0][0], interval))
    made: list[Candle] = []
    index = 0
    at = first
    while at <= last and (start is None or len(made) < limit):
        after = next_start(at, interval)
        candle: Candle | None = None
        while index < len(rows) and rows[index][0] < after:
            row = rows[index]
            index += 1
            if candle is None:
                candle = [at, *row[1:]]
                continue
            candle[2] = max(candle[2], row[2])
            candle[3] = min(candle[3], row[3])
            candle[4] = row[4]
            candle[5] += row[5]
        if candle is None:
            assert close is not None
            candle = [at, close, close, close, close, 0]
        close = candle[4]
        made.append(candle)
        at = after
    return made[-limit:]
