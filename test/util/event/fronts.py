"""A front in this process, and what stands behind it, for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from exchange.host.settings import Settings
from test.support import PATIENCE_S, until
from test.util.event.playing import free_ports
from util.event.front.server import Front
from util.event.front.table import Listen, Ports, Table, Team

HERE = "127.0.0.1"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Fronting:
    """A front that runs, its table, and connections to it."""

    def __init__(self, folder: Path, *, has_plain: bool = False) -> None:
        first = free_ports(4)
        self.native, self.json, self.line = first, first + 1, first + 2
        self.plain = first + 3 if has_plain else 0
        listen = Listen(HERE, self.native, self.json, self.line, self.plain)
        self.table = Table(listen, pages=1)
        self.path = folder / "front.json"
        self.front: Front
        self._writers: list[asyncio.StreamWriter] = []

    def change(
        self,
        teams: dict[str, Team] | None = None,
        matches: dict[str, Ports] | None = None,
        pages: int | None = None,
    ) -> None:
        """Replace the table."""
        if teams is not None:
            self.table = replace(self.table, teams=teams)
        if matches is not None:
            self.table = replace(self.table, matches=matches)
        if pages is not None:
            self.table = replace(self.table, pages=pages)
        self.table.write(self.path)

    async def changed(self, **changes: Any) -> None:
        """Replace the table, and wait until the front has seen it."""
        self.change(**changes)
        await until(lambda: self.front.table == self.table)

    @property
    def url(self) -> str:
        """Where clients connect, without a path."""
        return f"ws://{HERE}:{self.native}"

    async def connect(self, port: int, **more: Any) -> Streams:
        """Return a connection, which ends with the test."""
        reader, writer = await asyncio.open_connection(HERE, port, **more)
        self._writers.append(writer)
        return reader, writer

    async def ask(self, text: str) -> str:
        """Send a head; return all that is answered until the end."""
        reader, writer = await self.connect(self.native)
        writer.write(text.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            return (await reader.read()).decode()

    def close(self) -> None:
        """End all connections."""
        for writer in self._writers:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def fronting(
    folder: Path,
    teams: dict[str, Team] | None = None,
    matches: dict[str, Ports] | None = None,
    **settings: Any,
) -> AsyncIterator[Fronting]:
    """Run a front; ``settings`` are those of a server."""
    fixture = Fronting(folder, has_plain="tls_cert" in settings)
    fixture.change(teams=teams or {}, matches=matches or {})
    fixture.front = Front(fixture.path, Settings(**settings))
    task = asyncio.create_task(fixture.front.run())
    try:
        await until(lambda: fixture.front.is_open or task.done())
        yield fixture
    finally:
        fixture.close()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def listening(
    serve: Callable[
        [asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]
    ],
) -> AsyncIterator[int]:
    """Run a server of bare bytes behind the front; yield its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(accept, HERE, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
