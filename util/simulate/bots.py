"""One bot of a simulation: what it may use, what it does, how it ends.

A `Bot` is a coroutine in a context of its own. A `Program` is a file, run as
``python FILE`` would run it, in a thread of its own. That thread holds a
baton: it runs only while the loop stands still, until it waits in a call of
the client, in ``asyncio.run`` or in ``time.sleep``. So threads and loop take
turns, in the order that the loop decides.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from inspect import iscoroutinefunction
from pathlib import Path
from random import Random
from traceback import StackSummary
from typing import Any, Protocol, TextIO, TypeVar
from weakref import WeakValueDictionary

import client
from client import ConnectionLost, Surroundings, surroundings

from .connection import Decoder, Websocket
from .latency import Latency
from .loop import VirtualLoop
from .modules import Modules
from .transport import Transport

T = TypeVar("T")
# The bot to which the code that runs now belongs; None: the exchange.
current: ContextVar[Bot | None] = ContextVar("current", default=None)


class Stopped(BaseException):
    """The round is over, or the bot hung; no `except Exception` stops it."""


class World(Protocol):
    """What bots use of a simulation."""

    loop: VirtualLoop
    decoder: Decoder
    baton: Program | None  # the program whose thread runs now

    @property
    def epoch_ns(self) -> int:
        """The time since the epoch at which the loop began."""

    async def connect_as(
        self,
        bot: Bot | None,
        factory: Callable[[], asyncio.BaseProtocol],
    ) -> tuple[Transport, asyncio.BaseProtocol]:
        """Connect to the exchange with the latency of a bot."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a bot ended early: a line, and the traceback of its own files."""

    line: str
    trace: str = ""

    def __str__(self) -> str:
        return f"{self.line}\n{self.trace}".rstrip()


class Bot:
    """A coroutine with its own connections, chance, and defaults.

    ``accounts`` are the users as which it has logged in; ``failure`` says why
    it ended before the round; ``is_over``: it has ended.
    """

    def __init__(
        self,
        world: World,
        name: str,
        *,
        latency: Latency,
        chance: Random,
        user: str = "",
    ) -> None:
        self.name = name
        self.latency = latency
        self.chance = chance
        self.accounts: dict[str, None] = {}
        self.failure: Failure | None = None
        self.is_finishing = False
        self.is_over = False
        # `Exchange()` without a user logs in by this name.
        self.environ: Mapping[str, str] = {"EXCHANGE_USER": user or name}
        self.main: asyncio.Task[Any] | None = None
        self._world = world
        self._loop = world.loop
        self._transports: list[Transport] = []
        # In the order in which they began.
        self._tasks: WeakValueDictionary[int, asyncio.Task[Any]]
        self._tasks = WeakValueDictionary()
        self._begun = 0
        self.context: Context = copy_context()
        self.context.run(current.set, self)
        self.context.run(
            surroundings.set,
            Surroundings(
                connect=self._connect,
                chance=Random(chance.getrandbits(64)),
                decode=world.decoder.decode,
                update_book=world.decoder.update_book,
                environ=self.environ,
                runner=self._runner,
            ),
        )

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin; the bot ends with this coroutine."""
        self.main = self._loop.create_task(work, context=self.context)
        self.main.add_done_callback(self._main_ended)
        return self.main

    def began(self, task: asyncio.Task[Any]) -> None:
        """Keep one of the bot's tasks, to cancel it at the end."""
        self._begun += 1
        self._tasks[self._begun] = task

    def finish(self) -> None:
        """End as Ctrl-C would: what is left to do may still be done."""
        self.is_finishing = True
        if self.main is not None:
            self.main.cancel()
        else:
            self.stop()

    def fail(self, error: BaseException) -> None:
        """End because of an error; while finishing none counts."""
        self.stop(None if self.is_finishing else self._failure(error))

    def stop(self, failure: Failure | None = None) -> None:
        """End: cut its connections and cancel its tasks."""
        if self.is_over:
            return
        self.is_over = True
        self.failure = self.failure or failure
        for transport in self._transports:
            transport.abort()
        for task in list(self._tasks.values()):
            task.cancel()

    def interrupt(self, thread: int, seconds: float) -> None:
        """End a bot that has run for so long without a wait.

        Called by another thread than ``thread``, in which the bot runs.
        """
        stack = traceback.extract_stack(sys._current_frames().get(thread))
        self.failure = self.failure or Failure(
            f"{self.name}: stopped: it ran for {seconds:g} s without a wait",
            "".join(self._own(stack).format()),
        )
        raise_in(thread, Stopped)
        self._loop.call_soon_threadsafe(self.stop)

    def _main_ended(self, task: asyncio.Task[Any]) -> None:
        if self.is_over:
            if not task.cancelled():
                task.exception()  # so that asyncio does not complain
            return
        if task.cancelled():
            self.stop()
        elif (error := task.exception()) is not None:
            self.fail(error)
        else:
            self.stop()

    def _runner(self, link: client._Link) -> client.Runner:
        raise RuntimeError("BlockingExchange is for scripts: use Exchange")

    async def _connect(self, url: str) -> Websocket:
        socket = Websocket(url, self._note_login, self._world.decoder)
        await self._world.connect_as(self, lambda: socket)
        await socket.open()
        return socket

    def connected(self, transport: Transport) -> None:
        """Keep a connection, to cut it at the end."""
        alive = [t for t in self._transports if not t.is_lost]
        self._transports = [*alive, transport]
        if self.is_over:
            transport.abort()

    def _note_login(self, user: str) -> None:
        self.accounts[user] = None

    # Its own part of a traceback

    def _failure(self, error: BaseException) -> Failure:
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        stack = traceback.extract_tb(error.__traceback__)
        trace = "".join(self._own(stack).format())
        return Failure(f"{self.name}: {what}", trace)

    def _own(self, stack: StackSummary) -> StackSummary:
        return stack


def raise_in(thread: int, kind: type[BaseException]) -> None:
    """Raise an exception in another thread, at its next line of Python."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(kind)
    )


class Program(Bot):
    """A file, run as a script in a thread that takes turns with the loop."""

    def __init__(
        self,
        world: World,
        name: str,
        path: Path,
        *,
        latency: Latency,
        chance: Random,
        out: TextIO,
    ) -> None:
        super().__init__(world, name, latency=latency, chance=chance)
        self.path = path
        self.out = out
        self._go = threading.Semaphore(0)  # the thread may run
        self._back = threading.Semaphore(0)  # the loop may run
        self._work: Coroutine[Any, Any, Any] | None = None
        self._answer: asyncio.Task[Any] | None = None
        self._error: BaseException | None = None
        self._ran_coroutine = False
        self._modules = Modules(self)
        self._thread = threading.Thread(
            # A copy, because only one thread at a time may be in a context.
            target=self.context.copy().run,
            args=(self._live,),
            name=name,
            daemon=True,
        )

    # What the loop does

    def run_file(self) -> None:
        """Begin; the bot ends with its file."""
        self._thread.start()
        self._turn()

    def stop(self, failure: Failure | None = None) -> None:
        """End; a thread that waits gets Stopped, and ends."""
        if not self.is_over:
            super().stop(failure)
            if self._work is not None:
                self._turn()

    def interrupt(self, thread: int, seconds: float) -> None:
        """End the thread if it is the one that hangs."""
        if self._world.baton is self and self._thread.ident is not None:
            was_told = self.failure is not None
            super().interrupt(self._thread.ident, seconds)
            if was_told:  # it hangs in a call of the system
                self._back.release()
        else:
            super().interrupt(thread, seconds)

    def _turn(self) -> None:
        """Let the thread run until it waits or ends."""
        self._work = None
        main = sys.modules["__main__"]
        sys.modules["__main__"] = self._modules.main
        self._world.baton = self
        self._go.release()
        self._back.acquire()
        self._world.baton = None
        sys.modules["__main__"] = main
        if self.is_over:
            return
        if self._work is not None:
            self._answer = self._loop.create_task(
                self._work, context=self.context
            )
            self._answer.add_done_callback(self._answered)
        elif self._error is not None:
            self.fail(self._error)
        else:
            self.stop()

    def _answered(self, task: asyncio.Task[Any]) -> None:
        if self.is_over:
            if not task.cancelled():
                task.exception()
            return
        self._turn()

    # What the thread does

    def _live(self) -> None:
        self._go.acquire()
        try:
            if not self.is_over:
                self._modules.run_main()
                self._run_main_function()
        except SystemExit as end:
            if end.code not in (None, 0):
                self._error = end
        except BaseException as error:
            self._error = error
        self._work = None
        self._back.release()

    def _run_main_function(self) -> None:
        """Run `main` of a file that has not run a coroutine itself."""
        main = getattr(self._modules.main, "main", None)
        if iscoroutinefunction(main) and not self._ran_coroutine:
            self.run(main())

    def wait(self, work: Coroutine[Any, Any, T], call: str) -> T:
        """Let the market go on until a coroutine has ended."""
        if threading.get_ident() != self._thread.ident:
            work.close()
            raise RuntimeError(call)
        if self.is_over:
            work.close()
            raise Stopped
        self._ran_coroutine = True
        self._answer, self._work = None, work
        self._back.release()
        self._go.acquire()
        answer: asyncio.Task[T] | None = self._answer
        if self.is_over or answer is None:
            raise Stopped
        return answer.result()

    # What its modules ask

    def wall_ns(self) -> int:
        """Return nanoseconds since the epoch."""
        return self._world.epoch_ns + self._loop.now

    def elapsed_ns(self) -> int:
        """Return nanoseconds since the start."""
        return self._loop.now

    def sleep(self, seconds: float) -> None:
        """Let the market go on for a while: `time.sleep` of the bot."""
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        self.wait(
            asyncio.sleep(seconds),
            "time.sleep() in a coroutine stops everybody:"
            " use await asyncio.sleep()",
        )

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end: `asyncio.run` of the bot."""
        return self.wait(
            self._run(main),
            "asyncio.run() cannot be called from a running event loop",
        )

    async def _run(self, main: Coroutine[Any, Any, T]) -> T:
        self.main = asyncio.current_task()
        try:
            return await main
        finally:
            self.main = None
            me = asyncio.current_task()
            others = [t for t in self._tasks.values() if t is not me]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    def _runner(self, link: client._Link) -> client.Runner:
        return Turns(self, link)

    # Its own part of a traceback

    def _own(self, stack: StackSummary) -> StackSummary:
        files = self._modules.files
        own = [frame for frame in stack if frame.filename in files]
        return StackSummary.from_list(own) if own else stack


class Turns:
    """The asyncio side of a BlockingExchange in a program."""

    def __init__(self, program: Program, link: client._Link) -> None:
        self.link = link
        self._program = program
        self._is_started = False

    def start(self) -> bool:
        """Begin to connect; False if that has begun already."""

        async def begin() -> bool:
            return self.link.start()

        self._is_started = True
        return self._program.wait(begin(), _BLOCKING)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine while the program waits."""
        if not self._is_started:
            work.close()
            raise self.link.failure or ConnectionLost("it has ended")
        return self._program.wait(work, _BLOCKING)

    def end(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that ends the link."""
        if not self._is_started:
            work.close()
            return
        self._is_started = False
        self._program.wait(work, _BLOCKING)


_BLOCKING = (
    "BlockingExchange in a coroutine stops everybody: use Exchange and await"
)
