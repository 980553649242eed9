"""One connection without its socket: who it is, what waits, what leaves.

A session holds requests until the server takes them, and outgoing
messages until the server releases them. It knows neither sockets nor the
engine; what is slow, and what is too slow, it measures in bytes.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Protocol, TypeAlias

from exchange.gateway.rates import Bucket
from orderbook import Error, Get, Login, Request, Subscribe, decode_requests

# Bytes of messages that may wait, as they came; with more the connection is
# not read. No less than one read brings, or the usual client would feel it.
BYTES_WAITING = 16 * 1024
# Characters of one outgoing frame, which must stay under 1 MiB even if each
# of them takes four bytes.
FRAME_CHARS = 250_000
# Bytes waiting to be read by the peer above which it gets no public data ...
SLOW_BYTES = 256 * 1024
# ... and above which it is cut off.
STUCK_BYTES = 4 << 20

# Rows of a table that take as long as a request, one that places an order.
ROWS_PER_REQUEST = 12
# Bytes of a message that take as long, at worst: if most of it is wrong.
BYTES_PER_REQUEST = 1024
# What a login counts as, or a subscription: they tell of the market, or send
# a whole book. Both together are no more than a first turn.
LONG_WEIGHT = 8
_LONG = (Get, Login, Subscribe)
_SHORT_TABLES = ("account", "instruments")

MakeFrames: TypeAlias = Callable[[list[str]], bytes]
# Requests, what they weigh, and when the first of them came, 0 if none has.
Taken: TypeAlias = tuple[list[Request | Error], int, int]


def weigh(request: Request | Error) -> int:
    """Return how many requests one counts as, by what it may cost."""
    if isinstance(request, Get):
        rows = 0 if request.what in _SHORT_TABLES else request.limit
        return 1 + rows // ROWS_PER_REQUEST
    return LONG_WEIGHT if request.__class__ in _LONG else 1


def pack(texts: list[str]) -> Iterator[str]:
    """Join messages into as few JSON texts as FRAME_CHARS allows.

    A message of its own stays an object, several become an array.
    """
    if sum(map(len, texts)) + len(texts) <= FRAME_CHARS:  # as nearly always
        if texts:
            yield _join(texts)
        return
    first, size = 0, 0
    for index, text in enumerate(texts):
        size += len(text) + 1
        if size > FRAME_CHARS and index > first:
            yield _join(texts[first:index])
            first, size = index, len(text) + 1
    yield _join(texts[first:])


def _join(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"


class Peer(Protocol):
    """What a session needs of its connection."""

    # Whether the socket has not taken all that was written for a while;
    # only then are there many bytes buffered.
    is_congested: bool

    @property
    def buffered(self) -> int:
        """Bytes written that the socket has not yet taken."""


class Session:
    """The state of one connection.

    ``account`` and ``session_id`` are "" until the login and after another
    connection has taken the session over. A session with anything to send
    puts itself into ``outgoing``, where the server finds it. ``make_frames``
    frames messages.
    """

    def __init__(
        self,
        peer: Peer,
        outgoing: dict[Session, None],
        make_frames: MakeFrames,
    ) -> None:
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
        self.counts: dict[type, int] = defaultdict(int)  # requests, by type
        self.is_cut = False  # it is being closed: nothing more is done
        self.is_gone = False  # the connection has ended
        self.was_greedy = False  # its last turn was a long one
        self.has_login = False  # among the requests last taken
        self.held = 0  # bytes sealed that have not yet left
        # The ``seq`` of the last heartbeat, and of the last that has left.
        self.last_beat: dict[str, int] = {}
        self.left_beat: dict[str, int] = {}
        self.is_strained = True  # it may be slow; if not, it is not
        self._peer = peer
        self._outgoing = outgoing
        self._make_frames = make_frames
        self._inbox: deque[tuple[bytes, int]] = deque()  # and when they came
        self._waiting = 0  # bytes in the inbox
        # The outbox: what is framed already, and what comes after it.
        self._sealed: list[bytes] = []
        self._texts: list[str] = []

    # In

    def receive(self, messages: list[bytes], now: int) -> None:
        """Let text messages of the peer wait, which have come ``now``."""
        self._inbox.extend(zip(messages, repeat(now)))
        self._waiting += sum(map(len, messages))

    def take(self, enough: int) -> Taken:
        """Decode the messages that came first; return their requests.

        And what they weigh, and when the first of them came, 0 if none has.
        The requests of a message stay together: it ends with the message
        that makes them enough.
        """
        inbox = self._inbox
        arrival = inbox[0][1] if inbox else 0
        self.has_login = False
        taken: list[Request | Error] = []
        weight = 0
        while inbox and weight < enough:
            message, _ = inbox.popleft()
            self._waiting -= len(message)
            requests = decode_requests(message)
            taken += requests
            weight += max(len(requests), len(message) // BYTES_PER_REQUEST)
            for request in requests:
                if request.__class__ in _LONG:
                    weight += weigh(request) - 1
                    if request.__class__ is Login:
                        self.has_login = True
        return taken, weight, arrival

    @property
    def waiting(self) -> int:
        """How many messages wait."""
        return len(self._inbox)

    @property
    def is_full(self) -> bool:
        """Whether so much waits that no more should be read."""
        return self._waiting >= BYTES_WAITING or self.held > SLOW_BYTES

    # Out

    def send(self, *texts: str) -> None:
        """Queue messages."""
        self._texts += texts
        self._outgoing[self] = None

    def push(self, frames: bytes) -> None:
        """Queue messages that are framed already."""
        self._seal_texts()
        self._sealed.append(frames)
        self._outgoing[self] = None

    def seal(self) -> bytes:
        """Empty the outbox and return what was in it, framed.

        It counts as held until ``held`` is lowered by its length.
        """
        self._seal_texts()
        frames = b"".join(self._sealed)
        self._sealed.clear()
        self.held += len(frames)
        if self.held > SLOW_BYTES:
            self.is_strained = True
        return frames

    def _seal_texts(self) -> None:
        if self._texts:
            self._sealed.append(self._make_frames(self._texts))
            self._texts.clear()

    @property
    def is_slow(self) -> bool:
        """Whether the peer reads too slowly for public data."""
        if self._peer.is_congested:
            return self._peer.buffered + self.held > SLOW_BYTES
        self.is_strained = self.held > SLOW_BYTES
        return self.is_strained

    @property
    def is_stuck(self) -> bool:
        """Whether the peer reads too slowly to be kept."""
        return self._peer.is_congested and self._peer.buffered > STUCK_BYTES
