"""The gate: a batch leaves once its commands are committed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exchange.journal.gate import Gate
from orderbook import MAX_INT


def test_a_held_batch_waits_for_its_commit() -> None:
    gate: Gate[str] = Gate(committed=0)
    gate.hold(1, "one")
    gate.hold(2, "two")
    gate.hold(2, "two again")
    gate.hold(3, "three")
    assert list(gate.open()) == []
    gate.commit(2)
    assert list(gate.open()) == ["one", "two", "two again"]
    assert len(gate) == 1
    gate.commit(3)
    assert list(gate.open()) == ["three"]
    assert len(gate) == 0


def test_a_batch_of_committed_commands_leaves_at_once() -> None:
    gate: Gate[str] = Gate(committed=5)
    gate.hold(4, "old")
    gate.hold(5, "last")
    assert list(gate.open()) == ["old", "last"]


def test_without_a_lease_nothing_leaves() -> None:
    """It is asked for each item: a process may be stopped between two."""
    leases = [True, True, False]
    gate: Gate[str] = Gate(committed=5)
    gate.may_open = lambda: leases.pop(0)
    gate.hold(4, "old")
    gate.hold(5, "last")
    gate.pass_by("heartbeat")
    assert list(gate.open()) == ["heartbeat", "old"]
    assert not leases
    gate.may_open = lambda: False
    gate.pass_by("heartbeat")
    assert not gate.may_open()
    assert list(gate.open()) == []
    gate.may_open = lambda: True
    assert gate.may_open()
    assert list(gate.open()) == ["heartbeat", "last"]


def test_nothing_overtakes() -> None:
    gate: Gate[str] = Gate(committed=5)
    gate.hold(6, "an order")
    gate.hold(5, "a pong")
    assert list(gate.open()) == []
    gate.commit(6)
    assert list(gate.open()) == ["an order", "a pong"]


def test_a_gate_may_stand_open() -> None:
    gate: Gate[str] = Gate(committed=MAX_INT)
    gate.hold(MAX_INT, "anything")
    assert list(gate.open()) == ["anything"]


def test_a_leaving_batch_may_cause_another() -> None:
    gone: list[int] = []
    gate: Gate[int] = Gate(committed=0)
    gate.hold(1, 1)
    gate.commit(2)
    for seq in gate.open():
        gone.append(seq)
        gate.hold(seq + 1, seq + 1)
    assert gone == [1, 2]
    gate.commit(3)
    assert list(gate.open()) == [3]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2))))
def test_all_leave_in_order_and_none_too_early(
    steps: list[tuple[bool, int]],
) -> None:
    gone: list[tuple[int, int]] = []
    gate: Gate[tuple[int, int]] = Gate(committed=0)
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
        gone += gate.open()
        assert gone == [item for item in held if item[0] <= committed]
