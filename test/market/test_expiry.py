"""Derivatives that settle by themselves, a time after they open.

GS is the underlying; CALL, at 100, expires 90 s after it opens.
"""

from __future__ import annotations

from typing import Any

import pytest

from exchange.market.command import ClockStep, Restart
from exchange.market.engine import Engine
from exchange.market.prints import WINDOW_MS, Prints
from test.market.test_products import derivative, settled
from test.script import SECOND, act, apply, listed, listing, play, reconfigure

CALL = derivative("CALL", "call", strike=100, expires=90)


def opened(*more: Any, **fields: Any) -> Engine:
    """Return an engine on which CALL opens after 10 s; it expires at 100."""
    call = derivative(
        "CALL", "call", strike=100, expires=90, phase="closed", **fields
    )
    engine = listed(listing("GS", reference_price=105), call, *more)
    act(engine, "1s ann connect")
    act(engine, "10s op admin phase open symbol=CALL")
    return engine


def expiry(engine: Engine, symbol: str = "CALL") -> int | None:
    """Return when an instrument expires, as its row says."""
    return engine.listings[symbol].current_instrument().expire_ts


def trade(engine: Engine, ts: str, what: str) -> None:
    """Let ann buy GS of bob."""
    act(engine, f"{ts} ann buy {what} symbol=GS")
    act(engine, f"bob sell {what} symbol=GS")


def test_it_settles_by_itself() -> None:
    """Its orders end as "closed"; what it pays is not cut."""
    engine = opened(max_price=12)
    assert expiry(engine) == engine.next_deadline == 100 * SECOND
    trade(engine, "50s", "3@115")
    play(
        """
        given ann buy 5@10 symbol=CALL
        given bob sell 4@10 symbol=CALL
        given cat sell 2@12 symbol=CALL
        100s tick
            ann 7 canceled 3 canceled 4/5 closed
            cat 2 canceled 5 canceled 0/2 closed
            ann 8 settlement CALL 4@15 made 20
            ann 8 account -325 GS=3 CALL=0 worth 20 made 20
            bob 7 settlement CALL -4@15 made -20
            bob 7 account 325 GS=-3 CALL=0 worth -20 made -20
            * status CALL closed settled at 15: expired
            * book CALL 4 10=0 | 12=0
        """,
        engine,
    )
    assert settled(engine) == {"CALL": 15}
    assert (expiry(engine), engine.next_deadline) == (None, None)
    assert engine.listings["GS"].phase == "open"


def test_the_time_runs_from_the_first_opening_of_a_round() -> None:
    engine = opened()
    play(
        """
        given 20s op admin phase closed symbol=CALL
        given 30s op admin phase open symbol=CALL
        given 40s op admin phase auction symbol=CALL
        """,
        engine,
    )
    assert expiry(engine) == 100 * SECOND
    act(engine, "50s op admin reset")
    assert expiry(engine) is None, "it is closed at the start of a round"
    act(engine, "60s op admin phase open symbol=CALL")
    assert expiry(engine) == engine.next_deadline == 150 * SECOND
    act(engine, "150s tick")
    assert settled(engine) == {"CALL": 5}
    act(engine, "160s op admin phase open symbol=CALL")
    assert (expiry(engine), engine.next_deadline) == (None, None)


def test_the_time_of_what_is_listed_open_runs_at_once() -> None:
    engine = listed("GS", CALL)
    assert expiry(engine) == engine.ts + 90 * SECOND


def test_the_time_runs_again_if_it_is_configured_anew() -> None:
    engine = listed("GS", CALL)
    at_first = expiry(engine)
    act(engine, "9s ann connect")
    reconfigure(engine)
    assert expiry(engine) == at_first
    later = derivative("CALL", "call", strike=100, expires=60)
    reconfigure(engine, instruments=(listing("GS"), later))
    assert expiry(engine) == engine.ts + 60 * SECOND
    with_round = derivative("CALL", "call", strike=100)
    reconfigure(engine, instruments=(listing("GS"), with_round))
    assert (expiry(engine), engine.next_deadline) == (None, None)


def test_what_is_settled_before_its_time_does_not_expire() -> None:
    engine = opened()
    act(engine, "op admin settle symbol=CALL price=7")
    assert (expiry(engine), engine.next_deadline) == (None, None)


@pytest.mark.parametrize(
    "trades, price",
    [
        ((), 105),  # the reference price
        (("39s 9@190",), 190),  # the mark: too old by a second
        (("40s 9@190", "41s 1@110"), 110),
        (("41s 3@110", "99s 1@121"), 112),  # 451 / 4, rounded down
        (("90s 1@110", "90s 2@111", "91s 3@112"), 111),  # 668 / 6
    ],
)
def test_the_price_is_the_average_of_the_last_minute(
    trades: tuple[str, ...], price: int
) -> None:
    engine = opened()
    for line in trades:
        ts, what = line.split()
        trade(engine, "" if int(ts[:-1]) * SECOND <= engine.ts else ts, what)
    act(engine, "100s tick")
    assert settled(engine) == {"CALL": price - 100}


def test_a_price_below_0_is_rounded_down() -> None:
    gs = listing("GS", min_price=-1_000)
    future = derivative("FUT", "future", expires=90, min_price=-1_000)
    engine = listed(gs, future)
    trade(engine, "50s", "3@-7")
    trade(engine, "51s", "1@-8")
    act(engine, "100s tick")
    assert settled(engine) == {"FUT": -8}


def test_a_late_tick_does_not_change_the_price() -> None:
    engine = opened()
    trade(engine, "50s", "3@115")
    trade(engine, "51s", "1@111")
    act(engine, "500s tick")
    assert settled(engine) == {"CALL": 14}


def test_a_busted_trade_does_not_count() -> None:
    engine = opened()
    for ts, what in (("50s", "3@115"), ("51s", "1@190"), ("52s", "1@120")):
        trade(engine, ts, what)
    act(engine, "op bust 2 ann 1@190 bob symbol=GS")
    act(engine, "100s tick")
    assert settled(engine) == {"CALL": (3 * 115 + 120) // 4 - 100}


def test_a_trade_with_oneself_does_not_count() -> None:
    gs = listing("GS", reference_price=105, self_trades=True)
    engine = listed(gs, CALL)
    act(engine, "1s ann connect")
    trade(engine, "50s", "3@115")
    act(engine, "given 51s ann sell 1@190 symbol=GS")
    act(engine, "given ann buy 1@190 symbol=GS stp=none")
    assert engine.listings["GS"].trade_id == 2
    act(engine, "given op bust 2 ann 1@190 ann symbol=GS")
    trade(engine, "52s", "1@111")
    act(engine, "100s tick")
    assert settled(engine) == {"CALL": 14}


def test_a_trade_is_removed_where_it_was_added() -> None:
    prints = Prints()
    for second, trade_id in ((1, 7), (1, 8), (30, 9)):
        prints.add(second * SECOND, trade_id, 10 * trade_id, 2)
    prints.remove(8, 80, 2)
    assert prints.average(30 * SECOND) == (70 + 90) // 2
    assert prints.average(80 * SECOND) == 90


def test_a_step_of_the_clock_postpones_it_with_the_trades() -> None:
    engine = opened()
    trade(engine, "50s", "3@115")
    trade(engine, "51s", "1@111")
    apply(engine, ClockStep(forward_us=3_600 * SECOND), ts=52 * SECOND)
    assert expiry(engine) == engine.next_deadline == 3_700 * SECOND
    act(engine, "3700s tick")
    assert settled(engine) == {"CALL": 14}


def test_an_outage_does_not_postpone_it() -> None:
    engine = opened()
    apply(engine, Restart(), ts=99 * SECOND)
    assert expiry(engine) == 100 * SECOND


def test_at_one_instant_orders_expire_first() -> None:
    play(
        """
        given ann buy 5@10 symbol=CALL gtd until=100s
        given 99s op admin phase auction symbol=CALL reopen_ms=1000
        100s tick
            ann 2 expired 1 expired 0/5 gtd
            * status CALL closed settled at 5: expired
            * book CALL 2 10=0 |
        """,
        opened(),
    )


def test_what_is_no_underlying_keeps_no_trades() -> None:
    engine = listed("GS", CALL, "MS")
    for symbol in ("GS", "MS"):
        trade(engine, "", "1@99")
        act(engine, f"ann buy 1@99 symbol={symbol}")
    kept = {s: x.prints is not None for s, x in engine.listings.items()}
    assert kept == {"GS": True, "CALL": False, "MS": False}
    reconfigure(engine, instruments=(listing("GS"), listing("CALL")))
    assert all(x.prints is None for x in engine.listings.values())


def test_a_new_round_begins_without_trades() -> None:
    engine = opened()
    trade(engine, "50s", "3@115")
    act(engine, "51s op admin reset")
    act(engine, "52s op admin phase open symbol=CALL")
    act(engine, "53s op admin settle symbol=CALL")
    assert settled(engine) == {"CALL": 5}


def test_the_trades_kept_are_bounded_at_any_rate() -> None:
    prints = Prints()
    for trade_id in range(1, 4 * WINDOW_MS):
        prints.add(trade_id * 500, trade_id, trade_id, 1)
    assert len(prints.moments) == WINDOW_MS
    ts = (4 * WINDOW_MS - 1) * 500
    expected = range(2 * WINDOW_MS, 4 * WINDOW_MS)
    assert prints.average(ts) == sum(expected) // len(expected)
    prints.remove(1, 1, 1)  # it was dropped
    assert prints.average(ts) == sum(expected) // len(expected)
    assert prints.average(ts + WINDOW_MS * 1_000) is None
