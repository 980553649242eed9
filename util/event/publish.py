"""What is made after a match: dossiers and standings, from the journal."""

from __future__ import annotations

from .file import Event
from .record import Key


def publish(event: Event, key: Key) -> None:
    """Write the dossiers of a match, and the standings."""
    write_results(event)


def write_results(event: Event) -> None:
    """Write the standings."""
