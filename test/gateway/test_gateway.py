"""The exchange without its sockets: stamping, order, and the gate.

Peers are two-line fakes, the clock is turned by hand, and what leaves is
looked at batch by batch.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydantic_core import to_json

import exchange.gateway.feed
from exchange.gateway.gateway import Gateway
from exchange.gateway.link import Link
from exchange.gateway.pacing import FEED_READER_US, FEED_US, SLOW_BYTES
from exchange.host.keyfile import make_entry, make_token, read_keys, rotate
from exchange.host.keyring import Key, KeyRing
from exchange.host.market_file import InstrumentSettings
from exchange.host.settings import Settings
from exchange.journal.history import History
from exchange.market.accounts import AccountLimits
from exchange.market.command import Command, Configure, Restart
from exchange.market.engine import Engine
from orderbook import Admin, Table, decode_requests
from test.script import message
from test.support import (
    NOON,
    SECOND,
    Floor,
    Lines,
    Peer,
    add_key,
    state_of,
    words,
)

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
    assert floor.do(alice, "buy 5@99") == []
    assert floor.read(watcher) == []
    floor.commit(floor.seq - 1)
    assert floor.read(alice) == floor.read(watcher) == []
    floor.commit(floor.seq)
    assert words(floor.read(alice)) == ["new"]
    assert words(floor.read(watcher)) == ["book"]


def test_what_only_reads_waits_for_what_it_has_read(floor: Floor) -> None:
    alice, bob = floor.join("alice"), floor.join("bob")
    floor.close_gate()
    floor.do(alice, "buy 5@99")
    table = {"type": "get", "what": "book"}
    assert floor.do(bob, PING, {"type": "nonsense"}, table, FOLLOW) == []
    floor.gateway.heartbeat()
    floor.gateway.seal()
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
        floor.do(alice, f"buy 1@{price}", PING)
    left: list[list[int]] = []
    for seq in range(first, first + 4):
        floor.commit(seq)
        left.append([m["price"] for m in floor.read(alice) if "price" in m])
    assert left == [[91], [92], [93], [94]]


def test_several_held_batches_leave_at_one_commit(floor: Floor) -> None:
    alice = floor.join("alice")
    floor.close_gate()
    for price in (91, 92, 93, 94):
        floor.do(alice, f"buy 1@{price}")
    floor.commit(floor.seq - 1)
    assert [m["price"] for m in floor.read(alice)] == [91, 92, 93]
    floor.commit(floor.seq)
    assert [m["price"] for m in floor.read(alice)] == [94]


def test_closings_and_debug_output_wait_too() -> None:
    floor = Floor(debug=True)
    alice = floor.join("alice")
    floor.batches.clear()
    floor.close_gate()
    floor.do(alice, "buy 5@99")
    floor.gateway.shut_down()
    floor.gateway.seal()
    assert floor.batches == []
    floor.commit(floor.seq)
    placed, shutdown = floor.batches
    assert "alice buy 5 BOND @ 99 is order 1" in placed.report
    assert placed.closings == [] and not shutdown.report
    assert shutdown.closings == [(alice, 1001, "shutdown")]


def test_with_nothing_to_say_nothing_leaves(floor: Floor) -> None:
    session = floor.join("alice", cancel_on_disconnect=True)
    floor.batches.clear()
    floor.gateway.seal()
    floor.gateway.disconnect(session)
    floor.gateway.seal()
    assert floor.batches == []


def test_news_come_between_what_was_before_and_what_is_after() -> None:
    """Even within a frame, and for those who only had an order resting."""
    bond = replace(InstrumentSettings().listed_as("BOND"), band=2)
    floor = Floor(market=Configure(instruments=(bond,)))
    alice, bob = floor.join("alice"), floor.join("bob")
    floor.do(alice, *(f"sell 1@{price}" for price in (1, 2, 5)))
    told = words(floor.do(bob, "buy 3@9", "buy 1@1", PING))
    assert told == [
        *("new", "trade", "trade", "account", "status", "new", "ok")
    ]
    assert words(floor.read(alice)) == ["trade", "trade", "account", "status"]


def test_news_of_a_deadline_come_after_what_it_did() -> None:
    bond = InstrumentSettings().listed_as("BOND")
    bond = replace(bond, band=2, auction_ms=1_000)
    floor = Floor(market=Configure(instruments=(bond,)))
    alice, bob = floor.join("alice"), floor.join("bob")
    floor.do(alice, *(f"sell 1@{price}" for price in (1, 2, 5)))
    floor.do(bob, "buy 3@9")
    floor.read(alice)
    floor.clock.ts += 2 * SECOND
    floor.gateway.pass_time()
    floor.gateway.seal()
    for session in (alice, bob):
        assert words(floor.read(session)) == ["trade", "account", "status"]


def test_who_is_told_nothing_is_written_nothing(floor: Floor) -> None:
    alice, other = floor.join("alice"), floor.join("alice")
    floor.batches.clear()
    floor.do(alice, {"type": "cancel", "order_id": 9}, PING)
    floor.do(alice, {"type": "cancel_after", "timeout_ms": 0})
    written = [s for batch in floor.batches for s, _ in batch.frames]
    assert written == [alice] * 2 and other not in written


@pytest.mark.parametrize(
    "owner, name", [(Engine, "apply"), (History, "record_trade")]
)
def test_what_happened_before_a_failure_is_told_and_no_books(
    floor: Floor, owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the engine failed, or the gateway while it told of it."""
    alice, bob, watcher = floor.join("alice"), floor.join("bob"), floor.join()
    floor.do(watcher, {**FOLLOW, "channels": ["book", "trades"]})
    floor.do(alice, *(f"sell 1@{price}" for price in (50, 51, 52)))
    for session in (alice, watcher):
        floor.read(session)
    real, calls = getattr(owner, name), count(1)

    def failing(self: Any, it: Any) -> Any:
        if next(calls) == 3:
            raise RuntimeError("boom")
        return real(self, it)

    monkeypatch.setattr(owner, name, failing)
    frame = json.dumps([message(f"buy 1@{price}") for price in (50, 51, 52)])
    with pytest.raises(RuntimeError, match="boom"):
        floor.gateway.requests.handle(bob, decode_requests(frame))
    floor.gateway.seal()
    told = words(floor.read(bob))
    assert told[:6] == ["new", "trade", "account"] * 2
    assert words(floor.read(alice))[:4] == ["trade", "account"] * 2
    assert floor.read(watcher) == []


# Time ---------------------------------------------------------------------


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


def test_until_then_the_order_trades(floor: Floor) -> None:
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
    monkeypatch.setattr("exchange.market.timers.DEADLINES_PER_COMMAND", 2)
    alice = floor.join("alice")
    for _ in range(5):
        floor.do(alice, gtd(NOON + SECOND))
    floor.clock.ts += SECOND
    assert words(floor.do(alice, PING)) == ["expired"] * 5 + ["ok"]


def test_cancel_after_is_put_off_and_disarmed(floor: Floor) -> None:
    alice, bob = floor.join("alice"), floor.join("bob")
    floor.do(bob, "buy 1@90")
    floor.do(alice, "buy 1@91", "sell 1@109")

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
    floor.do(alice, "buy 1@91")
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


# Batches ------------------------------------------------------------------


def test_one_update_covers_the_commands_of_a_batch(floor: Floor) -> None:
    alice, watcher = floor.join("alice"), floor.join()
    floor.do(watcher, {**FOLLOW, "channels": ["book"]})
    floor.do(
        alice,
        "buy 5@99 as=a",
        "buy 7@98",
        "buy 1@99",
        "cancel as=a",
        "sell 3@101 as=b",
        "cancel as=b",
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
    floor.do(alice, *(f"sell 1@{100 + n}" for n in range(5)))
    floor.do(watcher, {**FOLLOW, "channels": ["trades", "book"]})
    floor.do(bob, *("buy 1@104" for _ in range(3)))
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
    messages = floor.do(alice, "buy 1@90", follow, "buy 1@91")
    assert words(messages) == ["new", "ok", "book", "new", "book"]
    snapshot, update = messages[2], messages[4]
    assert snapshot["snapshot"] and snapshot["bids"] == [[90, 1]]
    assert update["prev_seq"] == snapshot["seq"]
    assert update["bids"] == [[91, 1]]


# Doors --------------------------------------------------------------------


class Loud(Lines):
    """A door of another protocol, which speaks in capitals."""

    def encode(self, texts: list[str]) -> bytes:
        return super().encode(texts).upper()


def ask(request: dict[str, Any]) -> Any:
    return decode_requests(json.dumps(request))


def test_readers_with_other_doors_get_the_same_in_their_protocol(
    floor: Floor,
) -> None:
    """Whatever it is: replies, private events, public data."""
    alice, reader = floor.join("alice"), floor.join()
    loud = floor.gateway.connect(Peer(), Loud())
    for link in (reader, loud):
        floor.gateway.requests.handle(link, ask(FOLLOW))
    floor.gateway.seal()
    floor.batches.clear()
    floor.do(alice, "buy 1@90")
    sent = {
        link: frames
        for batch in floor.batches
        for frames, readers in batch.broadcasts
        for link in readers
    }
    assert b'"bids":[[90,1]]' in sent[reader]
    assert sent[loud] == sent[reader].upper()
    floor.gateway.requests.handle(loud, ask(PING))
    floor.gateway.seal()
    frames = [f for b in floor.batches for link, f in b.frames if link is loud]
    assert b'"TYPE":"OK"' in frames[-1]


# Slow readers -------------------------------------------------------------


def follower(floor: Floor, *channels: str) -> tuple[Link, Peer]:
    peer = Peer()
    session = floor.connect(peer)
    floor.do(session, {**FOLLOW, "channels": channels})
    return session, peer


def drained(floor: Floor, session: Link, peer: Peer) -> Any:
    """Let a reader have read everything; return what it gets then."""
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
    # Its trades go on with the newest.
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


def test_what_falls_due_within_a_turn_comes_before_what_follows(
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
    """Private events at once; and public ones when there is nothing else."""
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


def test_for_many_readers_public_data_leave_less_often(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange.gateway.pacing.MANY_READERS", 3)
    alice, (reader, *_) = floor.join("alice"), [floor.join() for _ in "123"]
    gateway, clock = floor.gateway, floor.clock

    def place() -> list[str]:
        floor.do(alice, "buy 1@90")
        return words(floor.read(reader))

    for session in list(gateway.links)[1:3]:
        floor.do(session, FOLLOW)
    floor.read(reader)
    assert place() == place() == ["book"] and gateway.pacing.due is None
    floor.do(list(gateway.links)[3], FOLLOW)
    floor.read(reader)
    assert place() == []
    assert gateway.pacing.due == clock.ts + 3 * FEED_READER_US
    clock.ts = gateway.pacing.due - 1
    assert place() == []
    clock.ts += 1
    gateway.seal()
    assert words(floor.read(reader)) == ["book"]
    assert gateway.pacing.due is None


def test_public_data_leave_before_what_a_session_is_sent_after_them(
    floor: Floor,
) -> None:
    """And after what it was sent before, in one and the same batch."""
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


def test_one_who_missed_too_much_gets_a_snapshot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange.gateway.feed, "UPDATES_KEPT", 4)
    floor = Floor()
    alice = floor.join("alice")
    few, few_peer = follower(floor, "book")
    many, many_peer = follower(floor, "book")
    many_peer.buffered = SLOW_BYTES + 1
    floor.do(alice, "buy 1@90")
    few_peer.buffered = SLOW_BYTES + 1
    for price in (91, 92, 93, 94):
        floor.do(alice, f"buy 1@{price}")
    floor.read(few)
    (update,) = drained(floor, few, few_peer)
    assert "snapshot" not in update and update["prev_seq"] == 1
    (snapshot,) = drained(floor, many, many_peer)
    assert snapshot["snapshot"] and snapshot["seq"] == 5
    assert snapshot["bids"] == [[p, 1] for p in (94, 93, 92, 91, 90)]


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


@pytest.mark.parametrize(
    "channels", [("ticker",), ("ticker", "book"), ("ticker", "trades")]
)
def test_a_slow_reader_gets_the_ticker_it_missed(
    floor: Floor, channels: tuple[str, ...]
) -> None:
    alice = floor.join("alice")
    reader, peer = follower(floor, *channels)
    peer.buffered = SLOW_BYTES + 1
    floor.do(alice, "buy 1@90")
    floor.gateway.routing.publish_tickers()
    floor.gateway.seal()
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


def test_no_ticker_where_nothing_that_it_tells_has_changed(
    floor: Floor,
) -> None:
    alice, watcher = floor.join("alice"), floor.join()
    floor.do(alice, "buy 1@80")
    floor.gateway.routing.publish_tickers()
    floor.do(watcher, {**FOLLOW, "channels": ["ticker"]})
    floor.do(alice, "buy 1@70")
    floor.gateway.routing.publish_tickers()
    floor.gateway.seal()
    assert floor.read(watcher) == []


def test_a_ticker_that_changed_and_changed_back_after_a_subscription(
    floor: Floor,
) -> None:
    alice, watcher = floor.join("alice"), floor.join()
    floor.do(alice, "buy 1@80")
    floor.gateway.routing.publish_tickers()
    floor.do(alice, "buy 1@90 as=a")
    _, at_subscribe = floor.do(watcher, {**FOLLOW, "channels": ["ticker"]})
    assert at_subscribe["bid"] == 90
    floor.do(alice, "cancel as=a")
    floor.gateway.routing.publish_tickers()
    floor.gateway.seal()
    assert [ticker["bid"] for ticker in floor.read(watcher)] == [80]


def test_one_catching_up_takes_nothing_from_one_who_falls_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange.gateway.feed, "UPDATES_KEPT", 2)
    floor = Floor()
    alice = floor.join("alice")
    reader, peer = follower(floor, "book")
    other, other_peer = follower(floor, "book")
    peer.buffered = SLOW_BYTES + 1
    for price in (90, 91, 92, 93):
        floor.do(alice, f"buy 1@{price}")
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


# Logins -------------------------------------------------------------------


def login(floor: Floor, user: str) -> tuple[str, list[int]]:
    """Log in; return what came of it, and the close codes."""
    session = floor.join()
    reply, *_ = floor.do(session, {"type": "login", "user": user})
    return words([reply])[0], floor.closings(session)


def test_only_so_many_accounts_are_opened(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange.gateway.logins.ACCOUNTS_MAX", 2)
    assert login(floor, "alice") == ("welcome", [])
    assert login(floor, "bob") == ("welcome", [])
    seq = floor.seq
    assert login(floor, "carol") == ("forbidden", [4001])
    assert floor.seq == seq
    assert login(floor, "alice") == ("welcome", [])


def test_news_goes_to_everybody_once(floor: Floor) -> None:
    first, second = floor.join("alice"), floor.join("alice")
    watcher = floor.join()
    floor.gateway.announce("lunch")
    floor.gateway.seal()
    for session in (first, second, watcher):
        (status,) = floor.read(session)
        assert status == {"type": "status", "ts": NOON, "message": "lunch"}


# Another day --------------------------------------------------------------


def restarted(commands: list[Command], market: Configure) -> list[Any]:
    """Go on with a journal; return what is journaled at once."""
    gateway = Gateway(lambda: NOON, durable=True)
    gateway.replay(commands)
    gateway.begin(market)
    return [command.action for command in gateway.sequencer.take()]


def test_a_market_is_configured_again_only_if_it_has_changed() -> None:
    def market(**fields: Any) -> Configure:
        bond = InstrumentSettings(**fields).listed_as("BOND")
        return Configure(instruments=(bond,))

    floor = Floor(market=market(), durable=True)
    floor.join("alice")
    commands = floor.gateway.sequencer.take()
    assert restarted(commands, market()) == [Restart()]
    for changed in (
        market(max_qty=7),
        replace(market(), limits=AccountLimits(cash=7)),
        replace(market(), accounts={"alice": AccountLimits()}),
    ):
        assert restarted(commands, changed) == [Restart(), changed]


JUMPY = InstrumentSettings(reference_price=100, band=5, auction_s=4)
STAY = {"cancel_on_disconnect": False}
GTD = f"gtd until={NOON + 2 * SECOND}"


def jumpy(**fields: Any) -> Configure:
    """Return a market where a trade beyond 5 from 100 starts an auction."""
    settings = JUMPY.model_copy(update=fields)
    return Configure(instruments=(settings.listed_as("BOND"),))


def after_a_crash(
    floor: Floor, down_s: int, market: Configure
) -> tuple[list[str], list[tuple[str, str]]]:
    """Go on with the journal of a floor after some time.

    Return what is journaled, and what became of the orders: in which state,
    and why, by the account that is told.
    """
    later = floor.clock.now() + down_s * SECOND
    gateway = Gateway(lambda: later, durable=True)
    gateway.replay(floor.gateway.sequencer.take())
    seq = {name: a.seq for name, a in gateway.engine.accounts.items()}
    gateway.begin(market)
    actions = [c.action.type for c in gateway.sequencer.take()]
    told = []
    for name, account in gateway.engine.accounts.items():
        for text in gateway.history.missed(name, seq[name], account.seq) or ():
            event = json.loads(text)
            if event["type"] == "exec":
                told.append((event["exec_type"], event.get("reason", "")))
    return actions, told


@pytest.mark.parametrize("down_s", [0, 6])
@pytest.mark.parametrize("is_new", [False, True])
def test_connections_end_before_an_auction_that_ended_meanwhile(
    down_s: int, is_new: bool
) -> None:
    floor = Floor(market=jumpy(), durable=True)
    floor.do(floor.join("maker"), "sell 10@110")
    floor.do(floor.join("taker"), "buy 10@110")
    assert floor.gateway.engine.listings["BOND"].phase == "auction"
    market = jumpy(max_qty=7) if is_new else jumpy()
    actions, told = after_a_crash(floor, down_s, market)
    assert actions == [
        "restart",
        *(["tick"] if down_s else []),
        *(["configure"] if is_new else []),
    ]
    assert told == [("canceled", "disconnect")] * 2


def test_orders_that_outlive_their_connection_trade_meanwhile() -> None:
    floor = Floor(market=jumpy(), durable=True)
    floor.do(floor.join("maker", **STAY), "sell 10@110")
    floor.do(floor.join("taker", **STAY), "buy 10@110")
    actions, told = after_a_crash(floor, 6, jumpy())
    assert actions == ["restart", "tick"]
    assert told == [("trade", "")] * 2


def test_connections_end_before_a_phase_that_was_to_end_meanwhile() -> None:
    """One that an administrator began with ``reopen_ms``."""
    floor = Floor(market=jumpy(phase="auction", band=0), durable=True)
    boss = floor.join("boss")
    boss.is_admin = True
    reopen = {"phase": "auction", "symbol": "BOND", "reopen_ms": 2_000}
    request = {"type": "admin", "action": "phase", "reason": "r", **reopen}
    floor.do(boss, request)
    assert floor.gateway.engine.next_deadline is not None
    floor.do(floor.join("maker"), "sell 10@110")
    floor.do(floor.join("taker"), "buy 10@110")
    actions, told = after_a_crash(floor, 6, jumpy(phase="auction", band=0))
    assert actions == ["restart", "tick"]
    assert told == [("canceled", "disconnect")] * 2


def test_connections_end_before_what_else_was_due_meanwhile() -> None:
    floor = Floor(market=jumpy(), durable=True)
    stay, leave = floor.join("alice", **STAY), floor.join("alice")
    switch = {"type": "cancel_after", "timeout_ms": 3_000}
    floor.do(stay, f"buy 1@90 {GTD}", "buy 1@91", switch)
    floor.do(leave, f"buy 1@92 {GTD}", "buy 1@93")
    actions, told = after_a_crash(floor, 6, jumpy())
    assert actions == ["restart", "tick"]
    assert told == [
        *[("canceled", "disconnect")] * 2,
        ("expired", "gtd"),
        ("canceled", "cancel_after"),
    ]


# Anything at all ----------------------------------------------------------

USERS = ("alice", "bob", "carol", "boss")
RULES = """
[instruments.BOND]
max_position = 30
maker_fee = -1
taker_fee = 2
reference_price = 100
collar = 30
band = 3
auction_s = 1

[instruments.ETF]
phase = "pre_open"
short_selling = false

[account]
cash = 5_000
min_cash = 0
open_orders = 8
orders_per_s = 20
burst = 30

[accounts.boss]
orders_per_s = 0

[accounts.carol]
max_position = { BOND = 3 }
orders_per_s = 5
burst = 2
"""

symbols = st.sampled_from(["BOND", "BOND", "BOND", "ETF", "NONE"])
order_ids = st.integers(1, 30)
names = st.sampled_from(["a", "b", "c", "d"])
users = st.sampled_from([*USERS, "eve"])
sides = st.sampled_from(["buy", "sell"])


Fields = dict[str, st.SearchStrategy[Any]]


def any_message(
    kind: str, optional: Fields = {}, **fields: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    needed: Fields = {"type": st.just(kind), **fields}
    return st.fixed_dictionaries(needed, optional=optional)


def action(
    name: str, optional: Fields = {}, **fields: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    said: Fields = {"action": st.just(name), "reason": st.just("why")}
    return any_message("admin", optional, **said, **fields)


phases = st.sampled_from(["pre_open", "auction", "open", "halted", "closed"])
admins = (
    action(
        "phase",
        {"symbol": symbols, "reopen_ms": st.integers(1_000, 2_000)},
        phase=phases,
    )
    | action("kill", user=users)
    | action("unkill", user=users)
    | action("unkill", user=users)
    | action("phase", phase=st.just("open"))
    | action("cancel", order_id=order_ids)
    | action(
        "adjust",
        {
            "cash": st.integers(-900, 900),
            "symbol": symbols,
            "qty": st.integers(-9, 9),
        },
        user=users,
    )
    | action("settle", symbol=symbols, price=st.integers(0, 200))
    | action("reset")
    | action("message", {"symbol": symbols}, message=st.just("m"))
)
orders = any_message(
    "place",
    symbol=symbols,
    side=sides,
    qty=st.integers(1, 12),
    price=st.integers(98, 102),
) | any_message(
    "place",
    {
        "time_in_force": st.sampled_from(["gtc", "ioc", "fok"]),
        "post_only": st.booleans(),
        "stp": st.sampled_from(
            ["cancel_oldest", "cancel_newest", "cancel_both"]
        ),
        "client_order_id": names,
    },
    symbol=symbols,
    side=sides,
    qty=st.integers(1, 12),
    price=st.integers(94, 106) | st.integers(60, 140),
)
asked = (
    orders
    | orders
    | orders
    | orders
    | orders
    | orders
    | any_message(
        "place",
        order_type=st.just("market"),
        symbol=symbols,
        side=sides,
        qty=st.integers(1, 9),
    )
    | any_message(
        "place",
        time_in_force=st.just("gtd"),
        expire_ts=st.integers(NOON, NOON + 9 * SECOND),
        symbol=symbols,
        side=sides,
        qty=st.integers(1, 9),
        price=st.integers(94, 106),
    )
    | any_message(
        "amend",
        {"price": st.integers(90, 110), "qty": st.integers(1, 12)},
        order_id=order_ids,
    )
    | any_message("amend", client_order_id=names, qty=st.integers(1, 12))
    | any_message("cancel", order_id=order_ids)
    | any_message("cancel", client_order_id=names)
    | any_message("cancel_all", {"symbol": symbols, "side": sides})
    | any_message(
        "cancel_after", timeout_ms=st.sampled_from([0, 1_000, 2_000])
    )
    | any_message("subscribe", channels=st.just(["book", "trades", "ticker"]))
    | any_message("unsubscribe", channels=st.just(["book"]))
    | any_message(
        "get",
        {"symbol": symbols, "after": order_ids, "limit": st.integers(1, 9)},
        what=st.sampled_from(get_args(Table)),
    )
    | any_message("ping")
    | any_message("nonsense")
    | admins
)
logins = st.fixed_dictionaries(
    {
        "user": st.sampled_from([*USERS, *USERS, "eve"]),
        "is_right": st.sampled_from([True] * 9 + [False]),
        "session": st.integers(0, 9),
        "last_seq": st.integers(0, 20),
        "is_resuming": st.booleans(),
        "cancel_on_disconnect": st.booleans(),
    }
)
changes = st.sampled_from(["same", "new key", "disable", "promote", "away"])
peers = st.integers(0, 3)
steps = (
    st.tuples(st.just("ask"), peers, st.lists(asked, min_size=4, max_size=9))
    | st.tuples(st.just("ask"), peers, st.lists(asked, min_size=4, max_size=9))
    | st.tuples(st.just("wait"), peers, st.integers(0, 1_500_000))
    | st.tuples(st.just("log in"), peers, logins)
    | st.tuples(st.just("log in"), peers, logins)
    | st.tuples(st.just("ask"), peers, st.lists(asked, min_size=4, max_size=9))
    | st.tuples(st.just("ask"), peers, st.lists(asked, min_size=4, max_size=9))
    | st.tuples(st.just("hang up"), peers, st.just(None))
    | st.tuples(st.just("wait"), peers, st.integers(0, 1_500_000))
    | st.tuples(st.just("change"), st.sampled_from(USERS), changes)
)


class Anything:
    """Peers who ask anything of one gateway, and what must hold for them."""

    def __init__(self, folder: Path, tokens: dict[str, str]) -> None:
        market = folder / "market.toml"
        market.write_text(RULES)
        self.rules = Settings(market=market, max_per_account=2).rules(True)
        self.keys = folder / "keys.json"
        self.tokens = dict(tokens)
        self.ring = KeyRing(self.keys)
        self.floor = Floor(
            market=self.rules.configure,
            durable=True,
            keys=self.ring,
            quotas=self.rules.quotas,
        )
        self.peers = [self.floor.join() for _ in range(4)]
        self.commands: list[Command] = []
        self.session_ids = [""]
        self.asked = 0
        self.codes: Counter[str] = Counter()

    def step(self, what: str, who: Any, how: Any) -> None:
        match what:
            case "log in":
                self.log_in(who, **how)
            case "ask":
                self.ask(who, how)
            case "hang up":
                self.hang_up(who)
            case "wait":
                self.floor.clock.ts += how
                self.floor.gateway.pass_time()
                self.floor.gateway.heartbeat()
            case "change":
                self.change(who, how)
        self.leave()
        for listing in self.floor.gateway.engine.listings.values():
            listing.book.check()

    def hang_up(self, who: int) -> None:
        self.floor.gateway.disconnect(self.peers[who])
        self.peers[who] = self.floor.join()

    def leave(self) -> None:
        """Let all that has happened be journaled, and leave."""
        self.floor.gateway.seal()
        self.commands += self.floor.gateway.sequencer.take()
        assert self.commands[-1].seq == self.floor.seq
        self.floor.gateway.commit(self.floor.seq)

    def log_in(
        self,
        who: int,
        user: str,
        is_right: bool,
        session: int,
        last_seq: int,
        is_resuming: bool,
        cancel_on_disconnect: bool,
    ) -> None:
        if self.peers[who].is_cut:
            self.hang_up(who)
        login: dict[str, Any] = {
            "type": "login",
            "user": user,
            "cancel_on_disconnect": cancel_on_disconnect,
        }
        login["token"] = self.tokens.get(user, "x") if is_right else "wrong"
        if is_resuming:
            ids = self.session_ids
            login["session"] = ids[session % len(ids)]
            login["last_seq"] = last_seq
        self.ask(who, [login, {"type": "ping"}])

    def ask(self, who: int, requests: list[dict[str, Any]]) -> None:
        """Send requests in one frame; check that each has its reply."""
        session = self.peers[who]
        was_cut = session.is_cut
        ids = list(range(self.asked, self.asked + len(requests)))
        self.asked += len(requests)
        self.floor.gateway.pass_time()
        self.leave()
        self.floor.read(session)
        for request in decode_requests(
            json.dumps([{**r, "id": n} for r, n in zip(requests, ids)])
        ):
            self.floor.gateway.requests.handle(session, [request])
        self.leave()
        got = self.floor.read(session)
        replies = [message for message in got if "id" in message]
        answered = [reply["id"] for reply in replies]
        assert answered == ids[: len(answered)], "in order, each once"
        if was_cut:
            assert got == []
        elif session.is_cut:
            assert replies[-1]["type"] == "error", "the one that broke it"
        else:
            assert answered == ids
        for reply in replies:
            assert reply["type"] in ("welcome", "exec", "ok", "error")
            self.codes[reply.get("code", reply["type"])] += 1
            if reply["type"] == "welcome":
                self.session_ids.append(reply["session"])
                assert not self.is_over_the_limit(reply["user"])

    def is_over_the_limit(self, user: str) -> bool:
        return len(self.floor.gateway.routing.online[user]) > 2

    def change(self, user: str, how: str) -> None:
        accounts = read_keys(self.keys)
        entry = accounts.get(user, make_entry(self.tokens[user]))
        match how:
            case "new key":
                self.tokens[user] = make_token()
                entry = rotate(entry, self.tokens[user])
            case "disable":
                entry = entry.model_copy(update={"is_disabled": True})
            case "promote":
                entry = entry.model_copy(update={"is_admin": True})
        accounts[user] = entry
        if how == "away":
            del accounts[user]
        # Not by `changing`, which waits for the disk.
        content = {"version": 1, "accounts": accounts}
        self.keys.write_bytes(to_json(content))
        self.ring.refresh()
        self.floor.gateway.logins.check_keys()
        for session in self.peers:
            if session.account and not session.is_cut:
                assert isinstance(session.key, Key)
                assert self.ring.is_valid(session.key)

    def end(self) -> None:
        """Check that the journal holds all that has happened."""
        gateway = self.floor.gateway
        other = Gateway(self.floor.clock.now)
        other.replay(self.commands)
        assert state_of(other) == state_of(gateway)
        for symbol in gateway.engine.listings:
            assert not sum(
                account.positions.get(symbol, 0)
                for account in gateway.engine.accounts.values()
            )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A key file, and the tokens of its accounts."""
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    return path, {user: add_key(path, user, user == "boss") for user in USERS}


# To make a failing example small would take minutes.
@settings(
    max_examples=60,
    deadline=None,
    phases=set(Phase) - {Phase.shrink, Phase.explain},
)
@given(what=st.lists(steps, min_size=20, max_size=40))
def test_whatever_is_asked_each_request_has_its_reply(
    keys: tuple[Path, Any], what: list[tuple[str, Any, Any]]
) -> None:
    path, tokens = keys
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, folder)
        anything = Anything(Path(folder), tokens)
        for user in (0, 1, 3):
            anything.log_in(user, USERS[user], True, 0, 0, False, True)
        for step in what:
            anything.step(*step)
        anything.end()
