"""What an account has, what it remembers, and who is the richest."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange import accounts
from exchange.accounts import Account, leaderboard
from orderbook import Order, Refused


def order(order_id: int, **more: Any) -> Order:
    fields = {"account": "ann", "side": "buy", "qty": 5, "price": 99, **more}
    return Order(order_id=order_id, **fields)


def finish(account: Account, finished: Order) -> None:
    """Let an order end as the book would, and file it."""
    finished.leaves_qty, finished.order_status = 0, "canceled"
    account.finish(finished)


# Money --------------------------------------------------------------------


@pytest.mark.parametrize(
    "side, price, cash, position",
    [
        ("buy", 99, -396, 4),
        ("sell", 99, 396, -4),
        ("buy", -5, 20, 4),
        ("sell", -5, -20, -4),
        ("buy", 0, 0, 4),
    ],
)
def test_a_fill_moves_quantity_against_cash(
    side: Any, price: int, cash: int, position: int
) -> None:
    account = Account("ann")
    account.settle("BOND", side, price, 4)
    assert (account.cash, account.positions) == (cash, {"BOND": position})


def test_positions_are_kept_by_symbol_and_a_closed_one_is_0() -> None:
    account = Account("ann")
    account.settle("BOND", "buy", 10, 3)
    account.settle("ETF", "sell", 7, 2)
    account.settle("BOND", "sell", 12, 3)
    assert account.cash == -30 + 14 + 36
    assert account.positions == {"BOND": 0, "ETF": -2}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["BOND", "ETF"]),
            st.integers(-10, 10),
            st.integers(1, 9),
        )
    )
)
def test_both_parties_of_a_trade_move_by_opposite_amounts(
    fills: list[tuple[str, int, int]],
) -> None:
    buyer, seller = Account("ann"), Account("bob")
    for symbol, price, qty in fills:
        buyer.settle(symbol, "buy", price, qty)
        seller.settle(symbol, "sell", price, qty)
    assert buyer.cash == -seller.cash
    assert buyer.positions == {
        symbol: -qty for symbol, qty in seller.positions.items()
    }
    assert buyer.equity(lambda _: 3) == -seller.equity(lambda _: 3)


def test_equity_is_cash_and_each_position_at_its_mark() -> None:
    account = Account("ann", cash=-50, positions={"BOND": 3, "ETF": -2})
    assert account.equity({"BOND": 100, "ETF": 7}.__getitem__) == 236


# Orders -------------------------------------------------------------------


def test_an_open_order_is_found_by_either_of_its_ids() -> None:
    account = Account("ann")
    mine, plain = order(1, client_order_id="mine"), order(2)
    account.remember(mine)
    account.remember(plain)
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
def test_an_order_nobody_placed_is_unknown(
    order_id: int | None, client_order_id: str | None, field: str
) -> None:
    account = Account("ann")
    account.remember(order(1, client_order_id="mine"))
    account.remember(order(3))
    with pytest.raises(Refused) as refused:
        account.find(order_id, client_order_id)
    error = refused.value.as_error()
    assert (error.code, error.field) == ("unknown_order", field)
    assert (error.order_id, error.order_status) == (None, None)


@pytest.mark.parametrize("ids", [(1, None), (None, "mine")])
def test_a_finished_order_is_known_as_closed(ids: tuple[Any, Any]) -> None:
    account = Account("ann")
    mine = order(1, client_order_id="mine", cum_qty=2)
    account.remember(mine)
    finish(account, mine)
    with pytest.raises(Refused) as refused:
        account.find(*ids)
    error = refused.value.as_error()
    assert (error.code, error.field) == ("order_closed", None)
    assert error.order_id == 1
    assert (error.order_status, error.cum_qty) == ("canceled", 2)
    assert not account.open_orders


def test_only_the_last_finished_orders_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accounts, "ORDERS_REMEMBERED", 2)
    account = Account("ann")
    orders = {n: order(n, client_order_id=f"c{n}") for n in range(1, 6)}
    orders[4].client_order_id = None
    for each in orders.values():
        account.remember(each)
    for number in (4, 2, 5):
        finish(account, orders[number])
    assert list(account.orders) == [1, 2, 3, 5], "order 4 ended first"
    finish(account, orders[1])
    assert list(account.orders) == [1, 3, 5]
    assert list(account.by_client_order_id) == ["c1", "c3", "c5"]
    assert list(account.open_orders) == [3]


def test_ten_thousand_finished_orders_are_remembered() -> None:
    assert accounts.ORDERS_REMEMBERED == 10_000, "as the protocol promises"


# Sessions -----------------------------------------------------------------


def ids(orders: list[Order]) -> list[int]:
    return [order.order_id for order in orders]


def in_sessions(*sessions: str) -> Account:
    """Return an account with an order in each session, from order 1 on."""
    account = Account("ann")
    for order_id, session in enumerate(sessions, start=1):
        account.remember(order(order_id, session=session))
    return account


def test_the_orders_of_a_session_die_with_its_connection_once() -> None:
    account = in_sessions("a", "b", "a")
    account.connect("a", True)
    account.connect("b", True)
    finish(account, account.orders[1])
    account.remember(order(4, session="a"))
    assert ids(account.disconnect("a")) == [3, 4]
    assert account.disconnect("a") == []
    assert ids(account.disconnect("b")) == [2]


def test_a_session_that_never_began_cannot_end() -> None:
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


def test_the_oldest_ended_sessions_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accounts, "SESSIONS_REMEMBERED", 3)
    account = Account("ann")
    for session in "abc":
        account.connect(session, True)
    account.disconnect("c")
    account.disconnect("b")
    account.connect("b", True)
    account.disconnect("b")
    account.connect("d", True)
    assert list(account.sessions) == ["a", "b", "d"], "c ended; b came back"
    account.connect("e", True)
    account.connect("f", True)
    assert list(account.sessions) == ["a", "d", "e", "f"], "all connected"


# Leaderboard --------------------------------------------------------------


def test_the_richest_come_first_and_equals_share_a_rank() -> None:
    standings = [
        Account("cat", cash=5),
        Account("@exchange", cash=1_000),
        Account("ann", cash=5),
        Account("bob", cash=-7, positions={"BOND": 4}),
        Account("eve"),
        Account("dan", cash=-300, positions={"BOND": 3}),
        Account("fay", cash=5),
    ]
    rows = leaderboard(standings, {"BOND": 100}.__getitem__)
    assert [(row["rank"], row["user"], row["equity"]) for row in rows] == [
        (1, "bob", 393),
        (2, "ann", 5),
        (2, "cat", 5),
        (2, "fay", 5),
        (5, "dan", 0),
        (5, "eve", 0),
    ]
    assert rows[0] == {
        "rank": 1,
        "user": "bob",
        "equity": 393,
        "cash": -7,
        "positions": {"BOND": 4},
    }


def test_a_row_is_not_the_account_itself() -> None:
    account = Account("ann", positions={"BOND": 1})
    (row,) = leaderboard([account], lambda symbol: 1)
    account.settle("BOND", "buy", 1, 1)
    assert row["positions"] == {"BOND": 1}


def test_nobody_is_no_row() -> None:
    assert leaderboard([], lambda symbol: 1) == []
