"""The client against a real exchange, often over a relay that misbehaves.

Whatever the relay does, in the end the client must hold what the exchange
itself says in its tables, and every request must have taken effect once.
"""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, get_args

import pytest

import client
import exchange.history
import orderbook
import server as server_module
from client import (
    BadRequest,
    BlockingExchange,
    Book,
    ConnectionLost,
    DuplicateClientOrderId,
    EventsLost,
    Exchange,
    Market,
    Order,
    OrderClosed,
    OutcomeUnknown,
    Refused,
    Stream,
    Unauthorized,
    UnknownSymbol,
    WouldTake,
)
from orderbook import Exec, Trade
from server import Server
from test.relay import Direction, Fate, Relay, at_random, nth, relaying
from test.support import PATIENCE_S, serving, wired

# Short, so that what waits for them is soon over; none decides an outcome.
QUICK: dict[str, Any] = {
    "resend_after": 0.3,
    "request_timeout": PATIENCE_S,
    "connect_timeout": 6.0,
}


@pytest.fixture(autouse=True)
def _frequent_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HEARTBEAT_S", 0.05)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "USER", "TOKEN", "SERVER_HOSTNAME", "SERVER_PORT"):
        monkeypatch.delenv(f"EXCHANGE_{name}", raising=False)


async def until(ex: Exchange, is_so: Callable[[], object]) -> None:
    """Wait until something is so of a client, whatever its frames are."""
    async with asyncio.timeout(PATIENCE_S):
        await ex._until(is_so)


async def take(stream: Stream[Any], count: int) -> list[Any]:
    async with asyncio.timeout(PATIENCE_S):
        return [await anext(stream) for _ in range(count)]


@dataclass
class Desk:
    """Alice behind a relay, Bob beside it, and their exchange."""

    server: Server
    relay: Relay
    ex: Exchange
    bond: Market
    bob: Market

    def sent(self, word: str) -> int:
        """Return how many of Alice's frames had such a word in them."""
        return sum(f'"{word}"' in frame for frame in self.relay.seen["up"])

    def lose(
        self, direction: Direction, word: str, fate: Fate = "drop"
    ) -> None:
        """Let that befall the next frame with a word in it, and no other."""
        relay = self.relay

        def fault(way: Direction, n: int, frame: str) -> Fate:
            if way == direction and f'"{word}"' in frame:
                relay.fault = lambda *_: "pass"
                return fate
            return "pass"

        relay.fault = fault


@asynccontextmanager
async def desk(**options: Any) -> AsyncIterator[Desk]:
    options = {"user": "alice", **QUICK, **options}
    async with (
        serving() as server,
        relaying(server.url) as relay,
        Exchange(server.url, "bob") as bob,
        Exchange(relay.url, **options) as ex,
    ):
        bond = await ex.market("BOND")
        yield Desk(server, relay, ex, bond, await bob.market("BOND"))


# The truth ----------------------------------------------------------------


async def tables(url: str) -> dict[str, list[Any]]:
    """Return what the exchange itself says, asked without the client."""
    async with wired(url, "alice", cancel_on_disconnect=False) as wire:
        found = {}
        for what in ("orders", "fills", "trades", "book", "account"):
            answer = await wire.ask(type="get", id=1, what=what, limit=1000)
            [found[what]] = [m["data"] for m in answer if m.get("id") == 1]
        return found


def facts(report: Any) -> tuple[Any, ...]:
    """Return what an order, or a row about one, says."""
    row = report.__getitem__ if isinstance(report, dict) else None
    names = "order_id", "side", "qty", "order_status", "cum_qty", "leaves_qty"
    if row is not None:
        return (*map(row, names), report.get("price"))
    return (*(getattr(report, n) for n in names), report.price)


def view(ex: Exchange, bond: Market, orders: list[Order]) -> dict[str, Any]:
    """Return what a client holds, comparable with ``truth``."""
    return {
        "live": bond.is_live,
        "bids": [list(level) for level in bond.book.bids],
        "asks": [list(level) for level in bond.book.asks],
        "seq": bond.book.seq,
        "cash": ex.cash,
        "position": bond.position,
        "open": [facts(order) for order in ex.orders],
        "orders": [facts(order) for order in orders],
        "filled": [sum(f.last_qty or 0 for f in o.fills) for o in orders],
    }


def truth(found: dict[str, list[Any]], orders: list[Order]) -> dict[str, Any]:
    rows = {row["order_id"]: row for row in found["orders"]}
    [book], [account] = found["book"], found["account"]
    return {
        "live": True,
        "bids": book.get("bids", []),
        "asks": book.get("asks", []),
        "seq": book["seq"],
        "cash": account["cash"],
        "position": account["positions"].get("BOND", 0),
        "open": [facts(r) for r in rows.values() if r["leaves_qty"]],
        "orders": [facts(rows[order.order_id]) for order in orders],
        "filled": [rows[order.order_id]["cum_qty"] for order in orders],
    }


async def check_in_step(
    url: str, ex: Exchange, bond: Market, orders: list[Order]
) -> dict[str, list[Any]]:
    """Wait until a client holds the truth; fail with the difference."""
    found = await tables(url)
    expected = truth(found, orders)
    try:
        await until(ex, lambda: view(ex, bond, orders) == expected)
    except TimeoutError:
        assert view(ex, bond, orders) == expected
    return found


async def check_streams(
    found: dict[str, list[Any]],
    ex: Exchange,
    fills: Stream[Exec],
    trades: Stream[Trade],
) -> None:
    """Verify that iterators gave every event, in order, each once.

    Closes the client, to see that nothing follows.
    """
    filled = await take(fills, len(found["fills"]))
    traded = await take(trades, len(found["trades"]))
    await ex.close()
    filled += [fill async for fill in fills]
    traded += [trade async for trade in trades]
    assert [f.seq for f in filled] == [row["seq"] for row in found["fills"]]
    ids = [row["trade_id"] for row in found["trades"]]
    assert [trade.trade_id for trade in traded] == ids


# Frames that get lost, come twice or in another order ---------------------


async def play(
    ex: Exchange, bond: Market, bob: Market, fills: Stream[Exec]
) -> list[Order]:
    """Trade through every kind of request; return the orders placed."""
    first = await bond.buy(10, 99)
    await bob.sell(4, 99)
    await first.amend(price=98)
    bid, ask = await bond.quote(97, 101, 5)
    assert bid is not None and ask is not None
    third = await bond.sell(3, 102)
    await third.cancel()
    await bob.buy(2, 101)
    await until(ex, lambda: ask.cum_qty == 2)
    await bond.quote(96, 101, 5)
    await bob.sell(2, 100)
    taken = await bond.buy(5, 100, time_in_force="ioc")
    assert not taken.is_open
    market = await bond.sell(7)
    await ex.cancel_after(60)
    return [first, bid, ask, third, taken, market]


async def run(
    fault: Callable[[Direction, int, str], Any] | None = None,
    **options: Any,
) -> tuple[list[tuple[Any, ...]], Relay]:
    """Play over a relay; verify the client; return what came of it.

    That is every order of the account as it ended, and the relay.
    """
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving())
        relay = await stack.enter_async_context(relaying(server.url))
        bob = await stack.enter_async_context(Exchange(server.url, "bob"))
        bond_of_bob = await bob.market("BOND")
        if fault is not None:
            relay.fault = fault
        ex = await stack.enter_async_context(
            Exchange(relay.url, "alice", **QUICK, **options)
        )
        bond = await ex.market("BOND")
        fills, trades = ex.fills(), bond.trades()
        async with asyncio.timeout(2 * PATIENCE_S):
            orders = await play(ex, bond, bond_of_bob, fills)
            found = await check_in_step(server.url, ex, bond, orders)
            await check_streams(found, ex, fills, trades)
        return [facts(row) for row in found["orders"]], relay


async def _together(runs: list[Any]) -> list[Any]:
    """Run some at a time; return their results, or raise what one did."""
    gate = asyncio.Semaphore(16)

    async def one(coroutine: Any) -> Any:
        async with gate:
            return await coroutine

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(coroutine)) for coroutine in runs]
    return [task.result() for task in tasks]


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("fate", get_args(Fate)[1:])
@pytest.mark.parametrize("remembers", [2_000, 1])
async def test_one_fault_anywhere_changes_nothing(
    direction: Direction,
    fate: Fate,
    remembers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Where the exchange remembers one event only, nothing can be resumed.
    monkeypatch.setattr(exchange.history, "RESUME_EVENTS", remembers)
    expected, relay = await run(cancel_on_disconnect=False)
    frames = len(relay.seen[direction])
    assert frames > 10

    async def try_at(number: int) -> None:
        result, relay = await run(
            nth(direction, number, fate), cancel_on_disconnect=False
        )
        assert result == expected, f"{fate} of {direction} {number}"

    await _together([try_at(number) for number in range(frames)])
