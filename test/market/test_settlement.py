"""What an administrator does with cash and lots: adjust, settle, reset.

The administrator is op.
"""

from __future__ import annotations

import pytest

from exchange.market.accounts import HOUSE, AccountLimits
from test.market.test_operator import cash_of, traded
from test.script import SECOND, act, listed, listing, play, reconfigure

# Adjust -------------------------------------------------------------------


def test_adjusted_cash_comes_from_the_house() -> None:
    engine = traded()
    play(
        """
        op admin adjust user=ann cash=70
            op ok
            ann 4 account 570 BOND=5 worth 1070
            * status adjust ann by +70 cash: why
        op admin adjust user=bob cash=-2000
            op ok
            bob 4 account -505 BOND=-5 worth -1005 made -5
            * status adjust bob by -2000 cash: why
        """,
        engine,
    )
    assert cash_of(engine) == {"ann": 570, "bob": -505, HOUSE: 5 + 1_930}


def test_adjusted_lots_come_from_the_house_at_their_mark() -> None:
    """Ann's 5 cost 500, and 3 at the mark of 110 cost 330: 830 for 8."""
    engine = traded()
    play(
        """
        given bob buy 1@110 symbol=BOND
        given bob sell 1@115 symbol=BOND
        op admin adjust user=ann symbol=BOND qty=3
            op ok
            ann 4 account 500 BOND=8 worth 1380
            * status adjust ann by +3 BOND: why
        """,
        engine,
    )
    house, ann = engine.accounts[HOUSE], engine.accounts["ann"]
    assert (house.positions, house.cash) == ({"BOND": -3}, 5)
    assert ann.costs == {"BOND": 830}
    report = engine.account_report(ann)
    assert (report.realized, report.unrealized) == (0, 880 - 830)
    play(
        """
        op admin adjust user=ann symbol=BOND qty=-10 cash=9
            op ok
            ann 5 account 509 BOND=-2 worth 289 made 50
            * status adjust ann by +9 cash, -10 BOND: why
        op admin adjust user=ann symbol=ETF qty=0
            op ok
            ann 6 account 509 BOND=-2 worth 289 made 50
            * status adjust ann by +0 ETF: why
        """,
        engine,
    )
    assert (house.positions, house.cash) == ({"BOND": 7}, -4)


def test_lots_are_adjusted_in_every_phase_and_for_suspended_accounts() -> None:
    engine = traded()
    play(
        """
        op admin phase closed                         -> ok
        op admin suspend user=ann                        -> ok
        op admin adjust user=ann symbol=BOND qty=3    -> ok
        op admin adjust user=ann cash=3               -> ok
        """,
        engine,
    )
    assert engine.accounts["ann"].positions == {"BOND": 8}


# Settle -------------------------------------------------------------------


def test_settling_turns_positions_into_cash_and_closes() -> None:
    engine = traded()
    play(
        """
        given cat buy 5@101 symbol=BOND
        given bob sell 2@101 symbol=BOND
        given ann sell 5@120 symbol=BOND
        given ann buy 5@90 symbol=ETF
        given op admin adjust user=cat symbol=BOND qty=4
        given cat amend 3 price=98
        op admin settle symbol=BOND price=104
            op ok
            cat 6 canceled 3 canceled 2/5 admin
            ann 6 canceled 5 canceled 0/5 admin
            ann 7 settlement BOND 5@104 made 20
            ann 7 account 1020 BOND=0 worth 1020 made 20
            bob 7 settlement BOND -7@104 made -26
            bob 7 account 967 BOND=0 worth 967 made -33
            cat 7 settlement BOND 6@104 made 18
            cat 7 account 1422 BOND=0 worth 1422 made 18
            * status BOND closed settled at 104: why
            * book BOND 7 98=0 | 120=0
        """,
        engine,
    )
    assert cash_of(engine) == {
        "ann": 1_020,
        "bob": 967,
        HOUSE: 7 - 4 * 104,
        "cat": 1_422,
    }
    assert engine.accounts["ann"].buying == {"BOND": 0, "ETF": 5}
    assert all(not a.costs.get("BOND") for a in engine.accounts.values())
    play(
        """
        ann buy 1@104 symbol=BOND
            ann error market_closed
        op admin settle symbol=BOND price=200
            op error market_closed
        op admin settle prices=BOND:200,ETF:90
            op error market_closed
        """,
        engine,
    )
    bond = engine.listings["BOND"].current_instrument()
    assert (bond.phase, bond.settlement_price) == ("closed", 104)


@pytest.mark.parametrize("price", [-50, 0, 50])
def test_settling_conserves_cash_at_any_price(price: int) -> None:
    engine = listed(listing(min_price=-50, max_price=50))
    play(
        """
        given ann buy 9@7
        given bob sell 4@7
        given cat sell 3@6
        """,
        engine,
    )
    act(engine, f"op admin settle symbol=BOND price={price}")
    assert cash_of(engine) == {
        "ann": 7 * (price - 7),
        "bob": 4 * (7 - price),
        "cat": 3 * (7 - price),
    }
    assert engine.listings["BOND"].phase == "closed"


@pytest.mark.parametrize("phase", ["pre_open", "auction"])
def test_settling_a_crossed_book_trades_nothing(phase: str) -> None:
    play(
        """
        given ann sell 5@100
        given bob buy 5@105
        op admin settle symbol=BOND price=50
            op ok
            ann 2 canceled 1 canceled 0/5 admin
            bob 2 canceled 2 canceled 0/5 admin
            * status BOND closed settled at 50: why
            * book BOND 3 105=0 | 100=0
        """,
        listed(listing(phase=phase)),
    )


def test_a_settled_instrument_may_be_opened_again() -> None:
    engine = traded()
    act(engine, "op admin settle symbol=BOND price=104")
    act(engine, "op admin phase open symbol=BOND")
    play("ann buy 1@104 symbol=BOND -> ok", engine)


def test_settling_ends_a_time_that_was_set() -> None:
    engine = play("""
        given 1s op admin phase auction reopen_ms=5000
        given op admin settle symbol=BOND price=104
        9s tick
        """)
    assert engine.next_deadline is None


# Reset --------------------------------------------------------------------


def test_a_reset_begins_a_new_round() -> None:
    engine = listed(
        listing("BOND", reference_price=90, taker_fee=1),
        listing("ETF", phase="pre_open"),
        limits=AccountLimits(cash=1_000),
        bob=AccountLimits(cash=500),
    )
    play(
        """
        given ann buy 5@100 symbol=BOND
        given bob sell 3@100 symbol=BOND
        given bob buy 5@90 symbol=ETF
        given ann sell 5@110 symbol=BOND
        given 1s ann cancel_after 90000
        given op admin adjust user=ann symbol=BOND qty=2 cash=7
        given zoe connect
        given op admin suspend user=zoe
        given op admin phase halted symbol=BOND reopen_ms=5000
        given op admin phase open symbol=ETF
        op admin reset
            op ok
            ann 6 canceled 1 canceled 3/5 admin
            bob 5 canceled 3 canceled 0/5 admin
            ann 7 canceled 4 canceled 0/5 admin
            ann 8 account 1000 worth 1000
            bob 6 account 500 worth 500
            zoe 1 account 1000 worth 1000
            * status BOND open reset: why round 2
            * status ETF pre_open reset: why round 2
            * book BOND 4 100=0 | 110=0
            * book ETF 2 90=0 |
        """,
        engine,
    )
    assert cash_of(engine) == {
        "ann": 1_000,
        "bob": 500,
        HOUSE: 0,
        "zoe": 1_000,
    }
    for account in engine.accounts.values():
        assert not account.positions and not account.costs
        assert not account.realized and not account.reserved
    bond = engine.listings["BOND"]
    assert (bond.last, bond.volume, bond.trade_id) == (None, 0, 1)
    assert (bond.reference, bond.mark()) == (90, 90)
    assert engine.accounts["zoe"].is_suspended
    assert engine.next_deadline == 91 * SECOND, "the switch of ann"
    play(
        """
        given ann sell 1@95 symbol=BOND
        bob buy 1@95 symbol=BOND
            bob 7 new 6 new 0/1 round 2
            bob 8 trade 6 filled 1/1 1@95 taker #2 fee 1 round 2
            ann 10 trade 5 filled 1/1 1@95 maker #2 round 2
            bob 9 account 404 BOND=1 worth 499 made -1
            ann 11 account 1095 BOND=-1 worth 1000
            * trade BOND 6 #2 1@95 buy round 2
            * book BOND 6 | 95=0
        """,
        engine,
    )


def test_a_reset_gives_the_cash_that_is_configured_now() -> None:
    engine = traded()
    reconfigure(engine, limits=AccountLimits(cash=3_000))
    act(engine, "op admin reset")
    assert cash_of(engine) == {"ann": 3_000, "bob": 3_000, HOUSE: 0}


@pytest.mark.parametrize("phase", ["pre_open", "auction", "closed"])
def test_a_reset_of_a_crossed_book_trades_nothing(phase: str) -> None:
    engine = play(
        """
        given ann sell 5@100
        given bob buy 5@105
        """,
        listed(listing(phase="auction")),
    )
    reconfigure(engine, instruments=(listing(phase=phase),))
    act(engine, "op admin reset")
    bond = engine.listings["BOND"]
    assert (bond.phase, bond.trade_id, bond.book.orders) == (phase, 0, {})


def test_orders_and_their_names_are_known_after_a_reset() -> None:
    play("""
        given ann connect
        given ann buy 5@99 as=mine
        given op admin reset
        ann buy 5@99 as=mine
            ann error duplicate_client_order_id client_order_id 1 canceled 0
        ann buy 5@99 as=other
            ann 4 new 2 new 0/5 round 2
            * book BOND 3 99=5 |
        ann disconnect
            ann 5 canceled 2 canceled 0/5 disconnect round 2
            * book BOND 4 99=0 |
        """)
