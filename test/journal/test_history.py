"""History: how much is kept, pages, candles, resumed events."""

from __future__ import annotations

import json
import random
from collections import deque
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.journal.candles import CANDLES_KEPT
from exchange.journal.history import (
    FILLS_KEPT,
    JOINED,
    RESUME_EVENTS,
    TRADES_KEPT,
    Candle,
    History,
    page,
)
from orderbook import (
    INTERVALS,
    AccountReport,
    Exec,
    Interval,
    Trade,
    encode,
)

SECOND = 1_000_000
DAY = 86_400 * SECOND


def trade(trade_id: int, price: int = 100, qty: int = 1, **more: Any) -> Trade:
    fields = {"symbol": "BOND", "ts": trade_id, "side": "buy", **more}
    return Trade(
        seq=trade_id, trade_id=trade_id, price=price, qty=qty, **fields
    )


def report(seq: int, exec_type: Any = "trade", symbol: str = "BOND") -> Exec:
    return Exec(
        seq=seq,
        ts=seq,
        exec_type=exec_type,
        order_id=1,
        symbol=symbol,
        side="buy",
        order_status="new",
        qty=1,
        cum_qty=0,
        leaves_qty=1,
    )


def account_report(seq: int) -> AccountReport:
    return AccountReport(seq=seq, ts=seq, cash=0, positions={}, equity=0)


def fill_seqs(history: History, *wanted: Any) -> list[int]:
    """Return the seq of each fill of an answer."""
    return [json.loads(text)["seq"] for text in history.fills(*wanted)]


def traded(*trades: tuple[int, int, int]) -> History:
    """Return the history of trades, given as time, price and quantity."""
    history = History()
    for trade_id, (ts, price, qty) in enumerate(trades, start=1):
        history.record_trade(trade(trade_id, price, qty, ts=ts))
    return history


# Pages --------------------------------------------------------------------


@pytest.mark.parametrize(
    "after, limit, found",
    [
        (None, 9, [2, 4, 6, 8]),
        (None, 3, [4, 6, 8]),
        (None, 1, [8]),
        (0, 9, [2, 4, 6, 8]),
        (0, 2, [2, 4]),
        (4, 9, [6, 8]),
        (4, 1, [6]),
        (5, 1, [6]),
        (8, 9, []),
        (99, 9, []),
    ],
)
def test_a_page_is_what_follows_after_or_the_newest(
    after: int | None, limit: int, found: list[int]
) -> None:
    assert page([2, 4, 6, 8], int, after, limit) == found
    assert page(deque([2, 4, 6, 8]), int, after, limit) == found
    assert page([], int, after, limit) == []


@given(st.sets(st.integers(0, 50)), st.integers(1, 9))
def test_pages_in_a_row_give_every_row_once(
    keys: set[int], limit: int
) -> None:
    rows = [(key, "row") for key in sorted(keys)]
    read: list[tuple[int, str]] = []
    after = -1
    while found := page(rows, lambda row: row[0], after, limit):
        assert len(found) == limit or found[-1] == rows[-1]
        read += found
        after = found[-1][0]
    assert read == rows


# Trades and fills ---------------------------------------------------------


def test_trades_are_kept_by_symbol_and_paged_by_trade_id() -> None:
    history = History()
    bonds = [trade(n) for n in range(1, 6)]
    etfs = [trade(n, symbol="ETF") for n in range(1, 3)]
    for each in bonds + etfs:
        history.record_trade(each)
    assert history.trades("BOND", None, 100) == bonds
    assert history.trades("BOND", None, 2) == bonds[3:]
    assert history.trades("BOND", 2, 2) == bonds[2:4]
    assert history.trades("ETF", 1, 100) == etfs[1:]
    assert history.trades("NONE", None, 100) == []


def test_fills_are_kept_by_account_and_paged_by_its_seq() -> None:
    history = History()
    for seq, exec_type in enumerate(
        ["new", "trade", "trade", "amended", "trade", "canceled"], start=1
    ):
        history.account("ann").add(report(seq, exec_type))
    history.account("ann").add(account_report(7))
    history.account("bob").add(report(1))

    def seqs(account: str, after: int | None, limit: int) -> list[int]:
        return fill_seqs(history, account, None, after, limit)

    assert seqs("ann", None, 100) == [2, 3, 5]
    assert seqs("ann", None, 2) == [3, 5]
    assert seqs("ann", 2, 1) == [3]
    assert seqs("ann", 3, 100) == [5]
    assert seqs("bob", None, 100) == [1]
    assert seqs("cat", None, 100) == []


def test_fills_may_be_those_of_one_symbol() -> None:
    history = History()
    for seq, symbol in enumerate(["BOND", "ETF", "BOND", "ETF"], start=1):
        fill = report(seq, symbol=symbol)
        if seq % 2:
            history.account("ann").add(fill)
        else:
            history.account("ann").add_texts([encode(fill)])
            history.account("ann").add_fill(fill, encode(fill))

    def seqs(symbol: str | None, after: int | None, limit: int) -> list[int]:
        return fill_seqs(history, "ann", symbol, after, limit)

    assert seqs(None, None, 100) == [1, 2, 3, 4]
    assert seqs("BOND", None, 100) == [1, 3]
    assert seqs("ETF", None, 1) == [4]
    assert seqs("ETF", 1, 1) == [2]
    assert seqs("ETF", 2, 100) == [4]
    assert seqs("NONE", None, 100) == []


def test_only_the_newest_are_kept() -> None:
    assert TRADES_KEPT == 100_000, "as the protocol promises"
    history = History()
    for number in range(1, TRADES_KEPT + 3):
        history.record_trade(trade(number, ts=number * DAY))
    for seq in range(1, FILLS_KEPT + 3):
        history.account("ann").add(report(seq))
    oldest = history.trades("BOND", 0, 2)
    assert [t.trade_id for t in oldest] == [3, 4]
    assert fill_seqs(history, "ann", None, 0, 2) == [3, 4]
    for interval in INTERVALS:
        row, *_ = history.candles("BOND", interval, 0, 1)
        assert row[0] == (TRADES_KEPT + 3 - CANDLES_KEPT) * DAY


# Candles ------------------------------------------------------------------


def test_a_candle_is_open_high_low_close_and_volume() -> None:
    history = traded(
        (60 * SECOND, 100, 1),
        (61 * SECOND, 105, 2),
        (62 * SECOND, 95, 3),
        (119 * SECOND, 99, 4),
        (120 * SECOND, 70, 5),
    )
    assert history.candles("BOND", "1m", None, 9) == [
        [60 * SECOND, 100, 105, 95, 99, 10],
        [120 * SECOND, 70, 70, 70, 70, 5],
    ]
    assert history.candles("BOND", "5m", None, 9) == [
        [0, 100, 105, 70, 70, 15],
    ]


def test_a_trade_of_an_account_with_itself_is_in_no_candle() -> None:
    history = History()
    history.record_trade(trade(1, 100, 5))
    history.record_trade(trade(2, 900, 7, is_self=True))
    assert history.candles("BOND", "1m", None, 9) == [
        [0, 100, 100, 100, 100, 5]
    ]
    assert len(history.trades("BOND", None, 9)) == 2


def test_candles_without_trades_are_left_out() -> None:
    history = traded((5 * SECOND, 100, 1), (5 * DAY, 101, 2))
    for interval in INTERVALS:
        opened = [row[1] for row in history.candles("BOND", interval, None, 9)]
        assert opened == [100, 101]
    assert history.candles("ETF", "1s", None, 9) == []


def test_the_last_candle_is_shown_unfinished_and_goes_on() -> None:
    history = traded((SECOND, 100, 1), (2 * SECOND, 90, 1))
    for _ in range(2):  # looking changes nothing
        (row,) = history.candles("BOND", "1h", None, 9)
        assert row == [0, 100, 100, 90, 90, 2]
    history.record_trade(trade(3, 110, 5, ts=2 * SECOND + 1))
    (row,) = history.candles("BOND", "1h", None, 9)
    assert row == [0, 100, 110, 90, 110, 7]
    history.record_trade(trade(4, 80, 1, ts=3_600 * SECOND))
    finished, begun = history.candles("BOND", "1h", None, 9)
    assert finished == [0, 100, 110, 90, 110, 7]
    assert begun == [3_600 * SECOND, 80, 80, 80, 80, 1]


def test_candles_are_paged_by_their_start() -> None:
    history = traded(*((n * 60 * SECOND, 100 + n, 1) for n in range(1, 6)))

    def minutes(after: int | None, limit: int) -> list[int]:
        rows = history.candles("BOND", "1m", after, limit)
        return [row[0] // (60 * SECOND) for row in rows]

    assert minutes(None, 2) == [4, 5]
    assert minutes(60 * SECOND, 2) == [2, 3]
    assert minutes(240 * SECOND, 9) == [5]


def naive(
    trades: list[tuple[int, int, int]], interval: Interval
) -> list[Candle]:
    length = INTERVALS[interval]
    candles = []
    for start, group in groupby(trades, lambda t: t[0] // length * length):
        _, prices, sizes = zip(*group)
        high, low = max(prices), min(prices)
        candles.append([start, prices[0], high, low, prices[-1], sum(sizes)])
    return candles


GAPS = st.sampled_from(
    [0, 1, SECOND // 2, SECOND, 59 * SECOND, 299 * SECOND, DAY // 24, DAY]
)


@given(
    st.lists(st.tuples(GAPS, st.integers(-9, 9), st.integers(1, 9))),
    st.sampled_from(list(INTERVALS)),
)
def test_candles_are_those_of_a_naive_aggregation(
    steps: list[tuple[int, int, int]], interval: Interval
) -> None:
    history, trades, ts = History(), [], 0
    for gap, price, qty in steps:
        ts += gap
        trades.append((ts, price, qty))
        history.record_trade(trade(len(trades), price, qty, ts=ts))
        rows = history.candles("BOND", interval, None, 1_000)
        assert rows == naive(trades, interval)


# Resuming -----------------------------------------------------------------


def test_the_last_events_of_an_account_can_be_resumed() -> None:
    assert RESUME_EVENTS == 2_000, "as the protocol promises"
    history, last = History(), RESUME_EVENTS + 5
    events = [
        account_report(seq) if seq % 2 else report(seq, "new")
        for seq in range(1, last + 1)
    ]
    for event in events:  # with and without their text
        if event.seq % 3:
            history.account("ann").add_texts([encode(event)])
        else:
            history.account("ann").add(event)
    history.account("bob").add(report(1))
    for missed in (0, 1, 3, RESUME_EVENTS):
        found = history.events_since("ann", last - missed, seq=last)
        assert found == [encode(event) for event in events[last - missed :]]
    for last_seq in (4, 0):  # event 5 is no longer in the ring
        assert history.events_since("ann", last_seq, seq=last) is None
    # A seq of another run of this exchange:
    assert history.events_since("ann", last + 1, seq=last) is None


def test_a_ring_that_is_not_yet_full_knows_everything() -> None:
    history = History()
    assert history.events_since("ann", 0, seq=0) == []
    assert history.events_since("ann", 0, seq=1) is None
    assert history.events_since("ann", 1, seq=0) is None
    history.account("ann").add(report(1))
    assert history.events_since("ann", 0, seq=1) == [encode(report(1))]
    assert history.events_since("ann", 1, seq=1) == []


def test_joined_or_not_the_last_events_are_known_and_no_more() -> None:
    dice = random.Random(5)
    history = History()
    ann = history.account("ann")
    told: list[str] = []
    while len(told) < 2 * RESUME_EVENTS:
        seq = len(told) + 1
        if dice.random() < 0.5:  # one event, encoded or not
            event = report(seq, "new")
            ann.add(event)
            told.append(encode(event))
        else:
            texts = [
                encode(report(seq + more, "new"))
                for more in range(dice.randint(1, 9))
            ]
            ann.add_texts(texts)
            told += texts
        for missed in (1, JOINED, RESUME_EVENTS, RESUME_EVENTS + 1):
            found = history.events_since("ann", len(told) - missed, len(told))
            is_kept = missed <= min(RESUME_EVENTS, len(told))
            assert found == (told[-missed:] if is_kept else None)
        # And the rest of the oldest joined text, and those not yet joined.
        assert ann.kept <= RESUME_EVENTS + 2 * JOINED + 9
