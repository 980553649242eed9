"""What can happen to an order after it was accepted: fills and its end.

Each function here does three things together: it changes the account, keeps
the state's lists of orders, and reports.
"""

from __future__ import annotations

from exchange.market.accounts import HOUSE
from exchange.market.fees import charge
from exchange.market.reports import Fill, Filled, order_report, report_trade
from exchange.market.state import State
from orderbook import (
    ExecType,
    Order,
    OrderStatus,
    Reason,
    Sweep,
    Trade,
)


def cancel_order(
    state: State,
    order: Order,
    reason: Reason,
    order_status: OrderStatus = "canceled",
) -> None:
    """End an open order, in its book or waiting: "canceled", "expired"."""
    listing = state.listings[order.symbol]
    if order.order_status == "waiting":
        listing.stops.remove(order)
        order.end(order_status)
    else:
        listing.book.cancel(order.order_id, order_status)
        state.touched[order.symbol] = listing
    end_order(state, order, reason)


def book_sweep(
    state: State, order: Order, sweep: Sweep, filled: Filled
) -> None:
    """Book the matches of an order that arrived, and its end if it ended.

    ``filled`` are its cum_qty and cum_cost before the sweep.
    """
    listing = state.listings[order.symbol]
    state.touched[order.symbol] = listing
    instrument = listing.instrument
    cum_qty, cum_cost = filled
    slices: dict[int, Filled] | None = None
    for maker, qty in sweep.matches:
        if not qty:
            end_order(state, maker, "stp")
            continue
        price = maker.price
        assert price is not None
        cum_qty += qty
        cum_cost += price * qty
        is_self = maker.account == order.account
        trade = report_trade(
            state, listing, price, qty, order.side, is_self=is_self
        )
        value = price * instrument.tick_value
        taker_fee = qty * instrument.taker_fee
        maker_fee = qty * instrument.maker_fee
        if listing.has_rates:
            notional = qty * value
            taker_fee += charge(order, notional, instrument.taker_fee_bp)
            maker_fee += charge(maker, notional, instrument.maker_fee_bp)
        taker_fill: Fill = (trade, "taker", taker_fee)
        _book_fill(state, order, value, taker_fill, (cum_qty, cum_cost))
        maker_fill: Fill = (trade, "maker", maker_fee)
        if maker.display_qty is not None:
            if slices is None:
                slices = _filled_before(sweep)
            done, cost = slices[maker.order_id]
            done, cost = done + qty, cost + price * qty
            slices[maker.order_id] = done, cost
            _book_fill(state, maker, value, maker_fill, (done, cost))
            if done == maker.qty:
                _finish(state, maker)
            continue
        _book_fill(state, maker, value, maker_fill)
        if not maker.leaves_qty:
            _finish(state, maker)
    if sweep.reason is not None:
        end_order(state, order, sweep.reason)
    elif not order.leaves_qty:
        _finish(state, order)


def _filled_before(sweep: Sweep) -> dict[int, Filled]:
    """Return what was filled of each order with display_qty that it met.

    Such an order may be met several times, once for each part that it shows.
    """
    before: dict[int, Filled] = {}
    for maker, qty in sweep.matches:
        if maker.display_qty is not None and maker.price is not None:
            cum_qty, cum_cost = before.get(
                maker.order_id, (maker.cum_qty, maker.cum_cost)
            )
            cost = maker.price * qty
            before[maker.order_id] = cum_qty - qty, cum_cost - cost
    return before


def book_cross(state: State, bid: Order, ask: Order, trade: Trade) -> None:
    """Book a trade of two resting orders in an auction."""
    value = state.listings[bid.symbol].value_of(trade.price)
    for order in (bid, ask):
        _book_fill(state, order, value, (trade, "auction", 0))
        if not order.leaves_qty:
            _finish(state, order)


def _book_fill(
    state: State,
    order: Order,
    value: int,
    fill: Fill,
    filled: Filled | None = None,
) -> None:
    """Report one order's part in a trade, and book it in the account.

    ``value`` is that of a lot at the price, in units of money.
    """
    state.outputs.append(order_report(state, order, "trade", filled, fill))
    trade, _, fee = fill
    account = state.accounts[order.account]
    qty = trade.qty
    bought = qty if order.side == "buy" else -qty
    account.book_fill(order.symbol, bought, value, fee)
    account.hold(order, -qty)
    if fee:
        state.account(HOUSE).cash += fee
    state.changed_accounts[account.name] = account


def end_order(state: State, order: Order, reason: Reason) -> None:
    """Report an order that was canceled or has expired."""
    exec_type: ExecType = "canceled"
    if order.order_status == "expired":
        exec_type = "expired"
    report = order_report(state, order, exec_type, reason=reason)
    state.outputs.append(report)
    _finish(state, order)


def _finish(state: State, order: Order) -> None:
    """Release what is set aside for an order that ended, and archive it."""
    account = state.accounts[order.account]
    unfilled = order.qty - order.cum_qty
    if unfilled:
        account.hold(order, -unfilled)
    account.archive(order)
    if order.expire_ts is not None:
        state.drop_expiry(order)
