"""The middle of each book, and what it was some time after each fill."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from exchange.market.listing import Listing

# The times after a fill, in microseconds.
HORIZONS_US = (1_000_000, 5_000_000, 30_000_000)


@dataclass(slots=True)
class Marked:
    """A fill that waits until the last middle is known."""

    ts: int
    symbol: str
    team: str
    cells: list[Any]
    mids: list[str | None] = field(default_factory=list)


class Markouts:
    """Completes fills with the middles of their books.

    A middle is a text of ticks, which may end with ``.5``; None while a side
    of the book is empty.
    """

    def __init__(self) -> None:
        self._mids: dict[str, str | None] = {}
        self._waiting: list[deque[Marked]] = [deque() for _ in HORIZONS_US]

    def mid(self, symbol: str) -> str | None:
        """Return the middle of a book before the command of now."""
        return self._mids.get(symbol)

    def add(self, fill: Marked) -> None:
        """Let a fill wait."""
        self._waiting[0].append(fill)

    def pass_time(self, ts: int) -> Iterator[Marked]:
        """Yield the fills that are complete before a command at ``ts``."""
        for number, horizon in enumerate(HORIZONS_US):
            waiting = self._waiting[number]
            while waiting and waiting[0].ts + horizon < ts:
                fill = waiting.popleft()
                fill.mids.append(self._mids.get(fill.symbol))
                if number + 1 < len(HORIZONS_US):
                    self._waiting[number + 1].append(fill)
                else:
                    yield fill

    def rest(self) -> Iterator[Marked]:
        """Yield the fills that are left at the end, without later middles."""
        for waiting in reversed(self._waiting):
            for fill in waiting:
                missing = len(HORIZONS_US) - len(fill.mids)
                fill.mids += [None] * missing
                yield fill
            waiting.clear()

    def follow(self, listing: Listing) -> None:
        """Note the middle of a book after a command."""
        bid, ask = listing.book.top()
        mid = None
        if listing.phase == "open" and bid is not None and ask is not None:
            mid = halved(bid + ask)
        self._mids[listing.instrument.symbol] = mid


def halved(number: int) -> str:
    """Return half of a number, exactly."""
    sign = "-" if number < 0 else ""
    return f"{sign}{abs(number) // 2}{'.5' if number % 2 else ''}"
