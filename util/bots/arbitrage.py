"""An arbitrageur: keeps an instrument near the price of its basket.

When the instrument is dearer than the lots that it converts from, it buys
these lots, converts them, and sells the instrument; when it is cheaper, the
other way round. Each order is filled whole or not at all. If a leg fails,
because somebody was faster, the conversion leaves a position in it; MOST
bounds what can add up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from client import Market
from orderbook import PriceLevel, Side

MOST = 200  # lots of one leg held at most, long or short


@dataclass(frozen=True, slots=True)
class Leg:
    """One symbol of the basket: its market, and its lots for one lot."""

    market: Market
    count: int


async def arbitrage(
    market: Market, legs: Mapping[str, Market], speed: float
) -> None:
    """Compare the prices ``speed`` times a second until canceled.

    ``legs`` are the markets of the basket by symbol. Raises Refused and
    ExchangeError.
    """
    convert = market.instrument.convert
    assert convert is not None
    parts = [Leg(legs[s], count) for s, count in convert.basket.items()]
    while True:
        await asyncio.sleep(1 / speed)
        for side in ("buy", "sell"):
            if _profit(market, parts, side) > 0:
                await _exploit(market, parts, side)


def _profit(market: Market, parts: list[Leg], side: Side) -> int:
    """Return what one conversion would earn now, in units of money.

    "buy" turns the basket into the instrument. Negative where a price is
    missing or the book shows too few lots.
    """
    convert = market.instrument.convert
    assert convert is not None
    gained = _proceeds(market, convert.lot, "sell" if side == "buy" else "buy")
    if gained is None:
        return -1
    for leg in parts:
        qty = convert.lot * leg.count
        held = leg.market.position + (qty if side == "buy" else -qty)
        paid = _proceeds(leg.market, qty, side)
        if paid is None or abs(held) > MOST:
            return -1
        gained += paid
    return gained - convert.fee


def _proceeds(market: Market, qty: int, side: Side) -> int | None:
    """Return the cash for an order at the best price; below 0: its cost."""
    best = _best(market, side)
    if best is None or best[1] < qty:
        return None
    price = best[0] if side == "sell" else -best[0]
    return price * qty * market.instrument.tick_value


def _best(market: Market, side: Side) -> PriceLevel | None:
    """Return the level with which an order of a side would trade first."""
    levels = market.book.asks if side == "buy" else market.book.bids
    return levels[0] if levels else None


async def _exploit(market: Market, parts: list[Leg], side: Side) -> None:
    """Trade the instrument, then its basket, and convert one lot size.

    The instrument goes first: if it fails, nothing has happened.
    """
    convert = market.instrument.convert
    assert convert is not None
    other: Side = "sell" if side == "buy" else "buy"
    if not await _take(market, convert.lot, other):
        return
    for leg in parts:
        await _take(leg.market, convert.lot * leg.count, side)
    await market.convert(side, convert.lot)


async def _take(market: Market, qty: int, side: Side) -> bool:
    """Trade at the best price; return whether all lots were filled."""
    best = _best(market, side)
    if best is None:
        return False
    place = market.buy if side == "buy" else market.sell
    order = await place(qty, best[0], time_in_force="fok")
    return order.cum_qty == qty
