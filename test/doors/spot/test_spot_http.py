"""Plain HTTP with the dialect on: how requests are read, and cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from exchange.doors.spot import http
from exchange.doors.spot.asked import Asked, pack_request, unpack_request
from server import Server
from test.doors.spot.bots import MARKET, Rest, exchange, socket
from test.support import serving, until, wired

PING = b"GET /api/v3/ping HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(body: bytes, *headers: str) -> bytes:
    lines = ["POST /api/v3/order/test HTTP/1.1", "Host: localhost"]
    lines += ["X-MBX-APIKEY: ann", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def test_one_connection_serves_many_requests(
    bot: Callable[..., Rest],
) -> None:
    ann = bot()
    for _ in range(3):
        assert await ann.get("ping") == {}
    assert ann.headers["x-mbx-used-weight-1m"] == "3"
    assert "connection" not in ann.headers


async def test_a_request_may_come_in_pieces(bot: Callable[..., Rest]) -> None:
    ann = bot()
    body = b"symbol=BONDUSD"
    data = PING + post(body, f"Content-Length: {len(body)}") + PING
    for at in range(0, len(data), 7):
        await ann.send(data[at : at + 7])
        await asyncio.sleep(0)
    assert await ann.answer() == (200, {})
    status, error = await ann.answer()
    assert (status, error["code"]) == (400, -1102)
    assert await ann.answer() == (200, {})


async def test_pipelined_requests_are_answered_in_their_order(
    bot: Callable[..., Rest],
) -> None:
    ann = bot()
    depth = PING.replace(b"ping", b"depth?symbol=BONDUSD&limit=5")
    await ann.send((PING + depth) * 100)
    for _ in range(100):
        assert await ann.answer() == (200, {})
        assert (await ann.answer())[1]["lastUpdateId"] == 0


async def test_a_chunked_body_is_read(bot: Callable[..., Rest]) -> None:
    ann = bot()
    await ann.send(
        post(
            b"7\r\nsymbol=\r\n4\r\nNONE\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked",
            "Content-Type: application/x-www-form-urlencoded",
        )
    )
    status, error = await ann.answer()
    assert (status, error["code"]) == (400, -1102)  # it has no timestamp


@pytest.mark.parametrize(
    "data, status",
    [
        (post(b"a", "Content-Length: 1", "Content-Length: 2"), 400),
        (post(b"", "Content-Length: -1"), 400),
        (post(b"", "Content-Length: 1", "Transfer-Encoding: chunked"), 400),
        (post(b"", "Transfer-Encoding: gzip"), 501),
        (post(b"", "Content-Length: 99999999"), 413),
        (post(b"x" * 20_000, "Content-Length: 20000"), 413),
        (post(b"zz\r\n", "Transfer-Encoding: chunked"), 400),
        (post(b"{}", "Content-Length: 2", "Content-Type: text/json"), 415),
        (post(b"", "Content-Encoding: gzip"), 415),
        (b"GET /api/v3/ping HTTP/1.1\r\n\r\n", 400),
        (b"GET /api/v3/ping HTTP/9.9\r\nHost: localhost\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\n\n", 400),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 65_536 + b"\r\n\r\n",
            431,
        ),
        (PING + b"nonsense\r\n\r\n", 400),
        (PING.replace(b"localhost", b"localhost\r\nHost: b"), 400),
        (
            PING.replace(b"\r\n\r\n", b"\r\nOrigin: http://evil.org\r\n\r\n"),
            403,
        ),
        (b"PUT / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: \x01\r\n\r\n", 400),
        (PING.replace(b"localhost", b"local\x0bhost"), 400),
    ],
)
async def test_what_cannot_be_read_is_refused_and_cut_off(
    bot: Callable[..., Rest], data: bytes, status: int
) -> None:
    ann = bot()
    await ann.send(data)
    if data.startswith(PING):
        if status == 400 and data != PING and b"nonsense" in data:
            assert await ann.answer() == (200, {})
    found, body = await ann.answer()
    assert found == status
    assert body["code"] == -1000 and body["msg"]
    assert ann.headers["connection"] == "close"
    assert await ann.is_cut()


async def test_an_answer_to_head_has_no_body(bot: Callable[..., Rest]) -> None:
    ann = bot()
    head = b"HEAD /api/v3/ping HTTP/1.1\r\nHost: evil.org\r\n\r\n"
    await ann.send(head.replace(b"Host", b"Origin: http://a.b\r\nHost"))
    reader = ann._streams[0]
    assert b" 403 " in await reader.readuntil(b"\r\n\r\n")
    assert await ann.is_cut()


async def test_a_body_that_never_ends_is_cut_off(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "REQUEST_S", 0.05)
    ann = Rest(server.port)
    await ann.send(PING)
    assert await ann.answer() == (200, {})
    await ann.send(post(b"a", "Content-Length: 9"))
    assert (await ann.answer())[0] == 408
    assert await ann.is_cut()


async def test_an_idle_connection_ends_silently(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "KEEP_ALIVE_S", 0.05)
    monkeypatch.setattr(http, "REQUEST_S", 0.05)
    ann = Rest(server.port)
    await ann.send(PING)
    assert await ann.answer() == (200, {})
    assert await ann.is_cut()
    await until(lambda: not server.links)


async def test_pages_and_the_native_protocol_are_where_they_were(
    server: Server,
) -> None:
    page = Rest(server.port)
    status, text = await page.ask("GET", "/healthz")
    assert (status, text) == (200, "ok\n")
    assert await page.is_cut()
    async with wired(server.url, "ann") as wire:
        assert (await wire.ask(type="ping"))[0]["type"] == "ok"
    async with socket(server, "/") as native:
        answer = await native.ask("x", type="ping")
        assert answer["type"] == "error"


async def test_a_used_connection_may_become_a_websocket(
    server: Server,
) -> None:
    ann = Rest(server.port)
    assert await ann.get("ping") == {}
    before = len(server.gateway.links)
    await ann.send(
        b"GET /ws/0 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert (await ann.answer())[0] == 101
    assert len(server.gateway.links) == before
    ann.close()
    await until(lambda: not server.gateway.links)


async def test_a_client_that_expects_a_sign_gets_it(
    bot: Callable[..., Rest],
) -> None:
    ann = bot()
    await ann.send(post(b"", "Content-Length: 14", "Expect: 100-continue"))
    assert (await ann.answer())[0] == 100
    await ann.send(b"symbol=BONDUSD")
    assert (await ann.answer())[0] == 400


async def test_without_the_dialect_there_is_nothing(tmp_path: Path) -> None:
    async with serving() as server:
        ann = Rest(server.port)
        status, text = await ann.ask("GET", "/api/v3/ping")
        assert (status, text) == (404, "Not found.\n")
        assert await ann.is_cut()


async def test_http_1_0_ends_the_connection(bot: Callable[..., Rest]) -> None:
    ann = bot()
    await ann.send(PING.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert await ann.answer() == (200, {})
    assert await ann.is_cut()


async def test_what_is_not_there_is_named(bot: Callable[..., Rest]) -> None:
    ann = bot()
    status, body = await ann.ask("GET", "/sapi/v1/asset/dribblet")
    assert (status, body["code"]) == (404, -1000)
    assert "/sapi/v1/asset/dribblet" in body["msg"]
    status, body = await ann.ask("PUT", "/api/v3/ping")
    assert status == 405
    await ann.send(PING.replace(b"GET", b"HEAD"))
    # An answer to HEAD has no body.
    await ann.send(PING)
    reader = ann._streams[0]
    assert b"405" in await reader.readuntil(b"\r\n\r\n")
    assert await ann.answer() == (200, {})


async def test_prices_that_do_not_fit_are_refused_at_the_start(
    tmp_path: Path,
) -> None:
    market = '[instruments.BOND]\ntick_size = "0.0000000001"\n'
    with pytest.raises(Exception, match="8 decimal places"):
        async with exchange(tmp_path, market):
            raise AssertionError("it started")


async def test_what_only_the_journal_lists_is_there_too(
    tmp_path: Path,
) -> None:
    journal = tmp_path / "exchange.db"
    async with exchange(tmp_path, journal=journal) as server:
        ann = Rest(server.port, "ann")
        await ann.limit("BUY", 1, 90)
        ann.close()
    other = "[instruments.NEW]\n" + MARKET.replace(
        "[instruments.BOND]", ""
    ).replace('tick_size = "0.01"\nmax_price = 100_000\n', "")
    async with exchange(tmp_path, other, journal=journal) as server:
        ann = Rest(server.port, "ann")
        (left,) = await ann.done("GET", "openOrders")
        assert left["symbol"] == "BONDUSD"
        info = await ann.get("exchangeInfo")
        assert {s["symbol"] for s in info["symbols"]} == {
            "BONDUSD",
            "ETFUSD",
            "NEWUSD",
        }
        ann.close()


def test_a_request_survives_the_way_to_its_link() -> None:
    asked = Asked("POST", "/api/v3/order", "a=b", "ann", "x=1\ny\xff")
    assert unpack_request(pack_request(asked)) == asked


async def test_each_request_of_a_proxy_counts_for_its_client(
    tmp_path: Path,
) -> None:
    ping = PING.decode().replace("\r\n\r\n", "\r\nX-Forwarded-For: {}\r\n\r\n")
    async with exchange(tmp_path, proxies=("127.0.0.1",), open=True) as server:
        proxy = Rest(server.port)
        for client in ("10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.1"):
            await proxy.send(ping.format(client).encode())
            assert await proxy.answer() == (200, {})
            assert server.listener.busiest() == {client: 1}
        assert proxy.headers["x-mbx-used-weight-1m"] == "2"
        proxy.close()
        await until(lambda: not server.listener.busiest())
