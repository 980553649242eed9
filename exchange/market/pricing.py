"""Settlement prices: which instruments settle, in which order, at what.

An administrator names instruments with or without a price. Derivatives of
``expires = "round"`` settle with their underlying, and the binaries of a group
together. Each instrument comes after those on which its price depends.
"""

from __future__ import annotations

from typing import TypeAlias

from exchange.market.listing import Listing
from exchange.market.products import (
    payoff,
    requirements,
    settlement_bounds,
)
from exchange.market.state import State
from orderbook import Admin, Instrument, Refused

# By symbol; None: to be computed.
Requested: TypeAlias = dict[str, int | None]


def requested_prices(state: State, admin: Admin) -> Requested:
    """Return what an administrator wants settled, checked; raises Refused."""
    field = "price" if admin.prices is None else "prices"
    requested: Requested
    if admin.prices is None:
        requested = {
            state.listing(admin.symbol).instrument.symbol: admin.price
        }
    else:
        requested = dict(admin.prices)
    for symbol in requested:
        if symbol not in state.listings:
            raise Refused(
                "unknown_symbol", f"{symbol} is not listed", field=field
            )
    for symbol in requested:
        settled_at = state.listings[symbol].settlement_price
        if settled_at is not None:
            raise Refused(
                "market_closed",
                f"{symbol} is settled at {settled_at}; a reset lists it again",
            )
    for symbol, price in requested.items():
        _check_price(state, state.listings[symbol].instrument, price, field)
    return requested | _rest_of_groups(state, requested, field)


def settlement_prices(
    state: State, requested: Requested, ts: int
) -> dict[str, int]:
    """Return the price of everything that settles, in order of settlement.

    What follows its underlying is added, and what has no price is computed.
    """
    wanted = requested | _followers(state, requested)
    prices: dict[str, int] = {}
    seen: dict[str, None] = {}

    def visit(symbol: str) -> None:
        if symbol in seen or symbol not in wanted:
            return
        seen[symbol] = None
        listing = state.listings[symbol]
        for needed in requirements(listing.instrument):
            visit(needed)
        price = wanted[symbol]
        if price is None:
            price = _computed(state, listing, prices, ts)
        prices[symbol] = price

    for symbol in wanted:
        visit(symbol)
    return prices


def _check_price(
    state: State, instrument: Instrument, price: int | None, field: str
) -> None:
    """Refuse a price that cannot be, and none where one is needed."""
    symbol = instrument.symbol
    if price is None:
        if not requirements(instrument):
            raise Refused(
                "bad_request",
                f"price: required to settle {symbol}",
                field="price",
            )
        return
    if instrument.kind == "binary":
        if price not in (0, instrument.pays):
            raise Refused(
                "invalid_price",
                f"{symbol} settles at 0 or at {instrument.pays}, not at"
                f" {price}",
                field=field,
            )
        return
    bounds = settlement_bounds(instrument, state.underlying(instrument))
    check_within(bounds, symbol, price, field)


def check_within(
    bounds: tuple[int, int], symbol: str, price: int, field: str
) -> None:
    """Refuse ("invalid_price") a price outside of these bounds."""
    low, high = bounds
    if not low <= price <= high:
        raise Refused(
            "invalid_price",
            f"price {price} of {symbol} is not within {low} and {high}",
            field=field,
        )


def _rest_of_groups(
    state: State, requested: Requested, field: str
) -> Requested:
    """Return the binaries that settle at 0, as another of a group pays.

    Refuses ("invalid_price") a group of which not exactly one pays.
    """
    groups = [state.listings[symbol].instrument.group for symbol in requested]
    rest: Requested = {}
    for group in dict.fromkeys(filter(None, groups)):
        members = {
            symbol: requested.get(symbol, listing.settlement_price)
            for symbol, listing in state.listings.items()
            if listing.instrument.group == group
        }
        payers = [symbol for symbol, price in members.items() if price]
        if len(payers) != 1:
            raise Refused(
                "invalid_price",
                f"exactly one of the group {group} pays, not {len(payers)}",
                field=field,
            )
        rest |= {s: 0 for s, price in members.items() if price is None}
    return rest


def _followers(state: State, requested: Requested) -> Requested:
    """Return the derivatives that settle with an underlying."""
    return {
        symbol: None
        for symbol, listing in state.listings.items()
        if listing.instrument.expires == "round"
        and listing.instrument.underlying in requested
        and listing.settlement_price is None
        and symbol not in requested
    }


def _computed(
    state: State, listing: Listing, prices: dict[str, int], ts: int
) -> int:
    """Return the price that follows from the underlying, or from the parts.

    ``prices`` are those of what settles before it. The price of a convertible
    is the value of its basket in its own ticks, rounded down.
    """

    def price_of(symbol: str) -> int:
        if symbol in prices:
            return prices[symbol]
        return state.listings[symbol].settling_price(ts)

    instrument = listing.instrument
    if instrument.convert is None:
        assert instrument.underlying is not None
        return payoff(instrument, price_of(instrument.underlying))
    value = sum(
        count * state.listings[symbol].value_of(price_of(symbol))
        for symbol, count in instrument.convert.basket.items()
    )
    return value // (instrument.tick_value * instrument.convert.per)
