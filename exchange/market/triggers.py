"""Stop orders become active, after the command whose trades reached them."""

from __future__ import annotations

from typing import cast

from exchange.market.accounts import Account, unit_cost
from exchange.market.executions import end_order
from exchange.market.listing import Listing
from exchange.market.orders import NOTHING_FILLED, book_arrival
from exchange.market.reports import order_report
from exchange.market.state import State
from orderbook import Order, Reason, Refused, Sweep

# Stop orders that one command triggers; the next `TimePassed`, which follows
# at once, goes on. It bounds the time of a command.
ELECTED_PER_COMMAND = 1_000


def elect(state: State) -> None:
    """Trigger the stop orders that trades have reached.

    They form one queue. The trades of each may reach others, which join it at
    its end.
    """
    _queue_reached(state)
    for _ in range(ELECTED_PER_COMMAND):
        if not state.elected:
            return
        order = state.elected.popleft()
        if order.is_waiting:  # it may have been canceled meanwhile
            _trigger(state, order)
            _queue_reached(state)
    if state.elected:
        state.earliest = 0


def _queue_reached(state: State) -> None:
    """Queue what was reached: farthest from the last price first."""
    for symbol, orders in state.reached.items():
        last = state.listings[symbol].last
        assert last is not None

        def place_of(order: Order, last: int = last) -> tuple[int, int]:
            assert order.trigger_price is not None
            return -abs(order.trigger_price - last), order.order_id

        state.elected.extend(sorted(orders, key=place_of))
    state.reached.clear()


def _trigger(state: State, order: Order) -> None:
    """Let a stop order arrive, or wait again if orders are collected now."""
    listing = state.listings[order.symbol]
    if listing.phase != "open":
        listing.stops.add(order)
        return
    listing.stops.remove(order)
    order.order_status = "new"
    if order.order_type == "stop":
        order.order_type, order.time_in_force = "market", "ioc"
        if order.expire_ts is not None:
            del state.open_gtd[order.order_id]
            order.expire_ts = None
    else:
        order.order_type = "limit"
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
    account.release(order, qty)
    try:
        limit = order.price
        if limit is None:
            limit = listing.worst_price(side)
        else:
            listing.check_bounds(side, limit, None)
        account.check_position(instrument, side, qty, listing.position_max)
        cost = unit_cost(instrument, side, limit)
        account.check_funds(qty * cost)
        order.unit_cost = cost
    finally:
        account.hold(order, qty)
    return listing.book.place(order, limit, listing.band, account.open_orders)
