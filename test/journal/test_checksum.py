"""The checksum of what commands came to: one difference is found."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exchange.gateway.gateway import Gateway
from exchange.host.clock import Clock
from exchange.host.recovery import recover
from exchange.journal.checksum import EVERY, Checksum, DivergedError
from exchange.journal.records import encode_record
from exchange.journal.sqlite import Journal, JournalError, read_batches
from exchange.journal.storage import Batch
from exchange.market.command import Command
from exchange.market.engine import Engine
from orderbook import Error, Status
from test.journal.files import ROOT, alter, read
from test.journal.golden import GOLDEN

COMMANDS = read(GOLDEN)
PER_BATCH = 40


def write(path: Path, commands: list[Command]) -> Path:
    """Write a journal as an exchange does that applies these commands."""
    engine, checksum = Engine(), Checksum()
    with Journal(path) as journal:
        list(journal.recover())
        for start in range(0, len(commands), PER_BATCH):
            batch = commands[start : start + PER_BATCH]
            for command in batch:
                checksum.add(command.seq, engine.apply(command))
            journal.append(
                start + 1, [encode_record(c) for c in batch], checksum.value
            )
    return path


def start(path: Path) -> Gateway:
    """Recover a journal as a server does."""
    clock = Clock()
    gateway = Gateway(clock.now, durable=True)
    recover(path, gateway, clock, Journal).journal.close()
    return gateway


def verified(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "util.replay", path, "--verify"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_a_journal_that_comes_out_the_same_is_good(tmp_path: Path) -> None:
    path = write(tmp_path / "exchange.db", COMMANDS)
    assert start(path).engine.seq == len(COMMANDS)
    assert "good" in verified(path).stdout


def test_a_start_stops_where_commands_come_out_differently(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "exchange.db", COMMANDS)
    alter(
        path,
        "UPDATE batches SET checksum = checksum + 1 WHERE first_seq = ?",
        2 * PER_BATCH + 1,
    )
    expected = f"commands {2 * PER_BATCH + 1} to {3 * PER_BATCH} came out"
    with pytest.raises(JournalError, match=f"^{path}: {expected} diff"):
        start(path)
    result = verified(path)
    assert result.returncode == 1 and expected in result.stderr


def test_another_result_is_found_and_stays_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One output of one command is another, as after a fault of memory."""
    path = write(tmp_path / "exchange.db", COMMANDS)
    at = next(
        c.seq
        for c in COMMANDS[10 * EVERY - 1 :: EVERY]
        if c.action.type == "place"
    )
    apply = Engine.apply

    def faulty(engine: Engine, command: Command) -> list[Any]:
        outputs = apply(engine, command)
        if command.seq == at:
            to, event = outputs[0]
            outputs[0] = to, replace(event, ts=event.ts + 1)
        return outputs

    monkeypatch.setattr(Engine, "apply", faulty)
    first = (at - 1) // PER_BATCH * PER_BATCH + 1
    with pytest.raises(JournalError, match=f"commands {first} to "):
        start(path)
    checksum, engine = Checksum(), Engine()
    for batch in read_batches(path):
        for command in batch.commands:
            checksum.add(command.seq, engine.apply(command))
        if batch.commands[0].seq >= first:
            with pytest.raises(DivergedError):
                checksum.compare(batch)
        else:
            checksum.compare(batch)


def test_texts_for_people_do_not_count() -> None:
    def value(engine: Engine, message: str | None) -> int:
        checksum = Checksum()
        for command in COMMANDS:
            outputs = [
                (
                    (to, replace(event, message=message))
                    if isinstance(event, Error | Status)
                    and message is not None
                    else (to, event)
                )
                for to, event in engine.apply(command)
            ]
            checksum.add(command.seq, outputs)
        return checksum.value

    assert value(Engine(), None) == value(Engine(), "another text") != 0


def test_an_older_journal_gets_checksums_from_its_next_batch_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "exchange.db"
    path.write_bytes(GOLDEN.read_bytes())  # of format 1
    assert all(batch.checksum is None for batch in read_batches(path))
    clock = Clock()
    gateway = Gateway(clock.now, durable=True)
    journal = recover(path, gateway, clock, Journal).journal
    market = gateway.engine.configured
    assert market is not None
    gateway.begin(market)
    batch = gateway.sequencer.take()
    journal.append(
        batch.commands[0].seq,
        [encode_record(command) for command in batch.commands],
        batch.checksum,
    )
    journal.close()
    *before, last = read_batches(path)
    assert before and all(b.checksum is None for b in before)
    assert last == batch and last.checksum not in (None, 0)
    assert start(path).engine.seq == last.commands[-1].seq


def test_a_batch_without_a_checksum_is_compared_with_nothing() -> None:
    checksum = Checksum()
    checksum.value = 7
    checksum.compare(Batch(COMMANDS[:3], None))
    with pytest.raises(DivergedError, match="^commands 1 to 3 came out"):
        checksum.compare(Batch(COMMANDS[:3], 8))
