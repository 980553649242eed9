"""Rounds: what a reset begins anew, and what goes on."""

from __future__ import annotations

from dataclasses import replace

from exchange.market.engine import Engine
from test.script import SECOND, act, listed, listing, play, reconfigure


def test_a_reset_counts_and_everything_after_it_has_the_round() -> None:
    play("""
        given ann buy 5@99
        op admin reset
            op ok
            ann 2 canceled 1 canceled 0/5 admin
            ann 3 account 0 worth 0
            * status BOND open reset: why round 2
            * book BOND 2 99=0 |
        ann buy 5@99
            ann 4 new 2 new 0/5 round 2
            * book BOND 3 99=5 |
        bob sell 1@99
            bob 1 new 3 new 0/1 round 2
            bob 2 trade 3 filled 1/1 1@99 taker #1 round 2
            ann 5 trade 2 partially_filled 1/5 1@99 maker #1 round 2
            bob 3 account 99 BOND=-1 worth 0
            ann 6 account -99 BOND=1 worth 0
            * trade BOND 4 #1 1@99 sell round 2
            * book BOND 4 99=4 |
        op admin message message=hello
            op ok
            * status hello round 2
        given op admin reset
        op admin message message=hello
            op ok
            * status hello round 3
        """)


def test_an_order_in_a_table_has_the_round_in_which_it_was_placed() -> None:
    engine = play("""
        given ann buy 5@99
        given op admin reset
        given ann buy 6@99
        """)
    orders = engine.accounts["ann"].orders.values()
    old, new = engine.order_reports(orders)
    assert '"round"' not in old and '"round":2' in new


def test_ids_go_on_and_names_stay_known() -> None:
    engine = play("""
        given ann buy 5@99 as=mine
        given bob sell 5@99
        given op admin reset
        ann buy 5@99 as=mine -> duplicate_client_order_id client_order_id
        given ann buy 5@99
        given bob sell 5@99
        """)
    assert engine.order_id == 4
    assert engine.listings["BOND"].trade_id == 2


def test_the_dead_mans_switch_stays() -> None:
    engine = play("""
        given 10s ann cancel_after 5000
        given op admin reset
        """)
    assert engine.next_deadline == 15 * SECOND


def test_the_reference_follows_the_file() -> None:
    engine = play("given ann buy 1@99\ngiven bob sell 1@99")
    reconfigure(engine, instruments=(listing(reference_price=500),))
    assert engine.listings["BOND"].reference == 99
    act(engine, "op admin reset")
    assert engine.listings["BOND"].reference == 500


def of_rules_2() -> Engine:
    engine = listed("BOND")
    reconfigure(engine, engine_version=2)
    return engine


def test_version_2_of_the_rules_has_no_rounds() -> None:
    engine = play(
        """
        given ann buy 5@99
        op admin reset
            op ok
            ann 2 canceled 1 canceled 0/5 admin
            ann 3 account 0 worth 0
            * status BOND open reset: why
            * book BOND 2 99=0 |
        """,
        of_rules_2(),
    )
    assert engine.round == 1
    reconfigure(engine, engine_version=3)
    act(engine, "op admin reset")
    assert engine.round == 2


# Marks at "closed" --------------------------------------------------------

QUOTED = """
    given ann buy 5@100
    given bob sell 5@100
    given ann buy 5@106
    given bob sell 5@110
"""


def marks(engine: Engine) -> int:
    return engine.listings["BOND"].mark()


def test_a_mark_stays_as_it_was_before_the_market_closed() -> None:
    engine = play(QUOTED)
    assert marks(engine) == 106
    play(
        """
        op admin phase closed
            op ok
            ann 5 canceled 3 canceled 0/5 closed
            bob 5 canceled 4 canceled 0/5 closed
            * status BOND closed why
            * book BOND 5 106=0 | 110=0
        """,
        engine,
    )
    assert marks(engine) == 106
    assert engine.accounts["ann"].equity(engine.mark) == 30
    act(engine, "op admin phase closed")
    act(engine, "op admin reference symbol=BOND price=300")
    assert marks(engine) == 106, "until the phase changes"
    act(engine, "op admin phase halted")
    assert marks(engine) == 300


def test_version_2_of_the_rules_values_at_the_reference() -> None:
    engine = play(QUOTED, of_rules_2())
    assert marks(engine) == 106
    act(engine, "op admin phase closed")
    assert marks(engine) == 100


def test_a_reset_leaves_no_mark_of_the_round_before() -> None:
    engine = play(QUOTED, listed(listing(reference_price=90)))
    act(engine, "op admin phase closed")
    reconfigure(
        engine, instruments=(listing(reference_price=90, phase="closed"),)
    )
    act(engine, "op admin reset")
    assert marks(engine) == 90
    bond = replace(engine.configured.instruments[0], reference_price=95)
    reconfigure(engine, instruments=(bond,))
    assert marks(engine) == 95
