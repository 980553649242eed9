"""The newer orders and one money with a real exchange, over real sockets."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from pathlib import Path

from client import BlockingExchange, Exchange, Refused
from test.support import (
    address,
    ended,
    greeting,
    launched,
    running,
    serving,
    until,
)
from util.measure.process import environment

MONEY = """
[money]
unit = "0.01"
currency = "USD"
[account]
cash = 100_000_000
[instruments.BOND]
tick_size = "0.05"
multiplier = 10
reference_price = 2_000
maker_fee_bp = 3
taker_fee_bp = 7
[instruments.ETF]
tick_size = "0.01"
reference_price = 10_000
taker_fee_bp = 1
"""


async def test_equity_is_that_of_the_exchange_after_random_trades(
    tmp_path: Path,
) -> None:
    market = tmp_path / "market.toml"
    market.write_text(MONEY)
    dice = random.Random(7)
    async with (
        serving(market=market) as server,
        Exchange(server.url, "ann") as ann,
        Exchange(server.url, "bob") as bob,
    ):
        desks = [
            [await ex.market("BOND"), await ex.market("ETF")]
            for ex in (ann, bob)
        ]
        for _ in range(150):
            mine = dice.choice(desks)[dice.randrange(2)]
            base = 2_000 if mine.symbol == "BOND" else 10_000
            trade = dice.choice((mine.buy, mine.sell))
            try:
                await trade(dice.randint(1, 20), base + dice.randint(-5, 5))
            except Refused:
                pass
        for ex in (ann, bob):
            assert len(await ex.get("fills")) > 20
            [told] = await ex.get("account")
            await until(lambda: ex.cash == told.cash)
            await until(lambda: ex.equity == told.equity)
            assert ex.cash_money == told.cash * Decimal("0.01")
        order = await desks[0][0].buy(1, Decimal("50.05"))
        assert order.price == 1_001 and order.price_money == Decimal("50.05")


async def test_newer_orders_survive_kill_9_and_go_on(tmp_path: Path) -> None:
    market = tmp_path / "market.toml"
    market.write_text(MONEY)
    settings = {"journal": str(tmp_path / "x.db"), "market": str(market)}
    async with launched(**settings) as process:  # type: ignore[arg-type]
        url = address(await greeting(process))
        async with (
            Exchange(url, "ann", cancel_on_disconnect=False) as ann,
            Exchange(url, "bob", cancel_on_disconnect=False) as bob,
        ):
            bond, theirs = await ann.market("BOND"), await bob.market("BOND")
            stop = await bond.buy(2, trigger_price=2_004)
            limit = await bond.sell(2, 1_990, trigger_price=1_995)
            ice = await theirs.sell(9, 2_010, display_qty=3)
            await stop.amend(trigger_price=2_003)
            await limit.amend(trigger_price=1_996, price=1_991)
            await ice.amend(display_qty=2)
            process.kill()
            await process.wait()
            again = launched(
                **settings, port=url.rpartition(":")[2]  # type: ignore
            )
            async with again as process:
                await greeting(process)
                await until(lambda: ann.is_connected and bond.is_live)
                await until(lambda: bob.is_connected and theirs.is_live)
                assert stop.is_waiting and limit.is_waiting
                await until(lambda: bond.book.asks == ((2_010, 2),))
                await theirs.sell(1, 2_003)
                await bond.buy(1, 2_003)
                await stop.done()
                assert (stop.trigger_price, stop.cum_qty) == (2_003, 2)
                # They come on another connection, and after the private ones.
                await until(lambda: ice.cum_qty == 2)
                await until(lambda: bond.book.asks == ((2_010, 2),))
                await theirs.buy(3, 1_995)
                await bond.sell(1, 1_995)
                await limit.done()
                assert [f.last_price for f in limit.fills] == [1_995]


async def test_the_blocking_side_places_them_too(tmp_path: Path) -> None:
    market = tmp_path / "market.toml"
    market.write_text(MONEY)
    async with serving(market=market) as server:

        def trade() -> None:
            with BlockingExchange(server.url, "ann") as ann:
                bond = ann.market("BOND")
                stop = bond.buy(2, trigger_price=Decimal("100.20"))
                assert stop.is_waiting and stop.trigger_price == 2_004
                ice = bond.sell(9, Decimal("100.50"), display_qty=3)
                ice.amend(display_qty=2)
                assert ice.display_qty == 2
                stop.cancel()
                assert not stop.is_open

        await asyncio.to_thread(trade)


async def test_send_order_places_newer_orders_and_replay_verifies(
    tmp_path: Path,
) -> None:
    market, journal = tmp_path / "market.toml", str(tmp_path / "x.db")
    market.write_text(MONEY)
    async with launched(  # type: ignore[arg-type]
        journal=journal, market=str(market)
    ) as process:
        url = address(await greeting(process))
        for words, shown in (
            ("--price 100.05", "100.05"),
            ("--trigger 100.20", "stop"),
            ("--trigger 100.20 --price 100.30", "stop"),
            ("--price 100.05 --qty 9 --display 3", "100.05"),
        ):
            line = f"--symbol BOND --url {url} {words}".split()
            async with running(
                *("-m", "util.send_order", *line), env=environment()
            ) as tool:
                status, output, errors = await ended(tool)
            assert (status, shown in output) == (0, True), (output, errors)
        process.terminate()
        await ended(process)
    for options in ((), ("--verify",)):
        async with running(
            *("-m", "util.replay", journal, *options), env=environment()
        ) as tool:
            status, output, errors = await ended(tool)
        assert status == 0, (output, errors)
