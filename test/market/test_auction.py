"""At which price a call auction trades, worked out by hand.

``10@103 6@101`` are levels: 10 lots at 103 and 6 at 101. In the workings
"buy" are the lots bid at or above a price, "sell" those asked at or below it,
"trade" is the smaller of the two and "rest" their difference.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.market.auction import clearing_price
from orderbook import Order, OrderBook, PriceLevel
from util.measure.naive import at_price, by_trying


def bids(text: str) -> list[PriceLevel]:
    """Read levels, best first."""
    pairs = (level.split("@") for level in text.split())
    return sorted(((int(p), int(qty)) for qty, p in pairs), reverse=True)


def asks(text: str) -> list[PriceLevel]:
    return bids(text)[::-1]


# By hand ------------------------------------------------------------------


def test_the_example_of_the_protocol() -> None:
    buyers, sellers = bids("10@103 6@101 8@99"), asks("8@98 10@100 5@102")
    assert clearing_price(buyers, sellers, 100) == 100
    found = [at_price(price, buyers, sellers) for price in range(98, 104)]
    assert [(f.price, f.lots, f.rest) for f in found] == [
        (98, 8, 16),
        (99, 8, 16),
        (100, 16, 2),
        (101, 16, 2),
        (102, 10, 13),
        (103, 10, 13),
    ]


@pytest.mark.parametrize("reference, price", [(100, 100), (104, 101)])
def test_the_most_lots_trade(reference: int, price: int) -> None:
    """Before version 3 of the rules the reference chose, now 3 buyers do.

    ===== === ==== =====
    price buy sell trade
    ===== === ==== =====
       98  18    4     4
       99  18    4     4
      100  12    9     9 most
      101  12    9     9 most
      102   5   20     5
      103   5   20     5
    ===== === ==== =====
    """
    buyers, sellers = bids("5@103 7@101 6@99"), asks("4@98 5@100 11@102")
    assert clearing_price(buyers, sellers, reference) == 101
    before = clearing_price(buyers, sellers, reference, by_pressure=False)
    assert before == price


@pytest.mark.parametrize("reference", [0, 100, 103, 999])
def test_the_most_lots_trade_however_far_from_the_reference(
    reference: int,
) -> None:
    """
    ===== === ==== ===== ====
    price buy sell trade rest
    ===== === ==== ===== ====
      100   9    1     1    8
      101   9    1     1    8
      102   9    8     8    1 most
      103   1    8     1    7
    ===== === ==== ===== ====
    """
    buyers, sellers = bids("1@103 8@102"), asks("1@100 7@102")
    assert clearing_price(buyers, sellers, reference) == 102


@pytest.mark.parametrize("reference", [0, 100, 103, 999])
def test_the_least_imbalance_among_equal_volumes(reference: int) -> None:
    """
    ===== === ==== ===== ====
    price buy sell trade rest
    ===== === ==== ===== ====
      100  14   10    10    4
      101  14   10    10    4
      102  10   10    10    0 least, and no order is at that price
      103  10   13    10    3
    ===== === ==== ===== ====
    """
    buyers, sellers = bids("10@103 4@101"), asks("10@100 3@103")
    assert clearing_price(buyers, sellers, reference) == 102


@pytest.mark.parametrize(
    "more_bids, more_asks, price", [("5@100", "", 101), ("", "5@101", 100)]
)
def test_the_imbalance_may_be_of_buyers_or_of_sellers(
    more_bids: str, more_asks: str, price: int
) -> None:
    """10 lots trade at 100 and at 101, but at one of them 5 are left."""
    buyers, sellers = bids(f"10@101 {more_bids}"), asks(f"10@100 {more_asks}")
    for reference in (0, 100, 101, 999):
        assert clearing_price(buyers, sellers, reference) == price


@pytest.mark.parametrize(
    "reference, price", [(0, 100), (100, 100), (101, 101), (999, 101)]
)
def test_equal_imbalances_of_both_sides_count_the_same(
    reference: int, price: int
) -> None:
    """
    ===== === ==== ===== ====
    price buy sell trade rest
    ===== === ==== ===== ====
      100  12   10    10    2
      101  10   12    10    2
    ===== === ==== ===== ====
    """
    buyers, sellers = bids("10@101 2@100"), asks("10@100 2@101")
    assert clearing_price(buyers, sellers, reference) == price


@pytest.mark.parametrize(
    "reference, price",
    [(-9, 100), (100, 100), (101, 101), (102, 102), (105, 105), (999, 105)],
)
def test_the_nearest_to_the_reference_among_equal_imbalances(
    reference: int, price: int
) -> None:
    """From 100 to 105 all 10 lots trade: between the two orders as well."""
    assert clearing_price(bids("10@105"), asks("10@100"), reference) == price


@pytest.mark.parametrize(
    "reference, price", [(97, 101), (102, 102), (103, 103), (108, 104)]
)
def test_a_gap_between_orders_counts_without_its_ends(
    reference: int, price: int
) -> None:
    """
    ===== === ==== ===== ====
    price buy sell trade rest
    ===== === ==== ===== ====
      100   8    5     5    3
    101..   5    5     5    0 up to 104
      105   5    9     5    4
    ===== === ==== ===== ====
    """
    buyers, sellers = bids("5@105 3@100"), asks("5@100 4@105")
    assert clearing_price(buyers, sellers, reference) == price


@pytest.mark.parametrize(
    "reference, price", [(0, -1), (-1, -1), (-2, -2), (-9, -2)]
)
def test_prices_may_be_negative(reference: int, price: int) -> None:
    """Before version 3 of the rules the reference chose, now 3 sellers do.

    ===== === ==== ===== ====
    price buy sell trade rest
    ===== === ==== ===== ====
       -4   8    4     4    4
       -3   8    4     4    4
       -2   5    8     5    3
       -1   5    8     5    3
    ===== === ==== ===== ====
    """
    buyers, sellers = bids("5@-1 3@-3"), asks("4@-4 4@-2")
    assert clearing_price(buyers, sellers, reference) == -2
    before = clearing_price(buyers, sellers, reference, by_pressure=False)
    assert before == price


def test_orders_that_cannot_trade_do_not_count() -> None:
    """At 99 all trades without a rest; far bids and asks change nothing."""
    for far_bids, far_asks in [("", ""), ("999@98 999@1", "999@101 9@500")]:
        buyers = bids(f"5@100 {far_bids}")
        sellers = asks(f"5@99 4@100 {far_asks}")
        assert clearing_price(buyers, sellers, 100) == 99


def test_bids_and_asks_that_touch_trade_there() -> None:
    assert clearing_price(bids("5@100 5@99"), asks("9@100"), 98) == 100


@pytest.mark.parametrize(
    "buyers, sellers",
    [("", ""), ("5@99", ""), ("", "5@99"), ("5@99 9@98", "5@100 9@101")],
)
def test_where_nothing_crosses_nothing_trades(
    buyers: str, sellers: str
) -> None:
    assert clearing_price(bids(buyers), asks(sellers), 99) is None


# By trying ----------------------------------------------------------------

PRICES = st.integers(-6, 6) | st.integers(-6, 6).map(lambda n: 9 * n)
LEVELS = st.dictionaries(PRICES, st.integers(1, 9), max_size=7)


REFERENCES = st.none() | st.integers(-60, 60)
MARKETS = st.lists(st.tuples(PRICES, st.integers(1, 9)), max_size=3)


@settings(max_examples=400)
@given(LEVELS, LEVELS, MARKETS, MARKETS, REFERENCES, st.booleans())
def test_no_other_price_is_better(
    to_buy: dict[int, int],
    to_sell: dict[int, int],
    buyers: list[PriceLevel],
    sellers: list[PriceLevel],
    reference: int | None,
    by_pressure: bool,
) -> None:
    levels = sorted(to_buy.items())[::-1], sorted(to_sell.items())
    price = clearing_price(
        *levels,
        reference,
        buyers=buyers,
        sellers=sellers,
        by_pressure=by_pressure,
    )
    best = by_trying(*levels, reference, buyers, sellers, by_pressure)
    assert price == (best.price if best else None)


@settings(max_examples=150)
@given(LEVELS, LEVELS, st.integers(-60, 60))
def test_the_orders_left_after_an_auction_do_not_cross(
    to_buy: dict[int, int], to_sell: dict[int, int], reference: int
) -> None:
    book = OrderBook(is_collecting=True)
    for price, qty in to_buy.items():
        book.place(Order(len(book.orders), "ann", "buy", qty, price=price))
    for price, qty in to_sell.items():
        book.place(Order(len(book.orders), "bob", "sell", qty, price=price))
    best = by_trying(book.depth("buy"), book.depth("sell"), reference)
    traded = 0
    if best is not None:
        traded = sum(step.qty for step in book.uncross(best.price))
    book.is_collecting = False
    book.check()
    assert traded == (best.lots if best else 0)
