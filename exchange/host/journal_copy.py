"""A copy of a stream in a SQLite journal, which no fault of NATS can reach.

It has the same batches with the same digests as the stream. It is written
behind, in a thread, and nobody waits for it. If it cannot be written, the
exchange goes on without it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from exchange.journal.message import Message
from exchange.journal.sqlite import Journal, JournalError

BEHIND_MAX = 1_000  # batches that wait for the disk while a stream is read

logger = logging.getLogger("exchange")


class JournalCopy:
    """A journal that gets the batches of a stream; raises JournalError."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._journal = Journal(path)
        try:
            for _ in self._journal.recover():
                pass
        except BaseException:
            self._journal.close()
            raise
        self._thread = ThreadPoolExecutor(1, "copy")
        self._last = self._journal.last_seq  # of the batches that it will have
        self._behind = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._has_failed = False

    def keep(self, message: Message) -> None:
        """Store a batch behind; raise JournalError if it does not follow.

        Batches that the copy has are skipped: they must be the same.
        """
        if self._has_failed:
            return
        if message.first <= self._last:
            if self._journal.digest_at(message.first) != message.digest:
                raise JournalError(
                    f"{self._journal.path}: of another stream: it differs from"
                    f" command {message.first:,} on"
                )
            return
        self._last = message.last
        self._behind += 1
        if self._behind >= BEHIND_MAX:
            self._has_room.clear()
        self._loop.run_in_executor(
            self._thread,
            self._journal.store,
            message.first,
            message.last,
            message.body,
            message.checksum,
        ).add_done_callback(self._stored)

    def check_end(self, seq: int) -> None:
        """Raise JournalError if the copy goes on after command ``seq``.

        ``seq`` is the last one of the stream: it has lost commands.
        """
        if seq < self._last and not self._has_failed:
            raise JournalError(
                f"{self._journal.path}: has {self._last:,} commands, and the"
                f" stream has lost those after {seq:,}: make a new stream of"
                " this copy with python -m util.restore"
            )

    async def room(self) -> None:
        """Wait while very many batches are behind."""
        await self._has_room.wait()

    async def close(self) -> None:
        """Store what is behind, and release the file."""
        await asyncio.to_thread(self._thread.shutdown)
        self._journal.close()

    def _stored(self, done: asyncio.Future[None]) -> None:
        self._behind -= 1
        if self._behind < BEHIND_MAX // 2:
            self._has_room.set()
        error = done.exception()
        if error is None or self._has_failed:
            return
        self._has_failed = True
        reason = str(error) if isinstance(error, sqlite3.Error) else error
        logger.error(
            "%s: not written any more, the exchange goes on without it: %s",
            self._journal.path,
            reason,
        )
