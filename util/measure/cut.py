"""A line between a process and the servers of NATS, which can be cut.

Bytes that are sent while it is cut arrive when it is mended, as on a real
network: nobody is told that the line is cut.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

from util.measure.nats_servers import NatsServers

READ_BYTES = 65_536


class Line:
    """One port of the loopback for each server; ``url`` as theirs."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self._is_whole = asyncio.Event()
        self._is_whole.set()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, servers: NatsServers) -> AsyncIterator[Line]:
        """Open a line to these servers."""
        line = cls()
        async with contextlib.AsyncExitStack() as stack:
            for server in servers.all:
                here = await asyncio.start_server(
                    partial(line.accept, server.port), "127.0.0.1", 0
                )
                await stack.enter_async_context(here)
                line.ports.append(here.sockets[0].getsockname()[1])
            try:
                yield line
            finally:
                for task in line._tasks:
                    task.cancel()
                await asyncio.gather(*line._tasks, return_exceptions=True)

    def url(self, name: str) -> str:
        """Return the address of a stream behind this line."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"nats://{hosts}/{name}"

    def hold(self) -> None:
        """Cut the line."""
        self._is_whole.clear()

    def release(self) -> None:
        """Mend the line."""
        self._is_whole.set()

    async def accept(
        self,
        port: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Pass bytes in both directions."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with (
            contextlib.suppress(OSError, asyncio.CancelledError),
            contextlib.closing(writer),
        ):
            await self._is_whole.wait()
            there = await asyncio.open_connection("127.0.0.1", port)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, there[1]))
                group.create_task(self._pump(there[0], writer))

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            while data := await reader.read(READ_BYTES):
                await self._is_whole.wait()
                writer.write(data)
                await writer.drain()
