"""Bytes on one accepted TCP socket: what every kind of door shares.

A `Connection` reads, writes, limits its buffers and ends in order. It knows
no protocol. A door is a subclass with five methods: ``_handshake`` and
``_messages`` turn bytes into messages, ``close`` and ``fail`` end the
conversation, and ``_break_off`` ends it after a bug.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast

from exchange.doors.names import Proxies
from exchange.doors.queue import Queue

# Bytes of one read. 256 KiB can hold 43,690 empty websocket frames and stop
# the loop for more than 100 ms; 16 KiB costs no throughput.
READ_SIZE = 16 * 1024
MAX_MESSAGE = 65_536  # bytes of one message from a client
HIGH_WATER = 64 * 1024  # unsent bytes at which a client is no longer read
OPEN_TIMEOUT_S = 10.0  # from accepting the socket to the end of a handshake
CLOSE_TIMEOUT_S = 5.0  # for the client to take what is left and hang up

P = ParamSpec("P")
C = TypeVar("C", bound="Connection")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may take, in bytes and in seconds."""

    max_message: int = MAX_MESSAGE
    high_water: int = HIGH_WATER
    open_timeout: float = OPEN_TIMEOUT_S
    close_timeout: float = CLOSE_TIMEOUT_S


class Admission(Protocol):
    """Decides which sockets may stay, and notes when they fail or end."""

    def opened(self, connection: Connection) -> bool:
        """Return whether this socket may stay; if not, it is cut off."""

    def closed(self, connection: Connection) -> None:
        """Forget the socket; called once for each ``opened``."""

    def failed(self, connection: Connection, error: Exception) -> None:
        """Count and log an exception that ends this connection.

        The exception comes from the admission, from the receiver or from a
        bug in a door. The connection need not be ``connected``.
        """


class Receiver(Protocol):
    """Takes what arrives on connections.

    Calls come in the order ``connected``, any number of ``received``,
    ``congested`` and ``drained``, ``disconnected``. Plain HTTP that becomes a
    websocket causes another ``connected``. A socket that does not
    complete its handshake causes no call.
    """

    def connected(self, connection: Connection) -> None:
        """Take note of a new connection: its handshake is complete."""

    def received(self, connection: Connection, messages: list[bytes]) -> None:
        """Take the messages that one read completed, in order."""

    def congested(self, connection: Connection) -> None:
        """Take note that the write buffer is above its high water mark."""

    def drained(self, connection: Connection) -> None:
        """Go on writing: a congested write buffer is nearly empty."""

    def disconnected(self, connection: Connection) -> None:
        """Forget the connection; called once for each ``connected``."""


def guarded(
    method: Callable[Concatenate[C, P], None],
) -> Callable[Concatenate[C, P], None]:
    """Let an exception in a callback end its connection, and nothing else."""

    def run(self: C, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self._crashed(error)

    return run


class Connection(asyncio.BufferedProtocol, ABC):
    """One accepted socket, to be made by asyncio.

    Args:
        receiver: takes what arrives.
        admission: decides whether the socket may stay.
        proxies: peers that connect for others.
        limits: sizes and time-outs.
        queue: shared by the connections of this loop; None: one of its own.
    """

    # Beyond 30 attributes CPython gives each object a dict of its own, which
    # makes a write to each of 1,000 readers take twice as long.
    __slots__ = (
        *("remote", "is_proxied", "is_paused", "is_congested"),
        *("_receiver", "_admission", "_proxies", "_limits", "_queue"),
        *("_loop", "_transport", "_view", "_unread", "_timer"),
        *("_is_queueing", "_is_put_off", "_is_connected", "_is_open"),
        *("_is_finished", "_is_ending", "_is_lost", "_is_eof_due"),
        *("_was_paused", "_written", "_taken", "__weakref__"),
    )

    def __init__(
        self,
        receiver: Receiver,
        *,
        admission: Admission,
        proxies: Proxies,
        limits: Limits,
        queue: Queue | None,
    ) -> None:
        self.remote = ""  # address of the client: the peer, or behind a proxy
        self.is_proxied = False  # the peer is a proxy, and remote its address
        self._receiver = receiver
        self._admission = admission
        self._proxies = proxies
        self._limits = limits
        self._queue = queue or Queue()
        self._view = memoryview(bytearray(READ_SIZE))
        self._unread = b""  # an incomplete message, or what waits for a turn
        self._is_queueing = False  # waits for a turn; nothing more is read
        self._is_put_off = False  # the turn came while reading was paused
        self._is_connected = False  # ``connected`` was called
        self._is_open = False  # is connected, and has not begun to close
        self._is_finished = (
            False  # an EOF was sent or came: nothing more is sent
        )
        self._is_ending = False  # the client has close_timeout to hang up
        self._is_lost = False  # asyncio has closed the socket
        # One timer is enough: a connection is opening, then open, then
        # closing.
        self._timer: asyncio.TimerHandle | None = None
        self.is_paused = False  # the receiver has paused reading
        self._was_paused = False  # was paused since the door last reset this
        self.is_congested = False  # the transport paused writing
        self._is_eof_due = False  # send an EOF as soon as nothing is unsent
        self._written = 0  # bytes given to the transport
        self._taken = 0  # bytes that the kernel had taken at the last look

    @property
    def is_open(self) -> bool:
        """Whether ``write`` has an effect."""
        return self._is_open and not self._transport.is_closing()

    @property
    def buffered(self) -> int:
        """Bytes written and not yet taken by the kernel."""
        return self._transport.get_write_buffer_size()

    @property
    def incomplete(self) -> int:
        """Bytes held that have not become a message yet."""
        return len(self._unread)

    def write(self, data: bytes) -> None:
        """Send what a door has encoded; do nothing unless open."""
        transport = self._transport
        # `is_open` written out: this runs for each reader of public data.
        if self._is_open and not transport.is_closing():
            self._written += len(data)
            transport.write(data)

    def abort(self) -> None:
        """Cut the connection off; unsent bytes are lost."""
        # asyncio fails on abort() after some ways of losing a connection.
        if not self._is_lost:
            self._transport.abort()

    def pause_reading(self) -> None:
        """Receive nothing more, beyond the messages already read."""
        self.is_paused = self._was_paused = True
        self._update_reading()

    def resume_reading(self) -> None:
        """Undo ``pause_reading``."""
        self.is_paused = False
        self._update_reading()

    # What a door defines -----------------------------------------------------

    @abstractmethod
    def close(self, code: int, reason: str = "") -> None:
        """Say why, and close; do nothing unless open.

        Nothing is received any more. A client that does not hang up within
        ``close_timeout`` is cut off.
        """

    @abstractmethod
    def fail(self, code: int, reason: str = "") -> None:
        """Close, and do not parse what the client still sends."""

    @abstractmethod
    def _handshake(self, data: bytes) -> bytes:
        """Take bytes of a connection that is not connected yet.

        Call ``_open`` once the handshake is complete. Return the bytes that
        follow it.
        """

    @abstractmethod
    def _messages(self, data: bytes) -> list[bytes]:
        """Return the messages that these bytes complete; write replies.

        Keep an incomplete message in ``_unread``. Keep there also what is too
        much for one turn, and set ``_is_queueing``.
        """

    @abstractmethod
    def _break_off(self) -> None:
        """End the connection after a bug; tell the client if possible."""

    # Called by asyncio -------------------------------------------------------

    @guarded
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait up to ``open_timeout`` for a handshake."""
        self._loop = asyncio.get_running_loop()
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(self._limits.high_water)
        # A peer that is already gone has no address.
        peer = self._transport.get_extra_info("peername")
        self.remote = peer[0] if peer else ""
        self.is_proxied = self._proxies.include(self.remote)
        if self._admission.opened(self):
            self._arm(self._limits.open_timeout, self._open_overdue)
        else:
            self.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the buffer that the next read fills."""
        return self._view

    @guarded
    def buffer_updated(self, nbytes: int) -> None:
        """Take one read: parse all, reply in one write, report once."""
        data = bytes(self._view[:nbytes])
        if self._is_connected:
            self._take(data)
        elif not self._is_finished:
            self._unread = data
            self._wait_turn()

    def _take(self, data: bytes) -> None:
        messages = self._messages(data)
        if messages:
            self._receiver.received(self, messages)
        if self._is_queueing:
            self._wait_turn()

    def _wait_turn(self) -> None:
        self._is_queueing = True
        self._queue.join(self.take_turn)
        self._update_reading()  # pauses it, so that no EOF is read either

    @guarded
    def take_turn(self) -> None:
        """Go on with the bytes in ``_unread``; called by the queue."""
        if self._is_shut:
            self._is_put_off = True
            return
        self._is_queueing = False
        if self._is_lost:
            return
        data = b""
        if not self._is_connected:
            data, self._unread = self._handshake(self._unread), b""
        if data or self._unread:
            self._take(data)
        self._update_reading()

    @guarded
    def eof_received(self) -> None:
        """Let the transport send what is left and close."""
        self._is_open = False
        self._is_finished = True
        self._end()

    @guarded
    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer and tell the receiver."""
        self._is_lost = True
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()
        if self._is_connected:
            self._receiver.disconnected(self)
        self._admission.closed(self)

    @guarded
    def pause_writing(self) -> None:
        """Stop reading too: replies to what is read could fill the memory."""
        self.is_congested = True
        self._update_reading()
        self._receiver.congested(self)

    @guarded
    def resume_writing(self) -> None:
        """Go on after ``pause_writing``."""
        self.is_congested = False
        self._update_reading()
        # Not at once: an abort() in the middle of asyncio's own writing
        # makes it report the loss of the connection twice.
        self._loop.call_soon(self._drained)

    @guarded
    def _drained(self) -> None:
        if self._is_eof_due:
            self._half_close()
        elif self.is_open and not self.is_congested:
            self._receiver.drained(self)

    def _crashed(self, error: Exception) -> None:
        self._admission.failed(self, error)
        self._break_off()

    # Reading -----------------------------------------------------------------

    @property
    def _is_shut(self) -> bool:
        """Whether the receiver or a full write buffer forbids reading."""
        # A closing connection is read even if the receiver paused it: the
        # client must get rid of its bytes to reach our last ones. After an EOF
        # nothing is answered, so a full write buffer cannot grow.
        paused = self.is_paused and not self._is_ending
        full = self.is_congested and not self._is_finished
        return paused or full

    def _update_reading(self) -> None:
        """Read, unless that is forbidden or this waits for a turn."""
        is_shut = self._is_shut
        if self._is_put_off and not is_shut:
            self._is_put_off = False
            self._loop.call_soon(self._queue.join, self.take_turn)
        elif is_shut or self._is_queueing:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # Opening and ending ------------------------------------------------------

    def _open(self) -> None:
        """Tell the receiver of this connection: its handshake is complete."""
        self._is_connected = self._is_open = True
        self._receiver.connected(self)

    @guarded
    def _open_overdue(self) -> None:
        if not self._is_connected:
            self.abort()

    def _half_close(self) -> None:
        """Send an EOF after the last byte, and go on reading.

        After a close the kernel would answer bytes that the client still
        sends with a reset, and the client would lose our last bytes.
        """
        self._is_open = False
        self._is_finished = True
        if not self._transport.can_write_eof():
            self._transport.close()
        elif self.buffered:
            # asyncio would wait by itself, but raise an exception that cannot
            # be caught if the client resets the connection just then.
            self._is_eof_due = True
            self._transport.set_write_buffer_limits(high=0)
        else:
            # If the client is gone by now, the next read notices it.
            with suppress(OSError):
                self._transport.write_eof()

    def _end(self) -> None:
        """Give the client ``close_timeout`` to hang up."""
        if not self._is_ending:
            self._is_ending = True
            self._progressed()
            self._update_reading()
            self._arm(self._limits.close_timeout, self._end_overdue)

    @guarded
    def _end_overdue(self) -> None:
        """Abort, unless a client still takes a long HTTP answer."""
        if self._progressed() and not self._is_connected:
            self._arm(self._limits.close_timeout, self._end_overdue)
        else:
            self.abort()

    def _arm(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Set the timer; an earlier setting is canceled."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, callback)

    def _progressed(self) -> bool:
        """Return whether the kernel took bytes since the last call."""
        before, self._taken = self._taken, self._written - self.buffered
        return self._taken > before
