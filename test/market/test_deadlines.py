"""Expiry, cancel_after, and what one TimePassed does."""

from __future__ import annotations

import pickle

import pytest

from exchange.market import accounts
from exchange.market.command import ClockStep
from exchange.market.state import OPERATIONS_PER_SLICE
from orderbook import Exec
from test.script import SECOND, act, apply, listed, listing, play


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
    """The expiry of an order, which is a time of day, stays."""
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


def test_deadlines_fire_by_time_then_by_order_id() -> None:
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


def test_one_tick_fires_a_bounded_number_of_deadlines() -> None:
    engine, last = listed("BOND"), OPERATIONS_PER_SLICE + 1
    for _ in range(last):
        act(engine, "ann buy 1@99 gtd until=10s")
    ended = [e for _, e in act(engine, "10s tick") if isinstance(e, Exec)]
    assert [e.order_id for e in ended] == list(range(1, last))
    assert engine.next_deadline == 0, "at once"
    play(
        f"""
        tick
            ann {2 * last} expired {last} expired 0/1 gtd
            * book BOND {last + 2} 99=0 |
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
        [
            "ann buy 1@9",
            "op admin suspend user=ann",
            "op admin resume user=ann",
        ],
    ],
)
def test_finished_orders_and_deadlines_free_their_memory(
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


def test_simultaneous_deadlines_are_switches_then_orders_then_phases() -> None:
    """Ann's bid dies before the auction that would have filled it."""
    play(
        """
        given 1s bob cancel_after 9000
        given ann buy 5@105 gtd until=10s symbol=BOND
        given bob buy 5@104 symbol=BOND
        given cat buy 5@103 symbol=BOND
        given dan sell 9@100 symbol=BOND
        given op admin phase auction symbol=ETF
        given 5s op admin phase auction symbol=BOND reopen_ms=5000
        10s tick
            bob 2 canceled 2 canceled 0/5 cancel_after
            ann 2 expired 1 expired 0/5 gtd
            cat 2 trade 3 filled 5/5 5@100 auction #1
            dan 2 trade 4 partially_filled 5/9 5@100 auction #1
            cat 3 account -500 BOND=5 worth 0
            dan 3 account 500 BOND=-5 worth 0
            * status BOND open time is up
            * trade BOND 5 #1 5@100 sell
            * book BOND 5 105=0 104=0 103=0 | 100=4
        """,
        listed(listing("BOND", phase="auction", reference_price=104), "ETF"),
    )


def test_phases_end_by_time_and_then_by_symbol() -> None:
    play(
        """
        given 1s op admin phase halted symbol=ETF reopen_ms=5000
        given 2s op admin phase halted symbol=BOND reopen_ms=4000
        given 3s op admin phase halted symbol=XAU reopen_ms=1000
        9s tick
            * status XAU open time is up
            * status BOND open time is up
            * status ETF open time is up
        """,
        listed("BOND", "ETF", "XAU"),
    )


def test_orders_that_expire_with_a_phase_may_take_several_ticks() -> None:
    engine = listed(listing(phase="auction"))
    for _ in range(OPERATIONS_PER_SLICE):
        act(engine, "ann buy 5@105 gtd until=10s")
    play(
        """
        given bob sell 5@104
        given 1s op admin phase auction reopen_ms=9000
        given 10s tick
        """,
        engine,
    )
    assert list(engine.accounts["ann"].open_orders) == []
    assert engine.next_deadline == 10 * SECOND
    play("tick\n    * status BOND open time is up", engine)
    assert engine.next_deadline is None
