"""Nothing leaves before what it depends on is committed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exchange.journal.gate import Gate
from orderbook import MAX_INT


def test_what_is_held_waits_for_its_commit() -> None:
    gone: list[str] = []
    gate = Gate(gone.append, committed=0)
    gate.hold(1, "one")
    gate.hold(2, "two")
    gate.hold(2, "two again")
    gate.hold(3, "three")
    assert gone == []
    gate.commit(2)
    assert gone == ["one", "two", "two again"]
    gate.commit(3)
    assert gone == ["one", "two", "two again", "three"]


def test_what_depends_on_nothing_new_leaves_at_once() -> None:
    gone: list[str] = []
    gate = Gate(gone.append, committed=5)
    gate.hold(4, "old")
    gate.hold(5, "last")
    assert gone == ["old", "last"]


def test_nothing_overtakes() -> None:
    gone: list[str] = []
    gate = Gate(gone.append, committed=5)
    gate.hold(6, "an order")
    gate.hold(5, "a pong")
    assert gone == []
    gate.commit(6)
    assert gone == ["an order", "a pong"]


def test_a_gate_may_stand_open() -> None:
    gone: list[str] = []
    gate = Gate(gone.append, committed=MAX_INT)
    gate.hold(MAX_INT, "anything")
    assert gone == ["anything"]


def test_what_is_let_go_may_cause_more() -> None:
    gone: list[int] = []

    def let_go(seq: int) -> None:
        gone.append(seq)
        if seq < 3:
            gate.hold(seq + 1, seq + 1)

    gate = Gate(let_go, committed=0)
    gate.hold(1, 1)
    gate.commit(2)
    assert gone == [1, 2]
    gate.commit(3)
    assert gone == [1, 2, 3]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2))))
def test_all_leave_in_order_and_none_too_early(
    steps: list[tuple[bool, int]],
) -> None:
    gone: list[tuple[int, int]] = []
    gate = Gate(gone.append, committed=0)
    applied = committed = 0
    held: list[tuple[int, int]] = []
    for is_commit, step in steps:
        if is_commit:
            committed = min(committed + step, applied)
            gate.commit(committed)
        else:
            applied += step
            held.append((applied, len(held)))
            gate.hold(*(applied, held[-1]))
        assert gone == [item for item in held if item[0] <= committed]
