"""The price of a call auction. Pure arithmetic.

The rule, as on most venues: the price at which most lots trade; among equal
ones that with the least imbalance between buyers and sellers; then market
pressure, which is the highest price if buyers are left over at all of them,
and the lowest if sellers are; then that nearest to the reference price.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from orderbook import PriceLevel


class Range(NamedTuple):
    """Prices at which the same lots could be bought and sold."""

    low: int
    high: int
    demand: int
    supply: int

    @property
    def rank(self) -> tuple[int, int]:
        """The best has the smallest: most lots, then least imbalance."""
        return -min(self.demand, self.supply), abs(self.surplus)

    @property
    def surplus(self) -> int:
        """The lots of buyers that are left over; below 0: of sellers."""
        return self.demand - self.supply


def clearing_price(
    bids: Sequence[PriceLevel],
    asks: Sequence[PriceLevel],
    reference: int | None,
    *,
    buyers: Sequence[PriceLevel] = (),
    sellers: Sequence[PriceLevel] = (),
    by_pressure: bool = True,
) -> int | None:
    """Return the auction price in ticks; None if nothing would trade.

    ``bids`` and ``asks`` are levels as returned by `OrderBook.depth`, best
    first. ``buyers`` and ``sellers`` are market orders: the limit and the lots
    of each. They add to the lots at a price, and only if no limit order can
    trade is the price the reference.

    ``reference`` None: there is none, and the middle of equally good prices
    is taken. ``by_pressure`` False leaves market pressure out, as the rules
    before version 3 did. Costs O(n log n) with n levels and market orders.
    """
    limits = [price for price, _ in (*bids, *asks)]
    if not buyers and not sellers:  # look only where bids and asks cross
        if not bids or not asks or bids[0][0] < asks[0][0]:
            return None
        limits = [asks[0][0], bids[0][0]]
    best: list[Range] = []
    if limits:
        low, high = min(limits), max(limits)
        for found in _ranges((*bids, *buyers), (*asks, *sellers), low, high):
            if not best or found.rank < best[0].rank:
                best = [found]
            elif found.rank == best[0].rank:
                best.append(found)
    if not best or not best[0].rank[0]:
        return _price_of_markets(buyers, sellers, reference)
    # Equally good prices follow each other: if two are, so is all between.
    lowest, highest = best[0].low, best[-1].high
    if by_pressure and best[-1].surplus > 0:
        return highest
    if by_pressure and best[0].surplus < 0:
        return lowest
    if reference is None:
        return (lowest + highest) // 2
    return min(max(reference, lowest), highest)


def _ranges(
    buy: Iterable[PriceLevel], sell: Iterable[PriceLevel], low: int, high: int
) -> Iterator[Range]:
    """Divide the prices from low to high into ranges, lowest first."""
    bought, sold = Counter[int](), Counter[int]()
    for price, qty in buy:
        bought[price] += qty
    for price, qty in sell:
        sold[price] += qty
    demand = sum(qty for price, qty in bought.items() if price >= low)
    supply = sum(qty for price, qty in sold.items() if price < low)
    prices = sorted({low, high, *bought, *sold})
    prices = [price for price in prices if low <= price <= high]
    for price, above in zip(prices, [*prices[1:], high], strict=True):
        supply += sold[price]
        yield Range(price, price, demand, supply)
        demand -= bought[price]
        if above - price > 1:
            yield Range(price + 1, above - 1, demand, supply)


def _price_of_markets(
    buyers: Iterable[PriceLevel],
    sellers: Iterable[PriceLevel],
    reference: int | None,
) -> int | None:
    """Return the reference, if market orders trade with each other there."""
    if reference is None:
        return None
    to_buy = any(limit >= reference for limit, _ in buyers)
    to_sell = any(limit <= reference for limit, _ in sellers)
    return reference if to_buy and to_sell else None
