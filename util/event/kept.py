"""Results of isolated matches, kept beside them: ``results.json``.

A league has many journals, and each match that ends makes the standings
again. The others are not read again for that. `score` reads the journals.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from .file import Event
from .output import write_text
from .results import Played
from .scoring import Result

FILE = "results.json"


def _made_of(event: Event, one: Played) -> dict[str, Any]:
    """Return what results depend on besides the journal."""
    settings = event.settings_of(one.row.round)
    blow_out = settings.blow_out
    return {
        "attempt": one.row.attempt,
        "teams": [*one.teams],
        "no_show": settings.no_show,
        "blow_out": None if blow_out is None else blow_out.model_dump(),
    }


def keep(event: Event, one: Played, results: list[Result]) -> None:
    """Write the results of a match; raises OSError."""
    value = {
        "made_of": _made_of(event, one),
        "results": [asdict(result) for result in results],
    }
    write_text(one.folder / FILE, json.dumps(value))


def kept(event: Event, one: Played) -> list[Result] | None:
    """Return the results of a match; None: they must be made again."""
    try:
        value = json.loads((one.folder / FILE).read_text("utf-8"))
        if value["made_of"] != _made_of(event, one):
            return None
        return [
            Result(**{**row, "equity": tuple(row["equity"])})
            for row in value["results"]
        ]
    except (OSError, ValueError, TypeError, KeyError):
        return None
