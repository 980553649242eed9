"""The rules of the book: prices, priority, kinds of orders, the book's state.

Scripts are in the words of `test.script`. The last part leads the book and
its naive twin, ``util.measure.twin``, through random flows.
"""

from __future__ import annotations

import copy
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderbook import Order, OrderBook, Refused
from test.script import Book, act_on, order_of, play_book
from util.measure import twin

# Priority -----------------------------------------------------------------


def test_orders_that_do_not_cross_rest() -> None:
    play_book("""
        ann buy 10@99  -> rests 10
        bob sell 7@101 -> rests 7
        bids           -> 99: 1x10
        asks           -> 101: 2x7
        """)


def test_a_better_price_trades_first_however_late_it_came() -> None:
    play_book("""
        ann sell 5@102 -> rests 5
        bob sell 5@100 -> rests 5
        cat sell 5@101 -> rests 5
        dan buy 15@102 -> 5@100 with 2, 5@101 with 3, 5@102 with 1, filled
        """)
    play_book("""
        ann buy 5@98   -> rests 5
        bob buy 5@100  -> rests 5
        cat buy 5@99   -> rests 5
        dan sell 15@98 -> 5@100 with 2, 5@99 with 3, 5@98 with 1, filled
        """)


def test_of_equal_prices_the_older_order_trades_first() -> None:
    play_book("""
        ann buy 5@99  -> rests 5
        bob buy 5@99  -> rests 5
        cat buy 5@99  -> rests 5
        dan sell 7@99 -> 5@99 with 1, 2@99 with 2, filled
        bids          -> 99: 2x3 3x5
        dan sell 4@99 -> 3@99 with 2, 1@99 with 3, filled
        """)


def test_an_order_that_was_partly_filled_keeps_its_place() -> None:
    play_book("""
        ann sell 5@101 -> rests 5
        bob sell 5@101 -> rests 5
        cat buy 2@101  -> 2@101 with 1, filled
        cat buy 4@101  -> 3@101 with 1, 1@101 with 2, filled
        """)


def test_an_order_that_finds_too_little_rests_with_what_is_left() -> None:
    book = play_book("""
        ann sell 4@101 -> rests 4
        bob buy 10@101 -> 4@101 with 1, rests 6
        bids           -> 101: 2x6
        asks           ->
        cat sell 9@100 -> 6@101 with 2, rests 3
        """)
    assert book.orders[3].order_status == "partially_filled"


def test_a_sweep_takes_as_many_levels_as_it_needs() -> None:
    book = Book()
    for price in range(1, 1001):
        act_on(book, f"ann sell 1@{price}")
    sweep = book.place(order_of("bob", "buy 999@1000", 5000))
    assert [m.maker.price for m in sweep.matches] == list(range(1, 1000))
    assert book.depth("sell") == ((1000, 1),)
    book.check()


def test_the_overlap_goes_to_the_one_who_arrives() -> None:
    play_book("""
        ann sell 5@100 -> rests 5
        bob buy 5@110  -> 5@100 with 1, filled
        ann buy 5@100  -> rests 5
        bob sell 5@90  -> 5@100 with 3, filled
        """)


def test_prices_may_be_zero_and_negative() -> None:
    play_book("""
        ann buy 1@-2  -> rests 1
        bob sell 1@0  -> rests 1
        cat sell 1@-1 -> rests 1
        depth         -> -2=1 | -1=1 0=1
        dan buy 2@0   -> 1@-1 with 3, 1@0 with 2, filled
        dan sell 1@-3 -> 1@-2 with 1, filled
        """)


def test_a_fill_is_counted_in_quantity_and_money_on_both_sides() -> None:
    book = OrderBook()
    maker, taker = order_of("ann", "sell 5@100", 1), order_of(
        "bob", "buy 3@105", 2
    )
    assert not book.place(maker).matches
    ((met, qty),) = book.place(taker).matches
    assert met is maker and qty == 3
    assert (maker.order_status, maker.cum_qty) == ("partially_filled", 3)
    assert (maker.leaves_qty, maker.cum_cost) == (2, 300)
    assert (taker.order_status, taker.cum_qty) == ("filled", 3)
    assert (taker.leaves_qty, taker.cum_cost) == (0, 300)
    assert maker.is_open and not taker.is_open


# Order types --------------------------------------------------------------


def test_a_market_order_takes_any_price_and_what_is_left_expires() -> None:
    play_book("""
        ann sell 5@100    -> rests 5
        ann sell 5@900    -> rests 5
        bob buy 7@market  -> 5@100 with 1, 2@900 with 2, filled
        bob buy 7@market  -> 3@900 with 2, expired no_liquidity
        bob sell 1@market -> expired no_liquidity
        """)


def test_a_market_order_stops_at_the_edge_of_its_collar() -> None:
    play_book("""
        ann sell 5@100             -> rests 5
        ann sell 5@103             -> rests 5
        bob buy 9@market limit=102 -> 5@100 with 1, expired no_liquidity
        asks                       -> 103: 2x5
        """)


def test_a_market_order_may_be_fill_or_kill() -> None:
    play_book("""
        ann sell 5@100                -> rests 5
        bob buy 6@market fok          -> expired fok
        bob buy 5@market fok          -> 5@100 with 1, filled
        ann sell 5@100                -> rests 5
        bob buy 5@market fok limit=99 -> expired fok
        """)


def test_ioc_takes_what_is_there_and_never_rests() -> None:
    play_book("""
        ann sell 5@100    -> rests 5
        bob buy 3@100 ioc -> 3@100 with 1, filled
        bob buy 3@100 ioc -> 2@100 with 1, expired ioc
        bob buy 3@100 ioc -> expired ioc
        depth             -> |
        """)


def test_fok_is_filled_whole_or_not_at_all() -> None:
    play_book("""
        ann sell 5@100     -> rests 5
        cat sell 5@101     -> rests 5
        cat sell 5@102     -> rests 5
        bob buy 11@101 fok -> expired fok
        asks               -> 100: 1x5 / 101: 2x5 / 102: 3x5
        bob buy 10@101 fok -> 5@100 with 1, 5@101 with 2, filled
        bob sell 1@1 fok   -> expired fok
        bob buy 6@102 fok  -> expired fok
        bob buy 4@102 fok  -> 4@102 with 3, filled
        """)


@pytest.mark.parametrize("time_in_force", ["gtc", "gtd until=9s"])
def test_gtc_and_gtd_rest(time_in_force: str) -> None:
    play_book(f"""
        ann sell 2@100                -> rests 2
        bob buy 3@100 {time_in_force} -> 2@100 with 1, rests 1
        bids                          -> 100: 2x1
        """)


def test_the_owner_of_time_may_expire_an_order() -> None:
    book = play_book("ann buy 2@100 gtd until=9s -> rests 2")
    assert book.cancel(1, "expired").order_status == "expired"
    assert not book.orders and book.depth("buy") == ()


def test_post_only_never_takes() -> None:
    play_book("""
        ann sell 5@101           -> rests 5
        bob buy 5@101 post_only  -> would_take price
        bob buy 5@102 post_only  -> would_take price
        bob buy 5@100 post_only  -> rests 5
        cat sell 5@100 post_only -> would_take price
        cat sell 5@101 post_only -> rests 5
        dan buy 10@101           -> 5@101 with 1, 5@101 with 3, filled
        """)


def test_post_only_does_not_cross_ones_own_orders_either() -> None:
    play_book("""
        ann sell 5@101                        -> rests 5
        ann buy 5@101 post_only               -> would_take price
        ann buy 5@101 post_only cancel_newest -> would_take price
        asks                                  -> 101: 1x5
        bids                                  ->
        """)


def test_a_refusal_says_what_is_wrong_and_changes_nothing() -> None:
    book = play_book("ann sell 5@101 -> rests 5")
    before = copy.deepcopy(book)
    order = order_of("bob", "buy 5@103 post_only", 2)
    as_it_came = copy.copy(order)
    with pytest.raises(Refused) as caught:
        book.place(order)
    assert str(caught.value) == "post-only buy at 103 would trade with 101"
    assert caught.value.message == str(caught.value)
    assert (caught.value.code, caught.value.field) == ("would_take", "price")
    assert book == before and order == as_it_came


# Amend and cancel ---------------------------------------------------------


def test_amending_down_keeps_the_place_in_the_queue() -> None:
    play_book("""
        ann buy 5@99               -> rests 5
        bob buy 5@99               -> rests 5
        ann amend 1 qty=2          -> rests 2
        ann amend 1 price=99       -> rests 2
        ann amend 1 price=99 qty=1 -> rests 1
        bids                       -> 99: 1x1 2x5
        cat sell 2@99              -> 1@99 with 1, 1@99 with 2, filled
        """)


def test_amending_up_goes_to_the_end_of_the_queue() -> None:
    play_book("""
        ann buy 5@99      -> rests 5
        bob buy 5@99      -> rests 5
        ann amend 1 qty=6 -> rests 6
        bids              -> 99: 2x5 1x6
        """)


def test_a_new_price_goes_to_the_end_of_its_queue() -> None:
    play_book("""
        ann buy 5@99               -> rests 5
        bob buy 5@98               -> rests 5
        cat buy 5@99               -> rests 5
        ann amend 1 price=98 qty=4 -> rests 4
        bids                       -> 99: 3x5 / 98: 2x5 1x4
        ann amend 1 price=99       -> rests 4
        bids                       -> 99: 3x5 1x4 / 98: 2x5
        """)


def test_the_amended_quantity_is_the_total_with_what_is_filled() -> None:
    book = play_book("""
        ann buy 10@99        -> rests 10
        bob sell 4@99        -> 4@99 with 1, filled
        ann amend 1 qty=9    -> rests 5
        ann amend 1 qty=20   -> rests 16
        ann amend 1 price=98 -> rests 16
        """)
    order = book.orders[1]
    assert (order.qty, order.cum_qty, order.cum_cost) == (20, 4, 396)
    assert order.order_status == "partially_filled"


@pytest.mark.parametrize("total", [4, 3, 1])
def test_a_total_at_or_below_what_is_filled_cancels(total: int) -> None:
    book = play_book("""
        ann buy 10@99 -> rests 10
        bob sell 4@99 -> 4@99 with 1, filled
        changes       -> 99=6 |
        """)
    order = book.orders[1]
    play_book(f"ann amend 1 price=120 qty={total} -> canceled user", book)
    play_book("changes -> 99=0 |", book)
    assert (order.qty, order.cum_qty, order.leaves_qty) == (10, 4, 0)
    assert not book.orders


def test_an_amend_that_crosses_trades() -> None:
    play_book("""
        ann sell 5@101               -> rests 5
        bob buy 8@99                 -> rests 8
        cat buy 1@99                 -> rests 1
        bob amend 2 price=103        -> 5@101 with 1, rests 3
        bids                         -> 103: 2x3 / 99: 3x1
        ann sell 9@110               -> rests 9
        bob amend 2 price=110 qty=14 -> 9@110 with 4, filled
        """)


def test_a_refused_amend_leaves_all_as_it_was() -> None:
    book = play_book("""
        ann sell 5@101         -> rests 5
        bob buy 5@99 post_only -> rests 5
        cat buy 5@99           -> rests 5
        changes                -> 99=10 | 101=5
        """)
    before = copy.deepcopy(book)
    play_book(
        """
        bob amend 2 price=101        -> would_take price
        bob amend 2 price=105 qty=50 -> would_take price
        changes                      -> |
        """,
        book,
    )
    assert book == before
    play_book(
        """
        bob amend 2 price=100 -> rests 5
        bob amend 2 qty=6     -> rests 6
        """,
        book,
    )


def test_cancel_takes_an_order_away_wherever_it_stands() -> None:
    play_book("""
        ann buy 1@99 -> rests 1
        ann buy 2@99 -> rests 2
        ann buy 3@99 -> rests 3
        ann buy 4@98 -> rests 4
        ann cancel 2 -> canceled user
        bids         -> 99: 1x1 3x3 / 98: 4x4
        ann cancel 1 -> canceled user
        ann cancel 3 -> canceled user
        bids         -> 98: 4x4
        ann cancel 4 -> canceled user
        depth        -> |
        """)


def test_a_level_may_go_from_the_middle_and_come_back() -> None:
    play_book("""
        ann sell 1@101 -> rests 1
        ann sell 1@102 -> rests 1
        ann sell 1@103 -> rests 1
        ann cancel 2   -> canceled user
        bob sell 9@102 -> rests 9
        asks           -> 101: 1x1 / 102: 4x9 / 103: 3x1
        """)


def test_what_does_not_rest_cannot_be_amended_or_canceled() -> None:
    book = play_book("""
        ann buy 1@99  -> rests 1
        bob sell 1@99 -> 1@99 with 1, filled
        """)
    for order_id in (1, 2, 77):
        with pytest.raises(KeyError):
            book.cancel(order_id)
        with pytest.raises(KeyError):
            book.amend(order_id, price=1)


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
def test_an_own_order_that_is_not_reached_is_left_alone(stp: str) -> None:
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


def test_fok_does_not_count_ones_own_orders() -> None:
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
def test_at_the_band_an_order_ends_or_rests_as_its_time_in_force_has_it(
    order: str, end: str, asks: str
) -> None:
    play_book(f"""
        ann sell 5@100               -> rests 5
        ann sell 5@103               -> rests 5
        bob buy {order} band=98..102 -> {end}
        asks                         -> {asks}
        """)


def test_ones_own_orders_outside_the_band_do_not_stop_it() -> None:
    play_book("""
        ann sell 5@103                            -> rests 5
        ann buy 5@103 band=98..102                -> 1 canceled, rests 5
        ann sell 5@103 band=98..102 cancel_newest -> canceled stp
        ann sell 5@103 band=98..102 cancel_both   -> 2 canceled, canceled stp
        ann sell 5@103                            -> rests 5
        ann buy 5@103 band=98..102 ioc            -> 5 canceled, expired ioc
        ann sell 5@103                            -> rests 5
        cat sell 5@102                            -> rests 5
        ann buy 5@104 band=1..102 fok             -> 5@102 with 8, filled
        """)


def test_behind_ones_own_order_the_band_stops_it() -> None:
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
def test_what_the_band_leaves_does_not_cross_ones_own_orders(
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


def test_orders_that_rest_elsewhere_are_left_alone() -> None:
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


# What the book shows ------------------------------------------------------


def test_depth_and_best_sum_each_level_best_first() -> None:
    book = play_book("""
        ann buy 1@98   -> rests 1
        bob buy 2@99   -> rests 2
        cat buy 3@99   -> rests 3
        dan sell 4@101 -> rests 4
        dan sell 5@102 -> rests 5
        eve buy 1@97   -> rests 1
        """)
    assert book.depth("buy") == ((99, 5), (98, 1), (97, 1))
    assert book.depth("sell") == ((101, 4), (102, 5))
    assert book.depth("buy", 2) == ((99, 5), (98, 1))
    assert book.depth("sell", 0) == ()
    assert book.depth("buy", 9) == book.depth("buy")
    assert (book.best("buy"), book.best("sell")) == ((99, 5), (101, 4))
    assert book.top() == (99, 101)
    book.cancel(4)
    book.cancel(5)
    assert book.top() == (99, None)
    assert OrderBook().best("buy") is None
    assert OrderBook().top() == (None, None)


def test_changes_are_the_levels_since_the_last_call() -> None:
    play_book("""
        ann buy 1@98      -> rests 1
        bob buy 2@99      -> rests 2
        cat buy 3@99      -> rests 3
        dan sell 4@102    -> rests 4
        dan sell 5@101    -> rests 5
        changes           -> 99=5 98=1 | 101=5 102=4
        changes           -> |
        dan sell 2@99     -> 2@99 with 2, filled
        dan amend 4 qty=1 -> rests 1
        changes           -> 99=3 | 102=1
        dan sell 9@98     -> 3@99 with 3, 1@98 with 1, rests 5
        changes           -> 99=0 98=0 | 98=5
        dan cancel 5      -> canceled user
        changes           -> | 101=0
        """)


def test_changes_name_the_levels_that_changed_and_no_other() -> None:
    play_book("""
        ann sell 5@101              -> rests 5
        bob buy 5@99                -> rests 5
        changes                     -> 99=5 | 101=5
        ann buy 5@101 cancel_newest -> canceled stp
        cat buy 6@101 fok           -> expired fok
        cat buy 5@101 post_only     -> would_take price
        cat buy 5@100 ioc           -> expired ioc
        cat buy 5@market limit=100  -> expired no_liquidity
        ann amend 1 qty=5           -> rests 5
        ann amend 1 price=101       -> rests 5
        changes                     -> |
        ann buy 5@101 cancel_both   -> 1 canceled, canceled stp
        changes                     -> | 101=0
        """)


def test_changes_tell_both_levels_of_an_order_that_moved() -> None:
    play_book("""
        ann sell 5@103              -> rests 5
        bob sell 5@103              -> rests 5
        cat buy 2@101               -> rests 2
        changes                     -> 101=2 | 103=10
        ann amend 1 price=102       -> rests 5
        changes                     -> | 102=5 103=5
        ann amend 1 price=101 qty=2 -> 2@101 with 3, filled
        changes                     -> 101=0 | 102=0
        bob amend 2 qty=6           -> rests 6
        changes                     -> | 103=6
        """)


def test_changes_are_complete() -> None:
    """Whoever applies the changes to an empty book holds the whole book."""
    rng = random.Random(5)
    twins = twin.Twins()
    mirrors: tuple[dict[int, int], ...] = {}, {}
    for step in twin.random_steps(rng, 300):
        twins.run(step)
        for mirror, changes in zip(mirrors, twins.book.take_changes()):
            for price, qty in changes:
                mirror[price] = qty
        for changed in twins.changed.values():
            changed.clear()
    for mirror, side in zip(mirrors, twin.SIDES):
        levels = {price: qty for price, qty in mirror.items() if qty}
        assert levels == dict(twins.book.depth(side))


def test_the_book_draws_itself() -> None:
    book = play_book("""
        ann buy 1@98     -> rests 1
        bob buy 20@99    -> rests 20
        dan sell 400@101 -> rests 400
        """)
    assert str(book).splitlines() == [
        "BOND                 qty       bid | ask       qty",
        "                      20        99 | 101       400",
        "                       1        98 |",
    ]
    assert book.render(levels=1).splitlines() == str(book).splitlines()[:2]
    assert str(book) == book.render()
    head, empty = str(OrderBook(symbol="ETF")).splitlines()
    assert head.startswith("ETF ") and empty.split() == ["empty", "|"]
    book.cancel(1), book.cancel(2)
    assert str(book).splitlines()[1].split() == ["|", "101", "400"]


# Copies -------------------------------------------------------------------


def test_a_deep_copy_is_equal_and_independent() -> None:
    book = play_book("""
        ann buy 5@99   -> rests 5
        bob buy 5@99   -> rests 5
        cat sell 5@101 -> rests 5
        """)
    twin_book = copy.deepcopy(book)
    twin_book.check()
    assert twin_book == book
    play_book("dan sell 7@99 -> 5@99 with 1, 2@99 with 2, filled", twin_book)
    assert twin_book != book
    play_book("bids -> 99: 1x5 2x5", book)
    play_book("dan sell 7@99 -> 5@99 with 1, 2@99 with 2, filled", book)
    assert twin_book == book


def test_equal_books_have_equal_queues() -> None:
    one, other = OrderBook(), OrderBook()
    for order_id in (1, 2):
        one.place(order_of("ann", "buy 5@99", order_id))
        other.place(order_of("ann", "buy 5@99", 3 - order_id))
    assert one.orders == other.orders and one != other


def test_books_are_equal_whether_or_not_their_changes_were_taken() -> None:
    one, other = (play_book("ann buy 5@99 -> rests 5") for _ in range(2))
    play_book("changes -> 99=5 |", one)
    assert one == other


def test_ten_thousand_orders_at_one_level() -> None:
    """Nothing recurses from order to order."""
    book, count = OrderBook(), 10_000
    for order_id in range(count):
        book.place(order_of("ann", "sell 2@100", order_id))
    twin_book = copy.deepcopy(book)
    assert twin_book == book
    twin_book.check()
    assert repr(twin_book) == repr(book)
    sweep = twin_book.place(order_of("bob", f"buy {2 * count - 1}@100", count))
    assert [m.maker.order_id for m in sweep.matches] == list(range(count))
    assert twin_book.best("sell") == (100, 1)
    assert book.best("sell") == (100, 2 * count)


@pytest.mark.parametrize("way", ["canceled", "traded", "uncrossed"])
def test_a_queue_keeps_few_void_places_however_orders_leave(way: str) -> None:
    book = OrderBook()
    for order_id in range(200):
        book.place(order_of("ann", "buy 1@99", order_id))
    gone = set(range(1, 100, 2)) | set(range(120, 199))
    for order_id in sorted(gone):
        book.cancel(order_id)
        book.check()
    left = [number for number in range(200) if number not in gone]
    assert [order.order_id for order in book.queue("buy")] == left
    book.is_collecting = way == "uncrossed"
    for order_id in left[:-1]:
        if way == "canceled":
            book.cancel(order_id)
        else:
            book.place(order_of("bob", "sell 1@99", order_id + 300))
        book.check()
    for _ in book.uncross(99):
        book.check()
    assert [order.order_id for order in book.queue("buy")] == left[-1:]


# The book's own check -----------------------------------------------------


def corrupt(book: OrderBook, how: str) -> None:
    """Break a book with bids 99: 1x5 2x5 (1 with a fill) / 98: 3x5."""
    bids, asks, orders = book._bids, book._asks, book.orders
    best = bids.levels[99]
    match how:
        case "a level in no order":
            bids.keys.reverse()
        case "a level that is not listed":
            bids.keys.remove(98)
        case "a price without a level":
            bids.keys.append(100)
        case "a price listed twice":
            bids.keys.append(99)
        case "an empty level":
            orders.pop(3), bids.levels[98].queue.clear()
        case "an order that is not indexed":
            del orders[3]
        case "another order in its place":
            orders[3] = copy.copy(orders[3])
        case "an order in no level":
            orders[9] = order_of("ann", "buy 5@98", 9)
        case "an order in two levels":
            bids.levels[98].queue.append(orders[1])
        case "an order under another's id":
            orders[9] = orders.pop(2)
        case "an order of another instrument":
            orders[1].symbol = "ETF"
        case "an order on the other side":
            orders[1].side = "sell"
        case "an order without a price":
            orders[1].price = None
        case "an order at another price":
            orders[1].price = 98
        case "an order with nothing left":
            orders[2].leaves_qty, orders[2].qty, best.qty = 0, 0, 4
        case "a quantity that does not add up":
            orders[1].cum_qty += 1
        case "an order that may not rest":
            orders[1].time_in_force = "ioc"
        case "a fill that the status hides":
            orders[1].order_status = "new"
        case "a status without a fill":
            orders[2].order_status = "partially_filled"
        case "a finished order":
            orders[2].order_status = "canceled"
        case "a level that does not add up":
            best.qty += 1
        case "a level that counts one too many":
            best.count += 1
        case "an order whose place is void":
            best.void[1] = 1
        case "a queue full of void places":
            best.queue.extendleft([orders[1]] * 99)
            best.void[1] = 99
        case "a crossed book":
            asks.add(order := order_of("eve", "sell 5@99", 9))
            orders[9] = order
        case "an account that crosses itself":
            book.is_collecting = True
            asks.add(order := order_of("ann", "sell 5@99", 9))
            orders[9] = order


CORRUPTIONS = {
    "a level in no order": "levels sorted",
    "a level that is not listed": "levels sorted",
    "a price without a level": "levels sorted",
    "a price listed twice": "levels sorted",
    "an empty level": "no empty level",
    "an order that is not indexed": "indexed",
    "another order in its place": "indexed",
    "an order in no level": "each order in exactly one level",
    "an order in two levels": "at its price",
    "an order under another's id": "under its own id",
    "an order of another instrument": "of this instrument",
    "an order on the other side": "on its side",
    "an order without a price": "has a price",
    "an order at another price": "at its price",
    "an order with nothing left": "has quantity left",
    "a quantity that does not add up": "quantity adds up",
    "an order that may not rest": "may rest",
    "a fill that the status hides": "status is true",
    "a status without a fill": "status is true",
    "a finished order": "status is true",
    "a level that does not add up": "level adds up",
    "a level that counts one too many": "orders are counted",
    "an order whose place is void": "orders are counted",
    "a queue full of void places": "few void places",
    "a crossed book": "not crossed",
    "an account that crosses itself": "no account crosses itself",
}


@pytest.mark.parametrize("how, said", CORRUPTIONS.items())
def test_check_notices_and_prints_the_book(how: str, said: str) -> None:
    book = play_book("""
        ann buy 6@99  -> rests 6
        bob buy 5@99  -> rests 5
        cat buy 5@98  -> rests 5
        dan sell 1@99 -> 1@99 with 1, filled
        """)
    corrupt(book, how)
    with pytest.raises(AssertionError) as caught:
        book.check()
    assert str(caught.value).startswith(said)
    assert "BOND" in str(caught.value) and "99" in str(caught.value)


# The book against its naive twin ------------------------------------------

# Few accounts, few prices and small orders, so that everything collides.
PRICES = st.integers(-2, 2)
ORDER_IDS = st.integers(1, 12)


BANDS = st.none() | st.tuples(PRICES, st.integers(0, 3)).map(
    lambda band: (band[0], band[0] + band[1])
)


@st.composite
def placed(draw: st.DrawFn) -> twin.Step:
    order_type, time_in_force = draw(st.sampled_from(twin.KINDS))
    may_rest = time_in_force in ("gtc", "gtd")
    is_market = order_type == "market"
    return "place", {
        "account": draw(st.sampled_from("abc")),
        "side": draw(st.sampled_from(twin.SIDES)),
        "qty": draw(st.integers(1, 6)),
        "price": None if is_market else draw(PRICES),
        "limit": draw(st.none() | PRICES) if is_market else None,
        "order_type": order_type,
        "time_in_force": time_in_force,
        "post_only": may_rest and draw(st.booleans()),
        "stp": draw(st.sampled_from(twin.STP)),
        "band": draw(BANDS),
    }


AMENDED = st.fixed_dictionaries(
    {
        "order_id": ORDER_IDS,
        "price": st.none() | PRICES,
        "qty": st.none() | st.integers(1, 9),
        "band": BANDS,
    }
)
CANCELED = st.fixed_dictionaries(
    {"order_id": ORDER_IDS, "status": st.sampled_from(["canceled", "expired"])}
)
STEPS = st.one_of(
    placed(),
    placed(),
    placed(),
    st.tuples(st.just("amend"), AMENDED),
    st.tuples(st.just("cancel"), CANCELED),
    st.just(("take_changes", {})),
    st.just(("collect", {})),
    st.tuples(
        st.just("uncross"), st.fixed_dictionaries({"reference": PRICES})
    ),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(STEPS, max_size=30), st.booleans())
def test_the_book_does_what_its_twin_does(
    steps: list[twin.Step], look_after_each: bool
) -> None:
    twins = twin.Twins()
    for step in steps:
        twins.run(step)
        if look_after_each:
            twins.take_changes()
    twins.take_changes()
    assert copy.deepcopy(twins.book) == twins.book


def test_a_long_random_flow_against_the_twin() -> None:
    """``python -m util.measure.twin STEPS SEED`` repeats it, or goes on."""
    seed = random.getrandbits(32)
    print(f"seed {seed}")
    twin.long_run(50_000, seed)


class ForgetfulBook(OrderBook):
    """It cancels, but does not mark the order as canceled."""

    def cancel(self, order_id: int, order_status: str = "canceled") -> Order:
        order = self.orders.pop(order_id)
        self._side(order.side).remove(order)
        return order


def test_a_failed_long_run_says_how_to_repeat_it() -> None:
    with pytest.raises(AssertionError, match="seed 7, after") as first:
        twin.long_run(500, 7, ForgetfulBook)
    with pytest.raises(AssertionError) as again:
        twin.long_run(500, 7, ForgetfulBook)
    assert str(first.value) == str(again.value)
