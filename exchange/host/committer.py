"""Commits commands to the journal: batches in, sequence numbers out.

One batch is written at a time. Commands that are queued meanwhile are the next
batch. A batch is written in a thread, because a disk can take seconds. While
the disk is quick, the loop writes small batches itself: the way to a thread
and back takes longer than such a commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from exchange.host.metrics import Timing
from exchange.journal.records import encode_record
from exchange.journal.storage import Batch, Storage
from exchange.market.command import Command

# The loop commits while the usual commit takes no longer than this. The usual
# time moves by an eighth of the difference with each commit. So after one
# commit of 3 ms or more the thread makes the next ones: a disk that has become
# slow holds the loop once. After a start the thread makes the first 60 or so.
QUICK_US = 300
START_US = 1_000_000
# Commands that the loop commits at once; with more, encoding and hashing are
# worth a thread.
BATCH_IN_LOOP = 64
# From one look at the disk to the next, in microseconds. The loop commits up
# to 10,000 times a second, and a look takes as long as a third of a commit.
LOOK_US = 10_000

Seen: TypeAlias = tuple[str, int]  # the result of `Journal.look`


@dataclass(frozen=True, slots=True)
class Commit:
    """A batch that is on disk."""

    seq: int  # of its last command
    seen: Seen | None  # the disk after the commit, if it was looked at
    took_us: int


class Commits(Protocol):
    """Commits one batch after the other."""

    def commit(self, batch: Batch, is_idle: bool = False) -> Commit | None:
        """Queue a batch; return a commit that was made at once."""

    async def finish(self) -> None:
        """Wait until all that is queued is committed, or a commit failed."""

    def close(self) -> None:
        """Commit nothing more."""


class Committer:
    """The only writer of a journal.

    Args:
        journal: a recovered one; `close` closes it.
        timing: counts sizes and durations.
        elapsed: returns microseconds since some moment.
        ended: called in the loop with the future of each commit that was made
            by the executor.
        executor: runs the commits; None: a thread.
    """

    def __init__(
        self,
        journal: Storage,
        *,
        timing: Timing,
        elapsed: Callable[[], int],
        ended: Callable[[asyncio.Future[Commit]], None],
        executor: Executor | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._journal = journal
        self._timing = timing
        self._elapsed = elapsed
        self._ended = ended
        self._executor = executor or ThreadPoolExecutor(1, "journal")
        self._queued: list[Command] = []
        self._checksum: int | None = None  # after the last one queued
        self._commit: asyncio.Future[Commit] | None = None  # under way
        self._has_failed = False
        self._began = 0
        self._usual_us = START_US  # of a commit
        self._looked = -LOOK_US

    def commit(self, batch: Batch, is_idle: bool = False) -> Commit | None:
        """Queue a batch, and begin a commit unless one is under way.

        ``is_idle``: no request waits, so the loop may commit. If it does, the
        commit is returned; a failure is raised. Otherwise ``ended`` is called
        later. After a failed commit nothing is written any more.
        """
        self._queued += batch.commands
        self._checksum = batch.checksum
        return self._begin(is_idle)

    def _begin(self, is_idle: bool) -> Commit | None:
        """Commit what is queued, unless a commit is under way."""
        if self._commit is not None or not self._queued or self._has_failed:
            return None
        commands, self._queued = self._queued, []
        self._began = self._elapsed()
        self._timing.batch.observe(len(commands))
        first_seq = commands[0].seq
        records = [encode_record(command) for command in commands]
        is_small = len(commands) <= BATCH_IN_LOOP
        if is_idle and is_small and self._usual_us <= QUICK_US:
            try:
                done = self._append(first_seq, records, self._checksum)
            except Exception:
                self._has_failed = True
                raise
            self._count(done)
            return done
        self._commit = self._loop.run_in_executor(
            self._executor, self._append, first_seq, records, self._checksum
        )
        self._commit.add_done_callback(self._done)
        return None

    async def finish(self) -> None:
        """Wait until all queued commands are committed, or a commit failed."""
        while self._commit is not None:
            await asyncio.wait((self._commit,))

    def close(self) -> None:
        """End the thread and close the journal."""
        self._executor.shutdown()
        self._journal.close()

    def _append(
        self, first_seq: int, records: list[str], checksum: int | None
    ) -> Commit:
        """Commit one batch; called in the executor or in the loop."""
        start = self._elapsed()
        seq = self._journal.append(first_seq, records, checksum)
        end = self._elapsed()
        seen = None
        if end - self._looked >= LOOK_US:
            self._looked = end
            seen = self._journal.look()
        return Commit(seq, seen, end - start)

    def _count(self, commit: Commit) -> None:
        waited_us = self._elapsed() - self._began
        self._timing.commit_s.observe(waited_us / 1e6)
        self._usual_us += (commit.took_us - self._usual_us) // 8

    def _done(self, commit: asyncio.Future[Commit]) -> None:
        self._commit = None
        if commit.exception() is None:
            self._count(commit.result())
        else:
            self._has_failed = True
        self._ended(commit)
        self._begin(is_idle=False)
