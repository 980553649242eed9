"""Setting the market: instruments, limits, money, version of the rules."""

from __future__ import annotations

from exchange.market.accounts import VALUE_MAX, Account, unit_cost
from exchange.market.command import Command, Configure, Money
from exchange.market.expiry import change_expiry, keep_prints
from exchange.market.fees import fees_of, lot_fee
from exchange.market.listing import Listing
from exchange.market.products import value_bounds
from exchange.market.solvency import enforce
from exchange.market.state import State
from orderbook import OrderBook


def configure(state: State, command: Command, action: Configure) -> None:
    """List new instruments; apply new bounds, limits and rules.

    An instrument that is listed keeps its phase, and one that is no longer
    configured stays. A match that an administrator set stays, unless another
    one is configured than before.
    """
    assert action.engine_version in state.known_rules
    if action.match != state.configured.match:
        state.match = action.match
    state.configured = action
    state.rules = action.engine_version
    for instrument in action.instruments:
        listing, before = state.listings.get(instrument.symbol), None
        if listing is None:
            listing = Listing(instrument, OrderBook(instrument.symbol))
            listing.enter(instrument.phase)
            state.listings[instrument.symbol] = listing
        else:
            before = listing.instrument
            listing.configure(instrument)
        change_expiry(state, listing, before)
    keep_prints(state)
    for listing in state.listings.values():
        listing.book.rules = state.rules
        instrument = listing.instrument
        low, high = value_bounds(instrument, state.underlying(instrument))
        value = listing.value_of(max(abs(low), abs(high), 1))
        listing.position_max = VALUE_MAX // (len(state.listings) * value)
    for account in state.accounts.values():
        account.limits = state.limits(account.name)
        _recompute_reserved(state, account)
        enforce(state, account)


def money_conflict(state: State, action: Configure) -> str:
    """Return why a configuration cannot follow the one in force; "" if it can.

    The cash of accounts is counted in the unit in force, so neither the unit
    nor a tick value may change while there are accounts.
    """
    if not state.accounts:
        return ""
    old, new = _words(state.configured.money), _words(action.money)
    if old != new:
        return f"money: was {old}, would become {new}"
    for instrument in action.instruments:
        listing = state.listings.get(instrument.symbol)
        before = instrument if listing is None else listing.instrument
        if before.tick_value != instrument.tick_value:
            return (
                f"instruments.{instrument.symbol}: tick_value (tick_size x"
                f" multiplier / unit) was {before.tick_value}, would become"
                f" {instrument.tick_value}"
            )
    return ""


def _words(money: Money | None) -> str:
    if money is None:
        return "none"
    return f"unit {money.unit} {money.currency}"


def _recompute_reserved(state: State, account: Account) -> None:
    """Set aside what the open orders need under the new fees."""
    account.buying.clear()
    account.selling.clear()
    account.reserved = 0
    for order in account.open_orders.values():
        instrument = state.listings[order.symbol].instrument
        limit = order.limit
        assert limit is not None
        order.unit_cost = unit_cost(instrument, order.side, limit)
        if order.fees is not None:
            order.fees.lot = lot_fee(instrument, order.side, limit)
            order.fees.held_qty = order.fees.margin = 0
        elif instrument.maker_fee_bp or instrument.taker_fee_bp:
            order.fees = fees_of(instrument, order.side, limit)
        account.hold(order, order.leaves_qty)
