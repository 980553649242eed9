"""House bots on a real exchange: what each does, and what it survives."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count, islice, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from client import Exchange, Market, MarketClosed, MarketView, Unauthorized
from exchange.host.market_file import InstrumentSettings
from exchange.market.accounts import HOUSE
from orderbook import Side
from server import Server
from test.relay import Direction, Fate, Relay, relaying, tell
from test.support import (
    PATIENCE_S,
    ROOT,
    add_key,
    address,
    ended,
    greeting,
    launched,
    running,
    serving,
    until,
)
from util.bots import arbitrage, derivative, house, informed, maker, noise
from util.bots.__main__ import parse
from util.bots.arbitrage import arbitrage as trade_the_basket
from util.bots.derivative import make_derived_market
from util.bots.house import run_house
from util.bots.informed import trade_on_knowledge
from util.bots.maker import make_market
from util.bots.noise import trade_at_random
from util.bots.pace import Pace
from util.bots.plan import BadPlan, Plan
from util.bots.value import SWING, FairValue, fair_values, mean_of
from util.bots.worth import means_of

SPEED = 200.0  # acts of a bot in a second: no test waits for a person's pace
ENOUGH = 200  # trades that show a market
LOOKS = 60  # at instruments: more than an arbitrageur needs to act
BOND = InstrumentSettings().listed_as("BOND")
ETF = InstrumentSettings().listed_as("ETF")
# Of seed 7, from its 24th value on.
KNOWN = [101, 102, 102, 103, 103, 103, 104, 104, 105, 105, 106, 107]
MOST = {"maker": maker.MOST, "noise": noise.MOST, "informed": informed.MOST}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house, "PAUSE_S", 0.05)


def plan_for(url: str | None, **changes: Any) -> Plan:
    plan = Plan(
        url=url,
        symbols=(),
        makers=1,
        noise=3,
        informed=1,
        arbitrageurs=0,
        values={"": 100},
        seed=1,
        speed=SPEED,
        user_prefix="house-",
        tokens={},
    )
    return replace(plan, **changes)


@asynccontextmanager
async def working(work: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Let something run that has no end of its own; it must not fail."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([task])
    assert task.cancelled(), task.exception()


@asynccontextmanager
async def watching(url: str) -> AsyncIterator[tuple[Exchange, Market]]:
    """Look at the public data of BOND."""
    async with Exchange(url, user="") as ex:
        yield ex, await ex.market("BOND")


async def trades(market: Market, count: int) -> None:
    """Wait for a number of new trades."""
    stream = market.trades()
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(count):
            await anext(stream)


async def book_until(market: Market, is_so: Callable[[], object]) -> None:
    """Wait until something is so; looked at after each change of a book."""
    async with asyncio.timeout(PATIENCE_S):
        async for _ in market.books():
            if is_so():
                return


def positions(server: Server) -> dict[str, dict[str, int]]:
    """Return the positions of each account of a trader."""
    accounts = server.gateway.engine.accounts
    return {n: a.positions for n, a in accounts.items() if n != HOUSE}


async def public_positions(ex: Exchange) -> dict[str, dict[str, int]]:
    """Return the positions that the leaderboard of an exchange shows."""
    return {row["user"]: row["positions"] for row in await ex.leaderboard()}


# The fair value -----------------------------------------------------------


def test_a_seed_always_gives_the_same_walk() -> None:
    def walk(seed: int, instrument: Any) -> list[int]:
        return [*islice(fair_values(seed, instrument, 100), 1_000)]

    assert walk(7, BOND) == walk(7, BOND)
    assert walk(7, BOND) != walk(8, BOND)
    assert walk(7, BOND) != walk(7, ETF)
    # On every machine and for ever.
    assert walk(7, BOND)[24:36] == KNOWN


@pytest.mark.parametrize(
    "low, high, mean, least, most",
    [
        (1, 100_000, 100, 100 - SWING, 100 + SWING),
        (95, 103, 100, 97, 103),
        (-5, 5, 0, -5, 5),
        (7, 7, 7, 7, 7),
    ],
)
def test_a_walk_is_bounded_and_reverts(
    low: int, high: int, mean: int, least: int, most: int
) -> None:
    instrument = replace(BOND, min_price=low, max_price=high)
    values = [*islice(fair_values(1, instrument, mean), 50_000)]
    assert values[0] == mean
    assert all(abs(b - a) <= 1 for a, b in pairwise(values))
    assert least <= min(values) and max(values) <= most
    assert abs(sum(values) / len(values) - mean) < 1
    assert len(set(values)) > min(most - mean, 4)


@pytest.mark.parametrize(
    "low, high, wanted, mean",
    [
        (1, 100_000, 100, 100),
        (1, 100_000, 500, 500),
        (1, 100, 100, 50),
        (100, 200, 100, 150),
        (-50, -10, 100, -30),
    ],
)
def test_the_mean_is_within_the_bounds(
    low: int, high: int, wanted: int, mean: int
) -> None:
    instrument = replace(BOND, min_price=low, max_price=high)
    assert mean_of(instrument, wanted) == mean


def test_a_value_follows_the_clock() -> None:
    times = iter([1_000.0, 1_000.9, 1_001.0, 1_001.0, 1_004.1])
    value = FairValue(iter(range(50)), 2.0, lambda: next(times))
    assert [value.now() for _ in range(4)] == [1, 2, 2, 8]


# Each bot -----------------------------------------------------------------


@asynccontextmanager
async def two(url: str) -> AsyncIterator[tuple[Exchange, Market, Market]]:
    """Be a bot's account, its market, and that of somebody else."""
    async with Exchange(url, "bot") as ex, Exchange(url, "other") as other:
        yield ex, await ex.market("BOND"), await other.market("BOND")


def shown(market: Market) -> tuple[Any, Any]:
    return market.book.bids, market.book.asks


def shown_prices(market: Market) -> tuple[int | None, int | None]:
    return market.book.bid, market.book.ask


class Looks:
    """A value, and how often a bot has asked for it."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.count = 0

    def __call__(self) -> int:
        self.count += 1
        return self.value

    async def twice_more(self) -> None:
        """Wait until the bot has looked, acted, and looked again."""
        await self.more(2)

    async def more(self, count: int) -> None:
        """Wait until the bot has looked so many times."""
        seen = self.count
        await until(lambda: self.count >= seen + count)


async def test_the_maker_quotes_around_its_belief() -> None:
    async with serving() as server, two(server.url) as (ex, mine, theirs):
        async with working(make_market(ex, mine, 50, SPEED)):
            quotes = (((48, 10),), ((52, 10),))
            await book_until(theirs, lambda: shown(theirs) == quotes)


async def test_the_maker_learns_from_trades_and_leans() -> None:
    async with serving() as server, two(server.url) as (ex, mine, theirs):
        async with working(make_market(ex, mine, 100, SPEED)):
            await book_until(theirs, lambda: theirs.book.bid == 98)
            await theirs.sell(10, 98)
            # It holds 10 now: (5 x 100 + 98) / 6 - 10 / 20 is 99.2.
            quotes = (((97, 10),), ((101, 10),))
            await book_until(theirs, lambda: shown(theirs) == quotes)


@pytest.mark.parametrize("side", ["buy", "sell"])
async def test_the_maker_pulls_a_side_in_time(side: Side) -> None:
    """It stops before two fills of its quote would exceed the limit."""

    def best() -> tuple[int, int] | None:
        book = theirs.book
        levels = book.asks if side == "buy" else book.bids
        return levels[0] if levels else None

    async with serving() as server, two(server.url) as (ex, mine, theirs):
        place = theirs.buy if side == "buy" else theirs.sell
        async with working(make_market(ex, mine, 1_000, SPEED)):
            await book_until(theirs, best)
            while level := best():
                await place(5, level[0], time_in_force="ioc")
                # All 10 lots again: it has seen the fill.
                await book_until(theirs, lambda: (best() or (0, 10))[1] == 10)
        held = maker.MOST - 2 * maker.QTY + 5
        assert mine.position == (-held if side == "buy" else held)


async def test_the_maker_stays_within_the_bounds_of_prices() -> None:
    async with serving() as server, two(server.url) as (ex, mine, theirs):
        async with working(make_market(ex, mine, 1, SPEED)):
            for _ in range(2):  # it does so again and again
                await book_until(theirs, lambda: theirs.book.asks)
                assert shown(theirs)[0] == ()
                await theirs.buy(10)


async def test_the_informed_trader_takes_wrong_prices() -> None:
    looks = Looks(110)
    async with serving() as server, two(server.url) as (_, mine, theirs):
        for qty, price in ((3, 107), (8, 108), (1, 109)):
            await theirs.sell(qty, price)
        async with working(trade_on_knowledge(mine, looks, SPEED)):
            await book_until(theirs, lambda: theirs.book.ask == 109)
            await looks.twice_more()
            assert await theirs.cancel_all() == 1
            # It holds 11 lots, which it gives back where that costs nothing.
            for qty, price in ((6, 112), (4, 110), (3, 109)):
                await theirs.buy(qty, price)
            await book_until(theirs, lambda: theirs.book.bid == 109)
            await looks.twice_more()
            assert (mine.position, shown(theirs)) == (1, (((109, 3),), ()))
            await theirs.cancel_all()
            for qty, price in ((6, 112), (1, 111)):
                await theirs.buy(qty, price)
            await book_until(theirs, lambda: theirs.book.bid == 111)
            await looks.twice_more()
        assert shown(theirs) == (((111, 1),), ())


@pytest.mark.parametrize("price", [90, 110])
async def test_the_informed_trader_has_a_bound(price: int) -> None:
    looks = Looks(100)
    async with serving() as server, two(server.url) as (_, mine, theirs):
        place = theirs.sell if price < 100 else theirs.buy
        await place(200, price)
        async with working(trade_on_knowledge(mine, looks, SPEED)):
            await book_until(
                theirs, lambda: abs(mine.position) >= informed.MOST
            )
            await looks.twice_more()
        assert abs(mine.position) == informed.MOST


async def test_a_noise_trader_has_a_bound() -> None:
    async with serving() as server, two(server.url) as (ex, mine, theirs):
        await theirs.quote(99, 101, 1_000)
        fills = ex.fills()
        async with working(trade_at_random(mine, Random(1), Pace(5 * SPEED))):
            position, most = 0, 0
            async with asyncio.timeout(PATIENCE_S):
                for _ in range(ENOUGH):
                    fill = await anext(fills)
                    lots = fill.last_qty or 0
                    position += lots if fill.side == "buy" else -lots
                    most = max(most, abs(position))
    assert noise.MOST - noise.QTY < most <= noise.MOST


@pytest.mark.parametrize("bid, ask", [(None, 100), (100, None), (50, 100)])
async def test_a_noise_trader_needs_a_market(
    bid: int | None, ask: int | None
) -> None:
    async with (
        serving() as server,
        relaying(server.url) as relay,
        Exchange(relay.url, "bot") as ex,
        Exchange(server.url, "other") as other,
    ):
        await (await other.market("BOND")).quote(bid, ask, 10)
        market = await ex.market("BOND")
        await book_until(market, lambda: market.book.ts)
        async with working(trade_at_random(market, Random(1), Pace(SPEED))):
            await relay_until(relay, lambda: sent(relay, "cancel_all") > 5)
        assert not sent(relay, "place")


async def relay_until(relay: Relay, is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await relay.until(is_so)


def sent(relay: Relay, word: str) -> int:
    """Return how many frames with a word went up."""
    return sum(f'"{word}"' in frame for frame in relay.seen["up"])


@pytest.mark.parametrize(
    "value, bids, asks",
    [
        (100.4, ((98, 5),), ((102, 5),)),
        (2, (), ((4, 5),)),  # no order below 1, the least price
        (-20, (), ((1, 5),)),
        (100_000, ((99_998, 5),), ()),
    ],
)
async def test_the_maker_of_derivatives_quotes_around_the_model(
    value: float, bids: Any, asks: Any
) -> None:
    worth: list[float | None] = [500]
    async with serving() as server, two(server.url) as (_, mine, theirs):
        model = make_derived_market(mine, lambda: worth[0], SPEED)
        async with working(model):
            await book_until(
                theirs, lambda: shown_prices(theirs) == (498, 502)
            )
            worth[0] = value
            await book_until(theirs, lambda: shown(theirs) == (bids, asks))
            worth[0] = None  # the underlying has no price
            await book_until(theirs, lambda: shown(theirs) == ((), ()))


@pytest.mark.parametrize("side", ["buy", "sell"])
async def test_the_maker_of_derivatives_has_a_bound(side: Side) -> None:
    """It leans against its position, and pulls the side that adds to it."""

    def best() -> tuple[int, int] | None:
        levels = theirs.book.asks if side == "buy" else theirs.book.bids
        return levels[0] if levels else None

    async with serving() as server, two(server.url) as (_, mine, theirs):
        place = theirs.buy if side == "buy" else theirs.sell
        sign = -1 if side == "buy" else 1
        async with working(make_derived_market(mine, lambda: 100, SPEED)):
            await book_until(theirs, best)
            while level := best():
                await place(3, level[0], time_in_force="ioc")
                # All lots again: it has seen the fill.
                await book_until(theirs, lambda: (best() or (0, 5))[1] == 5)
            # 42 lots moved the value by 4.2 ticks; 39 and two quotes are 49.
            other = 100 - 4 * sign + derivative.EDGE * sign
            await book_until(theirs, lambda: other in shown_prices(theirs))
        assert mine.position == 42 * sign
        assert 42 + 2 * derivative.QTY > derivative.MOST


# The basket ---------------------------------------------------------------


FUND = """
[instruments.BOND]
[instruments.SHARE]
[instruments.FUND]
convert = { lot = 5, fee = 10, basket = { BOND = 1, SHARE = 2 } }
"""


@dataclass
class Basket:
    """A fund of a bond and two shares: a bot's account, and another's.

    ``fair`` offers to trade the basket of two conversions, at 100 for a BOND
    and 50 for a SHARE: a lot of the fund is worth 200.
    """

    bot: Exchange
    mine: dict[str, Market]
    theirs: dict[str, Market]

    def lots(self) -> dict[str, int]:
        """Return the bot's positions that are not 0."""
        return {s: lots for s, lots in self.bot.positions.items() if lots}

    async def fair(self, side: Side) -> None:
        for symbol, qty, price in (("BOND", 10, 100), ("SHARE", 20, 50)):
            market = self.theirs[symbol]
            await (market.buy if side == "buy" else market.sell)(qty, price)
        for market in self.mine.values():
            await book_until(market, lambda: market.book.ts)


@asynccontextmanager
async def basket(folder: Path) -> AsyncIterator[Basket]:
    path = folder / "market.toml"
    path.write_text(FUND)
    names = ("BOND", "SHARE", "FUND")
    async with (
        serving(market=path) as server,
        Exchange(server.url, "bot") as bot,
        Exchange(server.url, "other") as other,
    ):
        yield Basket(
            bot,
            {name: await bot.market(name) for name in names},
            {name: await other.market(name) for name in names},
        )


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Count how often anybody looks at an instrument."""
    looked = Looks(0)
    instrument: Any = MarketView.instrument.fget  # type: ignore[attr-defined]

    def counted(market: Market) -> Any:
        looked()
        return instrument(market)

    monkeypatch.setattr(MarketView, "instrument", property(counted))
    return looked


@pytest.mark.parametrize(
    "side, price, vain", [("buy", 203, 202), ("sell", 197, 198)]
)
async def test_the_arbitrageur_converts(
    side: Side, price: int, vain: int, tmp_path: Path, looks: Looks
) -> None:
    """Where a conversion earns more than its fee of 10, dear or cheap."""
    async with basket(tmp_path) as it:
        fund = it.theirs["FUND"]
        place = fund.buy if side == "buy" else fund.sell
        await it.fair("sell" if side == "buy" else "buy")
        order = await place(5, vain)
        work = trade_the_basket(it.mine["FUND"], it.mine, SPEED)
        async with working(work):
            await book_until(it.mine["FUND"], lambda: it.mine["FUND"].book.seq)
            await looks.more(LOOKS)
            assert (it.bot.cash, it.lots()) == (0, {})
            await place(5, price)
            await until(lambda: it.bot.cash == 5)  # 5 x 3 - 10
            await looks.more(LOOKS)
        assert order.cum_qty == 0
        assert (it.bot.cash, it.lots()) == (5, {})


async def test_the_arbitrageur_converts_all_it_can_for_one_fee(
    tmp_path: Path,
) -> None:
    async with basket(tmp_path) as it:
        await it.fair("sell")  # enough for two conversions
        await it.theirs["FUND"].buy(13, 203)
        work = trade_the_basket(it.mine["FUND"], it.mine, SPEED)
        async with working(work):
            await until(lambda: it.bot.cash == 10 * 3 - 10)
            await until(lambda: not it.lots())


@pytest.mark.parametrize("side", ["buy", "sell"])
async def test_the_arbitrageur_gives_back_what_is_left(
    side: Side, tmp_path: Path
) -> None:
    """As after a conversion of which a leg was not filled."""
    async with basket(tmp_path) as it:
        mine, theirs = it.mine["SHARE"], it.theirs["SHARE"]
        await (theirs.sell if side == "buy" else theirs.buy)(7, 50)
        await (mine.buy if side == "buy" else mine.sell)(7, 50)
        await (theirs.buy if side == "buy" else theirs.sell)(7, 48)
        work = trade_the_basket(it.mine["FUND"], it.mine, SPEED)
        async with working(work):
            await until(lambda: not it.lots())
        assert abs(it.bot.cash) == 7 * 2


async def test_the_arbitrageur_has_a_bound(
    tmp_path: Path, looks: Looks
) -> None:
    """It would hold 205 lots of SHARE amid a conversion, then 200."""
    async with basket(tmp_path) as it:
        share = it.theirs["SHARE"]
        await share.sell(195, 50)
        await it.mine["SHARE"].buy(195, 50)
        await it.fair("sell")
        await it.theirs["FUND"].buy(5, 250)
        work = trade_the_basket(it.mine["FUND"], it.mine, SPEED)
        async with working(work):
            await book_until(it.mine["FUND"], lambda: it.mine["FUND"].book.bid)
            await looks.more(LOOKS)
            assert (it.bot.cash, it.lots()) == (-195 * 50, {"SHARE": 195})
            await share.buy(5, 49)
            await it.mine["SHARE"].sell(5, 49)
            await until(lambda: it.bot.cash == 240 - 195 * 50 + 5 * 49)
        assert it.lots() == {"SHARE": 190}
        assert arbitrage.MOST == 190 + 2 * 5


async def test_four_instruments_trade_in_the_demo() -> None:
    market = ROOT / "util" / "presets" / "demo.toml"
    async with serving(market=market) as server:
        plan = plan_for(server.url, values={}, arbitrageurs=1)
        async with Exchange(server.url, user="") as ex:
            symbols = [*ex.instruments]
            assert symbols == ["BOND", "SHARE", "FUND", "CALL"]
            seen = [await ex.market(symbol) for symbol in symbols]
            async with working(run_house(plan)):
                for one in seen:
                    await book_until(one, lambda: one.book.mid)
                await asyncio.gather(*(trades(one, 10) for one in seen))
            traders = positions(server)
    assert set(traders) == {name for _, name in plan.names()}


# The house ----------------------------------------------------------------


async def test_bots_make_a_market() -> None:
    async with serving(symbols=("BOND", "ETF")) as server:
        plan = plan_for(server.url)
        async with watching(server.url) as (ex, market):
            etf = await ex.market("ETF")
            async with working(run_house(plan)):
                for _ in range(ENOUGH // 10):
                    await trades(market, 10)
                    for user, lots in positions(server).items():
                        most = MOST[user.split("-")[1]]
                        assert all(abs(p) <= most for p in lots.values())
                for one in (market, etf):
                    await book_until(one, lambda: one.book.mid)
            held = positions(server)
    assert set(held) == {name for _, name in plan.names()}
    for symbol in ("BOND", "ETF"):
        each = [row.get(symbol, 0) for row in held.values()]
        assert sum(each) == 0 and len([p for p in each if p]) > 2


async def test_a_house_can_be_small() -> None:
    async with serving(symbols=("BOND", "ETF")) as server:
        plan = plan_for(
            server.url,
            symbols=("ETF",),
            noise=0,
            informed=0,
            user_prefix="my.",
            values={"": 500},
        )
        async with Exchange(server.url, user="") as ex:
            etf, bond = await ex.market("ETF"), await ex.market("BOND")
            async with working(run_house(plan)):
                await book_until(etf, lambda: shown_prices(etf) == (498, 502))
            assert set(positions(server)) == {"my.maker-1"}
            assert shown(bond) == ((), ())


# Trouble ------------------------------------------------------------------


def spoil(relay: Relay, code: str, which: str = "", **more: Any) -> None:
    """Let the exchange refuse orders, with a code of our choice.

    Of frames that begin with ``which``.
    """

    def fault(way: Direction, n: int, frame: str) -> Fate | list[str]:
        is_order = '"place"' in frame or '"amend"' in frame
        if way == "up" and is_order and frame.startswith(which):
            return [re.sub(r'"qty":\d+', '"qty":9999', frame)]
        if way == "down" and '"invalid_qty"' in frame:
            said = json.dumps({"code": code, **more})[1:-1]
            return [frame.replace('"code":"invalid_qty"', said)]
        return "pass"

    relay.fault = fault


def mend(relay: Relay) -> None:
    """Spoil no more orders; those refused already keep their code."""
    spoiled = relay.fault
    relay.fault = lambda way, n, frame: (
        "pass" if way == "up" else spoiled(way, n, frame)
    )


@pytest.mark.parametrize(
    "code, more",
    [
        ("market_closed", {}),
        ("position_limit", {}),
        ("insufficient_funds", {}),
        ("rate_limited", {"retry_after_ms": 70}),
        ("solar_flare", {}),
    ],
)
async def test_refusals_pass(
    code: str, more: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        serving() as server,
        relaying(server.url) as relay,
        watching(server.url) as (ex, market),
        working(run_house(plan_for(relay.url))),
    ):
        await trades(market, 10)
        spoil(relay, code, **more)
        await relay_until(relay, lambda: refused(relay) > 5)  # some twice
        mend(relay)
        await trades(market, 30)
    told = capsys.readouterr().err.splitlines()
    assert told and len(told) == len(set(told))  # each bot says it once
    for line in told:
        name, _, reason = line.partition(": ")
        assert name.startswith("house-")
        assert reason == f"{code}: qty 9999 is above the maximum of 1000"


def refused(relay: Relay) -> int:
    return sum("invalid_qty" in frame for frame in relay.seen["down"])


@pytest.mark.parametrize("word", ["status", "login"])
async def test_a_bot_waits_while_the_market_is_closed(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    polls = count()
    instrument: Any = MarketView.instrument.fget  # type: ignore[attr-defined]

    def polled(market: Market) -> Any:
        next(polls)
        return instrument(market)

    monkeypatch.setattr(MarketView, "instrument", property(polled))
    monkeypatch.setattr(house, "PAUSE_S", 0.001)
    async with (
        serving() as server,
        relaying(server.url) as relay,
        Exchange(relay.url, "bot") as ex,
    ):
        market, tries = await ex.market("BOND"), 0
        bot = house.Bot("noise", "bot", ex, 0, 0)

        async def trade() -> None:
            nonlocal tries
            tries += 1
            raise MarketClosed("market_closed", "BOND is halted")

        statuses = ex.statuses()
        await tell(relay, symbol="BOND", phase="halted")
        await anext(statuses)
        async with working(house.keep_trading(bot, market, trade)):
            await until(lambda: next(polls) > 1_000)
            assert not tries
            if word == "status":
                await tell(relay, symbol="BOND", phase="open")
            else:
                relay.cut()
            await until(lambda: tries)


@pytest.mark.parametrize("name", ["exchange.db", "off"])
async def test_bots_live_through_kill_9(tmp_path: Path, name: str) -> None:
    journal = name if name == "off" else str(tmp_path / name)
    market = tmp_path / "market.toml"
    market.write_text("public_positions = true\n[instruments.BOND]\n")
    settings = {"journal": journal, "debug": "0", "market": str(market)}
    async with launched(**settings) as process:
        url = address(await greeting(process))
        async with (
            watching(url) as (ex, market),
            working(run_house(plan_for(url))),
        ):
            await trades(market, 20)
            process.kill()
            await process.wait()
            port = url.rpartition(":")[2]
            async with launched(**settings, port=port) as new:
                await greeting(new)
                held: dict[str, dict[str, int]] = {}
                async with asyncio.timeout(PATIENCE_S):
                    while not {"house-maker-1", "house-noise-1"} <= set(held):
                        await trades(market, 20)
                        held = await public_positions(ex)
                await book_until(market, lambda: market.book.mid)
                held = await public_positions(ex)
                assert sum(p.get("BOND", 0) for p in held.values()) == 0


async def test_a_bot_that_is_thrown_out_ends_the_house() -> None:
    async with serving() as server, relaying(server.url) as relay:
        house_task = asyncio.create_task(run_house(plan_for(relay.url)))
        async with watching(server.url) as (_, market):
            await trades(market, 5)
            spoil(relay, "unauthorized", "[")  # the maker's
            async with asyncio.timeout(PATIENCE_S):
                with pytest.raises(Unauthorized):
                    await house_task
            await book_until(market, lambda: shown(market) == ((), ()))


# The process --------------------------------------------------------------


@asynccontextmanager
async def tool(url: str, *arguments: str) -> AsyncIterator[Process]:
    """Run ``python -m util.bots``; kill it at the end."""
    async with running(
        *("-W", "error", "-m", "util.bots", *arguments),
        env={**os.environ, "EXCHANGE_URL": url},
    ) as process:
        yield process


async def test_a_signal_ends_the_house_in_order() -> None:
    async with (
        serving() as server,
        relaying(server.url) as relay,
        watching(server.url) as (ex, market),
    ):
        async with tool(relay.url, "--speed", "100") as process:
            await trades(market, 50)
            process.terminate()
            status, output, errors = await ended(process)
        assert (status, errors) == (0, "")
        first, *lines, last = output.splitlines()
        began = r"5 house bots trade with --seed \d+; Ctrl-C stops them"
        assert re.fullmatch(began, first)
        assert re.fullmatch(r"BOND: worth \d+", last)
        lots = r"(?:BOND (-?\d+)|none)"
        pattern = rf"house-(\w+-\d): position {lots}, profit (-?\d+)"
        found = [re.fullmatch(pattern, line) for line in lines]
        told = {m[1]: (int(m[2] or 0), int(m[3])) for m in found if m}
        assert len(found) == len(told) == 5, output
        assert [sum(column) for column in zip(*told.values())] == [0, 0]
        for user, held in positions(server).items():
            name = user.removeprefix("house-")
            assert told[name][0] == held.get("BOND", 0)
        assert shown(market) == ((), ())
        # Canceled by themselves, not by hanging up; and once at the start.
        cancels = [f for f in relay.seen["up"] if '"cancel_all"' in f]
        assert len([f for f in cancels if '"symbol"' not in f]) == 5 + 5


async def test_an_unknown_symbol_is_reported() -> None:
    async with serving() as server:
        async with tool(server.url, "--symbols", "BOND,NONE") as process:
            status, output, errors = await ended(process)
    assert (status, output) == (1, "")
    assert errors.startswith("bots: ") and "NONE" in errors


def test_the_command_line() -> None:
    plan = parse(["--seed", "1"])
    assert plan == plan_for(None, speed=1.0, symbols=[], values={}, fixed=[])
    plan = parse(["--symbols", "BOND, ETF", "--speed", "2.5", "--noise=0"])
    assert (plan.symbols, plan.speed) == (["BOND", "ETF"], 2.5)
    assert [name for _, name in plan.names()] == [
        "house-maker-1",
        "house-informed-1",
    ]


def test_the_seed_cannot_be_guessed() -> None:
    seeds = [parse([]).seed for _ in range(20)]
    assert len({*seeds}) == 20
    assert max(seeds).bit_length() > 100


def test_an_instrument_has_a_value_of_its_own() -> None:
    plan = parse(["--value", "90", "--value", "ETF=-5", "--value=X.1=7"])
    assert plan.values == {"": 90, "ETF": -5, "X.1": 7}
    dear = InstrumentSettings(reference_price=9_000).listed_as("DEAR")
    etf = InstrumentSettings(min_price=-9).listed_as("ETF")
    listed = {i.symbol: i for i in (BOND, etf, dear)}
    assert means_of(plan, listed) == {"BOND": 90, "ETF": -5, "DEAR": 90}
    plan = parse(["--value", "ETF=500"])
    listed["ETF"] = ETF
    assert means_of(plan, listed) == {"BOND": 100, "ETF": 500, "DEAR": 9_000}
    with pytest.raises(BadPlan, match="ETF=500: must lie between -9"):
        means_of(plan, {"ETF": replace(etf, max_price=100)})


async def test_a_value_of_an_unknown_symbol_is_refused() -> None:
    async with serving(symbols=("BOND", "ETF")) as server:
        arguments = ["--url", server.url, "--value", "NONE=5"]
        with pytest.raises(BadPlan, match="^--value: NONE is not"):
            await run_house(parse([*arguments, "--symbols", "BOND"]))
        async with tool(server.url, *arguments) as process:
            status, output, errors = await ended(process)
        assert (status, output) == (2, "")
        assert errors == "bots: --value: NONE is not traded\n"


async def test_the_house_shows_its_seed_and_at_the_end_its_values() -> None:
    async with serving(symbols=("BOND", "ETF")) as server:
        async with watching(server.url) as (_, market):
            words = "--seed 77 --value ETF=500 --speed 100".split()
            async with tool(server.url, *words) as process:
                await trades(market, 50)
                process.send_signal(signal.SIGINT)
                _, output, _ = await ended(process)
    assert "--seed 77;" in output.splitlines()[0]
    for symbol, mean in (("BOND", 100), ("ETF", 500)):
        [worth] = re.findall(rf"^{symbol}: worth (\d+)$", output, re.M)
        assert abs(int(worth) - mean) <= SWING


@pytest.mark.parametrize(
    "arguments, told",
    [
        ("--makers -1", "0 or more"),
        ("--makers x", "invalid"),
        ("--speed 0", "above 0"),
        ("--speed inf", "above 0"),
        ("--speed nan", "above 0"),
        ("--makers 0 --noise 0 --informed 0", "no bots"),
        ("--value x", "'x' is neither TICKS nor SYMBOL=TICKS"),
        ("--value BOND=", "neither"),
        ("--value =5", "neither"),
        ("--tokens missing", "missing"),
        ("--tokens bad", "line 3: not name, tab, token"),
        ("--tokens few", "few has no house-noise-2"),
    ],
)
def test_a_wrong_command_line_is_refused(
    arguments: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad").write_text("house-maker-1\tabc\n\nhouse-noise-1 abc\n")
    Path("few").write_text("house-maker-1\tabc\nhouse-noise-1\tabc\n")
    with pytest.raises(SystemExit) as left:
        parse(arguments.split())
    assert left.value.code == 2
    assert told in capsys.readouterr().err


async def test_a_bot_that_is_not_let_in_is_named(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    token = add_key(keys, "house-maker-1")
    tokens = tmp_path / "tokens"
    tokens.write_text(f"house-maker-1\t{token}\nhouse-noise-1\twrong\n")
    few = ["--noise", "1", "--informed", "0"]
    async with serving(keys=keys) as server:
        few += ["--url", server.url]
        with pytest.raises(Unauthorized) as first:
            await run_house(parse(few))
        with pytest.raises(Unauthorized) as second:
            await run_house(parse([*few, "--tokens", str(tokens)]))
    assert str(first.value) == (
        "house-maker-1: unknown user or wrong token; its key comes from a"
        " file: --tokens FILE"
    )
    assert str(second.value) == "house-noise-1: unknown user or wrong token"


async def test_each_bot_shows_its_own_token(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    names = [name for _, name in plan_for(None).names()]
    path.write_text("".join(f"{name}\tkey of {name}\n" for name in names))
    async with serving() as server, relaying(server.url) as relay:
        plan = parse(["--tokens", str(path), "--url", relay.url])
        async with working(run_house(plan)):
            await relay_until(relay, lambda: sent(relay, "place"))
        logins = [json.loads(f) for f in relay.seen["up"] if "login" in f]
    assert {row["user"]: row["token"] for row in logins} == {
        name: f"key of {name}" for name in names
    }
