"""The HTTP request that opens a connection, and its answer.

Hostile bytes come from a plain socket, friendly ones from the stock client
of websockets. No test waits for a clock: if time must pass, the clock of the
loop is set forward, or a time-out is tiny and its result is awaited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.datastructures import Headers
from websockets.frames import PING, PONG, TEXT
from websockets.http11 import Request, Response

from exchange.doors.names import Names, Proxies, read_network, read_origin
from exchange.doors.tcp import OPEN_TIMEOUT_S
from exchange.doors.websocket import Limits, frame
from test.doors.connection.desk import (
    HANDSHAKE,
    TINY_S,
    Clock,
    Desk,
    Dial,
    get,
    masked,
    until,
    upgrade,
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
