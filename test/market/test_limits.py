"""Limits of positions and of open orders."""

from __future__ import annotations

import pytest

from exchange.market.accounts import VALUE_MAX, AccountLimits
from test.script import act, limited, listed, listing, play, reconfigure

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


def test_only_resting_orders_hold_lots() -> None:
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
def test_orders_ended_by_self_trade_prevention_hold_no_lots(stp: str) -> None:
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
def test_an_account_beyond_the_limit_may_trade_towards_it(how: str) -> None:
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


def test_a_short_account_beyond_the_limit_may_trade_towards_it() -> None:
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


def test_without_short_selling_only_held_lots_are_sold() -> None:
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


def test_a_short_account_may_buy_back_without_short_selling() -> None:
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


def test_beyond_the_limit_an_amend_may_only_reduce_or_change_the_price() -> (
    None
):
    """Under rules 2: since then the order is canceled."""
    engine = play("ann buy 30@90 -> ok", limited(listing(max_position=30)))
    lower = (listing(max_position=10),)
    reconfigure(engine, instruments=lower, engine_version=2)
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


def test_only_resting_orders_count_as_open() -> None:
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
