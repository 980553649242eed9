"""Ports of an event: which of them another program holds.

A port is named by its field in the event file, as in ``event.front``.
"""

from __future__ import annotations

import errno
import time
from asyncio import sleep
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from exchange.doors.listener import bind

from .file import Event
from .specs import EXCHANGE, FRONT, PAGES

PAGES_FIELD = "event.pages"
LOOK_S = 0.05  # between two looks at a port


@dataclass(frozen=True, slots=True)
class Port:
    """A port and its field in the event file."""

    field: str
    number: int


def ports_of(event: Event) -> Iterator[Port]:
    """Yield the ports that teams use: front, pages, doors."""
    settings = event.event
    yield Port("event.front", settings.front)
    yield Port(PAGES_FIELD, settings.pages)
    if settings.doors is not None:
        for name, number in settings.doors.model_dump().items():
            if number:
                yield Port(f"event.doors.{name}", number)


async def _problem(event: Event, port: Port) -> str | None:
    """Return why nothing can listen at a port; None: it is free."""
    try:
        sockets = await bind(event.event.host, port.number)
    except OSError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE:
            return (
                f"{port.field}: another program holds port {port.number}; end"
                " it, or choose another port"
            )
        return f"{port.field}: {error}"
    for one in sockets:
        one.close()
    return None


async def problems_of(
    event: Event, ports: Collection[Port], patience_s: float = 0.0
) -> list[str]:
    """Return what is wrong with ports; empty: all are free.

    For ``patience_s`` it waits for those that are held: a program that was
    killed gives its ports back a moment later.
    """
    deadline = time.monotonic() + patience_s
    while True:
        looks = [await _problem(event, port) for port in ports]
        found = [problem for problem in looks if problem is not None]
        if not found or time.monotonic() >= deadline:
            return found
        await sleep(LOOK_S)


def free_for(event: Event, running: Collection[str]) -> list[Port]:
    """Return the ports that must be free.

    ``running`` are names of processes of the event, which hold theirs.
    """
    holder = FRONT if event.is_large else EXCHANGE
    return [
        port
        for port in ports_of(event)
        if (PAGES if port.field == PAGES_FIELD else holder) not in running
    ]
