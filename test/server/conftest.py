"""An exchange, and connections to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from server import Server
from test.support import Wire, serving, wired


@pytest.fixture
async def exchange() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


@pytest.fixture
async def alice(exchange: Server) -> AsyncIterator[Wire]:
    async with wired(exchange.url, "alice") as wire:
        yield wire


@pytest.fixture
async def bob(exchange: Server) -> AsyncIterator[Wire]:
    async with wired(exchange.url, "bob") as wire:
        yield wire


@pytest.fixture
async def watcher(exchange: Server) -> AsyncIterator[Wire]:
    """A connection that has not logged in."""
    async with wired(exchange.url) as wire:
        yield wire
