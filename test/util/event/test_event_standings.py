"""Standings: totals, ranks and what the files say."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from orderbook import Admin
from test.util.event.days import CONNECT, EVENT, ROUND_A, Day, played
from test.util.event.test_event_scoring import match
from util.event.__main__ import main
from util.event.dossier import write_dossiers
from util.event.file import read_event
from util.event.record import MatchRow
from util.event.results import Played
from util.event.results import played as matches_of
from util.event.scoring import Result
from util.event.standings import make_standings, standings_of, write_standings

ROUND_B = "1 PLUM buy 3@900 symbol=BOND\n2 APPLE sell 3@900 symbol=BOND"


def found(name: str, results: list[Result]) -> tuple[Played, list[Result]]:
    """Return a match of a round with these results."""
    row = MatchRow(name, "all", 1, "scored", 0, "", 1)
    teams = tuple(result.team for result in results)
    return Played(row, Path(name), Path("journal.db"), teams), results


def two_rounds(folder: Path, text: str = EVENT) -> Day:
    day = Day(folder, text)
    day.round("A", ROUND_A, CONNECT)
    day.round("B", ROUND_B)
    day.save()
    return day


def test_totals_are_weighted(tmp_path: Path) -> None:
    """A: +30, -30, -100, 0 at 40 %; B, rank_squared, at 60 %."""
    day = two_rounds(tmp_path)
    standings = standings_of(day.event)
    assert [(t.rank, t.team, t.total) for t in standings.teams] == [
        (1, "ORANGE", Fraction(30 * 40 - 1 * 60, 100)),
        (2, "PLUM", 0),
        (3, "APPLE", Fraction(-30 * 40 - 9 * 60, 100)),
        (4, "LEMON", Fraction(-100 * 40 - 1 * 60, 100)),
    ]
    orange = standings.teams[0]
    assert orange.points == {"A": 30, "B": -1}
    assert [(r.name, r.rule, r.matches) for r in standings.rounds] == [
        *(("A", "pnl", 1), ("B", "rank_squared", 1)),
    ]


def test_the_rank_of_a_match_ago_is_kept(tmp_path: Path) -> None:
    event = read_event(played(tmp_path).event.path)
    first = found("A", match(ORANGE=10, APPLE=5, LEMON=0, PLUM=-5))
    second = found("B", match(ORANGE=-10, APPLE=5, LEMON=0, PLUM=50))
    standings = make_standings(event, [first])
    assert [t.before for t in standings.teams] == [None] * 4
    standings = make_standings(event, [first, second])
    assert [(t.team, t.rank, t.before) for t in standings.teams] == [
        ("APPLE", 1, 2),
        ("ORANGE", 2, 1),
        ("PLUM", 3, 4),
        ("LEMON", 4, 3),
    ]
    assert [t.last and t.last.rank for t in standings.teams] == [2, 4, 1, 3]
    assert standings.last_match == "B/all"
    rows = json.loads(standings.as_json())["rows"]
    assert [row["change"] for row in rows] == [1, -1, 1, -1]


def test_equal_totals_share_a_rank(tmp_path: Path) -> None:
    event = read_event(played(tmp_path).event.path)
    results = match(ORANGE=10, APPLE=10, LEMON=0, PLUM=0)
    standings = make_standings(event, [found("A", results)])
    assert [(t.rank, t.team) for t in standings.teams] == [
        *((1, "APPLE"), (1, "ORANGE"), (3, "LEMON"), (3, "PLUM")),
    ]


def test_before_the_first_match_all_are_equal(tmp_path: Path) -> None:
    event = Day(tmp_path).event
    standings = standings_of(event)
    assert {(t.rank, t.total) for t in standings.teams} == {(1, Fraction())}
    assert standings.last_match is None
    assert matches_of(event) == []


def test_the_files_of_standings(tmp_path: Path) -> None:
    day = two_rounds(tmp_path)
    write_standings(day.event)
    folder = day.event.folder
    assert (folder / "standings.csv").read_bytes() == (
        b"rank,team,total,A,B\r\n"
        b"1,ORANGE,11.40,30.00,-1.00\r\n"
        b"2,PLUM,0.00,0.00,0.00\r\n"
        b"3,APPLE,-17.40,-30.00,-9.00\r\n"
        b"4,LEMON,-40.60,-100.00,-1.00\r\n"
    )
    value = json.loads((folder / "standings.json").read_text())
    assert value["event"] == "Played" and value["last_match"] == "B/all"
    assert value["rounds"] == ["A", "B"]
    assert value["weights"] == {"A": 40, "B": 60}
    assert value["rules"] == {"A": "pnl", "B": "rank_squared"}
    assert value["rows"][1] == {
        "rank": 2,
        "change": 0,
        "team": "PLUM",
        "total": "0.00",
        "points": {"A": "0.00", "B": "0.00"},
        "last": 300,
        "last_rank": 1,
    }


def test_dossiers_are_written_on_the_way(tmp_path: Path) -> None:
    day = two_rounds(tmp_path)
    standings = write_standings(day.event, dossiers_of=("B", "all"))
    assert standings == standings_of(day.event)
    assert not (day.event.folder / "A/all/public").exists()
    path = day.event.folder / "B/all/PLUM/summary.json"
    assert json.loads(path.read_text())["pnl"] == 300
    before = path.read_bytes()
    write_dossiers(day.event, "B", "all")
    assert path.read_bytes() == before


def test_a_round_that_was_not_played_has_no_points(tmp_path: Path) -> None:
    day = played(tmp_path)
    write_standings(day.event)
    text = (day.event.folder / "standings.csv").read_text()
    assert text.splitlines()[1] == "1,ORANGE,12.00,30.00,"


def test_score_prints_and_writes_the_same_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    day = two_rounds(tmp_path)
    path, folder = str(day.event.path), day.event.folder
    texts = []
    for _ in range(2):
        assert main(["score", path]) == 0
        texts.append(
            (
                capsys.readouterr().out,
                (folder / "standings.json").read_bytes(),
                (folder / "standings.csv").read_bytes(),
            )
        )
    assert texts[0] == texts[1]
    assert texts[0][0].splitlines()[:2] == [
        "rank  team     total        A      B",
        "   1  ORANGE   11.40    30.00  -1.00",
    ]


def test_another_rule_is_shown_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    day = two_rounds(tmp_path)
    path = str(day.event.path)
    assert main(["score", path, "--rule", "rank_weighted"]) == 0
    assert "   1  PLUM     180.00     0.00   300.00" in capsys.readouterr().out
    assert not (day.event.folder / "standings.csv").exists()
    (tmp_path / "own_rule_of_score.py").write_text(
        "def points(matches, options):\n    return {'LEMON': 1}\n"
    )
    own = "own_rule_of_score:points"
    assert main(["score", path, "--rule", own]) == 0
    assert "   1  LEMON    1.00  1.00  1.00" in capsys.readouterr().out
    assert main(["score", path, "--rule", "best"]) == 2
    assert "best" in capsys.readouterr().err


def test_a_journal_that_ends_too_early_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    day = two_rounds(tmp_path)
    actions = [command.action for command in day.commands]
    [reset] = [
        number
        for number, action in enumerate(actions)
        if isinstance(action, Admin) and action.action == "reset"
    ]
    day.commands = day.commands[:reset]
    path = str(day.save())
    assert main(["score", path]) == 1
    err = capsys.readouterr().err
    assert "journal.db: ends in round 1 of the market, before round 2" in err
    (day.event.folder / "journal.db").unlink()
    assert main(["score", path]) == 1
    assert "there is no such journal" in capsys.readouterr().err
