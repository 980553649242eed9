"""One end of a connection in memory, as asyncio knows it.

What one end writes arrives at the other after the latency, never before what
was written earlier. Buffers are bounded as those of sockets are: an end that
does not read stops the other's writes, and its protocol is told. An end
closes, half-closes and aborts as a socket does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from .loop import Handle, VirtualLoop

if TYPE_CHECKING:
    from .network import Link

# Bytes on the way and not read: what two kernels hold for a connection on one
# machine, about.
WINDOW = 256 * 1024
HIGH_WATER = 64 * 1024  # asyncio's default
READ_MAX = 256 * 1024  # bytes of one read, as in asyncio


class _Message:
    """Bytes on the way; ``is_eof``: and the end of them."""

    __slots__ = ("arrival", "data", "is_eof")

    def __init__(self, arrival: int, data: bytes, is_eof: bool) -> None:
        self.arrival = arrival
        self.data = data
        self.is_eof = is_eof


class Transport(asyncio.Transport):
    """One end of a link; ``peer`` is the other."""

    peer: Transport

    def __init__(
        self,
        loop: VirtualLoop,
        link: Link,
        here: tuple[str, int],
        there: tuple[str, int],
    ) -> None:
        super().__init__({"sockname": here, "peername": there})
        self.is_lost = False  # connection_lost is called, or about to be
        self._loop = loop
        self._link = link
        self._protocol: asyncio.BaseProtocol | None = None
        self._context: Context | None = None
        self._is_closing = False
        # What it writes: bytes that the window has no room for, bytes of the
        # window in use, the newest message on the way.
        self._buffer: deque[bytes] = deque()
        self._buffered = 0
        self._in_window = 0
        self._newest: _Message | None = None
        self._arrival = 0  # of the newest message
        self._sent_at = -1
        self._is_eof_due = False  # after the buffer
        self._is_eof_sent = False
        self._high, self._low = HIGH_WATER, HIGH_WATER // 4
        self._is_congested = False
        # What it reads: bytes that have arrived and were not read.
        self._unread: deque[bytes] = deque()
        self._has_eof = False
        self._is_paused = False
        self._is_reading_due = False

    # What a protocol calls ---------------------------------------------------

    def use(self, protocol: asyncio.BaseProtocol, context: Context) -> None:
        """Call a protocol in a context from now on."""
        self._context = context
        self.set_protocol(protocol)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Call another protocol from now on."""
        self._protocol = protocol
        self._is_buffered = isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol that is called."""
        assert self._protocol is not None
        return self._protocol

    def is_closing(self) -> bool:
        """Return whether it is closed, or closes once all is sent."""
        return self._is_closing

    def close(self) -> None:
        """Send what is left and an EOF, and read nothing more."""
        if self._is_closing:
            return
        self._is_closing = True
        if self._unread:  # a socket that closes unread answers with a reset
            self._reset_peer()
        elif not self._is_eof_due:
            self.write_eof()
        if not self._buffer:
            self._lose_soon(None)

    def abort(self) -> None:
        """Reset the connection; unsent bytes are lost."""
        if not self.is_lost:
            self._buffer.clear()
            self._buffered = 0
            self._reset_peer()
            self._lose_soon(None)

    def write(self, data: Any) -> None:
        """Send bytes; those that the window has no room for wait."""
        if self.is_lost or not data:
            return
        if self._is_eof_due:
            raise RuntimeError("Cannot call write() after write_eof()")
        if type(data) is not bytes:
            data = bytes(data)
        if self._in_window + len(data) <= WINDOW and not self._buffer:
            self._send(data)
            return
        self._buffer.append(data)
        self._buffered += len(data)
        self._fill_window()
        self._check_congestion()

    def writelines(self, list_of_data: Any) -> None:
        """Send some buffers as one."""
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """Send an EOF after the last byte, and go on reading."""
        if not self._is_eof_due:
            self._is_eof_due = True
            self._fill_window()

    def can_write_eof(self) -> bool:
        """Return True."""
        return True

    def get_write_buffer_size(self) -> int:
        """Return the bytes for which the window has no room yet."""
        return self._buffered

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the low and the high water mark."""
        return self._low, self._high

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        """Set the marks at which the protocol pauses and resumes writing."""
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        self._high, self._low = high, high // 4 if low is None else low
        self._check_congestion()

    def is_reading(self) -> bool:
        """Return whether what arrives is read."""
        return not self._is_paused and not self._is_closing

    def pause_reading(self) -> None:
        """Leave what arrives unread."""
        self._is_paused = True

    def resume_reading(self) -> None:
        """Read what has arrived, in the next turn of the loop."""
        if self._is_paused:
            self._is_paused = False
            if self._unread or self._has_eof:
                self._read_soon()

    def hold_until(self, when_ns: int) -> None:
        """Let nothing that is written from now on arrive before a time."""
        self._arrival = max(self._arrival, when_ns)
        self._newest = None

    # Sending -----------------------------------------------------------------

    def control(self, callback: Callable[..., object], *args: Any) -> None:
        """Call back when a message to this end, sent now, would arrive."""
        peer = self.peer
        peer._newest = None
        handle = Handle(callback, args, self._context or copy_context())
        self._loop.deliver(*peer._next_arrival(), handle)

    def _next_arrival(self) -> tuple[int, int, int]:
        """Return time, link and number of a message that is sent now."""
        link = self._link
        latency = link.latency
        arrival = self._loop.now + latency.mean
        if latency.spread:
            arrival = self._loop.now + latency.draw(link.chance)
        if arrival > self._arrival:
            self._arrival = arrival
        link.messages += 1
        return self._arrival, link.number, link.messages

    def _send(self, data: bytes, is_eof: bool = False) -> None:
        self._in_window += len(data)
        message, now = self._newest, self._loop.now
        # What is written at one instant arrives as one.
        if message is not None and self._sent_at == now:
            message.data += data
            message.is_eof = is_eof
            return
        self._sent_at = now
        arrival, number, count = self._next_arrival()
        self._newest = message = _Message(arrival, data, is_eof)
        peer = self.peer
        assert peer._context is not None
        handle = Handle(peer._arrived, (message,), peer._context)
        self._loop.deliver(arrival, number, count, handle)

    def _fill_window(self) -> None:
        """Send what the window has room for, and a due EOF at the end."""
        while self._buffer and self._in_window < WINDOW:
            room = WINDOW - self._in_window
            data = self._buffer.popleft()
            if len(data) > room:
                self._buffer.appendleft(data[room:])
                data = data[:room]
            self._buffered -= len(data)
            self._send(data)
        if self._is_eof_due and not self._buffer and not self._is_eof_sent:
            self._is_eof_sent = True
            self._send(b"", is_eof=True)
            if self._is_closing:
                self._lose_soon(None)

    def _check_congestion(self) -> None:
        if self._buffered > self._high and not self._is_congested:
            self._is_congested = True
            self.get_protocol().pause_writing()
        elif self._is_congested and self._buffered <= self._low:
            self._is_congested = False
            self.get_protocol().resume_writing()

    def _was_read(self, count: int) -> None:
        """Use the room in the window: the peer has read some bytes."""
        self._in_window -= count
        if self._buffer and not self.is_lost:
            self._fill_window()
            self._check_congestion()

    def _reset_peer(self) -> None:
        reset = ConnectionResetError("Connection reset by peer")
        self.peer.control(self.peer._reset, reset)

    # Receiving ---------------------------------------------------------------

    def _arrived(self, message: _Message) -> None:
        peer, data = self.peer, message.data
        if peer._newest is message:
            peer._newest = None
        if self._link.is_silent:
            data = self._link.let_through(data)
            if not data:
                return
        if self.is_lost or self._is_closing:
            if data:  # nobody will read it
                self._reset_peer()
            return
        if message.is_eof:
            self._has_eof = True
        if self._is_paused or self._is_reading_due:
            if data:
                self._unread.append(data)
        elif self._is_buffered or self._has_eof or len(data) > READ_MAX:
            if data:
                self._unread.append(data)
            self._read()
        else:  # as nearly always for a client
            assert isinstance(self._protocol, asyncio.Protocol)
            self._protocol.data_received(data)
            peer._was_read(len(data))

    def _read_soon(self) -> None:
        if not self._is_reading_due:
            self._is_reading_due = True
            self._loop.call_soon(self._read, context=self._context)

    def _read(self) -> None:
        """Give the protocol one read; the next one is in the next turn."""
        self._is_reading_due = False
        if self._is_paused or self._is_closing:
            return
        protocol = self.get_protocol()
        if self._unread:
            data = self._unread.popleft()
            if self._is_buffered:
                self._read_into(protocol, data)
            elif isinstance(protocol, asyncio.Protocol):
                count = len(data)
                if count > READ_MAX:
                    self._unread.appendleft(data[READ_MAX:])
                    data, count = data[:READ_MAX], READ_MAX
                protocol.data_received(data)
                self.peer._was_read(count)
            if self._unread or self._has_eof:
                self._read_soon()
        elif self._has_eof:
            self._has_eof = False
            if not self._call_eof(protocol):
                self.close()

    def _read_into(self, protocol: asyncio.BaseProtocol, data: bytes) -> None:
        assert isinstance(protocol, asyncio.BufferedProtocol)
        buffer = memoryview(protocol.get_buffer(len(data)))
        count = min(len(buffer), len(data))
        buffer[:count] = data[:count]
        if count < len(data):
            self._unread.appendleft(data[count:])
        protocol.buffer_updated(count)
        self.peer._was_read(count)

    def _call_eof(self, protocol: asyncio.BaseProtocol) -> bool:
        assert isinstance(
            protocol, asyncio.Protocol | asyncio.BufferedProtocol
        )
        return bool(protocol.eof_received())

    def _reset(self, error: Exception) -> None:
        if not self._link.is_silent:
            self.lose(error)

    # The end -----------------------------------------------------------------

    def die(self) -> None:
        """End as the system ends a socket whose process is killed.

        The peer gets what was sent, then an EOF, or a reset if something was
        not read. The protocol is not called.
        """
        if self.is_lost:
            return
        self._buffer.clear()
        self._buffered = 0
        if self._unread:
            self._unread.clear()
            self._reset_peer()
        elif not self._is_eof_sent:
            self._is_eof_sent = True
            self._send(b"", is_eof=True)
        self.is_lost = self._is_closing = True
        self._link.ended()

    def lose(self, error: Exception | None) -> None:
        """End this end at once; the peer is not told."""
        self._buffer.clear()
        self._buffered = 0
        self._lose_soon(error)

    def _lose_soon(self, error: Exception | None) -> None:
        if not self.is_lost and self._protocol is not None:
            self.is_lost = self._is_closing = True
            self._unread.clear()
            self._loop.call_soon(
                self._protocol.connection_lost, error, context=self._context
            )
            self._link.ended()
