"""Setting the market: instruments, limits, and the version of the rules."""

from __future__ import annotations

from exchange.market.accounts import VALUE_MAX, Account, unit_cost
from exchange.market.command import Command, Configure
from exchange.market.expiry import change_expiry, keep_prints
from exchange.market.listing import Listing
from exchange.market.products import value_bounds
from exchange.market.state import State
from orderbook import OrderBook


def configure(state: State, command: Command, action: Configure) -> None:
    """List new instruments; apply new bounds, limits and rules.

    An instrument that is listed keeps its phase, and one that is no longer
    configured stays.
    """
    assert action.engine_version in state.known_rules
    state.configured = action
    state.rules = action.engine_version
    for instrument in action.instruments:
        listing, before = state.listings.get(instrument.symbol), None
        if listing is None:
            listing = Listing(instrument, OrderBook(instrument.symbol))
            listing.enter(instrument.phase)
            state.listings[instrument.symbol] = listing
        else:
            before, listing.instrument = listing.instrument, instrument
        change_expiry(state, listing, before)
    keep_prints(state)
    for listing in state.listings.values():
        listing.book.rules = state.rules
        instrument = listing.instrument
        low, high = value_bounds(instrument, state.underlying(instrument))
        value = len(state.listings) * max(abs(low), abs(high), 1)
        listing.position_max = VALUE_MAX // value
    for account in state.accounts.values():
        account.limits = state.limits(account.name)
        _recompute_reserved(state, account)


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
        account.hold(order, order.leaves_qty)
