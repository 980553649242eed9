"""Let a match count for nothing: ``python -m util.event void``.

A director that plays the match stops it at once. With ``--again`` the match
is played once more, with other hidden values, before the next one.
"""

from __future__ import annotations

from util.cli import failed, utf8

from .file import EventError, read_event
from .matches import find_match, label_of, last_attempt
from .options import event_parser
from .record import Record
from .standings import write_standings

TOOL = "event void"


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.event void``; return the exit status."""
    parser = event_parser("void", "Let a match count for nothing.")
    add = parser.add_argument
    add("match", type=utf8, metavar="MATCH", help="as in A, or A/all-2")
    add("--reason", type=utf8, required=True, metavar="TEXT", help="why")
    add("--again", action="store_true", help="play it once more")
    options = parser.parse_args(arguments)
    try:
        event = read_event(options.event)
        named = find_match(event, options.match)
        with Record.of(event.folder) as record:
            last = last_attempt(record.attempts(), *named)
            if last is None:
                return failed(
                    TOOL, f"{options.match} has not begun: nothing to void", 1
                )
            if options.again and record.is_over():
                return failed(
                    TOOL,
                    "the event is over and its secret is public: a match"
                    " cannot be played again",
                    1,
                )
            record.typed(
                last.key, "void", reason=options.reason, again=options.again
            )
        if last.status == "scored":
            write_standings(event)
    except (EventError, ValueError, OSError) as error:
        return failed(TOOL, error)
    then = "it is played again" if options.again else "it is not played again"
    print(f"{label_of(event, last.key)} is void; {then}")
    return 0
