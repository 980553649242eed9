"""Files that are replaced as a whole: readers find the old or the new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from exchange.files import sync_folder

PRIVATE = 0o600
PUBLIC = 0o644


@contextmanager
def replacing(path: Path, mode: int = PUBLIC) -> Iterator[TextIO]:
    """Yield a text file that takes the place of ``path`` at the end.

    An exception inside leaves the file as it was. Line ends are written as
    given. Folders are made. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)  # left by a killed process
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        with open(
            os.open(new, flags, mode), "w", encoding="utf-8", newline=""
        ) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text(path: Path, text: str, mode: int = PUBLIC) -> None:
    """Replace a file by a text; raises OSError."""
    with replacing(path, mode) as file:
        file.write(text)
