"""Scores: results of matches become points of a round, and then totals.

A rule is a pure function of results. The built-in rules are in RULES;
``"module:function"`` names one of the organiser's own. All arithmetic is
exact.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

HUNDRED = 100  # weights are in percent


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one team in one match; money is in units.

    ``equity`` is at fair value, each second, the start first.
    """

    team: str
    pnl: int  # cash after settlement - cash at the start
    # In the match, best 1; equals share the better rank. Teams that never
    # connected share the last one.
    rank: int
    drawdown: int  # greatest fall of equity from its peak, 0 or more
    volume: int  # lots
    fees: int
    blown_out: bool
    connected: bool
    equity: tuple[int, ...]


Matches: TypeAlias = list[list[Result]]
Points: TypeAlias = dict[str, Fraction]
# Points of each team for one round: more is better.
Rule: TypeAlias = Callable[[Matches, dict[str, Any]], Points]


class RuleError(Exception):
    """A rule cannot be used; the text names it and the reason."""


# The built-in rules -------------------------------------------------------


def pnl(matches: Matches, options: dict[str, Any]) -> Points:
    """Return the sum of the P&L."""
    return {
        team: Fraction(sum(result.pnl for result in results))
        for team, results in by_team(matches).items()
    }


def rank_weighted(matches: Matches, options: dict[str, Any]) -> Points:
    """Return the sum of i x P&L of the i-th best match, i from 1.

    So the worst match counts most.
    """
    return {
        team: Fraction(
            sum(
                number * value
                for number, value in enumerate(
                    sorted((r.pnl for r in results), reverse=True), 1
                )
            )
        )
        for team, results in by_team(matches).items()
    }


def rank_squared(matches: Matches, options: dict[str, Any]) -> Points:
    """Return minus the sum of (rank - 1) squared."""
    return {
        team: Fraction(-sum((result.rank - 1) ** 2 for result in results))
        for team, results in by_team(matches).items()
    }


def drawdown(matches: Matches, options: dict[str, Any]) -> Points:
    """Return the sum of P&L - k x drawdown; option ``k``, default 1/2.

    ``k`` is a number, or a text as in "1/3". A team that never connected has
    no more than the last one in its match.
    """
    try:
        k = Fraction(str(options.get("k", "1/2")))  # a text: 0.1 is 1/10
    except (ValueError, ZeroDivisionError):
        raise RuleError(
            f"drawdown: k is no number: {options['k']!r}"
        ) from None
    points: Points = {}
    for results in matches:
        values = {r.team: r.pnl - k * r.drawdown for r in results}
        last = min(values.values(), default=Fraction())
        for result in results:
            value = values[result.team] if result.connected else last
            points[result.team] = points.get(result.team, 0) + value
    return points


RULES: dict[str, Rule] = {
    "pnl": pnl,
    "rank_weighted": rank_weighted,
    "rank_squared": rank_squared,
    "drawdown": drawdown,
}


def by_team(matches: Matches) -> dict[str, list[Result]]:
    """Return the results of each team, in the order of the matches."""
    teams: dict[str, list[Result]] = {}
    for results in matches:
        for result in results:
            teams.setdefault(result.team, []).append(result)
    return teams


# Rules by name ------------------------------------------------------------


def load_rule(name: str, folder: Path) -> Rule:
    """Return a rule by its name; raises RuleError.

    A module of the organiser's own is looked for in ``folder`` first, which
    is that of the event file.
    """
    if name in RULES:
        return RULES[name]
    module, _, function = name.partition(":")
    path = str(folder.absolute())
    sys.path.insert(0, path)
    try:
        rule: Rule = getattr(import_module(module), function)
    except Exception as error:  # of code that is not ours
        raise RuleError(f"{name}: {type(error).__name__}: {error}") from None
    finally:
        sys.path.remove(path)
    if not callable(rule):
        raise RuleError(f"{name}: is not a function")
    return rule


def points_of(
    name: str,
    rule: Rule,
    matches: Matches,
    options: dict[str, Any],
    teams: Iterable[str],
) -> Points:
    """Return the points of all teams for one round; raises RuleError.

    A team without a result that the rule leaves out has 0 points.
    """
    try:
        given = rule(matches, dict(options))
        points = {team: Fraction(value) for team, value in given.items()}
    except RuleError:
        raise
    except Exception as error:  # of code that is not ours
        raise RuleError(f"{name}: {type(error).__name__}: {error}") from None
    return {team: points.get(team, Fraction()) for team in teams}


# Ranks and totals ---------------------------------------------------------


def ranks(values: Mapping[str, int | Fraction]) -> dict[str, int]:
    """Return the rank of each name, most first; equals share the better."""
    descending = sorted(values.values(), reverse=True)
    best: dict[int | Fraction, int] = {}
    for rank, value in enumerate(descending, 1):
        best.setdefault(value, rank)
    return {name: best[value] for name, value in values.items()}


def drawdown_of(equity: Iterable[int]) -> int:
    """Return the greatest fall from a peak, 0 or more."""
    worst, peak = 0, None
    for value in equity:
        peak = value if peak is None else max(peak, value)
        worst = max(worst, peak - value)
    return worst


def total(rounds: Sequence[tuple[int, Fraction]]) -> Fraction:
    """Return the sum of weight x points / 100."""
    return sum(
        (weight * points / HUNDRED for weight, points in rounds), Fraction()
    )


def decimals(value: Fraction) -> str:
    """Return a number with two decimals; halves are rounded away from 0."""
    hundredths = (abs(value) * 200 + 1) // 2
    sign = "-" if value < 0 and hundredths else ""
    return f"{sign}{hundredths // 100}.{hundredths % 100:02d}"
