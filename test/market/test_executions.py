"""What time in force and self-trade prevention do, event by event."""

from __future__ import annotations

from test.script import play

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
