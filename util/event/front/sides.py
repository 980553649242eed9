"""Copy bytes between two sockets, with a bound on what waits in between.

A `Side` is one socket. What it reads is written to its peer; while the peer
does not take it, nothing is read. So a slow reader is as slow for the exchange
as without the front.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

# Bytes that wait for a socket before its peer is not read any more. One more
# read, of at most 256 KiB, may come on top.
BUFFER_MAX = 64 * 1024
# Bytes that the kernel keeps of what an exchange sends, or the exchange would
# notice late that a client does not read.
RECEIVE_BUFFER = 64 * 1024
# For what is left to be taken after the other side has ended.
CLOSE_S = 5.0


class Side(asyncio.Protocol):
    """One of two sockets that are joined."""

    def __init__(self) -> None:
        self.peer: Side | None = None
        self.is_lost = False
        self._transport: Any = None
        self._is_closing = False

    def join(self, peer: Side) -> None:
        """Copy from now on, both ways."""
        self.peer, peer.peer = peer, self

    # Called by the loop

    def connection_made(self, transport: Any) -> None:
        """Bound the buffer of what is written."""
        self._transport = transport
        transport.set_write_buffer_limits(high=BUFFER_MAX)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Copy."""
        if self.peer is not None:
            self.peer.write(data)

    def pause_writing(self) -> None:
        """Read no more from the peer."""
        if self.peer is not None:
            self.peer.pause()

    def resume_writing(self) -> None:
        """Read on from the peer."""
        if self.peer is not None:
            self.peer.resume()

    def eof_received(self) -> bool:
        """Pass the end on; what the peer still sends is copied."""
        if self.peer is not None:
            self.peer.write_eof()
        peer = self.peer
        both = (self, peer) if peer is not None else ()
        return bool(both) and all(side.can_write_eof for side in both)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the peer, after what was written to it."""
        self.is_lost = True
        if self.peer is not None:
            self.peer.close()

    # Called by the peer

    @property
    def can_write_eof(self) -> bool:
        """Whether this socket can end one way only; TLS cannot."""
        return self._transport.get_extra_info("sslcontext") is None

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if not self.is_lost:
            self._transport.write(data)

    def write_eof(self) -> None:
        """Send an end, after what was written."""
        if self.is_lost or self._is_closing:
            return
        if self.can_write_eof:
            self._transport.write_eof()
        else:
            self.close()

    def pause(self) -> None:
        """Read no more."""
        if not self.is_lost:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if not self.is_lost:
            self._transport.resume_reading()

    def close(self) -> None:
        """Close after what was written; cut off who does not take it."""
        if self.is_lost or self._is_closing:
            return
        self._is_closing = True
        self._transport.close()
        loop = asyncio.get_running_loop()
        loop.call_later(CLOSE_S, self._transport.abort)

    def abort(self) -> None:
        """Cut off at once."""
        if not self.is_lost:
            self._transport.abort()


class Inner(Side):
    """The socket to an exchange, or to the pages."""

    def connection_made(self, transport: Any) -> None:
        """Bound what the kernel holds for us."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
