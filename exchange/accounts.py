"""What each account has: cash, positions, its orders and its sessions.

Cash is counted in ticks times lots, positions in lots. An account may owe
both: cash and positions start at 0 and may go below it. Pure state: no
clock, no socket, no event is made here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from orderbook import Order, Refused, Side

# Finished orders an account keeps its client_order_ids of. At 100 orders a
# second a bot that repeats itself after 100 seconds is still understood.
ORDERS_REMEMBERED = 10_000
# Sessions an account can come back to: more than it has connections.
SESSIONS_REMEMBERED = 100


@dataclass(slots=True)
class LogicalSession:
    """A session of the protocol, which outlives its connections."""

    cancel_on_disconnect: bool
    connected: bool = True


@dataclass(slots=True)
class Account:
    """One trader's money, positions, orders and sessions.

    ``orders`` and ``by_client_order_id`` hold the open orders and the last
    ORDERS_REMEMBERED finished ones; ``open_orders`` the open ones, in order
    of order id. ``seq`` numbers the account's private events.
    """

    name: str
    cash: int = 0
    positions: dict[str, int] = field(default_factory=dict)
    seq: int = 0
    orders: dict[int, Order] = field(default_factory=dict)
    by_client_order_id: dict[str, Order] = field(default_factory=dict)
    open_orders: dict[int, Order] = field(default_factory=dict)
    finished: deque[Order] = field(default_factory=deque)
    sessions: dict[str, LogicalSession] = field(default_factory=dict)
    cancel_after_ts: int | None = None

    def settle(self, symbol: str, side: Side, price: int, qty: int) -> None:
        """Book one fill: quantity in against cash out, or the reverse."""
        bought = qty if side == "buy" else -qty
        self.positions[symbol] = self.positions.get(symbol, 0) + bought
        self.cash -= price * bought

    def equity(self, mark: Callable[[str], int]) -> int:
        """Return cash plus each position at its mark, in ticks x lots."""
        equity = self.cash
        for symbol, position in self.positions.items():
            if position:
                equity += position * mark(symbol)
        return equity

    def find(self, order_id: int | None, client_order_id: str | None) -> Order:
        """Return the open order that one of the two ids names.

        Raises Refused: "unknown_order", also for another account's order,
        or "order_closed" with the order's final state.
        """
        if order_id is not None:
            name = "order_id"
            order = self.orders.get(order_id)
        else:
            name = "client_order_id"
            order = self.by_client_order_id.get(client_order_id or "")
        if order is None:
            raise Refused(
                "unknown_order",
                f"no order with this {name} is known",
                field=name,
            )
        if not order.is_open:
            raise Refused(
                "order_closed",
                f"order {order.order_id} is {order.order_status}",
                order_id=order.order_id,
                order_status=order.order_status,
                cum_qty=order.cum_qty,
            )
        return order

    def remember(self, order: Order) -> None:
        """Take in an accepted order."""
        self.orders[order.order_id] = order
        self.open_orders[order.order_id] = order
        if order.client_order_id is not None:
            self.by_client_order_id[order.client_order_id] = order

    def finish(self, order: Order) -> None:
        """File an order that has ended, and forget the oldest such."""
        del self.open_orders[order.order_id]
        self.finished.append(order)
        if len(self.finished) > ORDERS_REMEMBERED:
            oldest = self.finished.popleft()
            del self.orders[oldest.order_id]
            if oldest.client_order_id is not None:
                del self.by_client_order_id[oldest.client_order_id]

    def connect(self, session: str, cancel_on_disconnect: bool) -> None:
        """Begin a session, or take a known one over."""
        self.sessions.pop(session, None)
        self.sessions[session] = LogicalSession(cancel_on_disconnect)
        if len(self.sessions) > SESSIONS_REMEMBERED:
            for name, old in self.sessions.items():
                if not old.connected:
                    del self.sessions[name]
                    break

    def disconnect(self, session: str) -> list[Order]:
        """End a session's connection; return the orders that die with it."""
        state = self.sessions.get(session)
        if state is None or not state.connected:
            return []
        state.connected = False
        if not state.cancel_on_disconnect:
            return []
        return [
            order
            for order in self.open_orders.values()
            if order.session == session
        ]


def leaderboard(
    accounts: Iterable[Account], mark: Callable[[str], int]
) -> list[dict[str, Any]]:
    """Rank the accounts by equity, best first; equals share a rank.

    Rows: rank, user, equity, cash, positions. The exchange's own accounts
    ("@...") are left out.
    """
    standings = sorted(
        (
            (account.equity(mark), account)
            for account in accounts
            if not account.name.startswith("@")
        ),
        key=lambda standing: (-standing[0], standing[1].name),
    )
    rows: list[dict[str, Any]] = []
    for place, (equity, account) in enumerate(standings, start=1):
        level = rows and rows[-1]["equity"] == equity
        rows.append(
            {
                "rank": rows[-1]["rank"] if level else place,
                "user": account.name,
                "equity": equity,
                "cash": account.cash,
                "positions": dict(account.positions),
            }
        )
    return rows
