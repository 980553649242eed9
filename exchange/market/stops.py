"""The stop orders of one instrument that wait for their trigger price.

A stop order to buy is reached by a trade at its trigger price or above, one to
sell by a trade at its trigger price or below. This module only finds those
that a trade reaches; `exchange.market.triggers` lets them arrive.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import TypeAlias

from orderbook import MAX_INT, Order

NEVER = MAX_INT + 1  # above all prices

# A key and an order id. The key is the trigger price of an order to buy and
# minus that of one to sell, so that a price that moves on reaches the
# smallest key first.
Entry: TypeAlias = tuple[int, int]


@dataclass(slots=True)
class Stops:
    """The waiting stop orders of one instrument.

    ``orders`` are all of them by id, ``reached`` those that a trade has
    reached and that are about to become active. A trade at ``buy_at`` or
    above, or at ``sell_at`` or below, reaches at least one more.

    The others are in two sorted lists. With n orders a call takes O(log n)
    and a move of at most n pointers, so that it takes no long time to reach
    all of them at once.
    """

    orders: dict[int, Order] = field(default_factory=dict)
    reached: dict[int, Order] = field(default_factory=dict)
    buy_at: int = NEVER
    sell_at: int = -NEVER
    _buys: list[Entry] = field(default_factory=list)
    _sells: list[Entry] = field(default_factory=list)
    _keys: dict[int, int] = field(default_factory=dict)  # by order id

    def add(self, order: Order) -> None:
        """Let an order wait, also one that was reached, or was amended."""
        assert order.trigger_price is not None
        self._leave(order)
        order_id = order.order_id
        self.orders[order_id] = order
        if order.side == "buy":
            key, entries = order.trigger_price, self._buys
        else:
            key, entries = -order.trigger_price, self._sells
        self._keys[order_id] = key
        insort(entries, (key, order_id))
        self._refresh()

    def reach_one(self, order: Order, price: int) -> bool:
        """Whether a trade at this price reaches an order that waits."""
        assert order.trigger_price is not None
        ahead = order.trigger_price - price
        if (ahead if order.side == "buy" else -ahead) > 0:
            return False
        self._leave(order)
        self.reached[order.order_id] = order
        self._refresh()
        return True

    def remove(self, order: Order) -> None:
        """Forget an order that ended or has become active."""
        del self.orders[order.order_id]
        self._leave(order)
        self._refresh()

    def reach(self, price: int) -> list[Order]:
        """Return the orders that a trade at this price reaches.

        They are in ``reached`` from now on.
        """
        found = []
        for entries, key in ((self._buys, price), (self._sells, -price)):
            count = bisect_left(entries, (key + 1, 0))
            for _, order_id in entries[:count]:
                del self._keys[order_id]
                order = self.reached[order_id] = self.orders[order_id]
                found.append(order)
            del entries[:count]
        self._refresh()
        return found

    def _leave(self, order: Order) -> None:
        """Take an order out of those that are reached, and those that wait."""
        order_id = order.order_id
        self.reached.pop(order_id, None)
        key = self._keys.pop(order_id, None)
        if key is not None:
            entries = self._buys if order.side == "buy" else self._sells
            del entries[bisect_left(entries, (key, order_id))]

    def _refresh(self) -> None:
        """Find the nearest trigger prices."""
        self.buy_at = self._buys[0][0] if self._buys else NEVER
        self.sell_at = -self._sells[0][0] if self._sells else -NEVER

    def load(self, orders: list[Order]) -> None:
        """Let these orders wait, in a collection that is empty."""
        for order in orders:
            assert order.trigger_price is not None
            is_buy = order.side == "buy"
            key = order.trigger_price if is_buy else -order.trigger_price
            self.orders[order.order_id] = order
            self._keys[order.order_id] = key
            entries = self._buys if is_buy else self._sells
            entries.append((key, order.order_id))
        self._buys.sort()
        self._sells.sort()
        self._refresh()

    def check(self) -> None:
        """Verify every invariant. For tests: it looks at every order."""
        waiting: dict[str, list[Entry]] = {"buy": [], "sell": []}
        for order_id, order in self.orders.items():
            assert order.order_id == order_id and order.is_waiting
            assert order.leaves_qty == order.qty and not order.cum_qty
            assert order.trigger_price is not None
            if order_id not in self.reached:
                sign = 1 if order.side == "buy" else -1
                key = order.trigger_price * sign
                assert self._keys[order_id] == key
                waiting[order.side].append((key, order_id))
        assert self.reached.keys() <= self.orders.keys()
        assert len(self._keys) == len(self.orders) - len(self.reached)
        for entries, side, sign, nearest in (
            (self._buys, "buy", 1, self.buy_at),
            (self._sells, "sell", -1, self.sell_at),
        ):
            assert entries == sorted(waiting[side]), "each has an entry"
            first = entries[0][0] * sign if entries else NEVER * sign
            assert nearest == first, "the nearest is known"
