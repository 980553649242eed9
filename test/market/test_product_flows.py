"""Random flows in which lots and cash move outside of the books.

Whatever settles, converts, pays dividends or is closed out: no lot and no
cash appears or vanishes, and all that an account earned is told.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.journal.records import decode_records, encode_record
from exchange.market.accounts import HOUSE
from exchange.market.command import Action, Command, TimePassed
from exchange.market.engine import Engine
from exchange.market.work import touches
from orderbook import (
    AccountReport,
    Admin,
    Convert,
    Error,
    Event,
    Exec,
    Settlement,
    Status,
    encode,
)
from test.market.flows import product_flow
from test.script import in_full


class Witness:
    """An engine, and what its events told; `apply` compares the two."""

    def __init__(self, slice_ops: int) -> None:
        self.engine = Engine()
        self.engine.slice_ops = slice_ops
        self.commands: list[Command] = []
        self.told: list[str] = []
        self.seqs: Counter[str] = Counter()
        self.found: Counter[str] = Counter()  # how often what happened

    def apply(self, ts: int, account: str, action: Action) -> None:
        """Apply an action and all the work that it causes, then compare."""
        engine = self.engine
        before = {
            (name, symbol): qty
            for name, held in engine.accounts.items()
            for symbol, qty in held.positions.items()
        }
        cash = {name: held.cash for name, held in engine.accounts.items()}
        events = self.step(ts, account, action)
        reply = next((event for _, event in events), None)
        slices = 0
        while engine.work:
            events += self.step(engine.ts + 1, "", TimePassed())
            slices += 1
        self.found["slices"] += slices > 0
        word = type(action).__name__
        if isinstance(action, Admin):
            word = action.action
        if isinstance(reply, Error):
            word += f" {reply.code}"
        self.found[word] += 1
        if isinstance(action, Convert) and not isinstance(reply, Error):
            held = engine.accounts[account]
            began = cash.get(account, held.limits.cash)
            assert held.cash == began - 7
        self._check_settlements(events, before)
        self.check_sums()

    def step(
        self, ts: int, account: str, action: Action
    ) -> list[tuple[str, Event]]:
        engine = self.engine
        ts = max(ts, engine.ts + 1)
        command = Command(engine.seq + 1, ts, account, "a", action)
        events = in_full(engine, command)
        engine.check()
        self.commands.append(command)
        for recipient, event in events:
            self.told.append(f"{recipient} {encode(event)}")
            if isinstance(event, Settlement):
                assert event.seq == self.seqs[recipient] + 1
            elif isinstance(event, (Exec, AccountReport)):
                self.seqs[recipient] += 1
                assert event.seq == self.seqs[recipient]
        return events

    def _check_settlements(
        self,
        events: list[tuple[str, Event]],
        before: dict[tuple[str, str], int],
    ) -> None:
        """Each holder of what settled is told, and nobody else."""
        settled: dict[str, int] = {}
        told: dict[tuple[str, str], int] = {}
        for recipient, event in events:
            if isinstance(event, Status) and event.message is not None:
                if event.message.startswith("settled at "):
                    assert event.symbol is not None
                    assert event.symbol not in settled
                    price = event.message.removeprefix("settled at ")
                    settled[event.symbol] = int(price.partition(":")[0])
                    self.found[event.message.partition(": ")[2]] += 1
            elif isinstance(event, Settlement):
                told[recipient, event.symbol] = event.position
                row = self.engine.listings[event.symbol].current_instrument()
                assert row.settlement_price == event.price
        assert told == {
            (name, symbol): qty
            for (name, symbol), qty in before.items()
            if symbol in settled and qty and name != HOUSE
        }
        for symbol, price in settled.items():
            listing = self.engine.listings[symbol]
            assert listing.settlement_price == price
            assert listing.phase == "closed" and not listing.book.orders

    def check_sums(self) -> None:
        """Compare what all have with what they began with."""
        engine = self.engine
        accounts = engine.accounts.values()
        started = sum(account.limits.cash for account in accounts)
        assert sum(account.cash for account in accounts) == started
        lots = Counter[str]()
        for account in accounts:
            for symbol, qty in account.positions.items():
                lots[symbol] += qty
            if account.name != HOUSE:
                report = engine.account_report(account)
                earned = report.realized + report.unrealized
                assert report.equity == account.limits.cash + earned
        assert not any(lots.values())


def interleaved(seed: int, steps: int) -> Witness:
    """Play a flow whose commands are applied amid long work, if they may."""
    found = Witness(slice_ops=2)
    engine = found.engine
    for ts, account, action in product_flow(random.Random(seed), steps):
        while engine.work and touches(engine, account, "a", action):
            found.step(engine.ts + 1, "", TimePassed())
        found.found["amid"] += bool(engine.work) and account != ""
        found.step(ts, account, action)
        if not engine.work:
            found.check_sums()
    return found


def witness(seed: int, steps: int, slice_ops: int = 500) -> Witness:
    found = Witness(slice_ops)
    for ts, account, action in product_flow(random.Random(seed), steps):
        found.apply(ts, account, action)
    return found


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.integers(2, 120), st.sampled_from((2, 500)))
def test_lots_and_cash_are_conserved(
    seed: int, steps: int, slice_ops: int
) -> None:
    witness(seed, steps, slice_ops)


@pytest.mark.parametrize("slice_ops", [3, 500])
def test_a_long_flow_leaves_nothing_out(slice_ops: int) -> None:
    found = witness(5, 4_000, slice_ops).found
    expected = """settle dividend close_out reset Place Convert expired why
        settle_invalid_price settle_market_closed settle_unknown_symbol
        settle_bad_request dividend_unknown_symbol close_out_bad_request
        Convert_no_conversion Convert_market_closed Convert_invalid_qty
        Convert_position_limit Convert_insufficient_funds Convert_forbidden
        Convert_duplicate_client_order_id"""
    words = [word.replace("_", " ") for word in expected.split()]
    known = {word.replace("_", " "): n for word, n in found.items()}
    missing = [word for word in words if not known.get(word)]
    assert not missing
    assert bool(found["slices"]) == (slice_ops == 3)


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.integers(2, 120))
def test_they_are_conserved_amid_long_work(seed: int, steps: int) -> None:
    interleaved(seed, steps)


def test_a_long_flow_amid_long_work() -> None:
    assert interleaved(5, 3_000).found["amid"] > 50


def test_a_journal_of_a_flow_replays_to_the_same_bytes() -> None:
    first = witness(7, 1_500, slice_ops=20)
    engine, told = Engine(), []
    engine.slice_ops = 20
    for command in first.commands:
        record = f"[{encode_record(command)}]".encode()
        (again,) = decode_records(command.seq, record)
        told += [f"{to} {encode(e)}" for to, e in in_full(engine, again)]
    assert told == first.told
