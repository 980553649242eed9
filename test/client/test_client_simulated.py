"""The client against scripted events, in memory and in simulated time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, get_args

import pytest

import client
import orderbook
from client import (
    EVENTS_WAITING,
    REQUEST_TIMEOUT,
    BadRequest,
    ConnectionLost,
    EventsLost,
    Exchange,
    Market,
    OutcomeUnknown,
    Unauthorized,
)
from orderbook import MAX_ROWS, Exec, Place, Refused, Trade
from test.client.simulation import URL, Line, Venue, settle, simulated

BOND = {
    "symbol": "BOND",
    "tick_size": "1",
    "min_price": 1,
    "max_price": 1_000_000,
    "max_qty": 1_000_000,
    "phase": "open",
}


def ok(request: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "ok", "id": request["id"], "ts": 1, **more}


def error(request: dict[str, Any], code: str, **more: Any) -> dict[str, Any]:
    head = {"type": "error", "id": request["id"], "message": "no"}
    return {**head, "code": code, **more}


def beat(**seq: int) -> dict[str, Any]:
    return {"type": "heartbeat", "ts": 1, "seq": seq}


def book(seq: int, *bids: tuple[int, int], **more: Any) -> dict[str, Any]:
    head = {"type": "book", "symbol": "BOND", "ts": seq, "seq": seq}
    return {**head, "bids": bids, "asks": (), **more}


def trade(trade_id: int, price: int = 5) -> dict[str, Any]:
    head = {"type": "trade", "symbol": "BOND", "ts": trade_id, "price": price}
    return {**head, "seq": 1, "trade_id": trade_id, "qty": 1, "side": "buy"}


def welcome(login: dict[str, Any], **more: Any) -> dict[str, Any]:
    head = {"type": "welcome", "protocol": 1, "user": "alice", "limits": {}}
    told = {"id": login["id"], "ts": 9, "durable": False, "session": "s"}
    return {**head, **told, "instruments": [BOND], "resumed": False, **more}


def report(seq: int, order_id: int, **more: Any) -> dict[str, Any]:
    head = {"type": "exec", "symbol": "BOND", "side": "buy", "price": 99}
    ends = {"order_status": "new", "qty": 9, "cum_qty": 0, "leaves_qty": 9}
    ids = {"seq": seq, "ts": seq, "order_id": order_id, "exec_type": "new"}
    return {**head, **ends, **ids, **more}


def fill(seq: int, order_id: int, cum_qty: int, qty: int) -> dict[str, Any]:
    """Return the report of one lot filled, the last of ``cum_qty``."""
    status = "partially_filled" if cum_qty < qty else "filled"
    traded = {"exec_type": "trade", "last_qty": 1, "last_price": 99}
    counts = {"qty": qty, "cum_qty": cum_qty, "leaves_qty": qty - cum_qty}
    return report(seq, order_id, order_status=status, **traded, **counts)


def account(seq: int, cash: int) -> dict[str, Any]:
    head = {"type": "account", "seq": seq, "ts": seq, "equity": 0}
    return {**head, "cash": cash, "positions": {}}


async def follow(line: Line, ex: Exchange) -> Market:
    """Let a client follow BOND, whose last trade is 7."""
    following = asyncio.create_task(ex.market("BOND"))
    [subscribe] = await line.hear()
    requests = await line.hear(ok(subscribe))
    answers = [
        ok(r, data=[trade(7)] if r["what"] == "trades" else [])
        for r in requests
    ]
    snapshot = book(20, (99, 5), (98, 1), snapshot=True)
    assert await line.hear(*answers, snapshot) == []
    return await following


@asynccontextmanager
async def public() -> AsyncIterator[tuple[Venue, Exchange, Market]]:
    """Open a client without a user, which follows BOND."""
    venue = Venue()
    ex = Exchange(URL, "", connect=venue.connect)
    connecting = asyncio.create_task(ex.connect())
    await settle()
    [hello] = await venue.line.hear()
    venue.line.say(ok(hello, data=[BOND]))
    await connecting
    yield venue, ex, await follow(venue.line, ex)
    await ex.close()


@asynccontextmanager
async def private() -> AsyncIterator[tuple[Venue, Exchange, Market]]:
    """Open a client of alice, whose account is empty, which follows BOND."""
    venue = Venue()
    ex = Exchange(URL, "alice", connect=venue.connect)
    connecting = asyncio.create_task(ex.connect())
    await settle()
    [login] = await venue.line.hear()
    venue.line.say(welcome(login, seq=0), account(0, 0))
    await connecting
    yield venue, ex, await follow(venue.line, ex)
    await ex.close()


async def again(venue: Venue) -> Line:
    """Wait until a client has connected again; return the new line."""
    lines = len(venue.lines)
    while len(venue.lines) == lines:
        await asyncio.sleep(0.01)
    await settle()
    return venue.line


async def lost(venue: Venue, ex: Exchange, *events: Any) -> str:
    """Return why a client gives up its connection after some events."""
    await venue.line.hear(*events)
    assert not ex.is_connected and ex.trouble is not None
    return ex.trouble


def alive(kind: type, price: int) -> int:
    """Return the number of messages with a price in memory."""
    gc.collect()
    things = gc.get_objects()
    return sum(isinstance(x, kind) and x.price == price for x in things)


# Books, trades, replies ---------------------------------------------------


@simulated
async def test_a_book_applies_each_change_once_and_in_order() -> None:
    async with public() as (venue, ex, bond):
        line = venue.line
        await line.hear(book(21, (99, 3), prev_seq=20))
        assert bond.book.bids == ((99, 3), (98, 1))
        # The same change again, an older change, an older snapshot.
        await line.hear(book(21, (99, 4), prev_seq=20))
        await line.hear(book(20, (99, 5), prev_seq=19))
        await line.hear(book(20, snapshot=True))
        assert bond.book.bids == ((99, 3), (98, 1)) and bond.book.seq == 21
        # A change that covers several, some of them known.
        await line.hear(book(23, (98, 0), (97, 2), prev_seq=20))
        assert bond.book.bids == ((99, 3), (97, 2))
        # A newer snapshot, as after slow reading.
        assert await line.hear(book(30, (90, 1), snapshot=True)) == []
        assert bond.book.bids == ((90, 1),) and bond.is_live
        assert venue.tries == 1


@simulated
async def test_a_gap_in_a_book_replaces_the_connection() -> None:
    async with public() as (venue, ex, bond):
        gap = book(23, (99, 3), prev_seq=21)
        trouble = await lost(venue, ex, gap)
        assert trouble == "changes of the book of BOND are missing"
        assert bond.book.seq == 20 and not bond.is_live
        line = await again(venue)
        [hello] = await line.hear()
        [subscribe] = await line.hear(ok(hello, data=[BOND]))
        await line.hear(ok(subscribe), book(24, (98, 2), snapshot=True))
        assert bond.book.bids == ((98, 2),) and bond.is_live


@simulated
async def test_a_jump_in_trades_fetches_the_missing_ones() -> None:
    async with public() as (venue, ex, bond):
        line, trades = venue.line, bond.trades()
        assert await line.hear(trade(8), trade(8), trade(7)) == []
        [request] = await line.hear(trade(10))
        assert (request["what"], request["after"]) == ("trades", 7)
        [request] = await line.hear(ok(request, data=[trade(8)]))
        assert (request["what"], request["after"]) == ("trades", 8)
        # A full page, so that there may be more; trade 10 is in it already.
        last = 8 + MAX_ROWS
        page = [trade(n) for n in range(9, last + 1)]
        [request] = await line.hear(ok(request, data=page), trade(10))
        assert (request["what"], request["after"]) == ("trades", last)
        rest = ok(request, data=[trade(last + 1)])
        assert await line.hear(rest, trade(last + 2)) == []
        seen = [(await anext(trades)).trade_id for _ in range(8, last + 3)]
        assert seen == [*range(8, last + 3)]


@simulated
async def test_a_fetch_that_a_loss_interrupts_starts_again() -> None:
    async with public() as (venue, ex, bond):
        assert await venue.line.hear(trade(10))
        venue.line.end(1001, "shutdown")
        line = await again(venue)
        [hello] = await line.hear()
        [subscribe] = await line.hear(ok(hello, data=[BOND]))
        [get] = await line.hear(ok(subscribe))
        assert (get["what"], get["after"]) == ("trades", 6)


@simulated
async def test_a_heartbeat_shows_that_the_last_change_is_missing() -> None:
    async with public() as (venue, ex, bond):
        assert await venue.line.hear(beat(BOND=20)) == [] and ex.is_connected
        trouble = await lost(venue, ex, beat(BOND=21))
        assert trouble == "data of BOND are missing"


@simulated
async def test_a_reply_is_missing_once_a_later_one_has_come() -> None:
    async with public() as (venue, ex, bond):
        line = venue.line
        asking = asyncio.create_task(ex.leaderboard())
        [request] = await line.hear()
        assert await line.hear(beat()) == []
        [ping] = await line.hear(beat())  # unanswered for a whole interval
        assert ping["type"] == "ping" and ex.is_connected
        trouble = await lost(venue, ex, ok(ping))
        assert trouble == "an answer is missing" and not asking.done()


@simulated
async def test_reports_after_a_missing_reply_are_taken_in() -> None:
    """An order whose reply was ahead of another is seen as it ended."""
    async with private() as (venue, ex, bond):
        line = venue.line
        asking = asyncio.create_task(ex.leaderboard())
        await line.hear()
        buying = asyncio.create_task(bond.buy(1, 99))
        [place] = await line.hear()
        name = {"client_order_id": place["client_order_id"]}
        new = report(1, 1, id=place["id"], **name, qty=1, leaves_qty=1)
        filled = {**fill(2, 1, 1, 1), **name}
        assert await lost(venue, ex, new, filled) == "an answer is missing"
        order = await buying
        assert order.order_status == "filled" and not asking.done()


@simulated
async def test_a_slow_reply_is_waited_for() -> None:
    async with public() as (venue, ex, bond):
        line = venue.line
        asking = asyncio.create_task(ex.leaderboard())
        [request] = await line.hear()
        pings = [p for _ in range(9) for p in await line.hear(beat(BOND=20))]
        assert {ping["type"] for ping in pings} == {"ping"}
        await line.hear(ok(request, data=[]), *map(ok, pings))
        assert await asking == [] and venue.tries == 1


@simulated
async def test_an_own_request_refused_as_too_many_is_repeated_later() -> None:
    async with public() as (venue, ex, bond):
        line = venue.line
        [request] = await line.hear(trade(10))  # it fetches what it missed
        assert await line.hear(error(request, "rate_limited")) == []
        [repeated] = await line.hear(beat())
        assert repeated["what"] == "trades" and repeated["id"] > request["id"]
        assert ex.is_connected


# Reports ------------------------------------------------------------------


@simulated
async def test_reports_during_a_new_login_are_applied_after_it() -> None:
    venue = Venue()
    ex = Exchange(URL, "alice", connect=venue.connect)
    fills = ex.fills()
    connecting = asyncio.create_task(ex.connect())
    await settle()
    [login] = await venue.line.hear()
    # Reports before the welcome belong to a login that was given up.
    await venue.line.hear(report(1, 5), account(1, -7))
    assert not ex.is_connected and ex.orders == [] and ex.cash == 0
    status = {"exec_type": "status"}
    venue.line.say(welcome(login, seq=2), report(2, 6, **status))
    venue.line.say(account(2, 0))
    await connecting
    venue.line.end(1001, "shutdown")
    line = await again(venue)
    [login] = await line.hear()
    assert (login["session"], login["last_seq"]) == ("s", 2)
    assert await line.hear(report(3, 5), report(9, 5)) == []
    assert venue.line is line and len(ex.orders) == 1
    [get] = await line.hear(
        welcome(login, seq=4), report(4, 6, **status), account(4, -99)
    )
    assert (get["what"], get["after"]) == ("fills", 2)
    later = fill(5, 6, cum_qty=2, qty=9)
    await line.hear(later, account(6, -198))
    assert not ex.is_connected and ex.cash == 0
    missed = fill(3, 6, cum_qty=1, qty=9)
    await line.hear(ok(get, data=[missed, later]))
    assert ex.is_connected and ex.cash == -198
    [order] = ex.orders
    assert order.cum_qty == 2 and [f.seq for f in order.fills] == [3, 5]
    assert [(await anext(fills)).seq for _ in order.fills] == [3, 5]
    await ex.close()


@simulated
async def test_tables_longer_than_a_page_are_fetched_page_by_page() -> None:
    async with private() as (venue, ex, bond):
        lots = MAX_ROWS + 500
        opened = [report(1, 1, qty=lots, leaves_qty=lots), report(2, 2)]
        await venue.line.hear(*opened, report(3, lots))
        first, second, third = ex.orders
        fills = ex.fills()
        venue.line.end(1001, "shutdown")
        line = await again(venue)
        [login] = await line.hear()
        rows = [fill(3 + n, 1, n, lots) for n in range(1, lots + 1)]
        seq = 3 + lots
        [get] = await line.hear(welcome(login, seq=seq), account(seq, 0))
        assert (get["what"], get["after"]) == ("fills", 3)
        [get] = await line.hear(ok(get, data=rows[:MAX_ROWS]))
        assert (get["what"], get["after"]) == ("fills", 3 + MAX_ROWS)
        [get] = await line.hear(ok(get, data=rows[MAX_ROWS:]))
        # The second and the third have ended; others lie between them.
        end = {"order_status": "canceled", "leaves_qty": 0}
        ended = [report(9, n, **end) for n in range(2, lots + 1)]
        assert (get["what"], get["after"]) == ("orders", 1)
        [get] = await line.hear(ok(get, data=ended[:MAX_ROWS]))
        assert (get["what"], get["after"]) == ("orders", 1 + MAX_ROWS)
        await line.hear(ok(get, data=ended[MAX_ROWS:]))
        assert ex.is_connected and ex.orders == []
        states = [o.order_status for o in (first, second, third)]
        assert states == ["filled", "canceled", "canceled"]
        assert len(first.fills) == lots
        seen = [(await anext(fills)).seq for _ in range(lots)]
        assert seen == [row["seq"] for row in rows]


@simulated
async def test_an_order_never_steps_back_to_an_older_report() -> None:
    async with private() as (venue, ex, bond):
        buying = asyncio.create_task(bond.buy(9, 99))
        [place] = await venue.line.hear()
        venue.line.end(1001, "shutdown")
        line = await again(venue)
        [login] = await line.hear()
        subscribe, repeated, positions = await line.hear(
            welcome(login, seq=0), account(0, 0)
        )
        name = {"client_order_id": place["client_order_id"]}
        assert repeated == {**place, "id": repeated["id"]}
        code = "duplicate_client_order_id"
        missed, get = await line.hear(
            ok(subscribe),
            error(repeated, code, order_id=5),
            ok(positions, data=[]),
        )
        assert (get["what"], get["after"], get["limit"]) == ("orders", 4, 1)
        filled = {"order_status": "partially_filled", "cum_qty": 4}
        row = report(3, 5, **filled, **name)
        await line.hear(ok(missed, data=[trade(7)]), ok(get, data=[row]))
        order = await buying  # from a table, which is ahead of the reports
        assert (order.cum_qty, order.price) == (4, 99)
        await line.hear(report(1, 5, **name))
        await line.hear(report(2, 5, price=97, **name))
        assert (order.cum_qty, order.price) == (4, 99)
        assert ex.orders == [order]
        await line.hear(row, report(4, 5, price=96, **name))
        assert order.price == 96 and ex.is_connected
        trouble = await lost(venue, ex, report(6, 5, **name))
        assert trouble == "reports after 4 are missing"
        assert order.price == 96


# Refusals -----------------------------------------------------------------


@pytest.mark.parametrize("code", get_args(get_args(orderbook.Code)[0]))
@simulated
async def test_each_code_is_an_exception_of_its_own(code: str) -> None:
    async with private() as (venue, ex, bond):
        buying = asyncio.create_task(bond.buy(1, 1))
        [place] = await venue.line.hear()
        state = {"order_id": 7, "order_status": "new", "cum_qty": 3}
        more = {**state, "field": "qty", "retry_after_ms": 20}
        venue.line.say(error(place, code, **more))
        with pytest.raises(Refused) as caught:
            await buying
        name = "".join(word.title() for word in code.split("_"))
        assert type(caught.value) is getattr(client, name)
        found = vars(caught.value)
        assert found == {"code": code, "message": "no", **more}


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
    ("stp", (10, 99), {"stp": "cancel"}),
    ("price", (10, Decimal("98.5")), {}),
    ("price", (10, Decimal("NaN")), {}),
    ("price", (10, Decimal("Infinity")), {}),
    ("price", (10, Decimal("1e400")), {}),
    ("price", (10, "99"), {}),
    ("trigger_price", (10,), {"trigger_price": Decimal("0.5")}),
    ("trigger_price", (10,), {"trigger_price": "5"}),
    ("time_in_force", (10,), {"trigger_price": 5, "time_in_force": "ioc"}),
    ("display_qty", (10,), {"display_qty": 5}),
    ("display_qty", (10, 99), {"display_qty": 0}),
    ("client_order_id", (10, 99), {"client_order_id": "a b"}),
    ("client_order_id", (10, 99), {"client_order_id": "\udcc3"}),
    ("stop_price", (10, 99), {"stop_price": 5}),
]


@pytest.mark.parametrize("field, arguments, options", BAD)
@simulated
async def test_an_invalid_order_is_refused_before_it_is_sent(
    field: str, arguments: Any, options: Any
) -> None:
    async with private() as (venue, ex, bond):
        with pytest.raises(BadRequest) as caught:
            await bond.buy(*arguments, **options)
        assert caught.value.field == field and field in str(caught.value)
        assert await venue.line.hear() == []


@pytest.mark.parametrize(
    "field, action, reason, arguments",
    [
        ("action", "stop", "x", {}),
        ("reason", "reset", "", {}),
        ("phase", "phase", "x", {}),
        ("phase", "phase", "x", {"phase": "noon"}),
        ("user", "reset", "x", {"user": "alice"}),
        ("whom", "suspend", "x", {"whom": "alice"}),
        ("qty", "adjust", "x", {"user": "alice", "symbol": "BOND"}),
        ("symbol", "settle", "x", {"price": 5}),
        ("prices", "settle", "x", {"prices": {"bond": 5}}),
        ("headline", "news", "x", {"headline": "a\nb"}),
        ("client_request_id", "reset", "x", {"client_request_id": ""}),
    ],
)
@simulated
async def test_an_invalid_action_is_refused_before_it_is_sent(
    field: str, action: Any, reason: str, arguments: Any
) -> None:
    async with private() as (venue, ex, bond):
        with pytest.raises(BadRequest) as caught:
            await ex.admin(action, reason, **arguments)
        assert caught.value.field == field
        assert await venue.line.hear() == []


@simulated
async def test_an_object_with_index_is_an_integer() -> None:
    class Lots:
        def __index__(self) -> int:
            return 7

    async with private() as (venue, ex, bond):
        buying = asyncio.create_task(bond.buy(Lots(), 99))  # type: ignore
        [place] = await venue.line.hear()
        assert place["qty"] == 7
        await ex.close()
        with pytest.raises(ConnectionLost, match="closed"):
            await buying


# Connections --------------------------------------------------------------


@pytest.mark.parametrize("code, pause_s", [(4002, 2.0), (1001, 0.0)])
@simulated
async def test_a_client_pauses_once_after_it_was_cut_off(
    code: int, pause_s: float
) -> None:
    async with private() as (venue, ex, bond):
        loop = asyncio.get_running_loop()
        ended_at = loop.time()
        venue.line.end(code, "far too many requests")
        line = await again(venue)
        assert pause_s <= line.opened_at - ended_at <= pause_s + 0.1
        line.end(1001, "shutdown")
        ended_at = loop.time()
        line = await again(venue)
        assert line.opened_at - ended_at <= 0.2


@pytest.mark.parametrize("code, pause_s", [("rate_limited", 2.0), ("busy", 0)])
@simulated
async def test_a_login_refused_as_too_many_is_tried_again(
    code: str, pause_s: float
) -> None:
    venue = Venue()
    ex = Exchange(URL, "alice", connect=venue.connect)
    connecting = asyncio.create_task(ex.connect())
    await settle()
    [login] = await venue.line.hear()
    refused_at = asyncio.get_running_loop().time()
    venue.line.say(error(login, code))
    line = await again(venue)
    assert pause_s <= line.opened_at - refused_at <= pause_s + 0.1
    [login] = await line.hear()
    line.say(welcome(login, seq=0), account(0, 0))
    await connecting
    await ex.close()


@pytest.mark.parametrize("is_told", [True, False])
@simulated
async def test_a_refused_login_is_not_tried_again(is_told: bool) -> None:
    venue = Venue()
    ex = Exchange(URL, "alice", connect=venue.connect)
    connecting = asyncio.create_task(ex.connect())
    await settle()
    [login] = await venue.line.hear()
    if is_told:
        venue.line.say(error(login, "unauthorized"))
    venue.line.end(4001, "no")
    with pytest.raises(Unauthorized, match="no"):
        await connecting
    await asyncio.sleep(3_600)
    assert venue.tries == 1 and ex.trouble == "no"


@simulated
async def test_a_failed_connect_may_be_tried_again() -> None:
    venue = Venue()
    venue.is_down = True
    ex = Exchange(URL, "", connect=venue.connect)
    for _ in range(2):
        with pytest.raises(ConnectionLost, match="Connect call failed"):
            await ex.connect()
        tries = venue.tries
        with pytest.raises(ConnectionLost, match="Connect call failed"):
            await ex.get("trades")
        await asyncio.sleep(3_600)
        assert venue.tries == tries  # nobody waits for a connection
    venue.is_down = False
    connecting = asyncio.create_task(ex.connect())
    line = await again(venue)
    [hello] = await line.hear()
    line.say(ok(hello, data=[BOND]))
    await connecting
    assert ex.is_connected and ex.trouble is None
    await ex.close()


@simulated
async def test_a_second_connect_that_fails_leaves_the_first() -> None:
    async with public() as (venue, ex, bond):
        venue.is_down = True
        venue.line.end(1001, "shutdown")
        await settle()
        with pytest.raises(ConnectionLost):
            await ex.connect()
        venue.is_down = False
        line = await again(venue)
        [hello] = await line.hear()
        await line.hear(ok(hello, data=[BOND]))
        assert ex.is_connected


@simulated
async def test_a_request_waits_for_a_connection_for_a_bounded_time() -> None:
    async with private() as (venue, ex, bond):
        loop = asyncio.get_running_loop()
        placing = asyncio.create_task(bond.buy(9, 99))
        await settle()
        venue.line.end(1001, "shutdown")
        line = await again(venue)  # where the place is sent once more
        [login] = await line.hear()
        sent = await line.hear(welcome(login, seq=0), account(0, 0))
        assert "place" in [request["type"] for request in sent]
        venue.is_down = True
        lost_at = loop.time()
        line.end(1001, "shutdown")
        await settle()
        assert not ex.is_connected and not bond.is_live
        unsent = asyncio.create_task(ex.get("orders"))
        with pytest.raises(OutcomeUnknown):
            await placing
        with pytest.raises(ConnectionLost, match="nothing was sent"):
            await unsent
        assert loop.time() - lost_at == pytest.approx(REQUEST_TIMEOUT)


# Memory -------------------------------------------------------------------


@simulated
async def test_a_reader_that_is_too_slow_is_told() -> None:
    async with public() as (venue, ex, bond):
        slow, quick = bond.trades(), bond.trades()
        for start in range(8, 8 + EVENTS_WAITING + 1, 1_000):
            frame = [trade(n) for n in range(start, start + 1_000)]
            await venue.line.hear(*frame)
            for n in range(start, start + 1_000):
                assert (await anext(quick)).trade_id == n
        for _ in range(2):
            with pytest.raises(EventsLost):
                await anext(slow)


@simulated
async def test_an_iterator_without_a_reader_keeps_no_events() -> None:
    async with public() as (venue, ex, bond):
        kept = bond.trades()
        bond.trades()
        await venue.line.hear(*(trade(n, 777) for n in range(8, 108)))
        await venue.line.hear(trade(108))
        assert alive(Trade, 777) == 100
        del kept
        assert alive(Trade, 777) == 0


@simulated
async def test_a_client_keeps_nothing_of_orders_that_have_ended() -> None:
    async with private() as (venue, ex, bond):
        line = venue.line
        for n in range(1, 31):
            buying = asyncio.create_task(bond.buy(9, 777))
            [place] = await line.hear()
            name = {"client_order_id": place["client_order_id"], "price": 777}
            if n % 3 == 0:  # given up after it was sent
                buying.cancel()
            await line.hear(report(2 * n - 1, n, id=place["id"], **name))
            [order] = ex.orders
            canceling = asyncio.create_task(order.cancel())
            [cancel] = await line.hear()
            end = {"order_status": "canceled", "leaves_qty": 0}
            end |= {"exec_type": "canceled", "id": cancel["id"]}
            await line.hear(report(2 * n, n, **end, **name))
            await canceling
            assert buying.cancelled() == (n % 3 == 0)
        del order, buying, canceling
        await line.hear(trade(8))
        assert (alive(Exec, 777), alive(Place, 777)) == (0, 0)


async def resumed(venue: Venue) -> Line:
    """Let a client resume its session; return the new line."""
    line = await again(venue)
    [login] = await line.hear()
    requests = await line.hear(welcome(login, seq=0, resumed=True))
    await line.hear(*(ok(r, data=[]) for r in requests))
    return line


@simulated
async def test_an_order_given_up_while_away_leaves_its_name() -> None:
    async with private() as (venue, ex, bond):
        buying = asyncio.create_task(bond.buy(9, 99, client_order_id="a"))
        assert len(await venue.line.hear()) == 1
        venue.line.end(1006)
        await settle()
        buying.cancel()
        line = await resumed(venue)
        buying = asyncio.create_task(bond.buy(9, 99, client_order_id="a"))
        [place] = await line.hear()
        await line.hear(report(1, 1, client_order_id="a", id=place["id"]))
        assert (await buying).order_id == 1


@simulated
async def test_a_quote_given_up_while_away_does_not_stop_the_next() -> None:
    async with private() as (venue, ex, bond):
        quoting = asyncio.create_task(bond.quote(99, None, 9))
        assert len(await venue.line.hear()) == 1
        venue.line.end(1006)
        await settle()
        quoting.cancel()
        line = await resumed(venue)
        quoting = asyncio.create_task(bond.quote(98, None, 9))
        [place] = await line.hear()
        name = place["client_order_id"]
        await line.hear(report(1, 1, client_order_id=name, id=place["id"]))
        bid, _ = await quoting
        assert bid is not None and bid.order_id == 1
