"""Which bots trade which instruments, and what they know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .fair_file import FairFile

Kind: TypeAlias = Literal["maker", "noise", "informed", "arbitrageur"]


class BadPlan(Exception):
    """The plan does not fit the instruments that are listed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which bots trade which instruments.

    ``values`` holds the mean of the fair value in ticks by symbol, and under
    "" that of all other instruments; those in ``fixed`` stay at their mean.
    With a file in ``fair`` the values are those of the file instead.
    ``speed`` is how often per second of the exchange's time each bot acts on
    each instrument; ``trades_per_s``, of all instruments together and in that
    time too, changes the pace of the noise traders. Empty ``symbols`` mean
    all instruments listed; ``tokens`` holds the keys of the bots by name, if
    the exchange asks for keys.
    """

    url: str | None
    symbols: Sequence[str]
    makers: int
    noise: int
    informed: int
    arbitrageurs: int
    values: Mapping[str, int]
    seed: int
    speed: float
    user_prefix: str
    tokens: dict[str, str]
    fixed: Sequence[str] = ()
    fair: FairFile | None = None
    trades_per_s: float | None = None

    def names(self) -> list[tuple[Kind, str]]:
        """Return the kind and the name of each bot."""
        kinds: tuple[tuple[Kind, int], ...] = (
            ("maker", self.makers),
            ("noise", self.noise),
            ("informed", self.informed),
            ("arbitrageur", self.arbitrageurs),
        )
        return [
            (kind, f"{self.user_prefix}{kind}-{number}")
            for kind, count in kinds
            for number in range(1, count + 1)
        ]
