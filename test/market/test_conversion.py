"""Conversions: checks in their order, and what they do to the money.

10 XLF are 30 BOND, 20 GS, 30 MS and 20 WFC; a conversion costs 100.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from exchange.market.accounts import HOUSE, ORDERS_REMEMBERED, VALUE_MAX
from exchange.market.engine import Engine
from exchange.market.work import touches
from orderbook import Conversion, Error, Instrument
from test.script import act, limited, listed, listing, parse, play, reconfigure

MARKS = {"BOND": 1_000, "GS": 20, "MS": 30, "WFC": 40, "XLF": 300}
BASKET = {"BOND": 3, "GS": 2, "MS": 3, "WFC": 2}
GET = {"XLF": 20, "BOND": -60, "GS": -40, "MS": -60, "WFC": -40}
GOT = " ".join(f"{symbol}={qty}" for symbol, qty in GET.items())
WORTH = "worth 1800 made -29200"
NOTHING = " ".join(f"{symbol}=0" for symbol in GET)


def market(**bond: Any) -> list[Instrument]:
    """Return the instruments; keywords are settings of BOND."""
    more = {"XLF": {"convert": Conversion(lot=10, fee=100, basket=BASKET)}}
    more["BOND"] = bond
    return [
        listing(s, reference_price=mark, **more.get(s, {}))
        for s, mark in MARKS.items()
    ]


def trading(**limits: Any) -> Engine:
    """Return an engine with these limits for ann; all have logged in."""
    return limited(*market(), **limits)


def positions(engine: Engine, name: str = "ann") -> dict[str, int]:
    return {s: n for s, n in engine.accounts[name].positions.items() if n}


# Lots and money -----------------------------------------------------------


def test_a_basket_may_be_for_several_lots() -> None:
    """20 XLF are twice 3 BOND, 2 GS, 3 MS and 2 WFC, whole lots all."""
    convert = Conversion(lot=10, fee=100, basket=BASKET, per=10)
    listed_as = [replace(i, convert=convert) for i in market()[-1:]]
    engine = limited(*market()[:-1], *listed_as)
    act(engine, "ann convert buy 20 symbol=XLF")
    got = {"XLF": 20} | {s: -2 * n for s, n in BASKET.items()}
    assert positions(engine) == got
    act(engine, "ann convert sell 10 symbol=XLF")
    assert positions(engine) == {s: n // 2 for s, n in got.items()}


def test_buying_gives_the_basket_and_the_fee() -> None:
    """20 x 300 - 60 x 1000 - 40 x 20 - 60 x 30 - 40 x 40 - 100 = -58300."""
    engine = trading(cash=500)
    play(
        f"""
        ann convert buy 20 symbol=XLF
            ann ok
            ann 1 account 400 {GOT} worth -57800 made -58300
        """,
        engine,
    )
    assert positions(engine) == GET
    assert positions(engine, HOUSE) == {s: -n for s, n in GET.items()}
    assert engine.accounts[HOUSE].cash == 100


def test_selling_reverses_the_legs_and_pays_the_fee_again() -> None:
    engine = trading(cash=500)
    play(
        f"""
        given ann convert buy 20 symbol=XLF
        ann convert sell 20 symbol=XLF
            ann ok
            ann 2 account 300 {NOTHING} worth 300 made -200
        """,
        engine,
    )
    ann, house = engine.accounts["ann"], engine.accounts[HOUSE]
    assert not any(ann.costs.values()) and not any(house.costs.values())
    assert house.cash == 200


def test_each_leg_counts_as_traded_at_its_mark() -> None:
    """5 GS bought at 14 close at 20; the profit of the legs is realized."""
    engine = trading()
    play(
        """
        given ann buy 25@14 symbol=GS
        given bob sell 25@14 symbol=GS
        given bob sell 1@20 symbol=GS
        given cat buy 1@20 symbol=GS
        given ann convert buy 10 symbol=XLF
        """,
        engine,
    )
    ann = engine.accounts["ann"]
    legs = 10 * 300 - 30 * 1_000 - 20 * 20 - 30 * 30 - 20 * 40
    assert ann.costs["GS"] == 5 * 14 and ann.costs["XLF"] == 3_000
    assert ann.realized == 20 * (20 - 14) + legs - 100
    assert engine.accounts[HOUSE].realized == -legs
    report = engine.account_report(ann)
    assert report.cash == -25 * 14 - 100
    assert report.equity == report.realized + report.unrealized
    assert report.unrealized == 5 * 6


def test_profit_is_counted_in_units_of_money() -> None:
    instruments = [
        listing("A", reference_price=7, tick_value=5),
        listing(
            "B",
            reference_price=9,
            tick_value=2,
            convert=Conversion(lot=1, fee=3, basket={"A": 1}),
        ),
    ]
    engine = listed(*instruments)
    act(engine, "ann convert buy 4 symbol=B")
    ann = engine.accounts["ann"]
    assert (ann.cash, ann.realized) == (-3, 4 * (9 * 2 - 7 * 5) - 3)


def test_no_book_changes_and_nothing_is_published() -> None:
    engine = trading()
    act(engine, "bob buy 5@280 symbol=XLF")
    play("given ann convert buy 10 symbol=XLF", engine)
    xlf = engine.listings["XLF"]
    assert (xlf.last, xlf.volume, xlf.seq) == (None, 0, 1)


# Refusals -----------------------------------------------------------------


@pytest.mark.parametrize(
    "before, request_, answer",
    [
        ("", "buy 10 symbol=NONE", "unknown_symbol symbol"),
        ("", "buy 10 symbol=GS", "no_conversion symbol"),
        ("op admin phase halted symbol=XLF", "buy 10", "market_closed"),
        ("op admin phase auction symbol=WFC", "buy 15", "market_closed"),
        ("", "buy 15", "invalid_qty qty"),
        ("", "sell 1", "invalid_qty qty"),
        ("", "buy 110", "invalid_qty qty"),
        ("op admin suspend user=ann", "buy 10", "forbidden"),
        ("op admin suspend user=ann", "buy 10 symbol=NONE", "forbidden"),
        ("ann buy 1@5 symbol=GS as=c", "buy 10 as=c", "duplicate"),
        ("ann convert buy 10 symbol=XLF as=c", "sell 15 as=c", "duplicate"),
        ("op admin adjust user=ann cash=-301", "buy 10", "insufficient_funds"),
        ("op admin adjust user=ann cash=-300", "buy 10", "ok"),
        # Cash that is set aside for orders is not free.
        ("ann buy 10@30 symbol=GS", "buy 10", "ok"),
        ("ann buy 10@31 symbol=GS", "buy 10", "insufficient_funds"),
    ],
)
def test_what_is_refused(before: str, request_: str, answer: str) -> None:
    engine = trading(cash=500, min_cash=100)
    if before:
        act(engine, before)
    request_ += "" if "symbol" in request_ else " symbol=XLF"
    if answer == "duplicate":
        answer = "duplicate_client_order_id client_order_id"
    play(f"ann convert {request_} -> {answer}", engine)


@pytest.mark.parametrize(
    "before, request_, answer",
    [
        ("", "buy 10", "ok"),
        ("", "buy 20", "position_limit qty"),  # 60 BOND short
        ("ann sell 10@1000 symbol=BOND", "buy 10", "ok"),
        ("ann sell 11@1000 symbol=BOND", "buy 10", "position_limit qty"),
        ("ann buy 90@1 symbol=BOND", "buy 10", "ok"),
        ("ann buy 30@1 symbol=XLF", "buy 10", "ok"),
        ("ann buy 31@1 symbol=XLF", "buy 10", "position_limit qty"),
        # Towards zero a leg is allowed whatever the open orders are.
        ("op admin adjust user=ann symbol=BOND qty=30", "buy 10", "ok"),
        ("op admin adjust user=ann symbol=BOND qty=90", "buy 10", "ok"),
        ("op admin adjust user=ann symbol=XLF qty=-90", "buy 20", "position"),
        ("op admin adjust user=ann symbol=XLF qty=-90", "buy 10", "ok"),
    ],
)
def test_the_limit_of_a_position(
    before: str, request_: str, answer: str
) -> None:
    """Each of the five may be 40 lots long or short."""
    engine = trading(max_position={symbol: 40 for symbol in MARKS})
    if before:
        act(engine, before)
    if answer == "position":
        answer = "position_limit qty"
    play(f"ann convert {request_} symbol=XLF -> {answer}", engine)


@pytest.mark.parametrize(
    "held, orders, answer",
    [
        (30, 0, "ok"),
        (29, 0, "position_limit qty"),
        (0, 0, "position_limit qty"),
        (31, 1, "ok"),
        (30, 30, "ok"),  # the leg alone sells no more than is there
    ],
)
def test_without_short_selling_one_gives_what_one_has(
    held: int, orders: int, answer: str
) -> None:
    engine = trading()
    reconfigure(engine, instruments=tuple(market(short_selling=False)))
    act(engine, f"op admin adjust user=ann symbol=BOND qty={held}")
    if orders:
        act(engine, f"ann sell {orders}@1000 symbol=BOND")
    play(f"ann convert buy 10 symbol=XLF -> {answer}", engine)


def test_orders_that_could_now_go_short_are_canceled() -> None:
    engine = trading()
    reconfigure(engine, instruments=tuple(market(short_selling=False)))
    play(
        f"""
        given op admin adjust user=ann symbol=BOND qty=31
        given ann sell 1@1000 symbol=BOND
        given ann sell 1@1000 symbol=BOND
        ann convert buy 10 symbol=XLF
            ann ok
            ann 4 canceled 2 canceled 0/1 funds
            ann 5 account -100 BOND=1 XLF=10 GS=-20 MS=-30 WFC=-20 {WORTH}
            * book BOND 3 | 1000=1
        """,
        engine,
    )


def test_a_refusal_names_the_leg() -> None:
    engine = trading(max_position={"MS": 29})
    ((_, error),) = act(engine, "ann convert buy 10 symbol=XLF")
    assert isinstance(error, Error)
    assert error.message.startswith("MS: the position could become 30 lots")


def test_the_exchange_has_no_limits_but_counts_exactly() -> None:
    engine = listed(
        listing("GS", max_price=VALUE_MAX // 20),
        listing("XLF", convert=Conversion(lot=1, fee=0, basket={"GS": 1})),
    )
    assert engine.listings["GS"].position_max == 10
    play(
        """
        given bob connect
        ann convert buy 10 symbol=XLF   -> ok
        bob convert buy 1 symbol=XLF    -> position_limit
        bob convert sell 10 symbol=XLF  -> ok
        """,
        engine,
    )


def test_a_fee_never_makes_the_exchange_too_rich() -> None:
    engine = trading()
    act(engine, f"op admin adjust user=bob cash={99 - VALUE_MAX}")
    play("ann convert buy 10 symbol=XLF -> insufficient_funds", engine)
    act(engine, "op admin adjust user=bob cash=1")
    play("ann convert buy 10 symbol=XLF -> ok", engine)


def test_a_conversion_waits_for_long_work_on_a_leg() -> None:
    """Dan has no GS: he would get some amid their settlement."""
    engine = trading()
    engine.slice_ops = 2
    act(engine, "dan connect")
    for _ in range(5):
        act(engine, "ann buy 1@5 symbol=GS")
    act(engine, "op admin settle symbol=GS price=20")
    assert engine.work
    for symbol, waits in (("XLF", True), ("MS", False), ("NONE", False)):
        request = parse(f"convert buy 10 symbol={symbol}".split())
        assert touches(engine, "dan", "a", request) is waits
    while engine.work:
        act(engine, "tick")
    play("dan convert buy 10 symbol=XLF -> market_closed", engine)


# Names --------------------------------------------------------------------


def test_orders_and_conversions_share_their_names() -> None:
    play(
        """
        given ann convert buy 10 symbol=XLF as=mine
        ann convert buy 10 symbol=XLF as=mine
            ann error duplicate_client_order_id client_order_id
        ann buy 1@5 symbol=GS as=mine
            ann error duplicate_client_order_id client_order_id
        ann buy 1@5 symbol=NONE as=mine    -> unknown_symbol symbol
        ann cancel as=mine                 -> unknown_order client_order_id
        ann buy 1@5 symbol=GS as=other     -> ok
        ann convert buy 10 symbol=XLF as=other
            ann error duplicate_client_order_id client_order_id 1 new 0
        ann convert buy 10 symbol=XLF      -> ok
        bob convert buy 10 symbol=XLF as=mine -> ok
        """,
        trading(),
    )


def test_a_repeat_is_a_duplicate_in_every_state() -> None:
    engine = trading()
    act(engine, "ann convert buy 10 symbol=XLF as=mine")
    before = positions(engine)
    for line in (
        "op admin phase closed",
        "op admin suspend user=ann",
        "op admin reset",
    ):
        act(engine, line)
        play(
            """
            ann convert buy 10 symbol=XLF as=mine
                ann error duplicate_client_order_id client_order_id
            """,
            engine,
        )
        assert positions(engine) in (before, {})


def test_a_refused_conversion_uses_no_name_up() -> None:
    play(
        """
        ann convert buy 15 symbol=XLF as=mine  -> invalid_qty qty
        ann convert buy 10 symbol=XLF as=mine  -> ok
        """,
        trading(),
    )


def test_names_of_conversions_are_remembered_as_long_as_orders() -> None:
    engine = trading(max_position={symbol: 0 for symbol in MARKS})
    for number in range(ORDERS_REMEMBERED // 2):
        act(engine, f"ann convert buy 10 symbol=XLF as=b{number}")
        act(engine, f"ann convert sell 10 symbol=XLF as=s{number}")
    duplicate = "duplicate_client_order_id client_order_id"
    play(
        f"""
        ann convert buy 10 symbol=XLF as=b0    -> {duplicate}
        ann convert buy 10 symbol=XLF as=last  -> ok
        ann convert sell 10 symbol=XLF as=s0   -> {duplicate}
        ann convert sell 10 symbol=XLF as=b0   -> ok
        """,
        engine,
    )
