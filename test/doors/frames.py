"""Measure frames and time of the page while a book changes quickly.

    python -m test.doors.frames [SECONDS] [CHECKOUT]

A real browser shows a book that changes CHANGES times a second, with TRADES a
second, half of them its own: at 1920 x 1080 and at 3840 x 2160, in candles and
in single trades. Printed are frames per second, the longest frame, what part
of the time the page's thread was busy and with what, and the heap after a
garbage collection at the start and at the end. Then, with a processor that is
THROTTLE times slower: the time until the first contents are painted, and until
the first row of the book has a quantity. CHECKOUT is another checkout to
compare with; its server serves its own page.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from playwright.async_api import Browser

from test.doors.browsing import browsing, sign_in
from test.doors.page_load import COUNT, MIB, Gauge, busy, count_changes
from test.support import ROOT
from util.measure.process import launched

CHANGES, TRADES = 1_000.0, 20.0
LEVELS = 20  # of each side
VIEWS = ((1920, 1080), (3840, 2160))
MODES = ("1s", "trades")
WARM_S = 5.0
THROTTLE = 4
OPENINGS = 5  # of the page, for the middle of their times
USER = "alice"
# What the thread of the page does, by the browser's own count.
PARTS = {
    "Task": "busy",
    "Script": "script",
    "RecalcStyle": "style",
    "Layout": "layout",
}
PAINTED = """() => performance.getEntriesByName("first-contentful-paint")
    .map(({ startTime }) => startTime)[0]"""
# Runs before the page; notes when the first quantity stands in the book.
WATCH = """() => {
    const look = () => {
        const cell = document.querySelector("#ladder .qty:not(:empty)");
        if (cell) window.bookAt = performance.now();
        else requestAnimationFrame(look);
    };
    addEventListener("DOMContentLoaded", look);
}"""


async def measure(browser: Browser, url: str, seconds: float) -> None:
    """Print the frames of each size and chart, beside a busy market."""
    async with busy(url, CHANGES, TRADES, LEVELS, USER) as work:
        watcher = work.watcher
        for width, height in VIEWS:
            size: Any = {"width": width, "height": height}
            page = await browser.new_page(viewport=size)
            await page.goto(url.replace("ws", "http", 1) + "/")
            await sign_in(page, USER, "")
            gauge = await Gauge.of(page)
            for mode in MODES:
                await page.check(f"[name=mode][value='{mode}']", force=True)
                await asyncio.sleep(WARM_S)
                first, before = await gauge.read(), await count_changes(
                    watcher
                )
                frames, longest = await page.evaluate(COUNT, seconds)
                made = (await count_changes(watcher) - before) / seconds
                last = await gauge.read(collect=False)
                parts = ", ".join(
                    f"{words} {(last[k] - first[k]) / seconds:.0%}"
                    for name, words in PARTS.items()
                    for k in [f"{name}Duration"]
                )
                heap = (await gauge.read())["JSHeapUsedSize"] / MIB
                print(
                    f"{width} x {height}, {mode}: {frames:.1f} frames/s, the"
                    f" longest {longest:.0f} ms; {parts}; heap"
                    f" {first['JSHeapUsedSize'] / MIB:.1f} to {heap:.1f} MiB;"
                    f" {made:.0f} changes/s"
                )
            await page.close()


async def opening(browser: Browser, url: str) -> None:
    """Print how long a slow processor needs to show the page."""
    times: list[tuple[float, float]] = []
    size: Any = {"width": 1920, "height": 1080}
    for _ in range(OPENINGS):
        context = await browser.new_context(viewport=size)
        page = await context.new_page()
        console = await context.new_cdp_session(page)
        await console.send(
            "Emulation.setCPUThrottlingRate", {"rate": THROTTLE}
        )
        await page.add_init_script(f"({WATCH})()")
        await page.goto(url.replace("ws", "http", 1) + "/")
        while (book_at := await page.evaluate("window.bookAt")) is None:
            await asyncio.sleep(0.1)
        times.append((await page.evaluate(PAINTED), book_at))
        await context.close()
    painted, book = (sorted(t)[OPENINGS // 2] for t in zip(*times))
    print(
        f"processor {THROTTLE} times slower: first contents after"
        f" {painted:.0f} ms, the book after {book:.0f} ms"
    )


async def run(seconds: float, checkout: Path) -> None:
    print(checkout.name)
    with launched(folder=str(checkout)) as server:
        async with browsing() as browser:
            await measure(browser, server.url, seconds)
            async with busy(server.url, 1, 0, LEVELS, USER):
                await opening(browser, server.url)


def main() -> None:
    """Measure another checkout, if it is named, and this one."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    for checkout in [*map(Path, sys.argv[2:]), ROOT]:
        asyncio.run(run(seconds, checkout))


if __name__ == "__main__":
    main()
