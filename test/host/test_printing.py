"""Printing and logging while the output is not read.

Processes with real pipes and terminals.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import threading
from asyncio.subprocess import Process
from collections.abc import Iterator

import pytest

from exchange.host.printing import HELD_BYTES, Outlet
from test.support import (
    PATIENCE_S,
    address,
    ended,
    greeting,
    launched,
    order,
    wired,
    words,
)

CTRL_S, CTRL_Q = b"\x13", b"\x11"
LOUD = """
import logging
import sys
import server
from exchange.gateway.requests import Requests

def handle(self, session, requests):
    logging.getLogger("exchange").warning("%s", "x" * 20_000)
    return real(self, session, requests)

real = Requests.handle
Requests.handle = handle
sys.argv = ["server.py"]
sys.exit(server.main())
"""


class Reader:
    """Reads a descriptor in a thread, from `start` on."""

    def __init__(self, fd: int) -> None:
        self.text = ""
        self._fd = fd
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait_for(self, text: str) -> None:
        with self._more:
            found = self._more.wait_for(lambda: text in self.text, PATIENCE_S)
        assert found, self.text[-500:]

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # a terminal that is hung up
            while data := os.read(self._fd, 65_536):
                with self._more:
                    self.text += data.decode().replace("\r", "")
                    self._more.notify()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(fd)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    person, process = pty.openpty()
    yield person, process
    for fd in (person, process):
        with contextlib.suppress(OSError):
            os.close(fd)


async def healthy(url: str) -> bool:
    host, port = url.removeprefix("ws://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()
    writer.close()
    return answer.startswith(b"HTTP/1.1 200 ")


async def place_too_many(url: str) -> None:
    """Place more orders than debug mode holds for a reader."""
    async with wired(url, "alice") as alice:
        for price in range(1, 11):
            await alice.ask(**order("buy", 1, price))
            await alice.ask(**order("sell", 1, 100 + price))
        shown = 10 * len(f"{'1         10':>34} | 101       1\n")  # the book
        ioc = order("buy", 1, 10, time_in_force="ioc")
        for _ in range(0, HELD_BYTES + 200_000, shown):
            await alice.send(ioc)
            assert words(await alice.take(2)) == ["new", "expired"]
        assert await healthy(url)


async def place_one(url: str, user: str) -> None:
    async with wired(url, user) as wire:
        await wire.ask(**order("buy", 1, 10))


async def first_line(fd: int) -> str:
    """Return the greeting of a server, read in small pieces."""
    line = b""
    while not line.endswith(b"\n"):
        line += await asyncio.to_thread(os.read, fd, 1)
    return line.decode()


async def stopped(process: Process) -> int:
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE_S):
        return await process.wait()


async def read_on(fd: int, url: str) -> Reader:
    """Read until an order shows that is placed after text was dropped."""
    reader = Reader(fd)
    reader.start()
    await asyncio.to_thread(reader.wait_for, "were dropped: not read in time")
    await place_one(url, "bob")
    await asyncio.to_thread(reader.wait_for, "bob buy 1 BOND @ 10")
    return reader


def in_order(text: str, *parts: str) -> bool:
    places = [text.index(part) for part in parts]
    return places == sorted(places)


async def test_a_pipe_that_is_not_read_does_not_block(
    pipe: tuple[int, int],
) -> None:
    reading, writing = pipe
    async with launched(output=writing) as process:
        os.close(writing)
        url = address(await first_line(reading))
        await place_too_many(url)
        # Held text comes first, then the notice, then new text.
        reader = await read_on(reading, url)
        assert reader.text.count("dropped") == 1
        assert in_order(
            reader.text, "is order 1\n", "is order 900\n", "dropped", "bob buy"
        )
        assert await stopped(process) == 0


async def test_an_exchange_whose_output_is_not_read_ends_in_order(
    pipe: tuple[int, int],
) -> None:
    reading, writing = pipe
    async with launched(output=writing) as process:
        url = address(await first_line(reading))
        await place_too_many(url)
        async with wired(url, "bob") as bob:
            process.send_signal(signal.SIGTERM)
            messages, code = await bob.rest()
            assert (words(messages), code) == (["status"], 1001)
        async with asyncio.timeout(PATIENCE_S):
            assert await process.wait() == 0


async def test_ctrl_s_in_the_terminal_does_not_block(
    terminal: tuple[int, int],
) -> None:
    person, tty = terminal
    async with launched(output=tty) as process:
        url = address(await first_line(person))
        os.write(person, CTRL_S)
        await place_too_many(url)
        os.write(person, CTRL_Q)
        await read_on(person, url)
        assert await stopped(process) == 0


async def test_an_exchange_in_a_stopped_terminal_ends_in_order(
    terminal: tuple[int, int],
) -> None:
    person, tty = terminal
    async with launched(output=tty) as process:
        url = address(await first_line(person))
        os.write(person, CTRL_S)
        await place_one(url, "bob")
        assert await healthy(url)
        assert await stopped(process) == 0


@pytest.mark.parametrize("form", ["text", "json"])
async def test_a_log_that_is_not_read_does_not_block(form: str) -> None:
    async with launched(code=LOUD, log=form, debug="0") as process:
        url = address(await greeting(process))
        async with wired(url, "alice") as alice:
            for _ in range(2 * HELD_BYTES // 20_000):
                assert words(await alice.ask(**order("buy", 1, 1))) == ["new"]
            assert await healthy(url)
        assert process.stderr is not None
        line = b""
        async with asyncio.timeout(PATIENCE_S):
            while b"dropped" not in line:
                line = await process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[0] == 0
    if form == "json":
        notice = json.loads(line)
        assert set(notice) == {"ts", "level", "logger", "message"}
        assert "lines were dropped" in notice["message"]
    else:
        assert b" WARNING " in line and b"lines were dropped" in line


# Without a process --------------------------------------------------------


@pytest.mark.parametrize("blocking", [True, False])
def test_a_reader_gets_all_text(pipe: tuple[int, int], blocking: bool) -> None:
    reading, writing = pipe
    os.set_blocking(writing, blocking)
    text = "".join(f"{n} \N{EURO SIGN}\n" for n in range(20_000))
    with open(writing, "w", encoding="utf-8") as stream:
        outlet = Outlet(stream)
        for line in text.splitlines(keepends=True):
            outlet.write(line)
        reader = Reader(reading)
        reader.start()
        outlet.finish(PATIENCE_S)
        reader.wait_for("19999 \N{EURO SIGN}\n")
    assert reader.text == text


def test_characters_outside_the_encoding_are_escaped(
    pipe: tuple[int, int],
) -> None:
    reading, writing = pipe
    with open(writing, "w", encoding="ascii") as stream:
        outlet = Outlet(stream)
        outlet.write("\N{EURO SIGN}\udcff\n")
        outlet.finish(PATIENCE_S)
    assert os.read(reading, 100) == b"\\u20ac\\udcff\n"


def test_a_text_longer_than_the_limit_is_written(
    pipe: tuple[int, int],
) -> None:
    reading, writing = pipe
    with open(writing, "w", encoding="ascii") as stream:
        outlet = Outlet(stream)
        reader = Reader(reading)
        reader.start()
        outlet.write("x" * (HELD_BYTES + 1) + "\n")
        outlet.finish(PATIENCE_S)
        reader.wait_for("\n")
    assert len(reader.text) == HELD_BYTES + 2


async def test_without_standard_output_it_runs() -> None:
    """As with ``python server.py >&- 2>&-``."""
    code = """
import os
import sys
import server

os.close(1)
sys.stdout = None
sys.argv = ["server.py", "--port", "none"]
sys.exit(server.main())
"""
    async with launched(code=code) as process:
        status, _, errors = await ended(process)
    assert status == 2 and "EXCHANGE_SERVER_PORT" in errors
