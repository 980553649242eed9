"""One listed instrument: its prices, and the orders its phase accepts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from exchange.market.listing import Listing
from orderbook import Instrument, Order, OrderBook, Refused

BOND = Instrument(
    symbol="BOND",
    tick_size="1",
    min_price=-10,
    max_price=200,
    max_qty=50,
    phase="open",
    reference_price=100,
)


def listed(**more: Any) -> Listing:
    return Listing(replace(BOND, **more), OrderBook(), "open")


def refused(call: Any) -> tuple[str, str | None, str] | None:
    """Call; return code, field and text of the refusal."""
    try:
        call()
    except Refused as refusal:
        return refusal.code, refusal.field, refusal.message
    return None


# Prices that matter -------------------------------------------------------


def test_the_reference_is_the_last_price_and_before_it_the_configured() -> (
    None
):
    bond = listed()
    assert bond.reference == 100
    for price in (107, 0, -3):
        bond.last = price
        assert bond.reference == price


@pytest.mark.parametrize(
    "bid, ask, mark",
    [
        (None, None, 100),
        (120, None, 100),
        (None, 80, 100),
        (90, 120, 100),
        (110, 120, 110),
        (80, 90, 90),
        (100, 101, 100),
        # Crossed, as it may be before an auction.
        (120, 90, 100),
        (120, 110, 110),
        (90, 80, 90),
    ],
)
def test_the_mark_is_the_median_of_bid_reference_and_ask(
    bid: int | None, ask: int | None, mark: int
) -> None:
    bond = listed()
    bond.book.is_collecting = True
    if bid is not None:
        bond.book.place(Order(1, "ann", "buy", 1, price=bid))
    if ask is not None:
        bond.book.place(Order(2, "bob", "sell", 1, price=ask))
    assert bond.mark() == mark


def test_the_band_is_around_the_reference() -> None:
    assert listed().band is None
    bond = listed(band=7)
    assert bond.band == (93, 107)
    bond.last = -2
    assert bond.band == (-9, 5)


@pytest.mark.parametrize(
    "collar, last, highest, lowest",
    [
        (0, None, 200, -10),
        (5, None, 105, 95),
        (5, 120, 125, 115),
        (5, 198, 200, 193),
        (5, -8, -3, -10),
        (500, None, 200, -10),
    ],
)
def test_a_market_order_goes_to_the_collar_or_to_the_bound(
    collar: int, last: int | None, highest: int, lowest: int
) -> None:
    bond = listed(collar=collar)
    bond.last = last
    assert bond.worst_price("buy") == highest
    assert bond.worst_price("sell") == lowest


# Bounds -------------------------------------------------------------------


@pytest.mark.parametrize(
    "price, qty, code, field",
    [
        (200, 50, None, None),
        (-10, 1, None, None),
        (None, None, None, None),
        (201, 51, "invalid_qty", "qty"),
        (None, 51, "invalid_qty", "qty"),
        (201, 50, "invalid_price", "price"),
        (-11, None, "invalid_price", "price"),
    ],
)
def test_quantity_and_then_price_have_bounds(
    price: int | None, qty: int | None, code: str | None, field: str | None
) -> None:
    for side in ("buy", "sell"):
        told = refused(lambda: listed().check_bounds(side, price, qty))
        assert told is None if code is None else told[:2] == (code, field)


@pytest.mark.parametrize(
    "side, price, is_refused",
    [
        ("buy", 105, False),
        ("buy", 106, True),
        ("buy", -10, False),
        ("sell", 95, False),
        ("sell", 94, True),
        ("sell", 200, False),
    ],
)
def test_the_collar_guards_one_side_and_the_passive_one_is_free(
    side: Any, price: int, is_refused: bool
) -> None:
    bond = listed(collar=5)
    told = refused(lambda: bond.check_bounds(side, price, 1))
    assert (told is not None) == is_refused
    if told:
        assert told[:2] == ("invalid_price", "price")
        assert told[2] == (
            f"{side} at {price} is more than 5 ticks beyond the reference"
            " price of 100"
        )
    bond.last = price
    assert refused(lambda: bond.check_bounds(side, price, 1)) is None


def test_bounds_take_precedence_over_the_collar() -> None:
    told = refused(lambda: listed(collar=5).check_bounds("buy", 201, 1))
    assert told and told[2] == "price 201 is not within -10 to 200"


def test_an_order_without_a_price_has_no_collar() -> None:
    assert refused(lambda: listed(collar=5).check_bounds("buy", None, 1)) is (
        None
    )


# Phases -------------------------------------------------------------------


KINDS: dict[Any, str] = {
    "limit": "gtc gtd ioc fok",
    "market": "ioc fok auction",
    "stop": "gtc gtd",
    "stop_limit": "gtc gtd ioc fok",
}
RESTING = ("gtc", "gtd")
STOPS = [
    f"{kind} {tif}"
    for kind in ("stop", "stop_limit")
    for tif in KINDS[kind].split()
]


@pytest.mark.parametrize(
    "phase, taken",
    [
        ("open", {*RESTING, "ioc", "fok", "market ioc", "market fok", *STOPS}),
        ("pre_open", {*RESTING, "market auction", *STOPS}),
        ("auction", {*RESTING, "market auction", *STOPS}),
        ("halted", set()),
        ("closed", set()),
    ],
)
def test_what_each_phase_takes(phase: Any, taken: set[str]) -> None:
    bond = listed()
    bond.phase = phase
    found = set()
    for order_type, tifs in KINDS.items():
        for tif in tifs.split():
            told = refused(lambda: bond.check_phase(order_type, tif))
            if told is None:
                kind = "" if order_type == "limit" else f"{order_type} "
                found.add(kind + tif)
            else:
                assert told[:2] == ("market_closed", None)
                assert f"BOND is in the phase {phase}" in told[2]
    assert found == taken


# As published ------------------------------------------------------------


def test_an_instrument_is_shown_with_its_phase_and_the_accounts_limit() -> (
    None
):
    bond = listed(max_position=30, maker_fee=-1, taker_fee=2)
    bond.phase = "halted"
    told = bond.current_instrument()
    assert told == replace(bond.instrument, phase="halted")
    assert (bond.instrument.phase, told.max_position) == ("open", 30)
    assert bond.current_instrument(20) == replace(told, max_position=20)
    assert bond.current_instrument(0) == replace(told, max_position=0)
