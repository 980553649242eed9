"""A bare connection to an exchange: JSON out, JSON in, nothing hidden."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

# The longest wait for what must happen; so long that no load exceeds it.
PATIENCE_S = 60.0


def framed(data: bytes, first: int = 0x81, length: int | None = None) -> bytes:
    """Return a client's frame, by default of text; the mask is 0.

    ``first`` is its first byte, ``length`` the length it claims to have.
    """
    if length is None:
        length = len(data)
    if length < 126:
        head = struct.pack("!BB", first, 0x80 | length)
    elif length < 2**16:
        head = struct.pack("!BBH", first, 0xFE, length)
    else:
        head = struct.pack("!BBQ", first, 0xFF, length)
    return head + bytes(4) + data


class Wire:
    """A bare connection that speaks JSON.

    It drops heartbeats, which come at any time, unless ``hears_heartbeats``.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.inbox: list[dict[str, Any]] = []
        self.hears_heartbeats = False

    async def send(self, *requests: dict[str, Any]) -> None:
        """Send requests, several in one frame."""
        frame = requests[0] if len(requests) == 1 else requests
        await self.connection.send(json.dumps(frame))

    async def frame(self) -> list[dict[str, Any]]:
        """Return the messages of the next frame; none if all are dropped."""
        async with asyncio.timeout(PATIENCE_S):
            frame = json.loads(await self.connection.recv())
        messages = frame if isinstance(frame, list) else [frame]
        if self.hears_heartbeats:
            return messages
        return [m for m in messages if m["type"] != "heartbeat"]

    async def receive(self) -> dict[str, Any]:
        """Return the next message."""
        async with asyncio.timeout(PATIENCE_S):  # heartbeats never end
            while not self.inbox:
                self.inbox += await self.frame()
        return self.inbox.pop(0)

    async def take(self, count: int) -> list[dict[str, Any]]:
        """Return the next ``count`` messages."""
        return [await self.receive() for _ in range(count)]

    async def until(self, **fields: Any) -> dict[str, Any]:
        """Return the next message with these fields, dropping others."""
        async with asyncio.timeout(PATIENCE_S):  # heartbeats never end
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
        """Log in; return the reply, dropping what else came."""
        messages = await self.ask(type="login", user=user, id=0, **more)
        return next(m for m in messages if m.get("id") == 0)

    async def rest(self) -> tuple[list[dict[str, Any]], int]:
        """Return what comes until the connection ends, and the close code."""
        messages, self.inbox = self.inbox, []
        async with asyncio.timeout(PATIENCE_S):  # heartbeats never end
            with contextlib.suppress(ConnectionClosed):
                while True:
                    messages += await self.frame()
        return messages, self.connection.close_code or 0

    def pause(self) -> None:
        """Read no more bytes from the socket."""
        self.connection.transport.pause_reading()

    def resume(self) -> None:
        """Read on after `pause`."""
        self.connection.transport.resume_reading()


@contextlib.asynccontextmanager
async def wired(
    url: str,
    user: str = "",
    tls: Any = None,
    host: str = "",
    sock: Any = None,
    **more: Any,
) -> AsyncIterator[Wire]:
    """Connect, and log in if a user is given.

    ``tls`` is the client's context, ``host`` the local address to bind,
    ``sock`` a connected socket.
    """
    # No queue limit: the client reads on, whatever a test does.
    async with connect(
        url,
        compression=None,
        proxy=None,
        max_queue=None,
        ssl=tls,
        local_addr=(host, 0) if host else None,
        sock=sock,
    ) as connection:
        wire = Wire(connection)
        if user:
            await wire.login(user, **more)
        yield wire


def order(side: str, qty: int, price: int, **more: Any) -> dict[str, Any]:
    """Return a request to place a limit order."""
    return {"type": "place", "side": side, "qty": qty, "price": price, **more}


def words(messages: list[dict[str, Any]]) -> list[str]:
    """Return a word for each message: its exec_type, code or type."""
    return [
        message.get("exec_type") or message.get("code") or message["type"]
        for message in messages
    ]
