"""Rounds: `reset` ends one and begins the next."""

from __future__ import annotations

from exchange.market.closing import end_close
from exchange.market.executions import cancel_each
from exchange.market.listing import Listing
from exchange.market.phases import enter_phase
from exchange.market.reports import reply_ok
from exchange.market.state import State
from exchange.market.transfers import report_account
from orderbook import Admin


def reset(state: State, name: str, admin: Admin) -> None:
    """Start again: no orders, no positions, cash as configured.

    Order ids, trade ids and news ids go on. What clients have numbered stays
    remembered, and so do suspensions and each account's `cancel_after`.
    """
    reply_ok(state, name)
    orders = (
        order
        for account in state.accounts.values()
        for order in account.open_orders.values()
    )
    cancel_each(state, orders, "admin")
    if state.rules >= 3:
        state.round += 1
    state.tenders.clear()
    for account in state.accounts.values():
        account.cash = account.limits.cash
        account.realized = 0
        account.positions.clear()
        account.costs.clear()
        report_account(state, account)
    for listing in state.listings.values():
        _begin_round(listing)
        phase = listing.instrument.phase
        enter_phase(state, listing, phase, f"reset: {admin.reason}")
        listing.frozen_mark = None  # no mark of the round before


def _begin_round(listing: Listing) -> None:
    """Forget the trades of an instrument, and what was set for the round."""
    listing.last = listing.moved_reference = None
    listing.volume = 0
    listing.recent.clear()
    listing.busted.clear()
    listing.round_trade_id = listing.trade_id
    end_close(listing)
