"""A whole market in virtual time, step by step: `Simulation`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import io
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Self, TextIO, TypeVar

from server import Server
from util.bots.house import run_house
from util.bots.plan import Plan

from . import guard
from .bots import Bot, Program, current, raise_in
from .connection import Decoder
from .exchange import EPOCH_NS, PORT, URL, new_server
from .flow import Flow
from .journal import MemoryJournal
from .latency import DEFAULT_LATENCY, Latency
from .loop import VirtualLoop
from .network import Network
from .recording import read_recording
from .result import Activity, Result, Standing, standings_of
from .transport import Transport

T = TypeVar("T")

SECONDS = 300.0  # market time of a round
HANG_S = 10.0  # of the wall clock, that a bot may run without a wait
LOOK_S = 0.2  # of the wall clock, between looks at the loop
FINISH_S = 3.0  # market time for bots to finish after the round
# Market time between collections of garbage. They run at fixed moments, or
# they would close a forgotten Exchange at a random one. A full one visits all
# objects of the process, so only one in FULL_COLLECTION is.
GARBAGE_S = 20.0
FULL_COLLECTION = 30
HOUSE_BOTS = "house"
HOUSE = (1, 3, 1)  # makers, noise and informed traders, without a flow


class SimulationError(Exception):
    """The exchange itself failed, or the round cannot begin."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A bot's file, and its latency; None: that of the round.

    ``user`` is its name, and as whom it logs in; None: the file's name.
    """

    path: Path
    latency: Latency | None = None
    user: str | None = None

    @classmethod
    def read(cls, text: str) -> Entry:
        """Read FILE or FILE@LATENCY; raises ValueError."""
        name, at, latency = text.rpartition("@")
        entry = cls(Path(text))
        if at and not entry.path.exists():
            entry = cls(Path(name), Latency.read(latency))
        if not entry.path.is_file():
            raise ValueError(f"{entry.path}: there is no such file")
        return entry


class Simulation:
    """An exchange with bots in virtual time.

    ``bots`` are files, as in ``mybot.py`` or ``mybot.py@5ms±1ms``. ``seed``
    is that of all chance. ``latency`` is the time of a message in one
    direction. ``market`` is a market file; without one BOND is listed.
    ``keys`` is a key file; users who are not in it log in by name.
    ``makers``, ``noise``, ``informed`` and ``speed`` are the house bots', as
    in ``util.bots``. ``out`` takes what bots print; None: standard output.
    ``hang_s`` are the seconds of the wall clock after which a bot that does
    not wait is stopped.

    ``flow`` is a journal or a file of trades, whose orders are sent again by
    the accounts ``@flow.NAME``; see `flow`. The market is then the recorded
    one unless ``market`` is given, and there are no house bots unless their
    numbers are.

    The market opens at the first `run_until`. Use it in a ``with`` block, or
    call `close`. Raises ValueError for a wrong bot or latency; FlowError,
    JournalError or OSError for a wrong flow.
    """

    def __init__(
        self,
        *bots: str | Entry,
        seed: int = 0,
        latency: str = str(DEFAULT_LATENCY),
        market: Path | str | None = None,
        flow: Path | str | None = None,
        makers: int | None = None,
        noise: int | None = None,
        informed: int | None = None,
        keys: Path | None = None,
        speed: float = 1.0,
        out: TextIO | None = None,
        hang_s: float = HANG_S,
    ) -> None:
        self.seed = seed
        self.network: Network
        self.server: Server
        self.decoder = Decoder()
        self.baton: Program | None = None
        self.journal = MemoryJournal(Path("memory"))
        self.bots: list[Bot] = []
        self._latency = Latency.read(latency)
        self._entries = [
            bot if isinstance(bot, Entry) else Entry.read(bot) for bot in bots
        ]
        self._keys = keys
        self._market = Path(market) if market else None
        self._recording = read_recording(Path(flow)) if flow else None
        self._flow: Flow | None = None
        if self._recording is None:
            house, self._epoch_ns = HOUSE, EPOCH_NS
        else:
            house, self._epoch_ns = (0, 0, 0), self._recording.start * 1_000
        self._plan = Plan(
            url=URL,
            symbols=(),
            makers=house[0] if makers is None else makers,
            noise=house[1] if noise is None else noise,
            informed=house[2] if informed is None else informed,
            arbitrageurs=0,
            values={},
            seed=seed,
            speed=speed,
            user_prefix="house-",
            tokens={},
        )
        self._out = sys.stdout if out is None else out
        self._hang_s = hang_s
        self._injected: dict[str, Bot] = {}
        self._collections = 0
        self._is_open = False
        self._is_over = False
        self.loop = VirtualLoop()
        self.network = Network(self.loop, f"{seed} link")
        self.loop.network = _Road(self)
        self.loop.set_task_factory(_new_task)
        # The loop runs in a thread of its own: a notebook has a loop in its.
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "market")
        self._thread_id = self._thread.submit(threading.get_ident).result()
        guard.install(_name_of_current)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def epoch_ns(self) -> int:
        """Nanoseconds since 1970 at which the market opens."""
        return self._epoch_ns

    @property
    def round_seconds(self) -> float:
        """The length of a round, in seconds: that of the flow, if any.

        The exchange's timers come up to 1 ms after what they are for.
        """
        recording = self._recording
        if recording is None:
            return SECONDS
        return (-(-(recording.end - recording.start) // 1_000) + 1) / 1_000

    @property
    def time(self) -> float:
        """Seconds of market time since the start."""
        return self.loop.time()

    # Running

    def run_until(
        self,
        end: float | asyncio.Task[T],
        progress: Callable[[float], None] | None = None,
    ) -> T | None:
        """Run until a moment, in seconds, or until a task has ended.

        Return the task's result, or raise its exception. ``progress`` is
        called now and then with the market time. Raises SimulationError, and
        Deadlock if nothing can happen any more.
        """
        self._open()
        if isinstance(end, asyncio.Task):
            answer: T = self._call(self._run_task, end, progress=progress)
            return answer
        self._call(self.loop.run_until, end, progress=progress)
        self._check()
        return None

    def inject(
        self,
        work: Coroutine[Any, Any, T],
        name: str = "injected",
        latency: str | None = None,
    ) -> asyncio.Task[T]:
        """Start a coroutine in the market, now, as a bot of this name.

        An Exchange that it makes stays connected until the end, and other
        coroutines of the same name may use it.
        """
        self._open()
        bot = self._injected.get(name)
        if bot is None:
            delay = Latency.read(latency) if latency else self._latency
            bot = self._injected[name] = self._add(Bot, name, latency=delay)
        return self.loop.create_task(work, context=bot.context)

    def standings(self) -> tuple[Standing, ...]:
        """Return the standings of this moment."""
        activity = Activity()
        engine = self.server.gateway.engine
        replayed = activity.count(
            (batch.commands for batch in self.journal.recover()), engine.seq
        )
        if replayed.leaderboard() != engine.leaderboard():
            raise SimulationError("the journal gives other balances")
        return standings_of(engine, activity, self._bots_by_account())

    def end(self) -> Result:
        """End the round: return its result, then stop everything."""
        self._open()
        seconds, standings = self.time, self.standings()
        engine = self.server.gateway.engine
        trades = sum(x.trade_id for x in engine.listings.values())
        self._call(self._stop)
        self._check()
        self._is_over = True
        return Result(
            seed=self.seed,
            seconds=seconds,
            standings=standings,
            failures={
                bot.name: str(bot.failure) for bot in self.bots if bot.failure
            },
            silent=tuple(
                bot.name
                for bot in self.bots
                if isinstance(bot, Program) and not bot.accounts
            ),
            commands=engine.seq,
            trades=trades,
            digest=self.journal.digest(),
            flow_orders=self._flow.orders if self._flow else 0,
            flow_refused=dict(self._flow.refused) if self._flow else {},
        )

    def run(
        self,
        seconds: float | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Result:
        """Run a round of this length; Ctrl-C ends it earlier.

        None: of `round_seconds`.
        """
        with contextlib.suppress(KeyboardInterrupt):
            self.run_until(seconds or self.round_seconds, progress)
        return self.end()

    def close(self) -> None:
        """Stop everything."""
        if self._is_open and not self._is_over:
            self._is_over = True
            self._call(self._stop)
        if not self.loop.is_closed():
            self._thread.submit(self.loop.close).result()
            self._thread.shutdown()

    # The thread of the loop

    def _call(
        self,
        work: Callable[..., T],
        *arguments: Any,
        progress: Callable[[float], None] | None = None,
    ) -> T:
        """Call a function in the loop's thread; stop bots that hang."""
        if self.loop.is_closed():
            raise SimulationError("the simulation is closed")
        future = self._thread.submit(_quietly, work, *arguments)
        turns, since = -1, 0.0
        try:
            while not future.done():
                concurrent.futures.wait([future], timeout=LOOK_S)
                if progress is not None:
                    progress(self.time)
                if self.loop.turns != turns:
                    turns, since = self.loop.turns, time.monotonic()
                elif time.monotonic() - since > self._hang_s:
                    self._interrupt()
                    since = time.monotonic()
        except KeyboardInterrupt:
            self.loop.call_soon_threadsafe(self.loop.stop)
            concurrent.futures.wait([future], timeout=self._hang_s)
            raise
        return future.result()

    def _interrupt(self) -> None:
        """Stop the bot that runs now, if it is one."""
        running = self.loop.running
        bot: Bot | None = self.baton
        if bot is None and running is not None:
            context = running._context  # type: ignore[attr-defined]
            bot = context.get(current)
        if bot is not None:
            bot.interrupt(self._thread_id, self._hang_s)
        else:
            raise_in(self._thread_id, SimulationError)

    def _run_task(self, task: asyncio.Task[T]) -> T:
        result: T = self.loop.run_until_complete(task)
        return result

    # Beginning and end

    def _open(self) -> None:
        if not self._is_open:
            self._call(self.loop.run_until_complete, self._start())
            self._is_open = True
            for bot in self.bots:
                if isinstance(bot, Program):
                    self.loop.call_soon(bot.run_file)

    async def _start(self) -> None:
        """Open the exchange, and add its bots and those of the round."""
        self.server = new_server(
            self.loop,
            self.network,
            self.journal,
            self._market,
            Random(f"{self.seed} sessions"),
            self._recording,
            keys=self._keys,
        )
        await self.server.start()
        self._collect_garbage()
        if self._recording is not None:
            self._flow = Flow(
                self._recording,
                self.server,
                self.loop,
                keeps_market=self._market is not None,
            )
            self._flow.start()
        if self._plan.names():
            house = self._add(Bot, HOUSE_BOTS, latency=self._latency)
            house.start(run_house(self._plan, say=_say_nothing))
        names: Counter[str] = Counter()
        for entry in self._entries:
            stem = entry.user or entry.path.stem
            names[stem] += 1
            name = stem if names[stem] == 1 else f"{stem}-{names[stem]}"
            self._add(
                Program,
                name,
                entry.path.resolve(),
                latency=entry.latency or self._latency,
                out=self._out,
            )

    def _add(
        self, kind: type[Any], name: str, *path: Path, **rest: Any
    ) -> Any:
        chance = Random(f"{self.seed} bot {len(self.bots)} {name}")
        bot = copy_context().run(
            kind, self, name, *path, chance=chance, **rest
        )
        self.bots.append(bot)
        return bot

    def _stop(self) -> None:
        """Let bots finish, then end them and the exchange."""
        if self._flow is not None:
            self._flow.stop()
        for bot in self.bots:
            bot.finish()
        self.loop.run_until(self.time + FINISH_S)
        for bot in self.bots:
            bot.stop()
        self.loop.run_until_complete(self.server.stop())

    def _check(self) -> None:
        if self.server.failure.done():
            error = self.server.failure.result()
            raise SimulationError("the exchange failed") from error
        if self._flow is not None and self._flow.failure is not None:
            raise self._flow.failure

    def _collect_garbage(self) -> None:
        self._collections += 1
        gc.collect(1 if self._collections % FULL_COLLECTION else 2)
        self.loop.call_later(GARBAGE_S, self._collect_garbage)

    def _bots_by_account(self) -> dict[str, list[tuple[str, str]]]:
        found: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        for bot in self.bots:
            for account in bot.accounts:
                found[account].append((bot.name, str(bot.latency)))
        return found

    async def connect_as(
        self, bot: Bot | None, factory: Callable[[], asyncio.BaseProtocol]
    ) -> tuple[Transport, asyncio.BaseProtocol]:
        """Connect to the exchange with the latency of a bot."""
        latency = bot.latency if bot else self._latency
        transport, protocol = await self.network.connect(
            factory, PORT, latency
        )
        if bot is not None:
            bot.connected(transport)
        return transport, protocol


class _Road:
    """Where `create_connection` of a bot leads: to the exchange."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    async def connect(
        self, factory: Callable[[], asyncio.BaseProtocol], port: int
    ) -> tuple[Transport, asyncio.BaseProtocol]:
        if port != PORT:
            raise ConnectionRefusedError(
                f"a simulation has the exchange at port {PORT} only"
            )
        return await self._simulation.connect_as(current.get(), factory)


def _new_task(
    loop: asyncio.AbstractEventLoop, work: Any, **options: Any
) -> asyncio.Task[Any]:
    """Make a task, and tell the bot to which it belongs."""
    task = asyncio.Task(work, loop=loop, **options)
    context = options.get("context")
    bot = current.get() if context is None else context.get(current)
    if bot is not None:
        bot.began(task)
    return task


def _quietly(work: Callable[..., T], *arguments: Any) -> T:
    """Call a function without automatic collections of garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        return work(*arguments)
    finally:
        if was_on:
            gc.enable()


def _name_of_current() -> str | None:
    bot = current.get()
    return bot.name if bot is not None else None


def _say_nothing(line: str) -> None:
    """Drop a line that house bots would print."""


class Nowhere(io.StringIO):
    """A file that drops what is written."""

    def write(self, text: str) -> int:
        """Drop a text."""
        return len(text)
