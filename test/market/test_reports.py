"""Which events a command causes, for whom, and in which order."""

from __future__ import annotations

import json
from typing import Any

from exchange.market.command import PUBLIC, Output
from orderbook import Cancel, Place, encode
from test.script import SECOND, apply, listed, play


def test_a_resting_order_is_reported_and_published() -> None:
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


def test_each_match_is_reported_to_the_taker_then_the_maker() -> None:
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


def test_the_rest_of_an_arriving_order_rests() -> None:
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


def test_a_cancel_is_reported_and_published() -> None:
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


def test_each_symbol_and_each_account_has_its_own_seq() -> None:
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


def test_a_refused_order_takes_no_order_id() -> None:
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
