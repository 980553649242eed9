"""Busy days: whatever happens, and amid whatever, nothing is lost or doubled.

`Ledger` compares an engine with its events after each command.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exchange.journal.records import decode_records, encode_record
from exchange.market.engine import Engine
from exchange.market.reports import in_full
from orderbook import Error, Exec, encode
from test.market.day import Day, busy_day, transcript
from test.market.flows import ROOT

SLICES = st.sampled_from((2, 5, 30, 500))  # operations of a slice


@settings(max_examples=100)
@example(seed=349, steps=70, slice_ops=5)  # the clock is set amid a reset
@given(st.integers(0, 2**32), st.integers(2, 150), SLICES)
def test_nothing_is_lost_or_doubled(
    seed: int, steps: int, slice_ops: int
) -> None:
    busy_day(seed, steps, slice_ops)


@pytest.mark.parametrize("slice_ops", [3, 500])
@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_lost_or_doubled_on_a_long_day(
    seed: int, slice_ops: int
) -> None:
    busy_day(seed, 2_500, slice_ops)


def test_the_days_leave_nothing_out() -> None:
    found: Counter[str] = Counter()
    for seed in range(3):
        day = busy_day(seed, 2_000, slice_ops=5)
        found["amid"] += day.amid
        for _, event in day.ledger.told:
            found[event.type] += 1
            if isinstance(event, Error):
                found[event.code] += 1
            elif isinstance(event, Exec):
                found[event.exec_type] += 1
                found[event.reason or event.liquidity or ""] += 1
    expected = """settlement tender news bust triggered funds amid auction
        no_conversion unknown_tender duplicate_tender market_closed
        duplicate_client_request_id duplicate_client_order_id"""
    assert not [word for word in expected.split() if found[word] < 5]


def test_a_day_read_from_its_journal_comes_out_the_same() -> None:
    day = busy_day(7, 1_500, slice_ops=20)
    engine = Engine()
    engine.slice_ops = 20
    told = []
    for command in day.ledger.commands:
        record = f"[{encode_record(command)}]".encode()
        (again,) = decode_records(command.seq, record)
        assert again == command
        told += in_full(engine.apply(again))
    assert told == day.ledger.told


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_the_same_day_gives_the_same_bytes(hash_seed: str) -> None:
    elsewhere = subprocess.run(
        [sys.executable, "-m", "test.market.day", "7"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        check=True,
    )
    assert elsewhere.stdout.decode() == transcript(7)


def test_a_crowd_takes_many_slices_and_others_go_on() -> None:
    day = Day(random.Random(3), slice_ops=10)
    day.crowd(120)
    day.disperse()
    assert day.amid > 5 and not day.engine.work
    events = [event for _, event in day.ledger.told]
    ends = [e for e in events if isinstance(e, Exec) and e.reason == "user"]
    assert len(ends) >= 120 and len({encode(e) for e in ends}) == len(ends)
