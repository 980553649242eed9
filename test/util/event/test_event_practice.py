"""Practice servers: three exchanges that stay up until they are stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from client import BlockingExchange
from test.util.event.playing import free_ports, playing
from util.event.processes import start_time


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
        event.until(lambda: practice(event.pages)["slower"]["is_up"])
        assert practice(event.pages)["slower"]["ends"] == 1
        processes = event.started("practice/*/director.db")
        event.signal(signal.SIGINT)
        assert event.director is not None
        assert event.director.returncode == 0, event.said
        for process in processes:
            assert start_time(process.pid) != process.started


def test_teams_of_a_league_practise_at_their_own_addresses(
    tmp_path: Path,
) -> None:
    """Each server has a front, so the paths are those of the event."""
    with playing(tmp_path) as event:
        first = free_ports(10)
        event.change("[match]", "[match]\nper_match = 2")
        text = event.path.read_text()
        event.change(text[text.index("[house]") :], "")
        event.change(
            "front = ",
            f'match_ports = "{first}-{first + 9}"\nfront = ',
        )
        event.change("ORANGE = {}", 'ORANGE = { address = "127.0.0.1" }')
        keys = dict(x.split("\t") for x in event.do("keys").splitlines())
        event.launch("practice")
        for shift in range(3):
            # The standings are at each of them.
            port = event.front + shift
            event.until(
                lambda: practice(port).get("empty", {}).get("is_up")
                and all(row["is_up"] for row in practice(port).values())
            )
            url = f"ws://127.0.0.1:{port}/t/ORANGE"
            with BlockingExchange(url, "ORANGE", keys["ORANGE"]) as exchange:
                assert "GS" in exchange.instruments
            door = ("127.0.0.1", event.line_port + shift)
            with socket.create_connection(door) as sock:
                sock.sendall(b"HELLO ORANGE\n")
                assert sock.makefile().readline().startswith("HELLO BOND:0")
        event.signal(signal.SIGINT)
        assert event.director is not None
        assert event.director.returncode == 0, event.said
