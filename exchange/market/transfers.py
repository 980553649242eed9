"""Lots and cash that move outside of the book, and their bounds.

What one account gets, another gives: the other side is the exchange's own
account, except for a trade that is undone.
"""

from __future__ import annotations

from exchange.market import solvency
from exchange.market.accounts import HOUSE, VALUE_MAX, Account
from exchange.market.listing import Listing
from exchange.market.reports import reply_ok, report_status
from exchange.market.state import State
from orderbook import Admin, Refused


def adjust(state: State, name: str, admin: Admin) -> None:
    """Move cash or lots between an account and the exchange's own."""
    account, house = known(state, admin.user), house_of(state)
    cash, qty = admin.cash or 0, admin.qty or 0
    given = [f"{cash:+} cash"] if cash else []
    listing = None
    if admin.symbol is not None:
        listing = state.listing(admin.symbol)
        check_position(listing, account, qty, "qty")
        check_position(listing, house, -qty, "qty")
        given.append(f"{qty:+} {admin.symbol}")
    check_cash(account, cash, "cash")
    check_cash(house, -cash, "cash")
    house = state.account(HOUSE)
    if listing is not None and qty:
        symbol = listing.instrument.symbol
        value = state.value(symbol)
        account.move(symbol, qty, value)
        house.move(symbol, -qty, value)
    account.cash += cash
    house.cash -= cash
    reply_ok(state, name)
    report_account(state, account)
    report_status(
        state, f"adjust {account.name} by {', '.join(given)}: {admin.reason}"
    )
    solvency.enforce(state, account)


# What is shared -----------------------------------------------------------


def known(state: State, user: str | None) -> Account:
    """Return the account of a user; raises Refused if it does not exist."""
    account = state.accounts.get(user or "")
    if account is None:
        raise Refused(
            "bad_request",
            f"user: no account has the name {user}",
            field="user",
        )
    return account


def house_of(state: State) -> Account:
    """Return the exchange's own account to be looked at.

    It is opened by the first command that changes it, not by a refused one.
    """
    return state.accounts.get(HOUSE) or Account(HOUSE)


def check_position(
    listing: Listing, account: Account, qty: int, field: str | None = None
) -> None:
    """Refuse ("position_limit") more lots than can be counted."""
    symbol, most = listing.instrument.symbol, listing.position_max
    if abs(account.positions.get(symbol, 0) + qty) > most:
        raise Refused(
            "position_limit",
            f"the position of {account.name} would exceed {most} lots",
            field=field,
        )


def check_cash(account: Account, cash: int, field: str | None = None) -> None:
    """Refuse ("insufficient_funds") more cash than can be counted."""
    if abs(account.cash + cash) > VALUE_MAX:
        raise Refused(
            "insufficient_funds",
            f"the cash of {account.name} would exceed {VALUE_MAX}",
            field=field,
        )


def report_account(state: State, account: Account) -> None:
    """Report an account at the end of the command, unless nobody owns it."""
    if account.name != HOUSE:
        state.changed_accounts[account.name] = account


def enforce_limits(state: State, name: str) -> None:
    """Cancel what an account can no longer pay for."""
    solvency.enforce(state, state.accounts[name])
