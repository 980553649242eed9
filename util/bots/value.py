"""What an instrument is worth: a walk that anybody can repeat."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from orderbook import Instrument

DEFAULT_MEAN = 100  # in ticks; what the README's market maker believes in
SWING = 20  # ticks from the mean at most: some edges of the bots, not more
MOVE = 0.25  # probability that a step changes the value


def mean_of(instrument: Instrument, wanted: int | None = None) -> int:
    """Return what an instrument is worth in the long run, in ticks.

    That is ``wanted``, or else its reference price, or else DEFAULT_MEAN;
    where it is not within the bounds of the instrument, the middle between
    them.
    """
    low, high = instrument.min_price, instrument.max_price
    if wanted is None:
        wanted = instrument.reference_price or DEFAULT_MEAN
    return wanted if low < wanted < high else (low + high) // 2


def fair_values(seed: int, instrument: Instrument, mean: int) -> Iterator[int]:
    """Yield the fair value in ticks, step by step and without end.

    It begins at the mean, which is within the bounds of the instrument,
    moves by one tick or not at all, is drawn back more the farther it has
    gone, and never leaves the bounds. The same arguments give the same
    values.
    """
    chance = random.Random(f"{seed} {instrument.symbol}")
    low, high = instrument.min_price, instrument.max_price
    swing = min(SWING, mean - low, high - mean)
    value = mean
    while True:
        yield value
        if swing and chance.random() < MOVE:
            # 1/2 at the mean, 0 at the upper end, 1 at the lower one.
            up = (swing - (value - mean)) / (2 * swing)
            value += 1 if chance.random() < up else -1


class FairValue:
    """A walk to the rhythm of a clock: ``speed`` steps a second."""

    def __init__(
        self, walk: Iterator[int], speed: float, clock: Callable[[], float]
    ) -> None:
        """Begin now; ``clock`` returns seconds."""
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
