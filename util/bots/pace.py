"""How often noise traders act, so that as much is traded as is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from client import Market

from .fair_file import IDLE

PERIOD_S = 2.0  # between two changes of the pace
MEMORY = 0.7  # weight of the past in the measured rate
STEP = 1.5  # a change multiplies or divides by this at most
HZ_MIN = 0.05  # a trader still acts three times a minute
HZ_MAX = 20.0


class Pace:
    """Acts per second of each noise trader in each instrument, on average."""

    def __init__(self, hz: float) -> None:
        """Begin with ``hz``, which stays so unless ``adapt`` changes it."""
        self.hz = hz
        self._rate: float | None = None  # trades per second, smoothed

    def adapt(self, rate: float, wanted: float) -> None:
        """Change the pace after a period with ``rate`` trades per second."""
        last = rate if self._rate is None else self._rate
        self._rate = MEMORY * last + (1 - MEMORY) * rate
        factor = wanted / max(self._rate, wanted / STEP**2)
        # The square root, since what has changed shows only later.
        factor = min(max(factor**0.5, 1 / STEP), STEP)
        self.hz = min(max(self.hz * factor, HZ_MIN), HZ_MAX)


async def keep_pace(
    pace: Pace, markets: Iterable[Market], trades_per_s: float
) -> None:
    """Change the pace so that the markets together trade that often.

    Every trade counts, whoever made it. Until canceled; raises ExchangeError.
    """
    markets, count = [*markets], 0

    async def count_trades(market: Market) -> None:
        nonlocal count
        async for _ in market.trades():
            count += 1

    async with asyncio.TaskGroup() as group:
        for market in markets:
            group.create_task(count_trades(market))
        while True:
            count = 0
            await asyncio.sleep(PERIOD_S)
            if not all(m.instrument.phase in IDLE for m in markets):
                pace.adapt(count / PERIOD_S, trades_per_s)
