"""Numbers, candles and signed texts of the dialect."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from exchange.doors.spot.asked import Asked
from exchange.doors.spot.candles import (
    DAY,
    HOUR,
    INTERVALS,
    MINUTE,
    candles,
    next_start,
    start_of,
)
from exchange.doors.spot.errors import SpotError, of_native
from exchange.doors.spot.params import read_form, read_json
from exchange.doors.spot.signatures import json_payloads, payload_of
from exchange.doors.spot.values import Symbols, decimal, read_decimal
from exchange.doors.spot.weights import MINUTE_MS, Weights
from exchange.journal.history import History
from exchange.market.command import Money
from orderbook import Trade
from test.script import listing


@pytest.mark.parametrize(
    "text, units",
    [
        ("1", 100_000_000),
        ("0.00000001", 1),
        ("99.99", 9_999_000_000),
        ("-1.5", -150_000_000),
        ("1.2300000000000", 123_000_000),
    ],
)
def test_a_number_is_read_and_written_exactly(text: str, units: int) -> None:
    assert read_decimal("x", text) == units
    assert read_decimal("x", decimal(units)) == units
    assert len(decimal(units).partition(".")[2]) == 8


@pytest.mark.parametrize(
    "text, code",
    [
        ("", -1100),
        ("1e3", -1100),
        ("1.", -1100),
        ("+1", -1100),
        ("١", -1100),
        ("nan", -1100),
        ("9" * 21, -1100),
        ("0.000000001", -1111),
    ],
)
def test_what_is_no_number_is_refused(text: str, code: int) -> None:
    with pytest.raises(SpotError) as error:
        read_decimal("price", text)
    assert error.value.code == code and "price" in error.value.msg


def test_prices_and_quantities_are_of_a_symbol() -> None:
    instrument = replace(listing("ETF"), tick_size="0.5")
    symbols = Symbols({"ETF": instrument}, Money(unit="0.5", currency="eur"))
    listed = symbols.find("etfeur")
    assert (listed.base, listed.quote) == ("ETF", "EUR")
    assert listed.price(3) == "1.50000000"
    assert listed.qty(None) == "0.00000000"
    assert listed.cost(3 * 4) == "6.00000000"
    assert symbols.money(-3) == "-1.50000000"
    assert listed.ticks("price", "1.5") == 3
    for name, text in (("price", "1.6"), ("price", "1.50000001")):
        with pytest.raises(SpotError, match="PRICE_FILTER"):
            listed.ticks(name, text)
    for text in ("0", "0.5", "-1"):
        with pytest.raises(SpotError, match="LOT_SIZE"):
            listed.lots("quantity", text)


def test_the_querys_parameters_come_before_the_forms() -> None:
    params = read_form("a=1&b=%2F", "a=2&c=x+y")
    assert params == {"a": "1", "b": "/", "c": "x y"}
    with pytest.raises(SpotError):
        read_form("&".join(f"p{n}={n}" for n in range(200)), "")


def test_all_but_the_signature_is_signed_as_it_was_sent() -> None:
    asked = Asked("POST", "/", "b=%2f&signature=x", "", "a=1&signature=y")
    assert payload_of(asked) == "b=%2fa=1"
    params = read_json({"z": True, "a": ["A", "B"], "b": "x y"})
    texts = [*json_payloads(params)]
    assert texts[0] == 'a=["A","B"]&b=x y&z=true'
    assert texts[1] == "a=%5B%22A%22%2C%22B%22%5D&b=x+y&z=true"


def ts(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize("interval", INTERVALS)
def test_candles_follow_each_other(interval: str) -> None:
    start = start_of(ts(2026, 2, 27, 13, 59, 59), interval)
    for _ in range(40):
        after = next_start(start, interval)
        assert after > start and start_of(after, interval) == after
        assert start_of(after - 1, interval) == start
        start = after


def test_weeks_begin_on_mondays_and_months_on_the_first() -> None:
    assert start_of(ts(2026, 11, 29), "1w") == ts(2026, 11, 23)
    assert start_of(ts(2026, 2, 28, 23), "1M") == ts(2026, 2, 1)
    assert next_start(ts(2026, 2, 1), "1M") == ts(2026, 3, 1)


def test_months_are_those_of_the_calendar() -> None:
    for day in range(0, 40_000, 13):
        date = datetime.fromtimestamp(day * 86_400, UTC)
        assert start_of(day * DAY, "1M") == ts(date.year, date.month, 1)


def traded(*trades: tuple[int, int, int]) -> History:
    history = History()
    for number, (at, price, qty) in enumerate(trades, 1):
        history.record_trade(
            Trade("BOND", number, at, number, price, qty, "buy")
        )
    return history


NOON = ts(2026, 11, 29, 12)


def test_times_without_a_trade_are_filled_in() -> None:
    history = traded(
        (NOON, 10, 1),
        (NOON + 5, 12, 2),
        (NOON + 3 * MINUTE, 9, 4),
    )
    rows = candles(
        history,
        "BOND",
        "1m",
        now=NOON + 4 * MINUTE + 7,
        start=None,
        end=None,
        limit=100,
    )
    assert rows == [
        [NOON, 10, 12, 10, 12, 3],
        [NOON + MINUTE, 12, 12, 12, 12, 0],
        [NOON + 2 * MINUTE, 12, 12, 12, 12, 0],
        [NOON + 3 * MINUTE, 9, 9, 9, 9, 4],
        [NOON + 4 * MINUTE, 9, 9, 9, 9, 0],
    ]


def test_longer_candles_are_merged_and_begin_where_they_are_asked_for() -> (
    None
):
    history = traded(
        (NOON - 2 * HOUR, 5, 1), (NOON, 10, 1), (NOON + 2 * MINUTE, 8, 2)
    )
    at: dict[str, int] = {"now": NOON + 7 * MINUTE}
    rows = candles(
        history, "BOND", "3m", **at, start=NOON + 1, end=None, limit=2
    )
    assert rows == [
        [NOON + 3 * MINUTE, 8, 8, 8, 8, 0],
        [NOON + 6 * MINUTE, 8, 8, 8, 8, 0],
    ]
    rows = candles(
        history, "BOND", "3m", **at, start=None, end=NOON + 1, limit=2
    )
    assert rows == [
        [NOON - 3 * MINUTE, 5, 5, 5, 5, 0],
        [NOON, 10, 10, 8, 8, 3],
    ]
    assert (
        candles(
            History(), "BOND", "1d", now=DAY, start=None, end=None, limit=5
        )
        == []
    )


def test_weights_are_counted_by_minute() -> None:
    weights = Weights(True)
    assert weights.charge("a", 5_999, 1) == 5_999
    assert weights.charge("b", 7, 1) == 7
    assert weights.charge("a", 1, 2) == 6_000
    with pytest.raises(SpotError) as error:
        weights.charge("a", 1, 20_000)
    assert (error.value.status, error.value.retry_ms) == (429, 40_000)
    assert weights.charge("a", 1, MINUTE_MS) == 1


@pytest.mark.parametrize(
    "error, code, words",
    [
        ({"code": "market_closed"}, -1013, "Market is closed."),
        ({"code": "insufficient_funds"}, -2010, "insufficient balance"),
        ({"code": "would_take"}, -2010, "immediately match and take"),
        ({"code": "forbidden"}, -2010, "may not place or cancel"),
        ({"code": "duplicate_client_order_id"}, -2010, "Duplicate order"),
        ({"code": "order_closed"}, -2011, "Unknown order sent."),
        ({"code": "invalid_qty"}, -1013, "LOT_SIZE"),
        ({"code": "invalid_price"}, -1013, "PRICE_FILTER"),
        ({"code": "position_limit"}, -1013, "MAX_POSITION"),
        ({"code": "too_many_orders"}, -1013, "MAX_NUM_ORDERS"),
        ({"code": "rate_limited"}, -1015, "Too many new orders"),
        ({"code": "busy"}, -1008, "overloaded"),
        ({"code": "new_one", "message": "because"}, -1100, "because"),
    ],
)
def test_native_refusals_have_words_that_clients_know(
    error: dict[str, str], code: int, words: str
) -> None:
    refusal = of_native(error)
    assert refusal.code == code and words in refusal.msg
