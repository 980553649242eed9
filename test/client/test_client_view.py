"""What a client shows: quotes, marks, profit, and its text form."""

from __future__ import annotations

import asyncio
import pydoc
from pathlib import Path
from typing import Any

import pytest

from client import Exchange, Market, OrderOptions
from exchange.host import timers
from orderbook import Refused
from test.client.test_client import desk, governed
from test.support import NOBODY, PATIENCE_S, add_key, serving, until


@pytest.fixture(autouse=True)
def _frequent_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers, "HEARTBEAT_S", 0.05)


# Quotes -------------------------------------------------------------------


async def test_a_quote_shows_the_same_after_any_number_of_fills(
    tmp_path: Path,
) -> None:
    """The maker quotes 10 lots; max_qty is 20 lots, fills included."""
    async with governed(tmp_path, "max_qty = 20") as (d, _):
        for _ in range(25):
            orders = await d.bond.quote(98, 102, 10)
            assert [o and o.leaves_qty for o in orders] == [10, 10]
            assert d.ex.orders == [*orders]
            await d.bob.buy(5, 102)
            await d.bob.sell(5, 98)
            await until(lambda: all(o and o.leaves_qty == 5 for o in orders))
        assert d.ex.cash == 25 * 5 * 4
        assert len(await d.ex.get("orders")) < 30  # amended where possible


async def test_a_quote_above_the_maximum_is_refused_and_changes_nothing(
    tmp_path: Path,
) -> None:
    async with governed(tmp_path, "max_qty = 20") as (d, _):
        bid, _ = await d.bond.quote(98, None, 10)
        with pytest.raises(Refused, match="above the maximum of 20"):
            await d.bond.quote(97, None, 21)
        assert d.ex.orders == [bid] and bid is not None and bid.price == 98


async def test_a_quote_to_be_replaced_may_have_ended_already(
    tmp_path: Path,
) -> None:
    async with governed(tmp_path, "max_qty = 10") as (d, _):
        bid, _ = await d.bond.quote(98, None, 10)
        await d.bob.sell(5, 98)
        await until(lambda: bid is not None and bid.cum_qty == 5)
        d.lose("down", "trade_id")  # the report of the last fill
        await d.bob.sell(5, 98)
        again, _ = await d.bond.quote(98, None, 10)
        assert again is not None and again.leaves_qty == 10
        assert d.ex.orders == [again]


# Marks --------------------------------------------------------------------


async def check_marks(ex: Exchange) -> dict[str, Any]:
    """Wait until equity and profit agree; return the leaderboard row."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            [told] = await ex.get("account")
            [row] = [
                row for row in await ex.leaderboard() if row["user"] == ex.user
            ]
            if (ex.equity, ex.unrealized) == (
                told.equity,
                told.unrealized,
            ) and ex.equity == row["equity"]:
                return row


async def test_equity_follows_the_market() -> None:
    async with desk() as d:
        assert d.ex.equity == d.ex.unrealized == 0
        await d.bob.sell(5, 100)
        await d.bond.buy(5, 100)
        assert d.ex.equity == 0
        # Others trade and quote; the account does nothing.
        async with Exchange(d.server.url, "carl") as carl:
            market = await carl.market("BOND")
            await d.bob.sell(1, 120)
            await market.buy(1, 120)
            await until(lambda: d.ex.equity == 100)
            assert (await check_marks(d.ex))["equity"] == 100
            await market.buy(1, 90)
            await d.bob.sell(1, 95)  # the median of 90, 120 and 95
            await until(lambda: d.ex.equity == -25)
            assert d.ex.unrealized == -25
            await check_marks(d.ex)
            await d.bob.cancel_all()
            await until(lambda: d.ex.equity == 100)
            await check_marks(d.ex)


async def test_equity_follows_markets_that_are_not_followed() -> None:
    async with (
        serving(symbols=("BOND", "ETF")) as server,
        Exchange(server.url, "bob") as bob,
        Exchange(server.url, "alice") as first,
    ):
        etf = await bob.market("ETF")
        await etf.sell(3, 50)
        await (await first.market("ETF")).buy(3)
        async with Exchange(server.url, "alice") as ex:
            await ex.market("BOND")
            await etf.sell(1, 60)
            await (await first.market("ETF")).buy(1)
            await until(lambda: ex.equity == 4 * 60 - 150 - 60)
            await check_marks(ex)


async def test_equity_is_right_before_the_first_trade(tmp_path: Path) -> None:
    async with governed(tmp_path, "reference_price = 40") as (d, boss):
        gift: dict[str, Any] = {"user": "alice", "symbol": "BOND", "qty": 3}
        await boss.admin("adjust", "a gift", **gift)
        await until(lambda: d.ex.equity == 120)
        assert (await check_marks(d.ex))["cash"] == 0


# Profit -------------------------------------------------------------------


async def test_the_profit_of_a_market(tmp_path: Path) -> None:
    async with governed(tmp_path, "taker_fee = 1") as (d, boss):
        bond = d.bond
        assert (bond.last, bond.avg_price) == (None, None)
        await until(lambda: bond.profit == 0)
        await d.bob.sell(3, 100)
        await bond.buy(3)
        await until(lambda: bond.last == 100)
        assert (bond.avg_price, bond.profit) == (100.0, -3)
        await d.bob.sell(1, 104)
        await bond.buy(1)
        await until(lambda: bond.last == 104)
        assert (bond.avg_price, bond.profit) == (101.0, 12 - 4)
        await d.bob.buy(6, 110)
        await bond.sell(6)  # closes 4 long, opens 2 short
        await until(lambda: bond.last == 110)
        assert (bond.position, bond.avg_price) == (-2, 110.0)
        assert bond.profit == 4 * 9 - 4 - 6 == d.ex.equity
        assert (d.ex.realized, d.ex.unrealized) == (26, 0)
        await boss.admin("settle", "it is worth", symbol="BOND", price=100)
        await until(lambda: bond.position == 0 and bond.profit == 46)
        assert bond.avg_price is None and d.ex.realized == 46


async def test_the_profit_of_a_market_over_a_lost_connection() -> None:
    async with desk(cancel_on_disconnect=False) as d:
        order = await d.bond.buy(4, 99)
        upstream, d.relay.upstream = d.relay.upstream, NOBODY
        d.relay.cut()
        await until(lambda: not d.ex.is_connected)
        await d.bob.sell(3, 99)
        d.relay.upstream = upstream
        await until(lambda: order.cum_qty == 3)
        await until(lambda: d.bond.avg_price == 99.0)
        await check_marks(d.ex)


async def test_the_cost_of_lots_held_before_is_known() -> None:
    async with desk() as d, Exchange(d.server.url, "alice") as later:
        await d.bob.sell(2, 90)
        await d.bond.buy(2)
        bond = await later.market("BOND")
        await until(lambda: bond.avg_price == 90.0)
        assert bond.profit == 0
        [row] = await later.get("positions")
        assert row == {
            "symbol": "BOND",
            "position": 2,
            "cost": 180,
            "mark": 90,
            "unrealized": 0,
        }
        assert await later.get("positions", symbol="BOND") == [row]


# Text ---------------------------------------------------------------------


def test_help_describes_every_option() -> None:
    text = pydoc.render_doc(OrderOptions, renderer=pydoc.plaintext)
    for name in OrderOptions.__annotations__:
        assert f"{name}: " in text


async def test_the_text_form_has_account_and_address(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    token = add_key(keys, "alice")
    async with serving(keys=keys) as server:
        ex = Exchange(server.url, "alice", token)
        text = "not connected: call connect() first"
        assert repr(ex) == f"<Exchange alice at {server.url}: {text}>"
        async with ex:
            text = "connected, cash 0, equity 0"
            assert str(ex) == f"<Exchange alice at {server.url}: {text}>"
            assert token not in repr(ex)
        async with Exchange(server.url) as nobody:
            assert repr(nobody) == f"<Exchange {server.url}: connected>"
            bond: Market = await nobody.market("BOND")
            assert (bond.last, bond.avg_price, bond.profit) == (None,) * 3
