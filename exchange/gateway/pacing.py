"""Slow readers, and when public data are sent: the whole policy.

Public data are sent less often while requests wait, and if readers are many.
They are written to a bounded number of readers between two polls of the
sockets; a `Pacing` has what is pending for the others. A reader with too much
unread gets no public data until it has drained, and with far too much it is
cut off.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from itertools import islice
from typing import Generic, Protocol, TypeVar

from orderbook import MAX_INT

# Unread bytes above which a reader gets no public data.
SLOW_BYTES = 256 * 1024
# Unread bytes above which a reader is cut off.
STUCK_BYTES = 4 << 20
# The least time between two sends of public data while requests wait. A send
# costs the same for each reader, however much has changed.
FEED_US = 5_000
# With MANY_READERS or more, the least time between two sends is this for each
# reader, so that requests get more than half of the time.
FEED_READER_US = 5
MANY_READERS = 100
# Readers that get public data between two polls of the sockets: the kernel
# takes some 5 us for each write.
READERS_PER_ROUND = 64


class SendBuffer(Protocol):
    """The bytes of a connection that its peer has not read."""

    # Whether the socket has not taken all bytes for a while. Only then are
    # many bytes buffered.
    is_congested: bool

    @property
    def buffered(self) -> int:
        """Bytes written that the socket has not taken yet."""


class Reader(Protocol):
    """A subscriber of public data."""

    sealed_bytes: int  # of messages that are not yet written
    may_be_slow: bool  # False: `is_slow` need not be called

    @property
    def peer(self) -> SendBuffer:
        """Its connection."""


def is_slow(reader: Reader) -> bool:
    """Whether a reader has too much unread for public data."""
    if reader.peer.is_congested:
        return reader.peer.buffered + reader.sealed_bytes > SLOW_BYTES
    reader.may_be_slow = reader.sealed_bytes > SLOW_BYTES
    return reader.may_be_slow


def is_stuck(reader: Reader) -> bool:
    """Whether a reader has too much unread to be kept."""
    return reader.peer.is_congested and reader.peer.buffered > STUCK_BYTES


R = TypeVar("R", bound=Hashable)


class Pacing(Generic[R]):
    """When public data are sent, and what is pending for each reader."""

    def __init__(self) -> None:
        # When public data that wait are sent, in elapsed microseconds; None:
        # none wait.
        self.due: int | None = None
        self.is_busy = False  # the last data are pending for some readers
        self.pending: dict[R, bytes] = {}
        self._published_at = -MAX_INT  # when public data were last sent

    def may_publish(self, now: int, readers: int, is_more: bool) -> bool:
        """Return whether public data may be sent now; set ``due`` if not.

        ``now`` counts real microseconds, because sending takes real time.
        ``is_more``: requests wait. ``readers`` is the number of subscribers.
        """
        pause_us = FEED_US if is_more else 0
        if readers >= MANY_READERS:
            pause_us = max(pause_us, readers * FEED_READER_US)
        due = self._published_at + pause_us
        if self.is_busy:
            due = max(due, now + FEED_US)
        self.due = due if now < due else None
        return self.due is None

    def note_published(self, now: int) -> None:
        """Note that all public data that waited are sent now."""
        self._published_at = now
        self.due = None

    def enqueue(self, frames: bytes, readers: Iterable[R]) -> None:
        """Add public data for readers, after what is pending for them."""
        pending = self.pending
        if pending:
            for reader in readers:
                pending[reader] = pending.get(reader, b"") + frames
        else:
            pending.update(dict.fromkeys(readers, frames))

    def take(self) -> list[tuple[R, bytes]]:
        """Remove and return what is pending for the next readers."""
        pending = self.pending
        taken = [
            (reader, pending.pop(reader))
            for reader in [*islice(pending, READERS_PER_ROUND)]
        ]
        self.is_busy = bool(pending)
        return taken

    def take_for(self, reader: R) -> bytes:
        """Remove and return what is pending for one reader."""
        return self.pending.pop(reader, b"")
