"""When an instrument closes by itself: `close_ms` of an administrator.

The time runs while the instrument is open, and in an auction that the band
has started. In any phase that an administrator sets instead it stands still,
and goes on at the next "open".
"""

from __future__ import annotations

from exchange.market.listing import Listing
from exchange.market.state import CLOSES, State


def start_close(state: State, listing: Listing, left_us: int) -> None:
    """Let an instrument close after this much trading time."""
    listing.close_left_us = None
    listing.close_ts = state.ts + left_us
    symbol = listing.instrument.symbol
    state.add_deadline((listing.close_ts, CLOSES, symbol))


def pause_close(state: State, listing: Listing) -> None:
    """Let the time stand still, if it runs."""
    if listing.close_ts is not None:
        listing.close_left_us = listing.close_ts - state.ts
        listing.close_ts = None


def continue_close(state: State, listing: Listing) -> None:
    """Let the time go on, if it stands still."""
    if listing.close_left_us is not None:
        start_close(state, listing, listing.close_left_us)


def end_close(listing: Listing) -> None:
    """Let the instrument no longer close by itself."""
    listing.close_ts = listing.close_left_us = None


def postpone_closes(state: State, by_us: int) -> None:
    """Let every instrument whose time runs close later."""
    for listing in state.listings.values():
        if listing.close_ts is not None:
            start_close(state, listing, listing.close_ts + by_us - state.ts)
