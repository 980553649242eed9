"""Dividends, and the closing out of an account. The administrator is op."""

from __future__ import annotations

import pytest

from exchange.market.accounts import HOUSE, VALUE_MAX, AccountLimits
from exchange.market.engine import Engine
from orderbook import MAX_INT
from test.market.test_operator import cash_of
from test.market.test_products import CALL, binary
from test.script import act, listed, listing, play


def traded() -> Engine:
    """Ann has 5 GS of bob's and 2 of the exchange's; bob has 3 MS."""
    engine = listed("GS", "MS", limits=AccountLimits(cash=1_000))
    for line in (
        "ann buy 5@100 symbol=GS",
        "bob sell 5@100 symbol=GS",
        "op admin adjust user=ann symbol=GS qty=2",
        "bob buy 3@50 symbol=MS",
        "cat sell 3@50 symbol=MS",
        "dan connect",
    ):
        act(engine, line)
    return engine


# Dividends ----------------------------------------------------------------


def test_holders_are_paid_and_shorts_pay() -> None:
    engine = traded()
    play(
        """
        op admin dividend symbol=GS amount=4
            op ok
            ann 5 account 528 GS=7 worth 1228 made 28
            bob 7 account 1330 GS=-5 MS=3 worth 980 made -20
            * status GS dividend of 4 for each lot: why
        op admin dividend symbol=GS amount=-4
            op ok
            ann 6 account 500 GS=7 worth 1200
            bob 8 account 1350 GS=-5 MS=3 worth 1000
            * status GS dividend of -4 for each lot: why
        op admin dividend symbol=GS amount=0
            op ok
            ann 7 account 500 GS=7 worth 1200
            bob 9 account 1350 GS=-5 MS=3 worth 1000
            * status GS dividend of 0 for each lot: why
        """,
        engine,
    )
    assert sum(cash_of(engine).values()) == 4_000


def test_the_exchange_is_the_other_side() -> None:
    engine = traded()
    act(engine, "op admin dividend symbol=GS amount=4")
    house = engine.accounts[HOUSE]
    assert (house.cash, house.realized) == (-8, -8)


def test_nobody_holds_it_and_nobody_is_paid() -> None:
    engine = listed("GS")
    play(
        """
        op admin dividend symbol=GS amount=4
            op ok
            * status GS dividend of 4 for each lot: why
        """,
        engine,
    )
    assert HOUSE not in engine.accounts


@pytest.mark.parametrize("phase", ["closed", "halted"])
def test_a_dividend_is_paid_in_every_phase(phase: str) -> None:
    engine = traded()
    act(engine, f"op admin phase {phase}")
    play("op admin dividend symbol=GS amount=4 -> ok", engine)


def test_a_dividend_is_paid_to_all_or_to_nobody() -> None:
    """Ann could be paid, bob could not pay."""
    engine = traded()
    most = (VALUE_MAX + 1_350) // 3 + 1
    funds = "insufficient_funds amount"
    play(
        f"""
        op admin dividend symbol=NONE amount=1 -> unknown_symbol symbol
        op admin dividend symbol=GS amount={MAX_INT}     -> {funds}
        op admin dividend symbol=GS amount={-MAX_INT}    -> {funds}
        op admin dividend symbol=MS amount={VALUE_MAX // 3} -> {funds}
        op admin dividend symbol=MS amount={-most}       -> {funds}
        """,
        engine,
    )
    act(engine, f"op admin adjust user=dan cash={VALUE_MAX - 1_000}")
    act(engine, "op admin adjust user=cat cash=999")
    play(f"op admin dividend symbol=GS amount=1 -> {funds}", engine)
    act(engine, "op admin adjust user=cat cash=-1")
    play("op admin dividend symbol=GS amount=1 -> ok", engine)
    act(engine, "op admin adjust user=cat cash=-99")
    engine.accounts["ann"].realized = MAX_INT - 27
    play(f"op admin dividend symbol=GS amount=4 -> {funds}", engine)
    engine.accounts["ann"].realized = MAX_INT - 28
    play("op admin dividend symbol=GS amount=4 -> ok", engine)


# Closing out --------------------------------------------------------------


def test_an_account_is_closed_out() -> None:
    """7 GS become 7 x 90, and 5 of them had cost 500, 2 had cost 200."""
    engine = traded()
    play(
        """
        given ann buy 1@40 symbol=MS
        given ann sell 1@120 symbol=GS
        given bob buy 1@30 symbol=MS
        op admin close_out user=ann prices=GS:90,MS:1
            op ok
            ann 7 canceled 5 canceled 0/1 admin
            ann 8 canceled 6 canceled 0/1 admin
            ann 9 account 1130 GS=0 worth 1130 made -70
            * status close out ann: why
            * book MS 5 40=0 |
            * book GS 4 | 120=0
        ann buy 1@40 symbol=MS -> forbidden
        """,
        engine,
    )
    house = engine.accounts[HOUSE]
    assert (house.cash, house.positions) == (-630, {"GS": 5})
    assert sum(cash_of(engine).values()) == 4_000


def test_an_account_without_positions_is_suspended() -> None:
    play(
        """
        op admin close_out user=dan prices=GS:90
            op ok
            dan 1 account 1000 worth 1000
            * status close out dan: why
        dan buy 1@40 symbol=MS -> forbidden
        """,
        traded(),
    )


@pytest.mark.parametrize(
    "lines, is_suspended",
    [
        ("close_out", False),
        ("close_out close_out", False),
        ("close_out suspend", True),
        ("suspend close_out", True),
        ("suspend resume close_out", False),
        ("close_out resume suspend", True),
        ("suspend", True),
    ],
)
def test_a_reset_lifts_only_the_suspension_by_closing_out(
    lines: str, is_suspended: bool
) -> None:
    engine = traded()
    for action in lines.split():
        prices = " prices=GS:90" if action == "close_out" else ""
        act(engine, f"op admin {action} user=ann{prices}")
    act(engine, "op admin reset")
    answer = "forbidden" if is_suspended else "ok"
    play(f"ann buy 1@40 symbol=MS -> {answer}", engine)


@pytest.mark.parametrize(
    "prices, answer",
    [
        ("MS:90", "bad_request prices"),
        ("GS:90,NONE:5", "unknown_symbol prices"),
        ("GS:0", "invalid_price prices"),
        ("GS:1001", "invalid_price prices"),
        ("GS:90,MS:1001", "invalid_price prices"),
        ("GS:1000", "ok"),
    ],
)
def test_every_position_needs_a_price(prices: str, answer: str) -> None:
    play(f"op admin close_out user=ann prices={prices} -> {answer}", traded())


def test_an_account_that_is_not_known_is_not_closed_out() -> None:
    play(
        "op admin close_out user=zoe prices=GS:90 -> bad_request user",
        traded(),
    )


def test_a_price_may_be_any_that_the_lot_may_have() -> None:
    """A call is bounded by its payoff, a binary by its orders' prices."""
    engine = listed(listing("GS", max_price=5_000), CALL, binary("YES"))
    act(engine, "ann connect")
    play(
        """
        op admin close_out user=ann prices=CALL:4901 -> invalid_price prices
        op admin close_out user=ann prices=CALL:4900 -> ok
        op admin close_out user=ann prices=CALL:0    -> ok
        op admin close_out user=ann prices=CALL:-1   -> invalid_price prices
        op admin close_out user=ann prices=YES:63    -> ok
        """,
        engine,
    )


def test_the_bounds_of_the_exchange_are_checked_first() -> None:
    engine = traded()
    funds = "insufficient_funds prices"
    act(engine, f"op admin adjust user=cat cash={VALUE_MAX - 1_500}")
    act(engine, "op admin adjust user=dan cash=-250")
    play(
        f"op admin close_out user=ann prices=GS:400 -> {funds}",
        engine,
    )
    most = engine.listings["GS"].position_max
    play(
        f"""
        given op admin adjust user=dan symbol=GS qty={4 - most}
        op admin close_out user=ann prices=GS:1 -> position_limit prices
        """,
        engine,
    )
