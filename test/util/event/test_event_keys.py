"""`python -m util.event check` and `keys`."""

from __future__ import annotations

from pathlib import Path

import pytest

from exchange.host.keyfile import digest_of, read_keys
from test.util.event.files import EVENT, write_event
from util.bots.__main__ import parse
from util.event.__main__ import main
from util.event.file import read_event
from util.event.keys import house_names, make_keys, tokens_of

BOTS = ["APPLE", "LEMON"]  # of teams, which the director starts
HOUSE = 4 + 6 + 1


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_check_prints_the_plan_and_touches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_event(tmp_path)
    before = everything(tmp_path)
    assert main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "Spring challenge: 4 teams, 3 rounds" in out
    assert "or ws://localhost:9000, each with its name and key.\n" in out
    assert "localhost, port 25000 (JSON) or 20000 (text).\n" in out
    assert "or http://localhost:9001/.\n" in out
    assert "2 bots of teams are started here" in out
    assert "  A: 1 match (all) of 20 + 300 s, weight 10, rank_weighted" in out
    assert "  B: 3 matches (all) of 20 + 300 s, weight 30" in out
    assert "  Final: 1 match (all) of 20 + 600 s, weight 60, rank_sq" in out
    assert "matches on ports" not in out
    assert everything(tmp_path) == before


def test_check_counts_the_matches_of_each_pairing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = EVENT.replace("per_match = 0\npairing", "per_match = 2\npairing")
    assert main(["check", str(write_event(tmp_path, text))]) == 0
    out = capsys.readouterr().out
    assert "on ports 9100-9199; 4 at a time" in out
    assert "A: 6 matches (round_robin)" in out
    assert "B: 6 matches (swiss)" in out
    assert "Final: 1 match (all)" in out


def test_check_names_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_event(tmp_path, EVENT.replace("seed = 7", "seed = 0.5"))
    assert main(["check", str(path)]) == 2
    assert f"{path}, line 3: event.seed: " in capsys.readouterr().err


def test_check_loads_the_rules(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = '"own_rule_of_check:points"'
    text = EVENT.replace('"rank_squared"', rule)
    path = write_event(tmp_path, text)
    assert main(["check", str(path)]) == 2
    assert "own_rule_of_check:points: ModuleNotFoun" in capsys.readouterr().err
    (tmp_path / "own_rule_of_check.py").write_text("def points(m, o): ...")
    assert main(["check", str(path)]) == 0


def test_each_key_is_shown_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_event(tmp_path)
    assert main(["keys", str(path)]) == 0
    shown = dict(
        line.split("\t") for line in capsys.readouterr().out.splitlines()
    )
    assert [*shown] == ["ORANGE", "APPLE", "LEMON", "PLUM"]
    accounts = read_keys(tmp_path / "spring/keys.json")
    for name, token in shown.items():
        assert accounts[name].sha256 == digest_of(token)
    assert main(["keys", str(path)]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "0 new keys" in captured.err
    assert read_keys(tmp_path / "spring/keys.json") == accounts


def test_keys_of_what_is_started_here_are_kept(tmp_path: Path) -> None:
    event = read_event(write_event(tmp_path))
    make_keys(event)
    tokens = tokens_of(event.folder)
    assert [*tokens][:2] == ["director", "spectator"]
    assert [*tokens][2:-2] == house_names(event)
    assert [*tokens][-2:] == BOTS
    file = event.folder / "tokens.tsv"
    assert file.stat().st_mode & 0o777 == 0o600
    accounts = read_keys(event.folder / "keys.json")
    assert len(accounts) == 2 + HOUSE + 4
    assert all(accounts[n].sha256 == digest_of(t) for n, t in tokens.items())
    assert [n for n, a in accounts.items() if a.is_admin] == ["director"]


def test_the_house_bots_take_these_keys(tmp_path: Path) -> None:
    event = read_event(write_event(tmp_path))
    make_keys(event)
    file = str(event.folder / "tokens.tsv")
    counts = ["--makers", "4", "--noise", "6", "--informed", "1"]
    plan = parse([*counts, "--tokens", file])
    assert [name for _, name in plan.names()] == house_names(event)


def test_a_new_key_ends_the_old_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_event(tmp_path)
    first = make_keys(read_event(path))
    assert main(["keys", str(path), "PLUM", "APPLE", "--new"]) == 0
    shown = dict(
        line.split("\t") for line in capsys.readouterr().out.splitlines()
    )
    assert [*shown] == ["APPLE", "PLUM"]
    accounts = read_keys(tmp_path / "spring/keys.json")
    assert accounts["PLUM"].sha256 == digest_of(shown["PLUM"])
    assert accounts["ORANGE"].sha256 == digest_of(first["ORANGE"])
    assert tokens_of(tmp_path / "spring")["APPLE"] == shown["APPLE"]


def test_a_key_that_is_lost_is_made_again(tmp_path: Path) -> None:
    """As after a kill between the two files."""
    event = read_event(write_event(tmp_path))
    make_keys(event)
    before = tokens_of(event.folder)
    file = event.folder / "tokens.tsv"
    file.write_text(file.read_text().replace(before["director"], "x"))
    assert make_keys(event) == {}  # it is no team's
    after = tokens_of(event.folder)
    changed = [name for name in before if before[name] != after[name]]
    assert changed == ["director"]
    file.unlink()
    assert [*make_keys(event)] == BOTS
    assert len(tokens_of(event.folder)) == len(before)


def test_a_team_that_plays_from_here_from_now_on_gets_a_key(
    tmp_path: Path,
) -> None:
    make_keys(read_event(write_event(tmp_path)))
    text = EVENT.replace("PLUM   = {}", 'PLUM = { bot = ["bot"] }')
    event = read_event(write_event(tmp_path, text))
    assert [*make_keys(event)] == ["PLUM"]
    assert "PLUM" in tokens_of(event.folder)


def test_wrong_arguments_of_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_event(tmp_path))
    assert main(["keys", path, "NOBODY", "--new"]) == 1
    assert "'NOBODY' is not a team" in capsys.readouterr().err
    for arguments in (["keys", path, "PLUM"], ["keys", path, "--new"]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert "TEAM and --new go together" in capsys.readouterr().err
    assert not (tmp_path / "spring").exists()


def test_the_commands_are_named_in_the_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "python -m util.event COMMAND --help" in out
    assert "  keys      make missing keys of teams" in out
    with pytest.raises(SystemExit) as caught:
        main(["play", "event.toml"])
    assert caught.value.code == 2
