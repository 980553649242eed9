"""The process: its loop, open files, port file, terminal and signals."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

try:
    import resource
except ModuleNotFoundError:  # Windows
    print("server.py: the exchange needs Linux or macOS", file=sys.stderr)
    raise SystemExit(2) from None

# Open files that are no connections: listeners, standard streams, the
# loop's own, and what a page or a journal needs.
FILES_RESERVED = 64
# A collection delays everybody: 0.5 ms for 2,000 young objects. Connections
# leave cycles, the engine makes none, so the full collection, which visits
# every order, is hardly ever due.
GC_THRESHOLDS = (2_000, 5, 1_000)

_ENDING = (signal.SIGINT, signal.SIGTERM)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a loop of uvloop if that is installed, or else of asyncio."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Collect no garbage: the engine makes no cycles."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def raise_file_limit(wanted: int) -> int:
    """Allow ``wanted`` open files if possible; return how many may be open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return wanted if soft == resource.RLIM_INFINITY else soft


def forget_port(path: Path | None) -> None:
    """Remove the port file of an earlier process; raises OSError."""
    if path is not None:
        path.unlink(missing_ok=True)


def announce_port(path: Path | None, port: int) -> None:
    """Write a port file as a whole: it is there with the port, or not.

    Raises OSError.
    """
    if path is not None:
        new = path.with_name(f"{path.name}.new")
        new.write_text(f"{port}\n")
        os.replace(new, path)


def has_terminal() -> bool:
    """Return whether a terminal controls this process."""
    try:
        flags = os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK
        os.close(os.open("/dev/tty", flags))
    except OSError:
        return False
    return True


def prepare_signals() -> None:
    """Set what signals do until a `Signals` takes them."""
    # The first process of a container ignores SIGTERM by default, and a
    # recovery may take a while.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not has_terminal():  # a SIGHUP that asks for a reload may come early
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


class Signals:
    """Takes SIGINT, SIGTERM and SIGHUP in a running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reloads: asyncio.Queue[bool] = asyncio.Queue()  # False: the end
        for signum in _ENDING:
            self._loop.add_signal_handler(signum, self._end)
        # Under nohup the process outlives its terminal.
        is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._had_terminal = not is_ignored and has_terminal()
        self._loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    async def reloads(
        self, failure: asyncio.Future[Exception]
    ) -> AsyncIterator[None]:
        """Yield at each SIGHUP that asks to read the files again.

        Stop after SIGINT, SIGTERM, a closed terminal or ``failure``. After
        that SIGINT and SIGTERM end the process at once, even if its threads
        wait for a disk.
        """
        failure.add_done_callback(self._end)
        while await self._reloads.get():
            yield
        for signum in _ENDING:
            self._loop.remove_signal_handler(signum)
            signal.signal(signum, signal.SIG_DFL)

    def _end(self, *_: object) -> None:
        self._reloads.put_nowait(False)

    def _hang_up(self) -> None:
        is_closed = self._had_terminal and not has_terminal()
        self._reloads.put_nowait(not is_closed)
