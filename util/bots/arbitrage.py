"""An arbitrageur: keeps an instrument near the price of its basket.

When the instrument is dearer than the lots that it converts from, it buys
these lots, converts them, and sells the instrument; when it is cheaper, the
other way round. As the fee is paid once for a conversion of any size, it
converts as much as the best prices allow. Each order is filled whole or not at
all. If a leg fails, because somebody was faster, a position is left; the bot
sells or buys it back at the best price.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from client import Market
from orderbook import PriceLevel, Side

from .bounds import most_held

MOST = 200  # lots of one leg held at most, long or short


@dataclass(frozen=True, slots=True)
class Leg:
    """One side of a conversion: its market, its lots in the smallest one."""

    market: Market
    qty: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """An instrument and its basket, as the smallest conversion moves them."""

    whole: Leg
    parts: tuple[Leg, ...]
    fee: int

    def times(self, side: Side) -> int:
        """Return how many conversions the best prices allow at once."""
        return min(
            _lots(self.whole, _other(side)) // self.whole.qty,
            *(_lots(part, side) // part.qty for part in self.parts),
        )

    def profit(self, side: Side, times: int) -> int:
        """Return what so many conversions earn now, in units of money.

        "buy" turns the basket into the instrument.
        """
        gained = _proceeds(self.whole, _other(side))
        gained += sum(_proceeds(part, side) for part in self.parts)
        return gained * times - self.fee


async def arbitrage(
    market: Market, legs: Mapping[str, Market], speed: float
) -> None:
    """Compare the prices ``speed`` times a second until canceled.

    ``legs`` are the markets of the basket by symbol. Raises Refused and
    ExchangeError.
    """
    bundle = _bundle(market, legs)
    while True:
        await asyncio.sleep(1 / speed)
        sides: tuple[Side, ...] = ("buy", "sell")
        for side in sides:
            times = bundle.times(side)
            if times > 0 and bundle.profit(side, times) > 0:
                await _exploit(bundle, side, times)
                break
        else:
            for leg in (bundle.whole, *bundle.parts):
                await _give_back(leg.market)


def _bundle(market: Market, legs: Mapping[str, Market]) -> Bundle:
    convert = market.instrument.convert
    assert convert is not None
    baskets = convert.lot // convert.per  # in the smallest conversion
    return Bundle(
        Leg(market, convert.lot),
        tuple(
            Leg(legs[symbol], count * baskets)
            for symbol, count in convert.basket.items()
        ),
        convert.fee,
    )


def _other(side: Side) -> Side:
    return "sell" if side == "buy" else "buy"


def _best(market: Market, side: Side) -> PriceLevel | None:
    """Return the level with which an order of a side would trade first."""
    levels = market.book.asks if side == "buy" else market.book.bids
    return levels[0] if levels else None


def _lots(leg: Leg, side: Side) -> int:
    """Return the lots that the best price and the limits allow."""
    market = leg.market
    best, most = _best(market, side), most_held(market.instrument, MOST)
    sign = 1 if side == "buy" else -1
    offered = best[1] if best is not None else 0
    return min(offered, most - sign * market.position)


def _proceeds(leg: Leg, side: Side) -> int:
    """Return the cash for the leg at the best price; below 0: its cost."""
    best = _best(leg.market, side)
    assert best is not None
    price = best[0] if side == "sell" else -best[0]
    return price * leg.qty * leg.market.instrument.tick_value


async def _exploit(bundle: Bundle, side: Side, times: int) -> None:
    """Trade the instrument, then its basket, and convert.

    The instrument goes first: if it fails, nothing has happened.
    """
    whole = bundle.whole
    if not await _take(whole.market, whole.qty * times, _other(side)):
        return
    for part in bundle.parts:
        await _take(part.market, part.qty * times, side)
    await whole.market.convert(side, whole.qty * times)


async def _take(market: Market, qty: int, side: Side) -> bool:
    """Trade at the best price; return whether all lots were filled."""
    best = _best(market, side)
    if best is None:
        return False
    place = market.buy if side == "buy" else market.sell
    order = await place(qty, best[0], time_in_force="fok")
    return order.cum_qty == qty


async def _give_back(market: Market) -> None:
    """Trade against a position that is left, at the best price."""
    position = market.position
    best = _best(market, "sell" if position > 0 else "buy")
    if not position or best is None:
        return
    qty = min(abs(position), best[1])
    place = market.sell if position > 0 else market.buy
    await place(qty, best[0], time_in_force="ioc")
