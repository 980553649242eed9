"""ccxt.pro follows and trades here, unchanged."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import ccxt.pro
import pytest

from test.clients.bots import options
from test.support import PATIENCE_S, wired

BOND = "BOND/USD"
CHANGES = 10_000


@pytest.fixture
async def bots(host: str) -> AsyncIterator[tuple[Any, Any]]:
    ann, bob = (ccxt.pro.binance(options(host, u)) for u in ("ann", "bob"))
    await ann.load_markets()
    yield ann, bob
    await ann.close()
    await bob.close()


async def test_everything_is_watched(bots: tuple[Any, Any]) -> None:
    ann, bob = bots
    await ann.authenticate()
    calls = {
        "orders": ann.watch_orders(BOND),
        "mine": ann.watch_my_trades(BOND),
        "balance": ann.watch_balance(),
        "trades": ann.watch_trades(BOND),
        "candles": ann.watch_ohlcv(BOND, "1s"),
        "tops": ann.watch_bids_asks([BOND]),
    }
    watched = {name: asyncio.ensure_future(c) for name, c in calls.items()}
    await asyncio.sleep(0)  # all of them have begun
    placed = await ann.create_order(BOND, "limit", "buy", 500, 99.5)
    sold = 0
    async with asyncio.timeout(PATIENCE_S):
        # A public stream begins at a time that its client is not told.
        while not all(one.done() for one in watched.values()):
            await bob.create_order(BOND, "limit", "sell", 1, 99.5)
            sold += 1
            await asyncio.wait(watched.values(), timeout=0.05)
        (order,) = await watched["orders"]
        assert (order["id"], order["status"]) == (placed["id"], "open")
        assert (await watched["balance"])["USD"]["used"] <= 49_750
        assert (await watched["trades"])[0]["price"] == 99.5
        mine = (await watched["mine"])[0]
        assert (mine["order"], mine["takerOrMaker"]) == (placed["id"], "maker")
        assert (await watched["candles"])[0][4] == 99.5
        assert (await watched["tops"])[BOND]["symbol"] == BOND
        book = await ann.watch_order_book(BOND)
        while book["bids"] != [[99.5, 500 - sold]]:
            book = await ann.watch_order_book(BOND)


async def test_orders_over_the_websocket(bots: tuple[Any, Any]) -> None:
    ann, _ = bots
    placed = await ann.create_order_ws(BOND, "limit", "buy", 2, 98.5)
    assert placed["status"] == "open"
    found = await ann.fetch_order_ws(placed["id"], BOND)
    assert found["price"] == 98.5
    edited = await ann.edit_order_ws(placed["id"], BOND, "limit", "buy", 1, 97)
    (left,) = await ann.fetch_open_orders_ws(BOND)
    assert left["id"] == edited["id"]
    assert (await ann.cancel_order_ws(edited["id"], BOND))["id"]
    with pytest.raises(ccxt.OrderNotFound):
        await ann.cancel_order_ws("99", BOND)


async def test_its_book_is_ours_after_many_changes(
    host: str, bots: tuple[Any, Any]
) -> None:
    ann, _ = bots
    chance = random.Random(5)
    await ann.watch_order_book(BOND, 5_000)
    done = asyncio.Event()

    async def trade() -> None:
        async with wired(f"ws://{host}", "cat") as wire:
            for _ in range(CHANGES // 50):
                orders = [
                    {
                        "type": "place",
                        "symbol": "BOND",
                        "side": chance.choice(("buy", "sell")),
                        "qty": chance.randrange(1, 9),
                        "price": chance.randrange(9_900, 10_100),
                    }
                    for _ in range(50)
                ]
                await wire.send(*orders)
                await wire.ask(type="ping")
        done.set()

    trading = asyncio.ensure_future(trade())
    async with asyncio.timeout(PATIENCE_S):
        while not done.is_set():
            book = await ann.watch_order_book(BOND, 5_000)
        await trading
        ours = await ann.fetch_order_book(BOND, 5_000)
        while book["nonce"] < ours["nonce"]:
            book = await ann.watch_order_book(BOND, 5_000)
    assert book["bids"] == ours["bids"]
    assert book["asks"] == ours["asks"]
    assert ours["nonce"] >= CHANGES // 2
