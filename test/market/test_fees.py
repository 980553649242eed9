"""The value of a tick and fees in basis points, in hand-worked numbers."""

from __future__ import annotations

import re
from typing import Any

import pytest

from exchange.market.accounts import HOUSE
from exchange.market.engine import Engine
from exchange.market.fees import margin
from orderbook import Exec, Instrument
from test.market.flows import ROOT
from test.script import act, limited, listed, listing, play, reconfigure


def market(**more: Any) -> Instrument:
    """A tick of one lot is worth 5 units."""
    return listing("BOND", **{"tick_value": 5, **more})


def fees(engine: Engine, line: str) -> list[tuple[str, int | None]]:
    """Return the fees of a command's fills, in their order."""
    return [
        (name, event.fee)
        for name, event in act(engine, line)
        if isinstance(event, Exec) and event.last_qty is not None
    ]


# The value of a tick ------------------------------------------------------


def test_cash_profit_and_equity_are_in_units_and_prices_in_ticks() -> None:
    engine = play(
        """
        given ann sell 3@100
        bob buy 2@100
            bob 1 new 2 new 0/2
            bob 2 trade 2 filled 2/2 2@100 taker #1 fee 6
            ann 2 trade 1 partially_filled 2/3 2@100 maker #1
            bob 3 account -1006 BOND=2 worth -6 made -6
            ann 3 account 1000 BOND=-2 worth 0
            * trade BOND 2 #1 2@100 buy
            * book BOND 2 | 100=1
        given cat buy 1@104
        given cat buy 1@103
        bob sell 1@103
            bob 4 new 5 new 0/1
            bob 5 trade 5 filled 1/1 1@103 taker #3 fee 3
            cat 5 trade 4 filled 1/1 1@103 maker #3
            bob 6 account -494 BOND=1 worth 21 made 6
            cat 6 account -1018 BOND=2 worth 12 made -3
            * trade BOND 5 #3 1@103 sell
            * book BOND 5 103=0 |
        """,
        listed(market(taker_fee=3)),
    )
    (row,) = engine.positions(engine.accounts["bob"])
    assert row == {
        "symbol": "BOND",
        "position": 1,
        "cost": 500,
        "mark": 103,
        "unrealized": 15,
    }
    assert engine.leaderboard()[0]["equity"] == 21


def test_cum_cost_stays_in_ticks_times_lots() -> None:
    engine = play("given ann sell 3@100", listed(market()))
    (order,) = engine.accounts["ann"].open_orders.values()
    act(engine, "bob buy 2@100")
    assert order.cum_cost == 200


def test_lots_are_given_and_settled_at_their_value() -> None:
    engine = play(
        """
        given op admin adjust user=ann symbol=BOND qty=-4
        op admin settle symbol=BOND price=90
            op ok
            ann 2 settlement BOND -4@90 made 200
            ann 2 account -1800 BOND=0 worth -1800 made 200
            * status BOND closed settled at 90: why
        """,
        limited(market(reference_price=100)),
    )
    assert engine.accounts[HOUSE].cash == 1_800
    assert engine.accounts[HOUSE].realized == -200


@pytest.mark.parametrize(
    "fee, line, is_enough",
    [
        (0, "buy 2@100", True),
        (0, "buy 2@101", False),
        (2, "buy 2@100", False),
        (2, "buy 2@99", True),
        (2, "sell 99@1", True),
        (6, "sell 99@2", True),
        (6, "sell 99@1", True),
        (16, "sell 99@1", False),
    ],
)
def test_an_order_is_checked_in_units(
    fee: int, line: str, is_enough: bool
) -> None:
    engine = limited(market(taker_fee=fee), cash=1_000, min_cash=0)
    answer = "ok" if is_enough else "insufficient_funds"
    play(f"ann {line} -> {answer}", engine)


# Fees in basis points -----------------------------------------------------


def test_an_order_pays_the_same_in_parts_as_at_once() -> None:
    """50 bp of 10 lots at 33 x 5 are 8.25; so far 8.25, 16.5, 24.75."""
    engine = limited(market(maker_fee_bp=50), cash=10_000)
    act(engine, "ann buy 30@33")
    for fee in (8, 9, 8):
        assert fees(engine, "bob sell 10@33") == [("bob", 0), ("ann", fee)]
    act(engine, "ann buy 30@33")
    assert fees(engine, "bob sell 30@33") == [("bob", 0), ("ann", 25)]
    assert engine.accounts[HOUSE].cash == 50


def test_half_a_unit_is_rounded_up_and_a_rebate_towards_nothing() -> None:
    """Per lot the fee is 0.5 and the rebate -0.5: 1, 0 and 0, -1."""
    engine = listed(listing(taker_fee_bp=50, maker_fee_bp=-50))
    act(engine, "ann sell 4@100")
    act(engine, "bob buy 9@10")
    told = [fees(engine, "bob buy 1@100")[1] for _ in range(4)]
    assert told == [("ann", 0), ("ann", -1), ("ann", 0), ("ann", -1)]
    engine = listed(listing(taker_fee_bp=50))
    for _ in range(4):
        act(engine, "ann sell 1@100")
    assert fees(engine, "bob buy 4@100")[::2] == [
        ("bob", 1),
        ("bob", 0),
        ("bob", 1),
        ("bob", 0),
    ]


def test_both_kinds_of_fees_add_up_and_are_reported_as_one() -> None:
    engine = listed(
        market(taker_fee=2, taker_fee_bp=100, maker_fee=-1, maker_fee_bp=20)
    )
    act(engine, "ann sell 3@100")
    told = fees(engine, "bob buy 3@100")
    assert told == [("bob", 3 * 2 + 15), ("ann", -3 + 3)]
    assert engine.accounts["bob"].realized == -21


def test_below_zero_the_notional_has_no_sign() -> None:
    engine = listed(market(min_price=-99, taker_fee_bp=100))
    act(engine, "ann sell 3@-40")
    assert fees(engine, "bob buy 3@-40")[0] == ("bob", 6)
    assert engine.accounts["bob"].cash == 600 - 6


def test_an_auction_is_free_of_fees() -> None:
    engine = listed(market(phase="auction", taker_fee_bp=99, maker_fee_bp=99))
    act(engine, "ann sell 3@40")
    act(engine, "bob buy 3@40")
    assert fees(engine, "op admin phase open") == [("bob", 0), ("ann", 0)]
    assert engine.accounts["bob"].reserved == 0


def test_a_maker_pays_as_such_what_it_did_not_pay_as_a_taker() -> None:
    """0.99 as a taker, and 0.33 for each lot as a maker: 0.99, 1.32, 1.65."""
    engine = listed(listing(taker_fee_bp=300, maker_fee_bp=100))
    act(engine, "ann sell 1@33")
    assert fees(engine, "bob buy 3@33")[0] == ("bob", 1)
    assert fees(engine, "ann sell 1@33")[1] == ("bob", 0)
    assert fees(engine, "ann sell 1@33")[1] == ("bob", 1)


# Margin -------------------------------------------------------------------


@pytest.mark.parametrize(
    "lot, qty, paid, units",
    [
        (0, 9, 0, 0),
        (8_250, 0, 5_000, 0),
        (8_250, 30, 0, 25),
        (8_250, 20, 82_500, 25 - 8),
        (8_250, 10, 165_000, 25 - 17),
        (10_000, 3, 0, 3),
        (10_000, 3, -24_000, 1 - -2),
    ],
)
def test_what_is_set_aside_for_fees(
    lot: int, qty: int, paid: int, units: int
) -> None:
    assert margin(lot, qty, paid) == units


def test_the_whole_fee_rounded_up_is_set_aside() -> None:
    play(
        "ann buy 30@33 -> insufficient_funds",
        limited(market(taker_fee_bp=50), cash=4_974, min_cash=0),
    )
    engine = play(
        """
        ann buy 30@33          -> ok
        ann buy 1@1            -> insufficient_funds
        ann amend 1 qty=31     -> insufficient_funds
        ann amend 1 qty=30     -> ok
        ann amend 1 price=34   -> insufficient_funds
        ann amend 1 qty=20     -> ok
        """,
        limited(market(maker_fee_bp=50), cash=4_975, min_cash=0),
    )
    assert engine.accounts["ann"].reserved == 20 * 165 + 17
    play("ann cancel 1 -> ok", engine)
    assert engine.accounts["ann"].reserved == 0


def test_a_sale_pays_its_fees_from_its_proceeds_if_they_suffice() -> None:
    play(
        "ann sell 9@10 -> ok",
        limited(market(taker_fee_bp=10_000), cash=0, min_cash=0),
    )
    dear = market(taker_fee_bp=9_999, taker_fee=1)
    play(
        "ann sell 9@10 -> insufficient_funds",
        limited(dear, cash=0, min_cash=0),
    )


def test_a_new_rate_counts_for_open_orders_with_what_they_paid() -> None:
    """10 of 30 lots have paid 8.25. 20 more at 1 % are 33."""
    engine = limited(market(maker_fee_bp=50), cash=10_000, min_cash=0)
    act(engine, "ann buy 30@33")
    act(engine, "bob sell 10@33")
    reconfigure(engine, instruments=(market(maker_fee_bp=100),))
    engine.check()
    assert engine.accounts["ann"].reserved == 20 * 165 + 42 - 8
    assert fees(engine, "bob sell 20@33")[1] == ("ann", 41 - 8)


def test_a_rate_may_come_and_go_while_orders_are_open() -> None:
    engine = limited(market(), cash=10_000, min_cash=0)
    ann = engine.accounts["ann"]
    act(engine, "ann buy 10@33")
    assert ann.reserved == 1_650
    reconfigure(engine, instruments=(market(maker_fee_bp=50),))
    assert ann.reserved == 1_659
    assert fees(engine, "bob sell 4@33")[1] == ("ann", 3)
    reconfigure(engine, instruments=(market(),))
    act(engine, "bob sell 5@34")
    assert ann.reserved == 6 * 165
    assert fees(engine, "ann amend 1 price=34") == [("ann", 0), ("bob", 0)]
    reconfigure(engine, instruments=(market(maker_fee_bp=50),))
    assert ann.reserved == 170 + 5 - 3  # 3.3 so far, 0.85 for the last lot
    engine.check()


def test_a_stop_is_judged_with_its_fees_when_it_is_triggered() -> None:
    """At 106 it needed 1,071; now at 107 it needs 1,081, and 1,080 are left.

    The collar is 4 beyond its trigger, then beyond the last price.
    """
    engine = limited(
        listing(collar=4, reference_price=100, taker_fee_bp=100),
        cash=1_080,
        min_cash=0,
    )
    act(engine, "ann buy 10@market trigger=102")
    assert engine.accounts["ann"].reserved == 1_071
    act(engine, "bob sell 1@103")
    told = act(engine, "cat buy 1@103")
    (reason,) = [
        event.reason
        for name, event in told
        if isinstance(event, Exec) and name == "ann" and event.reason
    ]
    assert reason == "insufficient_funds"
    assert engine.accounts["ann"].reserved == 0


# What the protocol tells --------------------------------------------------


def rows(head: str) -> list[list[str]]:
    """Return the rows of the table of docs/PROTOCOL.md with this head."""
    text = (ROOT / "docs" / "PROTOCOL.md").read_text("utf-8")
    (found,) = re.findall(
        rf"^\| command \| {head} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.M
    )
    return [
        [cell.strip(" `") for cell in row.strip("|").split("|")]
        for row in found.splitlines()
    ]


def test_the_example_of_the_protocol_holds() -> None:
    """Its numbers are in units of 0.01 USD; FUND is BOND here."""
    fund = market(maker_fee_bp=50, taker_fee_bp=50)
    engine = limited(fund, cash=10_000, min_cash=0)
    ann = engine.accounts["ann"]
    for line, fee, cash, reserved in rows("`fee`"):
        own = [str(paid) for name, paid in fees(engine, line) if name == "ann"]
        assert own == ([fee] if fee else [])
        assert [ann.cash, ann.reserved] == [int(cash), int(reserved)]
    for line, order_id, cash, reserved in rows("canceled"):
        ended = [
            str(event.order_id)
            for _, event in act(engine, line)
            if isinstance(event, Exec) and event.reason == "funds"
        ]
        assert ended == ([order_id] if order_id else [])
        assert [ann.cash, ann.reserved] == [int(cash), int(reserved)]
