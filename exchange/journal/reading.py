"""Journals to read: also on a disk where nothing can be written."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from exchange.journal.chain import JournalError


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """Yield a path from which a journal can be read.

    It is the given path, or that of a temporary copy: SQLite cannot read a
    -wal file without a -shm file, nor make one on a read-only disk. A
    JournalError inside names the given path. Raises OSError if there is no
    space for a copy.
    """
    if not (_is_read_only(path) and _has_wal(path)):
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


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open a journal's file to read it; it may be written meanwhile."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    if _is_read_only(path) and not _has_wal(path):
        uri += "&immutable=1"  # nobody writes it; SQLite makes no files
    return sqlite3.connect(uri, uri=True, isolation_level=None)


def _is_read_only(path: Path) -> bool:
    """Return whether SQLite cannot make the -wal and -shm files that it needs.

    Then nobody is writing the journal: a writer has both of them open.
    """
    wanted = (_beside(path, "-wal"), _beside(path, "-shm"))
    return not all(file.exists() for file in wanted) and not os.access(
        wanted[0].parent, os.W_OK
    )


def _has_wal(path: Path) -> bool:
    """Return whether some commands are only in the -wal file."""
    wal = _beside(path, "-wal")
    return wal.exists() and wal.stat().st_size > 0


def _beside(path: Path, suffix: str) -> Path:
    path = Path(os.path.realpath(path))  # SQLite follows links
    return path.with_name(path.name + suffix)
