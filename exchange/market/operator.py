"""What an administrator does: phases, suspensions, adjustments, settlement.

Each action first checks whether it is possible, then replies, then acts and
publishes a status with the administrator's reason.
"""

from __future__ import annotations

from collections.abc import Callable

from exchange.market.accounts import HOUSE, VALUE_MAX, Account
from exchange.market.command import Command
from exchange.market.executions import cancel_each, cancel_order
from exchange.market.listing import Listing
from exchange.market.phases import enter_phase
from exchange.market.reports import reply_ok, report_status
from exchange.market.state import State
from orderbook import MAX_INT, Admin, AdminAction, Order, Refused


def administer(state: State, command: Command, admin: Admin) -> None:
    """Carry out an administrator's request; raises Refused."""
    ACTIONS[admin.action](state, command.account, admin)


# The actions --------------------------------------------------------------


def _set_phase(state: State, name: str, admin: Admin) -> None:
    assert admin.phase is not None
    listings = list(state.listings.values())
    if admin.symbol is not None:
        listings = [state.listing(admin.symbol)]
    reply_ok(state, name)
    for listing in listings:
        enter_phase(state, listing, admin.phase, admin.reason, admin.reopen_ms)


def _suspend(state: State, name: str, admin: Admin) -> None:
    account = _known(state, admin.user)
    reply_ok(state, name)
    account.is_suspended = True
    cancel_each(state, account.open_orders.values(), "admin")
    report_status(state, f"suspend {account.name}: {admin.reason}")


def _resume(state: State, name: str, admin: Admin) -> None:
    account = _known(state, admin.user)
    reply_ok(state, name)
    account.is_suspended = False
    report_status(state, f"resume {account.name}: {admin.reason}")


def _cancel(state: State, name: str, admin: Admin) -> None:
    order = _find_order(state, admin.order_id)
    reply_ok(state, name)
    cancel_order(state, order, "admin")
    report_status(state, f"cancel order {order.order_id}: {admin.reason}")


def _adjust(state: State, name: str, admin: Admin) -> None:
    """Move cash or lots between an account and the exchange's own."""
    account, house = _known(state, admin.user), state.account(HOUSE)
    cash, qty = admin.cash or 0, admin.qty or 0
    given = [f"{cash:+} cash"] if cash else []
    listing = None
    if admin.symbol is not None:
        listing = state.listing(admin.symbol)
        _check_position(listing, account, qty)
        _check_position(listing, house, -qty)
        given.append(f"{qty:+} {admin.symbol}")
    _check_cash(account, cash)
    _check_cash(house, -cash)
    if listing is not None and qty:
        symbol, mark = listing.instrument.symbol, listing.mark()
        account.move(symbol, qty, mark)
        house.move(symbol, -qty, mark)
    account.cash += cash
    house.cash -= cash
    reply_ok(state, name)
    state.changed_accounts[account.name] = account
    report_status(
        state, f"adjust {account.name} by {', '.join(given)}: {admin.reason}"
    )


def _check_position(listing: Listing, account: Account, qty: int) -> None:
    symbol, most = listing.instrument.symbol, listing.position_max
    if abs(account.positions.get(symbol, 0) + qty) > most:
        raise Refused(
            "position_limit",
            f"the position of {account.name} would exceed {most} lots",
            field="qty",
        )


def _check_cash(account: Account, cash: int) -> None:
    if abs(account.cash + cash) > VALUE_MAX:
        raise Refused(
            "insufficient_funds",
            f"the cash of {account.name} would exceed {VALUE_MAX}",
            field="cash",
        )


def _settle(state: State, name: str, admin: Admin) -> None:
    """End an instrument: positions become cash at one price."""
    listing = state.listing(admin.symbol)
    symbol, price = listing.instrument.symbol, admin.price
    assert price is not None
    low, high = listing.instrument.min_price, listing.instrument.max_price
    if not low <= price <= high:
        raise Refused(
            "invalid_price",
            f"price {price} is not within {low} and {high}",
            field="price",
        )
    holders = [
        account
        for account in state.accounts.values()
        if account.positions.get(symbol)
    ]
    for account in holders:
        if abs(account.cash + account.positions[symbol] * price) > MAX_INT:
            raise Refused(
                "insufficient_funds",
                f"the cash of {account.name} would exceed {MAX_INT}",
            )
    reply_ok(state, name)
    cancel_each(state, listing.open_orders(), "admin")
    for account in holders:
        account.settle(symbol, price)
        _report_unless_house(state, account)
    message = f"settled at {price}: {admin.reason}"
    enter_phase(state, listing, "closed", message)


def _reset(state: State, name: str, admin: Admin) -> None:
    """Start again: no orders, no positions, cash as configured."""
    reply_ok(state, name)
    orders = (
        order
        for account in state.accounts.values()
        for order in account.open_orders.values()
    )
    cancel_each(state, orders, "admin")
    for account in state.accounts.values():
        account.cash = account.limits.cash
        account.realized = 0
        account.positions.clear()
        account.costs.clear()
        _report_unless_house(state, account)
    for listing in state.listings.values():
        listing.last = None
        listing.volume = 0
        phase = listing.instrument.phase
        enter_phase(state, listing, phase, f"reset: {admin.reason}")


def _publish(state: State, name: str, admin: Admin) -> None:
    if admin.symbol is not None:
        state.listing(admin.symbol)
    reply_ok(state, name)
    report_status(state, admin.message, admin.symbol)


ACTIONS: dict[AdminAction, Callable[[State, str, Admin], None]] = {
    "phase": _set_phase,
    "suspend": _suspend,
    "resume": _resume,
    "kill": _suspend,
    "unkill": _resume,
    "cancel": _cancel,
    "adjust": _adjust,
    "settle": _settle,
    "reset": _reset,
    "message": _publish,
}

# What they share ----------------------------------------------------------


def _known(state: State, user: str | None) -> Account:
    """Return the account of a user; raises Refused if it does not exist."""
    account = state.accounts.get(user or "")
    if account is None:
        raise Refused(
            "bad_request",
            f"user: no account has the name {user}",
            field="user",
        )
    return account


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


def _report_unless_house(state: State, account: Account) -> None:
    if account.name != HOUSE:
        state.changed_accounts[account.name] = account
