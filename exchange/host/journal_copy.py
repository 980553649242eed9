"""A copy of a stream in a SQLite journal, which no fault of NATS can reach.

It has the same batches with the same digests as the stream. It is written
behind, in a thread, and nobody waits for it. If it cannot be written, the
exchange goes on without it. A start recovers it, from a snapshot beside it if
there is one, and then reads the stream from its end on.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from exchange.journal.message import Message
from exchange.journal.sqlite import Journal
from exchange.journal.storage import Storage

BEHIND_MAX = 1_000  # batches that wait for the disk while a stream is read

logger = logging.getLogger("exchange")


class JournalCopy:
    """Writes the batches of a stream into a journal that was recovered."""

    def __init__(self, journal: Storage) -> None:
        assert isinstance(journal, Journal)  # a file
        self.journal = journal
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "copy")
        self._behind = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._has_failed = False

    def keep(self, message: Message) -> None:
        """Store the next batch, behind."""
        if self._has_failed:
            return
        self._behind += 1
        if self._behind >= BEHIND_MAX:
            self._has_room.clear()
        self._loop.run_in_executor(
            self._thread,
            self.journal.store,
            message.first,
            message.last,
            message.body,
            message.checksum,
        ).add_done_callback(self._stored)

    async def room(self) -> None:
        """Wait while very many batches are behind."""
        await self._has_room.wait()

    async def close(self) -> None:
        """Store what is behind, and release the file."""
        await asyncio.to_thread(self._thread.shutdown)
        self.journal.close()

    def _stored(self, done: asyncio.Future[None]) -> None:
        self._behind -= 1
        if self._behind < BEHIND_MAX // 2:
            self._has_room.set()
        error = done.exception()
        if error is None or self._has_failed:
            return
        self._has_failed = True
        logger.error(
            "%s: not written any more, the exchange goes on without it: %s",
            self.journal.path,
            error,
        )
