"""Random flows: events suffice to rebuild the market, and are reproducible."""

from __future__ import annotations

import copy
import os
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.market.command import Shutdown
from exchange.market.engine import Engine
from orderbook import Error, Exec, Status, encode
from test.market.flows import ROOT, flow, transcript
from test.market.follower import follow
from test.script import PHASES, apply, in_full

# Random flows -------------------------------------------------------------


@settings(max_examples=400)
@given(st.integers(0, 2**32), st.integers(1, 80), st.integers(1, 5))
def test_the_events_suffice_to_rebuild_the_market(
    seed: int, steps: int, per_batch: int
) -> None:
    follow(flow(random.Random(seed), steps), per_batch)


@pytest.mark.parametrize("seed", range(8))
def test_the_events_of_a_long_day_suffice(seed: int) -> None:
    commands = flow(random.Random(seed), 2_500)
    follower = follow(commands, per_batch=1 + seed * 3)
    assert min(follower.trade_ids.values()) > 20, "a busy day"


def test_the_flows_leave_nothing_out() -> None:
    found: set[str] = set()
    for seed in range(8):
        engine = Engine()
        for command in flow(random.Random(seed), 2_500):
            action = type(command.action).__name__
            for _, event in in_full(engine, command):
                match event:
                    case Error():
                        found.add(f"{action} {event.code}")
                    case Exec():
                        found.add(event.reason or event.liquidity or "")
                    case Status():
                        found.add(f"{action} {event.phase}")
    orders = """market_closed invalid_qty invalid_price position_limit
        insufficient_funds would_take forbidden"""
    expected = {
        "Place": f"""{orders} bad_request unknown_symbol too_many_orders
            duplicate_client_order_id""",
        "Amend": f"{orders} unknown_order order_closed",
        "Cancel": "unknown_order order_closed",
        "Admin": f"""bad_request unknown_symbol unknown_order order_closed
            invalid_price insufficient_funds None {" ".join(PHASES)}""",
    }
    missing = {
        f"{action} {word}"
        for action, words in expected.items()
        for word in words.split()
    }
    missing |= {"Place auction", "Amend auction", "TimePassed open"}
    missing |= set("maker taker auction".split())
    missing |= set("user disconnect cancel_after stp admin".split())
    missing |= set("ioc fok gtd no_liquidity closed".split())
    assert not missing - found


# Determinism --------------------------------------------------------------


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_the_same_commands_give_the_same_bytes(hash_seed: str) -> None:
    elsewhere = subprocess.run(
        [sys.executable, "-m", "test.market.flows", "7"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        check=True,
    )
    assert elsewhere.stdout.decode() == transcript(7)


def test_an_engine_shares_nothing_with_another() -> None:
    commands = list(flow(random.Random(1), 300))
    engines = [Engine(), Engine()]
    for command in commands:
        first, second = (
            [encode(event) for _, event in in_full(engine, command)]
            for engine in engines
        )
        assert first == second
    twin = copy.deepcopy(engines[0])
    apply(twin, Shutdown())
    assert engines[0].accounts == engines[1].accounts
    assert engines[0].listings == engines[1].listings
