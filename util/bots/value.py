"""The fair value of an instrument: a random walk with a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from orderbook import Instrument

DEFAULT_MEAN = 100  # in ticks; as in the market maker of the README
GRAIN = 2_000  # ticks of a price for each tick of its grain
SWING = 20  # grains from the mean at most; a few times the edge of the bots
MOVE = 0.25  # probability that a step changes the value


def grain(price: float) -> int:
    """Return the distance in which bots reckon at a price, in ticks.

    1 tick up to 3,000 ticks, and in proportion to the price beyond: at 8,000
    ticks a spread of 4 ticks would be none.
    """
    return max(1, round(abs(price) / GRAIN))


def mean_of(instrument: Instrument, wanted: int | None = None) -> int:
    """Return the mean of the fair value of an instrument, in ticks.

    That is ``wanted``, or the reference price, or DEFAULT_MEAN. If it is
    outside the price bounds, it is the middle between them.
    """
    low, high = instrument.min_price, instrument.max_price
    if wanted is None:
        wanted = instrument.reference_price or DEFAULT_MEAN
    return wanted if low < wanted < high else (low + high) // 2


def fair_values(seed: int, instrument: Instrument, mean: int) -> Iterator[int]:
    """Yield the fair value in ticks, step by step and without end.

    It starts at the mean, which is within the price bounds, and moves by at
    most one grain per step. The farther it is from the mean, the likelier it
    moves back; it stays within the bounds. The same arguments give the same
    values.
    """
    chance = random.Random(f"{seed} {instrument.symbol}")
    low, high = instrument.min_price, instrument.max_price
    step = grain(mean)
    swing = min(SWING, (mean - low) // step, (high - mean) // step)
    steps = 0  # from the mean
    while True:
        yield mean + step * steps
        if swing and chance.random() < MOVE:
            # 1/2 at the mean, 0 at the upper end, 1 at the lower one.
            up = (swing - steps) / (2 * swing)
            steps += 1 if chance.random() < up else -1


class FairValue:
    """A walk that takes ``speed`` steps per second."""

    def __init__(
        self, walk: Iterator[int], speed: float, clock: Callable[[], float]
    ) -> None:
        """Start now; ``clock`` returns seconds."""
        self._walk = walk
        self._speed = speed
        self._clock = clock
        self._start = clock()
        self._steps = 0
        self._value = next(walk)

    def now(self) -> int:
        """Return the value of this moment, in ticks."""
        elapsed = self._clock() - self._start
        while self._steps < int(elapsed * self._speed):
            self._value = next(self._walk)
            self._steps += 1
        return self._value
