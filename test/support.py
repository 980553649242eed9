"""A real exchange for a test, and a bare connection to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from exchange.settings import Settings
from server import Server

# For what must happen; long enough never to decide whether it does.
PATIENCE_S = 20.0


@contextlib.asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Server]:
    """Run a server on a free port of the loopback, and end it in order.

    ``server.url`` is where it listens. Nothing may have failed inside.
    """
    settings = {"hostname": "127.0.0.1", "port": 0, "debug": False, **settings}
    server = Server(Settings(**settings))
    await server.start()
    try:
        yield server
    finally:
        async with asyncio.timeout(PATIENCE_S):
            await server.stop()
    assert not server.failure.done(), server.failure
    assert server.connection_errors == 0


class Wire:
    """A bare connection that speaks JSON."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.inbox: list[dict[str, Any]] = []

    async def send(self, *requests: dict[str, Any]) -> None:
        """Send requests, several in one frame."""
        frame = requests[0] if len(requests) == 1 else requests
        await self.connection.send(json.dumps(frame))

    async def receive(self) -> dict[str, Any]:
        """Return the next message."""
        while not self.inbox:
            async with asyncio.timeout(PATIENCE_S):
                frame = json.loads(await self.connection.recv())
            self.inbox += frame if isinstance(frame, list) else [frame]
        return self.inbox.pop(0)

    async def until(self, **fields: Any) -> dict[str, Any]:
        """Return the next message with these fields, dropping others."""
        while True:
            message = await self.receive()
            if all(message.get(key) == fields[key] for key in fields):
                return message

    async def ask(self, **request: Any) -> list[dict[str, Any]]:
        """Send a request; return all up to the pong that follows it."""
        await self.send(request, {"type": "ping", "id": "pong"})
        messages = []
        while (message := await self.receive()).get("id") != "pong":
            messages.append(message)
        return messages

    async def login(self, user: str, **more: Any) -> dict[str, Any]:
        """Log in; return the welcome, dropping what follows it."""
        return (await self.ask(type="login", user=user, id=0, **more))[0]


@contextlib.asynccontextmanager
async def wired(url: str, user: str = "", **more: Any) -> AsyncIterator[Wire]:
    """Connect, and log in if a user is given."""
    async with connect(url, compression=None, proxy=None) as connection:
        wire = Wire(connection)
        if user:
            await wire.login(user, **more)
        yield wire
