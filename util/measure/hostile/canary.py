"""A well-behaved client beside the bad ones: how long is it kept waiting?

A canary sends orders that never rest, at a fixed rate, whatever becomes of
the answers. A delay counts from when a request was due: an exchange that
stands still for a second has kept waiting all that was due in that second.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

from util.measure.histogram import Histogram
from util.measure.load import Link, Pace
from util.measure.process import Trouble
from util.measure.trader import Account, Flow, Tally, Trader

RATE = 80  # requests per second; below what is allowed to everybody
ANSWER_S = 10.0  # for the last answers
PACE = Pace(window=100_000, frame=1, interval_s=1 / RATE)


class Canary:
    """One client. ``faults`` say what should not have happened."""

    def __init__(self, name: str, flow: Flow) -> None:
        self.name = name
        self.faults: list[str] = []
        self.tally = Tally()
        # Nobody sells at this price, so it trades with nobody.
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
        """Count into ``delays`` the replies that come from ``start`` on."""
        self._trader.latency = delays
        self._trader.measured_from = start

    async def sing(self, url: str, start: float) -> None:
        """Begin at a time of the loop, and go on until `hush`."""
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
            self.faults.append(f"{waiting} requests not answered")
        if self.tally.refused:
            self.faults.append(f"refused: {dict(self.tally.refused)}")

    def hush(self) -> None:
        """Ask for nothing more; `sing` returns once all is answered."""
        self._is_over.set()

    def _failed(self, error: Exception) -> None:
        self.faults.append(f"disconnected: {error}")
        self._is_over.set()
