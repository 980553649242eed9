"""Which pages, proxies and strangers may connect."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.typing import Origin

import server as server_module
from exchange.doors.once import REPEATS_MAX
from exchange.host.market_file import SettingsError
from exchange.host.settings import Settings
from server import Server
from test.server.asking import place, rows
from test.support import add_key, answer, serving, until, wired, words

# Who may connect ----------------------------------------------------------


@pytest.mark.parametrize(
    "host, status",
    [
        ("localhost", 101),
        ("localhost:{port}", 101),
        ("LocalHost:{port}", 101),
        ("127.0.0.1:{port}", 101),
        ("[::1]:{port}", 101),
        ("example.org", 403),
        ("example.org:{port}", 403),
        ("localhost.example.org:{port}", 403),
        ("", 403),
    ],
)
async def test_hosts_on_the_loopback(
    exchange: Server, host: str, status: int
) -> None:
    host = host.format(port=exchange.port)
    assert await answer(exchange.port, f"Host: {host}") == status


async def test_no_host_and_two_hosts(exchange: Server) -> None:
    assert await answer(exchange.port) == 403
    twice = ["Host: localhost"] * 2
    assert await answer(exchange.port, *twice) == 403


async def test_any_host_where_others_can_reach() -> None:
    async with serving(hostname="0.0.0.0", open=True) as exchange:
        port = exchange.port
        assert await answer(port, f"Host: example.org:{port}") == 101


@pytest.mark.parametrize(
    "origin, status",
    [
        ("http://localhost:{port}", 101),
        ("http://127.0.0.1:{port}", 101),
        ("http://[::1]:{port}", 101),
        ("https://localhost:{port}", 101),  # through a proxy that serves TLS
        ("https://trade.example.org", 101),
        ("http://trade.example.org", 403),
        ("http://localhost", 403),
        ("http://example.org", 403),
        ("http://example.org:{port}", 403),
        ("null", 403),
    ],
)
async def test_origins(origin: str, status: int) -> None:
    async with serving(origins=("https://trade.example.org",)) as exchange:
        port = exchange.port
        header = f"Origin: {origin.format(port=port)}"
        assert await answer(port, f"Host: localhost:{port}", header) == status


OWN_NAME = socket.gethostname()


@pytest.mark.parametrize("hostname", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize(
    "host, status",
    [
        ("127.0.0.2:{port}", 101),  # another loopback address
        (
            "localhost:9000",
            101,
        ),  # a forwarded port, such as of ssh -L or docker -p
        ("10.0.0.7:9000", 101),
        ("[::1]:9000", 101),
        ("10.0.0.7", 101),
        (f"{OWN_NAME}:{{port}}", 101),
        (f"{OWN_NAME}:9000", 101),
        ("TRADE.example.org", 101),
        ("trade.example.org:9000", 101),
        (
            "example.org:{port}",
            403,
        ),  # a foreign name that resolves to this machine
        ("localhost.example.org", 403),
    ],
)
async def test_a_page_may_connect_to_where_it_was_opened(
    hostname: str, host: str, status: int
) -> None:
    settings = {"hostname": hostname, "open": True}
    listed = ("https://trade.example.org",)
    async with serving(origins=listed, **settings) as exchange:
        host = host.format(port=exchange.port)
        for scheme in ("http", "https"):
            headers = f"Host: {host}", f"Origin: {scheme}://{host.lower()}"
            assert await answer(exchange.port, *headers) == status


async def test_a_refusal_is_logged_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as exchange:
        port = exchange.port
        for origin in ("https://x.example", "https://y.example") * 3:
            headers = f"Host: localhost:{port}", f"Origin: {origin}"
            assert await answer(port, *headers) == 403
        for host in ("x.example", "x.example:80", "x.example"):
            assert await answer(port, f"Host: {host}") == 403
        figures = exchange.answers.figures()
    assert figures.http_refusals == {"host": 3, "origin": 6}
    assert caplog.messages == [
        "refused 127.0.0.1: origin https://x.example is not in"
        " EXCHANGE_SERVER_ORIGINS",
        "refused 127.0.0.1: origin https://y.example is not in"
        " EXCHANGE_SERVER_ORIGINS",
        "refused 127.0.0.1: host x.example is not in an origin of"
        " EXCHANGE_SERVER_ORIGINS",
        "refused 127.0.0.1: host x.example:80 is not in an origin of"
        " EXCHANGE_SERVER_ORIGINS",
    ]


async def test_a_flood_of_origins_fills_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as exchange:
        for n in range(REPEATS_MAX + 10):
            headers = "Host: localhost", f"Origin: https://{n}.example"
            assert await answer(exchange.port, *headers) == 403
        assert exchange.answers.figures().http_refusals["origin"] == n + 1
    assert len(caplog.messages) == REPEATS_MAX + 1


@pytest.mark.parametrize(
    "query, host, status, text",
    [
        (
            "?origin=http://localhost:9000",
            "localhost:9000",
            200,
            "ok: a name is enough to log in\n",
        ),
        ("", "localhost:9000", 200, "ok: a name is enough to log in\n"),
        (
            "?origin=https%3A%2F%2Fx.example",
            "localhost",
            403,
            "origin https://x.example is not in EXCHANGE_SERVER_ORIGINS\n",
        ),
        (
            "?origin=https://x.example",
            "x.example",
            403,
            "origin https://x.example is not in EXCHANGE_SERVER_ORIGINS\n",
        ),
    ],
)
async def test_a_page_can_ask_why_it_may_not_connect(
    query: str, host: str, status: int, text: str
) -> None:
    async with serving(hostname="0.0.0.0", open=True) as exchange:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", exchange.port
        )
        request = f"GET /v1/access{query} HTTP/1.1\r\nHost: {host}\r\n\r\n"
        writer.write(request.encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        assert int(head.split()[1]) == status
        assert body == text


# Behind a proxy -----------------------------------------------------------


async def through(port: int, client: str, **more: Any) -> ClientConnection:
    """Connect as a proxy on this machine for a client."""
    return await connect(
        f"ws://127.0.0.1:{port}",
        proxy=None,
        additional_headers={"X-Forwarded-For": client},
        **more,
    )


async def test_limits_of_an_address_count_behind_a_proxy() -> None:
    settings = {"proxies": ("127.0.0.1",), "max_per_address": 2}
    async with serving(open=True, **settings) as exchange:
        port = exchange.port
        ann = [await through(port, "10.0.0.1") for _ in range(2)]
        bob = [await through(port, "10.0.0.2, 127.0.0.1") for _ in range(2)]
        for client in ("10.0.0.1", "6.6.6.6, 10.0.0.2"):
            with pytest.raises(InvalidStatus) as caught:
                await through(port, client)
            assert caught.value.response.status_code == 429
        await until(lambda: "127.0.0.1" not in exchange.listener.by_address)
        figures = exchange.answers.figures()
        assert figures.connections == {"10.0.0.1": 2, "10.0.0.2": 2}
        assert figures.arrivals == {"10.0.0.1": 3, "10.0.0.2": 3}
        await ann[0].close()
        await until(lambda: exchange.listener.by_address["10.0.0.1"] == 1)
        ann.append(await through(port, "10.0.0.1"))
        # A proxy without the header counts as one address.
        own = [await through(port, "unknown") for _ in range(2)]
        with pytest.raises(InvalidStatus):
            await through(port, "unknown")
        for connection in (*ann, *bob, *own):
            await connection.close()
        await until(lambda: not exchange.listener.connections)
        assert not exchange.listener.by_address


async def test_only_a_proxy_can_name_an_address() -> None:
    settings = {"proxies": ("10.0.0.0/8",), "max_per_address": 1}
    async with serving(open=True, **settings) as exchange:
        first = await through(exchange.port, "10.0.0.1")
        with pytest.raises((OSError, EOFError, WebSocketException)):
            await through(exchange.port, "10.0.0.2")
        assert exchange.answers.figures().connections == {"127.0.0.1": 1}
        await first.close()


async def test_idle_connections_of_a_proxy_count_for_no_address() -> None:
    """It counts for an address after its request, and in all at once."""
    limits = {"max_per_address": 1, "max_connections": 3}
    async with serving(
        open=True, proxies=("127.0.0.1",), **limits
    ) as exchange:
        port = exchange.port
        silent = [
            await asyncio.open_connection("127.0.0.1", port) for _ in range(2)
        ]
        await until(lambda: len(exchange.listener.connections) == 2)
        ann = await through(port, "10.0.0.1")
        with pytest.raises((OSError, EOFError, WebSocketException)):
            await through(port, "10.0.0.2")
        for _, writer in silent:
            writer.close()
            await writer.wait_closed()
        await ann.close()
        await until(lambda: not exchange.listener.connections)
        assert not exchange.listener.by_address


@pytest.mark.parametrize("is_open", [False, True])
async def test_strangers_connect_through_a_proxy(
    is_open: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Limits hold; without keys the log says how strangers log in."""
    async with serving(open=is_open, proxies=("127.0.0.1",)) as exchange:
        async with wired(exchange.url) as wire:
            welcome = await wire.login("alice")
        assert welcome["limits"]["orders_per_s"] == 100
    lines = [m for m in caplog.messages if "EXCHANGE_SERVER_PROXIES" in m]
    assert len(lines) == (0 if is_open else 1)


async def test_the_log_names_the_address_behind_a_proxy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(open=True, proxies=("127.0.0.1",)) as exchange:
        with pytest.raises(InvalidStatus) as caught:
            await through(
                exchange.port, "10.0.0.1", origin=Origin("http://x.example")
            )
        body = caught.value.response.body
        assert body is not None and b"http://x.example is not in" in body
    (line,) = caplog.messages
    assert line.startswith("refused 10.0.0.1: origin http://x.example")


async def test_the_url_of_an_address_of_ipv6() -> None:
    server = Server(Settings(hostname="::1", port=80, debug=False))
    assert server.url == "ws://[::1]:80"


# Where others can reach ---------------------------------------------------

REFUSED = "others can reach 0.0.0.0, and there are no keys in"


async def test_strangers_cannot_log_in_by_mistake(tmp_path: Path) -> None:
    keys, journal = tmp_path / "keys.json", tmp_path / "exchange.db"
    settings = {"hostname": "0.0.0.0", "keys": keys, "journal": journal}
    journal.write_bytes(b"not read")
    for more in ({}, {"open": "0"}):
        with pytest.raises(SettingsError) as caught:
            async with serving(**settings, **more):
                pass
        (line,) = str(caught.value).splitlines()
        assert REFUSED in line and str(keys) in line
        assert "EXCHANGE_SERVER_OPEN=1" in line and "util.accounts" in line
    assert journal.read_bytes() == b"not read"
    assert list(tmp_path.iterdir()) == [journal]


async def test_the_greeting_says_how_users_log_in(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    settings = {"hostname": "0.0.0.0", "keys": keys}
    async with serving(**settings, open="1") as exchange:
        assert " | open: a name is enough | " in exchange.greeting
        async with wired(exchange.url, "alice"):
            pass
    token = add_key(keys, "alice")
    async with serving(**settings) as exchange:
        assert f" | keys {keys} | " in exchange.greeting
        async with wired(exchange.url, "alice", token=token):
            pass
    async with serving(keys=tmp_path / "none.json") as exchange:
        assert " | no keys: a name is enough | " in exchange.greeting


@pytest.mark.parametrize(
    "addresses, is_refused",
    [
        (["127.0.0.1"], False),
        (["127.0.0.1", "::1"], False),
        (["127.0.0.1", "192.0.2.7"], True),
        (["2001:db8::7", "::1"], True),
        (["::"], True),
    ],
)
async def test_every_address_of_the_name_counts(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str], is_refused: bool
) -> None:
    monkeypatch.setattr(server_module, "resolve", lambda name: addresses)
    settings = Settings(hostname="here", port=0, debug=False)
    if is_refused:
        with pytest.raises(SettingsError, match="others can reach here"):
            Server(settings)
    else:
        Server(settings)


@pytest.mark.parametrize(
    "settings, has_keys, is_guarded",
    [
        ({}, False, False),
        ({"open": True}, False, False),
        ({}, True, True),
        ({"open": True}, True, True),
        ({"hostname": "0.0.0.0", "open": True}, False, True),
    ],
)
async def test_where_strangers_connect_everything_has_a_limit(
    tmp_path: Path,
    settings: dict[str, Any],
    has_keys: bool,
    is_guarded: bool,
) -> None:
    path = tmp_path / "keys.json"
    token = add_key(path, "alice") if has_keys else "any"
    async with serving(keys=path, **settings) as exchange:
        async with wired(exchange.url) as wire:
            limits = (await wire.login("alice", token=token))["limits"]
        assert exchange.listener.per_address == (1_000 if is_guarded else 0)
    names = ("orders_per_s", "burst", "open_orders", "connections")
    most = (100, 200, 200, 20) if is_guarded else (0, 0, 1_000, 0)
    assert tuple(limits[name] for name in names) == most
    assert "min_cash" not in limits


async def test_a_welcome_has_the_limits_of_the_account(tmp_path: Path) -> None:
    market = tmp_path / "market.toml"
    market.write_text("""
        [instruments.BOND]
        max_position = 500
        short_selling = false
        [account]
        cash = 1_000
        min_cash = -50
        open_orders = 9
        [accounts.alice]
        min_cash = 0
        orders_per_s = 30
        open_orders = 0
        max_position = { BOND = 20 }
        """)
    settings = {"market": market, "max_per_account": 3}
    async with serving(**settings) as exchange:
        async with (
            wired(exchange.url) as alice,
            wired(exchange.url) as bob,
        ):
            hers, account = await alice.ask(type="login", user="alice")
            his = await bob.login("bob")
            assert account["cash"] == 1_000
            common = {
                "max_frame": 100,
                "orders_remembered": 10_000,
                "resume_events": 2_000,
                "connections": 3,
            }
            assert hers["limits"] == {
                **common,
                "orders_per_s": 30,
                "burst": 30,
                "open_orders": 0,
                "min_cash": 0,
            }
            assert his["limits"] == {
                **common,
                "orders_per_s": 0,
                "burst": 0,
                "open_orders": 9,
                "min_cash": -50,
            }
            (bond,), (same,) = hers["instruments"], his["instruments"]
            assert bond == {**same, "max_position": 20}
            assert same["max_position"] == 500
            assert same["short_selling"] is False
            # The table has the limits that most accounts have.
            assert await rows(alice, "instruments") == [same]
            too_much = await place(alice, "buy", 21, 1)
            assert words(too_much) == ["position_limit"]
