"""Requests that wait for long work, while others are served."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orderbook import MAX_FRAME
from server import Server
from test.gateway.crowds import PING, framed
from test.support import Wire, order, serving, until, wired, words

SLICE = 2
ORDERS = 9
MARKET = "[instruments.BOND]\n[instruments.ETF]\n"


class Busy:
    """An exchange with long work on BOND, which goes on when `let_go`."""

    def __init__(self, server: Server, ann: Wire) -> None:
        self.server = server
        self.ann = ann
        self.held = pytest.MonkeyPatch()

    async def begin(self) -> None:
        """Let ann cancel more orders than a slice has room for."""
        self.server.gateway.engine.slice_ops = SLICE
        await self.ann.send(*[bond(1, 90)] * ORDERS)
        await self.ann.take(ORDERS)
        self.held.setattr(self.server.gateway, "pass_time", lambda: None)
        await self.ann.send({"type": "cancel_all"})
        ok, *ended = await self.ann.take(1 + SLICE)
        assert ok["count"] == ORDERS
        assert words(ended) == ["canceled"] * SLICE

    async def parked(self, count: int = 1) -> None:
        """Wait until this many links wait."""
        await until(lambda: len(self.server.turns.parked) == count)

    def let_go(self) -> None:
        """Let the slices be done, as they are between other steps."""
        self.held.undo()


def bond(qty: int, price: int) -> dict[str, object]:
    return order("buy", qty, price, symbol="BOND")


@pytest.fixture
async def busy(tmp_path: Path) -> AsyncIterator[Busy]:
    market = tmp_path / "market.toml"
    market.write_text(MARKET)
    async with serving(market=str(market)) as server:
        async with wired(server.url, "ann") as ann:
            busy = Busy(server, ann)
            await busy.begin()
            try:
                yield busy
            finally:
                busy.let_go()


async def test_a_request_for_a_busy_symbol_waits_and_others_are_served(
    busy: Busy,
) -> None:
    url = busy.server.url
    async with wired(url, "bob") as bob, wired(url, "cat") as cat:
        await bob.send(bond(1, 80), {**PING, "id": "after"}, bond(2, 70))
        await busy.parked()
        etf = await cat.ask(**order("buy", 1, 50, symbol="ETF"))
        assert words(etf) == ["new"]
        (found,) = await cat.ask(type="get", what="orders")
        assert [row["symbol"] for row in found["data"]] == ["ETF"]
        assert bob.inbox == [], "not even the reply to the ping behind it"
        assert [*busy.server.gateway.engine.accounts["bob"].orders] == []
        busy.let_go()
        assert words(await bob.take(3)) == ["new", "ok", "new"]
        ended = await busy.ann.take(ORDERS - SLICE)
        assert words(ended) == ["canceled"] * (ORDERS - SLICE)
        # Those that canceled came first.
        bobs = busy.server.gateway.engine.accounts["bob"].orders
        assert [*bobs] == [ORDERS + 2, ORDERS + 3], "after the order of cat"


async def test_a_cancel_of_a_busy_symbol_waits_too(busy: Busy) -> None:
    busy.held.undo()
    async with wired(busy.server.url, "bob") as bob:
        (placed,) = await bob.ask(**bond(1, 80))
        await busy.ann.take(ORDERS - SLICE)
        await busy.begin()
        await bob.send({"type": "cancel", "order_id": placed["order_id"]})
        await busy.parked()
        busy.let_go()
        assert words(await bob.take(1)) == ["canceled"]


async def test_links_that_wait_do_not_keep_the_drain_busy(busy: Busy) -> None:
    drains = 0
    drain = busy.server.drain

    def count() -> None:
        nonlocal drains
        drains += 1
        drain()

    async with wired(busy.server.url, "bob") as bob:
        await bob.send(bond(1, 80))
        await busy.parked()
        busy.held.setattr(busy.server, "drain", count)
        for _ in range(100):
            await asyncio.sleep(0)
        assert drains == 0
        busy.let_go()
        assert words(await bob.take(1)) == ["new"]


async def test_who_leaves_meanwhile_ends_after_the_work(busy: Busy) -> None:
    """First what was asked, then the orders that end with the session."""
    server = busy.server
    accounts = server.gateway.engine.accounts
    async with wired(server.url, "bob") as bob:
        await bob.send(bond(1, 80))
        await busy.parked()
    await until(lambda: len(server.links) == 1)
    assert len(server.gateway.links) == 2
    assert not accounts["bob"].orders
    busy.let_go()
    await until(lambda: len(server.gateway.links) == 1)
    assert [o.order_status for o in accounts["bob"].orders.values()] == [
        "canceled"
    ]
    assert not accounts["bob"].open_orders


async def test_a_session_with_busy_orders_ends_after_the_work(
    busy: Busy,
) -> None:
    """Otherwise all of the work would have to be done at once."""
    server = busy.server
    accounts = server.gateway.engine.accounts
    async with wired(server.url, "bob", cancel_on_disconnect=True) as bob:
        busy.let_go()
        await busy.ann.take(ORDERS - SLICE)
        await bob.ask(**bond(1, 80))
        await busy.begin()
    await busy.parked()
    assert accounts["bob"].open_orders
    busy.let_go()
    await until(lambda: len(server.gateway.links) == 1)
    assert not accounts["bob"].open_orders
    assert not busy.server.turns.parked


async def test_who_waits_is_read_up_to_a_bound(busy: Busy) -> None:
    server = busy.server
    async with wired(server.url, "bob") as bob:
        await bob.send(bond(1, 80))
        await busy.parked()
        (link,) = server.turns.parked
        frame = framed(json.dumps([PING] * MAX_FRAME).encode())
        bob.connection.transport.write(frame * 200)
        await until(lambda: link.peer.is_paused)
        assert link.is_full
        waiting = link.bytes_waiting
        for _ in range(100):
            await asyncio.sleep(0)
        assert link.bytes_waiting == waiting
        busy.let_go()
        replies = await bob.take(1 + 200 * MAX_FRAME)
        assert words(replies) == ["new"] + ["ok"] * 200 * MAX_FRAME


async def test_the_end_of_the_exchange_serves_those_who_wait(
    busy: Busy,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        bob = await stack.enter_async_context(wired(busy.server.url, "bob"))
        await bob.send(bond(1, 80), PING)
        await busy.parked()
        stop = asyncio.create_task(busy.server.stop())
        messages, code = await bob.rest()
        assert words(messages) == ["new", "ok", "canceled", "status"]
        assert code == 1001
        await busy.ann.rest()
        await stop
    assert not busy.server.gateway.engine.work
