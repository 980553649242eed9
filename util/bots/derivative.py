"""A market maker of derivatives: quotes around what a model says.

A future or an option trades too seldom to be valued by its own trades, but
its underlying trades often. So the model turns the price of the underlying
into a value. The risk that is left is that of the position: it moves the
quotes against it, but does not hedge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from client import Market

EDGE = 2  # ticks between the value and each quote
QTY = 5  # lots shown on each side
MOST = 50  # lots held at most, long or short
LEAN = 10  # lots of position that move the quotes by a tick


async def make_derived_market(
    market: Market, value: Callable[[], float | None], speed: float
) -> None:
    """Quote ``speed`` times a second until canceled.

    ``value`` returns what the model says in ticks, or None while it cannot
    say. Raises Refused and ExchangeError.
    """
    limits = market.instrument
    qty = min(QTY, limits.max_qty)
    while True:
        worth, position = value(), market.position
        bid = ask = None
        if worth is not None:
            middle = round(worth - position / LEAN)
            low = middle - EDGE
            high = max(middle + EDGE, limits.min_price)
            # A quote can be filled while the next is on its way, hence two.
            if position + 2 * qty <= MOST and low >= limits.min_price:
                bid = low
            if position - 2 * qty >= -MOST and high <= limits.max_price:
                ask = high
        await market.quote(bid, ask, qty)
        await asyncio.sleep(1 / speed)
