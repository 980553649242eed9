"""Trades of an account with itself, where the instrument allows them."""

from __future__ import annotations

from test.script import act, limited, listed, listing, play

WASH = listing(self_trades=True, reference_price=100)


def test_the_instrument_says_whether_it_is_possible() -> None:
    play(
        """
        ann buy 5@99 stp=none -> bad_request stp
        ann buy 5@99 trigger=98 stp=none -> bad_request stp
        ann buy 5@market stp=none -> bad_request stp
        """,
        limited(),
    )
    play("ann buy 5@99 stp=none -> ok", limited(WASH))


def test_it_is_printed_and_moves_no_price_and_elects_no_stop() -> None:
    engine = play(
        """
        given ann sell 5@104
        given bob buy 1@market trigger=101
        ann buy 5@104 stp=none
            ann 2 new 3 new 0/5
            ann 3 trade 3 filled 5/5 5@104 taker #1
            ann 4 trade 1 filled 5/5 5@104 maker #1
            ann 5 account 0 BOND=0 worth 0
            * trade BOND 2 #1 5@104 buy self
            * book BOND 2 | 104=0
        """,
        listed(WASH),
    )
    bond = engine.listings["BOND"]
    assert (bond.last, bond.reference, bond.mark()) == (None, 100, 100)
    assert list(bond.stops.orders) == [2]
    assert bond.volume == 5


def test_the_arriving_order_decides() -> None:
    play(
        """
        given ann sell 5@104 stp=none
        ann buy 5@104
            ann 2 new 2 new 0/5
            ann 3 canceled 1 canceled 0/5 stp
            * book BOND 2 104=5 | 104=0
        """,
        listed(WASH),
    )


def test_fees_are_paid_on_both_sides() -> None:
    engine = listed(listing(self_trades=True, taker_fee=2, maker_fee=1))
    act(engine, "ann sell 5@104")
    act(engine, "ann buy 5@104 stp=none")
    engine.check()
    assert engine.accounts["ann"].cash == -15
    assert engine.accounts["ann"].realized == -15


def test_fok_counts_own_orders() -> None:
    engine = listed(WASH)
    act(engine, "ann sell 5@104")
    act(engine, "ann buy 5@104 stp=none fok")
    assert engine.listings["BOND"].trade_id == 1


def test_in_an_auction_own_orders_may_cross_and_trade() -> None:
    engine = play(
        """
        given ann sell 5@100
        given ann buy 5@102 stp=none
        given bob buy 1@market trigger=101
        op admin phase open
            op ok
            ann 3 trade 2 filled 5/5 5@100 auction #1
            ann 4 trade 1 filled 5/5 5@100 auction #1
            ann 5 account 0 BOND=0 worth 0
            * status BOND open why
            * trade BOND 3 #1 5@100 buy self
            * book BOND 3 102=0 | 100=0
        """,
        listed(listing(self_trades=True, phase="auction", reference_price=90)),
    )
    assert engine.listings["BOND"].last is None


def test_an_own_order_outside_the_band_is_left_alone() -> None:
    """The band stops the order before self-trade prevention acts."""
    play(
        """
        given ann sell 5@104
        ann buy 5@104 ioc
            ann 2 new 2 new 0/5
            ann 3 expired 2 expired 0/5 ioc
            * status BOND auction the next trade would be more than 3 ticks \
from the reference price
        """,
        listed(listing(reference_price=100, band=3)),
    )
