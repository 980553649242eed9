"""Tools in an ASCII locale, and with an output that cannot be written."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from test.support import (
    NOBODY,
    PATIENCE_S,
    ROOT,
    Wire,
    add_key,
    serving,
    wired,
)
from util import accounts, admin, backup, replay, send_order, watch
from util.bots import __main__ as bots

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
TEXT = "Grüße, 東京"
ESCAPED = r"Gr\xfc\xdfe, \u6771\u4eac"
LATIN_1 = os.fsdecode(b"Gr\xfc\xdfe")  # as Python decodes it there

Main: TypeAlias = Callable[[list[str]], int]


async def run(*words: str, **environment: str) -> tuple[int, bytes, str]:
    """Run a tool in an ASCII locale; return status, output and errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m"),
        *words,
        cwd=ROOT,
        env={**os.environ, **ASCII, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output, errors.decode("ascii")


async def printed(*words: str, **environment: str) -> bytes:
    """Run a tool, which must succeed; return its output."""
    status, output, errors = await run(*words, **environment)
    assert (status, errors) == (0, "")
    return output


async def test_a_text_stays_as_it_was_typed(tmp_path: Path) -> None:
    """From the command line to all clients, into the journal and back."""
    journal, keys = tmp_path / "exchange.db", tmp_path / "keys.json"
    boss = {"EXCHANGE_USER": "boss"}
    boss["EXCHANGE_TOKEN"] = add_key(keys, "boss", is_admin=True)
    alice = add_key(keys, "alice")
    async with serving(journal=journal, keys=keys) as server:
        boss["EXCHANGE_URL"] = server.url
        async with wired(server.url, "alice", token=alice) as wire:
            said = await printed("util.admin", "message", TEXT, **boss)
            assert said.decode("ascii") == f"done: message message={ESCAPED}\n"
            assert await news(wire) == TEXT
            words = ["util.admin", "phase", "BOND", "halted", "--json"]
            said = await printed(*words, "--reason", TEXT, **boss)
            assert json.loads(said)["reason"] == TEXT
            assert await news(wire) == TEXT
    path = str(shutil.copy(journal, tmp_path / "größe.db"))
    assert ESCAPED in (await printed("util.replay", path)).decode("ascii")
    words = ["util.replay", str(journal), "--format", "jsonl"]
    assert TEXT in (await printed(*words)).decode("utf-8")
    copy = str(tmp_path / "größe kopiert.db")
    assert await printed("util.backup", path, copy)
    assert await printed("util.replay", copy, "--verify")


async def news(wire: Wire) -> str:
    """Return the message of the next status."""
    return (await wire.until(type="status"))["message"]


def refused(
    capsys: pytest.CaptureFixture[str], main: Main, *words: str
) -> str:
    """Run a tool with a wrong command line; return the error."""
    with pytest.raises(SystemExit) as left:
        main([*words])
    output, errors = capsys.readouterr()
    assert (left.value.code, output) == (2, "")
    return errors.splitlines()[-1]


@pytest.mark.parametrize(
    "main, words",
    [
        (admin.main, ["message", LATIN_1]),
        (admin.main, ["kill", "--reason", "x", LATIN_1]),
        (admin.main, ["phase", "all", "open", "--reason", LATIN_1]),
        (admin.main, ["adjust", "a", "--reason", "x", "--symbol", LATIN_1]),
        (send_order.main, ["--client-order-id", LATIN_1]),
        (send_order.main, ["--symbol", LATIN_1]),
        (send_order.main, ["--user", LATIN_1]),
        (send_order.main, ["--token", LATIN_1]),
        (send_order.main, ["--url", LATIN_1]),
        (bots.main, ["--user-prefix", LATIN_1]),
        (bots.main, ["--symbols", LATIN_1]),
        (bots.main, ["--value", LATIN_1]),
        (accounts.main, ["add", LATIN_1]),
        (accounts.main, ["add", "--count=2", "--prefix", LATIN_1]),
        (watch.main, ["--symbol", LATIN_1]),
        (replay.main, ["x.db", "--account", LATIN_1]),
        (replay.main, ["x.db", "--symbol", LATIN_1]),
    ],
)
def test_an_argument_that_is_not_utf8_is_refused(
    main: Main,
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EXCHANGE_USER", "boss")
    told = refused(capsys, main, *words)
    assert "error: argument " in told and told.endswith(": not UTF-8")
    if words[-2].startswith("--"):
        assert f"argument {words[-2]}: " in told


@pytest.mark.parametrize(
    "main, arguments",
    [
        (admin.main, ""),
        (admin.main, "--help-me"),
        (admin.main, "open BOND --reason x"),
        (admin.main, "phase BOND --reason x"),
        (admin.main, "phase BOND running --reason x"),
        (admin.main, "phase BOND open"),
        (admin.main, "phase BOND open --reopen soon --reason x"),
        (admin.main, "suspend --reason x"),
        (admin.main, "suspend alice"),
        (admin.main, "suspend alice --reason"),
        (admin.main, "suspend alice --reason x --yes"),
        (admin.main, "suspend alice --reason x --user"),
        (admin.main, "resume alice bob --reason x"),
        (admin.main, "cancel it --reason x"),
        (admin.main, "adjust alice --cash 1.5 --reason x"),
        (admin.main, "settle BOND x --reason x"),
        (admin.main, "settle BOND 104 --yes"),
        (admin.main, "reset"),
        (admin.main, "message"),
        (backup.main, ""),
        (backup.main, "a.db"),
        (backup.main, "a b c"),
        (replay.main, ""),
        (replay.main, "a.db b.db"),
        (replay.main, "a.db --format xml"),
        (replay.main, "a.db --from noon"),
        (replay.main, "a.db --to 2026-13-01"),
        (replay.main, "a.db --verify --account ann"),
        (replay.main, "a.db --verify --format csv"),
        (replay.main, "a.db --verify --to 0"),
    ],
)
def test_a_wrong_command_line_is_refused(
    main: Main,
    arguments: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EXCHANGE_USER", "boss")
    with pytest.raises(SystemExit) as left:
        main(arguments.split())
    assert left.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["url", "user", "token"])
def test_a_variable_that_is_not_utf8_is_refused(
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(f"EXCHANGE_{name.upper()}", LATIN_1)
    told = refused(capsys, send_order.main)
    assert told.endswith(f"error: argument --{name}: not UTF-8")


async def test_refused_characters_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving() as server:
        words = ["util.send_order", "--url", server.url]
        status, output, errors = await run(*words, "--user", "ü")
        assert (status, errors) == (1, "")
        assert output.startswith(b"refused: ")
        for option in ("--symbol", "--client-order-id"):
            given = [*words[1:], option, "ü"]
            assert await asyncio.to_thread(send_order.main, given) == 1
            output, errors = capsys.readouterr()
            assert output.startswith("refused: ") and errors == ""
    words = ["util.accounts", "--keys", str(tmp_path / "ü.json")]
    status, _, errors = await run(*words, "add", "ü")
    assert status == 1
    assert errors.startswith(r"accounts: '\xfc' is not a name")


async def test_the_tools_find_the_address_that_serves() -> None:
    async with serving() as server:
        urls = ["--url", f"{NOBODY},{server.url}"]
        status, output, errors = await run(
            "util.send_order", *urls, "--price", "9"
        )
        assert (status, errors) == (0, "") and b"1 in the book" in output
        status, output, errors = await run("util.watch", *urls, "--once")
        assert (status, errors) == (0, "") and b" 9 " in output
        status, output, errors = await run(
            *("util.admin", "message", "hello", "--reason", "a test"),
            *(*urls, "--user", "boss"),
        )
        assert status == 1 and output.startswith(b"refused: forbidden")


async def test_a_broken_pipe_does_not_change_the_status(
    tmp_path: Path,
) -> None:
    async with serving(journal=tmp_path / "exchange.db") as server:
        order = ["util.send_order"]
        assert await unread(*order, url=server.url) == (0, "")
        assert await unread(*order, "--qty", "0", url=server.url) == (1, "")
        path, copy = tmp_path / "exchange.db", tmp_path / "copy.db"
        words = ["util.backup", str(path), str(copy)]
        assert await unread(*words, url="") == (0, "")
    assert copy.exists()


async def test_an_output_that_fails_does_not_change_the_status() -> None:
    """As on a full disk; here the output is open only for reading."""
    async with serving() as server:
        with open(os.devnull) as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "util.send_order", "--price", "9"),
                cwd=ROOT,
                env={**os.environ, "EXCHANGE_URL": server.url},
                stdout=output,
                stderr=PIPE,
            )
            async with asyncio.timeout(PATIENCE_S):
                _, errors = await process.communicate()
    assert b"1 in the book (Bad file descriptor)" in errors
    assert process.returncode == 0 and b"Traceback" not in errors


async def test_a_closed_output_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "exchange.db"
    async with serving(journal=path) as server:
        for words in (
            ("replay", str(path)),
            ("watch", "--once", "--url", server.url),
        ):
            process = await asyncio.create_subprocess_exec(
                *("sh", "-c", 'exec "$@" >&-', "sh"),
                *(sys.executable, "-m", f"util.{words[0]}", *words[1:]),
                cwd=ROOT,
                stderr=PIPE,
            )
            async with asyncio.timeout(PATIENCE_S):
                _, errors = await process.communicate()
            assert (process.returncode, errors) == (0, b"")


async def unread(*words: str, url: str) -> tuple[int, str]:
    """Run a tool with a broken pipe as output; return status, errors."""
    read, write = os.pipe()
    os.close(read)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m"),
        *words,
        cwd=ROOT,
        env={**os.environ, "EXCHANGE_URL": url},
        stdout=write,
        stderr=PIPE,
    )
    os.close(write)
    async with asyncio.timeout(PATIENCE_S):
        _, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, errors.decode()
