"""Stands by: follows the stream of a primary, and takes over from it.

The log decides: who stores a fence after the last message that it has applied
is the primary, and every older one is refused from then on. Time decides only
when a standby tries: after T without a message, while the stream answers. A
wrong guess does no harm to the journal.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass

from exchange.host.journal_copy import JournalCopy
from exchange.journal.address import Address
from exchange.journal.appender import Appender
from exchange.journal.follower import Follower
from exchange.journal.lease import Lease, Silence
from exchange.journal.locate import locate, message_at
from exchange.journal.message import BYE, FENCE, Cursor, Position, Writer
from exchange.journal.servers import Unanswered
from exchange.journal.storage import Batch
from exchange.journal.stream import Refused, Stream

AGAIN_S = 0.2  # from a request without an answer to the next one
READS = 4  # in each T, at least

logger = logging.getLogger("exchange")


@dataclass(frozen=True, slots=True)
class Lead:
    """What a process has that has become the primary."""

    stream: Stream
    appender: Appender


class Standby:
    """A process that may become the primary.

    Args:
        address: of the stream.
        writer: names this process.
        apply: takes each batch, and may raise DivergedError.
        copy: a journal that gets each batch too; ``apply`` has had what is in
            it.
        elapsed: returns microseconds since some moment.
        new_id: returns a random word for a new stream.
    """

    def __init__(
        self,
        address: Address,
        writer: Writer,
        apply: Callable[[Batch], object],
        *,
        copy: JournalCopy | None,
        elapsed: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        self.trouble = ""  # why the stream cannot be followed
        self._address = address
        self._writer = writer
        self._apply = apply
        self._copy = copy
        self._elapsed = elapsed
        self._new_id = new_id
        self._silence = Silence(writer.lease_us)
        # Whether the T of the primary whose messages the copy has is known.
        self._was_heard = False
        self._follower: Follower | None = None

    @property
    def pending(self) -> int | None:
        """Messages that are stored and not yet applied; None: not known."""
        if self._follower is None or self.trouble:
            return None
        return self._follower.pending

    async def take_over(self) -> Lead:
        """Follow until no primary is left; return as the new one.

        Raises JournalError if the stream is not a journal, is damaged, or
        cannot be read by this program.
        """
        copy = self._copy
        stream, at = await open_at(
            self._address, self._new_id, copy, self._note
        )
        self._was_heard = at == Position()  # what follows will be read
        follower = Follower(
            stream, self._apply, at, keep=copy.keep if copy else None
        )
        self._follower = follower
        gc.disable()  # the engine makes no cycles
        try:
            while True:
                try:
                    lead = await self._step(stream, follower)
                except Unanswered as error:
                    self._silence.unanswered()
                    self._note(str(error))
                    await asyncio.sleep(AGAIN_S)
                    continue
                self._note("")
                if copy is not None:
                    await copy.room()
                if lead is not None:
                    await follower.close()
                    return lead
                if not gc.isenabled() and not follower.pending:
                    has_caught_up(self._address, follower)
        except BaseException:
            await stream.close()
            raise
        finally:
            gc.enable()

    async def _step(self, stream: Stream, follower: Follower) -> Lead | None:
        """Read once; take over if it is time to."""
        if not self._was_heard:
            await self._hear_last(stream, follower.at.sequence)
        messages = await follower.read(self._timeout_s())
        if messages:
            now = self._elapsed()
            for message in messages:
                self._silence.heard(now, message.lease_us)
            if messages[-1].kind == BYE:
                self._silence.left()
            return None
        due = self._silence.fence_at
        if due is not None and self._elapsed() < due:
            return None
        state = await follower.look()
        self._silence.answered(self._elapsed())
        if not state.last:  # nobody has ever led
            self._silence.left()
        due = self._silence.fence_at
        if follower.pending or due is None or self._elapsed() < due:
            return None
        return await self._fence(stream, follower.at)

    async def _hear_last(self, stream: Stream, sequence: int) -> None:
        """Wait for the primary that sent the last message of the copy.

        Its T may be longer than that of this process.
        """
        last = await message_at(stream, sequence)
        self._silence.heard(self._elapsed(), last.lease_us)
        self._was_heard = True

    def _timeout_s(self) -> float:
        due = self._silence.fence_at
        if due is None:  # it is not known whether the stream answers
            return AGAIN_S
        most = min(self._writer.lease_us / READS, due - self._elapsed())
        return max(0.0, most / 1e6)

    async def _fence(self, stream: Stream, at: Position) -> Lead | None:
        """Try to become the primary."""
        lease = Lease(self._writer.lease_us)
        message = self._writer.sign(FENCE, at)
        sent = self._elapsed()
        try:
            await stream.append(message, at.sequence)
        except Refused:  # there is more to read
            return None
        lease.sent(sent)
        lease.stored(sent)
        cursor = Cursor(stream.address, at)
        cursor.pass_own(message)
        return Lead(stream, Appender(stream, lease, self._elapsed, cursor.at))

    def _note(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            if trouble:
                logger.warning("%s: %s", self._address, trouble)
            else:
                logger.warning("%s: answers again", self._address)


async def open_at(
    address: Address,
    new_id: Callable[[], str] | None,
    copy: JournalCopy | None,
    note: Callable[[str], None],
) -> tuple[Stream, Position]:
    """Return a stream, and the position where a copy of it ends.

    It asks until it is answered; ``note`` gets why it is not. ``new_id`` is
    that of `Stream.open`. Raises JournalError if the stream is no journal or
    the copy is not one of it.
    """
    while True:
        try:
            return await _try_to_open(address, new_id, copy)
        except Unanswered as error:
            note(str(error))
            await asyncio.sleep(AGAIN_S)


async def _try_to_open(
    address: Address,
    new_id: Callable[[], str] | None,
    copy: JournalCopy | None,
) -> tuple[Stream, Position]:
    stream = await Stream.open(address, new_id)
    try:
        if copy is None:
            return stream, Position()
        return stream, await locate(stream, copy.journal)
    except BaseException:
        await stream.close()
        raise


def has_caught_up(address: Address, follower: Follower) -> None:
    """Collect garbage from now on, without what has been read so far."""
    gc.freeze()
    gc.enable()
    logger.info(
        "%s: follows after %s commands", address, f"{follower.at.seq:,}"
    )
