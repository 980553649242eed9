"""A disk in virtual time, which is slow, full or broken when a world says so.

`Disk` is what outlives a process: the batches that were synced. `DiskJournal`
is the journal of one process on it. `DiskThread` stands for the thread in
which a process commits: what it does takes the time of the disk, and the loop
goes on meanwhile. A commit that the loop makes itself stops the loop as long.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from random import Random
from typing import ParamSpec, TypeVar

from exchange.host.lookout import run_into
from exchange.journal.records import decode_records
from exchange.journal.sqlite import SPACE_ENOUGH
from exchange.journal.storage import Batch

from .loop import NS, VirtualLoop

P = ParamSpec("P")
T = TypeVar("T")

PLENTY = SPACE_ENOUGH + 1  # bytes free on a disk that has enough space


class Killed(BaseException):
    """The process ends here, in the middle of a commit that its loop makes.

    No ``except Exception`` of the exchange stops it.
    """


class Disk:
    """The disk of one machine.

    ``batches`` are synced: each is its first sequence number and its records.
    ``writing`` is the batch of a commit that has not ended. A commit takes
    from ``quick_ns`` to ``slow_ns`` nanoseconds. ``free`` are the free bytes,
    and with ``failure`` a commit raises sqlite3.OperationalError with this
    text. ``begun`` is called once, when the next commit begins, with the time
    at which it ends, and whether the loop makes it: if it returns True, the
    process ends in the middle of the commit.
    """

    def __init__(self, loop: VirtualLoop, chance: Random) -> None:
        self.batches: list[tuple[int, Sequence[str]]] = []
        self.checksums: list[int | None] = []  # of the batches
        self.last_seq = 0  # of the last command that is synced
        self.writing: tuple[int, Sequence[str], int | None] | None = None
        self.quick_ns, self.slow_ns = 50_000, 200_000
        self.free = PLENTY
        self.failure = ""
        self.begun: Callable[[int, bool], bool] | None = None
        self.commits = 0
        self._decoded: list[Batch] = []  # of the first batches
        self._loop = loop
        self._chance = chance

    def write(
        self,
        first_seq: int,
        records: Sequence[str],
        checksum: int | None,
        in_loop: bool,
    ) -> None:
        """Write a batch, which takes time; raises sqlite3.OperationalError.

        The batch is synced when `sync` is called. Raises Killed if the loop
        makes this commit and the process ends in the middle of it.
        """
        assert self.writing is None and first_seq == self.last_seq + 1
        self.commits += 1
        self.writing = first_seq, records, checksum
        duration = self._chance.randint(self.quick_ns, self.slow_ns)
        if self.begun is not None:
            begun, self.begun = self.begun, None
            if begun(self._loop.now + duration, in_loop):
                raise Killed
        self._loop.now += duration
        if self.failure:
            raise sqlite3.OperationalError(self.failure)

    def sync(self) -> None:
        """Note that the batch that was written is synced."""
        assert self.writing is not None
        first_seq, records, checksum = self.writing
        self.batches.append((first_seq, records))
        self.checksums.append(checksum)
        self.last_seq += len(records)
        self.writing = None

    def process_ended(self) -> None:
        """Decide what is left of a commit that did not end: all, or nothing.

        The process has not been told which.
        """
        if self.writing is not None and self._chance.random() < 0.5:
            self.sync()
        self.writing = None

    def decoded(self) -> Iterator[Batch]:
        """Yield each batch that is synced."""
        decoded = self._decoded
        for first_seq, records in self.batches[len(decoded) :]:
            text = f"[{','.join(records)}]".encode()
            commands = decode_records(first_seq, text)
            decoded.append(Batch(commands, self.checksums[len(decoded)]))
        yield from decoded


class DiskJournal:
    """The journal of one process. ``thread`` makes those of its commits that
    its loop does not make."""

    def __init__(self, path: Path, disk: Disk, thread: DiskThread) -> None:
        self.path = path
        self.last_seq = 0
        self._disk = disk
        self._thread = thread

    def count(self) -> int:
        """Return the number of commands."""
        return self._disk.last_seq

    def recover(self) -> Iterator[Batch]:
        """Yield every batch."""
        yield from self._disk.decoded()
        self.last_seq = self._disk.last_seq

    def append(
        self, first_seq: int, records: Sequence[str], checksum: int | None
    ) -> int:
        """Commit one batch; return the number of its last command.

        Raises sqlite3.OperationalError.
        """
        assert first_seq == self.last_seq + 1
        in_loop = not self._thread.is_running
        self._disk.write(first_seq, records, checksum, in_loop)
        if in_loop:
            self._disk.sync()
        else:
            self._thread.is_syncing = True
        self.last_seq += len(records)
        return self.last_seq

    def look(self) -> tuple[str, int]:
        """Return that the files are in their places, and the free bytes."""
        return "", self._disk.free

    def close(self) -> None:
        """Do nothing."""


class DiskThread(Executor):
    """Runs what a process would run in a thread, beside its loop.

    It runs at once, with the clock going on; then the clock is set back, and
    the result comes when that time has passed.
    """

    def __init__(self, loop: VirtualLoop, disk: Disk) -> None:
        self.is_running = False
        self.is_syncing = False  # the work under way has written a batch
        self._loop = loop
        self._disk = disk

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Return a future that is done when the work has ended."""
        found: Future[T] = Future()
        result: Future[T] = Future()
        loop, began = self._loop, self._loop.now
        self.is_running, self.is_syncing = True, False
        run_into(found, fn, *args, **kwargs)
        ended, loop.now = loop.now, began
        self.is_running = False

        def end(is_syncing: bool) -> None:
            if is_syncing:
                self._disk.sync()
            error = found.exception()
            if error is not None:
                result.set_exception(error)
            else:
                result.set_result(found.result())

        loop.call_at(ended / NS, end, self.is_syncing)
        return result
