"""The exchange's time.

It starts at the machine's wall clock and advances with the elapsed time. So it
never steps back, and a second lasts a second even if the wall clock is set. If
the wall clock is set forward, the exchange follows: see `Clock.look`. The key
file and the key ring read the wall clock; no other module reads a clock.

At a speed other than 1 the time runs faster or slower than the machine's. Then
it is no time of day, and it does not follow the wall clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

# The wall clock and the elapsed time are read one after the other. If that
# takes longer than this, the machine was busy and the difference is ignored.
READ_NS = 10_000_000
# A smaller difference is no jump: NTP steps the wall clock by 128 ms or more.
# For less it changes the clock's rate, which also changes the elapsed time's.
JUMP_US = 100_000
# Speeds have two decimals. At 100 the 1 ms to which timers are rounded is
# 0.1 s of the market; for more speed there are simulations.
SPEED_MIN = Decimal("0.01")
SPEED_MAX = Decimal(100)
SPEED_DECIMALS = 2


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
    ``jumped`` and ``behind`` are 0 at a speed other than 1.
    """

    jumped: int
    slept: int
    behind: int


class Clock:
    """Microseconds since the epoch that never step back.

    ``wall_ns`` is the machine's wall clock, ``elapsed_ns`` counts all time
    that passes, ``awake_ns`` the part that timers count; all in nanoseconds.
    The time runs ``speed`` times as fast as ``elapsed_ns``.
    """

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        elapsed_ns: Callable[[], int] = elapsed_ns,
        awake_ns: Callable[[], int] = time.monotonic_ns,
        speed: Decimal = Decimal(1),
    ) -> None:
        self.speed = speed
        self._wall_ns = wall_ns
        self._elapsed_ns = elapsed_ns
        self._awake_ns = awake_ns
        self._passed_ns = (
            elapsed_ns if speed == 1 else _scaled(elapsed_ns, speed)
        )
        self._epoch_ns = wall_ns() - elapsed_ns()
        self._asleep_ns = elapsed_ns() - awake_ns()
        self.ahead = 0  # microseconds ahead of the wall clock, at last look

    def now(self) -> int:
        """Return the time in microseconds since the epoch."""
        return (self._epoch_ns + self._passed_ns()) // 1_000

    def elapsed(self) -> int:
        """Return real microseconds since some moment, whatever the speed.

        No jump changes them.
        """
        return self._elapsed_ns() // 1_000

    def seconds_until(self, ts: int) -> float:
        """Return the real seconds until ``ts``, up to 1 ms too many."""
        return as_delay(int((ts - self.now()) / self.speed))

    def go_on_from(self, ts: int) -> None:
        """Go on from ``ts``, the last time of a market; 0: it is new.

        At a speed of 1 it is the wall clock's time instead, if that is later.
        """
        ahead = ts - self.now()
        if ahead > 0 or ts and self.speed != 1:
            self.forward(ahead)

    def forward(self, us: int) -> None:
        """Set the time forward by ``us`` microseconds; below 0: back."""
        self._epoch_ns += us * 1_000
        self.ahead += us

    def look(self) -> Change | None:
        """Compare the time with the machine's clocks; return a change."""
        before = self._elapsed_ns()
        wall, awake = self._wall_ns(), self._awake_ns()
        elapsed = self._elapsed_ns()
        if elapsed - before > READ_NS:
            return None
        if self.speed == 1:
            ahead = (self._epoch_ns + elapsed - wall) // 1_000
            jumped = self.ahead - ahead
            behind = max(0, -ahead)
        else:
            ahead, jumped, behind = self.now() - wall // 1_000, 0, 0
        slept = (elapsed - awake - self._asleep_ns) // 1_000
        if abs(jumped) < JUMP_US and slept < JUMP_US:
            return None
        self.ahead = ahead
        self._asleep_ns = elapsed - awake
        return Change(jumped=jumped, slept=slept, behind=behind)

    @property
    def is_wall_clock(self) -> bool:
        """Whether a restart finds this time again on the wall clock."""
        return self.speed == 1 and self.ahead < JUMP_US


def as_delay(us: int) -> float:
    """Return the seconds that a timer of some microseconds waits.

    That is up to 1 ms too many. uvloop rounds a delay to milliseconds. If it
    rounded 0.4 ms to 0, it would call a timer in each of its rounds until
    that time.
    """
    return max(0, us // 1_000 + 1) / 1_000


def _scaled(
    elapsed_ns: Callable[[], int], speed: Decimal
) -> Callable[[], int]:
    """Return a counter that runs ``speed`` times as fast from now on."""
    start = elapsed_ns()
    numerator, denominator = speed.as_integer_ratio()

    def scaled_ns() -> int:
        return start + (elapsed_ns() - start) * numerator // denominator

    return scaled_ns
