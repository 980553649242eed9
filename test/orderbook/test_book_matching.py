"""Self-trade prevention, the band, collecting and uncrossing."""

from __future__ import annotations

import pytest

from orderbook import OrderBook
from test.script import Book, order_of, play_book

# Self-trade prevention ----------------------------------------------------


def test_cancel_oldest_cancels_the_resting_order_and_goes_on() -> None:
    play_book("""
        bob sell 2@100 -> rests 2
        ann sell 3@100 -> rests 3
        bob sell 4@101 -> rests 4
        ann buy 9@101  -> 2@100 with 1, 2 canceled, 4@101 with 3, rests 3
        """)


def test_cancel_newest_stops_and_earlier_fills_stand() -> None:
    play_book("""
        bob sell 2@100              -> rests 2
        ann sell 3@100              -> rests 3
        bob sell 4@101              -> rests 4
        ann buy 9@101 cancel_newest -> 2@100 with 1, canceled stp
        asks                        -> 100: 2x3 / 101: 3x4
        bids                        ->
        """)


def test_cancel_both_cancels_both() -> None:
    play_book("""
        bob sell 2@100            -> rests 2
        ann sell 3@100            -> rests 3
        ann sell 4@100            -> rests 4
        ann buy 9@101 cancel_both -> 2@100 with 1, 2 canceled, canceled stp
        asks                      -> 100: 3x4
        """)


@pytest.mark.parametrize(
    "stp", ["cancel_oldest", "cancel_newest", "cancel_both"]
)
def test_an_own_order_that_is_not_reached_stays(stp: str) -> None:
    play_book(f"""
        bob sell 2@100      -> rests 2
        ann sell 3@100      -> rests 3
        ann buy 2@100 {stp} -> 2@100 with 1, filled
        ann buy 2@99 {stp}  -> rests 2
        asks                -> 100: 2x3
        """)


def test_the_mode_of_the_resting_order_does_not_matter() -> None:
    play_book("""
        ann sell 3@100 cancel_newest -> rests 3
        ann buy 3@100                -> 1 canceled, rests 3
        ann sell 3@100 cancel_both   -> 2 canceled, canceled stp
        """)


def test_a_partly_filled_own_order_keeps_its_fills() -> None:
    book = play_book("""
        ann sell 5@100 -> rests 5
        bob buy 2@100  -> 2@100 with 1, filled
        """)
    order = book.orders[1]
    play_book("ann buy 3@100 ioc -> 1 canceled, expired ioc", book)
    assert (order.qty, order.cum_qty, order.leaves_qty) == (5, 2, 0)
    assert order.order_status == "canceled"


def test_fok_does_not_count_own_orders() -> None:
    play_book("""
        ann sell 5@100    -> rests 5
        bob sell 5@100    -> rests 5
        ann buy 6@100 fok -> expired fok
        asks              -> 100: 1x5 2x5
        ann buy 5@100 fok -> 1 canceled, 5@100 with 2, filled
        """)


@pytest.mark.parametrize("stp", ["cancel_newest", "cancel_both"])
def test_fok_sees_nothing_behind_an_order_that_stops_it(stp: str) -> None:
    play_book(f"""
        bob sell 2@100          -> rests 2
        ann sell 5@100          -> rests 5
        bob sell 5@100          -> rests 5
        ann buy 3@100 fok {stp} -> expired fok
        ann buy 2@100 fok {stp} -> 2@100 with 1, filled
        asks                    -> 100: 2x5 3x5
        """)


def test_an_amend_obeys_the_mode_of_the_amended_order() -> None:
    play_book("""
        ann sell 2@101             -> rests 2
        bob sell 2@101             -> rests 2
        ann buy 3@99               -> rests 3
        ann amend 3 price=101      -> 1 canceled, 2@101 with 2, rests 1
        ann cancel 3               -> canceled user
        bob sell 2@101             -> rests 2
        ann sell 2@102             -> rests 2
        ann buy 5@99 cancel_newest -> rests 5
        ann amend 6 price=102      -> 2@101 with 4, canceled stp
        asks                       -> 102: 5x2
        ann buy 5@99 cancel_both   -> rests 5
        ann amend 7 price=102      -> 5 canceled, canceled stp
        depth                      -> |
        """)


# The band -----------------------------------------------------------------


def test_a_match_outside_the_band_does_not_happen() -> None:
    play_book("""
        ann sell 5@100             -> rests 5
        ann sell 5@102             -> rests 5
        ann sell 5@103             -> rests 5
        bob buy 9@103 band=98..102 -> 5@100 with 1, 4@102 with 2, filled
        bob buy 9@103 band=98..102 -> 1@102 with 2, rests 8, stopped
        depth                      -> 103=8 | 103=5
        """)
    play_book("""
        ann buy 5@100              -> rests 5
        ann buy 5@97               -> rests 5
        bob sell 9@97 band=98..102 -> 5@100 with 1, rests 4, stopped
        depth                      -> 97=5 | 97=4
        """)


def test_a_band_that_is_not_reached_stops_nothing() -> None:
    play_book("""
        ann sell 5@103                     -> rests 5
        bob buy 5@102 band=98..102         -> rests 5
        bob buy 5@110 band=98..103         -> 5@103 with 1, filled
        cat sell 5@102 band=1..9 post_only -> would_take price
        """)


@pytest.mark.parametrize(
    "order, end, asks",
    [
        ("9@105 gtc", "5@100 with 1, rests 4, stopped", "103: 2x5"),
        ("9@105 gtd until=9s", "5@100 with 1, rests 4, stopped", "103: 2x5"),
        ("9@105 ioc", "5@100 with 1, expired ioc, stopped", "103: 2x5"),
        (
            "9@market",
            "5@100 with 1, expired no_liquidity, stopped",
            "103: 2x5",
        ),
        ("9@105 fok", "expired fok", "100: 1x5 / 103: 2x5"),
        ("9@market fok", "expired fok", "100: 1x5 / 103: 2x5"),
        ("5@105 fok", "5@100 with 1, filled", "103: 2x5"),
    ],
)
def test_at_the_band_the_time_in_force_decides(
    order: str, end: str, asks: str
) -> None:
    play_book(f"""
        ann sell 5@100               -> rests 5
        ann sell 5@103               -> rests 5
        bob buy {order} band=98..102 -> {end}
        asks                         -> {asks}
        """)


def test_self_trade_prevention_does_not_act_outside_the_band() -> None:
    """The band stops first; where orders are collected, stp acts again."""
    play_book("""
        ann sell 5@103                            -> rests 5
        ann buy 5@103 band=98..102 fok            -> expired fok
        ann buy 5@103 band=98..102 ioc            -> expired ioc, stopped
        asks                                      -> 103: 1x5
        ann buy 5@103 band=98..102 cancel_newest  -> canceled stp
        ann buy 5@103 band=98..102                -> 1 canceled, rests 5
        """)


def test_before_version_3_own_orders_outside_the_band_were_canceled() -> None:
    play_book(
        """
        ann sell 5@103                            -> rests 5
        ann buy 5@103 band=98..102                -> 1 canceled, rests 5
        ann sell 5@103 band=98..102 cancel_newest -> canceled stp
        ann sell 5@103 band=98..102 cancel_both   -> 2 canceled, canceled stp
        ann sell 5@103                            -> rests 5
        ann buy 5@103 band=98..102 ioc            -> 5 canceled, expired ioc
        ann sell 5@103                            -> rests 5
        cat sell 5@102                            -> rests 5
        ann buy 5@104 band=1..102 fok             -> 5@102 with 8, filled
        """,
        Book(rules=2),
    )


def test_an_order_behind_an_own_one_stops_at_the_band() -> None:
    play_book("""
        ann sell 5@103             -> rests 5
        bob sell 5@104             -> rests 5
        ann buy 5@104 band=98..102 -> 1 canceled, rests 5, stopped
        depth                      -> 104=5 | 104=5
        """)


@pytest.mark.parametrize(
    "stp, end, asks",
    [
        ("gtc", "3 canceled, 4 canceled, rests 5", "103: 2x5 / 106: 5x5"),
        ("cancel_newest", "canceled stp", "103: 2x5 / 104: 3x5 / 105: 4x5"),
        ("cancel_both", "3 canceled, canceled stp", "103: 2x5 / 105: 4x5"),
    ],
)
def test_the_rest_left_at_the_band_does_not_cross_own_orders(
    stp: str, end: str, asks: str
) -> None:
    if stp != "gtc":
        asks += " / 106: 5x5"
    play_book(f"""
        bob sell 1@102                   -> rests 1
        bob sell 5@103                   -> rests 5
        ann sell 5@104                   -> rests 5
        ann sell 5@105                   -> rests 5
        ann sell 5@106                   -> rests 5
        ann buy 6@105 band=98..102 {stp} -> 1@102 with 1, {end}, stopped
        asks                             -> {asks}
        """)


def test_an_amend_stops_at_the_band_too() -> None:
    play_book("""
        ann sell 5@100                     -> rests 5
        ann sell 5@103                     -> rests 5
        bob buy 7@99                       -> rests 7
        bob amend 3 price=103 band=98..102 -> 5@100 with 1, rests 2, stopped
        bob amend 3 qty=6 band=98..102     -> rests 1
        """)


# Collecting and uncrossing ------------------------------------------------


def test_while_it_collects_orders_rest_and_may_cross() -> None:
    play_book("""
        collect                    ->
        ann sell 5@100             -> rests 5
        bob buy 5@105              -> rests 5
        cat buy 5@105 gtd until=9s -> rests 5
        bob sell 1@106 post_only   -> rests 1
        cat sell 1@105 post_only   -> would_take price
        cat buy 1@100 post_only    -> would_take price
        cat buy 1@99 post_only     -> rests 1
        ann amend 1 price=90 qty=6 -> rests 6
        bob amend 2 qty=3          -> rests 3
        bob amend 4 price=105      -> would_take price
        cat cancel 3               -> canceled user
        depth                      -> 105=3 99=1 | 90=6 106=1
        """)


def test_while_it_collects_the_band_stops_nothing() -> None:
    play_book("""
        collect                  ->
        ann sell 5@105           -> rests 5
        bob buy 5@105 band=1..99 -> rests 5
        """)


COLLECTED = """
    ann sell 5@101 -> rests 5
    ann sell 5@100 -> rests 5
    bob sell 5@100 -> rests 5
    ann sell 5@100 -> rests 5
    ann sell 5@103 -> rests 5
    ann buy 5@98   -> rests 5
    collect        ->
    """


@pytest.mark.parametrize(
    "stp, end, asks",
    [
        (
            "gtc",
            "2 canceled, 4 canceled, 1 canceled, rests 9",
            "100: 3x5 / 103: 5x5",
        ),
        (
            "cancel_newest",
            "canceled stp",
            "100: 2x5 3x5 4x5 / 101: 1x5 / 103: 5x5",
        ),
        (
            "cancel_both",
            "2 canceled, canceled stp",
            "100: 3x5 4x5 / 101: 1x5 / 103: 5x5",
        ),
    ],
)
def test_while_it_collects_self_trade_prevention_acts_on_arrival(
    stp: str, end: str, asks: str
) -> None:
    book = play_book(COLLECTED)
    play_book(f"ann buy 9@102 {stp} -> {end}", book)
    play_book(f"asks -> {asks}", book)
    book = play_book(COLLECTED)
    play_book(f"ann buy 9@99 {stp} -> rests 9", book)
    play_book(f"ann amend 7 price=102 -> {end}", book)
    play_book(f"asks -> {asks}", book)


def test_self_trade_prevention_of_an_order_to_sell() -> None:
    play_book("""
        collect                   ->
        ann buy 5@100             -> rests 5
        ann buy 5@102             -> rests 5
        bob buy 5@103             -> rests 5
        ann buy 5@99              -> rests 5
        ann sell 5@100            -> 2 canceled, 1 canceled, rests 5
        bids                      -> 103: 3x5 / 99: 4x5
        ann buy 5@98              -> rests 5
        ann sell 5@97 cancel_both -> 4 canceled, canceled stp
        """)


def test_orders_of_other_books_stay() -> None:
    book = OrderBook(is_collecting=True)
    elsewhere = order_of("ann", "sell 5@100", 9)
    order = order_of("ann", "buy 5@105", 1)
    assert not book.place(order, own={elsewhere.order_id: elsewhere}).matches
    assert elsewhere.is_open


def test_an_uncrossing_fills_by_price_and_then_by_time() -> None:
    """At 101 there are 11 lots to buy and 12 to sell; 2 of order 6 rest."""
    play_book("""
        collect        ->
        ann buy 4@101  -> rests 4
        bob buy 3@103  -> rests 3
        cat buy 4@101  -> rests 4
        cat buy 9@100  -> rests 9
        dan sell 1@101 -> rests 1
        eve sell 4@101 -> rests 4
        fay sell 8@99  -> rests 8
        gus sell 9@102 -> rests 9
        changes        -> 103=3 101=8 100=9 | 99=8 101=5 102=9
        uncross 101    -> 2 buys 3 of 7, 1 buys 4 of 7, 3 buys 1 of 7, \
3 buys 1 of 5, 3 buys 2 of 6
        bids          -> 100: 4x9
        asks          -> 101: 6x2 / 102: 8x9
        changes       -> 103=0 101=0 | 99=0 101=2
        ann buy 2@101 -> 2@101 with 6, filled
        """)


def test_an_uncrossing_is_made_at_its_own_price() -> None:
    book = play_book("""
        collect       ->
        ann buy 4@109 -> rests 4
        bob sell 3@95 -> rests 3
        """)
    ann = book.orders[1]
    play_book("uncross 101 -> 1 buys 3 of 2", book)
    assert (ann.cum_qty, ann.cum_cost, ann.leaves_qty) == (3, 303, 1)


def test_an_order_keeps_its_place_through_phases() -> None:
    play_book("""
        ann buy 5@99      -> rests 5
        bob buy 5@99      -> rests 5
        collect           ->
        ann amend 1 qty=4 -> rests 4
        cat sell 3@99     -> rests 3
        uncross 99        -> 1 buys 3 of 3
        bids              -> 99: 1x1 2x5
        """)


def test_nothing_crosses_nothing_trades() -> None:
    play_book("""
        collect        ->
        uncross 100    ->
        ann buy 5@99   -> rests 5
        collect        ->
        uncross 100    ->
        bob sell 5@101 -> rests 5
        collect        ->
        uncross 100    ->
        depth          -> 99=5 | 101=5
        """)


def test_an_uncrossing_counts_as_a_change() -> None:
    book = play_book("""
        collect       ->
        ann buy 5@99  -> rests 5
        bob sell 5@99 -> rests 5
        """)
    version = book.version
    play_book("uncross 99 -> 1 buys 5 of 2", book)
    assert book.version > version and not book.orders
