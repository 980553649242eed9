"""Slow and failing commits, and a bug: which events are sent."""

from __future__ import annotations

import asyncio
import math
import random
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, WebSocketException

import exchange.gateway.sequencer
from exchange.doors.websocket import Connection
from exchange.gateway.gateway import Gateway
from exchange.gateway.requests import Requests
from exchange.journal.sqlite import JournalError, read_journal
from exchange.market.command import Command, Output
from exchange.market.engine import HANDLERS, Engine
from exchange.market.state import State
from orderbook import Place
from test.journal.disks import STAY, Disk, Message, commands, make_server
from test.support import (
    PATIENCE_S,
    UNLIMITED,
    Wire,
    address,
    ended,
    greeting,
    launched,
    order,
    serving,
    until,
    wired,
    words,
)
from util.measure.crash import CASH, set_up
from util.measure.crash_bot import Course
from util.measure.crash_record import Record

# Commits that fail ----------------------------------------------------------


@pytest.mark.parametrize("is_full", [False, True])
async def test_a_failing_commit_ends_it_with_nothing_lost_or_made_up(
    path: Path, disk: Disk, is_full: bool
) -> None:
    """The test fails each commit of a run in turn."""
    disk.is_full = is_full
    settings, bots = set_up(path.parent, 6, random.Random(5))
    runs = [8, *range(2, 16)] if is_full else [1, 8, *range(1, 16)]
    for fails_at in [*runs, 0]:
        disk.commits, disk.fails_at = 0, fails_at
        exchange = make_server(path, **settings)
        if fails_at == 1:
            with pytest.raises(JournalError, match="disk I/O error"):
                await exchange.start()
            continue
        await exchange.start()
        if bots[0].lives:
            Record(path, bots, CASH).check()
        # The last one is ended as soon as all are back.
        ended = asyncio.Event()
        course = Course(bots, math.inf if fails_at else None, ended.set)
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            for bot in bots:
                group.create_task(bot.live(exchange.url, course))
            if fails_at:
                error = await exchange.failure
                assert isinstance(error, sqlite3.OperationalError)
                course.opened.set()
            else:
                await ended.wait()
            await exchange.stop()
        assert exchange.failure.done() == bool(fails_at)
        assert exchange.listener.errors == 0
    assert sum(bot.seq for bot in bots) > 100


LIMITED = """
import resource, sys
import server

resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY))
server.SHUTDOWN_S = 0.01
sys.exit(server.main())
"""


async def test_a_process_on_a_broken_disk_ends_with_a_message(
    path: Path,
) -> None:
    """The kernel lets no file grow beyond a size: SQLite's I/O error."""
    code = LIMITED.format(size=300_000)
    market = path.with_suffix(".toml")
    market.write_text(UNLIMITED)
    environment = {"journal": str(path), "debug": "0", "market": str(market)}
    told: list[Message] = []
    async with launched(code=code, **environment) as process:
        line = await greeting(process)
        async with wired(address(line)) as alice:
            session = (await alice.login("alice", **STAY))["session"]
            with pytest.raises(ConnectionClosed):
                async with asyncio.timeout(PATIENCE_S):
                    while True:
                        await alice.send(*[order("buy", 1, 90)] * 50)
                        told += await alice.take(50)
        status, _, errors = await ended(process)
    assert status == 1 and "OperationalError" in errors
    assert told and set(words(told)) == {"new"}
    async with launched(**environment) as process:
        line = await greeting(process)
        async with wired(address(line)) as alice:
            welcome, *missed = await alice.ask(
                type="login", user="alice", session=session, last_seq=0, id=1
            )
    assert welcome["resumed"] and missed[: len(told)] == told


FAILING = """
import sqlite3, sys
import server
from exchange.journal.sqlite import Journal

def append(journal, *arguments):
    raise sqlite3.OperationalError("disk I/O error")

Journal.append = append
sys.exit(server.main())
"""


async def test_an_exchange_that_cannot_journal_its_start_does_not_open(
    path: Path,
) -> None:
    async with launched(code=FAILING, journal=str(path)) as process:
        status, output, errors = await ended(process)
    assert status and "disk I/O error" in errors
    assert output == ""


HANGING = """
import sys
import threading
import server
from exchange.journal.sqlite import Journal

def append(journal, first_seq, records, checksum):
    if any('"place"' in record for record in records):
        threading.Event().wait()
    return real(journal, first_seq, records, checksum)

real = Journal.append
Journal.append = append
sys.exit(server.main())
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_a_second_signal_ends_what_waits_for_a_disk_that_hangs(
    path: Path, signum: signal.Signals
) -> None:
    async with launched(code=HANGING, journal=str(path)) as process:
        url = address(await greeting(process))
        async with wired(url, "alice") as alice:
            await alice.send(order("buy", 1, 90))
            gone = (ConnectionError, EOFError, WebSocketException)
            with pytest.raises(gone):  # it does not listen any more
                async with asyncio.timeout(PATIENCE_S):
                    process.send_signal(signum)
                    while True:
                        async with wired(url):
                            pass
            process.send_signal(signum)
            status, _, errors = await ended(process)
    assert (status, errors) == (-signum, "")


# Commits that take their time -----------------------------------------------


@pytest.fixture
def handled(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The requests that any server has handled."""
    handled: list[object] = []
    handle = Requests.handle

    def spy(gateway: Gateway, session: Any, requests: Any) -> None:
        handle(gateway, session, requests)
        handled.extend(requests)

    monkeypatch.setattr(Requests, "handle", spy)
    return handled


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The frames that any server has written."""
    writes: list[bytes] = []
    write = Connection.write

    def spy(connection: Connection, frames: bytes) -> None:
        writes.append(frames)
        write(connection, frames)

    monkeypatch.setattr(Connection, "write", spy)
    return writes


async def take(wire: Wire, count: int) -> list[Message]:
    """Return the next ``count`` messages."""
    async with asyncio.timeout(PATIENCE_S):
        return await wire.take(count)


async def test_nothing_leaves_before_it_is_committed_then_all_in_order(
    path: Path, disk: Disk, handled: list[object], writes: list[bytes]
) -> None:
    async with (
        serving(journal=path) as exchange,
        wired(exchange.url, "alice") as alice,
        wired(exchange.url, "bob") as bob,
        wired(exchange.url, "carol") as carol,
        wired(exchange.url) as dave,
        wired(exchange.url) as eve,
    ):
        await dave.ask(type="subscribe", channels=["book", "trades"])
        began = disk.commits
        handled.clear()
        writes.clear()
        requests: list[tuple[Any, Message]] = [
            (bob, order("buy", 3, 100, id=2)),  # fills alice's, and a ticker
            (bob, {"type": "get", "what": "account", "id": 3}),
            (carol, {"type": "ping", "id": 4}),
            (carol, {"type": "get", "what": "orders", "id": 5}),
            (carol, {"type": "cancel", "order_id": 9, "id": 6}),
            (carol, {"type": "place", "id": 7}),
            (carol, {"type": "cancel_after", "timeout_ms": 0, "id": 8}),
            (eve, {"type": "get", "what": "book", "id": 9}),
            (eve, {"type": "get", "what": "trades", "id": 10}),
            (eve, {"type": "get", "what": "leaderboard", "id": 11}),
            (eve, {"type": "subscribe", "channels": ["ticker"], "id": 12}),
            (eve, {"type": "login", "user": "eve", "id": 13}),
            (eve, {"type": "login", "user": "eve", "id": 14}),
        ]
        with disk.held():
            await alice.send(order("sell", 5, 100, id=1))
            await until(lambda: disk.commits == began + 1)  # and stays there
            for number, (wire, request) in enumerate(requests, start=2):
                await wire.send(request)
                await until(lambda: len(handled) == number)
            exchange.timers.tick()
            exchange.timers.beat()
            assert disk.commits == began + 1
            assert writes == []

        reports = await take(alice, 3)
        assert words(reports) == ["new", "trade", "account"]
        answers = await take(bob, 4)
        assert words(answers) == ["new", "trade", "account", "ok"]
        assert answers[3]["data"][0]["positions"] == {"BOND": 3}
        answers = await take(carol, 5)
        assert [answer["id"] for answer in answers] == [4, 5, 6, 7, 8]
        assert words(answers[2:]) == ["unknown_order", "bad_request", "ok"]
        news = await take(dave, 3)
        assert [n["seq"] for n in news] == [1, 2, 2]
        assert words(news) == ["book", "trade", "book"]
        answers = [m for m in await take(eve, 8) if m["type"] != "ticker"]
        assert [answer.get("id") for answer in answers] == [
            *range(9, 14),
            None,
            14,
        ]
        assert answers[0]["data"][0]["asks"] == [[100, 2]]
        assert answers[1]["data"][0]["trade_id"] == 1


async def test_requests_after_the_shutdown_are_ignored(
    path: Path, disk: Disk
) -> None:
    """Otherwise its order would stay though its session has ended."""
    exchange = make_server(path)
    await exchange.start()
    async with wired(exchange.url, "alice") as alice:
        began = disk.commits
        with disk.held():
            stopping = asyncio.create_task(exchange.stop())
            await until(lambda: disk.commits == began + 1)
            (session,) = exchange.links.values()
            await alice.send(order("buy", 1, 90))
            await until(lambda: session.waiting)
        messages, code = await alice.rest()
        await stopping
    assert (words(messages), code) == (["status"], 1001)
    actions = [c.action.type for batch in read_journal(path) for c in batch]
    assert actions == ["configure", "connect", "shutdown"]


async def test_events_of_a_failed_commit_are_never_sent(
    path: Path, disk: Disk, handled: list[object], writes: list[bytes]
) -> None:
    exchange = make_server(path)
    await exchange.start()
    async with wired(exchange.url, "alice", **STAY) as alice:
        assert words(await alice.ask(**order("sell", 5, 100))) == ["new"]
        disk.fails_at = disk.commits + 1
        writes.clear()
        handled.clear()
        async with wired(exchange.url) as bob:
            with disk.held():
                await alice.send(order("sell", 5, 101))
                await until(lambda: disk.commits == disk.fails_at)
                await bob.send({"type": "get", "what": "book"})
                await bob.send({"type": "ping"})
                await alice.send(order("sell", 5, 102))
                await until(lambda: len(handled) == 4)
            async with asyncio.timeout(PATIENCE_S):
                error = await exchange.failure
            assert "disk I/O error" in str(error)
            await bob.send({"type": "ping"})
            await exchange.stop()
            assert await bob.rest() == ([], 1011)
            assert await alice.rest() == ([], 1011)
    assert writes == []
    disk.fails_at = 0
    async with serving(journal=path) as exchange:
        async with wired(exchange.url, "alice") as alice:
            (answer,) = await alice.ask(type="get", what="orders", id=1)
            assert [row["price"] for row in answer["data"]] == [100]


async def test_too_far_ahead_of_the_disk_only_cancels_are_taken(
    path: Path,
    disk: Disk,
    handled: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange.gateway.sequencer, "COMMANDS_UNCOMMITTED", 3)
    new = order("buy", 1, 90)
    async with (
        serving(journal=path) as running,
        wired(running.url, "alice") as alice,
    ):
        assert words(await alice.ask(**new)) == ["new"]
        handled.clear()
        requests: list[Message] = [
            *[new] * 4,
            {"type": "amend", "order_id": 1, "price": 91},
            {"type": "cancel", "order_id": 1},
            {"type": "cancel_all"},
        ]
        with disk.held():
            for request in requests:
                await alice.send(request)
            await until(lambda: len(handled) == len(requests))
        answers = await take(alice, 10)
        assert words(answers) == [
            *["new"] * 3,
            *["busy"] * 2,
            "canceled",
            "ok",
            *["canceled"] * 3,
        ]
        assert answers[3]["retry_after_ms"] > 0
        assert words(await alice.ask(**new)) == ["new"]


# A bug ----------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "within", "after"])
async def test_only_what_came_before_a_bug_is_sent(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Wherever it strikes: before the command, within it, or at its end."""
    apply, place = Engine.apply, HANDLERS[Place]

    def explode(price: int | None) -> None:
        if price == 66:
            raise RuntimeError("boom")

    def applying(engine: Engine, command: Command) -> list[Output]:
        if when == "before" and isinstance(command.action, Place):
            explode(command.action.price)
        return apply(engine, command)

    def placing(state: State, command: Command, request: Place) -> None:
        if when == "within":
            explode(request.price)
        place(state, command, request)
        if when == "after":
            explode(request.price)

    monkeypatch.setattr(Engine, "apply", applying)
    monkeypatch.setitem(HANDLERS, Place, placing)
    exchange = make_server(path)
    await exchange.start()
    async with (
        wired(exchange.url, "alice", **STAY) as alice,
        wired(exchange.url) as bob,
    ):
        await bob.ask(type="subscribe", channels=["book"])
        await alice.send(*(order("buy", 1, p) for p in (64, 65, 66, 67)))
        async with asyncio.timeout(PATIENCE_S):
            assert str(await exchange.failure) == "boom"
        await exchange.stop()
        told, _ = await alice.rest()
        news, _ = await bob.rest()
    assert [m["price"] for m in told] == [64, 65]
    # Public data may be missing then, but are never invented.
    assert not [n for n in news if 66 in dict(n.get("bids", ()))]
    prices = [
        command.action.price
        for command in commands(path)
        if isinstance(command.action, Place)
    ]
    assert prices == [64, 65]
