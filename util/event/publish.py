"""What is made after a match: dossiers and standings, from the journal."""

from __future__ import annotations

from .dossier import write_dossiers
from .file import Event
from .record import Key
from .standings import write_standings


def publish(event: Event, key: Key) -> None:
    """Write the dossiers of a match, and the standings."""
    write_dossiers(event, key.round, key.match)
    write_results(event)


def write_results(event: Event) -> None:
    """Write the standings."""
    write_standings(event)
