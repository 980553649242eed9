"""Kinds of instruments: what one lot becomes when the instrument settles.

All prices are in ticks. Underlying and derivative have the same tick.
"""

from __future__ import annotations

from collections.abc import Sequence

from orderbook import Instrument

DERIVATIVES = ("future", "call", "put")


def payoff(instrument: Instrument, underlying_price: int) -> int:
    """Return what a lot of a derivative becomes at a price of the underlying.

    It is not cut at the bounds of the derivative's own price.
    """
    if instrument.kind == "future":
        return underlying_price
    strike = instrument.strike
    assert strike is not None
    if instrument.kind == "call":
        return max(0, underlying_price - strike)
    assert instrument.kind == "put"
    return max(0, strike - underlying_price)


def settlement_bounds(
    instrument: Instrument, underlying: Instrument | None
) -> tuple[int, int]:
    """Return the lowest and the highest price at which a lot may settle.

    ``underlying`` is that of a derivative.
    """
    if instrument.kind == "binary":
        assert instrument.pays is not None
        return min(0, instrument.pays), max(0, instrument.pays)
    low, high = instrument.min_price, instrument.max_price
    if underlying is None:
        return low, high
    ends = (
        payoff(instrument, underlying.min_price),
        payoff(instrument, underlying.max_price),
    )
    return min(ends), max(ends)


def value_bounds(
    instrument: Instrument, underlying: Instrument | None
) -> tuple[int, int]:
    """Return the lowest and the highest price of a lot, settled or traded."""
    low, high = settlement_bounds(instrument, underlying)
    return min(low, instrument.min_price), max(high, instrument.max_price)


def requirements(instrument: Instrument) -> Sequence[str]:
    """Return the symbols on whose settlement prices this one's depends."""
    if instrument.kind in DERIVATIVES and instrument.underlying is not None:
        return (instrument.underlying,)
    return tuple(instrument.convert.basket) if instrument.convert else ()
