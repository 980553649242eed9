"""Fair values of a round from a file, and which of them is that of now.

The first line of the file is a comment (``#``), the second names the columns:
``ms`` and the symbols. Each further line has the milliseconds of trading time
since the opening, from 0 on and rising, and the values in ticks.
"""

from __future__ import annotations

import asyncio
import contextlib
from array import array
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path

from client import Exchange, ExchangeError, Market
from orderbook import Refused

IDLE = ("pre_open", "halted", "closed")  # phases in which no time passes
LOOK_S = 0.5  # between two looks at when the instruments close


class FairFile:
    """The values of some instruments over the trading time of a round."""

    def __init__(self, text: str) -> None:
        """Read the text of a file; raises ValueError that names the line."""
        lines = [
            (number, line)
            for number, line in enumerate(text.splitlines(), start=1)
            if not line.startswith("#")
        ]
        head = lines[0][1].split(",") if lines else []
        if head[:1] != ["ms"] or "" in head or len(set(head)) < len(head):
            raise ValueError("the first line is not ms,SYMBOL,SYMBOL,...")
        self._ms = array("q")
        self._values = {symbol: array("q") for symbol in head[1:]}
        for number, line in lines[1:]:
            try:
                ms, *values = map(int, line.split(","))
                for column, value in zip(
                    self._values.values(), values, strict=True
                ):
                    column.append(value)
            except (ValueError, OverflowError):
                raise ValueError(
                    f"line {number}: not {len(head)} whole numbers"
                ) from None
            if ms != 0 if not self._ms else ms <= self._ms[-1]:
                raise ValueError(f"line {number}: ms does not rise from 0")
            self._ms.append(ms)
        if not self._ms:
            raise ValueError("there are no values")

    @classmethod
    def read(cls, path: Path) -> FairFile:
        """Read a file; raises OSError and ValueError."""
        return cls(path.read_text("utf-8"))

    @property
    def symbols(self) -> list[str]:
        """The instruments that have a value."""
        return [*self._values]

    @property
    def last_ms(self) -> int:
        """The trading time of the last line."""
        return self._ms[-1]

    def at(self, ms: float, symbol: str) -> int:
        """Return the value after some trading time; the last one stays."""
        row = max(0, bisect_right(self._ms, ms) - 1)
        return self._values[symbol][row]


class TradingTime:
    """The trading time of each instrument since it opened.

    The file ends when the instrument closes by itself (``close_ts``). So a
    bot that starts amid a round knows where it stands. Without a ``close_ts``
    the time begins when it is first asked for in an open market. It stands
    still while the instrument does not trade.
    """

    def __init__(
        self, exchange: Exchange, markets: Mapping[str, Market], last_ms: int
    ) -> None:
        """``last_ms`` is the length of the file."""
        self._exchange = exchange
        self._markets = markets
        self._last_ms = last_ms
        self._close_ts: dict[str, int | None] = {}
        self._opened: dict[str, int] = {}
        self._ms = dict.fromkeys(markets, 0)

    async def look(self) -> None:
        """Ask when the instruments close; raises ExchangeError."""
        rows = await self._exchange.get("instruments")
        self._close_ts = {row["symbol"]: row.get("close_ts") for row in rows}

    async def keep_looking(self) -> None:
        """Ask again and again: each change of phase may change the time."""
        while True:
            await asyncio.sleep(LOOK_S)
            with contextlib.suppress(ExchangeError, Refused):
                await self.look()

    def ms(self, symbol: str) -> int:
        """Return the trading time in milliseconds, at most the file's."""
        if self._markets[symbol].instrument.phase in IDLE:
            return self._ms[symbol]
        now, close_ts = self._exchange.now, self._close_ts.get(symbol)
        if close_ts is not None:
            elapsed = self._last_ms - (close_ts - now) // 1_000
        else:
            elapsed = (now - self._opened.setdefault(symbol, now)) // 1_000
        self._ms[symbol] = min(max(elapsed, 0), self._last_ms)
        return self._ms[symbol]
