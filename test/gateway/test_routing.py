"""What a batch publishes, and readers behind different doors."""

from __future__ import annotations

import json
from typing import Any

from orderbook import decode_requests
from test.support import FOLLOW, PING, Floor, Lines, Peer, words

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


def test_a_subscription_shows_the_book_at_its_place_in_the_frame(
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
    """Replies, private events and public data."""
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
