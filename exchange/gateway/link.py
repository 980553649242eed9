"""One connection without its socket: its session, its inbox, its outbox.

A link keeps requests until its turn, and outgoing messages until a batch is
sealed. It knows neither sockets nor the engine. Its door turns bytes into
requests and messages into bytes.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Protocol, TypeAlias

from exchange.gateway import pacing
from exchange.gateway.pacing import SLOW_BYTES
from exchange.gateway.rates import Bucket
from exchange.market.command import LONG_WEIGHT, REQUESTS
from orderbook import (
    Error,
    Event,
    Get,
    Login,
    Request,
    RoleName,
    encode,
    with_id,
)

# Bytes of messages in the inbox from which the connection is not read. No less
# than one read brings, so that a usual client is not slowed down.
BYTES_WAITING = 16 * 1024

# Rows of a table that take as long as a request that places an order.
ROWS_PER_REQUEST = 12
# Bytes of a message that take as long, if most of it is invalid.
BYTES_PER_REQUEST = 1024
_SHORT_TABLES = ("account", "instruments")


@dataclass(frozen=True, slots=True, eq=False)
class Deferred:
    """A request of another protocol, which is not yet a native one.

    What it becomes may depend on the replies to the requests before it, so
    `Link.resolve` says so in its turn. ``is_login``: it may log in.
    """

    message: object
    is_login: bool = False


Incoming: TypeAlias = Request | Error | Deferred
# Requests that may weigh more than one.
_LONG = {Get, Deferred}
_LONG |= {kind for kind, row in REQUESTS.items() if row.weight > 1}

# Requests, their weight, and when the first of them came, 0 if there is none.
Taken: TypeAlias = tuple[list[Incoming], int, int]


def weigh(request: Incoming) -> int:
    """Return as how many requests one counts, by its greatest cost."""
    if isinstance(request, Deferred):
        return 2 * LONG_WEIGHT if request.is_login else 1
    if isinstance(request, Get):
        rows = 0 if request.what in _SHORT_TABLES else request.limit
        return 1 + rows // ROWS_PER_REQUEST
    return REQUESTS[request.__class__].weight


class Door(Protocol):
    """The encoding of a protocol.

    A message to send is given as the text of the native protocol, which is
    encoded once for all its readers.
    """

    def decode(self, message: bytes) -> Sequence[Incoming]:
        """Return the requests of one message; never raises."""

    def encode(self, texts: list[str]) -> bytes:
        """Return messages as bytes, ready to be written."""


class Peer(pacing.SendBuffer, Protocol):
    """The connection of a link, for the link's owner."""

    is_paused: bool  # it is not read, because too much waits

    def write(self, frames: bytes) -> None:
        """Send bytes that a door made, unless it is closing."""

    def close(self, code: int, reason: str = "") -> None:
        """Start the closing handshake."""

    def fail(self, code: int, reason: str = "") -> None:
        """Close, and do not parse what the client still sends."""

    def resume_reading(self) -> None:
        """Read again after ``is_paused``."""


class Link:
    """The state of one connection.

    ``account`` and ``session_id`` name its session. They are "" before the
    login, and after another connection has taken the session over. A link
    with anything to send adds itself to ``outgoing``. The link of a door with
    another protocol is a subclass.
    """

    # Whether the door limits its requests, and no bucket of the gateway does.
    is_limited_by_door = False
    # An account that it may log in to without the key, by its address.
    vouched_for = ""

    def __init__(
        self, peer: Peer, door: Door, outgoing: dict[Link, None]
    ) -> None:
        self.peer = peer
        self.door = door
        self.account = ""
        self.session_id = ""
        self.key: object = None  # the key that it logged in with
        self.role: RoleName = "trader"
        # The buckets of its requests, by type; those of other types use
        # `bucket`. None: unlimited.
        self.buckets: dict[type, Bucket | None] = {}
        self.bucket: Bucket | None = None
        # By bucket, a second bucket: the refusals that are still forgiven.
        self.strikes: dict[Bucket, Bucket] = {}
        self.counts: dict[type, int] = defaultdict(int)  # requests, by type
        self.is_cut = False  # it is cut off: its requests are ignored
        self.is_gone = False  # the connection has ended
        self.had_long_turn = False  # it goes to the backlog
        self.has_login = False  # the requests last taken have a login
        self.sealed_bytes = 0  # of messages that are not yet written
        # The ``seq`` of the last heartbeat, and of the last one committed.
        self.last_heartbeat: dict[str, int] = {}
        self.committed_heartbeat: dict[str, int] = {}
        self.may_be_slow = True  # False: it is not
        self._outgoing = outgoing
        self._inbox: deque[tuple[bytes, int]] = deque()  # with arrival times
        self._waiting = 0  # bytes in the inbox
        # The outbox: bytes that are encoded, and texts that follow them.
        self._sealed: list[bytes] = []
        self._texts: list[str] = []

    # In

    def receive(self, messages: list[bytes], now: int) -> None:
        """Put messages that came ``now`` into the inbox."""
        self._inbox.extend(zip(messages, repeat(now)))
        self._waiting += sum(map(len, messages))

    def take(self, enough: int) -> Taken:
        """Decode messages from the inbox, until they weigh ``enough``.

        The requests of a message stay together, so the last message may
        exceed it.
        """
        inbox, decode = self._inbox, self.door.decode
        arrival = inbox[0][1] if inbox else 0
        self.has_login = False
        taken: list[Incoming] = []
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
                    if request.__class__ is Login or (
                        request.__class__ is Deferred and request.is_login
                    ):
                        self.has_login = True
        return taken, weight, arrival

    def resolve(self, deferred: Deferred) -> Sequence[Request | Error]:
        """Return the native requests that a deferred one becomes.

        All replies before it have been sent. Called again if one of these
        requests had to wait.
        """
        raise AssertionError(f"the native door made {deferred}")

    def go_on(self) -> Sequence[Request | Error]:
        """Return what follows on the replies to what `resolve` returned."""
        return ()

    @property
    def waiting(self) -> int:
        """The number of messages in the inbox."""
        return len(self._inbox)

    @property
    def bytes_waiting(self) -> int:
        """The number of bytes in the inbox."""
        return self._waiting

    @property
    def is_full(self) -> bool:
        """Whether too much waits; if so, the connection is not read."""
        return self._waiting >= BYTES_WAITING or self.sealed_bytes > SLOW_BYTES

    # Out

    def send(self, *texts: str) -> None:
        """Queue messages."""
        self._texts += texts
        self._outgoing[self] = None

    def reply(self, request: Request | Error, event: Event) -> None:
        """Queue the reply to a request."""
        self.send(with_id(encode(event), request.id))

    def push(self, frames: bytes) -> None:
        """Queue messages that the door has encoded."""
        self._seal_texts()
        self._sealed.append(frames)
        self._outgoing[self] = None

    def seal(self) -> bytes:
        """Empty the outbox and return what was in it, encoded.

        The owner subtracts its length from ``sealed_bytes`` when it writes it.
        """
        self._seal_texts()
        frames = b"".join(self._sealed)
        self._sealed.clear()
        self.sealed_bytes += len(frames)
        if self.sealed_bytes > SLOW_BYTES:
            self.may_be_slow = True
        return frames

    def _seal_texts(self) -> None:
        if self._texts:
            self._sealed.append(self.door.encode(self._texts))
            self._texts.clear()
