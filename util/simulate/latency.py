"""The time that a message takes, as people write it: 2ms, 5ms±1ms."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from .loop import NS

_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "": 1_000}
_LATENCY = re.compile(
    r"(\d+(?:\.\d+)?)(s|ms|us)?(?:(?:±|\+-)(\d+(?:\.\d+)?)(s|ms|us)?)?"
)


@dataclass(frozen=True, slots=True)
class Latency:
    """The time of each message in one direction, in nanoseconds.

    It is drawn evenly from ``mean`` - ``spread`` to ``mean`` + ``spread``.
    """

    mean: int
    spread: int = 0

    @classmethod
    def read(cls, text: str) -> Latency:
        """Read a latency such as 2ms, 500us or 5ms±1ms.

        A number without a unit is in milliseconds; ``+-`` stands for ``±``.
        Raises ValueError.
        """
        found = _LATENCY.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"{text!r} is not a latency such as 2ms or 5ms±1")
        mean, unit, spread, spread_unit = found.groups(default="")
        latency = cls(_ns(mean, unit), _ns(spread or "0", spread_unit or unit))
        if latency.spread > latency.mean:
            raise ValueError(f"{text!r}: the spread is above the mean")
        return latency

    def draw(self, chance: Random) -> int:
        """Return the latency of one message."""
        if not self.spread:
            return self.mean
        return self.mean + chance.randint(-self.spread, self.spread)

    def __str__(self) -> str:
        text = f"{self.mean / 1e6:g}ms"
        return f"{text}±{self.spread / 1e6:g}ms" if self.spread else text


def _ns(number: str, unit: str) -> int:
    return round(float(number) * NS / _UNITS[unit])


DEFAULT_LATENCY = Latency(NS // 1_000)
