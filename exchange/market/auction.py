"""The price of a call auction. Pure arithmetic.

The rule, as on most venues: the price at which most lots trade; among equal
ones that with the least imbalance between buyers and sellers; then that
nearest to the reference price; then the lowest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from orderbook import PriceLevel


def clearing_price(
    bids: Sequence[PriceLevel], asks: Sequence[PriceLevel], reference: int
) -> int | None:
    """Return the auction price in ticks; None if nothing would trade.

    ``bids`` and ``asks`` are levels as returned by `OrderBook.depth`, best
    first. The candidates are the levels in the crossed range and, in each gap
    between two of them, the tick nearest to the reference: within a gap
    volume and imbalance are the same. Costs O(levels).
    """
    if not bids or not asks or bids[0][0] < asks[0][0]:
        return None
    low, high = asks[0][0], bids[0][0]
    best: tuple[int, int, int, int] | None = None
    supply, demand = 0, sum(qty for price, qty in bids if price >= low)
    buyers = [level for level in reversed(bids) if level[0] >= low]
    sellers = [level for level in asks if level[0] <= high]
    buyer = seller = 0
    for price in _candidates(buyers, sellers, reference):
        while seller < len(sellers) and sellers[seller][0] <= price:
            supply += sellers[seller][1]
            seller += 1
        while buyers[buyer][0] < price:
            demand -= buyers[buyer][1]
            buyer += 1
        rank = (
            -min(supply, demand),
            abs(supply - demand),
            abs(price - reference),
            price,
        )
        if best is None or rank < best:
            best = rank
    assert best is not None
    return best[3]


def _candidates(
    buyers: Iterable[PriceLevel],
    sellers: Iterable[PriceLevel],
    reference: int,
) -> Iterable[int]:
    """Yield the candidates, lowest first."""
    levels = sorted(dict.fromkeys(p for p, _ in (*buyers, *sellers)))
    for price, above in pairwise(levels):
        yield price
        if above - price > 1:
            yield min(max(reference, price + 1), above - 1)
    yield levels[-1]
