"""The exchange without its sockets: stamping, order, and the gate.

Peers are two-line fakes, the clock is turned by hand, and what leaves is
looked at batch by batch.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

import exchange.feed
from exchange.engine import Configure
from exchange.gateway import Batch, Gateway
from exchange.session import SLOW_BYTES, Session
from exchange.settings import InstrumentSettings
from orderbook import decode_requests
from test.support import order, words

NOON = 1_795_340_157_000_000
SECOND = 1_000_000


class Peer:
    """A connection that has taken all of what was written, or has not."""

    buffered = 0


class Clock:
    """A wall clock that anybody may set."""

    ts = NOON

    def now(self) -> int:
        return self.ts


class Floor:
    """A gateway, its clock, and what has left it."""

    def __init__(self, *symbols: str, debug: bool = False) -> None:
        self.clock = Clock()
        self.batches: list[Batch] = []
        self.gateway = Gateway(
            self.clock.now,
            self.batches.append,
            lambda texts: [text.encode() for text in texts],
            debug,
        )
        self.gateway.begin(
            Configure(
                instruments=tuple(
                    InstrumentSettings().listed_as(symbol)
                    for symbol in symbols or ("BOND",)
                )
            )
        )

    @property
    def seq(self) -> int:
        return self.gateway.engine.seq

    def join(self, user: str = "", **more: Any) -> Session:
        """Connect, and log in if a user is given; drop what comes of it."""
        session = self.gateway.connect(Peer())
        if user:
            self.do(session, {"type": "login", "user": user, **more})
        return session

    def do(self, session: Session, *requests: dict[str, Any]) -> Any:
        """Carry out requests in one batch; return what ``session`` got."""
        self.gateway.tick()
        for request in decode_requests(json.dumps(requests)):
            self.gateway.handle(session, request)
        self.gateway.publish()
        return self.read(session)

    def read(self, session: Session) -> list[dict[str, Any]]:
        """Return what has left for a session since the last look."""
        messages = []
        for batch in self.batches:
            for index, (recipient, items) in enumerate(batch.messages):
                if recipient is session:
                    batch.messages[index] = (recipient, [])
                    messages += [m for item in items for m in unpack(item)]
        return messages

    def close_gate(self) -> None:
        """Commit nothing from now on."""
        self.gateway._gate.commit(self.seq)

    def commit(self, seq: int) -> None:
        self.gateway._gate.commit(seq)


def unpack(item: str | bytes) -> list[dict[str, Any]]:
    frame = json.loads(item)
    return frame if isinstance(frame, list) else [frame]


PING = {"type": "ping", "id": "ping"}
FOLLOW = {"type": "subscribe", "channels": ["book", "trades", "ticker"]}


@pytest.fixture
def floor() -> Floor:
    return Floor()


# The gate -----------------------------------------------------------------


def test_nothing_leaves_before_its_command_is_committed(floor: Floor) -> None:
    alice, watcher = floor.join("alice"), floor.join()
    floor.do(watcher, FOLLOW)
    floor.close_gate()
    assert floor.do(alice, order("buy", 5, 99)) == []
    assert floor.read(watcher) == []
    floor.commit(floor.seq - 1)
    assert floor.read(alice) == floor.read(watcher) == []
    floor.commit(floor.seq)
    assert words(floor.read(alice)) == ["new"]
    assert words(floor.read(watcher)) == ["book"]


def test_what_only_reads_waits_for_what_it_has_read(floor: Floor) -> None:
    alice, bob = floor.join("alice"), floor.join("bob")
    floor.close_gate()
    floor.do(alice, order("buy", 5, 99))
    table = {"type": "get", "what": "book"}
    assert floor.do(bob, PING, {"type": "nonsense"}, table, FOLLOW) == []
    floor.gateway.heartbeat()
    floor.gateway.publish()
    assert floor.read(bob) == []
    floor.commit(floor.seq)
    assert words(floor.read(bob)) == [
        *("ok", "bad_request", "ok", "ok", "book", "ticker", "heartbeat")
    ]


def test_held_batches_leave_in_order_and_no_further_than_committed(
    floor: Floor,
) -> None:
    alice = floor.join("alice")
    floor.close_gate()
    first = floor.seq + 1
    for price in (91, 92, 93, 94):
        floor.do(alice, order("buy", 1, price), PING)
    left: list[list[int]] = []
    for seq in range(first, first + 4):
        floor.commit(seq)
        left.append([m["price"] for m in floor.read(alice) if "price" in m])
    assert left == [[91], [92], [93], [94]]


def test_several_held_batches_leave_at_one_commit(floor: Floor) -> None:
    alice = floor.join("alice")
    floor.close_gate()
    for price in (91, 92, 93, 94):
        floor.do(alice, order("buy", 1, price))
    floor.commit(floor.seq - 1)
    assert [m["price"] for m in floor.read(alice)] == [91, 92, 93]
    floor.commit(floor.seq)
    assert [m["price"] for m in floor.read(alice)] == [94]


def test_closings_and_debug_output_wait_too() -> None:
    floor = Floor(debug=True)
    alice = floor.join("alice")
    floor.batches.clear()
    floor.close_gate()
    floor.do(alice, order("buy", 5, 99))
    floor.gateway.shut_down()
    floor.gateway.publish()
    assert floor.batches == []
    floor.commit(floor.seq)
    placed, shutdown = floor.batches
    assert "alice buy 5 BOND @ 99 is order 1" in placed.report
    assert placed.closings == [] and not shutdown.report
    assert shutdown.closings == [(alice, 1001, "shutdown")]


def test_with_nothing_to_say_nothing_leaves(floor: Floor) -> None:
    session = floor.join("alice", cancel_on_disconnect=True)
    floor.batches.clear()
    floor.gateway.publish()
    floor.gateway.disconnect(session)
    floor.gateway.publish()
    assert floor.batches == []


# Time ---------------------------------------------------------------------


def gtd(expire_ts: int) -> dict[str, Any]:
    return order("sell", 5, 101, time_in_force="gtd", expire_ts=expire_ts)


def test_a_deadline_is_fired_before_any_request(floor: Floor) -> None:
    alice, bob = floor.join("alice"), floor.join("bob")
    floor.do(alice, gtd(NOON + SECOND))
    floor.clock.ts = NOON + SECOND
    assert words(floor.do(bob, order("buy", 5, 101))) == ["new"]
    (expired,) = floor.read(alice)
    assert expired["exec_type"] == expired["order_status"] == "expired"
    assert expired["reason"] == "gtd" and expired["leaves_qty"] == 0
    assert expired["ts"] == NOON + SECOND


def test_until_then_the_order_trades(floor: Floor) -> None:
    alice, bob = floor.join("alice"), floor.join("bob")
    floor.do(alice, gtd(NOON + SECOND))
    floor.clock.ts = NOON + SECOND - 1
    floor.do(bob, order("buy", 5, 101))
    assert words(floor.read(alice)) == ["trade", "account"]
    floor.clock.ts = NOON + SECOND
    floor.gateway.tick()
    floor.gateway.publish()
    assert floor.read(alice) == []


def test_a_tick_is_a_command_of_its_own(floor: Floor) -> None:
    alice = floor.join("alice")
    floor.do(alice, gtd(NOON + SECOND))
    before = floor.seq
    floor.gateway.tick()
    assert floor.seq == before
    floor.clock.ts += SECOND
    floor.gateway.tick()
    floor.gateway.tick()
    assert floor.seq == before + 1


def test_deadlines_fire_in_order_of_time_and_then_of_order_id(
    floor: Floor,
) -> None:
    alice = floor.join("alice")
    for seconds in (3, 1, 2, 1):
        floor.do(alice, gtd(NOON + seconds * SECOND))
    floor.clock.ts += 5 * SECOND
    expired = floor.do(alice, PING)[:-1]
    assert [event["order_id"] for event in expired] == [2, 4, 3, 1]


def test_more_deadlines_than_one_tick_fires(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange.engine.DEADLINES_PER_TICK", 2)
    alice = floor.join("alice")
    for _ in range(5):
        floor.do(alice, gtd(NOON + SECOND))
    floor.clock.ts += SECOND
    assert words(floor.do(alice, PING)) == ["expired"] * 5 + ["ok"]


def test_cancel_after_is_put_off_and_disarmed(floor: Floor) -> None:
    alice, bob = floor.join("alice"), floor.join("bob")
    floor.do(bob, order("buy", 1, 90))
    floor.do(alice, order("buy", 1, 91), order("sell", 1, 109))

    def arm(timeout_ms: int) -> Any:
        request = {"type": "cancel_after", "timeout_ms": timeout_ms}
        return words(floor.do(alice, request))

    assert arm(2_000) == ["ok"]
    floor.clock.ts += SECOND
    assert arm(2_000) == ["ok"]
    floor.clock.ts += SECOND
    assert words(floor.do(alice, PING)) == ["ok"]
    assert arm(0) == ["ok"]
    floor.clock.ts += 5 * SECOND
    assert words(floor.do(alice, PING)) == ["ok"]
    assert arm(1_000) == ["ok"]
    floor.clock.ts += SECOND
    first, second, _ = floor.do(alice, PING)
    assert first["reason"] == second["reason"] == "cancel_after"
    assert (first["order_id"], second["order_id"]) == (2, 3)
    assert first["ts"] == second["ts"]
    # It acts once, and on this account alone.
    floor.do(alice, order("buy", 1, 91))
    floor.clock.ts += 5 * SECOND
    assert words(floor.do(alice, PING)) == ["ok"]
    assert floor.read(bob) == []


def test_time_rises_while_the_clock_stands_still_or_steps_back(
    floor: Floor,
) -> None:
    alice = floor.join("alice")
    times = []
    for step in (0, 0, SECOND, -SECOND, -10 * SECOND, 0, 20 * SECOND):
        floor.clock.ts += step
        for event in floor.do(alice, *[order("buy", 1, 50)] * 3):
            times.append(event["ts"])
    assert all(old < new for old, new in zip(times, times[1:]))
    assert times[-3] == floor.clock.ts


def test_all_events_of_a_command_carry_its_time(floor: Floor) -> None:
    alice, bob = floor.join("alice"), floor.join("bob")
    floor.do(alice, {**FOLLOW, "channels": ["book", "trades"]})
    for price in (101, 102, 103):
        floor.do(alice, order("sell", 1, price))
    floor.clock.ts += SECOND
    taken = floor.do(bob, order("buy", 3, 103))
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
        order("buy", 1, 90, symbol="BOND"),
        order("buy", 1, 90, symbol="ETF"),
        {"type": "cancel", "order_id": 99},
    )
    books = {book["symbol"]: book["ts"] for book in floor.read(watcher)}
    assert books == {"BOND": bond["ts"], "ETF": etf["ts"]}


# Batches ------------------------------------------------------------------


def test_one_update_covers_the_commands_of_a_batch(floor: Floor) -> None:
    alice, watcher = floor.join("alice"), floor.join()
    floor.do(watcher, {**FOLLOW, "channels": ["book"]})
    floor.do(
        alice,
        order("buy", 5, 99, client_order_id="a"),
        order("buy", 7, 98),
        order("buy", 1, 99),
        {"type": "cancel", "client_order_id": "a"},
        order("sell", 3, 101, client_order_id="b"),
        {"type": "cancel", "client_order_id": "b"},
    )
    (update,) = floor.read(watcher)
    assert update["prev_seq"] == 0 and update["seq"] == 6
    assert "snapshot" not in update
    assert update["bids"] == [[99, 1], [98, 7]] and update["asks"] == [
        [101, 0]
    ]


def test_trades_of_a_batch_come_before_the_book_that_covers_them(
    floor: Floor,
) -> None:
    alice, bob, watcher = floor.join("alice"), floor.join("bob"), floor.join()
    floor.do(alice, *(order("sell", 1, 100 + n) for n in range(5)))
    floor.do(watcher, {**FOLLOW, "channels": ["trades", "book"]})
    floor.do(bob, *(order("buy", 1, 104) for _ in range(3)))
    *trades, book = floor.read(watcher)
    assert words(trades) == ["trade"] * 3 and words([book]) == ["book"]
    assert [t["trade_id"] for t in trades] == [1, 2, 3]
    assert [t["seq"] for t in trades] == [6, 7, 8]
    assert book["prev_seq"] == 5 and book["seq"] == 8


def test_a_subscription_shows_the_book_as_it_was_at_its_turn(
    floor: Floor,
) -> None:
    alice = floor.join("alice")
    follow = {**FOLLOW, "channels": ["book"], "id": 1}
    messages = floor.do(
        alice, order("buy", 1, 90), follow, order("buy", 1, 91)
    )
    assert words(messages) == ["new", "ok", "book", "new", "book"]
    snapshot, update = messages[2], messages[4]
    assert snapshot["snapshot"] and snapshot["bids"] == [[90, 1]]
    assert update["prev_seq"] == snapshot["seq"]
    assert update["bids"] == [[91, 1]]


# Slow readers -------------------------------------------------------------


def follower(floor: Floor, *channels: str) -> tuple[Session, Peer]:
    peer = Peer()
    session = floor.gateway.connect(peer)
    floor.do(session, {**FOLLOW, "channels": channels})
    return session, peer


def drained(floor: Floor, session: Session, peer: Peer) -> Any:
    """Let a reader have read everything; return what it gets then."""
    peer.buffered = 0
    floor.gateway.publish()
    return floor.read(session)


def test_a_slow_reader_gets_one_update_for_all_it_missed(floor: Floor) -> None:
    alice, bob = floor.join("alice"), floor.join("bob")
    reader, peer = follower(floor, "book", "trades")
    floor.do(alice, order("sell", 9, 101))
    floor.read(reader)
    peer.buffered = SLOW_BYTES + 1
    for _ in range(3):
        floor.do(bob, order("buy", 1, 101))
        floor.do(bob, order("buy", 1, 90))
    assert floor.read(reader) == []
    (update,) = drained(floor, reader, peer)
    assert update["prev_seq"] == 1 and update["seq"] == 7
    assert update["bids"] == [[90, 3]] and update["asks"] == [[101, 6]]
    # Its trades go on with the newest.
    floor.do(bob, order("buy", 1, 101))
    trade, update = floor.read(reader)
    assert trade["trade_id"] == 4 and update["prev_seq"] == 7


def test_a_slow_reader_gets_its_private_events_and_replies(
    floor: Floor,
) -> None:
    peer = Peer()
    alice, bob = floor.gateway.connect(peer), floor.join("bob")
    floor.do(alice, {"type": "login", "user": "alice"}, FOLLOW)
    floor.do(alice, order("sell", 9, 101))
    peer.buffered = SLOW_BYTES + 1
    floor.do(bob, order("buy", 4, 101))
    assert words(floor.read(alice)) == ["trade", "account"]
    assert words(floor.do(alice, PING)) == ["ok"]


def test_one_who_missed_too_much_gets_a_snapshot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange.feed, "UPDATES_KEPT", 4)
    floor = Floor()
    alice = floor.join("alice")
    few, few_peer = follower(floor, "book")
    many, many_peer = follower(floor, "book")
    many_peer.buffered = SLOW_BYTES + 1
    floor.do(alice, order("buy", 1, 90))
    few_peer.buffered = SLOW_BYTES + 1
    for price in (91, 92, 93, 94):
        floor.do(alice, order("buy", 1, price))
    floor.read(few)
    (update,) = drained(floor, few, few_peer)
    assert "snapshot" not in update and update["prev_seq"] == 1
    (snapshot,) = drained(floor, many, many_peer)
    assert snapshot["snapshot"] and snapshot["seq"] == 5
    assert snapshot["bids"] == [[p, 1] for p in (94, 93, 92, 91, 90)]


def test_a_heartbeat_tells_what_was_sent_not_what_was_missed(
    floor: Floor,
) -> None:
    alice = floor.join("alice")
    reader, peer = follower(floor, "book")
    floor.do(alice, order("buy", 1, 90))
    peer.buffered = SLOW_BYTES + 1
    floor.do(alice, order("buy", 1, 91))

    def beat() -> Any:
        floor.read(reader)
        floor.gateway.heartbeat()
        floor.gateway.publish()
        (heartbeat,) = floor.read(reader)
        return heartbeat["seq"]

    assert beat() == {"BOND": 1}
    drained(floor, reader, peer)
    assert beat() == {"BOND": 2}


@pytest.mark.parametrize(
    "channels", [("ticker",), ("ticker", "book"), ("ticker", "trades")]
)
def test_a_slow_reader_gets_the_ticker_it_missed(
    floor: Floor, channels: tuple[str, ...]
) -> None:
    alice = floor.join("alice")
    reader, peer = follower(floor, *channels)
    peer.buffered = SLOW_BYTES + 1
    floor.do(alice, order("buy", 1, 90))
    floor.gateway.feed.flush_tickers()
    floor.gateway.publish()
    assert floor.read(reader) == []
    messages = drained(floor, reader, peer)
    (ticker,) = [m for m in messages if m["type"] == "ticker"]
    assert ticker["bid"] == 90


def test_changes_between_two_moments_for_tickers_make_one(
    floor: Floor,
) -> None:
    alice, watcher = floor.join("alice"), floor.join()
    floor.do(watcher, {**FOLLOW, "channels": ["ticker"]})
    for price in (80, 81, 82):
        floor.do(alice, order("buy", 1, price))
    for _ in range(2):
        floor.gateway.feed.flush_tickers()
        floor.gateway.publish()
    assert [ticker["bid"] for ticker in floor.read(watcher)] == [82]


def test_no_ticker_where_nothing_that_it_tells_has_changed(
    floor: Floor,
) -> None:
    alice, watcher = floor.join("alice"), floor.join()
    floor.do(alice, order("buy", 1, 80))
    floor.gateway.feed.flush_tickers()
    floor.do(watcher, {**FOLLOW, "channels": ["ticker"]})
    floor.do(alice, order("buy", 1, 70))
    floor.gateway.feed.flush_tickers()
    floor.gateway.publish()
    assert floor.read(watcher) == []


def test_a_ticker_that_changed_and_changed_back_after_a_subscription(
    floor: Floor,
) -> None:
    alice, watcher = floor.join("alice"), floor.join()
    floor.do(alice, order("buy", 1, 80))
    floor.gateway.feed.flush_tickers()
    floor.do(alice, order("buy", 1, 90, client_order_id="a"))
    _, at_subscribe = floor.do(watcher, {**FOLLOW, "channels": ["ticker"]})
    assert at_subscribe["bid"] == 90
    floor.do(alice, {"type": "cancel", "client_order_id": "a"})
    floor.gateway.feed.flush_tickers()
    floor.gateway.publish()
    assert [ticker["bid"] for ticker in floor.read(watcher)] == [80]


def test_one_catching_up_takes_nothing_from_one_who_falls_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange.feed, "UPDATES_KEPT", 2)
    floor = Floor()
    alice = floor.join("alice")
    reader, peer = follower(floor, "book")
    other, other_peer = follower(floor, "book")
    peer.buffered = SLOW_BYTES + 1
    for price in (90, 91, 92, 93):
        floor.do(alice, order("buy", 1, price))
    held = floor.read(other)[-1]["seq"]
    # In one batch: an order, the first drains, the second is too slow.
    for request in decode_requests(json.dumps(order("buy", 1, 94))):
        floor.gateway.handle(alice, request)
    peer.buffered, other_peer.buffered = 0, SLOW_BYTES + 1
    floor.gateway.publish()
    floor.do(alice, order("buy", 1, 95))
    first = drained(floor, other, other_peer)[0]
    assert first.get("snapshot") or first["prev_seq"] <= held
    bids = {price for price, _ in first["bids"]}
    assert {94, 95} <= bids
