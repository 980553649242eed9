"""Which of several reasons to refuse is answered, and the collar."""

from __future__ import annotations

from typing import Any

import pytest

from orderbook import Amend, Exec, Place
from test.script import (
    SECOND,
    act,
    apply,
    limited,
    listed,
    listing,
    play,
    reconfigure,
    refuse,
)

# The order of precedence --------------------------------------------------


def test_the_first_fault_of_an_order_is_answered() -> None:
    """The order has every fault at once; the test mends one after another."""
    bond = listing("BOND", max_position=50, reference_price=500, collar=100)
    engine = limited(
        bond, listing("ETF"), cash=10_000, min_cash=0, open_orders=2
    )
    play(
        """
        given bob sell 5@500 symbol=BOND
        given ann buy 3@490 symbol=BOND as=mine
        given op admin phase halted symbol=BOND
        given op admin suspend user=ann
        """,
        engine,
    )
    wrong: dict[str, Any] = {
        "side": "buy",
        "qty": 101,
        "price": 1_001,
        "post_only": True,
        "time_in_force": "gtd",
        "expire_ts": 10 * SECOND,
        "client_order_id": "new",
    }
    two_orders = """
        given op admin phase open symbol=BOND
        given ann buy 2@480 symbol=BOND
        given ann buy 1@480 symbol=ETF as=second
        """
    for code, field, mended in (
        ("bad_request", "expire_ts", {"expire_ts": 60 * SECOND}),
        ("bad_request", "symbol", {"symbol": "NONE"}),
        ("forbidden", None, {"client_order_id": "mine"}),
        ("unknown_symbol", "symbol", {"symbol": "BOND"}),
        (
            "duplicate_client_order_id",
            "client_order_id",
            {"client_order_id": "new"},
        ),
        ("market_closed", None, two_orders),
        ("invalid_qty", "qty", {"qty": 100}),
        ("invalid_price", "price", {"price": 1_000}),
        ("invalid_price", "price", {"price": 600}),
        ("too_many_orders", None, "given ann cancel as=second"),
        ("position_limit", "qty", {"qty": 48}),
        (
            "insufficient_funds",
            None,
            "given op admin adjust user=ann cash=20000",
        ),
        ("would_take", "price", {"price": 499}),
    ):
        ts = max(engine.ts + 1, 10 * SECOND)
        error = refuse(engine, Place(**wrong), "ann", ts)
        assert (error.code, error.field) == (code, field)
        beyond_collar = wrong["price"] == 1_000 and code == "invalid_price"
        assert ("reference" in error.message) == beyond_collar
        if code == "forbidden":
            play("given op admin resume user=ann", engine)
        if isinstance(mended, str):
            play(mended, engine)
        else:
            wrong |= mended
    (_, new), *_ = apply(engine, Place(**wrong), "ann")
    assert isinstance(new, Exec) and new.exec_type == "new"


def test_the_first_fault_of_an_amend_is_answered() -> None:
    bond = listing("BOND", max_position=50, reference_price=500, collar=100)
    engine = limited(bond, cash=10_000, min_cash=0)
    play(
        """
        given ann buy 5@500
        given bob sell 5@500
        given bob sell 5@500
        given op admin suspend user=ann
        """,
        engine,
    )
    wrong: dict[str, Any] = {"order_id": 3, "qty": 101, "price": 1_001}
    for code, field, mended in (
        (
            "forbidden",
            None,
            """
            given op admin resume user=ann
            given ann buy 5@499 post_only
            given op admin phase halted
            """,
        ),
        ("unknown_order", "order_id", {"order_id": 1}),
        ("order_closed", None, {"order_id": 4}),
        ("market_closed", None, "given op admin phase open"),
        ("invalid_qty", "qty", {"qty": 100}),
        ("invalid_price", "price", {"price": 1_000}),
        ("invalid_price", "price", {"price": 600}),
        ("position_limit", "qty", {"qty": 45}),
        (
            "insufficient_funds",
            None,
            "given op admin adjust user=ann cash=20000",
        ),
        ("would_take", "price", {"price": 498}),
    ):
        error = refuse(engine, Amend(**wrong), "ann")
        assert (error.code, error.field) == (code, field)
        beyond_collar = wrong["price"] == 1_000 and code == "invalid_price"
        assert ("reference" in error.message) == beyond_collar
        if isinstance(mended, str):
            play(mended, engine)
        else:
            wrong |= mended
    (_, amended), *_ = apply(engine, Amend(**wrong), "ann")
    assert isinstance(amended, Exec) and amended.exec_type == "amended"


@pytest.mark.parametrize(
    "before, line, expected",
    [
        ("tick", "20s ann buy 1@99 gtd until=20s", "bad_request expire_ts"),
        ("op admin suspend user=ann", "ann buy 1@99", "forbidden"),
        ("op admin suspend user=ann", "ann amend 2 qty=1", "forbidden"),
        ("tick", "ann buy 1@99 symbol=NONE", "unknown_symbol symbol"),
        (
            "tick",
            "ann buy 1@99 as=mine",
            "duplicate_client_order_id client_order_id",
        ),
        ("tick", "ann amend 1 qty=1", "unknown_order order_id"),
        ("tick", "ann amend as=no qty=1", "unknown_order client_order_id"),
        ("ann cancel 2", "ann amend 2 qty=1", "order_closed"),
        ("op admin phase halted", "ann buy 1@99", "market_closed"),
        ("op admin phase halted", "ann amend 2 qty=1", "market_closed"),
        ("tick", "ann sell 10@104", "invalid_qty qty"),
        ("tick", "ann amend 2 qty=10", "invalid_qty qty"),
        ("tick", "ann buy 1@0", "invalid_price price"),
        ("tick", "ann amend 2 price=0", "invalid_price price"),
        ("tick", "ann buy 1@111", "invalid_price price"),
        ("tick", "ann amend 2 price=111", "invalid_price price"),
        ("ann buy 1@50", "ann buy 1@50", "too_many_orders"),
        ("tick", "ann buy 9@50", "position_limit qty"),
        ("ann buy 5@10", "ann amend 2 qty=9", "position_limit qty"),
        ("tick", "ann buy 7@100", "insufficient_funds"),
        ("ann buy 2@50", "ann amend 2 qty=9 price=101", "insufficient_funds"),
        ("tick", "ann buy 1@104 post_only", "would_take price"),
        ("tick", "ann amend 2 price=104", "would_take price"),
    ],
)
def test_each_refusal_alone(before: str, line: str, expected: str) -> None:
    play(
        f"""
        bob sell 5@104                 -> ok
        ann buy 5@80 post_only as=mine -> ok
        given {before}
        {line}                         -> {expected}
        """,
        limited(
            listing(
                max_qty=9, max_position=13, reference_price=100, collar=10
            ),
            cash=1_000,
            min_cash=0,
            open_orders=2,
        ),
    )


def test_a_repeat_is_a_duplicate_whatever_else_is_wrong() -> None:
    engine = play("""
        given ann buy 5@99 as=mine gtd until=5s
        given op admin phase halted
        given op admin suspend user=ann
        9s ann buy 500@5000 as=mine gtd until=5s
            ann error duplicate_client_order_id client_order_id 1 canceled 0
        ann buy 5@99 as=other gtd until=5s
            ann error bad_request expire_ts
        ann buy 5@99 as=other
            ann error forbidden
        """)
    reconfigure(engine, instruments=(listing("BOND"), listing("ETF")))
    play("ann buy 5@99 as=mine -> bad_request symbol", engine)
    play("ann buy 5@99 as=mine symbol=NONE -> unknown_symbol symbol", engine)


# The collar ---------------------------------------------------------------


def test_the_collar_is_around_the_last_price() -> None:
    """The last price is 100, then 110 after bob's sale, then 100 again."""
    play(
        """
        ann buy 1@111      -> invalid_price price
        ann buy 1@110      -> ok
        ann sell 1@89      -> invalid_price price
        ann buy 1@1        -> ok
        bob sell 1@1000    -> ok
        bob sell 1@90      -> ok
        bob sell 1@99      -> invalid_price price
        bob sell 1@100     -> ok
        ann buy 1@121      -> invalid_price price
        ann buy 1@120      -> ok
        ann buy 1@111 ioc  -> invalid_price price
        ann buy 1@110 ioc  -> ok
        """,
        limited(listing(reference_price=100, collar=10)),
    )


def test_a_market_order_goes_to_the_edge_of_the_collar() -> None:
    play(
        """
        given ann sell 5@108
        given ann sell 5@110
        given ann sell 5@111
        bob buy 50@market
            bob 1 new 4 new 0/50
            bob 2 trade 4 partially_filled 5/50 5@108 taker #1
            ann 4 trade 1 filled 5/5 5@108 maker #1
            bob 3 trade 4 partially_filled 10/50 5@110 taker #2
            ann 5 trade 2 filled 5/5 5@110 maker #2
            bob 4 expired 4 expired 10/50 no_liquidity
            bob 5 account -1090 BOND=10 worth 10
            ann 6 account 1090 BOND=-10 worth -10
            * trade BOND 4 #1 5@108 buy
            * trade BOND 4 #2 5@110 buy
            * book BOND 4 | 108=0 110=0
        bob buy 6@market fok
            bob 6 new 5 new 0/6
            bob 7 expired 5 expired 0/6 fok
        given bob buy 5@101
        given bob buy 5@99
        ann sell 50@market
            ann 7 new 8 new 0/50
            ann 8 trade 8 partially_filled 5/50 5@101 taker #3
            bob 10 trade 6 filled 5/5 5@101 maker #3
            ann 9 expired 8 expired 5/50 no_liquidity
            ann 10 account 1595 BOND=-15 worth 80
            bob 11 account -1595 BOND=15 worth -80
            * trade BOND 7 #3 5@101 sell
            * book BOND 7 101=0 |
        """,
        listed(listing(reference_price=100, collar=10)),
    )


def test_an_amend_meets_the_collar_only_with_a_price() -> None:
    engine = limited(listing(reference_price=100, collar=10))
    act(engine, "ann buy 5@108")
    narrower = listing(reference_price=100, collar=5)
    reconfigure(engine, instruments=(narrower,))
    play(
        """
        ann amend 1 qty=6            -> ok
        ann amend 1 price=108        -> invalid_price price
        ann amend 1 price=108 qty=3  -> invalid_price price
        ann amend 1 price=105        -> ok
        ann sell 5@95                -> ok
        ann amend 2 price=94         -> invalid_price price
        ann amend 2 price=999        -> ok
        """,
        engine,
    )
