"""The duties of one connection, each tried over a real socket.

Hostile bytes come from a plain socket, friendly ones from the stock client
of websockets. No test waits for a clock: if time must pass, the clock of the
loop is set forward, or a time-out is tiny and its result is awaited.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import struct
import weakref
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError, ProtocolError
from websockets.frames import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    Close,
    Frame,
    Opcode,
)
from websockets.http11 import Request, Response

from exchange.doors.names import (
    Names,
    Proxies,
    Refusal,
    read_network,
    read_origin,
)
from exchange.doors.tcp import (
    CLOSE_TIMEOUT_S,
    HIGH_WATER,
    MAX_MESSAGE,
    OPEN_TIMEOUT_S,
    READ_SIZE,
)
from exchange.doors.websocket import (
    FRAGMENT,
    FRAMES_PER_TURN,
    MAX_FRAME,
    PING_INTERVAL_S,
    PING_TIMEOUT_S,
    Connection,
    Limits,
    frame,
)

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

        def make() -> Connection:
            self.connections.append(
                Connection(self, admission=self, **arguments)
            )
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


@pytest.fixture(autouse=True)
async def silence() -> AsyncIterator[None]:
    """Check that nothing reaches the loop's exception handler."""
    unhandled: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: unhandled.append(context))
    yield
    assert unhandled == []


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    loop = asyncio.get_running_loop()
    clock = Clock(loop.time)
    monkeypatch.setattr(loop, "time", clock.time)
    return clock


@pytest.fixture
async def desk(silence: None) -> AsyncIterator[Desk]:
    """A desk that is not started yet: tests choose the arguments."""
    desk = Desk()
    yield desk
    await desk.stop()
    assert desk.errors == []


@pytest.fixture
async def dial(desk: Desk) -> AsyncIterator[Callable[..., Any]]:
    """Connect a peer that sends ``data``; ``open``: after a handshake."""
    peers: list[Peer] = []

    async def dial(*data: bytes, open: bool = False, **kwargs: Any) -> Peer:
        if not desk.port:
            await desk.start(**kwargs)
        peer = Peer(*await asyncio.open_connection("127.0.0.1", desk.port))
        peers.append(peer)
        if open:
            peer.send(HANDSHAKE)
            assert b" 101 " in await peer.head()
        peer.send(*data)
        return peer

    yield dial
    for peer in peers:
        peer.writer.transport.abort()


Dial = Callable[..., Any]


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[ClientConnection]:
    """A stock client at a desk that echoes."""
    desk.on["received"] = echo
    await desk.start()
    async with stock(desk) as client:
        yield client


def stock(desk: Desk) -> connect:
    return connect(
        f"ws://127.0.0.1:{desk.port}",
        compression=None,
        proxy=None,
        max_size=2**24,
        ping_interval=None,
    )


# Opening ---------------------------------------------------------------------


async def test_stock_client_is_echoed(
    client: ClientConnection, desk: Desk
) -> None:
    await client.send("hé")
    assert await client.recv() == "hé"
    assert desk.connection.remote == "127.0.0.1"
    await client.close(4000, "bye")
    await desk.wait("disconnected")
    assert client.close_code == 4000  # echoed
    assert desk.names == ["connected", "received", "disconnected"]


async def test_handshake_byte_by_byte(desk: Desk, dial: Dial) -> None:
    peer = await dial()
    for byte in HANDSHAKE:
        peer.send(bytes([byte]))
        await asyncio.sleep(0)
    assert b" 101 " in await peer.head()
    await desk.wait("connected")


async def test_frames_in_the_segment_of_the_handshake(
    desk: Desk, dial: Dial
) -> None:
    desk.on["connected"] = lambda c: c.write(frame(b"hello"))
    peer = await dial(HANDSHAKE, masked(PING, b"p"), masked(TEXT, b"a"))
    assert b" 101 " in await peer.head()
    assert await peer.frame() == (TEXT, b"hello")
    assert await peer.frame() == (PONG, b"p")
    await desk.wait("received")
    assert desk.log == [("connected",), ("received", [b"a"])]


async def test_receiver_that_hangs_up_at_once_receives_nothing(
    desk: Desk, dial: Dial
) -> None:
    desk.on["connected"] = lambda connection: connection.abort()
    await dial(HANDSHAKE, masked(TEXT, b"a"))
    await desk.wait("disconnected")
    assert desk.names == ["connected", "disconnected"]


async def test_query_is_not_part_of_the_path(desk: Desk, dial: Dial) -> None:
    peer = await dial(upgrade(path="/?account=1"))
    assert b" 101 " in await peer.head()


async def test_upgrade_in_another_spelling(desk: Desk, dial: Dial) -> None:
    peer = await dial(HANDSHAKE.replace(b"websocket", b"WebSocket"))
    assert b" 101 " in await peer.head()


async def test_opening_timeout(desk: Desk, dial: Dial) -> None:
    peer = await dial(HANDSHAKE[:-2], limits=Limits(open_timeout=TINY_S))
    assert await peer.rest() == b""
    assert desk.log == []


async def test_opening_timeout_ends_with_the_handshake(
    desk: Desk, dial: Dial, clock: Clock
) -> None:
    await dial(open=True, limits=Limits(ping_interval=1e6))
    await clock.advance(OPEN_TIMEOUT_S + 1)
    assert desk.connection.is_open


# HTTP ------------------------------------------------------------------------


async def test_pipelined_requests_get_one_answer(
    desk: Desk, dial: Dial
) -> None:
    peer = await dial(get("/a"), get("/b"), HANDSHAKE)
    assert (await peer.rest()).count(b"HTTP/1.1") == 1
    assert desk.log == []


@pytest.mark.parametrize("path", ["/", "/?query"])
async def test_root_without_upgrade(desk: Desk, dial: Dial, path: str) -> None:
    status, headers, body = await (await dial(get(path))).answer()
    assert (status, headers["Upgrade"]) == (426, "websocket")
    assert headers["Connection"] == "close"
    assert int(headers["Content-Length"]) == len(body) > 0
    assert desk.log == []


@pytest.mark.parametrize("request_", [get("/no"), upgrade(path="/no")])
async def test_unknown_path(desk: Desk, dial: Dial, request_: bytes) -> None:
    status, headers, _ = await (await dial(request_)).answer()
    assert (status, headers["Connection"]) == (404, "close")
    assert headers["Content-Type"].startswith("text/plain")
    assert desk.log == []


async def test_head_has_no_body(desk: Desk, dial: Dial) -> None:
    status, headers, body = await (
        await dial(get("/no", method="HEAD"))
    ).answer()
    assert (status, body) == (404, b"")
    assert int(headers["Content-Length"]) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods(desk: Desk, dial: Dial, method: str) -> None:
    peer = await dial(get("/", "Content-Length: 0", method=method))
    status, headers, _ = await peer.answer()
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert headers["Connection"] == "close"


@pytest.mark.parametrize(
    "request_",
    [
        get("/", "Content-Length: 4", method="POST") + b"body",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n",
        b"GET / HTTP/2.0\r\n\r\n",
    ],
    ids=["body", "TLS", "HTTP/2"],
)
async def test_a_request_that_cannot_be_parsed(
    desk: Desk, dial: Dial, request_: bytes
) -> None:
    assert await (await dial(request_)).rest() == b""
    assert desk.log == []


async def test_endless_header(desk: Desk, dial: Dial) -> None:
    peer = await dial(b"GET / HTTP/1.1\r\nX: ", b"x" * 2**20)
    assert (await peer.answer())[0] == 431


async def test_respond_answers(desk: Desk, dial: Dial) -> None:
    page = Response(200, "OK", Headers({"Connection": "keep-alive"}), b"page")
    asked: list[Request] = []

    def respond(request: Request) -> Response:
        asked.append(request)
        return page

    peer = await dial(get("/page?x"), respond=respond)
    status, headers, body = await peer.answer()
    assert (status, body) == (200, b"page")
    assert headers.get_all("Connection") == ["close"]
    assert headers["Content-Length"] == "4"
    assert asked[0].path == "/page?x"
    # The response itself is unchanged.
    assert page.headers == Headers({"Connection": "keep-alive"})


async def test_error_in_respond(desk: Desk, dial: Dial) -> None:
    def respond(request: Request) -> Response:
        raise KeyError("page")

    peer = await dial(get("/page"), respond=respond)
    assert (await peer.answer())[0] == 500
    assert desk.take_errors() == "[KeyError('page')]"
    assert desk.log == []


async def test_repeated_headers_do_no_harm(desk: Desk, dial: Dial) -> None:
    extra = "X-A: 1", "X-A: 2", "Cookie: a", "Cookie: b", "Connection: x"
    assert b" 101 " in await (await dial(upgrade(*extra))).head()
    peer = await dial(get("/", "Upgrade: a", "Upgrade: b"))
    assert (await peer.answer())[0] == 426
    for header in "Origin: o", "Sec-WebSocket-Key: k", "Upgrade: websocket":
        peer = await dial(upgrade(header, header))
        assert (await peer.answer())[0] in (400, 426)


def names(**more: Any) -> Names:
    """Names of an exchange on localhost, with one foreign page allowed."""
    origins = [read_origin("https://there.example")]
    usual = {"is_tls": False, "checks_host": True}
    return Names(hosts=["localhost"], origins=origins, **usual | more)


HERE = "Host: localhost:8765"


@pytest.mark.parametrize(
    "headers, status",
    [
        ([HERE], 101),
        ([HERE, "Origin: http://localhost:8765"], 101),
        ([HERE, "Origin: https://there.example"], 101),
        ([HERE, "Origin: http://evil.example"], 403),
        ([HERE, "Origin: null"], 403),
        ([HERE, "Origin: http://localhost:8765", "Origin: null"], 400),
        (["Host: LocalHost:80"], 101),
        (["Host: [::1]:8765"], 101),
        (["Host: there.example"], 101),
        (["Host: evil.example:8765"], 403),
        (["Host: localhost:80:80"], 403),
        (["Host: localhost", "Host: evil.example"], 403),
        (["Host: "], 403),
        ([], 403),
    ],
)
async def test_which_pages_may_connect(
    desk: Desk, dial: Dial, headers: list[str], status: int
) -> None:
    """test_names has the rules; here are the answers."""
    peer = await dial(upgrade(*headers), names=names())
    head = await peer.head()
    assert f" {status} ".encode() in head
    if status == 403:
        body = await peer.rest()
        assert b"EXCHANGE_SERVER_ORIGINS" in body and body.endswith(b"\n")
    expected = {101: ["connected"], 403: ["refused"], 400: []}
    assert desk.names == expected[status]


@pytest.mark.parametrize(
    "headers, status",
    [
        ([HERE], 404),
        ([HERE, "Origin: http://evil.example"], 404),
        (["Host: evil.example"], 403),
        ([], 403),
    ],
)
async def test_which_pages_may_read(
    dial: Dial, headers: list[str], status: int
) -> None:
    """Any page may GET, but not by a foreign name of this machine."""
    for method in ("GET", "HEAD"):
        peer = await dial(get("/page", *headers, method=method), names=names())
        assert (await peer.answer())[0] == status


async def test_without_names_any_host_and_origin_is_accepted(
    dial: Dial,
) -> None:
    peer = await dial(upgrade("Host: a", "Origin: http://b"))
    assert b" 101 " in await peer.head()


# Through a proxy -------------------------------------------------------------

TRUSTED = Proxies([read_network("127.0.0.1")])


@pytest.mark.parametrize("make", [partial(get, "/"), upgrade])
async def test_a_proxy_forwards_the_address_of_its_client(
    desk: Desk, dial: Dial, make: Callable[..., bytes]
) -> None:
    """It is reported once, first, and from several header lines."""
    lines = "X-Forwarded-For: 6.6.6.6", "x-forwarded-for: 10.0.0.7, 127.0.0.1"
    await (await dial(make(*lines), proxies=TRUSTED)).head()
    assert desk.log[0] == ("forwarded", "10.0.0.7")
    assert desk.names.count("forwarded") == 1
    assert desk.connection.remote == "10.0.0.7"


async def test_a_proxy_without_the_header_counts_itself(
    desk: Desk, dial: Dial
) -> None:
    await (await dial(upgrade(), proxies=TRUSTED)).head()
    assert desk.log == [("forwarded", "127.0.0.1"), ("connected",)]


async def test_another_peer_is_not_believed(desk: Desk, dial: Dial) -> None:
    others = Proxies([read_network("10.0.0.0/8")])
    header = "X-Forwarded-For: 10.0.0.7"
    await (await dial(upgrade(header), proxies=others)).head()
    assert desk.log == [("connected",)]
    assert desk.connection.remote == "127.0.0.1"


async def test_an_address_with_too_many_connections_is_answered(
    desk: Desk, dial: Dial
) -> None:
    """A proxy would take a cut connection for a broken exchange."""
    peer = await dial(proxies=TRUSTED)
    await until(lambda: desk.sockets)
    desk.has_room = False
    peer.send(upgrade("X-Forwarded-For: 10.0.0.7"))
    status, _, body = await peer.answer()
    assert status == 429 and b"Too many connections" in body
    assert desk.log == [("forwarded", "10.0.0.7")]


# Reading ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad, code",
    [
        (masked(TEXT, b"x" * (MAX_MESSAGE + 1)), 1009),
        (
            masked(TEXT, b"x" * MAX_MESSAGE, fin=False) + masked(CONT, b"x"),
            1009,
        ),
        (masked(BINARY, b"x"), 1003),
        (masked(TEXT, b"\xc3\x28"), 1007),
        (masked(TEXT, b"\xc3", fin=False) + masked(CONT, b"\x28"), 1007),
        (masked(TEXT, b"\xed\xa0\x80"), 1007),
        (bytes([0xC1, 0x80, 0, 0, 0, 0]), 1002),
        (bytes([0x83, 0x80, 0, 0, 0, 0]), 1002),
        (frame(b"unmasked"), 1002),
        (masked(CONT, b"x"), 1002),
        (masked(TEXT, b"x", fin=False) + masked(TEXT, b"y"), 1002),
        (bytes([0x09, 0x80, 0, 0, 0, 0]), 1002),
        (bytes([0x89, 0xFE, 0, 126]) + bytes(130), 1002),
        (masked(CLOSE, b"\x03"), 1002),
        (masked(CLOSE, b"\x03\xed"), 1002),
    ],
    ids=[
        "oversized",
        "oversized in fragments",
        "binary",
        "UTF-8",
        "UTF-8 across fragments",
        "surrogate",
        "reserved bit",
        "unknown opcode",
        "unmasked",
        "lone continuation",
        "interrupted fragments",
        "fragmented ping",
        "long ping",
        "short close",
        "code 1005 on the wire",
    ],
)
async def test_bad_frame(
    desk: Desk, dial: Dial, bad: bytes, code: int
) -> None:
    """Frames before it count, those after it do not."""
    peer = await dial(open=True)
    peer.send(masked(TEXT, b"a"), masked(TEXT), bad, masked(TEXT, b"after"))
    assert (await peer.closed()).code == code
    assert await peer.rest() == b""
    peer.writer.close()
    await desk.wait("disconnected")
    assert desk.messages == [b"a", b""]


async def test_largest_message(desk: Desk, dial: Dial) -> None:
    await dial(masked(TEXT, b"x" * MAX_MESSAGE), open=True)
    await desk.wait("received")
    assert desk.messages == [b"x" * MAX_MESSAGE]


async def test_fragments_with_a_ping_between(desk: Desk, dial: Dial) -> None:
    peer = await dial(open=True)
    first, second = "né".encode()[:2], "né".encode()[2:]
    peer.send(masked(TEXT, first, fin=False), masked(PING, b"now"))
    assert await peer.frame() == (PONG, b"now")  # before the message is whole
    peer.send(masked(CONT, b"", fin=False), masked(CONT, second))
    peer.send(masked(TEXT, b"next"))
    peer.send(masked(TEXT, b"a", fin=False), masked(CONT, b"b"))
    await until(lambda: desk.messages == ["né".encode(), b"next", b"ab"])


async def test_thousands_of_empty_frames_in_one_segment(
    desk: Desk, dial: Dial
) -> None:
    await dial(masked(TEXT) * 20_000, open=True)
    await until(lambda: len(desk.messages) == 20_000)
    batches = [len(entry[1]) for entry in desk.log if entry[0] == "received"]
    # A larger read would delay all other connections.
    assert max(batches) <= 16 * 1024 // len(masked(TEXT)) + 1


async def test_every_one_of_many_pings_in_one_segment_is_answered(
    desk: Desk, dial: Dial
) -> None:
    """An order among them and the EOF after them are not lost."""
    count = 10 * FRAMES_PER_TURN
    pings = [masked(PING, b"%d" % number) for number in range(count)]
    pings.insert(count // 2, masked(TEXT, b"order"))
    peer = await dial(b"".join(pings) + masked(TEXT, b"last"), open=True)
    peer.writer.write_eof()
    for number in range(count):
        assert await peer.frame() == (PONG, b"%d" % number)
    await desk.wait("disconnected")
    assert desk.messages == [b"order", b"last"]


async def test_a_peer_that_hangs_up_amid_its_pings_is_disconnected(
    desk: Desk, dial: Dial
) -> None:
    peer = await dial(masked(PING) * 10 * FRAMES_PER_TURN, open=True)
    await desk.wait("connected")
    peer.writer.transport.abort()
    await desk.wait("disconnected")


async def test_paused_receiver_receives_nothing(
    desk: Desk, dial: Dial
) -> None:
    desk.on["received"] = lambda c, messages: c.pause_reading()
    first = await dial(masked(TEXT, b"a"), open=True)
    await desk.wait("received")
    paused = desk.connection
    first.send(masked(TEXT, b"b"))
    # All earlier bytes are read before the answer to this client.
    desk.on["received"] = echo
    second = await dial(masked(TEXT, b"c"), open=True)
    await second.frame()
    assert desk.messages == [b"a", b"c"]
    paused.resume_reading()
    assert await first.frame() == (TEXT, b"b")


async def test_half_close_by_the_peer(desk: Desk, dial: Dial) -> None:
    peer = await dial(masked(TEXT, b"last"), open=True)
    peer.writer.write_eof()
    assert await peer.rest() == b""
    await desk.wait("disconnected")
    assert desk.log[1:] == [("received", [b"last"]), ("disconnected",)]


async def test_half_close_after_a_request(desk: Desk, dial: Dial) -> None:
    peer = await dial(get("/no"))
    peer.writer.write_eof()
    assert (await peer.answer())[0] == 404


async def test_half_close_within_a_request(desk: Desk, dial: Dial) -> None:
    peer = await dial(HANDSHAKE[:-2])
    peer.writer.write_eof()
    assert await peer.rest() == b""
    assert desk.log == []


async def test_half_closed_peer_that_does_not_read_is_cut_off(
    desk: Desk, dial: Dial, clock: Clock
) -> None:
    peer = await dial(open=True)
    fill(desk.connection)
    peer.writer.write_eof()
    await until(lambda: not desk.connection.is_open)
    await clock.advance(CLOSE_TIMEOUT_S + 1)
    await desk.wait("disconnected")


async def test_every_socket_is_opened_and_closed(
    desk: Desk, dial: Dial
) -> None:
    """Also one that asks for a page, and one that sends nothing."""
    page = await dial(get())
    silent = await dial()
    await dial(open=True)
    await until(lambda: desk.seen == 3)
    page.writer.close()
    silent.writer.close()
    await until(lambda: len(desk.sockets) == 1)
    await desk.stop()
    await until(lambda: not desk.sockets)
    assert desk.names == ["connected", "disconnected"]


async def test_a_refused_socket_is_cut_off(desk: Desk, dial: Dial) -> None:
    desk.has_room = False
    peer = await dial(HANDSHAKE)
    with contextlib.suppress(ConnectionResetError):
        assert await peer.reader.read() == b""
    assert desk.names == []


async def test_reset_by_the_peer(desk: Desk, dial: Dial) -> None:
    peer = await dial(open=True)
    sock = peer.writer.get_extra_info("socket")
    linger = struct.pack("ii", 1, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    peer.writer.transport.abort()
    await desk.wait("disconnected")
    assert desk.names == ["connected", "disconnected"]


async def test_library_prints_no_frames(
    desk: Desk, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "", "websockets", "websockets.server", "exchange":
        caplog.set_level(logging.DEBUG, logger=name)
    desk.on["received"] = echo
    peer = await dial(masked(TEXT, b"s3cret"), open=True)
    await peer.frame()
    assert "s3cret" not in caplog.text


# Writing ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, MAX_FRAME])
def test_frame_is_what_the_library_makes(size: int) -> None:
    data = b"x" * size
    assert frame(data) == Frame(TEXT, data).serialize(mask=False)


@pytest.mark.parametrize("size", [MAX_FRAME + 1, 4 * FRAGMENT, 5 * FRAGMENT])
async def test_long_message_reaches_a_stock_client(
    client: ClientConnection, desk: Desk, size: int
) -> None:
    text = "".join(chr(97 + i % 26) for i in range(size))
    desk.connection.write(frame(text.encode()) + frame(b"next"))
    fragments = [str(part) async for part in client.recv_streaming()]
    assert "".join(fragments) == text
    assert max(map(len, fragments)) < MAX_FRAME
    assert await client.recv() == "next"


async def test_full_buffer_stops_reading_until_drained(
    desk: Desk, dial: Dial
) -> None:
    peer = await dial(open=True)
    slow = desk.connection
    slow.write(frame(b"x" * FLOOD))
    assert slow.buffered > HIGH_WATER
    peer.send(masked(TEXT, b"a"))
    other = await dial(masked(TEXT, b"b"), open=True)
    await until(lambda: b"b" in desk.messages)
    other.writer.close()
    await desk.wait("disconnected")  # so many rounds of the loop are enough
    assert b"a" not in desk.messages
    await peer.take(len(frame(b"x" * FLOOD)))
    await until(lambda: b"a" in desk.messages)
    assert desk.names[-2:] == ["drained", "received"]
    assert slow.buffered == 0


async def test_reading_goes_on_after_both_causes_have_ended(
    desk: Desk, dial: Dial
) -> None:
    peer = await dial(open=True)
    slow = desk.connection
    slow.pause_reading()
    slow.write(frame(b"x" * FLOOD))
    peer.send(masked(TEXT, b"a"))
    slow.resume_reading()
    slow.pause_reading()
    await peer.take(len(frame(b"x" * FLOOD)))
    await desk.wait("drained")
    other = await dial(masked(TEXT, b"b"), open=True)
    await until(lambda: desk.messages == [b"b"])
    other.writer.close()
    await desk.wait("disconnected")
    assert desk.messages == [b"b"]
    slow.resume_reading()
    await until(lambda: desk.messages == [b"b", b"a"])


async def test_resuming_does_not_read_into_a_full_buffer(
    desk: Desk, dial: Dial
) -> None:
    peer = await dial(open=True)
    slow = desk.connection
    slow.write(frame(b"x" * FLOOD))
    slow.pause_reading()
    slow.resume_reading()
    peer.send(masked(TEXT, b"a"))
    other = await dial(masked(TEXT, b"b"), open=True)
    await until(lambda: b"b" in desk.messages)
    other.writer.close()
    await desk.wait("disconnected")
    assert desk.messages == [b"b"]


async def test_unread_pongs_do_not_pile_up(desk: Desk, dial: Dial) -> None:
    await desk.start()
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", desk.port)) as sock:
        sock.setblocking(False)
        await loop.sock_sendall(sock, HANDSHAKE)
        pings = masked(PING, b"x" * 125) * 1_000
        blocked = sent = 0
        while sent < FLOOD and blocked < 100:
            try:
                # A read may end within a frame, so whole frames are repeated.
                sent += sock.send(pings[sent % len(pings) :])
                blocked = 0
            except BlockingIOError:
                blocked += 1
            await asyncio.sleep(0)
        assert desk.connection.is_open
        assert HIGH_WATER < desk.connection.buffered
        assert desk.connection.buffered < HIGH_WATER + 2 * READ_SIZE


async def test_frames_after_a_failure_are_not_parsed(
    desk: Desk, dial: Dial
) -> None:
    peer = await dial(open=True)
    await desk.wait("connected")
    desk.connection.fail(4002, "enough")
    desk.connection.fail(4000, "again")  # it is not open any more
    peer.send(masked(PING) * 100, masked(TEXT, b"late"), masked(0x83))
    assert await peer.frame() == (CLOSE, struct.pack("!H", 4002) + b"enough")
    assert await peer.reader.read() == b""
    assert desk.messages == []
    peer.writer.close()
    await desk.wait("disconnected")


async def test_write_after_close_does_nothing(
    client: ClientConnection, desk: Desk
) -> None:
    connection = desk.connection
    connection.close(4001, "enough")
    assert not connection.is_open
    connection.write(frame(b"late"))
    connection.close(4002)
    with pytest.raises(ConnectionClosedError) as closed:
        await client.recv()
    assert closed.value.rcvd == Close(4001, "enough")
    await desk.wait("disconnected")
    connection.write(frame(b"later"))


async def test_write_after_abort_does_nothing(
    desk: Desk, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    await dial(open=True)
    desk.connection.abort()
    assert not desk.connection.is_open
    for _ in range(10):
        desk.connection.write(frame(b"late"))
    await desk.wait("disconnected")
    assert (
        caplog.text == ""
    )  # asyncio logs a warning after several such writes


async def test_nothing_happens_after_the_end(desk: Desk, dial: Dial) -> None:
    peer = await dial(open=True)
    connection = desk.connection
    # asyncio fails on abort() after a close that had to flush first.
    fill(connection)
    peer.writer.write_eof()
    await until(lambda: not connection.is_open)
    await peer.rest()
    await desk.wait("disconnected")
    connection.abort()
    connection.close(1000)
    connection.write(frame(b"late"))
    connection.pause_reading()
    connection.resume_reading()
    assert connection.buffered == 0
    assert desk.names == ["connected", "disconnected"]


# Ending ----------------------------------------------------------------------


async def test_close_frame_is_echoed(desk: Desk, dial: Dial) -> None:
    peer = await dial(masked(TEXT, b"a"), closing(4321, "why"), open=True)
    assert await peer.closed() == Close(4321, "why")
    assert await peer.rest() == b""
    peer.writer.close()
    await desk.wait("disconnected")
    assert desk.messages == [b"a"]


async def test_close_gets_through_to_a_peer_in_full_flow(
    desk: Desk, dial: Dial
) -> None:
    desk.on["received"] = lambda c, messages: c.close(4000, "stop")
    peer = await dial(masked(TEXT, b"x" * 50_000) * 200, open=True)
    assert await peer.closed() == Close(4000, "stop")
    peer.send(closing(4000))
    assert await peer.rest() == b""
    assert desk.names == ["connected", "received"]


async def test_failure_gets_through_to_a_peer_in_full_flow(
    desk: Desk, dial: Dial
) -> None:
    peer = await dial(masked(CONT), b"noise" * 2_000_000, open=True)
    assert (await peer.closed()).code == 1002
    assert await peer.rest() == b""
    await peer.writer.drain()


async def test_failure_gets_through_to_a_peer_that_reads_last(
    desk: Desk, dial: Dial
) -> None:
    peer = await dial(open=True, limits=Limits(close_timeout=1e6))
    fill(desk.connection)
    peer.send(masked(CONT), b"noise" * 4_000_000)
    async with asyncio.timeout(PATIENCE_S):
        await peer.writer.drain()
    end = Frame(
        CLOSE, Close(1002, "unexpected continuation frame").serialize()
    )
    assert (await peer.rest()).endswith(end.serialize(mask=False))


async def test_close_gets_through_although_reading_was_paused(
    desk: Desk, dial: Dial
) -> None:
    peer = await dial(open=True)
    desk.connection.pause_reading()
    peer.send(masked(TEXT, b"x" * 50_000) * 200)
    desk.connection.close(4000)
    assert (await peer.closed()).code == 4000
    peer.send(closing(4000))
    assert await peer.rest() == b""
    assert desk.messages == []


async def test_peer_that_ignores_the_close_is_cut_off(
    desk: Desk, dial: Dial
) -> None:
    peer = await dial(open=True, limits=Limits(close_timeout=TINY_S))
    desk.connection.close(4000)
    assert (await peer.closed()).code == 4000
    assert await peer.rest() == b""
    assert desk.names == ["connected", "disconnected"]


async def test_flow_of_frames_does_not_put_off_the_end(
    desk: Desk, dial: Dial, clock: Clock
) -> None:
    peer = await dial(open=True, limits=Limits(close_timeout=100))
    desk.connection.close(4000)
    await clock.advance(99)
    peer.send(masked(PING))
    await peer.closed()
    await peer.frame()  # the pong
    await clock.advance(1)
    await desk.wait("disconnected")


async def test_close_code_must_be_valid(desk: Desk, dial: Dial) -> None:
    await dial(open=True)
    with pytest.raises(ProtocolError):
        desk.connection.close(1005)
    with pytest.raises(ProtocolError):
        desk.connection.close(4000, "x" * 124)
    assert desk.connection.is_open


async def test_peer_that_is_gone_before_its_frames_are_read(
    desk: Desk, dial: Dial
) -> None:
    """The close frame is answered with a reset during the half-close."""
    await desk.start()
    with socket.create_connection(("127.0.0.1", desk.port)) as sock:
        sock.sendall(HANDSHAKE)
        await desk.wait("connected")
        sock.recv(2**16)
        sock.sendall(masked(CONT))
    await desk.wait("disconnected")


async def test_peer_that_vanishes_before_the_half_close(
    desk: Desk, dial: Dial
) -> None:
    """The last bytes meet a reset, which must not reach the loop."""
    await desk.start()
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", desk.port)) as sock:
        sock.setblocking(False)
        await loop.sock_sendall(sock, HANDSHAKE)
        await desk.wait("connected")
        connection = desk.connection
        fill(connection)
        await loop.sock_sendall(sock, masked(CONT))
        await until(lambda: not connection.is_open)
        with pytest.raises(BlockingIOError):
            while sock.recv(2**20):
                pass
    await desk.wait("disconnected")


@pytest.mark.parametrize("name", ["connected", "received", "drained"])
async def test_error_in_the_receiver_ends_only_that_connection(
    desk: Desk, dial: Dial, name: str
) -> None:
    def fail(connection: Connection, *args: Any) -> None:
        raise ZeroDivisionError(name)

    desk.on["received"] = echo
    other = await dial(open=True)
    desk.on[name] = fail
    peer = await dial(HANDSHAKE)
    await peer.head()
    await desk.wait("connected", 2)
    if name == "received":
        peer.send(masked(TEXT, b"a"))
    if name == "drained":
        desk.connection.write(frame(b"x" * FLOOD))
    assert (await peer.closed()).code == 1011
    assert await peer.rest() == b""
    peer.writer.close()
    await desk.wait("disconnected")
    assert desk.take_errors() == f"[ZeroDivisionError('{name}')]"
    desk.on["received"] = echo
    other.send(masked(TEXT, b"alive"))
    assert await other.frame() == (TEXT, b"alive")


async def test_abort_while_draining(desk: Desk, dial: Dial) -> None:
    desk.on["drained"] = lambda connection: connection.abort()
    peer = await dial(open=True)
    desk.connection.write(b"x" * FLOOD)
    await peer.rest()
    await desk.wait("disconnected")
    assert desk.names == ["connected", "drained", "disconnected"]


async def test_error_on_disconnecting(desk: Desk, dial: Dial) -> None:
    def fail(connection: Connection) -> None:
        raise ZeroDivisionError

    desk.on["disconnected"] = fail
    peer = await dial(open=True)
    peer.writer.close()
    await until(lambda: desk.errors)
    assert desk.take_errors() == "[ZeroDivisionError()]"
    assert desk.names == ["connected", "disconnected"]


# Time ------------------------------------------------------------------------


async def test_silent_peer_is_pinged_and_then_cut_off(
    desk: Desk, dial: Dial, clock: Clock
) -> None:
    peer = await dial(open=True)
    await clock.advance(PING_INTERVAL_S)
    opcode, payload = await peer.frame()
    assert opcode == PING
    # An older pong and an unsolicited one do not count.
    peer.send(masked(PONG, payload[::-1]), masked(PONG), masked(TEXT, b"a"))
    await desk.wait("received")
    await clock.advance(PING_TIMEOUT_S)
    assert await peer.closed() == Close(1011, "ping timeout")
    await clock.advance(CLOSE_TIMEOUT_S)
    await desk.wait("disconnected")


async def test_ping_timeout_without_turning_the_clock(
    desk: Desk, dial: Dial
) -> None:
    limits = Limits(ping_interval=TINY_S, ping_timeout=TINY_S)
    peer = await dial(open=True, limits=limits)
    assert (await peer.frame())[0] == PING
    assert (await peer.closed()).code == 1011


async def test_matching_pongs_keep_a_connection(
    desk: Desk, dial: Dial, clock: Clock
) -> None:
    peer = await dial(open=True)
    payloads = set()
    for _ in range(3):
        await clock.advance(PING_INTERVAL_S)
        opcode, payload = await peer.frame()
        assert opcode == PING
        payloads.add(payload)
        await clock.advance(PING_TIMEOUT_S - 1)
        peer.send(masked(PONG, payload), masked(PING))
        assert await peer.frame() == (PONG, b"")
    assert len(payloads) == 3
    assert desk.connection.is_open


async def test_unasked_pongs_do_not_put_off_the_ping(
    desk: Desk, dial: Dial, clock: Clock
) -> None:
    peer = await dial(open=True)
    await clock.advance(PING_INTERVAL_S - 1)
    peer.send(masked(PONG), masked(PING))
    await peer.frame()
    await clock.advance(1)
    assert (await peer.frame())[0] == PING


async def test_stock_client_stays_connected(
    client: ClientConnection, desk: Desk, clock: Clock
) -> None:
    # It connected before the clock was replaced; the loop uses the new one.
    for _ in range(3):
        await clock.advance(PING_INTERVAL_S)
        await client.send("a")
        assert await client.recv() == "a"
    assert desk.connection.is_open


async def test_pong_that_was_not_read_is_not_overdue(
    desk: Desk, dial: Dial, clock: Clock
) -> None:
    peer = await dial(open=True)
    desk.connection.pause_reading()
    await clock.advance(PING_INTERVAL_S)
    _, payload = await peer.frame()
    peer.send(masked(PONG, payload))
    for _ in range(3):
        await clock.advance(PING_TIMEOUT_S)
        assert desk.connection.is_open
    desk.connection.resume_reading()
    await clock.advance(PING_TIMEOUT_S)
    assert desk.connection.is_open
    await clock.advance(PING_INTERVAL_S)
    assert (await peer.frame())[0] == PING


async def test_pause_excuses_one_late_pong(
    desk: Desk, dial: Dial, clock: Clock
) -> None:
    await dial(open=True)
    await clock.advance(PING_INTERVAL_S)
    desk.connection.pause_reading()
    desk.connection.resume_reading()
    await clock.advance(PING_TIMEOUT_S)
    assert desk.connection.is_open
    await clock.advance(PING_TIMEOUT_S)
    assert not desk.connection.is_open


async def test_lost_connection_is_forgotten(desk: Desk, dial: Dial) -> None:
    """No timer keeps a reference, which would fill the memory."""
    peer = await dial(open=True)
    lost = weakref.ref(desk.connection)
    peer.writer.close()
    await desk.wait("disconnected")
    desk.connections.clear()
    await asyncio.sleep(0)
    gc.collect()
    assert lost() is None


async def test_slow_reader_stays_while_it_takes_something(
    desk: Desk, dial: Dial, clock: Clock
) -> None:
    peer = await dial(open=True)
    slow = desk.connection
    slow.write(frame(b"x" * FLOOD))
    await clock.advance(PING_INTERVAL_S)
    for _ in range(2):
        before = slow.buffered
        await peer.take(FLOOD // 4)
        await until(lambda: slow.buffered < before)
        await clock.advance(PING_TIMEOUT_S)
        assert slow.is_open
    # From here on nothing is read: the buffer of the client is full.
    for _ in range(2):
        before = slow.buffered
        await clock.advance(PING_TIMEOUT_S)
    assert not slow.is_open


# Where the transport is not the usual one ------------------------------------


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


async def test_answers_to_one_read_leave_in_one_write() -> None:
    transport = FakeTransport()
    connection = over(transport)
    feed(connection, HANDSHAKE)
    transport.written.clear()
    feed(connection, masked(PING, b"p") * 10 + closing(1000))
    pong = Frame(PONG, b"p").serialize(mask=False)
    assert len(transport.written) == 1
    assert transport.written[0].startswith(pong * 10)
    assert transport.calls == ["write_eof"]
    connection.connection_lost(None)


async def test_a_turn_answers_a_bounded_number_of_pings() -> None:
    transport = FakeTransport()
    connection = over(transport)
    feed(connection, HANDSHAKE)
    transport.written.clear()
    feed(connection, masked(PING) * 3 * FRAMES_PER_TURN)
    pong = Frame(PONG, b"").serialize(mask=False)
    await until(lambda: len(transport.written) == 3)
    assert set(transport.written) == {pong * FRAMES_PER_TURN}
    connection.connection_lost(None)


async def test_buffer_filled_again_is_not_drained() -> None:
    desk = Desk()
    connection = over(FakeTransport(), desk)
    feed(connection, HANDSHAKE)
    connection.pause_writing()
    connection.resume_writing()
    connection.pause_writing()
    await asyncio.sleep(0)
    assert desk.names == ["connected"]
    connection.resume_writing()
    await asyncio.sleep(0)
    assert desk.names == ["connected", "drained"]
    connection.pause_writing()
    connection.resume_writing()
    connection.close(1000)
    await asyncio.sleep(0)
    assert desk.names == ["connected", "drained"]
    connection.connection_lost(None)


async def test_transport_without_half_close_is_closed() -> None:
    transport = FakeTransport(can_half_close=False)
    connection = over(transport)
    feed(connection, get("/no"))
    assert transport.calls == ["close"]
    connection.connection_lost(None)


async def test_long_page_may_take_longer_than_the_timeout() -> None:
    """It may while the buffer shrinks between two looks at it."""
    transport = FakeTransport(sizes=[9, 9, 8, 7, 6, 5, 5])
    connection = over(transport, limits=Limits(close_timeout=TINY_S / 10))
    feed(connection, get("/no"))
    await until(lambda: transport.calls)
    assert transport.calls == ["abort"]
    assert transport.left == [5]
    connection.connection_lost(None)
