"""The commands on disk: append, commit, read back.

A journal is one SQLite file. Each batch of commands that were applied
together is one row and one transaction: first and last sequence number, the
records, and a digest that covers all rows before it, so that a flipped bit or
a missing row is noticed before its commands are applied. A record holds only
the command; applying the commands again gives every event again.

One process writes. It holds a lock on a file beside the journal, which it
takes before it opens the journal. Others may read at any time.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from exchange.files import lock, sync_folder
from exchange.journal.beginning import (
    PRUNED_FORMAT,
    beginning_of,
    place_at,
)
from exchange.journal.chain import BEGINNING, Chain
from exchange.journal.chain import JournalError as JournalError
from exchange.journal.chain import Place
from exchange.journal.reading import open_to_read
from exchange.journal.records import decode_records
from exchange.journal.storage import Batch
from exchange.market.command import RULES, Command

# The letters EXCH in SQLite's header, and the version of the layout below.
APPLICATION_ID = 0x45584348
FORMAT_VERSION = 2
# Format 1 has no checksums; it becomes format 2 when it is opened to write.
# A journal of which commands were pruned is of format 3.
FORMATS = range(1, PRUNED_FORMAT + 1)
# Size to which SQLite truncates the write-ahead log after a checkpoint.
WAL_BYTES = 64 << 20
# New orders are refused below the first amount of free space, and accepted
# again above the second. Cancels are always accepted, and canceling every
# order needs less than 64 MiB.
SPACE_LOW = 64 << 20
SPACE_ENOUGH = 128 << 20

_SCHEMA = """
    CREATE TABLE batches (
        first_seq INTEGER PRIMARY KEY,
        last_seq INTEGER NOT NULL,
        digest BLOB NOT NULL,
        records BLOB NOT NULL,
        checksum INTEGER
    ) STRICT
"""
T = TypeVar("T")

_ADD_CHECKSUM = "ALTER TABLE batches ADD COLUMN checksum INTEGER"

# The file -----------------------------------------------------------------


class Journal:
    """The journal of the one process that writes it.

    Raises JournalError, and does not change the file, if another process
    writes it, it is not a journal, or this program cannot read it. ``rules``
    are the versions of the rules that its commands may need.
    """

    def __init__(self, path: Path, rules: range = RULES) -> None:
        self.path = path
        self._rules = rules
        self._chain = Chain(path, rules)
        # Files that must not be replaced, with their identity; see `recover`.
        self.files: dict[Path, tuple[int, int]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(path.with_name(f"{path.name}.lock"))
        try:
            if path.exists() and path.stat().st_size:
                _identify(path)
            else:
                _create(path)
            # SQLite checkpoints a writable file when it closes it, so it is
            # opened to write only after all batches are verified.
            self.file = open_to_read(path)
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def last_seq(self) -> int:
        """The number of the last command that is committed."""
        return self._chain.seq

    def count(self) -> int:
        """Return the number of commands; nothing is verified."""
        return _count(self.path, self.file)

    @property
    def end(self) -> Place:
        """The place after the last batch that was verified or appended."""
        return Place(self._chain.seq, self._chain.digest)

    def place_at(self, seq: int) -> Place | None:
        """Return the place after a command; None if no batch ends with it."""
        return _asked(self.path, self.file, place_at, seq)

    def recover(self, after: Place = BEGINNING) -> Iterator[Batch]:
        """Yield the batches after a place, verified; then allow `append`.

        Raises JournalError at the first one that is not as it was written.
        """
        self._chain = Chain(self.path, self._rules, *after)
        yield from _read(self.path, self.file, self._chain)
        self.file.close()
        self.file = _open_to_write(self.path)
        _count(self.path, self.file)  # makes the -wal file
        self.files = {path: _identity(path) for path in self._paths()}

    def append(
        self, first_seq: int, records: Sequence[str], checksum: int | None
    ) -> int:
        """Commit one batch; return its last sequence number.

        ``checksum`` is that of the outputs up to its last command;
        None: not known.
        Blocks until the batch is on disk. After any sqlite3.Error the process
        must end: whether the batch is on disk is known only when the journal
        is read again.
        """
        assert first_seq == self._chain.seq + 1 and records
        last_seq = self._chain.seq + len(records)
        blob = f"[{','.join(records)}]".encode()
        self.store(first_seq, last_seq, blob, checksum)
        return last_seq

    def store(
        self, first_seq: int, last_seq: int, blob: bytes, checksum: int | None
    ) -> None:
        """Commit one batch, whose records are one text; as `append`."""
        chain = self._chain
        digest = chain.after(first_seq, last_seq, blob)
        self.file.execute(
            "INSERT INTO batches VALUES (?, ?, ?, ?, ?)",
            (first_seq, last_seq, digest, blob, checksum),
        )
        chain.add(last_seq, digest)

    def look(self) -> tuple[str, int]:
        """Return what is wrong with the files, and the bytes free on the disk.

        "" if nothing is wrong; 0 bytes if something is. A file that was
        deleted or replaced can still be written to, but its content is lost
        when this process ends.
        """
        try:
            for path, identity in self.files.items():
                if _identity(path) != identity:
                    return f"the journal's file {path.name} was replaced", 0
            return "", shutil.disk_usage(self.path.parent).free
        except FileNotFoundError as error:
            name = Path(error.filename).name
            return f"the journal's file {name} is gone", 0
        except OSError as error:
            return f"the journal's disk: {error.strerror}", 0

    def _paths(self) -> list[Path]:
        """Return the files to watch: data, write-ahead log, lock."""
        names = (
            f"{self.path.name}{suffix}" for suffix in ("", "-wal", ".lock")
        )
        return [self.path.with_name(name) for name in names]

    def close(self) -> None:
        """Release the file and the lock."""
        self.file.close()
        os.close(self._lock)


def open_journal(path: Path) -> sqlite3.Connection:
    """Open a journal to read; it may be written. Raises JournalError."""
    if not path.exists():
        raise JournalError(f"{path}: there is no such journal")
    _identify(path)
    return open_to_read(path)


def read_journal(path: Path, rules: range = RULES) -> Iterator[list[Command]]:
    """Yield the commands of every batch, as `read_batches` does."""
    for batch in read_batches(path, rules):
        yield batch.commands


def read_batches(
    path: Path, rules: range = RULES, after: Place = BEGINNING
) -> Iterator[Batch]:
    """Yield the batches after a place, verified; they may be written.

    Each batch is read in a transaction of its own, so the writer can
    checkpoint between two of them. Raises JournalError.
    """
    with closing(open_journal(path)) as file:
        yield from _read(path, file, Chain(path, rules, *after))


def place_in(path: Path, seq: int | None = None) -> Place | None:
    """Return the place after a command; None: where the journal begins.

    Returns None if no batch ends with the command. Raises JournalError.
    """
    with closing(open_journal(path)) as file:
        if seq is None:
            return _asked(path, file, beginning_of)
        return _asked(path, file, place_at, seq)


def commands_after(path: Path, seq: int) -> Iterator[Command]:
    """Yield the commands after ``seq``, of batches that were verified before.

    Raises JournalError if a batch cannot be read.
    """
    columns = "SELECT first_seq, last_seq, records FROM batches WHERE "
    with closing(open_to_read(path)) as file:
        _check_kept(path, file, seq)
        row = _fetch(
            path,
            file,
            columns + "first_seq <= ? ORDER BY first_seq DESC LIMIT 1",
            seq + 1,
        )
        while row is not None:
            first_seq, last_seq, records = row
            for command in decode_records(first_seq, records):
                if command.seq > seq:
                    yield command
            row = _fetch(
                path,
                file,
                columns + "first_seq > ? ORDER BY first_seq LIMIT 1",
                last_seq,
            )


def count_commands(path: Path) -> int:
    """Return the number of commands, unverified; raises JournalError."""
    with closing(open_journal(path)) as file:
        return _count(path, file)


def _lock(path: Path) -> int:
    """Take the lock and return its file; closing it releases the lock."""
    try:
        return lock(path, mode=0o644, is_waiting=False)
    except BlockingIOError:
        journal = path.with_suffix("")
        raise JournalError(
            f"{journal}: another exchange is writing this journal"
        ) from None


def _create(path: Path) -> None:
    """Make an empty journal. It gets its name when it is complete."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with closing(sqlite3.connect(new, isolation_level=None)) as file:
        for statement in (
            f"PRAGMA application_id = {APPLICATION_ID}",
            f"PRAGMA user_version = {FORMAT_VERSION}",
            _SCHEMA,
        ):
            _fetch(path, file, statement)
    new.rename(path)
    sync_folder(path.parent)  # so that the name survives a power failure


def _identity(path: Path) -> tuple[int, int]:
    """Return device and inode: they differ if the file was replaced."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _open_to_write(path: Path) -> sqlite3.Connection:
    # It is opened in one thread and written in another.
    file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            f"journal_size_limit = {WAL_BYTES}",
        ):
            _fetch(path, file, f"PRAGMA {pragma}")
        _upgrade(path, file)
    except JournalError:
        file.close()
        raise
    return file


def _upgrade(path: Path, file: sqlite3.Connection) -> None:
    """Give a journal of an older format what this format has."""
    if _has_checksums(path, file):
        return
    for statement in (
        "BEGIN IMMEDIATE",
        _ADD_CHECKSUM,
        f"PRAGMA user_version = {FORMAT_VERSION}",
        "COMMIT",
    ):
        _fetch(path, file, statement)


def _fetch(
    path: Path, file: sqlite3.Connection, sql: str, *values: object
) -> Any:
    """Return the first row; raises JournalError if it cannot be read."""
    try:
        return file.execute(sql, values).fetchone()
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise JournalError(f"{path}: {text}") from None


def _asked(
    path: Path, file: sqlite3.Connection, ask: Callable[..., T], *values: int
) -> T:
    """Return what a function finds; raises JournalError if it cannot."""
    try:
        return ask(file, *values)
    except sqlite3.Error as error:
        text = " ".join(str(error).split())
        raise JournalError(f"{path}: {text}") from None


def _count(path: Path, file: sqlite3.Connection) -> int:
    (last,) = _fetch(path, file, "SELECT max(last_seq) FROM batches")
    return last or _asked(path, file, beginning_of).seq


def _check_kept(path: Path, file: sqlite3.Connection, seq: int) -> None:
    """Raise JournalError unless the commands after ``seq`` are there."""
    pruned = _asked(path, file, beginning_of).seq
    if seq < pruned:
        raise JournalError(
            f"{path}: begins with command {pruned + 1}: the commands before it"
            " were pruned, and what came of them is only in its snapshots"
        )


def _identify(path: Path) -> None:
    """Raise JournalError unless a file is a journal of this format."""
    if not path.is_file():
        raise JournalError(f"{path}: not a file")
    if not os.access(path, os.R_OK):
        raise JournalError(f"{path}: this user may not read it")
    try:
        with closing(open_to_read(path)) as file:
            (application_id,) = _fetch(path, file, "PRAGMA application_id")
            (version,) = _fetch(path, file, "PRAGMA user_version")
    except sqlite3.DatabaseError as error:  # it cannot be opened
        raise JournalError(f"{path}: {error}") from None
    if application_id != APPLICATION_ID:
        raise JournalError(f"{path}: a database, but not a journal")
    if version not in FORMATS:
        raise JournalError(
            f"{path}: of format {version}; this program reads formats"
            f" {FORMATS[0]} to {FORMATS[-1]}"
        )


def _read(
    path: Path, file: sqlite3.Connection, chain: Chain
) -> Iterator[Batch]:
    """Yield each batch after the chain's end, in order, once verified."""
    _check_kept(path, file, chain.seq)
    # Digests cannot show that the last rows are missing. This check finds a
    # damaged page that hides them.
    (found,) = _fetch(path, file, "PRAGMA quick_check(1)")
    if found != "ok":
        raise JournalError(f"{path}: damaged: {' '.join(found.split())}")
    checksum = "checksum" if _has_checksums(path, file) else "NULL"
    while True:
        row = _fetch(
            path,
            file,
            f"SELECT first_seq, last_seq, digest, records, {checksum}"
            " FROM batches WHERE first_seq > ? ORDER BY first_seq LIMIT 1",
            chain.seq,
        )
        if row is None:
            return
        *stored, checksum_then = row
        yield Batch(chain.verify(*stored), checksum_then)


def _has_checksums(path: Path, file: sqlite3.Connection) -> bool:
    (found,) = _fetch(
        path,
        file,
        "SELECT count(*) FROM pragma_table_info('batches')"
        " WHERE name = 'checksum'",
    )
    return bool(found)
