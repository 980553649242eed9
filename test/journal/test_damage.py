"""Damage to the file is noticed, bit by bit."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exchange.journal.sqlite import JournalError
from exchange.market.command import Command, TimePassed
from test.journal.files import (
    COMMANDS,
    alter,
    forget_readers,
    read,
    recover,
    refused,
    write,
)


def flipped(value: Any, bit: int) -> Any:
    """Return a value of a column with one of its bits the other way."""
    if isinstance(value, int):
        return value ^ 1 << bit % 53
    damaged = bytearray(value)
    damaged[bit // 8 % len(damaged)] ^= 1 << bit % 8
    return bytes(damaged)


@pytest.mark.parametrize(
    "column", ["first_seq", "last_seq", "digest", "records"]
)
def test_no_bit_of_a_row_can_change(tmp_path: Path, column: str) -> None:
    path = write(tmp_path / "exchange.db", COMMANDS[:35])
    rng = random.Random(column)
    good = path.read_bytes()
    for _ in range(60):
        with closing(sqlite3.connect(path, isolation_level=None)) as file:
            rows = file.execute(
                f"SELECT first_seq, {column} FROM batches"
            ).fetchall()
            first_seq, value = rng.choice(rows)
            file.execute(
                f"UPDATE OR REPLACE batches SET {column} = ?"
                " WHERE first_seq = ?",
                (flipped(value, rng.randrange(10_000)), first_seq),
            )
        with pytest.raises(JournalError):
            recover(path)
        forget_readers(path)
        path.write_bytes(good)
    assert recover(path) == COMMANDS[:35]


@pytest.mark.parametrize("first_seq", [1, 8, 22])
def test_a_row_that_is_missing_is_noticed(
    tmp_path: Path, first_seq: int
) -> None:
    path = write(tmp_path / "exchange.db", COMMANDS[:35])
    alter(path, "DELETE FROM batches WHERE first_seq = ?", first_seq)
    expected = f"after command {first_seq - 1}: a batch is missing or damaged"
    assert refused(path) == expected


def test_a_row_of_another_journal_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "exchange.db", COMMANDS[:35])
    others = [*COMMANDS[:3], Command(4, 10**9, "", "", TimePassed())]
    other = write(tmp_path / "other.db", [*others, *COMMANDS[4:35]])
    with closing(sqlite3.connect(other)) as file:
        row = file.execute("SELECT * FROM batches LIMIT 1 OFFSET 2").fetchone()
    alter(path, "REPLACE INTO batches VALUES (?, ?, ?, ?, ?)", *row)
    assert refused(path) == "after command 14: a batch is missing or damaged"


def test_a_bit_that_flips_anywhere_in_the_file_is_noticed_or_harmless(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "exchange.db", COMMANDS[:70])
    good = path.read_bytes()
    rng = random.Random(2)
    is_noticed = 0
    # The headers of the pages, and places anywhere.
    heads = [at + i for at in range(0, len(good), 4096) for i in range(32)]
    places = heads + rng.sample(range(len(good)), 1_000)
    for place in places:
        damaged = bytearray(good)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert read(path) == COMMANDS[:70]
        except JournalError as error:
            assert str(error).startswith(f"{path}: ")
            is_noticed += 1
        forget_readers(path)
    assert is_noticed > len(places) / 3
