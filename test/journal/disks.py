"""A disk that is slow, full or broken, and exchanges with a journal on it."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exchange.host.settings import Settings
from exchange.journal.sqlite import Journal, read_journal
from exchange.market.command import Command
from server import Server
from test.support import PATIENCE_S

Message = dict[str, Any]
STAY = {"cancel_on_disconnect": False}


class Disk:
    """The disk between the server and the journal's file.

    ``commits`` counts what was begun; ``fails_at`` is the number of the one
    that fails.
    """

    def __init__(self) -> None:
        self.commits = 0
        self.fails_at = 0
        self.is_full = False  # fail as a full disk does
        self._released = threading.Event()
        self._released.set()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold every commit in this block."""
        self._released.clear()
        try:
            yield
        finally:
            self._released.set()

    def before(self, journal: Journal) -> None:
        """Delay or fail the next commit, in its thread."""
        self.commits += 1
        assert self._released.wait(PATIENCE_S)
        if self.commits == self.fails_at:
            if not self.is_full:
                raise sqlite3.OperationalError("disk I/O error")
            # The file may not grow: it has room for a few commits, or none.
            file = journal.file
            (pages,) = file.execute("PRAGMA page_count").fetchone()
            file.execute(f"PRAGMA max_page_count = {pages}")


def slowed(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Put a disk between all servers and their journals; return it."""
    disk = Disk()
    append = Journal.append

    def slow(journal: Journal, *arguments: Any) -> int:
        disk.before(journal)
        return append(journal, *arguments)

    monkeypatch.setattr(Journal, "append", slow)
    return disk


def make_server(path: Path, **settings: Any) -> Server:
    """Return a server that may fail."""
    settings |= {"hostname": "127.0.0.1", "port": 0, "debug": False}
    return Server(Settings(journal=path, **settings))


def commands(path: Path) -> list[Command]:
    """Return the commands of a journal."""
    return [command for batch in read_journal(path) for command in batch]
