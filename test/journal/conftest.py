"""What several tests of the journal need."""

from __future__ import annotations

from pathlib import Path

import pytest

import server as server_module
from exchange.journal.sqlite import Journal
from test.journal.disks import Disk


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    append = Journal.append

    def slow(journal: Journal, first_seq: int, records: list[str]) -> int:
        disk.before(journal)
        return append(journal, first_seq, records)

    monkeypatch.setattr(Journal, "append", slow)
    monkeypatch.setattr(server_module, "SHUTDOWN_S", 0.01)
    return disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "exchange.db"
