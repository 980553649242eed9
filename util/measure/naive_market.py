"""A naive market of one instrument: phases, band, collar and stop orders.

It goes with the naive book of `util.measure.naive` and is written from the
same document. Accounts have no limits here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orderbook import Refused
from util.measure.naive import Band, TwinBook, TwinOrder

LOW, HIGH = 1, 1_000  # bounds of prices


@dataclass
class NaiveStop:
    """A stop order that waits, and what it becomes."""

    order: TwinOrder
    trigger: int

    def is_reached(self, price: int) -> bool:
        """Whether a trade at this price triggers it."""
        if self.order.side == "buy":
            return price >= self.trigger
        return price <= self.trigger


class NaiveMarket:
    """The rules of an instrument, applied to lists.

    The methods raise Refused. What they did is in ``book.log``.
    """

    def __init__(self, reference: int, collar: int, band: int) -> None:
        self.book = TwinBook()
        self.configured = reference
        self.collar, self.width = collar, band
        self.last: int | None = None
        self.waiting: list[NaiveStop] = []
        self.elected: list[NaiveStop] = []

    # Prices

    @property
    def is_open(self) -> bool:
        return not self.book.is_collecting

    @property
    def reference(self) -> int:
        return self.configured if self.last is None else self.last

    def band(self) -> Band:
        if not self.width:
            return None
        return self.reference - self.width, self.reference + self.width

    def edge(self, side: str) -> int:
        """Return how far a market order trades."""
        if side == "buy":
            far = self.reference + self.collar if self.collar else HIGH
            return min(HIGH, far)
        far = self.reference - self.collar if self.collar else LOW
        return max(LOW, far)

    def check_collar(self, side: str, price: int | None) -> None:
        beyond = 0 if price is None else price - self.reference
        if (
            self.collar
            and (beyond if side == "buy" else -beyond) > self.collar
        ):
            raise Refused("invalid_price", "")

    # Requests

    def place(self, order: TwinOrder, trigger: int | None) -> None:
        tif = order.time_in_force
        if self.is_open and tif == "auction":
            raise Refused("market_closed", "")
        may_gather = order.price is not None and tif in ("gtc", "gtd")
        if not self.is_open and trigger is None:
            if not may_gather and tif != "auction":
                raise Refused("market_closed", "")
        check_display(order.qty, order.display)
        if trigger is not None:
            order.status = "waiting"
            self.book.note(order, "new")
            self.wait(NaiveStop(order, trigger))
        else:
            self.check_collar(order.side, order.price)
            if order.price is None:
                order.limit = self.edge(order.side)
            if order.post_only and self.book.would_trade(order, order.price):
                raise Refused("would_take", "")
            self.book.note(order, "new")
            self.let_arrive(lambda: self.book.place(order, self.band()))
        self.elect()

    def wait(self, stop: NaiveStop) -> None:
        is_true = self.last is not None and stop.is_reached(self.last)
        queue = self.elected if is_true and self.is_open else self.waiting
        queue.append(stop)

    def amend(
        self,
        order_id: int,
        price: int | None,
        qty: int | None,
        display: int | None,
        trigger: int | None,
    ) -> None:
        stop = self.find_stop(order_id)
        order = stop.order if stop else self.book.find(order_id)
        can_hide = order.price is not None and order.time_in_force in (
            *("gtc", "gtd"),
        )
        if (
            (price is not None and order.price is None)
            or (trigger is not None and stop is None)
            or (display is not None and not can_hide)
        ):
            raise Refused("bad_request", "")
        check_display(qty or order.qty, display or order.display)
        if stop is not None:
            order.price = order.price if price is None else price
            order.qty = qty or order.qty
            order.display = display or order.display
            self.book.note(order, "amended")
            if trigger is not None:
                self.waiting.remove(stop)
                self.wait(NaiveStop(order, trigger))
        else:
            self.check_collar(order.side, price)
            edge = self.edge(order.side)
            self.let_arrive(
                lambda: self.book.amend(
                    order_id, price, qty, self.band(), display, edge
                )
            )
        self.elect()

    def cancel(self, order_id: int) -> None:
        stop = self.find_stop(order_id)
        if stop is None:
            self.book.cancel(order_id, "canceled", "user")
            return
        self.waiting.remove(stop)
        stop.order.status = "canceled"
        self.book.note(stop.order, "canceled", reason="user")

    def collect(self) -> None:
        self.book.is_collecting = True

    def open(self) -> None:
        if self.is_open:
            return
        has_reference = self.last is not None or bool(
            self.configured or self.collar or self.width
        )
        while True:
            reference = self.reference if has_reference else None
            price = self.book.auction_price(reference)
            if price is None:
                break
            begin = len(self.book.log)
            self.book.uncross(price)
            self.see_prints(begin)
        left = [order for order in self.book.orders if order.price is None]
        for order in sorted(left, key=lambda order: order.order_id):
            self.book.cancel(order.order_id, "expired", "no_liquidity")
        self.book.is_collecting = False
        self.elect()

    def find_stop(self, order_id: int) -> NaiveStop | None:
        for stop in self.waiting:
            if stop.order.order_id == order_id:
                return stop
        return None

    # What trades cause

    def let_arrive(self, call: Callable[[], Any]) -> None:
        """Let an order arrive; the band may stop the instrument."""
        begin = len(self.book.log)
        _, _, is_stopped = call()
        self.see_prints(begin)
        if is_stopped:
            self.collect()

    def see_prints(self, begin: int) -> None:
        """Look at the trades noted since then; each is noted twice."""
        notes = [note for note in self.book.log[begin:] if note[1] == "trade"]
        prices = []
        for one, other in zip(notes[::2], notes[1::2], strict=True):
            if self.owners[one[0]] != self.owners[other[0]]:
                prices.append(one[6])
        if not prices:
            return
        self.last = last = prices[-1]
        found = [
            stop
            for stop in self.waiting
            if any(stop.is_reached(price) for price in prices)
        ]
        found.sort(key=lambda s: (-abs(s.trigger - last), s.order.order_id))
        self.elected += found
        self.waiting = [s for s in self.waiting if s not in found]

    owners: dict[int, str]  # the account of each order, by id

    def elect(self) -> None:
        """Let the elected orders become active, one after the other."""
        while self.elected:
            stop = self.elected.pop(0)
            if self.is_open:
                self.trigger(stop.order)
            else:
                self.waiting.append(stop)

    def trigger(self, order: TwinOrder) -> None:
        order.status = "new"
        if order.price is None:
            order.order_type, order.time_in_force = "market", "ioc"
            order.limit = self.edge(order.side)
        else:
            order.order_type = "limit"
        self.book.note(order, "triggered")
        try:
            self.check_collar(order.side, order.price)
            self.let_arrive(lambda: self.book.place(order, self.band()))
        except Refused as refused:
            order.status = "canceled"
            self.book.note(order, "canceled", reason=refused.code)


def check_display(qty: int, display: int | None) -> None:
    """Refuse an order that shows less than a twentieth of itself."""
    if display is not None and 20 * display < qty:
        raise Refused("invalid_qty", "")
