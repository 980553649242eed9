"""Commits commands to a stream: batches in, sequence numbers out.

One message is under way at a time. Commands that are queued meanwhile are the
next batch. While there are none, a beat renews the lease. An append without
an answer is repeated until it is known, so no commit fails; but another
process may have written, and then this one is fenced.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from exchange.host.committer import Commit, Seen
from exchange.host.journal_copy import JournalCopy
from exchange.host.metrics import Timing
from exchange.host.tasks import end
from exchange.journal.appender import Appender
from exchange.journal.lease import BEATS, Lease
from exchange.journal.message import (
    BEAT,
    BODY_BYTES,
    BYE,
    Message,
    Writer,
    cut,
)
from exchange.journal.records import encode_record
from exchange.journal.servers import Unanswered
from exchange.journal.storage import Batch
from exchange.journal.stream import Stream
from exchange.market.command import Command

LOOK_S = 1.0  # between looks at the space that the stream has left
FINISH_S = 5.0  # for what is queued at the end
BYE_S = 1.0  # for the last message; without it a standby waits T


class StreamCommitter:
    """The writer of a stream, as the server sees it.

    Args:
        stream: closed by `hang_up`.
        appender: of this stream.
        writer: names this process.
        timing: counts sizes and durations.
        elapsed: returns microseconds since some moment.
        ended: called in the loop with the future of each commit.
        copy: a journal that gets each batch too, when it is stored.
    """

    def __init__(
        self,
        stream: Stream,
        appender: Appender,
        writer: Writer,
        *,
        timing: Timing,
        elapsed: Callable[[], int],
        ended: Callable[[asyncio.Future[Commit]], None],
        copy: JournalCopy | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._stream = stream
        self._appender = appender
        self._writer = writer
        self._timing = timing
        self._elapsed = elapsed
        self._ended = ended
        self._copy = copy
        self._queued: list[Command] = []
        self._records: list[str] = []  # of commands taken from the queue
        self._checksum: int | None = None  # after the last one queued
        self._seen: Seen | None = None  # not yet told
        self._work = asyncio.Event()
        self._is_done = asyncio.Event()  # nothing is queued or under way
        self._is_done.set()
        self._tasks = [
            self._loop.create_task(self._run()),
            self._loop.create_task(self._look()),
        ]

    @property
    def lease(self) -> Lease:
        """Until when anybody may be told anything."""
        return self._appender.lease

    @property
    def trouble(self) -> str:
        """Why nothing is stored; "" if the last append was."""
        return self._appender.trouble

    def commit(self, batch: Batch, is_idle: bool = False) -> Commit | None:
        """Queue a batch; ``ended`` is called when it is stored."""
        if batch.commands:
            self._queued += batch.commands
            self._checksum = batch.checksum
            self._is_done.clear()
            self._work.set()
        return None

    async def finish(self) -> None:
        """Wait until all that is queued is stored, or another one leads.

        That takes as long as the stream does not answer.
        """
        await self._is_done.wait()

    async def bye(self) -> bool:
        """Store what is queued, say that this process leads no more, and stop.

        Return whether that is stored: if not, another process may lead. What
        is not stored in FINISH_S is given up: nobody was told of it.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S):
                await self.finish()
        await end(*self._tasks)
        is_written = self._is_done.is_set() and not self._has_failed
        self.lease.end()
        if is_written:
            message = self._writer.sign(BYE, self._appender.at)
            with contextlib.suppress(Exception):
                async with asyncio.timeout(BYE_S):
                    await self._appender.append(message)
                    return True
        return False

    def close(self) -> None:
        """Store nothing more."""
        for task in self._tasks:
            task.cancel()

    async def hang_up(self) -> None:
        """Store nothing more, and leave the servers."""
        await end(*self._tasks)
        await self._stream.close()

    @property
    def _has_failed(self) -> bool:
        run = self._tasks[0]
        return run.done() and not run.cancelled()

    async def _run(self) -> None:
        """Append batches and beats, one after the other."""
        pause_s = self.lease.length / BEATS / 1e6
        try:
            while True:
                message = self._next()
                if message is None:
                    self._is_done.set()
                    self._work.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause_s / 2):
                            await self._work.wait()
                    continue
                begin = self._elapsed()
                await self._appender.append(message)
                self._end(message, self._elapsed() - begin)
        except Exception as error:
            failed: asyncio.Future[Commit] = self._loop.create_future()
            failed.set_exception(error)
            self._ended(failed)
            self._is_done.set()

    def _next(self) -> Message | None:
        """Return the next batch, or a beat if one is due."""
        if self._queued or self._records:
            return self._batch()
        if self._elapsed() >= self.lease.beat_at:
            return self._writer.sign(BEAT, self._appender.at)
        return None

    def _batch(self) -> Message:
        queued, self._queued = self._queued, []
        records = self._records + [encode_record(one) for one in queued]
        count = cut(records, BODY_BYTES)
        self._records = records[count:]
        self._timing.batch.observe(count)
        return self._writer.batch(
            self._appender.at,
            records[:count],
            None if self._records else self._checksum,
        )

    def _end(self, message: Message, took_us: int) -> None:
        """Tell that a message is stored; a beat may let the gate open."""
        if message.kind != BEAT:
            self._timing.commit_s.observe(took_us / 1e6)
            if self._copy is not None:
                self._copy.keep(message)
        seen, self._seen = self._seen, None
        done: asyncio.Future[Commit] = self._loop.create_future()
        done.set_result(Commit(message.last, seen, took_us))
        self._ended(done)

    async def _look(self) -> None:
        """See how much space the stream has left."""
        while True:
            with contextlib.suppress(Unanswered):
                self._seen = "", (await self._stream.state()).free
            await asyncio.sleep(LOOK_S)
