"""The exchange of a simulation: the real one, on our loop and network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, ParamSpec, TypeVar

from websockets.http11 import Request

from exchange.doors.http import Reply
from exchange.doors.listener import Listener, MakeConnection
from exchange.doors.tcp import Receiver
from exchange.host.clock import Clock
from exchange.host.lookout import run_into
from exchange.host.settings import Settings
from server import Server

from .journal import MemoryJournal
from .loop import NS, VirtualLoop
from .network import ADDRESS, Network

P = ParamSpec("P")
T = TypeVar("T")

PORT = 8765
URL = f"ws://{ADDRESS}:{PORT}"
# The market opens at this moment, so that a seed gives the same times.
EPOCH_NS = round(datetime(2026, 1, 5, 9, tzinfo=UTC).timestamp()) * NS
# Fewer than most systems let a process open, so that no limit is raised.
CONNECTIONS = 900
NO_KEYS = Path("/dev/null/keys.json")  # a path where no file can be
# No variable begins so: the environment does not change a simulation.
NO_PREFIX = "EXCHANGE_SIMULATION_HAS_NO_"


class Inline(Executor):
    """Runs all work at once, where it is submitted."""

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Return a future that is done."""
        done: Future[T] = Future()
        run_into(done, fn, *args, **kwargs)
        return done


class MemoryListener(Listener):
    """Accepts the connections of a network in memory."""

    def __init__(
        self,
        network: Network,
        receiver: Receiver,
        respond: Callable[[Request], Reply],
        **options: Any,
    ) -> None:
        super().__init__(receiver, respond, **options)
        self._network = network
        self._doors: dict[int, Callable[[], asyncio.BaseProtocol]] = {}

    async def bind(self, hostname: str, port: int) -> int:
        """Take a port of the network."""
        self._doors[port] = self.make_connection
        return port

    async def bind_other(
        self, hostname: str, port: int, make: MakeConnection
    ) -> None:
        """Take another port of the network, for another door."""
        self._doors[port] = partial(self.make_other, make)

    async def open(
        self, hostname: str, origins: Iterable[str], connections_max: int
    ) -> None:
        """Listen, for requests to any name."""
        self._connections_max = connections_max
        for port, factory in self._doors.items():
            self._network.listen(port, factory)

    async def close(self) -> None:
        """Accept no more connections."""
        for port in self._doors:
            self._network.close(port)


def clock_of(loop: VirtualLoop) -> Clock:
    """Return the exchange's clock: that of the loop, from EPOCH_NS on."""

    def wall_ns() -> int:
        return EPOCH_NS + loop.now

    def elapsed_ns() -> int:
        return loop.now

    return Clock(wall_ns, elapsed_ns, elapsed_ns)


def new_server(
    loop: VirtualLoop,
    network: Network,
    journal: MemoryJournal,
    market: Path | None,
    chance: Random,
    keys: Path | None = None,
) -> Server:
    """Return an exchange, to be started; call this in the running loop.

    Raises SettingsError if the market file is wrong.
    """
    settings = Settings(
        _env_prefix=NO_PREFIX,  # type: ignore[call-arg]
        hostname=ADDRESS,
        port=PORT,
        journal=journal.path,
        keys=keys or NO_KEYS,
        open=keys is not None,
        max_connections=CONNECTIONS,
        debug=False,
        market=market,
    )
    return Server(
        settings,
        clock_of(loop),
        listener=partial(MemoryListener, network),
        open_journal=lambda path: journal,
        new_session=lambda: f"{chance.getrandbits(128):032x}",
        executor=Inline(),
    )
