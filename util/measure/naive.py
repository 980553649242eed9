"""A naive order book and a naive auction, to compare the real ones with.

The book keeps one plain list of orders and sorts it whenever it needs to know
which is first; the auction tries every price. Both are written from the rules
of ``docs/PROTOCOL.md``: slow, short, and meant to be obviously right.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from orderbook import PriceLevel, Refused

Band = tuple[int, int] | None
# The orders met and the quantities traded; the reason why the rest of the
# order ended; whether the band stopped it.
Outcome = tuple[list[tuple[int, int]], str | None, bool]


class Found(NamedTuple):
    """What an auction would do at a price."""

    price: int
    buy: int  # lots that could be bought, and sold
    sell: int

    @property
    def lots(self) -> int:
        return min(self.buy, self.sell)

    @property
    def rest(self) -> int:
        return abs(self.buy - self.sell)


def at_price(
    price: int, buy: Sequence[PriceLevel], sell: Sequence[PriceLevel]
) -> Found:
    """Return what could be bought and sold at a price."""
    return Found(
        price,
        sum(qty for limit, qty in buy if limit >= price),
        sum(qty for limit, qty in sell if limit <= price),
    )


def by_trying(
    bids: Sequence[PriceLevel],
    asks: Sequence[PriceLevel],
    reference: int | None,
    buyers: Sequence[PriceLevel] = (),
    sellers: Sequence[PriceLevel] = (),
    by_pressure: bool = True,
) -> Found | None:
    """Return the best price for an auction, after trying every tick.

    ``buyers`` and ``sellers`` are market orders with their limits.
    """
    limits = [price for price, _ in (*bids, *asks)]
    buy, sell = (*bids, *buyers), (*asks, *sellers)
    found = [
        at_price(price, buy, sell)
        for price in range(min(limits, default=0), max(limits, default=-1) + 1)
    ]
    most = max((f.lots for f in found), default=0)
    if not most:
        if reference is None or not at_price(reference, buyers, sellers).lots:
            return None
        return at_price(reference, buyers, sellers)
    found = [f for f in found if f.lots == most]
    least = min(f.rest for f in found)
    found = [f for f in found if f.rest == least]
    if by_pressure and all(f.buy > f.sell for f in found):
        return max(found, key=lambda f: f.price)
    if by_pressure and all(f.buy < f.sell for f in found):
        return min(found, key=lambda f: f.price)
    if reference is None:
        middle = (found[0].price + found[-1].price) // 2
        return next(f for f in found if f.price == middle)
    return min(found, key=lambda f: (abs(f.price - reference), f.price))


@dataclass
class TwinOrder:
    """One order; ``turn`` is its place in the queue of its price.

    ``limit`` is the worst price of a market order. The book shows at most
    ``display`` lots of it, and ``shown`` now.
    """

    order_id: int
    account: str
    side: str
    qty: int
    price: Any  # an int; None for a market order
    order_type: str
    time_in_force: str
    post_only: bool
    stp: str
    limit: int | None = None
    display: int | None = None
    shown: int = 0
    turn: int = 0
    filled: int = 0
    cost: int = 0
    status: str = "new"

    @property
    def open(self) -> bool:
        return self.status in ("waiting", "new", "partially_filled")

    @property
    def leaves(self) -> int:
        return self.qty - self.filled if self.open else 0

    @property
    def worst(self) -> int | None:
        """The worst price at which it trades; None: any."""
        return self.limit if self.price is None else self.price

    def crosses(self, price: int | None) -> bool:
        """Whether a trade at this price keeps to the order's limit."""
        limit = self.worst
        if limit is None or price is None:
            return True
        return price <= limit if self.side == "buy" else price >= limit

    def show(self) -> None:
        """Show of the order what is due."""
        self.shown = self.leaves
        if self.display is not None:
            self.shown = min(self.display, self.leaves)

    def fill(self, price: int, qty: int) -> None:
        self.filled += qty
        self.cost += price * qty
        done = self.filled == self.qty
        self.status = "filled" if done else "partially_filled"


# Of an order: its id, what happened, status, lots filled and left, lots and
# price of a fill (0 if it is none), and why the order ended.
Note = tuple[int, str, str, int, int, int, int, str | None]
NO_FILL = (0, 0)


class TwinBook:
    """The rules of the book, applied to a list."""

    def __init__(self) -> None:
        self.orders: list[TwinOrder] = []  # all that rest, unsorted
        self.turn = 0
        self.is_collecting = False
        self.log: list[Note] = []  # what happened to orders

    def note(
        self,
        order: TwinOrder,
        what: str,
        fill: tuple[int, int] = NO_FILL,
        reason: str | None = None,
    ) -> None:
        """Note what happened to an order, and what it is like now."""
        state = order.status, order.filled, order.leaves
        self.log.append((order.order_id, what, *state, *fill, reason))

    def queue(self, side: str) -> list[TwinOrder]:
        """Return the orders of a side: market orders, by price, by time."""
        orders = [order for order in self.orders if order.side == side]
        sign = -1 if side == "buy" else 1
        markets = [order for order in orders if order.price is None]
        limits = [order for order in orders if order.price is not None]
        markets.sort(key=lambda o: o.turn)
        limits.sort(key=lambda o: (sign * o.price, o.turn))
        return markets + limits

    def depth(self, side: str) -> dict[int, int]:
        """Return the quantity shown by price, the best first."""
        levels: dict[int, int] = {}
        for order in self.queue(side):
            if order.price is not None:
                shown = levels.get(order.price, 0) + order.shown
                levels[order.price] = shown
        return levels

    def wanted(self, side: str, are_markets: bool) -> list[tuple[int, int]]:
        """Return limit and lots of each limit order, or market order."""
        return [
            (order.worst, order.leaves)
            for order in self.queue(side)
            if order.worst is not None and (order.price is None) == are_markets
        ]

    def auction_price(self, reference: int | None) -> int | None:
        """Return the price at which orders would be uncrossed."""
        found = by_trying(
            self.wanted("buy", False),
            self.wanted("sell", False),
            reference,
            self.wanted("buy", True),
            self.wanted("sell", True),
        )
        return found.price if found else None

    def find(self, order_id: int) -> TwinOrder:
        for order in self.orders:
            if order.order_id == order_id:
                return order
        raise KeyError(order_id)

    def place(self, order: TwinOrder, band: Band) -> Outcome:
        if order.post_only and self.would_trade(order, order.price):
            raise Refused("would_take", "")
        if order.time_in_force == "fok":
            # Try it on a copy first: only a complete fill counts.
            trial = copy.deepcopy((self, order))
            trial[0].arrive(trial[1], band)
            if trial[1].status != "filled":
                order.status = "expired"
                self.note(order, "expired", reason="fok")
                return [], "fok", False
        return self.arrive(order, band)

    def amend(
        self,
        order_id: int,
        price: int | None,
        qty: int | None,
        band: Band,
        display: int | None = None,
        limit: int | None = None,
    ) -> Outcome:
        order = self.find(order_id)
        price = order.price if price is None else price
        qty = order.qty if qty is None else qty
        if qty <= order.filled:
            self.cancel(order_id, "canceled", "user")
            return [], "user", False
        is_raised = (
            display is not None
            and order.display is not None
            and display > order.display
        )
        if price == order.price and qty <= order.qty and not is_raised:
            hidden = order.leaves - order.shown
            order.shown -= max(0, order.qty - qty - hidden)
            order.qty = qty
            if display is not None:
                order.display = display
                order.shown = min(order.shown, display)
            self.note(order, "amended")
            return [], None, False
        if order.post_only and self.would_trade(order, price):
            raise Refused("would_take", "")
        order.price, order.qty = price, qty
        order.limit = limit if price is None else order.limit
        order.display = order.display if display is None else display
        self.orders.remove(order)
        self.note(order, "amended")
        return self.arrive(order, band)

    def cancel(self, order_id: int, status: str, reason: str) -> None:
        order = self.find(order_id)
        order.status = status
        self.orders.remove(order)
        self.note(order, status, reason=reason)

    def would_trade(self, order: TwinOrder, price: int | None) -> bool:
        as_priced = copy.copy(order)
        as_priced.price = price
        return any(
            as_priced.crosses(other.worst)
            for other in self.orders
            if other.side != order.side
        )

    def arrive(self, order: TwinOrder, band: Band) -> Outcome:
        matches: list[tuple[int, int]] = []
        if self.is_collecting:
            return self.rest(order, matches, False)
        is_stopped = False
        while order.leaves:
            queue = self.queue("sell" if order.side == "buy" else "buy")
            if not queue or not order.crosses(queue[0].price):
                break
            other = queue[0]
            if band and not band[0] <= other.price <= band[1]:
                is_stopped = True
                break
            if other.account == order.account and order.stp != "none":
                if order.stp != "cancel_newest":
                    self.cancel(other.order_id, "canceled", "stp")
                    matches.append((other.order_id, 0))
                if order.stp != "cancel_oldest":
                    order.status = "canceled"
                    self.note(order, "canceled", reason="stp")
                    return matches, "stp", False
                continue
            qty = min(order.leaves, other.shown)
            order.fill(other.price, qty)
            other.fill(other.price, qty)
            other.shown -= qty
            for filled in (order, other):
                self.note(filled, "trade", (qty, other.price))
            matches.append((other.order_id, qty))
            if not other.leaves:
                self.orders.remove(other)
            elif not other.shown:
                self.to_the_tail(other)
        if not order.leaves:
            return matches, None, is_stopped
        if order.time_in_force in ("gtc", "gtd"):
            return self.rest(order, matches, is_stopped)
        order.status = "expired"
        is_market = order.order_type == "market"
        reason = "no_liquidity" if is_market else order.time_in_force
        self.note(order, "expired", reason=reason)
        return matches, reason, is_stopped

    def to_the_tail(self, order: TwinOrder) -> None:
        self.turn += 1
        order.turn = self.turn
        order.show()

    def rest(
        self,
        order: TwinOrder,
        matches: list[tuple[int, int]],
        is_stopped: bool,
    ) -> Outcome:
        """Rest an order, after self-trade prevention against what it crosses.

        That is in the order in which it would trade with them.
        """
        crossed = [
            other
            for other in self.queue("sell" if order.side == "buy" else "buy")
            if other.account == order.account and order.crosses(other.worst)
        ]
        if order.stp == "none":
            crossed = []
        if crossed and order.stp != "cancel_oldest":
            order.status = "canceled"
            crossed = crossed[: order.stp == "cancel_both"]
        for other in crossed:
            self.cancel(other.order_id, "canceled", "stp")
            matches.append((other.order_id, 0))
        if not order.open:
            self.note(order, "canceled", reason="stp")
            return matches, "stp", is_stopped
        self.to_the_tail(order)
        self.orders.append(order)
        return matches, None, is_stopped

    def uncross(self, price: int) -> list[tuple[int, int, int]]:
        """Trade all that can at one price; return bids, asks, quantities."""
        steps: list[tuple[int, int, int]] = []
        while True:
            bids = [o for o in self.queue("buy") if o.crosses(price)]
            asks = [o for o in self.queue("sell") if o.crosses(price)]
            if not bids or not asks:
                return steps
            pair = bids[0], asks[0]
            qty = min(order.leaves for order in pair)
            for order in pair:
                order.fill(price, qty)
                order.show()
                self.note(order, "trade", (qty, price))
                if not order.leaves:
                    self.orders.remove(order)
            steps.append((pair[0].order_id, pair[1].order_id, qty))
