"""Where a journal begins: with its first command, or after those pruned.

A pruned file has one more table with one row, and another format version, so
that an older program refuses it. The row has the last command that was pruned
and the digest of the chain up to it.
"""

from __future__ import annotations

import sqlite3

from exchange.journal.chain import BEGINNING, Place

PRUNED_FORMAT = 3  # of a file with the table below
PRUNED_SCHEMA = """
    CREATE TABLE pruned (seq INTEGER PRIMARY KEY, digest BLOB NOT NULL) STRICT
"""


def beginning_of(file: sqlite3.Connection) -> Place:
    """Return the place before the first batch of a journal's file.

    Raises sqlite3.Error, also if the row is missing.
    """
    (version,) = file.execute("PRAGMA user_version").fetchone()
    if version != PRUNED_FORMAT:
        return BEGINNING
    row = file.execute("SELECT seq, digest FROM pruned").fetchone()
    if row is None:
        raise sqlite3.DatabaseError("it does not say what was pruned")
    return Place(*row)


def place_at(file: sqlite3.Connection, seq: int) -> Place | None:
    """Return the place after a command; None if no batch ends with it.

    Raises sqlite3.Error.
    """
    beginning = beginning_of(file)
    if seq <= beginning.seq:
        return beginning if seq == beginning.seq else None
    row = file.execute(
        "SELECT last_seq, digest FROM batches WHERE first_seq <= ?"
        " ORDER BY first_seq DESC LIMIT 1",
        (seq,),
    ).fetchone()
    return Place(*row) if row is not None and row[0] == seq else None
