"""Journals that tests write, read, alter and recover."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exchange.journal.records import encode_record
from exchange.journal.sqlite import Journal, JournalError, read_journal
from exchange.market.command import Command
from test.market.flows import flow

ROOT = Path(__file__).parents[2]


def append(
    journal: Journal, commands: Sequence[Command], per_batch: int = 7
) -> None:
    for i in range(0, len(commands), per_batch):
        batch = commands[i : i + per_batch]
        journal.append(batch[0].seq, [encode_record(c) for c in batch], None)


def write(path: Path, commands: Sequence[Command], per_batch: int = 7) -> Path:
    """Write a journal of these commands."""
    with Journal(path) as journal:
        list(journal.recover())
        append(journal, commands, per_batch)
    return path


def read(path: Path) -> list[Command]:
    return [command for batch in read_journal(path) for command in batch]


def recover(path: Path) -> list[Command]:
    """Open a journal as a server does; return its commands."""
    with Journal(path) as journal:
        assert journal.count() >= 0
        commands = [c for batch in journal.recover() for c in batch.commands]
        assert journal.last_seq == len(commands)
    return commands


def refused(path: Path) -> str:
    """Return why a journal is refused, to its owner and to a reader.

    Each time it must be named, and left as it is.
    """
    before = path.read_bytes()
    reasons = set()
    for use in (recover, read):
        with pytest.raises(JournalError) as caught:
            use(path)
        assert path.read_bytes() == before
        file, _, reason = str(caught.value).partition(": ")
        assert file == str(path) and "\n" not in reason
        reasons.add(reason)
    (reason,) = reasons
    return reason


def alter(path: Path, sql: str, *values: Any) -> None:
    """Change a journal with SQL."""
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute(sql, values)


def forget_readers(path: Path) -> None:
    """Remove the files of SQLite beside a closed journal."""
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


COMMANDS = list(flow(random.Random(5), 400))
