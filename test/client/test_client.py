"""The client against a real exchange, often over a relay that makes faults.

Whatever the faults, in the end the client must show what the tables of the
exchange say, and every request must have taken effect once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

import client
import exchange.journal.history
from client import (
    BadRequest,
    BlockingExchange,
    Book,
    ConnectionLost,
    DuplicateClientOrderId,
    EventsLost,
    Exchange,
    Forbidden,
    Market,
    MarketClosed,
    Order,
    OrderClosed,
    OutcomeUnknown,
    RateLimited,
    Stream,
    Unauthorized,
    UnknownSymbol,
    WouldTake,
)
from exchange.host import looks, timers
from exchange.host.keyfile import changing, make_token, rotate
from exchange.journal.sqlite import read_journal
from exchange.market.command import Connect
from orderbook import Exec, Trade
from server import Server
from test.relay import Direction, Fate, Relay, at_random, nth, relaying
from test.support import (
    NOBODY,
    PATIENCE_S,
    add_key,
    address,
    greeting,
    launched,
    serving,
    until,
    wired,
)

# Bounds on waiting, not on an outcome.
QUICK: dict[str, Any] = {
    "request_timeout": PATIENCE_S,
    "connect_timeout": 6.0,
}


@pytest.fixture(autouse=True)
def _frequent_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers, "HEARTBEAT_S", 0.05)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "USER", "TOKEN", "SERVER_HOSTNAME", "SERVER_PORT"):
        monkeypatch.delenv(f"EXCHANGE_{name}", raising=False)


async def take(stream: Stream[Any], count: int) -> list[Any]:
    async with asyncio.timeout(PATIENCE_S):
        return [await anext(stream) for _ in range(count)]


@dataclass
class Desk:
    """Alice behind a relay, Bob without one, and their exchange."""

    server: Server
    relay: Relay
    ex: Exchange
    bond: Market
    bob: Market

    def sent(self, word: str) -> int:
        """Return how many frames of Alice had a word in them."""
        return sum(f'"{word}"' in frame for frame in self.relay.seen["up"])

    def lose(
        self, direction: Direction, word: str, fate: Fate = "drop"
    ) -> None:
        """Apply a fate to the next frame with a word, and to no other."""
        relay = self.relay

        def fault(way: Direction, n: int, frame: str) -> Fate:
            if way == direction and f'"{word}"' in frame:
                relay.fault = lambda *_: "pass"
                return fate
            return "pass"

        relay.fault = fault


@asynccontextmanager
async def desk(
    server_settings: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Desk]:
    options = {"user": "alice", **QUICK, **options}
    async with (
        serving(**(server_settings or {})) as server,
        relaying(server.url) as relay,
        Exchange(server.url, "bob") as bob,
        Exchange(relay.url, **options) as ex,
    ):
        bond = await ex.market("BOND")
        yield Desk(server, relay, ex, bond, await bob.market("BOND"))


# What the exchange says ---------------------------------------------------


async def tables(url: str) -> dict[str, list[Any]]:
    """Return the tables of the exchange, fetched without the client."""
    async with wired(url, "alice", cancel_on_disconnect=False) as wire:
        found = {}
        for what in (
            *("orders", "fills", "trades", "book", "account"),
            "instruments",
        ):
            answer = await wire.ask(type="get", id=1, what=what, limit=1000)
            [found[what]] = [m["data"] for m in answer if m.get("id") == 1]
        return found


def facts(report: Any) -> tuple[Any, ...]:
    """Return the facts of an order, or of a row about one."""
    row = report.__getitem__ if isinstance(report, dict) else None
    names = "order_id", "side", "qty", "order_status", "cum_qty", "leaves_qty"
    if row is not None:
        return (*map(row, names), report.get("price"))
    return (*(getattr(report, n) for n in names), report.price)


def view(ex: Exchange, bond: Market, orders: list[Order]) -> dict[str, Any]:
    """Return what a client shows, comparable with ``truth``."""
    return {
        "live": bond.is_live,
        "phase": bond.instrument.phase,
        "bids": [list(level) for level in bond.book.bids],
        "asks": [list(level) for level in bond.book.asks],
        "seq": bond.book.seq,
        "cash": ex.cash,
        "realized": ex.realized,
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
        "phase": found["instruments"][0]["phase"],
        "bids": book.get("bids", []),
        "asks": book.get("asks", []),
        "seq": book["seq"],
        "cash": account["cash"],
        "realized": account.get("realized", 0),
        "position": account["positions"].get("BOND", 0),
        "open": [facts(r) for r in rows.values() if r["leaves_qty"]],
        "orders": [facts(rows[order.order_id]) for order in orders],
        "filled": [rows[order.order_id]["cum_qty"] for order in orders],
    }


async def check_in_step(
    url: str, ex: Exchange, bond: Market, orders: list[Order]
) -> dict[str, list[Any]]:
    """Wait until a client shows what the exchange says."""
    found = await tables(url)
    expected = truth(found, orders)
    try:
        await until(lambda: view(ex, bond, orders) == expected)
    except TimeoutError:
        assert view(ex, bond, orders) == expected
    return found


async def check_streams(
    found: dict[str, list[Any]],
    ex: Exchange,
    fills: Stream[Exec],
    trades: Stream[Trade],
) -> None:
    """Verify that iterators give every event, in order, each once.

    Closes the client to see that nothing follows.
    """
    filled = await take(fills, len(found["fills"]))
    traded = await take(trades, len(found["trades"]))
    await ex.close()
    filled += [fill async for fill in fills]
    traded += [trade async for trade in trades]
    assert [f.seq for f in filled] == [row["seq"] for row in found["fills"]]
    ids = [row["trade_id"] for row in found["trades"]]
    assert [trade.trade_id for trade in traded] == ids


# Frames lost, doubled and swapped -----------------------------------------


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
    await until(lambda: ask.cum_qty == 2)
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
    """Play over a relay and verify the client.

    Returns how every order of the account has ended, and the relay.
    """
    async with asyncio.timeout(2 * PATIENCE_S), AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving())
        relay = await stack.enter_async_context(relaying(server.url))
        bob = await stack.enter_async_context(Exchange(server.url, "bob"))
        bond_of_bob = await bob.market("BOND")
        if fault is not None:
            relay.fault = fault
        ex = await stack.enter_async_context(
            Exchange(relay.url, "alice", **{**QUICK, **options})
        )
        bond = await ex.market("BOND")
        fills, trades = ex.fills(), bond.trades()
        orders = await play(ex, bond, bond_of_bob, fills)
        found = await check_in_step(server.url, ex, bond, orders)
        await check_streams(found, ex, fills, trades)
        return [facts(row) for row in found["orders"]], relay


async def together(runs: list[Any]) -> list[Any]:
    """Run some at a time; return their results, or raise an error of one."""
    gate = asyncio.Semaphore(16)

    async def one(coroutine: Any) -> Any:
        async with gate:
            return await coroutine

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(coroutine)) for coroutine in runs]
    return [task.result() for task in tasks]


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("fate", get_args(Fate)[1:])
async def test_one_fault_anywhere_changes_nothing(
    direction: Direction, fate: Fate, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, relay = await run(cancel_on_disconnect=False)
    frames = len(relay.seen[direction])
    assert frames > 10

    async def try_at(number: int) -> None:
        result, _ = await run(
            nth(direction, number, fate),
            cancel_on_disconnect=False,
            connect_timeout=3.0,
        )
        assert result == expected, f"{fate} of {direction} {number}"

    await together([try_at(number) for number in range(frames)])
    # An exchange that keeps one event cannot resume a session.
    monkeypatch.setattr(exchange.journal.history, "RESUME_EVENTS", 1)
    await together([try_at(number) for number in range(frames)])


@pytest.mark.parametrize("seed", range(4))
async def test_many_faults_at_random_change_nothing(seed: int) -> None:
    expected, _ = await run(cancel_on_disconnect=False)
    faults = at_random(seed, 0.08, "drop", "twice", "swap", "cut_after")
    result, _ = await run(
        faults, cancel_on_disconnect=False, connect_timeout=PATIENCE_S / 3
    )
    assert result == expected


async def test_a_repaired_gap_does_not_cancel_orders() -> None:
    async with desk() as d:
        order = await d.bond.buy(10, 99)
        d.lose("down", "trade_id")
        await d.bob.sell(4, 99)
        await until(lambda: order.cum_qty == 4)
        assert d.relay.connections == 2
        assert '"resumed":true' in d.relay.seen["down"][-1]
        assert order.is_open and order.order_status == "partially_filled"
        await check_in_step(d.server.url, d.ex, d.bond, [order])


async def test_silence_replaces_the_connection() -> None:
    async with desk(silence_timeout=0.5) as d:
        order = await d.bond.buy(10, 99)
        d.relay.passes_heartbeats = False
        async with asyncio.timeout(PATIENCE_S):
            await d.relay.until(lambda: d.relay.connections == 2)
        d.relay.passes_heartbeats = True
        await until(lambda: d.ex.is_connected)
        await check_in_step(d.server.url, d.ex, d.bond, [order])
        assert order.is_open


async def test_missed_events_are_all_reported_without_a_resume(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange.journal.history, "RESUME_EVENTS", 1)
    async with desk(cancel_on_disconnect=False) as d:
        fills, trades = d.ex.fills(), d.bond.trades()
        orders = [await d.bond.buy(2, 99 - n) for n in range(4)]
        upstream = d.relay.upstream
        d.relay.upstream = NOBODY
        d.relay.cut()
        await until(lambda: not d.ex.is_connected)
        for _ in range(5):
            await d.bob.sell(1)
        async with Exchange(d.server.url, "alice") as other:
            elsewhere = await (await other.market("BOND")).sell(3, 105)
            await other.orders[-3].cancel()  # the half-filled third
            d.relay.upstream = upstream
            await until(lambda: d.ex.is_connected)
            found = await check_in_step(d.server.url, d.ex, d.bond, orders)
            assert [o.order_status for o in orders] == [
                "filled",
                "filled",
                "canceled",
                "new",
            ]
            assert elsewhere.order_id in [o.order_id for o in d.ex.orders]
            await check_streams(found, d.ex, fills, trades)


async def test_an_exchange_that_restarts_empty_replaces_the_state() -> None:
    async with desk() as d:
        fills, trades = d.ex.fills(), d.bond.trades()
        await d.bob.sell(5, 100)
        old = [await d.bond.buy(3, 99), await d.bond.buy(2, 100)]
        assert d.bond.position == 2
        d.relay.upstream = NOBODY
        d.relay.cut()
        await until(lambda: not d.ex.is_connected)
        await d.server.stop()
        async with (
            serving(port=d.server.port) as fresh,
            Exchange(fresh.url, "carl") as carl,
            Exchange(fresh.url, "alice") as elsewhere,
        ):
            # Orders, trades and reports have numbers from 1 again.
            await (await carl.market("BOND")).sell(6, 102)
            new = await (await elsewhere.market("BOND")).buy(3, 98)
            assert new.order_id == old[0].order_id
            await (await elsewhere.market("BOND")).buy(1, 102)
            d.relay.upstream = fresh.url
            await until(lambda: d.ex.is_connected and d.bond.is_live)
            assert old[0].order_status == "canceled"
            assert str(old[0].reason) == "unknown_order"
            assert [o.order_id for o in d.ex.orders] == [new.order_id]
            assert (d.bond.position, d.ex.cash) == (1, -102)
            again = await d.bond.buy(2, 102)
            assert again.order_status == "filled"
            found = await check_in_step(fresh.url, d.ex, d.bond, [again])
            assert len(found["fills"]) == len(found["trades"]) == 2
            prices = [100, 102, 102]
            assert [f.last_price for f in await take(fills, 3)] == prices
            assert [t.price for t in await take(trades, 3)] == prices


@pytest.mark.parametrize("cancel_on_disconnect", [True, False])
async def test_a_bot_survives_kill_9_of_the_exchange(
    tmp_path: Path, cancel_on_disconnect: bool
) -> None:
    """Twice, each time with fills, an open order and one on its way."""
    journal = str(tmp_path / "exchange.db")
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(launched(journal=journal))
        url = address(await greeting(process))
        ex = await stack.enter_async_context(
            Exchange(
                url,
                "alice",
                cancel_on_disconnect=cancel_on_disconnect,
                request_timeout=PATIENCE_S,  # a start may take long
            )
        )
        other = await stack.enter_async_context(Exchange(url, "bob"))
        bond, theirs = await ex.market("BOND"), await other.market("BOND")
        fills = ex.fills()
        for cycle in (1, 2):
            order = await bond.buy(5, 99)
            await theirs.sell(2, 99)
            await until(lambda: order.cum_qty == 2)
            process.kill()
            await process.wait()
            # Requested while the exchange is down, placed once it is up.
            asked = asyncio.create_task(bond.buy(1, 98))
            process = await stack.enter_async_context(
                launched(journal=journal, port=url.rpartition(":")[2])
            )
            await greeting(process)
            late = await asked
            await until(lambda: ex.is_connected and bond.is_live)
            if cancel_on_disconnect:
                assert (await order.done()).reason == "disconnect"
                assert [o.order_id for o in ex.orders] == [late.order_id]
            else:
                assert order.is_open and order.leaves_qty == 3
                await order.cancel()
            await late.cancel()
            assert (bond.position, ex.cash) == (2 * cycle, -198 * cycle)
            await until(lambda: other.is_connected and theirs.is_live)
        assert [f.last_qty for f in await take(fills, 2)] == [2, 2]
        rows = await ex.get("orders")
        assert [row.client_order_id for row in rows] == [
            f"{rows[0].client_order_id.rpartition('-')[0]}-{n}"
            for n in range(1, 5)
        ]


async def test_a_restarted_exchange_is_found_on_the_same_port() -> None:
    async with serving() as server, Exchange(server.url, "alice") as ex:
        bond = await ex.market("BOND")
        await bond.buy(3, 99)
        await server.stop()
        async with serving(port=server.port) as fresh:
            await until(lambda: ex.is_connected and bond.is_live)
            assert ex.orders == [] and bond.book.bids == ()
            order = await bond.buy(1, 50)
            await check_in_step(fresh.url, ex, bond, [order])


async def test_trades_that_the_exchange_forgot_end_the_iterator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange.journal.history, "TRADES_KEPT", 2)
    async with desk() as d:
        trades = d.bond.trades()
        d.relay.upstream, upstream = NOBODY, d.relay.upstream
        d.relay.cut()
        await until(lambda: not d.ex.is_connected)
        async with Exchange(d.server.url, "carl") as carl:
            await (await carl.market("BOND")).sell(10, 100)
            for _ in range(4):
                await d.bob.buy(1)
        d.relay.upstream = upstream
        with pytest.raises(EventsLost):
            await take(trades, 1)


# What is sent again, and what never ---------------------------------------


async def rows(d: Desk, what: str) -> list[Any]:
    return (await tables(d.server.url))[what]


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_place_is_repeated_and_takes_effect_once(
    direction: Direction,
) -> None:
    async with desk() as d:
        d.lose(direction, "place" if direction == "up" else "exec")
        order = await d.bond.buy(10, 99)
        # A lost report comes again when the session is resumed.
        assert d.sent("place") == (2 if direction == "up" else 1)
        assert [r["order_id"] for r in await rows(d, "orders")] == [1]
        assert (order.order_id, d.ex.orders) == (1, [order])


async def test_a_repeated_place_is_looked_up_if_its_order_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange.journal.history, "RESUME_EVENTS", 1)
    async with desk() as d:
        d.lose("down", "exec", "cut_before")
        order = await d.bond.buy(10, 99, time_in_force="ioc")
        assert (order.order_status, order.cum_qty) == ("expired", 0)
        assert len(await rows(d, "orders")) == 1


async def test_a_repeated_place_counts_whatever_its_copy_is_answered() -> None:
    async with desk(silence_timeout=0.5) as d:
        d.relay.passes_heartbeats = False  # only silence shows the loss
        lost: list[str] = []

        def fault(way: Direction, n: int, frame: str) -> Fate | list[str]:
            if way == "down" and '"exec"' in frame and not lost:
                lost.append(frame)
                return "drop"
            # As if a refusal of higher precedence came first.
            known = "duplicate_client_order_id"
            return [frame.replace(known, "rate_limited")]

        d.relay.fault = fault
        order = await d.bond.buy(10, 99)
        assert order.is_open and d.ex.orders == [order]


async def test_a_name_used_before_is_refused_unless_repeated() -> None:
    async with desk() as d:
        first = await d.bond.buy(10, 99, client_order_id="mine")
        with pytest.raises(DuplicateClientOrderId) as caught:
            await d.bond.buy(10, 98, client_order_id="mine")
        assert caught.value.order_id == first.order_id
        assert caught.value.order_status == "new"
        assert d.ex.orders == [first]


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_cancel_is_repeated(direction: Direction) -> None:
    async with desk() as d:
        order = await d.bond.buy(10, 99)
        d.lose(direction, "cancel" if direction == "up" else "canceled")
        await order.cancel()
        assert order.order_status == "canceled" and d.ex.orders == []
        assert d.sent("cancel") == 2


async def test_a_cancel_too_late_says_how_the_order_ended() -> None:
    async with desk() as d:
        order = await d.bond.buy(10, 99)
        d.lose("down", "trade_id")
        await d.bob.sell(10, 99)
        with pytest.raises(OrderClosed) as caught:
            await order.cancel()
        assert (caught.value.order_status, caught.value.cum_qty) == (
            "filled",
            10,
        )
        # The report of that fill was lost, and has come again:
        assert order.order_status == "filled" and len(order.fills) == 1


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_the_newest_amend_is_repeated(direction: Direction) -> None:
    async with desk() as d:
        order = await d.bond.buy(10, 99)
        d.lose(direction, "amend" if direction == "up" else "amended")
        await order.amend(price=98, qty=12)
        assert (order.price, order.qty, order.leaves_qty) == (98, 12, 12)
        await check_in_step(d.server.url, d.ex, d.bond, [order])


async def test_an_older_amend_is_never_repeated() -> None:
    async with desk() as d:
        order = await d.bond.buy(10, 99)
        d.lose("up", "amend")
        older = asyncio.create_task(order.amend(price=98))
        await d.relay.until(lambda: d.sent("amend") == 1)
        await order.amend(price=97)
        with pytest.raises(OutcomeUnknown):
            await older
        assert d.sent("amend") == 2 and order.price == 97


@pytest.mark.parametrize("fate", ["drop", "cut_before", "cut_after"])
async def test_a_cancel_all_is_never_repeated(fate: Fate) -> None:
    async with desk(cancel_on_disconnect=False) as d:
        order = await d.bond.buy(10, 99)
        d.lose("up", "cancel_all", fate)
        with pytest.raises(OutcomeUnknown):
            await d.bond.cancel_all()
        assert d.sent("cancel_all") == 1
        await check_in_step(d.server.url, d.ex, d.bond, [order])
        if fate != "cut_after":
            assert await d.bond.cancel_all() == 1
        assert d.ex.orders == []


async def test_a_slow_exchange_gets_each_request_once() -> None:
    async with desk() as d:
        order = await d.bond.buy(10, 99)
        waiting: list[str] = []
        is_slow = True

        def fault(way: Direction, n: int, frame: str) -> Fate | list[str]:
            """Hold every request for a while, then pass all of them."""
            if way == "down":
                return "pass"
            waiting.append(frame)
            due = [] if is_slow else waiting[:]
            del waiting[: len(due)]
            return due

        d.relay.fault = fault
        placing = asyncio.create_task(d.bond.buy(1, 90))
        canceling = asyncio.create_task(d.bond.cancel_all("buy"))
        async with asyncio.timeout(PATIENCE_S):
            await d.relay.until(lambda: d.sent("ping") >= 3)
            assert not placing.done() and not canceling.done()
            is_slow = False
            assert (await placing).cum_qty == 0 and await canceling == 2
        assert d.sent("place") == 2 and d.sent("cancel_all") == 1
        assert d.relay.connections == 1 and not order.is_open


# What is refused ----------------------------------------------------------


async def test_the_exchange_refuses_a_valid_request_by_its_rules() -> None:
    async with desk() as d:
        await d.bob.sell(5, 100)
        with pytest.raises(WouldTake):
            await d.bond.buy(1, 100, post_only=True)
        with pytest.raises(UnknownSymbol):
            await d.ex.market("NONE")
        with pytest.raises(BadRequest):
            await d.ex.market("no such name")
        with pytest.raises(client.InvalidPrice):
            await d.bond.buy(1, 10**9)
        assert d.ex.orders == []


async def test_an_address_without_an_exchange_is_named() -> None:
    ex = Exchange(NOBODY, "alice", connect_timeout=0.2)
    with pytest.raises(ConnectionLost, match=NOBODY):
        await ex.connect()


# What a client shows ------------------------------------------------------


async def test_an_empty_market_has_no_prices() -> None:
    async with desk() as d:
        book = d.bond.book
        assert (book.bid, book.ask, book.mid) == (None, None, None)
        assert book.bids[:5] == book.asks[:5] == ()
        assert (d.bond.position, d.ex.cash, d.ex.equity) == (0, 0, 0)
        assert (d.ex.positions, d.ex.orders, d.bond.orders) == ({}, [], [])
        await d.bond.buy(10, 99)
        await until(lambda: d.bond.book.bid == 99)
        assert d.bond.book.mid is None
        await d.bob.sell(5, 102)
        await until(lambda: d.bond.book.ask == 102)
        assert d.bond.book.mid == 100.5
        assert d.bond.book.bids == ((99, 10),)


async def test_an_order_is_kept_up_to_date() -> None:
    async with desk() as d:
        order = await d.bond.buy(10, 99)
        assert order.is_open and order.reason is None
        assert order.avg_price is None and order.symbol == "BOND"
        await d.bob.sell(3, 99)
        await until(lambda: order.cum_qty)
        assert (order.order_status, order.leaves_qty) == (
            "partially_filled",
            7,
        )
        await order.amend(price=98)
        await d.bob.sell(7, 98)
        assert await order.done() is order
        assert (order.order_status, order.avg_price) == ("filled", 98.3)
        assert [f.last_qty for f in order.fills] == [3, 7]
        assert d.bond.position == 10 and d.ex.cash == -983
        assert d.ex.positions == {"BOND": 10} and d.ex.orders == []


async def test_immediate_fills_are_there_when_buy_returns() -> None:
    async with desk() as d:
        await d.bob.sell(4, 100)
        await d.bob.sell(4, 101)
        order = await d.bond.buy(6)
        assert (order.price, order.order_status) == (None, "filled")
        assert [f.last_price for f in order.fills] == [100, 101]
        assert d.bond.position == 6 and d.ex.cash == -602


async def test_orders_placed_elsewhere_are_seen() -> None:
    async with desk() as d, Exchange(d.server.url, "alice") as other:
        placed = await (await other.market("BOND")).buy(10, 99)
        await until(lambda: d.ex.orders)
        [seen] = d.ex.orders
        assert seen.order_id == placed.order_id
        await seen.cancel()
        assert (await placed.done()).order_status == "canceled"


async def test_tables_have_typed_rows() -> None:
    async with desk() as d:
        order = await d.bond.buy(10, 99)
        await d.bob.sell(4, 99)
        [row] = await d.ex.get("orders")
        assert isinstance(row, Exec) and row.order_id == order.order_id
        [trade] = await d.ex.get("trades", symbol="BOND", after=0, limit=5)
        assert isinstance(trade, Trade) and trade.qty == 4
        [candle] = await d.bond.candles("1d")
        assert (candle.open, candle.close, candle.volume) == (99, 99, 4)
        board = await d.ex.leaderboard()
        assert {r["user"] for r in board} == {"alice", "bob"}
        await d.ex.cancel_after(0)
        assert await d.ex.cancel_all(side="sell") == 0
        assert await d.ex.cancel_all() == 1 and not order.is_open


async def test_without_a_user_there_is_public_data_only() -> None:
    async with desk() as d, Exchange(d.server.url) as ex:
        bond = await ex.market("BOND")
        trades = bond.trades()
        assert bond.instrument.symbol == "BOND" and ex.user is None
        await d.bond.buy(10, 99)
        await d.bob.sell(4, 99)
        assert (await take(trades, 1))[0].price == 99
        await until(lambda: bond.book.bids == ((99, 6),))
        with pytest.raises(Unauthorized):
            await bond.buy(1, 1)
        with pytest.raises(Unauthorized):
            await ex.get("fills")
        for look in (
            lambda: ex.cash,
            lambda: ex.orders,
            lambda: bond.position,
            ex.fills,
        ):
            with pytest.raises(Unauthorized):
                look()


async def test_variables_give_address_and_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Exchange().url == "ws://localhost:8765" and Exchange().user is None
    monkeypatch.setenv("EXCHANGE_SERVER_HOSTNAME", "example.org")
    monkeypatch.setenv("EXCHANGE_SERVER_PORT", "99")
    monkeypatch.setenv("EXCHANGE_USER", "alice")
    assert Exchange().url == "ws://example.org:99"
    assert (Exchange().user, Exchange(user="").user) == ("alice", None)
    monkeypatch.setenv("EXCHANGE_URL", "wss://example.com/")
    assert Exchange().url == "wss://example.com/"
    assert Exchange("ws://here:1", "bob").url == "ws://here:1"
    with pytest.raises(BadRequest):
        Exchange(user="no spaces")
    with pytest.raises(BadRequest, match="token: is not Unicode text"):
        Exchange(user="alice", token="\udcc3")
    with pytest.raises(ValueError):
        Exchange("localhost:8765")


# Quotes -------------------------------------------------------------------


async def test_quotes_are_placed_amended_and_pulled() -> None:
    async with desk() as d:
        other = await d.bond.buy(1, 50)
        bid, ask = await d.bond.quote(99, 101, 10)
        assert bid is not None and ask is not None
        assert (bid.price, ask.price, bid.qty) == (99, 101, 10)
        assert d.sent("sell") == 1 and d.sent("place") == 2  # one frame
        before = len(d.relay.seen["up"])
        assert await d.bond.quote(99, 101, 10) == (bid, ask)
        assert len(d.relay.seen["up"]) == before  # nothing to do
        await d.bond.quote(98, 101, 10)
        assert (bid.price, ask.price) == (98, 101)
        await d.bob.buy(4, 101)
        await until(lambda: ask.cum_qty == 4)
        await d.bond.quote(98, 101, 10)
        assert (ask.qty, ask.leaves_qty) == (14, 10)
        assert await d.bond.quote(None, 101, 10) == (None, ask)
        assert bid.order_status == "canceled"
        assert await d.bond.quote(None, None, 10) == (None, None)
        assert d.ex.orders == [other]


@pytest.mark.parametrize("bid, ask", [(105, 107), (93, 95), (101, 102)])
async def test_quotes_that_move_far_do_not_meet_each_other(
    bid: int, ask: int
) -> None:
    async with desk() as d:
        before = await d.bond.quote(99, 101, 10)
        after = await d.bond.quote(bid, ask, 10)
        assert after == before
        assert [o and o.price for o in after] == [bid, ask]


async def test_a_quote_filled_meanwhile_is_placed_again() -> None:
    async with desk() as d:
        bid, ask = await d.bond.quote(99, 101, 10)
        d.lose("down", "trade_id")  # alice does not know yet
        await d.bob.buy(10, 101)
        bid_now, ask_now = await d.bond.quote(98, 102, 10)
        assert bid_now == bid and ask_now != ask and ask_now is not None
        assert (ask_now.price, ask_now.leaves_qty) == (102, 10)
        assert ask is not None and ask.order_status == "filled"


async def test_quotes_at_the_same_time_keep_one_order_a_side() -> None:
    async with desk() as d:
        await asyncio.gather(*(d.bond.quote(90, 110 + n, 5) for n in range(4)))
        assert [o.side for o in d.ex.orders] == ["buy", "sell"]


async def test_a_quote_that_crosses_itself_is_refused() -> None:
    async with desk() as d:
        with pytest.raises(BadRequest):
            await d.bond.quote(100, 100, 1)
        await d.bond.quote(99, 101, 10)
        with pytest.raises(client.InvalidPrice):
            await d.bond.quote(98, 10**9, 10)
        assert [o.price for o in d.ex.orders] == [98, 101]


# Phases, money, and an administrator --------------------------------------


@asynccontextmanager
async def governed(
    tmp_path: Path, rules: str = "", **options: Any
) -> AsyncIterator[tuple[Desk, Exchange]]:
    """Open a desk, and connect an administrator of its exchange."""
    keys, market = tmp_path / "keys.json", tmp_path / "market.toml"
    token = add_key(keys, "boss", is_admin=True)
    market.write_text(f"[instruments.BOND]\n{rules}")
    # An account without a key needs no token.
    settings = {"keys": keys, "market": market, "open": True}
    async with desk(settings, **options) as d:
        async with Exchange(d.server.url, "boss", token) as boss:
            yield d, boss


async def phase_is(d: Desk, phase: str) -> None:
    await until(lambda: d.bond.instrument.phase == phase)


async def test_orders_follow_the_rules_of_each_phase(tmp_path: Path) -> None:
    async with governed(tmp_path) as (d, boss):
        news = d.ex.statuses()
        order = await d.bond.buy(1, 90)
        for phase in ("halted", "closed", "pre_open", "auction"):
            await boss.admin("phase", "tea", symbol="BOND", phase=phase)
            [told] = await take(news, 1)
            assert (told.symbol, told.phase) == ("BOND", phase)
            assert told.message == "tea" and d.bond.instrument.phase == phase
            for sell in (
                d.bond.sell(1),
                d.bond.sell(1, 90, time_in_force="ioc"),
                d.bond.sell(1, 90, time_in_force="fok"),
            ):
                with pytest.raises(MarketClosed):
                    await sell
            if phase in ("halted", "closed"):
                with pytest.raises(MarketClosed):
                    await d.bond.sell(1, 110)
                with pytest.raises(MarketClosed):
                    await d.bond.quote(80, 120, 5)
                assert await d.bond.quote(None, None, 5) == (None, None)
            if phase == "closed":
                assert (await order.done()).reason == "closed"
                assert d.ex.orders == []
        gathered = await d.bond.quote(105, 120, 5)
        assert d.ex.orders == [*gathered]
        # The auction ends after its time.
        await boss.admin("phase", "go", phase="auction", reopen_ms=1_000)
        await phase_is(d, "open")
        taken = await d.bob.sell(5, 105)
        assert taken.order_status == "filled"
        orders = [order for order in (*gathered, order) if order is not None]
        await check_in_step(d.server.url, d.ex, d.bond, orders)


async def test_a_crossed_book_has_no_middle(tmp_path: Path) -> None:
    async with governed(tmp_path, 'phase = "pre_open"') as (d, _):
        bid = await d.bond.buy(5, 103)
        await d.bob.sell(3, 103)
        await until(lambda: d.bond.book.asks)
        assert d.bond.book.mid == 103
        await d.bob.sell(3, 98)
        await until(lambda: d.bond.book.ask == 98)
        book = d.bond.book
        assert (book.bid, book.ask, book.mid) == (103, 98, None)
        assert book.asks == ((98, 3), (103, 3))
        quoted, _ = await d.bond.quote(97, None, 2)
        assert quoted is not None and quoted.price == 97
        await quoted.amend(price=101)
        await d.bond.quote(102, 104, 2)
        assert [o.price for o in d.ex.orders] == [103, 102, 104]
        assert bid.is_open and repr(d.bond) == "<Market BOND: 103/98>"
        orders = [o for o in d.ex.orders]
        await check_in_step(d.server.url, d.ex, d.bond, orders)


@pytest.mark.parametrize("is_away", [False, True])
async def test_an_auction_is_reported_completely(
    tmp_path: Path, is_away: bool
) -> None:
    rules = 'phase = "pre_open"\nreference_price = 100\nmaker_fee = 3'
    async with governed(tmp_path, rules, cancel_on_disconnect=False) as (
        d,
        boss,
    ):
        fills, trades = d.ex.fills(), d.bond.trades()
        orders = [await d.bond.buy(5, 103), await d.bond.buy(4, 101)]
        await d.bob.sell(3, 98)
        await d.bob.sell(4, 101)
        upstream = d.relay.upstream
        if is_away:
            d.relay.upstream = NOBODY
            d.relay.cut()
            await until(lambda: not d.ex.is_connected)
        await boss.admin("phase", "go", phase="open")
        d.relay.upstream = upstream
        await orders[0].done()
        await phase_is(d, "open")
        found = await check_in_step(d.server.url, d.ex, d.bond, orders)
        assert [o.order_status for o in orders] == [
            "filled",
            "partially_filled",
        ]
        assert (d.bond.position, d.ex.cash, d.ex.realized) == (7, -707, 0)
        assert (d.bond.book.bid, d.bond.book.ask) == (101, None)
        told = [(f.last_qty, f.last_price) for f in await take(fills, 3)]
        assert told == [(3, 101), (2, 101), (2, 101)]
        auctioned = [f for order in orders for f in order.fills]
        assert {f.liquidity for f in auctioned} == {"auction"}
        assert {f.fee for f in auctioned} == {0}
        assert len(await take(trades, 3)) == len(found["trades"])


async def test_a_circuit_breaker_is_followed(tmp_path: Path) -> None:
    rules = "reference_price = 100\nband = 5\nauction_s = 60"
    async with governed(tmp_path, rules) as (d, boss):
        orders = [await d.bond.buy(2, 96), await d.bond.buy(2, 94)]
        swept = await d.bob.sell(9, 90)
        await phase_is(d, "auction")
        assert (swept.cum_qty, swept.is_open) == (2, True)
        await until(lambda: d.bond.book.asks == ((90, 7),))
        assert (d.bond.book.bid, d.bond.book.mid) == (94, None)
        assert (d.bond.position, d.ex.cash) == (2, -192)
        await check_in_step(d.server.url, d.ex, d.bond, orders)
        late = await d.bond.buy(1, 105)
        await boss.admin("phase", "enough", phase="open")
        await until(lambda: late.cum_qty == 1 and orders[1].cum_qty == 2)
        await phase_is(d, "open")
        await check_in_step(d.server.url, d.ex, d.bond, [*orders, late])


async def test_profit_and_fees(tmp_path: Path) -> None:
    rules = "maker_fee = -1\ntaker_fee = 2\n[account]\ncash = 5_000"
    async with governed(tmp_path, rules) as (d, _):
        await d.bob.sell(10, 100)
        await d.bond.buy(10)
        assert (d.ex.cash, d.ex.realized, d.ex.unrealized) == (3_980, -20, 0)
        order = await d.bond.sell(4, 103)
        await d.bob.buy(4, 103)
        await order.done()
        await until(lambda: d.ex.realized == -20 + 12 + 4)
        assert (d.ex.unrealized, d.ex.equity) == (18, 5_000 + 14)
        assert order.fills[0].fee == -4


# Actions of an administrator, whose effects the client must see.
INTERVENTIONS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "suspend": [("suspend", {"user": "alice"})],
    "cancel": [("cancel", {"order_id": 2})],
    "adjust": [("adjust", {"user": "alice", "cash": -7})],
    "give": [("adjust", {"user": "alice", "symbol": "BOND", "qty": -9})],
    "settle": [("settle", {"symbol": "BOND", "price": 120})],
    "reset": [("reset", {})],
    "close": [("phase", {"phase": "closed"})],
    "much": [
        ("phase", {"phase": "halted"}),
        ("adjust", {"user": "alice", "symbol": "BOND", "qty": 2, "cash": 1}),
        ("settle", {"symbol": "BOND", "price": 90}),
        ("reset", {}),
        ("adjust", {"user": "alice", "symbol": "BOND", "qty": 5}),
    ],
}


@pytest.mark.parametrize("name", INTERVENTIONS)
@pytest.mark.parametrize("kept", [None, 2_000, 1])
async def test_every_action_of_an_administrator_is_seen(
    tmp_path: Path,
    name: str,
    kept: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At once, or after a loss, with a resumed session or a new one."""
    if kept is not None:
        monkeypatch.setattr(exchange.journal.history, "RESUME_EVENTS", kept)
    rules = "[account]\ncash = 5_000"
    async with governed(tmp_path, rules, cancel_on_disconnect=False) as (
        d,
        boss,
    ):
        fills, trades = d.ex.fills(), d.bond.trades()
        orders = [await d.bond.buy(6, 99), await d.bond.sell(3, 105)]
        await d.bob.sell(4, 99)
        await until(lambda: d.bond.position == 4)
        upstream = d.relay.upstream
        if kept is not None:
            d.relay.upstream = NOBODY
            d.relay.cut()
            await until(lambda: not d.ex.is_connected)
        for action, arguments in INTERVENTIONS[name]:
            await boss.admin(action, "because", **arguments)  # type: ignore
        d.relay.upstream = upstream
        await until(lambda: d.ex.is_connected and d.bond.is_live)
        found = await check_in_step(d.server.url, d.ex, d.bond, orders)
        ended = [o for o in orders if not o.is_open]
        assert bool(ended) == (name not in ("adjust", "give"))
        if kept != 1:  # a new session reports no reason
            closed = "admin" if name not in ("close",) else "closed"
            assert {o.reason for o in ended} <= {closed}
        if name == "suspend":
            with pytest.raises(Forbidden):
                await d.bond.buy(1, 99)
            await boss.admin("resume", "mended", user="alice")
            await d.bond.buy(1, 99)
        elif name == "reset":
            assert (d.ex.cash, d.ex.realized, d.ex.positions) == (5_000, 0, {})
        await check_streams(found, d.ex, fills, trades)


async def test_only_an_administrator_may_act_as_one(tmp_path: Path) -> None:
    async with governed(tmp_path) as (d, boss):
        with pytest.raises(Forbidden):
            await d.ex.admin("reset", "for fun")
        with pytest.raises(UnknownSymbol):
            await boss.admin("phase", "x", symbol="NONE", phase="open")
        async with Exchange(d.server.url) as nobody:
            with pytest.raises(Unauthorized):
                await nobody.admin("reset", "for fun")


@pytest.mark.parametrize("fate", ["drop", "cut_before", "cut_after"])
async def test_an_action_takes_effect_once_over_a_lost_connection(
    tmp_path: Path, fate: Fate
) -> None:
    async with governed(tmp_path, cancel_on_disconnect=False) as (d, _):
        token = add_key(tmp_path / "keys.json", "chief", is_admin=True)
        async with Exchange(d.relay.url, "chief", token, **QUICK) as chief:
            d.lose("up", "adjust", fate)
            await chief.admin("adjust", "x", user="alice", cash=5)
            assert d.sent("adjust") == 2
            await until(lambda: d.ex.is_connected and d.ex.cash == 5)
            [told] = await d.ex.get("account")
            assert told.cash == 5


# Keys and limits ----------------------------------------------------------


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(looks, "KEYS_S", 0.05)
    return tmp_path / "keys.json"


def disable(keys: Path, user: str) -> None:
    with changing(keys) as accounts:
        entry = accounts[user]
        accounts[user] = entry.model_copy(update={"is_disabled": True})


async def test_a_wrong_key_is_refused_at_once(keys: Path) -> None:
    add_key(keys, "alice")
    async with serving(keys=keys) as server:
        for token in (None, "wrong"):
            with pytest.raises(Unauthorized, match="wrong token"):
                await Exchange(server.url, "alice", token).connect()


async def test_a_revoked_key_ends_the_client(keys: Path) -> None:
    token = add_key(keys, "alice")
    async with serving(keys=keys) as server:
        ex = Exchange(server.url, "alice", token)
        async with ex:
            bond = await ex.market("BOND")
            order = await bond.buy(1, 90)
            waiting = [
                asyncio.create_task(work)
                for work in (order.done(), collect(ex.fills()))
            ]
            disable(keys, "alice")
            for task in waiting:
                with pytest.raises(Unauthorized, match="key revoked"):
                    await task
            for request in (bond.buy(1, 90), ex.get("orders"), order.cancel()):
                with pytest.raises(Unauthorized, match="key revoked"):
                    await request
            assert not ex.is_connected and not bond.is_live
            await until(lambda: not server.gateway.links)


@pytest.mark.parametrize("is_rotated", [False, True])
async def test_a_key_revoked_during_a_loss_ends_the_client(
    keys: Path, is_rotated: bool
) -> None:
    token = add_key(keys, "alice")
    async with (
        serving(keys=keys) as server,
        relaying(server.url) as relay,
        Exchange(relay.url, "alice", token) as ex,
    ):
        bond = await ex.market("BOND")
        upstream, relay.upstream = relay.upstream, NOBODY
        relay.cut()
        await until(lambda: not ex.is_connected)
        asked = asyncio.create_task(bond.buy(1, 90))
        if is_rotated:
            with changing(keys) as accounts:
                accounts["alice"] = rotate(accounts["alice"], make_token())
        else:
            disable(keys, "alice")
        relay.upstream = upstream
        with pytest.raises(Unauthorized, match="wrong token"):
            await asked
        logins = [frame for frame in relay.seen["up"] if '"login"' in frame]
        assert len(logins) == 2


FEW = "[instruments.BOND]\n[account]\norders_per_s = 1\nburst = 20\n"


async def flood(market: Market, count: int) -> list[Any]:
    orders = (market.buy(1, 90) for _ in range(count))
    return await asyncio.gather(*orders, return_exceptions=True)


async def test_a_client_cut_off_comes_back_once_and_in_step(
    tmp_path: Path,
) -> None:
    market, journal = tmp_path / "market.toml", tmp_path / "exchange.db"
    market.write_text(FEW)
    async with (
        serving(market=market, journal=journal) as server,
        Exchange(
            server.url,
            "alice",
            cancel_on_disconnect=False,
            request_timeout=PATIENCE_S,
        ) as ex,
    ):
        bond = await ex.market("BOND")
        found = await flood(bond, 300)
        placed = [order for order in found if isinstance(order, Order)]
        refused = [e for e in found if isinstance(e, RateLimited)]
        assert len(placed) >= 20 and len(placed) + len(refused) == 300
        assert all(error.retry_after_ms for error in refused)
        await until(lambda: ex.is_connected and bond.is_live)
        await check_in_step(server.url, ex, bond, placed)
    sessions = [
        command.session
        for commands in read_journal(journal)
        for command in commands
        if isinstance(command.action, Connect)
    ]
    assert sessions.count(sessions[0]) == 2


def is_refused(ex: Exchange) -> bool:
    return "has 1 connections already" in (ex.trouble or "")


async def test_a_connection_too_many_waits_for_a_free_place() -> None:
    async with (
        serving(max_per_account=1) as server,
        Exchange(server.url, "alice") as ex,
    ):
        second = Exchange(server.url, "alice", connect_timeout=PATIENCE_S)
        coming = asyncio.create_task(second.connect())
        await until(lambda: is_refused(second))
        assert not coming.done()
        await ex.close()
        await coming
        assert second.is_connected
        await second.close()


# Iterators ----------------------------------------------------------------


async def test_books_skip_to_the_newest() -> None:
    async with desk() as d:
        books = d.bond.books()
        assert await anext(books) == Book("BOND", 0, d.bond.book.ts)
        for price in range(90, 99):
            await d.bob.buy(1, price)
        await until(lambda: d.bond.book.bid == 98)
        assert (await anext(books)).bid == 98
        waiting = asyncio.ensure_future(anext(books))
        await d.bob.buy(1, 99)
        assert (await waiting).bid == 99


async def test_iterators_end_with_the_client() -> None:
    async with desk() as d:
        order = await d.bond.buy(1, 1)
        await d.bob.sell(1, 1)
        waiting = [
            asyncio.create_task(collect(d.bond.trades())),
            asyncio.create_task(collect(d.ex.fills())),
            asyncio.create_task(collect(d.bond.books())),
        ]
        resting = await d.bond.buy(1, 1)
        done = asyncio.create_task(resting.done())
        await d.bob.sell(1, 1) if order.is_open else None
        await asyncio.sleep(0)
        await d.ex.close()
        for task in waiting:
            await task
        with pytest.raises(ConnectionLost):
            await done
        with pytest.raises(ConnectionLost):
            await d.bond.buy(1, 1)


async def collect(events: AsyncIterator[Any]) -> list[Any]:
    return [event async for event in events]


# Without asyncio ----------------------------------------------------------


async def test_the_blocking_side_works_in_a_plain_thread() -> None:
    def script(url: str) -> list[Any]:
        with BlockingExchange(url, "carl", **QUICK) as ex:
            bond = ex.market("BOND")
            books, fills, trades = bond.books(), ex.fills(), bond.trades()
            assert next(books).bid is None
            order = bond.buy(10, 99, post_only=True)
            assert next(books).bids == ((99, 10),)
            assert ex.orders == [order] == bond.orders
            order.amend(price=98)
            with pytest.raises(BadRequest):
                bond.buy(1.5, 99)  # type: ignore
            bid, ask = bond.quote(97, 101, 5)
            assert bid is not None and ask is not None
            with BlockingExchange(url, "dora", **QUICK) as dora:
                dora.market("BOND").sell(10, 98)
            assert order.done() is not None and not order.is_open
            assert (bond.position, ex.cash) == (10, -980)
            assert next(fills).last_qty == next(trades).qty == 10
            assert ex.get("fills")[0].last_price == 98
            assert ex.cancel_all() == 2 and bid.reason == "user"
            ex.cancel_after(0)
            left = [books, fills, trades, ex.statuses()]
        assert [list(iterator) for iterator in left[1:]] == [[], [], []]
        with pytest.raises(ConnectionLost):
            bond.buy(1, 1)
        ex.close()  # a second time changes nothing
        return ex.orders

    async with serving() as server:
        assert await asyncio.to_thread(script, server.url) == []


async def test_an_administrator_may_use_the_blocking_side(
    tmp_path: Path,
) -> None:
    keys = tmp_path / "keys.json"
    tokens = add_key(keys, "alice"), add_key(keys, "boss", is_admin=True)

    def script(url: str) -> None:
        with (
            BlockingExchange(url, "alice", tokens[0]) as ex,
            BlockingExchange(url, "boss", tokens[1]) as boss,
        ):
            news = ex.statuses()
            order = ex.market("BOND").buy(1, 90)
            boss.admin("suspend", "runs wild", user="alice")
            assert next(news).message == "suspend alice: runs wild"
            assert order.done().reason == "admin" and ex.orders == []
            assert (ex.realized, ex.unrealized) == (0, 0)
            with pytest.raises(Forbidden):
                ex.admin("resume", "please", user="alice")

    async with serving(keys=keys) as server:
        await asyncio.to_thread(script, server.url)


async def test_blocking_raises_if_there_is_no_exchange() -> None:
    def script() -> None:
        with pytest.raises(ConnectionLost):
            with BlockingExchange(NOBODY, "carl", connect_timeout=0.2):
                pass

    await asyncio.to_thread(script)


def test_the_blocking_side_has_every_name_of_the_asyncio_side() -> None:
    pairs: list[tuple[type, type]] = [
        (client.Exchange, client.BlockingExchange),
        (client.Market, client.BlockingMarket),
        (client.Order, client.BlockingOrder),
    ]
    for one, other in pairs:
        names = {name for name in dir(one) if not name.startswith("_")}
        assert names <= set(dir(other))
        for name in names:
            assert getattr(other, name).__doc__, name
