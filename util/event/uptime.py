"""How long practice servers were up: ``DATA/practice/uptime.json``.

`practice` replaces it every second; the pages show it while it is fresh.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PRACTICE = "practice"  # in the data folder
SERVERS = ("prod-like", "slower", "empty")
FILE = "uptime.json"
FRESH_S = 10.0  # a file that is older was left by a practice that has ended


@dataclass(slots=True)
class Uptime:
    """One practice server; times are in seconds since it was first up."""

    name: str
    port: int
    is_up: bool = False
    up_s: float = 0.0
    down_s: float = 0.0
    ends: int = 0  # how often its exchange has ended
    match: int = 0  # the last match whose hidden values are public, 0: none
    _looked: float | None = None  # monotonic, None: it was never up

    def look(self, is_up: bool, now: float) -> None:
        """Note whether it accepts orders now, at a monotonic time."""
        if self._looked is not None:
            passed = now - self._looked
            if self.is_up and is_up:
                self.up_s += passed
            else:
                self.down_s += passed
        if self._looked is not None or is_up:
            self._looked = now
        self.is_up = is_up


def write_uptime(folder: Path, servers: Sequence[Uptime]) -> None:
    """Write the file; raises OSError."""
    rows = []
    for server in servers:
        row = asdict(server)
        del row["_looked"]
        rows.append(row)
    value = {"ts": time.time_ns() // 1_000, "servers": rows}
    path = folder / FILE
    new = path.with_suffix(".new")
    new.write_text(json.dumps(value), "utf-8")  # not synced: it is soon stale
    new.replace(path)


def read_uptime(folder: Path) -> list[dict[str, Any]]:
    """Return the practice servers that run now; none if none do."""
    try:
        value = json.loads((folder / FILE).read_text("utf-8"))
        age_s = time.time() - value["ts"] / 1e6
        return list(value["servers"]) if age_s < FRESH_S else []
    except (OSError, ValueError, KeyError):
        return []
