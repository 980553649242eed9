"""Looks at files at intervals, in a thread.

A disk that hangs, or a network file system that is down, blocks its reader.
Here that is a thread; the exchange goes on with the result of the last look.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import Generic, ParamSpec, TypeVar

# A look that takes longer is late, and nothing waits for it any more. A usual
# look takes some 0.1 ms.
LATE_S = 1.0

P = ParamSpec("P")
T = TypeVar("T")
logger = logging.getLogger("exchange")


class _Thread(Executor):
    """One thread. A look that hangs does not keep the process alive."""

    def __init__(self, name: str) -> None:
        # None: end the thread.
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, name=name, daemon=True
        )

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        if self._thread.ident is None:
            self._thread.start()
        result: Future[T] = Future()
        self._work.put(partial(run_into, result, fn, *args, **kwargs))
        return result

    def shutdown(
        self, wait: bool = True, *, cancel_futures: bool = False
    ) -> None:
        """End the thread after its last work; never wait for it."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


def run_into(
    result: Future[T], fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> None:
    """Call a function; put its result or its exception into a future."""
    try:
        result.set_result(fn(*args, **kwargs))
    except Exception as error:
        result.set_exception(error)


class Lookout(Generic[T]):
    """Call ``look`` every ``every_s`` seconds in a thread.

    ``seen`` is called in the loop with the finished future of each look.
    ``what`` names the files in the log. ``is_late`` is set while a look takes
    longer than LATE_S; that is logged once. ``executor`` looks; None: a thread
    of its own.
    """

    def __init__(
        self,
        what: str,
        look: Callable[[], T],
        seen: Callable[[Future[T]], None],
        every_s: float,
        executor: Executor | None = None,
    ) -> None:
        self.is_late = False
        self._what = what
        self._look = look
        self._seen = seen
        self._every_s = every_s
        self._loop = asyncio.get_running_loop()
        self._is_looking = False
        self._is_wanted = False  # look again after the look under way
        # To be called after the look under way, and after the next one.
        self._waiting: list[Callable[[], None]] = []
        self._next: list[Callable[[], None]] = []
        self._due: asyncio.TimerHandle | None = None
        self._executor = executor or _Thread(f"look at {what}")

    def start(self) -> None:
        """Look for the first time."""
        self._begin()

    def look(self, then: Callable[[], None] | None = None) -> None:
        """Look at once, and call ``then`` afterwards.

        The look begins after this call, so it finds every earlier change.
        While looks are late, ``then`` is called without a look.
        """
        if then is not None:
            self._next.append(then)
        self._is_wanted = True
        if not self._is_looking:
            self._begin()
        elif self.is_late:
            self._release(self._next)

    def stop(self) -> None:
        """Stop looking; call nothing that waits."""
        self._set_timer(None)
        self._waiting.clear()
        self._next.clear()
        self._is_looking = True  # so no look begins any more
        self._executor.shutdown()

    def _begin(self) -> None:
        self._is_looking, self._is_wanted = True, False
        self._waiting, self._next = self._next, []
        self._set_timer(self._loop.call_later(LATE_S, self._overdue))
        self._executor.submit(self._look).add_done_callback(self._looked)

    def _ended(self, look: Future[T]) -> None:
        if not self._due:  # stopped
            return
        if self.is_late:
            self.is_late = False
            logger.warning("%s: can be read again", self._what)
        self._is_looking = False
        self._set_timer(self._loop.call_later(self._every_s, self._begin))
        self._seen(look)
        self._release(self._waiting)
        if self._is_wanted and not self._is_looking:
            self._begin()

    def _overdue(self) -> None:
        self.is_late = True
        logger.warning(
            "%s: no answer for %g s; the last contents read stay in force",
            self._what,
            LATE_S,
        )
        self._release(self._waiting)
        self._release(self._next)

    def _release(self, waiting: list[Callable[[], None]]) -> None:
        called = waiting.copy()
        waiting.clear()
        for then in called:
            then()

    def _set_timer(self, due: asyncio.TimerHandle | None) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due = due

    def _looked(self, look: Future[T]) -> None:
        """Pass a look on to the loop; called in the thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._ended, look)
