"""What several tests of the journal need."""

from __future__ import annotations

from pathlib import Path

import pytest

import server as server_module
from test.journal.disks import Disk, slowed


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = slowed(monkeypatch)
    monkeypatch.setattr(server_module, "SHUTDOWN_S", 0.01)
    return disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "exchange.db"
