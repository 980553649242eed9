"""A naive twin of the order book, and random flows that compare the two.

The twin keeps one plain list of orders and sorts it whenever it needs to
know who is first. It is written from the rules of ``docs/PROTOCOL.md``, not
from ``orderbook.py``: slow, short, and meant to be obviously right.

``python -m test.twin STEPS [SEED]`` leads both through STEPS random steps and
compares all they show after each. The seed is printed, and in the message of
a failure, and gives the same steps again.
"""

from __future__ import annotations

import copy
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from orderbook import Order, OrderBook, Refused

SIDES = ("buy", "sell")
STP = ("cancel_oldest", "cancel_newest", "cancel_both")
# What an order may be, besides post-only (which is gtc or gtd): its type and
# time in force, the last by name of the one that rests.
KINDS = (
    ("limit", "gtc"),
    ("limit", "gtd"),
    ("limit", "ioc"),
    ("limit", "fok"),
    ("market", "ioc"),
    ("market", "fok"),
)

Step = tuple[str, dict[str, Any]]  # a method of Twins and its arguments

# The twin -----------------------------------------------------------------


@dataclass
class TwinOrder:
    """One order; ``turn`` is when it took its place in the queue."""

    order_id: int
    account: str
    side: str
    qty: int
    price: int | None
    order_type: str
    time_in_force: str
    post_only: bool
    stp: str
    turn: int = 0
    filled: int = 0
    cost: int = 0
    status: str = "new"

    @property
    def open(self) -> bool:
        return self.status in ("new", "partially_filled")

    @property
    def leaves(self) -> int:
        return self.qty - self.filled if self.open else 0

    def crosses(self, price: int) -> bool:
        """Whether a trade at this price keeps to the order's limit."""
        if self.price is None:
            return True
        return (
            price <= self.price if self.side == "buy" else price >= self.price
        )

    def fill(self, price: int, qty: int) -> None:
        self.filled += qty
        self.cost += price * qty
        done = self.filled == self.qty
        self.status = "filled" if done else "partially_filled"


class TwinBook:
    """The rules of the book, played with a list."""

    def __init__(self) -> None:
        self.orders: list[TwinOrder] = []  # all that rest, in no order
        self.turn = 0

    def queue(self, side: str) -> list[TwinOrder]:
        """Price first, then time."""
        orders = [order for order in self.orders if order.side == side]
        sign = -1 if side == "buy" else 1
        return sorted(orders, key=lambda o: (sign * o.price, o.turn))

    def depth(self, side: str) -> dict[int, int]:
        """Quantity by price, best first."""
        levels: dict[int, int] = {}
        for order in self.queue(side):
            levels[order.price] = levels.get(order.price, 0) + order.leaves
        return levels

    def find(self, order_id: int) -> TwinOrder:
        for order in self.orders:
            if order.order_id == order_id:
                return order
        raise KeyError(order_id)

    def place(self, order: TwinOrder) -> tuple[list[tuple[int, int]], Any]:
        if order.post_only and self.would_trade(order, order.price):
            raise Refused("would_take", "")
        if order.time_in_force == "fok":
            # Try it on a copy, and do it only if that filled it whole.
            trial = copy.deepcopy((self, order))
            trial[0].arrive(trial[1])
            if trial[1].status != "filled":
                order.status = "expired"
                return [], "fok"
        return self.arrive(order)

    def amend(
        self, order_id: int, price: int | None, qty: int | None
    ) -> tuple[list[tuple[int, int]], Any]:
        order = self.find(order_id)
        price = order.price if price is None else price
        qty = order.qty if qty is None else qty
        if qty <= order.filled:
            self.cancel(order_id, "canceled")
            return [], "user"
        if price == order.price and qty <= order.qty:
            order.qty = qty
            return [], None
        if order.post_only and self.would_trade(order, price):
            raise Refused("would_take", "")
        order.price, order.qty = price, qty
        self.orders.remove(order)
        return self.arrive(order)

    def cancel(self, order_id: int, status: str) -> None:
        order = self.find(order_id)
        order.status = status
        self.orders.remove(order)

    def would_trade(self, order: TwinOrder, price: int | None) -> bool:
        as_priced = copy.copy(order)
        as_priced.price = price
        return any(
            as_priced.crosses(other.price)
            for other in self.orders
            if other.side != order.side
        )

    def arrive(self, order: TwinOrder) -> tuple[list[tuple[int, int]], Any]:
        matches = []
        for other in self.queue("sell" if order.side == "buy" else "buy"):
            if not order.leaves or not order.crosses(other.price):
                break
            if other.account == order.account:
                if order.stp != "cancel_newest":
                    self.cancel(other.order_id, "canceled")
                    matches.append((other.order_id, 0))
                if order.stp != "cancel_oldest":
                    order.status = "canceled"
                    return matches, "stp"
                continue
            qty = min(order.leaves, other.leaves)
            order.fill(other.price, qty)
            other.fill(other.price, qty)
            matches.append((other.order_id, qty))
            if not other.leaves:
                self.orders.remove(other)
        if not order.leaves:
            return matches, None
        if order.time_in_force in ("gtc", "gtd"):
            self.turn += 1
            order.turn = self.turn
            self.orders.append(order)
            return matches, None
        order.status = "expired"
        is_market = order.order_type == "market"
        return matches, "no_liquidity" if is_market else order.time_in_force


# Both, side by side -------------------------------------------------------


class Twins:
    """The book and its twin: each step is done by both, and compared."""

    def __init__(self, book: OrderBook | None = None) -> None:
        self.book = OrderBook() if book is None else book
        self.twin = TwinBook()
        self.last_id = 0
        self.open: dict[int, tuple[Order, TwinOrder]] = {}
        # Some that are finished, as they were: nothing may touch them again.
        self.finished: deque[tuple[Order, Order]] = deque(maxlen=5)
        self.depth: dict[str, dict[int, int]] = {side: {} for side in SIDES}
        self.changed: dict[str, set[int]] = {side: set() for side in SIDES}

    def run(self, step: Step) -> None:
        verb, fields = step
        getattr(self, verb)(**fields)
        for side in SIDES:
            old, new = self.depth[side], self.twin.depth(side)
            self.depth[side] = new
            self.changed[side] |= {
                price
                for price in old.keys() | new.keys()
                if old.get(price) != new.get(price)
            }
        self.compare()

    # Steps

    def place(self, **fields: Any) -> None:
        self.last_id += 1
        expire_ts = 1 if fields["time_in_force"] == "gtd" else None
        order = Order(order_id=self.last_id, expire_ts=expire_ts, **fields)
        twin = TwinOrder(order_id=self.last_id, **fields)
        ours = outcome(self.book.place, order)
        theirs = outcome(self.twin.place, twin)
        assert ours == theirs, f"{ours} is not {theirs}"
        self.open[self.last_id] = order, twin
        if ours == "would_take":  # never accepted: forget it
            self.compare_order(*self.open.pop(self.last_id))

    def amend(self, order_id: int, price: Any, qty: Any) -> None:
        before = copy.copy(self.book.orders.get(order_id))
        ours = outcome(self.book.amend, order_id, price, qty)
        theirs = outcome(self.twin.amend, order_id, price, qty)
        assert ours == theirs, f"{ours} is not {theirs}"
        if ours == "would_take":
            assert self.book.orders[order_id] == before, "left as it was"

    def cancel(self, order_id: int, status: str) -> None:
        ours = outcome(self.book.cancel, order_id, status)
        theirs = outcome(self.twin.cancel, order_id, status)
        assert ours == theirs, f"{ours} is not {theirs}"

    def take_changes(self) -> None:
        """Ask which levels changed since this was asked before."""
        changes = self.book.take_changes()
        for side, ours in zip(SIDES, changes, strict=True):
            depth = self.depth[side]
            theirs = [(p, depth.get(p, 0)) for p in self.changed[side]]
            theirs.sort(reverse=side == "buy")
            assert list(ours) == theirs, f"changes {ours} is not {theirs}"
            self.changed[side].clear()

    # Comparison

    def compare(self) -> None:
        """Compare all that the two show, and the book with its own rules."""
        self.book.check()
        for side in SIDES:
            ours = [o.order_id for o in self.book.queue(side)]
            theirs = [o.order_id for o in self.twin.queue(side)]
            assert ours == theirs, f"{side} queue {ours} is not {theirs}"
            depth = tuple(self.depth[side].items())
            assert self.book.depth(side) == depth
            assert self.book.depth(side, 2) == depth[:2]
            assert self.book.best(side) == (depth[0] if depth else None)
        for order, twin in list(self.open.values()):
            self.compare_order(order, twin)
            assert order.is_open == (order.order_id in self.book.orders)
            if not order.is_open:
                del self.open[order.order_id]
                self.finished.append((order, copy.copy(order)))
        for order, as_it_ended in self.finished:
            assert order == as_it_ended, f"finished, yet changed: {order}"

    @staticmethod
    def compare_order(order: Order, twin: TwinOrder) -> None:
        ours = (
            order.qty,
            order.price,
            order.order_status,
            order.cum_qty,
            order.cum_cost,
            order.leaves_qty,
            order.is_open,
        )
        theirs = (
            twin.qty,
            twin.price,
            twin.status,
            twin.filled,
            twin.cost,
            twin.leaves,
            twin.open,
        )
        assert (
            ours == theirs
        ), f"order {order.order_id}: {ours} is not {theirs}"


def outcome(call: Any, *args: Any) -> Any:
    """Call, and return what came of it in a form that both share."""
    try:
        result = call(*args)
    except Refused as refused:
        return refused.code
    except KeyError:
        return "no such order"
    if isinstance(result, tuple):
        matches, reason = result
        if matches and hasattr(matches[0], "maker"):
            matches = [(m.maker.order_id, m.qty) for m in matches]
        return matches, reason
    return None


# Random flows -------------------------------------------------------------


def random_steps(rng: random.Random, count: int) -> Iterator[Step]:
    """Yield steps that collide: few accounts, few prices, small orders.

    ``prices`` and ``crowd`` set how wide and how full this book gets.
    """
    prices = rng.choice((1, 3, 6, 40))
    crowd = rng.choice((3, 12, 40))
    last_id = 0
    for _ in range(count):
        if rng.random() < 0.4:
            yield "take_changes", {}
        price = rng.randint(-prices, prices)
        # Mostly the latest, which are likely to be open still.
        order_id = max(1, last_id - int(rng.expovariate(1 / crowd)))
        dice = rng.random()
        if dice < 0.2 and last_id:
            qty = rng.choice((None, rng.randint(1, 12)))
            if qty is not None and rng.random() < 0.5:
                price = None
            yield "amend", {"order_id": order_id, "price": price, "qty": qty}
        elif dice < 0.4 and last_id:
            status = rng.choice(("canceled", "expired"))
            yield "cancel", {"order_id": order_id, "status": status}
        else:
            last_id += 1
            yield "place", random_order(rng, price)


def random_order(rng: random.Random, price: int) -> dict[str, Any]:
    resting = rng.random() < 0.6
    order_type, time_in_force = rng.choice(KINDS[:2] if resting else KINDS)
    no_price = order_type == "market" and rng.random() < 0.7
    return {
        "account": rng.choice("abcd"),
        "side": rng.choice(SIDES),
        "qty": rng.choice((1, 2, 3, 5, 8, 30)),
        # A market order may bring the edge of a price collar.
        "price": None if no_price else price,
        "order_type": order_type,
        "time_in_force": time_in_force,
        "post_only": time_in_force in ("gtc", "gtd") and rng.random() < 0.2,
        "stp": rng.choice(STP),
    }


def long_run(
    steps: int, seed: int, new_book: Callable[[], OrderBook] = OrderBook
) -> None:
    """Compare both after each of so many steps, a new book every 500.

    Raises AssertionError with the seed, the step and the book.
    """
    rng = random.Random(seed)
    done = 0
    while done < steps:
        twins = Twins(new_book())
        for step in random_steps(rng, min(500, steps - done)):
            try:
                twins.run(step)
            except Exception as error:
                raise AssertionError(
                    f"seed {seed}, after {done} steps: {step}: {error!r}"
                    f"\n{twins.book}"
                ) from error
            done += step[0] != "take_changes"


def main() -> None:
    steps = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.getrandbits(32)
    print(f"seed {seed}", flush=True)
    start = time.perf_counter()
    long_run(steps, seed)
    print(f"{steps:,} steps, {steps / (time.perf_counter() - start):,.0f}/s")


if __name__ == "__main__":
    main()
