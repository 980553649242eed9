"""Play an event: ``python -m util.event run event.toml``.

Exit status: 0 all rounds up to the last one wanted are scored, 1 it was
stopped or cannot go on, 2 the command line or a file is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

from exchange.host.keyfile import KeysError
from util.cli import failed, on_stop, utf8

from .directing import DirectorError
from .director import Director, alone, leave
from .draws import read_drawn
from .file import Event, EventError, read_event
from .league import League
from .options import event_parser
from .record import EVENT, FINISHED, Record
from .sentences import pages_url
from .specs import JOURNAL_FILE

TOOL = "event run"


def say(line: str) -> None:
    """Print a line with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


async def play(event: Event, path: Path, until: str | None) -> bool:
    """Play the event; return whether it was not stopped."""
    with Record.of(event.folder) as record:
        kind = League if event.is_large else Director
        director = kind(path, record, say)
        playing = asyncio.create_task(director.run(until))

        def stop() -> None:
            leave(event.folder)
            playing.cancel()

        on_stop(stop)
        with contextlib.suppress(asyncio.CancelledError):
            await playing
            if until is None:
                record.done(EVENT, FINISHED)
                await director.end()
            return True
    return False


def other_size(event: Event) -> str:
    """Return why the data folder is of another size; empty: it is not."""
    words = "use another data folder"
    if event.is_large and (event.folder / JOURNAL_FILE).exists():
        return f"matches were played in one exchange before: {words}"
    if not event.is_large and read_drawn(event.folder):
        return f"matches were played in exchanges of their own before: {words}"
    return ""


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.event run``; return the exit status."""
    parser = event_parser("run", "Play an event, or go on where it was.")
    parser.add_argument(
        "--until",
        type=utf8,
        metavar="ROUND",
        help="stop after this round; everything keeps running",
    )
    options = parser.parse_args(arguments)
    try:
        event = read_event(options.event)
        if options.until not in (None, *(r.name for r in event.rounds)):
            return failed(TOOL, f"there is no round {options.until!r}")
        if problem := other_size(event):
            return failed(TOOL, f"{options.event}: {problem}")
        with alone(event.folder):
            is_over = asyncio.run(play(event, options.event, options.until))
    except (EventError, KeysError, ValueError, OSError) as error:
        return failed(TOOL, error)
    except DirectorError as error:
        return failed(TOOL, error, 1)
    pages = pages_url(event)
    again = f"python -m util.event run {options.event}"
    stop = f"python -m util.event stop {options.event}"
    if not is_over:
        say("Stopped. The exchange, the house bots, the bots and the pages")
        say("go on, and an open round closes at its time.")
        say(f"To go on: {again}")
        say(f"To end everything in order: {stop}")
        return 1
    if options.until is None:
        say(f"All rounds are scored. Standings and downloads: {pages}")
        say(f"To end the pages: {stop}")
    else:
        say(f"Round {options.until} is scored; everything keeps running.")
        say(f"To go on: {again}")
    return 0
