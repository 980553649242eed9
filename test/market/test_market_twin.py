"""The engine against a naive market, ``util.measure.twin_market``."""

from __future__ import annotations

import random

import pytest

from exchange.market import triggers
from orderbook import Order
from util.measure import twin_market


def test_a_long_random_day_against_the_naive_market() -> None:
    """``python -m util.measure.twin_market STEPS SEED`` repeats it."""
    seed = random.getrandbits(32)
    print(f"seed {seed}")
    twin_market.long_run(8_000, seed)


def test_a_failed_long_run_says_how_to_repeat_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An engine that triggers the nearest stop order first."""

    def distance(order: Order, last: int) -> int:
        assert order.trigger_price is not None
        return abs(order.trigger_price - last)

    monkeypatch.setattr(triggers, "_nearness", distance)
    with pytest.raises(AssertionError, match="seed 7, after") as first:
        twin_market.long_run(5_000, 7)
    with pytest.raises(AssertionError) as again:
        twin_market.long_run(5_000, 7)
    assert str(first.value) == str(again.value)
