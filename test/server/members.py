"""Members of one stream, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import signal
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

from exchange.host.clock import Clock
from exchange.host.settings import Settings
from exchange.journal.address import Address
from server import Server
from test.support import NO_KEYS
from util.measure.nats_servers import NatsServers
from util.measure.wire import PATIENCE_S

T = Decimal(2)  # a busy machine pauses for less


@contextlib.asynccontextmanager
async def joining(
    address: Address, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[Server]:
    """Start a member, which may stand by, and end it in order."""
    here = {"hostname": "127.0.0.1", "port": 0, "debug": False, "lease": T}
    server = Server(
        Settings(journal=address, keys=NO_KEYS, **{**here, **settings}),
        clock,
    )
    await server.start()
    try:
        yield server
    finally:
        async with asyncio.timeout(PATIENCE_S):
            await server.stop()


async def leading(server: Server) -> None:
    """Wait until a member leads and may tell."""
    await until_slowly(lambda: not server.member.hindrance)


async def until_slowly(condition: Any) -> None:
    """Leave the loop to others while waiting for the stream."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def get(server: Server, path: str) -> tuple[int, str]:
    """Return status and text of a page."""

    def ask() -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("GET", path)
        response = connection.getresponse()
        with contextlib.closing(connection):
            return response.status, response.read().decode()

    return await asyncio.to_thread(ask)


@contextlib.contextmanager
def standing_still(servers: NatsServers) -> Iterator[None]:
    """Stop the servers of NATS meanwhile: none of them answers."""
    for one in servers.all:
        one.send(signal.SIGSTOP)
    try:
        yield
    finally:
        for one in servers.all:
            one.send(signal.SIGCONT)
