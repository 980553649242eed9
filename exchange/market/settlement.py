"""The end of an instrument: positions become cash at one price."""

from __future__ import annotations

from exchange.market.executions import cancel_each
from exchange.market.phases import enter_phase
from exchange.market.reports import reply_ok
from exchange.market.state import State
from exchange.market.transfers import report_account
from orderbook import MAX_INT, Admin, Refused


def settle(state: State, name: str, admin: Admin) -> None:
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
        report_account(state, account)
    message = f"settled at {price}: {admin.reason}"
    enter_phase(state, listing, "closed", message)
