"""The tool for accounts and keys: its output, and its refusals."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from exchange.host.keyfile import DEFAULT_PATH, read_keys
from exchange.host.keyring import KeyRing
from test.support import NOBODY, PATIENCE_S, ROOT, serving
from util.accounts import COUNT_MAX, main

OPERATIONS = (ROOT / "docs" / "OPERATIONS.md").read_text("utf-8")
TOKEN = "[A-Za-z0-9_][A-Za-z0-9_-]{42}"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys.json"
    monkeypatch.setenv("EXCHANGE_SERVER_KEYS", str(path))
    return path


Capture = pytest.CaptureFixture[str]


def done(capsys: Capture, *arguments: str) -> str:
    """Run a command that succeeds; return its output."""
    assert main([*arguments]) == 0
    output, errors = capsys.readouterr()
    for line in output.splitlines():
        for secret in line.split("\t")[1:]:
            assert secret not in errors
    return output


def tokens(capsys: Capture, *arguments: str) -> dict[str, str]:
    """Run a command that makes keys; return them by name."""
    lines = done(capsys, *arguments).splitlines()
    for line in lines:
        assert re.fullmatch(rf"[A-Za-z0-9_.-]+\t{TOKEN}\t{TOKEN}", line)
    return dict(line.split("\t")[:2] for line in lines)


def refused(capsys: Capture, path: Path, *arguments: str) -> str:
    """Run a command that is refused and changes nothing; return why."""
    before = path.read_bytes() if path.exists() else None
    assert main([*arguments]) == 1
    assert (path.read_bytes() if path.exists() else None) == before
    return problem(capsys)


def problem(capsys: Capture) -> str:
    """Return the one line of a command that failed."""
    output, errors = capsys.readouterr()
    assert output == "" and errors.startswith("accounts: ")
    assert errors.count("\n") == 1
    return errors.removeprefix("accounts: ").rstrip()


def tool(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the tool in a process of its own."""
    # Its output waits in a buffer, whatever holds for the tests.
    env = {**os.environ, "PYTHONUNBUFFERED": "", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "util.accounts", *arguments],
        **{"cwd": ROOT, "env": env, "stdout": PIPE, **more},
        stderr=PIPE,
        text=True,
        timeout=PATIENCE_S,
    )


# As a process -------------------------------------------------------------


def test_a_process_writes_tokens_and_ends_with_the_status_of_the_command(
    tmp_path: Path, path: Path
) -> None:
    with open(tmp_path / "tokens.tsv", "w+") as file:
        ran = tool("add", "alice", "bob", stdout=file)
        file.seek(0)
        lines = file.read().splitlines()
    assert ran.returncode == 0
    assert ran.stderr == (
        f"{path}: a new key file; 2 accounts added; keys are shown only"
        " once\n"
    )
    ring = KeyRing(path)
    assert [line.split("\t")[0] for line in lines] == ["alice", "bob"]
    for line in lines:
        name, token, secret = line.split("\t")
        key = ring.check(name, token)
        assert key is not None and key.api_secret == secret != token
    ran = tool("add", "alice")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "accounts: 'alice' exists already\n"


def test_keys_that_could_not_be_shown_are_reported(path: Path) -> None:
    rotate = "the keys could not be shown; rotate them: "
    for arguments, told in ((["add", "alice"], rotate), (["list"], "")):
        reading, writing = os.pipe()
        os.close(reading)  # nobody will read what is written
        try:
            ran = tool(*arguments, stdout=writing)
        finally:
            os.close(writing)
        errors = f"accounts: {told}Broken pipe\n"
        assert (ran.returncode, ran.stderr) == (2, errors)
    assert [*read_keys(path)] == ["alice"]


def test_the_default_file_is_in_the_current_folder(
    capsys: Capture, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    monkeypatch.delenv("EXCHANGE_SERVER_KEYS")
    done(capsys, "add", "alice")
    monkeypatch.setenv("EXCHANGE_SERVER_KEYS", "")  # as if not set
    done(capsys, "add", "bob")
    assert [*read_keys(path.parent / DEFAULT_PATH)] == ["alice", "bob"]


async def test_no_second_key_file_is_made_where_the_exchange_reads_another(
    capsys: Capture, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exchange has the variable, the shell of its operator has not."""
    done(capsys, "add", "alice")
    monkeypatch.chdir(path.parent)
    monkeypatch.delenv("EXCHANGE_SERVER_KEYS")
    other = path.parent / DEFAULT_PATH
    async with serving(keys=path) as server:
        monkeypatch.setenv("EXCHANGE_URL", f"{NOBODY},{server.url}")
        assert await asyncio.to_thread(main, ["add", "bob"]) == 2
        told = problem(capsys)
        for word in (server.url, str(other), "--keys", "EXCHANGE_SERVER_KEYS"):
            assert word in told
        assert not other.exists()
        assert [*read_keys(path)] == ["alice"]
    # Without an exchange that asks for keys the first file is made.
    async with serving() as server:
        monkeypatch.setenv("EXCHANGE_URL", server.url)
        assert await asyncio.to_thread(main, ["add", "bob"]) == 0
        assert "new key file" in capsys.readouterr().err
        assert [*read_keys(other)] == ["bob"]


def test_the_documented_commands_work_in_an_empty_folder(
    capsys: Capture, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    monkeypatch.delenv("EXCHANGE_SERVER_KEYS")
    start = "poetry run python -m util.accounts "
    text = OPERATIONS.replace("\\\n", "")
    commands = [line for line in text.splitlines() if line.startswith(start)]
    for command in commands:
        words, _, _ = command.removeprefix(start).partition(" > ")
        done(capsys, *words.split())
    accounts = read_keys(path.parent / DEFAULT_PATH)
    assert {"team01", "team30", "boss", "house-maker-1"} <= {*accounts}
    assert accounts["boss"].is_admin


# In order -----------------------------------------------------------------


def test_the_option_wins_over_the_variable(
    capsys: Capture, tmp_path: Path, path: Path
) -> None:
    other = tmp_path / "other.json"
    done(capsys, "--keys", str(other), "add", "alice")
    assert [*read_keys(other)] == ["alice"] and not path.exists()


def test_added_accounts_log_in(capsys: Capture, path: Path) -> None:
    made = tokens(capsys, "add", "alice", "A.b_c-9")
    made |= tokens(capsys, "add", "--admin", "boss", "--", "-x")
    ring = KeyRing(path)
    keys = [ring.check(*item) for item in made.items()]
    assert [(key.user, key.role) for key in keys if key] == [
        ("alice", "trader"),
        ("A.b_c-9", "trader"),
        ("boss", "admin"),
        ("-x", "admin"),
    ]


@pytest.mark.parametrize(
    "count, names",
    [
        (1, ["team1"]),
        (9, [f"team{i}" for i in range(1, 10)]),
        (30, [f"team{i:02}" for i in range(1, 31)]),
    ],
)
def test_many_are_numbered(
    capsys: Capture, path: Path, count: int, names: list[str]
) -> None:
    arguments = ["add", "--count", str(count), "--prefix", "team"]
    made = tokens(capsys, *arguments, "--admin")
    assert [*made] == [*read_keys(path)] == names == sorted(names)
    assert len({*made.values()}) == count
    assert all(entry.is_admin for entry in read_keys(path).values())


def test_a_key_is_rotated(capsys: Capture, path: Path) -> None:
    old = tokens(capsys, "add", "alice", "bob", "carol")
    ring = KeyRing(path)
    new = tokens(capsys, "rotate", "alice", "carol")
    assert ring.refresh()
    assert [*new] == ["alice", "carol"]
    for user in old:
        assert bool(ring.check(user, old[user])) == (user == "bob")
    for user in new:
        assert ring.check(user, new[user])


def test_an_account_is_disabled_and_enabled(
    capsys: Capture, path: Path
) -> None:
    made = tokens(capsys, "add", "alice", "bob", "carol")
    ring = KeyRing(path)

    def who() -> list[str]:
        return [user for user in made if ring.check(user, made[user])]

    for command, users, let_in in (
        ("disable", ["alice", "carol"], ["bob"]),
        ("disable", ["alice"], ["bob"]),
        ("enable", ["alice", "bob"], ["alice", "bob"]),
        ("enable", ["carol"], ["alice", "bob", "carol"]),
    ):
        assert main([command, *users]) == 0
        what = "account" if len(users) == 1 else "accounts"
        told = f"{path}: {len(users)} {what} {command}d\n"
        assert capsys.readouterr() == ("", told)
        ring.refresh()
        assert who() == let_in


def test_a_disabled_account_stays_so_with_a_new_key(
    capsys: Capture, path: Path
) -> None:
    done(capsys, "add", "alice")
    done(capsys, "disable", "alice")
    made = tokens(capsys, "rotate", "alice")
    ring = KeyRing(path)
    assert ring.check("alice", made["alice"]) is None
    done(capsys, "enable", "alice")
    assert ring.refresh() and ring.check("alice", made["alice"])


def test_an_account_is_removed(capsys: Capture, path: Path) -> None:
    old = tokens(capsys, "add", "alice", "bob", "carol")
    assert done(capsys, "remove", "alice", "carol") == ""
    assert [*read_keys(path)] == ["bob"]
    new = tokens(capsys, "add", "alice")
    ring = KeyRing(path)
    assert ring.check("alice", new["alice"])
    assert ring.check("alice", old["alice"]) is None


def test_accounts_are_listed(capsys: Capture, path: Path) -> None:
    done(capsys, "add", "zoe", "Alice")
    done(capsys, "add", "bob", "--admin")
    done(capsys, "add", "maker", "--role", "house")
    done(capsys, "add", "wall", "--role", "spectator")
    done(capsys, "disable", "zoe")
    output = done(capsys, "list")
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    for line, pattern in zip(
        output.splitlines(),
        (
            "name   role       login     added +key made",
            f"Alice  trader     enabled   {time}  {time}",
            f"bob    admin      enabled   {time}  {time}",
            f"maker  house      enabled   {time}  {time}",
            f"wall   spectator  enabled   {time}  {time}",
            f"zoe    trader     disabled  {time}  {time}",
        ),
        strict=True,
    ):
        assert re.fullmatch(pattern, line)
    rows = json.loads(done(capsys, "list", "--json"))
    assert rows == [
        {
            "user": user,
            "is_admin": entry.is_admin,
            "is_disabled": entry.is_disabled,
            "created_ts": entry.created_ts,
            "rotated_ts": entry.rotated_ts,
            "role": role,
        }
        for (user, entry), role in zip(
            sorted(read_keys(path).items()),
            ("trader", "admin", "house", "spectator", "trader"),
            strict=True,
        )
    ]


def test_times_are_shown_in_utc(capsys: Capture, path: Path) -> None:
    entry = {
        "sha256": "0" * 64,
        "is_admin": False,
        "is_disabled": False,
        "created_ts": 1795340157532308,
        "rotated_ts": 2**53 - 1,
    }
    path.touch(0o600)
    path.write_text(json.dumps({"version": 1, "accounts": {"a": entry}}))
    assert done(capsys, "list").endswith(
        "a     trader  enabled  2026-11-22 09:35:57  2255-06-05 23:47:34\n"
    )


def test_a_list_may_be_empty(capsys: Capture, path: Path) -> None:
    done(capsys, "add", "alice")
    done(capsys, "remove", "alice")
    assert done(capsys, "list").count("\n") == 1
    assert json.loads(done(capsys, "list", "--json")) == []


# Refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "a b", "x" * 33, "é", "@exchange", "a\n", "a\tb"]
)
def test_a_bad_name_is_refused(capsys: Capture, path: Path, name: str) -> None:
    told = f"{name!r} is not a name: 1 to 32 of A-Z a-z 0-9 _ . -"
    assert refused(capsys, path, "add", "alice", name) == told
    assert not path.exists()
    done(capsys, "add", "bob")
    assert refused(capsys, path, "add", "alice", name) == told


@pytest.mark.parametrize("prefix", ["a b", "x" * 31, "@"])
def test_a_bad_prefix_is_refused(
    capsys: Capture, path: Path, prefix: str
) -> None:
    arguments = ["add", "--count", "10", "--prefix", prefix]
    told = f"{prefix + '01'!r} is not a name"
    assert told in refused(capsys, path, *arguments)


def test_an_account_that_is_there_is_not_added(
    capsys: Capture, path: Path
) -> None:
    done(capsys, "add", "bob", "team07")
    told = "'bob' exists already"
    assert refused(capsys, path, "add", "alice", "bob") == told
    assert refused(capsys, path, "add", "bob", "carol", "--admin") == told
    arguments = ["add", "--count", "10", "--prefix", "team"]
    assert refused(capsys, path, *arguments) == "'team07' exists already"


@pytest.mark.parametrize("command", ["disable", "enable", "rotate", "remove"])
def test_an_unknown_account_is_refused(
    capsys: Capture, path: Path, command: str
) -> None:
    done(capsys, "add", "alice", "bob")
    for names in (["alice", "carol"], ["carol", "alice"]):
        told = refused(capsys, path, command, *names)
        assert told == "'carol' is not an account"


@pytest.mark.parametrize(
    "command", ["add", "disable", "enable", "rotate", "remove"]
)
def test_a_name_given_twice_is_refused(
    capsys: Capture, path: Path, command: str
) -> None:
    if command != "add":
        done(capsys, "add", "alice", "bob")
    told = refused(capsys, path, command, "alice", "bob", "alice")
    assert told == "'alice' is given twice"


# Files and command lines that make no sense -------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        *([c, "alice"] for c in "disable enable rotate remove".split()),
    ],
    ids=lambda arguments: str(arguments[0]),
)
def test_a_missing_file_is_reported(
    capsys: Capture, path: Path, arguments: list[str]
) -> None:
    assert main(arguments) == 2
    assert problem(capsys) == f"{path}: there is no such key file"
    assert not [*path.parent.iterdir()]


@pytest.mark.parametrize(
    "arguments", [["list"], ["add", "b"], ["rotate", "a"]]
)
def test_a_file_that_cannot_be_used_is_reported(
    capsys: Capture, path: Path, arguments: list[str]
) -> None:
    path.touch(0o600)
    assert main(arguments) == 2
    assert problem(capsys).startswith(f"{path}: Invalid JSON")
    assert path.read_bytes() == b""
    path.chmod(0o644)
    assert main(arguments) == 2
    assert problem(capsys).endswith(f"run: chmod 600 {path}")


def test_a_folder_that_cannot_be_made_is_reported(
    capsys: Capture, path: Path
) -> None:
    path.touch()
    assert main(["--keys", str(path / "a" / "keys.json"), "add", "a"]) == 2
    assert str(path) in problem(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["show"],
        ["add"],
        ["add", "--admin"],
        ["add", "--count", "3"],
        ["add", "--prefix", "team"],
        ["add", "alice", "--count", "3", "--prefix", "team"],
        ["add", "alice", "--prefix", "team"],
        ["add", "--count", "0", "--prefix", "team"],
        ["add", "--count", "-1", "--prefix", "team"],
        ["add", "--count", str(COUNT_MAX + 1), "--prefix", "team"],
        ["add", "--count", "many", "--prefix", "team"],
        ["add", "alice", "--token", "x"],
        ["list", "alice"],
        ["disable"],
        ["enable"],
        ["rotate"],
        ["remove"],
        ["remove", "alice", "--admin"],
    ],
)
def test_a_wrong_command_line_is_refused(
    capsys: Capture, path: Path, arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    output, errors = capsys.readouterr()
    assert output == "" and errors.startswith("usage: ")
    assert not [*path.parent.iterdir()]


def test_help_lists_the_commands(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    output = capsys.readouterr().out
    for word in ("add", "list", "disable", "enable", "rotate", "remove"):
        assert re.search(rf"^ +{word} ", output, re.M)
    assert str(DEFAULT_PATH) in output and "EXCHANGE_SERVER_KEYS" in output
