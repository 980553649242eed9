"""What open orders set aside, fees, and profit."""

from __future__ import annotations

from typing import Any

import pytest

from exchange.market.accounts import CASH_MAX, HOUSE, AccountLimits
from test.script import act, limited, listed, listing, play, reconfigure

# Cash ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "cash, least", [(1_000, 0), (0, -1_000), (3_000, 2_000)]
)
def test_open_orders_to_buy_are_paid_in_advance(cash: int, least: int) -> None:
    engine = play(
        """
        ann buy 2@300      -> ok
        ann buy 4@101      -> insufficient_funds
        ann buy 4@100      -> ok
        ann buy 1@1        -> insufficient_funds
        ann buy 1@1 ioc    -> insufficient_funds
        ann sell 9@301     -> ok
        bob sell 2@300     -> ok
        ann buy 1@1        -> insufficient_funds
        ann cancel 2       -> ok
        ann buy 4@101      -> insufficient_funds
        ann buy 4@100      -> ok
        """,
        limited(cash=cash, min_cash=least),
    )
    ann = engine.accounts["ann"]
    assert (ann.cash, ann.reserved) == (cash - 600, 400)


def test_a_better_price_releases_the_difference() -> None:
    engine = play(
        """
        bob sell 10@90     -> ok
        ann buy 10@100     -> ok
        ann buy 1@101      -> insufficient_funds
        ann buy 1@100      -> ok
        """,
        limited(cash=1_000, min_cash=0),
    )
    assert engine.accounts["ann"].cash == 100


def test_proceeds_count_once_the_sale_is_made() -> None:
    play(
        """
        ann sell 5@100     -> ok
        ann buy 2@99       -> insufficient_funds
        bob buy 5@100      -> ok
        ann buy 6@100      -> ok
        ann buy 1@1        -> insufficient_funds
        """,
        limited(cash=100, min_cash=0),
    )


def test_without_a_least_cash_values_stay_countable() -> None:
    play(
        f"""
        ann buy {CASH_MAX // 1_000 + 1}@1000 -> insufficient_funds
        ann buy {CASH_MAX // 1_000}@1000     -> ok
        ann buy 1@1                          -> insufficient_funds
        """,
        limited(listing(max_qty=CASH_MAX)),
    )


def test_the_higher_fee_is_set_aside_and_a_rebate_is_not_counted() -> None:
    engine = play(
        """
        ann buy 10@101   -> insufficient_funds
        ann buy 10@100   -> ok
        bob sell 10@100  -> ok
        """,
        limited(listing(maker_fee=-1, taker_fee=2), cash=1_020, min_cash=0),
    )
    ann = engine.accounts["ann"]
    assert (ann.cash, ann.reserved) == (1_020 - 1_000 + 10, 0)


def test_a_sale_for_less_than_its_fee_costs() -> None:
    play(
        """
        ann sell 9@3     -> ok
        ann sell 11@2    -> insufficient_funds
        ann sell 10@2    -> ok
        ann sell 1@2     -> insufficient_funds
        """,
        limited(listing(maker_fee=3, taker_fee=1), cash=10, min_cash=0),
    )


def test_below_zero_the_seller_pays() -> None:
    engine = play(
        """
        ann buy 9@-5       -> ok
        ann sell 5@-4      -> ok
        ann sell 1@-1      -> insufficient_funds
        ann cancel 2       -> ok
        ann sell 3@-7      -> insufficient_funds
        """,
        limited(listing(min_price=-10), cash=20, min_cash=0),
    )
    assert engine.accounts["ann"].reserved == 0


@pytest.mark.parametrize(
    "more, line, is_enough",
    [
        ({}, "buy 1@market", True),
        ({}, "buy 2@market", False),
        ({"collar": 10}, "buy 9@market", True),
        ({"collar": 10}, "buy 10@market", False),
        ({"collar": 10, "taker_fee": 1}, "buy 9@market", True),
        ({"collar": 10, "taker_fee": 2}, "buy 9@market", False),
        ({"collar": 950}, "buy 1@market", True),
        ({}, "sell 99@market", True),
        ({"min_price": -20}, "sell 50@market", True),
        ({"min_price": -20}, "sell 51@market", False),
        ({"min_price": -20, "collar": 110}, "sell 99@market", True),
        ({"min_price": -20, "collar": 111}, "sell 91@market fok", False),
        ({"min_price": -20, "collar": 121}, "sell 50@market", True),
        ({"taker_fee": 3}, "sell 99@market", True),
        ({"taker_fee": 12}, "sell 91@market", False),
    ],
)
def test_a_market_order_counts_at_the_worst_price_it_may_get(
    more: dict[str, Any], line: str, is_enough: bool
) -> None:
    """Prices are 1 to 1,000 and the reference is 100 by default."""
    engine = limited(
        listing(**{"reference_price": 100, **more}), cash=1_000, min_cash=0
    )
    play(
        f"ann {line} -> {'ok' if is_enough else 'insufficient_funds'}", engine
    )
    if is_enough:
        assert engine.accounts["ann"].reserved == 0, "it has expired"


def test_a_market_order_pays_what_it_gets() -> None:
    engine = play(
        """
        bob sell 2@95      -> ok
        bob sell 2@105     -> ok
        ann buy 9@market   -> ok
        """,
        limited(listing(collar=10, reference_price=100), cash=990, min_cash=0),
    )
    ann = engine.accounts["ann"]
    assert (ann.cash, ann.reserved, ann.buying) == (590, 0, {"BOND": 0})


def test_an_amend_is_judged_by_the_cash_it_adds() -> None:
    engine = play(
        """
        ann buy 5@100                -> ok
        ann buy 4@100                -> ok
        ann amend 1 price=121        -> insufficient_funds
        ann amend 1 qty=7            -> insufficient_funds
        ann amend 1 qty=4 price=151  -> insufficient_funds
        ann amend 1 qty=4 price=150  -> ok
        ann amend 2 price=101        -> insufficient_funds
        ann amend 1 qty=8 price=75   -> ok
        ann amend 1 price=70         -> ok
        ann amend 2 price=110        -> ok
        ann buy 1@1                  -> insufficient_funds
        """,
        limited(cash=1_000, min_cash=0),
    )
    assert engine.accounts["ann"].reserved == 1_000


def test_an_amend_counts_what_is_not_yet_filled() -> None:
    engine = play(
        """
        ann buy 5@100                -> ok
        bob sell 3@100               -> ok
        ann amend 1 price=351        -> insufficient_funds
        ann amend 1 price=350        -> ok
        ann amend 1 qty=4            -> ok
        ann buy 1@351                -> insufficient_funds
        ann buy 1@350                -> ok
        """,
        limited(cash=1_000, min_cash=0),
    )
    assert engine.accounts["ann"].reserved == 700


def test_an_amend_that_trades_pays_what_it_gets() -> None:
    engine = play(
        """
        bob sell 4@150               -> ok
        ann buy 6@100                -> ok
        ann amend 2 price=166        -> insufficient_funds
        ann amend 2 price=165        -> ok
        """,
        limited(listing(taker_fee=1), cash=1_000, min_cash=0),
    )
    ann = engine.accounts["ann"]
    assert (ann.cash, ann.reserved) == (1_000 - 4 * 151, 2 * 166)


def test_an_account_short_of_cash_may_amend_for_no_more() -> None:
    """Under rules 2: since then the order is canceled."""
    engine = play("ann buy 5@100 -> ok", limited(cash=500, min_cash=0))
    reconfigure(engine, engine_version=2)
    act(engine, "op admin adjust user=ann cash=-200")
    play(
        """
        ann amend 1 qty=6            -> insufficient_funds
        ann amend 1 price=101        -> insufficient_funds
        ann amend 1 qty=4 price=125  -> ok
        ann amend 1 price=100        -> ok
        ann buy 1@1                  -> insufficient_funds
        """,
        engine,
    )


def test_new_fees_and_limits_change_what_is_set_aside() -> None:
    """3 lots of ann's order were filled, for 300; 5 are left."""
    engine = play(
        """
        ann buy 8@100    -> ok
        bob sell 3@100   -> ok
        ann buy 5@101    -> insufficient_funds
        ann sell 5@150   -> ok
        """,
        limited(cash=1_300, min_cash=0),
    )
    reconfigure(engine, instruments=(listing(taker_fee=3),))
    ann = engine.accounts["ann"]
    assert ann.reserved == 5 * 103
    assert (ann.buying, ann.selling) == ({"BOND": 5}, {"BOND": 5})
    play(
        """
        ann buy 5@95     -> insufficient_funds
        ann buy 5@94     -> ok
        """,
        engine,
    )
    richer = AccountLimits(cash=9_999, min_cash=-500)
    reconfigure(engine, limits=richer, accounts={})
    assert (ann.cash, ann.limits) == (1_000, richer)
    play(
        """
        ann buy 5@98     -> insufficient_funds
        ann buy 5@97     -> ok
        """,
        engine,
    )
    assert act(engine, "zoe connect") == []
    assert engine.accounts["zoe"].cash == 9_999


# Fees and profit ----------------------------------------------------------


def test_the_taker_pays_and_the_maker_earns_a_rebate() -> None:
    engine = play(
        """
        given ann sell 5@100
        given ann sell 5@101
        bob buy 8@101
            bob 1 new 3 new 0/8
            bob 2 trade 3 partially_filled 5/8 5@100 taker #1 fee 15
            ann 3 trade 1 filled 5/5 5@100 maker #1 fee -5
            bob 3 trade 3 filled 8/8 3@101 taker #2 fee 9
            ann 4 trade 2 partially_filled 3/5 3@101 maker #2 fee -3
            bob 4 account -827 BOND=8 worth -19 made -24
            ann 5 account 811 BOND=-8 worth 3 made 8
            * trade BOND 3 #1 5@100 buy
            * trade BOND 3 #2 3@101 buy
            * book BOND 3 | 100=0 101=2
        """,
        listed(listing(maker_fee=-1, taker_fee=3)),
    )
    house = engine.accounts[HOUSE]
    assert (house.cash, house.seq, house.positions) == (24 - 8, 0, {})
    assert [row["user"] for row in engine.leaderboard()] == ["ann", "bob"]


def test_fees_are_of_the_instrument_and_the_same_for_buyer_and_seller() -> (
    None
):
    engine = play(
        """
        given ann buy 5@100 symbol=BOND
        bob sell 5@100 symbol=BOND
            bob 1 new 2 new 0/5
            bob 2 trade 2 filled 5/5 5@100 taker #1 fee 10
            ann 2 trade 1 filled 5/5 5@100 maker #1 fee 5
            bob 3 account 490 BOND=-5 worth -10 made -10
            ann 3 account -505 BOND=5 worth -5 made -5
            * trade BOND 2 #1 5@100 sell
            * book BOND 2 100=0 |
        given bob buy 5@100 symbol=ETF
        ann sell 5@100 symbol=ETF
            ann 4 new 4 new 0/5
            ann 5 trade 4 filled 5/5 5@100 taker #1
            bob 5 trade 3 filled 5/5 5@100 maker #1
            ann 6 account -5 BOND=5 ETF=-5 worth -5 made -5
            bob 6 account -10 BOND=-5 ETF=5 worth -10 made -10
            * trade ETF 2 #1 5@100 sell
            * book ETF 2 100=0 |
        """,
        listed(listing("BOND", maker_fee=1, taker_fee=2), "ETF"),
    )
    assert engine.accounts[HOUSE].cash == 15


def test_a_zero_fee_does_not_change_the_house() -> None:
    engine = play("given ann sell 5@100\ngiven bob buy 5@100")
    assert HOUSE not in engine.accounts


def test_profit_is_made_by_closing_at_the_average_cost() -> None:
    """10 lots for 1,000 and 5 for 550: 15 for 1,550, or 103.33.. each.

    4 of them take 413 along and bring 440: 27 are made. The 11 left cost
    1,137; 20 sold at 110 close them, for 1,210, and are short with 9.
    The cost of bob's short position is rounded down too: -413.33.. is -414.
    """
    engine = play(
        """
        given ann buy 10@100
        given bob sell 10@100
        given ann buy 5@110
        given bob sell 5@110
        given bob buy 24@110
        ann sell 4@110
            ann 7 new 6 new 0/4
            ann 8 trade 6 filled 4/4 4@110 taker #3
            bob 8 trade 5 partially_filled 4/24 4@110 maker #3
            ann 9 account 8890 BOND=11 worth 10100 made 27
            bob 9 account 1110 BOND=-11 worth -100 made -26
            * trade BOND 6 #3 4@110 sell
            * book BOND 6 110=20 |
        ann sell 20@110
            ann 10 new 7 new 0/20
            ann 11 trade 7 filled 20/20 20@110 taker #4
            bob 10 trade 5 filled 24/24 20@110 maker #4
            ann 12 account 11090 BOND=-9 worth 10100 made 100
            bob 11 account -1090 BOND=9 worth -100 made -100
            * trade BOND 7 #4 20@110 sell
            * book BOND 7 110=0 |
        """,
        limited(cash=10_000),
    )
    report = engine.account_report(engine.accounts["ann"])
    assert (report.realized, report.unrealized) == (100, 0)
    play("given cat buy 1@90\ngiven cat sell 1@95", engine)
    report = engine.account_report(engine.accounts["ann"])
    assert (report.equity, report.realized) == (10_235, 100)
    assert report.unrealized == 9 * (110 - 95)
