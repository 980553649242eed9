"""Texts of the page in sizes and themes: what is cut, covered or too pale."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Browser

from test.doors.browsing import FRAME, sign_in, visiting
from test.support import order, serving, wired

pytestmark = pytest.mark.asyncio(loop_scope="module")

HD = {"width": 1920, "height": 1080}
# Whether sums are shown, and whether they are clear of the lots beside them.
SUMS = """() => {
    const box = (node) => {
        const range = document.createRange();
        range.selectNodeContents(node);
        return range.getBoundingClientRect();
    };
    const cells = [...document.querySelectorAll("#ladder td")]
        .filter((cell) => cell.querySelector(".qty")?.textContent);
    const pairs = cells.map((cell) =>
        [cell.querySelector(".qty"), cell.querySelector(".upto")]);
    const isApart = (one, other) => one.right < other.left ||
        other.right < one.left;
    const color = (node) => getComputedStyle(node).color;
    return {
        count: pairs.length,
        shown: pairs.some(([, sum]) => sum.checkVisibility()),
        apart: pairs.every(([qty, sum]) => !sum.checkVisibility() ||
            isApart(box(qty), box(sum))),
        strong: pairs.every(([qty, sum]) => color(qty) === color(sum)),
    };
}"""


@pytest.mark.parametrize("lots", [20, 900])
async def test_sums_do_not_lie_over_lots(browser: Browser, lots: int) -> None:
    async with serving() as server, wired(server.url, "bob") as bob:
        for n in range(4):
            await bob.ask(**order("buy", lots, 99 - n))
            await bob.ask(**order("sell", lots, 101 + n))
        async with visiting(browser, server.url, viewport=HD) as page:
            await sign_in(page)
            for width in (1400, 1700, 1920, 2560, 3840):
                size: Any = {"width": width, "height": width * 9 // 16}
                await page.set_viewport_size(size)
                await page.evaluate(FRAME)
                seen = await page.evaluate(SUMS)
                assert seen["count"] == 8
                assert seen["apart"] and seen["strong"], width
                assert seen["shown"] or lots > 20, width
