"""The replay on the page, in a real browser, of a real recording."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from exchange.host.keyring import KeyRing
from test.doors.browsing import book_shows, browsing, shows, sign_in
from test.support import PATIENCE_S, add_key, order, serving, wired
from test.util.test_playback import playing
from util.playback.view import Rights

pytestmark = pytest.mark.asyncio(loop_scope="module")

WIDE = {"width": 1366, "height": 900}
PHONE = {"width": 390, "height": 844}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with browsing() as browser:
        yield browser


class Recorded:
    """A short round: its journal, and the keys of its accounts.

    Its time runs fast, so that it is longer than a step of the slider.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "day.db"
        self.keys = folder / "keys.json"
        self.tokens = {
            "ann": add_key(self.keys, "ann"),
            "boss": add_key(self.keys, "boss", is_admin=True),
        }

    async def record(self) -> None:
        async with serving(
            journal=self.path, keys=self.keys, open=True, speed=Decimal(100)
        ) as server:
            async with (
                wired(server.url, "boss", token=self.tokens["boss"]) as boss,
                wired(
                    server.url,
                    "ann",
                    token=self.tokens["ann"],
                    cancel_on_disconnect=False,
                ) as ann,
                wired(server.url, "bob") as bob,
            ):
                rule: dict[str, Any] = {"type": "admin", "reason": "test"}
                await ann.ask(**order("sell", 5, 101))
                await bob.ask(**order("buy", 2, 101))
                await boss.ask(**rule, action="news", headline="Rain")
                await bob.ask(**order("buy", 1, 101))
                await boss.ask(
                    **rule, action="close_out", user="bob", prices={"BOND": 90}
                )


async def nothing_trades(page: Page) -> None:
    """Do all that would trade on a live page; ann has 3 lots to sell at 101.

    A request would be refused, and that is a message.
    """
    row = page.locator("#ladder tr.own-sell")
    for key in ("b", "s", "Enter", "x", "l", "ArrowRight"):
        await page.keyboard.press(key)
    for key in ("Enter", "Enter", "Delete", "Escape"):
        await page.keyboard.press(key)
    for cell in (1, 1, 3, 3, 4):
        await row.locator("td").nth(cell).click()
    await page.evaluate("""() => {
        for (const id of ["flatten", "cancel-all", "quick-buy"]) {
            document.getElementById(id).click();
        }
    }""")
    # Its reply comes after theirs.
    await page.click("#replay [data-step=event][data-back]")
    await page.click("#replay [data-step=event]:not([data-back])")
    await book_shows(page, [], [["101", "3", "3"]])
    messages = page.locator("#messages")
    await expect(messages).not_to_contain_text("Refused")
    await expect(page.locator("dialog[open]")).to_have_count(0)
    await page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    for hidden in ("#quick", "#ticket"):
        await expect(page.locator(hidden)).to_be_hidden()
    await page.set_viewport_size(WIDE)  # type: ignore[arg-type]


async def test_a_recording_is_shown_at_any_moment(
    browser: Browser, tmp_path: Path
) -> None:
    recorded = Recorded(tmp_path)
    await recorded.record()
    rights = Rights(keys=KeyRing(recorded.keys))
    async with playing(recorded.path, rights) as playback:
        home = playback.url.replace("ws", "http", 1)
        context = await browser.new_context(
            viewport=WIDE  # type: ignore[arg-type]
        )
        context.set_default_timeout(PATIENCE_S * 1_000)
        page = await context.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        await page.goto(f"{home}/")
        await expect(page).to_have_url(re.compile("/replay"))
        live = page.locator("#connection")
        await expect(live).to_have_text("● Replay")
        # Step by step: a trade, and the one after it.
        step = "#replay [data-step=trade]:not([data-back])"
        await page.click(step)
        await book_shows(page, [], [["101", "3", ""]])
        await shows(page, "#tape", "[0-9:]{8}▲ buy1012")
        await page.click(step)
        await book_shows(page, [], [["101", "2", ""]])
        headline = page.locator("#headline")
        await expect(headline).to_contain_text("Rain")
        # Back, by a mark; the news has not come yet a moment before.
        await page.click("#replay-marks .news")
        await book_shows(page, [], [["101", "3", ""]])
        await expect(headline).to_contain_text("Rain")
        await page.click("#replay [data-step=event][data-back]")
        await expect(headline).to_be_hidden()
        await shows(page, "#tape", "[0-9:]{8}▲ buy1012")
        mark = page.locator("#replay-marks .blow_out")
        await expect(mark).to_have_attribute(
            "title", re.compile("Blow-out: bob: test")
        )
        # The address says which moment it is, and a link leads there.
        await expect(page).to_have_url(re.compile(r"\?t=\d+\.\d"))
        await page.goto(f"{home}/replay?t=0")
        await expect(live).to_have_text("● Replay")
        await expect(page.locator("#replay-at")).to_contain_text("0:00.0 of")
        # Its own orders and fills, and no way to trade.
        await sign_in(page, "ann", recorded.tokens["ann"])
        await page.click("#replay [data-step=fill]:not([data-back])")
        await shows(page, "#fills", "[0-9:]{8}▼ sell BOND10120")
        await book_shows(page, [], [["101", "3", "3"]])
        for hidden in ("#ticket", "#cancel-all", "#orders td.buttons"):
            await expect(page.locator(hidden)).to_be_hidden()
        await nothing_trades(page)
        accounts = page.locator("#replay-account option")
        await expect(accounts).to_have_text(["ann"])
        await page.check("#replay-names")
        await expect(page.locator("#named-note")).to_have_text(
            "who traded is not told"
        )
        await page.click("#sign-out")
        await sign_in(page, "boss", recorded.tokens["boss"])
        await shows(page, "#named-trades", "1012▲ bob▼ ann")
        await expect(accounts).to_have_text(["ann", "bob"])
        # To the end, as fast as it goes, and from the start again.
        await page.uncheck("#replay-names")
        await page.click("#sign-out")
        await page.select_option("#replay-speed", "100")
        await page.click("#replay-play")
        play = page.locator("#replay-play")
        await expect(play).to_have_text("↺ From the start")
        await shows(page, "#tape", "[0-9:]{8}▲ buy1011", "[0-9:]{8}▲ buy1012")
        slider = page.locator("#replay-time")
        await slider.focus()
        await page.keyboard.press("Home")
        await shows(page, "#tape")
        await expect(play).to_have_text("▶ Play")
        await page.click("#replay a[href='#wall']")
        await expect(page.locator("#wall")).to_be_visible()
        await expect(page.locator("#wall-no-trades")).to_be_visible()
        await slider.focus()
        await page.keyboard.press("End")
        await shows(page, "#wall-trades", "▲BOND1011", "▲BOND1012")
        await shows(page, "#wall-standings", r"1ann\d+", r"2bob−\d+")
        assert problems == []
        await context.close()
