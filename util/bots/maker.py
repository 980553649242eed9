"""A market maker: always ready to buy a bit lower and sell a bit higher.

It earns the spread. Its risks are a large position when the value moves, and
trading with informed traders; so it moves its quotes against its position.
What it thinks that the instrument is worth comes from the prices of trades, or
is an ``Opinion``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from client import Exchange, Market

from .bounds import most_held, order_size
from .value import grain

EDGE = 2  # grains between the estimate and each quote
# The same for what converts into a basket: so it pays to quote it better, and
# to trade the basket and convert.
BASKET_EDGE = 4
QTY = 10  # lots shown on each side
MOST = 100  # lots held at most, long or short
LEAN = 5  # grains by which the largest position moves the quotes
# The estimate is the mean of the last TRADES trades and of the initial belief,
# which counts as BELIEF trades, so that few trades move it little.
TRADES = 20
BELIEF = 5
# An opinion is late by seconds between these, and wrong by an error that
# changes with each look: what is left of it, and the deviation of what comes.
LATE_S = (0.5, 2.0)
LEFT = 0.8
ERROR = 0.4  # in grains


class Opinion:
    """What a maker thinks that an instrument is worth: late and inexact.

    So the makers differ, and somebody who knows more can trade with them.
    """

    def __init__(self, value: Callable[[float], int], chance: Random) -> None:
        """``value`` returns the fair value of so many seconds ago."""
        self._value = value
        self._chance = chance
        self._late_s = chance.uniform(*LATE_S)
        self._error = 0.0

    def __call__(self) -> float:
        """Return the estimate of now, in ticks."""
        self._error = LEFT * self._error + self._chance.gauss(0, ERROR)
        value = self._value(self._late_s)
        return value + self._error * grain(value)


async def make_market(
    exchange: Exchange, market: Market, belief: int, speed: float
) -> None:
    """Quote ``speed`` times a second until canceled.

    ``belief`` is what an instrument is worth before anything has traded.
    Raises Refused and ExchangeError.
    """
    while True:
        trades = await exchange.get(
            "trades", symbol=market.symbol, limit=TRADES
        )
        traded = sum(trade.price for trade in trades)
        estimate = (BELIEF * belief + traded) / (BELIEF + len(trades))
        await _quote(market, estimate)
        await asyncio.sleep(1 / speed)


async def quote_an_opinion(
    market: Market, opinion: Callable[[], float], speed: float
) -> None:
    """Quote around an estimate ``speed`` times a second until canceled.

    Raises Refused and ExchangeError.
    """
    while True:
        await _quote(market, opinion())
        await asyncio.sleep(1 / speed)


async def _quote(market: Market, estimate: float) -> None:
    """Show both sides, as far as the position and the bounds allow."""
    limits = market.instrument
    most = most_held(limits, MOST)
    qty = order_size(limits, QTY, most)
    unit = grain(estimate)
    middle = round(estimate - market.position / most * LEAN * unit)
    edge = (BASKET_EDGE if limits.convert else EDGE) * unit
    bid, ask = middle - edge, middle + edge
    # A quote can be filled while the next one is on its way, hence two.
    can_buy = market.position + 2 * qty <= most
    can_sell = market.position - 2 * qty >= -most
    await market.quote(
        bid if can_buy and bid >= limits.min_price else None,
        ask if can_sell and ask <= limits.max_price else None,
        qty,
    )
