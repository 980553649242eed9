"""An event loop in virtual time: its clock jumps to the next timer.

A callback takes no virtual time. What is due at one instant runs in a fixed
order: what links deliver, by number of the link and of the message; then
timers, in the order in which they were set. No thread, no socket and no signal
of the machine reaches the loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from heapq import heappop, heappush
from typing import Any, Protocol

NS = 1_000_000_000
# Turns of the loop at one instant, after which each turn takes SPIN_NS. So a
# program that polls with `sleep(0)` does not stop the clock. The exchange
# needs some ten turns at an instant.
SPIN_TURNS = 1_000
SPIN_NS = 100_000
# Numbers before and after those of links.
STOP, TIMER = -1, 1 << 62


class Deadlock(Exception):
    """Everybody waits, and nothing is left that could end a wait."""


class Network(Protocol):
    """Where `create_connection` connects to."""

    async def connect(
        self, factory: Callable[[], asyncio.BaseProtocol], port: int
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Connect to a port; raises ConnectionRefusedError."""


class Handle(asyncio.Handle):
    """A callback of the next turn, without what a handle has for debugging."""

    __slots__ = ()

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context,
    ) -> None:
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False

    def cancel(self) -> None:
        """Do not call back."""
        self._cancelled = True

    def __repr__(self) -> str:
        return f"<Handle {self._callback}>"


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop whose time is a number that it sets itself.

    ``turns`` counts its turns, and ``running`` is the callback that runs now,
    so that another thread can see whether one of them hangs. ``now`` is the
    time in nanoseconds, from 0 on. ``network`` None: nobody can be connected
    to.
    """

    _ready: deque[Any]
    _stopping: bool

    def __init__(self, network: Network | None = None) -> None:
        super().__init__()
        self.network = network
        self.turns = 0
        self.running: asyncio.Handle | None = None
        self.now = 0  # nanoseconds
        self._turns_now = 0  # turns at this instant
        # Time, link, number; the last makes an entry unique.
        self._due: list[tuple[int, int, int, asyncio.Handle]] = []
        self._timers = 0

    # Time

    def time(self) -> float:
        """Return the time in seconds."""
        return self.now / NS

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call back at a time in seconds, rounded to nanoseconds."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers += 1
        entry = (round(when * NS), TIMER, self._timers, timer)
        heappush(self._due, entry)
        return timer

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call back after a number of seconds."""
        when = self.now / NS + delay
        return self.call_at(when, callback, *args, context=context)

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Call back in the next turn."""
        handle = Handle(callback, args, context or copy_context())
        self._ready.append(handle)
        return handle

    def deliver(
        self, when_ns: int, link: int, number: int, handle: asyncio.Handle
    ) -> None:
        """Run a handle at a time: message ``number`` of a link arrives."""
        heappush(self._due, (when_ns, link, number, handle))

    def run_until(self, seconds: float) -> None:
        """Run until the clock shows this time, or `stop` is called.

        Raises Deadlock. What is due at that very time runs; what follows from
        it is left for the next call.
        """
        self._timers += 1
        stop = Handle(self.stop, (), copy_context())
        self.deliver(round(seconds * NS), STOP, self._timers, stop)
        try:
            self.run_forever()
        finally:
            stop.cancel()

    # Turns

    def _run_once(self) -> None:
        """Run what is ready, or jump to what is due next."""
        ready, due = self._ready, self._due
        self.turns += 1
        if ready:
            self._turns_now += 1
            if self._turns_now > SPIN_TURNS:
                self.now += SPIN_NS
        else:
            while due and due[0][3]._cancelled:
                heappop(due)
            if due:
                if due[0][0] > self.now:
                    self.now = due[0][0]
                    self._turns_now = 0
            elif not self._stopping:
                raise Deadlock(self._who_waits())
        now = self.now
        while due and due[0][0] <= now:
            handle = heappop(due)[3]
            if not handle._cancelled:
                ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                self.running = handle
                try:
                    handle._context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self._complain(handle, error)
        self.running = None

    def _complain(self, handle: Any, error: BaseException) -> None:
        callback = handle._callback
        self.call_exception_handler(
            {
                "message": f"Exception in callback {callback}",
                "exception": error,
                "handle": handle,
            }
        )

    def _who_waits(self) -> str:
        """Name the tasks that wait, and the line where each does."""
        waits = []
        for task in asyncio.all_tasks(self):
            stack = task.get_stack(limit=1)
            where = "?"
            if stack:
                code = stack[-1].f_code
                where = f"{code.co_filename}:{stack[-1].f_lineno}"
            waits.append(f"{task.get_name()} at {where}")
        names = "; ".join(sorted(waits)) or "no task is left"
        return f"everybody waits for ever: {names}"

    # What asyncio's loop asks of the machine

    def _process_events(self, event_list: object) -> None:
        """Do nothing: there are no sockets."""

    def _write_to_self(self) -> None:
        """Do nothing: the loop never sleeps."""

    def _timer_handle_cancelled(self, handle: object) -> None:
        """Do nothing: a canceled timer leaves when it is due."""

    def call_soon_threadsafe(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Call back in the next turn; any thread may call this."""
        return self.call_soon(callback, *args, context=context)

    def add_signal_handler(  # type: ignore[override]
        self, sig: int, callback: Callable[..., object], *args: Any
    ) -> None:
        """Do nothing: no signal comes in virtual time."""

    def remove_signal_handler(self, sig: int) -> bool:
        """Do nothing."""
        return False

    async def create_connection(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        **options: Any,
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Connect to a listener of the network, whatever the host."""
        if options.get("ssl"):
            raise ConnectionRefusedError("a simulation has no TLS: use ws://")
        if self.network is None or port is None:
            raise ConnectionRefusedError("there is no network")
        return await self.network.connect(protocol_factory, port)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run a function in an executor that was given, never in a thread."""
        if executor is None:
            raise RuntimeError(
                "a simulation has no threads: asyncio.to_thread and"
                " run_in_executor do not work in it"
            )
        return super().run_in_executor(executor, func, *args)
