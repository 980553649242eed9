"""Compare the order book with a naive twin, step by random step.

``python -m util.measure.twin STEPS`` applies random steps to the book and to
`util.measure.naive`, and compares all that they show after each. A failure
prints the seed, which gives the same steps again.
"""

from __future__ import annotations

import copy
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from exchange.market.auction import clearing_price
from orderbook import Order, OrderBook, Refused, Side, Sweep
from util.cli import amount_and_seed, new_parser
from util.measure.naive import Band, TwinBook, TwinOrder, by_trying

ACCOUNTS = "abcd"
SIDES: tuple[Side, Side] = ("buy", "sell")
STP = ("cancel_oldest", "cancel_newest", "cancel_both")
# The types of orders with their times in force. The first two can rest, and
# can be post-only.
KINDS = (
    ("limit", "gtc"),
    ("limit", "gtd"),
    ("limit", "ioc"),
    ("limit", "fok"),
    ("market", "ioc"),
    ("market", "fok"),
)

Step = tuple[str, dict[str, Any]]  # a method of Twins and its arguments


class Twins:
    """The book and its twin: both do each step, and are compared."""

    def __init__(self, book: OrderBook | None = None) -> None:
        self.book = OrderBook() if book is None else book
        self.twin = TwinBook()
        self.last_id = 0
        self.open: dict[int, tuple[Order, TwinOrder]] = {}
        # Some finished orders with copies: nothing may change them.
        self.finished: deque[tuple[Order, Order]] = deque(maxlen=5)
        self.depth: dict[str, dict[int, int]] = {side: {} for side in SIDES}
        self.changed: dict[str, set[int]] = {side: set() for side in SIDES}
        # Of another instrument, at prices that every order here crosses.
        self.elsewhere = [
            Order(-1, account, side, 1, price=price, leaves_qty=1)
            for account in ACCOUNTS
            for side, price in zip(SIDES, (1_000, -1_000))
        ]

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

    def place(self, band: Band = None, **fields: Any) -> None:
        self.last_id += 1
        may_rest = fields["time_in_force"] in ("gtc", "gtd")
        if self.twin.is_collecting and not may_rest:
            return  # no phase takes it
        limit = fields.pop("limit", None)
        expire_ts = 1 if fields["time_in_force"] == "gtd" else None
        order = Order(
            order_id=self.last_id,
            expire_ts=expire_ts,
            leaves_qty=fields["qty"],
            **fields,
        )
        twin = TwinOrder(order_id=self.last_id, limit=limit, **fields)
        own = self.own(order.account)
        ours = outcome(self.book.place, order, limit, band, own)
        agree(ours, outcome(self.twin.place, twin, band))
        self.open[self.last_id] = order, twin
        if ours == "would_take":  # never accepted: forget it
            self.compare_order(*self.open.pop(self.last_id))
        self.stop_at_band(ours)

    def amend(
        self, order_id: int, price: Any, qty: Any, band: Band = None
    ) -> None:
        before = copy.copy(self.book.orders.get(order_id))
        own = self.own(before.account if before else "a")
        ours = outcome(self.book.amend, order_id, price, qty, band, own)
        agree(ours, outcome(self.twin.amend, order_id, price, qty, band))
        if ours == "would_take":
            assert self.book.orders[order_id] == before, "left as it was"
        self.stop_at_band(ours)

    def own(self, account: str) -> dict[int, Order]:
        """Return the open orders of an account, in all instruments."""
        here = [order for order, _ in self.open.values()]
        orders = here + self.elsewhere
        return {o.order_id: o for o in orders if o.account == account}

    def stop_at_band(self, outcome: Any) -> None:
        """Stop trading if the band was left, as the exchange does."""
        if isinstance(outcome, tuple) and outcome[2]:
            self.collect()

    def collect(self) -> None:
        self.book.is_collecting = self.twin.is_collecting = True

    def uncross(self, reference: int) -> None:
        """Trade what crosses at the price of an auction, and resume."""
        depth = self.book.depth("buy"), self.book.depth("sell")
        price = clearing_price(*depth, reference)
        best = by_trying(*depth, reference)
        assert price == (best.price if best else None)
        if price is not None:
            ours = [
                (bid.order_id, ask.order_id, qty)
                for bid, ask, qty in self.book.uncross(price)
            ]
            agree(ours, self.twin.uncross(price))
        self.book.is_collecting = self.twin.is_collecting = False

    def cancel(self, order_id: int, status: str) -> None:
        agree(
            outcome(self.book.cancel, order_id, status),
            outcome(self.twin.cancel, order_id, status),
        )

    def take_changes(self) -> None:
        """Compare the levels that have changed since the last call."""
        changes = self.book.take_changes()
        for side, ours in zip(SIDES, changes, strict=True):
            depth = self.depth[side]
            theirs = [(p, depth.get(p, 0)) for p in self.changed[side]]
            theirs.sort(reverse=side == "buy")
            agree(list(ours), theirs)
            self.changed[side].clear()

    # Comparison

    def compare(self) -> None:
        """Compare all that both show, and check the invariants of the book."""
        self.book.check()
        for side in SIDES:
            ours = [o.order_id for o in self.book.queue(side)]
            agree(ours, [o.order_id for o in self.twin.queue(side)])
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
        for order, as_finished in self.finished:
            assert order == as_finished, f"changed after its end: {order}"
        assert all(
            o.leaves_qty for o in self.elsewhere
        ), "an order of another book changed"

    @staticmethod
    def compare_order(order: Order, twin: TwinOrder) -> None:
        agree(
            (order.qty, order.price, order.order_status, order.cum_qty),
            (twin.qty, twin.price, twin.status, twin.filled),
        )
        agree(
            (order.cum_cost, order.leaves_qty, order.is_open),
            (twin.cost, twin.leaves, twin.open),
        )


def agree(ours: object, theirs: object) -> None:
    """Raise AssertionError unless book and twin gave the same."""
    assert ours == theirs, f"{ours} is not {theirs}"


def outcome(call: Any, *args: Any) -> Any:
    """Call, and return the result in a form that both share."""
    try:
        result = call(*args)
    except Refused as refused:
        return refused.code
    except KeyError:
        return "no such order"
    if isinstance(result, Sweep):
        matches = [(maker.order_id, qty) for maker, qty in result.matches]
        return matches, result.reason, result.is_stopped
    return result if isinstance(result, tuple) else None


# Random flows -------------------------------------------------------------


def random_steps(rng: random.Random, count: int) -> Iterator[Step]:
    """Yield steps that collide: few accounts, few prices, small orders.

    ``prices`` and ``crowd`` set how wide and how full the book gets,
    ``stops`` how often a band or a phase stops it.
    """
    prices = rng.choice((1, 3, 6, 40))
    crowd = rng.choice((3, 12, 40))
    stops = rng.choice((0, 0.02, 0.1))
    last_id = 0
    for _ in range(count):
        if rng.random() < 0.4:
            yield "take_changes", {}
        if rng.random() < stops:
            yield "collect", {}
        elif rng.random() < 4 * stops:
            yield "uncross", {"reference": rng.randint(-prices, prices)}
        price = rng.randint(-prices, prices)
        low = rng.randint(-prices, prices)
        band = None
        if rng.random() < 5 * stops:
            band = low, low + rng.randint(0, prices)
        # Mostly recent ones, which are likely to be open.
        order_id = max(1, last_id - int(rng.expovariate(1 / crowd)))
        dice = rng.random()
        if dice < 0.2 and last_id:
            qty = rng.choice((None, rng.randint(1, 12)))
            has_price = qty is None or rng.random() >= 0.5
            new_price = price if has_price else None
            fields = {"order_id": order_id, "price": new_price, "qty": qty}
            yield "amend", {**fields, "band": band}
        elif dice < 0.4 and last_id:
            status = rng.choice(("canceled", "expired"))
            yield "cancel", {"order_id": order_id, "status": status}
        else:
            last_id += 1
            yield "place", {**random_order(rng, price), "band": band}


def random_order(rng: random.Random, price: int) -> dict[str, Any]:
    resting = rng.random() < 0.6
    order_type, time_in_force = rng.choice(KINDS[:2] if resting else KINDS)
    is_market = order_type == "market"
    return {
        "account": rng.choice(ACCOUNTS),
        "side": rng.choice(SIDES),
        "qty": rng.choice((1, 2, 3, 5, 8, 30)),
        "price": None if is_market else price,
        # Such as the edge of a collar.
        "limit": price if is_market and rng.random() < 0.3 else None,
        "order_type": order_type,
        "time_in_force": time_in_force,
        "post_only": time_in_force in ("gtc", "gtd") and rng.random() < 0.2,
        "stp": rng.choice(STP),
    }


def long_run(
    steps: int, seed: int, new_book: Callable[[], OrderBook] = OrderBook
) -> None:
    """Compare both after each step, with a new book every 500 steps.

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
            done += step[0] in ("place", "amend", "cancel")


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.measure.twin``; return the exit status."""
    parser = new_parser(
        "measure.twin", "Compare the order book with a naive twin."
    )
    steps, seed = amount_and_seed(
        parser, "STEPS", "random steps to take", arguments
    )
    print(f"seed {seed}", flush=True)
    start = time.perf_counter()
    long_run(steps, seed)
    print(f"{steps:,} steps, {steps / (time.perf_counter() - start):,.0f}/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
