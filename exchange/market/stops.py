"""The stop orders of one instrument that wait for their trigger price.

A stop order to buy is reached by a trade at its trigger price or above, one to
sell by a trade at its trigger price or below. This module only finds those
that a trade reaches; `exchange.market.triggers` lets them arrive.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TypeAlias

from orderbook import MAX_INT, Order

NEVER = MAX_INT + 1  # above all prices
VOID_ENTRIES = 16  # outdated entries of a heap, besides one for each order

Entry: TypeAlias = tuple[int, int]  # of a heap: a key and an order id


@dataclass(slots=True)
class Stops:
    """The waiting stop orders of one instrument.

    ``orders`` are all of them by id, ``reached`` those that a trade has
    reached and that are about to become active. A trade at ``buy_at`` or
    above, or at ``sell_at`` or below, reaches at least one more.

    The others are in two heaps, by trigger price: its greatest is the first
    to sell. An entry may be outdated, because its order ended, was amended
    or is reached. Each call takes O(log n) on average over many calls.
    """

    orders: dict[int, Order] = field(default_factory=dict)
    reached: dict[int, Order] = field(default_factory=dict)
    buy_at: int = NEVER
    sell_at: int = -NEVER
    _buys: list[Entry] = field(default_factory=list)  # trigger price
    _sells: list[Entry] = field(default_factory=list)  # minus trigger price

    def add(self, order: Order) -> None:
        """Let an order wait, also one that was reached, or was amended."""
        assert order.trigger_price is not None
        self.orders[order.order_id] = order
        self.reached.pop(order.order_id, None)
        if order.side == "buy":
            heapq.heappush(self._buys, (order.trigger_price, order.order_id))
        else:
            heapq.heappush(self._sells, (-order.trigger_price, order.order_id))
        self._refresh()

    def reach_one(self, order: Order, price: int) -> bool:
        """Whether a trade at this price reaches an order that waits."""
        assert order.trigger_price is not None
        ahead = order.trigger_price - price
        if (ahead if order.side == "buy" else -ahead) > 0:
            return False
        self.reached[order.order_id] = order
        self._refresh()
        return True

    def remove(self, order: Order) -> None:
        """Forget an order that ended or has become active."""
        del self.orders[order.order_id]
        self.reached.pop(order.order_id, None)
        self._refresh()

    def reach(self, price: int) -> list[Order]:
        """Return the orders that a trade at this price reaches.

        They are in ``reached`` from now on.
        """
        found = []
        for heap, sign in ((self._buys, 1), (self._sells, -1)):
            while heap and heap[0][0] <= price * sign:
                entry = heapq.heappop(heap)
                if self._is_valid(entry, sign):
                    order = self.orders[entry[1]]
                    self.reached[order.order_id] = order
                    found.append(order)
        self._refresh()
        return found

    def _refresh(self) -> None:
        """Drop outdated entries; find the nearest trigger prices."""
        self._buys = self._tidy(self._buys, 1)
        self._sells = self._tidy(self._sells, -1)
        self.buy_at = self._buys[0][0] if self._buys else NEVER
        self.sell_at = -self._sells[0][0] if self._sells else -NEVER

    def _tidy(self, heap: list[Entry], sign: int) -> list[Entry]:
        while heap and not self._is_valid(heap[0], sign):
            heapq.heappop(heap)
        if len(heap) > 2 * len(self.orders) + VOID_ENTRIES:
            heap = sorted({e for e in heap if self._is_valid(e, sign)})
        return heap

    def _is_valid(self, entry: Entry, sign: int) -> bool:
        key, order_id = entry
        order = self.orders.get(order_id)
        return (
            order is not None
            and order_id not in self.reached
            and order.trigger_price == key * sign
        )

    def check(self) -> None:
        """Verify every invariant. For tests: it looks at every order."""
        waiting = {"buy": set[Entry](), "sell": set[Entry]()}
        for order_id, order in self.orders.items():
            assert order.order_id == order_id and order.is_waiting
            assert order.leaves_qty == order.qty and not order.cum_qty
            assert order.trigger_price is not None
            if order_id not in self.reached:
                sign = 1 if order.side == "buy" else -1
                key = order.trigger_price * sign
                waiting[order.side].add((key, order_id))
        assert self.reached.keys() <= self.orders.keys()
        for heap, side, sign, nearest in (
            (self._buys, "buy", 1, self.buy_at),
            (self._sells, "sell", -1, self.sell_at),
        ):
            valid = {entry for entry in heap if self._is_valid(entry, sign)}
            assert valid == waiting[side], "each has a valid entry"
            first = min(valid)[0] * sign if valid else NEVER * sign
            assert nearest == first, "the nearest is known"
            assert len(heap) <= 2 * len(self.orders) + VOID_ENTRIES + 1
