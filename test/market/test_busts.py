"""Trades that are undone, and reference prices that are moved."""

from __future__ import annotations

import random

import pytest

from exchange.gateway.busts import busting
from exchange.journal.history import History
from exchange.market.accounts import HOUSE, AccountLimits
from exchange.market.engine import Engine
from exchange.market.listing import TRADES_BUSTABLE
from orderbook import Admin
from test.script import act, apply, listed, listing, parse, play

FEES = "buy_fee=5 sell_fee=-2"


def traded(**more: int) -> Engine:
    """Ann has bought 5 from bob at 101, and 3 at 103; cat has nothing."""
    return play(
        """
        given ann connect
        given bob connect
        given cat connect
        given bob sell 5@101
        given ann buy 5@101
        given bob sell 4@103
        given ann buy 3@103
        """,
        listed(listing(reference_price=90, **more)),
    )


def test_lots_and_cash_go_back_and_everybody_is_told() -> None:
    play(
        """
        op bust 1 ann 5@101 bob
            op ok
            ann 7 account -309 BOND=3 worth 0 made -3
            bob 7 account 309 BOND=-3 worth 0 made 4
            * status BOND bust trade 1: why
            * bust BOND 5 #1
            * book BOND 5 |
        bob cancel 3
            bob 8 canceled 3 canceled 3/4 user
            * book BOND 6 | 103=0
        """,
        traded(),
    )


def test_the_fees_are_given_back() -> None:
    engine = traded(taker_fee=1, maker_fee=-1)
    ann, bob = engine.accounts["ann"], engine.accounts["bob"]
    before = ann.realized, bob.realized
    play("given op bust 1 ann 5@101 bob buy_fee=5 sell_fee=-5", engine)
    assert (ann.cash, bob.cash) == (-309 - 3, 309 + 3)
    # Five lots at 101 leave a position that cost 101.75 on average.
    assert (ann.realized, bob.realized) == (
        before[0] + 5 - 3,
        before[1] - 5 + 4,
    )
    play("given op bust 2 ann 3@103 bob buy_fee=3 sell_fee=-3", engine)
    for account in (ann, bob, engine.accounts[HOUSE]):
        assert (account.cash, account.realized) == (0, 0)
        assert not any(account.positions.values())
        assert not any(account.costs.values())


def test_it_is_booked_as_a_fill_in_the_other_direction() -> None:
    engine = play(
        """
        given bob cancel_all
        given cat buy 4@111
        given ann sell 4@111
        """,
        traded(),
    )
    ann = engine.accounts["ann"]
    assert ann.realized == 444 - 407
    play("given op bust 3 cat 4@111 ann", engine)
    assert (ann.cash, ann.positions["BOND"]) == (-814, 8)
    assert (ann.costs["BOND"], ann.realized) == (407 + 444, 444 - 407)
    assert engine.accounts["cat"].cash == 0


def test_the_orders_stay_as_they_are() -> None:
    engine = play("given op bust 2 ann 3@103 bob", traded())
    rest = engine.accounts["bob"].orders[3]
    assert (rest.order_status, rest.cum_qty, rest.leaves_qty) == (
        "partially_filled",
        3,
        1,
    )
    assert engine.accounts["ann"].orders[4].cum_qty == 3


def test_a_trade_with_oneself_is_undone_to_nothing() -> None:
    engine = play("given op bust 1 ann 5@101 ann", traded())
    assert engine.accounts["ann"].positions == {"BOND": 8}


# What is left -------------------------------------------------------------


def prices(engine: Engine) -> tuple[int | None, int, int, int]:
    bond = engine.listings["BOND"]
    return bond.last, bond.reference, bond.mark(), bond.volume


def test_last_reference_and_mark_follow_the_newest_trade_left() -> None:
    engine = play("given bob cancel_all", traded())
    assert prices(engine) == (103, 103, 103, 8)
    act(engine, "op bust 2 ann 3@103 bob")
    assert prices(engine) == (101, 101, 101, 5)
    act(engine, "op bust 1 ann 5@101 bob")
    assert prices(engine) == (None, 90, 90, 0)
    play("given bob sell 1@99\ngiven ann buy 1@99", engine)
    assert prices(engine) == (99, 99, 99, 1)


def test_an_older_trade_that_is_undone_leaves_the_last_price() -> None:
    engine = play("given op bust 1 ann 5@101 bob", traded())
    assert prices(engine)[:2] == (103, 103)
    act(engine, "op bust 2 ann 3@103 bob")
    assert prices(engine)[:2] == (None, 90)


def test_a_trade_with_oneself_sets_no_price_and_leaves_none() -> None:
    engine = play(
        """
        given bob cancel_all
        given ann sell 2@110
        given ann buy 2@110 stp=none
        """,
        traded(self_trades=True),
    )
    assert engine.listings["BOND"].trade_id == 3
    assert prices(engine) == (103, 103, 103, 10)
    act(engine, "op bust 3 ann 2@110 ann")
    assert prices(engine) == (103, 103, 103, 8)
    act(engine, "op bust 2 ann 3@103 bob")
    assert prices(engine)[:2] == (101, 101)


def test_a_bust_and_a_reference_price_elect_no_stop() -> None:
    engine = play(
        """
        given bob cancel_all
        given cat buy 1@95
        cat sell 1@market trigger=101 -> ok
        op admin reference symbol=BOND price=95 -> ok
        op bust 2 ann 3@103 bob -> ok
        given 20s tick
        """,
        traded(),
    )
    assert engine.listings["BOND"].last == 101
    buy, stop = engine.accounts["cat"].open_orders.values()
    assert stop.order_status == "waiting"


def test_a_trade_of_a_settled_instrument_is_refused() -> None:
    play(
        """
        given op admin settle symbol=BOND price=90
        op bust 2 ann 3@103 bob -> bad_request trade_id
        given op admin reset
        given bob sell 1@99
        given ann buy 1@99
        op bust 3 ann 1@99 bob -> ok
        """,
        traded(),
    )


def test_orders_that_the_money_no_longer_covers_are_canceled() -> None:
    engine = listed(listing(), ann=AccountLimits(cash=1_000, min_cash=0))
    play(
        """
        given ann connect
        given bob buy 5@120
        given ann sell 5@120
        given ann buy 8@150
        given ann buy 3@100
        op bust 1 bob 5@120 ann
            op ok
            ann 6 canceled 4 canceled 0/3 funds
            ann 7 canceled 3 canceled 0/8 funds
            bob 4 account 0 BOND=0 worth 0
            ann 8 account 1000 BOND=0 worth 1000
            * status BOND bust trade 1: why
            * bust BOND 5 #1
            * book BOND 5 150=0 100=0 |
        """,
        engine,
    )


@pytest.mark.parametrize(
    "trade_id, words",
    [
        (0, "there is no trade 0"),
        (3, "there is no trade 3"),
        (1, "trade 1 is busted already"),
    ],
)
def test_what_cannot_be_undone_is_refused(trade_id: int, words: str) -> None:
    engine = play("given op bust 1 ann 5@101 bob", traded())
    line = f"op bust {trade_id} ann 5@101 bob"
    play(f"{line} -> bad_request trade_id", engine)
    ((_, error),) = act(engine, line)
    assert error.message == f"trade_id: {words}"  # type: ignore


def test_an_unknown_symbol_and_lost_fills_are_refused() -> None:
    play(
        """
        op bust 1 ann 5@101 bob symbol=NONE -> unknown_symbol symbol
        op admin bust symbol=NONE trade_id=1 -> unknown_symbol symbol
        op admin bust symbol=BOND trade_id=9 -> bad_request trade_id
        op admin bust symbol=BOND trade_id=1 -> bad_request trade_id
        """,
        traded(),
    )


def test_a_trade_of_another_round_is_refused() -> None:
    play(
        """
        given op admin reset
        op bust 2 ann 3@103 bob -> bad_request trade_id
        given bob sell 1@99
        given ann buy 1@99
        op bust 2 ann 3@103 bob -> bad_request trade_id
        op bust 3 ann 1@99 bob -> ok
        """,
        traded(),
    )


def test_only_the_last_trades_can_be_undone_and_a_price_is_left() -> None:
    engine = play("given bob cancel_all", traded())
    bond = engine.listings["BOND"]
    for trade_id in range(3, TRADES_BUSTABLE + 2):
        bond.trade_id = trade_id  # as trades would, in a hundredth of the time
        bond.recent.append((trade_id, 100))
    bond.last = 100
    play(
        """
        op bust 1 ann 5@101 bob -> bad_request trade_id
        op bust 2 ann 3@103 bob -> ok
        """,
        engine,
    )
    for trade_id in range(3, TRADES_BUSTABLE + 2):
        act(engine, f"op bust {trade_id} ann 1@100 ann")
    assert bond.last == 101 and len(bond.busted) == TRADES_BUSTABLE


def test_a_bust_takes_effect_once_for_a_client_request_id() -> None:
    play(
        """
        op bust 9 ann 5@101 bob client_request_id=r-1 -> bad_request trade_id
        op bust 1 ann 5@101 bob client_request_id=r-1 -> ok
        op bust 1 ann 5@101 bob client_request_id=r-1 \
-> duplicate_client_request_id client_request_id
        op admin bust symbol=BOND trade_id=1 client_request_id=r-1 \
-> duplicate_client_request_id client_request_id
        """,
        traded(),
    )


def test_no_position_becomes_more_than_can_be_counted() -> None:
    engine = traded()
    most = engine.listings["BOND"].position_max
    engine.accounts["bob"].positions["BOND"] = most - 4
    play("op bust 1 ann 5@101 bob -> position_limit", engine)


# The reference ------------------------------------------------------------


def test_a_reference_price_holds_until_the_next_trade() -> None:
    engine = play(
        """
        op admin reference symbol=BOND price=500
            op ok
            * status BOND reference price 500: why
        cat buy 1@505 -> ok
        cat buy 1@506 -> invalid_price price
        given dan sell 1@505
        cat buy 1@511 -> invalid_price price
        """,
        listed(listing(reference_price=90, collar=5)),
    )
    assert engine.listings["BOND"].reference == 505
    assert engine.listings["BOND"].last == 505


def test_a_reference_price_is_no_last_price_and_moves_the_mark() -> None:
    engine = play("given bob cancel_all", traded())
    act(engine, "op admin reference symbol=BOND price=500")
    assert prices(engine) == (103, 500, 500, 8)


def test_an_impossible_reference_price_is_refused() -> None:
    play(
        """
        op admin reference symbol=NONE price=5 -> unknown_symbol symbol
        op admin reference symbol=BOND price=0 -> invalid_price price
        op admin reference symbol=BOND price=1001 -> invalid_price price
        """,
        traded(),
    )


def test_a_reference_price_follows_the_file_on_reset() -> None:
    engine = traded()
    act(engine, "op admin reference symbol=BOND price=500")
    act(engine, "op admin reset")
    assert prices(engine)[:2] == (None, 90)


def test_a_reference_price_holds_again_if_the_trade_after_it_is_undone() -> (
    None
):
    engine = traded()
    play(
        """
        given bob cancel_all
        given op admin reference symbol=BOND price=500
        given bob sell 1@510
        given ann buy 1@510
        """,
        engine,
    )
    assert prices(engine)[:2] == (510, 510)
    act(engine, "op bust 3 ann 1@510 bob")
    assert prices(engine)[:2] == (103, 500)
    act(engine, "op bust 2 ann 3@103 bob")
    assert prices(engine)[:2] == (101, 500)


def test_the_band_and_an_auction_use_the_reference_price() -> None:
    engine = listed(listing(reference_price=100, band=5, auction_ms=9_000))
    play(
        """
        given op admin reference symbol=BOND price=200
        given ann sell 1@204
        given bob buy 1@204
        given op admin phase auction
        given op admin reference symbol=BOND price=300
        given ann sell 2@290
        given bob buy 2@310
        given op admin phase open
        """,
        engine,
    )
    assert engine.listings["BOND"].last == 300


def test_limits_are_of_the_account() -> None:
    """A bust may leave a position beyond its limit: lots were sold on."""
    engine = listed(listing(max_position=10), limits=AccountLimits(cash=0))
    play(
        """
        given bob sell 5@101
        given ann buy 5@101
        given cat buy 5@101
        given ann sell 5@101
        given ann sell 10@110
        op bust 1 ann 5@101 bob -> ok
        """,
        engine,
    )
    assert engine.accounts["ann"].positions["BOND"] == -5


# Random flows -------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_cash_and_lots_are_conserved_whatever_is_undone(seed: int) -> None:
    """The gateway's way: the parties of each trade come from the history."""
    rng = random.Random(seed)
    engine, history = listed(listing(taker_fee=3, maker_fee=-1)), History()
    undone: set[int] = set()
    for number in range(400):
        who = rng.choice(("ann", "bob", "cat"))
        match rng.randrange(8):
            case 0:
                trade_id = rng.randint(0, engine.listings["BOND"].trade_id)
                request = parse(
                    f"admin bust symbol=BOND trade_id={trade_id}".split()
                )
                assert isinstance(request, Admin)
                outputs = apply(engine, busting(history, request), "op")
                is_refused = outputs[0][1].type == "error"
                assert is_refused == (not trade_id or trade_id in undone)
                undone.add(trade_id)
            case 1:
                line = f"op admin tender tender_id=t-{number} symbol=BOND"
                offer = f"{line} side=sell qty=3 price=50 valid_ms=1000"
                outputs = act(engine, offer)
                outputs += act(engine, f"{who} accept t-{number}")
            case _:
                side, price = rng.choice(("buy", "sell")), rng.randint(48, 52)
                qty = rng.randint(1, 9)
                outputs = act(engine, f"{who} {side} {qty}@{price}")
        history.record(outputs)
        engine.check()
        accounts = engine.accounts.values()
        assert sum(account.cash for account in accounts) == 0
        assert not sum(a.positions.get("BOND", 0) for a in accounts)
        for account in accounts:
            equity = account.equity(engine.mark)
            profit = account.realized + account.unrealized(equity)
            assert equity == profit or account.name == HOUSE
    rows = history.trades("BOND", None, 1_000)
    assert {row.trade_id for row in rows if row.busted} == undone - {0}
    assert len(undone) > 20
