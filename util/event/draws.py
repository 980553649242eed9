"""Who plays whom in an event of isolated matches: drawn once, and recorded.

A round is played in waves: the matches of a wave have different teams, so
they may run together. The record has each draw, because later ones depend on
the standings, and because a team that comes late takes part from the next one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import pairings
from .file import Event
from .record import EVENT, FILE, Attempt, Key, Record, Row
from .tables import MatchSettings

DRAW = "draw"  # the act of the record
EVERYBODY = "all"  # the name of a match of all teams
UNFINISHED = ("started", "open", "closed", "settled")  # statuses of a match
STANDINGS = "standings.json"


@dataclass(frozen=True, slots=True)
class Drawn:
    """A match that was drawn; without teams it is still to be drawn."""

    round: str
    wave: int  # from 1
    match: str
    teams: tuple[str, ...]


def shape(match: MatchSettings, teams: int) -> tuple[int, int]:
    """Return how many waves of matches a round has, and matches of a wave."""
    if match.pairs_as == "all":
        return match.repeats, 1
    if match.pairs_as == "round_robin":
        waves = teams - 1 if teams % 2 == 0 else teams
        return match.repeats * waves, teams // 2
    if match.pairs_as == "groups":
        return match.repeats, -(-teams // max(2, match.per_match))
    return match.repeats, teams // 2  # swiss


# What was drawn ----------------------------------------------------------


def drawn_of(rows: Iterable[Row]) -> list[Drawn]:
    """Return the matches that were drawn, in the order of play."""
    found: list[Drawn] = []
    waves: dict[str, int] = {}
    for row in rows:
        if row.key != EVENT or row.act != DRAW:
            continue
        name = row.detail["round"]
        for wave in row.detail["waves"]:
            waves[name] = waves.get(name, 0) + 1
            found += [
                Drawn(name, waves[name], match, tuple(teams))
                for match, teams in wave.items()
            ]
    return found


def read_drawn(folder: Path) -> list[Drawn]:
    """Return the matches that were drawn; ``folder`` is the data folder."""
    if not (folder / FILE).exists():
        return []
    with Record.of(folder) as record:
        return drawn_of(record.rows())


def teams_of(event: Event, round_name: str, match: str) -> tuple[str, ...]:
    """Return the teams of a match; none if it is not drawn yet."""
    if not event.is_large:
        return tuple(event.teams)
    for one in read_drawn(event.folder):
        if (one.round, one.match) == (round_name, match):
            return tuple(team for team in one.teams if team in event.teams)
    return ()


def matches_of(event: Event, round_name: str) -> list[Drawn]:
    """Return all matches of a round, also those that are not drawn yet.

    If they do not depend on standings, they have the teams that they would
    have if they were drawn now.
    """
    found = [d for d in read_drawn(event.folder) if d.round == round_name]
    if not found and event.settings_of(round_name).pairs_as == "round_robin":
        return [
            Drawn(round_name, number, match, tuple(teams))
            for number, wave in enumerate(_waves(event, round_name, (), ()), 1)
            for match, teams in wave.items()
        ]
    if is_drawn(event, round_name, found):
        return found
    waves, together = shape(event.settings_of(round_name), len(event.teams))
    first = found[-1].wave if found else 0
    for wave in range(first + 1, waves + 1):
        for _ in range(together):
            name = _name(event, round_name, len(found) + 1)
            found.append(Drawn(round_name, wave, name, ()))
    return found


def is_drawn(event: Event, round_name: str, drawn: Collection[Drawn]) -> bool:
    """Return whether all waves of a round were drawn."""
    settings = event.settings_of(round_name)
    waves = {one.wave for one in drawn if one.round == round_name}
    if settings.pairs_as == "round_robin":  # all of them at once
        return bool(waves)
    return len(waves) >= settings.repeats


# Drawing -----------------------------------------------------------------


def draw(event: Event, record: Record, round_name: str) -> None:
    """Draw what comes next in a round, and record it."""
    drawn = [d for d in drawn_of(record.rows()) if d.round == round_name]
    waves = _waves(event, round_name, drawn, _order(event, round_name))
    record.done(EVENT, DRAW, round=round_name, waves=waves)


def _waves(
    event: Event,
    round_name: str,
    drawn: Sequence[Drawn],
    order: Sequence[str],
) -> list[dict[str, list[str]]]:
    """Return the waves that come next, by the names of their matches."""
    settings = event.settings_of(round_name)
    waves: list[pairings.Wave]
    if settings.pairs_as == "round_robin":
        teams = pairings.drawn(event.teams, event.event.seed, round_name)
        waves = pairings.round_robin(teams) * settings.repeats
    elif settings.pairs_as == "groups":
        waves = [pairings.groups(order, max(2, settings.per_match))]
    elif settings.pairs_as == "swiss":
        met = {frozenset(one.teams) for one in drawn}
        waves = [pairings.swiss(order, met, _byes(event, drawn))]
    else:
        waves = pairings.everybody([*event.teams])
    count = len(drawn)
    found = []
    for wave in waves:
        found.append(
            {
                _name(event, round_name, count + number): [*teams]
                for number, teams in enumerate(wave, 1)
            }
        )
        count += len(wave)
    return found


def _name(event: Event, round_name: str, number: int) -> str:
    """Return the name of a match by its number in the round."""
    if event.settings_of(round_name).pairs_as != "all":
        return f"{number:02}"
    return EVERYBODY if number == 1 else f"{EVERYBODY}-{number}"


def _byes(event: Event, drawn: Iterable[Drawn]) -> set[str]:
    """Return the teams that were left out of an earlier wave."""
    waves: dict[int, set[str]] = {}
    for one in drawn:
        waves.setdefault(one.wave, set()).update(one.teams)
    return {t for t in event.teams if any(t not in w for w in waves.values())}


def _order(event: Event, round_name: str) -> list[str]:
    """Return the teams by the standings so far; equal ones as drawn by lot."""
    try:
        value = json.loads((event.folder / STANDINGS).read_text("utf-8"))
        ranks = {row["team"]: row["rank"] for row in value["rows"]}
    except FileNotFoundError:
        ranks = {}
    teams = pairings.drawn(event.teams, event.event.seed, round_name)
    last = len(ranks) + 1
    return sorted(teams, key=lambda team: ranks.get(team, last))


# What is next ------------------------------------------------------------


def next_batch(
    event: Event, record: Record, until: str | None = None
) -> list[Key]:
    """Return the matches to be played now, of which some may be under way.

    Those of a wave come together; void ones that are played again come at the
    end of their round. Draws a wave if it is time to. Empty: all is played.
    ``until`` is the last round.
    """
    for settings in event.rounds:
        name = settings.name
        while True:
            attempts = record.attempts()
            drawn = [d for d in drawn_of(record.rows()) if d.round == name]
            for wave in sorted({one.wave for one in drawn}):
                keys = [
                    Key(name, one.match, 1)
                    for one in drawn
                    if one.wave == wave and _is_first_due(attempts, one)
                ]
                if keys:
                    return keys
            if is_drawn(event, name, drawn):
                break
            draw(event, record, name)
        if again := [*filter(None, (_again(attempts, d) for d in drawn))]:
            return again
        if name == until:
            break
    return []


def _is_first_due(attempts: Mapping[Key, Attempt], one: Drawn) -> bool:
    """Return whether the first attempt at a match is not over."""
    first = attempts.get(Key(one.round, one.match, 1))
    return first is None or first.status in UNFINISHED


def _again(attempts: Mapping[Key, Attempt], one: Drawn) -> Key | None:
    """Return a later attempt at a match that is due, or under way."""
    last = [
        attempt
        for key, attempt in attempts.items()
        if (key.round, key.match) == (one.round, one.match)
    ][-1]
    if last.status in UNFINISHED:
        return last.key
    if last.status == "void" and last.is_again:
        return Key(one.round, one.match, last.key.attempt + 1)
    return None
