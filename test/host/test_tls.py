"""The exchange over TLS, with a certificate made for the tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from websockets.exceptions import ConnectionClosed, WebSocketException

from client import Exchange
from exchange.gateway import turns
from exchange.gateway.pacing import SLOW_BYTES
from exchange.host import looks
from exchange.host.market_file import SettingsError
from exchange.host.settings import Settings
from orderbook import MAX_FRAME
from server import Server
from test.narrow import narrow_listener, narrow_socket
from test.support import (
    PATIENCE_S,
    Wire,
    add_key,
    alive,
    answer,
    ended,
    greeting,
    launched,
    order,
    running,
    serving,
    until,
    wired,
    words,
)

PING = {"type": "ping", "id": "ping"}


class Files:
    """A certificate authority, and the server's certificate and key."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        self.authority = folder / "authority.pem"
        self.cert = folder / "cert.pem"
        self.key = folder / "key.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(str(self.cert), append=True)
        certificate.private_key_pem.write_to_path(str(self.key))

    @property
    def settings(self) -> dict[str, Any]:
        return {"tls_cert": self.cert, "tls_key": self.key}

    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))


def encrypt(key: Path, encrypted: Path) -> None:
    """Write an encrypted private key."""
    private = load_pem_private_key(key.read_bytes(), password=None)
    encrypted.write_bytes(
        private.private_bytes(
            Encoding.PEM,
            PrivateFormat.PKCS8,
            BestAvailableEncryption(b"secret"),
        )
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def exchange(files: Files) -> AsyncIterator[Server]:
    async with serving(**files.settings) as server:
        assert server.url == f"wss://127.0.0.1:{server.port}"
        yield server


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log: asyncio reports unhandled exceptions there."""
    caplog.set_level(logging.INFO)
    return caplog


async def test_everything_works_over_tls(
    exchange: Server, files: Files
) -> None:
    tls = files.trusting()
    async with (
        wired(exchange.url, "alice", tls=tls) as alice,
        wired(exchange.url, "bob", tls=tls) as bob,
    ):
        await bob.ask(type="subscribe", channels=["book", "trades"])
        assert words(await alice.ask(**order("buy", 5, 99))) == ["new"]
        replies = await bob.ask(**order("sell", 2, 99))
        assert words(replies)[:4] == ["book", "new", "trade", "account"]
        await alice.connection.close()
        book = await bob.until(type="book", bids=[[99, 0]])
        assert book["seq"] == 3


async def test_the_client_library_and_a_bot_in_a_process(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE names the authority, as the manual says."""
    keys = tmp_path / "keys.json"
    token = add_key(keys, "alice")
    monkeypatch.setenv("SSL_CERT_FILE", str(files.authority))
    settings = {"tls_cert": str(files.cert), "tls_key": str(files.key)}
    async with launched(
        hostname="localhost", keys=str(keys), **settings
    ) as process:
        line = await greeting(process)
        (url,) = [word for word in line.split() if word.startswith("wss:")]
        async with Exchange(url, "alice", token) as ex:
            bond = await ex.market("BOND")
            placed = await bond.buy(10, 99)
            assert bond.book.bid == 99 and placed.is_open
        variables = {
            "EXCHANGE_URL": url,
            "EXCHANGE_USER": "alice",
            "EXCHANGE_TOKEN": token,
        }
        async with running(
            *("-m", "util.send_order", "--side", "buy", "--price", "98"),
            env={**os.environ, **variables},
        ) as bot:
            status, output, _ = await ended(bot)
        assert status == 0 and "98" in output


async def test_a_client_without_the_authority_does_not_connect(
    exchange: Server, quiet: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        async with wired(exchange.url, tls=ssl.create_default_context()):
            pass
    await until(lambda: not exchange.listener.connections)
    assert quiet.records == []


# Files that are replaced --------------------------------------------------


@pytest.fixture
def renewed(files: Files, tmp_path: Path) -> tuple[Files, Files]:
    """The files that a server reads, and their replacements."""
    live, new = tmp_path / "live", tmp_path / "new"
    live.mkdir()
    new.mkdir()
    return Files(live), Files(new)


async def is_trusted(exchange_url: str, files: Files) -> bool:
    """Connect; return whether the authority signed the certificate."""
    try:
        async with wired(exchange_url, tls=files.trusting()) as wire:
            await alive(wire)
    except ssl.SSLCertVerificationError:
        return False
    return True


def put(source: Path, target: Path) -> None:
    """Replace a file at once: a look must not find half of it."""
    half = target.with_name(f"{target.name}.new")
    shutil.copy(source, half)
    half.replace(target)


async def test_replaced_files_are_used_for_new_connections(
    renewed: tuple[Files, Files],
    quiet: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live, new = renewed
    authority = live.trusting()
    assert looks.CERTIFICATE_S == 5.0, "as the manual says"
    monkeypatch.setattr(looks, "CERTIFICATE_S", 0.001)
    async with (
        serving(**live.settings) as exchange,
        wired(exchange.url, "alice", tls=authority) as alice,
    ):
        put(new.cert, live.cert)  # without its key yet
        await until(lambda: "KEY_VALUES_MISMATCH" in quiet.text)
        async with wired(exchange.url, tls=authority) as bob:
            await alive(bob)
        live.key.unlink()
        await until(lambda: "No such file" in quiet.text)
        # OpenSSL would prompt on the terminal.
        encrypted = live.key.with_name("encrypted.pem")
        encrypt(new.key, encrypted)
        put(encrypted, live.key)
        await until(lambda: "key is encrypted" in quiet.text)
        put(new.key, live.key)
        await until(lambda: "is good and in use" in quiet.text)
        assert await is_trusted(exchange.url, new)
        with pytest.raises(ssl.SSLCertVerificationError):
            async with wired(exchange.url, tls=authority):
                pass
        await alive(alice)
    assert [r.levelname for r in quiet.records] == [*["WARNING"] * 3, "INFO"]


ON_DEMAND = """
import sys
import server
from exchange.host import looks

looks.CERTIFICATE_S = looks.KEYS_S = 3_600
sys.argv = ["server.py"]
sys.exit(server.main())
"""


async def test_a_hangup_signal_reads_certificate_and_keys_again(
    renewed: tuple[Files, Files], tmp_path: Path
) -> None:
    live, new = renewed
    keys = tmp_path / "keys.json"
    old = add_key(keys, "alice")
    bobs = add_key(keys, "bob")
    authority = live.trusting()
    settings = {name: str(path) for name, path in live.settings.items()}
    async with launched(code=ON_DEMAND, keys=str(keys), **settings) as process:
        (url,) = [w for w in (await greeting(process)).split() if "wss:" in w]
        async with (
            wired(url, "alice", token=old, tls=authority) as alice,
            wired(url, "bob", token=bobs, tls=authority) as bob,
        ):
            process.send_signal(signal.SIGHUP)  # and nothing has changed
            assert process.stderr is not None
            async with asyncio.timeout(PATIENCE_S):
                line = (await process.stderr.readline()).decode()
            assert "reading keys and certificate again" in line
            add_key(keys, "alice")
            shutil.copy(new.cert, live.cert)
            shutil.copy(new.key, live.key)
            process.send_signal(signal.SIGHUP)
            assert await alice.rest() == ([], 4001)
            async with asyncio.timeout(PATIENCE_S):
                while not await is_trusted(url, new):
                    pass
            await alive(bob)
            process.send_signal(signal.SIGTERM)
            assert (await bob.rest())[1] == 1001
        status, _, errors = await ended(process)
    assert status == 0
    assert "reading keys and certificate again" in errors
    assert "the certificate is good and in use" in errors


# What is not TLS ----------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01",  # an incomplete handshake
        b"\x16\x03\x01\x00\x05rubbish",
        b"\x00" * 100_000,
        b"",
    ],
)
async def test_bytes_that_are_not_tls_end_only_their_connection(
    exchange: Server,
    files: Files,
    quiet: pytest.LogCaptureFixture,
    data: bytes,
) -> None:
    async with wired(exchange.url, "alice", tls=files.trusting()) as alice:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", exchange.port)) as s:
                with contextlib.suppress(OSError):
                    s.sendall(data)
                await alive(alice)
        await until(lambda: len(exchange.listener.connections) == 1)
        await alive(alice)
    assert quiet.records == []


async def test_a_plain_client_at_a_tls_port(
    exchange: Server, quiet: pytest.LogCaptureFixture
) -> None:
    url = exchange.url.replace("wss:", "ws:")
    with pytest.raises((OSError, EOFError, WebSocketException)):
        async with wired(url):
            pass
    assert quiet.records == []


async def test_a_tls_client_at_a_plain_port(
    files: Files, quiet: pytest.LogCaptureFixture
) -> None:
    async with serving() as exchange:
        url = exchange.url.replace("ws:", "wss:")
        with pytest.raises((OSError, EOFError, WebSocketException)):
            async with wired(url, tls=files.trusting()):
                pass
        async with wired(exchange.url) as wire:
            await alive(wire)
    assert quiet.records == []


# Wrong files --------------------------------------------------------------


@pytest.mark.parametrize(
    "case", ["no cert", "no key", "swapped", "of another", "rubbish", "empty"]
)
async def test_wrong_files_are_one_clear_line(
    files: Files, tmp_path: Path, case: str
) -> None:
    wrong = tmp_path / "wrong.pem"
    cert, key = files.cert, files.key
    match case:
        case "no cert":
            cert = wrong
        case "no key":
            key = wrong
        case "swapped":
            cert, key = key, cert
        case "of another":
            (tmp_path / "other").mkdir()
            key = Files(tmp_path / "other").key
        case "rubbish":
            wrong.write_text("rubbish")
            cert = wrong
        case "empty":
            wrong.touch()
            key = wrong
    settings = Settings(
        hostname="127.0.0.1", port=0, tls_cert=cert, tls_key=key
    )
    with pytest.raises(SettingsError) as caught:
        Server(settings)
    message = str(caught.value)
    assert str(cert) in message and str(key) in message
    assert len(message.splitlines()) == 1


async def test_a_process_with_wrong_files_does_not_start(
    files: Files, tmp_path: Path
) -> None:
    journal = tmp_path / "exchange.db"
    settings = {"tls_cert": str(files.cert), "journal": str(journal)}
    for more in ({}, {"tls_key": str(tmp_path / "none.pem")}):
        async with launched(**settings, **more) as process:
            status, output, errors = await ended(process)
        assert (status, output) == (2, "")
        (line,) = errors.splitlines()
        assert "TLS_KEY" in line or "none.pem" in line
    assert not journal.exists()


# Web pages ----------------------------------------------------------------


@pytest.mark.parametrize(
    "origin, is_accepted",
    [
        ("https://localhost:{port}", True),
        ("https://127.0.0.1:{port}", True),
        ("http://localhost:{port}", False),
        ("http://127.0.0.1:{port}", False),
        ("https://localhost", False),
        ("https://example.org", False),
    ],
)
async def test_origins_are_https_over_tls(
    exchange: Server, files: Files, origin: str, is_accepted: bool
) -> None:
    header = origin.format(port=exchange.port)
    status = await answer(
        exchange.port,
        f"Host: localhost:{exchange.port}",
        f"Origin: {header}",
        tls=files.trusting(),
    )
    assert status == (101 if is_accepted else 403)


# The end of a connection, and slow readers --------------------------------


@pytest.fixture
async def narrow(
    monkeypatch: pytest.MonkeyPatch, files: Files
) -> AsyncIterator[Callable[..., Any]]:
    """Connect through small socket buffers, which are soon full."""
    narrow_listener(monkeypatch)
    async with contextlib.AsyncExitStack() as stack:

        async def dial(server: Server, user: str) -> Wire:
            sock = await narrow_socket(server.port)
            wire = await stack.enter_async_context(
                wired(server.url, user, tls=files.trusting(), sock=sock)
            )
            return wire

        yield dial


async def open_orders(wire: Wire) -> None:
    await wire.send(*[order("buy", 1, 50)] * MAX_FRAME)
    await wire.take(MAX_FRAME)


async def stuff(wire: Wire, tables: int) -> None:
    """Request tables of some 20,000 bytes each, and do not read."""
    wire.pause()
    for n in range(tables):
        await wire.send({"type": "get", "what": "orders", "id": n})


@pytest.mark.parametrize("size", [SLOW_BYTES // 2, 8 * SLOW_BYTES])
async def test_a_slow_reader_gets_all_bytes(
    narrow: Callable[..., Any],
    files: Files,
    quiet: pytest.LogCaptureFixture,
    size: int,
) -> None:
    async with serving(**files.settings) as exchange:
        slow = await narrow(exchange, "slow")
        tables = size // 20_000
        await open_orders(slow)
        await stuff(slow, tables)
        (session,) = exchange.gateway.links
        async with wired(exchange.url, "alice", tls=files.trusting()) as alice:
            for _ in range(20):
                await alive(alice)
            await until(lambda: not session.waiting)
        slow.resume()
        for n in range(tables):
            reply = await slow.receive()
            assert reply["id"] == n and len(reply["data"]) == MAX_FRAME
        await alive(slow)
    assert quiet.records == []


async def test_a_client_that_closes_gets_the_bytes_sent_before(
    monkeypatch: pytest.MonkeyPatch,
    narrow: Callable[..., Any],
    files: Files,
    quiet: pytest.LogCaptureFixture,
) -> None:
    async with serving(**files.settings) as exchange:
        slow = await narrow(exchange, "slow")
        (session,) = exchange.gateway.links
        connection = session.peer
        await open_orders(slow)
        before = connection._written
        # In one write: asyncio pauses writing at the second.
        monkeypatch.setattr(turns, "REQUESTS_AT_FIRST", 10_000)
        await stuff(slow, 4 * SLOW_BYTES // 20_000)
        await until(lambda: connection._written - before > 2 * SLOW_BYTES)
        goodbye = asyncio.create_task(slow.connection.close())
        await until(lambda: not connection.is_open)
        written = connection._written - before
        slow.resume()
        messages, code = await slow.rest()
        await goodbye
        assert code == 1000
        assert [m["id"] for m in messages] == list(range(len(messages)))
        one = len(json.dumps(messages[0], separators=(",", ":")))
        assert len(messages) == round(written / one)
    assert quiet.records == []


async def test_a_client_that_never_reads_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
    narrow: Callable[..., Any],
    files: Files,
    quiet: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("exchange.gateway.pacing.STUCK_BYTES", 2 * SLOW_BYTES)
    async with serving(**files.settings) as exchange:
        slow = await narrow(exchange, "slow")
        (session,) = exchange.gateway.links
        await open_orders(slow)
        await stuff(slow, 10 * SLOW_BYTES // 20_000)
        connection = session.peer
        async with wired(exchange.url, "alice", tls=files.trusting()) as alice:
            await until(lambda: not connection.is_open)
            await alive(alice)
        slow.resume()
        messages, code = await slow.rest()
        assert code == 4008 and words(messages)[:2] == ["ok", "ok"]
    assert quiet.records == []


@pytest.mark.parametrize(
    "frames, code",
    [
        (['{"type":"login","user":"eve","token":"no"}'], 4001),
        ([b"\x00"], 1003),
        (["x" * 70_000], 1009),
        ([b"\xff"] + ['{"type":"ping"}'] * 2_000, 1003),
    ],
)
async def test_close_codes_arrive(
    files: Files,
    tmp_path: Path,
    quiet: pytest.LogCaptureFixture,
    frames: list[str | bytes],
    code: int,
) -> None:
    add_key(tmp_path / "keys.json", "alice")
    settings = {**files.settings, "keys": tmp_path / "keys.json"}
    async with serving(**settings) as exchange:
        async with wired(exchange.url, tls=files.trusting()) as wire:
            with contextlib.suppress(ConnectionClosed):
                for data in frames:
                    await wire.connection.send(data)
            assert (await wire.rest())[1] == code
        await until(lambda: not exchange.listener.connections)
    assert quiet.records == []


async def test_every_client_gets_a_status_at_the_end(
    files: Files, quiet: pytest.LogCaptureFixture
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with serving(**files.settings) as exchange:
            wire = await stack.enter_async_context(
                wired(exchange.url, "alice", tls=files.trusting())
            )
            await wire.ask(**order("buy", 1, 90))
        messages, code = await wire.rest()
        assert words(messages) == ["canceled", "status"] and code == 1001
    assert quiet.records == []


async def test_a_page_over_tls(exchange: Server, files: Files) -> None:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", exchange.port, ssl=files.trusting()
    )
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"</html>\n")
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
