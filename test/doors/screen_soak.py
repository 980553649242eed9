"""Watch the page for a long time while a market changes.

    python -m test.doors.screen_soak SECONDS [CHANGES] [TRADES]

CHANGES of the book and TRADES are per second, by default 50 and 5. A signed-in
page of 1920 x 1080 in a real browser shows the book; half of the trades are
its own. Once a minute it is walked through its charts, tables and views; after
each walk are printed heap and nodes after a garbage collection, and frames.

The page keeps a limited number of fills, candles and other values. Fills are
filled up before, the others within some 30 minutes. The exit status is 1 if
the browser logged anything, if the ladder differs from the book of the
exchange, or if the heap has grown by more than MOST_GROWN in the second half.
"""

from __future__ import annotations

import asyncio
import sys
import time

from playwright.async_api import Page

from test.doors.browsing import FRAME, browsing, ladder, sign_in
from test.doors.page_load import (
    COUNT,
    MIB,
    MIDDLE,
    Gauge,
    busy,
    count_changes,
)
from util.measure.process import launched
from util.measure.wire import Wire, order, wired

CHANGES, TRADES = 50.0, 5.0
LEVELS = 12  # of each side: the ladder shows all of them
VIEW = {"width": 1920, "height": 1080}
FILLS = 10_000  # as many as page and exchange keep of one account
BATCH = 50
FRAMES_S = 5.0
PERIOD_S = 60.0
MOST_GROWN = 1.0 * MIB
USER = "alice"
MODES = ("trades", "1m", "5m", "1h", "1d", "1s")


async def fill_up(url: str) -> None:
    """Trade as often as anybody keeps fills."""
    async with wired(url, "filler") as maker, wired(url, USER) as own:
        for start in range(0, FILLS, BATCH):
            side = start // BATCH % 2
            one, other = ("buy", "sell") if side else ("sell", "buy")
            await maker.ask(**order(one, BATCH, MIDDLE))
            await own.send(*(order(other, 1, MIDDLE) for _ in range(BATCH)))
            await own.ask(type="ping")


async def walk(page: Page) -> None:
    """See all charts, tables and views once."""
    for mode in MODES:
        await page.check(f"[name=mode][value='{mode}']", force=True)
        await page.wait_for_timeout(200)
    for tab in ("fills", "positions", "curve", "orders"):
        await page.click(f"#tab-{tab}")
        await page.wait_for_timeout(200)
    await page.keyboard.press("o")
    await page.wait_for_timeout(500)
    await page.keyboard.press("o")
    await page.evaluate("location.hash = 'wall'")
    await page.wait_for_timeout(2_500)
    await page.evaluate("location.hash = 'BOND'")
    await page.wait_for_timeout(200)


async def report(
    page: Page, gauge: Gauge, watcher: Wire, since: float
) -> float:
    """Measure and print one line; return the heap in bytes."""
    before = await count_changes(watcher)
    start = time.monotonic()
    frames, longest = await page.evaluate(COUNT, FRAMES_S)
    made = (await count_changes(watcher) - before) / (time.monotonic() - start)
    figures = await gauge.read()
    heap = figures["JSHeapUsedSize"]
    print(
        f"{time.monotonic() - since:6.0f} s: heap {heap / MIB:.2f} MiB,"
        f" {figures['Nodes']:.0f} nodes,"
        f" {figures['JSEventListeners']:.0f} listeners,"
        f" {frames:.1f} frames/s, the longest {longest:.0f} ms,"
        f" {made:.0f} changes/s",
        flush=True,
    )
    return heap


async def is_equal(page: Page, wire: Wire) -> bool:
    """Whether the ladder shows the book, which stands still."""
    [reply, *_] = await wire.ask(type="get", what="book", limit=100)
    [book] = reply["data"]
    assert book["bids"] and book["asks"]
    wanted = [
        [[f"{price:,}", str(qty), ""] for price, qty in book[side]]
        for side in ("bids", "asks")
    ]
    for _ in range(300):  # frames
        if await ladder(page) == wanted:
            return True
        await page.evaluate(FRAME)
    print(f"the ladder has {await ladder(page)}, the book {wanted}")
    return False


async def soak(seconds: float, changes: float, trades: float) -> bool:
    """Run; return whether all was well."""
    problems: list[str] = []
    with launched() as server:
        async with browsing() as browser:
            await fill_up(server.url)
            page = await browser.new_page(viewport=VIEW)  # type: ignore
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda line: problems.append(line.text))
            await page.goto(server.url.replace("ws", "http", 1) + "/#BOND")
            await sign_in(page, USER, "")
            gauge = await Gauge.of(page)
            load = busy(server.url, changes, trades, LEVELS, USER)
            since = time.monotonic()
            async with load as work:
                await walk(page)
                heaps = [await report(page, gauge, work.watcher, since)]
                while (gone := time.monotonic() - since) < seconds:
                    await asyncio.sleep(min(PERIOD_S, seconds - gone))
                    await walk(page)
                    heaps.append(
                        await report(page, gauge, work.watcher, since)
                    )
                await work.end()
                same = await is_equal(page, work.watcher)
    print("the book is the exchange's" if same else "the book DIFFERS")
    for problem in problems:
        print(f"the browser logged: {problem}")
    grown = heaps[-1] - heaps[len(heaps) // 2]
    print(f"in the second half the heap grew by {grown / MIB:.2f} MiB")
    return same and grown < MOST_GROWN and not problems


def main() -> None:
    """Watch the page."""
    given = [float(text) for text in sys.argv[1:]]
    seconds, changes, trades = [
        *given,
        *(3_600.0, CHANGES, TRADES)[len(given) :],
    ]
    sys.exit(0 if asyncio.run(soak(seconds, changes, trades)) else 1)


if __name__ == "__main__":
    main()
