"""The client's prices and money, and the further kinds of orders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest

from client import BadRequest, Exchange, Market, OrderClosed
from test.client.simulation import URL, Line, Venue, settle, simulated
from test.client.test_client_notices import answer
from test.client.test_client_simulated import (
    BOND,
    account,
    again,
    book,
    error,
    follow,
    ok,
    private,
    report,
    trade,
    welcome,
)

# One lot of one tick is 25 units of 0.01 dollars.
FUTURE = {**BOND, "tick_size": "0.05", "multiplier": 5, "tick_value": 25}
MONEY = {"unit": "0.01", "currency": "USD", "rules": 3}


def held(seq: int, cash: int, lots: int, **more: Any) -> dict[str, Any]:
    return {**account(seq, cash), "positions": {"BOND": lots}, **more}


@asynccontextmanager
async def rich(
    instrument: dict[str, Any], **more: Any
) -> AsyncIterator[tuple[Line, Exchange, Market]]:
    """Open a client of alice, who has 10,000 units and follows BOND."""
    venue = Venue()
    ex = Exchange(URL, "alice", connect=venue.connect)
    connecting = asyncio.create_task(ex.connect())
    await settle()
    [login] = await venue.line.hear()
    reply = {**welcome(login, seq=0), "instruments": [instrument], **more}
    venue.line.say(reply, account(0, 10_000))
    await connecting
    yield venue.line, ex, await follow(venue.line, ex)
    await ex.close()


# Money --------------------------------------------------------------------


@simulated
async def test_profit_and_equity_count_the_value_of_a_tick() -> None:
    async with rich(FUTURE, **MONEY) as (line, ex, bond):
        assert (ex.unit, ex.currency) == (Decimal("0.01"), "USD")
        assert (ex.cash_money, ex.equity_money) == (Decimal(100),) * 2
        # Two lots bought at 8 ticks: 400 units and a fee of 3.
        traded = {"exec_type": "trade", "last_qty": 2, "last_price": 8}
        ends = {"order_status": "filled", "leaves_qty": 0, "cum_qty": 2}
        its = {"qty": 2, "cum_cost": 16, "fee": 3, **traded, **ends}
        await line.hear(report(1, 1, **its), held(2, 9_597, 2))
        await line.hear(trade(8, price=8))
        assert (bond.avg_price, bond.profit, ex.equity) == (8.0, -3, 9_997)
        await line.hear(trade(9, price=10))  # the reference; no asks
        assert (bond.avg_price, bond.profit, ex.equity) == (8.0, 97, 10_097)
        assert ex.equity_money == Decimal("100.97")
        # One lot sold at 11 ticks.
        its = {"side": "sell", "qty": 1, "cum_qty": 1, "last_qty": 1}
        its |= {"exec_type": "trade", "last_price": 11}
        its |= {"order_status": "filled", "leaves_qty": 0}
        await line.hear(report(3, 2, **its), held(4, 9_872, 1))
        assert (bond.avg_price, bond.profit) == (8.0, 72 + 50)
        assert ex.equity == 9_872 + 250


@simulated
async def test_the_cost_of_lots_held_before_is_in_units() -> None:
    async with rich(FUTURE, **MONEY) as (line, ex, bond):
        [positions] = await line.hear(held(1, 10_000, 2))
        assert positions["what"] == "positions"
        row = {"symbol": "BOND", "position": 2, "cost": 350}
        await line.hear(ok(positions, data=[row]))
        assert (bond.avg_price, bond.profit) == (7.0, 2 * 5 * 25 - 350)


@pytest.mark.parametrize(
    "instruments, unit",
    [
        ([BOND], "1"),
        ([{**BOND, "tick_size": "0.25"}], "0.25"),
        ([FUTURE, {**BOND, "symbol": "X", "tick_value": 100}], "0.01"),
        ([BOND, {**BOND, "symbol": "X", "tick_size": "0.25"}], None),
    ],
)
@simulated
async def test_without_a_login_the_instruments_tell_the_unit(
    instruments: list[Any], unit: str | None
) -> None:
    venue = Venue()
    ex = Exchange(URL, "", connect=venue.connect)
    connecting = asyncio.create_task(ex.connect())
    await settle()
    [hello] = await venue.line.hear()
    venue.line.say(ok(hello, data=instruments))
    await connecting
    assert ex.unit == (None if unit is None else Decimal(unit))
    assert ex.currency is None
    await ex.close()


@simulated
async def test_without_a_common_unit_cash_has_no_money() -> None:
    odd = {**BOND, "symbol": "ODD", "tick_size": "0.25"}
    async with rich(BOND, instruments=[BOND, odd]) as (line, ex, bond):
        assert (ex.cash, ex.cash_money, ex.equity_money) == (
            10_000,
            None,
            None,
        )


@simulated
async def test_a_price_may_be_money() -> None:
    async with rich(FUTURE, **MONEY) as (line, ex, bond):
        await line.hear()
        placing = asyncio.create_task(bond.buy(2, Decimal("4.95")))
        [place] = await line.hear()
        assert (place["price"], place["qty"]) == (99, 2)
        name = {"client_order_id": place["client_order_id"]}
        await line.hear(report(1, 1, id=place["id"], **name))
        order = await placing
        assert (order.price, order.price_money) == (99, Decimal("4.95"))
        amending = asyncio.create_task(order.amend(Decimal("-5.0")))
        [amend] = await line.hear()
        assert amend["price"] == -100
        amended = {"exec_type": "amended", "price": -100}
        await line.hear(report(2, 1, id=amend["id"], **amended, **name))
        await amending
        assert order.price_money == Decimal("-5")
        for price in ("4.96", "4.950001", "NaN", "-Infinity"):
            for change in (order.amend, lambda p: bond.quote(p, None, 1)):
                with pytest.raises(BadRequest, match="tick size 0.05") as why:
                    await change(Decimal(price))
                assert why.value.field in ("price", "bid")
        assert await line.hear() == []


# Stops and icebergs -------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, options, expected",
    [
        (
            (5,),
            {"trigger_price": 105},
            {"order_type": "stop", "trigger_price": 105},
        ),
        (
            (5, 106),
            {"trigger_price": Decimal(105), "display_qty": 2},
            {
                "order_type": "stop_limit",
                "price": 106,
                "trigger_price": 105,
                "display_qty": 2,
            },
        ),
        (
            (5,),
            {"trigger_price": 0, "expire_ts": 9},
            {
                "order_type": "stop",
                "trigger_price": 0,
                "expire_ts": 9,
                "time_in_force": "gtd",
            },
        ),
        (
            (5,),
            {"time_in_force": "auction"},
            {"order_type": "market", "time_in_force": "auction"},
        ),
        ((5, 0), {"stp": "none"}, {"price": 0, "stp": "none"}),
    ],
)
@simulated
async def test_the_options_make_the_type_of_an_order(
    arguments: Any, options: Any, expected: Any
) -> None:
    async with private() as (venue, ex, bond):
        await venue.line.hear()
        placing = asyncio.create_task(bond.buy(*arguments, **options))
        [place] = await venue.line.hear()
        del place["id"], place["client_order_id"]
        head = {"type": "place", "symbol": "BOND", "side": "buy", "qty": 5}
        assert place == head | expected
        await ex.close()
        with pytest.raises(Exception, match="closed"):
            await placing


@simulated
async def test_a_stop_waits_is_triggered_and_trades() -> None:
    async with private() as (venue, ex, bond):
        line = venue.line
        await line.hear()
        placing = asyncio.create_task(bond.buy(9, trigger_price=105))
        [place] = await line.hear()
        stop: dict[str, Any] = {"order_type": "market", "trigger_price": 105}
        stop |= {"client_order_id": place["client_order_id"]}
        waits = report(1, 1, id=place["id"], order_status="waiting", **stop)
        del waits["price"]
        await line.hear(waits)
        order = await placing
        assert ex.orders == [order] and order.is_waiting and order.is_open
        assert (order.order_type, order.trigger_price) == ("market", 105)
        assert (order.price, order.price_money) == (None, None)
        assert "market stop 105, waiting" in repr(order)
        triggered = {**waits, "seq": 2, "exec_type": "triggered"}
        triggered["order_status"] = "new"
        del triggered["id"]
        await line.hear(triggered)
        assert order.order_status == "new" and not order.is_waiting
        ends = {"exec_type": "canceled", "order_status": "canceled"}
        ends |= {"leaves_qty": 0, "reason": "position_limit"}
        await line.hear({**triggered, "seq": 3, **ends})
        assert not order.is_open and order.reason == "position_limit"
        assert ex.orders == []


@pytest.mark.parametrize(
    "change",
    [
        {"expire_ts": 77},
        {"trigger_price": 104},
        {"display_qty": 3},
        {"qty": 8, "display_qty": 4},
    ],
    ids=str,
)
@simulated
async def test_an_amend_is_repeated_until_it_is_done(
    change: dict[str, int],
) -> None:
    """The first copy has taken effect, so the second one is refused."""
    async with private() as (venue, ex, bond):
        line = venue.line
        await line.hear()
        await line.hear(report(1, 1))
        [order] = ex.orders
        amending = asyncio.create_task(order.amend(**change))
        [amend] = await line.hear()
        assert {name: amend[name] for name in change} == change
        line.end(1001, "shutdown")
        line = await again(venue)
        [login] = await line.hear()
        resumed = welcome(login, seq=2, resumed=True)
        amended = report(2, 1, exec_type="amended", **change)
        ended = report(3, 1, order_status="filled", leaves_qty=0, **change)
        sent = await line.hear(resumed, amended)
        [amend] = [r for r in sent if r["type"] == "amend"]
        refused = error(amend, "order_closed")
        await line.hear(ended)
        await answer(line, sent, amend, refused)
        await amending
        assert order.order_status == "filled"
        again_ = asyncio.create_task(order.amend(**change))
        [amend] = await line.hear()
        await line.hear(error(amend, "order_closed"))
        with pytest.raises(OrderClosed):
            await again_


@pytest.mark.parametrize("name", ["expire_ts", "trigger_price", "display_qty"])
@simulated
async def test_a_repeated_amend_that_was_never_done_is_refused(
    name: str,
) -> None:
    async with private() as (venue, ex, bond):
        await venue.line.hear()
        await venue.line.hear(report(1, 1))
        [order] = ex.orders
        change: Any = {name: 77}
        amending = asyncio.create_task(order.amend(**change))
        await venue.line.hear()
        venue.line.end(1001, "shutdown")
        line = await again(venue)
        [login] = await line.hear()
        ended = report(2, 1, order_status="filled", leaves_qty=0)
        sent = await line.hear(welcome(login, seq=2, resumed=True), ended)
        [amend] = [r for r in sent if r["type"] == "amend"]
        await answer(line, sent, amend, error(amend, "order_closed"))
        with pytest.raises(OrderClosed):
            await amending


@simulated
async def test_a_self_trade_does_not_move_the_last_price() -> None:
    alone = {**BOND, "self_trades": True}
    async with rich(alone) as (line, ex, bond):
        sent = await line.hear()
        assert bond.last == 5
        assert not [r for r in sent if r["type"] == "place"]
        ticker = {"type": "ticker", "symbol": "BOND", "ts": 1, "volume": 1}
        await line.hear({**ticker, "last": 6}, trade(8, price=50))
        assert bond.last == 6
        await line.hear(book(21, (1, 1), prev_seq=20))
