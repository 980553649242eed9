"""The only writer of a stream: one message at a time, until it is known.

An append that got no answer may be stored or not. It is sent again, with the
same expectation, so it cannot be stored twice, until one of these is known:

- it is acknowledged;
- the stream refuses it, and the message at its number is this one: an earlier
  try was stored;
- the message at its number is another one: somebody else is the writer, and
  this process is fenced.

A refusal with no message at that number says nothing: the stream's leader
refuses by the appends under way, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from exchange.journal.lease import Fenced, Lease
from exchange.journal.message import Cursor, Message, Position
from exchange.journal.servers import Unanswered
from exchange.journal.stream import Refused, Stream

AGAIN_S = 0.05  # from a try without an answer to the next one

logger = logging.getLogger("exchange")


class Appender:
    """The only writer of a stream: one message at a time, until it is known.

    ``lease`` is renewed by each message that is stored; ``now`` returns
    elapsed microseconds. ``at`` is the position after the last message.
    """

    def __init__(
        self,
        stream: Stream,
        lease: Lease,
        now: Callable[[], int],
        at: Position,
    ) -> None:
        self.lease = lease
        self.trouble = ""  # why nothing is stored; "": the last append was
        self._stream = stream
        self._now = now
        self._cursor = Cursor(stream.address, at)

    @property
    def at(self) -> Position:
        """The position after the last message that is stored."""
        return self._cursor.at

    async def append(self, message: Message) -> None:
        """Store a message that follows ``at``; wait as long as it takes.

        Raises Fenced if another process has written.
        """
        first = self._now()
        self.lease.sent(first)
        sent = first
        while not await self._is_stored(message, first, sent):
            await asyncio.sleep(AGAIN_S)
            sent = self._now()
        self._cursor.pass_own(message)
        self._note("")

    async def _is_stored(
        self, message: Message, first: int, sent: int
    ) -> bool:
        """Try once; return whether the message is stored by now.

        ``sent`` is the time of this try, ``first`` that of the first one.
        """
        expected = self._cursor.sequence
        try:
            try:
                await self._stream.append(message, expected)
            except Refused:
                stored = await self._stream.fetch(expected + 1)
                if stored is None:
                    raise Unanswered("an append under way")
                if stored != message:
                    self.lease.end()
                    raise Fenced(
                        f"{self._stream.address}: {stored.node} has written"
                        f" message {expected + 1:,}"
                    ) from None
                self.lease.stored(first)
                return True
        except Unanswered as error:
            self._note(str(error))
            return False
        self.lease.stored(sent)
        return True

    def _note(self, trouble: str) -> None:
        """Log why nothing is stored, when that changes."""
        if trouble != self.trouble:
            self.trouble = trouble
            where = self._stream.address
            if trouble:
                logger.warning("%s: nothing is stored: %s", where, trouble)
            else:
                logger.warning("%s: commands are stored again", where)
