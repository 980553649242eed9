"""Who plays whom next, and which matches are played at a time."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from test.util.event.files import write_event
from util.event.batch import play_batch
from util.event.check import parallel_of
from util.event.draws import (
    drawn_of,
    matches_of,
    next_batch,
    read_drawn,
    teams_of,
)
from util.event.file import Event, EventError, read_event
from util.event.front.table import Team
from util.event.isolated import free_ports, table_of
from util.event.record import Key, Record
from util.event.run import main as run

TEAMS = "ABCDEFGH"


def event_of(folder: Path, rounds: str, teams: str = TEAMS) -> Event:
    lines = "".join(f"{team} = {{}}\n" for team in teams)
    return read_event(
        write_event(
            folder,
            '[event]\nname = "x"\nmarket = "market.toml"\ndata = "data"\n'
            'seed = 7\nmatch_ports = "19100-19120"\n'
            f"[teams]\n{lines}[match]\nper_match = 2\n{rounds}"
            '[fair.BOND]\nkind = "constant"\nstart = 1000\n',
            "[instruments.BOND]\n",
        )
    )


def round_of(name: str, more: str = "") -> str:
    return f'[[rounds]]\nname = "{name}"\n{more}\n'


def play(record: Record, key: Key) -> None:
    """Let a match be played to its end."""
    record.begin(key, "start", number=1)
    for act in ("open", "close", "settled", "score"):
        record.done(key, act)


def rank(event: Event, order: str) -> None:
    """Write standings."""
    rows = [{"team": team, "rank": n} for n, team in enumerate(order, 1)]
    event.folder.mkdir(parents=True, exist_ok=True)
    path = event.folder / "standings.json"
    path.write_text(json.dumps({"rows": rows}))


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    with Record.of(tmp_path / "data") as one:
        yield one


def pairs(event: Event, keys: list[Key]) -> list[str]:
    """Return the teams of matches, in the order of the alphabet."""
    return sorted(
        "".join(sorted(teams_of(event, key.round, key.match))) for key in keys
    )


def test_a_round_robin_is_drawn_once(tmp_path: Path, record: Record) -> None:
    event = event_of(tmp_path, round_of("A"), "ABCDE")
    met: Counter[str] = Counter()
    waves = 0
    expected = [one.teams for one in matches_of(event, "A")]
    while keys := next_batch(event, record):
        assert len(keys) == 2  # and a bye
        assert next_batch(event, record) == keys
        met.update(pairs(event, keys))
        for key in keys:
            play(record, key)
        waves += 1
    assert waves == 5
    assert len(met) == 10 and set(met.values()) == {1}
    # The plan that was shown before is what was drawn.
    drawn = drawn_of(record.rows())
    assert [one.teams for one in drawn] == expected
    assert [one.match for one in drawn] == [f"{n:02}" for n in range(1, 11)]


def test_a_late_team_is_in_what_is_drawn_next(
    tmp_path: Path, record: Record
) -> None:
    rounds = round_of("A") + round_of("B", "per_match = 0")
    event = event_of(tmp_path, rounds, "ABCD")
    first = next_batch(event, record)
    event = event_of(tmp_path, rounds, "ABCDE")
    assert next_batch(event, record) == first
    while (keys := next_batch(event, record))[0].round == "A":
        assert len(keys) == 2
        for key in keys:
            play(record, key)
    assert pairs(event, keys) == ["ABCDE"]
    assert [key.match for key in keys] == ["all"]


def test_swiss_follows_the_standings(tmp_path: Path, record: Record) -> None:
    swiss = 'pairing = "swiss"\nrepeats = 3'
    event = event_of(tmp_path, round_of("A", swiss), "ABCDE")
    names = [one.match for one in matches_of(event, "A")]
    assert names == ["01", "02", "03", "04", "05", "06"]
    assert all(one.teams == () for one in matches_of(event, "A"))
    # E, the last, has a bye; then C, the last that had none.
    for order, expected in (
        ("ABCDE", ["AB", "CD"]),
        ("BADCE", ["AE", "BD"]),
        ("EBACD", ["AC", "BE"]),
    ):
        rank(event, order)
        keys = next_batch(event, record)
        assert pairs(event, keys) == expected
        for key in keys:
            play(record, key)
    met = [frozenset(one.teams) for one in read_drawn(event.folder)]
    assert len({*met}) == len(met) == 6
    assert next_batch(event, record) == []


def test_groups_are_about_equally_strong(
    tmp_path: Path, record: Record
) -> None:
    event = event_of(tmp_path, round_of("A", "per_match = 4"))
    rank(event, TEAMS)
    assert pairs(event, next_batch(event, record)) == ["ADEH", "BCFG"]


def test_a_void_match_comes_at_the_end_of_its_round(
    tmp_path: Path, record: Record
) -> None:
    event = event_of(tmp_path, round_of("A") + round_of("B"), "ABCD")
    first, second = next_batch(event, record)
    record.begin(first, "start", number=1)
    record.done(first, "void", reason="x", again=True)
    play(record, second)
    for _ in range(2):
        for key in next_batch(event, record):
            assert key.attempt == 1
            play(record, key)
    again = Key("A", first.match, 2)
    assert next_batch(event, record) == [again]
    record.begin(again, "start", number=2)
    assert next_batch(event, record) == [again]
    for act in ("open", "settled", "score"):
        record.done(again, act)
    assert next_batch(event, record, until="A") == []
    assert {key.round for key in next_batch(event, record)} == {"B"}
    # One that is void later comes before the rest of the next round.
    record.typed(second, "void", reason="x", again=True)
    assert next_batch(event, record) == [Key("A", second.match, 2)]


async def test_a_team_plays_one_match_at_a_time() -> None:
    teams = {
        Key("A", "01", 2): "AB",
        Key("A", "02", 2): "AC",
        Key("A", "03", 2): "DE",
        Key("A", "04", 2): "FG",
        Key("A", "05", 2): "HI",
    }
    begun = Key("A", "05", 2)
    playing: set[Key] = set()
    most = 0

    async def one(key: Key) -> None:
        nonlocal most
        playing.add(key)
        most = max(most, len(playing))
        busy = [team for other in playing for team in teams[other]]
        assert len(busy) == len({*busy})
        for _ in range(int(key.match)):
            await asyncio.sleep(0)
        playing.remove(key)
        played.append(key)

    played: list[Key] = []
    await play_batch(teams, one, room=3, is_begun=lambda key: key == begun)
    assert {*played} == {*teams}
    assert most == 3


async def test_what_fails_ends_the_others() -> None:
    teams = {Key("A", "01", 1): "AB", Key("A", "02", 1): "CD"}
    ended = []

    async def one(key: Key) -> None:
        if key.match == "01":
            raise ValueError(key.match)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(key)

    with pytest.raises(ValueError, match="01"):
        await play_batch(teams, one, room=2, is_begun=lambda key: False)
    assert len(ended) == 1


def test_one_team_cannot_be_paired(tmp_path: Path) -> None:
    with pytest.raises(EventError, match="there is one team only"):
        event_of(tmp_path, round_of("A"), "A")


def test_too_few_ports_are_refused(tmp_path: Path) -> None:
    event = event_of(tmp_path, round_of("A"))
    text = event.path.read_text()
    event.path.write_text(text.replace("19100-19120", "19100-19102"))
    with pytest.raises(EventError, match="4 are needed for 3 exchanges"):
        read_event(event.path)
    doors = "doors = { line_port = 7 }\nseed"
    event.path.write_text(text.replace("seed", doors))
    event = read_event(event.path)
    assert parallel_of(event) <= event.event.slots == 6
    ports = free_ports(event, {19101})
    assert ports is not None
    assert (ports.native, ports.json, ports.line) == (19104, 0, 19106)


def test_a_data_folder_is_of_one_size(
    tmp_path: Path, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    event = event_of(tmp_path, round_of("A"))
    next_batch(event, record)
    text = event.path.read_text()
    event.path.write_text(text.replace("per_match = 2", "per_match = 0"))
    assert run([str(event.path)]) == 2
    assert "use another data folder" in capsys.readouterr().err
    event.path.write_text(text)
    (event.folder / "journal.db").write_text("")
    assert run([str(event.path)]) == 2
    assert "in one exchange before" in capsys.readouterr().err


def test_only_where_an_address_vouches_the_doors_are_open(
    tmp_path: Path,
) -> None:
    """The doors ask for no key; a bot that is started here is local."""
    event = event_of(tmp_path, round_of("A"), "AB")
    text = event.path.read_text()
    text = text.replace("A = {}", 'A = { address = "10.0.0.0/8" }')
    text = text.replace("B = {}", 'B = { bot = ["b"] }\nC = {}\nD = {}')
    event.path.write_text(
        text.replace("D = {}", 'D = { bot = ["b"], address = "10.1.1.1" }')
    )
    teams = table_of(read_event(event.path), {}, ()).teams
    local = ("127.0.0.0/8", "::1/128")
    assert teams == {
        "A": Team("", ("10.0.0.0/8",), ("10.0.0.0/8",)),
        "B": Team("", (), local),
        "C": Team("", (), ()),
        "D": Team("", ("10.1.1.1", *local), ("10.1.1.1", *local)),
    }
