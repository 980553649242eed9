"""What the pages show of the match that is played: ``DATA/live.json``.

The director replaces it twice a second. A page counts the time left down by
itself, so it goes on while there is no director.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from .conduct import Conductor
from .file import Event
from .record import EVENT, Key

LIVE_FILE = "live.json"


def write_live(event: Event, key: Key, conductor: Conductor | None) -> None:
    """Write where the match is; raises OSError.

    Times are in microseconds since the epoch and in milliseconds. P&L of
    teams, at marks, is left out where the board is not public.
    """
    live: dict[str, Any] = {"ts": time.time_ns() // 1_000}
    if key != EVENT and conductor is not None:
        live |= _match(event, key, conductor)
    _write(event, live)


def write_lives(
    event: Event, conductors: Mapping[Key, Conductor | None]
) -> None:
    """Write where several matches are, as ``matches``; raises OSError."""
    matches = [
        _match(event, key, conductor)
        for key, conductor in sorted(
            conductors.items(), key=lambda item: item[0].match
        )
        if conductor is not None
    ]
    _write(event, {"ts": time.time_ns() // 1_000, "matches": matches})


def _match(event: Event, key: Key, conductor: Conductor) -> dict[str, Any]:
    """Return where a match is."""
    seen, plan = conductor.seen, conductor.match.plan
    live: dict[str, Any] = {
        "round": key.round,
        "match": key.match,
        "attempt": key.attempt,
        "state": seen.state,
        "close_ts": conductor.close_ts,
        "trading_ms": plan.trading_ms,
    }
    if seen.state in ("waiting", "held"):
        live["opens_in_ms"] = max(plan.warmup_ms - seen.warm_ms, 0)
    elif seen.elapsed_ms is not None:
        live["left_ms"] = plan.trading_ms - seen.elapsed_ms
    if event.event.live_board and seen.state in ("open", "paused"):
        live["pnls"] = conductor.equities()
    return live


def _write(event: Event, live: Mapping[str, Any]) -> None:
    path = event.folder / LIVE_FILE
    new = path.with_suffix(".new")
    new.write_text(json.dumps(live), "utf-8")  # not synced: it is soon stale
    new.replace(path)
