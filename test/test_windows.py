"""Participants' tools on a system with what Windows has.

`test/windows` takes from a Python what it would not have there, and gives it
what it would: each tool then does its job, in a process of its own.
"""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import stat
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from client import Exchange
from exchange.files import lock
from exchange.host.keyfile import read_keys
from test.support import PATIENCE_S, ROOT, ended, running, serving

WINDOWS = str(ROOT / "test" / "windows")


@asynccontextmanager
async def started(
    *words: str, url: str = "", **streams: Any
) -> AsyncIterator[Process]:
    """Run a program as if on Windows; what is left of it is killed."""
    variables = {
        "EXCHANGE_URL": url,
        "PYTHONPATH": WINDOWS,
        "PYTHONUTF8": "0",
        "PYTHONIOENCODING": "cp1252",
        "TERM": "xterm-256color",
    }
    async with running(
        *words,
        env={**os.environ, **variables},
        **{"stdin": DEVNULL, **streams},
    ) as process:
        yield process


async def run(*words: str, url: str = "") -> tuple[int, str, str]:
    """Run a program to its end; return status, output and errors."""
    async with started(*words, url=url) as process:
        return await ended(process)


async def tool(*words: str, url: str = "") -> str:
    """Run a tool, which must succeed; return its output."""
    status, output, errors = await run("-m", *words, url=url)
    assert status == 0, errors
    return output


async def test_the_server_says_that_it_does_not_run() -> None:
    status, output, errors = await run("server.py")
    assert (status, output) == (2, "")
    assert errors == "server.py: the exchange needs Linux or macOS\n"


async def test_keys_are_made_and_changed(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = ["util.accounts", "--keys", str(path)]
    assert (await tool(*keys, "add", "alice")).startswith("alice\t")
    path.chmod(0o666)  # what Windows says of every file
    assert (await tool(*keys, "add", "bob")).startswith("bob\t")
    path.chmod(0o666)
    await tool(*keys, "disable", "alice")
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    accounts = read_keys(path)
    assert {n: e.is_disabled for n, e in accounts.items()} == {
        "alice": True,
        "bob": False,
    }


async def test_a_change_of_keys_waits_for_another(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    words = ["-m", "util.accounts", "--keys", str(path), "add"]
    held = lock(tmp_path / "keys.json.lock", mode=0o600, is_waiting=False)
    async with started(*words, "alice") as waiting:
        assert waiting.stderr is not None
        for _ in range(2):  # it gave up and tried again
            async with asyncio.timeout(PATIENCE_S):
                assert (
                    await waiting.stderr.readline() == b"the lock is taken\n"
                )
        assert not path.exists()
        os.close(held)
        status, output, _ = await ended(waiting)
    assert status == 0 and output.startswith("alice\t")


async def test_a_journal_is_replayed_verified_and_copied(
    tmp_path: Path,
) -> None:
    path, copy = tmp_path / "exchange.db", tmp_path / "copy.db"
    async with serving(journal=path) as server:
        await tool("util.send_order", url=server.url)
        # Beside its writer.
        assert "buy 1 BOND at 100" in await tool("util.replay", str(path))
    assert "good: " in await tool("util.replay", str(path), "--verify")
    assert "batches" in await tool("util.backup", str(path), str(copy))
    assert "good: " in await tool("util.replay", str(copy), "--verify")


async def test_an_administrator_can_act() -> None:
    async with serving() as server:
        words = ["util.admin", "message", "grüße", "--user", "boss"]
        status, output, _ = await run("-m", *words, url=server.url)
    assert status == 1 and output.startswith("refused: forbidden")


async def test_ctrl_c_ends_the_bots_in_order() -> None:
    async with (
        serving() as server,
        Exchange(server.url, user="") as ex,
        started("-m", "util.bots", "--speed=100", url=server.url) as process,
    ):
        async with asyncio.timeout(PATIENCE_S):
            await anext((await ex.market("BOND")).trades())
        process.send_signal(signal.SIGINT)
        status, output, errors = await ended(process)
    assert (status, errors) == (0, "")
    assert output.count("profit") == 5 and "BOND: worth" in output


async def test_the_market_is_shown_as_text() -> None:
    async with serving() as server:
        await tool("util.send_order", "--price", "90", url=server.url)
        shown = await tool("util.watch", url=server.url)
    assert "BOND  open  bid 90" in shown


@pytest.mark.parametrize("how", ["q", "Ctrl-C"])
async def test_the_market_is_shown_on_a_screen(how: str) -> None:
    master, slave = pty.openpty()
    screen = b""

    def read() -> None:
        nonlocal screen
        screen += os.read(master, 65_536)

    async def until_shown(what: bytes) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while what not in screen:
                await asyncio.sleep(0.01)

    asyncio.get_running_loop().add_reader(master, read)
    streams = {"stdin": slave, "stdout": slave, "stderr": slave}
    async with serving(symbols=("BOND", "ETF")) as server:
        words = ["-m", "util.watch"]
        async with started(*words, url=server.url, **streams) as process:
            await until_shown(b"BOND  open")
            os.write(master, b"2")
            await until_shown(b"ETF  open")
            if how == "q":
                os.write(master, b"\xe0qq")  # the first is part of a key
            else:
                process.send_signal(signal.SIGINT)
            async with asyncio.timeout(PATIENCE_S):
                assert await process.wait() == 0
    asyncio.get_running_loop().remove_reader(master)
    os.close(master)
    os.close(slave)
