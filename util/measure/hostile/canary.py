"""A well-behaved client beside bad bots: how long does it wait?

A canary sends orders that never rest, at a fixed rate, however late the
replies are. A delay counts from when a request was due: an exchange that
stops for a second delays all requests that were due in that second.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

from util.measure.histogram import Histogram
from util.measure.load import Link, Pace
from util.measure.process import Trouble
from util.measure.trader import Account, Flow, Tally, Trader

RATE = 80  # requests per second; below the default limit of an account
ANSWER_S = 10.0  # for the last replies
PACE = Pace(window=100_000, frame=1, interval_s=1 / RATE)


class Canary:
    """One client; ``faults`` lists what should not have happened."""

    def __init__(self, name: str, flow: Flow) -> None:
        self.name = name
        self.faults: list[str] = []
        self.tally = Tally()
        # Nobody sells at the lowest price, so nothing trades.
        lowest = replace(flow, mix={"cross": 1}, middle=1, depth=0)
        self._trader = Trader(
            Account(name),
            replace(lowest, max_qty=1, is_buying=True),
            name,
            self.tally,
            Histogram(),
        )
        self._is_over = asyncio.Event()

    def measure(self, delays: Histogram, start: float) -> None:
        """Record into ``delays`` the replies from the time ``start`` on."""
        self._trader.latency = delays
        self._trader.measured_from = start

    async def sing(self, url: str, start: float) -> None:
        """Send from ``start``, a time of the loop, until `hush`."""
        link = Link(url, self._trader, PACE, self._failed)
        try:
            await link.open()
        except (OSError, Trouble) as error:
            self._failed(error)
            return
        link.begin(start, math.inf, self._trader.measured_from)
        await self._is_over.wait()
        try:
            async with asyncio.timeout(ANSWER_S):
                await link.finish()
        except TimeoutError:
            pass
        link.abort()
        if waiting := len(self._trader.unanswered):
            self.faults.append(f"{waiting} requests without a reply")
        if self.tally.refused:
            self.faults.append(f"refused: {dict(self.tally.refused)}")

    def hush(self) -> None:
        """Send nothing more; `sing` returns after the last reply."""
        self._is_over.set()

    def _failed(self, error: Exception) -> None:
        self.faults.append(f"disconnected: {error}")
        self._is_over.set()
