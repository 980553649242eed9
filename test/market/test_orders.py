"""Amend, cancel, mass cancel; refusals; repeated client order ids."""

from __future__ import annotations

import pytest

from exchange.market.accounts import ORDERS_REMEMBERED
from orderbook import Exec, Place
from test.script import (
    SECOND,
    act,
    apply,
    listed,
    listing,
    parse,
    play,
    refuse,
    tell,
)

# Amend --------------------------------------------------------------------


def test_amend_is_answered_with_amended_then_its_trades() -> None:
    play("""
        given ann sell 5@101
        given bob buy 4@99
        bob amend 2 price=101 qty=7
            bob 2 amended 2 new 0/7
            bob 3 trade 2 partially_filled 5/7 5@101 taker #1
            ann 2 trade 1 filled 5/5 5@101 maker #1
            bob 4 account -505 BOND=5 worth 0
            ann 3 account 505 BOND=-5 worth 0
            * trade BOND 3 #1 5@101 buy
            * book BOND 3 101=2 99=0 | 101=0
        """)


@pytest.mark.parametrize("total", [1, 3, 4])
def test_a_total_at_or_below_what_is_filled_cancels(total: int) -> None:
    play(f"""
        given ann buy 10@99 as=mine
        given bob sell 4@99
        ann amend as=mine qty={total}
            ann 4 canceled 1 canceled 4/10 user
            * book BOND 3 99=0 |
        ann cancel as=mine
            ann error order_closed 1 canceled 4
        """)


def test_an_amended_gtd_order_still_expires() -> None:
    play("""
        given ann buy 5@99 gtd until=10s
        given ann amend 1 price=98
        10s tick
            ann 3 expired 1 expired 0/5 gtd
            * book BOND 3 98=0 |
        """)


# Refusals -----------------------------------------------------------------


def test_a_repeat_of_an_expired_order_is_a_duplicate() -> None:
    engine = play("given bob sell 5@101")
    gtd = Place(
        side="buy",
        qty=1,
        price=90,
        time_in_force="gtd",
        expire_ts=10 * SECOND,
        client_order_id="once",
    )
    (_, new), *_ = apply(engine, gtd, "ann")
    assert isinstance(new, Exec)
    error = refuse(engine, gtd, "ann", 11 * SECOND)
    assert error.code == "duplicate_client_order_id"


@pytest.mark.parametrize(
    "line, code, field",
    [
        ("buy 101@50", "invalid_qty", "qty"),
        ("buy 101@market", "invalid_qty", "qty"),
        ("buy 1@-6", "invalid_price", "price"),
        ("sell 1@51", "invalid_price", "price"),
        ("buy 1@1 symbol=BOND", "unknown_symbol", "symbol"),
        ("cancel_all symbol=BOND", "unknown_symbol", "symbol"),
        ("amend 1 price=-6", "invalid_price", "price"),
        ("amend 1 qty=101", "invalid_qty", "qty"),
        ("cancel 7", "unknown_order", "order_id"),
        ("cancel as=nobody", "unknown_order", "client_order_id"),
        ("amend as=nobody qty=1", "unknown_order", "client_order_id"),
    ],
)
def test_a_value_out_of_bounds_is_refused(
    line: str, code: str, field: str
) -> None:
    engine = listed(listing("ETF", min_price=-5, max_price=50))
    act(engine, "ann buy 5@0")
    error = refuse(engine, parse(line.split()), "ann")
    assert (error.code, error.field) == (code, field)


def test_the_bounds_themselves_are_allowed_and_may_be_negative() -> None:
    play(
        """
        ann buy 100@-5
            ann 1 new 1 new 0/100
            * book ETF 1 -5=100 |
        bob sell 100@-5
            bob 1 new 2 new 0/100
            bob 2 trade 2 filled 100/100 100@-5 taker #1
            ann 2 trade 1 filled 100/100 100@-5 maker #1
            bob 3 account -500 ETF=-100 worth 0
            ann 3 account 500 ETF=100 worth 0
            * trade ETF 2 #1 100@-5 sell
            * book ETF 2 -5=0 |
        bob sell 1@50
            bob 4 new 3 new 0/1
            * book ETF 3 | 50=1
        """,
        listed(listing("ETF", min_price=-5, max_price=50)),
    )


def test_the_symbol_may_be_left_out_only_where_one_is_listed() -> None:
    play("given ann buy 1@99\n")
    play(
        """
        ann buy 1@99
            ann error bad_request symbol
        ann buy 1@99 symbol=ETF
            ann 1 new 1 new 0/1
            * book ETF 1 99=1 |
        """,
        listed("BOND", "ETF"),
    )


def test_another_accounts_order_is_unknown() -> None:
    play("""
        given ann buy 5@99 as=mine
        bob cancel 1
            bob error unknown_order order_id
        bob cancel as=mine
            bob error unknown_order client_order_id
        bob amend 1 qty=1
            bob error unknown_order order_id
        """)


@pytest.mark.parametrize(
    "end, state",
    [
        ("bob sell 5@99", "filled 5"),
        ("ann cancel 1", "canceled 0"),
        ("10s tick", "expired 0"),
    ],
)
def test_order_closed_says_how_the_order_ended(end: str, state: str) -> None:
    play(f"""
        given ann buy 5@99 gtd until=10s as=mine
        given {end}
        ann cancel 1
            ann error order_closed 1 {state}
        ann cancel as=mine
            ann error order_closed 1 {state}
        ann amend 1 price=98
            ann error order_closed 1 {state}
        """)


# Idempotency --------------------------------------------------------------


def test_a_client_order_id_takes_effect_once() -> None:
    duplicate = "ann error duplicate_client_order_id client_order_id 1"
    play(f"""
        given ann buy 5@99 as=mine
        ann buy 5@99 as=mine
            {duplicate} new 0
        given bob sell 2@99
        ann sell 1@500 as=mine
            {duplicate} partially_filled 2
        given ann cancel as=mine
        ann buy 5@99 as=mine
            {duplicate} canceled 2
        """)


def test_accounts_may_use_the_same_client_order_id() -> None:
    play("""
        given ann buy 5@99 as=mine
        bob buy 5@98 as=mine
            bob 1 new 2 new 0/5
            * book BOND 2 98=5 |
        """)


def test_a_refused_order_takes_no_client_order_id() -> None:
    play("""
        given ann buy 500@99 as=mine
        ann buy 5@99 as=mine
            ann 1 new 1 new 0/5
            * book BOND 1 99=5 |
        """)


def test_the_oldest_finished_orders_are_forgotten() -> None:
    kept = ORDERS_REMEMBERED
    engine = play("""
        given ann buy 1@99 as=open
        given ann buy 1@98 ioc as=a
        given ann buy 1@98 ioc as=b
        """)
    for _ in range(kept - 2):
        act(engine, "ann buy 1@98 ioc")
    play(
        f"""
        ann buy 1@98 ioc as=a
            ann error duplicate_client_order_id client_order_id 2 expired 0
        given ann buy 1@98 ioc
        ann cancel 2
            ann error unknown_order order_id
        ann cancel as=b
            ann error order_closed 3 expired 0
        ann buy 1@98 ioc as=open
            ann error duplicate_client_order_id client_order_id 1 new 0
        ann buy 1@98 ioc as=a
            ann {2 * kept + 4} new {kept + 3} new 0/1
            ann {2 * kept + 5} expired {kept + 3} expired 0/1 ioc
        ann cancel as=b
            ann error unknown_order client_order_id
        """,
        engine,
    )


# Mass cancels -------------------------------------------------------------


@pytest.mark.parametrize(
    "selection, canceled",
    [
        ("", [1, 2, 3, 4]),
        ("symbol=BOND", [1, 2]),
        ("side=buy", [1, 3]),
        ("symbol=ETF side=sell", [4]),
        ("symbol=XAU", []),
    ],
)
def test_cancel_all_cancels_what_is_selected_by_order_id(
    selection: str, canceled: list[int]
) -> None:
    engine = play(
        """
        given ann buy 1@99 symbol=BOND
        given ann sell 1@101 symbol=BOND
        given ann buy 1@99 symbol=ETF
        given ann sell 1@101 symbol=ETF
        given bob buy 1@99 symbol=ETF
        given ann amend 1 price=98
        """,
        listed("BOND", "ETF", "XAU"),
    )
    outputs = act(engine, f"ann cancel_all {selection}")
    private = [tell(*output) for output in outputs if output[0]]
    assert private == [f"ann ok {len(canceled)}"] + [
        f"ann {seq} canceled {order_id} canceled 0/1 user"
        for seq, order_id in enumerate(canceled, start=6)
    ]
    assert len(engine.accounts["bob"].open_orders) == 1


def test_cancel_all_changes_each_book_once() -> None:
    play(
        """
        given ann buy 1@99 symbol=ETF
        given ann buy 2@98 symbol=BOND
        given ann sell 3@101 symbol=ETF
        ann cancel_all
            ann ok 3
            ann 4 canceled 1 canceled 0/1 user
            ann 5 canceled 2 canceled 0/2 user
            ann 6 canceled 3 canceled 0/3 user
            * book ETF 3 99=0 | 101=0
            * book BOND 2 98=0 |
        """,
        listed("BOND", "ETF"),
    )
