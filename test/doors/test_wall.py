"""The wall of the page, in a real browser, on a real exchange."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from server import Server
from test.doors.browsing import FRAME, GONE, MARKUP, browsing, shows, visiting
from test.support import Wire, add_key, order, serving, wired

pytestmark = pytest.mark.asyncio(loop_scope="module")

MARKET = """
[instruments.BOND]
tick_size = "0.5"
[instruments.ETF]
tick_size = "0.5"
"""
HD = {"width": 1920, "height": 1080}
FOUR_K = {"width": 3840, "height": 2160}
PHONE = {"width": 390, "height": 844}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with browsing() as browser:
        yield browser


@contextlib.asynccontextmanager
async def ruled(tmp_path: Path) -> AsyncIterator[tuple[Server, Wire]]:
    """Run an exchange of two instruments, and connect its administrator."""
    market, keys = tmp_path / "market.toml", tmp_path / "keys.json"
    market.write_text(MARKET)
    tokens = {
        "boss": add_key(keys, "boss", is_admin=True),
        "maker": add_key(keys, "maker", role="house"),
    }
    async with serving(market=market, keys=keys, open=True) as server:
        async with wired(server.url, "boss", token=tokens["boss"]) as boss:
            async with wired(
                server.url, "maker", token=tokens["maker"]
            ) as maker:
                for symbol in ("BOND", "ETF"):
                    await maker.ask(**order("sell", 50, 101, symbol=symbol))
                    await maker.ask(**order("buy", 50, 99, symbol=symbol))
                yield server, boss


async def ask(boss: Wire, action: str, **fields: Any) -> None:
    reply = await boss.ask(
        type="admin", id=1, action=action, reason="test", **fields
    )
    assert "ok" in [message["type"] for message in reply], reply


@contextlib.asynccontextmanager
async def watching(
    browser: Browser, url: str, **options: Any
) -> AsyncIterator[Page]:
    """Open the page, and its wall."""
    async with visiting(browser, url, **options) as page:
        await page.click("#menu summary")
        await page.click("#to-wall")
        await expect(page.locator("#wall")).to_be_visible()
        yield page


async def text_heights(page: Page) -> dict[str, float]:
    """Return the height of the texts of the wall, in pixels."""
    heights: dict[str, float] = await page.evaluate(
        """() => Object.fromEntries(
            ["#wall-standings .name", "#wall-left", "#wall-curves text",
             "#wall-trades td", "#wall-news li", "#wall-since"]
              .map((name) => [name, parseFloat(
                getComputedStyle(document.querySelector(name)).fontSize)]))"""
    )
    return heights


async def curves_are_bounded(page: Page) -> None:
    """A wall that hangs for a day keeps few values, from the first on."""
    kept = await page.evaluate("""async () => {
            const { Equities, SHOWN } = await import("./equity.js");
            const equities = new Equities();
            for (let ts = 1; ts <= 5000; ts += 1) {
              const rows = Array.from({ length: 60 }, (_, index) => ({
                user: `u${(index + ts) % 70}`, rank: index, equity: ts }));
              equities.take(ts, rows);
            }
            const curves = equities.curves(
              Array.from({ length: SHOWN }, (_, index) => ({
                user: `u${(index + 5000) % 70}`, rank: index })));
            return {
              times: equities.times,
              users: equities.values.size,
              colours: new Set(curves.map(({ colour }) => colour)).size,
              last: curves.map(({ points }) => points.at(-1)),
            };
          }""")
    times = kept["times"]
    assert 200 < len(times) <= 481 and times == sorted(set(times))
    assert times[0] == 1 and times[-1] == 5_000
    assert kept["users"] <= 70 and kept["colours"] == 10
    assert kept["last"] == [[5_000, 5_000]] * 10


async def test_a_wall_shows_the_round(
    browser: Browser, tmp_path: Path
) -> None:
    async with (
        ruled(tmp_path) as (server, boss),
        wired(server.url, "ann") as ann,
        wired(server.url, "bob") as bob,
    ):
        await bob.ask(**order("buy", 1, 101, symbol="BOND"))
        async with watching(browser, server.url, viewport=HD) as page:
            # Late: what happened before is there.
            await shows(page, "#wall-trades", "▲BOND50.51")
            await expect(page.locator("#wall-left")).to_be_empty()
            await expect(page.locator("#wall-name")).to_have_text("Exchange")
            await ask(boss, "match", name="Cup/03", round="3 of 5")
            await ask(boss, "phase", phase="open", close_ms=600_000)
            await ask(boss, "news", headline=MARKUP, symbol="ETF", value=-5)
            await ann.ask(**order("buy", 3, 101, symbol="ETF"))
            await bob.ask(**order("sell", 2, 99, symbol="BOND"))
            await shows(
                page,
                "#wall-trades",
                *("▼BOND49.52", "▲ETF50.53", "▲BOND50.51"),
            )
            await expect(page.locator("#wall-name")).to_have_text("Cup/03")
            await expect(page.locator("#wall-round")).to_have_text(
                "Round 3 of 5"
            )
            await expect(page.locator("#wall-phase")).to_have_text("● Open")
            await expect(page.locator("#wall-left")).to_have_text(
                re.compile(r"^(10:00|9:5\d)$")
            )
            await expect(page.locator("#wall-news li").first).to_contain_text(
                f"ETF: {MARKUP} (-5)"
            )
            prices = page.locator("#wall-strip li")
            await expect(prices).to_have_text(["BOND49.5▼ 1.0", "ETF50.5"])
            # The house has traded most, and has no rank.
            await shows(page, "#wall-standings", "1ann0.0", "2bob−1.0")
            names = page.locator("#wall-curves text.name")
            await expect(names).to_have_text(["1 ann", "2 bob"])
            await expect(page.locator("#wall-curves .curve")).to_have_count(2)
            for hidden in ("#ticket", "header", "#chart"):
                await expect(page.locator(hidden)).to_be_hidden()
            small = await text_heights(page)
            assert all(height >= 0.024 * 1080 - 1 for height in small.values())
            await page.set_viewport_size(FOUR_K)
            large = await text_heights(page)
            for name, height in large.items():
                assert height == pytest.approx(2 * small[name], rel=0.01)
            for size in (HD, FOUR_K, PHONE):
                await page.set_viewport_size(size)  # type: ignore[arg-type]
                assert await page.evaluate(
                    "() => document.documentElement.scrollWidth"
                    " <= document.documentElement.clientWidth"
                )
            await curves_are_bounded(page)
            # Back to the market, and its instrument only.
            await page.click("#wall-out")
            await expect(page.locator("#chart")).to_be_visible()
            await shows(
                page, "#tape", "[0-9:]{8}▼ sell49.52", "[0-9:]{8}▲ buy50.51"
            )


async def test_the_longest_names_are_whole_at_the_ends_of_curves(
    browser: Browser, tmp_path: Path
) -> None:
    users = ("W" * 32, "champions-of-the-northern-league", "ann")
    async with (
        ruled(tmp_path) as (server, boss),
        watching(browser, server.url, viewport=HD) as page,
    ):
        for user in users:
            async with wired(server.url, user) as wire:
                await wire.ask(**order("buy", 1, 101, symbol="BOND"))
        names = page.locator("#wall-curves text.name")
        await expect(names).to_have_count(len(users))
        for size in (HD, FOUR_K, PHONE):
            await page.set_viewport_size(size)  # type: ignore[arg-type]
            await page.evaluate(FRAME)
            found = await page.evaluate("""() => {
                const box = document.getElementById("wall-curves")
                    .getBoundingClientRect();
                const names = [...document.querySelectorAll(
                    "#wall-curves text.name")];
                const within = ({ left, right }) =>
                    left >= box.left + box.width / 2 && right <= box.right + 1;
                return names.map((node) => [node.textContent.slice(2),
                    within(node.getBoundingClientRect())]);
            }""")
            assert sorted(found) == sorted([user, True] for user in users)


async def test_a_wall_says_what_is_missing(
    browser: Browser, tmp_path: Path
) -> None:
    async with ruled(tmp_path) as (server, boss):
        async with watching(browser, server.url, but=GONE) as page:
            empty = page.locator("#wall-empty")
            await expect(empty).to_contain_text("Nobody is ranked yet")
            await expect(page.locator("#wall-no-news")).to_be_visible()
            await expect(page.locator("#wall-no-trades")).to_be_visible()
            await expect(page.locator("#wall-round")).to_be_hidden()
            await ask(boss, "phase", phase="halted", symbol="ETF")
            await expect(page.locator("#wall-phase")).to_have_text(
                "● Open: 1 of 2 trade"
            )
            await expect(page.locator("#wall-strip li").nth(1)).to_have_text(
                "ETF–❙❙ Halted"
            )
            async with wired(server.url, "ann") as ann:
                await ann.ask(**order("buy", 1, 101, symbol="BOND"))
            title = page.locator("#wall-standings-title")
            await shows(page, "#wall-standings", "1ann0.0")
            await expect(title).to_have_text("Standings")
            await expect(empty).to_be_hidden()
            await ask(boss, "phase", phase="closed")
            await expect(title).to_have_text("Standings at the close")
            await expect(page.locator("#wall-phase")).to_have_text("■ Closed")
            # The curves survive that somebody loads the page again.
            since = await page.locator("#wall-since").inner_text()
            assert since.startswith("Equity, watched since ")
            await page.reload()
            await expect(page.locator("#wall-since")).to_have_text(since)
            await server.stop()
            await expect(page.locator("#wall-connection")).to_contain_text(
                "○ Not connected"
            )
            await expect(title).to_contain_text("as of ")
            await shows(page, "#wall-standings", "1ann0.0")
