"""Standings of an event: points of rounds, totals and ranks.

``python -m util.event score`` makes them again from the journals. They are
written to ``DATA/standings.json`` and ``DATA/standings.csv``.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from exchange.journal.sqlite import JournalError
from util.cli import failed, utf8

from .dossier import write_match
from .fair import FairError
from .figures import ResultError
from .file import Event, EventError, read_event
from .follow import Match
from .kept import keep, kept
from .options import event_parser
from .output import write_text
from .results import Played, follow_all, played, results_of
from .scoring import (
    RULES,
    Matches,
    Points,
    Result,
    RuleError,
    decimals,
    load_rule,
    points_of,
    ranks,
    total,
)

JSON_FILE = "standings.json"
CSV_FILE = "standings.csv"


@dataclass(frozen=True, slots=True)
class RoundStandings:
    """Points of one round; none before a match of it counts."""

    name: str
    weight: int
    rule: str
    matches: int  # that count
    points: Mapping[str, Fraction]


@dataclass(frozen=True, slots=True)
class TeamStandings:
    """One team: ``points`` by round, ``before`` its rank a match ago."""

    rank: int
    team: str
    total: Fraction
    points: Mapping[str, Fraction]
    before: int | None
    last: Result | None  # of the last match


@dataclass(frozen=True, slots=True)
class Standings:
    """The standings of an event, the best team first."""

    event: str
    rounds: Sequence[RoundStandings]
    teams: Sequence[TeamStandings]
    last_match: str | None  # as in A/03

    def as_json(self) -> str:
        """Return ``standings.json``."""
        value = {
            "event": self.event,
            "last_match": self.last_match,
            "rounds": [one.name for one in self.rounds],
            "weights": {one.name: one.weight for one in self.rounds},
            "rules": {one.name: one.rule for one in self.rounds},
            "rows": [_row(team) for team in self.teams],
        }
        return json.dumps(value, indent=2, ensure_ascii=False) + "\n"

    def as_csv(self) -> str:
        """Return ``standings.csv``: rank, team, total, and each round."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        names = [one.name for one in self.rounds]
        writer.writerow(["rank", "team", "total", *names])
        for team in self.teams:
            points = [_shown(team.points.get(name)) for name in names]
            writer.writerow(
                [team.rank, team.team, decimals(team.total), *points]
            )
        return text.getvalue()

    def lines(self) -> Iterator[str]:
        """Yield the lines of a table for people."""
        names = [one.name for one in self.rounds]
        rows = [["rank", "team", "total", *names]]
        for team in self.teams:
            points = [_shown(team.points.get(name), "-") for name in names]
            rows.append(
                [str(team.rank), team.team, decimals(team.total), *points]
            )
        widths = [max(map(len, column)) for column in zip(*rows)]
        for row in rows:
            cells = [
                cell.ljust(width) if number == 1 else cell.rjust(width)
                for number, (cell, width) in enumerate(zip(row, widths))
            ]
            yield "  ".join(cells).rstrip()


def _row(team: TeamStandings) -> dict[str, Any]:
    """Return a row of ``standings.json``; ``last`` is a P&L."""
    last = team.last
    return {
        "rank": team.rank,
        "change": None if team.before is None else team.before - team.rank,
        "team": team.team,
        "total": decimals(team.total),
        "points": {n: decimals(value) for n, value in team.points.items()},
        "last": None if last is None else last.pnl,
        "last_rank": None if last is None else last.rank,
    }


def _shown(points: Fraction | None, otherwise: str = "") -> str:
    return otherwise if points is None else decimals(points)


# Making them --------------------------------------------------------------


def standings_of(
    event: Event,
    rule: str | None = None,
    dossiers_of: tuple[str, str] | None = None,
) -> Standings:
    """Return the standings, from the journals of the matches that count.

    ``rule`` replaces those of the event file. The dossiers of the round and
    match ``dossiers_of`` are written on the way: a long journal is read once,
    and those of other isolated matches are not read, if their results were
    kept. Raises RuleError, ResultError, JournalError, FairError and OSError.
    """
    matches = played(event)
    results: dict[str, list[Result]] = {}
    if event.is_large and dossiers_of is not None:
        for one in matches:
            known = kept(event, one)
            if known is not None and _place(one) != dossiers_of:
                results[one.name] = known
    unknown = [one for one in matches if one.name not in results]
    for one, fair, match in follow_all(event, unknown):
        if _place(one) != dossiers_of:
            results[one.name] = _read(event, one, match)
            continue
        results[one.name] = write_match(event, one, fair, match)
        if event.is_large:
            keep(event, one, results[one.name])
    found = [(one, results[one.name]) for one in matches]
    return make_standings(event, found, rule)


def _place(one: Played) -> tuple[str, str]:
    return one.row.round, one.row.match


def _read(event: Event, one: Played, match: Match) -> list[Result]:
    """Read the rows of a match; return its results."""
    try:
        for _ in match.rows():
            pass
    except ResultError as error:
        raise ResultError(f"{one.name}: {error}") from None
    return results_of(match, event.settings_of(one.row.round))


def make_standings(
    event: Event,
    found: Sequence[tuple[Played, list[Result]]],
    rule: str | None = None,
) -> Standings:
    """Return the standings after matches, given in the order of play."""
    rounds = _rounds(event, found, rule)
    totals = _totals(event, rounds)
    places = ranks(totals)
    before: dict[str, int] = {}
    if len(found) > 1:
        earlier = _rounds(event, found[:-1], rule)
        before = ranks(_totals(event, earlier))
    last = {result.team: result for _, results in found for result in results}
    teams = [
        TeamStandings(
            rank=places[team],
            team=team,
            total=totals[team],
            points={
                one.name: one.points[team] for one in rounds if one.matches
            },
            before=before.get(team),
            last=last.get(team),
        )
        for team in event.teams
    ]
    return Standings(
        event=event.event.name,
        rounds=rounds,
        teams=sorted(teams, key=lambda one: (one.rank, one.team)),
        last_match=found[-1][0].name if found else None,
    )


def _rounds(
    event: Event,
    found: Sequence[tuple[Played, list[Result]]],
    rule: str | None,
) -> list[RoundStandings]:
    """Return the points of each round; raises RuleError."""
    rounds = []
    for row in event.rounds:
        scoring = event.scoring_of(row.name)
        name = rule or scoring.rule
        matches: Matches = [
            results for one, results in found if one.row.round == row.name
        ]
        points: Points = {}
        if matches:
            points = points_of(
                name,
                load_rule(name, event.path.parent),
                matches,
                scoring.options,
                event.teams,
            )
        rounds.append(
            RoundStandings(row.name, row.weight, name, len(matches), points)
        )
    return rounds


def _totals(
    event: Event, rounds: Sequence[RoundStandings]
) -> dict[str, Fraction]:
    return {
        team: total(
            [(one.weight, one.points[team]) for one in rounds if one.matches]
        )
        for team in event.teams
    }


def write_standings(
    event: Event, dossiers_of: tuple[str, str] | None = None
) -> Standings:
    """Write the standings, and return them; as `standings_of`."""
    standings = standings_of(event, dossiers_of=dossiers_of)
    write_text(event.folder / JSON_FILE, standings.as_json())
    write_text(event.folder / CSV_FILE, standings.as_csv())
    return standings


# The command --------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.event score``; return the exit status."""
    parser = event_parser(
        "score", "Make the standings again, from the journals."
    )
    parser.add_argument(
        "--rule",
        type=utf8,
        metavar="R",
        help="show what another rule would give, and write nothing:"
        f" {', '.join(RULES)}, or module:function",
    )
    options = parser.parse_args(arguments)
    try:
        event = read_event(options.event)
        if options.rule is None:
            standings = write_standings(event)
        else:
            load_rule(options.rule, event.path.parent)
            standings = standings_of(event, options.rule)
    except (EventError, RuleError) as error:
        return failed("event score", error)
    except (FairError, JournalError, ResultError, OSError) as error:
        return failed("event score", error, 1)
    for line in standings.lines():
        print(line)
    return 0
