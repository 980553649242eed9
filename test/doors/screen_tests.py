"""Tests of the page that take longer; `make screen-tests` runs them."""

from __future__ import annotations

import contextlib
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from test.doors.browsing import (
    FRAME,
    GONE,
    LIVE,
    place,
    shows,
    sign_in,
    trade,
    visiting,
)
from test.support import address, greeting, launched, order, serving, wired

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHONE = {"width": 390, "height": 844}
AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
SERIOUS = """async () => {
    const { violations } = await axe.run(document, {
        resultTypes: ["violations"],
    });
    return violations
        .filter(({ impact }) => ["serious", "critical"].includes(impact))
        .map(({ id, nodes }) => [
            id, nodes.map(({ target, failureSummary }) =>
                `${target}: ${failureSummary}`),
        ]);
}"""


async def test_a_restart_from_nothing_says_what_is_lost(
    browser: Browser, unused_tcp_port: int
) -> None:
    settings = {"port": str(unused_tcp_port), "journal": "off"}
    async with launched(**settings) as process:
        url = address(await greeting(process))
        async with (
            contextlib.AsyncExitStack() as context,
            visiting(browser, url, but=GONE) as page,
        ):
            await sign_in(page)
            bob = await context.enter_async_context(wired(url, "bob"))
            await bob.ask(**order("sell", 3, 100))
            await bob.ask(**order("buy", 9, 90))
            await place(page, "buy", 3, "100")
            await place(page, "sell", 1, "90")
            await expect(page.locator("#position")).to_have_text("BOND +2")
            await place(page, "buy", 1, "80")
            await page.click("#more > summary")
            await page.check("#ticket [name=post_only]")
            await place(page, "sell", 1, "90")
            result = page.locator("#ticket-result")
            await expect(result).to_contain_text("Refused")
            process.kill()
            async with launched(**settings) as successor:
                await greeting(successor)
                await expect(page.locator("#connection")).to_have_text(LIVE)
                messages = page.locator("#messages")
                await expect(messages).to_contain_text(
                    "The exchange started from nothing. Lost: your position"
                    " of 2 BOND"
                )
                await expect(messages).to_contain_text("2 fills")
                await expect(result).to_be_empty()
                await expect(page.locator("#position")).to_have_text("BOND 0")


async def test_an_order_is_dragged_to_another_price(browser: Browser) -> None:
    async with serving() as server:
        async with (
            wired(server.url, "bob") as bob,
            wired(server.url, "carol") as carol,
            visiting(browser, server.url) as page,
        ):
            for price in (100, 120, 80, 100):
                await trade(bob, carol, price)
            await page.check("[value=trades]", force=True)
            await sign_in(page)
            await place(page, "buy", 5, "90")
            await shows(page, "#orders", ".*900/5AmendCancel")
            box = await page.locator("#plot").bounding_box()
            assert box is not None
            middle = box["x"] + box["width"] / 2
            plot = page.locator("#plot")
            await page.evaluate(FRAME)
            await page.click("#menu > summary")
            await page.check("#confirm")
            await page.click("#menu > summary")
            grip = re.compile("grip")
            y = box["y"] + 5
            while not grip.search(await plot.get_attribute("class") or ""):
                y += 3
                assert y < box["y"] + box["height"]
                await page.mouse.move(middle, y)
            await page.mouse.down()
            await page.mouse.move(middle, y + 20, steps=3)
            await page.mouse.up()
            await page.click("#confirm-dialog [type=submit]")
            await expect(
                page.locator("#orders .number").first
            ).not_to_have_text("90")
            shown = await page.locator("#orders .number").first.inner_text()
            assert 80 <= int(shown) < 90


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_serious(
    browser: Browser, scheme: Any
) -> None:
    async with serving(symbols=("BOND", "ETF")) as server:
        async with (
            wired(server.url, "bob") as bob,
            wired(server.url, "carol") as carol,
            visiting(browser, server.url, color_scheme=scheme) as page,
        ):
            await page.emulate_media(reduced_motion="reduce")
            await page.evaluate(AXE)
            for price in (100, 120, 90):
                await trade(bob, carol, price, symbol="BOND")
            await bob.ask(**order("sell", 9, 121, symbol="BOND"))
            found = {"visitor": await page.evaluate(SERIOUS)}
            await sign_in(page)
            await page.click("#more > summary")
            await place(page, "buy", 3, "121")
            await place(page, "buy", 1, "99")
            await shows(page, "#orders", ".*AmendCancel")
            found["trader"] = await page.evaluate(SERIOUS)
            for tab in ("fills", "positions", "curve"):
                await page.click(f"#tab-{tab}")
                found[tab] = await page.evaluate(SERIOUS)
            for opener, name in (
                ("#orders [aria-label^=Amend]", "amend-dialog"),
                ("#keys-open", "keys-dialog"),
                ("#menu > summary", ""),
                ("#overview-open", ""),
            ):
                await page.eval_on_selector(opener, "(node) => node.click()")
                found[opener] = await page.evaluate(SERIOUS)
                if name:
                    await page.click(f"#{name} [value=close]")
            await page.click("#overview-close")
            await page.set_viewport_size(PHONE)
            found["phone"] = await page.evaluate(SERIOUS)
            await page.click("#quick-sell")
            found["sheet"] = await page.evaluate(SERIOUS)
            assert {view: bad for view, bad in found.items() if bad} == {}


async def test_keys_sound_and_confirmation(browser: Browser) -> None:
    async with serving() as server:
        async with (
            wired(server.url, "bob") as bob,
            visiting(browser, server.url) as page,
        ):
            await bob.ask(**order("sell", 5, 101))
            await sign_in(page)
            await page.keyboard.press("?")
            await expect(page.locator("#keys-dialog")).to_be_visible()
            await page.keyboard.press("s")  # belongs to nobody now
            await page.keyboard.press("Escape")
            await expect(
                page.locator("#ticket-form [value=buy]")
            ).to_be_checked()
            await page.keyboard.press("s")
            await expect(
                page.locator("#ticket-form [value=sell]")
            ).to_be_checked()
            await page.keyboard.press("b")
            await page.evaluate("""() => {
                window.tones = 0;
                const start = OscillatorNode.prototype.start;
                OscillatorNode.prototype.start = function () {
                    window.tones += 1;
                    start.call(this);
                };
            }""")
            position = page.locator("#position")
            await place(page, "buy", 1, "101")
            await expect(position).to_have_text("BOND +1")
            assert await page.evaluate("window.tones") == 0
            await page.click("#menu > summary")
            await page.check("#sound")  # plays one to be heard
            await page.check("#confirm")
            await page.click("#menu > summary")
            await place(page, "buy", 1, "101")
            dialog = page.locator("#confirm-dialog")
            await expect(dialog).to_contain_text("buy 1 BOND at 101.")
            await page.click("#confirm-dialog [value=close]")
            await expect(position).to_have_text("BOND +1")
            await page.click("#ticket-form [type=submit]")
            await page.click("#confirm-dialog [type=submit]")
            await expect(position).to_have_text("BOND +2")
            assert await page.evaluate("window.tones") == 2
            await page.reload()
            await expect(page.locator("#confirm")).to_be_checked()
            await page.keyboard.press("o")
            assert page.url.endswith("/#overview")
            await page.keyboard.press("o")
            assert page.url.endswith("/#BOND")


async def test_the_overview_knows_options_and_binaries(
    browser: Browser, tmp_path: Path
) -> None:
    market = tmp_path / "market.toml"
    options = "".join(
        f"[instruments.{kind}{strike}]\nkind = '{kind}'\nstrike = {strike}\n"
        "underlying = 'BOND'\nexpires = 'round'\n"
        for strike in (100, 90)
        for kind in ("call", "put")
    ).replace("[instruments.call", "[instruments.C")
    options = options.replace("[instruments.put", "[instruments.P")
    market.write_text(
        f"[instruments.BOND]\n{options}"
        "[instruments.RAIN]\nkind = 'binary'\npays = 200\nmin_price = 0\n"
    )
    async with serving(market=market) as server:
        async with (
            wired(server.url, "bob") as bob,
            wired(server.url, "carol") as carol,
            visiting(browser, server.url) as page,
        ):
            await trade(bob, carol, 50, symbol="RAIN")
            await trade(bob, carol, 60, symbol="RAIN")
            await bob.ask(**order("buy", 1, 7, symbol="C90"))
            await bob.ask(**order("sell", 1, 9, symbol="P100"))
            await page.click("#overview-open")
            rain = page.locator("#overview-rows tr", has_text="RAIN")
            await expect(rain).to_contain_text("60 (30.0 %)▲ +10")
            await expect(page.locator(".chain h3")).to_have_text(
                "Options on BOND"
            )
            await expect(page.locator(".chain tbody tr")).to_have_text(
                ["7–90––", "––100–9"]
            )
            await rain.locator("a").click()
            await expect(page.locator("#last")).to_contain_text("· 30.0 %")
