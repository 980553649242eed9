"""The exchange behind nginx and behind Caddy, as docs/OPERATIONS.md has it.

The configurations are taken from there; only names of files, the port and the
address of the exchange are put in.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from playwright.async_api import expect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from client import Exchange
from server import Server
from test.doors.browsing import (
    book_shows,
    browsing,
    place,
    shows,
    sign_in,
    visiting,
)
from test.support import (
    PATIENCE_S,
    ROOT,
    Wire,
    add_key,
    free_port,
    order,
    serving,
    until,
    wired,
    words,
)

OPERATIONS = (ROOT / "docs" / "OPERATIONS.md").read_text("utf-8")
KINDS = ("nginx", "caddy")
POLL_S = 0.02
INSTALL_S = 600  # for a machine that has none yet
PUBLIC = "https://example.org"
# What a packaged nginx has in its own file, around ours.
NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {server}
}}
"""
# Nothing outside of the test's folder and port.
CADDY = """
{{
    admin off
    auto_https off
}}
{server}
"""


@pytest.fixture(scope="module")
def cert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for the public name, and its authority."""
    folder = tmp_path_factory.mktemp("cert")
    authority = trustme.CA()
    leaf = authority.issue_cert("example.org", "localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    for blob in leaf.cert_chain_pems:
        blob.write_to_path(str(folder / "example.org.pem"), append=True)
    leaf.private_key_pem.write_to_path(str(folder / "example.org.key"))
    return folder


@pytest.fixture
def tls(cert: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(cert / "authority.pem"))


async def find(kind: str) -> str:
    """Return the path of a proxy, fetched if need be."""
    finder = await asyncio.create_subprocess_exec(
        ROOT / ".ci" / "proxies", stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(INSTALL_S):
        output, errors = await finder.communicate()
    assert finder.returncode == 0, errors.decode()
    (path,) = [p for p in output.decode().split() if Path(p).name == kind]
    return path


def configured(
    kind: str, server: str, folder: Path, cert: Path, port: int
) -> str:
    """Return a whole configuration, made of the one in the manual."""
    (text,) = re.findall(rf"^```{kind}\n(.*?)^```$", OPERATIONS, re.M | re.S)
    names = f"https://example.org:{port}, https://localhost:{port} {{"
    for old, new in {
        "/etc/ssl/": f"{cert}/",
        "127.0.0.1:8765": server,
        **({"listen 443": f"listen {port}"} if kind == "nginx" else {}),
        **({"example.org {": names} if kind == "caddy" else {}),
    }.items():
        assert old in text
        text = text.replace(old, new)
    frame = NGINX if kind == "nginx" else CADDY
    return frame.format(folder=folder, server=text)


@contextlib.asynccontextmanager
async def fronted(
    kind: str, exchange: Server, folder: Path, cert: Path, without: str = "$^"
) -> AsyncIterator[int]:
    """Run a proxy in front of an exchange; yield its port.

    Lines of the configuration that match ``without`` are left out.
    """
    port = free_port()
    server = f"127.0.0.1:{exchange.port}"
    text = configured(kind, server, folder, cert, port)
    lines = [s for s in text.splitlines() if not re.search(without, s)]
    file = folder / "proxy.conf"
    file.write_text("\n".join(lines), "utf-8")
    arguments = {
        "nginx": ("-p", str(folder), "-e", "stderr", "-c", str(file)),
        "caddy": ("run", "--adapter", "caddyfile", "--config", str(file)),
    }
    homes = ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")
    log = (folder / "proxy.log").open("wb")
    process = await asyncio.create_subprocess_exec(
        await find(kind),
        *arguments[kind],
        env=os.environ | dict.fromkeys(homes, str(folder)),
        stdin=DEVNULL,
        stdout=log,
        stderr=log,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await is_listening(port):
                assert process.returncode is None, Path(log.name).read_text()
                await asyncio.sleep(POLL_S)  # for the proxy to have the core
        yield port
    finally:
        log.close()
        if process.returncode is None:
            process.kill()
        await process.wait()


async def is_listening(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def bot(
    port: int,
    tls: ssl.SSLContext,
    *,
    name: str = "example.org",
    origin: str | None = None,
    address: str = "127.0.0.1",
    **headers: str,
) -> ClientConnection:
    """Connect to the exchange by its public name, from some address."""
    return await connect(
        f"wss://{name}/exchange/",
        host="127.0.0.1",
        port=port,
        local_addr=(address, 0),
        ssl=tls,
        origin=Origin(origin) if origin else None,
        additional_headers={k.replace("_", "-"): headers[k] for k in headers},
        proxy=None,
    )


async def ask(
    port: int, tls: ssl.SSLContext, path: str, *lines: str, what: str = "GET"
) -> str:
    """Ask over HTTP by the public name; return the whole answer."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=tls, server_hostname="example.org"
    )
    lines = lines or ("Host: example.org", "Connection: close")
    head = [f"{what} {path} HTTP/1.1", *lines, "", ""]
    writer.write("\r\n".join(head).encode())
    async with asyncio.timeout(PATIENCE_S):
        answer = (await reader.read()).decode()
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
    return answer


def settings(**more: Any) -> dict[str, Any]:
    """The settings of the manual."""
    listed = {"origins": (PUBLIC,), "proxies": ("127.0.0.1",)}
    return {**listed, "open": "keys" not in more, **more}


@pytest.mark.parametrize("kind", KINDS)
async def test_bots_trade_through_a_proxy(
    kind: str,
    tmp_path: Path,
    cert: Path,
    tls: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its public name and by another one, with TLS and in a folder."""
    keys = tmp_path / "keys.json"
    token = add_key(keys, "alice")
    bobs = add_key(keys, "bob")
    monkeypatch.setenv("SSL_CERT_FILE", str(cert / "authority.pem"))
    async with (
        serving(**settings(keys=keys)) as exchange,
        fronted(kind, exchange, tmp_path, cert) as port,
    ):
        url = f"wss://localhost:{port}/exchange"  # sent on to exchange/
        async with (
            Exchange(url, "alice", token) as alice,
            await bot(port, tls) as connection,
        ):
            bob = Wire(connection)
            await bob.login("bob", token=bobs)
            bond = await alice.market("BOND")
            placed = await bond.buy(10, 99)
            replies = await bob.ask(**order("sell", 4, 99))
            assert words(replies)[:2] == ["new", "trade"]
            async with asyncio.timeout(PATIENCE_S):
                while placed.cum_qty != 4:
                    await asyncio.sleep(0)
        page = await bot(port, tls, origin=PUBLIC)
        await page.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_proxy_passes_on(
    kind: str, tmp_path: Path, cert: Path, tls: ssl.SSLContext
) -> None:
    async with (
        serving(**settings()) as exchange,
        fronted(kind, exchange, tmp_path, cert) as port,
    ):
        page = await ask(port, tls, "/exchange/")
        assert " 200 " in page and page.endswith("</html>\n")
        head = await ask(port, tls, "/exchange/page.js", what="HEAD")
        assert " 200 " in head and head.endswith("\r\n\r\n")
        # Two requests on one connection, of which ours closes each.
        keep = "Host: example.org", "", "GET /exchange/healthz HTTP/1.1"
        close = "Host: example.org", "Connection: close"
        twice = await ask(port, tls, "/exchange/healthz", *keep, *close)
        assert len(re.findall(r"^ok$", twice, re.M)) == 2
        csv = await ask(port, tls, "/exchange/v1/leaderboard.csv")
        assert " 200 " in csv
        moved = await ask(port, tls, "/exchange")
        assert re.search(r"^location: \S*/exchange/\r$", moved, re.M | re.I)
        assert " 403 " in await ask(port, tls, "/exchange/metrics")


@pytest.mark.parametrize("kind", KINDS)
async def test_limits_are_of_people(
    kind: str, tmp_path: Path, cert: Path, tls: ssl.SSLContext
) -> None:
    async with (
        serving(**settings(max_per_address=1)) as exchange,
        fronted(kind, exchange, tmp_path, cert) as port,
    ):
        ann = await bot(port, tls, address="127.0.0.2")
        lie = {"X_Forwarded_For": "6.6.6.6"}
        bob = await bot(port, tls, address="127.0.0.3", **lie)
        with pytest.raises(InvalidStatus) as caught:
            await bot(port, tls, address="127.0.0.3")
        assert caught.value.response.status_code == 429
        people = {"127.0.0.2": 1, "127.0.0.3": 1}
        await until(lambda: exchange.answers.figures().connections == people)
        await ann.close()
        await bob.close()
        await until(lambda: not exchange.answers.figures().connections)


@pytest.mark.parametrize("kind", KINDS)
async def test_who_is_refused_is_told(
    kind: str,
    tmp_path: Path,
    cert: Path,
    tls: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A foreign page, and anybody whose host the exchange does not know."""
    async with serving(**settings(origins=())) as exchange:
        async with fronted(kind, exchange, tmp_path, cert) as port:
            page = await ask(port, tls, "/exchange/")
            assert " 403 " in page
            unknown = (
                "host example.org is not in an origin of"
                " EXCHANGE_SERVER_ORIGINS"
            )
            assert unknown in page
            foreign = "https://evil.example"
            with pytest.raises(InvalidStatus) as caught:
                await bot(port, tls, name=f"localhost:{port}", origin=foreign)
            body = caught.value.response.body or b""
            told = f"origin {foreign} is not in EXCHANGE_SERVER_ORIGINS"
            assert told in body.decode()
    assert caplog.messages == [
        f"refused 127.0.0.1: {unknown}",
        f"refused 127.0.0.1: {told}",
    ]


# The page --------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, is_usual_port", [("nginx", True), ("caddy", False)]
)
async def test_the_page_trades_in_a_folder_with_tls(
    kind: str, is_usual_port: bool, tmp_path: Path, cert: Path
) -> None:
    async with (
        serving(**settings()) as exchange,
        fronted(kind, exchange, tmp_path, cert) as port,
        browsing(
            f"--host-resolver-rules=MAP example.org 127.0.0.1:{port}"
        ) as browser,
        wired(exchange.url, "maker") as maker,
    ):
        await maker.ask(**order("sell", 10, 101))
        site = "example.org" if is_usual_port else f"example.org:{port}"
        url = f"wss://{site}/exchange"
        trusting = {"ignore_https_errors": True}
        async with visiting(browser, url, **trusting) as page:
            await sign_in(page)
            await place(page, "buy", 4, "101")
            await book_shows(page, [], [["101", "6", ""]])
            await shows(page, "#fills", "[0-9:]{8}▲ buy BOND10140")
            found = await page.evaluate("""() => Promise.all(
                  [...document.querySelectorAll("[href], [src]")]
                    .map((node) => node.href || node.src)
                    .filter((url) => url.startsWith(location.origin))
                    .map(async (url) => [url, (await fetch(url)).status])
                )""")
            # The icon, eight styles, the script, the licence, and three links.
            assert len(found) == 14
            assert {status for _, status in found} == {200}, found


async def test_the_page_trades_through_another_port() -> None:
    """As with ssh -L or docker -p, by the machine's name or by an address."""
    async with (
        serving(hostname="0.0.0.0", open=True) as exchange,
        browsing(
            f"--host-resolver-rules=MAP * 127.0.0.1:{exchange.port}"
        ) as browser,
    ):
        for user, site in (
            ("alice", f"{socket.gethostname()}:9000"),
            ("bob", "10.0.0.7"),
        ):
            async with visiting(browser, f"ws://{site}") as page:
                await sign_in(page, user)
                await place(page, "buy", 4, "101")
                await shows(page, "#orders", ".*BOND.*")


@pytest.mark.parametrize(
    "origins, without, reason",
    [
        ((), "$^", f"origin {PUBLIC} is not in EXCHANGE_SERVER_ORIGINS"),
        ((PUBLIC,), "Upgrade", "HTTP works, websockets do not"),
    ],
)
async def test_the_page_says_why_it_is_not_connected(
    origins: tuple[str, ...],
    without: str,
    reason: str,
    tmp_path: Path,
    cert: Path,
) -> None:
    async with (
        serving(hostname="0.0.0.0", open=True, origins=origins) as exchange,
        fronted("nginx", exchange, tmp_path, cert, without) as port,
        browsing(
            f"--host-resolver-rules=MAP example.org 127.0.0.1:{port}"
        ) as browser,
    ):
        context = await browser.new_context(ignore_https_errors=True)
        page = await context.new_page()
        await page.goto(f"{PUBLIC}/exchange/")
        await expect(page.locator("#connection")).to_have_text(
            re.compile(rf"^○ Not connected: {re.escape(reason)}, next try in")
        )
        await context.close()
