"""Priority, the kinds of orders, amend and cancel."""

from __future__ import annotations

import copy

import pytest

from orderbook import OrderBook, Refused
from test.script import Book, act_on, order_of, play_book

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


def test_the_older_order_trades_first_at_equal_prices() -> None:
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


def test_the_overlap_goes_to_the_arriving_order() -> None:
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


def test_an_order_may_be_canceled_as_expired() -> None:
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


def test_post_only_does_not_cross_own_orders() -> None:
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


def test_only_a_resting_order_can_be_amended_or_canceled() -> None:
    book = play_book("""
        ann buy 1@99  -> rests 1
        bob sell 1@99 -> 1@99 with 1, filled
        """)
    for order_id in (1, 2, 77):
        with pytest.raises(KeyError):
            book.cancel(order_id)
        with pytest.raises(KeyError):
            book.amend(order_id, price=1)
