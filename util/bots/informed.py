"""An informed trader: knows the value, and trades when the market is wrong.

It profits from quotes at a wrong price, and so moves the price towards the
value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from client import Market

EDGE = 2  # ticks of profit for which it trades
QTY = 5  # lots of an order, at most
MOST = 50  # lots held at most, long or short


async def trade_on_knowledge(
    market: Market, value: Callable[[], int], speed: float
) -> None:
    """Look at the book ``speed`` times a second until canceled.

    ``value`` returns the fair value of the instrument. Raises Refused and
    ExchangeError.
    """
    size = min(QTY, market.instrument.max_qty)
    while True:
        await asyncio.sleep(1 / speed)
        worth, position, book = value(), market.position, market.book
        if book.asks and book.asks[0][0] <= worth - EDGE:
            price, offered = book.asks[0]
            qty = min(size, offered, MOST - position)
            if qty > 0:
                await market.buy(qty, price, time_in_force="ioc")
        elif book.bids and book.bids[0][0] >= worth + EDGE:
            price, wanted = book.bids[0]
            qty = min(size, wanted, MOST + position)
            if qty > 0:
                await market.sell(qty, price, time_in_force="ioc")
