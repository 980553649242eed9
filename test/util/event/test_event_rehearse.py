"""A whole event in virtual time: the acts of a match, and what they change."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from test.util.event.playing import Playing
from util.event.draws import read_drawn
from util.event.file import read_event
from util.event.record import Attempt, Record
from util.event.rehearse import Rehearsal, moved
from util.simulate.event import main

ACTS = """\
[[news]]
at = 4
symbol = "GS"
headline = "GS beats expectations"
jump = 60
[[dividends]]
at = 2
symbol = "GS"
amount = 5
[[tenders]]
at = 3
symbol = "GS"
side = "buy"
qty = 50
edge = [10, 30]
valid = 2
"""
# Accepts each tender, and holds it to the end.
ACCEPTING = """\
import asyncio
from client import Exchange

async def main():
    async with Exchange() as ex:
        async for tender in ex.offers():
            await ex.accept(tender)

asyncio.run(main())
"""
# Buys and sells at any price, and pays the spread each time.
LOSING = """\
import asyncio
from client import Exchange, ExchangeError
from orderbook import Refused

async def main():
    async with Exchange() as ex:
        gs = await ex.market("GS")
        while True:
            for trade, price in ((gs.buy, 9000), (gs.sell, 1)):
                try:
                    await trade(9, price, time_in_force="ioc")
                except (Refused, ExchangeError):
                    pass
            await asyncio.sleep(0.1)

asyncio.run(main())
"""


def rehearse(
    folder: Path, bots: dict[str, str], text: str = ACTS
) -> tuple[list[Attempt], dict[str, int], str]:
    """Play two rounds; return attempts, P&L of the last one, digest."""
    folder.mkdir(exist_ok=True)
    event = Playing(folder, rounds="AB", trading=6)
    for team, code in bots.items():
        (folder / f"bots/{team}.py").write_text(code)
    teams = "".join(
        f'{team} = {{ bot = ["python", "bots/{team}.py"] }}\n' for team in bots
    )
    event.change("ORANGE = {}\n", teams + "ORANGE = {}\n")
    event.path.write_text(event.path.read_text() + text)
    data = folder / "rehearsed"
    rehearsal = Rehearsal(
        moved(read_event(event.path), data), 7, io.StringIO()
    )
    assert rehearsal.left_out == ["ORANGE"]
    standings, failures, digest = rehearsal.run()
    assert not failures
    with Record.of(data) as record:
        attempts = [*record.attempts().values()]
    pnls = {row.team: row.last.pnl for row in standings.teams if row.last}
    return attempts, pnls, digest


def test_all_acts_of_a_match_are_done_in_their_order(tmp_path: Path) -> None:
    attempts, pnls, digest = rehearse(tmp_path / "1", {"LEMON": ACCEPTING})
    for attempt in attempts:
        assert attempt.status == "scored"
        assert [*attempt.done] == [
            *("fair", "reset", "announce", "open", "dividend-1"),
            *("tender-1", "news-1", "close", "settle", "settled", "score"),
        ]
    # 50 lots, bought 10 to 30 ticks below fair, which then jumps by 60.
    assert pnls["LEMON"] > 0
    assert attempts[0].begun["tender-1"] != attempts[1].begun["tender-1"]
    _, again, same = rehearse(tmp_path / "2", {"LEMON": ACCEPTING})
    assert (again, same) == (pnls, digest)


@pytest.mark.parametrize("at", ["fair", "mark"])
def test_a_team_that_loses_too_much_is_closed_out(
    tmp_path: Path, at: str
) -> None:
    text = f"""\
[match.blow_out]
limit = -100
at = "{at}"
"""
    attempts, pnls, _ = rehearse(tmp_path, {"LEMON": LOSING}, text)
    for attempt in attempts:
        assert "close_out.LEMON" in attempt.done
    # What it lost by then; it could not trade on, and started again in B.
    assert pnls["LEMON"] < -100
    summary = tmp_path / "rehearsed/B/all/LEMON/summary.json"
    assert json.loads(summary.read_text())["blown_out_ms"]


def test_isolated_matches_are_rehearsed_in_all_pairings(
    tmp_path: Path,
) -> None:
    """One after the other, each with a market of its own."""
    event = Playing(tmp_path, rounds="ABC", trading=2)
    bots = "".join(
        f'{team} = {{ bot = ["python", "bots/apple.py"] }}\n'
        for team in ("LEMON", "PLUM", "KIWI")
    )
    event.change("ORANGE = {}\n", bots)
    event.change("[match]", "[match]\nper_match = 2")
    event.change('name = "A"', 'name = "A"\npairing = "swiss"\nrepeats = 2')
    event.change('name = "B"', 'name = "B"\nper_match = 3')
    event.change('name = "C"', 'name = "C"\nper_match = 0')
    data = tmp_path / "rehearsed"
    rehearsal = Rehearsal(
        moved(read_event(event.path), data), 7, io.StringIO()
    )
    standings, failures, _ = rehearsal.run()
    assert not failures and not rehearsal.left_out
    drawn = [(d.round, d.match, len(d.teams)) for d in read_drawn(data)]
    assert drawn == [
        *(("A", f"0{n}", 2) for n in range(1, 5)),
        *(("B", "01", 2), ("B", "02", 2), ("C", "all", 4)),
    ]
    # Nobody met twice in A, and everybody traded in its own market.
    assert len({frozenset(d.teams) for d in read_drawn(data)[:4]}) == 4
    for one in read_drawn(data):
        folder = data / one.round / one.match
        assert {p.parent.name for p in folder.glob("*/fills.csv")} == {
            *one.teams
        }
        assert (folder / "journal.db").exists()
    assert [one.matches for one in standings.rounds] == [4, 2, 1]


def test_the_command_prints_standings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    event = Playing(tmp_path, rounds="A", trading=5)
    assert main([str(event.path), "--seed", "7"]) == 0
    first = capsys.readouterr().out
    assert "ORANGE is left out" in first
    assert "rank  team" in first
    assert not event.data.exists()
    data = tmp_path / "kept"
    assert main([str(event.path), "--seed", "7", "--data", str(data)]) == 0
    assert capsys.readouterr().out == first
    assert (data / "A/all/APPLE/fills.csv").exists()
