"""Instruments that close by themselves: `close_ms`."""

from __future__ import annotations

import pytest

from exchange.market.command import ClockStep
from exchange.market.engine import Engine
from test.script import SECOND, act, apply, listed, listing, play

OPEN = "op admin phase open close_ms=60000"


def opened(**more: int) -> Engine:
    """Return an engine where BOND opened at 10 s and closes at 70 s."""
    return play(f"given 10s {OPEN}", listed(listing(phase="closed", **more)))


def due(engine: Engine) -> float | None:
    """Return when BOND closes, in seconds, as its row tells."""
    ts = engine.listings["BOND"].current_instrument().close_ts
    return None if ts is None else ts / SECOND


def test_an_instrument_closes_at_its_time() -> None:
    engine = opened()
    assert engine.next_deadline == 70 * SECOND and due(engine) == 70
    play(
        """
        20s ann buy 5@99 -> ok
        69s tick
        70s tick
            ann 2 canceled 1 canceled 0/5 closed
            * status BOND closed trading time is up
            * book BOND 2 99=0 |
        ann buy 5@99 -> market_closed
        """,
        engine,
    )
    assert engine.next_deadline is None and due(engine) is None


def test_orders_expire_before_the_close_of_the_same_instant() -> None:
    engine = play("given 20s ann buy 5@99 gtd until=70s", opened())
    play(
        """
        70s tick
            ann 2 expired 1 expired 0/5 gtd
            * status BOND closed trading time is up
            * book BOND 2 99=0 |
        """,
        engine,
    )


def test_each_instrument_has_a_time_of_its_own() -> None:
    engine = listed("BOND", "ETF")
    play(
        """
        given 10s op admin phase open close_ms=60000
        given 20s op admin phase open symbol=ETF close_ms=10000
        30s tick
            * status ETF closed trading time is up
        70s tick
            * status BOND closed trading time is up
        """,
        engine,
    )


@pytest.mark.parametrize(
    "line, closes",
    [
        ("op admin phase open", 70),
        ("op admin phase open close_ms=5000", 25),
        ("op admin phase open close_ms=90000", 110),
        ("op admin phase closed", None),
        ("op admin reset", None),
        ("op admin message message=m", 70),
        ("op admin phase halted", None),
    ],
)
def test_what_changes_the_time(line: str, closes: int | None) -> None:
    engine = play(f"given 20s {line}", opened())
    assert due(engine) == closes
    act(engine, "25s op admin phase open")
    if line.endswith("halted"):
        closes = 75
    assert due(engine) == closes


def test_an_earlier_time_that_was_replaced_does_nothing() -> None:
    play(
        """
        given 20s op admin phase open close_ms=90000
        70s tick
        110s tick
            * status BOND closed trading time is up
        """,
        opened(),
    )


def test_an_auction_of_the_band_does_not_stop_the_time() -> None:
    engine = opened(reference_price=100, band=5, auction_ms=86_400_000)
    play(
        """
        given 20s ann sell 5@110
        given bob buy 5@110
        70s tick
            ann 2 canceled 1 canceled 0/5 closed
            bob 2 canceled 2 canceled 0/5 closed
            * status BOND closed trading time is up
            * book BOND 3 110=0 | 110=0
        """,
        engine,
    )
    assert engine.next_deadline is None, "and it does not open again"


@pytest.mark.parametrize("phase", ["halted", "auction", "pre_open"])
def test_a_halt_stops_the_time_and_it_goes_on(phase: str) -> None:
    engine = play(f"given 20s op admin phase {phase}", opened())
    assert due(engine) is None and engine.next_deadline is None
    act(engine, f"30s op admin phase {phase}")
    act(engine, "500s op admin phase open")
    assert due(engine) == 550 and engine.next_deadline == 550 * SECOND


def test_a_halt_of_an_auction_of_the_band_stops_the_time() -> None:
    engine = opened(reference_price=100, band=5)
    play(
        """
        given 20s ann sell 5@110
        given bob buy 5@110
        given 25s op admin phase halted reopen_ms=10000
        given ann cancel_all
        35s tick
            * status BOND open time is up
        """,
        engine,
    )
    assert due(engine) == 80


def test_the_end_of_a_halt_lets_the_time_go_on() -> None:
    engine = opened()
    play(
        """
        given 20s op admin phase halted reopen_ms=30000
        50s tick
            * status BOND open time is up
        """,
        engine,
    )
    assert due(engine) == 100


def test_a_restart_gives_back_the_time_since_the_last_command() -> None:
    engine = play("given 20s ann buy 5@99\ngiven 50s restart", opened())
    assert due(engine) == 100
    play("given 51s shutdown\ngiven 61s restart", engine)
    assert due(engine) == 110


def test_a_restart_after_the_time_closes_nothing_yet() -> None:
    engine = play("given 20s ann buy 5@99", opened())
    act(engine, "500s restart")
    assert engine.listings["BOND"].phase == "open"
    assert due(engine) == 550


def test_a_restart_in_a_halt_leaves_the_time_as_it_stands() -> None:
    engine = play(
        """
        given 20s op admin phase halted
        given 100s restart
        given 200s op admin phase open
        """,
        opened(),
    )
    assert due(engine) == 250


def test_a_step_of_the_clock_postpones_the_close() -> None:
    engine = opened()
    assert apply(engine, ClockStep(forward_us=9 * SECOND)) == []
    assert due(engine) == 79 and engine.next_deadline == 79 * SECOND


def test_a_row_has_the_reason_and_the_times() -> None:
    engine = opened()
    row = engine.listings["BOND"].current_instrument()
    assert (row.reason, row.reopen_ts) == ("why", None)
    act(engine, "20s op admin phase halted reopen_ms=5000")
    row = engine.listings["BOND"].current_instrument()
    assert (row.reason, row.reopen_ts) == ("why", 25 * SECOND)
    act(engine, "25s tick")
    row = engine.listings["BOND"].current_instrument()
    assert (row.reason, row.reopen_ts) == ("time is up", None)
