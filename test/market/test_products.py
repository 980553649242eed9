"""Kinds of instruments, and at which price and in which order they settle.

The administrator is op.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from exchange.market.accounts import HOUSE, AccountLimits
from exchange.market.engine import Engine
from exchange.market.products import payoff, settlement_bounds
from orderbook import Conversion, Instrument
from test.script import act, listed, listing, play, reconfigure


def derivative(symbol: str, kind: str, **more: Any) -> Instrument:
    """Return a derivative of GS that settles with it."""
    return listing(
        symbol, kind=kind, **{"underlying": "GS", "expires": "round", **more}
    )


FUTURE = derivative("FUT", "future")
CALL = derivative("CALL", "call", strike=100)
PUT = derivative("PUT", "put", strike=100)


def binary(symbol: str, **more: Any) -> Instrument:
    """Return a binary that pays 100."""
    return listing(symbol, kind="binary", pays=100, **more)


def settled(engine: Engine) -> dict[str, int]:
    """Return the settlement price of each instrument that has one."""
    rows = {s: x.current_instrument() for s, x in engine.listings.items()}
    return {
        symbol: row.settlement_price
        for symbol, row in rows.items()
        if row.settlement_price is not None
    }


def hold(engine: Engine, *symbols: str) -> Engine:
    """Let ann buy 5 at 10 of bob in each symbol."""
    for symbol in symbols:
        act(engine, f"ann buy 5@10 symbol={symbol}")
        act(engine, f"bob sell 5@10 symbol={symbol}")
    return engine


# Payoffs ------------------------------------------------------------------


@pytest.mark.parametrize(
    "instrument, by_price",
    [
        (FUTURE, {-7: -7, 0: 0, 99: 99, 5_000: 5_000}),
        (CALL, {-7: 0, 99: 0, 100: 0, 101: 1, 5_000: 4_900}),
        (PUT, {-7: 107, 99: 1, 100: 0, 101: 0, 5_000: 0}),
    ],
)
def test_what_a_lot_becomes(
    instrument: Instrument, by_price: dict[int, int]
) -> None:
    assert {s: payoff(instrument, s) for s in by_price} == by_price


def test_the_bounds_of_a_settlement_price_are_those_of_the_payoff() -> None:
    gs = listing("GS", min_price=-20, max_price=5_000)
    bounds = {i.symbol: settlement_bounds(i, gs) for i in (FUTURE, CALL, PUT)}
    assert bounds == {"FUT": (-20, 5_000), "CALL": (0, 4_900), "PUT": (0, 120)}
    assert settlement_bounds(gs, None) == (-20, 5_000)
    assert settlement_bounds(binary("A"), None) == (0, 100)


def test_a_position_is_bounded_by_what_it_may_be_paid() -> None:
    gs = listing("GS", max_price=10**9)
    call = derivative("CALL", "call", strike=0, max_price=10)
    engine = listed(gs, call)
    most = engine.listings["CALL"].position_max
    assert most == engine.listings["GS"].position_max == 2 * 10**6


# Settling with the underlying ---------------------------------------------


def test_what_expires_with_the_round_settles_with_its_underlying() -> None:
    """Cancels first, then the payments, then the phases, GS first."""
    engine = hold(listed(CALL, "GS", FUTURE), "CALL", "GS", "FUT")
    play(
        """
        given cat buy 1@7 symbol=GS
        given cat buy 1@8 symbol=CALL
        op admin settle symbol=GS price=130
            op ok
            cat 3 canceled 7 canceled 0/1 admin
            cat 4 canceled 8 canceled 0/1 admin
            ann 10 settlement GS 5@130 made 600
            ann 10 settlement CALL 5@30 made 100
            ann 10 settlement FUT 5@130 made 600
            ann 10 account 1300 CALL=0 GS=0 FUT=0 worth 1300 made 1300
            bob 10 settlement GS -5@130 made -600
            bob 10 settlement CALL -5@30 made -100
            bob 10 settlement FUT -5@130 made -600
            bob 10 account -1300 CALL=0 GS=0 FUT=0 worth -1300 made -1300
            * status GS closed settled at 130: why
            * status CALL closed settled at 30: why
            * status FUT closed settled at 130: why
            * book GS 4 7=0 |
            * book CALL 4 8=0 |
        """,
        engine,
    )
    assert settled(engine) == {"CALL": 30, "GS": 130, "FUT": 130}


def test_stop_orders_are_canceled_too() -> None:
    engine = listed("GS", FUTURE)
    act(engine, "ann buy 1@market trigger=20 symbol=FUT")
    play(
        """
        op admin settle symbol=GS price=130
            op ok
            ann 2 canceled 1 canceled 0/1 admin
            * status GS closed settled at 130: why
            * status FUT closed settled at 130: why
        """,
        engine,
    )


def test_payoffs_are_not_cut_at_the_greatest_price() -> None:
    engine = hold(listed(listing("GS", max_price=9_000), FUTURE), "FUT")
    act(engine, "op admin settle symbol=GS price=9000")
    assert engine.accounts["ann"].cash == 5 * (9_000 - 10)


def test_a_price_that_is_given_takes_precedence() -> None:
    engine = listed("GS", FUTURE, CALL)
    play(
        """
        op admin settle prices=CALL:3,GS:130
            op ok
            * status GS closed settled at 130: why
            * status CALL closed settled at 3: why
            * status FUT closed settled at 130: why
        """,
        engine,
    )
    assert settled(engine) == {"GS": 130, "FUT": 130, "CALL": 3}


def test_a_derivative_that_is_settled_stays_as_it_is() -> None:
    engine = listed("GS", FUTURE, CALL)
    play("op admin settle symbol=CALL price=3 -> ok", engine)
    play("op admin settle symbol=GS price=130 -> ok", engine)
    assert settled(engine) == {"GS": 130, "FUT": 130, "CALL": 3}
    assert engine.listings["CALL"].phase == "closed"


def test_a_timed_derivative_goes_on_without_its_underlying() -> None:
    timed = derivative("SOON", "call", strike=100, expires=90)
    engine = listed("GS", timed)
    play(
        """
        given 1s ann connect
        given 2s op admin settle symbol=GS price=130
        """,
        engine,
    )
    assert engine.listings["SOON"].phase == "open"
    play(
        """
        91s tick
            * status SOON closed settled at 30: expired
        """,
        engine,
    )


def test_a_price_is_computed_from_the_settlement_price() -> None:
    engine = listed("GS", derivative("PUT", "put", strike=100, expires=90))
    act(engine, "op admin settle symbol=GS price=70")
    play("op admin settle symbol=PUT -> ok", engine)
    assert settled(engine) == {"GS": 70, "PUT": 30}


def test_a_price_is_computed_from_the_last_trades() -> None:
    """(3 x 110 + 1 x 121) / 4 = 112.75, rounded down."""
    engine = listed("GS", CALL)
    play(
        """
        given 1s ann buy 3@110 symbol=GS
        given bob sell 3@110 symbol=GS
        given 2s ann buy 1@121 symbol=GS
        given bob sell 1@121 symbol=GS
        op admin settle symbol=CALL
            op ok
            * status CALL closed settled at 12: why
        """,
        engine,
    )
    assert engine.listings["GS"].phase == "open"


def test_without_trades_a_price_is_computed_from_the_mark() -> None:
    engine = listed(listing("GS", reference_price=105), CALL)
    play(
        """
        given ann buy 3@107 symbol=GS
        given bob sell 3@115 symbol=GS
        op admin settle symbol=CALL
            op ok
            * status CALL closed settled at 7: why
        """,
        engine,
    )


def test_value_is_counted_in_units_of_money() -> None:
    contract = derivative("FUT", "future", tick_value=250)
    engine = hold(listed("GS", contract), "FUT")
    before = engine.accounts["ann"].cash
    act(engine, "op admin settle symbol=GS price=12")
    assert engine.accounts["ann"].cash == before + 5 * 12 * 250


# Convertibles -------------------------------------------------------------

BASKET = Conversion(lot=10, fee=0, basket={"GS": 2, "MS": 3})


def test_a_convertible_settles_by_its_parts() -> None:
    """2 x 130 + 3 x 41, of which MS is valued at its mark."""
    engine = listed(
        listing("XLF", convert=BASKET, max_price=100),
        "GS",
        listing("MS", reference_price=41),
    )
    act(engine, "op admin settle symbol=GS price=130")
    play("op admin settle symbol=XLF -> ok", engine)
    assert settled(engine) == {"XLF": 383, "GS": 130}


def test_the_value_of_parts_is_counted_in_ticks_of_the_convertible() -> None:
    """(2 x 9 + 3 x 4 x 5) / 7 = 78 / 7, rounded down."""
    engine = listed(
        listing("XLF", convert=BASKET, tick_value=7),
        listing("GS", reference_price=9),
        listing("MS", reference_price=4, tick_value=5),
    )
    play("op admin settle symbol=XLF -> ok", engine)
    assert settled(engine) == {"XLF": 11}


def test_the_value_of_a_basket_is_shared_by_its_lots() -> None:
    """(2 x 130 + 3 x 41) / 10 = 38.3, rounded down."""
    engine = listed(
        listing("XLF", convert=replace(BASKET, per=10)),
        listing("GS", reference_price=130),
        listing("MS", reference_price=41),
    )
    play("op admin settle symbol=XLF -> ok", engine)
    assert settled(engine) == {"XLF": 38}


def test_a_convertible_does_not_settle_with_its_parts() -> None:
    engine = listed(listing("XLF", convert=BASKET), "GS", "MS")
    act(engine, "op admin settle prices=GS:130,MS:41")
    assert settled(engine) == {"GS": 130, "MS": 41}


# Binaries -----------------------------------------------------------------

RACE = (binary("A", group="RACE"), binary("B", group="RACE"))


def test_naming_the_one_that_pays_settles_its_group() -> None:
    engine = hold(listed(*RACE, binary("C", group="RACE")), "A", "C")
    play(
        """
        op admin settle symbol=B price=100
            op ok
            ann 7 settlement A 5@0 made -50
            ann 7 settlement C 5@0 made -50
            ann 7 account -100 A=0 C=0 worth -100 made -100
            bob 7 settlement A -5@0 made 50
            bob 7 settlement C -5@0 made 50
            bob 7 account 100 A=0 C=0 worth 100 made 100
            * status B closed settled at 100: why
            * status A closed settled at 0: why
            * status C closed settled at 0: why
        """,
        engine,
    )


@pytest.mark.parametrize(
    "action, answer",
    [
        ("symbol=A price=0", "invalid_price price"),
        ("symbol=A price=99", "invalid_price price"),
        ("symbol=A price=-1", "invalid_price price"),
        ("symbol=A", "bad_request price"),
        ("symbol=ALONE", "bad_request price"),
        ("symbol=GS", "bad_request price"),
        ("prices=A:0,B:0", "invalid_price prices"),
        ("prices=A:100,B:100", "invalid_price prices"),
        ("prices=A:100,B:50", "invalid_price prices"),
        ("prices=GS:5,B:0", "invalid_price prices"),
        ("prices=GS:5,NONE:0", "unknown_symbol prices"),
        ("prices=GS:1001,A:100", "invalid_price prices"),
        ("prices=CALL:901", "invalid_price prices"),
        ("prices=CALL:-1", "invalid_price prices"),
        ("prices=GS:5,OLD:5", "market_closed"),
        ("symbol=OLD price=5", "market_closed"),
        ("symbol=OLD", "market_closed"),
    ],
)
def test_what_cannot_settle_settles_nothing(action: str, answer: str) -> None:
    engine = hold(
        listed(*RACE, binary("ALONE"), "GS", CALL, "OLD"), "A", "GS", "CALL"
    )
    act(engine, "op admin settle symbol=OLD price=5")
    play(f"op admin settle {action} -> {answer}", engine)


@pytest.mark.parametrize(
    "action, prices",
    [
        ("symbol=ALONE price=0", {"ALONE": 0}),
        ("symbol=ALONE price=100", {"ALONE": 100}),
        ("prices=A:0,B:100", {"A": 0, "B": 100}),
        ("prices=A:100", {"A": 100, "B": 0}),
        ("prices=CALL:900,GS:5", {"CALL": 900, "GS": 5}),
    ],
)
def test_what_settles(action: str, prices: dict[str, int]) -> None:
    engine = listed(*RACE, binary("ALONE"), "GS", CALL)
    play(f"op admin settle {action} -> ok", engine)
    assert settled(engine) == prices


def test_a_binary_that_joins_a_group_late_settles_at_0_alone() -> None:
    engine = listed(*RACE)
    act(engine, "op admin settle symbol=A price=100")
    late = binary("LATE", group="RACE")
    reconfigure(engine, instruments=(*RACE, late))
    play(
        "op admin settle symbol=LATE price=100 -> invalid_price price", engine
    )
    play("op admin settle symbol=LATE price=0 -> ok", engine)


# All or nothing, and anew -------------------------------------------------


def test_no_account_gets_more_cash_than_can_be_counted() -> None:
    """Each of the two would fit."""
    engine = listed("GS", "MS")
    act(engine, "ann connect")
    most = engine.listings["GS"].position_max
    for symbol in ("GS", "MS"):
        for _ in range(2):
            line = f"op admin adjust user=ann symbol={symbol} qty={most}"
            play(f"{line} -> ok", engine)
            engine.listings[symbol].position_max *= 2
    act(engine, "op admin adjust user=ann cash=3000000000000000")
    play(
        """
        op admin settle prices=GS:1000,MS:1000 -> insufficient_funds
        op admin settle symbol=GS price=1000 -> ok
        """,
        engine,
    )


def test_a_reset_lists_what_was_settled() -> None:
    engine = hold(listed("GS", FUTURE), "GS", "FUT")
    act(engine, "op admin settle symbol=GS price=130")
    act(engine, "op admin reset")
    assert settled(engine) == {}
    hold(engine, "GS", "FUT")
    play("op admin settle symbol=GS price=70 -> ok", engine)
    assert settled(engine) == {"GS": 70, "FUT": 70}


def test_version_2_of_the_rules_settles_as_often_as_it_is_told() -> None:
    engine = listed("GS", limits=AccountLimits(cash=100))
    reconfigure(engine, engine_version=2)
    hold(engine, "GS")
    play(
        """
        op admin settle symbol=GS price=130
            op ok
            ann 4 account 700 GS=0 worth 700 made 600
            bob 4 account -500 GS=0 worth -500 made -600
            * status GS closed settled at 130: why
        op admin settle symbol=GS price=30
            op ok
            * status GS closed settled at 30: why
        """,
        engine,
    )
    assert settled(engine) == {}
    assert HOUSE not in engine.accounts
