"""What each phase takes, how one follows another, and what collects."""

from __future__ import annotations

import pytest

from orderbook import Status
from test.script import (
    PHASES,
    SECOND,
    act,
    listed,
    listing,
    play,
    reconfigure,
    tell,
)

# What each phase takes ----------------------------------------------------


RESTS = {"open": "ok", "pre_open": "ok", "auction": "ok"}
ALWAYS = dict.fromkeys(PHASES, "ok")
ENDED = {"closed": "order_closed"}  # by the closing
# The answer to each request by phase; phases left out: market_closed.
REQUESTS: dict[str, dict[str, str]] = {
    "ann buy 1@99": RESTS,
    "ann buy 1@99 gtd until=99s": RESTS,
    "ann buy 1@99 post_only": RESTS,
    "ann buy 1@99 ioc": {"open": "ok"},
    "ann buy 1@99 fok": {"open": "ok"},
    "ann buy 1@market": {"open": "ok"},
    "ann buy 1@market fok": {"open": "ok"},
    "ann amend 1 price=98": RESTS | ENDED,
    "ann amend 1 qty=4": RESTS | ENDED,
    "ann amend 1 qty=6": RESTS | ENDED,
    "ann cancel 1": ALWAYS | ENDED,
    "ann cancel_all": ALWAYS,
    "ann cancel_after 1000": ALWAYS,
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("request_line", REQUESTS)
def test_what_each_phase_takes(phase: str, request_line: str) -> None:
    engine = play(f"""
        given ann buy 5@90
        given op admin phase {phase}
        """)
    expected = REQUESTS[request_line].get(phase, "market_closed")
    play(f"{request_line} -> {expected}", engine)


@pytest.mark.parametrize("phase", PHASES)
def test_an_instrument_begins_in_its_phase(phase: str) -> None:
    engine = listed(listing(phase=phase))
    bond = engine.listings["BOND"]
    assert (bond.phase, bond.instrument.phase) == (phase, phase)
    assert bond.current_instrument().phase == phase
    assert engine.next_deadline is None
    takes = RESTS.get(phase, "market_closed")
    play(
        f"""
        given ann connect
        given bob connect
        ann buy 1@101    -> {takes}
        bob sell 1@100   -> {takes}
        """,
        engine,
    )
    assert bond.trade_id == (phase == "open")


def test_a_new_configuration_changes_no_phase_but_lists_what_is_new() -> None:
    engine = play("given op admin phase halted reopen_ms=5000")
    due = engine.next_deadline
    reconfigure(
        engine,
        instruments=(
            listing("BOND", phase="closed"),
            listing("ETF", phase="auction"),
        ),
    )
    assert engine.listings["BOND"].phase == "halted"
    assert engine.listings["BOND"].current_instrument().phase == "halted"
    assert engine.listings["ETF"].phase == "auction"
    assert engine.listings["ETF"].book.is_collecting
    assert engine.next_deadline == due is not None


# From phase to phase ------------------------------------------------------


@pytest.mark.parametrize("after", PHASES)
@pytest.mark.parametrize("before", PHASES)
def test_from_any_phase_to_any_other(before: str, after: str) -> None:
    """An order stays unless one of the two phases is `closed`."""
    engine = play(f"""
        given ann buy 5@90
        given op admin phase {before}
        """)
    told = act(engine, f"op admin phase {after}")
    status = Status(ts=engine.ts, symbol="BOND", phase=after, message="why")
    assert status in [event for _, event in told]
    assert engine.listings["BOND"].phase == after
    assert engine.listings["BOND"].book.is_collecting == (after != "open")
    stays = "closed" not in (before, after)
    assert bool(engine.accounts["ann"].open_orders) == stays


def test_closing_cancels_every_order_by_its_id() -> None:
    play(
        """
        given ann buy 5@90 symbol=BOND
        given bob sell 5@95 symbol=BOND
        given ann buy 5@91 symbol=BOND gtd until=60s
        given ann buy 5@91 symbol=ETF
        given bob sell 2@91 symbol=BOND
        given ann amend 1 price=89
        op admin phase closed symbol=BOND
            op ok
            ann 7 canceled 1 canceled 0/5 closed
            bob 5 canceled 2 canceled 0/5 closed
            ann 8 canceled 3 canceled 2/5 closed
            * status BOND closed why
            * book BOND 6 91=0 89=0 | 95=0
        60s tick
        ann cancel 3
            ann error order_closed 3 canceled 2
        ann cancel 4
            ann 9 canceled 4 canceled 0/5 user
            * book ETF 2 91=0 |
        """,
        listed("BOND", "ETF"),
    )


def test_a_phase_for_all_instruments_is_published_for_each() -> None:
    play(
        """
        given ann buy 5@91 symbol=ETF
        given ann buy 5@91 symbol=BOND
        op admin phase halted
            op ok
            * status BOND halted why
            * status ETF halted why
        op admin phase closed
            op ok
            ann 3 canceled 2 canceled 0/5 closed
            ann 4 canceled 1 canceled 0/5 closed
            * status BOND closed why
            * status ETF closed why
            * book BOND 2 91=0 |
            * book ETF 2 91=0 |
        op admin phase open symbol=ETF
            op ok
            * status ETF open why
        """,
        listed("BOND", "ETF"),
    )


def test_a_phase_may_end_by_itself_when_the_time_is_up() -> None:
    engine = play("""
        given 10s op admin phase halted reopen_ms=5000
        """)
    assert engine.next_deadline == 15 * SECOND
    play(
        """
        14s tick
        20s tick
            * status BOND open time is up
        21s tick
        """,
        engine,
    )
    assert engine.next_deadline is None


@pytest.mark.parametrize("phase", ["pre_open", "auction", "halted"])
def test_a_phase_opens_at_its_time_and_not_before(phase: str) -> None:
    engine = play(f"""
        given 10s op admin phase {phase} reopen_ms=1000
        given ann connect
        """)
    play("ann buy 1@99 ioc -> market_closed", engine)
    play("11s tick\n    * status BOND open time is up", engine)
    play("ann buy 1@99 ioc -> ok", engine)


@pytest.mark.parametrize(
    "change", ["halted", "closed", "open", "auction", "pre_open"]
)
def test_a_later_phase_cancels_the_reopening(change: str) -> None:
    engine = play(f"""
        given 10s op admin phase auction reopen_ms=5000
        given op admin phase {change}
        15s tick
        """)
    assert engine.listings["BOND"].phase == change
    assert engine.next_deadline is None


def test_a_later_reopening_time_replaces_the_first() -> None:
    engine = play("""
        given 10s op admin phase auction reopen_ms=5000
        given 11s op admin phase auction reopen_ms=9000
        15s tick
        20s tick
            * status BOND open time is up
        """)
    assert engine.next_deadline is None
    play(
        """
        given 30s op admin phase auction reopen_ms=9000
        given 31s op admin phase halted reopen_ms=2000
        33s tick
            * status BOND open time is up
        39s tick
        """,
        engine,
    )


def test_time_that_passed_while_nobody_ticked_counts() -> None:
    """The first TimePassed after a pause opens all that is due."""
    play("""
        given 10s op admin phase auction reopen_ms=5000
        restart
        90s tick
            * status BOND open time is up
        """)


# Collecting ---------------------------------------------------------------


def test_a_book_that_was_crossed_uncrosses_whatever_came_between() -> None:
    play(
        """
        given ann sell 5@100
        given bob buy 3@103
        op admin phase halted
            op ok
            * status BOND halted why
        op admin phase open
            op ok
            bob 2 trade 2 filled 3/3 3@100 auction #1
            ann 2 trade 1 partially_filled 3/5 3@100 auction #1
            bob 3 account -300 BOND=3 worth 0
            ann 3 account 300 BOND=-3 worth 0
            * status BOND open why
            * trade BOND 3 #1 3@100 buy
            * book BOND 3 103=0 | 100=2
        """,
        listed(listing(phase="pre_open", reference_price=101)),
    )


def test_going_on_collecting_trades_nothing() -> None:
    play(
        """
        given ann sell 5@100
        given bob buy 5@100
        op admin phase auction
            op ok
            * status BOND auction why
        op admin phase pre_open reopen_ms=1000
            op ok
            * status BOND pre_open why
        """,
        listed(listing(phase="pre_open")),
    )


def test_opening_an_open_instrument_trades_nothing() -> None:
    play("""
        given ann buy 5@99
        given bob sell 5@100
        op admin phase open
            op ok
            * status BOND open why
        """)


def test_while_collecting_orders_rest_and_are_published() -> None:
    play(
        """
        ann sell 5@100
            ann 1 new 1 new 0/5
            * book BOND 1 | 100=5
        bob buy 3@103
            bob 1 new 2 new 0/3
            * book BOND 2 103=3 |
        bob sell 2@103 post_only
            bob error would_take price
        bob buy 2@101 gtd until=20s
            bob 2 new 3 new 0/2
            * book BOND 3 101=2 |
        ann amend 1 qty=9 price=99
            ann 2 amended 1 new 0/9
            * book BOND 4 | 99=9 100=0
        ann amend 1 qty=8
            ann 3 amended 1 new 0/8
            * book BOND 5 | 99=8
        bob amend 2 qty=1
            bob 3 amended 2 new 0/1
            * book BOND 6 103=1 |
        20s tick
            bob 4 expired 3 expired 0/2 gtd
            * book BOND 7 101=0 |
        ann cancel 1
            ann 4 canceled 1 canceled 0/8 user
            * book BOND 8 | 99=0
        """,
        listed(listing(phase="auction")),
    )


@pytest.mark.parametrize(
    "stp, ended, book",
    [
        ("cancel_oldest", [(1, 5), (3, 5)], "103=5 | 100=0 101=0"),
        ("cancel_newest", [(4, 5)], ""),
        ("cancel_both", [(1, 5), (4, 5)], "| 100=0"),
    ],
)
def test_while_collecting_own_orders_do_not_cross(
    stp: str, ended: list[tuple[int, int]], book: str
) -> None:
    engine = play(
        """
        given ann sell 5@100
        given bob sell 5@99
        given ann sell 5@101
        """,
        listed(listing(phase="pre_open")),
    )
    outputs = act(engine, f"ann buy 5@103 {stp}")
    assert [tell(*output) for output in outputs] == [
        "ann 3 new 4 new 0/5",
        *(
            f"ann {seq} canceled {order_id} canceled 0/{qty} stp"
            for seq, (order_id, qty) in enumerate(ended, start=4)
        ),
        *([f"* book BOND 4 {book}"] if book else []),
    ]


def test_while_collecting_an_amend_meets_own_orders() -> None:
    play(
        """
        given ann sell 5@100
        given ann buy 5@99
        ann amend 2 price=100
            ann 3 amended 2 new 0/5
            ann 4 canceled 1 canceled 0/5 stp
            * book BOND 3 100=5 99=0 | 100=0
        given ann sell 5@101 cancel_newest
        ann amend 3 price=98
            ann 6 amended 3 new 0/5
            ann 7 canceled 3 canceled 0/5 stp
            * book BOND 5 | 101=0
        """,
        listed(listing(phase="pre_open")),
    )


@pytest.mark.parametrize("phase", ["pre_open", "auction", "halted"])
def test_orders_die_with_their_connections_in_every_phase(phase: str) -> None:
    play(f"""
        ann connect
        bob connect keep
        given ann buy 5@90
        given bob buy 5@91
        given 10s bob cancel_after 5000
        given op admin phase {phase}
        ann disconnect
            ann 2 canceled 1 canceled 0/5 disconnect
            * book BOND 3 90=0 |
        15s tick
            bob 2 canceled 2 canceled 0/5 cancel_after
            * book BOND 4 91=0 |
        """)
