"""What clients of the front can take from it has bounds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from test.support import PATIENCE_S, until
from test.util.event.fronts import Fronting, fronting, listening
from util.event.front import doors, entrance
from util.event.front.table import Ports, Team

REQUEST = (
    b"GET /t/ORANGE HTTP/1.1\r\nHost: localhost\r\n"
    b"Upgrade: websocket\r\n\r\n"
)
MEBIBYTE = b"x" * (1 << 20)
# More than front and kernel may hold of what one side does not read: buffers
# of three sockets on this machine are some MiB each.
HELD_MAX = 64


async def over(reader: asyncio.StreamReader) -> bytes:
    """Return all that is still to come; a reset is an end, too."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read()
    except ConnectionError:
        return b""


def routed(port: int) -> tuple[dict[str, Team], dict[str, Ports]]:
    """Return a table in which ORANGE plays behind a port."""
    team = Team("A/01", doors=("127.0.0.1",))
    return {"ORANGE": team}, {"A/01": Ports(port, port, port)}


async def test_a_head_that_is_too_long_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entrance, "HEAD_S", 10 * PATIENCE_S)
    async with fronting(tmp_path) as front:
        reader, writer = await front.connect(front.native)
        head = b"GET / HTTP/1.1\r\nX: " + b"x" * entrance.HEAD_MAX
        writer.write(head)
        assert await over(reader) == b""
        reader, writer = await front.connect(front.line)
        writer.write(b"HELLO " + b"X" * 5_000)
        assert b"TOO_LONG" in await over(reader)


async def test_a_client_that_says_nothing_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entrance, "HEAD_S", 0.01)
    async with fronting(tmp_path) as front:
        for port, some in ((front.native, b"GET"), (front.json, b"{")):
            reader, writer = await front.connect(port)
            writer.write(some)
            assert await over(reader) == b""


async def test_one_address_has_so_many_connections(tmp_path: Path) -> None:
    async with fronting(tmp_path, max_per_address=3) as front:
        kept = [await front.connect(front.native) for _ in range(3)]
        await until(lambda: len(front.front._entrances) == 3)
        for port in (front.native, front.json, front.line):
            reader, _ = await front.connect(port)
            assert await over(reader) == b""
        kept[0][1].close()
        await until(lambda: len(front.front._entrances) == 2)
        answer = await front.ask("GET /t/X HTTP/1.1\nHost: localhost")
        assert answer.startswith("HTTP/1.1 404 ")


async def test_a_bot_that_waits_for_its_match_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a loop that says hello would fill the memory."""
    monkeypatch.setattr(doors, "WAIT_S", PATIENCE_S)
    teams = {"ORANGE": Team(doors=("127.0.0.1",))}
    async with fronting(tmp_path, teams, max_per_address=2) as front:
        for _ in range(2):
            _, writer = await front.connect(front.line)
            writer.write(b"HELLO ORANGE\n")
        await until(lambda: len(front.front._entrances) == 2)
        reader, _ = await front.connect(front.line)
        assert await over(reader) == b""


async def flows(front: Fronting, writer: asyncio.StreamWriter) -> int:
    """Return how many MiB go through before the reader must read."""
    count = 0
    try:
        async with asyncio.timeout(1.0) as limit:
            while count <= HELD_MAX:
                writer.write(MEBIBYTE)
                await writer.drain()
                count += 1
                limit.reschedule(asyncio.get_running_loop().time() + 1.0)
    except TimeoutError:
        pass
    return count


async def test_an_exchange_that_does_not_read_stops_its_client(
    tmp_path: Path,
) -> None:
    begun = asyncio.Event()
    is_read = asyncio.Event()
    read = 0

    async def serve(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal read
        begun.set()
        await is_read.wait()
        while data := await reader.read(1 << 20):
            read += len(data)
        writer.write(b"all")
        await writer.drain()

    async with listening(serve) as port:
        async with fronting(tmp_path, *routed(port)) as front:
            reader, writer = await front.connect(front.native)
            writer.write(REQUEST)
            await begun.wait()
            count = await flows(front, writer)
            assert count < HELD_MAX
            is_read.set()
            # Nothing is lost, and an end of one direction is passed on.
            writer.write_eof()
            assert await over(reader) == b"all"
            assert read > count << 20


async def test_a_client_that_does_not_read_stops_its_exchange(
    tmp_path: Path,
) -> None:
    done: asyncio.Queue[int] = asyncio.Queue()

    async def serve(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        done.put_nowait(await flows(front, writer))
        writer.close()
        await writer.wait_closed()

    async with listening(serve) as port:
        async with fronting(tmp_path, *routed(port)) as front:
            reader, writer = await front.connect(front.json)
            writer.write(b'{"type":"hello","team":"ORANGE"}\n')
            count = await done.get()
            assert count < HELD_MAX
            assert len(await over(reader)) >= count << 20


async def test_who_does_not_take_the_end_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("util.event.front.sides.CLOSE_S", 0.05)

    full = asyncio.Event()

    async def serve(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await flows(front, writer)
        full.set()
        await reader.read()

    async with listening(serve) as port:
        async with fronting(tmp_path, *routed(port)) as front:
            _, writer = await front.connect(front.native)
            writer.write(REQUEST)
            await full.wait()
            await front.changed(matches={})
            async with asyncio.timeout(PATIENCE_S):
                while front.front._entrances:
                    await asyncio.sleep(0.01)


async def test_a_table_that_cannot_be_read_changes_nothing(
    tmp_path: Path,
) -> None:
    async with fronting(tmp_path, {"ORANGE": Team()}) as front:
        before = front.front.table
        seen = front.front._seen
        front.path.write_text("{")
        await until(lambda: front.front._seen != seen)
        assert front.front.table == before
        answer = await front.ask("GET /t/ORANGE HTTP/1.1\nHost: localhost")
        assert answer.startswith("HTTP/1.1 503 ")


def noise(chance: Random) -> bytes:
    """Return a head or a hello with some bytes changed, cut or repeated."""
    data = bytearray(
        chance.choice(
            (
                REQUEST,
                b"GET /live/A/01/x?y HTTP/1.1\r\nHost: localhost\r\n\r\n",
                b"GET /t/%ff%00 HTTP/1.0\r\nHost: [::1]:9\r\nHost\r\n\r\n",
                b'{"type":"hello","team":"ORANGE"}\n',
                b"HELLO ORANGE\nADD 1 X BUY 1 1\n",
            )
        )
    )
    for _ in range(chance.randrange(6)):
        place = chance.randrange(len(data))
        if chance.random() < 0.5:
            data[place] = chance.randrange(256)
        else:
            data[place:place] = data[: chance.randrange(len(data))]
    return bytes(data)


async def test_no_bytes_raise_anything(tmp_path: Path) -> None:
    async def serve(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.read(100)

    errors: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    chance = Random(7)
    async with listening(serve) as port:
        async with fronting(tmp_path, *routed(port)) as front:
            for number in range(300):
                ports = front.native, front.json, front.line
                reader, writer = await front.connect(ports[number % 3])
                writer.write(noise(chance))
                if chance.random() < 0.5:
                    writer.write_eof()
                else:
                    await asyncio.sleep(0)
                    writer.close()
            answer = await front.ask("GET /t/X HTTP/1.1\nHost: localhost")
            assert answer.startswith("HTTP/1.1 404 ")
    assert not errors
