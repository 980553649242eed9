"""Three servers of NATS, two exchanges and an edge on this machine.

``python -m util.measure.cluster`` (`make cluster`) starts them, says which is
the primary, which stands by and which is the edge, and says it again whenever
that changes. A member that ends is started again, as a supervisor would do.
Ctrl-C ends all.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import sys
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from util.cli import new_parser
from util.measure.cut import Line
from util.measure.nats_servers import NatsServers, nats_servers
from util.measure.process import Launched, Trouble, launched

STREAM = "main"
EDGE = "edge"  # the name of that member
PORTS = (8765, 8766)  # of the exchanges
EDGE_PORT = 8767
POLL_S = 0.01  # between questions for the primary
ASK_S = 2.0  # for the answer to one
WATCH_S = 0.5  # between looks at the members


class Member:
    """One exchange of a cluster; ``url`` is where it listens."""

    def __init__(self, name: str, **settings: Any) -> None:
        self.name = name
        self._settings = settings
        self._stack = contextlib.ExitStack()
        self.server: Launched = self._start()

    def _start(self) -> Launched:
        return self._stack.enter_context(launched(**self._settings))

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.server.url

    @property
    def process(self) -> str:
        """A name for the process that it is now."""
        return f"{self.name} as process {self.server.pid}"

    @property
    def status(self) -> int | None:
        """Its exit status; None: it runs."""
        return self.server.process.poll()

    async def restart(self) -> None:
        """Start it again; it must have ended."""
        self.end()
        self.server = await asyncio.to_thread(self._start)

    def send(self, signum: int) -> None:
        """Send it a signal."""
        self.server.process.send_signal(signum)

    async def leads(self) -> bool:
        """Return whether it takes clients."""
        return await asyncio.to_thread(is_ready, self.url)

    def end(self) -> None:
        """End it, if it still runs."""
        self._stack.close()


def is_ready(url: str) -> bool:
    """Return whether an exchange takes clients; False if it is not there."""
    address = urlsplit(url)
    assert address.hostname is not None
    connection = http.client.HTTPConnection(
        address.hostname, address.port, timeout=ASK_S
    )
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


async def primary_of(*members: Member) -> Member:
    """Return the first of these members that takes clients.

    Raises Trouble if one of them cannot start.
    """
    while True:
        for member in members:
            if member.status == 2:
                raise Trouble(f"{member.name}: {member.server.errors}")
            if await member.leads():
                return member
        await asyncio.sleep(POLL_S)


@contextlib.asynccontextmanager
async def members_of(
    servers: NatsServers,
    *ports: int,
    lines: Sequence[Line] = (),
    **settings: Any,
) -> AsyncIterator[list[Member]]:
    """Start one member for each port; end them all.

    The first members reach the servers by these lines.
    """
    members: list[Member] = []
    try:
        for number, port in enumerate(ports):
            way = lines[number] if number < len(lines) else servers
            options = {"journal": way.url(STREAM), "port": port} | settings
            name = f"exchange {number + 1}"
            members.append(await asyncio.to_thread(Member, name, **options))
        yield members
    finally:
        for member in members:
            await asyncio.to_thread(member.end)


@contextlib.asynccontextmanager
async def edge_of(servers: NatsServers, port: int) -> AsyncIterator[Member]:
    """Start an edge, and end it."""
    options = {"journal": servers.url(STREAM), "port": port, "role": "read"}
    edge = await asyncio.to_thread(partial(Member, EDGE, **options))
    try:
        yield edge
    finally:
        await asyncio.to_thread(edge.end)


async def show(
    folder: Path | None, ports: tuple[int, ...], edge_port: int
) -> None:
    """Run a cluster until it is canceled, and say who leads."""
    with nats_servers(folder) as servers:
        for server in servers.all:
            print(f"nats-server {server.name}: port {server.port}", flush=True)
        async with (
            members_of(servers, *ports, debug=0) as members,
            edge_of(servers, edge_port) as edge,
        ):
            members.append(edge)
            before = ""
            while True:
                lines = [await _describe(member) for member in members]
                now = "\n".join(lines)
                if now != before:
                    print(now, flush=True)
                    before = now
                for member in members:
                    if member.status is not None:
                        await member.restart()
                await asyncio.sleep(WATCH_S)


async def _describe(member: Member) -> str:
    if member.status is not None:
        what = f"ended with {member.status}, is started again"
    else:
        leads = await member.leads()
        if member.name == EDGE:
            what = "shows the market" if leads else "waits for the stream"
        else:
            what = "primary" if leads else "stands by, or has no lease"
    pid = member.server.pid
    return f"{member.name}: {member.url} (process {pid}): {what}"


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.measure.cluster``; return the exit status."""
    parser = new_parser(
        "measure.cluster",
        "Run three servers of NATS, a primary, a standby and an edge here.",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="keeps the streams; without it they end with the cluster",
    )
    options = parser.parse_args(arguments)
    try:
        asyncio.run(show(options.folder, PORTS, EDGE_PORT))
    except KeyboardInterrupt:
        return 0
    except Trouble as trouble:
        print(trouble, file=sys.stderr)
        return trouble.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
