"""The front takes each team to its own match, at every entrance."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from client import Exchange
from test.host.test_tls import Files
from test.support import PATIENCE_S, serving, until, wired
from test.util.event.fronts import HERE, Fronting, fronting
from test.util.event.playing import Playing, free_ports
from util.event.file import read_event
from util.event.front.table import Ports, Team
from util.event.pages import LARGE, Pages
from util.event.record import EVENT, FINISHED, Record
from util.event.serve import Handler, PagesServer, Timed

MARKET = """\
{listed}[doors]
json_port = {json}
line_port = {line}
[doors.teams]
ORANGE = "127.0.0.1"
"""
NOWHERE = "10.1.2.0/24"


async def market(stack: AsyncExitStack, folder: Path, *symbols: str) -> Ports:
    """Run the exchange of a match, with doors."""
    first = free_ports(2)
    path = folder / f"{len(symbols)}.toml"
    listed = "".join(f"[instruments.{symbol}]\n" for symbol in symbols)
    path.write_text(MARKET.format(listed=listed, json=first, line=first + 1))
    server = await stack.enter_async_context(serving(market=path))
    return Ports(server.port, first, first + 1)


@pytest.fixture
async def matches(tmp_path: Path) -> AsyncIterator[Fronting]:
    """A front before two matches; only the second one lists NUT."""
    async with AsyncExitStack() as stack:
        fig = await market(stack, tmp_path, "FIG")
        nut = await market(stack, tmp_path, "FIG", "NUT")
        teams = {
            "ORANGE": Team("A/01", doors=(HERE,)),
            "APPLE": Team("A/02"),
            "PLUM": Team(doors=(HERE,)),
            "LEMON": Team("A/01", (NOWHERE,), (NOWHERE,)),
        }
        routes = {"A/01": fig, "A/02": nut}
        yield await stack.enter_async_context(
            fronting(tmp_path, teams, routes)
        )


async def symbols(url: str, user: str) -> list[str]:
    async with Exchange(url, user) as exchange:
        return [*exchange.instruments]


async def test_a_path_leads_each_team_to_its_match(matches: Fronting) -> None:
    for team, listed in (("ORANGE", ["FIG"]), ("APPLE", ["FIG", "NUT"])):
        url = f"{matches.url}/t/{team}"
        async with Exchange(url, team) as exchange:
            assert [*exchange.instruments] == listed
            fig = await exchange.market("FIG")
            assert (await fig.buy(2, 90)).is_open


async def test_a_client_follows_its_team_to_the_next_match(
    matches: Fronting,
) -> None:
    """The same object, with the same address, all the time."""
    async with Exchange(f"{matches.url}/t/ORANGE", "ORANGE") as exchange:
        fig = await exchange.market("FIG")
        order = await fig.buy(2, 90)
        routes = dict(matches.table.matches)
        nut = routes.pop("A/02")
        del routes["A/01"]
        await matches.changed(teams={"ORANGE": Team()}, matches=routes)
        await until(lambda: exchange.trouble)
        teams = {"ORANGE": Team("A/02")}
        matches.change(teams=teams, matches={"A/02": nut})
        async with asyncio.timeout(PATIENCE_S):
            while exchange.trouble or "NUT" not in exchange.instruments:
                await asyncio.sleep(0.01)
        assert not order.is_open
        assert (await fig.buy(1, 80)).is_open


async def test_a_team_without_a_match_is_asked_to_come_again(
    matches: Fronting,
) -> None:
    answer = await matches.ask("GET /t/PLUM HTTP/1.1\nHost: localhost")
    assert answer.startswith("HTTP/1.1 503 ")
    assert "\r\nRetry-After: 1\r\n" in answer
    for path, status in (("/t/NOBODY", 404), ("/t/LEMON", 403)):
        answer = await matches.ask(f"GET {path} HTTP/1.1\nHost: localhost")
        assert answer.startswith(f"HTTP/1.1 {status} "), path
    assert (await matches.ask("HELLO ORANGE")).startswith("HTTP/1.1 400 ")


async def test_an_exchange_that_is_being_started_is_503(
    matches: Fronting,
) -> None:
    routes = {**matches.table.matches, "A/01": Ports(free_ports(1))}
    await matches.changed(matches=routes)
    request = "GET /live/A/01/ HTTP/1.1\nHost: localhost"
    assert (await matches.ask(request)).startswith("HTTP/1.1 503 ")


async def test_the_live_page_of_each_match(matches: Fronting) -> None:
    """A browser that opens the address of a team is sent to it."""
    host = "Host: localhost"
    answer = await matches.ask(f"GET /t/APPLE HTTP/1.1\n{host}")
    assert answer.startswith("HTTP/1.1 302 ")
    assert "\r\nLocation: /live/A/02/\r\n" in answer
    for name in ("", "page.js"):
        answer = await matches.ask(f"GET /live/A/02/{name} HTTP/1.1\n{host}")
        assert answer.startswith("HTTP/1.1 200 "), name
    assert await symbols(f"{matches.url}/live/A/02/", "APPLE") == [
        "FIG",
        "NUT",
    ]
    answer = await matches.ask(f"GET /live/A/03/ HTTP/1.1\n{host}")
    assert answer.startswith("HTTP/1.1 503 ")


@pytest.mark.parametrize(
    "header, status",
    [
        ("Origin: https://evil.example", 403),
        ("Origin: http://localhost:{port}", 101),
        ("X: y", 101),
    ],
)
async def test_foreign_pages_are_refused(
    matches: Fronting, header: str, status: int
) -> None:
    """The exchange behind sees a local name, so it cannot."""
    reader, writer = await matches.connect(matches.native)
    lines = [
        "GET /t/ORANGE HTTP/1.1",
        f"Host: localhost:{matches.native}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        header.format(port=matches.native),
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    async with asyncio.timeout(PATIENCE_S):
        assert int((await reader.readline()).split()[1]) == status


async def test_names_that_were_rebound_are_refused(matches: Fronting) -> None:
    """The front listens on this machine only, so other names are foreign."""
    answer = await matches.ask("GET /live/A/01/ HTTP/1.1\nHost: evil.example")
    assert answer.startswith("HTTP/1.1 403 ")


# Doors -------------------------------------------------------------------


async def lines(reader: asyncio.StreamReader, count: int = 1) -> list[str]:
    async with asyncio.timeout(PATIENCE_S):
        return [(await reader.readline()).decode() for _ in range(count)]


async def test_a_hello_leads_a_bot_to_its_match(matches: Fronting) -> None:
    reader, writer = await matches.connect(matches.line)
    # What follows the hello in one packet is not lost.
    writer.write(b"\r\nHELLO ORANGE\r\nADD 1 FIG BUY 90 2\n")
    assert (await lines(reader))[0].startswith("HELLO FIG:0")
    said = await lines(reader, 2)
    assert "ACK 1\n" in said, said
    reader, writer = await matches.connect(matches.json)
    writer.write(b'{"type":"hello",')
    await asyncio.sleep(0)
    writer.write(b'"team":"ORANGE"}\n')
    hello = json.loads((await lines(reader))[0])
    assert hello["symbols"][0] == {"symbol": "FIG", "position": 0}


async def test_a_bot_without_a_match_is_cut_off(matches: Fronting) -> None:
    readers = []
    for port, hello in (
        (matches.line, b"HELLO PLUM\n"),
        (matches.json, b'{"type":"hello","team":"PLUM"}\n'),
    ):
        reader, writer = await matches.connect(port)
        writer.write(hello)
        readers.append(reader)
    async with asyncio.timeout(PATIENCE_S):
        assert [await reader.read() for reader in readers] == [b"", b""]


async def test_a_bot_of_another_address_does_not_come_in(
    matches: Fronting,
) -> None:
    readers = []
    # APPLE has no address: the doors ask for no key, so it cannot enter.
    for name in ("LEMON", "NOBODY", "APPLE"):
        reader, writer = await matches.connect(matches.line)
        writer.write(f"HELLO {name}\n".encode())
        readers.append(reader)
    for reader in readers:
        assert await lines(reader, 2) == ["ERROR HELLO:UNAUTHORIZED\n", ""]


async def test_what_comes_before_a_hello_is_answered_as_ever(
    matches: Fronting,
) -> None:
    reader, writer = await matches.connect(matches.line)
    writer.write(b"BUY\nADD 1 FIG BUY 90 2\nHELLO orange\n\nHELLO ORANGE\n")
    said = await lines(reader, 4)
    assert "MALFORMED" in said[0]
    assert "NO_HELLO" in said[1]
    assert "BAD_TEAM" in said[2]
    assert said[3].startswith("HELLO FIG:0")


async def test_a_web_page_cannot_say_hello(matches: Fronting) -> None:
    reader, writer = await matches.connect(matches.json)
    hello = b'{"type":"hello","team":"ORANGE"}\n'
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n" + hello)
    async with asyncio.timeout(PATIENCE_S):
        assert await reader.read() == b""


async def test_a_match_that_ends_cuts_its_connections(
    matches: Fronting,
) -> None:
    reader, writer = await matches.connect(matches.line)
    writer.write(b"HELLO ORANGE\n")
    await lines(reader)
    async with wired(f"{matches.url}/t/APPLE", "APPLE") as apple:
        routes = {"A/02": matches.table.matches["A/02"]}
        await matches.changed(matches=routes)
        async with asyncio.timeout(PATIENCE_S):
            await reader.read()
        # The other match goes on.
        [pong] = await apple.ask(type="ping")
        assert pong["type"] == "ok"


# Pages, TLS --------------------------------------------------------------


async def test_all_else_is_for_the_pages(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    playing = Playing(tmp_path, rounds="A", trading=5)
    pages = Pages(read_event(playing.path))
    handler = partial(Handler, lambda: pages)
    with PagesServer(HERE, 0, handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            async with fronting(tmp_path) as front:
                await front.changed(pages=server.server_address[1])
                for path, status in (
                    ("/", 200),
                    ("/now.json", 200),
                    ("/t/ORANGE/dossiers/", 401),
                    ("/keys.json", 404),
                ):
                    # One request per connection: the next one may be for
                    # another process.
                    answer = await front.ask(
                        f"GET {path} HTTP/1.1\nHost: localhost\n"
                        "Connection: keep-alive"
                    )
                    assert answer.startswith(f"HTTP/1.1 {status} "), path
                    assert "\r\nConnection: close\r\n" in answer
                # A record that is damaged is said to the organiser only.
                for file in playing.data.glob("director.db*"):
                    file.write_bytes(b"no SQLite" * 1_000)
                answer = await front.ask(
                    "GET /now.json HTTP/1.1\nHost: localhost"
                )
                assert answer.startswith("HTTP/1.1 503 ")
                assert "director.db" not in answer
                assert "director.db: file is not" in capfd.readouterr().err
        finally:
            server.shutdown()
            thread.join()


async def test_a_large_file_is_not_held_in_memory(tmp_path: Path) -> None:
    event = read_event(Playing(tmp_path, rounds="A", trading=5).path)
    with Record.of(event.folder) as record:
        record.done(EVENT, FINISHED)
    journal = bytes(range(256)) * (LARGE // 128) + b"the end"
    (event.folder / "journal.db").write_bytes(journal)
    pages = Pages(event)
    assert pages.answer("/journal.db", None).body == b""
    with PagesServer(HERE, 0, partial(Handler, lambda: pages)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            port = server.server_address[1]
            for method, body in (("GET", journal), ("HEAD", b"")):
                reader, writer = await asyncio.open_connection(HERE, port)
                head = f"{method} /journal.db HTTP/1.1\r\nConnection: close"
                writer.write(f"{head}\r\n\r\n".encode())
                async with asyncio.timeout(PATIENCE_S):
                    told, _, found = (await reader.read()).partition(
                        b"\r\n\r\n"
                    )
                assert b"Content-Length: %d\r\n" % len(journal) in told
                assert found == body
                writer.close()
        finally:
            server.shutdown()
            thread.join()


def test_a_request_that_trickles_in_has_an_end() -> None:
    """Not only each of its reads."""
    here, there = socket.socketpair()
    with here, there:
        timed = Timed(here)
        there.sendall(b"GE")
        timed.deadline = time.monotonic() + PATIENCE_S
        assert timed.read(1) == b"G"
        timed.deadline = time.monotonic()
        with pytest.raises(TimeoutError):
            timed.read(1)


async def test_tls_ends_at_the_front(tmp_path: Path) -> None:
    """Bots that are started here use a port without it."""
    files = Files(tmp_path)
    async with AsyncExitStack() as stack:
        fig = await market(stack, tmp_path, "FIG")
        front = await stack.enter_async_context(
            fronting(
                tmp_path,
                {"ORANGE": Team("A/01")},
                {"A/01": fig},
                **files.settings,
            )
        )
        url = f"wss://{HERE}:{front.native}/t/ORANGE"
        async with wired(url, "ORANGE", tls=files.trusting()) as wire:
            [pong] = await wire.ask(type="ping")
            assert pong["type"] == "ok"
        plain = f"ws://{HERE}:{front.plain}/t/ORANGE"
        assert await symbols(plain, "ORANGE") == ["FIG"]
