"""Commits commands to the journal: batches in, sequence numbers out.

One batch is written at a time, in a thread. Commands that are queued meanwhile
are the next batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

from exchange.host.metrics import Timing
from exchange.journal.records import encode_record
from exchange.journal.sqlite import Journal
from exchange.market.command import Command

Seen: TypeAlias = tuple[str, int]  # the result of `Journal.look`


@dataclass(frozen=True, slots=True)
class Commit:
    """A batch that is on disk."""

    seq: int  # of its last command
    seen: Seen  # the disk after the commit


class Committer:
    """The only writer of a journal.

    Args:
        journal: a recovered one; `close` closes it.
        timing: counts sizes and durations.
        elapsed: returns microseconds since some moment.
        ended: called in the loop with the future of each finished commit.
        executor: runs the commits; None: a thread.
    """

    def __init__(
        self,
        journal: Journal,
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
        self._commit: asyncio.Future[Commit] | None = None  # under way
        self._has_failed = False
        self._began = 0

    def commit(self, commands: list[Command]) -> None:
        """Queue commands, and begin a commit unless one is under way.

        After a failed commit nothing is written any more.
        """
        self._queued += commands
        if self._commit is not None or not self._queued or self._has_failed:
            return
        commands, self._queued = self._queued, []
        self._began = self._elapsed()
        self._timing.batch.observe(len(commands))
        records = [encode_record(command) for command in commands]
        self._commit = self._loop.run_in_executor(
            self._executor, self._append, commands[0].seq, records
        )
        self._commit.add_done_callback(self._done)

    async def finish(self) -> None:
        """Wait until all queued commands are committed, or a commit failed."""
        while self._commit is not None:
            await asyncio.wait((self._commit,))

    def close(self) -> None:
        """End the thread and close the journal."""
        self._executor.shutdown()
        self._journal.close()

    def _append(self, first_seq: int, records: list[str]) -> Commit:
        """Commit one batch; called in the executor."""
        seq = self._journal.append(first_seq, records)
        return Commit(seq, self._journal.look())

    def _done(self, commit: asyncio.Future[Commit]) -> None:
        self._commit = None
        if commit.exception() is None:
            took_us = self._elapsed() - self._began
            self._timing.commit_s.observe(took_us / 1e6)
        else:
            self._has_failed = True
        self._ended(commit)
        self.commit([])
