"""A real exchange for a test, and a bare connection to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from exchange.settings import Settings
from server import Server

# For what must happen; long enough never to decide whether it does.
PATIENCE_S = 20.0
ROOT = Path(__file__).parent.parent


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
    """A bare connection that speaks JSON.

    It drops heartbeats, which come when they will, unless told otherwise.
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
        """Return the messages of the next frame, maybe none."""
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
        """Return the next so many messages."""
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
        """Log in; return the welcome, dropping what follows it."""
        return (await self.ask(type="login", user=user, id=0, **more))[0]

    async def rest(self) -> tuple[list[dict[str, Any]], int]:
        """Return what comes until the connection ends, and the close code."""
        messages, self.inbox = self.inbox, []
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
async def wired(url: str, user: str = "", **more: Any) -> AsyncIterator[Wire]:
    """Connect, and log in if a user is given."""
    # Without a limit of its own the client reads on, whatever a test does.
    async with connect(
        url, compression=None, proxy=None, max_queue=None
    ) as connection:
        wire = Wire(connection)
        if user:
            await wire.login(user, **more)
        yield wire


def order(side: str, qty: int, price: int, **more: Any) -> dict[str, Any]:
    """Return a request to place a limit order."""
    return {"type": "place", "side": side, "qty": qty, "price": price, **more}


def words(messages: list[dict[str, Any]]) -> list[str]:
    """Say of each message in a word what it is."""
    return [
        message.get("exec_type") or message.get("code") or message["type"]
        for message in messages
    ]


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until something that must happen has happened."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0)


async def answer(port: int, *headers: str) -> int:
    """Ask for a websocket with these headers; return the HTTP status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [
        "GET / HTTP/1.1",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        *headers,
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    async with asyncio.timeout(PATIENCE_S):
        status = int((await reader.readline()).split()[1])
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return status


def state_of(server: Server) -> Any:
    """Return all that a request may change, to be compared."""
    engine = server._gateway.engine
    books = {
        symbol: [
            (order.order_id, order.account, order.price, order.leaves_qty)
            for side in ("buy", "sell")
            for order in listing.book.queue(side)
        ]
        for symbol, listing in engine.listings.items()
    }
    accounts = {
        name: (
            account.seq,
            account.cash,
            dict(account.positions),
            sorted(account.orders),
            account.cancel_after_ts,
        )
        for name, account in engine.accounts.items()
    }
    return engine.seq, books, accounts


@contextlib.asynccontextmanager
async def launched(
    *arguments: str, code: str = "", **environment: str
) -> AsyncIterator[Process]:
    """Run ``python server.py``, or some code, as a process of its own.

    Keywords are variables: ``debug="0"`` is EXCHANGE_SERVER_DEBUG=0. What
    is left of it at the end is killed.
    """
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("EXCHANGE_SERVER_")
    }
    settings = {"hostname": "127.0.0.1", "port": "0", "journal": "off"}
    settings |= environment
    for name, value in settings.items():
        variables[f"EXCHANGE_SERVER_{name.upper()}"] = value
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "default::ResourceWarning"),
        *(("-c", code) if code else ("server.py",)),
        *arguments,
        cwd=ROOT,
        env=variables,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def greeting(process: Process) -> str:
    """Return the line a server prints once it listens."""
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        return (await process.stdout.readline()).decode()


def address(line: str) -> str:
    """Return the URL in the line that a server greets with."""
    (url,) = [word for word in line.split() if word.startswith("ws://")]
    return url


async def ended(process: Process) -> tuple[int, str, str]:
    """Wait for the end of a process; return status, output and errors."""
    async with asyncio.timeout(PATIENCE_S):
        output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()
