"""Closing one account out: no orders, no positions, and no trading."""

from __future__ import annotations

from functools import partial

from exchange.market import work
from exchange.market.accounts import HOUSE, Account
from exchange.market.pricing import check_within
from exchange.market.products import value_bounds
from exchange.market.reports import reply_ok, report_status
from exchange.market.state import State
from exchange.market.transfers import (
    check_cash,
    check_position,
    house_of,
    known,
    report_account,
)
from orderbook import Admin, Refused


def close_out(state: State, name: str, admin: Admin) -> None:
    """Sell an account's positions to the exchange, and suspend it.

    `reset` lifts the suspension, unless `suspend` was before it or follows.
    """
    account, prices = known(state, admin.user), admin.prices
    assert prices is not None
    values = _values(state, account, prices)
    reply_ok(state, name)
    if not account.is_suspended:
        account.is_suspended = account.is_closed_out = True
    work.cancel_all(
        state,
        account.open_orders.values(),
        "admin",
        partial(
            _sell,
            user=account.name,
            values=values,
            message=f"close out {account.name}: {admin.reason}",
        ),
        accounts=[account.name],
    )


def _values(
    state: State, account: Account, prices: dict[str, int]
) -> dict[str, int]:
    """Return the value of a lot of each position; refuse what cannot be."""
    for symbol, price in prices.items():
        if symbol not in state.listings:
            raise Refused(
                "unknown_symbol", f"{symbol} is not listed", field="prices"
            )
        instrument = state.listings[symbol].instrument
        bounds = value_bounds(instrument, state.underlying(instrument))
        check_within(bounds, symbol, price, "prices")
    held = {s: qty for s, qty in account.positions.items() if qty}
    for symbol in held:
        if symbol not in prices:
            raise Refused(
                "bad_request",
                f"prices: {account.name} has a position in {symbol}, which"
                " needs a price",
                field="prices",
            )
    house = house_of(state)
    values = {s: state.listings[s].value_of(prices[s]) for s in held}
    total = sum(qty * values[symbol] for symbol, qty in held.items())
    for symbol, qty in held.items():
        check_position(state.listings[symbol], house, qty, "prices")
    check_cash(account, total, "prices")
    check_cash(house, -total, "prices")
    return values


def _sell(
    state: State, user: str, values: dict[str, int], message: str
) -> None:
    """Book the positions at these values, and publish it."""
    account, house = state.accounts[user], state.account(HOUSE)
    for symbol, value in values.items():
        qty = account.positions[symbol]
        account.book_fill(symbol, -qty, value, 0)
        house.book_fill(symbol, qty, value, 0)
    report_account(state, account)
    report_status(state, message)
