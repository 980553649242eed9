"""Pairings of 2 to 17 teams."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from util.event.pairings import (
    Pair,
    Wave,
    drawn,
    everybody,
    groups,
    round_robin,
    swiss,
)

COUNTS = range(2, 18)


def teams_of(count: int) -> list[str]:
    return [f"T{number:02}" for number in range(1, count + 1)]


def pairs_of(wave: Wave) -> list[Pair]:
    return [frozenset(group) for group in wave]


def check_wave(wave: Wave, teams: list[str]) -> list[str]:
    """Check that nobody plays twice; return who has a bye."""
    playing = [team for group in wave for team in group]
    assert len(set(playing)) == len(playing)
    return [team for team in teams if team not in playing]


def test_the_circle_of_four() -> None:
    assert round_robin(["A", "B", "C", "D"]) == [
        [("A", "D"), ("B", "C")],
        [("A", "C"), ("D", "B")],
        [("A", "B"), ("C", "D")],
    ]


@pytest.mark.parametrize("count", COUNTS)
def test_everybody_meets_everybody_once(count: int) -> None:
    teams = teams_of(count)
    waves = round_robin(teams)
    met = Counter(pair for wave in waves for pair in pairs_of(wave))
    assert met == Counter(map(frozenset, combinations(teams, 2)))
    byes = Counter(t for wave in waves for t in check_wave(wave, teams))
    assert byes == (Counter(teams) if count % 2 else {})
    assert len(waves) == (count if count % 2 else count - 1)


def test_the_order_is_that_of_seed_and_round() -> None:
    teams = teams_of(9)
    order = drawn(reversed(teams), 7, "A")
    assert order == drawn(teams, 7, "A") and sorted(order) == teams
    assert order != drawn(teams, 7, "B") and order != drawn(teams, 8, "A")
    assert drawn("ABCD", 7, "A") == ["A", "D", "C", "B"]  # on every Python


def test_all_are_one_match() -> None:
    assert everybody(["A", "B", "C"]) == [[("A", "B", "C")]]


def test_the_snake() -> None:
    assert groups(teams_of(8), 3) == [
        ("T01", "T06", "T07"),
        ("T02", "T05", "T08"),
        ("T03", "T04"),
    ]
    assert groups(["A", "B", "C"], 4) == [("A", "B", "C")]


@pytest.mark.parametrize("per_match", [2, 3, 4, 5])
@pytest.mark.parametrize("count", COUNTS)
def test_groups_are_equally_strong(count: int, per_match: int) -> None:
    teams = teams_of(count)
    wave = groups(teams, per_match)
    assert check_wave(wave, teams) == []
    sizes = [len(group) for group in wave]
    assert max(sizes) <= per_match and max(sizes) - min(sizes) <= 1
    full = [group for group in wave if len(group) == max(sizes)]
    strength = [sum(teams.index(team) for team in group) for group in full]
    assert max(strength) - min(strength) < max(2, len(wave)) * 2


@pytest.mark.parametrize("count", COUNTS)
def test_in_a_swiss_system_nobody_meets_twice(count: int) -> None:
    """As long as that is possible: half of all waves surely are."""
    teams = teams_of(count)
    met: set[Pair] = set()
    byes: list[str] = []
    for _ in range(max(1, count // 2)):
        wave = swiss(teams, met, byes)
        byes += check_wave(wave, teams)
        assert not met & set(pairs_of(wave))
        met |= set(pairs_of(wave))
        teams = teams[1:] + teams[:1]  # other standings
    assert len(set(byes)) == len(byes) == (max(1, count // 2) * (count % 2))


def test_the_best_meets_the_next_best_that_it_has_not_met() -> None:
    teams = teams_of(6)
    first = swiss(teams, ())
    assert first == [("T01", "T02"), ("T03", "T04"), ("T05", "T06")]
    second = swiss(teams, pairs_of(first))
    assert second == [("T01", "T03"), ("T02", "T05"), ("T04", "T06")]


def test_the_last_ones_look_back_if_they_have_met() -> None:
    """T03 and T04 have met, so T01 and T02 do not play each other."""
    met = {frozenset(("T03", "T04"))}
    assert swiss(teams_of(4), met) == [("T01", "T03"), ("T02", "T04")]


def test_if_all_have_met_they_meet_again() -> None:
    met = set(map(frozenset, combinations(teams_of(4), 2)))
    assert swiss(teams_of(4), met) == [("T01", "T02"), ("T03", "T04")]


def test_many_teams_are_paired_at_once() -> None:
    """A search that finds nothing ends, although there are many ways."""
    teams = teams_of(60)
    last = teams[-1]
    met = {frozenset((team, last)) for team in teams[:-1]}
    wave = swiss(teams, met)
    assert check_wave(wave, teams) == []
