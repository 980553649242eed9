"""What the engine answers to each command, and to whom, in which order.

Scripts are in the words of `test.script`. The second half leads the engine
through random flows, and rebuilds all that it knows from the events only.

``python -m test.market.test_engine SEED`` prints the events of one of those
flows.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.market import accounts, timers
from exchange.market.accounts import HOUSE, AccountLimits
from exchange.market.command import (
    PUBLIC,
    Action,
    ClockStep,
    Command,
    Configure,
    Connect,
    Disconnect,
    Output,
    Restart,
    Shutdown,
    TimePassed,
)
from exchange.market.engine import Engine
from orderbook import (
    ADMIN_ARGUMENTS,
    AccountReport,
    Admin,
    Amend,
    BookUpdate,
    Cancel,
    CancelAfter,
    CancelAll,
    Error,
    Exec,
    Instrument,
    Ok,
    Place,
    Refused,
    Status,
    Trade,
    encode,
)
from test.market.test_auction import by_trying
from test.script import (
    PHASES,
    SECOND,
    STP,
    act,
    apply,
    in_full,
    listed,
    listing,
    parse,
    play,
    refuse,
    tell,
)

ROOT = Path(__file__).parents[2]
ADMIN_ACTIONS = tuple(ADMIN_ARGUMENTS)

# What is told, to whom, in which order ------------------------------------


def test_an_order_that_rests_is_told_to_its_owner_and_shown() -> None:
    play("""
        ann buy 10@99
            ann 1 new 1 new 0/10
            * book BOND 1 99=10 |
        bob sell 7@101
            bob 1 new 2 new 0/7
            * book BOND 2 | 101=7
        ann buy 5@99
            ann 2 new 3 new 0/5
            * book BOND 3 99=15 |
        """)


def test_at_each_match_the_taker_is_told_and_then_the_maker() -> None:
    play("""
        given ann sell 5@101
        given bob sell 5@102
        given ann sell 5@103
        cat buy 12@103
            cat 1 new 4 new 0/12
            cat 2 trade 4 partially_filled 5/12 5@101 taker #1
            ann 3 trade 1 filled 5/5 5@101 maker #1
            cat 3 trade 4 partially_filled 10/12 5@102 taker #2
            bob 2 trade 2 filled 5/5 5@102 maker #2
            cat 4 trade 4 filled 12/12 2@103 taker #3
            ann 4 trade 3 partially_filled 2/5 2@103 maker #3
            cat 5 account -1221 BOND=12 worth 15
            ann 5 account 711 BOND=-7 worth -10
            bob 3 account 510 BOND=-5 worth -5
            * trade BOND 4 #1 5@101 buy
            * trade BOND 4 #2 5@102 buy
            * trade BOND 4 #3 2@103 buy
            * book BOND 4 | 101=0 102=0 103=3
        """)


def test_what_is_left_of_an_arriving_order_rests() -> None:
    play("""
        given ann buy 4@100
        bob sell 10@99
            bob 1 new 2 new 0/10
            bob 2 trade 2 partially_filled 4/10 4@100 taker #1
            ann 2 trade 1 filled 4/4 4@100 maker #1
            bob 3 account 400 BOND=-4 worth 0
            ann 3 account -400 BOND=4 worth 0
            * trade BOND 2 #1 4@100 sell
            * book BOND 2 100=0 | 99=6
        ann buy 1@99
            ann 4 new 3 new 0/1
            ann 5 trade 3 filled 1/1 1@99 taker #2
            bob 4 trade 2 partially_filled 5/10 1@99 maker #2
            ann 6 account -499 BOND=5 worth -4
            bob 5 account 499 BOND=-5 worth 4
            * trade BOND 3 #2 1@99 buy
            * book BOND 3 | 99=5
        """)


def test_an_account_that_did_not_trade_gets_no_account_report() -> None:
    play("""
        given ann sell 5@101
        given bob sell 5@101
        cat buy 5@101 ioc
            cat 1 new 3 new 0/5
            cat 2 trade 3 filled 5/5 5@101 taker #1
            ann 2 trade 1 filled 5/5 5@101 maker #1
            cat 3 account -505 BOND=5 worth 0
            ann 3 account 505 BOND=-5 worth 0
            * trade BOND 3 #1 5@101 buy
            * book BOND 3 | 101=5
        """)


def test_a_cancel_is_told_to_its_owner_and_shown() -> None:
    play("""
        given ann buy 10@99
        given bob sell 4@99
        ann cancel 1
            ann 4 canceled 1 canceled 4/10 user
            * book BOND 3 99=0 |
        """)


def test_the_symbols_seq_counts_only_what_can_be_seen() -> None:
    play("""
        ann buy 5@99 ioc
            ann 1 new 1 new 0/5
            ann 2 expired 1 expired 0/5 ioc
        ann buy 5@99
            ann 3 new 2 new 0/5
            * book BOND 1 99=5 |
        ann amend 2 qty=5
            ann 4 amended 2 new 0/5
        ann amend 2 price=99
            ann 5 amended 2 new 0/5
        ann cancel 9
            ann error unknown_order order_id
        ann cancel_after 1000
            ann ok
        ann amend 2 qty=4
            ann 6 amended 2 new 0/4
            * book BOND 2 99=4 |
        """)


def test_symbols_count_their_seq_and_trades_and_accounts_theirs() -> None:
    play(
        """
        ann sell 5@101 symbol=ETF
            ann 1 new 1 new 0/5
            * book ETF 1 | 101=5
        ann sell 5@101 symbol=BOND
            ann 2 new 2 new 0/5
            * book BOND 1 | 101=5
        bob buy 1@101 symbol=ETF
            bob 1 new 3 new 0/1
            bob 2 trade 3 filled 1/1 1@101 taker #1
            ann 3 trade 1 partially_filled 1/5 1@101 maker #1
            bob 3 account -101 ETF=1 worth 0
            ann 4 account 101 ETF=-1 worth 0
            * trade ETF 2 #1 1@101 buy
            * book ETF 2 | 101=4
        bob buy 2@101 symbol=BOND
            bob 4 new 4 new 0/2
            bob 5 trade 4 filled 2/2 2@101 taker #1
            ann 5 trade 2 partially_filled 2/5 2@101 maker #1
            bob 6 account -303 ETF=1 BOND=2 worth 0
            ann 6 account 303 ETF=-1 BOND=-2 worth 0
            * trade BOND 2 #1 2@101 buy
            * book BOND 2 | 101=3
        """,
        listed("BOND", "ETF"),
    )


def test_a_refused_order_uses_no_order_id_up() -> None:
    play("""
        given ann sell 5@101
        bob buy 5@101 post_only
            bob error would_take price
        bob buy 5@100 post_only
            bob 1 new 2 new 0/5
            * book BOND 2 100=5 |
        """)


def test_reports_carry_every_field_of_the_order() -> None:
    def wire(output: Output) -> dict[str, Any]:
        return {"to": output[0], **json.loads(encode(output[1]))}

    engine = play("given ann sell 4@101 as=quote")
    request = Place(
        id=7,
        symbol="BOND",
        side="buy",
        qty=10,
        price=102,
        time_in_force="gtd",
        expire_ts=60 * SECOND,
        stp="cancel_both",
        client_order_id="mine",
    )
    outputs = apply(engine, request, "bob", ts=5 * SECOND)
    taker = {
        "to": "bob",
        "type": "exec",
        "ts": 5 * SECOND,
        "order_id": 2,
        "client_order_id": "mine",
        "symbol": "BOND",
        "side": "buy",
        "price": 102,
        "qty": 10,
        "time_in_force": "gtd",
        "expire_ts": 60 * SECOND,
        "stp": "cancel_both",
    }
    fill = {"last_qty": 4, "last_price": 101, "trade_id": 1, "fee": 0}
    public = {"to": PUBLIC, "symbol": "BOND", "seq": 2, "ts": 5 * SECOND}
    report = {"type": "account", "ts": 5 * SECOND, "seq": 3, "equity": 0}
    assert [wire(output) for output in outputs] == [
        taker
        | {"seq": 1, "exec_type": "new", "order_status": "new"}
        | {"cum_qty": 0, "leaves_qty": 10},
        taker
        | {"seq": 2, "exec_type": "trade", "order_status": "partially_filled"}
        | {"cum_qty": 4, "leaves_qty": 6, "cum_cost": 404}
        | {**fill, "liquidity": "taker"},
        {
            "to": "ann",
            "type": "exec",
            "seq": 2,
            "ts": 5 * SECOND,
            "exec_type": "trade",
            "order_id": 1,
            "client_order_id": "quote",
            "symbol": "BOND",
            "side": "sell",
            "order_status": "filled",
            "price": 101,
            "qty": 4,
            "cum_qty": 4,
            "leaves_qty": 0,
            "cum_cost": 404,
            **fill,
            "liquidity": "maker",
        },
        report | {"to": "bob", "cash": -404, "positions": {"BOND": 4}},
        report | {"to": "ann", "cash": 404, "positions": {"BOND": -4}},
        public
        | {"type": "trade", "trade_id": 1}
        | {"price": 101, "qty": 4, "side": "buy"},
        public
        | {"type": "book", "prev_seq": 1}
        | {"bids": [[102, 6]], "asks": [[101, 0]]},
    ]
    canceled, _ = apply(engine, Cancel(client_order_id="mine"), "bob")
    ended = {"seq": 4, "exec_type": "canceled", "order_status": "canceled"}
    assert wire(canceled) == taker | ended | {
        "ts": 5 * SECOND + 1,
        "cum_qty": 4,
        "leaves_qty": 0,
        "cum_cost": 404,
        "reason": "user",
    }


def test_a_market_order_is_reported_without_price() -> None:
    engine = listed("BOND")
    (_, new), _ = apply(
        engine, Place(side="buy", qty=1, order_type="market"), "ann"
    )
    assert json.loads(encode(new)) == {
        "type": "exec",
        "seq": 1,
        "ts": 2,
        "exec_type": "new",
        "order_id": 1,
        "symbol": "BOND",
        "side": "buy",
        "order_status": "new",
        "qty": 1,
        "cum_qty": 0,
        "leaves_qty": 1,
        "order_type": "market",
        "time_in_force": "ioc",
    }


# Kinds of orders ----------------------------------------------------------


def test_ioc_trades_what_it_can_and_the_rest_expires() -> None:
    play("""
        given ann sell 5@101
        given ann sell 5@102
        bob buy 8@101 ioc
            bob 1 new 3 new 0/8
            bob 2 trade 3 partially_filled 5/8 5@101 taker #1
            ann 3 trade 1 filled 5/5 5@101 maker #1
            bob 3 expired 3 expired 5/8 ioc
            bob 4 account -505 BOND=5 worth 0
            ann 4 account 505 BOND=-5 worth 0
            * trade BOND 3 #1 5@101 buy
            * book BOND 3 | 101=0
        """)


def test_market_takes_any_price_and_the_rest_expires() -> None:
    play("""
        bob buy 8@market
            bob 1 new 1 new 0/8
            bob 2 expired 1 expired 0/8 no_liquidity
        given ann sell 5@101
        given ann sell 1@1000
        bob buy 8@market
            bob 3 new 4 new 0/8
            bob 4 trade 4 partially_filled 5/8 5@101 taker #1
            ann 3 trade 2 filled 5/5 5@101 maker #1
            bob 5 trade 4 partially_filled 6/8 1@1000 taker #2
            ann 4 trade 3 filled 1/1 1@1000 maker #2
            bob 6 expired 4 expired 6/8 no_liquidity
            bob 7 account -1505 BOND=6 worth 4495
            ann 5 account 1505 BOND=-6 worth -4495
            * trade BOND 3 #1 5@101 buy
            * trade BOND 3 #2 1@1000 buy
            * book BOND 3 | 101=0 1000=0
        """)


def test_fok_is_filled_whole_or_not_at_all() -> None:
    play("""
        given ann sell 5@101
        given ann sell 5@102
        bob buy 8@101 fok
            bob 1 new 3 new 0/8
            bob 2 expired 3 expired 0/8 fok
        bob buy 11@market fok
            bob 3 new 4 new 0/11
            bob 4 expired 4 expired 0/11 fok
        bob buy 8@102 fok
            bob 5 new 5 new 0/8
            bob 6 trade 5 partially_filled 5/8 5@101 taker #1
            ann 3 trade 1 filled 5/5 5@101 maker #1
            bob 7 trade 5 filled 8/8 3@102 taker #2
            ann 4 trade 2 partially_filled 3/5 3@102 maker #2
            bob 8 account -811 BOND=8 worth 5
            ann 5 account 811 BOND=-8 worth -5
            * trade BOND 3 #1 5@101 buy
            * trade BOND 3 #2 3@102 buy
            * book BOND 3 | 101=0 102=2
        """)


def test_fok_does_not_count_ones_own_orders() -> None:
    play("""
        given ann sell 5@101
        given bob sell 5@101
        ann buy 6@101 fok
            ann 2 new 3 new 0/6
            ann 3 expired 3 expired 0/6 fok
        """)


def test_post_only_never_takes_not_even_from_oneself() -> None:
    play("""
        given ann sell 5@101
        bob buy 5@101 post_only
            bob error would_take price
        ann buy 5@102 post_only
            ann error would_take price
        bob buy 5@100 post_only
            bob 1 new 2 new 0/5
            * book BOND 2 100=5 |
        """)


def test_gtd_lives_while_the_time_is_before_its_expiry() -> None:
    play("""
        given ann buy 5@99 gtd until=10s
        9s tick
        given bob sell 2@99
        10s tick
            ann 4 expired 1 expired 2/5 gtd
            * book BOND 3 99=0 |
        11s tick
        """)


# Self-trade prevention ----------------------------------------------------


def test_cancel_oldest_gives_way_at_its_place_in_the_sweep() -> None:
    play("""
        given bob sell 1@100
        given ann sell 2@101
        given cat sell 3@101
        ann buy 10@101
            ann 2 new 4 new 0/10
            ann 3 trade 4 partially_filled 1/10 1@100 taker #1
            bob 2 trade 1 filled 1/1 1@100 maker #1
            ann 4 canceled 2 canceled 0/2 stp
            ann 5 trade 4 partially_filled 4/10 3@101 taker #2
            cat 2 trade 3 filled 3/3 3@101 maker #2
            ann 6 account -403 BOND=4 worth 1
            bob 3 account 100 BOND=-1 worth -1
            cat 3 account 303 BOND=-3 worth 0
            * trade BOND 4 #1 1@100 buy
            * trade BOND 4 #2 3@101 buy
            * book BOND 4 101=6 | 100=0 101=0
        """)


def test_cancel_newest_stops_and_earlier_fills_stand() -> None:
    play("""
        given bob sell 1@100
        given ann sell 2@101
        ann buy 10@101 cancel_newest
            ann 2 new 3 new 0/10
            ann 3 trade 3 partially_filled 1/10 1@100 taker #1
            bob 2 trade 1 filled 1/1 1@100 maker #1
            ann 4 canceled 3 canceled 1/10 stp
            ann 5 account -100 BOND=1 worth 0
            bob 3 account 100 BOND=-1 worth 0
            * trade BOND 3 #1 1@100 buy
            * book BOND 3 | 100=0
        ann buy 10@101 cancel_newest
            ann 6 new 4 new 0/10
            ann 7 canceled 4 canceled 0/10 stp
        """)


def test_cancel_both_does_both() -> None:
    play("""
        given ann sell 2@101
        given bob sell 2@101
        ann buy 10@101 cancel_both
            ann 2 new 3 new 0/10
            ann 3 canceled 1 canceled 0/2 stp
            ann 4 canceled 3 canceled 0/10 stp
            * book BOND 3 | 101=2
        """)


def test_the_arriving_orders_mode_decides() -> None:
    play("""
        given ann sell 2@101 cancel_newest
        ann buy 2@101
            ann 2 new 2 new 0/2
            ann 3 canceled 1 canceled 0/2 stp
            * book BOND 2 101=2 | 101=0
        """)


# Amend --------------------------------------------------------------------


def test_amend_is_answered_with_amended_and_then_its_trades() -> None:
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


def test_amend_keeps_the_fills_and_qty_is_the_new_total() -> None:
    play("""
        given ann buy 10@99
        given bob sell 4@99
        ann amend 1 qty=6
            ann 4 amended 1 partially_filled 4/6
            * book BOND 3 99=2 |
        given cat sell 1@98
        ann amend 1 price=98
            ann 7 amended 1 partially_filled 5/6
            * book BOND 5 99=0 98=1 |
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


@pytest.mark.parametrize(
    "change, first",
    [
        ("qty=4", 1),
        ("price=99", 1),
        ("price=99 qty=5", 1),
        ("qty=6", 2),
        ("price=98", 2),
    ],
)
def test_priority_is_kept_unless_price_or_more_is_asked(
    change: str, first: int
) -> None:
    engine = play(f"""
        given ann buy 5@99
        given bob buy 5@99
        given ann amend 1 {change}
        """)
    _, maker = act(engine, "cat sell 1@99")[2]
    assert isinstance(maker, Exec) and maker.order_id == first


def test_a_post_only_order_is_not_amended_into_a_trade() -> None:
    play("""
        given ann sell 5@101
        given bob buy 5@99 post_only
        bob amend 2 price=101 qty=9
            bob error would_take price
        bob amend 2 price=100
            bob 2 amended 2 new 0/5
            * book BOND 3 100=5 99=0 |
        """)


def test_amend_meets_ones_own_order_under_its_first_stp() -> None:
    play("""
        given ann sell 5@101
        given ann buy 5@99 cancel_newest
        ann amend 2 price=101
            ann 3 amended 2 new 0/5
            ann 4 canceled 2 canceled 0/5 stp
            * book BOND 3 99=0 |
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


def test_a_repeat_is_known_as_one_when_its_time_is_over() -> None:
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
def test_what_is_out_of_bounds_is_refused(
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
def test_too_late_is_told_with_how_the_order_ended(
    end: str, state: str
) -> None:
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


def test_client_order_ids_are_an_accounts_own() -> None:
    play("""
        given ann buy 5@99 as=mine
        bob buy 5@98 as=mine
            bob 1 new 2 new 0/5
            * book BOND 2 98=5 |
        """)


def test_a_refused_place_uses_no_client_order_id_up() -> None:
    play("""
        given ann buy 500@99 as=mine
        ann buy 5@99 as=mine
            ann 1 new 1 new 0/5
            * book BOND 1 99=5 |
        """)


def test_the_oldest_finished_orders_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accounts, "ORDERS_REMEMBERED", 2)
    play("""
        given ann buy 1@99 as=open
        given ann buy 1@98 ioc as=a
        given ann buy 1@98 ioc as=b
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
            ann 8 new 5 new 0/1
            ann 9 expired 5 expired 0/1 ioc
        ann cancel as=b
            ann error unknown_order client_order_id
        """)


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


# Time ---------------------------------------------------------------------


def test_cancel_after_cancels_everything_once() -> None:
    engine = play("""
        given ann buy 1@99
        10s ann cancel_after 2000
            ann ok
        given ann/b sell 1@101
        given bob buy 1@98
        11s tick
        12s tick
            ann 3 canceled 1 canceled 0/1 cancel_after
            ann 4 canceled 2 canceled 0/1 cancel_after
            * book BOND 4 99=0 | 101=0
        given ann buy 1@99
        20s tick
        """)
    assert engine.next_deadline is None
    assert engine.accounts["ann"].cancel_after_ts is None


def test_cancel_after_is_postponed_and_disarmed() -> None:
    engine = play("""
        given ann buy 1@99
        10s ann cancel_after 5000
            ann ok
        14s ann cancel_after 5000
            ann ok
        15s tick
        18s ann cancel_after 3000
            ann ok
        19s tick
        """)
    assert engine.next_deadline == 21 * SECOND
    play(
        """
        20s ann cancel_after 0
            ann ok
        21s tick
        """,
        engine,
    )
    assert engine.next_deadline is None


def test_cancel_after_may_be_shortened() -> None:
    play("""
        given ann buy 1@99
        given 10s ann cancel_after 60000
        given 11s ann cancel_after 1000
        12s tick
            ann 2 canceled 1 canceled 0/1 cancel_after
            * book BOND 2 99=0 |
        """)


def test_cancel_after_outlives_the_connection() -> None:
    play("""
        given ann connect keep
        given ann buy 1@99
        given 10s ann cancel_after 5000
        11s ann disconnect
        15s tick
            ann 2 canceled 1 canceled 0/1 cancel_after
            * book BOND 2 99=0 |
        """)


def test_a_clock_that_is_set_forward_postpones_what_lasts_a_time() -> None:
    """And not the end of an order that is to live until a time."""
    engine = play("""
        given ann buy 1@99
        given bob buy 1@98 gtd until=3000s
        given 10s ann cancel_after 5000
        given 11s op admin phase halted reopen_ms=5000
        """)
    hour = ClockStep(forward_us=3_600 * SECOND)
    assert apply(engine, hour, ts=12 * SECOND) == []
    assert engine.next_deadline == 3_000 * SECOND
    play(
        """
        3612s tick
            bob 2 expired 2 expired 0/1 gtd
            * book BOND 3 98=0 |
        3614s tick
        3615s tick
            ann 2 canceled 1 canceled 0/1 cancel_after
            * book BOND 4 99=0 |
        3616s tick
            * status BOND open time is up
        """,
        engine,
    )
    assert engine.next_deadline is None


def test_a_clock_that_is_set_forward_changes_nothing_else() -> None:
    engine = play("""
        given ann buy 1@99
        given bob cancel_after 5000
        given bob cancel_after 0
        """)
    assert apply(engine, ClockStep(forward_us=1)) == []
    assert engine.next_deadline is None


def test_only_a_tick_lets_time_pass() -> None:
    engine = play("""
        given ann buy 5@99 gtd until=10s
        given bob buy 1@98
        given 1s bob cancel_after 5000
        20s cat sell 2@99
            cat 1 new 3 new 0/2
            cat 2 trade 3 filled 2/2 2@99 taker #1
            ann 2 trade 1 partially_filled 2/5 2@99 maker #1
            cat 3 account 198 BOND=-2 worth 0
            ann 3 account -198 BOND=2 worth 0
            * trade BOND 3 #1 2@99 sell
            * book BOND 3 99=3 |
        """)
    assert engine.next_deadline == 6 * SECOND


def test_deadlines_fire_in_their_order_and_then_that_of_order_ids() -> None:
    engine = listed("BOND", "ETF")
    play(
        """
        given ann buy 1@90 gtd until=12s symbol=ETF
        given bob buy 1@91 gtd until=11s symbol=BOND
        given ann buy 1@92 gtd until=11s symbol=ETF
        given cat buy 1@93 symbol=BOND
        given 5s cat cancel_after 6000
        given cat buy 1@94 symbol=BOND
        """,
        engine,
    )
    assert engine.next_deadline == 11 * SECOND
    play(
        """
        15s tick
            cat 3 canceled 4 canceled 0/1 cancel_after
            cat 4 canceled 5 canceled 0/1 cancel_after
            bob 2 expired 2 expired 0/1 gtd
            ann 3 expired 3 expired 0/1 gtd
            ann 4 expired 1 expired 0/1 gtd
            * book BOND 4 94=0 93=0 91=0 |
            * book ETF 3 92=0 90=0 |
        """,
        engine,
    )
    assert engine.next_deadline is None


def test_one_tick_fires_a_bounded_number_of_deadlines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timers, "DEADLINES_PER_COMMAND", 2)
    engine = play("""
        given ann buy 1@99 gtd until=10s
        given ann buy 1@98 gtd until=10s
        given ann buy 1@97 gtd until=10s
        10s tick
            ann 4 expired 1 expired 0/1 gtd
            ann 5 expired 2 expired 0/1 gtd
            * book BOND 4 99=0 98=0 |
        """)
    assert engine.next_deadline == 10 * SECOND
    play(
        """
        tick
            ann 6 expired 3 expired 0/1 gtd
            * book BOND 5 97=0 |
        tick
        """,
        engine,
    )


def test_a_deadline_dies_with_its_order() -> None:
    engine = play("""
        given ann buy 1@99 gtd until=10s
        given ann buy 1@98 gtd until=11s
        given ann buy 1@97 gtd until=12s
        given ann buy 1@96 gtd until=13s
        given bob sell 1@99
        given ann cancel 3
        """)
    assert engine.next_deadline == 11 * SECOND
    play("given ann amend 2 price=50\ngiven bob sell 1@50", engine)
    assert engine.next_deadline == 11 * SECOND
    play("given ann cancel_all", engine)
    assert engine.next_deadline is None


def test_a_gtd_order_that_never_rests_leaves_no_deadline() -> None:
    engine = play("""
        given ann sell 1@99
        given bob buy 1@99 gtd until=10s
        """)
    assert engine.next_deadline is None


@pytest.mark.parametrize(
    "lines",
    [
        ["ann cancel_after 86400000"],
        ["ann buy 1@99 gtd until=99999s as=mine", "ann cancel as=mine"],
        ["ann buy 1@99 ioc"],
        ["ann connect", "ann disconnect"],
        ["op admin phase auction reopen_ms=86400000", "op admin phase open"],
        ["ann buy 1@9", "op admin kill user=ann", "op admin unkill user=ann"],
    ],
)
def test_what_is_over_does_not_pile_up(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "ORDERS_REMEMBERED", 0)
    engine = play("given bob buy 1@98 gtd until=99999s")

    def size_after(rounds: int) -> int:
        for _ in range(rounds):
            for line in lines:
                act(engine, line)
        return len(pickle.dumps(engine))

    sizes = [size_after(500) for _ in range(16)]
    assert max(sizes[4:]) < 1.5 * max(sizes[:4])
    assert engine.next_deadline is not None


# Sessions -----------------------------------------------------------------


def test_orders_of_a_session_die_with_its_connection() -> None:
    play("""
        ann/a connect
        ann/b connect
        given ann/a buy 1@99
        given ann/b buy 1@98
        given ann/a sell 1@101
        given bob/a buy 1@97
        ann/a disconnect
            ann 4 canceled 1 canceled 0/1 disconnect
            ann 5 canceled 3 canceled 0/1 disconnect
            * book BOND 5 99=0 | 101=0
        ann/a disconnect
        """)


def test_orders_stay_if_the_session_asked_for_it() -> None:
    engine = play("""
        ann connect keep
        given ann buy 1@99
        ann disconnect
        """)
    assert engine.listings["BOND"].book.best("buy") == (99, 1)


def test_a_session_that_is_taken_over_keeps_its_orders() -> None:
    play("""
        ann connect
        given ann buy 1@99
        ann connect
        given ann buy 1@98
        ann disconnect
            ann 3 canceled 1 canceled 0/1 disconnect
            ann 4 canceled 2 canceled 0/1 disconnect
            * book BOND 3 99=0 98=0 |
        """)


@pytest.mark.parametrize(
    "first, second, stays", [("", "keep", True), ("keep", "", False)]
)
def test_the_last_login_of_a_session_decides(
    first: str, second: str, stays: bool
) -> None:
    engine = play(f"""
        ann connect {first}
        given ann buy 1@99
        ann connect {second}
        given ann disconnect
        """)
    assert (engine.listings["BOND"].book.best("buy") is not None) == stays


def test_a_session_can_come_back_after_its_connection_ended() -> None:
    play("""
        ann connect keep
        given ann buy 1@99
        ann disconnect
        ann connect
        ann disconnect
            ann 2 canceled 1 canceled 0/1 disconnect
            * book BOND 2 99=0 |
        """)


def test_an_amended_order_stays_with_the_session_it_was_placed_in() -> None:
    play("""
        ann/a connect
        ann/b connect
        given ann/a buy 1@99
        given ann/b amend 1 price=98
        ann/b disconnect
        ann/a disconnect
            ann 3 canceled 1 canceled 0/1 disconnect
            * book BOND 3 98=0 |
        """)


def test_a_shutdown_ends_every_connection() -> None:
    play("""
        ann/a connect
        bob/a connect keep
        cat/a connect
        given ann/a buy 1@99
        given bob/a buy 1@98
        given cat/a buy 1@97
        given ann/a sell 1@101
        ann/b connect
        given ann/b sell 1@102
        shutdown
            ann 4 canceled 1 canceled 0/1 disconnect
            cat 2 canceled 3 canceled 0/1 disconnect
            ann 5 canceled 4 canceled 0/1 disconnect
            ann 6 canceled 5 canceled 0/1 disconnect
            * book BOND 6 99=0 97=0 | 101=0 102=0
        shutdown
        ann/a disconnect
        """)


# The market ---------------------------------------------------------------


def test_a_new_configuration_keeps_books_and_changes_bounds() -> None:
    engine = play("given ann buy 5@500 as=mine")
    changed = (listing("BOND", max_price=400, max_qty=3), listing("ETF"))
    assert apply(engine, Configure(instruments=changed)) == []
    play(
        """
        bob sell 1@500 symbol=BOND
            bob error invalid_price price
        bob sell 4@400 symbol=BOND
            bob error invalid_qty qty
        bob sell 3@400 symbol=BOND
            bob 1 new 2 new 0/3
            bob 2 trade 2 filled 3/3 3@500 taker #1
            ann 2 trade 1 partially_filled 3/5 3@500 maker #1
            bob 3 account 1500 BOND=-3 worth 0
            ann 3 account -1500 BOND=3 worth 0
            * trade BOND 2 #1 3@500 sell
            * book BOND 2 500=2 |
        bob buy 5@500 symbol=ETF
            bob 4 new 3 new 0/5
            * book ETF 1 500=5 |
        ann cancel as=mine
            ann 4 canceled 1 canceled 3/5 user
            * book BOND 3 500=0 |
        """,
        engine,
    )


@pytest.mark.parametrize(
    "quotes, mark",
    [
        ("", 100),
        ("ann buy 1@99", 100),
        ("ann sell 1@120", 100),
        ("ann buy 1@90, ann sell 1@120", 100),
        ("ann buy 1@110, ann sell 1@120", 110),
        ("ann buy 1@80, ann sell 1@90", 90),
    ],
)
def test_the_mark_is_the_median_of_bid_last_and_ask(
    quotes: str, mark: int
) -> None:
    engine = play("given ann sell 2@100\ngiven bob buy 2@100")
    for quote in filter(None, quotes.split(", ")):
        act(engine, quote)
    assert engine.mark("BOND") == mark
    report = engine.account_report(engine.accounts["bob"])
    assert (report.cash, report.positions) == (-200, {"BOND": 2})
    assert report.equity == -200 + 2 * mark


def test_reports_between_commands_use_no_seq_up() -> None:
    engine = play("""
        given ann buy 5@99
        given bob sell 2@99
        given ann buy 1@98 ioc
        """)
    ann = engine.accounts["ann"]
    reports = [
        tell("ann", report)
        for report in engine.order_reports(ann.orders.values())
    ]
    reports.append(tell("ann", engine.account_report(ann)))
    assert reports == [
        "ann 5 status 1 partially_filled 2/5",
        "ann 5 status 3 expired 0/1",
        "ann 5 account -198 BOND=2 worth 0",
    ]
    partly, expired = engine.order_reports(ann.orders.values())
    assert (partly.leaves_qty, partly.cum_cost) == (3, 198)
    assert expired.leaves_qty == 0
    play(
        """
        ann cancel 1
            ann 6 canceled 1 canceled 2/5 user
            * book BOND 3 99=0 |
        """,
        engine,
    )


def test_a_snapshot_is_the_whole_book_under_its_last_seq() -> None:
    engine = play("""
        given ann buy 5@99
        given ann buy 5@98
        given bob sell 5@101
        given bob sell 5@102
        given ann buy 1@101
        5s tick
        """)
    assert engine.snapshot(engine.listing("BOND")) == BookUpdate(
        symbol="BOND",
        seq=5,
        ts=5 * SECOND,
        snapshot=True,
        bids=((99, 5), (98, 5)),
        asks=((101, 4), (102, 5)),
    )


def test_changes_of_several_commands_are_told_net_and_once() -> None:
    engine = listed("BOND", "ETF")
    lines = """
        ann buy 5@99 symbol=BOND
        ann buy 5@98 symbol=ETF
        ann buy 5@97 symbol=BOND
        bob sell 2@99 symbol=BOND
        bob sell 9@101 symbol=BOND
        bob cancel 5
        """
    for seq, line in enumerate(lines.strip().splitlines(), start=2):
        account, *words = line.split()
        engine.apply(Command(seq, seq, account, "a", parse(words)))
    updates = engine.take_book_updates()
    assert [tell(PUBLIC, update) for update in updates] == [
        "* book BOND 0-5 99=3 97=5 | 101=0",
        "* book ETF 1 98=5 |",
    ]
    assert not engine.take_book_updates()


def test_the_ticker_shows_the_top_the_last_price_and_the_volume() -> None:
    engine = listed("BOND")
    bond = engine.listing(None)
    assert json.loads(encode(engine.ticker(bond, 7))) == {
        "type": "ticker",
        "symbol": "BOND",
        "ts": 7,
        "volume": 0,
    }
    play(
        """
        given ann buy 5@99
        given ann buy 4@98
        given bob sell 2@101
        given bob sell 3@99
        given bob sell 1@98
        """,
        engine,
    )
    assert json.loads(encode(engine.ticker(bond, 8))) == {
        "type": "ticker",
        "symbol": "BOND",
        "ts": 8,
        "bid": 99,
        "bid_qty": 1,
        "ask": 101,
        "ask_qty": 2,
        "last": 99,
        "volume": 4,
    }


def test_listings_are_found_by_symbol_or_as_the_only_one() -> None:
    assert listed("BOND").listing(None).instrument.symbol == "BOND"
    two = listed("BOND", "ETF")
    assert two.listing("ETF").instrument.symbol == "ETF"
    for symbol, code in [(None, "bad_request"), ("NONE", "unknown_symbol")]:
        with pytest.raises(Refused) as refused:
            two.listing(symbol)
        assert (refused.value.code, refused.value.field) == (code, "symbol")


def test_the_leaderboard_ranks_by_equity_at_the_mark() -> None:
    engine = play("""
        given ann sell 2@100
        given bob buy 1@100
        given cat buy 1@100
        given dan connect
        given dan buy 5@105
        given ann sell 5@110
        """)
    assert [
        (row["rank"], row["user"], row["equity"])
        for row in engine.leaderboard()
    ] == [(1, "bob", 5), (1, "cat", 5), (3, "dan", 0), (4, "ann", -10)]


# Random flows -------------------------------------------------------------

MARKET = Configure(
    instruments=(
        listing("BOND", min_price=96, max_price=104, max_qty=9),
        listing("ETF", min_price=-3, max_price=3, max_qty=5),
        listing("XAU", min_price=10, max_price=12, max_qty=20),
    )
)
BOND, ETF, XAU = MARKET.instruments
# The same, with all that can be limited.
HALL = Configure(
    instruments=(
        replace(
            BOND,
            max_position=60,
            maker_fee=-1,
            taker_fee=2,
            reference_price=100,
            collar=3,
            band=2,
            auction_ms=2_000,
        ),
        replace(ETF, taker_fee=1),
        replace(XAU, phase="pre_open", reference_price=11, max_position=90),
    ),
    limits=AccountLimits(cash=2_500, min_cash=0, open_orders=12),
    accounts={
        "dan": AccountLimits(max_position={"BOND": 0, "ETF": 8}),
        "eve": AccountLimits(cash=500, min_cash=-900),
    },
)
# And stricter, so that some are beyond their limits at once.
STRICT = replace(
    HALL,
    instruments=(
        replace(HALL.instruments[0], max_position=20, maker_fee=3),
        replace(ETF, short_selling=False, collar=2),
        replace(XAU, max_position=30, band=1, reference_price=11),
    ),
    limits=AccountLimits(cash=2_000, min_cash=1_500, open_orders=6),
)
USERS = ("ann", "bob", "cat", "dan", "eve")
SYMBOLS = ("BOND", "ETF", "XAU")


def flow(rng: random.Random, steps: int) -> Iterator[Command]:
    """Yield the commands of a busy market, many of them refused.

    With phases, auctions, and an administrator who does as he likes.
    """
    ts = placed = 0
    named = [("ann", "none", 0)]  # account, client_order_id and price
    for seq in range(1, steps + 1):
        ts += rng.choice((1, 1, 1, 50_000, 2 * SECOND))
        action: Action
        account = rng.choice(USERS)
        dice = rng.randrange(20)
        if seq == 1:
            action = HALL
        elif dice < 12:
            placed += 1
            action = random_place(rng, ts, placed)
            may_rest = action.time_in_force in ("gtc", "gtd")
            if action.client_order_id is not None and may_rest:
                assert action.price is not None
                named.append((account, action.client_order_id, action.price))
        elif dice < 16:
            # Mostly one's own, often still open.
            owner, name, price = rng.choice(named[-8:])
            account = rng.choice((owner, owner, owner, account))
            action = rng.choice(
                (
                    Cancel(client_order_id=name),
                    random_amend(rng, name, price),
                    random_amend(rng, name, price),
                )
            )
        elif dice < 18:
            action = rng.choice(
                (
                    Cancel(order_id=max(0, placed - rng.randrange(20))),
                    CancelAll(
                        symbol=rng.choice((None, "BOND", "ETF", "NONE")),
                        side=rng.choice((None, "buy", "sell")),
                    ),
                    CancelAfter(timeout_ms=rng.choice((0, 1_000, 3_000))),
                    Connect(rng.random() < 0.5, is_admin=placed % 50 == 0),
                    Disconnect(),
                    TimePassed(),
                    TimePassed(),
                    rng.choice(
                        (TimePassed(), Shutdown(), Restart(), HALL, STRICT)
                    ),
                )
            )
        elif dice < 19:
            action = TimePassed()
        else:
            account, action = "op", random_admin(rng, placed)
        if isinstance(action, (TimePassed, Shutdown, Restart, Configure)):
            account = ""
        yield Command(seq, ts, account, rng.choice("ab"), action)


def random_place(rng: random.Random, ts: int, placed: int) -> Place:
    instrument = rng.choice(MARKET.instruments)
    low, high = instrument.min_price, instrument.max_price
    order: dict[str, Any] = {
        "symbol": rng.choice((instrument.symbol,) * 40 + ("NONE", None)),
        "side": rng.choice(("buy", "sell")),
        "qty": rng.randint(1, rng.choice((3, instrument.max_qty + 1))),
        "stp": rng.choice(STP),
        "client_order_id": rng.choice(
            (None, f"c{placed}", f"c{placed}", f"c{placed - 5}")
        ),
    }
    match rng.choice(("market", "ioc", "fok", "gtd", "post", "gtc", "gtc")):
        case "market":
            order["order_type"] = "market"
            order["time_in_force"] = rng.choice((None, "ioc", "fok"))
            return Place(**order)
        case "post":
            order["post_only"], order["time_in_force"] = True, "gtc"
        case "gtd":
            order["time_in_force"] = "gtd"
            order["expire_ts"] = ts + rng.choice((0, 5, 5, 9, 9, 30)) * SECOND
        case tif:
            order["time_in_force"] = tif
    return Place(price=rng.randint(low, high + (placed % 9 == 0)), **order)


def random_admin(rng: random.Random, placed: int) -> Admin:
    user = rng.choice((*USERS, "nobody" if placed % 9 == 0 else "ann"))
    symbol: str | None = rng.choice((*SYMBOLS, "NONE"))
    given: dict[str, Any]
    often = ("phase",) * 9 + ("adjust",) * 6 + ("unkill",) * 9
    match rng.choice(often + ADMIN_ACTIONS):
        case "phase" as action:
            symbol = rng.choice((None, *SYMBOLS, "NONE"))
            given = {"symbol": symbol, "phase": "open"}
            if rng.random() < 0.5:
                given["phase"] = rng.choice(("pre_open", "auction", "halted"))
                given["reopen_ms"] = rng.choice((None, 1_000, 2_000, 5_000))
            elif rng.random() < 0.1:
                given["phase"] = "closed"
        case ("kill" | "unkill") as action:
            given = {"user": user}
        case "cancel" as action:
            given = {"order_id": max(0, placed // 2 - rng.randrange(20))}
        case "adjust" as action:
            cash, qty = rng.randint(-300, 300), rng.randint(-9, 12)
            given = {"user": user, "symbol": symbol, "qty": qty}
            if placed % 3 == 0:
                given = {"user": user, "cash": rng.choice((cash, 9 * 10**15))}
            elif placed % 3 == 1:
                given["cash"] = cash
        case "settle" as action:
            given = {"symbol": symbol, "price": rng.choice((2, 11, 99))}
        case "message" as action:
            given = {"message": "hello", "symbol": rng.choice((None, symbol))}
        case action:
            given = {}
    return Admin(action=action, reason="why", **given)


def random_amend(rng: random.Random, name: str, price: int) -> Amend:
    new = rng.choice((None, price, *range(price - 3, price + 4)))
    qty = rng.choice((None, 1, 2, 3, 5, 8)) if new is not None else 4
    return Amend(client_order_id=name, price=new, qty=qty)


class Holding:
    """What an account has, as far as events tell.

    ``given`` is what it did not earn: the cash of the start, and what an
    administrator gave, lots at their mark.
    """

    def __init__(self, cash: int) -> None:
        self.cash = self.given = cash
        self.realized = 0
        self.positions: Counter[str] = Counter()
        self.costs: Counter[str] = Counter()

    def move(self, symbol: str, bought: int, price: int) -> None:
        """Close what is held the other way round, and open the rest."""
        held, cost = self.positions[symbol], self.costs[symbol]
        closed = min(abs(bought), abs(held)) if held * bought < 0 else 0
        share = cost * closed // abs(held) if closed else 0
        sign = 1 if bought > 0 else -1
        self.realized -= sign * closed * price + share
        self.costs[symbol] += price * (bought - sign * closed) - share
        self.positions[symbol] += bought


class Follower:
    """One who reads every command and event, and knows nothing else.

    ``read`` takes in what came of a command, and holds it against the rules;
    ``compare`` holds what was learned so far against the engine.
    """

    def __init__(self) -> None:
        self.ts = 0
        self.seqs: Counter[str] = Counter()
        self.orders: dict[int, Exec] = {}  # the last word on each open one
        self.owners: dict[int, str] = {}
        self.finished: set[int] = set()
        self.configured = Configure(instruments=())
        self.instruments: dict[str, Instrument] = {}
        self.holdings = {HOUSE: Holding(0)}
        self.started = 0  # the cash all began with
        self.killed: set[str] = set()
        self.phases: dict[str, str] = {}
        self.last: dict[str, int] = {}
        # Of the command at hand, and of the instruments before it:
        self.command = Command(0, 0, "", "", TimePassed())
        self.references: dict[str, int] = {}
        self.before: dict[str, str] = {}
        self.reports: dict[str, AccountReport] = {}
        self.traded: set[str] = set()
        self.auctioned: defaultdict[str, Counter[int]]
        # At the end of the command before:
        self.free: Counter[str] = Counter()
        self.reach: Counter[tuple[str, str, str]] = Counter()
        self.open: Counter[str] = Counter()
        # What can be seen:
        self.seen: dict[str, BookUpdate] = {}  # the book after a command
        self.changed: dict[str, int] = {}  # when the book last did
        self.book_seqs: Counter[str] = Counter()
        self.trade_ids: Counter[str] = Counter()
        self.volumes: Counter[str] = Counter()
        self.levels: defaultdict[tuple[str, str], dict[int, int]]
        self.levels = defaultdict(dict)

    def read(self, command: Command, outputs: list[Output]) -> None:
        """Take in what came of a command."""
        assert command.ts > self.ts
        self.ts = command.ts
        self.command = command
        self.before = dict(self.phases)
        self.references = {s: self.reference(s) for s in self.phases}
        self.reports.clear()
        self.traded.clear()
        self.auctioned = defaultdict(Counter)
        moved = self._act(command, outputs)
        self._reply(command, outputs)
        order: list[Any] = [(Exec, Ok, Error), AccountReport, Status, Trade]
        parts = [
            next(n for n, kind in enumerate(order) if isinstance(event, kind))
            for _, event in outputs
        ]
        assert parts == sorted(parts), "executions, accounts, news, trades"
        for _, event in outputs:
            if isinstance(event, Status) and event.phase is not None:
                assert event.symbol is not None
                self.phases[event.symbol] = event.phase
        fills: defaultdict[tuple[str, int | None], list[Exec]]
        fills = defaultdict(list)
        reported: list[str] = []
        for recipient, event in outputs:
            assert recipient != HOUSE
            match event:
                case Exec():
                    self._exec(recipient, event)
                    if event.exec_type == "trade":
                        fills[event.symbol, event.trade_id].append(event)
                        moved[recipient] = None
                case AccountReport():
                    self._account(recipient, event)
                    reported.append(recipient)
                case Status():
                    assert recipient == PUBLIC and event.message
                case Trade():
                    assert recipient == PUBLIC
                    self.traded.add(event.symbol)
                    self._trade(
                        event, *fills.pop((event.symbol, event.trade_id))
                    )
        assert not fills, "each match is public"
        assert reported == list(moved), "one for each account that moved"
        self._check_auctions(outputs)

    def read_books(self, updates: list[BookUpdate]) -> None:
        """Take in what changed in the books since the last time."""
        for told in updates:
            symbol = told.symbol
            assert told.prev_seq == self.book_seqs[symbol] < told.seq
            assert told.seq == self.seen[symbol].seq
            assert told.ts == self.changed[symbol]
            assert told.bids or told.asks
            self.book_seqs[symbol] = told.seq
            for side, changes in (("buy", told.bids), ("sell", told.asks)):
                levels = self.levels[symbol, side]
                for price, qty in changes:
                    levels.pop(price, None)
                    if qty:
                        levels[price] = qty
        for symbol, seen in self.seen.items():
            bids, asks = (
                tuple(sorted(self.levels[symbol, side].items()))
                for side in ("buy", "sell")
            )
            assert seen.seq == self.book_seqs[symbol]
            assert (seen.bids, seen.asks) == (bids[::-1], asks)

    def compare(self, engine: Engine) -> None:
        """Hold all that is known against the engine itself."""
        engine.check()
        held = self.holdings.values()
        assert sum(holding.cash for holding in held) == self.started
        for symbol, listing in engine.listings.items():
            assert listing.phase == self.phases[symbol]
            assert listing.book.is_collecting == (listing.phase != "open")
            self._look(engine.snapshot(listing))
            assert not sum(holding.positions[symbol] for holding in held)
            ticker = engine.ticker(listing, 1)
            assert ticker.volume == self.volumes[symbol]
            assert ticker.last == self.last.get(symbol)
            assert listing.trade_id == self.trade_ids[symbol]
            assert engine.mark(symbol) == self.mark(symbol)
        open_orders: dict[int, Exec] = {}
        for name, account in engine.accounts.items():
            assert account.seq == self.seqs[name]
            holding = self.holdings[name]
            assert account.cash == holding.cash
            assert account.positions == holding.positions
            if name != HOUSE:
                self._compare_profit(name, engine.account_report(account))
            orders = list(account.open_orders.values())
            for order, report in zip(
                orders, engine.order_reports(orders), strict=True
            ):
                assert self.owners[order.order_id] == name
                open_orders[order.order_id] = report
        for name, told in self.reports.items():
            self._compare_profit(name, told)
        assert open_orders.keys() == self.orders.keys()
        for order_id, last_told in self.orders.items():
            assert lasting(last_told) == lasting(open_orders[order_id])
        self._check_limits(engine)

    def reference(self, symbol: str) -> int:
        configured = self.instruments[symbol].reference_price
        return self.last.get(symbol, configured)

    def mark(self, symbol: str) -> int:
        book, reference = self.seen[symbol], self.reference(symbol)
        if not book.bids or not book.asks:
            return reference
        return sorted((book.bids[0][0], reference, book.asks[0][0]))[1]

    # What a command does by itself

    def _act(self, command: Command, outputs: list[Output]) -> dict[str, None]:
        """Take in a command; return who is to hear of money without a fill."""
        action = command.action
        if isinstance(action, Configure):
            self.configured = action
            for instrument in action.instruments:
                self.instruments[instrument.symbol] = instrument
                self.phases.setdefault(instrument.symbol, instrument.phase)
        elif isinstance(action, Admin):
            if isinstance(outputs[0][1], Ok):
                return self._administer(action)
        elif command.account and command.account not in self.holdings:
            cash = self._limits(command.account).cash
            self.holdings[command.account] = Holding(cash)
            self.started += cash
        return {}

    def _administer(self, admin: Admin) -> dict[str, None]:
        moved: dict[str, None] = {}
        symbol, user, qty = admin.symbol or "", admin.user or "", admin.qty
        match admin.action:
            case "kill":
                self.killed.add(user)
            case "unkill":
                self.killed.discard(user)
            case "adjust":
                holding, house = self.holdings[user], self.holdings[HOUSE]
                holding.cash += admin.cash or 0
                holding.given += admin.cash or 0
                house.cash -= admin.cash or 0
                if qty:
                    holding.given += qty * self.mark(symbol)
                    holding.move(symbol, qty, self.mark(symbol))
                    house.move(symbol, -qty, self.mark(symbol))
                return {user: None}
            case "settle":
                for name, holding in self.holdings.items():
                    position = holding.positions[symbol]
                    if position:
                        assert admin.price is not None
                        holding.cash += position * admin.price
                        holding.move(symbol, -position, admin.price)
                        moved[name] = None
            case "reset":
                for name in self.holdings:
                    self.holdings[name] = Holding(self._limits(name).cash)
                    moved[name] = None
                held = self.holdings.values()
                self.started = sum(holding.cash for holding in held)
                self.last.clear()
                self.volumes.clear()
        moved.pop(HOUSE, None)
        return moved

    def _limits(self, name: str) -> AccountLimits:
        if name == HOUSE:
            return AccountLimits()
        return self.configured.accounts.get(name, self.configured.limits)

    # The rules of each event

    def _reply(self, command: Command, outputs: list[Output]) -> None:
        action = command.action
        expected: dict[type, tuple[str, ...]] = {
            Place: ("error", "new"),
            Amend: ("error", "amended", "canceled"),
            Cancel: ("error", "canceled"),
            CancelAll: ("error", "ok"),
            CancelAfter: ("error", "ok"),
            Admin: ("error", "ok"),
        }
        later = [event for _, event in outputs]
        if type(action) in expected:
            recipient, reply = outputs[0]
            word = reply.exec_type if isinstance(reply, Exec) else reply.type
            assert word in expected[type(action)]
            assert recipient == command.account
            assert len(outputs) == 1 or not isinstance(reply, Error)
            if isinstance(reply, Error):
                return
            later.pop(0)
            assert isinstance(reply, (Exec, Ok)) and reply.ts == command.ts
            if isinstance(reply, Exec) and word in ("new", "amended"):
                self._accepted(recipient, reply)
        for event in later:
            assert isinstance(event, (Exec, AccountReport, Status, Trade))
            assert event.ts == command.ts
            if isinstance(event, Exec):
                assert event.exec_type in ("trade", "canceled", "expired")

    def _accepted(self, name: str, told: Exec) -> None:
        assert name not in self.killed
        phase = self.before[told.symbol]
        assert phase in ("pre_open", "auction", "open")
        if phase != "open":
            assert told.time_in_force in ("gtc", "gtd")
        action, instrument = self.command.action, self.instruments[told.symbol]
        assert isinstance(action, (Place, Amend))
        if instrument.collar and action.price is not None:
            beyond = action.price - self.references[told.symbol]
            beyond *= 1 if told.side == "buy" else -1
            assert beyond <= instrument.collar

    def _exec(self, recipient: str, told: Exec) -> None:
        order_id = told.order_id
        self._count(recipient, told.seq)
        assert order_id not in self.finished, "never heard of again"
        before = self.orders.get(order_id)
        if before is None:
            assert told.exec_type == "new" and not told.cum_qty
            assert order_id == len(self.owners) + 1, "no id left out"
            self.owners[order_id] = recipient
        else:
            assert told.exec_type != "new"
            assert self.owners[order_id] == recipient
            may_change = told.exec_type == "amended"
            assert lasting(told, may_change) == lasting(before, may_change)
        cum_qty = before.cum_qty if before else 0
        cum_cost = before.cum_cost if before else 0
        if told.exec_type == "trade":
            assert told.last_qty and told.last_price is not None
            cum_qty += told.last_qty
            cum_cost += told.last_qty * told.last_price
            self._fill(recipient, told, told.last_qty, told.last_price)
        else:
            nothing = (None,) * 5
            assert nothing == (
                told.last_qty,
                told.last_price,
                told.trade_id,
                told.liquidity,
                told.fee,
            )
        assert (told.cum_qty, told.cum_cost) == (cum_qty, cum_cost)
        ended = told.exec_type in ("canceled", "expired")
        assert (told.reason is not None) == ended
        by_admin = isinstance(self.command.action, Admin)
        assert told.reason not in ("admin", "closed") or by_admin
        assert told.leaves_qty == (0 if ended else told.qty - cum_qty)
        assert told.order_status == (
            told.exec_type
            if ended
            else (
                "filled"
                if cum_qty == told.qty
                else "partially_filled" if cum_qty else "new"
            )
        )
        if told.time_in_force == "fok":
            assert not ended or not cum_qty, "all or nothing"
        if told.leaves_qty:
            self.orders[order_id] = told
        else:
            self.finished.add(order_id)
            self.orders.pop(order_id, None)

    def _fill(self, name: str, told: Exec, qty: int, price: int) -> None:
        sign = 1 if told.side == "buy" else -1
        if told.price is not None:  # never worse than the limit
            assert sign * price <= sign * told.price
        assert not told.post_only or told.liquidity != "taker"
        assert told.reason is None
        instrument = self.instruments[told.symbol]
        assert told.fee == qty * {
            "maker": instrument.maker_fee,
            "taker": instrument.taker_fee,
            "auction": 0,
        }.get(told.liquidity or "")
        holding = self.holdings[name]
        holding.cash -= sign * qty * price + told.fee
        holding.realized -= told.fee
        holding.move(told.symbol, sign * qty, price)
        self.holdings[HOUSE].cash += told.fee

    def _account(self, recipient: str, told: AccountReport) -> None:
        self._count(recipient, told.seq)
        holding = self.holdings[recipient]
        assert told.cash == holding.cash
        assert told.positions == holding.positions
        self.reports[recipient] = told

    def _compare_profit(self, name: str, told: AccountReport) -> None:
        holding = self.holdings[name]
        worth = {s: n * self.mark(s) for s, n in told.positions.items()}
        assert told.equity == holding.cash + sum(worth.values())
        assert told.realized == holding.realized
        costs = holding.costs.total()
        assert told.unrealized == sum(worth.values()) - costs
        assert told.equity == holding.given + told.realized + told.unrealized

    def _trade(self, told: Trade, first: Exec, second: Exec) -> None:
        symbol = told.symbol
        self.trade_ids[symbol] += 1
        self.volumes[symbol] += told.qty
        self.last[symbol] = told.price
        assert told.trade_id == self.trade_ids[symbol]
        assert told.seq == self.seen[symbol].seq + 1
        for fill in (first, second):
            assert (fill.last_price, fill.last_qty) == (told.price, told.qty)
        assert self.owners[first.order_id] != self.owners[second.order_id]
        assert first.side != second.side
        words = first.liquidity, second.liquidity
        if self.before[symbol] != "open":
            assert self.phases[symbol] == "open" and first.side == "buy"
            assert words == ("auction", "auction")
            younger = max(first, second, key=lambda fill: fill.order_id)
            assert told.side == younger.side
            self.auctioned[symbol][told.price] += told.qty
            return
        assert words == ("taker", "maker")
        assert told.side == first.side and told.price == second.price
        band = self.instruments[symbol].band
        if band:
            assert abs(told.price - self.references[symbol]) <= band

    def _check_auctions(self, outputs: list[Output]) -> None:
        """Hold each price found against the book that was seen before."""
        if any(isinstance(e, Exec) and e.reason for _, e in outputs):
            return  # the book was another one by then
        for symbol, book in self.seen.items():
            expected = {}
            if self.phases[symbol] == "open" != self.before[symbol]:
                reference = self.references[symbol]
                for best in by_trying(book.bids, book.asks, reference)[:1]:
                    expected[best.price] = -best.less
            assert self.auctioned[symbol] == expected

    def _check_limits(self, engine: Engine) -> None:
        """Hold what each account has at stake against its limits.

        What is beyond a limit may not grow, save by an administrator.
        """
        lots: Counter[tuple[str, str, str]] = Counter()
        reserved: Counter[str] = Counter()
        open_orders: Counter[str] = Counter()
        for order_id, told in self.orders.items():
            name = self.owners[order_id]
            instrument = self.instruments[told.symbol]
            assert told.price is not None
            price = told.price if told.side == "buy" else -told.price
            fee = max(0, instrument.maker_fee, instrument.taker_fee)
            lots[name, told.symbol, told.side] += told.leaves_qty
            reserved[name] += max(0, price + fee) * told.leaves_qty
            open_orders[name] += 1
        free, reach = Counter[str](), Counter[tuple[str, str, str]]()
        lowered = isinstance(self.command.action, (Configure, Admin))
        for name, account in engine.accounts.items():
            limits, holding = self._limits(name), self.holdings[name]
            assert account.reserved == reserved[name]
            least = limits.min_cash
            least = -accounts.CASH_MAX if least is None else least
            free[name] = holding.cash - reserved[name] - least
            most = limits.open_orders or 10**9
            assert open_orders[name] <= max(most, self.open[name])
            for symbol, instrument in self.instruments.items():
                position = holding.positions[symbol]
                most = limits.max_position.get(symbol, instrument.max_position)
                most = most or engine.listings[symbol].position_max
                for side in ("buy", "sell"):
                    key = name, symbol, side
                    held = getattr(account, f"{side}ing").get(symbol, 0)
                    assert held == lots[key]
                    reach[key] = lots[key] + position
                    if side == "sell":
                        reach[key] = lots[key] - position
                        most *= instrument.short_selling
                    if not lowered:
                        assert reach[key] <= max(most, self.reach[key])
            if not lowered:
                assert free[name] >= min(0, self.free[name])
        self.free, self.reach, self.open = free, reach, open_orders

    def _look(self, book: BookUpdate) -> None:
        """Let ``seq`` count the commands that can be seen in the book."""
        before = self.seen.get(book.symbol)
        self.seen[book.symbol] = book
        if before is not None:
            changed = (book.bids, book.asks) != (before.bids, before.asks)
            assert changed or book.symbol not in self.traded
            assert book.seq == before.seq + changed
            if changed:
                self.changed[book.symbol] = self.ts

    def _count(self, recipient: str, seq: int) -> None:
        self.seqs[recipient] += 1
        assert seq == self.seqs[recipient]


def lasting(told: Exec, amended: bool = False) -> dict[str, Any]:
    """Return what a later report of the same order repeats."""
    names = "order_id client_order_id symbol side order_type time_in_force"
    names += " expire_ts post_only stp"
    names += "" if amended else " price qty"
    return {name: getattr(told, name) for name in names.split()}


def follow(commands: Iterable[Command], per_batch: int) -> Follower:
    """Lead an engine and a follower through a flow, and compare them."""
    engine, follower = Engine(), Follower()
    for command in commands:
        follower.read(command, engine.apply(command))
        follower.compare(engine)
        if command.seq % per_batch == 0:
            follower.read_books(engine.take_book_updates())
            assert not engine.take_book_updates()
        if isinstance(command.action, TimePassed):
            due = engine.next_deadline
            assert due is None or due > command.ts
    return follower


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 5))
def test_events_alone_tell_everything(
    rng: random.Random, per_batch: int
) -> None:
    follow(flow(rng, 80), per_batch)


@pytest.mark.parametrize("seed", range(8))
def test_events_alone_tell_everything_of_a_long_day(seed: int) -> None:
    commands = flow(random.Random(seed), 2_500)
    follower = follow(commands, per_batch=1 + seed * 3)
    assert min(follower.trade_ids.values()) > 20, "a busy day"


def test_the_flows_leave_nothing_out() -> None:
    found: set[str] = set()
    for seed in range(8):
        engine = Engine()
        for command in flow(random.Random(seed), 2_500):
            action = type(command.action).__name__
            for _, event in engine.apply(command):
                match event:
                    case Error():
                        found.add(f"{action} {event.code}")
                    case Exec():
                        found.add(event.reason or event.liquidity or "")
                    case Status():
                        found.add(f"{action} {event.phase}")
    orders = """market_closed invalid_qty invalid_price position_limit
        insufficient_funds would_take forbidden"""
    expected = {
        "Place": f"""{orders} bad_request unknown_symbol too_many_orders
            duplicate_client_order_id""",
        "Amend": f"{orders} unknown_order order_closed",
        "Cancel": "unknown_order order_closed",
        "Admin": f"""bad_request unknown_symbol unknown_order order_closed
            invalid_price insufficient_funds None {" ".join(PHASES)}""",
    }
    missing = {
        f"{action} {word}"
        for action, words in expected.items()
        for word in words.split()
    }
    missing |= {"Place auction", "Amend auction", "TimePassed open"}
    missing |= set("maker taker auction".split())
    missing |= set("user disconnect cancel_after stp admin".split())
    missing |= set("ioc fok gtd no_liquidity closed".split())
    assert not missing - found


# Determinism --------------------------------------------------------------


def transcript(seed: int) -> str:
    """Return all that comes of a flow, as it would be sent."""
    engine = Engine()
    return "".join(
        f"{command.seq} {recipient}: {encode(event)}\n"
        for command in flow(random.Random(seed), 3_000)
        for recipient, event in in_full(engine, command)
    )


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_the_same_commands_give_the_same_bytes(hash_seed: str) -> None:
    elsewhere = subprocess.run(
        [sys.executable, "-m", "test.market.test_engine", "7"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        check=True,
    )
    assert elsewhere.stdout.decode() == transcript(7)


def test_an_engine_shares_nothing_with_another() -> None:
    commands = list(flow(random.Random(1), 300))
    engines = [Engine(), Engine()]
    for command in commands:
        first, second = (
            [encode(event) for _, event in in_full(engine, command)]
            for engine in engines
        )
        assert first == second
    twin = copy.deepcopy(engines[0])
    apply(twin, Shutdown())
    assert engines[0].accounts == engines[1].accounts
    assert engines[0].listings == engines[1].listings


if __name__ == "__main__":
    sys.stdout.write(transcript(int(sys.argv[1])))
