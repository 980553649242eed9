"""A disk without space, and a journal whose file is gone."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from exchange.host import looks, timers
from exchange.journal.sqlite import SPACE_ENOUGH, SPACE_LOW, Journal
from server import Server
from test.journal.disks import STAY, commands
from test.support import (
    PATIENCE_S,
    address,
    ended,
    greeting,
    launched,
    order,
    serving,
    wired,
    words,
)

# No space -------------------------------------------------------------------


async def test_without_space_no_order_is_taken_but_cancels_are(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SimpleNamespace(free=SPACE_ENOUGH + 1)
    monkeypatch.setattr("shutil.disk_usage", lambda place: disk)
    monkeypatch.setattr(looks, "DISK_S", 0.001)
    new = order("buy", 1, 90)
    amend = {"type": "amend", "order_id": 1, "price": 91}
    async with (
        serving(journal=path) as exchange,
        wired(exchange.url, "alice") as alice,
        wired(exchange.url) as bystander,
    ):
        for _ in range(3):
            assert words(await alice.ask(**new)) == ["new"]
        assert words(await alice.ask(**amend)) == ["amended"]
        disk.free = SPACE_LOW
        assert words(await alice.ask(**new)) == ["new"]

        disk.free = SPACE_LOW - 1
        for wire in (alice, bystander):
            status = await wire.until(type="status")
            assert "disk" in status["message"]
        before = commands(path)
        for request in (new, amend, {**new, "post_only": True}):
            (error,) = await alice.ask(**request)
            assert error["code"] == "busy" and error["retry_after_ms"] > 0
        assert commands(path) == before
        cancels = await alice.ask(type="cancel", order_id=1)
        assert words(cancels) == ["canceled"]
        disk.free = SPACE_ENOUGH  # not yet
        assert words(await alice.ask(type="cancel_all")) == [
            "ok",
            *["canceled"] * 3,
        ]
        assert words(await alice.ask(**new)) == ["busy"]
        assert words(await alice.ask(type="cancel_after", timeout_ms=0)) == [
            "ok"
        ]

        disk.free = SPACE_ENOUGH + 1
        for wire in (alice, bystander):
            status = await wire.until(type="status")
            assert "again" in status["message"]
        assert words(await alice.ask(**new)) == ["new"]


async def test_an_exchange_that_starts_without_space_takes_no_order(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SimpleNamespace(free=0)
    monkeypatch.setattr("shutil.disk_usage", lambda place: disk)
    async with serving(journal=path) as exchange:
        async with wired(exchange.url, "alice") as alice:
            assert words(await alice.ask(**order("buy", 1, 90))) == ["busy"]


async def test_a_disk_that_does_not_say_its_space_stops_nobody(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what depends on the commit waits for it."""
    answers = threading.Event()
    look = Journal.look

    def hang(journal: Journal) -> tuple[str, int]:
        assert answers.wait(PATIENCE_S)
        return look(journal)

    monkeypatch.setattr(looks, "DISK_S", 0.001)
    monkeypatch.setattr(timers, "HEARTBEAT_S", 0.001)
    async with (
        serving(journal=path) as exchange,
        wired(exchange.url, "alice") as alice,
    ):
        monkeypatch.setattr(Journal, "look", hang)
        alice.hears_heartbeats = True
        for _ in range(3):
            await alice.until(type="heartbeat")
        assert await ready(exchange) == "200 ok"
        assert words(await alice.ask(type="ping"))[-1] != "error"
        answers.set()
        alice.hears_heartbeats = False
        await alice.send(order("buy", 1, 90))
        await alice.until(exec_type="new")


# A file that is gone --------------------------------------------------------


async def ready(exchange: Server) -> str:
    """Return the body of /readyz."""
    reader, writer = await asyncio.open_connection("127.0.0.1", exchange.port)
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(PATIENCE_S):
        answer = (await reader.read()).decode()
    writer.close()
    return f"{answer.split()[1]} {answer.splitlines()[-1]}"


async def test_without_its_file_no_order_is_taken_but_cancels_are(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(looks, "DISK_S", 0.001)
    new = order("buy", 1, 90)
    async with (
        serving(journal=path) as exchange,
        wired(exchange.url, "alice") as alice,
    ):
        assert words(await alice.ask(**new)) == ["new"]
        assert await ready(exchange) == "200 ok"
        spare = path.with_name("spare")
        spare.hardlink_to(path)
        path.unlink()
        gone = "the journal's file exchange.db is gone"
        status = await alice.until(type="status")
        assert status["message"] == f"{gone}: no new orders"
        assert await ready(exchange) == f"503 busy: {gone}"
        (error,) = await alice.ask(**new)
        assert error["code"] == "busy"
        assert error["message"] == (
            f"new orders are refused, because {gone}; cancels are accepted"
        )
        cancels = await alice.ask(type="cancel", order_id=1)
        assert words(cancels) == ["canceled"]
        (record,) = caplog.records
        assert str(path) in record.getMessage() and gone in record.getMessage()

        path.hardlink_to(spare)
        assert "again" in (await alice.until(type="status"))["message"]
        assert words(await alice.ask(**new)) == ["new"]
        assert await ready(exchange) == "200 ok"
    assert len(caplog.records) == 2


async def test_a_folder_that_is_gone_does_not_end_the_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "DISK_S", 0.001)
    monkeypatch.setattr(timers, "HEARTBEAT_S", 0.001)
    folder = tmp_path / "data"
    async with (
        serving(journal=folder / "exchange.db") as exchange,
        wired(exchange.url, "alice") as alice,
    ):
        folder.rename(tmp_path / "away")
        assert "gone" in (await alice.until(type="status"))["message"]
        assert words(await alice.ask(**order("buy", 1, 90))) == ["busy"]


async def test_a_journal_that_was_deleted_can_be_rescued(path: Path) -> None:
    """By the steps of docs/OPERATIONS.md."""
    async with launched(journal=str(path), debug="0") as process:
        url = address(await greeting(process))
        async with wired(url, "alice", **STAY) as alice:
            new = order("buy", 1, 90, client_order_id="mine")
            assert words(await alice.ask(**new)) == ["new"]
            for file in path.parent.glob("exchange.db*"):
                file.unlink()
            process.send_signal(signal.SIGSTOP)
            for fd in Path(f"/proc/{process.pid}/fd").iterdir():
                name = os.readlink(fd).removesuffix(" (deleted)")
                if name in (str(path), f"{path}-wal"):
                    shutil.copy(fd, name)
            process.kill()
            await ended(process)
    async with launched(journal=str(path), debug="0") as process:
        async with wired(address(await greeting(process)), "alice") as alice:
            assert words(await alice.ask(**new)) == [
                "duplicate_client_order_id"
            ]
