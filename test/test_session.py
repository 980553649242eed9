"""One connection: its share of each turn, its outbox, its frames."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange import session as session_module
from exchange.session import (
    FRAME_CHARS,
    REQUESTS_PER_TURN,
    REQUESTS_WAITING,
    SLOW_BYTES,
    STUCK_BYTES,
    Session,
    pack,
)
from orderbook import MAX_FRAME, Error, Ping


class Peer:
    """A connection that only says how much it has not yet sent."""

    def __init__(self) -> None:
        self.buffered = 0


def new_session(outgoing: dict[Session, None] | None = None) -> Session:
    return Session(Peer(), {} if outgoing is None else outgoing)


def pings(*ids: int) -> bytes:
    return json.dumps([{"type": "ping", "id": each} for each in ids]).encode()


# Packing ------------------------------------------------------------------


def test_messages_become_one_array_and_a_single_one_stays() -> None:
    assert list(pack([])) == []
    assert list(pack(['{"a":1}'])) == ['{"a":1}']
    assert list(pack(['{"a":1}', '{"b":2}'])) == ['[{"a":1},{"b":2}]']


@pytest.mark.parametrize("letter", ["a", "é", "€", "😀"])
@pytest.mark.parametrize("length", [4_999, 99_999, 124_996])
def test_frames_stay_under_a_mebibyte(letter: str, length: int) -> None:
    texts = [f'"{letter * length}"'] * (2_000_000 // length)
    frames = list(pack(texts))
    assert len(frames) > 2
    assert all(len(frame.encode()) < 1 << 20 for frame in frames)


def test_a_message_too_long_for_a_frame_goes_alone() -> None:
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
        patch.setattr(session_module, "FRAME_CHARS", frame_chars)
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


def turns(session: Session) -> list[int]:
    """Return how many requests each turn takes, until none are left."""
    taken = []
    while turn := len(session.take()):
        taken.append(turn)
    assert session.waiting == 0
    return taken


def test_requests_wait_decoded_until_they_are_taken() -> None:
    session = new_session()
    session.receive([b'{"type":"ping","id":1}', b"rubbish"])
    session.receive([pings(2, 3)])
    assert session.waiting == 4
    ping, error, *more = session.take()
    assert ping == Ping(id=1) and more == [Ping(id=2), Ping(id=3)]
    assert isinstance(error, Error) and error.code == "bad_request"
    assert session.waiting == 0
    assert session.take() == []


def test_a_turn_takes_one_full_frame_or_as_many_short_ones() -> None:
    assert REQUESTS_PER_TURN == MAX_FRAME == 100
    session = new_session()
    full = pings(*range(MAX_FRAME))
    session.receive([full, full] + [pings(1)] * 150)
    assert turns(session) == [100, 100, 100, 50]


def test_a_frame_is_never_divided_between_turns() -> None:
    session = new_session()
    sizes = [60, 40, 1, 99, 2, 60, 60]
    session.receive([pings(*range(size)) for size in sizes])
    assert turns(session) == [100, 100, 62, 60]


def test_what_was_not_taken_still_waits() -> None:
    session = new_session()
    session.receive([pings(*range(100)), pings(3)])
    session.take()
    assert session.waiting == 1
    assert session.take() == [Ping(id=3)]


def test_a_session_with_much_to_do_is_full() -> None:
    session = new_session()
    session.receive([pings(*range(99))] * 2 + [pings(1)])
    assert session.waiting == REQUESTS_WAITING - 1 and not session.is_full
    session.receive([b"rubbish"])
    assert session.is_full
    session.take()
    assert not session.is_full


# Out ----------------------------------------------------------------------


def test_messages_and_ready_frames_leave_in_their_order() -> None:
    session = new_session()
    session.send("1")
    session.send("2")
    session.push([b"frame 1", b"frame 2"])
    session.push([b"frame 3"])
    session.send("3")
    session.push([])
    session.send("4")
    session.send("5")
    sealed = list(session.seal())
    assert sealed[:4] == ["[1,2]", b"frame 1", b"frame 2", b"frame 3"]
    assert ",".join(str(item).strip("[]") for item in sealed[4:]) == "3,4,5"
    assert list(session.seal()) == []


def test_what_is_sent_while_sealing_leaves_with_the_next_batch() -> None:
    session = new_session()
    session.send("1")
    assert session.seal() == ["1"]
    session.send("2")
    assert list(session.seal()) == ["2"]


def test_a_session_says_that_it_has_something_to_send() -> None:
    outgoing: dict[Session, None] = {}
    one, two, three = (new_session(outgoing) for _ in range(3))
    assert not outgoing
    two.send("1")
    one.push([b"frame"])
    two.send("2")
    assert list(outgoing) == [two, one]
    assert three not in outgoing


@pytest.mark.parametrize(
    "buffered, is_slow, is_stuck",
    [
        (0, False, False),
        (SLOW_BYTES, False, False),
        (SLOW_BYTES + 1, True, False),
        (STUCK_BYTES, True, False),
        (STUCK_BYTES + 1, True, True),
    ],
)
def test_who_reads_too_slowly_is_slow_and_then_stuck(
    buffered: int, is_slow: bool, is_stuck: bool
) -> None:
    peer = Peer()
    session = Session(peer, {})
    peer.buffered = buffered
    assert (session.is_slow, session.is_stuck) == (is_slow, is_stuck)
    assert STUCK_BYTES == 4 << 20, "as the protocol says"


def test_a_new_session_is_nobody() -> None:
    session = new_session()
    assert (session.account, session.session_id) == ("", "")
    assert not session.is_gone and not session.is_full
    assert not session.is_admin and not session.is_cut and not session.key
