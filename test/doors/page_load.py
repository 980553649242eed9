"""A market that changes quickly, and what the page in a browser uses."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

from playwright.async_api import CDPSession, Page

from util.measure.wire import Wire, order, wired

PERIOD_S = 0.02
MIDDLE = 1_000  # ticks; the trades are here, between best bid and best ask
MOST_IN_A_FRAME = 100
MIB = 2**20
# Frames a second, and the longest time between two of them in ms.
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


async def rest(wire: Wire, levels: int) -> list[int]:
    """Rest an order at each of some levels on both sides; return their ids."""
    ids = []
    for n in range(levels):
        for side, price in (("buy", MIDDLE - 1 - n), ("sell", MIDDLE + 1 + n)):
            [reply, *_] = await wire.ask(**order(side, 50, price))
            ids.append(reply["order_id"])
    return ids


async def paced(rate: float, send: Any) -> None:
    """Call ``send(n)`` so that the sum of all n grows by ``rate`` a second."""
    loop = asyncio.get_running_loop()
    start, sent = loop.time(), 0
    while True:
        due = min(round((loop.time() - start) * rate) - sent, MOST_IN_A_FRAME)
        if due > 0:
            await send(due)
            sent += due
        await asyncio.sleep(PERIOD_S)


async def change(wire: Wire, ids: list[int], rate: float) -> None:
    """Change the quantities of orders for ever."""
    dice = random.Random(1)

    async def send(count: int) -> None:
        await wire.send(
            *(
                {"type": "amend", "order_id": i, "qty": dice.randrange(1, 100)}
                for i in dice.choices(ids, k=count)
            )
        )

    await paced(rate, send)


async def deal(maker: Wire, takers: list[Wire], rate: float) -> None:
    """Let the maker trade with each taker in turn, for ever.

    Each sells one lot, then buys one, so that no position grows.
    """
    count = 0

    async def send(due: int) -> None:
        nonlocal count
        for _ in range(due):
            taker = takers[count % len(takers)]
            round_, count = count // len(takers), count + 1
            sides = ("sell", "buy") if round_ % 2 else ("buy", "sell")
            await maker.ask(**order(sides[0], 1, MIDDLE))
            await taker.ask(**order(sides[1], 1, MIDDLE, tif="ioc"))

    await paced(rate, send)


async def drain(wire: Wire) -> None:
    while True:
        await wire.connection.recv()


class Work:
    """What keeps a market busy; ``watcher`` is a connection to ask it."""

    def __init__(self, tasks: list[asyncio.Task[None]], watcher: Wire) -> None:
        self._tasks = tasks
        self.watcher = watcher

    async def end(self) -> None:
        """Change nothing more; the orders stay."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def busy(
    url: str, changes: float, trades: float, levels: int, user: str
) -> AsyncIterator[Work]:
    """Keep a market busy.

    ``changes`` of the book and ``trades`` are per second. Every second trade
    is one of ``user``.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def login(name: str) -> Wire:
            return await stack.enter_async_context(wired(url, name))

        wire = await login("maker")
        ids = await rest(wire, levels)
        dealer, other, own = [
            await login(name) for name in ("dealer", "taker", user)
        ]
        parts = [change(wire, ids, changes), drain(wire)]
        if trades:
            parts.append(deal(dealer, [other, own], trades))
        watcher = await stack.enter_async_context(wired(url))
        work = Work([asyncio.create_task(part) for part in parts], watcher)
        try:
            yield work
        finally:
            await work.end()


async def count_changes(wire: Wire) -> int:
    """Return how many changes the book has had."""
    reply = (await wire.ask(type="get", what="book"))[0]
    seq: int = reply["data"][0]["seq"]
    return seq


class Gauge:
    """What a page uses, as the browser itself counts it."""

    def __init__(self, console: CDPSession) -> None:
        self.console = console

    @classmethod
    async def of(cls, page: Page) -> Gauge:
        console = await page.context.new_cdp_session(page)
        await console.send("Performance.enable")
        return cls(console)

    async def read(self, collect: bool = True) -> dict[str, float]:
        """Return the figures, by default after a garbage collection.

        ``JSHeapUsedSize`` is in bytes, durations are in seconds.
        """
        if collect:
            await self.console.send("HeapProfiler.collectGarbage")
        reply = await self.console.send("Performance.getMetrics")
        return {one["name"]: one["value"] for one in reply["metrics"]}
