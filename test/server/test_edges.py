"""Edges show the market of a primary to readers, over real servers of NATS."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from exchange.gateway.edge import READ_ONLY
from exchange.host.clock import Clock
from exchange.host.edge import FOUND, LOST, SILENT
from exchange.host.settings import Settings
from exchange.journal.address import Address
from exchange.journal.follower import Follower
from exchange.journal.message import Message
from server import Server
from test.journal.streams import new_address
from test.server.members import (
    get,
    joining,
    leading,
    standing_still,
    until_slowly,
)
from test.support import FOLLOW, answer, order, wired
from util.measure.nats_servers import NatsServers, nats_servers
from util.measure.wire import PATIENCE_S, Wire

HOUR_US = 3_600_000_000
TABLES: list[dict[str, Any]] = [
    {"what": "instruments"},
    {"what": "book", "symbol": "BOND"},
    {"what": "trades", "symbol": "BOND"},
    {"what": "candles", "symbol": "BOND", "interval": "1m"},
    {"what": "leaderboard"},
    {"what": "statuses"},
]
# nats-py forgets to close the transport of a connection that it has lost.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def address(nats: NatsServers) -> Address:
    return new_address(nats)


@contextlib.asynccontextmanager
async def showing(
    address: Address, clock: Clock | None = None
) -> AsyncIterator[Server]:
    """Start an edge, and wait until it shows the market."""
    async with joining(address, clock, role="read") as server:
        await leading(server)
        yield server


async def trade(wire: Wire, chance: random.Random) -> None:
    """Send an order that rests, trades or both."""
    side = chance.choice(["buy", "sell"])
    price = chance.randint(97, 103)
    await wire.ask(**order(side, chance.randint(1, 9), price, symbol="BOND"))


def book(messages: list[dict[str, Any]]) -> dict[str, dict[int, int]]:
    """Return the book that a reader has, whose updates must fit."""
    sides: dict[str, dict[int, int]] = {"bids": {}, "asks": {}}
    seq = None
    for message in messages:
        if message["type"] != "book":
            continue
        if message.get("snapshot"):
            sides = {"bids": {}, "asks": {}}
        else:
            assert message["prev_seq"] == seq
        seq = message["seq"]
        for side, levels in sides.items():
            levels |= dict(message.get(side, ()))
            for price in [p for p, qty in levels.items() if not qty]:
                del levels[price]
    return {**sides, "seq": {0: seq or 0}}


async def test_readers_of_both_have_the_same_book_trades_and_tables(
    address: Address,
) -> None:
    chance = random.Random(7)
    async with joining(address) as primary:
        await leading(primary)
        async with contextlib.AsyncExitStack() as stack:
            enter = stack.enter_async_context
            ann = await enter(wired(primary.url, "ann"))
            bob = await enter(wired(primary.url, "bob"))
            for _ in range(20):
                await trade(chance.choice([ann, bob]), chance)
            edges = [await enter(showing(address)) for _ in range(2)]
            readers, told = [], []
            for server in (primary, *edges):
                readers.append(await enter(wired(server.url)))
                told.append(await readers[-1].ask(**FOLLOW))
            for _ in range(200):
                await trade(chance.choice([ann, bob]), chance)
            listing = primary.gateway.engine.listings["BOND"]
            for reader, messages in zip(readers, told):
                while messages[-1].get("seq") != listing.seq:
                    messages += await reader.frame()
            books = [book(messages) for messages in told]
            assert books[1] == books[0] == books[2]
            assert books[0]["seq"] == {0: listing.seq}
            trades = [
                [m for m in messages if m["type"] == "trade"]
                for messages in told
            ]
            assert trades[1] == trades[0] == trades[2] and trades[0]
            for table in TABLES:
                rows = [
                    (await reader.ask(type="get", **table))[-1]["data"]
                    for reader in readers
                ]
                assert rows[1] == rows[0] == rows[2]


async def test_an_edge_takes_no_logins_and_writes_nothing(
    address: Address,
) -> None:
    async with joining(address) as primary:
        await leading(primary)
        async with showing(address) as edge:
            assert await get(edge, "/readyz") == (200, "ok\n")
            assert (await get(edge, "/"))[0] == 200
            assert "nobody logs in" in edge.greeting
            async with wired(edge.url) as wire:
                (refusal,) = await wire.ask(type="login", user="ann")
                assert refusal["code"] == "unauthorized"
                assert refusal["message"] == READ_ONLY
            seq = primary.gateway.engine.seq
        assert primary.gateway.engine.seq == seq


async def test_an_edge_outlives_its_primary_and_shows_the_next(
    address: Address,
) -> None:
    async with showing_after(address) as (first, edge):
        async with wired(edge.url) as reader:
            await reader.ask(**FOLLOW)
            await first.stop()
            async with joining(address) as second:
                await leading(second)
                async with wired(second.url, "ann") as ann:
                    await ann.ask(**order("buy", 5, 91, symbol="BOND"))
                update = await reader.until(type="book", bids=[[91, 5]])
                assert update["seq"] > 0


async def test_a_reader_goes_on_at_an_edge_that_was_started_again(
    address: Address,
) -> None:
    """It subscribes again; the new edge has the same book and sequence."""
    async with joining(address) as primary:
        await leading(primary)
        async with wired(primary.url, "ann") as ann:
            async with showing(address) as edge:
                async with wired(edge.url) as reader:
                    await reader.ask(**FOLLOW)
                    await ann.ask(**order("buy", 5, 91, symbol="BOND"))
                    before = await reader.until(type="book", bids=[[91, 5]])
                    await edge.stop()
                    assert (await reader.rest())[1] == 1001
            async with showing(address) as edge, wired(edge.url) as reader:
                told = await reader.ask(**FOLLOW)
                now = book(told)
                assert now["bids"] == {91: 5}
                assert now["seq"] == {0: before["seq"]}
                await ann.ask(**order("buy", 5, 90, symbol="BOND"))
                update = await reader.until(type="book", bids=[[90, 5]])
                assert update["prev_seq"] == before["seq"]


async def test_an_edge_that_reads_the_journal_refuses_100_connections(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads no batch until all have been refused, and then shows it."""
    held, real = asyncio.Event(), Follower.read

    async def read(follower: Follower, timeout_s: float) -> list[Message]:
        await held.wait()
        return await real(follower, timeout_s)

    async with joining(address) as primary:
        await leading(primary)
        settings = {"role": "read", "max_connections": 200}
        with monkeypatch.context() as patched:
            patched.setattr(Follower, "read", read)
            async with joining(address, **settings) as edge:
                answers = await asyncio.gather(
                    *(answer(edge.port, "Host: localhost") for _ in range(100))
                )
                assert answers == [503] * 100
                held.set()
                await leading(edge)
                assert await answer(edge.port, "Host: localhost") == 101


@contextlib.asynccontextmanager
async def showing_after(
    address: Address,
) -> AsyncIterator[tuple[Server, Server]]:
    """Start a primary, then an edge."""
    async with joining(address) as primary:
        await leading(primary)
        async with showing(address) as edge:
            yield primary, edge


async def test_an_edge_waits_for_a_market(address: Address) -> None:
    """Before there is a primary, and a stream, it answers 503."""
    async with joining(address, role="read") as edge:
        status, text = await get(edge, "/readyz")
        assert status == 503 and text.startswith("reading the journal")
        assert await answer(edge.port, "Host: localhost") == 503
        async with joining(address) as primary:
            await leading(primary)
            await leading(edge)
            assert await answer(edge.port, "Host: localhost") == 101


async def test_an_edge_that_loses_the_stream_says_so_and_comes_back() -> None:
    """Its servers stand still; the primary trades on when they go on."""
    with nats_servers() as servers:
        async with showing_after(new_address(servers)) as (primary, edge):
            async with wired(edge.url) as reader:
                await reader.ask(**FOLLOW)
                with standing_still(servers):
                    said = await reader.until(type="status", message=LOST)
                    assert "symbol" not in said
                    status, text = await get(edge, "/readyz")
                    assert status == 503 and text.startswith(LOST)
                await reader.until(type="status", message=FOUND)
                await leading(primary)
                async with wired(primary.url, "ann") as ann:
                    await ann.ask(**order("buy", 5, 91, symbol="BOND"))
                await reader.until(type="book", bids=[[91, 5]])
                assert await get(edge, "/readyz") == (200, "ok\n")


async def test_an_edge_without_a_primary_says_so(address: Address) -> None:
    """The stream answers, but nobody writes it."""
    async with contextlib.AsyncExitStack() as stack:
        async with joining(address) as primary:
            await leading(primary)
            edge = await stack.enter_async_context(showing(address))
            reader = await stack.enter_async_context(wired(edge.url))
            await reader.ask(**FOLLOW)
        await reader.until(type="status", message=LOST)
        assert await get(edge, "/readyz") == (503, f"{LOST}: {SILENT}\n")
        async with joining(address) as primary:
            await reader.until(type="status", message=FOUND)
            assert await get(edge, "/readyz") == (200, "ok\n")


@pytest.mark.parametrize("ahead_us", [-HOUR_US, HOUR_US])
async def test_an_edge_follows_the_clock_of_its_primary(
    address: Address, ahead_us: int
) -> None:
    clock = Clock()
    clock.forward(ahead_us)
    async with joining(address) as primary:
        await leading(primary)
        async with showing(address, clock) as edge:
            async with (
                wired(primary.url, "ann") as ann,
                wired(edge.url) as reader,
            ):
                await reader.ask(**FOLLOW)
                await ann.ask(**order("buy", 5, 91, symbol="BOND"))
                await reader.until(type="book", bids=[[91, 5]])
                (pong,) = await reader.ask(type="ping")
                here = primary.gateway.engine.ts
                assert abs(pong["ts"] - here) < PATIENCE_S * 1_000_000


async def test_an_edge_stops_where_it_comes_out_differently(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with showing_after(address) as (primary, edge):
        edge.gateway.replica.checksum.value ^= 1
        async with wired(primary.url, "ann") as ann:
            await ann.ask(**order("buy", 5, 91, symbol="BOND"))
            await until_slowly(edge.failure.done)
        assert "came out differently" in str(edge.failure.result())


def test_an_edge_needs_a_stream() -> None:
    with pytest.raises(ValueError, match="ROLE=read needs a JOURNAL of nats"):
        Settings(role="read")
