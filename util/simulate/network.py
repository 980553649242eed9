"""A network in memory: listeners, and connections with latency.

A connection is a link with two ends, each a `Transport`. A link can be cut or
silenced, as a network does it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from random import Random

from .latency import DEFAULT_LATENCY, Latency
from .loop import VirtualLoop
from .transport import Transport

ADDRESS = "127.0.0.1"
FIRST_PORT = 40_000  # of the ends that connect


class Network:
    """The listeners of one loop, and the links between them and others.

    ``seed`` is that of all latencies: each link has a source of chance of its
    own, so that one link's messages do not change another's latencies.
    ``links`` holds the links that have not ended, the oldest first.
    """

    def __init__(self, loop: VirtualLoop, seed: str) -> None:
        self.links: dict[Link, None] = {}
        self._loop = loop
        self._seed = seed
        self._listeners: dict[int, _Listener] = {}
        self._opened = 0

    def listen(
        self, port: int, factory: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        """Accept connections to a port, in the context of this call."""
        self._listeners[port] = _Listener(factory, copy_context())

    def close(self, port: int) -> None:
        """Accept no more connections to a port."""
        self._listeners.pop(port, None)

    async def connect(
        self,
        factory: Callable[[], asyncio.BaseProtocol],
        port: int,
        latency: Latency = DEFAULT_LATENCY,
    ) -> tuple[Transport, asyncio.BaseProtocol]:
        """Connect to a port, which takes one message in each direction.

        Raises ConnectionRefusedError if nobody listens there.
        """
        self._opened += 1
        number = self._opened
        chance = Random(f"{self._seed} {number}")
        link = Link(self._loop, self, number, latency, chance)
        link.near.use(factory(), copy_context())
        answered: asyncio.Future[bool] = self._loop.create_future()
        link.far.control(self._arrived, link, port, answered)
        if not await answered:
            raise ConnectionRefusedError(
                f"nobody listens on port {port} of the simulation"
            )
        return link.near, link.near.get_protocol()

    def _arrived(
        self, link: Link, port: int, answered: asyncio.Future[bool]
    ) -> None:
        listener = self._listeners.get(port)
        if listener is not None:
            self.links[link] = None
            protocol = listener.context.run(listener.factory)
            link.far.use(protocol, listener.context)
            listener.context.run(protocol.connection_made, link.far)
        link.near.control(_answer, link, answered, listener is not None)


def _answer(link: Link, answered: asyncio.Future[bool], is_open: bool) -> None:
    """Tell the end that connects; before anything else arrives there."""
    if not answered.done():
        if is_open:
            link.near.get_protocol().connection_made(link.near)
        answered.set_result(is_open)
    elif is_open:  # it has given up meanwhile
        link.near.die()


@dataclass(frozen=True, slots=True)
class _Listener:
    factory: Callable[[], asyncio.BaseProtocol]
    context: Context


class Link:
    """A connection: ``near`` is the end that connected, ``far`` the other."""

    def __init__(
        self,
        loop: VirtualLoop,
        network: Network,
        number: int,
        latency: Latency,
        chance: Random,
    ) -> None:
        self.number = number
        self.latency = latency
        self.chance = chance
        self.messages = 0  # sent so far, in both directions
        self.is_silent = False  # what arrives is asked of `let_through`
        self._loop = loop
        self._network = network
        self._bytes_left = 0  # that still arrive
        here, there = (ADDRESS, FIRST_PORT + number), (ADDRESS, 0)
        self.near = Transport(loop, self, here, there)
        self.far = Transport(loop, self, there, here)
        self.near.peer, self.far.peer = self.far, self.near

    def cut(self) -> None:
        """Break the connection: both ends learn it now, bytes are lost."""
        for end in (self.near, self.far):
            end.lose(ConnectionResetError("the connection was cut"))

    def silence(self) -> None:
        """Lose everything from now on; neither end is told."""
        self.is_silent = True

    def cut_after(self, count: int) -> None:
        """Break the connection when some more bytes have arrived, 1 or more.

        Both directions count. So a message can be cut anywhere. A link that
        is silent or breaking already stays so: what was lost is not followed
        by what comes later.
        """
        if not self.is_silent:
            self.is_silent = True
            self._bytes_left = count

    def let_through(self, data: bytes) -> bytes:
        """Return what arrives of some bytes on a silent or breaking link."""
        if not self._bytes_left:
            return b""
        data = data[: self._bytes_left]
        self._bytes_left -= len(data)
        if not data or not self._bytes_left:  # an EOF, or the last byte
            self._bytes_left = 0
            self._loop.call_soon(self.cut)
        return data

    def ended(self) -> None:
        """Note that an end is closed; after both, forget the link."""
        if self.near.is_lost and self.far.is_lost:
            self._network.links.pop(self, None)
