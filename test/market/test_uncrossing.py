"""Auctions: the trades that they make and the events of them."""

from __future__ import annotations

from exchange.market.accounts import AccountLimits
from test.script import act, listed, listing, play


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


def test_an_auction_is_free_and_names_the_younger_orders_side() -> None:
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
            bob 2 trade 2 filled 3/3 3@-9 auction #1
            ann 2 trade 1 partially_filled 3/5 3@-9 auction #1
            bob 3 account 27 BOND=3 worth 0
            ann 3 account -27 BOND=-3 worth 0
            * status BOND open why
            * trade BOND 3 #1 3@-9 buy
            * book BOND 3 -7=0 | -9=2
        """,
        listed(listing(phase="auction", min_price=-10)),
    )
    assert engine.accounts["ann"].reserved == 2 * 9


def test_an_auction_releases_the_difference() -> None:
    engine = play(
        "given ann buy 5@100\ngiven ann buy 2@50\ngiven bob sell 9@80",
        listed(
            listing(phase="auction"),
            ann=AccountLimits(cash=600, min_cash=0),
        ),
    )
    play("ann buy 1@1 -> insufficient_funds", engine)
    act(engine, "op admin phase open")
    ann = engine.accounts["ann"]
    assert (ann.cash, ann.reserved) == (600 - 5 * 80, 2 * 50)
    assert ann.buying == {"BOND": 2}
    assert ann.positions == {"BOND": 5}


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
