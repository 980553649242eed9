"""The port answers plain HTTP: the page, /healthz, and nothing else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from exchange.doors.http import CONTENT_TYPES, HEADERS, PAGE, Pages, reply
from exchange.doors.listener import bind, resolve
from orderbook import INTERVALS
from server import Server
from test.support import PATIENCE_S, serving, wired

MOST_LINES = 400  # of a module of the page
FILES = sorted(
    file.relative_to(PAGE).as_posix()
    for file in PAGE.rglob("*")
    if file.is_file()
)


class Answer(NamedTuple):
    """An HTTP response as it came over the socket."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes


async def ask(
    server: Server, target: str, method: str = "GET", **headers: str
) -> Answer:
    """Send one request; keywords are headers: ``if_none_match="..."``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    lines = [f"{method} {target} HTTP/1.1", f"Host: localhost:{server.port}"]
    lines += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    async with asyncio.timeout(PATIENCE_S):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    first, *rest = head.decode().split("\r\n")
    pairs = (line.split(": ", 1) for line in rest)
    return Answer(
        int(first.split()[1]), {k.lower(): v for k, v in pairs}, body
    )


def asked(pages: Pages, target: str, **headers: str) -> str:
    """Return what pages answer, without a socket."""
    given = Headers((k.replace("_", "-"), v) for k, v in headers.items())
    return bytes(pages(Request(target, given)).body).decode()


def has_headers(answer: Answer) -> bool:
    expected = {name.lower(): value for name, value in HEADERS.items()}
    return expected.items() <= answer.headers.items()


def test_the_page_has_the_intervals_of_the_protocol() -> None:
    script = (PAGE / "market.js").read_text()
    [body] = re.findall(r"const INTERVALS = \{(.*?)\}", script, re.S)
    lengths = re.findall(r'"(\w+)": ([\d_]+),', body)
    assert {name: int(length) for name, length in lengths} == INTERVALS
    index = (PAGE / "index.html").read_text()
    chosen = re.findall(r'name="mode" value="(\d\w+)"', index)
    assert chosen == [*INTERVALS]


@pytest.mark.parametrize("name", FILES)
async def test_each_file_is_served(name: str) -> None:
    async with serving() as server:
        answer = await ask(server, "/" if name == "index.html" else f"/{name}")
    content = (PAGE / name).read_bytes()
    assert answer.status == 200
    assert answer.body == content
    assert answer.headers["content-length"] == str(len(content))
    assert answer.headers["content-type"] == CONTENT_TYPES[Path(name).suffix]
    assert has_headers(answer)


def test_browsers_get_the_content_types_they_need() -> None:
    assert CONTENT_TYPES[".html"].startswith("text/html;")
    assert CONTENT_TYPES[".css"].startswith("text/css;")
    assert CONTENT_TYPES[".js"].startswith("text/javascript;")
    assert CONTENT_TYPES[".mjs"].startswith("text/javascript;")


def test_the_modules_of_the_page_are_short() -> None:
    sizes = {
        path.name: len(path.read_text().splitlines())
        for path in PAGE.iterdir()
        if path.suffix in (".js", ".css")
    }
    assert {name: n for name, n in sizes.items() if n > MOST_LINES} == {}


def test_the_page_may_load_nothing_from_elsewhere() -> None:
    policy = dict(
        directive.split(" ", 1)
        for directive in HEADERS["Content-Security-Policy"].split("; ")
    )
    assert policy.pop("default-src") == "'none'"
    assert policy.pop("require-trusted-types-for") == "'script'"
    assert set(policy.values()) == {"'self'", "'none'"}
    for name in ("base-uri", "form-action", "frame-ancestors"):
        assert policy[name] == "'none'"


async def test_health() -> None:
    async with serving() as server:
        answer = await ask(server, "/healthz")
    assert (answer.status, answer.body) == (200, b"ok\n")
    assert has_headers(answer)


@pytest.mark.parametrize(
    "target",
    [
        "/nothing",
        "/index.html/",
        "/vendor",
        "/vendor/",
        "/../server.py",
        "/../../../../../../etc/passwd",
        "/vendor/../../web.py",
        "/%2e%2e/web.py",
        "/..%2fweb.py",
        "//page.css",
        "/./page.css",
        "/page.css/",
        "/PAGE.CSS",
        "/page%2ecss",
        "/page.css%00",
        "page.css",
        "http://localhost/page.css",
        "?",
        "/\\..\\web.py",
    ],
)
async def test_an_unknown_path_is_not_found(target: str) -> None:
    async with serving() as server:
        answer = await ask(server, target)
    assert (answer.status, answer.body) == (404, b"Not found.\n")
    assert has_headers(answer)


async def test_head_has_no_body() -> None:
    async with serving() as server:
        whole = await ask(server, "/")
        head = await ask(server, "/", "HEAD")
    assert whole.body
    assert head == whole._replace(body=b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_only_get_and_head_are_allowed(method: str) -> None:
    async with serving() as server:
        assert (await ask(server, "/", method)).status == 405


async def test_a_query_changes_no_file() -> None:
    async with serving() as server:
        plain = await ask(server, "/page.js")
        assert await ask(server, "/page.js?a=1&a=2&%ff=%00&&=") == plain
        assert (await ask(server, "/?")).status == 200


async def test_an_unchanged_file_is_not_sent_again() -> None:
    async with serving() as server:
        first = await ask(server, "/page.js")
        tag = first.headers["etag"]
        for known in (tag, f'"other", W/{tag}'):
            again = await ask(server, "/page.js", if_none_match=known)
            assert (again.status, again.body) == (304, b"")
            assert "content-length" not in again.headers
            assert again.headers["etag"] == tag
            assert has_headers(again)
        changed = await ask(server, "/page.js", if_none_match='"other"')
    assert changed == first


async def test_tags_differ() -> None:
    async with serving() as server:
        answers = [await ask(server, f"/{name}") for name in ("", *FILES)]
    tags = [answer.headers.get("etag") for answer in answers]
    assert len({tag for tag in tags if tag}) == len(FILES)


async def test_the_websocket_is_at_the_root() -> None:
    async with serving() as server:
        for url in (server.url, f"{server.url}/?page=1"):
            async with wired(url) as wire:
                assert (await wire.ask(type="ping", id=1))[0]["type"] == "ok"
        assert (await ask(server, "/")).status == 200


def test_files_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("before")
    pages = Pages(tmp_path)
    (tmp_path / "index.html").write_text("after")
    assert asked(pages, "/") == "before"


def test_an_unknown_kind_of_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "page.exe").touch()
    with pytest.raises(KeyError, match="exe"):
        Pages(tmp_path)


def test_a_path_can_have_another_answer() -> None:
    queries: list[Mapping[str, str]] = []

    def answer(query: Mapping[str, str]) -> Response:
        queries.append(query)
        return reply("a,b\n", "text/csv; charset=utf-8")

    pages = Pages()
    pages.add("/table.csv", answer)
    assert asked(pages, "/table.csv") == "a,b\n"
    assert asked(pages, "/table.csv?symbol=BOND&n=1&n=2&x=%26+1") == "a,b\n"
    assert queries == [{}, {"symbol": "BOND", "n": "2", "x": "& 1"}]


@pytest.mark.asyncio
async def test_what_is_no_host_name_is_named() -> None:
    for name in ("a..b", "x" * 70):
        with pytest.raises(OSError, match=f"^{name}: "):
            await bind(name, 0)
        with pytest.raises(OSError, match=f"^{name}: "):
            resolve(name)
