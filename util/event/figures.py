"""What a team did in one match, in figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


class ResultError(Exception):
    """A match has no result, or its figures contradict each other."""


@dataclass(slots=True)
class Figures:
    """What a team did in a match; money in units, quantities in lots."""

    team: str
    start: int = 0  # cash at the opening
    final: int = 0  # cash after the settlement
    cash: int = 0  # as its own fills make it
    positions: dict[str, int] = field(default_factory=dict)
    equity: list[int] = field(default_factory=list)  # at fair value
    peak: int = 0
    drawdown: int = 0
    volume: int = 0
    maker_qty: int = 0
    fees: int = 0
    edge: int = 0
    fills: int = 0
    orders: int = 0
    cancels: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    largest: dict[str, int] = field(default_factory=dict)  # by symbol
    logins: int = 0
    was_there: bool = False  # connected when the round began
    connected_ms: int = 0
    connected_since: int | None = None  # in ms of trading time
    was_connected: bool = False
    blown_out_ms: int | None = None

    @property
    def reconnects(self) -> int:
        """Return the logins after the first connection."""
        return self.logins if self.was_there else max(0, self.logins - 1)

    def value(self, equity: int) -> None:
        """Note the equity of a moment."""
        self.peak = equity if not self.equity else max(self.peak, equity)
        self.drawdown = max(self.drawdown, self.peak - equity)
        self.equity.append(equity)

    def hold(self, positions: Mapping[str, int]) -> None:
        """Note some positions, and the largest ones."""
        self.positions.update(positions)
        for symbol, position in positions.items():
            if abs(position) > abs(self.largest.get(symbol, 0)):
                self.largest[symbol] = position

    def connect(self, t_ms: int, is_there: bool) -> None:
        """Note whether the team is connected while the market is open."""
        self.was_connected |= is_there
        if self.connected_since is None:
            self.connected_since = t_ms if is_there else None
        elif not is_there:
            self.connected_ms += t_ms - self.connected_since
            self.connected_since = None
