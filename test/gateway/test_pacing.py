"""Slow readers, and when public data leave."""

from __future__ import annotations

import json
from typing import Any

from exchange.gateway.feed import UPDATES_KEPT
from exchange.gateway.link import Link
from exchange.gateway.pacing import (
    FEED_READER_US,
    FEED_US,
    MANY_READERS,
    SLOW_BYTES,
)
from orderbook import Admin, decode_requests
from test.script import message
from test.support import FOLLOW, PING, Floor, Peer, words


def follower(floor: Floor, *channels: str) -> tuple[Link, Peer]:
    peer = Peer()
    session = floor.connect(peer)
    floor.do(session, {**FOLLOW, "channels": channels})
    return session, peer


def drained(floor: Floor, session: Link, peer: Peer) -> Any:
    """Empty a reader's buffer; return what it gets then."""
    peer.buffered = 0
    floor.gateway.seal()
    return floor.read(session)


def test_a_slow_reader_gets_one_update_for_all_it_missed(floor: Floor) -> None:
    alice, bob = floor.join("alice"), floor.join("bob")
    reader, peer = follower(floor, "book", "trades")
    floor.do(alice, "sell 9@101")
    floor.read(reader)
    peer.buffered = SLOW_BYTES + 1
    for _ in range(3):
        floor.do(bob, "buy 1@101")
        floor.do(bob, "buy 1@90")
    assert floor.read(reader) == []
    (update,) = drained(floor, reader, peer)
    assert update["prev_seq"] == 1 and update["seq"] == 7
    assert update["bids"] == [[90, 3]] and update["asks"] == [[101, 6]]
    # Its trades continue with the newest.
    floor.do(bob, "buy 1@101")
    trade, update = floor.read(reader)
    assert trade["trade_id"] == 4 and update["prev_seq"] == 7


def test_a_slow_reader_gets_its_private_events_and_replies(
    floor: Floor,
) -> None:
    peer = Peer()
    alice, bob = floor.connect(peer), floor.join("bob")
    floor.do(alice, {"type": "login", "user": "alice"}, FOLLOW)
    floor.do(alice, "sell 9@101")
    peer.buffered = SLOW_BYTES + 1
    floor.do(bob, "buy 4@101")
    assert words(floor.read(alice)) == ["trade", "account"]
    assert words(floor.do(alice, PING)) == ["ok"]


def test_a_deadline_within_a_turn_fires_before_the_next_request(
    floor: Floor,
) -> None:
    """Each command is at least a microsecond later than the one before."""
    alice = floor.join("alice")
    floor.clock.ts += 1_000
    expire_ts = floor.clock.ts + 2
    dies = f"buy 1@50 gtd until={expire_ts}"
    told = floor.do(alice, dies, *["buy 1@50"] * 3)
    assert words(told) == ["new", "new", "expired", "new", "new"]
    assert told[2]["order_id"] == told[0]["order_id"]
    assert told[2]["ts"] == expire_ts < told[3]["ts"]


def test_while_more_waits_public_data_leave_now_and_then(
    floor: Floor,
) -> None:
    """Private events leave at once, public data when nothing else waits."""
    alice, reader = floor.join("alice"), floor.join()
    floor.do(reader, FOLLOW)
    gateway, clock = floor.gateway, floor.clock

    def place(qty: int, **how: bool) -> list[list[int]] | None:
        requests = decode_requests(json.dumps(message(f"buy {qty}@90")))
        gateway.requests.handle(alice, [requests[0]])
        gateway.seal([], **how)
        assert words(floor.read(alice)) == ["new"]
        updates = floor.read(reader)
        return updates[0]["bids"] if updates else None

    start = clock.ts
    assert place(1) == [[90, 1]]
    assert place(2, is_more=True) is None
    clock.ts = start + FEED_US - 1
    assert place(3, is_more=True) is None
    clock.ts = start + FEED_US
    assert place(4, is_more=True) == [[90, 10]]
    clock.ts += FEED_US - 1
    assert place(5, is_more=True) is None
    assert place(6) == [[90, 21]]
    clock.ts += 2 * FEED_US
    gateway.pacing.is_busy = True  # until all readers have the last ones
    assert place(7) is None
    assert gateway.pacing.due == clock.ts + FEED_US
    gateway.pacing.is_busy = False
    assert place(8) == [[90, 36]]


def test_public_data_leave_less_often_for_many_readers(floor: Floor) -> None:
    alice = floor.join("alice")
    reader, *others, last = [floor.join() for _ in range(MANY_READERS)]
    gateway, clock = floor.gateway, floor.clock

    def place() -> list[str]:
        floor.do(alice, "buy 1@90")
        return words(floor.read(reader))

    for session in (reader, *others):
        floor.do(session, FOLLOW)
    floor.read(reader)
    assert place() == place() == ["book"] and gateway.pacing.due is None
    floor.do(last, FOLLOW)
    floor.read(reader)
    assert place() == []
    assert gateway.pacing.due == clock.ts + MANY_READERS * FEED_READER_US
    clock.ts = gateway.pacing.due - 1
    assert place() == []
    clock.ts += 1
    gateway.seal()
    assert words(floor.read(reader)) == ["book"]
    assert gateway.pacing.due is None


def test_public_data_keep_their_place_among_replies(
    floor: Floor,
) -> None:
    """After earlier and before later messages of the same batch."""
    alice, reader = floor.join("alice"), floor.join()
    floor.do(reader, FOLLOW)
    floor.do(alice, FOLLOW)
    gateway = floor.gateway
    (place,) = decode_requests(json.dumps(message("buy 1@90")))
    (ping,) = decode_requests(json.dumps(PING))
    gateway.requests.handle(alice, [place])
    gateway.routing.publish()  # as a subscription does
    gateway.requests.handle(reader, [ping])
    gateway.requests.handle(alice, [ping])
    gateway.seal()
    assert words(floor.read(reader)) == ["book", "ok"]
    assert words(floor.read(alice)) == ["new", "book", "ok"]


def test_heartbeats_go_on_while_a_commit_takes_long() -> None:
    floor = Floor(durable=True)
    floor.gateway.commit(floor.seq)
    alice = floor.join("alice")
    floor.gateway.commit(floor.seq)
    floor.do(alice, {"type": "subscribe", "channels": ["book"]})

    def beat() -> list[dict[str, Any]]:
        floor.gateway.heartbeat()
        floor.gateway.seal()
        return floor.read(alice)

    assert [m["seq"] for m in beat()] == [{"BOND": 0, "@": 0}]
    assert floor.do(alice, "buy 1@99") == []  # waits for its commit
    assert beat() == []  # it waits as well: its seq depends on the order
    for _ in range(3):
        assert [m["seq"] for m in beat()] == [{"BOND": 0, "@": 0}]
    floor.gateway.commit(floor.seq)
    assert words(floor.read(alice)) == ["new", "book", "heartbeat"]
    assert [m["seq"] for m in beat()] == [{"BOND": 1, "@": 1}]


def test_a_heartbeat_tells_what_was_sent_not_what_was_missed(
    floor: Floor,
) -> None:
    alice = floor.join("alice")
    reader, peer = follower(floor, "book")
    floor.do(alice, "buy 1@90")
    peer.buffered = SLOW_BYTES + 1
    floor.do(alice, "buy 1@91")

    def beat() -> Any:
        floor.read(reader)
        floor.gateway.heartbeat()
        floor.gateway.seal()
        (heartbeat,) = floor.read(reader)
        return heartbeat["seq"]

    assert beat() == {"BOND": 1}
    drained(floor, reader, peer)
    assert beat() == {"BOND": 2}


def test_changes_between_two_moments_for_tickers_make_one(
    floor: Floor,
) -> None:
    alice, watcher = floor.join("alice"), floor.join()
    floor.do(watcher, {**FOLLOW, "channels": ["ticker"]})
    for price in (80, 81, 82):
        floor.do(alice, f"buy 1@{price}")
    for _ in range(2):
        floor.gateway.routing.publish_tickers()
        floor.gateway.seal()
    assert [ticker["bid"] for ticker in floor.read(watcher)] == [82]


def test_a_reset_changes_the_ticker_though_no_book(floor: Floor) -> None:
    alice, bob, watcher = floor.join("alice"), floor.join("bob"), floor.join()
    floor.do(alice, "buy 1@80")
    floor.do(bob, "sell 1@80")
    floor.do(watcher, {**FOLLOW, "channels": ["ticker"]})
    floor.gateway.routing.publish_tickers()
    reset = Admin(action="reset", reason="r")
    floor.gateway.sequencer.run(reset, "boss")
    floor.gateway.seal()
    floor.read(watcher)
    floor.gateway.routing.publish_tickers()
    floor.gateway.seal()
    (ticker,) = floor.read(watcher)
    assert ticker["volume"] == 0 and "last" not in ticker


def test_a_reader_catching_up_does_not_affect_one_falling_behind(
    floor: Floor,
) -> None:
    alice = floor.join("alice")
    reader, peer = follower(floor, "book")
    other, other_peer = follower(floor, "book")
    peer.buffered = SLOW_BYTES + 1
    for number in range(UPDATES_KEPT + 2):
        floor.do(alice, f"buy 1@{90 + number % 4}")
    held = floor.read(other)[-1]["seq"]
    # In one batch: an order, the first drains, the second is too slow.
    for request in decode_requests(json.dumps(message("buy 1@94"))):
        floor.gateway.requests.handle(alice, [request])
    peer.buffered, other_peer.buffered = 0, SLOW_BYTES + 1
    floor.gateway.seal()
    floor.do(alice, "buy 1@95")
    first = drained(floor, other, other_peer)[0]
    assert first.get("snapshot") or first["prev_seq"] <= held
    bids = {price for price, _ in first["bids"]}
    assert {94, 95} <= bids
