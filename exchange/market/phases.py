"""Phases of an instrument: how one begins, and the auction that opens it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import attrgetter

from exchange.market import work
from exchange.market.auction import clearing_price
from exchange.market.closing import continue_close, end_close
from exchange.market.executions import book_cross, cancel_order
from exchange.market.expiry import start_expiry
from exchange.market.listing import Listing
from exchange.market.reports import report_status, report_trade
from exchange.market.state import PHASE_ENDS, State
from orderbook import Order, Phase, PriceLevel, Side

CROSS_OPERATIONS = 2  # of a slice: the two orders of a cross are filled


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
    begin = partial(
        _begin,
        symbol=symbol,
        phase=phase,
        mark=listing.mark(),
        message=message,
        reopen_ms=reopen_ms,
    )
    if phase == "open" and listing.phase != "open":
        _uncross(state, listing, begin)
    elif phase == "closed":
        work.cancel_all(state, listing.open_orders(), "closed", begin)
    else:
        begin(state)


def _begin(
    state: State,
    symbol: str,
    phase: Phase,
    mark: int,
    message: str,
    reopen_ms: int | None,
) -> None:
    """Begin a phase whose auction or cancels are done.

    ``mark`` is as it was before them.
    """
    listing = state.listings[symbol]
    listing.enter(phase)
    listing.reason = message
    if phase == "closed":
        end_close(listing)
        if state.rules >= 3:
            listing.frozen_mark = mark
    elif phase == "open":
        continue_close(state, listing)
        start_expiry(state, listing)
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


def _uncross(state: State, listing: Listing, then: work.Then) -> None:
    """Let the orders that cross trade at one price, then call ``then``.

    It is done again while what is left can trade at another price: that may
    be so if the reference price moved while orders were collected, and market
    orders could not trade as far as limit orders. Then the market orders that
    are left expire.
    """
    price = _auction_price(state, listing)
    if price is not None:
        work.run(state, Uncrossing(listing.instrument.symbol, price, then))
        return
    book = listing.book
    left = book.market_orders("buy") + book.market_orders("sell")
    if left:
        left.sort(key=attrgetter("order_id"))
        work.each(state, left, _expire_market, then, symbols=[left[0].symbol])
    else:
        then(state)


def _expire_market(state: State, order: Order) -> None:
    cancel_order(state, order, "no_liquidity", "expired")


def _auction_price(state: State, listing: Listing) -> int | None:
    """Return the price at which orders would trade now, if any would."""
    book, is_new = listing.book, state.rules >= 3
    return clearing_price(
        book.whole_depth("buy"),
        book.whole_depth("sell"),
        listing.known_reference if is_new else listing.reference,
        buyers=_levels(book.market_orders("buy")),
        sellers=_levels(book.market_orders("sell")),
        by_pressure=is_new,
    )


@dataclass(slots=True)
class Uncrossing:
    """An auction that is being executed. Its phase goes on until the end."""

    symbol: str
    price: int
    then: work.Then

    @property
    def symbols(self) -> tuple[str, ...]:
        """The instrument."""
        return (self.symbol,)

    @property
    def accounts(self) -> tuple[str, ...]:
        """None: each trade leaves its accounts as any trade does."""
        return ()

    def step(self, state: State) -> bool:
        """Make the trades that fit into the slice."""
        most = -(-max(0, work.room(state)) // CROSS_OPERATIONS)  # rounded up
        listing, price = state.listings[self.symbol], self.price
        state.touched[self.symbol] = listing
        made = 0
        for bid, ask, qty in islice(listing.book.uncross(price), most):
            # The younger order is the aggressor.
            side: Side = "buy" if bid.order_id > ask.order_id else "sell"
            is_self = bid.account == ask.account
            trade = report_trade(
                state, listing, price, qty, side, is_self=is_self
            )
            book_cross(state, bid, ask, trade)
            made += 1
        work.spend(state, made * CROSS_OPERATIONS)
        if made == most:
            return False
        _uncross(state, listing, self.then)
        return True


def _levels(orders: Iterable[Order]) -> list[PriceLevel]:
    """Return the limit and the quantity of each market order."""
    return [
        (order.worst_price, order.leaves_qty)
        for order in orders
        if order.worst_price is not None
    ]
