"""The page with much of everything, and what a reload of it must not lose."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from exchange.host.clock import Clock
from test.doors.browsing import (
    FRAME,
    admin,
    ladder,
    place,
    shows,
    sign_in,
    trade,
    visiting,
)
from test.support import (
    PATIENCE_S,
    Wire,
    add_key,
    order,
    serving,
    wired,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHONE = {"width": 390, "height": 844}
SMALL = {"width": 1280, "height": 720}
HD = {"width": 1920, "height": 1080}
MINUTE = 60_000_000  # microseconds
DAY = 1_430  # minutes; some more may pass while they are traded
TEAMS = 200
DOZEN = tuple(f"FUTURE-{month:02}" for month in range(1, 13))
# Keeps the objects of the page's modules, which nothing else can reach.
KEEP = """() => {
    window.kept = {};
    const keep = (name, module, key) => import(module).then((m) => {
        const { prototype } = m[key];
        const { draw } = prototype;
        prototype.draw = function (...args) {
            window.kept[name] = this;
            return draw.apply(this, args);
        };
    });
    return Promise.all([
        keep("quotes", "/chart_history.js", "QuoteLines"),
        keep("rounds", "/chart_history.js", "RoundLines"),
    ]).then(() => true);
}"""
# The highest and the newest best ask in the chart.
ASKS = """() => {
    const [, { series }] = window.kept.quotes?.lines ?? [0, {}];
    const values = (series?.data() ?? []).map(({ value }) => value ?? 0);
    return [Math.max(...values), values.at(-1)];
}"""
FITS = """() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    return scrollWidth <= clientWidth;
}"""


async def until(page: Page, condition: str, wanted: Any = True) -> None:
    """Wait until a function in the page returns a value."""
    async with asyncio.timeout(PATIENCE_S):
        while await page.evaluate(condition) != wanted:
            await page.evaluate(FRAME)


@contextlib.asynccontextmanager
async def ruled(
    tmp_path: Path, *users: str
) -> AsyncIterator[tuple[str, dict[str, str], dict[str, Wire]]]:
    """Serve accounts with keys; "boss" is an administrator."""
    keys = tmp_path / "keys.json"
    tokens = {u: add_key(keys, u, u == "boss") for u in ("boss", *users)}
    async with (
        serving(keys=keys) as server,
        contextlib.AsyncExitStack() as stack,
    ):
        wires = {
            user: await stack.enter_async_context(
                wired(server.url, user, token=token)
            )
            for user, token in tokens.items()
        }
        yield server.url, tokens, wires


# What a reload must not lose -------------------------------------------------


async def test_equity_and_quotes_survive_a_reload(
    browser: Browser, tmp_path: Path
) -> None:
    async with (
        ruled(tmp_path, "bob", "carol", "alice") as (url, tokens, wires),
        visiting(browser, url) as page,
    ):
        bob, carol, boss = wires["bob"], wires["carol"], wires["boss"]
        await page.evaluate(KEEP)
        await bob.ask(**order("sell", 9, 510))
        while await page.evaluate(ASKS) != [510, 510]:
            await trade(bob, carol, 500)
        await sign_in(page, "alice", tokens["alice"])
        await page.click("#tab-curve")
        words = page.locator("#curve-words")
        await expect(words).to_contain_text("from 0 to 0")
        await place(page, "buy", 3, "510")
        await trade(bob, carol, 490)
        await bob.ask(**order("sell", 9, 495))
        while await page.evaluate(ASKS) != [510, 495]:
            await trade(bob, carol, 490)
        await expect(words).to_contain_text("between −60 and 0")
        since = re.match("Since [0-9:]{8}", await words.inner_text())
        assert since
        await page.reload()
        await page.click("#tab-curve")
        await expect(words).to_contain_text("between −60 and 0")
        assert (await words.inner_text()).startswith(since[0])
        # The asks of before the reload are in the chart, bar by bar.
        await page.evaluate(KEEP)
        await until(page, ASKS, [510, 495])
        # With a new round it begins again.
        await admin(boss, "reset")
        await expect(words).to_contain_text("between 0 and 0")


async def test_a_round_begins_at_a_line_in_both_charts(
    browser: Browser, tmp_path: Path
) -> None:
    async with (
        ruled(tmp_path, "bob", "carol") as (url, _, wires),
        visiting(browser, url) as page,
    ):
        bob, carol, boss = wires["bob"], wires["carol"], wires["boss"]
        await page.evaluate(KEEP)
        await trade(bob, carol, 500)
        lines = """() => {
            const { rounds, chart } = window.kept.rounds ?? {};
            const first = chart?.series.data()[0];
            return rounds?.map(
                ([time, words]) => [time === first.time, words]);
        }"""
        await until(page, lines, [])
        await admin(boss, "reset")
        await trade(bob, carol, 510)
        await trade(bob, carol, 520)
        await until(page, lines, [[True, "Round 2"]])
        # Also when there were no bars before, the first one is in sight.
        ends = """() => {
            const { chart } = window.kept.rounds.chart;
            return chart.timeScale().getVisibleLogicalRange().from < 0.2;
        }"""
        await until(page, ends)
        await page.check("[value=trades]", force=True)
        await until(page, lines, [[True, "Round 2"]])
        await page.click("#menu > summary")
        await page.check("#earlier input")
        await until(page, lines, [[False, "Round 2"]])


# Much of everything ----------------------------------------------------------


async def test_a_day_of_minutes_can_be_seen_and_panned(
    browser: Browser,
) -> None:
    clock = Clock()
    async with (
        serving(clock=clock) as server,
        wired(server.url, "bob") as bob,
        wired(server.url, "carol") as carol,
    ):
        for minute in range(DAY):
            await trade(bob, carol, 500 + minute % 7)
            clock.forward(MINUTE)
        async with visiting(browser, server.url) as page:
            await page.evaluate(KEEP)
            await page.check("[value='1m']", force=True)
            count = "() => window.kept.rounds?.chart.candles.data().length"
            await until(page, count, DAY)
            await expect(page.locator("#latest")).to_be_hidden()
            await page.evaluate(
                "() => window.kept.rounds.chart.chart.timeScale()"
                ".setVisibleLogicalRange({ from: 0, to: 60 })"
            )
            await expect(page.locator("#latest")).to_be_visible()
            await trade(bob, carol, 505)
            await shows_price(page, "505")
            # A trade does not move what one looks at.
            first = """() => Math.round(window.kept.rounds.chart.chart
                .timeScale().getVisibleLogicalRange().from)"""
            assert await page.evaluate(first) == 0
            await page.click("#latest")
            await page.mouse.move(0, 0)  # the legend shows the newest bar
            await expect(page.locator("#latest")).to_be_hidden()
            legend = page.locator("#legend")
            await expect(legend).to_contain_text("C 505")


async def shows_price(page: Page, price: str) -> None:
    await expect(page.locator("#last")).to_contain_text(price)


async def test_twelve_instruments_and_the_one_shown_is_in_sight(
    browser: Browser,
) -> None:
    async with serving(symbols=DOZEN) as server:
        async with (
            wired(server.url, "bob") as bob,
            wired(server.url, "carol") as carol,
            visiting(browser, server.url, viewport=SMALL) as page,
        ):
            for n, symbol in enumerate(DOZEN):
                await trade(bob, carol, 500 + n, symbol=symbol)
            await page.evaluate("(s) => { location.hash = s; }", DOZEN[-1])
            shown = page.locator("#instruments [aria-pressed=true]")
            await expect(shown).to_contain_text(f"{DOZEN[-1]}511")
            for size in (SMALL, PHONE, SMALL):
                await page.set_viewport_size(size)  # type: ignore[arg-type]
                await expect(shown).to_be_in_viewport(ratio=0.99)
                assert await page.evaluate(FITS)
            await page.click("#overview-open")
            rows = page.locator("#overview-rows tr:visible")
            await expect(rows).to_have_count(len(DOZEN))
            await expect(rows.last).to_contain_text(f"{DOZEN[-1]}511")


def teams() -> Iterator[tuple[str, int]]:
    """Return teams with the lots that each buys."""
    for n in range(1, TEAMS + 1):
        yield f"team-{n:03}", n


async def test_two_hundred_accounts(browser: Browser) -> None:
    """On the leaderboard, where the own row stays in sight, and the wall."""
    async with serving() as server:
        async with (
            wired(server.url, "zz-maker") as maker,
            visiting(browser, server.url, viewport=HD) as page,
        ):
            for name, lots in teams():
                await maker.ask(**order("sell", lots, 500))
                async with wired(server.url, name) as wire:
                    await wire.ask(**order("buy", lots, 500))
            # The more they have, the more they win.
            await maker.ask(**order("sell", 9, 520))
            async with wired(server.url, "team-200") as wire:
                await wire.ask(**order("buy", 1, 520))
            await sign_in(page, "team-003", "")
            own = page.locator("#leaderboard .us")
            await expect(own).to_have_text("198team-003 (you)+360")
            cells = own.locator("td")  # they are what sticks
            await expect(cells.first).to_be_in_viewport(ratio=0.99)
            first = page.locator("#leaderboard tr").first
            await expect(first).to_contain_text("1team-200")
            rows = page.locator("#leaderboard tr:visible")
            await expect(rows).to_have_count(21)
            await page.evaluate("location.hash = 'wall'")
            ranked = page.locator("#wall-standings tr:visible")
            await expect(ranked).to_have_count(10)
            await expect(page.locator("#wall-more")).to_have_text(
                f"and {TEAMS + 1 - 10} more"
            )
            for size in (SMALL, HD):
                await page.set_viewport_size(size)  # type: ignore[arg-type]
                await expect(ranked.last).to_be_in_viewport(ratio=0.99)
            await page.set_viewport_size(PHONE)  # type: ignore[arg-type]
            assert await page.evaluate(FITS)


@pytest.mark.parametrize("count", [1, 7, 12, 40])
async def test_the_wall_has_room_for_its_prices(
    browser: Browser, count: int
) -> None:
    symbols = tuple(f"BOND-{n}" for n in range(count))
    async with serving(symbols=symbols) as server:
        async with visiting(browser, server.url, viewport=HD) as page:
            await page.evaluate("location.hash = 'wall'")
            prices = page.locator("#wall-strip li")
            await expect(prices).to_have_count(count)
            boxes = [await one.bounding_box() for one in await prices.all()]
            assert all(box and box["width"] > 100 for box in boxes)
            leaders = await page.locator("#wall-leaders").bounding_box()
            assert leaders and leaders["height"] > 1080 / 2


async def test_a_bad_message_is_seen_wherever_one_is(browser: Browser) -> None:
    async with serving() as server:
        async with visiting(browser, server.url, viewport=PHONE) as page:
            notice = page.locator("#notice")
            await expect(notice).to_be_hidden()
            await page.evaluate("location.hash = 'FOO' + '-BAR'.repeat(20)")
            await expect(notice).to_contain_text("-BAR is not listed")
            # A long message leaves the word on the button whole.
            close = await page.locator("#notice-close").bounding_box()
            assert close and close["width"] > close["height"]
            await page.click("#notice-close")
            await expect(notice).to_be_hidden()
            # Not where the list of messages is in sight.
            await page.set_viewport_size(HD)  # type: ignore[arg-type]
            await page.evaluate("location.hash = 'BAR'")
            await expect(page.locator("#messages")).to_contain_text("BAR is")
            assert await notice.is_hidden()
            assert await ladder(page) == [[], []]
            await shows(page, "#tape")
