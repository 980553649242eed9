"""Icebergs in the market: checks, reports, and what the public sees."""

from __future__ import annotations

import pytest

from test.script import act, limited, listed, listing, play


@pytest.mark.parametrize(
    "order, answer",
    [
        ("buy 20@99 display=1", "ok"),
        ("buy 21@99 display=1", "invalid_qty display_qty"),
        ("buy 21@99 display=2", "ok"),
        ("buy 100@99 display=4", "invalid_qty display_qty"),
        ("buy 100@99 display=5", "ok"),
        ("buy 3@99 display=100", "ok"),
        ("buy 100@2000 display=4", "invalid_qty display_qty"),
        ("buy 100@2000 display=5", "invalid_price price"),
        ("buy 41@99 trigger=98 display=2", "invalid_qty display_qty"),
    ],
)
def test_the_part_is_at_least_a_twentieth_rounded_up(
    order: str, answer: str
) -> None:
    play(f"ann {order} -> {answer}", limited())


def test_an_amend_keeps_to_the_twentieth() -> None:
    play("""
        given ann buy 20@99 display=1
        ann amend 1 qty=21 -> invalid_qty display_qty
        ann amend 1 qty=21 display=1 -> invalid_qty display_qty
        ann amend 1 qty=21 display=2
            ann 2 amended 1 new 0/21
            * book BOND 2 99=2 |
        ann amend 1 display=1 -> invalid_qty display_qty
        ann amend 1 qty=20 display=1
            ann 3 amended 1 new 0/20
            * book BOND 3 99=1 |
        """)


def test_each_report_of_a_sweep_has_the_order_as_it_was_then() -> None:
    engine = play("""
        given ann sell 7@100 display=3
        given bob sell 2@100
        cat buy 8@100
            cat 1 new 3 new 0/8
            cat 2 trade 3 partially_filled 3/8 3@100 taker #1
            ann 2 trade 1 partially_filled 3/7 3@100 maker #1
            cat 3 trade 3 partially_filled 5/8 2@100 taker #2
            bob 2 trade 2 filled 2/2 2@100 maker #2
            cat 4 trade 3 filled 8/8 3@100 taker #3
            ann 3 trade 1 partially_filled 6/7 3@100 maker #3
            cat 5 account -800 BOND=8 worth 0
            ann 4 account 600 BOND=-6 worth 0
            bob 3 account 200 BOND=-2 worth 0
            * trade BOND 3 #1 3@100 buy
            * trade BOND 3 #2 2@100 buy
            * trade BOND 3 #3 3@100 buy
            * book BOND 3 | 100=1
        cat buy 1@100
            cat 6 new 4 new 0/1
            cat 7 trade 4 filled 1/1 1@100 taker #4
            ann 5 trade 1 filled 7/7 1@100 maker #4
            cat 8 account -900 BOND=9 worth 0
            ann 6 account 700 BOND=-7 worth 0
            * trade BOND 4 #4 1@100 buy
            * book BOND 4 | 100=0
        """)
    assert not engine.accounts["ann"].open_orders


def test_its_owner_sees_the_part_in_each_report() -> None:
    engine = listed("BOND")
    for _, event in act(engine, "ann sell 7@100 display=3"):
        assert getattr(event, "display_qty", 3) == 3
    (row,) = engine.order_reports(engine.accounts["ann"].open_orders.values())
    assert '"display_qty":3' in row and '"leaves_qty":7' in row


def test_public_data_never_tell() -> None:
    """An amend of what is hidden is no change of the book."""
    engine = play("""
        ann sell 20@100 display=5
            ann 1 new 1 new 0/20
            * book BOND 1 | 100=5
        ann amend 1 qty=10
            ann 2 amended 1 new 0/10
        bob buy 5@100
            bob 1 new 2 new 0/5
            bob 2 trade 2 filled 5/5 5@100 taker #1
            ann 3 trade 1 partially_filled 5/10 5@100 maker #1
            bob 3 account -500 BOND=5 worth 0
            ann 4 account 500 BOND=-5 worth 0
            * trade BOND 2 #1 5@100 buy
            * book BOND 2 | 100=5
        """)
    bond = engine.listings["BOND"]
    assert engine.ticker(bond, 1).ask_qty == 5
    assert engine.snapshot(bond).asks == ((100, 5),)


def test_an_auction_counts_the_whole() -> None:
    """20 lots would trade at 100 and 99, and only there none is left over."""
    play(
        """
        given ann sell 20@99 display=1
        given bob buy 20@100
        given cat sell 5@100
        op admin phase open
            op ok
            bob 2 trade 2 filled 20/20 20@99 auction #1
            ann 2 trade 1 filled 20/20 20@99 auction #1
            bob 3 account -1980 BOND=20 worth 0
            ann 3 account 1980 BOND=-20 worth 0
            * status BOND open why
            * trade BOND 4 #1 20@99 buy
            * book BOND 4 100=0 | 99=0
        """,
        listed(listing(phase="pre_open", reference_price=110)),
    )


def test_only_a_limit_order_that_rests_can_become_one() -> None:
    play(
        """
        given ann buy 5@market auction
        given bob buy 5@99
        ann amend 1 display=5 -> bad_request display_qty
        bob amend 2 display=2
            bob 2 amended 2 new 0/5
            * book BOND 2 99=2 |
        """,
        listed(listing(phase="pre_open")),
    )
