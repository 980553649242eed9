"""What an administrator's actions do to the exchange.

The scripts are those of `test_engine`; op is the administrator, and the
reason is always "why". The lines with an arrow are those of `test_limits`.
"""

from __future__ import annotations

import copy

import pytest

from exchange.market.accounts import HOUSE, VALUE_MAX, AccountLimits
from exchange.market.engine import Engine
from orderbook import MAX_INT, Admin
from test.script import (
    SECOND,
    act,
    apply,
    listed,
    listing,
    parse,
    play,
    reconfigure,
    refuse,
)


def traded() -> Engine:
    """Ann has 5 BOND of bob's for 500, and fees were paid."""
    return play(
        """
        given ann buy 5@100 symbol=BOND
        given bob sell 5@100 symbol=BOND
        """,
        listed(
            listing("BOND", reference_price=90, taker_fee=1),
            "ETF",
            limits=AccountLimits(cash=1_000),
        ),
    )


def cash_of(engine: Engine) -> dict[str, int]:
    return {name: a.cash for name, a in engine.accounts.items()}


# Refusals -----------------------------------------------------------------


@pytest.mark.parametrize(
    "line, code, field",
    [
        ("kill user=nobody", "bad_request", "user"),
        ("unkill user=nobody", "bad_request", "user"),
        ("adjust user=nobody cash=5", "bad_request", "user"),
        ("adjust user=nobody symbol=NONE qty=5", "bad_request", "user"),
        ("cancel 0", "unknown_order", "order_id"),
        ("cancel 4", "unknown_order", "order_id"),
        ("cancel 1", "order_closed", None),
        ("phase halted symbol=NONE", "unknown_symbol", "symbol"),
        ("message message=hello symbol=NONE", "unknown_symbol", "symbol"),
        ("adjust user=ann symbol=NONE qty=5", "unknown_symbol", "symbol"),
        ("adjust user=ann symbol=NONE qty=0", "unknown_symbol", "symbol"),
        ("settle symbol=NONE price=5", "unknown_symbol", "symbol"),
        ("settle symbol=BOND price=0", "invalid_price", "price"),
        ("settle symbol=BOND price=1001", "invalid_price", "price"),
        (f"adjust user=ann cash={VALUE_MAX}", "insufficient_funds", "cash"),
        (f"adjust user=ann cash={-VALUE_MAX}", "insufficient_funds", "cash"),
        (
            f"adjust user=ann symbol=BOND qty={VALUE_MAX}",
            "position_limit",
            "qty",
        ),
        (
            f"adjust user=ann symbol=BOND qty={-VALUE_MAX}",
            "position_limit",
            "qty",
        ),
        # Of several the first in the table of the protocol.
        (
            f"adjust user=ann cash={MAX_INT} symbol=NONE qty={MAX_INT}",
            "unknown_symbol",
            "symbol",
        ),
        (
            f"adjust user=ann cash={MAX_INT} symbol=BOND qty={MAX_INT}",
            "position_limit",
            "qty",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    line: str, code: str, field: str | None
) -> None:
    engine = traded()
    act(engine, "bob sell 5@101 symbol=BOND")
    error = refuse(engine, parse(["admin", *line.split()]), "op")
    assert (error.code, error.field) == (code, field)


def test_an_order_that_ended_is_told_with_its_end() -> None:
    play("""
        given ann buy 5@99
        given bob sell 2@99
        given ann cancel 1
        op admin cancel 1
            op error order_closed 1 canceled 2
        """)


@pytest.mark.parametrize("side", [1, -1])
def test_adjusting_has_bounds_on_both_sides(side: int) -> None:
    """What an account gets, the house owes; neither may leave them."""
    engine = traded()
    most = engine.listings["BOND"].position_max
    # The house has 5 of fees, so the account may owe more than it can get.
    cash = VALUE_MAX - 1_000 + 500 if side > 0 else -(VALUE_MAX - 5)
    qty = most - 5 if side > 0 else -most
    play(
        f"""
        op admin adjust user=ann cash={cash + side} -> insufficient_funds cash
        op admin adjust user=ann cash={cash}        -> ok
        op admin adjust user=ann symbol=BOND qty={qty + side} \
-> position_limit qty
        op admin adjust user=ann symbol=BOND qty={qty} -> ok
        """,
        engine,
    )


def test_settling_leaves_no_account_more_than_can_be_counted() -> None:
    engine = traded()
    ann = engine.accounts["ann"]
    ann.cash = MAX_INT - 5 * 200  # there is no way to so much
    play(
        """
        op admin settle symbol=BOND price=201 -> insufficient_funds
        op admin settle symbol=BOND price=200 -> ok
        """,
        engine,
    )
    assert ann.cash == MAX_INT


# Phases and messages ------------------------------------------------------


def test_a_message_is_told_of_instruments_or_of_the_exchange() -> None:
    play(
        """
        op admin message message=hello
            op ok
            * status hello
        op admin message message=hello symbol=ETF
            op ok
            * status ETF hello
        """,
        listed("BOND", "ETF"),
    )


def test_an_administrator_needs_no_account() -> None:
    engine = play("given op admin message message=hello")
    assert not engine.accounts


# The kill switch ----------------------------------------------------------


def test_a_killed_account_loses_its_orders_and_places_no_more() -> None:
    play("""
        given ann buy 5@90
        given bob buy 5@91
        given ann sell 5@110
        given ann/b buy 5@92
        given ann amend 1 price=95
        op admin kill user=ann
            op ok
            ann 5 canceled 1 canceled 0/5 admin
            ann 6 canceled 3 canceled 0/5 admin
            ann 7 canceled 4 canceled 0/5 admin
            * status kill ann: why
            * book BOND 6 95=0 92=0 | 110=0
        ann buy 5@90
            ann error forbidden
        ann/b sell 5@market
            ann error forbidden
        ann amend 1 qty=3
            ann error forbidden
        ann amend 99 qty=3
            ann error forbidden
        bob sell 1@110
            bob 2 new 5 new 0/1
            * book BOND 7 | 110=1
        """)


def test_a_killed_account_may_cancel_and_look_on() -> None:
    engine = play("""
        given ann buy 5@90
        given op admin kill user=ann
        ann cancel 1
            ann error order_closed 1 canceled 0
        ann cancel_all
            ann ok 0
        ann cancel_after 1000
            ann ok
        """)
    assert engine.accounts["ann"].is_suspended


def test_the_kill_switch_survives_logins_and_restarts() -> None:
    play("""
        given ann connect
        given op admin kill user=ann
        given ann disconnect
        given ann connect
        ann buy 5@90
            ann error forbidden
        restart
        ann/b connect
        ann/b buy 5@90
            ann error forbidden
        op admin reset
            op ok
            ann 1 account 0 worth 0
            * status BOND open reset: why
        ann/b buy 5@90
            ann error forbidden
        """)


def test_a_configuration_does_not_lift_it() -> None:
    engine = play("given ann connect\ngiven op admin kill user=ann")
    reconfigure(engine)
    play("ann buy 5@90 -> forbidden", engine)


def test_unkill_lets_it_trade_again() -> None:
    play("""
        given ann buy 5@90
        given op admin kill user=ann
        op admin unkill user=ann
            op ok
            * status unkill ann: why
        ann buy 5@91
            ann 3 new 2 new 0/5
            * book BOND 3 91=5 |
        op admin unkill user=ann
            op ok
            * status unkill ann: why
        """)


def test_killing_twice_is_no_error() -> None:
    play("""
        given ann connect
        given op admin kill user=ann
        op admin kill user=ann
            op ok
            * status kill ann: why
        """)


def test_an_administrator_is_killed_like_anybody() -> None:
    play("""
        given op connect admin
        op admin kill user=op
            op ok
            * status kill op: why
        op buy 5@90
            op error forbidden
        op admin unkill user=op
            op ok
            * status unkill op: why
        """)


@pytest.mark.parametrize("phase", ["pre_open", "halted", "closed"])
def test_the_kill_switch_works_in_every_phase(phase: str) -> None:
    engine = play(f"""
        given ann buy 5@90
        given op admin phase {phase}
        given op admin kill user=ann
        """)
    assert not engine.accounts["ann"].open_orders
    play("ann buy 5@90 -> forbidden", engine)


# Cancel -------------------------------------------------------------------


def test_any_order_may_be_canceled() -> None:
    engine = play("""
        given ann buy 5@99
        given bob sell 2@99
        given 1s bob buy 5@98 gtd until=9s
        op admin cancel 3
            op ok
            bob 5 canceled 3 canceled 0/5 admin
            * status cancel order 3: why
            * book BOND 4 98=0 |
        op admin cancel 1
            op ok
            ann 4 canceled 1 canceled 2/5 admin
            * status cancel order 1: why
            * book BOND 5 99=0 |
        """)
    assert engine.next_deadline is None
    assert not engine.accounts["ann"].reserved


# Adjust -------------------------------------------------------------------


def test_cash_is_given_by_the_house() -> None:
    engine = traded()
    play(
        """
        op admin adjust user=ann cash=70
            op ok
            ann 4 account 570 BOND=5 worth 1070
            * status adjust ann by +70 cash: why
        op admin adjust user=bob cash=-2000
            op ok
            bob 4 account -505 BOND=-5 worth -1005 made -5
            * status adjust bob by -2000 cash: why
        """,
        engine,
    )
    assert cash_of(engine) == {"ann": 570, "bob": -505, HOUSE: 5 + 1_930}


def test_lots_are_given_by_the_house_at_their_mark() -> None:
    """Ann's 5 cost 500, and 3 at the mark of 110 cost 330: 830 for 8."""
    engine = traded()
    play(
        """
        given bob buy 1@110 symbol=BOND
        given bob sell 1@115 symbol=BOND
        op admin adjust user=ann symbol=BOND qty=3
            op ok
            ann 4 account 500 BOND=8 worth 1380
            * status adjust ann by +3 BOND: why
        """,
        engine,
    )
    house, ann = engine.accounts[HOUSE], engine.accounts["ann"]
    assert (house.positions, house.cash) == ({"BOND": -3}, 5)
    assert ann.costs == {"BOND": 830}
    report = engine.account_report(ann)
    assert (report.realized, report.unrealized) == (0, 880 - 830)
    play(
        """
        op admin adjust user=ann symbol=BOND qty=-10 cash=9
            op ok
            ann 5 account 509 BOND=-2 worth 289 made 50
            * status adjust ann by +9 cash, -10 BOND: why
        op admin adjust user=ann symbol=ETF qty=0
            op ok
            ann 6 account 509 BOND=-2 worth 289 made 50
            * status adjust ann by +0 ETF: why
        """,
        engine,
    )
    assert (house.positions, house.cash) == ({"BOND": 7}, -4)


def test_lots_are_given_in_every_phase_and_to_whom_is_killed() -> None:
    engine = traded()
    play(
        """
        op admin phase closed                         -> ok
        op admin kill user=ann                        -> ok
        op admin adjust user=ann symbol=BOND qty=3    -> ok
        op admin adjust user=ann cash=3               -> ok
        """,
        engine,
    )
    assert engine.accounts["ann"].positions == {"BOND": 8}


# Settle -------------------------------------------------------------------


def test_settling_turns_positions_into_cash_and_closes() -> None:
    engine = traded()
    play(
        """
        given cat buy 5@101 symbol=BOND
        given bob sell 2@101 symbol=BOND
        given ann sell 5@120 symbol=BOND
        given ann buy 5@90 symbol=ETF
        given op admin adjust user=cat symbol=BOND qty=4
        given cat amend 3 price=98
        op admin settle symbol=BOND price=104
            op ok
            cat 6 canceled 3 canceled 2/5 admin
            ann 6 canceled 5 canceled 0/5 admin
            ann 7 account 1020 BOND=0 worth 1020 made 20
            bob 7 account 967 BOND=0 worth 967 made -33
            cat 7 account 1422 BOND=0 worth 1422 made 18
            * status BOND closed settled at 104: why
            * book BOND 7 98=0 | 120=0
        """,
        engine,
    )
    assert cash_of(engine) == {
        "ann": 1_020,
        "bob": 967,
        HOUSE: 7 - 4 * 104,
        "cat": 1_422,
    }
    assert engine.accounts["ann"].buying == {"BOND": 0, "ETF": 5}
    assert all(not a.costs.get("BOND") for a in engine.accounts.values())
    play(
        """
        ann buy 1@104 symbol=BOND
            ann error market_closed
        op admin settle symbol=BOND price=200
            op ok
            * status BOND closed settled at 200: why
        """,
        engine,
    )


@pytest.mark.parametrize("price", [-50, 0, 50])
def test_settling_conserves_cash_at_any_price(price: int) -> None:
    engine = listed(listing(min_price=-50, max_price=50))
    play(
        """
        given ann buy 9@7
        given bob sell 4@7
        given cat sell 3@6
        """,
        engine,
    )
    act(engine, f"op admin settle symbol=BOND price={price}")
    assert cash_of(engine) == {
        "ann": 7 * (price - 7),
        "bob": 4 * (7 - price),
        "cat": 3 * (7 - price),
    }
    assert engine.listings["BOND"].phase == "closed"


@pytest.mark.parametrize("phase", ["pre_open", "auction"])
def test_settling_a_crossed_book_trades_nothing(phase: str) -> None:
    play(
        """
        given ann sell 5@100
        given bob buy 5@105
        op admin settle symbol=BOND price=50
            op ok
            ann 2 canceled 1 canceled 0/5 admin
            bob 2 canceled 2 canceled 0/5 admin
            * status BOND closed settled at 50: why
            * book BOND 3 105=0 | 100=0
        """,
        listed(listing(phase=phase)),
    )


def test_what_was_settled_may_be_opened_again() -> None:
    engine = traded()
    act(engine, "op admin settle symbol=BOND price=104")
    act(engine, "op admin phase open symbol=BOND")
    play("ann buy 1@104 symbol=BOND -> ok", engine)


def test_settling_ends_a_time_that_was_set() -> None:
    engine = play("""
        given 1s op admin phase auction reopen_ms=5000
        given op admin settle symbol=BOND price=104
        9s tick
        """)
    assert engine.next_deadline is None


# Reset --------------------------------------------------------------------


def test_a_reset_begins_a_new_round() -> None:
    engine = listed(
        listing("BOND", reference_price=90, taker_fee=1),
        listing("ETF", phase="pre_open"),
        limits=AccountLimits(cash=1_000),
        bob=AccountLimits(cash=500),
    )
    play(
        """
        given ann buy 5@100 symbol=BOND
        given bob sell 3@100 symbol=BOND
        given bob buy 5@90 symbol=ETF
        given ann sell 5@110 symbol=BOND
        given 1s ann cancel_after 90000
        given op admin adjust user=ann symbol=BOND qty=2 cash=7
        given zoe connect
        given op admin kill user=zoe
        given op admin phase halted symbol=BOND reopen_ms=5000
        given op admin phase open symbol=ETF
        op admin reset
            op ok
            ann 6 canceled 1 canceled 3/5 admin
            bob 5 canceled 3 canceled 0/5 admin
            ann 7 canceled 4 canceled 0/5 admin
            ann 8 account 1000 worth 1000
            bob 6 account 500 worth 500
            zoe 1 account 1000 worth 1000
            * status BOND open reset: why
            * status ETF pre_open reset: why
            * book BOND 4 100=0 | 110=0
            * book ETF 2 90=0 |
        """,
        engine,
    )
    assert cash_of(engine) == {
        "ann": 1_000,
        "bob": 500,
        HOUSE: 0,
        "zoe": 1_000,
    }
    for account in engine.accounts.values():
        assert not account.positions and not account.costs
        assert not account.realized and not account.reserved
    bond = engine.listings["BOND"]
    assert (bond.last, bond.volume, bond.trade_id) == (None, 0, 1)
    assert (bond.reference, bond.mark()) == (90, 90)
    assert engine.accounts["zoe"].is_suspended
    assert engine.next_deadline == 91 * SECOND, "the switch of ann"
    play(
        """
        given ann sell 1@95 symbol=BOND
        bob buy 1@95 symbol=BOND
            bob 7 new 6 new 0/1
            bob 8 trade 6 filled 1/1 1@95 taker #2 fee 1
            ann 10 trade 5 filled 1/1 1@95 maker #2
            bob 9 account 404 BOND=1 worth 499 made -1
            ann 11 account 1095 BOND=-1 worth 1000
            * trade BOND 6 #2 1@95 buy
            * book BOND 6 | 95=0
        """,
        engine,
    )


def test_a_reset_gives_the_cash_that_is_configured_now() -> None:
    engine = traded()
    reconfigure(engine, limits=AccountLimits(cash=3_000))
    act(engine, "op admin reset")
    assert cash_of(engine) == {"ann": 3_000, "bob": 3_000, HOUSE: 0}


@pytest.mark.parametrize("phase", ["pre_open", "auction", "closed"])
def test_a_reset_of_a_crossed_book_trades_nothing(phase: str) -> None:
    engine = play(
        """
        given ann sell 5@100
        given bob buy 5@105
        """,
        listed(listing(phase="auction")),
    )
    reconfigure(engine, instruments=(listing(phase=phase),))
    act(engine, "op admin reset")
    bond = engine.listings["BOND"]
    assert (bond.phase, bond.trade_id, bond.book.orders) == (phase, 0, {})


def test_orders_and_their_names_are_known_after_a_reset() -> None:
    play("""
        given ann connect
        given ann buy 5@99 as=mine
        given op admin reset
        ann buy 5@99 as=mine
            ann error duplicate_client_order_id client_order_id 1 canceled 0
        ann buy 5@99 as=other
            ann 4 new 2 new 0/5
            * book BOND 3 99=5 |
        ann disconnect
            ann 5 canceled 2 canceled 0/5 disconnect
            * book BOND 4 99=0 |
        """)


# As commands --------------------------------------------------------------


@pytest.mark.parametrize("line", ["kill user=ann", "cancel 3", "reset"])
def test_an_action_is_a_command_like_any_other(line: str) -> None:
    """The same outputs come of it wherever it is applied."""
    engine = traded()
    act(engine, "ann buy 5@90 symbol=ETF")
    twin = copy.deepcopy(engine)
    action = parse(["admin", *line.split()])
    assert isinstance(action, Admin)
    assert apply(engine, action, "op") == apply(twin, action, "op")
    assert engine.accounts == twin.accounts
    assert engine.listings == twin.listings
