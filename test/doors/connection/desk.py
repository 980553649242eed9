"""A listening desk, and peers that send it any bytes."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import connect
from websockets.datastructures import Headers
from websockets.frames import CLOSE, Close, Frame, Opcode

from exchange.doors import tcp
from exchange.doors.names import Refusal
from exchange.doors.websocket import Connection, frame

PATIENCE_S = 5.0  # after which a test that would hang has failed
TINY_S = 0.01
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
# More bytes than the kernel buffers between two local sockets.
FLOOD = 32 * 2**20


def masked(opcode: Opcode, data: bytes = b"", fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def closing(code: int, reason: str = "") -> bytes:
    return masked(CLOSE, Close(code, reason).serialize())


def get(path: str = "/", *headers: str, method: str = "GET") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *headers, "", ""]
    return "\r\n".join(lines).encode()


def upgrade(*headers: str, path: str = "/") -> bytes:
    """A handshake without Host, plus these headers."""
    request = HANDSHAKE.replace(b"Host: localhost\r\n", b"")
    request = request.replace(b"GET /", b"GET " + path.encode())
    extra = "".join(f"{header}\r\n" for header in headers).encode()
    return request.removesuffix(b"\r\n") + extra + b"\r\n"


async def until(condition: Callable[[], object]) -> None:
    """Run the loop until a condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0)


class Desk:
    """A listening socket, and the receiver of all its connections."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.errors: list[Exception] = []
        self.connections: list[Connection] = []
        self.on: dict[str, Callable[..., None]] = {}
        self.port = 0
        self.has_room = True
        self.sockets: set[Connection] = set()  # open ones
        self.seen = 0

    def opened(self, connection: Connection) -> bool:
        self.seen += 1
        if self.has_room:
            self.sockets.add(connection)
        return self.has_room

    def forwarded(self, connection: Connection, client: str) -> bool:
        self._note(connection, "forwarded", client)
        if self.has_room:
            connection.remote = client
        return self.has_room

    def refused(self, connection: Connection, refusal: Refusal) -> None:
        self._note(connection, "refused", refusal)

    def closed(self, connection: Connection) -> None:
        self.sockets.discard(connection)

    def connected(self, connection: Connection) -> None:
        self._note(connection, "connected")

    def received(self, connection: Connection, messages: list[bytes]) -> None:
        self._note(connection, "received", messages)

    def congested(self, connection: Connection) -> None:
        assert connection.is_congested

    def drained(self, connection: Connection) -> None:
        self._note(connection, "drained")

    def disconnected(self, connection: Connection) -> None:
        self._note(connection, "disconnected")

    def failed(self, connection: Connection, error: Exception) -> None:
        self.errors.append(error)

    def _note(self, connection: Connection, name: str, *args: Any) -> None:
        self.log.append((name, *args))
        if name in self.on:
            self.on[name](connection, *args)

    @property
    def connection(self) -> Connection:
        """The latest connection."""
        return self.connections[-1]

    @property
    def messages(self) -> list[bytes]:
        return [
            m
            for name, *args in self.log
            if "received" == name
            for m in args[0]
        ]

    def take_errors(self) -> str:
        """Return and clear the expected errors; others fail the test."""
        errors, self.errors = self.errors, []
        return repr(errors)

    @property
    def names(self) -> list[str]:
        return [entry[0] for entry in self.log]

    async def wait(self, name: str, times: int = 1) -> None:
        await until(lambda: self.names.count(name) >= times)

    async def start(self, **kwargs: Any) -> None:
        arguments = {"names": None} | kwargs
        await self.start_with(
            lambda: Connection(self, admission=self, **arguments)
        )

    async def start_with(self, door: Callable[[], tcp.Connection]) -> None:
        def make() -> tcp.Connection:
            self.connections.append(door())
            return self.connection

        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(make, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        await until(lambda: not any(c.remote == "" for c in self.connections))
        for connection in self.connections:
            connection.abort()
        await self._server.wait_closed()


def fill(connection: Connection) -> None:
    """Write until the kernel takes no more."""
    while not connection.buffered:
        connection.write(bytes(1_000))


def echo(connection: Connection, messages: list[bytes]) -> None:
    connection.write(b"".join(map(frame, messages)))


class Peer:
    """A client that sends any bytes."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    async def take(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readexactly(size)

    async def rest(self) -> bytes:
        """Everything until the other side's orderly EOF."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()

    async def head(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def answer(self) -> tuple[int, Headers, bytes]:
        """Status, headers and body of the one HTTP answer there may be."""
        data = await self.rest()
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = Headers()
        for line in lines:
            name, _, value = line.partition(": ")
            headers[name] = value
        return int(first.split()[1]), headers, body

    async def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of an unmasked, unfragmented frame."""
        first, length = await self.take(2)
        if length == 126:
            (length,) = struct.unpack("!H", await self.take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self.take(8))
        return first & 0x0F, await self.take(length)

    async def closed(self) -> Close:
        """Return the close frame; skip the frames before it."""
        while True:
            opcode, data = await self.frame()
            if opcode == CLOSE:
                return Close.parse(data)


@dataclass
class Clock:
    """The loop's clock, which can be set forward."""

    real: Callable[[], float]
    ahead: float = 0.0

    def time(self) -> float:
        return self.real() + self.ahead

    async def advance(self, seconds: float) -> None:
        self.ahead += seconds
        for _ in range(3):  # timers fire, and what they scheduled runs
            await asyncio.sleep(0)


Dial = Callable[..., Any]


def stock(desk: Desk) -> connect:
    return connect(
        f"ws://127.0.0.1:{desk.port}",
        compression=None,
        proxy=None,
        max_size=2**24,
        ping_interval=None,
    )


@dataclass
class FakeTransport(asyncio.Transport):
    """A transport that accepts all writes and reports set sizes."""

    can_half_close: bool = True
    sizes: Iterable[int] = ()  # of the write buffer; the last one is repeated
    calls: list[str] = field(default_factory=list)
    written: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.left = list(self.sizes) or [0]

    def get_write_buffer_size(self) -> int:
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return self.can_half_close

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def write_eof(self) -> None:
        self.calls.append("write_eof")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def over(
    transport: FakeTransport, desk: Desk | None = None, **kwargs: Any
) -> Connection:
    arguments: dict[str, Any] = {"names": None} | kwargs
    desk = desk or Desk()
    connection = Connection(desk, admission=desk, **arguments)
    connection.connection_made(transport)
    return connection


def feed(connection: Connection, data: bytes) -> None:
    connection.get_buffer(-1)[: len(data)] = data
    connection.buffer_updated(len(data))
