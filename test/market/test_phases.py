"""Phases, auctions and the circuit breaker, as a trader sees them.

The scripts are those of `test_engine`, and the lines with an arrow those of
`test_limits`.
"""

from __future__ import annotations

from typing import Any

import pytest

from exchange.market import timers
from exchange.market.accounts import AccountLimits
from exchange.market.engine import Engine
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
# Of each request what the phases say of it; those left out: market_closed.
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
    assert bond.as_told().phase == phase
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
    assert engine.listings["BOND"].as_told().phase == "halted"
    assert engine.listings["ETF"].phase == "auction"
    assert engine.listings["ETF"].book.is_collecting
    assert engine.next_deadline == due is not None


# From phase to phase ------------------------------------------------------


@pytest.mark.parametrize("after", PHASES)
@pytest.mark.parametrize("before", PHASES)
def test_from_any_phase_to_any_other(before: str, after: str) -> None:
    """An order stays, unless one of the two is `closed`."""
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


def test_a_phase_of_all_instruments_is_told_of_each() -> None:
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
def test_another_phase_meanwhile_stays(change: str) -> None:
    engine = play(f"""
        given 10s op admin phase auction reopen_ms=5000
        given op admin phase {change}
        15s tick
        """)
    assert engine.listings["BOND"].phase == change
    assert engine.next_deadline is None


def test_another_time_meanwhile_holds() -> None:
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
    """An exchange that was down opens what is due with its first tick."""
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
            bob 2 trade 2 filled 3/3 3@101 auction #1
            ann 2 trade 1 partially_filled 3/5 3@101 auction #1
            bob 3 account -303 BOND=3 worth 0
            ann 3 account 303 BOND=-3 worth 0
            * status BOND open why
            * trade BOND 3 #1 3@101 buy
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


def test_to_open_what_is_open_trades_nothing() -> None:
    play("""
        given ann buy 5@99
        given bob sell 5@100
        op admin phase open
            op ok
            * status BOND open why
        """)


def test_while_orders_gather_they_rest_and_are_seen() -> None:
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
def test_while_orders_gather_ones_own_do_not_cross(
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


def test_while_orders_gather_an_amend_meets_ones_own_too() -> None:
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


# Auctions -----------------------------------------------------------------


def test_the_example_of_the_protocol() -> None:
    """Order 1 buys 8 from order 4 and 2 from order 5, order 2 buys 6."""
    engine = play(
        """
        given a buy 10@103
        given b buy 6@101
        given c buy 8@99
        given d sell 8@98
        given e sell 10@100
        given f sell 5@102
        op admin phase open
            op ok
            a 2 trade 1 partially_filled 8/10 8@100 auction #1
            d 2 trade 4 filled 8/8 8@100 auction #1
            a 3 trade 1 filled 10/10 2@100 auction #2
            e 2 trade 5 partially_filled 2/10 2@100 auction #2
            b 2 trade 2 filled 6/6 6@100 auction #3
            e 3 trade 5 partially_filled 8/10 6@100 auction #3
            a 4 account -1000 BOND=10 worth 0
            d 3 account 800 BOND=-8 worth 0
            e 4 account 800 BOND=-8 worth 0
            b 3 account -600 BOND=6 worth 0
            * status BOND open why
            * trade BOND 7 #1 8@100 sell
            * trade BOND 7 #2 2@100 sell
            * trade BOND 7 #3 6@100 sell
            * book BOND 7 103=0 101=0 | 98=0 100=2
        """,
        listed(listing(phase="pre_open", reference_price=100)),
    )
    bond = engine.listings["BOND"]
    assert (bond.last, bond.volume, bond.trade_id) == (100, 16, 3)


def test_in_an_auction_nobody_pays_a_fee_and_the_younger_order_is_told() -> (
    None
):
    engine = play(
        """
        given ann sell 2@100
        given bob buy 3@100
        given ann sell 1@100
        op admin phase open
            op ok
            bob 2 trade 2 partially_filled 2/3 2@100 auction #1
            ann 3 trade 1 filled 2/2 2@100 auction #1
            bob 3 trade 2 filled 3/3 1@100 auction #2
            ann 4 trade 3 filled 1/1 1@100 auction #2
            bob 4 account -300 BOND=3 worth 0
            ann 5 account 300 BOND=-3 worth 0
            * status BOND open why
            * trade BOND 4 #1 2@100 buy
            * trade BOND 4 #2 1@100 sell
            * book BOND 4 100=0 | 100=0
        """,
        listed(listing(phase="auction", maker_fee=1, taker_fee=2)),
    )
    assert list(engine.accounts) == ["ann", "bob"], "and not the house"


def test_the_price_is_as_near_to_the_reference_as_it_may_be() -> None:
    """Any price from 90 to 110 would do, and no order is at 97."""
    engine = play(
        "given ann sell 5@90\ngiven bob buy 5@110",
        listed(listing(phase="auction", reference_price=97)),
    )
    act(engine, "op admin phase open")
    assert engine.listings["BOND"].last == 97


def test_the_last_price_is_the_reference_of_the_next_auction() -> None:
    engine = play(
        """
        given ann sell 1@104
        given bob buy 1@104
        given op admin phase auction
        given ann sell 5@90
        given bob buy 5@110
        """,
        listed(listing(reference_price=97)),
    )
    act(engine, "op admin phase open")
    assert engine.listings["BOND"].last == 104


def test_an_auction_may_be_made_below_zero() -> None:
    engine = play(
        """
        given ann sell 5@-9
        given bob buy 3@-7
        op admin phase open
            op ok
            bob 2 trade 2 filled 3/3 3@-7 auction #1
            ann 2 trade 1 partially_filled 3/5 3@-7 auction #1
            bob 3 account 21 BOND=3 worth 0
            ann 3 account -21 BOND=-3 worth 0
            * status BOND open why
            * trade BOND 3 #1 3@-7 buy
            * book BOND 3 -7=0 | -9=2
        """,
        listed(listing(phase="auction", min_price=-10)),
    )
    assert engine.accounts["ann"].reserved == 2 * 9


def test_what_an_auction_saves_is_free_again() -> None:
    engine = play(
        "given ann buy 5@100\ngiven bob sell 3@80",
        listed(
            listing(phase="auction", reference_price=85),
            ann=AccountLimits(cash=500, min_cash=0),
        ),
    )
    play("ann buy 1@1 -> insufficient_funds", engine)
    act(engine, "op admin phase open")
    ann = engine.accounts["ann"]
    assert (ann.cash, ann.reserved) == (500 - 3 * 85, 2 * 100)
    assert ann.buying == {"BOND": 2}
    assert ann.positions == {"BOND": 3}


def test_the_band_does_not_bind_an_auction_but_what_comes_after_it() -> None:
    engine = play(
        """
        given ann sell 5@150
        given bob buy 5@150
        given op admin phase open
        """,
        listed(listing(phase="auction", reference_price=100, band=5)),
    )
    assert engine.listings["BOND"].last == 150
    play(
        """
        given ann sell 5@155
        bob buy 5@155
            bob 4 new 4 new 0/5
            bob 5 trade 4 filled 5/5 5@155 taker #2
            ann 5 trade 3 filled 5/5 5@155 maker #2
            bob 6 account -1525 BOND=10 worth 25
            ann 6 account 1525 BOND=-10 worth -25
            * trade BOND 5 #2 5@155 buy
            * book BOND 5 | 155=0
        """,
        engine,
    )


# The band -----------------------------------------------------------------


def banded(**more: Any) -> Engine:
    """A price may move by 5 in one command, or trading stops for 10 s."""
    return listed(
        listing(reference_price=100, band=5, auction_ms=10_000, **more)
    )


STOPPED = (
    "* status BOND auction the next trade would be more than 5 from the"
    " reference price"
)


def test_the_fills_before_the_band_stand_and_the_rest_rests() -> None:
    engine = play(
        f"""
        given ann sell 5@104
        given ann sell 5@105
        given ann sell 5@106
        given ann sell 5@107
        given bob buy 1@90
        1s cat buy 12@106
            cat 1 new 6 new 0/12
            cat 2 trade 6 partially_filled 5/12 5@104 taker #1
            ann 5 trade 1 filled 5/5 5@104 maker #1
            cat 3 trade 6 partially_filled 10/12 5@105 taker #2
            ann 6 trade 2 filled 5/5 5@105 maker #2
            cat 4 account -1045 BOND=10 worth 15
            ann 7 account 1045 BOND=-10 worth -15
            {STOPPED}
            * trade BOND 6 #1 5@104 buy
            * trade BOND 6 #2 5@105 buy
            * book BOND 6 106=2 | 104=0 105=0
        """,
        banded(),
    )
    bond = engine.listings["BOND"]
    assert (bond.phase, bond.last) == ("auction", 105)
    assert engine.mark("BOND") == 106, "the median of 106, 105 and 106"
    assert engine.next_deadline == 11 * SECOND
    play(
        """
        given dan sell 2@106
        10s tick
        11s tick
            cat 5 trade 6 filled 12/12 2@106 auction #3
            ann 8 trade 3 partially_filled 2/5 2@106 auction #3
            cat 6 account -1257 BOND=12 worth 15
            ann 9 account 1257 BOND=-12 worth -15
            * status BOND open time is up
            * trade BOND 8 #3 2@106 buy
            * book BOND 8 106=0 | 106=5
        """,
        engine,
    )
    assert engine.next_deadline is None


def test_a_sale_stops_at_the_band_below() -> None:
    play(
        f"""
        given ann buy 5@95
        given ann buy 5@94
        bob sell 9@94
            bob 1 new 3 new 0/9
            bob 2 trade 3 partially_filled 5/9 5@95 taker #1
            ann 3 trade 1 filled 5/5 5@95 maker #1
            bob 3 account 475 BOND=-5 worth 5
            ann 4 account -475 BOND=5 worth -5
            {STOPPED}
            * trade BOND 3 #1 5@95 sell
            * book BOND 3 95=0 | 94=4
        """,
        banded(),
    )


@pytest.mark.parametrize(
    "line, end",
    [
        ("buy 5@120 ioc", "expired 2 expired 0/5 ioc"),
        ("buy 5@market", "expired 2 expired 0/5 no_liquidity"),
    ],
)
def test_what_may_not_rest_expires_and_the_market_stops(
    line: str, end: str
) -> None:
    engine = play(
        f"""
        given ann sell 5@106
        bob {line}
            bob 1 new 2 new 0/5
            bob 2 {end}
            {STOPPED}
        """,
        banded(),
    )
    assert engine.accounts["bob"].reserved == 0


@pytest.mark.parametrize("line", ["buy 6@120 fok", "buy 6@market fok"])
def test_a_fok_order_expires_and_stops_nothing(line: str) -> None:
    engine = play(
        f"""
        given ann sell 5@105
        given ann sell 5@106
        bob {line}
            bob 1 new 3 new 0/6
            bob 2 expired 3 expired 0/6 fok
        """,
        banded(),
    )
    assert engine.listings["BOND"].phase == "open"
    play(
        """
        bob buy 5@120 fok
            bob 3 new 4 new 0/5
            bob 4 trade 4 filled 5/5 5@105 taker #1
            ann 3 trade 1 filled 5/5 5@105 maker #1
            bob 5 account -525 BOND=5 worth 0
            ann 4 account 525 BOND=-5 worth 0
            * trade BOND 3 #1 5@105 buy
            * book BOND 3 | 105=0
        """,
        engine,
    )


def test_the_band_follows_the_market_from_command_to_command() -> None:
    play(
        """
        given ann connect
        given bob connect
        ann sell 1@105     -> ok
        ann sell 1@110     -> ok
        ann sell 1@116     -> ok
        bob buy 1@105      -> ok
        bob buy 1@110      -> ok
        bob buy 1@115 ioc  -> ok
        bob buy 1@116 ioc  -> ok
        bob buy 1@90 ioc   -> market_closed
        """,
        banded(),
    )


def test_the_band_is_around_the_price_before_the_command() -> None:
    """From 100 the first trade is at 105; 106 is no step of 5 from 100."""
    engine = play(
        """
        given ann sell 1@105
        given ann sell 1@106
        given bob buy 2@106
        """,
        banded(),
    )
    bond = engine.listings["BOND"]
    assert (bond.last, bond.phase) == (105, "auction")


def test_ones_own_orders_beyond_the_band_stop_nothing() -> None:
    engine = play(
        """
        given ann sell 5@110
        ann buy 5@110
            ann 2 new 2 new 0/5
            ann 3 canceled 1 canceled 0/5 stp
            * book BOND 2 110=5 | 110=0
        """,
        banded(),
    )
    assert engine.listings["BOND"].phase == "open"


def test_what_the_band_leaves_meets_no_order_of_its_own_account() -> None:
    play(
        f"""
        given bob sell 5@106
        given ann sell 5@107
        ann buy 5@108
            ann 2 new 3 new 0/5
            ann 3 canceled 2 canceled 0/5 stp
            {STOPPED}
            * book BOND 3 108=5 | 107=0
        given ann cancel_all
        given op admin phase open
        given ann sell 5@107
        ann buy 5@108 cancel_newest
            ann 6 new 5 new 0/5
            ann 7 canceled 5 canceled 0/5 stp
            {STOPPED}
        """,
        banded(),
    )


def test_an_amend_stops_at_the_band_too() -> None:
    engine = play(
        f"""
        given ann sell 5@104
        given ann sell 5@106
        given bob buy 9@90
        2s bob amend 3 price=110 qty=8
            bob 2 amended 3 new 0/8
            bob 3 trade 3 partially_filled 5/8 5@104 taker #1
            ann 3 trade 1 filled 5/5 5@104 maker #1
            bob 4 account -520 BOND=5 worth 10
            ann 4 account 520 BOND=-5 worth -10
            {STOPPED}
            * trade BOND 4 #1 5@104 buy
            * book BOND 4 110=3 90=0 | 104=0
        """,
        banded(),
    )
    assert engine.next_deadline == 12 * SECOND
    bob = engine.accounts["bob"]
    assert (bob.reserved, bob.buying) == (3 * 110, {"BOND": 3})


def test_without_a_band_nothing_stops() -> None:
    engine = play(
        "given ann sell 5@999\ngiven bob buy 5@999",
        listed(listing(reference_price=100)),
    )
    assert engine.listings["BOND"].last == 999


def test_an_administrator_may_open_it_sooner_or_never() -> None:
    engine = play(
        """
        given ann sell 5@110
        given 1s bob buy 5@110
        2s op admin phase open
            op ok
            bob 2 trade 2 filled 5/5 5@110 auction #1
            ann 2 trade 1 filled 5/5 5@110 auction #1
            bob 3 account -550 BOND=5 worth 0
            ann 3 account 550 BOND=-5 worth 0
            * status BOND open why
            * trade BOND 3 #1 5@110 buy
            * book BOND 3 110=0 | 110=0
        11s tick
        given ann sell 5@120
        given 12s bob buy 5@120
        13s op admin phase halted
            op ok
            * status BOND halted why
        90s tick
        """,
        banded(),
    )
    assert engine.next_deadline is None


# Deadlines of the same moment ---------------------------------------------


def test_of_one_moment_the_switches_come_first_then_orders_then_phases() -> (
    None
):
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
            cat 2 trade 3 filled 5/5 5@103 auction #1
            dan 2 trade 4 partially_filled 5/9 5@103 auction #1
            cat 3 account -515 BOND=5 worth 0
            dan 3 account 515 BOND=-5 worth 0
            * status BOND open time is up
            * trade BOND 5 #1 5@103 sell
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


def test_orders_that_expire_with_a_phase_may_take_several_ticks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timers, "DEADLINES_PER_COMMAND", 2)
    engine = play(
        """
        given ann buy 5@105 gtd until=10s
        given ann buy 5@104 gtd until=10s
        given bob sell 5@104
        given 1s op admin phase auction reopen_ms=9000
        10s tick
            ann 3 expired 1 expired 0/5 gtd
            ann 4 expired 2 expired 0/5 gtd
            * book BOND 4 105=0 104=0 |
        """,
        listed(listing(phase="auction")),
    )
    assert engine.next_deadline == 10 * SECOND
    play("tick\n    * status BOND open time is up", engine)
    assert engine.next_deadline is None
