"""End an event's processes in order: ``python -m util.event stop``.

First the director, then bots, then the exchange, then the pages. Nothing is
lost: `run` goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

from util.cli import failed

from .directing import DirectorError
from .director import alone, player
from .file import Event, EventError, read_event
from .options import event_parser
from .processes import BOT, LOOK_S, is_alive
from .record import Record
from .specs import EXCHANGE, FRONT, HOUSE, PAGES
from .supervise import Supervisor

TOOL = "event stop"
WAIT_S = 30.0  # for the director to end


def end_director(event: Event) -> None:
    """End the director, if there is one; raises DirectorError."""
    director = player(event.folder)
    if director is None:
        return
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(director.pid, signal.SIGTERM)
    deadline = time.monotonic() + WAIT_S
    while is_alive(director):
        if time.monotonic() > deadline:
            raise DirectorError(
                f"`run` (process {director.pid}) has not ended within"
                f" {WAIT_S:g} s"
            )
        time.sleep(LOOK_S)


async def end_all(event: Event) -> list[str]:
    """End all processes of the record in order; return their names."""
    with Record.of(event.folder) as record:
        supervisor = Supervisor(record, print)
        ended = await supervisor.end(BOT, HOUSE)
        ended += await supervisor.end(EXCHANGE)
        ended += await supervisor.end(PAGES, FRONT)
        supervisor.end_strays(event.folder)
    return ended


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.event stop``; return the exit status."""
    parser = event_parser("stop", "End all processes of an event in order.")
    options = parser.parse_args(arguments)
    try:
        event = read_event(options.event)
        end_director(event)
        with alone(event.folder, is_player=False):  # no `run` begins meanwhile
            ended = asyncio.run(end_all(event))
    except (EventError, OSError) as error:
        return failed(TOOL, error)
    except DirectorError as error:
        return failed(TOOL, error, 1)
    print(f"ended: {', '.join(ended) or 'nothing ran'}")
    return 0
