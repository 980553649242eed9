"""The machine of the exchange in a world: one process after another.

A process is a `Server` whose callbacks run in a context of its own. `kill`
ends it between two callbacks: none of them runs any more, and nothing that
the process has not given to the network or synced is left. The next process
recovers from the disk, on the same loop.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from exchange.host.clock import Clock
from exchange.journal.sqlite import JournalError
from server import Server

from .disk import Disk, DiskJournal, DiskThread, Killed
from .exchange import EPOCH_NS, PORT, new_server
from .loop import Handle, VirtualLoop
from .network import Network

PATH = Path("disk")
# The process to which the code that runs now belongs; None: none of them.
owner: ContextVar[Process | None] = ContextVar("owner", default=None)


class FaultyLoop(VirtualLoop):
    """A loop in which a callback can come between any two others."""

    def __init__(self) -> None:
        super().__init__()
        self._fuse = 0  # turns until the callback
        self._bang: Handle | None = None

    def call_between(
        self, turns: int, callback: Callable[[], object], chance: Random
    ) -> None:
        """Call back after some turns, before or after any ready callback.

        An earlier call that is not made yet is forgotten.
        """
        self._fuse = turns + 1
        self._bang = Handle(callback, (), copy_context())
        self._chance = chance

    def drop(self, process: Process) -> None:
        """Forget every callback of a process."""
        handles: list[Any] = [*self._ready, *(entry[3] for entry in self._due)]
        for handle in handles:
            if handle._context.get(owner) is process:
                handle.cancel()

    def _run_once(self) -> None:
        if self._fuse:
            self._fuse -= 1
            if not self._fuse:
                at = self._chance.randint(0, len(self._ready))
                self._ready.insert(at, self._bang)
        super()._run_once()


class WatchedServer(Server):
    """A server that tells of each of its steps."""

    def __init__(
        self, *args: Any, stepped: Callable[[], None], **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._stepped = stepped

    def step(self, work: Callable[[], object]) -> None:
        """Do some work and write its results."""
        super().step(work)
        self._stepped()


class Process:
    """One process: `server` in a context of its own."""

    def __init__(self) -> None:
        self.server: Server
        self.life: Coroutine[Any, Any, None]
        self.stopping: asyncio.Future[None]
        self.clock: Clock
        self.is_started = False  # it listens
        self.context = copy_context()
        self.context.run(owner.set, self)


class Machine:
    """Disk and network of one machine, and the process that runs on it.

    ``process`` is None while none runs. ``clock_ns`` is what must be added to
    the time of the loop to get the wall clock. ``stepped`` is called after
    each step of a server, ``ended`` when a process has ended by itself, with
    the reason, and with the error if the server failed.
    """

    def __init__(
        self,
        loop: FaultyLoop,
        network: Network,
        disk: Disk,
        *,
        market: Path,
        chance: Random,
        stepped: Callable[[], None],
        ended: Callable[[str, Exception | None], None],
        prepare: Callable[[Server], None],
    ) -> None:
        self.process: Process | None = None
        self.disk = disk
        self.clock_ns = EPOCH_NS
        self._loop = loop
        self._network = network
        self._market = market
        self._chance = chance
        self._stepped = stepped
        self._ended = ended
        self._prepare = prepare
        self._dead: list[Process] = []  # so that nothing of them is collected

    @property
    def server(self) -> Server | None:
        """The server that is open; None while there is none."""
        if self.process is not None and self.process.is_started:
            return self.process.server
        return None

    def call_between(
        self, turns: int, callback: Callable[[], object], chance: Random
    ) -> None:
        """Call back between two callbacks: see `FaultyLoop`."""
        self._loop.call_between(turns, callback, chance)

    def now_us(self) -> int:
        """Return the time of the exchange, which must have a process."""
        assert self.process is not None
        return self.process.clock.now()

    def start(self) -> None:
        """Start a process."""
        assert self.process is None
        self.process = process = Process()
        process.life = self._live(process)
        self._loop.create_task(process.life, context=process.context)

    def stop(self) -> None:
        """Ask the process to stop in order."""
        if self.process is not None and self.process.is_started:
            if not self.process.stopping.done():
                self.process.stopping.set_result(None)

    def kill(self, is_power: bool = False) -> None:
        """End the process now; peers learn it unless the power is gone."""
        process = self.process
        if process is None:
            return
        self.process = None
        self._dead.append(process)
        self._loop.drop(process)
        if inspect.getcoroutinestate(process.life) == inspect.CORO_CREATED:
            process.life.close()  # or Python warns that nothing awaited it
        self._network.close(PORT)
        for link in list(self._network.links):
            if is_power:
                link.silence()
            link.far.die()
        self.disk.process_ended()

    async def _live(self, process: Process) -> None:
        process.stopping = self._loop.create_future()
        thread = DiskThread(self._loop, self.disk)
        process.clock = self._clock()
        process.server = server = self._new_server(process.clock, thread)
        self._prepare(server)
        try:
            await server.start()
        except JournalError as error:
            self._end(process, f"it did not start: {error}", None)
            return
        process.is_started = True
        await asyncio.wait(
            (process.stopping, server.failure),
            return_when=asyncio.FIRST_COMPLETED,
        )
        await server.stop()
        failure = server.failure.result() if server.failure.done() else None
        why = f"it failed: {failure!r}" if failure else "it was stopped"
        self._end(process, why, failure)

    def _end(
        self, process: Process, why: str, failure: Exception | None
    ) -> None:
        assert process is self.process
        self.kill()
        self._ended(why, failure)

    def _new_server(self, clock: Clock, thread: DiskThread) -> Server:
        return new_server(
            self._loop,
            self._network,
            DiskJournal(PATH, self.disk, thread),
            self._market,
            self._chance,
            make=partial(WatchedServer, stepped=self._stepped),
            clock=clock,
            executor=thread,
        )

    def _clock(self) -> Clock:
        def elapsed_ns() -> int:
            return self._loop.now

        return Clock(
            lambda: self.clock_ns + self._loop.now, elapsed_ns, elapsed_ns
        )


__all__ = ["FaultyLoop", "Killed", "Machine"]
