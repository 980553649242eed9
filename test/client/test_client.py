"""The client against a real exchange, often over a relay that misbehaves.

Whatever the relay does, in the end the client must hold what the exchange
itself says in its tables, and every request must have taken effect once.
"""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

import client
import exchange.journal.history
import orderbook
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
    _Call,
    _Core,
)
from exchange.host import looks, timers
from exchange.host.keyfile import changing, make_token, rotate
from exchange.journal.sqlite import read_journal
from exchange.market.command import Connect
from orderbook import Exec, Get, Login, Refused, Trade
from server import Server
from test import support
from test.relay import Direction, Fate, Relay, at_random, nth, relaying
from test.support import (
    PATIENCE_S,
    add_key,
    address,
    greeting,
    launched,
    serving,
    wired,
)

# Short, so that what waits for them is soon over; none decides an outcome.
QUICK: dict[str, Any] = {
    "request_timeout": PATIENCE_S,
    "connect_timeout": 6.0,
}
NOBODY = "ws://127.0.0.1:9"  # where nobody listens


@pytest.fixture(autouse=True)
def _frequent_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers, "HEARTBEAT_S", 0.05)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "USER", "TOKEN", "SERVER_HOSTNAME", "SERVER_PORT"):
        monkeypatch.delenv(f"EXCHANGE_{name}", raising=False)


async def until(ex: Exchange, is_so: Callable[[], object]) -> None:
    """Wait until something is so of a client, whatever its frames are."""
    async with asyncio.timeout(PATIENCE_S):
        await ex._link.until(is_so)


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


# The truth ----------------------------------------------------------------


async def tables(url: str) -> dict[str, list[Any]]:
    """Return what the exchange itself says, asked without the client."""
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
async def test_one_fault_anywhere_changes_nothing(
    direction: Direction, fate: Fate, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, relay = await run(cancel_on_disconnect=False)
    frames = len(relay.seen[direction])
    assert frames > 10

    async def try_at(number: int) -> None:
        result, _ = await run(
            nth(direction, number, fate), cancel_on_disconnect=False
        )
        assert result == expected, f"{fate} of {direction} {number}"

    await together([try_at(number) for number in range(frames)])
    # Where the exchange remembers one event only, nothing can be resumed.
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
        await until(d.ex, lambda: order.cum_qty == 4)
        assert d.relay.connections == 2
        assert '"resumed":true' in d.relay.seen["down"][-1]
        assert order.is_open and order.order_status == "partially_filled"
        await check_in_step(d.server.url, d.ex, d.bond, [order])


async def test_a_silent_exchange_is_left_for_a_new_connection() -> None:
    async with desk(silence_timeout=0.5) as d:
        order = await d.bond.buy(10, 99)
        d.relay.passes_heartbeats = False
        async with asyncio.timeout(PATIENCE_S):
            await d.relay.until(lambda: d.relay.connections == 2)
        d.relay.passes_heartbeats = True
        await until(d.ex, lambda: d.ex.is_connected)
        await check_in_step(d.server.url, d.ex, d.bond, [order])
        assert order.is_open


async def test_what_happened_unseen_is_all_reported_where_nothing_resumes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange.journal.history, "RESUME_EVENTS", 1)
    monkeypatch.setattr(client, "MAX_ROWS", 2)  # so that tables have pages
    async with desk(cancel_on_disconnect=False) as d:
        fills, trades = d.ex.fills(), d.bond.trades()
        orders = [await d.bond.buy(2, 99 - n) for n in range(4)]
        upstream = d.relay.upstream
        d.relay.upstream = NOBODY
        d.relay.cut()
        await until(d.ex, lambda: not d.ex.is_connected)
        for _ in range(5):
            await d.bob.sell(1)
        async with Exchange(d.server.url, "alice") as other:
            elsewhere = await (await other.market("BOND")).sell(3, 105)
            await other.orders[-3].cancel()  # the half-filled third
            d.relay.upstream = upstream
            await until(d.ex, lambda: d.ex.is_connected)
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
        await until(d.ex, lambda: not d.ex.is_connected)
        await d.server.stop()
        async with (
            serving(port=d.server.port) as fresh,
            Exchange(fresh.url, "carl") as carl,
            Exchange(fresh.url, "alice") as elsewhere,
        ):
            # It numbers orders, trades and reports from 1 again.
            await (await carl.market("BOND")).sell(6, 102)
            new = await (await elsewhere.market("BOND")).buy(3, 98)
            assert new.order_id == old[0].order_id
            await (await elsewhere.market("BOND")).buy(1, 102)
            d.relay.upstream = fresh.url
            await until(d.ex, lambda: d.ex.is_connected and d.bond.is_live)
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
async def test_a_bot_lives_through_kill_9(
    tmp_path: Path, cancel_on_disconnect: bool
) -> None:
    """Three times, with fills before, an order open, and more after."""
    journal = str(tmp_path / "exchange.db")
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(launched(journal=journal))
        url = address(await greeting(process))
        ex = await stack.enter_async_context(
            Exchange(url, "alice", cancel_on_disconnect=cancel_on_disconnect)
        )
        other = await stack.enter_async_context(Exchange(url, "bob"))
        bond, theirs = await ex.market("BOND"), await other.market("BOND")
        fills = ex.fills()
        for cycle in range(1, 4):
            order = await bond.buy(5, 99)
            await theirs.sell(2, 99)
            await until(ex, lambda: order.cum_qty == 2)
            process.kill()
            await process.wait()
            # Asked for while nobody is there: it is done once there is.
            asked = asyncio.create_task(bond.buy(1, 98))
            process = await stack.enter_async_context(
                launched(journal=journal, port=url.rpartition(":")[2])
            )
            await greeting(process)
            late = await asked
            await until(ex, lambda: ex.is_connected and bond.is_live)
            if cancel_on_disconnect:
                assert (await order.done()).reason == "disconnect"
                assert [o.order_id for o in ex.orders] == [late.order_id]
            else:
                assert order.is_open and order.leaves_qty == 3
                await order.cancel()
            await late.cancel()
            assert (bond.position, ex.cash) == (2 * cycle, -198 * cycle)
            await until(other, lambda: other.is_connected and theirs.is_live)
        assert [f.last_qty for f in await take(fills, 3)] == [2, 2, 2]
        rows = await ex.get("orders")
        assert [row.client_order_id for row in rows] == [
            f"{rows[0].client_order_id.rpartition('-')[0]}-{n}"
            for n in range(1, 7)
        ]


async def test_a_restart_on_the_same_port_is_found_again() -> None:
    async with serving() as server, Exchange(server.url, "alice") as ex:
        bond = await ex.market("BOND")
        await bond.buy(3, 99)
        await server.stop()
        async with serving(port=server.port) as fresh:
            await until(ex, lambda: ex.is_connected and bond.is_live)
            assert ex.orders == [] and bond.book.bids == ()
            order = await bond.buy(1, 50)
            await check_in_step(fresh.url, ex, bond, [order])


async def test_trades_the_exchange_forgot_end_the_iterator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange.journal.history, "TRADES_KEPT", 2)
    async with desk() as d:
        trades = d.bond.trades()
        d.relay.upstream, upstream = NOBODY, d.relay.upstream
        d.relay.cut()
        await until(d.ex, lambda: not d.ex.is_connected)
        async with Exchange(d.server.url, "carl") as carl:
            await (await carl.market("BOND")).sell(10, 100)
            for _ in range(4):
                await d.bob.buy(1)
        d.relay.upstream = upstream
        with pytest.raises(EventsLost):
            await take(trades, 1)


# The core alone -----------------------------------------------------------


def hear(core: _Core, *events: dict[str, Any]) -> list[dict[str, Any]]:
    """Let a core take in a frame; return what it wants sent."""
    core.receive(orderbook.decode_events(json.dumps(events)))
    return asks(core)


def asks(core: _Core) -> list[dict[str, Any]]:
    """Return the frames that a core wants sent, decoded."""
    return [json.loads(frame) for frame in iter(core.next_frame, None)]


def book(seq: int, *bids: tuple[int, int], **more: Any) -> dict[str, Any]:
    head = {"type": "book", "symbol": "BOND", "ts": seq, "seq": seq}
    return {**head, "bids": bids, "asks": (), **more}


def trade(trade_id: int) -> dict[str, Any]:
    head = {"type": "trade", "symbol": "BOND", "ts": trade_id, "price": 5}
    return {**head, "seq": 1, "trade_id": trade_id, "qty": 1, "side": "buy"}


@pytest.fixture
def core() -> _Core:
    """A core that follows BOND, without a user, and has caught up."""
    core = _Core(None, "x")
    core.follow("BOND")
    core.connected()
    asks(core)
    hear(core, {"type": "ok", "id": 1, "ts": 1, "data": []})
    hear(core, {"type": "ok", "id": 2, "ts": 1})
    hear(core, {"type": "ok", "id": 3, "ts": 1, "data": [trade(7)]})
    hear(core, book(20, (99, 5), (98, 1), snapshot=True))
    return core


def test_a_book_takes_each_change_once_and_in_order(core: _Core) -> None:
    market = core.markets["BOND"]
    assert hear(core, book(21, (99, 3), prev_seq=20)) == []
    assert market.book.bids == ((99, 3), (98, 1))
    # Once more, an older one, an older snapshot.
    assert hear(core, book(21, (99, 4), prev_seq=20)) == []
    assert hear(core, book(20, (99, 5), prev_seq=19)) == []
    assert hear(core, book(20, snapshot=True)) == []
    assert market.book.bids == ((99, 3), (98, 1)) and market.book.seq == 21
    # One that covers several, of which some are known.
    assert hear(core, book(23, (98, 0), (97, 2), prev_seq=20)) == []
    assert market.book.bids == ((99, 3), (97, 2))
    # A newer snapshot, as after slow reading.
    assert hear(core, book(30, (90, 1), snapshot=True)) == []
    assert market.book.bids == ((90, 1),) and market.is_live


def test_a_gap_in_a_book_asks_for_a_connection(core: _Core) -> None:
    market = core.markets["BOND"]
    assert hear(core, book(23, (99, 3), prev_seq=21)) == []
    assert core.hole == "changes of the book of BOND are missing"
    assert market.book.seq == 20


def test_a_jump_in_trades_asks_for_the_missing(core: _Core) -> None:
    market = core.markets["BOND"]
    topic: client._Topic[Trade] = client._Topic()
    market.trades.add(topic)
    hear(core, trade(8), trade(8), trade(7))
    [request] = hear(core, trade(10))
    assert (request["what"], request["after"]) == ("trades", 7)
    answer = {"type": "ok", "ts": 1, "id": request["id"], "data": [trade(8)]}
    [request] = hear(core, answer)
    assert (request["what"], request["after"]) == ("trades", 8)
    missed = [trade(9), trade(10)]
    answer = {"type": "ok", "ts": 1, "id": request["id"], "data": missed}
    assert hear(core, answer, trade(10), trade(11)) == []
    assert [t.trade_id for t in topic.events] == [8, 9, 10, 11]


def test_a_fetch_the_connection_did_not_survive_is_begun_anew(
    core: _Core,
) -> None:
    assert hear(core, trade(10))
    core.disconnected("lost")
    core.connected()
    [hello] = hear(core)
    ok = {"type": "ok", "ts": 1, "data": []}
    [subscribe] = hear(core, {**ok, "id": hello["id"]})
    [get] = hear(core, {**ok, "id": subscribe["id"]})
    assert (get["what"], get["after"]) == ("trades", 6)


def test_a_heartbeat_shows_what_was_lost_last(core: _Core) -> None:
    beat = {"type": "heartbeat", "ts": 1, "seq": {"BOND": 20}}
    assert hear(core, beat) == [] and core.hole is None
    assert hear(core, {**beat, "seq": {"BOND": 21}}) == []
    assert core.hole == "data of BOND are missing"


def test_a_reply_that_others_overtake_is_lost(core: _Core) -> None:
    """A slow exchange is asked nothing twice; a lost reply shows."""
    beat = {"type": "heartbeat", "ts": 1, "seq": {"BOND": 20}}
    core.submit([_Call(Get(what="leaderboard"))])
    [request] = asks(core)
    assert hear(core, beat) == []
    [ping] = hear(core, beat)  # unanswered for a whole interval
    assert ping["type"] == "ping" and core.hole is None
    hear(core, {"type": "ok", "ts": 1, "id": ping["id"]})
    assert core.hole == "an answer is missing"


def test_a_slow_reply_is_waited_for(core: _Core) -> None:
    beat = {"type": "heartbeat", "ts": 1, "seq": {"BOND": 20}}
    call = _Call(Get(what="leaderboard"))
    core.submit([call])
    [request] = asks(core)
    pings = [ping for _ in range(9) for ping in hear(core, beat)]
    assert {ping["type"] for ping in pings} == {"ping"}
    answers = [request, *pings]
    hear(core, *({"type": "ok", "ts": 1, "id": a["id"]} for a in answers))
    assert core.hole is None and call.times_sent == 1


def test_a_request_of_its_own_that_was_too_many_comes_later(
    core: _Core,
) -> None:
    [request] = hear(core, trade(10))  # it fetches what it missed
    busy = {"type": "error", "code": "rate_limited", "message": "too many"}
    assert hear(core, {**busy, "id": request["id"]}) == []
    [again] = hear(core, {"type": "heartbeat", "ts": 1, "seq": {}})
    assert again["what"] == "trades" and again["id"] > request["id"]
    assert core.hole is None


def welcome(**more: Any) -> dict[str, Any]:
    head = {"type": "welcome", "protocol": 1, "user": "alice", "limits": {}}
    return {**head, "ts": 9, "durable": False, "instruments": [], **more}


def report(seq: int, order_id: int, **more: Any) -> dict[str, Any]:
    head = {"type": "exec", "symbol": "BOND", "side": "buy", "price": 99}
    ends = {"order_status": "new", "qty": 9, "cum_qty": 0, "leaves_qty": 9}
    ids = {"seq": seq, "ts": seq, "order_id": order_id, "exec_type": "new"}
    return {**head, **ends, **ids, **more}


def account(seq: int, cash: int) -> dict[str, Any]:
    head = {"type": "account", "seq": seq, "ts": seq, "equity": 0}
    return {**head, "cash": cash, "positions": {}}


def test_what_comes_during_a_resync_comes_after_it() -> None:
    core = _Core(Login(user="alice"), "x")
    fills: client._Topic[Exec] = client._Topic()
    core.fills.add(fills)
    core.connected()
    asks(core)
    # Reports before the welcome are of a login that was given up.
    hear(core, report(1, 5), account(1, -7))
    assert not core.is_online and core.open_orders() == []
    hear(core, welcome(id=1, session="s", seq=2, resumed=False))
    hear(core, report(2, 6, exec_type="status"), account(2, 0))
    assert core.is_online
    core.disconnected("lost")
    core.connected()
    [login] = asks(core)
    assert (login["session"], login["last_seq"]) == ("s", 2)
    assert hear(core, report(3, 5), report(9, 5)) == []
    assert core.hole is None and len(core.open_orders()) == 1
    hear(core, welcome(id=2, session="s", seq=4, resumed=False))
    [get] = hear(core, report(4, 6, exec_type="status"), account(4, -99))
    assert (get["what"], get["after"]) == ("fills", 2)
    traded = {"exec_type": "trade", "last_qty": 1, "last_price": 99}
    filled = {**traded, "order_status": "partially_filled"}
    later = report(5, 6, **filled, cum_qty=2, leaves_qty=7)
    hear(core, later, account(6, -198))
    assert not core.is_online and core.account.cash == 0
    missed = report(3, 6, **filled, cum_qty=1, leaves_qty=8)
    hear(core, {"type": "ok", "id": 3, "ts": 1, "data": [missed, later]})
    assert core.is_online and core.account.cash == -198
    [order] = core.open_orders()
    assert order.report.cum_qty == 2
    assert [f.seq for f in fills.events] == [f.seq for f in order.fills]
    assert [f.seq for f in fills.events] == [3, 5]


def test_an_order_does_not_step_back() -> None:
    core = _Core(Login(user="alice"), "x")
    core.connected()
    asks(core)
    hear(core, welcome(id=1, session="s", seq=0, resumed=False))
    hear(core, account(0, 0), report(1, 5), report(1, 5, price=98))
    filled = {"order_status": "partially_filled", "cum_qty": 4}
    [row] = orderbook.decode_events(json.dumps(report(3, 5, **filled)))
    assert isinstance(row, Exec)
    order = core.learn(row)  # ahead of the reports
    hear(core, report(2, 5, price=97, exec_type="amended"))
    assert order.report == row and core.open_orders() == [order]
    hear(core, report(3, 5, **filled), report(4, 5, price=96))
    assert order.report.price == 96 and core.hole is None
    hear(core, report(6, 5))
    assert core.hole is not None and order.report.price == 96


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
        # The report that is lost comes again where the session is resumed.
        assert d.sent("place") == (2 if direction == "up" else 1)
        assert [r["order_id"] for r in await rows(d, "orders")] == [1]
        assert (order.order_id, d.ex.orders) == (1, [order])


async def test_a_repeated_place_that_ended_unseen_is_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange.journal.history, "RESUME_EVENTS", 1)
    async with desk() as d:
        d.lose("down", "exec", "cut_before")
        order = await d.bond.buy(10, 99, time_in_force="ioc")
        assert (order.order_status, order.cum_qty) == ("expired", 0)
        assert len(await rows(d, "orders")) == 1


async def test_a_repeated_place_is_believed_whatever_its_copy_is_told() -> (
    None
):
    async with desk() as d:
        d.relay.passes_heartbeats = False  # only the answer shows the loss
        lost: list[str] = []

        def fault(way: Direction, n: int, frame: str) -> Fate | list[str]:
            if way == "down" and '"exec"' in frame and not lost:
                lost.append(frame)
                return "drop"
            # As if another refusal, of more precedence, came before.
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


async def test_a_cancel_too_late_says_what_became_of_the_order() -> None:
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
        # Although that fill had been lost on the way:
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
            """Carry out nothing for a while, and then all of it."""
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


async def test_without_a_connection_nothing_is_sent() -> None:
    async with desk(request_timeout=0.5) as d:
        order = await d.bond.buy(10, 99)
        d.relay.upstream = NOBODY
        d.relay.cut()
        await until(d.ex, lambda: not d.ex.is_connected)
        assert not d.bond.is_live
        with pytest.raises(ConnectionLost):
            await order.cancel()
        assert d.sent("cancel") == 0


async def test_no_answer_at_all_leaves_the_outcome_unknown() -> None:
    async with desk(request_timeout=1.0) as d:
        d.relay.fault = lambda way, n, frame: (
            "drop" if way == "up" and '"place"' in frame else "pass"
        )
        with pytest.raises(OutcomeUnknown):
            await d.bond.buy(10, 99)
        assert d.sent("place") > 1


# What is refused ----------------------------------------------------------


@pytest.mark.parametrize("code", get_args(get_args(orderbook.Code)[0]))
async def test_each_code_is_an_exception_of_its_own(code: str) -> None:
    async with desk() as d:

        def fault(way: Direction, n: int, frame: str) -> Fate | list[str]:
            if way == "up" or '"exec"' not in frame:
                return "pass"
            error = {
                "type": "error",
                "id": json.loads(frame)["id"],
                "code": code,
                "message": "no",
                "field": "qty",
                "order_id": 7,
                "order_status": "new",
                "cum_qty": 3,
                "retry_after_ms": 20,
            }
            return [json.dumps(error)]

        d.relay.fault = fault
        with pytest.raises(Refused) as caught:
            await d.bond.buy(1, 1)
        error = caught.value
        name = "".join(word.title() for word in code.split("_"))
        assert type(error) is getattr(client, name)
        assert (error.code, error.message, error.field) == (code, "no", "qty")
        assert (error.order_id, error.order_status, error.cum_qty) == (
            7,
            "new",
            3,
        )
        if code in ("rate_limited", "busy"):
            assert getattr(error, "retry_after_ms") == 20


BAD: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("qty", (1.5, 99), {}),
    ("qty", ("10", 99), {}),
    ("qty", (0, 99), {}),
    ("qty", (True, 99), {}),
    ("price", (10, 99.0), {}),
    ("price", (10, float("nan")), {}),
    ("price", (10, object()), {}),
    ("post_only", (10,), {"post_only": True}),
    ("post_only", (10, 99), {"post_only": True, "time_in_force": "ioc"}),
    ("time_in_force", (10, 99), {"time_in_force": "day"}),
    ("expire_ts", (10, 99), {"time_in_force": "gtd"}),
    ("stp", (10, 99), {"stp": "none"}),
    ("client_order_id", (10, 99), {"client_order_id": "a b"}),
    ("client_order_id", (10, 99), {"client_order_id": "\udcc3"}),
    ("stop_price", (10, 99), {"stop_price": 5}),
]


@pytest.mark.parametrize("field, arguments, options", BAD)
async def test_a_senseless_order_is_refused_before_it_is_sent(
    field: str, arguments: Any, options: Any
) -> None:
    async with desk() as d:
        with pytest.raises(BadRequest) as caught:
            await d.bond.buy(*arguments, **options)
        assert caught.value.field == field and field in str(caught.value)
        assert d.sent("place") == 0


async def test_what_counts_as_an_integer_is_one() -> None:
    class Lots:
        def __index__(self) -> int:
            return 7

    async with desk() as d:
        assert (await d.bond.buy(Lots(), 99)).qty == 7  # type: ignore


async def test_the_exchange_refuses_what_makes_sense_but_may_not_be() -> None:
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


async def test_a_login_refused_is_raised() -> None:
    error = {"type": "error", "id": 1, "code": "unauthorized", "message": "no"}
    async with serving() as server, relaying(server.url) as relay:
        relay.fault = lambda way, n, frame: (
            "pass" if way == "up" else [json.dumps(error)]
        )
        with pytest.raises(Unauthorized):
            await Exchange(relay.url, "alice", "wrong").connect()


async def test_nobody_there_is_said_with_the_address() -> None:
    ex = Exchange(NOBODY, "alice", connect_timeout=0.2)
    with pytest.raises(ConnectionLost, match=NOBODY):
        await ex.connect()


# What there is to see -----------------------------------------------------


async def test_an_empty_market_has_no_prices() -> None:
    async with desk() as d:
        book = d.bond.book
        assert (book.bid, book.ask, book.mid) == (None, None, None)
        assert book.bids[:5] == book.asks[:5] == ()
        assert (d.bond.position, d.ex.cash, d.ex.equity) == (0, 0, 0)
        assert (d.ex.positions, d.ex.orders, d.bond.orders) == ({}, [], [])
        await d.bond.buy(10, 99)
        await until(d.ex, lambda: d.bond.book.bid == 99)
        assert d.bond.book.mid is None
        await d.bob.sell(5, 102)
        await until(d.ex, lambda: d.bond.book.ask == 102)
        assert d.bond.book.mid == 100.5
        assert d.bond.book.bids == ((99, 10),)


async def test_an_order_lives() -> None:
    async with desk() as d:
        order = await d.bond.buy(10, 99)
        assert order.is_open and order.reason is None
        assert order.avg_price is None and order.symbol == "BOND"
        await d.bob.sell(3, 99)
        await until(d.ex, lambda: order.cum_qty)
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
        await until(d.ex, lambda: d.ex.orders)
        [seen] = d.ex.orders
        assert seen.order_id == placed.order_id
        await seen.cancel()
        assert (await placed.done()).order_status == "canceled"


async def test_tables() -> None:
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
        await until(ex, lambda: bond.book.bids == ((99, 6),))
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


async def test_news_and_phases() -> None:
    async with desk() as d:
        news = d.ex.statuses()
        status = {"type": "status", "ts": 1, "symbol": "BOND"}

        def fault(way: Direction, n: int, frame: str) -> Fate | list[str]:
            if way == "up":
                return "pass"
            return [json.dumps({**status, "phase": "halted"}), frame]

        d.relay.fault = fault
        await d.bond.buy(1, 1)
        assert (await take(news, 1))[0].phase == "halted"
        assert d.bond.instrument.phase == "halted"


async def test_the_environment_says_where_and_who(
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
        await until(d.ex, lambda: ask.cum_qty == 4)
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


async def test_a_quote_filled_meanwhile_is_placed_anew() -> None:
    async with desk() as d:
        bid, ask = await d.bond.quote(99, 101, 10)
        d.lose("down", "trade_id")  # alice does not know yet
        await d.bob.buy(10, 101)
        bid_now, ask_now = await d.bond.quote(98, 102, 10)
        assert bid_now == bid and ask_now != ask and ask_now is not None
        assert (ask_now.price, ask_now.leaves_qty) == (102, 10)
        assert ask is not None and ask.order_status == "filled"


async def test_quotes_at_once_still_keep_one_order_a_side() -> None:
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
    """Open a desk, and let the administrator of its exchange in."""
    keys, market = tmp_path / "keys.json", tmp_path / "market.toml"
    token = add_key(keys, "boss", is_admin=True)
    market.write_text(f"[instruments.BOND]\n{rules}")
    # Whoever has no key gets in by name.
    settings = {"keys": keys, "market": market, "open": True}
    async with desk(settings, **options) as d:
        async with Exchange(d.server.url, "boss", token) as boss:
            yield d, boss


async def phase_is(d: Desk, phase: str) -> None:
    await until(d.ex, lambda: d.bond.instrument.phase == phase)


async def test_a_phase_is_followed_and_kept_to(tmp_path: Path) -> None:
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
        # It opens by itself.
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
        await until(d.ex, lambda: d.bond.book.asks)
        assert d.bond.book.mid == 103
        await d.bob.sell(3, 98)
        await until(d.ex, lambda: d.bond.book.ask == 98)
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
async def test_an_auction_is_told_whole(tmp_path: Path, is_away: bool) -> None:
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
            await until(d.ex, lambda: not d.ex.is_connected)
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


async def test_a_breaker_is_followed(tmp_path: Path) -> None:
    rules = "reference_price = 100\nband = 5\nauction_s = 60"
    async with governed(tmp_path, rules) as (d, boss):
        orders = [await d.bond.buy(2, 96), await d.bond.buy(2, 94)]
        swept = await d.bob.sell(9, 90)
        await phase_is(d, "auction")
        assert (swept.cum_qty, swept.is_open) == (2, True)
        await until(d.ex, lambda: d.bond.book.asks == ((90, 7),))
        assert (d.bond.book.bid, d.bond.book.mid) == (94, None)
        assert (d.bond.position, d.ex.cash) == (2, -192)
        await check_in_step(d.server.url, d.ex, d.bond, orders)
        late = await d.bond.buy(1, 105)
        await boss.admin("phase", "enough", phase="open")
        await until(d.ex, lambda: late.cum_qty == 1 and orders[1].cum_qty == 2)
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
        await until(d.ex, lambda: d.ex.realized == -20 + 12 + 4)
        assert (d.ex.unrealized, d.ex.equity) == (18, 5_000 + 14)
        assert order.fills[0].fee == -4


# What an administrator does, once or more: the rest is seen by the client.
INTERVENTIONS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "kill": [("kill", {"user": "alice"})],
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
async def test_whatever_an_administrator_does_is_seen(
    tmp_path: Path,
    name: str,
    kept: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it happens, or later, resumed or not."""
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
        await until(d.ex, lambda: d.bond.position == 4)
        upstream = d.relay.upstream
        if kept is not None:
            d.relay.upstream = NOBODY
            d.relay.cut()
            await until(d.ex, lambda: not d.ex.is_connected)
        for action, arguments in INTERVENTIONS[name]:
            await boss.admin(action, "because", **arguments)  # type: ignore
        d.relay.upstream = upstream
        await until(d.ex, lambda: d.ex.is_connected and d.bond.is_live)
        found = await check_in_step(d.server.url, d.ex, d.bond, orders)
        ended = [o for o in orders if not o.is_open]
        assert bool(ended) == (name not in ("adjust", "give"))
        if kept != 1:  # which tells the state of an order, and not why
            closed = "admin" if name not in ("close",) else "closed"
            assert {o.reason for o in ended} <= {closed}
        if name == "kill":
            with pytest.raises(Forbidden):
                await d.bond.buy(1, 99)
            await boss.admin("unkill", "mended", user="alice")
            await d.bond.buy(1, 99)
        elif name == "reset":
            assert (d.ex.cash, d.ex.realized, d.ex.positions) == (5_000, 0, {})
        await check_streams(found, d.ex, fills, trades)


async def test_only_an_administrator_may(tmp_path: Path) -> None:
    async with governed(tmp_path) as (d, boss):
        with pytest.raises(Forbidden):
            await d.ex.admin("reset", "for fun")
        with pytest.raises(UnknownSymbol):
            await boss.admin("phase", "x", symbol="NONE", phase="open")
        async with Exchange(d.server.url) as nobody:
            with pytest.raises(Unauthorized):
                await nobody.admin("reset", "for fun")


@pytest.mark.parametrize(
    "field, action, reason, arguments",
    [
        ("action", "stop", "x", {}),
        ("reason", "reset", "", {}),
        ("phase", "phase", "x", {}),
        ("phase", "phase", "x", {"phase": "noon"}),
        ("user", "reset", "x", {"user": "alice"}),
        ("whom", "kill", "x", {"whom": "alice"}),
        ("qty", "adjust", "x", {"user": "alice", "symbol": "BOND"}),
    ],
)
async def test_a_senseless_action_is_refused_before_it_is_sent(
    tmp_path: Path, field: str, action: Any, reason: str, arguments: Any
) -> None:
    async with desk() as d:
        with pytest.raises(BadRequest) as caught:
            await d.ex.admin(action, reason, **arguments)
        assert caught.value.field == field
        assert d.sent("admin") == 0


@pytest.mark.parametrize("fate", ["drop", "cut_before", "cut_after"])
async def test_an_action_is_never_repeated(tmp_path: Path, fate: Fate) -> None:
    async with governed(tmp_path, cancel_on_disconnect=False) as (d, _):
        token = add_key(tmp_path / "keys.json", "chief", is_admin=True)
        async with Exchange(d.relay.url, "chief", token, **QUICK) as chief:
            d.lose("up", "adjust", fate)
            with pytest.raises(OutcomeUnknown):
                await chief.admin("adjust", "x", user="alice", cash=5)
            assert d.sent("adjust") == 1
            await until(chief, lambda: chief.is_connected)
            await until(d.ex, lambda: d.ex.is_connected)
            assert d.ex.cash in ((0, 5) if fate == "cut_after" else (0,))


# Keys, and too much of it -------------------------------------------------


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(looks, "KEYS_S", 0.05)
    return tmp_path / "keys.json"


async def over(ex: Exchange) -> None:
    """Wait until a client has stopped to try."""
    async with asyncio.timeout(PATIENCE_S):
        await ex._link.ended()


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


async def test_a_key_revoked_ends_it(keys: Path) -> None:
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
            await over(ex)
            for request in (bond.buy(1, 90), ex.get("orders"), order.cancel()):
                with pytest.raises(Unauthorized, match="key revoked"):
                    await request
            assert not ex.is_connected and not bond.is_live
            await support.until(lambda: not server.gateway.links)


@pytest.mark.parametrize("is_rotated", [False, True])
async def test_a_key_revoked_meanwhile_ends_it(
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
        await until(ex, lambda: not ex.is_connected)
        asked = asyncio.create_task(bond.buy(1, 90))
        if is_rotated:
            with changing(keys) as accounts:
                accounts["alice"] = rotate(accounts["alice"], make_token())
        else:
            disable(keys, "alice")
        relay.upstream = upstream
        with pytest.raises(Unauthorized, match="wrong token"):
            await asked
        await over(ex)
        logins = [frame for frame in relay.seen["up"] if '"login"' in frame]
        assert len(logins) == 2


FEW = "[instruments.BOND]\n[account]\norders_per_s = 1\nburst = 20\n"


async def flood(market: Market, count: int) -> list[Any]:
    orders = (market.buy(1, 90) for _ in range(count))
    return await asyncio.gather(*orders, return_exceptions=True)


async def beats(url: str, count: int) -> None:
    """Let an exchange live on for so many heartbeats."""
    async with wired(url) as wire:
        wire.hears_heartbeats = True
        for _ in range(count):
            await wire.until(type="heartbeat")


async def test_who_was_cut_off_does_not_come_back_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "BACKOFF_MIN", 0.0)
    monkeypatch.setattr(client, "CUT_OFF_PAUSE", 10 * PATIENCE_S)
    (tmp_path / "market.toml").write_text(FEW)
    async with (
        serving(market=tmp_path / "market.toml") as server,
        Exchange(server.url, "alice") as ex,
    ):
        flooding = asyncio.create_task(flood(await ex.market("BOND"), 300))
        await until(ex, lambda: not ex.is_connected)
        await beats(server.url, 10)  # it would be back long since
        assert not ex.is_connected
        assert not any(s.account for s in server.gateway.links)
        await ex.close()
        found = {type(outcome).__name__ for outcome in await flooding}
        assert found == {"Order", "RateLimited", "ConnectionLost"}


async def test_who_was_cut_off_comes_back_once_and_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "CUT_OFF_PAUSE", 0.2)
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
        await until(ex, lambda: ex.is_connected and bond.is_live)
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


async def test_too_many_connections_wait_for_a_free_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "CUT_OFF_PAUSE", 0.05)
    async with (
        serving(max_per_account=1) as server,
        Exchange(server.url, "alice") as ex,
    ):
        second = Exchange(server.url, "alice", connect_timeout=PATIENCE_S)
        coming = asyncio.create_task(second.connect())
        await support.until(lambda: is_refused(second))
        assert not coming.done()
        await ex.close()
        await coming
        assert second.is_connected
        await second.close()


async def test_too_many_connections_do_not_knock_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "BACKOFF_MIN", 0.0)
    monkeypatch.setattr(client, "CUT_OFF_PAUSE", 10 * PATIENCE_S)
    async with (
        serving(max_per_account=1) as server,
        relaying(server.url) as relay,
        Exchange(server.url, "alice"),
    ):
        second = Exchange(relay.url, "alice", connect_timeout=3 * PATIENCE_S)
        coming = asyncio.create_task(second.connect())
        await support.until(lambda: is_refused(second))
        await beats(server.url, 10)  # it would have knocked again long since
        assert relay.connections == 1
        await second.close()
        with pytest.raises(ConnectionLost):
            await coming


def test_who_is_back_is_no_longer_cut_off(core: _Core) -> None:
    core.closed(4002, "far too many requests")
    assert core.is_cut_off and core.refused is None
    core.disconnected("cut off")
    core.connected()
    assert not core.is_cut_off
    core.closed(1001, "shutdown")
    assert not core.is_cut_off and core.refused is None


# Iterators ----------------------------------------------------------------


async def test_books_skip_to_the_newest() -> None:
    async with desk() as d:
        books = d.bond.books()
        assert await anext(books) == Book("BOND", 0, d.bond.book.ts)
        for price in range(90, 99):
            await d.bob.buy(1, price)
        await until(d.ex, lambda: d.bond.book.bid == 98)
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


async def test_a_reader_too_slow_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "EVENTS_WAITING", 3)
    async with desk() as d:
        slow, quick = d.bond.trades(), d.bond.trades()
        await d.bob.sell(10, 100)
        for n in range(4):
            await d.bond.buy(1)
            assert (await take(quick, 1))[0].trade_id == n + 1
        for _ in range(2):
            with pytest.raises(EventsLost):
                await anext(slow)


async def test_an_iterator_nobody_holds_costs_nothing() -> None:
    async with desk() as d:
        d.bond.trades()
        d.ex.fills()
        gc.collect()
        assert not d.ex._core.fills and not d.bond._state.trades


async def test_finished_orders_are_kept_only_by_who_holds_them() -> None:
    async with desk() as d:
        for _ in range(3):
            await (await d.bond.buy(1, 1)).cancel()
        assert not d.ex._core._open and not d.ex._core._placing
        assert not d.ex._core._calls and not d.ex._core._replies


# Without asyncio ----------------------------------------------------------


async def test_blocking_from_a_plain_thread() -> None:
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
        ex.close()  # once more does no harm
        return ex.orders

    async with serving() as server:
        assert await asyncio.to_thread(script, server.url) == []


async def test_blocking_administration(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    tokens = add_key(keys, "alice"), add_key(keys, "boss", is_admin=True)

    def script(url: str) -> None:
        with (
            BlockingExchange(url, "alice", tokens[0]) as ex,
            BlockingExchange(url, "boss", tokens[1]) as boss,
        ):
            news = ex.statuses()
            order = ex.market("BOND").buy(1, 90)
            boss.admin("kill", "runs wild", user="alice")
            assert next(news).message == "kill alice: runs wild"
            assert order.done().reason == "admin" and ex.orders == []
            assert (ex.realized, ex.unrealized) == (0, 0)
            with pytest.raises(Forbidden):
                ex.admin("unkill", "please", user="alice")

    async with serving(keys=keys) as server:
        await asyncio.to_thread(script, server.url)


async def test_blocking_says_when_nobody_is_there() -> None:
    def script() -> None:
        with pytest.raises(ConnectionLost):
            with BlockingExchange(NOBODY, "carl", connect_timeout=0.2):
                pass

    await asyncio.to_thread(script)


def test_blocking_has_every_name_of_the_asyncio_side() -> None:
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
