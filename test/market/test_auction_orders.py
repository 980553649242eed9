"""Market orders that join an auction: ``buy 5@market auction``."""

from __future__ import annotations

import pytest

from exchange.market.accounts import AccountLimits
from exchange.market.engine import Engine
from test.script import act, listed, listing, play


def gathering(**more: object) -> Engine:
    """Return an engine whose only instrument gathers orders around 100."""
    return listed(listing(phase="pre_open", reference_price=100, **more))


def test_a_market_order_is_in_the_auction_and_not_in_the_book() -> None:
    """It ranks before every limit, also before a better and older one."""
    engine = play(
        """
        bob buy 5@105
            bob 1 new 1 new 0/5
            * book BOND 1 105=5 |
        cat buy 5@market auction
            cat 1 new 2 new 0/5
        ann sell 6@101
            ann 1 new 3 new 0/6
            * book BOND 2 | 101=6
        op admin phase open
            op ok
            cat 2 trade 2 filled 5/5 5@105 auction #1
            ann 2 trade 3 partially_filled 5/6 5@105 auction #1
            bob 2 trade 1 partially_filled 1/5 1@105 auction #2
            ann 3 trade 3 filled 6/6 1@105 auction #2
            cat 3 account -525 BOND=5 worth 0
            ann 4 account 630 BOND=-6 worth 0
            bob 3 account -105 BOND=1 worth 0
            * status BOND open why
            * trade BOND 3 #1 5@105 sell
            * trade BOND 3 #2 1@105 sell
            * book BOND 3 105=4 | 101=0
        """,
        gathering(),
    )
    assert engine.listings["BOND"].book.depth("buy") == ((105, 4),)


def test_what_is_left_expires_after_the_uncrossing() -> None:
    play(
        """
        given cat buy 5@market auction
        given dan sell 2@market auction
        given eve buy 1@market auction
        op admin phase open
            op ok
            cat 2 trade 1 partially_filled 2/5 2@100 auction #1
            dan 2 trade 2 filled 2/2 2@100 auction #1
            cat 3 expired 1 expired 2/5 no_liquidity
            eve 2 expired 3 expired 0/1 no_liquidity
            cat 4 account -200 BOND=2 worth 0
            dan 3 account 200 BOND=-2 worth 0
            * status BOND open why
            * trade BOND 1 #1 2@100 sell
            * book BOND 1 |
        """,
        gathering(),
    )


def test_without_a_reference_market_orders_alone_do_not_trade() -> None:
    play(
        """
        given cat buy 5@market auction
        given dan sell 2@market auction
        op admin phase open
            op ok
            cat 2 expired 1 expired 0/5 no_liquidity
            dan 2 expired 2 expired 0/2 no_liquidity
            * status BOND open why
        """,
        listed(listing(phase="pre_open")),
    )


def test_it_expires_also_where_nothing_trades() -> None:
    play(
        """
        given cat buy 5@market auction
        op admin phase halted
            op ok
            * status BOND halted why
        op admin phase open
            op ok
            cat 2 expired 1 expired 0/5 no_liquidity
            * status BOND open why
        """,
        gathering(),
    )


def test_it_trades_no_further_than_the_edge_of_the_collar() -> None:
    """104 for cat; the price is 110, as the reference moved meanwhile."""
    play(
        """
        given cat buy 5@market auction
        given op admin reference symbol=BOND price=110
        given ann sell 5@107
        given bob buy 3@110
        op admin phase open
            op ok
            bob 2 trade 3 filled 3/3 3@107 auction #1
            ann 2 trade 2 partially_filled 3/5 3@107 auction #1
            cat 2 expired 1 expired 0/5 no_liquidity
            bob 3 account -321 BOND=3 worth 0
            ann 3 account 321 BOND=-3 worth 0
            * status BOND open why
            * trade BOND 3 #1 3@107 buy
            * book BOND 3 110=0 | 107=2
        """,
        gathering(collar=4),
    )


def test_where_limits_still_cross_there_is_another_uncrossing() -> None:
    """At 100 most lots trade, but cat may not pay more and the others may."""
    engine = gathering(collar=4)
    for line in (
        "cat buy 10@market auction",
        "ann sell 10@100",
        "op admin reference symbol=BOND price=110",
        "bob buy 5@110",
        "ann sell 5@110",
    ):
        act(engine, line)
    act(engine, "op admin phase open")
    engine.check()
    found = list(engine.listings["BOND"].recent)
    assert found == [(1, 104), (2, 110)]


@pytest.mark.parametrize(
    "phase, answer",
    [
        ("pre_open", "ok"),
        ("auction", "ok"),
        ("open", "market_closed"),
        ("halted", "market_closed"),
        ("closed", "market_closed"),
    ],
)
def test_only_where_orders_gather(phase: str, answer: str) -> None:
    engine = listed(listing(phase=phase))
    act(engine, "cat connect")
    play(f"cat buy 5@market auction -> {answer}", engine)
    other = "ok" if phase == "open" else "market_closed"
    play(f"cat buy 5@market -> {other}", engine)


def test_it_counts_at_the_edge_of_its_collar() -> None:
    engine = listed(
        listing(phase="pre_open", reference_price=100, collar=4),
        cat=AccountLimits(
            cash=1_000,
            min_cash=0,
            open_orders=2,
            max_position={"BOND": 9},
        ),
    )
    play(
        """
        given cat buy 5@market auction
        cat buy 5@market auction -> position_limit qty
        given cat buy 4@market auction
        cat buy 1@1 -> too_many_orders
        cat amend 1 qty=6 -> position_limit qty
        """,
        engine,
    )
    assert engine.accounts["cat"].reserved == 9 * 104
    act(engine, "cat cancel 1")
    play("cat buy 6@market auction -> position_limit qty", engine)
    assert engine.accounts["cat"].reserved == 4 * 104


def test_it_may_be_amended_and_canceled() -> None:
    """Order 1 loses its place by a higher total, order 2 keeps it."""
    engine = gathering()
    play(
        """
        given cat buy 5@market auction
        given dan buy 5@market auction
        cat amend 1 qty=6
            cat 2 amended 1 new 0/6
        dan amend 2 qty=3
            dan 2 amended 2 new 0/3
        cat amend 1 price=99 -> bad_request price
        cat amend 1 trigger=99 -> bad_request trigger_price
        given eve buy 1@market auction
        eve cancel 3
            eve 2 canceled 3 canceled 0/1 user
        given ann sell 4@100
        op admin phase open
            op ok
            dan 3 trade 2 filled 3/3 3@100 auction #1
            ann 2 trade 4 partially_filled 3/4 3@100 auction #1
            cat 3 trade 1 partially_filled 1/6 1@100 auction #2
            ann 3 trade 4 filled 4/4 1@100 auction #2
            cat 4 expired 1 expired 1/6 no_liquidity
            dan 4 account -300 BOND=3 worth 0
            ann 4 account 400 BOND=-4 worth 0
            cat 5 account -100 BOND=1 worth 0
            * status BOND open why
            * trade BOND 2 #1 3@100 sell
            * trade BOND 2 #2 1@100 sell
            * book BOND 2 | 100=0
        """,
        engine,
    )


def test_an_amend_that_arrives_again_has_the_collar_of_its_arrival() -> None:
    engine = gathering(collar=4)
    act(engine, "cat buy 5@market auction")
    act(engine, "op admin reference symbol=BOND price=110")
    order = engine.accounts["cat"].orders[1]
    act(engine, "cat amend 1 qty=4")
    assert order.worst_price == 104
    act(engine, "cat amend 1 qty=5")
    assert order.worst_price == 114
    engine.check()


def test_closing_and_disconnecting_cancel_it() -> None:
    play(
        """
        given cat connect
        given cat buy 5@market auction
        cat disconnect
            cat 2 canceled 1 canceled 0/5 disconnect
        given cat buy 5@market auction
        op admin phase closed
            op ok
            cat 4 canceled 2 canceled 0/5 closed
            * status BOND closed why
        """,
        gathering(),
    )


def test_post_only_would_take_a_market_order() -> None:
    play(
        """
        given ann connect
        given cat buy 5@market auction
        ann sell 5@104 post_only -> would_take price
        ann sell 5@105 post_only
            ann 1 new 2 new 0/5
            * book BOND 1 | 105=5
        """,
        gathering(collar=4),
    )


# Self-trade prevention ----------------------------------------------------


@pytest.mark.parametrize(
    "stp, ended",
    [
        ("cancel_oldest", [1, 2, 3]),
        ("cancel_newest", [5]),
        ("cancel_both", [3, 5]),
    ],
)
def test_stp_picks_the_first_in_the_queue(stp: str, ended: list[int]) -> None:
    """Order 3 is a market order, and order 2 is before order 1."""
    engine = gathering()
    for line in (
        "ann sell 5@101",
        "ann sell 5@101",
        "ann sell 5@market auction",
        "bob sell 5@101",
    ):
        act(engine, line)
    act(engine, "ann amend 1 qty=6")
    canceled = [
        event.order_id
        for _, event in act(engine, f"ann buy 5@101 {stp}")
        if getattr(event, "reason", "") == "stp"
    ]
    assert sorted(canceled) == ended
    if stp == "cancel_oldest":
        assert canceled == [3, 2, 1]


def test_stp_takes_the_first_in_time_not_the_lowest_id() -> None:
    engine = gathering()
    for line in ("ann sell 5@101", "ann sell 5@101", "ann amend 1 qty=6"):
        act(engine, line)
    outputs = act(engine, "ann buy 5@101 cancel_both")
    canceled = [
        event.order_id
        for _, event in outputs
        if getattr(event, "reason", "") == "stp"
    ]
    assert canceled == [2, 3]


def test_a_market_order_crosses_the_own_orders_that_it_would_reach() -> None:
    play(
        """
        given ann buy 5@95
        given ann buy 5@97
        ann sell 5@market auction
            ann 3 new 3 new 0/5
            ann 4 canceled 2 canceled 0/5 stp
            * book BOND 3 97=0 |
        """,
        gathering(collar=4),
    )
