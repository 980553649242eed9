"""Exchanges and clients that live through faults, in virtual time."""

from __future__ import annotations

import gc
import logging
import weakref
from collections import Counter
from collections.abc import Iterator

import pytest

from exchange.journal.gate import Gate
from util.simulate.faulty import World
from util.simulate.worlds import main

WORLDS = 40
PART = 5  # worlds of one test, which has a limit of time


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(1, WORLDS + 1, PART))
def test_worlds_keep_every_invariant(first: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(first, first + PART):
        outcome = World(seed).run()
        assert not outcome.violation, str(outcome)
        counts += outcome.counts
    # They were no idle worlds.
    assert counts["restarts"] >= PART and counts["trades"] > 5 * PART


def test_a_world_that_has_ended_leaves_nothing_in_memory() -> None:
    world = World(3)
    world.run()
    ended = weakref.ref(world)
    del world
    for _ in range(3):  # what a finalizer has used waits for the next time
        gc.collect()
    assert ended() is None


def test_a_process_that_dies_at_once_warns_nobody() -> None:
    world = World(1)
    world.machine.start()
    world.machine.kill()
    world.loop.close()
    del world
    gc.collect()


def test_the_same_seed_is_the_same_world() -> None:
    first, again, other = (World(seed).run() for seed in (7, 7, 8))
    assert first.digest == again.digest != other.digest


def test_a_broken_invariant_is_shown_with_the_way_to_repeat_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def hold(gate: Gate[object], seq: int, item: object) -> None:
        gate.pass_by(item)

    monkeypatch.setattr(Gate, "hold", hold)
    assert main(["1", "7"]) == 1
    printed = capsys.readouterr().out
    assert "seed 7: " in printed and "was told" in printed
    assert "again: python -m util.simulate.worlds 1 7" in printed
