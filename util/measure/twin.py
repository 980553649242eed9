"""A naive twin of the order book, and random flows that compare the two.

The twin keeps one plain list of orders and sorts it whenever it needs to
know who is first. It is written from the rules of ``docs/PROTOCOL.md``, not
from ``orderbook.py``: slow, short, and meant to be obviously right.

``python -m util.measure.twin STEPS [SEED]`` leads both through STEPS random
steps and compares all they show after each. The seed is printed, and in the
message of a failure, and gives the same steps again.
"""

from __future__ import annotations

import copy
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from exchange.market.auction import clearing_price
from orderbook import Order, OrderBook, PriceLevel, Refused, Side, Sweep

ACCOUNTS = "abcd"
SIDES: tuple[Side, Side] = ("buy", "sell")
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
Band = tuple[int, int] | None
# What an arriving order met, why its rest ended, whether the band stopped it.
Outcome = tuple[list[tuple[int, int]], str | None, bool]

# The auction, by trying every price -----------------------------------------


class Found(NamedTuple):
    """What an auction would do at a price; the least is the best."""

    less: int  # minus the lots that trade
    rest: int
    away: int  # from the reference price
    price: int


def by_trying(
    bids: Sequence[PriceLevel], asks: Sequence[PriceLevel], reference: int
) -> list[Found]:
    """Try every tick; return those at which something trades, best first."""
    prices = [price for price, _ in (*bids, *asks)]
    found = []
    for price in range(min(prices, default=0), max(prices, default=0) + 1):
        buy = sum(qty for bid, qty in bids if bid >= price)
        sell = sum(qty for ask, qty in asks if ask <= price)
        if buy and sell:
            rest, away = abs(buy - sell), abs(price - reference)
            found.append(Found(-min(buy, sell), rest, away, price))
    return sorted(found)


# The twin -----------------------------------------------------------------


@dataclass
class TwinOrder:
    """One order; ``turn`` is when it took its place in the queue.

    ``limit`` is the worst price for an order that has none.
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
        limit = self.limit if self.price is None else self.price
        if limit is None:
            return True
        return price <= limit if self.side == "buy" else price >= limit

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
        self.is_collecting = False

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

    def place(self, order: TwinOrder, band: Band) -> Outcome:
        if order.post_only and self.would_trade(order, order.price):
            raise Refused("would_take", "")
        if order.time_in_force == "fok":
            # Try it on a copy, and do it only if that filled it whole.
            trial = copy.deepcopy((self, order))
            trial[0].arrive(trial[1], band)
            if trial[1].status != "filled":
                order.status = "expired"
                return [], "fok", False
        return self.arrive(order, band)

    def amend(
        self, order_id: int, price: int | None, qty: int | None, band: Band
    ) -> Outcome:
        order = self.find(order_id)
        price = order.price if price is None else price
        qty = order.qty if qty is None else qty
        if qty <= order.filled:
            self.cancel(order_id, "canceled")
            return [], "user", False
        if price == order.price and qty <= order.qty:
            order.qty = qty
            return [], None, False
        if order.post_only and self.would_trade(order, price):
            raise Refused("would_take", "")
        order.price, order.qty = price, qty
        self.orders.remove(order)
        return self.arrive(order, band)

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

    def arrive(self, order: TwinOrder, band: Band) -> Outcome:
        matches: list[tuple[int, int]] = []
        if self.is_collecting:
            return self.rest(order, matches, False)
        is_stopped = False
        for other in self.queue("sell" if order.side == "buy" else "buy"):
            if not order.leaves or not order.crosses(other.price):
                break
            if other.account == order.account:
                if order.stp != "cancel_newest":
                    self.cancel(other.order_id, "canceled")
                    matches.append((other.order_id, 0))
                if order.stp != "cancel_oldest":
                    order.status = "canceled"
                    return matches, "stp", False
                continue
            if band and not band[0] <= other.price <= band[1]:
                is_stopped = True
                break
            qty = min(order.leaves, other.leaves)
            order.fill(other.price, qty)
            other.fill(other.price, qty)
            matches.append((other.order_id, qty))
            if not other.leaves:
                self.orders.remove(other)
        if not order.leaves:
            return matches, None, False
        if order.time_in_force in ("gtc", "gtd"):
            return self.rest(order, matches, is_stopped)
        order.status = "expired"
        is_market = order.order_type == "market"
        reason = "no_liquidity" if is_market else order.time_in_force
        return matches, reason, is_stopped

    def rest(
        self,
        order: TwinOrder,
        matches: list[tuple[int, int]],
        is_stopped: bool,
    ) -> Outcome:
        """Rest an order; what it crosses of its own account gives way.

        The best price first and of equal ones the lowest id.
        """
        crossed = [
            other
            for other in self.queue("sell" if order.side == "buy" else "buy")
            if other.account == order.account and order.crosses(other.price)
        ]
        sign = 1 if order.side == "buy" else -1
        crossed.sort(key=lambda o: (sign * o.price, o.order_id))
        if crossed and order.stp != "cancel_oldest":
            order.status = "canceled"
            crossed = crossed[: order.stp == "cancel_both"]
        for other in crossed:
            self.cancel(other.order_id, "canceled")
            matches.append((other.order_id, 0))
        if not order.open:
            return matches, "stp", is_stopped
        self.turn += 1
        order.turn = self.turn
        self.orders.append(order)
        return matches, None, is_stopped

    def uncross(self, price: int) -> list[tuple[int, int, int]]:
        """Trade at one price what can; return bids, asks and quantities."""
        steps: list[tuple[int, int, int]] = []
        while True:
            bids = [o for o in self.queue("buy") if o.price >= price]
            asks = [o for o in self.queue("sell") if o.price <= price]
            if not bids or not asks:
                return steps
            pair = bids[0], asks[0]
            qty = min(order.leaves for order in pair)
            for order in pair:
                order.fill(price, qty)
                if not order.leaves:
                    self.orders.remove(order)
            steps.append((pair[0].order_id, pair[1].order_id, qty))


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
        # Of another instrument: they would be crossed, were they here.
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
        theirs = outcome(self.twin.place, twin, band)
        assert ours == theirs, f"{ours} is not {theirs}"
        self.open[self.last_id] = order, twin
        if ours == "would_take":  # never accepted: forget it
            self.compare_order(*self.open.pop(self.last_id))
        self.stop_if_told(ours)

    def amend(
        self, order_id: int, price: Any, qty: Any, band: Band = None
    ) -> None:
        before = copy.copy(self.book.orders.get(order_id))
        own = self.own(before.account if before else "a")
        ours = outcome(self.book.amend, order_id, price, qty, band, own)
        theirs = outcome(self.twin.amend, order_id, price, qty, band)
        assert ours == theirs, f"{ours} is not {theirs}"
        if ours == "would_take":
            assert self.book.orders[order_id] == before, "left as it was"
        self.stop_if_told(ours)

    def own(self, account: str) -> dict[int, Order]:
        """Return the open orders of an account, in all instruments."""
        here = [order for order, _ in self.open.values()]
        orders = here + self.elsewhere
        return {o.order_id: o for o in orders if o.account == account}

    def stop_if_told(self, outcome: Any) -> None:
        """Stop trading where the band said so, as the exchange does."""
        if isinstance(outcome, tuple) and outcome[2]:
            self.collect()

    def collect(self) -> None:
        self.book.is_collecting = self.twin.is_collecting = True

    def uncross(self, reference: int) -> None:
        """Trade what crosses at the price of an auction, and go on."""
        depth = self.book.depth("buy"), self.book.depth("sell")
        price = clearing_price(*depth, reference)
        found = by_trying(*depth, reference)
        assert price == (found[0].price if found else None)
        if price is not None:
            ours = [
                (bid.order_id, ask.order_id, qty)
                for bid, ask, qty in self.book.uncross(price)
            ]
            theirs = self.twin.uncross(price)
            assert ours == theirs, f"{ours} is not {theirs}"
        self.book.is_collecting = self.twin.is_collecting = False

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
        assert all(o.leaves_qty for o in self.elsewhere), "of another book"

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
    if isinstance(result, Sweep):
        matches = [(maker.order_id, qty) for maker, qty in result.matches]
        return matches, result.reason, result.is_stopped
    return result if isinstance(result, tuple) else None


# Random flows -------------------------------------------------------------


def random_steps(rng: random.Random, count: int) -> Iterator[Step]:
    """Yield steps that collide: few accounts, few prices, small orders.

    ``prices`` and ``crowd`` set how wide and how full this book gets, and
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
        # Mostly the latest, which are likely to be open still.
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
        # The edge of a collar, for one.
        "limit": price if is_market and rng.random() < 0.3 else None,
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
            done += step[0] in ("place", "amend", "cancel")


def main() -> None:
    steps = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.getrandbits(32)
    print(f"seed {seed}", flush=True)
    start = time.perf_counter()
    long_run(steps, seed)
    print(f"{steps:,} steps, {steps / (time.perf_counter() - start):,.0f}/s")


if __name__ == "__main__":
    main()
