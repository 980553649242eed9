"""Files on different systems: locks, owners, byte order marks.

POSIX has owners, modes and folders that can be synced. Windows has none of
these, and locks files in another way.
"""

from __future__ import annotations

import errno
import io
import os
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from importlib import import_module
from pathlib import Path
from typing import Any

# Whether a file has an owner and a mode that limit its readers.
HAS_OWNERS = hasattr(os, "geteuid")

try:
    import fcntl

    def _take(file: int, is_waiting: bool) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if is_waiting else fcntl.LOCK_NB))

except ImportError:  # Windows
    msvcrt: Any = import_module("msvcrt")

    def _take(file: int, is_waiting: bool) -> None:
        while True:
            try:
                # One byte stands for the file. LK_LOCK gives up after 10 s.
                kind = msvcrt.LK_LOCK if is_waiting else msvcrt.LK_NBLCK
                msvcrt.locking(file, kind, 1)
                return
            except OSError as error:
                if is_waiting and error.errno == errno.EDEADLK:
                    continue
                raise BlockingIOError(error.errno, error.strerror) from None


def lock(path: Path, *, mode: int, is_waiting: bool) -> int:
    """Take the lock of a file; return its descriptor, which holds the lock.

    A missing file is made with this mode. Raises BlockingIOError if another
    process has the lock and ``is_waiting`` is not set, and other OSErrors.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, mode)
    try:
        _take(file, is_waiting)
    except BaseException:
        os.close(file)
        raise
    return file


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on disk; on Windows do nothing."""
    if not HAS_OWNERS:
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def text_of(content: bytes) -> str:
    """Decode a file that a person may have edited; lines end with ``\\n``.

    Accepts UTF-8 with or without a byte order mark, and UTF-16 with one, which
    PowerShell's ``>`` writes. Raises UnicodeDecodeError.
    """
    is_wide = content.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
    encoding = "utf-16" if is_wide else "utf-8-sig"
    return io.TextIOWrapper(io.BytesIO(content), encoding).read()
