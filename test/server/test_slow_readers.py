"""Slow readers, floods, and connections at the end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from exchange.gateway.pacing import SLOW_BYTES, STUCK_BYTES
from exchange.market.command import Command, Output
from exchange.market.engine import Engine
from orderbook import MAX_FRAME
from server import Server
from test.narrow import narrow_listener, narrow_socket
from test.server.asking import follow, get, place, rows
from test.support import Wire, order, serving, wired, words

# Readers that are slow ----------------------------------------------------


@pytest.fixture
async def narrow(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Callable[..., Any]]:
    """Connect through small socket buffers, which are soon full."""
    narrow_listener(monkeypatch)
    wires: list[Wire] = []
    async with contextlib.AsyncExitStack() as stack:

        async def dial(server: Server, user: str = "", **more: Any) -> Wire:
            sock = await narrow_socket(server.port)
            wire = await stack.enter_async_context(
                wired(server.url, user, sock=sock, **more)
            )
            wires.append(wire)
            return wire

        yield dial
        for wire in wires:
            wire.resume()


async def stuff(wire: Wire, other: Wire, size: int) -> int:
    """Queue ``size`` bytes for a link; return in how many replies.

    An order follows the requests. When ``other``, a connection of the same
    account, receives its report, the requests have been carried out.
    """
    wire.pause()
    # A table of 100 orders has some 20,000 bytes.
    count = size // 20_000 + 1
    for _ in range(count):
        await wire.send(get("orders", limit=100))
    await wire.send(order("buy", 1, 1, time_in_force="ioc"))
    await other.until(exec_type="expired")
    return count


async def open_orders(wire: Wire, count: int = MAX_FRAME) -> None:
    await wire.send(*[order("buy", 1, 50)] * count)
    await wire.take(count)


async def test_a_slow_reader_gets_one_update_for_what_it_missed(
    narrow: Callable[..., Any],
) -> None:
    async with (
        serving() as exchange,
        wired(exchange.url, "alice") as alice,
        wired(exchange.url, "bob") as bob,
    ):
        slow = await narrow(exchange, "alice")
        await open_orders(slow)
        await slow.send(follow("book", "trades"))
        held = (await slow.until(snapshot=True))["seq"] + 1
        await place(bob, "buy", 1, 30)  # while it is not slow yet
        await slow.until(type="book", seq=held)
        tables = await stuff(slow, alice, 2 * SLOW_BYTES)
        await place(alice, "sell", 100, 60)
        for qty in range(1, 31):
            await place(bob, "buy", 1, 60)
            await place(bob, "buy", qty, 40)
        last = held + 61
        slow.resume()
        # The tables, then all private events, then the book.
        replies = await slow.take(tables)
        assert all(len(reply["data"]) == 100 for reply in replies)
        private = await slow.take(63)
        assert (
            words(private)
            == ["new", "expired", "new"] + [*("trade", "account")] * 30
        )
        seqs = [message["seq"] for message in private]
        assert seqs == list(range(seqs[0], seqs[0] + 63))
        update = await slow.receive()
        assert update["prev_seq"] == held and update["seq"] == last
        assert update["bids"] == [[40, 465]] and update["asks"] == [[60, 70]]
        # From here on it is not slow any more.
        await place(bob, "buy", 1, 60)
        messages = await slow.take(4)
        assert words(messages) == ["trade", "account", "trade", "book"]
        assert messages[2]["trade_id"] == 31


async def test_a_slow_reader_that_missed_too_much_gets_a_snapshot(
    monkeypatch: pytest.MonkeyPatch, narrow: Callable[..., Any]
) -> None:
    monkeypatch.setattr("exchange.gateway.feed.UPDATES_KEPT", 5)
    async with (
        serving() as exchange,
        wired(exchange.url, "alice") as alice,
        wired(exchange.url, "bob") as bob,
    ):
        slow = await narrow(exchange, "alice")
        await open_orders(slow)
        await slow.send(follow("book"))
        held = (await slow.until(snapshot=True))["seq"]
        await stuff(slow, alice, 2 * SLOW_BYTES)
        for price in range(10, 20):
            await place(bob, "buy", 1, price)
        slow.resume()
        snapshot = await slow.until(type="book")
        assert snapshot["snapshot"] and snapshot["seq"] == held + 10
        assert len(snapshot["bids"]) == 11


async def test_a_reader_that_never_reads_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, narrow: Callable[..., Any]
) -> None:
    monkeypatch.setattr("exchange.gateway.pacing.STUCK_BYTES", 2 * SLOW_BYTES)
    async with (
        serving() as exchange,
        wired(exchange.url, "alice") as alice,
        wired(exchange.url, "bob") as bob,
    ):
        slow = await narrow(exchange, "alice")
        await open_orders(slow)
        await stuff(slow, alice, 4 * SLOW_BYTES)
        # Other connections go on.
        for _ in range(20):
            assert words(await place(bob, "buy", 1, 40)) == ["new"]
        slow.resume()
        messages, code = await slow.rest()
        # Bytes sent before arrive, then the close code.
        assert code == 4008 and words(messages)[:2] == ["ok", "ok"]
        for _ in range(MAX_FRAME):
            canceled = await alice.receive()
            assert canceled["reason"] == "disconnect"
        assert (await rows(bob, "book"))[0]["bids"] == [[40, 20]]


async def test_the_limits_of_slow_readers() -> None:
    assert STUCK_BYTES == 4 * 2**20
    assert SLOW_BYTES < STUCK_BYTES


# Fairness and limits ------------------------------------------------------


async def test_a_flood_delays_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    applied: list[str] = []
    apply = Engine.apply

    def spy(engine: Engine, command: Command) -> list[Output]:
        applied.append(command.account)
        return apply(engine, command)

    monkeypatch.setattr(Engine, "apply", spy)
    async with serving() as exchange:
        async with (
            wired(exchange.url, "flood") as flood,
            wired(exchange.url, "alice") as alice,
            wired(exchange.url, "bob") as bob,
        ):
            for _ in range(40):
                await flood.send(*[{"type": "cancel_all"}] * MAX_FRAME)
            before = len(applied)
            await alice.send({"type": "cancel_all"})
            await bob.send({"type": "cancel_all"})
            await alice.receive()
            await bob.receive()
            await flood.take(40 * MAX_FRAME)
            turns = [name for name in applied[before:] if name]  # no times
            assert turns.index("alice") <= 2 * MAX_FRAME
            assert turns.index("bob") <= 2 * MAX_FRAME + 1
            assert applied.count("flood") == 40 * MAX_FRAME + 1


async def test_public_data_that_had_to_wait_need_no_further_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exchange.gateway.pacing.MANY_READERS", 1)
    async with (
        serving() as exchange,
        wired(exchange.url, "alice") as alice,
        wired(exchange.url) as reader,
    ):
        await reader.ask(**follow("book"))
        for qty in range(1, 21):
            await alice.ask(**order("buy", 1, 90))
        await reader.until(type="book", bids=[[90, 20]])


async def test_a_socket_that_is_being_accepted_is_closed_at_the_end() -> None:
    for rounds in range(6):
        async with serving() as exchange:
            sockets = []
            for _ in range(5):
                sock = socket.socket()
                sockets.append(sock)
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", exchange.port))
            for _ in range(rounds):
                await asyncio.sleep(0)
            await exchange.stop()
        gc.collect()  # a socket that was not closed warns: the test fails
        for sock in sockets:
            sock.close()
