"""An exchange in a process of its own, for libraries that block."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from test.doors.spot.bots import MARKET
from util.measure.process import launched


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """Return the address of an exchange that speaks the dialect."""
    market = tmp_path / "market.toml"
    market.write_text(MARKET)
    with launched(market=str(market), dialect="spot") as server:
        yield f"127.0.0.1:{server.url.rpartition(':')[2]}"
