"""A scoring rule of one's own: the Sharpe ratio of the equity.

In the event file: ``rule = "sharpe:points"``. A rule gets the results of a
round, a list for each match, and returns the points of each team.
"""

from __future__ import annotations

from fractions import Fraction
from math import isqrt
from typing import Any

DIGITS = 10**12  # the square root is exact to twelve decimals


def ratio(equity: tuple[int, ...]) -> Fraction:
    """Return mean / population deviation of the changes; 0 without any."""
    changes = [after - before for before, after in zip(equity, equity[1:])]
    if not changes:
        return Fraction()
    mean = Fraction(sum(changes), len(changes))
    variance = sum((change - mean) ** 2 for change in changes) / len(changes)
    # Whole numbers only, so that it is the same on every machine.
    deviation = Fraction(isqrt(int(variance * DIGITS**2)), DIGITS)
    return mean / deviation if deviation else Fraction()


def points(
    matches: list[list[Any]], options: dict[str, Any]
) -> dict[str, Fraction]:
    """Return the sum of the ratios of each team's matches."""
    teams: dict[str, Fraction] = {}
    for results in matches:
        for result in results:
            before = teams.get(result.team, Fraction())
            teams[result.team] = before + ratio(result.equity)
    return teams
