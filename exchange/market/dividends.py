"""Dividends: cash for each lot. Short positions pay, the exchange pays."""

from __future__ import annotations

from functools import partial

from exchange.market import work
from exchange.market.accounts import HOUSE, Account
from exchange.market.reports import reply_ok, report_status
from exchange.market.state import State
from exchange.market.transfers import (
    check_cash,
    enforce_limits,
    house_of,
    report_account,
)
from orderbook import MAX_INT, Admin, Refused


def pay_dividend(state: State, name: str, admin: Admin) -> None:
    """Pay each account its position x amount; all or nothing."""
    symbol, amount = (
        state.listing(admin.symbol).instrument.symbol,
        admin.amount,
    )
    assert amount is not None
    paid = {
        account.name: account.positions[symbol] * amount
        for account in state.accounts.values()
        if account.positions.get(symbol) and account.name != HOUSE
    }
    for user, cash in paid.items():
        _check(state.accounts[user], cash)
    total = sum(paid.values())
    _check(house_of(state), -total)
    reply_ok(state, name)
    if paid:
        _receive(state.account(HOUSE), -total)
    work.each(
        state,
        paid.items(),
        _pay,
        partial(
            _finish,
            names=list(paid),
            symbol=symbol,
            message=f"dividend of {amount} for each lot: {admin.reason}",
        ),
        symbols=[symbol],
        accounts=list(paid),
    )


def _pay(state: State, payment: tuple[str, int]) -> None:
    user, cash = payment
    account = state.accounts[user]
    _receive(account, cash)
    report_account(state, account)


def _finish(state: State, names: list[str], symbol: str, message: str) -> None:
    """Publish the dividend; cancel what the accounts can no longer pay."""
    report_status(state, message, symbol)
    work.each(state, names, enforce_limits, symbols=[symbol], accounts=names)


def _receive(account: Account, cash: int) -> None:
    account.cash += cash
    account.realized += cash


def _check(account: Account, cash: int) -> None:
    """Refuse ("insufficient_funds") more than can be counted."""
    check_cash(account, cash, "amount")
    if abs(account.realized + cash) > MAX_INT:
        raise Refused(
            "insufficient_funds",
            f"the profit of {account.name} would exceed {MAX_INT}",
            field="amount",
        )
