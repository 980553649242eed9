"""One exchange for each test, and bots at it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from server import Server
from test.doors.spot.bots import Rest, exchange


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with exchange(tmp_path) as server:
        yield server


@pytest.fixture
def bot(server: Server) -> Iterator[Callable[..., Rest]]:
    made: list[Rest] = []

    def make(user: str = "ann") -> Rest:
        made.append(Rest(server.port, user))
        return made[-1]

    yield make
    for one in made:
        one.close()
