"""When a derivative settles by itself: ``expires`` of the market file.

The time runs from the moment when the instrument first opens in a round,
whatever phase it is in later.
"""

from __future__ import annotations

from exchange.market.listing import Listing
from exchange.market.prints import Prints
from exchange.market.products import DERIVATIVES
from exchange.market.state import EXPIRES, State
from orderbook import Instrument

SECOND = 1_000_000  # microseconds


def start_expiry(state: State, listing: Listing) -> None:
    """Set when an instrument that opens expires, unless that is set."""
    seconds = listing.instrument.expires
    if (
        isinstance(seconds, int)
        and listing.expire_ts is None
        and listing.settlement_price is None
    ):
        _expire_at(state, listing, state.ts + seconds * SECOND)


def postpone_expiries(state: State, by_us: int) -> None:
    """Let every instrument whose time runs expire later."""
    for listing in state.listings.values():
        if listing.prints is not None:
            listing.prints.postpone(by_us)
        if listing.expire_ts is not None:
            _expire_at(state, listing, listing.expire_ts + by_us)


def change_expiry(
    state: State, listing: Listing, before: Instrument | None
) -> None:
    """Start the time of an instrument that is new, or whose time changed."""
    if before is not None and before.expires == listing.instrument.expires:
        return
    listing.expire_ts = None
    if listing.phase == "open":
        start_expiry(state, listing)


def keep_prints(state: State) -> None:
    """Keep the trades of the underlyings, and of no other instrument."""
    underlyings = {
        listing.instrument.underlying: None
        for listing in state.listings.values()
        if listing.instrument.kind in DERIVATIVES
    }
    for symbol, listing in state.listings.items():
        if symbol not in underlyings:
            listing.prints = None
        elif listing.prints is None:
            listing.prints = Prints()


def _expire_at(state: State, listing: Listing, ts: int) -> None:
    listing.expire_ts = ts
    state.add_deadline((ts, EXPIRES, listing.instrument.symbol))
