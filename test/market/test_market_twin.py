"""The engine against a naive market, ``util.measure.twin_market``."""

from __future__ import annotations

import random
from collections import deque

import pytest

from exchange.market import triggers
from exchange.market.state import State
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
    """An engine that queues its elected orders the other way round."""
    take = triggers._take_reached

    def take_backwards(state: State, symbols: list[str]) -> deque[Order]:
        return deque(reversed(take(state, symbols)))

    monkeypatch.setattr(triggers, "_take_reached", take_backwards)
    with pytest.raises(AssertionError, match="seed 7, after") as first:
        twin_market.long_run(5_000, 7)
    with pytest.raises(AssertionError) as again:
        twin_market.long_run(5_000, 7)
    assert str(first.value) == str(again.value)
