"""A market maker: always ready to buy a bit lower and sell a bit higher.

It earns the spread. Its risks are a large position when the value moves, and
trading with informed traders; so it moves its quotes against its position,
and towards the prices of trades.
"""

from __future__ import annotations

import asyncio

from client import Exchange, Market

EDGE = 2  # ticks between the estimate and each quote
QTY = 10  # lots shown on each side
MOST = 100  # lots held at most, long or short
LEAN = 20  # lots of position that move the quotes by a tick
# The estimate is the mean of the last TRADES trades and of the initial belief,
# which counts as BELIEF trades, so that few trades move it little.
TRADES = 20
BELIEF = 5


async def make_market(
    exchange: Exchange, market: Market, belief: int, speed: float
) -> None:
    """Quote ``speed`` times a second until canceled.

    ``belief`` is what an instrument is worth before anything has traded.
    Raises Refused and ExchangeError.
    """
    limits = market.instrument
    qty = min(QTY, limits.max_qty)
    while True:
        trades = await exchange.get(
            "trades", symbol=market.symbol, limit=TRADES
        )
        traded = sum(trade.price for trade in trades)
        estimate = (BELIEF * belief + traded) / (BELIEF + len(trades))
        middle = round(estimate - market.position / LEAN)
        bid, ask = middle - EDGE, middle + EDGE
        # A quote can be filled while the next one is on its way, hence two.
        can_buy = market.position + 2 * qty <= MOST
        can_sell = market.position - 2 * qty >= -MOST
        await market.quote(
            bid if can_buy and bid >= limits.min_price else None,
            ask if can_sell and ask <= limits.max_price else None,
            qty,
        )
        await asyncio.sleep(1 / speed)
