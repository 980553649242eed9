"""The commands on disk: append, commit, read back.

A journal is one SQLite file. Each batch of commands that were applied
together is one row and one transaction: first and last sequence number, the
records, and a digest chained from row to row, so that a flipped bit or a
missing row is noticed before anything is built on it. A record holds what
the engine got and no more; replaying the records gives every event again.

One process writes. A lock on a file beside the journal says which, and is
taken before the journal is touched. Others may read at any time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from exchange.files import lock, sync_folder
from exchange.market.command import (
    ENGINE_VERSION,
    Action,
    ClockStep,
    Command,
    Configure,
    Connect,
    Disconnect,
    Restart,
    Shutdown,
    TimePassed,
)
from orderbook import MAX_INT, encode

# The letters EXCH in SQLite's header, and the version of the layout below.
APPLICATION_ID = 0x45584348
FORMAT_VERSION = 1
# The write-ahead log is cut back to this after a checkpoint.
WAL_BYTES = 64 << 20
# Below the first free space new orders are refused, above the second they
# are taken again: between them lies what canceling everything may need.
SPACE_LOW = 64 << 20
SPACE_ENOUGH = 128 << 20

_SCHEMA = """
    CREATE TABLE batches (
        first_seq INTEGER PRIMARY KEY,
        last_seq INTEGER NOT NULL,
        digest BLOB NOT NULL,
        records BLOB NOT NULL
    ) STRICT
"""
_NO_DIGEST = bytes(hashlib.sha256().digest_size)  # before the first row


class JournalError(Exception):
    """The journal cannot be used; it is as it was."""


# Records ------------------------------------------------------------------

_Ts = Annotated[int, Field(ge=1, le=MAX_INT)]
_Record = tuple[_Ts, str, str, Annotated[Action, Field(discriminator="type")]]
_RECORDS: TypeAdapter[list[_Record]] = TypeAdapter(
    list[_Record], config=ConfigDict(strict=True)
)


# Actions that are no requests.
OWN_ACTIONS = (
    ClockStep,
    Configure,
    Connect,
    Disconnect,
    Restart,
    Shutdown,
    TimePassed,
)


def encode_record(command: Command) -> str:
    """Return a command as JSON: ts, account, session, action.

    Its sequence number is its place in the journal.
    """
    action = command.action
    if isinstance(action, OWN_ACTIONS):
        text = to_json(action).decode()
    else:
        text = encode(action)
    # Account and session are names that need no escaping.
    return f'[{command.ts},"{command.account}","{command.session}",{text}]'


def decode_records(first_seq: int, records: bytes) -> list[Command]:
    """Return the commands of one batch; raises ValidationError."""
    return [
        Command(seq, *record)
        for seq, record in enumerate(
            _RECORDS.validate_json(records), start=first_seq
        )
    ]


# The file -----------------------------------------------------------------


class Journal:
    """The journal of the one process that writes it.

    Raises JournalError, with the file untouched, if another process has it,
    or it is no journal, or one that this program cannot read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last_seq = 0  # the last one committed
        self._files: dict[Path, tuple[int, int]] = {}  # while it is written
        self._digest = _NO_DIGEST
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(path.with_name(f"{path.name}.lock"))
        try:
            if path.exists() and path.stat().st_size:
                _identify(path)
            else:
                _create(path)
            # A file opened to write is tidied up when it is closed: not
            # before it is known to be good.
            self._file = _open_to_read(path)
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

    def count(self) -> int:
        """Return how many commands there seem to be, without verifying."""
        return _count(self.path, self._file)

    def recover(self) -> Iterator[list[Command]]:
        """Yield every batch, verified; after the last one, allow `append`.

        Raises JournalError at the first one that is not as it was written.
        """
        for commands, digest in _read(self.path, self._file):
            yield commands
            self.last_seq = commands[-1].seq
            self._digest = digest
        self._file.close()
        self._file = _open_to_write(self.path)
        _count(self.path, self._file)  # which makes the -wal file
        self._files = {path: _identity(path) for path in self._paths()}

    def append(self, first_seq: int, records: Sequence[str]) -> int:
        """Commit one batch; return its last sequence number.

        Blocks until it is on disk. Any sqlite3.Error means that the process
        must end: what is on disk then, a new one finds out.
        """
        assert first_seq == self.last_seq + 1 and records
        last_seq = self.last_seq + len(records)
        blob = f"[{','.join(records)}]".encode()
        digest = _chain(self._digest, first_seq, last_seq, blob)
        self._file.execute(
            "INSERT INTO batches VALUES (?, ?, ?, ?)",
            (first_seq, last_seq, digest, blob),
        )
        self.last_seq, self._digest = last_seq, digest
        return last_seq

    def look(self) -> tuple[str, int]:
        """Return what is wrong with its files, "" if nothing, and the space.

        The space left on the disk, in bytes, is 0 where something is wrong.
        A file that somebody has deleted, or put another one in the place of,
        can still be written, and is lost when this process ends.
        """
        try:
            for path, identity in self._files.items():
                if _identity(path) != identity:
                    return f"the journal's file {path.name} was replaced", 0
            return "", shutil.disk_usage(self.path.parent).free
        except FileNotFoundError as error:
            name = Path(error.filename).name
            return f"the journal's file {name} is gone", 0
        except OSError as error:
            return f"the journal's disk: {error.strerror}", 0

    def _paths(self) -> list[Path]:
        """Return the files that must stay: data, what is new, the lock."""
        names = (
            f"{self.path.name}{suffix}" for suffix in ("", "-wal", ".lock")
        )
        return [self.path.with_name(name) for name in names]

    def close(self) -> None:
        """Release the file and the lock."""
        self._file.close()
        os.close(self._lock)


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """Lend a path that the functions below can read a journal from.

    It is the given one, or that of a temporary copy: SQLite does not read a
    -wal that has no -shm beside it where it cannot make one, such as on a
    read-only disk. A JournalError inside speaks of the given path. Raises
    OSError if there is no room for a copy.
    """
    if not (_is_sealed(path) and _has_wal(path)):
        yield path
        return
    with TemporaryDirectory(prefix="exchange-") as folder:
        copy = Path(folder, path.name)
        shutil.copyfile(path, copy)
        shutil.copyfile(_beside(path, "-wal"), _beside(copy, "-wal"))
        try:
            yield copy
        except JournalError as error:
            reason = str(error).replace(str(copy), str(path))
            raise JournalError(reason) from None


def open_journal(path: Path) -> sqlite3.Connection:
    """Open a journal to read, beside its writer. Raises JournalError."""
    if not path.exists():
        raise JournalError(f"{path}: there is no such journal")
    _identify(path)
    return _open_to_read(path)


def read_journal(path: Path) -> Iterator[list[Command]]:
    """Yield every batch of a journal, verified, beside its writer.

    Each is read in a transaction of its own, so the writer is never kept
    from tidying up. Raises JournalError.
    """
    with closing(open_journal(path)) as file:
        for commands, _ in _read(path, file):
            yield commands


def count_commands(path: Path) -> int:
    """Return how many commands there seem to be; raises JournalError."""
    with closing(open_journal(path)) as file:
        return _count(path, file)


def _lock(path: Path) -> int:
    """Take the lock, for as long as the process lives; return its file."""
    try:
        return lock(path, mode=0o644, is_waiting=False)
    except BlockingIOError:
        journal = path.with_suffix("")
        raise JournalError(
            f"{journal}: another exchange is writing this journal"
        ) from None


def _create(path: Path) -> None:
    """Make an empty journal, which is there as a whole or not at all."""
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
    sync_folder(path.parent)  # or a power failure may take the name away


def _identity(path: Path) -> tuple[int, int]:
    """Return what tells a file from another one at its place."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _open_to_read(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    if _is_sealed(path) and not _has_wal(path):
        uri += "&immutable=1"  # nobody writes it, and no file is made for it
    return sqlite3.connect(uri, uri=True, isolation_level=None)


def _is_sealed(path: Path) -> bool:
    """Return whether SQLite cannot make the files that it wants beside it.

    Nobody is writing the journal then: a writer has both of them open.
    """
    wanted = (_beside(path, "-wal"), _beside(path, "-shm"))
    return not all(file.exists() for file in wanted) and not os.access(
        wanted[0].parent, os.W_OK
    )


def _has_wal(path: Path) -> bool:
    """Return whether there are commands that are only in the -wal."""
    wal = _beside(path, "-wal")
    return wal.exists() and wal.stat().st_size > 0


def _beside(path: Path, suffix: str) -> Path:
    path = Path(os.path.realpath(path))  # SQLite follows links
    return path.with_name(path.name + suffix)


def _open_to_write(path: Path) -> sqlite3.Connection:
    # The thread that commits is not the one that opens.
    file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            f"journal_size_limit = {WAL_BYTES}",
        ):
            _fetch(path, file, f"PRAGMA {pragma}")
    except JournalError:
        file.close()
        raise
    return file


def _fetch(
    path: Path, file: sqlite3.Connection, sql: str, *values: object
) -> Any:
    """Return the first row; raises JournalError where that cannot be read."""
    try:
        return file.execute(sql, values).fetchone()
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise JournalError(f"{path}: {text}") from None


def _count(path: Path, file: sqlite3.Connection) -> int:
    (last,) = _fetch(path, file, "SELECT max(last_seq) FROM batches")
    return last or 0


def _identify(path: Path) -> None:
    """Raise JournalError unless a file is a journal of this format."""
    try:
        with closing(_open_to_read(path)) as file:
            (application_id,) = _fetch(path, file, "PRAGMA application_id")
            (version,) = _fetch(path, file, "PRAGMA user_version")
    except sqlite3.DatabaseError as error:  # it cannot be opened
        raise JournalError(f"{path}: {error}") from None
    if application_id != APPLICATION_ID:
        raise JournalError(f"{path}: a database, but no journal")
    if version != FORMAT_VERSION:
        raise JournalError(
            f"{path}: of format {version}; this program reads format"
            f" {FORMAT_VERSION}"
        )


def _read(
    path: Path, file: sqlite3.Connection
) -> Iterator[tuple[list[Command], bytes]]:
    """Yield each batch and its digest, in order, if all is as written."""
    # The chain cannot tell that its end is missing; a damaged page that
    # hides it is noticed here.
    (found,) = _fetch(path, file, "PRAGMA quick_check(1)")
    if found != "ok":
        raise JournalError(f"{path}: damaged: {' '.join(found.split())}")
    seq, digest = 0, _NO_DIGEST
    while True:
        row = _fetch(
            path,
            file,
            "SELECT first_seq, last_seq, digest, records FROM batches"
            " WHERE first_seq > ? ORDER BY first_seq LIMIT 1",
            seq,
        )
        if row is None:
            return
        first_seq, last_seq, stored, records = row
        digest = _chain(digest, first_seq, last_seq, records)
        if first_seq != seq + 1 or digest != stored:
            raise JournalError(
                f"{path}: after command {seq}: a batch is missing or damaged"
            )
        try:
            commands = decode_records(first_seq, records)
        except ValidationError:
            raise JournalError(
                f"{path}: after command {seq}: a record that this program"
                " does not know"
            ) from None
        if not seq:
            _check_version(path, commands[0])
        seq = last_seq
        yield commands, digest


def _check_version(path: Path, first: Command) -> None:
    action = first.action
    if not isinstance(action, Configure):
        raise JournalError(f"{path}: the first command is no configuration")
    if action.engine_version != ENGINE_VERSION:
        raise JournalError(
            f"{path}: written by version {action.engine_version} of the"
            " engine, and only that can read it; this is version"
            f" {ENGINE_VERSION}"
        )


def _chain(
    before: bytes, first_seq: int, last_seq: int, records: bytes
) -> bytes:
    """Return the digest of a batch, which covers all batches before it."""
    head = f"{first_seq} {last_seq} ".encode()
    return hashlib.sha256(before + head + records).digest()
