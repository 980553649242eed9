"""Practice servers: three exchanges that stay up until they are stopped."""

from __future__ import annotations

import os
import signal
import urllib.error
import urllib.request
from pathlib import Path

from test.util.event.playing import playing
from util.event.processes import start_time


def get(port: int, path: str) -> str:
    url = f"http://127.0.0.1:{port}{path}"
    try:
        with urllib.request.urlopen(url) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, ConnectionError):
        return ""


def test_three_servers_until_they_are_stopped(tmp_path: Path) -> None:
    with playing(tmp_path, trading=1) as event:
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
        # One that is killed comes back.
        slower = next(p for p in processes if p.port == ports[1])
        os.kill(slower.pid, signal.SIGKILL)
        event.until(lambda: start_time(slower.pid) != slower.started)
        event.until(lambda: get(ports[1], "/readyz") == "ok\n")
        processes = event.started("practice/*/director.db")
        event.signal(signal.SIGINT)
        assert event.director is not None
        assert event.director.returncode == 0, event.said
        for process in processes:
            assert start_time(process.pid) != process.started
