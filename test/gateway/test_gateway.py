"""Nothing leaves before its command is committed, and in which order."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from exchange.host.market_file import InstrumentSettings
from exchange.journal.history import History
from exchange.market.command import Configure
from exchange.market.engine import Engine
from orderbook import decode_requests
from test.script import message
from test.support import FOLLOW, PING, SECOND, Floor, words


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


def test_a_reply_waits_for_the_commit_of_what_it_shows(floor: Floor) -> None:
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


def test_held_batches_leave_in_order_up_to_the_commit(
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


def test_an_empty_batch_does_not_leave(floor: Floor) -> None:
    session = floor.join("alice", cancel_on_disconnect=True)
    floor.batches.clear()
    floor.gateway.seal()
    floor.gateway.disconnect(session)
    floor.gateway.seal()
    assert floor.batches == []


def test_status_events_keep_their_place_among_the_replies() -> None:
    """Also within a frame, and for owners of resting orders."""
    bond = replace(InstrumentSettings().listed_as("BOND"), band=2)
    floor = Floor(market=Configure(instruments=(bond,)))
    alice, bob = floor.join("alice"), floor.join("bob")
    floor.do(alice, *(f"sell 1@{price}" for price in (1, 2, 5)))
    told = words(floor.do(bob, "buy 3@9", "buy 1@1", PING))
    assert told == [
        *("new", "trade", "trade", "account", "status", "new", "ok")
    ]
    assert words(floor.read(alice)) == ["trade", "trade", "account", "status"]


def test_the_status_of_a_deadline_comes_after_its_reports() -> None:
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


def test_a_link_without_events_is_not_written_to(floor: Floor) -> None:
    alice, other = floor.join("alice"), floor.join("alice")
    floor.batches.clear()
    floor.do(alice, {"type": "cancel", "order_id": 9}, PING)
    floor.do(alice, {"type": "cancel_after", "timeout_ms": 0})
    written = [s for batch in floor.batches for s, _ in batch.frames]
    assert written == [alice] * 2 and other not in written


@pytest.mark.parametrize(
    "owner, name", [(Engine, "apply"), (History, "record_trade")]
)
def test_private_events_before_a_failure_are_sent_and_no_books(
    floor: Floor, owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine fails, or the gateway while it routes the events."""
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
