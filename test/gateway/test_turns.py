"""Turns under load: what is read, what waits, which link is next."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from exchange.doors import listener
from exchange.doors.queue import Queue
from exchange.doors.tcp import READ_SIZE
from exchange.doors.websocket import MESSAGES_PER_TURN, Connection
from exchange.gateway import pacing, turns
from exchange.gateway.gateway import Gateway
from exchange.gateway.link import BYTES_WAITING, Link
from exchange.gateway.pacing import Pacing
from exchange.gateway.requests import Requests
from exchange.gateway.turns import (
    REQUESTS_AT_FIRST,
    REQUESTS_PER_ROUND,
    REQUESTS_PER_TURN,
    TURN_COUNTS,
)
from exchange.host.writer import Writer
from orderbook import MAX_FRAME, Ping
from server import Server
from test.doors.connection.desk import HANDSHAKE
from test.gateway.crowds import PING, comes_in, framed, is_dropped
from test.support import order, serving, until, wired, words


def tiny(count: int) -> list[bytes]:
    """Return ``count`` messages of 100 elements that are no requests."""
    return [b"[" + b"1," * (MAX_FRAME - 1) + b"1]"] * count


async def test_a_flood_of_junk_is_read_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rest stays in the kernel, and the sender waits."""
    most = 0
    receive = Link.receive

    def spy(self: Link, messages: list[bytes], now: int) -> None:
        nonlocal most
        assert not self.is_full
        receive(self, messages, now)
        most = max(most, self.bytes_waiting)

    monkeypatch.setattr(Link, "receive", spy)
    async with serving() as server, wired(server.url) as flood:
        frame = framed(b"x" * 50)
        flood.connection.transport.write(frame * 10_000)
        heard = 0
        while heard < 10_000:
            heard += len(await flood.frame())
    assert BYTES_WAITING <= most < BYTES_WAITING + READ_SIZE


class Queued:
    """The rounds of the event loop in which the queue gave turns."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.rounds: list[int] = []  # of each turn
        self._round = 0
        self._next_round()
        give = Queue._give

        def note(queue: Queue, turn: Callable[[], None]) -> None:
            self.rounds.append(self._round)
            give(queue, turn)

        patch.setattr(Queue, "_give", note)

    def _next_round(self) -> None:
        self._round += 1
        asyncio.get_running_loop().call_soon(self._next_round)


async def test_waiting_connections_are_accepted_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A turn to be accepted, and another for the handshake."""
    queued = Queued(monkeypatch)
    async with serving() as server, contextlib.AsyncExitStack() as stack:
        writers: list[asyncio.StreamWriter] = []
        for _ in range(30):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            stack.callback(writer.transport.abort)
            writers.append(writer)
        await until(lambda: len(server.listener.connections) == 30)
        for writer in writers:
            writer.write(HANDSHAKE + framed(json.dumps(PING).encode()))
        strangers = server.gateway.limiter.counts[""]
        await until(lambda: strangers.get(Ping) == 30)
    assert len(queued.rounds) == len(set(queued.rounds)) == 60


async def test_a_read_of_many_messages_is_handled_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the parts one connection has a turn at a time."""
    queued = Queued(monkeypatch)
    most = 0
    received = Server.received

    def spy(self: Server, connection: Connection, news: list[bytes]) -> None:
        nonlocal most
        most = max(most, len(news))
        received(self, connection, news)

    monkeypatch.setattr(Server, "received", spy)
    async with serving() as server, contextlib.AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(wired(server.url))
            for _ in range(8)
        ]
        count = 5 * MESSAGES_PER_TURN
        for wire in wires:
            frame = framed(json.dumps(PING).encode())
            wire.connection.transport.write(frame * count)
        for wire in wires:
            assert words(await wire.take(count)) == ["ok"] * count
    assert most == MESSAGES_PER_TURN
    assert len(queued.rounds) == len(set(queued.rounds)) >= 8 * (2 + 4)


async def test_one_connection_waits_inside_and_the_others_outside() -> None:
    loop = asyncio.get_running_loop()
    async with serving() as server, contextlib.AsyncExitStack() as stack:
        queue = server.listener._queue
        queue._is_open = False  # somebody has a turn
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", server.port))
        await until(lambda: bool(queue._waiting))
        for _ in range(20):
            await asyncio.sleep(0)
            assert len(queue._waiting) == 1 and not server.listener.connections
        queue._give_next()
        await until(lambda: len(server.listener.connections) == 3)


async def test_a_round_sends_public_data_to_a_bounded_number_of_readers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every reader gets them, before anything that is sent later."""
    monkeypatch.setattr(pacing, "READERS_PER_ROUND", 2)
    paid: list[int] = []  # in each round
    take = Pacing.take

    def note(pacing: Pacing[Link]) -> list[tuple[Link, bytes]]:
        taken = take(pacing)
        paid.append(len(taken))
        return taken

    monkeypatch.setattr(Pacing, "take", note)
    async with serving() as server, contextlib.AsyncExitStack() as stack:
        alice = await stack.enter_async_context(wired(server.url, "alice"))
        readers = [
            await stack.enter_async_context(wired(server.url))
            for _ in range(7)
        ]
        for reader in readers:
            await reader.ask(type="subscribe", channels=["book"])
        await alice.ask(**order("buy", 1, 50))
        for reader in readers:
            assert (await reader.until(type="book"))["bids"] == [[50, 1]]
        assert paid == [2, 2, 2, 1]
        monkeypatch.setattr(Writer, "flush", lambda writer: None)
        await alice.ask(**order("buy", 1, 51))
        await until(lambda: len(server.gateway.pacing.pending) == 7)
        assert words(await readers[5].ask(type="ping")) == ["book", "ok"]
        await alice.ask(**order("buy", 1, 52))
        await until(lambda: len(server.gateway.pacing.pending) == 7)
        await server.stop()
        for reader in readers:
            books = [m for m in (await reader.rest())[0] if "bids" in m]
            assert [b["prev_seq"] for b in books] == [1, 2, 3][-len(books) :]
            assert books[-1]["bids"] == [[52, 0], [51, 0], [50, 0]]


class Ticks:
    """The requests that each drain of the server handles."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.turns: list[list[int]] = []  # the requests of each, by tick
        drain, handle = Server.drain, Requests.handle
        take = Link.take

        def note_drain(server: Server) -> None:
            self.turns.append([])
            drain(server)

        def note_turn(link: Link, enough: int) -> Any:
            self.turns[-1].append(0)
            return take(link, enough)

        def note(gateway: Gateway, session: Link, requests: Any) -> None:
            self.turns[-1][-1] += len(requests)
            handle(gateway, session, requests)

        patch.setattr(Server, "drain", note_drain)
        patch.setattr(Link, "take", note_turn)
        patch.setattr(Requests, "handle", note)


async def test_one_drain_handles_a_bounded_number_of_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other links are served by the next drain."""
    ticks = Ticks(monkeypatch)
    count = 3 * REQUESTS_PER_ROUND // 10
    async with serving() as server, contextlib.AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(wired(server.url))
            for _ in range(count)
        ]
        for wire in wires:  # all before the loop turns
            frame = json.dumps([PING] * 10).encode()
            wire.connection.transport.write(framed(frame))
        for wire in wires:
            assert words(await wire.take(10)) == ["ok"] * 10
    sums = [sum(turns) for turns in ticks.turns]
    assert sum(sums) == 10 * count
    assert REQUESTS_PER_ROUND <= max(sums) < REQUESTS_PER_ROUND + 10


async def test_one_drain_serves_a_bounded_number_of_links(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A turn counts as TURN_COUNTS requests at least."""
    ticks = Ticks(monkeypatch)
    most = REQUESTS_PER_ROUND // TURN_COUNTS
    async with serving() as server, contextlib.AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(wired(server.url))
            for _ in range(3 * most)
        ]
        for wire in wires:
            wire.connection.transport.write(framed(json.dumps(PING).encode()))
        for wire in wires:
            assert words(await wire.take(1)) == ["ok"]
    assert max(map(len, ticks.turns)) == most


async def test_a_drain_takes_one_small_turn_of_a_long_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the first turn, which suffices for most links."""
    ticks = Ticks(monkeypatch)
    count = REQUESTS_AT_FIRST + 3 * REQUESTS_PER_TURN
    async with serving() as server, wired(server.url) as wire:
        frame = framed(json.dumps(PING).encode())
        wire.connection.transport.write(frame * count)
        assert words(await wire.take(count)) == ["ok"] * count
    turns = [turn for tick in ticks.turns for turn in tick if turn]
    assert turns == [REQUESTS_AT_FIRST] + 3 * [REQUESTS_PER_TURN]
    assert all(len(tick) <= 2 for tick in ticks.turns)


async def test_a_link_with_little_to_ask_is_served_before_the_backlog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits for one turn of the backlog at most."""
    asked: list[str] = []
    handle = Requests.handle

    def note(gateway: Gateway, session: Link, requests: Any) -> None:
        asked.extend([session.account] * len(requests))
        handle(gateway, session, requests)

    async with serving() as server, contextlib.AsyncExitStack() as stack:
        bots = [
            await stack.enter_async_context(wired(server.url, f"bot{number}"))
            for number in range(4)
        ]
        alice = await stack.enter_async_context(wired(server.url, "alice"))
        monkeypatch.setattr(Requests, "handle", note)
        frame = framed(json.dumps(PING).encode())
        for bot in bots:
            bot.connection.transport.write(frame * 2_000)
        await until(lambda: len(asked) > 200)
        for _ in range(20):
            before = len(asked)
            await alice.send(PING)
            await until(lambda: "alice" in asked[before:])
            # Handled before the loop could read her request.
            turns = asked[before:].index("alice")
            assert turns <= 2 * REQUESTS_PER_TURN
            await alice.receive()
        assert len(asked) < 8_000, "they were still at it"


async def test_a_link_with_a_heavy_turn_joins_the_backlog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It stays there for its next turn, though nothing of it waits."""
    async with serving() as server, contextlib.AsyncExitStack() as stack:
        greedy = await stack.enter_async_context(wired(server.url, "greedy"))
        alice = await stack.enter_async_context(wired(server.url, "alice"))
        by_name = {s.account: s for s in server.gateway.links}
        many = [PING] * (REQUESTS_AT_FIRST + 1)
        for requests, is_behind in (
            (many, False),  # nobody knows yet
            (many, True),
            ([PING], True),
            ([PING], False),  # modest again
        ):
            with monkeypatch.context() as patch:
                patch.setattr(server, "drain", lambda: None)
                for wire in (greedy, alice):
                    await wire.send(*(requests if wire is greedy else [PING]))
                await until(lambda: by_name["alice"].waiting)
                await until(lambda: by_name["greedy"].waiting)
                assert (by_name["greedy"] in server.turns.backlog) == is_behind
                assert (by_name["greedy"] in server.turns.fresh) != is_behind
                assert by_name["alice"] in server.turns.fresh
            server.drain()
            await greedy.take(len(requests))
            await alice.receive()


@pytest.mark.parametrize(
    "bound, is_for_all", [("LEAVING_MAX", True), ("LEAVING_FROM_ONE", False)]
)
async def test_connections_wait_while_closed_links_have_work_left(
    monkeypatch: pytest.MonkeyPatch, bound: str, is_for_all: bool
) -> None:
    """Otherwise a client could leave more work than is ever done."""
    monkeypatch.setattr(listener, bound, 2)
    async with serving() as server, wired(server.url) as wire:
        with monkeypatch.context() as patch:
            patch.setattr(server, "drain", lambda: None)
            for number in range(1, 3):
                _, writer = await asyncio.open_connection(
                    "127.0.0.1", server.port
                )
                writer.write(HANDSHAKE + b"".join(map(framed, tiny(1))))
                await until(lambda: len(server.links) == 2)
                writer.close()
                await until(lambda: len(server.listener.leaving) == number)
            assert not await comes_in(server, "127.0.0.1")
            assert await comes_in(server, "127.0.0.2") != is_for_all
        server.drain()
        await until(lambda: not server.listener.leaving)
        assert not await is_dropped(server)
        assert words(await wire.ask(type="ping")) == ["ok"]


async def test_a_closed_connection_counts_until_its_requests_are_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise reconnecting could leave unbounded work behind."""
    monkeypatch.setattr(turns, "REQUESTS_PER_ROUND", 1)
    async with serving(max_connections=3) as server:
        for _ in range(50):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(HANDSHAKE + b"".join(map(framed, tiny(50))))
            await asyncio.sleep(0)
            writer.close()
            await asyncio.sleep(0)
            assert len(server.gateway.links) <= 3
        await until(lambda: not server.gateway.links)
        assert (
            not server.listener.connections and not server.listener.by_address
        )
        async with wired(server.url) as wire:
            assert words(await wire.ask(type="ping")) == ["ok"]
