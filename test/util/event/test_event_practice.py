"""Practice servers: three exchanges that stay up until they are stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from client import Exchange
from test.support import PATIENCE_S
from test.util.event.playing import Playing, free_ports, playing
from util.event.file import read_event
from util.event.keys import make_keys
from util.event.practice import Server
from util.event.processes import start_time
from util.event.record import Record


def get(port: int, path: str) -> str:
    url = f"http://127.0.0.1:{port}{path}"
    try:
        with urllib.request.urlopen(url) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, ConnectionError):
        return ""


def practice(port: int) -> dict[str, Any]:
    """Return what the pages show of each practice server."""
    text = get(port, "/now.json") or '{"practice": []}'
    return {row["name"]: row for row in json.loads(text)["practice"]}


def test_three_servers_until_they_are_stopped(tmp_path: Path) -> None:
    with playing(tmp_path, trading=1) as event:
        # The pages move where a practice server has their port.
        event.change(f"pages = {event.pages}", f"pages = {event.front + 1}")
        event.launch("practice")
        ports = [event.front + number for number in range(3)]
        for port in ports:
            event.until(lambda: get(port, "/readyz") == "ok\n")
        # Values of a match are public after it, and another one begins.
        folder = event.data / "practice" / "prod-like"
        event.until((folder / "public" / "fair-1.csv").exists)
        event.until(lambda: "attempt 2: open" in event.said)
        processes = event.started("practice/*/director.db")
        assert len([p for p in processes if p.name == "exchange"]) == 3
        # The pages show all that, and for how long each was up.
        event.until(lambda: get(event.pages, "/practice/prod-like/"))
        values = get(event.pages, "/practice/prod-like/fair-1.csv")
        assert values.startswith("# salt ")
        event.until(lambda: practice(event.pages)["empty"]["up_s"] > 0)
        assert practice(event.pages)["slower"]["port"] == ports[1]
        # One that is killed comes back.
        slower = next(p for p in processes if p.port == ports[1])
        os.kill(slower.pid, signal.SIGKILL)
        event.until(lambda: start_time(slower.pid) != slower.started)
        event.until(lambda: get(ports[1], "/readyz") == "ok\n")
        event.until(lambda: practice(event.pages)["slower"]["ends"] == 1)
        event.until(lambda: practice(event.pages)["slower"]["is_up"])
        processes = event.started("practice/*/director.db")
        event.signal(signal.SIGINT)
        assert event.director is not None
        assert event.director.returncode == 0, event.said
        for process in processes:
            assert start_time(process.pid) != process.started


async def test_teams_of_a_league_practise_at_their_own_addresses(
    tmp_path: Path,
) -> None:
    """Each server has a front, so the paths are those of the event."""
    playing = Playing(tmp_path, rounds="A", trading=1)
    first = free_ports(10)
    playing.change("[match]", "[match]\nper_match = 2")
    playing.change(
        "front = ", f'match_ports = "{first}-{first + 9}"\nfront = '
    )
    playing.change("ORANGE = {}", 'ORANGE = { address = "127.0.0.1" }')
    event = read_event(playing.path)
    key = make_keys(event)["ORANGE"]
    with Record.of(event.folder / "practice/empty") as record:
        server = Server(event, "empty", record)
        running = asyncio.create_task(server.run())
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not server.uptime.is_up:
                    await asyncio.sleep(0.01)
            url = f"ws://127.0.0.1:{playing.front + 2}/t/ORANGE"
            async with Exchange(
                url, "ORANGE", key, connect_timeout=PATIENCE_S
            ) as exchange:
                assert "GS" in exchange.instruments
            assert server.uptime.port == playing.front + 2
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", playing.line_port + 2
            )
            writer.write(b"HELLO ORANGE\n")
            async with asyncio.timeout(PATIENCE_S):
                assert (await reader.readline()).startswith(b"HELLO BOND:0")
            writer.close()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert record.processes() == {}
