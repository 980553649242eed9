"""Stop and stop-limit orders: what triggers them, when, and in which order.

In the scenarios ann's orders to sell and bob's to buy give the prices, and
the others have stop orders.
"""

from __future__ import annotations

import pytest

from exchange.market.accounts import AccountLimits
from exchange.market.engine import Engine
from exchange.market.state import OPERATIONS_PER_SLICE
from exchange.market.stops import Stops
from exchange.market.triggers import TRIGGER_OPERATIONS
from orderbook import Order
from test.script import act, listed, listing, play, reconfigure

# What triggers ------------------------------------------------------------


def traded(at: int, **more: int) -> Engine:
    """Return an engine whose last price is this one; orders 1 and 2."""
    engine = listed(listing(reference_price=at, **more))
    act(engine, f"ann sell 1@{at}")
    act(engine, f"bob buy 1@{at}")
    return engine


def trade(engine: Engine, price: int) -> None:
    """Let ann and bob trade one lot at a price, if nothing is in the way."""
    act(engine, f"ann sell 1@{price}")
    act(engine, f"bob buy 1@{price}")
    engine.check()


def waiting(engine: Engine) -> list[int]:
    return sorted(engine.listings["BOND"].stops.orders)


@pytest.mark.parametrize(
    "side, trigger, prices",
    [
        ("buy", 103, [101, 102, 103]),
        ("buy", 103, [99, 104]),
        ("sell", 97, [99, 98, 97]),
        ("sell", 97, [101, 96]),
    ],
)
def test_a_trade_at_the_trigger_price_or_beyond_triggers(
    side: str, trigger: int, prices: list[int]
) -> None:
    engine = traded(100)
    act(engine, f"cat {side} 1@market trigger={trigger}")
    for price in prices[:-1]:
        trade(engine, price)
        assert waiting(engine) == [3], price
    trade(engine, prices[-1])
    assert waiting(engine) == []


def test_quotes_trigger_nothing() -> None:
    """No trade yet: it waits, whatever the quotes."""
    play("""
        given ann sell 5@110
        given bob buy 5@90
        cat buy 1@market trigger=1
            cat 1 new 3 waiting 0/1
        cat sell 1@1 trigger=1000
            cat 2 new 4 waiting 0/1
        given bob buy 5@109
        given ann sell 5@110
        bob buy 1@110
            bob 3 new 7 new 0/1
            bob 4 trade 7 filled 1/1 1@110 taker #1
            ann 3 trade 1 partially_filled 1/5 1@110 maker #1
            cat 3 triggered 4 new 0/1
            cat 4 trade 4 filled 1/1 1@109 taker #2
            bob 5 trade 5 partially_filled 1/5 1@109 maker #2
            cat 5 triggered 3 new 0/1
            cat 6 trade 3 filled 1/1 1@110 taker #3
            ann 4 trade 1 partially_filled 2/5 1@110 maker #3
            bob 6 account -219 BOND=2 worth 1
            ann 5 account 220 BOND=-2 worth 0
            cat 7 account -1 BOND=0 worth -1 made -1
            * trade BOND 5 #1 1@110 buy
            * trade BOND 5 #2 1@109 sell
            * trade BOND 5 #3 1@110 buy
            * book BOND 5 109=4 | 110=8
        """)


def test_only_trades_elect() -> None:
    """A moved reference price and an opening without a trade elect nothing."""
    engine = traded(100)
    act(engine, "cat buy 1@market trigger=105")
    act(engine, "op admin reference symbol=BOND price=107")
    act(engine, "op admin phase auction")
    act(engine, "op admin phase open")
    engine.check()
    assert waiting(engine) == [3]
    trade(engine, 105)
    assert waiting(engine) == []


def test_what_is_already_true_on_arrival_is_active_at_once() -> None:
    play(
        """
        given ann sell 5@102
        cat buy 2@market trigger=100
            cat 1 new 4 waiting 0/2
            cat 2 triggered 4 new 0/2
            cat 3 trade 4 filled 2/2 2@102 taker #2
            ann 5 trade 3 partially_filled 2/5 2@102 maker #2
            cat 4 account -204 BOND=2 worth 0
            ann 6 account 304 BOND=-3 worth -2
            * trade BOND 4 #2 2@102 buy
            * book BOND 4 | 102=3
        cat buy 2@101 trigger=102
            cat 5 new 5 waiting 0/2
            cat 6 triggered 5 new 0/2
            * book BOND 5 101=2 |
        """,
        traded(100),
    )


def test_every_print_of_a_sweep_counts_and_the_sweep_is_not_disturbed() -> (
    None
):
    """The trade at 95 reaches cat's stop, although the sweep ends at 105."""
    play(
        """
        given ann sell 1@95
        given ann sell 1@105
        given dan buy 5@90
        cat sell 1@market trigger=97
            cat 1 new 6 waiting 0/1
        bob buy 2@105
            bob 4 new 7 new 0/2
            bob 5 trade 7 partially_filled 1/2 1@95 taker #2
            ann 6 trade 3 filled 1/1 1@95 maker #2
            bob 6 trade 7 filled 2/2 1@105 taker #3
            ann 7 trade 4 filled 1/1 1@105 maker #3
            cat 2 triggered 6 new 0/1
            cat 3 trade 6 filled 1/1 1@90 taker #4
            dan 2 trade 5 partially_filled 1/5 1@90 maker #4
            bob 7 account -300 BOND=3 worth -30
            ann 8 account 300 BOND=-3 worth 30
            cat 4 account 90 BOND=-1 worth 0
            dan 3 account -90 BOND=1 worth 0
            * trade BOND 6 #2 1@95 buy
            * trade BOND 6 #3 1@105 buy
            * trade BOND 6 #4 1@90 sell
            * book BOND 6 90=4 | 95=0 105=0
        """,
        traded(100),
    )


def triggered(engine: Engine, line: str) -> list[int]:
    """Do what a line says; return the orders that became active."""
    return [
        event.order_id
        for _, event in act(engine, line)
        if getattr(event, "exec_type", "") == "triggered"
    ]


@pytest.mark.parametrize("side, sign", [("buy", 1), ("sell", -1)])
def test_the_one_reached_first_is_the_first_and_then_the_oldest(
    side: str, sign: int
) -> None:
    """Orders 3 to 7 are farther or nearer; the last price becomes 105."""
    engine = traded(100)
    for away in (3, 1, 5, 1, 6):
        act(engine, f"cat {side} 1@market trigger={100 + sign * away}")
    other = "sell" if side == "buy" else "buy"
    act(engine, f"ann {other} 1@{100 + sign * 5}")
    assert triggered(engine, f"bob {side} 1@{100 + sign * 5}") == [4, 6, 3, 5]
    engine.check()
    assert waiting(engine) == [7]


def test_both_sides_are_one_queue_by_distance() -> None:
    """Prints at 90 and 104 reach 5, 3 and 4: 9, 6 and 2 ticks from 104."""
    engine = traded(100)
    act(engine, "cat sell 1@market trigger=98")
    act(engine, "dan buy 1@market trigger=102")
    act(engine, "dan sell 1@market trigger=95")
    act(engine, "ann sell 1@90")
    act(engine, "ann sell 1@104")
    assert triggered(engine, "bob buy 2@104") == [5, 3, 4]


def test_what_elected_orders_trade_elects_and_joins_the_end() -> None:
    """Order 6 trades at 103, which elects 8; 7 was elected before it."""
    play("""
        given ann sell 1@101
        given ann sell 2@103
        given ann sell 2@107
        given cat buy 1@market trigger=101
        given dan buy 1@market trigger=101
        given eve buy 1@market trigger=103
        bob buy 1@101
            bob 1 new 7 new 0/1
            bob 2 trade 7 filled 1/1 1@101 taker #1
            ann 4 trade 1 filled 1/1 1@101 maker #1
            cat 2 triggered 4 new 0/1
            cat 3 trade 4 filled 1/1 1@103 taker #2
            ann 5 trade 2 partially_filled 1/2 1@103 maker #2
            dan 2 triggered 5 new 0/1
            dan 3 trade 5 filled 1/1 1@103 taker #3
            ann 6 trade 2 filled 2/2 1@103 maker #3
            eve 2 triggered 6 new 0/1
            eve 3 trade 6 filled 1/1 1@107 taker #4
            ann 7 trade 3 partially_filled 1/2 1@107 maker #4
            bob 3 account -101 BOND=1 worth 6
            ann 8 account 414 BOND=-4 worth -14
            cat 4 account -103 BOND=1 worth 4
            dan 4 account -103 BOND=1 worth 4
            eve 4 account -107 BOND=1 worth 0
            * trade BOND 4 #1 1@101 buy
            * trade BOND 4 #2 1@103 buy
            * trade BOND 4 #3 1@103 buy
            * trade BOND 4 #4 1@107 buy
            * book BOND 4 | 101=0 103=0 107=1
        """)


def test_an_elected_order_is_triggered_though_the_price_came_back() -> None:
    """Order 6 sells at 95, and order 7 buys although the last price is 95."""
    engine = traded(100)
    act(engine, "ann sell 1@103")
    act(engine, "ann sell 1@96")
    act(engine, "eve buy 1@95")
    act(engine, "cat sell 1@market trigger=97")
    act(engine, "dan buy 1@1 trigger=102")
    assert triggered(engine, "bob buy 2@103") == [6, 7]
    assert engine.listings["BOND"].last == 95


# What they become ---------------------------------------------------------


def test_a_stop_becomes_a_market_order_at_the_edge_of_the_collar() -> None:
    """Of the collar at the trigger: 102 + 4."""
    play(
        """
        given ann sell 1@102
        given ann sell 2@106
        given ann sell 2@107 client_order_id=far
        """,
        engine := traded(100, collar=9),
    )
    reconfigure(engine, instruments=(listing(collar=4, reference_price=100),))
    play(
        """
        given cat buy 5@market trigger=102
        bob buy 1@102
            bob 4 new 7 new 0/1
            bob 5 trade 7 filled 1/1 1@102 taker #2
            ann 7 trade 3 filled 1/1 1@102 maker #2
            cat 2 triggered 6 new 0/5
            cat 3 trade 6 partially_filled 2/5 2@106 taker #3
            ann 8 trade 4 filled 2/2 2@106 maker #3
            cat 4 expired 6 expired 2/5 no_liquidity
            bob 6 account -202 BOND=2 worth 10
            ann 9 account 414 BOND=-4 worth -10
            cat 5 account -212 BOND=2 worth 0
            * trade BOND 6 #2 1@102 buy
            * trade BOND 6 #3 2@106 buy
            * book BOND 6 | 102=0 106=0
        """,
        engine,
    )
    order = engine.accounts["cat"].orders[6]
    assert (order.order_type, order.time_in_force) == ("market", "ioc")
    assert order.trigger_price == 102


@pytest.mark.parametrize(
    "words, end",
    [
        ("", "partially_filled"),
        ("gtd until=9s", "partially_filled"),
        ("ioc", "expired"),
        ("fok", "expired"),
    ],
)
def test_a_stop_limit_becomes_a_limit_order_with_its_time_in_force(
    words: str, end: str
) -> None:
    engine = traded(100)
    act(engine, f"cat buy 2@103 trigger=102 {words}")
    act(engine, "ann sell 1@102")
    act(engine, "ann sell 1@103")
    act(engine, "bob buy 1@102")
    engine.check()
    order = engine.accounts["cat"].orders[3]
    assert (order.order_type, order.order_status) == ("limit", end)
    assert order.cum_qty == (0 if words == "fok" else 1)
    act(engine, "9s tick")
    if "until" in words:
        assert order.order_status == "expired"


def test_a_triggered_order_has_a_new_time_priority() -> None:
    """Order 3 is older than order 4, and stands behind it."""
    engine = traded(100)
    act(engine, "cat sell 5@105 trigger=99")
    act(engine, "dan sell 5@105")
    trade(engine, 99)
    book = engine.listings["BOND"].book
    assert [order.order_id for order in book.queue("sell")] == [4, 3]


def test_a_triggered_stop_limit_may_rest_as_an_iceberg() -> None:
    engine = traded(100)
    act(engine, "cat sell 9@105 trigger=99 display=2")
    assert engine.listings["BOND"].book.depth("sell") == ()
    trade(engine, 99)
    assert engine.listings["BOND"].book.depth("sell") == ((105, 2),)


# While it waits -----------------------------------------------------------


def test_a_waiting_order_is_seen_by_its_owner_and_by_nobody_else() -> None:
    engine = play("""
        cat buy 5@market trigger=105 as=mine
            cat 1 new 1 waiting 0/5
        """)
    (row,) = engine.order_reports(engine.accounts["cat"].open_orders.values())
    assert '"order_status":"waiting"' in row and '"trigger_price":105' in row
    bond = engine.listings["BOND"]
    assert bond.book.depth("buy") == () and bond.seq == 0


def test_a_waiting_order_counts_at_its_worst_cost() -> None:
    """5 lots at 105 + 4, and 2 lots at the limit of 107."""
    engine = listed(
        listing(collar=4, reference_price=100, taker_fee=1),
        cat=AccountLimits(
            cash=1_000, min_cash=0, open_orders=3, max_position={"BOND": 8}
        ),
    )
    play(
        """
        given cat buy 5@market trigger=105
        given cat buy 2@107 trigger=105
        cat buy 2@90                  -> position_limit qty
        cat buy 2@90 trigger=105      -> position_limit qty
        cat buy 1@234 trigger=105     -> insufficient_funds
        given cat buy 1@50 trigger=105
        cat sell 1@market trigger=105 -> too_many_orders
        """,
        engine,
    )
    cat = engine.accounts["cat"]
    assert cat.reserved == 5 * 110 + 2 * 108 + 51
    assert cat.buying == {"BOND": 8}
    act(engine, "cat cancel 1")
    assert cat.reserved == 2 * 108 + 51


def test_a_waiting_order_may_be_amended() -> None:
    engine = play("""
        given cat buy 5@106 trigger=105
        cat amend 1 price=107 qty=8
            cat 2 amended 1 waiting 0/8
        cat amend 1 trigger=104
            cat 3 amended 1 waiting 0/8
        cat amend 1 price=1001 -> invalid_price price
        cat amend 1 trigger=0 -> invalid_price trigger_price
        cat amend 1 qty=101 -> invalid_qty qty
        cat amend 1 until=9s -> bad_request expire_ts
        cat amend 1 display=9
            cat 4 amended 1 waiting 0/8
        cat amend 1 qty=100 display=4 -> invalid_qty display_qty
        """)
    assert engine.accounts["cat"].reserved == 8 * 107
    assert engine.accounts["cat"].orders[1].trigger_price == 104


def test_the_trigger_price_of_an_amend_is_judged_anew() -> None:
    play(
        """
        given cat buy 5@99 trigger=105
        cat amend 3 price=98
            cat 2 amended 3 waiting 0/5
        cat amend 3 trigger=101
            cat 3 amended 3 waiting 0/5
        cat amend 3 trigger=100
            cat 4 amended 3 waiting 0/5
            cat 5 triggered 3 new 0/5
            * book BOND 3 98=5 |
        cat amend 3 trigger=101 -> bad_request trigger_price
        """,
        traded(100),
    )


def test_a_stop_has_no_price_to_amend() -> None:
    play("""
        given cat buy 5@market trigger=105
        cat amend 1 price=98 -> bad_request price
        cat amend 1 display=5 -> bad_request display_qty
        cat amend 1 qty=3
            cat 2 amended 1 waiting 0/3
        """)


def test_an_amended_trigger_leaves_no_trace_of_the_old_one() -> None:
    engine = traded(100)
    act(engine, "cat buy 1@99 trigger=103")
    for trigger in (108, 103, 108, 103, 108):
        act(engine, f"cat amend 3 trigger={trigger}")
        engine.check()
    trade(engine, 107)
    assert waiting(engine) == [3]
    trade(engine, 108)
    assert waiting(engine) == []


def test_a_waiting_order_ends_like_any_other() -> None:
    play("""
        given 1s cat connect
        given cat buy 5@market trigger=105
        cat cancel 1
            cat 2 canceled 1 canceled 0/5 user
        given cat buy 5@market trigger=105 gtd until=3s
        3s tick
            cat 4 expired 2 expired 0/5 gtd
        given cat buy 5@106 trigger=105
        cat cancel_all
            cat ok 1
            cat 6 canceled 3 canceled 0/5 user
        given cat buy 5@106 trigger=105
        cat disconnect
            cat 8 canceled 4 canceled 0/5 disconnect
        given cat buy 5@106 trigger=105
        given 4s cat cancel_after 1000
        5s tick
            cat 10 canceled 5 canceled 0/5 cancel_after
        given cat buy 5@106 trigger=105
        op admin cancel 6
            op ok
            cat 12 canceled 6 canceled 0/5 admin
            * status cancel order 6: why
        given cat buy 5@106 trigger=105
        op admin phase closed
            op ok
            cat 14 canceled 7 canceled 0/5 closed
            * status BOND closed why
        cat buy 5@106 trigger=105 -> market_closed
        """)


@pytest.mark.parametrize("action", ["settle price=5 symbol=BOND", "reset"])
def test_settle_and_reset_cancel_what_waits(action: str) -> None:
    engine = play("given cat buy 5@106 trigger=105")
    act(engine, f"op admin {action}")
    engine.check()
    assert not engine.accounts["cat"].open_orders


def test_the_expiry_of_an_order_may_be_amended() -> None:
    play("""
        given cat buy 5@106 trigger=105 gtd until=9s
        given dan buy 5@99 gtd until=9s
        1s cat amend 1 until=4s
            cat 2 amended 1 waiting 0/5
        2s dan amend 2 until=12s
            dan 2 amended 2 new 0/5
        dan amend 2 until=2s -> bad_request expire_ts
        dan amend 2 until=1s -> bad_request expire_ts
        4s tick
            cat 3 expired 1 expired 0/5 gtd
        9s tick
        11s tick
        12s tick
            dan 3 expired 2 expired 0/5 gtd
            * book BOND 2 99=0 |
        """)


def test_an_amended_expiry_keeps_the_place_in_the_queue() -> None:
    engine = play("""
        given cat buy 5@99 gtd until=9s
        given dan buy 5@99
        given cat amend 1 until=10s
        """)
    queue = engine.listings["BOND"].book.queue("buy")
    assert [order.order_id for order in queue] == [1, 2]


def test_a_stops_expiry_ends_with_its_waiting_a_stop_limits_goes_on() -> None:
    engine = traded(100)
    act(engine, "cat buy 5@market trigger=102 gtd until=9s")
    act(engine, "dan buy 5@90 trigger=102 gtd until=9s")
    trade(engine, 102)
    cat, dan = engine.accounts["cat"].orders[3], engine.accounts["dan"].orders
    assert cat.order_status == "expired" and cat.expire_ts is None
    assert engine.expiring == {9_000_000: {4: dan[4]}}
    act(engine, "9s tick")
    assert dan[4].order_status == "expired"
    engine.check()


# Judged again -------------------------------------------------------------


def test_collar_and_post_only_are_judged_at_the_trigger_only() -> None:
    """106 is beyond 100 + 4 on arrival, and within 102 + 4 at the trigger."""
    play(
        """
        given cat buy 1@106 trigger=102
        given dan buy 1@107 trigger=102
        given eve buy 1@104 trigger=102 post_only
        given ann sell 1@102
        given ann sell 2@104
        bob buy 1@102
            bob 4 new 8 new 0/1
            bob 5 trade 8 filled 1/1 1@102 taker #2
            ann 6 trade 6 filled 1/1 1@102 maker #2
            cat 2 triggered 3 new 0/1
            cat 3 trade 3 filled 1/1 1@104 taker #3
            ann 7 trade 7 partially_filled 1/2 1@104 maker #3
            dan 2 triggered 4 new 0/1
            dan 3 trade 4 filled 1/1 1@104 taker #4
            ann 8 trade 7 filled 2/2 1@104 maker #4
            eve 2 triggered 5 new 0/1
            bob 6 account -202 BOND=2 worth 6
            ann 9 account 410 BOND=-4 worth -6
            cat 4 account -104 BOND=1 worth 0
            dan 4 account -104 BOND=1 worth 0
            * trade BOND 5 #2 1@102 buy
            * trade BOND 5 #3 1@104 buy
            * trade BOND 5 #4 1@104 buy
            * book BOND 5 104=1 | 102=0 104=0
        """,
        traded(100, collar=4),
    )


def test_what_fails_at_the_trigger_is_canceled_with_the_code() -> None:
    """Eve has cash for 5 lots at 103 + 9; from 105 they may cost 114 each."""
    engine = listed(
        listing(reference_price=100, collar=9),
        eve=AccountLimits(cash=5 * 112, min_cash=0),
    )
    play(
        """
        given ann sell 1@105
        given ann sell 9@107
        given cat buy 1@115 trigger=103
        given dan buy 1@107 trigger=103 post_only
        given eve buy 5@market trigger=103
        bob buy 1@105
            bob 1 new 6 new 0/1
            bob 2 trade 6 filled 1/1 1@105 taker #1
            ann 3 trade 1 filled 1/1 1@105 maker #1
            cat 2 triggered 3 new 0/1
            cat 3 canceled 3 canceled 0/1 invalid_price
            dan 2 triggered 4 new 0/1
            dan 3 canceled 4 canceled 0/1 would_take
            eve 2 triggered 5 new 0/5
            eve 3 canceled 5 canceled 0/5 insufficient_funds
            bob 3 account -105 BOND=1 worth 0
            ann 4 account 105 BOND=-1 worth 0
            * trade BOND 3 #1 1@105 buy
            * book BOND 3 | 105=0
        """,
        engine,
    )
    for name in ("cat", "dan", "eve"):
        assert engine.accounts[name].reserved == 0


def test_the_position_is_judged_again_at_the_trigger() -> None:
    """The limit is changed under the rules without their enforcement."""
    engine = traded(100)
    act(engine, "cat buy 5@market trigger=102")
    cat = engine.accounts["cat"]
    cat.limits = AccountLimits(max_position={"BOND": 4})
    trade(engine, 102)
    (order,) = cat.orders.values()
    assert order.order_status == "canceled"
    assert cat.buying == {"BOND": 0}


# Phases -------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["pre_open", "auction"])
def test_where_orders_gather_stops_are_accepted_and_wait(phase: str) -> None:
    """Also one whose trigger price the last price is beyond."""
    engine = traded(100)
    act(engine, f"op admin phase {phase}")
    play(
        """
        cat buy 1@market trigger=90
            cat 1 new 3 waiting 0/1
        cat amend 3 trigger=91
            cat 2 amended 3 waiting 0/1
        op admin phase open
            op ok
            * status BOND open why
        """,
        engine,
    )
    assert waiting(engine) == [3], "only trades elect"
    trade(engine, 91)
    assert waiting(engine) == []


@pytest.mark.parametrize("phase", ["halted", "closed"])
def test_where_nothing_is_accepted_stops_are_not(phase: str) -> None:
    engine = traded(100)
    act(engine, "cat buy 1@market trigger=105")
    act(engine, f"op admin phase {phase}")
    play("cat buy 1@market trigger=90 -> market_closed", engine)
    if phase == "halted":
        play("cat amend 3 trigger=90 -> market_closed", engine)
        play("given cat cancel 3", engine)


def test_an_uncrossing_is_one_print_and_elects_afterwards() -> None:
    play(
        """
        given cat buy 1@market trigger=101
        given dan sell 1@99 trigger=102
        given ann sell 2@101
        given bob buy 1@101
        op admin phase open
            op ok
            bob 2 trade 4 filled 1/1 1@101 auction #1
            ann 2 trade 3 partially_filled 1/2 1@101 auction #1
            dan 2 triggered 2 new 0/1
            cat 2 triggered 1 new 0/1
            cat 3 trade 1 filled 1/1 1@99 taker #2
            dan 3 trade 2 filled 1/1 1@99 maker #2
            bob 3 account -101 BOND=1 worth -2
            ann 3 account 101 BOND=-1 worth 2
            cat 4 account -99 BOND=1 worth 0
            dan 4 account 99 BOND=-1 worth 0
            * status BOND open why
            * trade BOND 3 #1 1@101 buy
            * trade BOND 3 #2 1@99 buy
            * book BOND 3 101=0 | 99=0 101=1
        """,
        listed(listing(phase="pre_open")),
    )


STOPPED = (
    "* status BOND auction the next trade would be more than 3 ticks from the"
    " reference price"
)


def test_those_elected_wait_again_when_the_band_stops_the_instrument() -> None:
    """Order 5 would trade at 107, beyond 103 + 3, so order 6 is not active."""
    engine = play(
        f"""
        given ann sell 1@103
        given ann sell 9@107
        given cat buy 1@market trigger=102
        given dan buy 1@market trigger=103
        bob buy 1@103
            bob 4 new 7 new 0/1
            bob 5 trade 7 filled 1/1 1@103 taker #2
            ann 6 trade 3 filled 1/1 1@103 maker #2
            cat 2 triggered 5 new 0/1
            cat 3 expired 5 expired 0/1 no_liquidity
            bob 6 account -203 BOND=2 worth 3
            ann 7 account 203 BOND=-2 worth -3
            {STOPPED}
            * trade BOND 5 #2 1@103 buy
            * book BOND 5 | 103=0
        """,
        traded(100, band=3),
    )
    assert waiting(engine) == [6]
    act(engine, "op admin phase open")
    assert waiting(engine) == [6], "no print, no election"
    act(engine, "eve sell 1@105")
    assert triggered(engine, "bob buy 1@105") == [6]


def test_those_reached_before_the_band_was_left_wait_again() -> None:
    engine = traded(100, band=3)
    act(engine, "ann sell 1@103")
    act(engine, "ann sell 1@104")
    act(engine, "cat buy 1@market trigger=103")
    assert triggered(engine, "bob buy 2@104") == []
    assert engine.listings["BOND"].phase == "auction"
    assert waiting(engine) == [5]
    engine.check()
    assert triggered(engine, "op admin phase open") == [5]


# Many ---------------------------------------------------------------------


def test_a_cascade_takes_several_commands_and_time_does_not_wait() -> None:
    engine = traded(100)
    at_once = OPERATIONS_PER_SLICE // TRIGGER_OPERATIONS
    more = at_once + 5
    for number in range(more):
        act(engine, f"cat buy 1@99 trigger={101 + number % 3}")
    act(engine, "dan buy 1@1 gtd until=9s")
    act(engine, "ann sell 1@105")
    assert engine.next_deadline == 9_000_000
    assert len(triggered(engine, "bob buy 1@105")) == at_once
    engine.check()
    assert engine.next_deadline == 0, "at once"
    assert "BOND" in engine.busy_symbols
    assert len(triggered(engine, "tick")) == 5
    engine.check()
    assert waiting(engine) == []
    assert engine.next_deadline == 9_000_000 == engine.earliest
    assert not engine.work


def stop(order_id: int, side: str, trigger_price: int) -> Order:
    return Order(
        order_id,
        "ann",
        "buy" if side == "buy" else "sell",
        1,
        order_status="waiting",
        leaves_qty=1,
        trigger_price=trigger_price,
    )


def test_the_nearest_trigger_prices_are_known() -> None:
    stops = Stops()
    for order_id, (side, price) in enumerate(
        [("buy", 105), ("buy", 103), ("sell", 95), ("sell", 97)]
    ):
        stops.add(stop(order_id, side, price))
    assert (stops.buy_at, stops.sell_at) == (103, 97)
    stops.remove(stops.orders[1])
    stops.remove(stops.orders[3])
    assert (stops.buy_at, stops.sell_at) == (105, 95)
    assert [o.order_id for o in stops.reach(105)] == [0]
    assert stops.reach(96) == []
    assert list(stops.orders) == [0, 2] and list(stops.reached) == [0]
    stops.check()


def test_what_was_canceled_does_not_pile_up() -> None:
    """Far orders come and go behind one that stays."""
    stops = Stops()
    stops.add(stop(0, "buy", 101))
    for order_id in range(1, 500):
        order = stop(order_id, "buy", 200)
        stops.add(order)
        stops.remove(order)
        stops.check()
