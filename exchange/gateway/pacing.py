"""Slow readers, and when public data leave: the whole policy.

Public data leave less often while requests wait, and where readers are many.
They are written to a bounded number of readers between two looks at the
sockets; a `Pacing` knows which readers still wait. A reader with too much
unread gets no public data until it has drained, and with far too much it is
cut off.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from itertools import islice
from typing import Generic, Protocol, TypeVar

# Bytes waiting to be read by the peer above which it gets no public data ...
SLOW_BYTES = 256 * 1024
# ... and above which it is cut off.
STUCK_BYTES = 4 << 20
# While requests wait, public data leave no more often than this: each reader
# costs the same however much has changed.
FEED_US = 5_000
# From MANY_READERS on, public data leave no more often than once in this time
# for each reader. That leaves more than half of the time to requests.
FEED_READER_US = 5
MANY_READERS = 100
# Readers that get public data between two looks at the sockets: the kernel
# takes some 5 us for each write.
READERS_PER_ROUND = 64


class Peer(Protocol):
    """What tells whether the other side of a connection reads."""

    # Whether the socket has not taken all that was written for a while;
    # only then are there many bytes buffered.
    is_congested: bool

    @property
    def buffered(self) -> int:
        """Bytes written that the socket has not yet taken."""


class Reader(Protocol):
    """Whom messages are written to."""

    held: int  # bytes sealed that have not yet left
    is_strained: bool  # it may be slow; if not, it is not

    @property
    def peer(self) -> Peer:
        """The other side of its connection."""


def is_slow(reader: Reader) -> bool:
    """Whether a reader has too much unread for public data."""
    if reader.peer.is_congested:
        return reader.peer.buffered + reader.held > SLOW_BYTES
    reader.is_strained = reader.held > SLOW_BYTES
    return reader.is_strained


def is_stuck(reader: Reader) -> bool:
    """Whether a reader has too much unread to be kept."""
    return reader.peer.is_congested and reader.peer.buffered > STUCK_BYTES


R = TypeVar("R", bound=Hashable)


class Pacing(Generic[R]):
    """When public data leave, and which readers are still to get some."""

    def __init__(self) -> None:
        # When public data leave next, because they wait; None: none wait.
        self.due: int | None = None
        self.is_busy = False  # some readers are still to get the last ones
        self.owed: dict[R, bytes] = {}
        self._left_ts = 0  # when public data last left

    def may_leave(self, now: int, readers: int, is_more: bool) -> bool:
        """Say whether public data may leave now; set ``due`` if not.

        ``is_more``: requests wait. ``readers`` follow public data.
        """
        rest = FEED_US if is_more else 0
        if readers >= MANY_READERS:
            rest = max(rest, readers * FEED_READER_US)
        due = self._left_ts + rest
        if self.is_busy:
            due = max(due, now + FEED_US)
        self.due = due if now < due else None
        return self.due is None

    def note_left(self, now: int) -> None:
        """Note that all public data that waited leave now."""
        self._left_ts = now
        self.due = None

    def owe(self, frames: bytes, readers: Iterable[R]) -> None:
        """Let readers get public data, in turn, after what they have to."""
        owed = self.owed
        if owed:
            for reader in readers:
                owed[reader] = owed.get(reader, b"") + frames
        else:
            owed.update(dict.fromkeys(readers, frames))

    def take(self) -> list[tuple[R, bytes]]:
        """Return what the next readers are to get now."""
        owed = self.owed
        taken = [
            (reader, owed.pop(reader))
            for reader in [*islice(owed, READERS_PER_ROUND)]
        ]
        self.is_busy = bool(owed)
        return taken

    def take_for(self, reader: R) -> bytes:
        """Return what a reader is to get before anything else."""
        return self.owed.pop(reader, b"")
