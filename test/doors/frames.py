"""Measure frames and memory of the page while a book changes quickly.

    python -m test.doors.frames [SECONDS] [CHECKOUT]

A real browser of 1920 x 1080 shows a book that changes CHANGES times a second.
Printed are frames per second, the longest frame, and the heap after a garbage
collection at the start and at the end. CHECKOUT is another checkout to compare
with; its server serves its own page.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from test.doors.browsing import browsing, sign_in
from test.support import ROOT, wired
from util.measure.process import launched
from util.measure.wire import Wire, order

CHANGES = 1_000  # of the book in a second
PERIOD_S = 0.02
LEVELS = 20  # of each side
MIDDLE = 1_000  # ticks
VIEW = {"width": 1920, "height": 1080}
WARM_S = 5.0
MIB = 2**20
COUNT = """(seconds) => new Promise((done) => {
    const start = performance.now();
    let [frames, longest, before] = [0, 0, start];
    const tick = (now) => {
        frames += 1;
        longest = Math.max(longest, now - before);
        before = now;
        if (now - start < 1_000 * seconds) requestAnimationFrame(tick);
        else done([1_000 * frames / (now - start), longest]);
    };
    requestAnimationFrame(tick);
})"""


async def change(wire: Wire) -> None:
    """Rest orders on both sides and change their quantities for ever."""
    ids = []
    for n in range(LEVELS):
        for side, price in (("buy", MIDDLE - n), ("sell", MIDDLE + 2 + n)):
            [reply, *_] = await wire.ask(**order(side, 50, price))
            ids.append(reply["order_id"])
    dice = random.Random(1)
    loop = asyncio.get_running_loop()
    start, sent = loop.time(), 0
    while True:
        due = round((loop.time() - start) * CHANGES) - sent
        frame = [
            {"type": "amend", "order_id": i, "qty": dice.randrange(1, 100)}
            for i in dice.choices(ids, k=min(due, 100))
        ]
        if frame:
            await wire.send(*frame)
            sent += len(frame)
        await asyncio.sleep(PERIOD_S)


async def drain(wire: Wire) -> None:
    while True:
        await wire.connection.recv()


async def changes(wire: Wire) -> int:
    """Return how many changes the book has had."""
    reply = (await wire.ask(type="get", what="book"))[0]
    seq: int = reply["data"][0]["seq"]
    return seq


async def measure(seconds: float, checkout: Path) -> None:
    with launched(folder=str(checkout)) as server:
        async with (
            browsing("--enable-precise-memory-info") as browser,
            wired(server.url, "maker") as wire,
            wired(server.url, "watcher") as watcher,
        ):
            page = await browser.new_page(viewport=VIEW)
            await page.goto(server.url.replace("ws", "http", 1) + "/")
            await sign_in(page)
            changing = asyncio.create_task(change(wire))
            await asyncio.sleep(WARM_S)
            reading = asyncio.create_task(drain(wire))
            console = await page.context.new_cdp_session(page)

            async def heap() -> float:
                await console.send("HeapProfiler.collectGarbage")
                used: int = await page.evaluate(
                    "() => performance.memory.usedJSHeapSize"
                )
                return used / MIB

            first, before = await heap(), await changes(watcher)
            frames, longest = await page.evaluate(COUNT, seconds)
            made = (await changes(watcher) - before) / seconds
            last = await heap()
            for task in (changing, reading):
                task.cancel()
    print(
        f"{checkout.name}: {frames:.1f} frames/s, the longest"
        f" {longest:.0f} ms; heap {first:.1f} to {last:.1f} MiB in"
        f" {seconds:.0f} s at {made:.0f} changes/s"
    )


def main() -> None:
    """Measure this checkout, and another one if it is named."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    for checkout in [*map(Path, sys.argv[2:]), ROOT]:
        asyncio.run(measure(seconds, checkout))


if __name__ == "__main__":
    main()
