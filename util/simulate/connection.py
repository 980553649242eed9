"""A websocket of a simulated client: what ``client.py`` asks of one.

It does what the client's own connection does, without masks, keep-alive and
queues of tasks, which a network in memory does not need. The handshake, pings
and the closing handshake are those of the websockets library. What many
clients of a process read alike is taken apart, decoded and applied once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import Callable
from typing import Any

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from client import CLOSE_TIMEOUT, MAX_FRAME_BYTES, Book
from orderbook import (
    BookUpdate,
    Event,
    Status,
    Ticker,
    Trade,
    decode_events,
)

TEXT = 0x81  # first byte of a text message in one frame
NO_MASK = bytes(4)
MASKED = 0x80
# Frames and changes of books kept. All clients read one within two latencies.
# Longer frames are tables and snapshots, which no two clients share.
KEPT = 4_096
KEPT_BYTES = 4_096
# Events that nobody can change: they are frozen and hold only tuples.
PUBLIC = (BookUpdate, Trade, Ticker, Status)


class Decoder:
    """Does once what many clients do alike: with frames, and with books."""

    def __init__(self) -> None:
        self._messages: dict[bytes, tuple[bytes, ...]] = {}
        self._events: dict[str | bytes, list[Event]] = {}
        # By the id of the change, which is kept with it.
        self._books: dict[int, tuple[BookUpdate, Book, Book]] = {}

    def messages(self, data: bytes) -> tuple[bytes, ...] | None:
        """Return the messages of complete text frames; None: other bytes."""
        messages = self._messages.get(data)
        if messages is None and len(data) < KEPT_BYTES:
            found: list[bytes] = []
            if split(data, found) == len(data):
                messages = tuple(found)
                _keep(self._messages, data, messages)
        return messages

    def decode(self, frame: str | bytes) -> list[Event]:
        """Return the events of a frame; the list must not be changed."""
        events = self._events.get(frame)
        if events is None:
            events = decode_events(frame)
            if all(isinstance(event, PUBLIC) for event in events):
                _keep(self._events, frame, events)
        return events

    def update_book(self, book: Book, update: BookUpdate) -> Book:
        """Return a book after a change, the same for equal books."""
        known = self._books.get(id(update))
        if known is not None and known[0] is update:
            before = known[1]
            if before is book or before == book:
                return known[2]
        updated = book.updated(update)
        _keep(self._books, id(update), (update, book, updated))
        return updated


def _keep(known: dict[Any, Any], key: object, value: object) -> None:
    if len(known) >= KEPT:
        del known[next(iter(known))]
    known[key] = value


def split(data: bytes, messages: list[bytes]) -> int:
    """Take complete text frames apart; return where the first other begins.

    That is the length of ``data`` if all are such frames.
    """
    size, start = len(data), 0
    while size - start >= 2 and data[start] == TEXT:
        end, body = _bounds(data, start)
        if end > size:
            break
        messages.append(data[body:end])
        start = end
    return start


def _bounds(data: bytes, start: int) -> tuple[int, int]:
    """Return where a frame of the exchange ends, and where its body begins.

    The end is beyond the data if the frame is not complete.
    """
    length, body = data[start + 1], start + 2
    if length == 126:
        body += 2
        length = int.from_bytes(data[start + 2 : body], "big")
    elif length == 127:
        body += 8
        length = int.from_bytes(data[start + 2 : body], "big")
    return body + length, body


class Websocket(asyncio.Protocol):
    """One connection to the exchange.

    ``logged_in`` is called with the user of each login that is sent.
    """

    def __init__(
        self, url: str, logged_in: Callable[[str], None], decoder: Decoder
    ) -> None:
        self._logged_in = logged_in
        self._decoder = decoder
        self._protocol = ClientProtocol(
            parse_uri(url), max_size=MAX_FRAME_BYTES
        )
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._take: Callable[[str | bytes], None] | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._fragments: list[bytes] = []
        self._unread = b""
        self._writable = asyncio.Event()
        self._writable.set()
        self.heard_at = 0.0  # when the last bytes came, in seconds of the loop

    @property
    def close_code(self) -> int | None:
        """How the connection ended; None while it has not."""
        return self._protocol.close_code

    async def open(self) -> None:
        """Do the opening handshake; raises InvalidHandshake, OSError."""
        request = self._protocol.connect()
        self._protocol.send_request(request)
        self._flush()
        await asyncio.shield(self._opened)

    async def send(self, message: str, /) -> None:
        """Send a text message; raises ConnectionClosed."""
        if self._protocol.state is not OPEN:
            await asyncio.shield(self._lost)
            raise self._protocol.close_exc
        if '"login"' in message:
            self._note_login(message)
        if not self._writable.is_set():
            await self._writable.wait()
        data = message.encode()
        self._transport.write(_header(len(data)) + data)

    async def ping(self) -> None:
        """Send a ping, whose answer sets ``heard_at``."""
        if self._protocol.state is OPEN:
            self._protocol.send_ping(b"")
            self._flush()

    async def push(self, take: Callable[[str | bytes], None]) -> None:
        """Call ``take`` with each message; raise what it raises.

        To be called before the first request. Raises ConnectionClosed after
        the last message.
        """
        self._take = take
        try:
            await self._ended
        finally:
            self._take = None

    async def close(self) -> None:
        """Do the closing handshake, within CLOSE_TIMEOUT."""
        if self._protocol.state is OPEN:
            self._protocol.send_close(1000)
            self._flush()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await asyncio.shield(self._lost)
        finally:
            self._transport.abort()

    # Called by the transport -------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take complete text frames; give all others to the library."""
        self.heard_at = self._loop.time()
        if not self._opened.done():
            data = self._handshake(data)
        known = None if self._unread else self._decoder.messages(data)
        try:
            for message in known or self._take_apart(data):
                if self._take is None:
                    break
                self._take(message)
        except Exception as error:
            self._take = None  # nobody hears the rest
            if not self._ended.done():
                self._ended.set_exception(error)

    def _take_apart(self, data: bytes) -> list[bytes]:
        """Return the messages in frames of any kind; keep an incomplete one.

        Pings and closes are answered.
        """
        data, messages = self._unread + data, list[bytes]()
        size, start = len(data), 0
        while True:
            start += split(data[start:], messages)
            if size - start < 2:
                break
            end, _ = _bounds(data, start)
            if end > size:
                break
            self._feed(data[start:end], messages)
            start = end
        self._unread = data[start:]
        return messages

    def eof_received(self) -> None:
        """Let the transport close."""
        self._protocol.receive_eof()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake everybody who waits."""
        self._protocol.receive_eof()
        if not self._opened.done():
            self._opened.set_exception(
                exc or ConnectionResetError("closed during the handshake")
            )
            self._opened.exception()  # `open` may have been given up
        self._lost.set_result(None)
        self._writable.set()
        if not self._ended.done():
            self._ended.set_exception(self._protocol.close_exc)
            self._ended.exception()  # asyncio need not say that nobody asks

    def pause_writing(self) -> None:
        """Let `send` wait."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let `send` go on."""
        self._writable.set()

    # Within ------------------------------------------------------------------

    def _handshake(self, data: bytes) -> bytes:
        """Give the library the response; return what follows it."""
        head, found, rest = (self._unread + data).partition(b"\r\n\r\n")
        self._unread = b""
        if not found:
            self._unread = head
            return b""
        refusal = b" 101 " not in head.partition(b"\r\n")[0]
        self._protocol.receive_data(head + found + (rest if refusal else b""))
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                if self._protocol.handshake_exc is None:
                    self._opened.set_result(None)
                else:
                    self._opened.set_exception(self._protocol.handshake_exc)
        self._flush()
        return b"" if refusal else rest

    def _feed(self, data: bytes, messages: list[bytes]) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            assert isinstance(event, Frame)
            if event.opcode in (Opcode.TEXT, Opcode.CONT):
                self._fragments.append(bytes(event.data))
                if event.fin:
                    messages.append(b"".join(self._fragments))
                    self._fragments.clear()
        self._flush()

    def _flush(self) -> None:
        """Send what the library wants to send."""
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            elif not self._transport.is_closing():
                self._transport.write_eof()

    def _note_login(self, message: str) -> None:
        """Say who logs in, as a frame that names a login says."""
        frame = json.loads(message)
        for request in frame if isinstance(frame, list) else [frame]:
            if request.get("type") == "login":
                self._logged_in(request["user"])


def _header(length: int) -> bytes:
    """Return the head of a client's text frame (RFC 6455, 5.2)."""
    if length < 126:
        return struct.pack("!BB", TEXT, MASKED | length) + NO_MASK
    if length < 65_536:
        return struct.pack("!BBH", TEXT, MASKED | 126, length) + NO_MASK
    return struct.pack("!BBQ", TEXT, MASKED | 127, length) + NO_MASK
