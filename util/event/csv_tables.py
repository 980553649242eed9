"""Many CSV files that are written together and replaced together.

RFC 4180, UTF-8, lines ended by CR LF. Rows wait in memory until they are many;
no file stays open, so there may be thousands.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from exchange.files import sync_folder

WAITING_MAX = 8 << 20  # characters of all rows that wait


class CsvTables:
    """Files that take their places when `commit` is called."""

    def __init__(self) -> None:
        self._waiting: dict[Path, io.StringIO] = {}
        self._size = 0
        self._paths: dict[Path, Path] = {}  # the new file of each

    def begin(self, path: Path, columns: Sequence[str]) -> None:
        """Begin a file with its header; folders are made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_bytes(b"")
        self._paths[path] = new
        self._waiting[path] = io.StringIO(newline="")
        self.add(path, columns)

    def add(self, path: Path, cells: Iterable[Any]) -> None:
        """Add a row to a file that was begun; None is an empty cell."""
        waiting = self._waiting[path]
        self._size += csv.writer(waiting).writerow(cells)
        if self._size > WAITING_MAX:
            self._write()

    def text(self, path: Path, text: str) -> None:
        """Add a file of any text, to be replaced with the others."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_bytes(text.encode())
        self._paths[path] = new

    def last_row(self, path: Path) -> dict[str, str]:
        """Return the last row of a file, as it is on disk."""
        self._write()
        with open(self._paths[path], encoding="utf-8", newline="") as file:
            row: Mapping[str, str] = {}
            for row in csv.DictReader(file):
                pass
        return dict(row)

    def commit(self) -> None:
        """Put all files in their places; raises OSError."""
        self._write()
        for path, new in self._paths.items():
            with open(new, "rb") as file:
                os.fsync(file.fileno())
            os.replace(new, path)
        for folder in dict.fromkeys(path.parent for path in self._paths):
            sync_folder(folder)
        self._paths.clear()

    def drop(self) -> None:
        """Remove the new files that have not taken their places."""
        for new in self._paths.values():
            new.unlink(missing_ok=True)
        self._paths.clear()
        self._waiting.clear()

    def _write(self) -> None:
        """Write the rows that wait."""
        for path, waiting in self._waiting.items():
            text = waiting.getvalue()
            if text:
                with open(self._paths[path], "ab") as file:
                    file.write(text.encode())
                self._waiting[path] = io.StringIO(newline="")
        self._size = 0
