"""The exchange of a simulation: the real one, on our loop and network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from random import Random
from typing import Any, ParamSpec, TypeVar

from websockets.http11 import Request

from exchange.doors.http import Reply
from exchange.doors.listener import Listener, MakeConnection
from exchange.doors.tcp import Receiver
from exchange.gateway.rates import Quotas
from exchange.host.clock import Clock
from exchange.host.lookout import run_into
from exchange.host.market_file import Rules
from exchange.host.settings import Settings
from exchange.journal.storage import Storage
from exchange.market.command import Configure
from server import Server

from .loop import NS, VirtualLoop
from .network import ADDRESS, Network
from .recording import Recording, market_of

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


def clock_of(loop: VirtualLoop, epoch_ns: int = EPOCH_NS) -> Clock:
    """Return the exchange's clock: that of the loop, from a moment on."""

    def wall_ns() -> int:
        return epoch_ns + loop.now

    def elapsed_ns() -> int:
        return loop.now

    return Clock(wall_ns, elapsed_ns, elapsed_ns)


class ForFlow(Settings):
    """Settings of a market in which recorded orders are sent again.

    ``recorded`` is the market, with no quotas; None: that of the settings.
    """

    recorded: Configure | None

    def rules(self, is_guarded: bool) -> Rules:
        """Return the rules, in which the flow has its accounts' limits."""
        if self.recorded is not None:
            rules = Rules(configure=self.recorded, quotas=Quotas())
        else:
            rules = super().rules(is_guarded)
        return replace(rules, configure=market_of(rules.configure))


def new_server(
    loop: VirtualLoop,
    network: Network,
    journal: Storage,
    market: Path | None,
    chance: Random,
    flow: Recording | None = None,
    *,
    keys: Path | None = None,
    make: Callable[..., Server] = Server,
    clock: Clock | None = None,
    executor: Executor | None = None,
) -> Server:
    """Return an exchange, to be started; call this in the running loop.

    It begins when the recorded ``flow`` does. ``make`` is called in the place
    of `Server`. ``clock`` None: that of the loop. ``executor`` runs commits
    and looks at files; None: each takes no time. Users who are not in the key
    file ``keys`` log in by name. Raises SettingsError if the
    market file is wrong.
    """
    epoch_ns = EPOCH_NS if flow is None else flow.start * 1_000
    return make(
        _settings(journal.path, market, flow, keys),
        clock or clock_of(loop, epoch_ns),
        listener=partial(MemoryListener, network),
        open_journal=lambda path: journal,
        new_session=lambda: f"{chance.getrandbits(128):032x}",
        executor=executor or Inline(),
    )


@lru_cache(maxsize=1)
def _settings(
    journal: Path,
    market: Path | None,
    flow: Recording | None,
    keys: Path | None,
) -> Settings:
    kind: Callable[..., Settings] = Settings
    if flow is not None:
        kind = partial(ForFlow, recorded=None if market else flow.market)
    return kind(
        _env_prefix=NO_PREFIX,
        hostname=ADDRESS,
        port=PORT,
        journal=journal,
        keys=keys or NO_KEYS,
        open=keys is not None,
        max_connections=CONNECTIONS,
        debug=False,
        market=market,
    )
