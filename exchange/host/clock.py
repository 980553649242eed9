"""The exchange's time.

It begins as the machine's wall clock and goes on with the time elapsed, so it
never steps back, and a second of it lasts a second whatever is done to the
wall clock. Where the wall clock gets ahead, somebody has set it, and the
exchange follows: see `Clock.look`. No other module of the exchange reads a
clock, save for the key ring, which compares the age of its file with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

# The wall clock and the time elapsed are read one after the other. Where the
# machine was busy meanwhile their difference says nothing.
READ_NS = 10_000_000
# A smaller difference is no jump: NTP sets the clock of 128 ms and more, and
# slows or quickens it for less, which the time elapsed follows by itself.
JUMP_US = 100_000


# Time since some moment, with the time asleep: CLOCK_MONOTONIC leaves that out
# on Linux, and counts it on macOS.
elapsed_ns: Callable[[], int] = partial(
    time.clock_gettime_ns,
    getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What has happened to the machine's clocks, in microseconds.

    ``jumped``: by how much the wall clock was set forward; below 0: backward.
    ``slept``: elapsed time that timers do not count. ``behind``: by how much
    the exchange's time is behind the wall clock and must be set forward.
    """

    jumped: int
    slept: int
    behind: int


class Clock:
    """Microseconds since the epoch that never step back.

    ``wall_ns`` is the machine's wall clock, ``elapsed_ns`` counts all time
    that passes, and ``awake_ns`` what timers count of it; all in nanoseconds.
    """

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        elapsed_ns: Callable[[], int] = elapsed_ns,
        awake_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall_ns = wall_ns
        self._elapsed_ns = elapsed_ns
        self._awake_ns = awake_ns
        self._epoch_ns = wall_ns() - elapsed_ns()
        self._asleep_ns = elapsed_ns() - awake_ns()
        self.ahead = 0  # of the wall clock, at the last look; microseconds

    def now(self) -> int:
        """Return the time in microseconds since the epoch."""
        return (self._epoch_ns + self._elapsed_ns()) // 1_000

    def elapsed(self) -> int:
        """Return the time since some moment, which no jump changes."""
        return self._elapsed_ns() // 1_000

    def go_on_from(self, ts: int) -> None:
        """Let it be no earlier than a time that has been already."""
        ahead = ts - self.now()
        if ahead > 0:
            self.forward(ahead)

    def forward(self, us: int) -> None:
        """Set the time forward by ``us`` microseconds."""
        self._epoch_ns += us * 1_000
        self.ahead += us

    def look(self) -> Change | None:
        """Compare it with the machine's clocks; return what has changed."""
        before = self._elapsed_ns()
        wall, awake = self._wall_ns(), self._awake_ns()
        elapsed = self._elapsed_ns()
        if elapsed - before > READ_NS:
            return None
        ahead = (self._epoch_ns + elapsed - wall) // 1_000
        jumped = self.ahead - ahead
        slept = (elapsed - awake - self._asleep_ns) // 1_000
        if abs(jumped) < JUMP_US and slept < JUMP_US:
            return None
        self.ahead = ahead
        self._asleep_ns = elapsed - awake
        return Change(jumped=jumped, slept=slept, behind=max(0, -ahead))
