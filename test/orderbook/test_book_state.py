"""What the book shows, its copies, and its own check."""

from __future__ import annotations

import copy
import random

import pytest

from orderbook import OrderBook
from test.script import order_of, play_book
from util.measure import twin

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


def test_changes_name_both_levels_of_a_moved_order() -> None:
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
    """Applied to an empty book, the changes give the whole book."""
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
    """No call recurses from order to order."""
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
    bids, orders = book._bids, book.orders
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
            book.is_collecting = True
            book.place(order_of("eve", "sell 5@99", 9))
            book.is_collecting = False
        case "an account that crosses itself":
            book.is_collecting = True
            book.place(order_of("ann", "sell 5@99", 9))


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
