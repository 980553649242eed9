"""A histogram of durations in memory that does not grow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator


class Histogram:
    """Durations in whole microseconds, each known to within 0.8 %.

    As in HdrHistogram the width of a bucket grows with the duration. The
    library of that name takes six times as long to record one, which is done
    for every reply.
    """

    SUB_BITS = 7  # 128 buckets for each power of 2
    MOST_US = 2**32 - 1  # 71 minutes; longer durations count as that
    SIZE = (34 - SUB_BITS) << SUB_BITS

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        self.counts = [0] * self.SIZE
        self.max_us = 0
        for duration in seconds:
            self.record(int(duration * 1_000_000))

    @property
    def total(self) -> int:
        """The number of durations recorded."""
        return sum(self.counts)

    def record(self, us: int) -> None:
        """Record one duration."""
        us = min(us, self.MOST_US)
        if us > self.max_us:
            self.max_us = us
        shift = us.bit_length() - self.SUB_BITS - 1
        if shift < 0:
            shift = 0
        self.counts[(shift << self.SUB_BITS) + (us >> shift)] += 1

    def add(self, other: Histogram) -> None:
        """Add the counts of another histogram."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts)]
        self.max_us = max(self.max_us, other.max_us)

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile in milliseconds."""
        return self.percentile(percent) / 1_000

    def bars(self) -> Iterator[tuple[int, int, int]]:
        """Yield first and last duration and count of each filled bucket."""
        for index, number in enumerate(self.counts):
            if number:
                shift = max((index >> self.SUB_BITS) - 1, 0)
                first = (index - (shift << self.SUB_BITS)) << shift
                yield first, first + (1 << shift) - 1, number

    def percentile(self, percent: float) -> int:
        """Return a percentile in microseconds; 0 if nothing is recorded."""
        wanted = math.ceil(self.total * percent / 100)
        for _, last, number in self.bars():
            wanted -= number
            if wanted <= 0:
                return min(last, self.max_us)
        return 0
