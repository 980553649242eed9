"""Stop orders become active, after the command whose trades reached them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import cast

from exchange.market import work
from exchange.market.accounts import Account, unit_cost
from exchange.market.executions import end_order
from exchange.market.fees import lot_fee, margin
from exchange.market.listing import Listing
from exchange.market.orders import NOTHING_FILLED, book_arrival
from exchange.market.reports import order_report
from exchange.market.state import State
from orderbook import Order, Reason, Refused, Sweep

TRIGGER_OPERATIONS = 2  # of a slice: it is reported, and then it arrives


def elect(state: State) -> None:
    """Trigger the stop orders that trades have reached.

    Those of a busy instrument wait for the end of its work. What does not fit
    into the command goes on before other work.
    """
    idle = [s for s in state.reached if not work.is_busy(state, s)]
    orders = _take_reached(state, idle)
    if orders:
        state.work_place = 0
        work.run(state, Cascade(orders, idle))
        state.work_place = None


@dataclass(slots=True)
class Cascade:
    """Elected stop orders, first in, first out.

    The trades of each may reach others, which join the queue at its end.
    """

    orders: deque[Order]
    symbols: list[str]

    @property
    def accounts(self) -> tuple[str, ...]:
        """None: a trade leaves its accounts as any trade does."""
        return ()

    def step(self, state: State) -> bool:
        """Trigger as many as fit into the slice."""
        orders = self.orders
        while orders and work.room(state) > 0:
            order = orders.popleft()
            if order.is_waiting:  # it may have been canceled meanwhile
                work.spend(state, TRIGGER_OPERATIONS)
                _trigger(state, order)
                orders += _take_reached(state, self.symbols)
        return not orders


def _take_reached(state: State, symbols: list[str]) -> deque[Order]:
    """Return what was reached: farthest from the last price first."""
    taken = deque[Order]()
    for symbol in symbols:
        orders = state.reached.pop(symbol, None)
        if orders is None:
            continue
        last = state.listings[symbol].last
        assert last is not None
        # Two sorts, because 10,000 tuples would cost as much as the sorting.
        orders.sort(key=attrgetter("order_id"))
        orders.sort(key=partial(_nearness, last=last))
        taken.extend(orders)
    return taken


def _nearness(order: Order, last: int) -> int:
    """Return minus the distance of a trigger price from the last price."""
    assert order.trigger_price is not None
    return -abs(order.trigger_price - last)


def _trigger(state: State, order: Order) -> None:
    """Let a stop order arrive, or wait again if orders are collected now."""
    listing = state.listings[order.symbol]
    if listing.phase != "open":
        listing.stops.add(order)
        return
    listing.stops.remove(order)
    order.order_status = "new"
    if order.order_type == "market":
        order.time_in_force = "ioc"
        if order.expire_ts is not None:
            state.drop_expiry(order)
            order.expire_ts = None
    state.outputs.append(order_report(state, order, "triggered"))
    try:
        sweep = _arrive(state.accounts[order.account], listing, order)
    except Refused as refusal:
        order.end("canceled")
        # Only codes that are also reasons are raised there.
        end_order(state, order, cast(Reason, refusal.code))
        return
    book_arrival(state, order, sweep, NOTHING_FILLED)


def _arrive(account: Account, listing: Listing, order: Order) -> Sweep:
    """Judge an order as a new one, and match it; raises Refused."""
    instrument, side, qty = listing.instrument, order.side, order.qty
    account.hold(order, -qty)
    try:
        limit = order.price
        if limit is None:
            limit = listing.worst_price(side)
        else:
            listing.check_bounds(side, limit, None)
        account.check_position(instrument, side, qty, listing.position_max)
        cost = unit_cost(instrument, side, limit)
        needed = qty * cost
        if order.fees is not None:
            lot = lot_fee(instrument, side, limit)
            needed += margin(lot, qty)
        account.check_funds(needed)
        order.unit_cost = cost
        if order.fees is not None:
            order.fees.lot = lot
    finally:
        account.hold(order, qty)
    return listing.book.place(order, limit, listing.band, account.open_orders)
