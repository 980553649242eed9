"""The band: fills before it stand, then the instrument is in auction."""

from __future__ import annotations

from typing import Any

import pytest

from exchange.market.engine import Engine
from test.script import SECOND, listed, listing, play


def banded(**more: Any) -> Engine:
    """A price may move by 5 in one command, or trading stops for 10 s."""
    return listed(
        listing(reference_price=100, band=5, auction_ms=10_000, **more)
    )


STOPPED = (
    "* status BOND auction the next trade would be more than 5 ticks from the"
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
def test_at_the_band_an_ioc_order_expires_and_the_market_stops(
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
