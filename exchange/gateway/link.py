"""One connection without its socket: who it is, what waits, what leaves.

A link holds requests until its turn, and outgoing messages until a batch is
sealed. It knows neither sockets nor the engine. Its door turns bytes into
requests and messages into bytes.
"""

from __future__ import annotations

from collections import defaultdict, deque
from itertools import repeat
from typing import Protocol, TypeAlias

from exchange.gateway import pacing
from exchange.gateway.pacing import SLOW_BYTES
from exchange.gateway.rates import Bucket
from exchange.market.command import REQUESTS
from orderbook import Error, Event, Get, Login, Request, encode, with_id

# Bytes of messages that may wait, as they came; with more the connection is
# not read. No less than one read brings, or the usual client would feel it.
BYTES_WAITING = 16 * 1024

# Rows of a table that take as long as a request, one that places an order.
ROWS_PER_REQUEST = 12
# Bytes of a message that take as long, at worst: if most of it is wrong.
BYTES_PER_REQUEST = 1024
_SHORT_TABLES = ("account", "instruments")
# Requests that may weigh more than one.
_LONG = (Get, *(kind for kind, row in REQUESTS.items() if row.weight > 1))

# Requests, what they weigh, and when the first of them came, 0 if none has.
Taken: TypeAlias = tuple[list[Request | Error], int, int]


def weigh(request: Request | Error) -> int:
    """Return how many requests one counts as, by what it may cost."""
    if isinstance(request, Get):
        rows = 0 if request.what in _SHORT_TABLES else request.limit
        return 1 + rows // ROWS_PER_REQUEST
    return REQUESTS[request.__class__].weight


class Door(Protocol):
    """What a protocol makes of bytes and messages.

    A message that leaves is given as the text of the native protocol, which
    is encoded once for all who get it.
    """

    def decode(self, message: bytes) -> list[Request | Error]:
        """Return the requests of one message; raises nothing."""

    def encode(self, texts: list[str]) -> bytes:
        """Return messages as bytes, ready to be written."""


class Peer(pacing.SendBuffer, Protocol):
    """What a link's owner needs of its connection."""

    is_held: bool  # it is not read, because too much waits

    def write(self, frames: bytes) -> None:
        """Send bytes that a door made; nothing once it is closing."""

    def close(self, code: int, reason: str = "") -> None:
        """Start the closing handshake."""

    def fail(self, code: int, reason: str = "") -> None:
        """Close, without waiting for what the peer has to say."""

    def resume_reading(self) -> None:
        """Read again after ``is_held``."""


class Link:
    """The state of one connection.

    ``account`` and ``session_id`` name the session that it serves. They are
    "" before the login, and after another connection has taken the session
    over. A link with anything to send puts itself into ``outgoing``.
    """

    def __init__(
        self, peer: Peer, door: Door, outgoing: dict[Link, None]
    ) -> None:
        self.peer = peer
        self.door = door
        self.account = ""
        self.session_id = ""
        self.key: object = None  # what it logged in with
        self.is_admin = False
        # The buckets that its requests draw on, by type; the others draw on
        # `bucket`. None: they are not limited.
        self.buckets: dict[type, Bucket | None] = {}
        self.bucket: Bucket | None = None
        # For each of them, how many refusals are forgiven.
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
        self._outgoing = outgoing
        self._inbox: deque[tuple[bytes, int]] = deque()  # and when they came
        self._waiting = 0  # bytes in the inbox
        # The outbox: what is framed already, and what comes after it.
        self._sealed: list[bytes] = []
        self._texts: list[str] = []

    # In

    def receive(self, messages: list[bytes], now: int) -> None:
        """Let messages of the peer wait, which have come ``now``."""
        self._inbox.extend(zip(messages, repeat(now)))
        self._waiting += sum(map(len, messages))

    def take(self, enough: int) -> Taken:
        """Decode the messages that came first; return their requests.

        And what they weigh, and when the first of them came, 0 if none has.
        The requests of a message stay together: it ends with the message
        that makes them enough.
        """
        inbox, decode = self._inbox, self.door.decode
        arrival = inbox[0][1] if inbox else 0
        self.has_login = False
        taken: list[Request | Error] = []
        weight = 0
        while inbox and weight < enough:
            message, _ = inbox.popleft()
            self._waiting -= len(message)
            requests = decode(message)
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
    def bytes_waiting(self) -> int:
        """How many bytes of messages wait to be taken."""
        return self._waiting

    @property
    def is_full(self) -> bool:
        """Whether too much waits for more to be read."""
        return self._waiting >= BYTES_WAITING or self.held > SLOW_BYTES

    # Out

    def send(self, *texts: str) -> None:
        """Queue messages."""
        self._texts += texts
        self._outgoing[self] = None

    def reply(self, request: Request | Error, event: Event) -> None:
        """Queue the reply to a request."""
        self.send(with_id(encode(event), request.id))

    def push(self, frames: bytes) -> None:
        """Queue messages that the door has encoded already."""
        self._seal_texts()
        self._sealed.append(frames)
        self._outgoing[self] = None

    def seal(self) -> bytes:
        """Empty the outbox and return what was in it, encoded.

        It counts as held until ``held`` is lowered by its length.
        """
        if self._texts and not self._sealed:  # as nearly always
            frames = self.door.encode(self._texts)
            self._texts.clear()
        else:
            self._seal_texts()
            frames = b"".join(self._sealed)
            self._sealed.clear()
        self.held += len(frames)
        if self.held > SLOW_BYTES:
            self.is_strained = True
        return frames

    def _seal_texts(self) -> None:
        if self._texts:
            self._sealed.append(self.door.encode(self._texts))
            self._texts.clear()
