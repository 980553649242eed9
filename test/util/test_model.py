"""What the house bots think that derivatives and baskets are worth."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from exchange.host.market_file import InstrumentSettings
from orderbook import Conversion, Instrument
from util.bots.model import (
    DEVIATION_MAX,
    ROUND_S,
    basket_value,
    call_value,
    derived_value,
    deviation,
    seconds_left,
)

SHARE = InstrumentSettings().listed_as("SHARE")


def derivative(kind: Any, **more: Any) -> Instrument:
    return replace(SHARE, symbol="X", kind=kind, underlying="SHARE", **more)


@pytest.mark.parametrize(
    "price, strike, sigma, value",
    [
        (100, 100, 10, 10 / math.sqrt(2 * math.pi)),
        (110, 100, 10, 10.833155),  # 10 x 0.841345 + 10 x 0.241971
        (90, 100, 10, 0.833155),
        (100, 100, 0, 0),
        (107, 100, 0, 7),
        (93, 100, 0, 0),
    ],
)
def test_a_call_is_worth_the_mean_of_its_payoffs(
    price: float, strike: float, sigma: float, value: float
) -> None:
    assert call_value(price, strike, sigma) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("price", [80, 97.5, 100, 130])
def test_call_and_put_differ_by_the_forward(price: float) -> None:
    call, put = derivative("call", strike=100), derivative("put", strike=100)
    difference = derived_value(call, price, 60, 5)
    difference -= derived_value(put, price, 60, 5)
    assert difference == pytest.approx(price - 100)
    assert derived_value(put, price, 60, 5) >= max(0, 100 - price)


def test_a_future_is_worth_its_underlying() -> None:
    assert derived_value(derivative("future"), 101.5, 60, 5) == 101.5


def test_the_deviation_grows_with_the_root_of_time_up_to_a_bound() -> None:
    assert deviation(4, 1) == pytest.approx(2 * deviation(1, 1))
    assert deviation(1, 4) == pytest.approx(2 * deviation(1, 1))
    assert deviation(0, 1) == deviation(-5, 1) == 0
    assert deviation(1e9, 1) == DEVIATION_MAX


def test_the_time_to_expiry() -> None:
    assert seconds_left(derivative("future"), 5) == ROUND_S
    timed = derivative("future", expire_ts=10_000_000)
    assert seconds_left(timed, 7_500_000) == 2.5
    assert seconds_left(timed, 11_000_000) == 0


def test_a_basket_is_worth_its_parts_in_money() -> None:
    """3 lots at 100 x 2 units and 1 lot at 50 x 8, in ticks of 4 units."""
    convert = Conversion(lot=5, fee=9, basket={"A": 3, "B": 1})
    fund = replace(SHARE, symbol="F", tick_value=4, convert=convert)
    instruments = {
        "A": replace(SHARE, symbol="A", tick_value=2),
        "B": replace(SHARE, symbol="B", tick_value=8),
    }
    prices: dict[str, float] = {"A": 100, "B": 50}
    assert basket_value(fund, prices.__getitem__, instruments) == 250
