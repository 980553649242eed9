"""Measure what readers cost: ``python -m util.measure.spectators``.

A trader sends orders, one by one, to a primary whose journal is a stream of
three servers of NATS. Three times in one run: with no readers, with readers at
the primary, with the same number at edges. Printed are the CPU of each process
and what each reader got. After each part all of them must show the same book,
with the same number, and the same tables.

Exit status: 0 done, 1 they show different markets, 2 something did not start.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from websockets.exceptions import InvalidHandshake

from exchange.host.process import raise_file_limit
from util.cli import above_0, new_parser, whole
from util.measure.cluster import is_ready
from util.measure.drive import Counter, Reader, connect
from util.measure.load import Pace, fine_loop
from util.measure.nats_servers import NatsServers, nats_servers
from util.measure.process import Launched, Trouble, cpu_s, launched
from util.measure.wire import PATIENCE_S, Wire, wired

READERS = 3_000
EDGES = 2
# Orders per second. The readers are in one process, which reads some 60,000
# messages a second: with more, it delays the trader, and not the exchange.
RATE = 20.0
SECONDS = 10.0
WARM_UP = 0.2  # of the seconds measured, before them
LOOK_S = 0.05  # between two looks at whether a server is ready
FILES = 200  # besides those of readers
TABLES: list[dict[str, Any]] = [
    {"what": "book", "symbol": "BOND"},
    {"what": "trades", "symbol": "BOND"},
    {"what": "leaderboard"},
]
_streams = count(1)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the run: how many readers, and where."""

    name: str
    readers: int
    edges: int


async def measure(part: Part, nats: NatsServers, seconds: float) -> None:
    """Run one part and print its figures; raises Trouble."""
    loop = asyncio.get_running_loop()
    with running(nats, part.edges) as servers:
        for server in servers:
            await ready(server)
        primary, *edges = servers
        pace = Pace(1, 1, 1 / RATE)
        [mover] = await connect(primary.url, [Counter("mover")], pace)
        readers: list[Counter] = [Reader("") for _ in range(part.readers)]
        at = edges or [primary]
        links = [mover]
        for number, server in enumerate(at):
            mine = readers[number :: len(at)]
            links += await connect(server.url, mine, Pace(1, 1))
        mover.begin(loop.time(), math.inf, loop.time() + WARM_UP * seconds)
        await asyncio.sleep(WARM_UP * seconds)
        used, began = [cpu_s(s.pid) or 0.0 for s in servers], loop.time()
        updates = sum(reader.replies for reader in readers)
        orders = mover.trader.replies  # type: ignore[attr-defined]
        await asyncio.sleep(seconds)
        elapsed = loop.time() - began
        cpu = [(cpu_s(s.pid) or 0.0) - u for s, u in zip(servers, used)]
        updates = sum(reader.replies for reader in readers) - updates
        orders = mover.trader.replies - orders  # type: ignore[attr-defined]
        latency = mover.trader.latency  # type: ignore[attr-defined]
        for link in links:
            link.abort()
        await compare(servers)
        shares = " ".join(f"{100 * one / elapsed:3.0f} %" for one in cpu)
        per_reader = updates / elapsed / max(part.readers, 1)
        print(
            f"{part.name:28} {orders / elapsed:4.0f} orders/s"
            f" | CPU of primary and edges {shares}"
            f" | {per_reader:5.1f} updates/s a reader"
            f" | ack p50 {latency.percentile_ms(50):.1f}"
            f" p99 {latency.percentile_ms(99):.1f} ms",
            flush=True,
        )


@contextlib.contextmanager
def running(nats: NatsServers, edges: int) -> Iterator[list[Launched]]:
    """Run a primary and edges on a new stream; raises Trouble."""
    journal = nats.url(f"spectators{next(_streams)}")
    # A long lease: the machine is to be as busy as it can be.
    common: dict[str, Any] = {
        "journal": journal,
        "lease": 20,
        "max_connections": READERS + FILES,
    }
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(launched(**common))]
        for _ in range(edges):
            edge = launched(**common, role="read")
            servers.append(stack.enter_context(edge))
        yield servers


async def ready(server: Launched) -> None:
    """Wait until a server serves; raises Trouble."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await asyncio.to_thread(is_ready, server.url):
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise Trouble(
            f"{server.url} does not serve\n{server.errors}"
        ) from None


async def compare(servers: list[Launched]) -> None:
    """Raise Trouble unless all show the same, with the same numbers."""
    async with contextlib.AsyncExitStack() as stack:
        wires = [await join(stack, server.url) for server in servers]
        for table in TABLES:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    while True:  # an edge may be a batch behind
                        shown = [
                            (await wire.ask(type="get", **table))[-1]["data"]
                            for wire in wires
                        ]
                        if all(one == shown[0] for one in shown):
                            break
            except TimeoutError:
                different = Trouble(f"they show different {table['what']}")
                different.status = 1
                raise different from None


async def join(stack: contextlib.AsyncExitStack, url: str) -> Wire:
    """Connect as soon as the server has let the readers go."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await stack.enter_async_context(wired(url))
            except InvalidHandshake:  # too many are leaving
                await asyncio.sleep(LOOK_S)


async def run(readers: int, edges: int, seconds: float) -> None:
    """Run all parts; raises Trouble."""
    raise_file_limit(readers + FILES)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < readers + FILES:
        raise Trouble(f"{readers} readers need {readers + FILES} open files")
    with nats_servers() as nats:
        for part in (
            Part("no readers", 0, 0),
            Part(f"{readers:,} readers at the primary", readers, 0),
            Part(f"no readers, {edges} edges", 0, edges),
            Part(f"{readers:,} readers at {edges} edges", readers, edges),
        ):
            await measure(part, nats, seconds)


def main(arguments: list[str] | None = None) -> int:
    """Run the tool; return the exit status."""
    parser = new_parser(
        "spectators", "measure what readers cost a primary, and edges"
    )
    add = parser.add_argument
    add("--readers", type=whole, default=READERS, metavar="N")
    add("--edges", type=whole, default=EDGES, metavar="N")
    add("--seconds", type=above_0, default=SECONDS, metavar="N")
    options = parser.parse_args(arguments)
    gc.freeze()
    with asyncio.Runner(loop_factory=fine_loop) as runner:
        try:
            runner.run(run(options.readers, options.edges, options.seconds))
        except Trouble as trouble:
            print(f"spectators: {trouble}", file=sys.stderr)
            return trouble.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
