"""The last trades of an underlying, whose average settles its derivatives."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

WINDOW_MS = 60_000  # of the trades that are averaged


@dataclass(slots=True)
class Moment:
    """The trades of one millisecond; trade ids ascend with the time."""

    ms: int
    first_trade_id: int
    cost: int  # sum of price x qty
    qty: int


@dataclass(slots=True)
class Prints:
    """Trades of the last WINDOW_MS, added up by the millisecond.

    So at most WINDOW_MS entries are kept, however many trades there are.
    """

    moments: deque[Moment] = field(default_factory=deque)

    def add(self, ts: int, trade_id: int, price: int, qty: int) -> None:
        """Add a trade; drop those that are older than the window."""
        moments, ms = self.moments, ts // 1_000
        if moments and moments[-1].ms == ms:
            moments[-1].cost += price * qty
            moments[-1].qty += qty
            return
        while moments and moments[0].ms <= ms - WINDOW_MS:
            moments.popleft()
        moments.append(Moment(ms, trade_id, price * qty, qty))

    def remove(self, trade_id: int, price: int, qty: int) -> None:
        """Remove a trade, unless it was dropped."""
        for moment in reversed(self.moments):
            if moment.first_trade_id <= trade_id:
                moment.cost -= price * qty
                moment.qty -= qty
                return

    def postpone(self, by_us: int) -> None:
        """Move every trade forward with the clock, which is set forward."""
        for moment in self.moments:
            moment.ms += by_us // 1_000

    def average(self, ts: int) -> int | None:
        """Return the volume-weighted price before a time, rounded down.

        None if nothing was traded in the last WINDOW_MS before it.
        """
        first_ms = ts // 1_000 - WINDOW_MS + 1
        recent = [m for m in self.moments if m.ms >= first_ms]
        qty = sum(moment.qty for moment in recent)
        return sum(moment.cost for moment in recent) // qty if qty else None
