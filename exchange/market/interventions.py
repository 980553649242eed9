"""An administrator's acts on instruments, accounts and orders."""

from __future__ import annotations

from exchange.market import work
from exchange.market.closing import pause_close, start_close
from exchange.market.executions import cancel_order
from exchange.market.phases import enter_phase
from exchange.market.reports import reply_ok, report_status
from exchange.market.state import State
from exchange.market.transfers import known
from orderbook import Admin, Order, Refused


def set_phase(state: State, name: str, admin: Admin) -> None:
    """Begin a phase of one instrument or of all."""
    phase = admin.phase
    assert phase is not None
    listings = list(state.listings.values())
    if admin.symbol is not None:
        listings = [state.listing(admin.symbol)]
    reply_ok(state, name)
    for listing in listings:
        enter_phase(state, listing, phase, admin.reason, admin.reopen_ms)
        if phase != "open":
            pause_close(state, listing)
        elif admin.close_ms is not None:
            start_close(state, listing, admin.close_ms * 1_000)


def move_reference(state: State, name: str, admin: Admin) -> None:
    """Set the reference price, which holds until the next trade."""
    listing, price = state.listing(admin.symbol), admin.price
    assert price is not None
    listing.check_price(price)
    reply_ok(state, name)
    listing.moved_reference = listing.trade_id, price
    message = f"reference price {price}: {admin.reason}"
    report_status(state, message, admin.symbol)


def suspend(state: State, name: str, admin: Admin) -> None:
    """Cancel an account's orders and let it only cancel."""
    account = known(state, admin.user)
    reply_ok(state, name)
    account.is_suspended, account.is_closed_out = True, False
    work.cancel_all(state, account.open_orders.values(), "admin")
    report_status(state, f"suspend {account.name}: {admin.reason}")


def resume(state: State, name: str, admin: Admin) -> None:
    """Let an account trade again."""
    account = known(state, admin.user)
    reply_ok(state, name)
    account.is_suspended = account.is_closed_out = False
    report_status(state, f"resume {account.name}: {admin.reason}")


def cancel(state: State, name: str, admin: Admin) -> None:
    """Cancel an order of any account."""
    order = _find_order(state, admin.order_id)
    reply_ok(state, name)
    cancel_order(state, order, "admin")
    report_status(state, f"cancel order {order.order_id}: {admin.reason}")


def _find_order(state: State, order_id: int | None) -> Order:
    """Return an open order of any account; raises Refused."""
    for account in state.accounts.values():
        if order_id in account.orders:
            return account.find(order_id, None)
    raise Refused(
        "unknown_order",
        "no order has this order_id",
        field="order_id",
    )
