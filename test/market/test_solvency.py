"""Orders that are canceled because their margin is no longer there."""

from __future__ import annotations

import pytest

from exchange.market.accounts import AccountLimits
from exchange.market.engine import Engine
from orderbook import Event, Exec
from test.script import act, limited, listing, play, reconfigure


def canceled(outputs: list[tuple[str, Event]]) -> list[int]:
    """Return the orders that a command canceled for want of funds."""
    return [
        event.order_id
        for _, event in outputs
        if isinstance(event, Exec) and event.reason == "funds"
    ]


def open_orders(engine: Engine) -> list[int]:
    engine.check()
    return list(engine.accounts["ann"].open_orders)


def test_the_newest_orders_that_cost_are_canceled_until_cash_suffices() -> (
    None
):
    play(
        """
        given ann buy 2@100
        given ann buy 3@100
        given ann sell 5@150
        given ann buy 4@50
        given ann sell 5@160
        op admin adjust user=ann cash=-500
            op ok
            ann 6 canceled 4 canceled 0/4 funds
            ann 7 canceled 2 canceled 0/3 funds
            ann 8 account 200 worth 200
            * status adjust ann by -500 cash: why
            * book BOND 6 100=2 50=0 |
        """,
        limited(cash=700, min_cash=0),
    )


@pytest.mark.parametrize(
    "cash, left",
    [(-100, [1, 2, 3, 4]), (-101, [1, 2, 3]), (-401, [1, 3]), (-999, [3])],
)
def test_no_more_are_canceled_than_must_be(cash: int, left: list[int]) -> None:
    engine = play(
        """
        ann buy 2@100  -> ok
        ann buy 3@100  -> ok
        ann sell 5@150 -> ok
        ann buy 4@50   -> ok
        """,
        limited(cash=800, min_cash=0),
    )
    act(engine, f"op admin adjust user=ann cash={cash}")
    assert open_orders(engine) == left


def test_fees_in_basis_points_are_part_of_the_margin() -> None:
    engine = limited(
        listing(tick_value=5, taker_fee_bp=50), cash=4_975, min_cash=0
    )
    act(engine, "ann buy 30@33")
    assert not canceled(act(engine, "op admin adjust user=ann cash=9"))
    assert not canceled(act(engine, "op admin adjust user=ann cash=-9"))
    assert canceled(act(engine, "op admin adjust user=ann cash=-1")) == [1]


@pytest.mark.parametrize(
    "line, orders",
    [
        ("adjust user=ann symbol=BOND qty=4", []),
        ("adjust user=ann symbol=BOND qty=5", [3]),
        ("adjust user=ann symbol=BOND qty=8", [3, 1]),
        ("adjust user=ann symbol=BOND qty=-4", []),
        ("adjust user=ann symbol=BOND qty=-5", [4]),
        ("adjust user=ann symbol=BOND qty=-9", [4, 2]),
        ("adjust user=ann symbol=ETF qty=-9", []),
    ],
)
def test_a_position_cancels_orders_of_its_side_and_symbol(
    line: str, orders: list[int]
) -> None:
    """10 lots are the limit; 6 are bid and 6 offered."""
    engine = play(
        """
        ann buy 3@90 symbol=BOND   -> ok
        ann sell 3@99 symbol=BOND  -> ok
        ann buy 3@91 symbol=BOND   -> ok
        ann sell 3@98 symbol=BOND  -> ok
        """,
        limited(listing("BOND", max_position=10), listing("ETF")),
    )
    assert canceled(act(engine, f"op admin {line}")) == orders
    engine.check()


def test_without_short_selling_nothing_is_offered_that_is_not_held() -> None:
    engine = play(
        """
        given op admin adjust user=ann symbol=BOND qty=5
        ann sell 3@99  -> ok
        ann buy 9@90   -> ok
        ann sell 2@98  -> ok
        """,
        limited(listing(short_selling=False)),
    )
    line = "op admin adjust user=ann symbol=BOND qty="
    assert canceled(act(engine, line + "-1")) == [3]
    assert canceled(act(engine, line + "-1")) == []
    assert canceled(act(engine, line + "-1")) == [1]


def test_a_settlement_that_costs_cancels_orders_elsewhere() -> None:
    play(
        """
        given ann sell 5@100 symbol=BOND
        given bob buy 5@100 symbol=BOND
        given ann buy 6@100 symbol=ETF
        op admin settle symbol=BOND price=150
            op ok
            ann 5 canceled 3 canceled 0/6 funds
            ann 6 settlement BOND -5@150 made -250
            ann 6 account 350 BOND=0 worth 350 made -250
            bob 4 settlement BOND 5@150 made 250
            bob 4 account 250 BOND=0 worth 250 made 250
            * status BOND closed settled at 150: why
            * book ETF 2 100=0 |
        """,
        limited(listing("BOND"), listing("ETF"), cash=600, min_cash=0),
    )


def test_new_fees_and_lower_limits_cancel() -> None:
    engine = play(
        """
        ann buy 3@100  -> ok
        ann sell 3@120 -> ok
        ann buy 2@100  -> ok
        """,
        limited(cash=510, min_cash=0),
    )
    taken = reconfigure(engine, instruments=(listing(taker_fee=2),))
    assert canceled(taken) == []
    taken = reconfigure(engine, instruments=(listing(taker_fee=3),))
    assert canceled(taken) == [3]
    limits = AccountLimits(min_cash=300)
    assert canceled(reconfigure(engine, accounts={"ann": limits})) == [1]
    closed = listing(short_selling=False)
    assert canceled(reconfigure(engine, instruments=(closed,))) == [2]


def test_the_number_of_open_orders_is_no_margin() -> None:
    engine = play("ann buy 1@9 -> ok\nann buy 1@8 -> ok", limited(cash=90))
    fewer = {"ann": AccountLimits(open_orders=1)}
    assert reconfigure(engine, accounts=fewer) == []
    assert open_orders(engine) == [1, 2]


def test_the_same_configuration_again_cancels_nothing() -> None:
    engine = play("ann buy 5@100 -> ok", limited(cash=500, min_cash=0))
    assert reconfigure(engine) == []


def test_under_rules_2_nothing_is_canceled_until_rules_3_hold() -> None:
    engine = play("ann buy 5@100 -> ok", limited(cash=500, min_cash=0))
    reconfigure(engine, engine_version=2)
    assert not canceled(act(engine, "op admin adjust user=ann cash=-1"))
    assert canceled(reconfigure(engine, engine_version=3)) == [1]


def test_what_a_bust_takes_away_is_not_sold_again() -> None:
    engine = play(
        """
        given bob sell 3@100
        given ann buy 3@100
        ann sell 3@99  -> ok
        """,
        limited(listing(short_selling=True)),
    )
    reconfigure(engine, instruments=(listing(short_selling=False),))
    assert open_orders(engine) == [3]
    assert canceled(act(engine, "op bust 1 ann 3@100 bob")) == [3]
