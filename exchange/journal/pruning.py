"""Drops the batches of a journal that snapshots cover."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from exchange.journal.beginning import PRUNED_FORMAT, PRUNED_SCHEMA
from exchange.journal.chain import JournalError, Place
from exchange.journal.sqlite import Journal


def prune(path: Path, place: Place) -> None:
    """Drop the batches before a place, and give their space back.

    All batches after it are verified first. One transaction drops the others:
    whoever is killed leaves the file with all of them or with none. The space
    is given back afterwards, which needs as much again as is left. Raises
    JournalError: also if another process writes the journal.
    """
    with Journal(path) as journal:
        if journal.place_at(place.seq) != place:
            raise JournalError(f"{path}: has no batch up to {place.seq}")
        for _ in journal.recover(place):
            pass
        try:
            _drop(journal.file, place)
            journal.file.execute("VACUUM")
            journal.file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise JournalError(f"{path}: {error}") from None


def _drop(file: sqlite3.Connection, place: Place) -> None:
    file.execute("BEGIN IMMEDIATE")
    file.execute("DROP TABLE IF EXISTS pruned")
    file.execute(PRUNED_SCHEMA)
    file.execute("INSERT INTO pruned VALUES (?, ?)", place)
    file.execute("DELETE FROM batches WHERE last_seq <= ?", (place.seq,))
    file.execute(f"PRAGMA user_version = {PRUNED_FORMAT}")
    file.execute("COMMIT")
