"""One connection: its share of each turn, its outbox, its frames."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.doors import native
from exchange.doors.native import FRAME_CHARS, pack
from exchange.gateway.link import (
    BYTES_PER_REQUEST,
    BYTES_WAITING,
    ROWS_PER_REQUEST,
    Link,
    weigh,
)
from exchange.gateway.pacing import SLOW_BYTES, STUCK_BYTES, is_slow, is_stuck
from exchange.market.command import LONG_WEIGHT
from orderbook import (
    DEFAULT_ROWS,
    MAX_ROWS,
    Error,
    Get,
    Login,
    Ping,
    Request,
    Subscribe,
    decode_requests,
    encode,
)
from test.support import LINES, Peer


class Shown:
    """A door that shows where frames begin and end."""

    decode = staticmethod(decode_requests)

    def encode(self, texts: list[str]) -> bytes:
        return "".join(f"<{text}>" for text in pack(texts)).encode()


def new_session(outgoing: dict[Link, None] | None = None) -> Link:
    waiting = {} if outgoing is None else outgoing
    return Link(Peer(), Shown(), waiting)


def pings(*ids: int) -> bytes:
    return json.dumps([{"type": "ping", "id": each} for each in ids]).encode()


# Packing ------------------------------------------------------------------


def test_messages_become_one_array_and_a_single_one_stays() -> None:
    assert list(pack(['{"a":1}'])) == ['{"a":1}']
    assert list(pack(['{"a":1}', '{"b":2}'])) == ['[{"a":1},{"b":2}]']


@pytest.mark.parametrize("letter", ["a", "é", "€", "😀"])
@pytest.mark.parametrize("length", [4_999, 99_999, 124_996])
def test_frames_stay_under_a_mebibyte(letter: str, length: int) -> None:
    texts = [f'"{letter * length}"'] * (2_000_000 // length)
    frames = list(pack(texts))
    assert len(frames) > 2
    assert all(len(frame.encode()) < 1 << 20 for frame in frames)


def test_a_message_too_long_for_a_frame_has_its_own() -> None:
    long = "9" * (FRAME_CHARS + 1)
    assert list(pack([long])) == [long]
    assert list(pack(["1", "2", long, "3", long, long, "4", "5"])) == [
        "[1,2]",
        long,
        "3",
        long,
        long,
        "[4,5]",
    ]


@given(st.lists(st.integers(0, 10**40)), st.integers(1, 60))
def test_frames_hold_all_messages_in_order_and_no_frame_too_many(
    numbers: list[int], frame_chars: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "FRAME_CHARS", frame_chars)
        frames = list(pack([str(number) for number in numbers]))
    decoded = [json.loads(frame) for frame in frames]
    assert numbers == [
        number
        for each in decoded
        for number in (each if isinstance(each, list) else [each])
    ]
    for frame in frames:
        assert len(frame) <= frame_chars + 1 or not frame.startswith("[")
    for frame, following in zip(frames, frames[1:]):
        head = following.strip("[]").partition(",")[0]
        joined = f"[{frame.strip('[]')},{head}]"
        assert len(joined) > frame_chars - 2, "it would have had room"


# In -----------------------------------------------------------------------


def turns(session: Link, enough: int) -> list[int]:
    """Return how many requests each turn takes, until none are left."""
    taken = []
    while turn := len(session.take(enough)[0]):
        taken.append(turn)
    assert session.waiting == 0
    return taken


def test_messages_wait_as_they_came_until_they_are_taken() -> None:
    session = new_session()
    session.receive([b'{"type":"ping","id":1}', b"rubbish"], 5)
    session.receive([pings(2, 3)], 7)
    assert session.waiting == 3
    (ping, error), weight, arrival = session.take(2)
    assert ping == Ping(id=1) and (weight, arrival) == (2, 5)
    assert isinstance(error, Error) and error.code == "bad_request"
    assert session.waiting == 1
    assert session.take(2) == ([Ping(id=2), Ping(id=3)], 2, 7)
    assert session.waiting == 0
    assert session.take(2) == ([], 0, 0)


def test_a_turn_ends_with_the_message_that_makes_it_enough() -> None:
    session = new_session()
    sizes = [60, 40, 1, 99, 2, 100, 1, 15, 1, 1]
    session.receive([pings(*range(size)) for size in sizes], 1)
    assert turns(session, 16) == [60, 40, 100, 102, 16, 2]
    session.receive([pings(1)] * 33, 1)
    assert turns(session, 16) == [16, 16, 1]


LONG: list[Request] = [
    Get(what="trades", limit=MAX_ROWS),
    Get(what="orders"),
    Subscribe(channels=("book",)),
    Login(user="alice"),
]


def test_a_long_request_counts_as_many() -> None:
    assert [weigh(request) for request in LONG] == [
        1 + MAX_ROWS // ROWS_PER_REQUEST,
        1 + DEFAULT_ROWS // ROWS_PER_REQUEST,
        LONG_WEIGHT,
        LONG_WEIGHT,
    ]
    assert weigh(Ping()) == 1
    assert weigh(Get(what="account", limit=MAX_ROWS)) == 1


def test_a_turn_ends_with_what_takes_long() -> None:
    session = new_session()
    session.receive([encode(get).encode() for get in LONG], 3)
    session.receive([pings(*range(20)), pings(1)], 4)
    assert session.take(16) == (LONG[:1], weigh(LONG[0]), 3)
    assert session.take(16) == (LONG[1:2], weigh(LONG[1]), 3)
    assert session.take(16) == (LONG[2:], 2 * LONG_WEIGHT, 3)
    assert session.take(16)[1] == 20
    assert session.take(16) == ([Ping(id=1)], 1, 4)


def test_a_message_weighs_by_its_bytes_too() -> None:
    session = new_session()
    long = b'{"type":"ping","id":"%b"}' % (b"x" * 20 * BYTES_PER_REQUEST)
    session.receive([long, long], 3)
    (error,), weight, _ = session.take(16)
    assert isinstance(error, Error) and weight == 20
    assert session.waiting == 1


def test_the_requests_of_a_message_stay_together_whatever_they_weigh() -> None:
    session = new_session()
    frame = "[" + ",".join(map(encode, 5 * LONG)) + "]"
    session.receive([frame.encode()], 3)
    assert session.take(16) == (5 * LONG, 5 * sum(map(weigh, LONG)), 3)


def test_a_session_with_much_to_do_is_full() -> None:
    """In one message or in many, until it is taken."""
    session = new_session()
    one = pings(1)
    count = -(-BYTES_WAITING // len(one)) - 1
    session.receive([one] * count, 1)
    assert not session.is_full
    session.receive([one], 2)
    assert session.is_full
    session.take(1)
    assert not session.is_full
    session.receive([b"x" * BYTES_WAITING], 3)
    assert session.is_full
    session.take(count)
    assert session.waiting == 1 and session.is_full
    session.take(1)
    assert not session.is_full


# Out ----------------------------------------------------------------------


def test_messages_and_ready_frames_leave_in_their_order() -> None:
    session = new_session()
    session.send("1")
    session.send("2")
    session.push(b"<frame 1>")
    session.push(b"<frame 2>")
    session.send("3")
    session.push(b"")
    session.send("4")
    session.send("5")
    sealed = session.seal()
    assert sealed == b"<[1,2]><frame 1><frame 2><3><[4,5]>"
    assert session.sealed_bytes == len(sealed)
    assert session.seal() == b""


def test_a_link_that_is_not_congested_is_not_slow() -> None:
    peer = Peer()
    session = Link(peer, LINES, {})
    peer.is_congested = False
    assert not is_slow(session) and not session.may_be_slow
    session.send("x" * (SLOW_BYTES - 1))
    session.seal()
    assert not session.may_be_slow
    session.send("x")
    session.seal()
    assert session.may_be_slow and is_slow(session) and session.may_be_slow
    session.sealed_bytes = 0
    assert not is_slow(session) and not session.may_be_slow


def test_ready_frames_are_not_copied() -> None:
    session = new_session()
    frames = b"<many frames>"
    session.push(frames)
    assert session.seal() is frames
    assert session.sealed_bytes == len(frames)


def test_messages_sent_while_sealing_leave_with_the_next_batch() -> None:
    session = new_session()
    session.send("1")
    assert session.seal() == b"<1>"
    session.send("2")
    assert session.seal() == b"<2>"


def test_a_session_says_that_it_has_something_to_send() -> None:
    outgoing: dict[Link, None] = {}
    one, two, three = (new_session(outgoing) for _ in range(3))
    assert not outgoing
    two.send("1")
    one.push(b"frame")
    two.send("2")
    assert list(outgoing) == [two, one]
    assert three not in outgoing


@pytest.mark.parametrize(
    "buffered, slow, stuck",
    [
        (0, False, False),
        (SLOW_BYTES, False, False),
        (SLOW_BYTES + 1, True, False),
        (STUCK_BYTES, True, False),
        (STUCK_BYTES + 1, True, True),
    ],
)
def test_a_link_that_reads_slowly_is_slow_then_stuck(
    buffered: int, slow: bool, stuck: bool
) -> None:
    peer = Peer()
    session = Link(peer, Shown(), {})
    peer.buffered = buffered
    assert (is_slow(session), is_stuck(session)) == (slow, stuck)
    assert STUCK_BYTES == 4 << 20, "as the protocol says"


def test_a_new_link_has_no_account() -> None:
    session = new_session()
    assert (session.account, session.session_id) == ("", "")
    assert not session.is_gone and not session.is_full
    assert session.role == "trader" and not session.is_cut and not session.key
