"""Time: deadlines before requests, timestamps that rise."""

from __future__ import annotations

from exchange.market.state import OPERATIONS_PER_SLICE
from orderbook import MAX_FRAME
from test.support import FOLLOW, NOON, PING, SECOND, Floor, words


def gtd(expire_ts: int) -> str:
    return f"sell 5@101 gtd until={expire_ts}"


def test_a_deadline_is_fired_before_any_request(floor: Floor) -> None:
    alice, bob = floor.join("alice"), floor.join("bob")
    floor.do(alice, gtd(NOON + SECOND))
    floor.clock.ts = NOON + SECOND
    assert words(floor.do(bob, "buy 5@101")) == ["new"]
    (expired,) = floor.read(alice)
    assert expired["exec_type"] == expired["order_status"] == "expired"
    assert expired["reason"] == "gtd" and expired["leaves_qty"] == 0
    assert expired["ts"] == NOON + SECOND


def test_a_gtd_order_trades_until_its_expiry(floor: Floor) -> None:
    alice, bob = floor.join("alice"), floor.join("bob")
    floor.do(alice, gtd(NOON + SECOND))
    floor.clock.ts = NOON + SECOND - 1
    floor.do(bob, "buy 5@101")
    assert words(floor.read(alice)) == ["trade", "account"]
    floor.clock.ts = NOON + SECOND
    floor.gateway.pass_time()
    floor.gateway.seal()
    assert floor.read(alice) == []


def test_a_tick_is_a_command_of_its_own(floor: Floor) -> None:
    alice = floor.join("alice")
    floor.do(alice, gtd(NOON + SECOND))
    before = floor.seq
    floor.gateway.pass_time()
    assert floor.seq == before
    floor.clock.ts += SECOND
    floor.gateway.pass_time()
    floor.gateway.pass_time()
    assert floor.seq == before + 1


def test_more_deadlines_than_one_tick_fires(floor: Floor) -> None:
    alice, slice_ = floor.join("alice"), OPERATIONS_PER_SLICE
    frames = 2 * slice_ // MAX_FRAME + 1
    for _ in range(frames):
        floor.do(alice, *[gtd(NOON + SECOND)] * MAX_FRAME)
    floor.clock.ts += SECOND
    # One slice when the deadlines are due, and one of the work that is left.
    first = words(floor.do(alice, PING))
    assert first == ["expired"] * 2 * slice_ + ["ok"]
    left = frames * MAX_FRAME - 2 * slice_
    assert words(floor.do(alice, PING)) == ["expired"] * left + ["ok"]


def test_time_rises_while_the_clock_stands_still_or_steps_back(
    floor: Floor,
) -> None:
    alice = floor.join("alice")
    times = []
    for step in (0, 0, SECOND, -SECOND, -10 * SECOND, 0, 20 * SECOND):
        floor.clock.ts += step
        for event in floor.do(alice, *["buy 1@50"] * 3):
            times.append(event["ts"])
    assert all(old < new for old, new in zip(times, times[1:]))
    assert times[-3] == floor.clock.ts


def test_all_events_of_a_command_carry_its_time(floor: Floor) -> None:
    alice, bob = floor.join("alice"), floor.join("bob")
    floor.do(alice, {**FOLLOW, "channels": ["book", "trades"]})
    for price in (101, 102, 103):
        floor.do(alice, f"sell 1@{price}")
    floor.clock.ts += SECOND
    taken = floor.do(bob, "buy 3@103")
    assert {event["ts"] for event in taken} == {NOON + SECOND}
    after = [m for m in floor.read(alice) if m["ts"] >= NOON + SECOND]
    assert words(after) == ["trade"] * 3 + ["account"] + ["trade"] * 3 + [
        "book"
    ]
    assert {event["ts"] for event in after} == {NOON + SECOND}


def test_a_book_carries_the_time_of_the_last_command_it_covers() -> None:
    floor = Floor("BOND", "ETF")
    alice, watcher = floor.join("alice"), floor.join()
    floor.do(watcher, {**FOLLOW, "channels": ["book"]})
    bond, etf, _ = floor.do(
        alice,
        "buy 1@90 symbol=BOND",
        "buy 1@90 symbol=ETF",
        {"type": "cancel", "order_id": 99},
    )
    books = {book["symbol"]: book["ts"] for book in floor.read(watcher)}
    assert books == {"BOND": bond["ts"], "ETF": etf["ts"]}
