"""A relay between clients and an exchange, which makes faults on request.

It passes websocket frames in both directions, and numbers them from 0 in each
direction, over all connections. Heartbeats come at their own time and have no
number. ``Relay.fault`` decides the fate of each frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, TypeAlias

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

Direction: TypeAlias = Literal["up", "down"]  # up: to the exchange
# The fate of a frame: it passes, is lost, comes twice, comes after the next
# one, or the connection breaks before or after it.
Fate: TypeAlias = Literal[
    "pass", "drop", "twice", "swap", "cut_before", "cut_after"
]
# Returns the fate of a frame, or the frames to send in its place.
Fault: TypeAlias = Callable[[Direction, int, str], Fate | list[str]]
Peer: TypeAlias = ClientConnection | ServerConnection

HEARTBEAT = '"type":"heartbeat"'


class Relay:
    """The settings of the relay, and what it has seen.

    ``seen`` holds the frames of each direction as they came in;
    ``connections`` counts the connections of clients; ``peers`` holds both
    ends of the open ones.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.url = ""
        self.fault: Fault = lambda direction, n, frame: "pass"
        self.seen: dict[Direction, list[str]] = {"up": [], "down": []}
        self.connections = 0
        self.passes_heartbeats = True
        self.peers: set[Peer] = set()
        self._news = asyncio.Condition()

    async def until(self, is_so: Callable[[], object]) -> None:
        """Wait until a condition holds; it is tested after each frame."""
        async with self._news:
            await self._news.wait_for(is_so)

    def cut(self) -> None:
        """Break every connection without a closing handshake."""
        for peer in self.peers:
            peer.transport.abort()

    async def accept(self, client: ServerConnection) -> None:
        """Serve one client for as long as both ends live."""
        self.connections += 1
        with contextlib.suppress(OSError, ConnectionClosed):
            async with connect(
                self.upstream, compression=None, proxy=None, close_timeout=1
            ) as server:
                pumps = [
                    asyncio.create_task(self._pump("up", client, server)),
                    asyncio.create_task(self._pump("down", server, client)),
                ]
                self.peers |= {client, server}
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in pumps:
                    pump.cancel()
                self.peers -= {client, server}

    async def _pump(
        self, direction: Direction, source: Peer, target: Peer
    ) -> None:
        held: list[str] = []
        with contextlib.suppress(ConnectionClosed):
            async for frame in source:
                assert isinstance(frame, str)
                if HEARTBEAT in frame:
                    frames = [frame] if self.passes_heartbeats else []
                    fate: Fate | list[str] = frames
                else:
                    number = len(self.seen[direction])
                    self.seen[direction].append(frame)
                    fate = self.fault(direction, number, frame)
                if fate == "cut_before":
                    self.cut()
                    return
                if fate == "swap":
                    held.append(frame)
                else:
                    for text in _become(fate, frame) + held:
                        await target.send(text)
                    held.clear()
                if fate == "cut_after":
                    self.cut()
                    return
                async with self._news:
                    self._news.notify_all()


def _become(fate: Fate | list[str], frame: str) -> list[str]:
    if isinstance(fate, list):
        return fate
    return [frame] * {"drop": 0, "twice": 2}.get(fate, 1)


def nth(direction: Direction, number: int, fate: Fate) -> Fault:
    """Return the fault that hits one frame of one direction."""

    def fault(way: Direction, n: int, frame: str) -> Fate:
        return fate if (way, n) == (direction, number) else "pass"

    return fault


def at_random(seed: int, probability: float, *fates: Fate) -> Fault:
    """Return a fault that hits frames of both directions by chance."""
    chance = random.Random(seed)

    def fault(way: Direction, n: int, frame: str) -> Fate:
        if chance.random() < probability:
            return chance.choice(fates)
        return "pass"

    return fault


@contextlib.asynccontextmanager
async def relaying(upstream: str) -> AsyncIterator[Relay]:
    """Run a relay on a free port of the loopback."""
    relay = Relay(upstream)
    async with serve(
        relay.accept, "127.0.0.1", 0, compression=None, max_size=None
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        relay.url = f"ws://127.0.0.1:{port}"
        yield relay


async def tell(relay: Relay, **status: Any) -> None:
    """Send a status to every client, as the exchange would."""
    for peer in relay.peers:
        if isinstance(peer, ServerConnection):
            await peer.send(json.dumps({"type": "status", "ts": 1, **status}))
