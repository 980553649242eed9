"""Tenders: who is told, who may accept, and what comes of it."""

from __future__ import annotations

import pytest

from exchange.market.accounts import HOUSE, AccountLimits
from exchange.market.command import ClockStep
from exchange.market.engine import Engine
from exchange.market.tenders import (
    OPEN_TENDERS_MAX,
    TENDERS_PER_ROUND,
    open_tenders,
)
from test.script import SECOND, act, apply, limited, listing, play, tell

OFFER = "op admin tender tender_id=t-1 symbol=BOND side=buy qty=5 price=99"
SELL = OFFER.replace("side=buy", "side=sell")


def offered(line: str = OFFER, **limits: int) -> Engine:
    """Return an engine where a tender is valid from 10 to 15 s."""
    return play(
        f"given 10s {line} valid_ms=5000",
        limited(listing(max_position=50), **{"cash": 1_000, **limits}),
    )


def test_everybody_is_told_and_one_account_gets_the_lots() -> None:
    play(
        f"""
        10s {OFFER} valid_ms=5000
            op ok
            ann tender t-1 BOND buy 5@99 until 15000000
            bob tender t-1 BOND buy 5@99 until 15000000
            cat tender t-1 BOND buy 5@99 until 15000000
            * status BOND tender t-1: why
        ann accept t-1
            ann ok
            ann 1 account 505 BOND=5 worth 505
        """,
        limited(cash=1_000),
    )


def test_the_house_is_the_other_side_and_no_trade_is_printed() -> None:
    engine = play("given ann accept t-1", offered(SELL))
    ann, house = engine.accounts["ann"], engine.accounts[HOUSE]
    assert (ann.cash, ann.positions) == (1_495, {"BOND": -5})
    assert (house.cash, house.positions) == (-495, {"BOND": 5})
    bond = engine.listings["BOND"]
    assert (bond.last, bond.volume, bond.trade_id, bond.seq) == (None, 0, 0, 0)


def test_a_tender_for_one_account_is_told_to_it_only() -> None:
    play(
        f"""
        10s {OFFER} valid_ms=5000 user=ann
            op ok
            ann tender t-1 BOND buy 5@99 until 15000000
            * status BOND tender t-1: why
        bob accept t-1 -> unknown_tender tender_id
        ann accept t-1 -> ok
        """,
        limited(cash=1_000),
    )


def test_each_account_accepts_once_also_one_that_came_later() -> None:
    play(
        """
        ann accept t-1 -> ok
        ann accept t-1 -> duplicate_tender tender_id
        given dan connect
        dan accept t-1 -> ok
        dan accept t-1 -> duplicate_tender tender_id
        ann accept t-2 -> unknown_tender tender_id
        """,
        offered(),
    )


def test_a_tender_ends_at_its_time() -> None:
    engine = play("14s ann accept t-1 -> ok", offered())
    assert engine.next_deadline == 15 * SECOND
    play(
        """
        15s tick
        bob accept t-1 -> unknown_tender tender_id
        ann accept t-1 -> duplicate_tender tender_id
        """,
        engine,
    )
    assert engine.next_deadline is None


def test_a_suspended_account_may_not_accept_and_is_not_told() -> None:
    engine = play(
        """
        given ann accept t-1
        given op admin suspend user=ann
        given op admin suspend user=bob
        ann accept t-1 -> duplicate_tender tender_id
        bob accept t-1 -> forbidden
        bob accept t-2 -> forbidden
        """,
        offered(),
    )
    told = [
        recipient
        for recipient, event in act(
            engine, f"{OFFER} valid_ms=5000".replace("t-1", "t-2")
        )
        if event.type == "tender"
    ]
    assert told == ["cat"]


@pytest.mark.parametrize(
    "line, limits, code",
    [
        (OFFER, {"max_position": {"BOND": 4}}, "position_limit qty"),
        (SELL, {"max_position": {"BOND": 4}}, "position_limit qty"),
        (OFFER, {"cash": 494, "min_cash": 0}, "insufficient_funds"),
        (OFFER, {"cash": 495, "min_cash": 0}, "ok"),
        (SELL, {"cash": 0, "min_cash": 0}, "ok"),
    ],
)
def test_a_tender_is_accepted_within_the_limits(
    line: str, limits: dict[str, object], code: str
) -> None:
    engine = play(
        f"given 10s {line} valid_ms=5000",
        limited(listing(), **limits),
    )
    play(f"ann accept t-1 -> {code}", engine)


@pytest.mark.parametrize(
    "line, tender, code",
    [
        ("ann buy 6@50", OFFER, "position_limit qty"),
        ("ann buy 5@50", OFFER, "ok"),
        ("ann sell 6@150", OFFER, "ok"),
        ("ann sell 6@150", SELL, "position_limit qty"),
        (
            "ann buy 6@90",
            OFFER.replace("qty=5", "qty=4"),
            "insufficient_funds",
        ),
        ("ann buy 6@89", OFFER.replace("qty=5", "qty=4"), "ok"),
    ],
)
def test_open_orders_count_as_filled(
    line: str, tender: str, code: str
) -> None:
    limits = {"cash": 931, "min_cash": 0, "max_position": {"BOND": 10}}
    engine = limited(listing(), **limits)
    play(
        f"""
        given {line}
        given {tender} valid_ms=5000
        ann accept t-1 -> {code}
        """,
        engine,
    )


@pytest.mark.parametrize("phase", ["pre_open", "auction", "halted", "open"])
def test_a_tender_is_accepted_in_every_phase_except_closed(phase: str) -> None:
    play(
        f"""
        given op admin phase closed
        ann accept t-1 -> market_closed
        given op admin phase {phase}
        ann accept t-1 -> ok
        """,
        offered(),
    )


@pytest.mark.parametrize(
    "change, code",
    [
        (("user=", "user=nobody "), "bad_request user"),
        (("symbol=BOND", "symbol=NONE"), "unknown_symbol symbol"),
        (("price=99", "price=0"), "invalid_price price"),
        (("price=99", "price=1001"), "invalid_price price"),
        (("qty=5", f"qty={10**15}"), "invalid_qty qty"),
        (("t-1", "t-0"), "duplicate_tender tender_id"),
    ],
)
def test_an_offer_that_cannot_be_is_refused(
    change: tuple[str, str], code: str
) -> None:
    engine = offered(OFFER.replace("t-1", "t-0"))
    line = f"{OFFER} user=ann valid_ms=5000".replace("user=ann", "user=ann ")
    old, new = change
    if old == "user=":
        old = "user=ann "
    play(f"{line.replace(old, new)} -> {code}", engine)


def test_an_id_is_free_again_in_the_next_round() -> None:
    play(
        f"""
        given ann accept t-1
        15s tick
        {OFFER} valid_ms=5000 -> duplicate_tender tender_id
        given op admin reset
        ann accept t-1 -> unknown_tender tender_id
        {OFFER} valid_ms=5000 -> ok
        ann accept t-1 -> ok
        """,
        offered(),
    )


def test_a_reset_ends_every_tender() -> None:
    engine = play("given op admin reset", offered())
    assert engine.next_deadline is None
    assert not list(open_tenders(engine, engine.accounts["bob"]))


def test_the_number_of_tenders_is_bounded() -> None:
    engine = limited(cash=1_000)
    lines = (
        OFFER.replace("t-1", f"n-{number}")
        for number in range(TENDERS_PER_ROUND + 1)
    )
    for number in range(TENDERS_PER_ROUND // OPEN_TENDERS_MAX):
        for _ in range(OPEN_TENDERS_MAX):
            act(engine, f"{next(lines)} valid_ms=5000")
        assert len(engine.tenders) == (number + 1) * OPEN_TENDERS_MAX
        play(
            f"""
            {OFFER} valid_ms=5000 -> bad_request tender_id
            given {100 * (number + 1)}s tick
            """,
            engine,
        )
    play(f"{next(lines)} valid_ms=5000 -> bad_request tender_id", engine)


def test_a_step_of_the_clock_postpones_a_tender_and_tells_it() -> None:
    engine = play("given ann accept t-1", offered())
    told = [tell(*o) for o in apply(engine, ClockStep(forward_us=SECOND))]
    assert told == [
        f"{name} tender t-1 BOND buy 5@99 until {16 * SECOND}"
        for name in ("bob", "cat")
    ]
    assert engine.next_deadline == 16 * SECOND
    play(
        """
        15s tick
        bob accept t-1 -> ok
        16s tick
        cat accept t-1 -> unknown_tender tender_id
        """,
        engine,
    )


def test_a_restart_gives_a_tender_no_more_time() -> None:
    play(
        """
        12s restart
        15s tick
        bob accept t-1 -> unknown_tender tender_id
        """,
        offered(),
    )


def test_no_account_gets_more_than_can_be_counted() -> None:
    engine = limited(cash=0)
    bond = engine.listings["BOND"]
    most = bond.position_max
    line = OFFER.replace("qty=5", f"qty={most}").replace(
        "side=buy", "side=sell"
    )
    play(
        f"""
        given {line} valid_ms=5000
        ann accept t-1 -> ok
        bob accept t-1 -> position_limit
        """,
        engine,
    )
    assert engine.accounts["ann"].limits == AccountLimits()
