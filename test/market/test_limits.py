"""What is refused, in which order of precedence; limits, fees, the collar."""

from __future__ import annotations

from typing import Any

import pytest

from exchange.market.accounts import CASH_MAX, HOUSE, VALUE_MAX, AccountLimits
from orderbook import Amend, Exec, Place
from test.script import (
    SECOND,
    act,
    apply,
    limited,
    listed,
    listing,
    play,
    reconfigure,
    refuse,
)

# The order of precedence --------------------------------------------------


def test_of_all_that_is_wrong_with_a_place_the_first_is_answered() -> None:
    """It has every fault at once; they are mended one after another."""
    bond = listing("BOND", max_position=50, reference_price=500, collar=100)
    engine = limited(
        bond, listing("ETF"), cash=10_000, min_cash=0, open_orders=2
    )
    play(
        """
        given bob sell 5@500 symbol=BOND
        given ann buy 3@490 symbol=BOND as=mine
        given op admin phase halted symbol=BOND
        given op admin kill user=ann
        """,
        engine,
    )
    wrong: dict[str, Any] = {
        "side": "buy",
        "qty": 101,
        "price": 1_001,
        "post_only": True,
        "time_in_force": "gtd",
        "expire_ts": 10 * SECOND,
        "client_order_id": "new",
    }
    two_orders = """
        given op admin phase open symbol=BOND
        given ann buy 2@480 symbol=BOND
        given ann buy 1@480 symbol=ETF as=second
        """
    for code, field, mended in (
        ("bad_request", "expire_ts", {"expire_ts": 60 * SECOND}),
        ("bad_request", "symbol", {"symbol": "NONE"}),
        ("forbidden", None, {"client_order_id": "mine"}),
        ("unknown_symbol", "symbol", {"symbol": "BOND"}),
        (
            "duplicate_client_order_id",
            "client_order_id",
            {"client_order_id": "new"},
        ),
        ("market_closed", None, two_orders),
        ("invalid_qty", "qty", {"qty": 100}),
        ("invalid_price", "price", {"price": 1_000}),
        ("invalid_price", "price", {"price": 600}),
        ("too_many_orders", None, "given ann cancel as=second"),
        ("position_limit", "qty", {"qty": 48}),
        (
            "insufficient_funds",
            None,
            "given op admin adjust user=ann cash=20000",
        ),
        ("would_take", "price", {"price": 499}),
    ):
        ts = max(engine.ts + 1, 10 * SECOND)
        error = refuse(engine, Place(**wrong), "ann", ts)
        assert (error.code, error.field) == (code, field)
        beyond_collar = wrong["price"] == 1_000 and code == "invalid_price"
        assert ("reference" in error.message) == beyond_collar
        if code == "forbidden":
            play("given op admin unkill user=ann", engine)
        if isinstance(mended, str):
            play(mended, engine)
        else:
            wrong |= mended
    (_, new), *_ = apply(engine, Place(**wrong), "ann")
    assert isinstance(new, Exec) and new.exec_type == "new"


def test_of_all_that_is_wrong_with_an_amend_the_first_is_answered() -> None:
    bond = listing("BOND", max_position=50, reference_price=500, collar=100)
    engine = limited(bond, cash=10_000, min_cash=0)
    play(
        """
        given ann buy 5@500
        given bob sell 5@500
        given bob sell 5@500
        given op admin kill user=ann
        """,
        engine,
    )
    wrong: dict[str, Any] = {"order_id": 3, "qty": 101, "price": 1_001}
    for code, field, mended in (
        (
            "forbidden",
            None,
            """
            given op admin unkill user=ann
            given ann buy 5@499 post_only
            given op admin phase halted
            """,
        ),
        ("unknown_order", "order_id", {"order_id": 1}),
        ("order_closed", None, {"order_id": 4}),
        ("market_closed", None, "given op admin phase open"),
        ("invalid_qty", "qty", {"qty": 100}),
        ("invalid_price", "price", {"price": 1_000}),
        ("invalid_price", "price", {"price": 600}),
        ("position_limit", "qty", {"qty": 45}),
        (
            "insufficient_funds",
            None,
            "given op admin adjust user=ann cash=20000",
        ),
        ("would_take", "price", {"price": 498}),
    ):
        error = refuse(engine, Amend(**wrong), "ann")
        assert (error.code, error.field) == (code, field)
        beyond_collar = wrong["price"] == 1_000 and code == "invalid_price"
        assert ("reference" in error.message) == beyond_collar
        if isinstance(mended, str):
            play(mended, engine)
        else:
            wrong |= mended
    (_, amended), *_ = apply(engine, Amend(**wrong), "ann")
    assert isinstance(amended, Exec) and amended.exec_type == "amended"


@pytest.mark.parametrize(
    "before, line, expected",
    [
        ("tick", "20s ann buy 1@99 gtd until=20s", "bad_request expire_ts"),
        ("op admin kill user=ann", "ann buy 1@99", "forbidden"),
        ("op admin kill user=ann", "ann amend 2 qty=1", "forbidden"),
        ("tick", "ann buy 1@99 symbol=NONE", "unknown_symbol symbol"),
        (
            "tick",
            "ann buy 1@99 as=mine",
            "duplicate_client_order_id client_order_id",
        ),
        ("tick", "ann amend 1 qty=1", "unknown_order order_id"),
        ("tick", "ann amend as=no qty=1", "unknown_order client_order_id"),
        ("ann cancel 2", "ann amend 2 qty=1", "order_closed"),
        ("op admin phase halted", "ann buy 1@99", "market_closed"),
        ("op admin phase halted", "ann amend 2 qty=1", "market_closed"),
        ("tick", "ann sell 10@104", "invalid_qty qty"),
        ("tick", "ann amend 2 qty=10", "invalid_qty qty"),
        ("tick", "ann buy 1@0", "invalid_price price"),
        ("tick", "ann amend 2 price=0", "invalid_price price"),
        ("tick", "ann buy 1@111", "invalid_price price"),
        ("tick", "ann amend 2 price=111", "invalid_price price"),
        ("ann buy 1@50", "ann buy 1@50", "too_many_orders"),
        ("tick", "ann buy 9@50", "position_limit qty"),
        ("ann buy 5@10", "ann amend 2 qty=9", "position_limit qty"),
        ("tick", "ann buy 7@100", "insufficient_funds"),
        ("ann buy 2@50", "ann amend 2 qty=9 price=101", "insufficient_funds"),
        ("tick", "ann buy 1@104 post_only", "would_take price"),
        ("tick", "ann amend 2 price=104", "would_take price"),
    ],
)
def test_each_refusal_alone(before: str, line: str, expected: str) -> None:
    play(
        f"""
        bob sell 5@104                 -> ok
        ann buy 5@80 post_only as=mine -> ok
        given {before}
        {line}                         -> {expected}
        """,
        limited(
            listing(
                max_qty=9, max_position=13, reference_price=100, collar=10
            ),
            cash=1_000,
            min_cash=0,
            open_orders=2,
        ),
    )


def test_a_repeat_is_told_as_one_whatever_else_is_wrong_by_now() -> None:
    engine = play("""
        given ann buy 5@99 as=mine gtd until=5s
        given op admin phase halted
        given op admin kill user=ann
        9s ann buy 500@5000 as=mine gtd until=5s
            ann error duplicate_client_order_id client_order_id 1 canceled 0
        ann buy 5@99 as=other gtd until=5s
            ann error bad_request expire_ts
        ann buy 5@99 as=other
            ann error forbidden
        """)
    reconfigure(engine, instruments=(listing("BOND"), listing("ETF")))
    play("ann buy 5@99 as=mine -> bad_request symbol", engine)
    play("ann buy 5@99 as=mine symbol=NONE -> unknown_symbol symbol", engine)


# Positions ----------------------------------------------------------------


def test_the_position_and_all_open_orders_of_a_side_stay_within_it() -> None:
    play(
        """
        ann buy 6@90         -> ok
        ann buy 5@91         -> position_limit qty
        ann buy 4@91         -> ok
        ann buy 1@92         -> position_limit qty
        ann buy 1@92 ioc     -> position_limit qty
        ann buy 1@92 fok     -> position_limit qty
        ann buy 1@market     -> position_limit qty
        ann sell 11@200      -> position_limit qty
        ann sell 10@200      -> ok
        ann sell 1@200       -> position_limit qty
        bob buy 11@80        -> position_limit qty
        ann cancel 1         -> ok
        ann buy 7@92         -> position_limit qty
        ann buy 6@92         -> ok
        """,
        limited(listing(max_position=10)),
    )


def test_a_fill_moves_lots_from_the_orders_to_the_position() -> None:
    engine = play(
        """
        ann buy 6@90         -> ok
        bob sell 4@90        -> ok
        ann buy 5@80         -> position_limit qty
        ann buy 4@80         -> ok
        ann sell 15@200      -> position_limit qty
        ann sell 14@200      -> ok
        bob sell 6@80        -> ok
        ann cancel_all       -> ok
        ann buy 1@80         -> position_limit qty
        ann sell 20@200      -> ok
        """,
        limited(listing(max_position=10)),
    )
    assert engine.accounts["ann"].positions == {"BOND": 10}
    assert engine.accounts["bob"].positions == {"BOND": -10}


def test_what_is_refused_filled_or_expired_at_once_is_not_held() -> None:
    engine = play(
        """
        bob sell 3@90            -> ok
        ann buy 10@90 fok        -> ok
        ann buy 10@100 ioc       -> ok
        ann buy 8@1              -> position_limit qty
        ann buy 7@90 post_only   -> ok
        ann buy 1@1              -> position_limit qty
        """,
        limited(listing(max_position=10), cash=1_000, min_cash=0),
    )
    ann = engine.accounts["ann"]
    assert (ann.cash, ann.reserved) == (730, 630)
    assert (ann.buying, ann.positions) == ({"BOND": 7}, {"BOND": 3})


@pytest.mark.parametrize("stp", ["", "cancel_newest", "cancel_both"])
def test_what_self_trade_prevention_ends_is_not_held(stp: str) -> None:
    engine = play(
        f"""
        ann sell 10@100         -> ok
        ann buy 10@100 {stp}    -> ok
        ann cancel_all          -> ok
        """,
        limited(listing(max_position=10)),
    )
    ann = engine.accounts["ann"]
    assert (ann.reserved, ann.buying, ann.selling) == (
        0,
        {"BOND": 0},
        {"BOND": 0},
    )


@pytest.mark.parametrize("how", ["configure", "adjust"])
def test_who_is_beyond_the_limit_may_trade_towards_it(how: str) -> None:
    lots = 30 if how == "configure" else 10
    engine = play(
        f"""
        given ann buy {lots}@90
        given bob sell {lots}@90
        """,
        limited(listing(max_position=lots)),
    )
    if how == "configure":
        reconfigure(engine, instruments=(listing(max_position=10),))
    else:
        act(engine, "op admin adjust user=ann symbol=BOND qty=20")
    assert engine.accounts["ann"].positions == {"BOND": 30}
    play(
        """
        ann buy 1@80         -> position_limit qty
        ann buy 1@80 ioc     -> position_limit qty
        ann sell 41@200      -> position_limit qty
        ann sell 35@200      -> ok
        ann sell 5@201       -> ok
        ann sell 1@202       -> position_limit qty
        """,
        engine,
    )


def test_who_is_short_beyond_the_limit_may_trade_towards_it() -> None:
    play(
        """
        given op admin adjust user=ann symbol=BOND qty=-30
        ann sell 1@200       -> position_limit qty
        ann buy 41@80        -> position_limit qty
        ann buy 40@80        -> ok
        """,
        limited(listing(max_position=10)),
    )


@pytest.mark.parametrize(
    "own, most", [({"BOND": 20}, 20), ({"BOND": 5}, 5), ({"ETF": 5}, 10)]
)
def test_an_account_may_have_a_limit_of_its_own(
    own: dict[str, int], most: int
) -> None:
    play(
        f"""
        ann buy {most + 1}@90  -> position_limit qty
        ann buy {most}@90      -> ok
        ann sell {most + 1}@95 -> position_limit qty
        ann sell {most}@95     -> ok
        bob buy 11@90          -> position_limit qty
        bob buy 10@90          -> ok
        """,
        limited(listing(max_position=10), max_position=own),
    )


def test_limits_are_of_one_instrument() -> None:
    play(
        """
        ann buy 10@90 symbol=BOND -> ok
        ann buy 99@90 symbol=ETF  -> ok
        ann buy 1@90 symbol=BOND  -> position_limit qty
        """,
        limited(listing("BOND", max_position=10), listing("ETF")),
    )


def test_without_a_limit_positions_stay_what_can_be_counted() -> None:
    """The highest price, of either sign, times all positions is VALUE_MAX."""
    most = VALUE_MAX // (2 * 4_000)
    engine = listed(
        listing("BOND", min_price=-4_000, max_qty=2 * most),
        listing("ETF", max_qty=2 * most),
    )
    assert engine.listings["ETF"].position_max == VALUE_MAX // (2 * 1_000)
    play(
        f"""
        given ann connect
        ann buy {most + 1}@0 symbol=BOND  -> position_limit qty
        ann buy {most}@0 symbol=BOND      -> ok
        ann sell {most + 1}@0 symbol=BOND -> position_limit qty
        """,
        engine,
    )
    reconfigure(engine, instruments=(listing("XAU"),))
    third = VALUE_MAX // (3 * 4_000)
    assert engine.listings["BOND"].position_max == third
    zero = listed(listing("BOND", min_price=0, max_price=0))
    assert zero.listings["BOND"].position_max == VALUE_MAX


def test_without_short_selling_one_sells_what_one_has() -> None:
    play(
        """
        ann sell 1@90        -> position_limit qty
        ann sell 1@market    -> position_limit qty
        ann buy 5@90         -> ok
        ann sell 1@95        -> position_limit qty
        given op admin adjust user=bob symbol=BOND qty=5
        bob sell 3@90        -> ok
        bob sell 3@95        -> position_limit qty
        bob sell 2@95        -> ok
        ann sell 4@96        -> position_limit qty
        ann sell 3@96        -> ok
        ann buy 8@80         -> position_limit qty
        ann buy 5@80         -> ok
        """,
        limited(listing(max_position=10, short_selling=False)),
    )


def test_who_is_short_where_it_is_not_allowed_may_buy_back() -> None:
    engine = play("given ann sell 5@90\ngiven bob buy 5@90")
    reconfigure(engine, instruments=(listing(short_selling=False),))
    play(
        """
        ann sell 1@95        -> position_limit qty
        ann buy 5@95         -> ok
        """,
        engine,
    )


def test_an_amend_is_judged_by_the_lots_it_adds() -> None:
    engine = play(
        """
        ann buy 6@90                -> ok
        ann buy 2@80                -> ok
        ann amend 1 qty=9           -> position_limit qty
        ann amend 1 qty=9 price=80  -> position_limit qty
        ann amend 1 qty=8           -> ok
        ann amend 2 qty=3           -> position_limit qty
        ann amend 1 qty=7 price=91  -> ok
        bob sell 4@91               -> ok
        ann amend 1 qty=9           -> position_limit qty
        ann amend 1 qty=8           -> ok
        ann buy 1@80                -> position_limit qty
        ann amend 1 qty=5           -> ok
        ann amend 1 qty=4           -> ok
        ann buy 5@80                -> position_limit qty
        ann buy 4@80                -> ok
        """,
        limited(listing(max_position=10)),
    )
    assert engine.accounts["ann"].positions == {"BOND": 4}


def test_beyond_the_limit_an_amend_may_not_add_but_change_and_reduce() -> None:
    engine = play("ann buy 30@90 -> ok", limited(listing(max_position=30)))
    reconfigure(engine, instruments=(listing(max_position=10),))
    play(
        """
        ann amend 1 qty=31          -> position_limit qty
        ann amend 1 price=95        -> ok
        ann amend 1 qty=20          -> ok
        ann amend 1 qty=21          -> position_limit qty
        ann amend 1 qty=20 price=96 -> ok
        """,
        engine,
    )


def test_an_amend_to_sell_more_needs_the_lots() -> None:
    play(
        """
        given op admin adjust user=ann symbol=BOND qty=5
        ann sell 4@90         -> ok
        ann amend 1 qty=6     -> position_limit qty
        ann amend 1 qty=5     -> ok
        ann amend 1 price=80  -> ok
        """,
        limited(listing(short_selling=False)),
    )


# Open orders --------------------------------------------------------------


def test_so_many_orders_may_be_open_and_only_those_that_rest_count() -> None:
    play(
        """
        ann buy 1@90 symbol=BOND                 -> ok
        ann sell 1@95 symbol=ETF gtd until=99s   -> ok
        ann buy 1@91 symbol=BOND post_only       -> ok
        ann buy 1@92 symbol=BOND                 -> too_many_orders
        ann buy 1@92 symbol=ETF                  -> too_many_orders
        ann buy 1@92 symbol=BOND gtd until=99s   -> too_many_orders
        ann buy 1@92 symbol=BOND post_only       -> too_many_orders
        ann buy 1@92 symbol=BOND ioc             -> ok
        ann buy 1@92 symbol=BOND fok             -> ok
        ann buy 1@market symbol=BOND             -> ok
        ann amend 1 qty=9 price=89               -> ok
        bob buy 1@90 symbol=BOND                 -> ok
        """,
        limited(listing("BOND"), listing("ETF"), open_orders=3),
    )


@pytest.mark.parametrize(
    "end", ["ann cancel 1", "bob sell 1@90", "9s tick", "op admin cancel 1"]
)
def test_an_order_that_has_ended_makes_room(end: str) -> None:
    engine = limited(open_orders=1)
    play(
        """
        ann buy 1@90 gtd until=9s -> ok
        ann buy 1@91              -> too_many_orders
        """,
        engine,
    )
    act(engine, end)
    play(
        """
        ann buy 1@91 -> ok
        ann buy 1@92 -> too_many_orders
        """,
        engine,
    )


def test_an_order_that_would_be_filled_at_once_needs_room_too() -> None:
    play(
        """
        ann buy 1@90     -> ok
        bob sell 1@95    -> ok
        ann buy 1@95     -> too_many_orders
        ann buy 1@95 ioc -> ok
        """,
        limited(open_orders=1),
    )


def test_a_new_limit_of_orders_holds_at_once_and_cancels_none() -> None:
    engine = play(
        """
        ann buy 1@90     -> ok
        ann buy 1@91     -> ok
        """,
        limited(open_orders=5),
    )
    reconfigure(engine, accounts={"ann": AccountLimits(open_orders=1)})
    play(
        """
        ann buy 1@92        -> too_many_orders
        ann amend 1 qty=2   -> ok
        ann cancel 1        -> ok
        ann buy 1@92        -> too_many_orders
        ann cancel 2        -> ok
        ann buy 1@92        -> ok
        """,
        engine,
    )


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


def test_what_a_better_price_saves_is_free_again() -> None:
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


def test_what_a_sale_brings_counts_when_it_is_there() -> None:
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


def test_without_a_least_cash_there_is_still_an_end() -> None:
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
    """Prices are 1 to 1,000, unless said otherwise, and the reference 100."""
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


def test_who_has_too_little_by_now_may_amend_for_no_more() -> None:
    engine = play("ann buy 5@100 -> ok", limited(cash=500, min_cash=0))
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
    """Of ann's order 3 lots were filled, for 300: 5 are left."""
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


def test_a_fee_of_nothing_leaves_the_house_alone() -> None:
    engine = play("given ann sell 5@100\ngiven bob buy 5@100")
    assert HOUSE not in engine.accounts


def test_profit_is_made_by_closing_at_the_average_cost() -> None:
    """10 lots for 1,000 and 5 for 550: 15 for 1,550, or 103.33.. each.

    4 of them take 413 along and bring 440: 27 are made. The 11 left cost
    1,137; 20 sold at 110 close them, for 1,210, and are short with 9. To
    bob, who is short, a cost of -413.33.. is -414 when rounded down.
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


def test_the_leaderboard_leaves_administrators_out() -> None:
    engine = play("""
        given ann connect
        given boss connect admin
        given cat connect admin
        given cat connect
        """)
    users = [row["user"] for row in engine.leaderboard()]
    assert users == ["ann", "cat"]


# The collar ---------------------------------------------------------------


def test_the_collar_is_around_the_last_price() -> None:
    """Which is 100 at first, 110 after bob's sale, then 100 again."""
    play(
        """
        ann buy 1@111      -> invalid_price price
        ann buy 1@110      -> ok
        ann sell 1@89      -> invalid_price price
        ann buy 1@1        -> ok
        bob sell 1@1000    -> ok
        bob sell 1@90      -> ok
        bob sell 1@99      -> invalid_price price
        bob sell 1@100     -> ok
        ann buy 1@121      -> invalid_price price
        ann buy 1@120      -> ok
        ann buy 1@111 ioc  -> invalid_price price
        ann buy 1@110 ioc  -> ok
        """,
        limited(listing(reference_price=100, collar=10)),
    )


def test_a_market_order_goes_to_the_edge_of_the_collar() -> None:
    play(
        """
        given ann sell 5@108
        given ann sell 5@110
        given ann sell 5@111
        bob buy 50@market
            bob 1 new 4 new 0/50
            bob 2 trade 4 partially_filled 5/50 5@108 taker #1
            ann 4 trade 1 filled 5/5 5@108 maker #1
            bob 3 trade 4 partially_filled 10/50 5@110 taker #2
            ann 5 trade 2 filled 5/5 5@110 maker #2
            bob 4 expired 4 expired 10/50 no_liquidity
            bob 5 account -1090 BOND=10 worth 10
            ann 6 account 1090 BOND=-10 worth -10
            * trade BOND 4 #1 5@108 buy
            * trade BOND 4 #2 5@110 buy
            * book BOND 4 | 108=0 110=0
        bob buy 6@market fok
            bob 6 new 5 new 0/6
            bob 7 expired 5 expired 0/6 fok
        given bob buy 5@101
        given bob buy 5@99
        ann sell 50@market
            ann 7 new 8 new 0/50
            ann 8 trade 8 partially_filled 5/50 5@101 taker #3
            bob 10 trade 6 filled 5/5 5@101 maker #3
            ann 9 expired 8 expired 5/50 no_liquidity
            ann 10 account 1595 BOND=-15 worth 80
            bob 11 account -1595 BOND=15 worth -80
            * trade BOND 7 #3 5@101 sell
            * book BOND 7 101=0 |
        """,
        listed(listing(reference_price=100, collar=10)),
    )


def test_an_amend_meets_the_collar_only_with_a_price() -> None:
    engine = limited(listing(reference_price=100, collar=10))
    act(engine, "ann buy 5@108")
    narrower = listing(reference_price=100, collar=5)
    reconfigure(engine, instruments=(narrower,))
    play(
        """
        ann amend 1 qty=6            -> ok
        ann amend 1 price=108        -> invalid_price price
        ann amend 1 price=108 qty=3  -> invalid_price price
        ann amend 1 price=105        -> ok
        ann sell 5@95                -> ok
        ann amend 2 price=94         -> invalid_price price
        ann amend 2 price=999        -> ok
        """,
        engine,
    )
