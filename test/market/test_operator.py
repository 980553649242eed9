"""What an administrator does: messages, suspensions, cancels.

The administrator is op.
"""

from __future__ import annotations

import copy

import pytest

from exchange.market.accounts import VALUE_MAX, AccountLimits
from exchange.market.engine import Engine
from orderbook import MAX_INT, Admin
from test.script import (
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
        ("suspend user=nobody", "bad_request", "user"),
        ("resume user=nobody", "bad_request", "user"),
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
        # The first of several faults, by the table of the protocol.
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
def test_impossible_actions_are_refused_and_change_nothing(
    line: str, code: str, field: str | None
) -> None:
    engine = traded()
    act(engine, "bob sell 5@101 symbol=BOND")
    error = refuse(engine, parse(["admin", *line.split()]), "op")
    assert (error.code, error.field) == (code, field)


def test_a_refusal_says_how_the_order_ended() -> None:
    play("""
        given ann buy 5@99
        given bob sell 2@99
        given ann cancel 1
        op admin cancel 1
            op error order_closed 1 canceled 2
        """)


@pytest.mark.parametrize("side", [1, -1])
def test_adjusting_has_bounds_on_both_sides(side: int) -> None:
    """The house owes what an account gets; both have the same bounds."""
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
    ann.cash = MAX_INT - 5 * 200  # more than trading can reach
    play(
        """
        op admin settle symbol=BOND price=201 -> insufficient_funds
        op admin settle symbol=BOND price=200 -> ok
        """,
        engine,
    )
    assert ann.cash == MAX_INT


# Phases and messages ------------------------------------------------------


def test_a_message_concerns_an_instrument_or_the_exchange() -> None:
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


# Suspended accounts ----------------------------------------------------------


def test_a_suspended_account_loses_its_orders_and_places_none() -> None:
    play("""
        given ann buy 5@90
        given bob buy 5@91
        given ann sell 5@110
        given ann/b buy 5@92
        given ann amend 1 price=95
        op admin suspend user=ann
            op ok
            ann 5 canceled 1 canceled 0/5 admin
            ann 6 canceled 3 canceled 0/5 admin
            ann 7 canceled 4 canceled 0/5 admin
            * status suspend ann: why
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


def test_a_suspended_account_may_cancel_and_read() -> None:
    engine = play("""
        given ann buy 5@90
        given op admin suspend user=ann
        ann cancel 1
            ann error order_closed 1 canceled 0
        ann cancel_all
            ann ok 0
        ann cancel_after 1000
            ann ok
        """)
    assert engine.accounts["ann"].is_suspended


def test_a_suspension_survives_logins_and_restarts() -> None:
    play("""
        given ann connect
        given op admin suspend user=ann
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
            * status BOND open reset: why round 2
        ann/b buy 5@90
            ann error forbidden
        """)


def test_a_new_configuration_lifts_no_suspension() -> None:
    engine = play("given ann connect\ngiven op admin suspend user=ann")
    reconfigure(engine)
    play("ann buy 5@90 -> forbidden", engine)


def test_a_resumed_account_trades_again() -> None:
    play("""
        given ann buy 5@90
        given op admin suspend user=ann
        op admin resume user=ann
            op ok
            * status resume ann: why
        ann buy 5@91
            ann 3 new 2 new 0/5
            * book BOND 3 91=5 |
        op admin resume user=ann
            op ok
            * status resume ann: why
        """)


@pytest.mark.parametrize(
    "suspend, resume", [("suspend", "resume"), ("kill", "unkill")]
)
def test_both_pairs_of_names_do_the_same(suspend: str, resume: str) -> None:
    play(f"""
        given ann buy 5@90
        op admin {suspend} user=ann
            op ok
            ann 2 canceled 1 canceled 0/5 admin
            * status suspend ann: why
            * book BOND 2 90=0 |
        ann buy 5@91
            ann error forbidden
        op admin {resume} user=ann
            op ok
            * status resume ann: why
        ann buy 5@91
            ann 3 new 2 new 0/5
            * book BOND 3 91=5 |
        """)


def test_suspending_twice_is_no_error() -> None:
    play("""
        given ann connect
        given op admin suspend user=ann
        op admin suspend user=ann
            op ok
            * status suspend ann: why
        """)


def test_an_administrator_can_be_suspended() -> None:
    play("""
        given op connect admin
        op admin suspend user=op
            op ok
            * status suspend op: why
        op buy 5@90
            op error forbidden
        op admin resume user=op
            op ok
            * status resume op: why
        """)


@pytest.mark.parametrize("phase", ["pre_open", "halted", "closed"])
def test_a_suspension_works_in_every_phase(phase: str) -> None:
    engine = play(f"""
        given ann buy 5@90
        given op admin phase {phase}
        given op admin suspend user=ann
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


# As commands --------------------------------------------------------------


@pytest.mark.parametrize("line", ["suspend user=ann", "cancel 3", "reset"])
def test_an_action_is_a_command_like_any_other(line: str) -> None:
    """Applied to equal engines it gives equal outputs."""
    engine = traded()
    act(engine, "ann buy 5@90 symbol=ETF")
    twin = copy.deepcopy(engine)
    action = parse(["admin", *line.split()])
    assert isinstance(action, Admin)
    assert apply(engine, action, "op") == apply(twin, action, "op")
    assert engine.accounts == twin.accounts
    assert engine.listings == twin.listings
