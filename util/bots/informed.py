"""An informed trader: knows the value, and trades when the market is wrong.

It profits from quotes at a wrong price, and so moves the price towards the
value. It gives back what it holds as soon as that costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from client import Market

from .bounds import most_held, order_size
from .value import grain

EDGE = 2  # grains of profit for which it trades
QTY = 5  # lots of an order, at most
MOST = 50  # lots held at most, long or short


async def trade_on_knowledge(
    market: Market, value: Callable[[], int], speed: float
) -> None:
    """Look at the book ``speed`` times a second until canceled.

    ``value`` returns the fair value of the instrument. Raises Refused and
    ExchangeError.
    """
    most = most_held(market.instrument, MOST)
    size = order_size(market.instrument, QTY, most)
    while True:
        await asyncio.sleep(1 / speed)
        worth, position, book = value(), market.position, market.book
        edge = EDGE * grain(worth)
        cheap = worth - (0 if position < 0 else edge)
        dear = worth + (0 if position > 0 else edge)
        if book.asks and book.asks[0][0] <= cheap:
            price, offered = book.asks[0]
            qty = min(size, offered, most - position)
            if qty > 0:
                await market.buy(qty, price, time_in_force="ioc")
        elif book.bids and book.bids[0][0] >= dear:
            price, wanted = book.bids[0]
            qty = min(size, wanted, most + position)
            if qty > 0:
                await market.sell(qty, price, time_in_force="ioc")
