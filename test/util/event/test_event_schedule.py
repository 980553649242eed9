"""What is due in a match, and when."""

from __future__ import annotations

from collections.abc import Collection

from util.event.schedule import (
    LOOK_S,
    Plan,
    Seen,
    Timed,
    due,
    state_of,
    wait_s,
)

NEWS = Timed("news-1", "news", 2_000, {}, is_late=True)
DIVIDEND = Timed("dividend-1", "dividend", 1_000, {}, is_late=True)
TENDER = Timed("tender-1", "tender", 3_000, {}, is_late=False)
PLAN = Plan(5_000, 60_000, (NEWS, DIVIDEND, TENDER), blow_out=-100)
READY = ("reset", "announce")
OPENED = (*READY, "open")


def names(
    seen: Seen, done: Collection[str] = OPENED, is_paused: bool = False
) -> list[str]:
    return due(PLAN, done, seen, is_paused)


def test_a_match_opens_once_everybody_could_connect() -> None:
    waiting = Seen("waiting", warm_ms=4_999)
    assert names(waiting, ()) == ["reset"]
    assert names(waiting, ("reset",)) == ["announce"]
    assert names(waiting, READY) == []
    assert names(Seen("waiting", warm_ms=5_000), READY) == ["open"]


def test_a_pause_delays_the_opening() -> None:
    warm = 99_000
    assert names(Seen("waiting", warm), READY, is_paused=True) == []
    assert names(Seen("held", warm), READY) == []


def test_acts_are_due_in_the_order_of_their_times() -> None:
    assert names(Seen("open", elapsed_ms=999)) == []
    assert names(Seen("open", elapsed_ms=1_000)) == ["dividend-1"]
    assert names(Seen("open", elapsed_ms=9_000)) == [
        "dividend-1",
        "news-1",
        "tender-1",
    ]
    done = (*OPENED, "dividend-1", "tender-1")
    assert names(Seen("open", elapsed_ms=9_000), done) == ["news-1"]


def test_nothing_is_due_during_a_pause_whose_time_is_unknown() -> None:
    assert names(Seen("paused", elapsed_ms=None)) == []


def test_a_team_below_the_limit_is_closed_out_once() -> None:
    seen = Seen("open", elapsed_ms=0, pnls={"A": -100, "B": -101})
    assert names(seen) == ["close_out.B"]
    assert names(seen, (*OPENED, "close_out.B")) == []


def test_after_the_close_all_but_tenders_is_made_up_for() -> None:
    assert names(Seen("closed", pnls={"B": -101})) == [
        "news-1",
        "dividend-1",
        "close",
        "settle",
        "settled",
    ]
    done = (*OPENED, "news-1", "dividend-1", "close", "settle")
    assert names(Seen("closed"), done) == ["settled"]


def test_the_state_follows_from_the_phases() -> None:
    assert state_of(["closed", "closed"], False, False) == "waiting"
    assert state_of(["closed", "halted"], False, False) == "held"
    assert state_of(["open", "halted"], True, True) == "open"
    assert state_of(["halted", "halted"], False, True) == "paused"
    assert state_of(["closed", "halted"], False, True) == "paused"
    assert state_of(["closed", "closed"], False, True) == "closed"


def test_the_next_look_is_when_the_next_act_is_due() -> None:
    assert wait_s(PLAN, READY, Seen("waiting", 4_990)) == 0.01
    assert wait_s(PLAN, OPENED, Seen("open", elapsed_ms=990)) == 0.01
    assert wait_s(PLAN, OPENED, Seen("open", elapsed_ms=59_900)) == 0.1
    assert wait_s(PLAN, OPENED, Seen("open", elapsed_ms=10_000)) == LOOK_S
    assert wait_s(PLAN, OPENED, Seen("paused", elapsed_ms=990)) == LOOK_S
