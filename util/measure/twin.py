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
from argparse import ArgumentParser
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from exchange.market.auction import clearing_price
from orderbook import Order, OrderBook, Refused, Side, Sweep
from util.cli import amount_and_seed, new_parser
from util.measure.naive import Band, TwinBook, TwinOrder

ACCOUNTS = "abcd"
SIDES: tuple[Side, Side] = ("buy", "sell")
STP = ("cancel_oldest", "cancel_newest", "cancel_both", "none")
# The types of orders with their times in force. The first two can rest, and
# can be post-only or hide a part. The last is for auctions only.
KINDS = (
    ("limit", "gtc"),
    ("limit", "gtd"),
    ("limit", "ioc"),
    ("limit", "fok"),
    ("market", "ioc"),
    ("market", "fok"),
    ("market", "auction"),
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
        version, filled = self.book.version, self.filled()
        getattr(self, verb)(**fields)
        is_same = all(self.depth[s] == self.twin.depth(s) for s in SIDES)
        is_same = is_same and self.filled() == filled
        assert (self.book.version == version) == is_same, "as the public sees"
        for side in SIDES:
            old, new = self.depth[side], self.twin.depth(side)
            self.depth[side] = new
            self.changed[side] |= {
                price
                for price in old.keys() | new.keys()
                if old.get(price) != new.get(price)
            }
        self.compare()

    def filled(self) -> int:
        """Return the lots filled of all orders not yet forgotten."""
        return sum(twin.filled for _, twin in self.open.values())

    # Steps

    def place(self, band: Band = None, **fields: Any) -> None:
        self.last_id += 1
        time_in_force = fields["time_in_force"]
        may_rest = time_in_force in ("gtc", "gtd", "auction")
        if self.twin.is_collecting and not may_rest:
            return  # no phase takes it
        if not self.twin.is_collecting and time_in_force == "auction":
            return
        limit, display = fields.pop("limit", None), fields.pop("display", None)
        if time_in_force == "auction" and limit is None:
            limit = 0
        expire_ts = 1 if time_in_force == "gtd" else None
        order = Order(
            order_id=self.last_id,
            expire_ts=expire_ts,
            leaves_qty=fields["qty"],
            display_qty=display,
            **fields,
        )
        twin = TwinOrder(
            order_id=self.last_id, limit=limit, display=display, **fields
        )
        own = self.own(order.account)
        ours = outcome(self.book.place, order, limit, band, own)
        agree(ours, outcome(self.twin.place, twin, band))
        self.open[self.last_id] = order, twin
        if ours == "would_take":  # never accepted: forget it
            self.compare_order(*self.open.pop(self.last_id))
        self.stop_at_band(ours)

    def amend(
        self,
        order_id: int,
        price: Any,
        qty: Any,
        band: Band = None,
        display: Any = None,
    ) -> None:
        before = copy.copy(self.book.orders.get(order_id))
        own = self.own(before.account if before else "a")
        limit = None
        if before is not None and before.price is None:
            price, limit, display = None, price or 0, None
            if qty is None:
                return  # nothing else of it can change
        ours = outcome(
            lambda: self.book.amend(
                order_id,
                price,
                qty,
                band,
                own,
                display_qty=display,
                worst_price=limit,
            )
        )
        theirs = outcome(
            self.twin.amend, order_id, price, qty, band, display, limit
        )
        agree(ours, theirs)
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

    def uncross(self, reference: int | None) -> None:
        """Trade what crosses at the prices of auctions, and resume."""
        while True:
            price = clearing_price(
                self.book.whole_depth("buy"),
                self.book.whole_depth("sell"),
                reference,
                buyers=self.markets("buy"),
                sellers=self.markets("sell"),
            )
            agree(price, self.twin.auction_price(reference))
            if price is None:
                break
            ours = [
                (bid.order_id, ask.order_id, qty)
                for bid, ask, qty in self.book.uncross(price)
            ]
            agree(ours, self.twin.uncross(price))
        for side in SIDES:
            for order in self.book.market_orders(side):
                self.cancel(order.order_id, "expired")
        self.book.is_collecting = self.twin.is_collecting = False

    def markets(self, side: Side) -> list[tuple[int, int]]:
        """Return limit and lots of the market orders of a side."""
        return [
            (order.worst_price, order.leaves_qty)
            for order in self.book.market_orders(side)
            if order.worst_price is not None
        ]

    def cancel(self, order_id: int, status: str) -> None:
        agree(
            outcome(self.book.cancel, order_id, status),
            outcome(self.twin.cancel, order_id, status, "user"),
        )

    def take_changes(self) -> None:
        """Compare the levels that have changed since the last call.

        The book may also name one that traded and shows as much as before.
        """
        changes = self.book.take_changes()
        for side, ours in zip(SIDES, changes, strict=True):
            depth = self.depth[side]
            prices = [price for price, _ in ours]
            assert self.changed[side] <= set(prices)
            prices.sort(reverse=side == "buy")
            agree(list(ours), [(p, depth.get(p, 0)) for p in prices])
            self.changed[side].clear()

    # Comparison

    def compare(self) -> None:
        """Compare all that both show, and check the invariants of the book."""
        self.book.check()
        for side in SIDES:
            orders = [*self.book.market_orders(side), *self.book.queue(side)]
            ours = [o.order_id for o in orders]
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
        if order.is_open and twin.turn:  # it has rested
            shown = order.leaves_qty - order.hidden_qty
            agree(shown, twin.shown)


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
            reference = rng.choice((None, rng.randint(-prices, prices)))
            yield "uncross", {"reference": reference}
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
            if rng.random() < 0.4:
                fields["display"] = rng.randint(1, 6)
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
    hides = time_in_force in ("gtc", "gtd") and rng.random() < 0.3
    return {
        "account": rng.choice(ACCOUNTS),
        "side": rng.choice(SIDES),
        "qty": rng.choice((1, 2, 3, 5, 8, 30)),
        "price": None if is_market else price,
        # Such as the edge of a collar.
        "limit": price if is_market and rng.random() < 0.3 else None,
        "display": rng.randint(1, 6) if hides else None,
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


def compare(
    parser: ArgumentParser,
    unit: str,
    run: Callable[[int, int], None],
    arguments: list[str] | None,
) -> int:
    """Run a comparison as the command line says, and print its rate."""
    steps, seed = amount_and_seed(
        parser, "STEPS", f"random {unit} to take", arguments
    )
    print(f"seed {seed}", flush=True)
    start = time.perf_counter()
    run(steps, seed)
    print(f"{steps:,} steps, {steps / (time.perf_counter() - start):,.0f}/s")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.measure.twin``; return the exit status."""
    parser = new_parser(
        "measure.twin", "Compare the order book with a naive twin."
    )
    return compare(parser, "steps", long_run, arguments)


if __name__ == "__main__":
    sys.exit(main())
