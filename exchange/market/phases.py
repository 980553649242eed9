"""Phases of an instrument: how one begins, and the auction that opens it."""

from __future__ import annotations

from exchange.market.auction import clearing_price
from exchange.market.closing import continue_close, end_close
from exchange.market.executions import book_cross, cancel_each
from exchange.market.listing import Listing
from exchange.market.reports import report_status, report_trade
from exchange.market.state import PHASE_ENDS, State
from orderbook import Phase, Side


def enter_phase(
    state: State,
    listing: Listing,
    phase: Phase,
    message: str,
    reopen_ms: int | None = None,
) -> None:
    """Begin a phase of an instrument and publish it.

    "open" first executes the auction if the phase was another; "closed"
    cancels all orders, and the mark stays as it was before. With
    ``reopen_ms`` the phase ends after that time, and the instrument opens.
    """
    symbol = listing.instrument.symbol
    mark = listing.mark()
    if phase == "open" and listing.phase != "open":
        _uncross(state, listing)
    if phase == "closed":
        cancel_each(state, listing.book.orders.values(), "closed")
    listing.enter(phase)
    listing.reason = message
    if phase == "closed":
        end_close(listing)
        if state.rules >= 3:
            listing.frozen_mark = mark
    elif phase == "open":
        continue_close(state, listing)
    if reopen_ms is not None:
        listing.reopen_ts = state.ts + reopen_ms * 1_000
        state.add_deadline((listing.reopen_ts, PHASE_ENDS, symbol))
    report_status(state, message, symbol, phase)


def stop_at_band(state: State, listing: Listing) -> None:
    """Begin an auction because the next trade would be outside the band."""
    instrument = listing.instrument
    enter_phase(
        state,
        listing,
        "auction",
        f"the next trade would be more than {instrument.band} ticks from the"
        " reference price",
        instrument.auction_ms,
    )


def _uncross(state: State, listing: Listing) -> None:
    """Let the orders that cross trade at one price."""
    book = listing.book
    price = clearing_price(
        book.depth("buy"), book.depth("sell"), listing.reference
    )
    if price is None:
        return
    state.touched[listing.instrument.symbol] = listing
    for bid, ask, qty in book.uncross(price):
        # The younger order is the aggressor.
        side: Side = "buy" if bid.order_id > ask.order_id else "sell"
        trade = report_trade(state, listing, price, qty, side)
        book_cross(state, bid, ask, trade)
