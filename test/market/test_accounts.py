"""Accounts: money, orders, sessions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.market.accounts import (
    ORDERS_REMEMBERED,
    SESSIONS_REMEMBERED,
    Account,
    AccountLimits,
)
from orderbook import Order, Refused


def order(order_id: int, **more: Any) -> Order:
    fields = {"account": "ann", "side": "buy", "qty": 5, "price": 99, **more}
    placed = Order(order_id=order_id, **fields)
    placed.leaves_qty = placed.qty
    return placed


def finish(account: Account, finished: Order) -> None:
    """End an order as the book does, and tell its account."""
    finished.leaves_qty, finished.order_status = 0, "canceled"
    account.archive(finished)


# Money ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "bought, price, fee, cash",
    [
        (4, 99, 0, -396),
        (-4, 99, 0, 396),
        (4, -5, 0, 20),
        (-4, -5, 0, -20),
        (4, 0, 0, 0),
        (4, 99, 3, -399),
        (-4, 99, 3, 393),
        (4, 99, -3, -393),
    ],
)
def test_a_fill_moves_quantity_against_cash(
    bought: int, price: int, fee: int, cash: int
) -> None:
    account = Account("ann")
    account.book_fill("BOND", bought, price, fee)
    assert (account.cash, account.positions) == (cash, {"BOND": bought})
    assert account.realized == -fee


def test_positions_are_kept_by_symbol_and_a_closed_one_is_0() -> None:
    account = Account("ann")
    account.book_fill("BOND", 3, 10, 0)
    account.book_fill("ETF", -2, 7, 0)
    account.book_fill("BOND", -3, 12, 0)
    assert account.cash == -30 + 14 + 36
    assert account.positions == {"BOND": 0, "ETF": -2}
    assert account.costs == {"BOND": 0, "ETF": -14}


FILLS = st.lists(
    st.tuples(
        st.sampled_from(["BOND", "ETF"]),
        st.integers(-9, 9).filter(bool),
        st.integers(-10, 10),
        st.integers(-3, 3),
    )
)


@given(FILLS)
def test_both_parties_of_a_trade_move_by_opposite_amounts(
    fills: list[tuple[str, int, int, int]],
) -> None:
    buyer, seller = Account("ann"), Account("bob")
    for symbol, qty, price, _ in fills:
        buyer.book_fill(symbol, qty, price, 0)
        seller.book_fill(symbol, -qty, price, 0)
    assert buyer.cash == -seller.cash
    assert buyer.positions == {
        symbol: -qty for symbol, qty in seller.positions.items()
    }
    assert buyer.equity(lambda _: 3) == -seller.equity(lambda _: 3)


# Lots bought so far (below 0: sold) and their price; a fill; then the
# position, its cost, and the realized profit.
PROFITS = {
    "open": ([], (5, 100), 5, 500, 0),
    "add": ([(5, 100)], (3, 110), 8, 830, 0),
    "reduce": ([(5, 100), (3, 108)], (-4, 110), 4, 412, 4 * 110 - 412),
    "reduce at a loss": ([(5, 100)], (-2, 90), 3, 300, -20),
    "close": ([(5, 100)], (-5, 101), 0, 0, 5),
    "turn over": ([(5, 100)], (-8, 101), -3, -303, 5),
    "open short": ([], (-5, 100), -5, -500, 0),
    "add short": ([(-5, 100)], (-3, 110), -8, -830, 0),
    "reduce short": ([(-5, 100)], (2, 90), -3, -300, 20),
    "reduce short at a loss": ([(-5, 100)], (2, 110), -3, -300, -20),
    "close short": ([(-5, 100)], (5, 99), 0, 0, 5),
    "turn short over": ([(-5, 100)], (8, 99), 3, 297, 5),
    "open anew": ([(5, 100), (-5, 100)], (2, 7), 2, 14, 0),
    # A third of 301 is 100.33..: the closed lot costs 100.
    "round": ([(2, 100), (1, 101)], (-1, 100), 2, 201, 0),
    # A third of -301 is -100.33..: rounded down it is -101.
    "round short": ([(-2, 100), (-1, 101)], (1, 100), -2, -200, 1),
    "below zero": ([(2, -5)], (-1, 3), 1, -5, 8),
    "short below zero": ([(-2, -5)], (1, -9), -1, 5, 4),
}


@pytest.mark.parametrize(
    "before, fill, left, cost, made", PROFITS.values(), ids=PROFITS
)
def test_profit_goes_by_average_cost(
    before: list[tuple[int, int]],
    fill: tuple[int, int],
    left: int,
    cost: int,
    made: int,
) -> None:
    account = Account("ann")
    for qty, price in before:
        account.book_fill("BOND", qty, price, 0)
    assert account.realized == 0
    account.book_fill("BOND", *fill, 0)
    assert account.positions == {"BOND": left}
    assert account.costs == {"BOND": cost}
    assert account.realized == made
    equity = account.equity(lambda _: 103)
    assert account.unrealized(equity) == 103 * left - cost


def test_fees_and_rebates_change_realized_profit_not_the_cost() -> None:
    account = Account("ann", cash=1_000)
    account.book_fill("BOND", 5, 100, 10)
    account.book_fill("BOND", -5, 102, -5)
    assert account.cash == 1_000 - 500 - 10 + 510 + 5
    assert (account.realized, account.costs) == (5, {"BOND": 0})


@given(FILLS, st.integers(-12, 12))
def test_equity_is_the_start_and_what_was_made_to_the_unit(
    fills: list[tuple[str, int, int, int]], mark: int
) -> None:
    account = Account("ann", cash=77)
    for symbol, qty, price, fee in fills:
        account.book_fill(symbol, qty, price, fee)
        equity = account.equity(lambda _: mark)
        assert equity == 77 + account.realized + account.unrealized(equity)


@given(st.lists(st.integers(-9, 9).filter(bool)), st.data())
def test_rounding_never_adds_up(qtys: list[int], data: st.DataObject) -> None:
    """A cost is within a tick times lot of the exact one for each closing."""
    account = Account("ann")
    exact, position, closings = Fraction(), 0, 0
    for qty in qtys:
        price = data.draw(st.integers(-10, 10))
        account.book_fill("BOND", qty, price, 0)
        if position * qty >= 0:
            exact += qty * price
        elif abs(qty) < abs(position):
            exact += exact * qty / abs(position) * (1 if position > 0 else -1)
            closings += 1
        else:
            exact, closings = Fraction(price * (position + qty)), 0
        position += qty
        assert 0 <= account.costs["BOND"] - exact <= closings


def test_adjusted_lots_cost_their_mark() -> None:
    account = Account("ann", cash=50)
    account.move("BOND", 3, 100)
    assert (account.cash, account.realized) == (50, 0)
    assert (account.positions, account.costs) == ({"BOND": 3}, {"BOND": 300})
    assert account.unrealized(account.equity(lambda _: 100)) == 0


def test_equity_is_cash_and_each_position_at_its_mark() -> None:
    account = Account("ann", cash=-50, positions={"BOND": 3, "ETF": -2})
    assert account.equity({"BOND": 100, "ETF": 7}.__getitem__) == 236


# Orders ---------------------------------------------------------------------


def test_an_open_order_is_found_by_either_of_its_ids() -> None:
    account = Account("ann")
    mine, plain = order(1, client_order_id="mine"), order(2)
    account.accept(mine)
    account.accept(plain)
    assert account.find(1, None) is account.find(None, "mine") is mine
    assert account.find(2, None) is plain
    assert list(account.open_orders) == [1, 2]


@pytest.mark.parametrize(
    "order_id, client_order_id, field",
    [
        (2, None, "order_id"),
        (0, None, "order_id"),
        (None, "other", "client_order_id"),
    ],
)
def test_an_order_that_was_never_placed_is_unknown(
    order_id: int | None, client_order_id: str | None, field: str
) -> None:
    account = Account("ann")
    account.accept(order(1, client_order_id="mine"))
    account.accept(order(3))
    with pytest.raises(Refused) as refused:
        account.find(order_id, client_order_id)
    error = refused.value.as_error()
    assert (error.code, error.field) == ("unknown_order", field)
    assert (error.order_id, error.order_status) == (None, None)


@pytest.mark.parametrize("ids", [(1, None), (None, "mine")])
def test_a_finished_order_is_known_as_closed(ids: tuple[Any, Any]) -> None:
    account = Account("ann")
    mine = order(1, client_order_id="mine", cum_qty=2)
    account.accept(mine)
    finish(account, mine)
    with pytest.raises(Refused) as refused:
        account.find(*ids)
    error = refused.value.as_error()
    assert (error.code, error.field) == ("order_closed", None)
    assert error.order_id == 1
    assert (error.order_status, error.cum_qty) == ("canceled", 2)
    assert not account.open_orders


def test_the_last_ten_thousand_finished_orders_are_remembered() -> None:
    count = ORDERS_REMEMBERED + 2
    assert ORDERS_REMEMBERED == 10_000, "as the protocol promises"
    account = Account("ann")
    orders = [order(n, client_order_id=f"c{n}") for n in range(1, count + 1)]
    for each in orders:
        account.accept(each)
    first, second, third, fourth, *rest = orders
    for each in (fourth, second, first, *rest):
        finish(account, each)
    ids = set(range(1, count + 1))
    assert set(account.orders) == ids - {4}, "order 4 ended first"
    finish(account, third)
    assert set(account.orders) == ids - {2, 4}
    names = {f"c{n}" for n in ids - {2, 4}}
    assert set(account.by_client_order_id) == names
    assert not account.open_orders


# Sessions -------------------------------------------------------------------


def ids(orders: list[Order]) -> list[int]:
    return [order.order_id for order in orders]


def in_sessions(*sessions: str) -> Account:
    """Return an account with an order in each session, from order 1 on."""
    account = Account("ann")
    for order_id, session in enumerate(sessions, start=1):
        account.accept(order(order_id, session=session))
    return account


def test_the_orders_of_a_session_die_with_its_connection_once() -> None:
    account = in_sessions("a", "b", "a")
    account.connect("a", True)
    account.connect("b", True)
    finish(account, account.orders[1])
    account.accept(order(4, session="a"))
    assert ids(account.disconnect("a")) == [3, 4]
    assert account.disconnect("a") == []
    assert ids(account.disconnect("b")) == [2]


def test_disconnecting_an_unknown_session_does_nothing() -> None:
    assert in_sessions("a").disconnect("a") == []


@pytest.mark.parametrize("modes", [(True, False), (False, True)])
def test_the_last_login_says_whether_orders_stay(
    modes: tuple[bool, bool],
) -> None:
    account = in_sessions("a")
    for cancel_on_disconnect in modes:
        account.connect("a", cancel_on_disconnect)
    assert ids(account.disconnect("a")) == ([1] if modes[-1] else [])


def test_a_session_that_ended_may_begin_again() -> None:
    account = in_sessions("a")
    account.connect("a", False)
    assert account.disconnect("a") == []
    account.connect("a", True)
    assert ids(account.disconnect("a")) == [1]


def test_the_oldest_ended_sessions_are_forgotten() -> None:
    account = Account("ann")
    full = [f"s{number}" for number in range(SESSIONS_REMEMBERED)]
    for session in full:
        account.connect(session, True)
    for session in ("s2", "s1"):
        account.disconnect(session)
    account.connect("s1", True)
    account.disconnect("s1")
    account.connect("d", True)
    kept = [session for session in full if session not in ("s1", "s2")]
    assert list(account.sessions) == [*kept, "s1", "d"], "s2 ended first"
    account.connect("e", True)
    account.connect("f", True)
    assert list(account.sessions) == [*kept, "d", "e", "f"], "all connected"


def test_a_free_order_is_accepted_below_the_least_cash() -> None:
    account = Account("ann", -1_500, AccountLimits(min_cash=0))
    account.check_funds(0)
    with pytest.raises(Refused, match="could cost 1; the account has 0 free"):
        account.check_funds(1)
