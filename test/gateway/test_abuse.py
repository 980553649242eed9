"""Abuse: too many connections, floods, and suspending a flood."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, WebSocketException

import server as server_module
from exchange.doors.websocket import Connection
from exchange.gateway.rates import STRIKES_BURST
from exchange.host.clock import Clock
from exchange.host.process import FILES_RESERVED, raise_file_limit
from orderbook import MAX_FRAME
from server import Server
from test.support import (
    NOON,
    PATIENCE_S,
    PING,
    Wire,
    add_key,
    address,
    alive,
    ended,
    greeting,
    launched,
    order,
    serving,
    state_of,
    until,
    wired,
    words,
)

Message = dict[str, Any]
DROPPED = (OSError, EOFError, WebSocketException)
HERE, THERE = "127.0.0.1", "127.0.0.2"  # both are this machine


async def is_dropped(url: str, host: str = HERE) -> bool:
    """Try to connect; return whether the socket was dropped at once."""
    try:
        async with wired(url, host=host) as wire:
            await alive(wire)
    except DROPPED:
        return True
    return False


# Connections of an account ------------------------------------------------


async def refused(url: str, user: str, **more: Any) -> Message:
    """Log in where there is no room; return the error."""
    async with wired(url) as wire:
        await wire.send(
            {"type": "login", "user": user, "id": 1, **more},
            order("buy", 1, 90),
            {"type": "login", "user": "other"},
        )
        (error,), code = await wire.rest()
        assert code == 4002 and error["id"] == 1
        assert wire.connection.close_reason == "too many connections"
        return error


async def test_the_connections_of_an_account_are_bounded() -> None:
    async with serving(max_per_account=2) as exchange:
        url = exchange.url
        async with (
            wired(url, "alice") as first,
            wired(url) as anybody,
            wired(url) as stranger,
        ):
            welcome = await anybody.login("alice")
            assert welcome["limits"]["connections"] == 2
            before = state_of(exchange)
            for more in ({}, {"session": "unknown"}):
                error = await refused(url, "alice", **more)
                assert error["code"] == "rate_limited"
                assert "alice has 2 connections" in error["message"]
            assert state_of(exchange) == before
            # Other accounts, and connections without a login, do not count.
            async with wired(url, "bob"), wired(url, "bob"):
                await refused(url, "bob")
                await alive(first, anybody, stranger)
            # A closed connection makes room for another.
            await anybody.connection.close()
            await until(lambda: len(exchange.gateway.links) == 2)
            await stranger.login("alice")
            await refused(url, "alice")
            await alive(first, stranger)


async def test_taking_over_a_session_takes_no_slot() -> None:
    async with serving(max_per_account=2) as exchange:
        url = exchange.url
        async with wired(url) as old, wired(url, "alice") as other:
            welcome = await old.login("alice")
            async with wired(url) as new:
                again = await new.login("alice", session=welcome["session"])
                assert again["session"] == welcome["session"]
                assert await old.rest() == ([], 4009)
                await refused(url, "alice")
                await alive(other, new)
            # A session without a connection takes one.
            async with wired(url, "alice"):
                await refused(url, "alice", session=welcome["session"])


async def test_a_refused_login_takes_no_slot() -> None:
    async with serving(max_per_account=1) as exchange:
        async with wired(exchange.url, "alice") as alice:
            for _ in range(5):
                await refused(exchange.url, "alice")
        await until(lambda: not exchange.gateway.links)
        async with wired(exchange.url, "alice") as alice:
            await alive(alice)
        await until(lambda: not exchange.gateway.routing.online)


# Connections of an address, and in all ------------------------------------


async def test_the_connections_of_an_address_are_bounded() -> None:
    async with serving(max_per_address=2) as exchange:
        url = exchange.url
        async with wired(url, "alice") as alice, wired(url) as watcher:
            for _ in range(3):
                assert await is_dropped(url)
            assert not await is_dropped(url, THERE)
            await alive(alice, watcher)
            assert exchange.listener.by_address[HERE] == 2
            await watcher.connection.close()
            await until(lambda: exchange.listener.by_address[HERE] == 1)
            assert not await is_dropped(url)
            await alive(alice)
        await until(lambda: not exchange.listener.connections)
        assert exchange.listener.by_address == {}


async def test_the_number_of_connections_is_bounded() -> None:
    async with serving(max_connections=2) as exchange:
        url = exchange.url
        async with wired(url, "alice") as alice, wired(url, "bob") as bob:
            for host in (HERE, THERE):
                assert await is_dropped(url, host)
            await alive(alice)
            assert len(exchange.listener.connections) == 2
            await bob.connection.close()
            await until(lambda: len(exchange.listener.connections) == 1)
            async with wired(url, "carol") as carol:
                await alive(alice, carol)
                assert await is_dropped(url)


@pytest.mark.parametrize("limit", ["max_per_address", "max_connections"])
async def test_a_socket_that_says_nothing_counts_too(limit: str) -> None:
    async with serving(**{limit: 1}) as exchange:
        _, writer = await asyncio.open_connection(HERE, exchange.port)
        await until(lambda: exchange.listener.connections)
        assert await is_dropped(exchange.url)
        writer.close()
        await until(lambda: not exchange.listener.connections)
        assert not await is_dropped(exchange.url)
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_as_many_connections_as_there_may_be_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def allow_one(wanted: int) -> int:
        asked.append(wanted)
        return FILES_RESERVED + 1

    monkeypatch.setattr(server_module, "raise_file_limit", allow_one)
    async with serving(max_connections=500) as exchange:
        async with wired(exchange.url, "alice") as alice:
            assert await is_dropped(exchange.url)
            await alive(alice)
    assert asked == [500 + FILES_RESERVED]


INFINITE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    "soft, hard, wanted, allowed, is_raised",
    [
        (100, 1_000, 500, 500, True),
        (100, 1_000, 2_000, 1_000, True),
        (100, INFINITE, 2_000, 2_000, True),
        (700, 1_000, 500, 700, False),
        (1_000, 1_000, 2_000, 1_000, False),
        (INFINITE, INFINITE, 500, 500, False),
    ],
)
def test_the_limit_of_open_files(
    monkeypatch: pytest.MonkeyPatch,
    soft: int,
    hard: int,
    wanted: int,
    allowed: int,
    is_raised: bool,
) -> None:
    set_to: list[Any] = []
    monkeypatch.setattr(resource, "getrlimit", lambda what: (soft, hard))
    monkeypatch.setattr(
        resource, "setrlimit", lambda what, limits: set_to.append(limits)
    )
    assert raise_file_limit(wanted) == allowed
    assert set_to == ([(allowed, hard)] if is_raised else [])


# Floods -------------------------------------------------------------------


@pytest.fixture
def market(tmp_path: Path) -> Path:
    """A market whose buckets hardly refill during a test."""
    path = tmp_path / "market.toml"
    path.write_text(
        "[instruments.BOND]\n[account]\norders_per_s = 1\nburst = 5\n"
    )
    return path


class SlowClock(Clock):
    """A clock that advances a microsecond with each look."""

    us = NOON

    def now(self) -> int:
        self.us += 1
        return self.us


@pytest.fixture
async def slow_clock(market: Path) -> AsyncIterator[Server]:
    """An exchange whose clock advances a microsecond with each look."""
    async with serving(SlowClock(), market=market) as exchange:
        yield exchange


@pytest.mark.parametrize("user", ["", "mallory"])
@pytest.mark.parametrize(
    "request_", [PING, {"type": "nonsense"}, order("buy", 1, 50)]
)
async def test_a_flood_is_cut_off_in_the_middle_of_a_frame(
    slow_clock: Server, request_: Message, user: str
) -> None:
    exchange, url = slow_clock, slow_clock.url
    async with wired(url, "alice") as alice, wired(url) as flood:
        if user:
            await flood.send({"type": "login", "user": user})
            await flood.take(2)
        for _ in range(5):
            await flood.send(*[request_] * MAX_FRAME)
        messages, code = await flood.rest()
        assert code == 4002
        assert flood.connection.close_reason == "far too many requests"
        burst = 5 - (bool(user) and request_["type"] != "place")
        assert len(messages) == burst + 5 * STRIKES_BURST + 1
        await alive(alice)
        assert len(exchange.gateway.links) == 1


async def test_bytes_that_are_no_requests_are_counted(
    slow_clock: Server,
) -> None:
    async with wired(slow_clock.url) as flood:
        for _ in range(100):
            await flood.connection.send("rubbish")
        messages, code = await flood.rest()
        assert code == 4002
        assert words(messages) == ["bad_request"] * (5 + 5 * STRIKES_BURST + 1)


async def test_further_requests_of_a_flood_are_not_decoded(
    slow_clock: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[int] = []
    fail = Connection.fail

    def note(connection: Connection, code: int, reason: str) -> None:
        ends.append(code)
        fail(connection, code, reason)

    monkeypatch.setattr(Connection, "fail", note)
    async with wired(slow_clock.url) as flood:
        for _ in range(100):
            await flood.connection.send("rubbish")
        assert (await flood.rest())[1] == 4002
    assert ends == [4002]


async def test_a_flood_does_not_slow_others(slow_clock: Server) -> None:
    url = slow_clock.url
    async with wired(url, "alice") as alice:
        for _ in range(3):
            async with wired(url, "mallory") as flood:
                await flood.send(*[order("buy", 1, 50)] * MAX_FRAME)
                assert (await flood.rest())[1] == 4002
        replies = await alice.ask(**order("buy", 1, 90))
        assert words(replies) == ["new"]
        (reply,) = await alice.ask(type="get", what="book")
        assert reply["data"][0]["bids"] == [[90, 1]]


# Suspension ----------------------------------------------------------

FREE = "[instruments.BOND]\n[account]\norders_per_s = 0\nopen_orders = 0\n"
SUSPEND = {
    "type": "admin",
    "action": "suspend",
    "user": "mallory",
    "reason": "runs away",
}


class Flood:
    """A client that floods with orders, and reconnects when cut off."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token
        self.replies: list[Message] = []
        self.close_codes: list[int | None] = []
        self.is_over = False

    async def run(self) -> None:
        login = {"token": self.token, "cancel_on_disconnect": False}
        while not self.is_over:
            async with wired(self.url) as wire:
                try:
                    await wire.login("mallory", **login)
                    await self._pour(wire)
                except ConnectionClosed:
                    self.close_codes.append(wire.connection.close_code)

    async def _pour(self, wire: Wire) -> None:
        n = 0
        while not self.is_over:
            n += 1
            place = order("buy" if n % 2 else "sell", 1, 99 + 3 * (n % 2))
            quiet = order("sell", 1, 200)
            await wire.send(*[place, quiet] * (MAX_FRAME // 2 - 1), PING)
            while (message := await wire.receive()).get("id") != "ping":
                self.replies.append(message)

    def count(self, **fields: Any) -> int:
        return sum(
            all(m.get(key) == fields[key] for key in fields)
            for m in self.replies
        )


@pytest.mark.parametrize("is_limited", [False, True])
async def test_a_suspension_under_a_flood(
    tmp_path: Path, is_limited: bool
) -> None:
    keys, market = tmp_path / "keys.json", tmp_path / "market.toml"
    market.write_text("[instruments.BOND]\n" if is_limited else FREE)
    token = add_key(keys, "mallory")
    boss_token = add_key(keys, "boss", is_admin=True)
    settings = {
        "keys": str(keys),
        "market": str(market),
        "journal": str(tmp_path / "exchange.db"),
        "debug": "0",
    }
    async with launched(**settings) as process:
        url = address(await greeting(process))
        floods = [Flood(url, token) for _ in range(4)]
        async with (
            wired(url, "boss", token=boss_token) as boss,
            asyncio.TaskGroup() as group,
        ):
            for flood in floods:
                group.create_task(flood.run())
            async with asyncio.timeout(PATIENCE_S):
                while sum(f.count(exec_type="new") for f in floods) < 150:
                    await asyncio.sleep(0.001)
                if is_limited:  # they have been cut off, and are back
                    while not all(f.close_codes for f in floods):
                        await asyncio.sleep(0.001)
                await boss.send({**SUSPEND, "id": "suspend"})
                suspended = await boss.until(id="suspend")
                before = [len(f.replies) for f in floods]
                told = await boss.until(type="status")
                # The flood goes on all the time.
                while not all(
                    any(m.get("code") == "forbidden" for m in f.replies[n:])
                    for f, n in zip(floods, before)
                ):
                    await asyncio.sleep(0.001)
            assert suspended["type"] == "ok"
            assert told["message"] == "suspend mallory: runs away"
            (reply,) = await boss.ask(type="get", what="book")
            (book,) = reply["data"]
            assert book["bids"] == book["asks"] == []
            for flood in floods:
                flood.is_over = True
        for flood in floods:
            for message in flood.replies:
                if message["type"] == "exec":
                    # Many orders are canceled in slices; the status is last.
                    is_end = message.get("reason") == "admin"
                    last = told if is_end else suspended
                    assert message["ts"] <= last["ts"]
            assert flood.count(code="forbidden")
            assert set(flood.close_codes) == ({4002} if is_limited else set())
            # A client that was reconnecting did not see the orders end.
            assert is_limited or flood.count(reason="admin")
        async with wired(url, "mallory", token=token) as mallory:
            (reply,) = await mallory.ask(type="get", what="orders", limit=1000)
            assert reply["data"]
            assert not any(row["leaves_qty"] for row in reply["data"])
        process.send_signal(signal.SIGKILL)
        await ended(process)
    # It is in the journal.
    async with launched(**settings) as process:
        url = address(await greeting(process))
        async with (
            wired(url, "mallory", token=token) as mallory,
            wired(url, "boss", token=boss_token) as boss,
        ):
            place = order("buy", 1, 50)
            assert words(await mallory.ask(**place)) == ["forbidden"]
            await boss.ask(**{**SUSPEND, "action": "resume"})
            await mallory.until(type="status")
            assert words(await mallory.ask(**place)) == ["new"]
