"""What can happen to an order once it is accepted: fills and its end.

Each function here does three things together: it changes the account, keeps
the state's lists of orders, and reports.
"""

from __future__ import annotations

from collections.abc import Iterable

from exchange.market.accounts import HOUSE
from exchange.market.listing import Listing
from exchange.market.reports import Filled, report_order, report_trade
from exchange.market.state import State
from orderbook import (
    Liquidity,
    Match,
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
    """Take a resting order off its book, as "canceled" or "expired"."""
    listing = state.listings[order.symbol]
    listing.book.cancel(order.order_id, order_status)
    state.touched[order.symbol] = listing
    end_order(state, order, reason)


def cancel_each(state: State, orders: Iterable[Order], reason: Reason) -> None:
    """Cancel resting orders in order of their ids."""
    for order in sorted(orders, key=lambda order: order.order_id):
        cancel_order(state, order, reason)


def book_sweep(
    state: State, listing: Listing, order: Order, sweep: Sweep, filled: Filled
) -> None:
    """Book the matches of an order that arrived, and its end if it ended.

    ``filled`` is what was filled of the order before the sweep.
    """
    state.touched[order.symbol] = listing
    for match in sweep.matches:
        if not match.qty:
            end_order(state, match.maker, "stp")
            continue
        filled = _book_match(state, listing, order, match, filled)
    if sweep.reason is not None:
        end_order(state, order, sweep.reason)
    elif not order.leaves_qty:
        _finish(state, order)


def _book_match(
    state: State, listing: Listing, order: Order, match: Match, filled: Filled
) -> Filled:
    """Book a trade of an arriving order; return what is filled of it now."""
    maker, qty = match
    price = maker.price
    assert price is not None
    instrument = listing.instrument
    trade = report_trade(state, listing, price, qty, order.side)
    filled = filled[0] + qty, filled[1] + price * qty
    fee = qty * instrument.taker_fee
    _book_fill(state, order, trade, "taker", fee=fee, filled=filled)
    fee = qty * instrument.maker_fee
    _book_fill(state, maker, trade, "maker", fee=fee)
    if not maker.leaves_qty:
        _finish(state, maker)
    return filled


def book_cross(state: State, bid: Order, ask: Order, trade: Trade) -> None:
    """Book a trade of two resting orders in an auction."""
    for order in (bid, ask):
        _book_fill(state, order, trade, "auction", fee=0)
        if not order.leaves_qty:
            _finish(state, order)


def _book_fill(
    state: State,
    order: Order,
    trade: Trade,
    liquidity: Liquidity,
    *,
    fee: int,
    filled: Filled | None = None,
) -> None:
    """Report one order's part in a trade, and book it in the account."""
    report_order(
        state,
        order,
        "trade",
        filled,
        trade=trade,
        liquidity=liquidity,
        fee=fee,
    )
    account = state.accounts[order.account]
    bought = trade.qty if order.side == "buy" else -trade.qty
    account.book_fill(order.symbol, bought, trade.price, fee)
    account.release(order, trade.qty)
    if fee:
        state.account(HOUSE).cash += fee
    state.changed_accounts[account.name] = account


def end_order(state: State, order: Order, reason: Reason) -> None:
    """Report an order that was canceled or has expired."""
    is_expired = order.order_status == "expired"
    report_order(
        state, order, "expired" if is_expired else "canceled", reason=reason
    )
    _finish(state, order)


def _finish(state: State, order: Order) -> None:
    """Release what is set aside for an order that ended, and archive it."""
    account = state.accounts[order.account]
    unfilled = order.qty - order.cum_qty
    if unfilled:
        account.release(order, unfilled)
    account.archive(order)
    if order.expire_ts is not None:
        state.open_gtd.pop(order.order_id, None)
