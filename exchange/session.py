"""One connection without its socket: who it is, what waits, what leaves.

A session holds decoded requests until the server takes them, and outgoing
messages until the server releases them. It knows neither sockets nor the
engine; what is slow, and what is too slow, it measures in bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeAlias

from exchange.rate import Bucket
from orderbook import Error, Request, decode_requests

# Requests of one connection that one loop tick takes: one full frame.
REQUESTS_PER_TURN = 100
# Requests that may wait decoded; beyond them the connection is not read, and
# what one read has brought too much waits as it came: to decode all of the
# thousands that a read can hold would keep everybody else waiting.
REQUESTS_WAITING = 200
# Characters of one outgoing frame, which must stay under 1 MiB even if each
# of them takes four bytes.
FRAME_CHARS = 250_000
# Bytes waiting to be read by the peer above which it gets no public data ...
SLOW_BYTES = 256 * 1024
# ... and above which it is cut off.
STUCK_BYTES = 4 << 20

Frame: TypeAlias = list[Request | Error]


def pack(texts: list[str]) -> Iterator[str]:
    """Join messages into as few JSON texts as FRAME_CHARS allows.

    A message of its own stays an object, several become an array.
    """
    first, size = 0, 0
    for index, text in enumerate(texts):
        size += len(text) + 1
        if size > FRAME_CHARS and index > first:
            yield _join(texts[first:index])
            first, size = index, len(text) + 1
    if texts:
        yield _join(texts[first:])


def _join(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"


class Peer(Protocol):
    """What a session needs of its connection."""

    @property
    def buffered(self) -> int:
        """Bytes written that the socket has not yet taken."""


class Session:
    """The state of one connection.

    ``account`` and ``session_id`` are "" until the login and after another
    connection has taken the session over. A session with anything to send
    puts itself into ``outgoing``, where the server finds it.
    """

    def __init__(self, peer: Peer, outgoing: dict[Session, None]) -> None:
        self.account = ""
        self.session_id = ""
        self.key: object = None  # what it logged in with
        self.is_admin = False
        # What its requests draw on, by type; the others draw on `bucket`.
        # None: they are not limited.
        self.buckets: dict[type, Bucket | None] = {}
        self.bucket: Bucket | None = None
        # Of each of them, how many refusals are forgiven.
        self.strikes: dict[Bucket, Bucket] = {}
        self.counts: dict[type, int] = {}  # of its requests, by type
        self.is_cut = False  # it is being closed: nothing more is done
        self.is_gone = False  # the connection has ended
        self.waiting = 0  # requests in the inbox
        self.held = 0  # characters and bytes sealed that have not yet left
        self._peer = peer
        self._outgoing = outgoing
        self._inbox: deque[Frame] = deque()
        self._undecoded: deque[bytes] = deque()
        self._outbox: list[str | Iterable[bytes]] = []

    # In

    def receive(self, messages: Iterable[bytes]) -> None:
        """Let text messages of the peer wait."""
        self._undecoded.extend(messages)
        self._decode()

    def take(self) -> Frame:
        """Return the requests of whole frames, one turn's share of them.

        The requests of a frame stay together, so a turn ends before the
        frame that would exceed REQUESTS_PER_TURN.
        """
        inbox = self._inbox
        taken: Frame = []
        while inbox and len(taken) + len(inbox[0]) <= REQUESTS_PER_TURN:
            taken += inbox.popleft()
        self.waiting -= len(taken)
        self._decode()
        return taken

    def _decode(self) -> None:
        while self._undecoded and self.waiting < REQUESTS_WAITING:
            frame = decode_requests(self._undecoded.popleft())
            self.waiting += len(frame)
            self._inbox.append(frame)

    @property
    def is_full(self) -> bool:
        """Whether so much waits that no more should be read."""
        return self.waiting >= REQUESTS_WAITING or self.held > SLOW_BYTES

    # Out

    def send(self, text: str) -> None:
        """Queue one message."""
        self._outbox.append(text)
        self._outgoing[self] = None

    def push(self, frames: Iterable[bytes]) -> None:
        """Queue ready frames."""
        self._outbox.append(frames)
        self._outgoing[self] = None

    def seal(self) -> list[str | bytes]:
        """Empty the outbox: texts still to be framed, and ready frames.

        They count as held until ``held`` is lowered by their length.
        """
        outbox, self._outbox = self._outbox, []
        if len(outbox) == 1 and not isinstance(outbox[0], str):
            frames = [*outbox[0]]  # a reader of public data, as most are
            self.held += sum(map(len, frames))
            return [*frames]
        sealed: list[str | bytes] = []
        texts: list[str] = []
        for item in outbox:
            if isinstance(item, str):
                texts.append(item)
                continue
            sealed += pack(texts)
            texts = []
            sealed += item
        sealed += pack(texts)
        self.held += sum(map(len, sealed))
        return sealed

    @property
    def is_slow(self) -> bool:
        """Whether the peer reads too slowly for public data."""
        return self._peer.buffered + self.held > SLOW_BYTES

    @property
    def is_stuck(self) -> bool:
        """Whether the peer reads too slowly to be kept."""
        return self._peer.buffered > STUCK_BYTES
