"""Bounds of connections, accounts, sessions, open orders and rows."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from exchange.gateway.rates import CANCELS_RATE
from exchange.host.market_file import (
    BURST,
    OPEN_ORDERS,
    OPEN_ORDERS_PRIVATE,
    ORDERS_PER_S,
)
from exchange.host.settings import (
    CONNECTIONS_PER_ACCOUNT,
    CONNECTIONS_PER_ADDRESS,
)
from orderbook import MAX_FRAME
from test.gateway.crowds import Message, crowd, is_dropped
from test.support import Wire, add_key, order, serving, until, wired, words


@pytest.mark.parametrize(
    "limits, hosts",
    [
        ({"max_connections": 3}, ["", "127.0.0.2"]),
        ({"max_per_address": 3}, [""]),
    ],
)
async def test_a_connection_too_many_is_dropped_at_once(
    limits: dict[str, int], hosts: list[str]
) -> None:
    """In all, and of one address; a closed connection makes room."""
    async with serving(**limits) as server:
        async with crowd(server, "alice", "bob", "carol") as wires:
            for host in hosts:
                assert await is_dropped(server, host)
            if len(hosts) == 1:  # another address is another matter
                assert not await is_dropped(server, "127.0.0.2")
            for wire in wires:
                assert words(await wire.ask(type="ping")) == ["ok"]
        await until(lambda: not server.listener.connections)
        assert not await is_dropped(server)


async def test_sockets_that_say_nothing_count_too() -> None:
    async with serving(max_connections=3) as server:
        silent = [
            await asyncio.open_connection("127.0.0.1", server.port)
            for _ in range(3)
        ]
        assert await is_dropped(server)
        for _, writer in silent:
            writer.close()
            await writer.wait_closed()
        await until(lambda: not server.listener.connections)
        assert not await is_dropped(server)


@pytest.fixture
def guarded(tmp_path: Path) -> dict[str, Any]:
    """Settings with a key file, which has a key for alice."""
    keys = tmp_path / "keys.json"
    return {"keys": keys, "token": add_key(keys, "alice")}


async def test_the_default_limits_of_a_guarded_exchange(
    guarded: dict[str, Any],
) -> None:
    """Orders at once, open orders, and connections of an account."""
    token = guarded.pop("token")
    assert (ORDERS_PER_S, BURST, OPEN_ORDERS) == (100, 200, 200)
    assert OPEN_ORDERS_PRIVATE == 1_000
    assert (CONNECTIONS_PER_ACCOUNT, CONNECTIONS_PER_ADDRESS) == (20, 1_000)
    async with serving(**guarded) as server:
        async with contextlib.AsyncExitStack() as stack:
            wires = [
                await stack.enter_async_context(wired(server.url))
                for _ in range(CONNECTIONS_PER_ACCOUNT + 1)
            ]
            *wires, last = wires
            login = {"type": "login", "user": "alice", "token": token}
            for wire in wires:
                assert words(await wire.ask(**login))[0] == "welcome"
            await last.send(login)
            (error,), code = await last.rest()
            assert (error["code"], code) == ("rate_limited", 4002)
            assert server.listener.per_address == CONNECTIONS_PER_ADDRESS
            places = [order("buy", 1, price) for price in range(1, 102)]
            replies = await ask_all(wires[0], places[:100])
            replies += await ask_all(wires[1], places[:100])
            assert words(replies) == ["new"] * OPEN_ORDERS
            replies = await ask_all(wires[2], places[:100])
            # The bucket refills at 100 tokens a second meanwhile.
            assert words(replies)[-1] == "rate_limited"
            assert set(words(replies)) <= {"rate_limited", "too_many_orders"}
            cancel = [{"type": "cancel", "order_id": 1}] * MAX_FRAME
            for wire in wires[: CANCELS_RATE * BURST // MAX_FRAME]:
                replies = await ask_all(wire, cancel)
                assert "rate_limited" not in words(replies)


async def ask_all(wire: Wire, requests: list[Message]) -> list[Message]:
    """Send requests in one frame; return their replies."""
    numbered = [{**r, "id": n} for n, r in enumerate(requests)]
    await wire.send(*numbered)
    replies: list[Message] = []
    while len(replies) < len(requests):
        message = await wire.receive()
        if "id" in message:
            replies.append(message)
    return replies
