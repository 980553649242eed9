"""The price of a call auction. Pure arithmetic.

The rule, as on most venues: the price at which most lots trade; among equal
ones that with the least imbalance between buyers and sellers; then market
pressure, which is the highest price if buyers are left over at all of them,
and the lowest if sellers are; then that nearest to the reference price.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from orderbook import PriceLevel


class Curve:
    """The lots of one side by limit, to be summed up to any price."""

    def __init__(self, *levels: Iterable[PriceLevel]) -> None:
        ordered = sorted(level for part in levels for level in part)
        self.prices = [price for price, _ in ordered]
        self.sums = [*accumulate([qty for _, qty in ordered], initial=0)]

    def below(self, price: int) -> int:
        """Return the lots with a limit below a price."""
        return self.sums[bisect_left(self.prices, price)]

    def up_to(self, price: int) -> int:
        """Return the lots with a limit at or below a price."""
        return self.sums[bisect_right(self.prices, price)]


@dataclass(slots=True)
class Book:
    """What could be bought and sold at each price from low to high."""

    bought: Curve
    sold: Curve
    low: int
    high: int

    def demand(self, price: int) -> int:
        """Return the lots of those who would buy at a price."""
        return self.bought.sums[-1] - self.bought.below(price)

    def supply(self, price: int) -> int:
        """Return the lots of those who would sell at a price."""
        return self.sold.up_to(price)

    def surplus(self, price: int) -> int:
        """Return the lots of buyers left over; below 0: of sellers."""
        return self.demand(price) - self.supply(price)

    def rank(self, price: int) -> tuple[int, int]:
        """The best has the smallest: most lots, then least imbalance."""
        demand, supply = self.demand(price), self.supply(price)
        return -min(demand, supply), abs(demand - supply)

    def best(self) -> tuple[int, int]:
        """Return the lowest and the highest of the equally good prices.

        While buyers are left over, a higher price is as good or better;
        while sellers are, a lower one. So the best is next to the price where
        the surplus changes its sign.
        """
        above = self._first_without_buyers_left()
        below = above - 1
        if above > self.high:
            return self._lowest_like(below), below
        if below < self.low:
            return above, self._highest_like(above)
        lowest, highest = above, below
        if self.rank(below) <= self.rank(above):
            lowest = self._lowest_like(below)
        if self.rank(above) <= self.rank(below):
            highest = self._highest_like(above)
        return lowest, highest

    def _first_without_buyers_left(self) -> int:
        """Return the lowest price with a surplus below 0; high + 1: none.

        The surplus falls as the price rises.
        """
        low, high = self.low, self.high + 1
        while low < high:
            price = (low + high) // 2
            if self.surplus(price) < 0:
                high = price
            else:
                low = price + 1
        return low

    def _lowest_like(self, price: int) -> int:
        """Return the lowest price with the demand and supply of a price."""
        bids, asks = self.bought.prices, self.sold.prices
        lowest = self.low
        at = bisect_left(bids, price)
        if at:
            lowest = max(lowest, bids[at - 1] + 1)
        at = bisect_right(asks, price)
        if at:
            lowest = max(lowest, asks[at - 1])
        return lowest

    def _highest_like(self, price: int) -> int:
        """Return the highest price with the demand and supply of a price."""
        bids, asks = self.bought.prices, self.sold.prices
        highest = self.high
        at = bisect_left(bids, price)
        if at < len(bids):
            highest = min(highest, bids[at])
        at = bisect_right(asks, price)
        if at < len(asks):
            highest = min(highest, asks[at] - 1)
        return highest


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
    if not buyers and not sellers:  # look only where bids and asks cross
        if not bids or not asks or bids[0][0] < asks[0][0]:
            return None
        limits = [asks[0][0], bids[0][0]]
    else:
        limits = [side[i][0] for side in (bids, asks) if side for i in (0, -1)]
    if not limits:
        return _price_of_markets(buyers, sellers, reference)
    book = Book(
        Curve(bids, buyers), Curve(asks, sellers), min(limits), max(limits)
    )
    lowest, highest = book.best()
    if not book.rank(lowest)[0]:
        return _price_of_markets(buyers, sellers, reference)
    if by_pressure and book.surplus(highest) > 0:
        return highest
    if by_pressure and book.surplus(lowest) < 0:
        return lowest
    if reference is None:
        return (lowest + highest) // 2
    return min(max(reference, lowest), highest)


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
