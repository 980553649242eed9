"""Connections that tests of the gateway open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.frames import TEXT, Frame

from server import Server
from test.doors.connection.desk import HANDSHAKE
from test.support import Wire, wired

Message = dict[str, Any]
PING = {"type": "ping"}


def framed(text: bytes, fin: bool = True) -> bytes:
    """A client's frame."""
    return Frame(TEXT, text, fin).serialize(mask=True)


@contextlib.asynccontextmanager
async def crowd(server: Server, *users: str) -> AsyncIterator[list[Wire]]:
    """Open a connection for each user, logged in."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(wired(server.url, user))
            for user in users
        ]


async def comes_in(server: Server, host: str) -> bool:
    """Return whether a client at an address gets a handshake."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.port, local_addr=(host, 0)
    )
    try:
        writer.write(HANDSHAKE)
        return bool(await reader.read(1))
    except ConnectionError:
        return False
    finally:
        writer.transport.abort()


async def is_dropped(server: Server, host: str = "") -> bool:
    """Return whether one more connection is refused at once."""
    try:
        async with wired(server.url, host=host) as wire:
            await wire.ask(type="ping")
    except (OSError, EOFError, WebSocketException):
        return True
    return False
