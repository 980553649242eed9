"""Print a match from its journal: ``python -m util.event replay``.

Every command and event from the warm-up of its last attempt to its end, as
`util.replay` prints them.
"""

from __future__ import annotations

from util import replay
from util.cli import failed, utf8

from .file import EventError, read_event
from .matches import find_match, last_attempt
from .options import event_parser
from .record import Record
from .results import JOURNAL

TOOL = "event replay"


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.event replay``; return the exit status."""
    parser = event_parser("replay", "Print every command of a match.")
    add = parser.add_argument
    add("match", type=utf8, metavar="MATCH", help="as in A, or A/all-2")
    add("--account", type=utf8, help="only what concerns this account")
    add("--symbol", type=utf8, help="only what concerns this instrument")
    options = parser.parse_args(arguments)
    try:
        event = read_event(options.event)
        named = find_match(event, options.match)
        with Record.of(event.folder) as record:
            last = last_attempt(record.attempts(), *named)
            if last is None:
                return failed(TOOL, f"{options.match} has not begun", 1)
            times = [row.ts for row in record.rows() if row.key == last.key]
    except (EventError, ValueError, OSError) as error:
        return failed(TOOL, error)
    folder = event.folder
    if event.is_large:
        folder = folder / named[0] / named[1]
    words = [str(folder / JOURNAL), "--from", str(times[0])]
    if last.status in ("scored", "void"):
        words += ["--to", str(times[-1] + 1)]
    for name in ("account", "symbol"):
        if getattr(options, name) is not None:
            words += [f"--{name}", getattr(options, name)]
    return replay.main(words)
