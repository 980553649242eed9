"""RFC 6455 to the letter: raw bytes on a real socket, against the server.

Our code parses messages in a single frame, without the library of websockets.
Here its results are compared with those of the library for any frames, and
for any places where a read ends.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.frames import CLOSE, PONG, TEXT, Close

from exchange.doors.tcp import MAX_MESSAGE
from exchange.doors.websocket import Connection, Limits
from server import Server
from test.doors.connection.desk import (
    HANDSHAKE,
    Desk,
    FakeTransport,
    Peer,
    closing,
    feed,
    get,
)
from test.support import serving

# First bytes of frames: the bit of a final frame, and the opcode.
FIN = 0x80
FIRST, LAST, BETWEEN = 0x01, FIN, 0x00  # of a message in fragments
WHOLE, BINARY = FIN | 0x01, FIN | 0x02
CLOSING, PINGING, PONGING = FIN | 0x08, FIN | 0x09, FIN | 0x0A
KEY = b"\x37\xfa\x21\x3d"  # the mask of the examples of the RFC


def masked(data: bytes, key: bytes = KEY) -> bytes:
    return bytes(byte ^ key[index % 4] for index, byte in enumerate(data))


def head(first: int, length: int, form: int = 0) -> bytes:
    """The head of a client's frame up to its mask, in the shortest form.

    ``form`` is the number of bytes for the length: 1, 2 or 8.
    """
    form = form or (1 if length < 126 else 2 if length < 2**16 else 8)
    if form == 1:
        return struct.pack("!BB", first, 0x80 | length)
    if form == 2:
        return struct.pack("!BBH", first, 0x80 | 126, length)
    return struct.pack("!BBQ", first, 0x80 | 127, length)


def raw(first: int, data: bytes = b"", form: int = 0) -> bytes:
    """A client's frame with any first byte."""
    return head(first, len(data), form) + KEY + masked(data)


def ask(name: str, size: int = 0) -> bytes:
    """A request with a name as its id, padded to a size in bytes."""
    text = json.dumps({"type": "ping", "id": name}, ensure_ascii=False)
    return text.encode().ljust(size)


def whole(name: str) -> bytes:
    """Return the same request as a frame."""
    return raw(WHOLE, ask(name))


@dataclass
class Received:
    """What a client has received on a connection."""

    names: list[str] = field(default_factory=list)  # ids of the replies
    pongs: list[bytes] = field(default_factory=list)
    close: Close | None = None


class Line(Peer):
    """A websocket without a library."""

    async def receive(
        self, received: Received, answers: int, pongs: int
    ) -> None:
        """Receive frames until there are these numbers of each."""
        while (
            len(received.names) < answers or len(received.pongs) < pongs
        ) and received.close is None:
            opcode, data = await self.frame()
            if opcode == TEXT:
                message = json.loads(data)
                messages = message if isinstance(message, list) else [message]
                received.names += [m["id"] for m in messages if "id" in m]
            elif opcode == PONG:
                received.pongs.append(data)
            else:
                assert opcode == CLOSE
                received.close = Close.parse(data)

    async def trickle(self, data: bytes) -> None:
        """Send byte by byte; the server reads each by itself."""
        for index in range(len(data)):
            self.send(data[index : index + 1])
            await asyncio.sleep(0)


class Host:
    """Connections to a running exchange."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.lines: list[Line] = []

    async def dial(self, *data: bytes) -> Line:
        """Connect, and send these bytes at once."""
        streams = await asyncio.open_connection("127.0.0.1", self.server.port)
        line = Line(*streams)
        self.lines.append(line)
        line.send(*data)
        return line

    async def connect(self) -> Line:
        """Connect, and complete the handshake."""
        line = await self.dial(HANDSHAKE)
        assert b" 101 " in await line.head()
        return line


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    async with serving() as server:
        host = Host(server)
        yield host
        for line in host.lines:
            line.writer.transport.abort()


async def farewell(line: Line) -> None:
    """Close in order: only the same code and an EOF come back."""
    line.send(closing(1000))
    assert await line.frame() == (CLOSE, struct.pack("!H", 1000))
    assert await line.rest() == b""


# Valid frames ----------------------------------------------------------------


def fragments(data: bytes, *cuts: int) -> list[bytes]:
    """A message in fragments that end at these places."""
    ends = [0, *cuts, len(data)]
    parts = [data[a:b] for a, b in zip(ends, ends[1:])]
    firsts = [FIRST, *[BETWEEN] * (len(parts) - 2), LAST]
    return [raw(first, part) for first, part in zip(firsts, parts)]


def interleaved(frames: list[bytes], *between: bytes) -> bytes:
    """Frames with other frames between each two of them."""
    return b"".join(between).join(frames)


LETTERS = "né €\U0001f600\U0010ffff\ud7ff\ue000\ufffe\x7f\x80߿ࠀ\u07ff\u0800"
LONG = ask("long", 300)
FULL = ask("full", MAX_MESSAGE)
# Bytes, the names in the replies, and the pongs.
GOOD: dict[str, tuple[bytes, list[str], list[bytes]]] = {
    "a message": (whole("a"), ["a"], []),
    "many in one segment": (
        b"".join(whole(str(n)) for n in range(500)),
        [str(n) for n in range(500)],
        [],
    ),
    "two fragments": (b"".join(fragments(ask("a"), 9)), ["a"], []),
    "a fragment for each byte": (
        b"".join(fragments(ask("a"), *range(1, len(ask("a"))))),
        ["a"],
        [],
    ),
    "empty fragments": (
        b"".join(fragments(ask("a"), 0, 0, 9, 9, 9, len(ask("a")))),
        ["a"],
        [],
    ),
    "fragments one after another": (
        b"".join(fragments(ask("a"), 3) + fragments(ask("b"), 4)),
        ["a", "b"],
        [],
    ),
    "fragments between whole messages": (
        whole("a") + b"".join(fragments(ask("b"), 5)) + whole("c"),
        ["a", "b", "c"],
        [],
    ),
    "a ping": (raw(PINGING, b"hello"), [], [b"hello"]),
    "an empty ping": (raw(PINGING), [], [b""]),
    "a ping of 125 bytes": (raw(PINGING, b"\xff" * 125), [], [b"\xff" * 125]),
    "pings in a row": (
        b"".join(raw(PINGING, bytes([n])) for n in range(50)),
        [],
        [bytes([n]) for n in range(50)],
    ),
    "an unsolicited pong": (
        raw(PONGING) + raw(PONGING, b"x" * 125) + whole("a"),
        ["a"],
        [],
    ),
    "pings between fragments": (
        interleaved(
            fragments(ask("a"), 3, 3, 8),
            raw(PINGING, b"p"),
            raw(PONGING, b"q"),
            raw(PINGING),
        ),
        ["a"],
        [b"p", b""] * 3,
    ),
    "letters of every length": (whole(LETTERS[:8]), [LETTERS[:8]], []),
    "letters at the borders": (whole(LETTERS[8:]), [LETTERS[8:]], []),
    "letters cut anywhere": (
        b"".join(
            b"".join(fragments(ask("né€\U0001f600"), cut))
            for cut in range(len(ask("né€\U0001f600")))
        ),
        ["né€\U0001f600"] * len(ask("né€\U0001f600")),
        [],
    ),
    "the longest message": (raw(WHOLE, FULL), ["full"], []),
    "the longest message in fragments": (
        b"".join(fragments(FULL, 1, 40_000, 65_535, 65_536)),
        ["full"],
        [],
    ),
    "a length of 125": (raw(WHOLE, ask("a", 125)), ["a"], []),
    "a length of 126": (raw(WHOLE, ask("a", 126)), ["a"], []),
    "a length of 65,535": (raw(WHOLE, ask("a", 65_535)), ["a"], []),
    # "The minimal number of bytes MUST be used to encode the length": the
    # library accepts longer forms, which does no harm.
    "a short length in two bytes": (raw(WHOLE, ask("a"), 2), ["a"], []),
    "a short length in eight bytes": (raw(WHOLE, ask("a"), 8), ["a"], []),
    "a length of 300 in eight bytes": (raw(WHOLE, LONG, 8), ["long"], []),
    "a ping in two bytes": (raw(PINGING, b"p", 2), [], [b"p"]),
    "a fragment in eight bytes": (
        raw(FIRST, ask("a")[:5], 8) + raw(LAST, ask("a")[5:], 2),
        ["a"],
        [],
    ),
    "a mask of zeros": (
        head(WHOLE, len(ask("a"))) + bytes(4) + ask("a"),
        ["a"],
        [],
    ),
}


@pytest.mark.parametrize("name", GOOD)
async def test_valid_frames_are_accepted(host: Host, name: str) -> None:
    data, names, pongs = GOOD[name]
    line = await host.connect()
    line.send(data)
    received = Received()
    await line.receive(received, len(names), len(pongs))
    assert received == Received(names, pongs)
    await farewell(line)


@pytest.mark.parametrize(
    "name", [name for name, (data, *_) in GOOD.items() if len(data) < 30_000]
)
async def test_valid_frames_are_accepted_byte_by_byte(
    host: Host, name: str
) -> None:
    data, names, pongs = GOOD[name]
    line = await host.connect()
    await line.trickle(data)
    received = Received()
    await line.receive(received, len(names), len(pongs))
    assert received == Received(names, pongs)
    await farewell(line)


async def test_a_conversation_cut_anywhere(host: Host) -> None:
    """It goes from the HTTP request to the close frame."""
    data = b"".join(
        [
            HANDSHAKE,
            whole("a"),
            raw(FIRST, ask("né")[:-4]),
            raw(PINGING, b"p"),
            raw(LAST, ask("né")[-4:]),
            whole("b"),
        ]
    )
    for cut in range(len(data) + 1):
        line = await host.dial(data[:cut])
        await asyncio.sleep(0)
        line.send(data[cut:])
        assert b" 101 " in await line.head()
        received = Received()
        await line.receive(received, 3, 1)
        assert received == Received(["a", "né", "b"], [b"p"])
        await farewell(line)


# Invalid frames --------------------------------------------------------------


def text(data: bytes) -> bytes:
    return raw(WHOLE, b'{"type":"ping","id":"' + data + b'"}')


# Bytes, and the close code.
BAD: dict[str, tuple[bytes, int]] = {
    "a message within a message": (raw(FIRST, b"a") + whole("x"), 1002),
    "a beginning within a message": (
        raw(FIRST, b"a") + raw(FIRST, b"b"),
        1002,
    ),
    "binary within a message": (raw(FIRST, b"a") + raw(BINARY, b"b"), 1002),
    "a continuation of nothing": (raw(LAST, ask("x")), 1002),
    "a continuation of nothing, to be continued": (raw(BETWEEN), 1002),
    "a continuation of what is complete": (
        b"".join(fragments(ask("a"), 5)) + raw(LAST, ask("x")),
        1002,
    ),
    "a continuation of a whole message": (whole("a") + raw(LAST), 1002),
    "a ping of 126 bytes": (raw(PINGING, bytes(126)), 1002),
    "a pong of 126 bytes": (raw(PONGING, bytes(126)), 1002),
    "a close of 126 bytes": (
        raw(CLOSING, struct.pack("!H", 1000) + b"x" * 124),
        1002,
    ),
    "a ping in fragments": (raw(PINGING ^ FIN, b"p"), 1002),
    "a pong in fragments": (raw(PONGING ^ FIN), 1002),
    "a close in fragments": (raw(CLOSING ^ FIN), 1002),
    "a ping in fragments within a message": (
        raw(FIRST, b"a") + raw(PINGING ^ FIN),
        1002,
    ),
    **{
        f"reserved bits {bits:03b} of {name}": (
            raw(first | bits << 4, b"x"),
            1002,
        )
        for bits in range(1, 8)
        for name, first in (("text", WHOLE), ("a ping", PINGING))
    },
    "a reserved bit of a continuation": (
        raw(FIRST, b"a") + raw(LAST | 0x40, b"b"),
        1002,
    ),
    "a reserved bit of a close": (raw(CLOSING | 0x10), 1002),
    **{
        f"the opcode {opcode:x}": (raw(FIN | opcode, b"x"), 1002)
        for opcode in (*range(3, 8), *range(0xB, 0x10))
    },
    "an opcode that is none within a message": (
        raw(FIRST, b"a") + raw(FIN | 3),
        1002,
    ),
    "text without mask": (bytes([WHOLE, 2]) + b"{}", 1002),
    "a ping without mask": (bytes([PINGING, 0]), 1002),
    "a close without mask": (bytes([CLOSING, 2, 3, 232]), 1002),
    "a continuation without mask": (
        raw(FIRST, b"a") + bytes([LAST, 1]) + b"b",
        1002,
    ),
    "binary": (raw(BINARY, b"x"), 1003),
    "empty binary": (raw(BINARY), 1003),
    "binary in fragments": (raw(BINARY ^ FIN, b"x"), 1003),
    "one byte too many": (raw(WHOLE, ask("x", MAX_MESSAGE + 1)), 1009),
    "one byte too many, of which none came": (
        head(WHOLE, MAX_MESSAGE + 1),
        1009,
    ),
    "the longest there is, of which none came": (
        head(WHOLE, 2**64 - 1),
        1009,
    ),
    "the highest bit of the length": (head(WHOLE, 2**63), 1009),
    "too long binary, of which none came": (head(BINARY, 2**40), 1009),
    "too long a ping, of which none came": (head(PINGING, 2**40), 1009),
    "fragments with one byte too many": (
        raw(FIRST, bytes(MAX_MESSAGE)) + raw(LAST, b"x"),
        1009,
    ),
    "fragments with too many, of which none came": (
        raw(FIRST, bytes(40_000)) + head(BETWEEN, 40_000),
        1009,
    ),
    "many fragments with one byte too many": (
        b"".join(fragments(ask("x", MAX_MESSAGE + 1), *range(0, 65_537, 64))),
        1009,
    ),
    # The library counts a control frame here, which matters in a rare case
    # only: within 125 bytes of the longest message.
    "a ping that does not fit beside the fragments": (
        raw(FIRST, bytes(MAX_MESSAGE - 5)) + raw(PINGING, b"123456"),
        1009,
    ),
    "a byte that is no UTF-8": (text(b"\xff"), 1007),
    "a single continuation byte": (text(b"\x80"), 1007),
    "half a letter": (text(b"\xc3"), 1007),
    "half a letter at the end": (raw(WHOLE, b"\xe2\x82"), 1007),
    "a slash in two bytes": (text(b"\xc0\xaf"), 1007),
    "a slash in three bytes": (text(b"\xe0\x80\xaf"), 1007),
    "a slash in four bytes": (text(b"\xf0\x80\x80\xaf"), 1007),
    "the last letter of two bytes in three": (text(b"\xe0\x9f\xbf"), 1007),
    "the first surrogate": (text(b"\xed\xa0\x80"), 1007),
    "the last surrogate": (text(b"\xed\xbf\xbf"), 1007),
    "a pair of surrogates": (text(b"\xed\xa0\x80\xed\xb0\x80"), 1007),
    "beyond U+10FFFF": (text(b"\xf4\x90\x80\x80"), 1007),
    "five bytes": (text(b"\xf8\x88\x80\x80\x80"), 1007),
    "six bytes": (text(b"\xfc\x84\x80\x80\x80\x80"), 1007),
    "no UTF-8 across fragments": (
        raw(FIRST, b"\xf0\x9f") + raw(BETWEEN) + raw(LAST, b"\x98\x28"),
        1007,
    ),
    "half a letter at the end of fragments": (
        raw(FIRST, b"x") + raw(LAST, b"\xc3"),
        1007,
    ),
    "no UTF-8 in the first fragment": (
        raw(FIRST, b"\xff") + raw(LAST, b"x"),
        1007,
    ),
    "a close of one byte": (raw(CLOSING, b"\x03"), 1002),
    "a close with a reason that is no UTF-8": (
        raw(CLOSING, struct.pack("!H", 1000) + b"\xff"),
        1007,
    ),
    "a close with half a letter as reason": (
        raw(CLOSING, struct.pack("!H", 4000) + b"x\xe2\x82"),
        1007,
    ),
    # The RFC allows it; the library takes the message for incomplete.
    "a close within a message": (raw(FIRST, b"a") + closing(1000), 1002),
    "noise": (b"\xff" * 100, 1002),
    "a request for a page": (get("/"), 1002),
}
AFTER = [whole("late"), raw(PINGING, b"late"), closing(4321)]


@pytest.mark.parametrize("is_slow", [False, True], ids=["at once", "slowly"])
@pytest.mark.parametrize("name", BAD)
async def test_invalid_frames_end_the_connection(
    host: Host, name: str, is_slow: bool
) -> None:
    """The close code has the reason; later frames are ignored."""
    data, code = BAD[name]
    line = await host.connect()
    line.send(whole("first"))
    received = Received()
    await line.receive(received, 1, 0)
    if not is_slow:
        line.send(data, *AFTER)
    elif len(data) < 1_000:
        await line.trickle(data)
    else:
        line.send(data[:-1])
        await asyncio.sleep(0)
        line.send(data[-1:])
    received = Received()
    await line.receive(received, 2, 1)
    assert received.close is not None and received.close.code == code
    # Requests before it may have been answered by then.
    assert received.names in ([], ["a"]) and received.pongs == []
    line.send(*AFTER)
    assert await line.rest() == b""


@pytest.mark.parametrize("code", range(1000, 1016))
async def test_every_registered_close_code(host: Host, code: int) -> None:
    """1004 to 1006 and 1015 must not be sent (RFC 6455, 7.4.1).

    IANA registered 1012 to 1014 later.
    """
    line = await host.connect()
    line.send(raw(CLOSING, struct.pack("!H", code)))
    is_valid = code not in (1004, 1005, 1006, 1015)
    assert (await line.closed()).code == (code if is_valid else 1002)
    assert await line.rest() == b""


@pytest.mark.parametrize("code", [3000, 3999, 4000, 4999])
async def test_a_private_close_code_is_echoed(host: Host, code: int) -> None:
    line = await host.connect()
    data = struct.pack("!H", code) + "né".encode()
    line.send(raw(CLOSING, data))
    assert await line.frame() == (CLOSE, data)
    assert await line.rest() == b""


@pytest.mark.parametrize(
    "code", [0, 1, 999, 1016, 1100, 2000, 2999, 5000, 65_535]
)
async def test_an_invalid_close_code_is_refused(host: Host, code: int) -> None:
    line = await host.connect()
    line.send(raw(CLOSING, struct.pack("!H", code)))
    assert (await line.closed()).code == 1002
    assert await line.rest() == b""


@pytest.mark.parametrize("reason", [b"", b"x" * 123, "€".encode() * 41])
async def test_a_reason_is_echoed(host: Host, reason: bytes) -> None:
    line = await host.connect()
    data = struct.pack("!H", 1000) + reason
    line.send(raw(CLOSING, data), *AFTER)
    assert await line.frame() == (CLOSE, data)
    assert await line.rest() == b""


async def test_a_close_without_a_code_is_echoed_as_it_is(
    host: Host,
) -> None:
    line = await host.connect()
    line.send(raw(CLOSING), *AFTER)
    assert await line.frame() == (CLOSE, b"")
    assert await line.rest() == b""


async def test_after_the_close_of_the_server_no_request_is_carried_out(
    host: Host,
) -> None:
    """The server closes a connection whose session was taken over."""
    line = await host.connect()
    login = {"type": "login", "user": "alice", "id": "login"}
    line.send(raw(WHOLE, json.dumps(login).encode()))
    _, data = await line.frame()
    login["session"] = json.loads(data)[0]["session"]
    other = await host.connect()
    other.send(raw(WHOLE, json.dumps(login).encode()))
    assert await line.closed() == Close(4009, "session taken over")
    place = {"type": "place", "side": "buy", "qty": 1, "price": 1}
    line.send(raw(WHOLE, json.dumps(place).encode()), raw(PINGING, b"p"))
    assert await line.frame() == (PONG, b"p")
    line.send(closing(4009))
    assert await line.rest() == b""
    assert host.server.gateway.engine.order_id == 0
    await farewell_after(other, "other")


async def farewell_after(line: Line, name: str) -> None:
    """Receive what is under way, and close in order."""
    line.send(whole(name))
    received = Received()
    while name not in received.names:
        await line.receive(received, len(received.names) + 1, 0)
    await farewell(line)


# Handshakes ------------------------------------------------------------------

LINES = [
    "GET / HTTP/1.1",
    "Host: localhost",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
]
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # the RFC's answer to that key


def request(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def changed(name: str, *lines: str) -> list[str]:
    """A handshake with one header replaced by these lines."""
    at = next(n for n, line in enumerate(LINES) if line.startswith(name))
    return [*LINES[:at], *lines, *LINES[at + 1 :]]


UPPER = [line.upper() for line in LINES[1:4]]
GOOD_HANDSHAKES: dict[str, list[str]] = {
    "as in the RFC": LINES,
    "in another order": [LINES[0], *reversed(LINES[1:])],
    "in lower case": [
        LINES[0],
        *(line.lower() for line in LINES[1:4]),
        *(
            line.replace("Sec-WebSocket", "sec-websocket")
            for line in LINES[4:]
        ),
    ],
    "in upper case": [LINES[0], *UPPER, *LINES[4:]],
    "with a query": changed("GET", "GET /?a=b HTTP/1.1"),
    "without spaces": [
        LINES[0],
        *(line.replace(": ", ":") for line in LINES[1:]),
    ],
    "with more spaces": [
        LINES[0],
        *(line.replace(": ", ": \t  ") + " \t " for line in LINES[1:]),
    ],
    "with a list": changed("Connection", "Connection: keep-alive , Upgrade"),
    "with two headers": changed(
        "Connection", "Connection: keep-alive", "Connection: Upgrade"
    ),
    "with more headers": [*LINES, *(f"X-{n}: {n}" for n in range(100))],
    "with a repeated header": [*LINES, "Cookie: a=1", "Cookie: b=2"],
    "with a long header": [*LINES, "X: " + "x" * 8_000],
    "with a header that is not ASCII": [*LINES, "X: n\xe9"],
    "with an empty header": [*LINES, "X:"],
    "with an empty body": [*LINES, "Content-Length: 0"],
    "with a subprotocol": [*LINES, "Sec-WebSocket-Protocol: chat, superchat"],
    "with an extension": [
        *LINES,
        "Sec-WebSocket-Extensions: permessage-deflate;"
        " client_max_window_bits",
    ],
    "with an extension that makes no sense": [
        *LINES,
        "Sec-WebSocket-Extensions: ;;=,,",
    ],
}


@pytest.mark.parametrize("name", GOOD_HANDSHAKES)
async def test_a_handshake(host: Host, name: str) -> None:
    """No subprotocol and no extension is accepted."""
    line = await host.dial(request(*GOOD_HANDSHAKES[name]))
    status, *lines = (await line.head()).decode().split("\r\n")
    assert status == "HTTP/1.1 101 Switching Protocols"
    headers = Headers()
    for header in filter(None, lines):
        key, _, value = header.partition(": ")
        headers[key] = value
    assert headers["Upgrade"] == "websocket"
    assert headers["Connection"] == "Upgrade"
    assert headers["Sec-WebSocket-Accept"] == ACCEPT
    assert "Sec-WebSocket-Protocol" not in headers
    assert "Sec-WebSocket-Extensions" not in headers
    await farewell(line)


SILENCE = 0  # closed without an answer
BAD_HANDSHAKES: dict[str, tuple[list[str], int]] = {
    "no Upgrade": (changed("Upgrade"), 200),  # the page
    "another Upgrade": (changed("Upgrade", "Upgrade: h2c"), 200),
    "two of them": (changed("Upgrade", "Upgrade: websocket, h2c"), 426),
    "an Upgrade twice": ([*LINES, "Upgrade: websocket"], 426),
    "no Connection": (changed("Connection"), 426),
    "another Connection": (changed("Connection", "Connection: close"), 426),
    "no Host": (changed("Host"), 403),
    "no key": (changed("Sec-WebSocket-Key"), 400),
    "two keys": ([*LINES, "Sec-WebSocket-Key: " + "A" * 22 + "=="], 400),
    "an empty key": (changed("Sec-WebSocket-Key", "Sec-WebSocket-Key:"), 400),
    "a short key": (
        changed("Sec-WebSocket-Key", "Sec-WebSocket-Key: AAAA"),
        400,
    ),
    "a long key": (
        changed("Sec-WebSocket-Key", "Sec-WebSocket-Key: " + "A" * 24),
        400,
    ),
    "a key that is no Base64": (
        changed("Sec-WebSocket-Key", "Sec-WebSocket-Key: " + "*" * 24),
        400,
    ),
    "no version": (changed("Sec-WebSocket-Version"), 426),
    "HTTP 1.0": (changed("GET", "GET / HTTP/1.0"), 505),
    "HTTP 2": (changed("GET", "GET / HTTP/2.0"), SILENCE),
    "another method": (changed("GET", "POST / HTTP/1.1"), 405),
    "HEAD": (changed("GET", "HEAD / HTTP/1.1"), 405),
    "a method in lower case": (changed("GET", "get / HTTP/1.1"), 405),
    "another path": (changed("GET", "GET /ws HTTP/1.1"), 404),
    "a whole address as path": (
        changed("GET", "GET http://localhost/ HTTP/1.1"),
        404,
    ),
    "a path that is not ASCII": (
        changed("GET", "GET /\xe9 HTTP/1.1"),
        SILENCE,
    ),
    "no path": (changed("GET", "GET HTTP/1.1"), SILENCE),
    "no request": (["", *LINES], SILENCE),
    "a foreign page": ([*LINES, "Origin: http://evil.example"], 403),
    "two origins": ([*LINES, "Origin: a", "Origin: b"], 400),
    "a header too long": ([*LINES, "X: " + "x" * 8_200], 431),
    "too many headers": ([*LINES, *(f"X-{n}: {n}" for n in range(130))], 431),
    "a path too long": (
        changed("GET", "GET /" + "x" * 8_200 + " HTTP/1.1"),
        414,
    ),
    "a body": ([*LINES, "Content-Length: 5"], SILENCE),
    "a body of unknown length": (
        [*LINES, "Transfer-Encoding: chunked"],
        SILENCE,
    ),
    "a header without colon": ([*LINES, "X"], SILENCE),
    "a header without name": ([*LINES, ": x"], SILENCE),
    "a space before the colon": (
        changed("Upgrade", "Upgrade : websocket"),
        SILENCE,
    ),
    "a header on two lines": ([*LINES, "X: a", " b"], SILENCE),
    "a zero byte": ([*LINES, "X: \0"], SILENCE),
}


@pytest.mark.parametrize("name", BAD_HANDSHAKES)
async def test_an_invalid_handshake(host: Host, name: str) -> None:
    """At most one answer, then the end; later bytes are not parsed."""
    lines, status = BAD_HANDSHAKES[name]
    line = await host.dial(request(*lines), whole("late"), HANDSHAKE)
    if status == SILENCE:
        assert await line.rest() == b""
    else:
        got, headers, body = await line.answer()
        assert got == status and headers["Connection"] == "close"
        expected = 0 if name == "HEAD" else int(headers["Content-Length"])
        assert len(body) == expected


@pytest.mark.parametrize("version", ["0", "8", "12", "14", "013", "13, 8", ""])
async def test_another_version_is_answered_with_ours(
    host: Host, version: str
) -> None:
    """RFC 6455, 4.2.2 and 4.4."""
    header = f"Sec-WebSocket-Version: {version}"
    lines = changed("Sec-WebSocket-Version", header)
    line = await host.dial(request(*lines))
    status, headers, _ = await line.answer()
    assert status == 426 and headers["Sec-WebSocket-Version"] == "13"
    assert headers["Upgrade"] == "websocket"


async def test_two_versions_are_answered_with_ours(host: Host) -> None:
    lines = [*LINES, "Sec-WebSocket-Version: 8"]
    line = await host.dial(request(*lines))
    status, headers, _ = await line.answer()
    assert status == 426 and headers["Sec-WebSocket-Version"] == "13"


async def test_lines_that_end_in_lf_without_cr(host: Host) -> None:
    line = await host.dial(request(*LINES).replace(b"\r\n", b"\n"))
    assert await line.rest() == b""


async def test_a_handshake_byte_by_byte_with_frames_behind(
    host: Host,
) -> None:
    line = await host.dial()
    await line.trickle(request(*LINES) + whole("a") + raw(PINGING, b"p"))
    await line.head()
    received = Received()
    await line.receive(received, 1, 1)
    assert received == Received(["a"], [b"p"])
    await farewell(line)


# Compared with the library ---------------------------------------------------


class Reference(Connection):
    """Gives the library every byte, and parses nothing itself."""

    def _messages(self, data: bytes) -> list[bytes]:
        messages: list[bytes] = []
        for index in range(len(data)):
            self._feed(data[index : index + 1], messages)
        self._flush()
        return messages


@dataclass(frozen=True)
class Outcome:
    """The results of some bytes from a peer."""

    messages: list[bytes]
    written: bytes  # pongs, and the close frame
    calls: list[str]
    is_open: bool


SMALL = Limits(max_message=300)


@contextmanager
def opened(
    cls: type[Connection], transport: FakeTransport
) -> Iterator[tuple[Connection, Desk]]:
    """Yield a connection without a socket, after its handshake."""
    desk = Desk()
    connection = cls(desk, admission=desk, names=None, limits=SMALL)
    connection.connection_made(transport)
    feed(connection, HANDSHAKE)
    transport.written.clear()
    yield connection, desk
    assert desk.errors == []
    connection.connection_lost(None)


def outcome(cls: type[Connection], *reads: bytes) -> Outcome:
    transport = FakeTransport()
    with opened(cls, transport) as (connection, desk):
        for data in reads:
            if data:
                feed(connection, data)
        return Outcome(
            desk.messages,
            b"".join(transport.written),
            transport.calls,
            connection.is_open,
        )


KINDS = {
    "text": raw(WHOLE, b"a"),
    "empty text": raw(WHOLE),
    "bad text": raw(WHOLE, b"\xff"),
    "first": raw(FIRST, b"\xc3"),
    "between": raw(BETWEEN),
    "last": raw(LAST, b"\xa9"),
    "ping": raw(PINGING, b"p"),
    "close": raw(CLOSING, struct.pack("!H", 4000)),
    "binary": raw(BINARY, b"b"),
    "opcode": raw(FIN | 3),
    "unmasked": bytes([WHOLE, 1]) + b"u",
    "reserved": raw(WHOLE | 0x40, b"r"),
    "too long": head(WHOLE, 0x02_00_00_00_00_00_00_81) + bytes([0x81]) * 9,
    "long": raw(WHOLE, b"l" * 130),
}


async def test_two_frames_of_any_kind_cut_anywhere() -> None:
    for kinds in product(KINDS, repeat=2):
        data = b"".join(map(KINDS.__getitem__, kinds)) + KINDS["text"]
        expected = outcome(Reference, data)
        for cut in range(len(data) + 1):
            got = outcome(Connection, data[:cut], data[cut:])
            assert got == expected, (kinds, cut)


async def test_three_frames_of_any_kind() -> None:
    for kinds in product(KINDS, repeat=3):
        data = b"".join(map(KINDS.__getitem__, kinds))
        expected = outcome(Reference, data)
        assert outcome(Connection, data) == expected, kinds


PAYLOADS = st.one_of(
    st.binary(max_size=8),
    st.text(max_size=8).map(str.encode),
    st.sampled_from([b"\xc3", b"\xa9", b"\xed\xa0", b"\x80", b"\xf0\x9f"]),
    st.integers(100, 310).map(lambda size: b"x" * size),
)
FIRSTS = st.one_of(
    st.sampled_from([WHOLE, WHOLE, FIRST, BETWEEN, LAST, PINGING, PONGING]),
    st.sampled_from([CLOSING, BINARY]),
    st.integers(0, 255),
)


@st.composite
def some_frame(draw: st.DrawFn) -> bytes:
    """Return a frame: most are valid, some have a wrong length."""
    first, data = draw(FIRSTS), draw(PAYLOADS)
    key = draw(st.sampled_from([KEY, bytes(4), b"\x81\x81\x00\x00"]))
    form = draw(st.sampled_from([0, 0, 0, 2, 8]))
    length = len(data)
    if draw(st.integers(0, 19)) == 0:
        length, form = draw(st.integers(0, 2**64 - 1)), 8
    head_ = bytearray(head(first, length, form))
    if draw(st.integers(0, 29)) == 0:
        head_[1] &= 0x7F  # the frame says that it has no mask
    return bytes(head_) + key + masked(data, key)


@given(
    st.lists(some_frame(), max_size=8).map(b"".join),
    st.lists(st.integers(0, 2_000), max_size=6),
    st.binary(max_size=12),
)
async def test_any_frames_cut_anywhere(
    data: bytes, cuts: list[int], tail: bytes
) -> None:
    data += tail
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    reads = [data[a:b] for a, b in zip(ends, ends[1:])]
    expected = outcome(Reference, data)
    assert outcome(Connection, *reads) == expected
    assert outcome(Connection, data) == expected
    single = [data[n : n + 1] for n in range(len(data))]
    assert outcome(Connection, *single) == expected
