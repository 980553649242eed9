"""The exchange's time.

It starts at the machine's wall clock and advances with the elapsed time. So it
never steps back, and a second lasts a second even if the wall clock is set. If
the wall clock is set forward, the exchange follows: see `Clock.look`. The key
file and the key ring read the wall clock; no other module reads a clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

# The wall clock and the elapsed time are read one after the other. If that
# takes longer than this, the machine was busy and the difference is ignored.
READ_NS = 10_000_000
# A smaller difference is no jump: NTP steps the wall clock by 128 ms or more.
# For less it changes the clock's rate, which also changes the elapsed time's.
JUMP_US = 100_000


# Nanoseconds since some moment, including the time asleep: CLOCK_MONOTONIC
# excludes it on Linux and includes it on macOS.
elapsed_ns: Callable[[], int] = partial(
    time.clock_gettime_ns,
    getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of the machine's clocks, in microseconds.

    ``jumped``: the wall clock was set forward by this; below 0: backward.
    ``slept``: elapsed time that timers do not count. ``behind``: the
    exchange's time must be set forward by this to reach the wall clock.
    """

    jumped: int
    slept: int
    behind: int


class Clock:
    """Microseconds since the epoch that never step back.

    ``wall_ns`` is the machine's wall clock, ``elapsed_ns`` counts all time
    that passes, ``awake_ns`` the part that timers count; all in nanoseconds.
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
        self.ahead = 0  # microseconds ahead of the wall clock, at last look

    def now(self) -> int:
        """Return the time in microseconds since the epoch."""
        return (self._epoch_ns + self._elapsed_ns()) // 1_000

    def elapsed(self) -> int:
        """Return microseconds since some moment; no jump changes them."""
        return self._elapsed_ns() // 1_000

    def go_on_from(self, ts: int) -> None:
        """Set the time forward to ``ts`` if it is earlier."""
        ahead = ts - self.now()
        if ahead > 0:
            self.forward(ahead)

    def forward(self, us: int) -> None:
        """Set the time forward by ``us`` microseconds."""
        self._epoch_ns += us * 1_000
        self.ahead += us

    def look(self) -> Change | None:
        """Compare the time with the machine's clocks; return a change."""
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
