"""Websocket bytes on a socket <-> complete text messages: one connection.

A ``Connection`` drives the Sans-I/O protocol of the websockets library and
does what that leaves to its caller: reassembling and checking messages, back
pressure, keepalive, time-outs, and plain HTTP on the same port.

It never looks into a message: it knows no JSON, no orders, no sessions. Of
HTTP it knows what fits into one answer: a request with a body cannot be
parsed, so its connection is closed without an answer.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Concatenate, ParamSpec, Protocol, TypeAlias, cast

from websockets.datastructures import Headers
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
from websockets.protocol import CONNECTING, OPEN
from websockets.server import ServerProtocol

from exchange.doors.names import Names, Proxies, Refusal

# One read of 256 KiB can hold 43,690 empty frames and stop the loop for more
# than 100 ms; 16 KiB costs no throughput.
READ_SIZE = 16 * 1024
# Frames out of the ordinary, as pings, that one read may bring at once: the
# library takes some 10 us for each. And messages, at some 1 us: more than the
# usual client has in flight. The rest waits in the queue.
FRAMES_PER_TURN = 20
MESSAGES_PER_TURN = 64
MAX_MESSAGE = 65_536  # bytes in one message from a client
# Bytes in one HTTP request; the library alone would hold a mebibyte for each
# of thousands who never come to its end.
MAX_REQUEST = 16 * 1024
HIGH_WATER = 64 * 1024  # unsent bytes at which a client is not read any more
OPEN_TIMEOUT_S = 10.0  # from the connection to the end of its request
PING_INTERVAL_S = 10.0  # from a pong to the next ping
PING_TIMEOUT_S = 10.0  # from a ping to its pong
CLOSE_TIMEOUT_S = 5.0  # for the peer to take what is left and hang up
# A longer message goes out in fragments, for its reader to take in pieces.
MAX_FRAME = 2**20
FRAGMENT = MAX_FRAME // 2

# At DEBUG the library prints every frame, and frames hold tokens. A logger of
# our own, because turning on "websockets" must not turn on this.
_QUIET = logging.getLogger(f"{__name__}.websocket")
_QUIET.setLevel(logging.WARNING)

_FIN = 0x80  # first bit of a message's last frame
FINAL_TEXT = _FIN | Opcode.TEXT  # first byte of a message in one frame
MASKED = 0x80  # least second byte of a client's frame
OPCODES = frozenset(Opcode)

P = ParamSpec("P")
Answer: TypeAlias = Response | asyncio.Future[Response]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may take, in bytes and in seconds."""

    max_message: int = MAX_MESSAGE
    high_water: int = HIGH_WATER
    open_timeout: float = OPEN_TIMEOUT_S
    ping_interval: float = PING_INTERVAL_S
    ping_timeout: float = PING_TIMEOUT_S
    close_timeout: float = CLOSE_TIMEOUT_S


class Admission(Protocol):
    """Decides who may come in, and hears what became of each socket.

    The order is ``opened``, ``forwarded`` if a proxy is the peer, ``refused``
    if a request is, ``closed``.
    """

    def opened(self, connection: Connection) -> bool:
        """Say whether this socket may stay; if not, it is cut off."""

    def forwarded(self, connection: Connection, client: str) -> bool:
        """Say whether the address behind a proxy may have this connection.

        If so, set ``connection.remote`` to it; if not, the request is refused.
        """

    def refused(self, connection: Connection, refusal: Refusal) -> None:
        """Count and log a request whose ``Host`` or ``Origin`` is not ours."""

    def closed(self, connection: Connection) -> None:
        """Forget the socket; called once for each ``opened``."""

    def failed(self, connection: Connection, error: Exception) -> None:
        """Count and log an exception that ends this connection.

        It comes from admission, receiver or ``respond``, or is a bug here. It
        may concern a connection that never was, or no longer is, connected.
        """


class Receiver(Protocol):
    """Gets what arrives on websockets.

    The order is ``connected``, any number of ``received``, ``congested`` and
    ``drained``, ``disconnected``. A socket that does not become a websocket
    is none of its business.
    """

    def connected(self, connection: Connection) -> None:
        """Take note of a new websocket: its handshake was accepted."""

    def received(self, connection: Connection, messages: list[bytes]) -> None:
        """Take the valid UTF-8 messages that one read completed, in order."""

    def congested(self, connection: Connection) -> None:
        """Take note that the peer does not take all that is written."""

    def drained(self, connection: Connection) -> None:
        """Go on writing: a buffer that was too full has nearly emptied."""

    def disconnected(self, connection: Connection) -> None:
        """Forget the websocket; called once for each ``connected``."""


def frame(payload: bytes) -> bytes:
    """Serialise one text message, once for any number of connections.

    A payload of more than ``MAX_FRAME`` bytes becomes several frames.
    """
    if len(payload) <= MAX_FRAME:
        return _header(_FIN | TEXT, len(payload)) + payload
    parts: list[bytes] = []
    opcode: int = TEXT
    for start in range(0, len(payload), FRAGMENT):
        part = payload[start : start + FRAGMENT]
        last = start + FRAGMENT >= len(payload)
        parts += _header(opcode | _FIN if last else opcode, len(part)), part
        opcode = CONT
    return b"".join(parts)


def refuse(request: Request) -> Response:
    """Answer an HTTP request where there are no pages."""
    if _path(request) == "/":
        status, text = HTTPStatus.UPGRADE_REQUIRED, "This is a websocket.\n"
        headers = Headers({"Upgrade": "websocket"})
    else:
        status, text, headers = HTTPStatus.NOT_FOUND, "Not found.\n", Headers()
    headers["Content-Type"] = "text/plain; charset=utf-8"
    return Response(status, status.phrase, headers, text.encode())


class Queue:
    """What takes a while and can wait: one has its turn at a time.

    Those are connections to be made, handshakes, and what is too much of one
    read. Between two turns the loop looks at its sockets, so that nobody
    waits for a crowd at the door. There is one for all who share a loop.
    """

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_open = True  # nobody had a turn since the last look

    def join(self, turn: Callable[[], None]) -> None:
        """Give a turn at once, or else in time."""
        if self._is_open:
            self._give(turn)
        else:
            self._waiting.append(turn)

    def _give(self, turn: Callable[[], None]) -> None:
        self._is_open = False
        # As a timer, though one that is due: what can be read comes before.
        asyncio.get_running_loop().call_later(0, self._give_next)
        turn()

    def _give_next(self) -> None:
        if self._waiting:
            self._give(self._waiting.popleft())
        else:
            self._is_open = True


def _guarded(
    method: Callable[Concatenate[Connection, P], None],
) -> Callable[Concatenate[Connection, P], None]:
    """Let an exception in a callback end its connection, and nothing else."""

    def run(self: Connection, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self._crashed(error)

    return run


class Connection(asyncio.BufferedProtocol):
    """One accepted socket, to be made by asyncio.

    Args:
        receiver: gets what arrives.
        admission: decides who may come in.
        names: judges ``Host`` and ``Origin``; ``None`` accepts any.
        proxies: peers whose ``X-Forwarded-For`` is believed.
        respond: answers GET and HEAD requests that ask for no websocket, at
            once or with a future; ``open_timeout`` cuts off who waits longer
            for that. The body of an answer to HEAD is dropped,
            ``Content-Length`` and ``Connection: close`` are added.
        limits: sizes and time-outs.
        queue: of the connections of this loop; ``None``: one of its own.
    """

    remote: str = ""  # address of the peer, or of whom it forwards
    is_proxied: bool = False  # the peer is a proxy: remote is known later

    def __init__(
        self,
        receiver: Receiver,
        *,
        admission: Admission,
        names: Names | None,
        proxies: Proxies = Proxies(),
        respond: Callable[[Request], Answer] = refuse,
        limits: Limits = Limits(),
        queue: Queue | None = None,
    ) -> None:
        self._receiver = receiver
        self._admission = admission
        self._names = names
        self._proxies = proxies
        self._respond = respond
        self._limits = limits
        self._queue = queue or Queue()
        self._protocol = ServerProtocol(
            max_size=limits.max_message, logger=_QUIET
        )
        self._view = memoryview(bytearray(READ_SIZE))
        self._unread = b""  # what is not complete yet, or waits its turn
        self._is_queueing = False  # for its turn; nothing more is read
        self._is_put_off = False  # the turn came while nothing was to be read
        self._fragments = bytearray()  # of a message not complete yet
        self._asked = 0  # bytes of the request so far
        self._connected = False  # the receiver knows of this connection
        self._is_answering = False  # HTTP: the answer is yet to come
        self._ending = False  # the peer has close_timeout left to hang up
        self._lost = False
        # One timer is enough: a connection is opening, then waiting to ping
        # or for a pong, then closing.
        self._timer: asyncio.TimerHandle | None = None
        self._pings = 0
        self._awaited: bytes | None = None  # payload of the expected pong
        self.is_held = False  # the receiver paused reading ...
        self._was_held = False  # ... or had since the last look at the clock
        self.is_congested = False  # the transport paused writing
        self._eof_due = False  # half-close as soon as nothing is unsent
        self._written = 0  # bytes given to the transport
        self._taken = 0  # of these, taken by the kernel at the last look

    @property
    def is_open(self) -> bool:
        """Whether ``write`` has an effect."""
        return (
            self._protocol.state is OPEN and not self._transport.is_closing()
        )

    @property
    def buffered(self) -> int:
        """Bytes written and not yet taken by the kernel."""
        return self._transport.get_write_buffer_size()

    @property
    def incomplete(self) -> int:
        """Bytes kept of a frame or message that is not complete."""
        return len(self._unread) + len(self._fragments)

    def write(self, frames: bytes) -> None:
        """Send what ``frame`` made; nothing unless open."""
        transport = self._transport
        # `is_open`, but at hand: this is called for each reader there is.
        if self._protocol.state is OPEN and not transport.is_closing():
            self._written += len(frames)
            transport.write(frames)

    def close(self, code: int, reason: str = "") -> None:
        """Start the closing handshake; nothing unless open.

        Nothing is received any more. A peer that does not hang up in time is
        cut off.

        Raises:
            ProtocolError: if the code may not be sent, or the reason is
                longer than 123 bytes.
        """
        if self.is_open:
            self._protocol.send_close(code, reason)
            self._flush()

    def fail(self, code: int, reason: str = "") -> None:
        """Like `close`, but without waiting for what the peer has to say.

        Of one who floods there is no end of frames: they are not even looked
        at (RFC 6455, 7.1.7). Raises ProtocolError like `close`.
        """
        if self.is_open:
            self._protocol.fail(code, reason)
            self._flush()

    def abort(self) -> None:
        """Cut the connection off; what is unsent is lost."""
        # asyncio fails on abort() after some ways of losing a connection.
        if not self._lost:
            self._transport.abort()

    def pause_reading(self) -> None:
        """Receive nothing more, beyond the messages already read."""
        self.is_held = self._was_held = True
        self._update_reading()

    def resume_reading(self) -> None:
        """Undo ``pause_reading``."""
        self.is_held = False
        self._update_reading()

    # Called by asyncio -------------------------------------------------------

    @_guarded
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request, but not for ever."""
        self._loop = asyncio.get_running_loop()
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(self._limits.high_water)
        # A peer that is already gone has no name.
        peer = self._transport.get_extra_info("peername")
        self.remote = peer[0] if peer else ""
        self.is_proxied = self._proxies.include(self.remote)
        if self._admission.opened(self):
            self._arm(self._limits.open_timeout, self.abort)
        else:
            self.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the buffer that the next read fills."""
        return self._view

    @_guarded
    def buffer_updated(self, nbytes: int) -> None:
        """Take one read: feed all, answer in one write, report at once."""
        data = bytes(self._view[:nbytes])
        if self._protocol.state is not CONNECTING:
            self._take(data)
        # What follows a request for anything but a websocket is noise.
        elif not (self._is_answering or self._protocol.eof_sent):
            self._unread = data
            self._wait_turn()

    def _take(self, data: bytes) -> None:
        messages = self._messages(data)
        self._flush()
        if messages:
            self._receiver.received(self, messages)
        if self._is_queueing:
            self._wait_turn()

    def _wait_turn(self) -> None:
        self._is_queueing = True
        self._queue.join(self.take_turn)
        self._update_reading()  # until the turn no EOF is read either

    @_guarded
    def take_turn(self) -> None:
        """Go on with what was read: called by the queue."""
        if self._is_shut:
            self._is_put_off = True
            return
        self._is_queueing = False
        if self._lost:
            return
        data = b""
        if self._protocol.state is CONNECTING:
            data, self._unread = self._handshake(self._unread), b""
        if data or self._unread:
            self._take(data)
        self._update_reading()

    @_guarded
    def eof_received(self) -> None:
        """Let the transport send what is left and close."""
        self._protocol.receive_eof()
        self._end()

    @_guarded
    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock and tell the receiver."""
        self._lost = True
        if self._timer is not None:
            self._timer.cancel()
        self._protocol.receive_eof()
        if self._connected:
            self._receiver.disconnected(self)
        self._admission.closed(self)

    @_guarded
    def pause_writing(self) -> None:
        """Stop reading too: unread pongs alone can fill the memory."""
        self.is_congested = True
        self._update_reading()
        self._receiver.congested(self)

    @_guarded
    def resume_writing(self) -> None:
        """Go on after ``pause_writing``."""
        self.is_congested = False
        self._update_reading()
        # Not at once: an abort() in the middle of asyncio's own writing
        # makes it report the loss of the connection twice.
        self._loop.call_soon(self._drained)

    # Reading -----------------------------------------------------------------

    def _handshake(self, data: bytes) -> bytes:
        """Answer the first request; return what follows its handshake.

        The library must see the answer before it sees a byte more, so it is
        fed line by line. After an answer without websocket the rest is noise.
        """
        protocol = self._protocol
        start = 0
        while start < len(data) and not protocol.eof_sent:
            end = data.find(b"\n", start) + 1 or len(data)
            protocol.receive_data(data[start:end])
            start = end
            for request in protocol.events_received():
                assert isinstance(request, Request)
                answer = self._answer(request)
                if isinstance(answer, asyncio.Future):
                    self._is_answering = True
                    answer.add_done_callback(partial(self._late, request))
                    return b""
                protocol.send_response(_finished(request, answer))
            self._flush()
            if protocol.state is OPEN:
                self._connected = True
                self._arm(self._limits.ping_interval, self._ping)
                self._receiver.connected(self)
                return data[start:]
        self._asked += len(data)
        if self._asked > MAX_REQUEST and not protocol.eof_sent:
            protocol.send_response(
                protocol.reject(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "Too long.\n"
                )
            )
            self._flush()
        return b""

    @_guarded
    def _late(
        self, request: Request, answer: asyncio.Future[Response]
    ) -> None:
        """Send an answer that took its time."""
        if not self._lost and not self._protocol.eof_sent:
            response = _finished(request, answer.result())
            self._protocol.send_response(response)
            self._flush()

    def _answer(self, request: Request) -> Answer:
        """Accept a websocket, or answer with anything else."""
        response: Answer
        is_websocket = _path(request) == "/" and any(
            "websocket" in value.lower()
            for value in request.headers.get_all("Upgrade")
        )
        if not self._is_client_welcome(request):
            response = self._protocol.reject(
                HTTPStatus.TOO_MANY_REQUESTS,
                "Too many connections from your address.\n",
            )
        elif refusal := self._refusal(request, is_websocket):
            self._admission.refused(self, refusal)
            response = self._protocol.reject(
                HTTPStatus.FORBIDDEN, f"Refused: {refusal.reason}.\n"
            )
        elif request.method not in ("GET", "HEAD"):
            response = self._protocol.reject(
                HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD.\n"
            )
            response.headers["Allow"] = "GET, HEAD"
        elif not is_websocket:
            response = self._respond(request)
        elif request.headers.get_all("Sec-WebSocket-Version") != ["13"]:
            response = self._protocol.reject(
                HTTPStatus.UPGRADE_REQUIRED, "Only version 13.\n"
            )
            response.headers["Upgrade"] = "websocket"
            response.headers["Sec-WebSocket-Version"] = "13"
        else:
            response = self._protocol.accept(request)
        return response

    def _is_client_welcome(self, request: Request) -> bool:
        """Find out whom a proxy speaks for, and let the admission count it."""
        if not self.is_proxied:
            return True
        lines = request.headers.get_all("X-Forwarded-For")
        client = self._proxies.client(self.remote, lines)
        return self._admission.forwarded(self, client)

    def _refusal(self, request: Request, is_websocket: bool) -> Refusal | None:
        """Judge ``Host``, and ``Origin`` where a websocket is asked for."""
        if self._names is None:
            return None
        origins = request.headers.get_all("Origin") if is_websocket else []
        return self._names.refusal(request.headers.get_all("Host"), origins)

    def _messages(self, data: bytes) -> list[bytes]:
        """Return the messages that some bytes of the peer complete.

        A message in a frame of its own, as nearly all are, is unmasked here,
        and the library never sees it: that saves two thirds of the time. The
        rest is the library's, frame by frame, so that it makes no difference
        where a read ends; and at once what it will refuse by its head. An
        incomplete frame waits, and so do those too many for a turn.
        """
        protocol = self._protocol
        if self._unread:
            data, self._unread = self._unread + data, b""
        messages: list[bytes] = []
        size = len(data)
        start = 0  # of the next frame
        fed = 0
        is_open = self.is_open
        plain = self._plain()
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
                and length <= plain
                and end <= size
            ):
                text = apply_mask(data[body:end], data[body - 4 : body])
                if text.isascii():  # as most are
                    messages.append(text)
                else:
                    is_open = self._complete(text, messages)
                start = end
                continue
            room = self._limits.max_message - (protocol.current_size or 0)
            if (
                second < MASKED
                or first & 0x0F not in OPCODES
                or (length > room and size >= body - 4)
            ):
                end = size
            elif end > size:
                break
            is_open = self._feed(data[start:end], messages)
            plain = self._plain()
            start = end
            fed += 1
        if is_open:
            self._unread = data[start:]
        elif start < size:
            self._feed(data[start:], messages)
        return messages

    def _plain(self) -> int:
        """Return how long a message may be that comes in one frame now."""
        if self._protocol.current_size is not None:  # amid one in several
            return -1
        return self._limits.max_message

    def _complete(self, message: bytes, messages: list[bytes]) -> bool:
        """Take a message that is UTF-8, or end the connection."""
        try:
            message.decode()
        except UnicodeDecodeError:
            self._protocol.fail(CloseCode.INVALID_DATA, "invalid UTF-8")
            return False
        messages.append(message)
        return True

    def _feed(self, data: bytes, messages: list[bytes]) -> bool:
        """Give the library frames, and take the messages they complete.

        A frame that may not be ends the connection; those before it count.
        Return whether the connection is still open.
        """
        was_open = self.is_open
        self._protocol.receive_data(data)
        frames = cast("list[Frame]", self._protocol.events_received())
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
                self._protocol.fail(
                    CloseCode.UNSUPPORTED_DATA, "text messages only"
                )
                break
            else:
                if opcode is PONG and event.data == self._awaited:
                    self._awaited = None
                    self._arm(self._limits.ping_interval, self._ping)
                continue
            if not self._complete(message, messages):
                break
        return self.is_open

    @property
    def _is_shut(self) -> bool:
        """Whether the receiver or a full write buffer is against reading."""
        # Once the outcome is clear the receiver has no say: the peer must be
        # able to get rid of its bytes to reach our close frame. And after an
        # EOF nothing is answered any more, so nothing can pile up.
        held = self.is_held and not self._ending
        full = self.is_congested and not self._protocol.eof_sent
        return held or full

    def _update_reading(self) -> None:
        """Read, unless something is against it or much is read already."""
        is_shut = self._is_shut
        if self._is_put_off and not is_shut:
            self._is_put_off = False
            self._loop.call_soon(self._queue.join, self.take_turn)
        elif is_shut or self._is_queueing:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # Writing -----------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        self._written += len(data)
        self._transport.write(data)

    def _flush(self) -> None:
        """Send what the library wants to be sent."""
        writes = self._protocol.data_to_send()
        if writes:
            self._send(b"".join(writes))
            if not writes[-1]:  # the library's sign for the end
                self._half_close()
        if self._protocol.close_expected():
            self._end()

    @_guarded
    def _drained(self) -> None:
        if self._eof_due:
            self._half_close()
        elif self.is_open and not self.is_congested:
            self._receiver.drained(self)

    def _half_close(self) -> None:
        """Send an EOF after the last byte, and go on reading.

        Closing instead would answer a peer's bytes still under way with a
        reset, which overtakes our close frame.
        """
        if not self._transport.can_write_eof():
            self._transport.close()
        elif self.buffered:
            # asyncio would wait by itself, but raise into nowhere if the
            # peer resets the connection just then.
            self._eof_due = True
            self._transport.set_write_buffer_limits(high=0)
        else:
            # A peer that is gone by now: the next read will tell.
            with suppress(OSError):
                self._transport.write_eof()

    def _crashed(self, error: Exception) -> None:
        """End the connection after a bug, saying so if that is possible."""
        self._admission.failed(self, error)
        state = self._protocol.state
        if state is OPEN:
            self._protocol.fail(CloseCode.INTERNAL_ERROR)
        elif state is CONNECTING and not self._protocol.eof_sent:
            self._protocol.send_response(
                self._protocol.reject(HTTPStatus.INTERNAL_SERVER_ERROR, "")
            )
        else:
            self.abort()
            return
        self._flush()

    # Time --------------------------------------------------------------------

    def _arm(self, delay: float, callback: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay, callback)

    @_guarded
    def _ping(self) -> None:
        if self.is_open:
            self._pings += 1
            self._awaited = self._pings.to_bytes(8, "big")
            self._protocol.send_ping(self._awaited)
            self._flush()
            self._progressed()
            self._arm(self._limits.ping_timeout, self._pong_overdue)

    @_guarded
    def _pong_overdue(self) -> None:
        """Close, unless the pong may be waiting where we did not read."""
        progressed = self._progressed()
        excused = self._was_held or (self.is_congested and progressed)
        self._was_held = self.is_held
        if excused:
            self._arm(self._limits.ping_timeout, self._pong_overdue)
        elif self.is_open:
            self._protocol.fail(CloseCode.INTERNAL_ERROR, "ping timeout")
            self._flush()

    def _end(self) -> None:
        """Give the peer ``close_timeout`` to hang up."""
        if not self._ending:
            self._ending = True
            self._progressed()
            self._update_reading()
            self._arm(self._limits.close_timeout, self._end_overdue)

    @_guarded
    def _end_overdue(self) -> None:
        """Abort, unless a long page is still on its way."""
        if self._progressed() and not self._connected:
            self._arm(self._limits.close_timeout, self._end_overdue)
        else:
            self.abort()

    def _progressed(self) -> bool:
        """Tell whether the kernel took bytes since the last call."""
        before, self._taken = self._taken, self._written - self.buffered
        return self._taken > before


def _finished(request: Request, response: Response) -> Response:
    """Return the answer as it leaves; one to a websocket as it is.

    A copy: `respond` may return the same response again and again.
    """
    if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
        return response
    headers = Headers(
        (name, value)
        for name, value in response.headers.raw_items()
        if name.lower() not in ("connection", "content-length")
    )
    headers["Connection"] = "close"
    if response.status_code != HTTPStatus.NOT_MODIFIED:  # RFC 9110, 8.6
        headers["Content-Length"] = str(len(response.body))
    return Response(
        response.status_code,
        response.reason_phrase,
        headers,
        b"" if request.method == "HEAD" else response.body,
    )


def _header(first: int, length: int) -> bytes:
    """Return the head of an unmasked frame (RFC 6455, 5.2)."""
    if length < 126:
        return struct.pack("!BB", first, length)
    if length < 65_536:
        return struct.pack("!BBH", first, 126, length)
    return struct.pack("!BBQ", first, 127, length)


def _path(request: Request) -> str:
    return request.path.partition("?")[0]
