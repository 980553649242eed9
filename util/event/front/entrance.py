"""The socket of a client, until the front knows where it goes.

A subclass reads the first bytes and says where. Until then they are kept
here, with a bound on their number and their time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from exchange.doors.names import Names

from .sides import Inner, Side
from .table import Table

LOOPBACK = "127.0.0.1"
HEAD_MAX = 16 * 1024  # bytes before it is known where a client goes
HEAD_S = 10.0  # from accepting a socket to that
CONNECT_S = 5.0  # an exchange on this machine answers in milliseconds


class Router(Protocol):
    """What an entrance needs of the front."""

    @property
    def table(self) -> Table:
        """Return who plays where."""

    @property
    def names(self) -> Names | None:
        """Return by which names and from which pages one may enter."""

    def enter(self, entrance: Entrance) -> bool:
        """Count a socket; return whether there is room for it."""

    def leave(self, entrance: Entrance) -> None:
        """Forget a socket that has ended."""


class Entrance(Side):
    """A client's socket; ``match`` is where its bytes go, as in "A/03"."""

    def __init__(self, router: Router) -> None:
        super().__init__()
        self.match = ""
        self.address = ""
        self._router = router
        self._head = b""
        self._is_sent = False  # it is known where it goes, or it is answered
        self._timer: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None

    def read_head(self, head: bytes) -> bytes:
        """Look at the first bytes; return those that are still needed.

        Calls `send_to`, `answer` or `cut_later` if they suffice.
        """
        raise NotImplementedError

    def no_exchange(self) -> None:
        """Answer that the exchange cannot be reached now."""
        raise NotImplementedError

    # Called by the loop

    def connection_made(self, transport: Any) -> None:
        """Count the socket, and wait for its first bytes."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        if not self._router.enter(self):
            self._is_sent = True
            transport.abort()
            return
        self._arm(HEAD_S, self.abort)

    def data_received(self, data: bytes) -> None:
        """Copy, or collect the head."""
        if self.peer is not None:
            self.peer.write(data)
        elif not self._is_sent:
            self._head = self.read_head(self._head + data)
            if not self._is_sent and len(self._head) > HEAD_MAX:
                self.abort()
        elif self._opening is not None:  # read before the pause took effect
            self._head += data

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place to another client."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()
        self._router.leave(self)

    # What a head leads to

    def send_to(self, port: int, data: bytes, match: str = "") -> None:
        """Join this socket with a port of this machine; first send bytes."""
        self.match = match
        self._is_sent = True
        self._stop_timer()
        self.pause()
        self._opening = asyncio.create_task(self._open(port, data))

    async def _open(self, port: int, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                _, inner = await loop.create_connection(Inner, LOOPBACK, port)
        except (OSError, TimeoutError):
            self.no_exchange()
            return
        if self.is_lost:
            inner.abort()
            return
        self.join(inner)
        inner.write(data + self._head)
        self._head = b""
        self.resume()

    def answer(self, data: bytes) -> None:
        """Send the only answer, and hang up."""
        self._is_sent = True
        self._stop_timer()
        self.write(data)
        self.close()

    def cut_later(self, delay_s: float) -> None:
        """Read no more, and hang up later."""
        self._is_sent = True
        self.pause()
        self._arm(delay_s, self.close)

    def cut(self) -> None:
        """Hang up: the match is over."""
        if self.peer is not None:
            self.peer.close()
        self.close()

    def abort(self) -> None:
        """Cut off both sides at once."""
        if self._opening is not None:
            self._opening.cancel()
        if self.peer is not None:
            self.peer.abort()
        super().abort()

    def _arm(self, delay_s: float, call: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(delay_s, call)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
