"""A noise trader: buys and sells a little at random.

Real markets have many of them, for instance investors that need cash or
rebalance a fund. A market maker earns its spread from them.
"""

from __future__ import annotations

import asyncio
import random

from client import Market

from .bounds import most_held, order_size
from .fair_file import IDLE
from .pace import Pace
from .value import grain

QTY = 5  # lots of an order, at most
MOST = 20  # lots held at most, long or short
PATIENT = 0.5  # probability of an order that waits in the book
NEAR = 3  # grains behind the best price where such an order is, at most
WIDE = 20  # grains of spread at which it stays away


async def trade_at_random(
    market: Market, chance: random.Random, pace: Pace
) -> None:
    """Trade ``pace.hz`` times a second on average until canceled.

    Raises Refused and ExchangeError.
    """
    limits = market.instrument
    most = most_held(limits, MOST)
    size = order_size(limits, QTY, most)
    while True:
        await asyncio.sleep(chance.expovariate(pace.hz))
        if market.instrument.phase in IDLE:
            continue
        # With no open orders the position is final.
        await market.cancel_all()
        bid, ask, position = market.book.bid, market.book.ask, market.position
        if bid is None or ask is None or ask - bid > WIDE * grain(bid):
            continue
        qty = chance.randint(1, size)
        is_buying = chance.random() < 0.5
        if abs(position) + qty > most:  # at the limit: towards 0
            is_buying = position < 0
        place = market.buy if is_buying else market.sell
        if chance.random() < PATIENT:
            best, behind = (bid, -1) if is_buying else (ask, 1)
            price = best + behind * chance.randint(0, NEAR) * grain(bid)
            price = min(max(price, limits.min_price), limits.max_price)
            await place(qty, price)
        else:
            # A market order would pay any price; this pays the price it saw.
            price = ask if is_buying else bid
            await place(qty, price, time_in_force="ioc")
