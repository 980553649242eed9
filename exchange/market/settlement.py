"""The end of an instrument: positions become cash at its settlement price.

First the orders are canceled, then the holders are paid, then the
instruments close, each in the order of `settlement_prices`.
"""

from __future__ import annotations

from functools import partial

from exchange.market import work
from exchange.market.accounts import HOUSE
from exchange.market.phases import enter_phase
from exchange.market.pricing import requested_prices, settlement_prices
from exchange.market.reports import reply_ok, report_settlement
from exchange.market.state import State
from exchange.market.transfers import enforce_limits, report_account
from orderbook import MAX_INT, Admin, Order, Reason, Refused


def settle(state: State, name: str, admin: Admin) -> None:
    """Settle one instrument or several, and what settles with them."""
    requested = requested_prices(state, admin)
    prices = settlement_prices(state, requested, state.ts)
    _check_cash(state, prices)
    reply_ok(state, name)
    _settle_all(state, prices, "admin", admin.reason)


def expire(state: State, symbol: str) -> None:
    """Settle a derivative whose time is over.

    It cannot be refused: what positions may be worth is bounded.
    """
    ts = state.listings[symbol].expire_ts
    assert ts is not None
    prices = settlement_prices(state, {symbol: None}, ts)
    _settle_all(state, prices, "closed", "expired")


def _check_cash(state: State, prices: dict[str, int]) -> None:
    """Refuse ("insufficient_funds") more cash than can be counted."""
    values = {s: state.listings[s].value_of(p) for s, p in prices.items()}
    for account in state.accounts.values():
        paid = sum(
            account.positions.get(symbol, 0) * value
            for symbol, value in values.items()
        )
        if paid and abs(account.cash + paid) > MAX_INT:
            raise Refused(
                "insufficient_funds",
                f"the cash of {account.name} would exceed {MAX_INT}",
            )


def _settle_all(
    state: State, prices: dict[str, int], reason: Reason, words: str
) -> None:
    """Cancel the orders; then the rest follows, maybe in later commands."""
    orders: list[Order] = []
    for symbol, price in prices.items():
        listing = state.listings[symbol]
        orders += listing.open_orders()
        listing.expire_ts = None
        if state.rules >= 3:
            listing.settlement_price = price
    holders = [
        (symbol, account.name)
        for symbol in prices
        for account in state.accounts.values()
        if account.positions.get(symbol)
    ]
    names = list(dict.fromkeys(name for _, name in holders))
    close = partial(_close_all, prices=prices, names=names, words=words)
    work.cancel_all(
        state,
        orders,
        reason,
        partial(_pay_all, prices=prices, holders=holders, then=close),
        symbols=list(prices),
        accounts=names,
    )


def _pay_all(
    state: State,
    prices: dict[str, int],
    holders: list[tuple[str, str]],
    then: work.Then,
) -> None:
    """Pay every holder for each symbol, then call ``then``."""
    work.each(
        state,
        holders,
        partial(_pay, prices=prices),
        then,
        symbols=list(prices),
        accounts=list(dict.fromkeys(name for _, name in holders)),
    )


def _pay(
    state: State, holder: tuple[str, str], prices: dict[str, int]
) -> None:
    """Turn one position into cash, and tell its account."""
    symbol, name = holder
    account, price = state.accounts[name], prices[symbol]
    position, realized = account.positions[symbol], account.realized
    account.settle(symbol, state.listings[symbol].value_of(price))
    if state.rules >= 3 and name != HOUSE:
        report_settlement(
            state,
            account,
            symbol=symbol,
            position=position,
            price=price,
            realized=account.realized - realized,
        )
    report_account(state, account)


def _close_all(
    state: State, prices: dict[str, int], names: list[str], words: str
) -> None:
    """Close the instruments; cancel what the holders can no longer pay."""
    for symbol, price in prices.items():
        message = f"settled at {price}: {words}"
        enter_phase(state, state.listings[symbol], "closed", message)
    symbols = list(prices)
    work.each(state, names, enforce_limits, symbols=symbols, accounts=names)
