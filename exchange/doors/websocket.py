"""Websocket frames <-> complete text messages.

A `Connection` drives the Sans-I/O protocol of the websockets library: the
HTTP request that opens it, reassembling and checking messages, and pings.

It never parses a message: it knows no JSON, no orders, no sessions. It
answers one HTTP request. A request with a body cannot be parsed, so its
connection is closed without an answer.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import cast

from websockets.frames import (  # type: ignore[attr-defined]
    BINARY,
    CONT,
    PONG,
    TEXT,
    CloseCode,
    Frame,
    Opcode,
    apply_mask,
)
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from exchange.doors import tcp
from exchange.doors.names import Names, Proxies
from exchange.doors.queue import Queue
from exchange.doors.tcp import Receiver, guarded
from exchange.doors.upgrade import (
    Admission,
    Answer,
    Upgrade,
    as_sent,
    not_found,
)

# Frames that the library parses in one turn, such as pings: some 10 us each.
FRAMES_PER_TURN = 20
# Messages in one turn: some 1 us each, and more than the usual client has in
# flight. The rest waits in the queue.
MESSAGES_PER_TURN = 64
# Bytes of one HTTP request. The library would hold 1 MiB for each of thousands
# of clients that never complete theirs.
MAX_REQUEST = 16 * 1024
PING_INTERVAL_S = 10.0  # from a pong to the next ping
PING_TIMEOUT_S = 10.0  # from a ping to its pong
# Bytes above which an outgoing message is sent in fragments.
MAX_FRAME = 2**20
FRAGMENT = MAX_FRAME // 2

# At DEBUG the library prints every frame, and frames hold tokens. This logger
# stays quiet when "websockets" is set to DEBUG.
_QUIET = logging.getLogger(f"{__name__}.websocket")
_QUIET.setLevel(logging.WARNING)

_FIN = 0x80  # first bit of a message's last frame
FINAL_TEXT = _FIN | Opcode.TEXT  # first byte of a message in one frame
MASKED = 0x80  # first bit of the second byte; set in a client's frames
OPCODES = frozenset(Opcode)


@dataclass(frozen=True, slots=True)
class Limits(tcp.Limits):
    """What one websocket may take, in bytes and in seconds."""

    ping_interval: float = PING_INTERVAL_S
    ping_timeout: float = PING_TIMEOUT_S


def frame(payload: bytes) -> bytes:
    """Serialise one text message, once for any number of connections.

    A payload of more than ``MAX_FRAME`` bytes becomes several frames.
    """
    if len(payload) <= MAX_FRAME:
        return _header(FINAL_TEXT, len(payload)) + payload
    parts: list[bytes] = []
    opcode: int = TEXT
    for start in range(0, len(payload), FRAGMENT):
        part = payload[start : start + FRAGMENT]
        last = start + FRAGMENT >= len(payload)
        parts += _header(opcode | _FIN if last else opcode, len(part)), part
        opcode = CONT
    return b"".join(parts)


def _header(first: int, length: int) -> bytes:
    """Return the head of an unmasked frame (RFC 6455, 5.2)."""
    if length < 126:
        return struct.pack("!BB", first, length)
    if length < 65_536:
        return struct.pack("!BBH", first, 126, length)
    return struct.pack("!BBQ", first, 127, length)


class Connection(tcp.Connection):
    """A websocket, or one HTTP request and its answer.

    Args:
        receiver: takes the messages: valid UTF-8.
        admission: decides which sockets and requests may come in.
        names: judges ``Host`` and ``Origin``; None accepts any.
        proxies: peers whose ``X-Forwarded-For`` is believed.
        respond: answers GET and HEAD requests that ask for no websocket, at
            once or with a future. The client is cut off if the future takes
            longer than ``open_timeout``.
        limits: sizes and time-outs.
        queue: shared by the connections of this loop; None: one of its own.
    """

    __slots__ = (
        *("_upgrade", "_protocol", "_asked", "_is_answering"),
        *("_fragments", "_pings", "_awaited"),
    )
    _limits: Limits
    make_upgrade = Upgrade

    def __init__(
        self,
        receiver: Receiver,
        *,
        admission: Admission,
        names: Names | None,
        proxies: Proxies = Proxies(),
        respond: Callable[[Request], Answer] = not_found,
        limits: Limits = Limits(),
        queue: Queue | None = None,
    ) -> None:
        super().__init__(
            receiver,
            admission=admission,
            proxies=proxies,
            limits=limits,
            queue=queue,
        )
        self._upgrade = self.make_upgrade(
            admission=admission, names=names, proxies=proxies, respond=respond
        )
        self._protocol = ServerProtocol(
            max_size=limits.max_message, logger=_QUIET
        )
        self._asked = 0  # bytes of the HTTP request so far
        self._is_answering = False  # a future will bring the HTTP answer
        self._fragments = bytearray()  # of an incomplete message
        self._pings = 0
        self._awaited: bytes | None = None  # payload of the expected pong

    @property
    def incomplete(self) -> int:
        """Bytes held that have not become a request or a message yet."""
        asked = 0 if self._is_connected else self._asked
        return asked + len(self._fragments) + super().incomplete

    def close(self, code: int, reason: str = "") -> None:
        """Start the closing handshake; do nothing unless open.

        Raises:
            ProtocolError: if the code may not be sent, or the reason is
                longer than 123 bytes.
        """
        if self.is_open:
            self._protocol.send_close(code, reason)
            self._flush()

    def fail(self, code: int, reason: str = "") -> None:
        """Close, and do not parse what the client still sends.

        A flood of frames would take time even if it is discarded (RFC 6455,
        7.1.7). Raises ProtocolError like `close`.
        """
        if self.is_open:
            self._protocol.fail(code, reason)
            self._flush()

    # Opening -----------------------------------------------------------------

    def _handshake(self, data: bytes) -> bytes:
        """Answer the first request; return what follows its handshake.

        The library must send its answer before it gets the next byte, so it is
        fed line by line. Bytes after any answer but a handshake are ignored.
        """
        protocol = self._protocol
        if self._is_answering:
            return b""
        start = 0
        while start < len(data) and not protocol.eof_sent:
            end = data.find(b"\n", start) + 1 or len(data)
            protocol.receive_data(data[start:end])
            start = end
            for request in protocol.events_received():
                assert isinstance(request, Request)
                answer = self._upgrade.answer(request, self, protocol)
                if isinstance(answer, asyncio.Future):
                    self._is_answering = True
                    answer.add_done_callback(partial(self._late, request))
                    return b""
                protocol.send_response(as_sent(request, answer))
            self._flush()
            if protocol.state is OPEN:
                self._arm(self._limits.ping_interval, self._ping)
                self._open()
                return data[start:]
        self._asked += len(data)
        if self._asked > MAX_REQUEST and not protocol.eof_sent:
            self._reject(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "Too long.\n"
            )
        return b""

    @guarded
    def _late(
        self, request: Request, answer: asyncio.Future[Response]
    ) -> None:
        """Send an answer that was a future."""
        if not self._is_lost and not self._is_finished:
            response = as_sent(request, answer.result())
            self._protocol.send_response(response)
            self._flush()

    def _reject(self, status: HTTPStatus, text: str) -> None:
        self._protocol.send_response(self._protocol.reject(status, text))
        self._flush()

    # Messages ----------------------------------------------------------------

    def _messages(self, data: bytes) -> list[bytes]:
        """Return the messages that these bytes complete; send replies.

        A message in one frame, as nearly all are, is unmasked here, without
        the library: that saves two thirds of the time. The library gets other
        frames one by one, so the result does not depend on where a read ends.
        Incomplete frames wait, and so do those too many for a turn.
        """
        protocol = self._protocol
        if self._unread:
            data, self._unread = self._unread + data, b""
        messages: list[bytes] = []
        size = len(data)
        start = 0  # of the next frame
        fed = 0  # frames given to the library
        is_open = self.is_open
        bypass_max = self._bypass_max()
        while is_open and size - start >= 2:
            if fed == FRAMES_PER_TURN or len(messages) == MESSAGES_PER_TURN:
                self._is_queueing = True
                break
            first, second = data[start], data[start + 1]
            length, body = second & 0x7F, start + 6
            if length == 126:
                length = int.from_bytes(data[start + 2 : start + 4], "big")
                body += 2
            elif length == 127:
                length = int.from_bytes(data[start + 2 : start + 10], "big")
                body += 8
            end = body + length
            if (
                first == FINAL_TEXT
                and second >= MASKED
                and length <= bypass_max
                and end <= size
            ):
                text = apply_mask(data[body:end], data[body - 4 : body])
                if text.isascii():  # as most are
                    messages.append(text)
                else:
                    is_open = self._complete(text, messages)
                start = end
                continue
            end = self._cut(data, start, body, end)
            if not end:
                break
            is_open = self._feed(data[start:end], messages)
            bypass_max = self._bypass_max()
            start = end
            fed += 1
        if is_open:
            self._unread = data[start:]
        elif start < size:  # only the close frame of the client matters
            protocol.receive_data(data[start:])
            protocol.events_received()
        if fed or not is_open:  # otherwise the library saw nothing
            self._flush()
        return messages

    def _cut(self, data: bytes, start: int, body: int, end: int) -> int:
        """Return where the bytes for the library end; 0: more must come.

        The bytes are one frame, or all that are left if the library will
        refuse the frame by its header.
        """
        size = len(data)
        room = self._limits.max_message - (self._protocol.current_size or 0)
        if (
            data[start + 1] < MASKED
            or data[start] & 0x0F not in OPCODES
            or (end - body > room and size >= body - 4)
        ):
            return size
        return end if end <= size else 0

    def _bypass_max(self) -> int:
        """Return the longest frame that may bypass the library; -1: none."""
        if self._protocol.current_size is not None:  # a message is incomplete
            return -1
        return self._limits.max_message

    def _complete(self, message: bytes, messages: list[bytes]) -> bool:
        """Add a message that is UTF-8, or fail; return whether it is."""
        try:
            message.decode()
        except UnicodeDecodeError:
            self._protocol.fail(CloseCode.INVALID_DATA, "invalid UTF-8")
            return False
        messages.append(message)
        return True

    def _feed(self, data: bytes, messages: list[bytes]) -> bool:
        """Give the library frames, and add the messages they complete.

        A frame that is not allowed ends the connection; frames before it
        count. Return whether the websocket is still open.
        """
        protocol = self._protocol
        was_open = protocol.state is OPEN
        protocol.receive_data(data)
        frames = cast("list[Frame]", protocol.events_received())
        for event in frames if was_open else ():
            opcode = event.opcode
            if opcode is TEXT and event.fin:
                message = bytes(event.data)
            elif opcode is TEXT or opcode is CONT:
                self._fragments += event.data
                if not event.fin:
                    continue
                message = bytes(self._fragments)
                self._fragments.clear()
            elif opcode is BINARY:
                protocol.fail(CloseCode.UNSUPPORTED_DATA, "text messages only")
                break
            else:
                if opcode is PONG and event.data == self._awaited:
                    self._awaited = None
                    self._arm(self._limits.ping_interval, self._ping)
                continue
            if not self._complete(message, messages):
                break
        return protocol.state is OPEN

    # Writing and ending ------------------------------------------------------

    def _flush(self) -> None:
        """Send what the library wants to send, and follow its state."""
        protocol = self._protocol
        if protocol.state is not OPEN:
            self._is_open = False
        writes = protocol.data_to_send()
        if writes:
            data = b"".join(writes)
            self._written += len(data)
            self._transport.write(data)
            if not writes[-1]:  # the library's sign for an EOF
                self._half_close()
        if protocol.close_expected():
            self._end()

    def _break_off(self) -> None:
        """End with a close code or an HTTP status that names our fault."""
        if self._is_open:
            self._protocol.fail(CloseCode.INTERNAL_ERROR)
            self._flush()
        elif not (self._is_connected or self._is_finished):
            self._reject(HTTPStatus.INTERNAL_SERVER_ERROR, "")
        else:
            self.abort()

    # Pings -------------------------------------------------------------------

    @guarded
    def _ping(self) -> None:
        if self.is_open:
            self._pings += 1
            self._awaited = self._pings.to_bytes(8, "big")
            self._protocol.send_ping(self._awaited)
            self._flush()
            self._progressed()
            self._arm(self._limits.ping_timeout, self._pong_overdue)

    @guarded
    def _pong_overdue(self) -> None:
        """Close, unless the pong may be among bytes that were not read."""
        progressed = self._progressed()
        excused = self._was_paused or (self.is_congested and progressed)
        self._was_paused = self.is_paused
        if excused:
            self._arm(self._limits.ping_timeout, self._pong_overdue)
        elif self.is_open:
            self._protocol.fail(CloseCode.INTERNAL_ERROR, "ping timeout")
            self._flush()
