"""Who plays against whom in the rounds that have several matches.

Pure: the same teams, seed and standings give the same matches. A match is a
list of teams; a wave is a list of matches of different teams, which may run
together. A team that is in no match of a wave has a bye.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from typing import TypeAlias

Group: TypeAlias = tuple[str, ...]  # the teams of a match
Wave: TypeAlias = list[Group]
Pair: TypeAlias = frozenset[str]


def drawn(teams: Iterable[str], seed: int, round_name: str) -> list[str]:
    """Return the teams in the order that the seed gives to a round."""
    order = sorted(teams)
    random.Random(f"{seed}/{round_name}").shuffle(order)
    return order


def everybody(teams: Sequence[str]) -> list[Wave]:
    """Return one match of all teams."""
    return [[tuple(teams)]]


def round_robin(teams: Sequence[str]) -> list[Wave]:
    """Return waves in which everybody meets everybody once.

    The circle method: the first team is fixed, the others rotate by one. The
    partner of an odd one out has a bye.
    """
    circle: list[str | None] = [*teams]
    if len(circle) % 2:
        circle.append(None)
    half = len(circle) // 2
    waves = []
    for _ in range(len(circle) - 1):
        pairs = zip(circle[:half], reversed(circle[half:]))
        wave: Wave = [(a, b) for a, b in pairs if a and b]
        waves.append(wave)
        circle = [circle[0], circle[-1], *circle[1:-1]]
    return waves


def groups(standings: Sequence[str], per_match: int) -> Wave:
    """Return groups of about equal strength, by the snake.

    With G groups, the first G of the standings go to the groups 1 to G, the
    next G to the groups G to 1, and so on.
    """
    count = -(-len(standings) // per_match)
    found: list[list[str]] = [[] for _ in range(count)]
    for place, team in enumerate(standings):
        lap, number = divmod(place, count)
        found[number if lap % 2 == 0 else count - 1 - number].append(team)
    return [tuple(group) for group in found]


def swiss(
    standings: Sequence[str],
    met: Collection[Pair],
    had_bye: Collection[str] = (),
) -> Wave:
    """Return a wave: best against next best that it has not met.

    ``met`` are the pairs of earlier waves. If the teams are odd, the last one
    of the standings that had no bye has one. Where no wave without a repeated
    pair exists, as few of the last teams as possible meet again.
    """
    teams = [*standings]
    if len(teams) % 2:
        without = [team for team in reversed(teams) if team not in had_bye]
        teams.remove(without[0] if without else teams[-1])
    return _matched(teams, set(met)) or _repeated(teams, met)


TRIES_MAX = 20_000  # steps of a search, some milliseconds


def _matched(teams: Sequence[str], met: Collection[Pair]) -> Wave | None:
    """Return pairs that have not met, the best ones first; None: none."""
    tries = 0

    def search(left: list[str]) -> Wave | None:
        nonlocal tries
        if not left:
            return []
        first, *others = left
        for other in others:
            tries += 1
            if tries > TRIES_MAX:
                return None
            if frozenset((first, other)) in met:
                continue
            rest = search([team for team in others if team != other])
            if rest is not None:
                return [(first, other), *rest]
        return None

    return search([*teams])


def _repeated(teams: Sequence[str], met: Collection[Pair]) -> Wave:
    """Return pairs, from the best on, of which some have met."""
    left = [*teams]
    wave: Wave = []
    while left:
        first = left.pop(0)
        new = [t for t in left if frozenset((first, t)) not in met]
        other = (new or left)[0]
        left.remove(other)
        wave.append((first, other))
    return wave
