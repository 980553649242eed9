"""Rounds: `reset` ends one and begins the next."""

from __future__ import annotations

from functools import partial

from exchange.market import work
from exchange.market.accounts import Account
from exchange.market.closing import end_close
from exchange.market.listing import Listing
from exchange.market.phases import enter_phase
from exchange.market.reports import reply_ok
from exchange.market.state import EVERYTHING, State
from exchange.market.transfers import report_account
from orderbook import Admin


def reset(state: State, name: str, admin: Admin) -> None:
    """Start again: no orders, no positions, cash as configured.

    Order ids, trade ids and news ids go on. What clients have numbered stays
    remembered, and so do suspensions by `suspend` and each account's
    `cancel_after`. Instruments that were settled are listed again.
    """
    reply_ok(state, name)
    # A book has its orders almost by id, and so they are sorted fast.
    orders = [
        order
        for listing in state.listings.values()
        for order in listing.open_orders()
    ]
    then = partial(_begin_round, reason=admin.reason)
    work.cancel_all(state, orders, "admin", then, symbols=[EVERYTHING])


def _begin_round(state: State, reason: str) -> None:
    """Begin the next round of every account, then of every instrument."""
    if state.rules >= 3:
        state.round += 1
    state.tenders.clear()
    work.each(
        state,
        list(state.accounts.values()),
        _restart_account,
        partial(_restart_listings, reason=reason),
        symbols=[EVERYTHING],
    )


def _restart_account(state: State, account: Account) -> None:
    """Give an account the cash that it began with, and no position."""
    account.cash = account.limits.cash
    account.realized = 0
    if account.is_closed_out:
        account.is_closed_out = account.is_suspended = False
    account.positions.clear()
    account.costs.clear()
    report_account(state, account)


def _restart_listings(state: State, reason: str) -> None:
    """Begin the first phase of every instrument."""
    for listing in state.listings.values():
        _restart_listing(listing)
        phase = listing.instrument.phase
        enter_phase(state, listing, phase, f"reset: {reason}")
        listing.frozen_mark = None  # no mark of the round before


def _restart_listing(listing: Listing) -> None:
    """Forget the trades of an instrument, and what was set for the round."""
    listing.last = listing.moved_reference = None
    listing.volume = 0
    listing.recent.clear()
    listing.busted.clear()
    listing.settlement_price = listing.expire_ts = None
    if listing.prints is not None:
        listing.prints.moments.clear()
    listing.round_trade_id = listing.trade_id
    end_close(listing)
