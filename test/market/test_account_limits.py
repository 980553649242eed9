"""Accounts: the limits of positions, orders and cash."""

from __future__ import annotations

from typing import Any

import pytest

from exchange.market.accounts import (
    ACCOUNTS_MAX,
    CASH_MAX,
    VALUE_MAX,
    Account,
    AccountLimits,
    unit_cost,
)
from orderbook import MAX_INT, Instrument, Refused
from test.market.test_accounts import order


def instrument(**more: Any) -> Instrument:
    bounds = {"min_price": 1, "max_price": 1_000, "max_qty": 100}
    return Instrument(
        symbol="BOND", tick_size="1", phase="open", **{**bounds, **more}
    )


@pytest.mark.parametrize(
    "side, price, maker_fee, taker_fee, cost",
    [
        ("buy", 100, 0, 0, 100),
        ("buy", 100, 1, 2, 102),
        ("buy", 100, 3, 2, 103),
        ("buy", 100, 3, 0, 103),
        ("buy", 100, 0, 2, 102),
        ("buy", 100, -1, 2, 102),
        ("buy", -5, 0, 0, 0),
        ("buy", -5, 0, 7, 2),
        ("buy", 0, 0, 0, 0),
        ("sell", 100, 0, 0, 0),
        ("sell", 100, 1, 2, 0),
        ("sell", 1, 1, 2, 1),
        ("sell", -5, 0, 0, 5),
        ("sell", -5, 1, 2, 7),
        ("sell", 0, 0, 0, 0),
    ],
)
def test_a_lot_may_cost_its_price_and_the_higher_fee(
    side: Any, price: int, maker_fee: int, taker_fee: int, cost: int
) -> None:
    fees = instrument(maker_fee=maker_fee, taker_fee=taker_fee)
    assert unit_cost(fees, side, price) == cost


def test_cash_set_aside_for_an_order_is_released() -> None:
    account = Account("ann")
    bid, ask = order(1, unit_cost=99), order(2, side="sell", unit_cost=4)
    account.hold(bid, 5)
    account.hold(order(3, symbol="ETF", unit_cost=7), 2)
    account.hold(ask, 6)
    assert account.buying == {"BOND": 5, "ETF": 2}
    assert account.selling == {"BOND": 6}
    assert account.reserved == 5 * 99 + 2 * 7 + 6 * 4
    account.hold(bid, -3)
    account.hold(ask, -6)
    assert account.buying == {"BOND": 2, "ETF": 2}
    assert account.selling == {"BOND": 0}
    assert account.reserved == 2 * 99 + 2 * 7


@pytest.mark.parametrize(
    "limit, is_open, is_refused",
    [(0, 9, False), (3, 2, False), (3, 3, True), (3, 4, True)],
)
def test_an_account_may_have_a_bounded_number_of_open_orders(
    limit: int, is_open: int, is_refused: bool
) -> None:
    account = Account("ann", limits=AccountLimits(open_orders=limit))
    for order_id in range(is_open):
        account.accept(order(order_id))
    check(account.check_count, "too_many_orders" if is_refused else None)


@pytest.mark.parametrize(
    "side, position, working, qty, is_refused",
    [
        ("buy", 0, 0, 10, False),
        ("buy", 0, 0, 11, True),
        ("buy", 4, 3, 3, False),
        ("buy", 4, 3, 4, True),
        ("buy", -10, 0, 20, False),
        ("buy", -10, 15, 6, True),
        ("buy", -50, 0, 60, False),
        ("buy", 50, 0, 1, True),
        ("sell", 0, 0, 10, False),
        ("sell", 0, 0, 11, True),
        ("sell", -4, 3, 3, False),
        ("sell", -4, 3, 4, True),
        ("sell", 10, 15, 5, False),
        ("sell", 10, 15, 6, True),
        ("sell", 50, 0, 60, False),
        ("sell", -50, 0, 1, True),
    ],
)
def test_a_position_counts_with_the_open_orders_of_that_side(
    side: Any, position: int, working: int, qty: int, is_refused: bool
) -> None:
    account = Account("ann", positions={"BOND": position, "ETF": 999})
    account.hold(order(1, side=side), working)
    other = "sell" if side == "buy" else "buy"
    account.hold(order(2, side=other), 999)
    account.hold(order(3, side=side, symbol="ETF"), 999)
    check(
        lambda: account.check_position(
            instrument(max_position=10), side, qty, 10_000
        ),
        "position_limit" if is_refused else None,
        "qty",
    )


@pytest.mark.parametrize(
    "own, instruments, most",
    [(None, 0, 40), (None, 30, 30), (20, 30, 20), (20, 0, 20), (35, 30, 35)],
)
def test_the_account_limit_replaces_the_instruments(
    own: int | None, instruments: int, most: int
) -> None:
    """The account's, else the instrument's, else what can be counted."""
    limits = AccountLimits(max_position={} if own is None else {"BOND": own})
    account = Account("ann", limits=limits)
    listed = instrument(max_position=instruments)
    for side in ("buy", "sell"):
        account.check_position(listed, side, most, 40)
        with pytest.raises(Refused):
            account.check_position(listed, side, most + 1, 40)


def test_an_account_limit_of_0_means_none() -> None:
    account = Account("ann", limits=AccountLimits(max_position={"BOND": 0}))
    listed = instrument(max_position=30)
    assert account.max_position(listed) == 0
    account.check_position(listed, "buy", 40, 40)


@pytest.mark.parametrize(
    "position, working, qty, is_refused",
    [
        (5, 0, 5, False),
        (5, 0, 6, True),
        (5, 3, 2, False),
        (5, 3, 3, True),
        (0, 0, 1, True),
        (-5, 0, 1, True),
    ],
)
def test_without_short_selling_an_account_sells_what_it_has(
    position: int, working: int, qty: int, is_refused: bool
) -> None:
    account = Account("ann", positions={"BOND": position})
    account.hold(order(1, side="sell"), working)
    listed = instrument(short_selling=False)
    check(
        lambda: account.check_position(listed, "sell", qty, 40),
        "position_limit" if is_refused else None,
        "qty",
    )
    account.check_position(listed, "buy", 10, 40)


@pytest.mark.parametrize(
    "cash, reserved, least, cost, is_refused",
    [
        (100, 0, 0, 100, False),
        (100, 0, 0, 101, True),
        (100, 40, 0, 60, False),
        (100, 40, 0, 61, True),
        (100, 40, 20, 40, False),
        (100, 40, 20, 41, True),
        (100, 40, -20, 80, False),
        (100, 40, -20, 81, True),
        (0, 0, None, CASH_MAX, False),
        (0, 0, None, CASH_MAX + 1, True),
        (0, 0, 0, 0, False),
    ],
)
def test_the_least_cash_bounds_what_an_account_may_owe(
    cash: int, reserved: int, least: int | None, cost: int, is_refused: bool
) -> None:
    limits = AccountLimits(min_cash=least)
    account = Account("ann", cash=cash, limits=limits, reserved=reserved)
    check(
        lambda: account.check_funds(cost),
        "insufficient_funds" if is_refused else None,
    )


def check(call: Any, code: str | None, name: str | None = None) -> None:
    """Call; check the code and the field of the refusal, None for none."""
    if code is None:
        return call()
    with pytest.raises(Refused) as refused:
        call()
    assert (refused.value.code, refused.value.field) == (code, name)


def test_no_number_can_leave_what_json_keeps() -> None:
    most_cash = ACCOUNTS_MAX * 2 * CASH_MAX
    assert most_cash + VALUE_MAX <= MAX_INT
