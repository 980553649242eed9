"""Print or serve a match from its journal: ``python -m util.event replay``.

Every command and event from the warm-up of its last attempt to its end, as
`util.replay` prints them. With ``--serve`` the match is shown on the page of
the exchange: teams sign in with their keys, the hidden values are a line in
the chart as soon as they are public.
"""

from __future__ import annotations

import argparse
from bisect import bisect_right
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path

from exchange.journal.reading import readable
from exchange.journal.sqlite import JournalError
from util import replay
from util.cli import failed, utf8
from util.playback.command import run
from util.playback.recording import Recording
from util.playback.viewer import Fair

from .fair import FILE, STEP_MS, FairError, FairPaths, read_paths
from .file import Event, EventError, read_event
from .keys import KEYS_FILE
from .matches import find_match, label_of, last_attempt
from .options import event_parser
from .record import Attempt, Record
from .results import JOURNAL

TOOL = "event replay"
OVER = ("scored", "void")  # statuses of a match that is not played any more
POINTS_MAX = 1_000  # hidden values that are told at once


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.event replay``; return the exit status."""
    options = _parse(arguments)
    try:
        event = read_event(options.event)
        named = find_match(event, options.match)
        with Record.of(event.folder) as record:
            last = last_attempt(record.attempts(), *named)
            if last is None:
                return failed(TOOL, f"{options.match} has not begun", 1)
            times = [row.ts for row in record.rows() if row.key == last.key]
            is_over = record.is_over()
    except (EventError, ValueError, OSError) as error:
        return failed(TOOL, error)
    end = times[-1] if last.status in OVER else None
    journal = _journal_of(event, last)
    if options.serve:
        return _serve(event, last, journal, (times[0], end), options, is_over)
    words = [str(journal), "--from", str(times[0])]
    if end is not None:
        words += ["--to", str(end + 1)]
    for name in ("account", "symbol"):
        if getattr(options, name) is not None:
            words += [f"--{name}", getattr(options, name)]
    return replay.main(words)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = event_parser(
        "replay", "Print every command of a match, or serve the match."
    )
    add = parser.add_argument
    add("match", type=utf8, metavar="MATCH", help="as in A, or A/all-2")
    add("--account", type=utf8, help="only what concerns this account")
    add("--symbol", type=utf8, help="only what concerns this instrument")
    add("--serve", action="store_true", help="serve it at /replay")
    add("--hostname", default="localhost", help="address to listen on")
    add(
        "--port",
        type=replay.port,
        default=8766,
        metavar="N",
        help="0: any free one",
    )
    options = parser.parse_args(arguments)
    if options.serve and (options.account or options.symbol):
        parser.error("--serve shows all: it takes no --account or --symbol")
    return options


def _journal_of(event: Event, last: Attempt) -> Path:
    """Return the journal of a match: its own, or that of the event."""
    key = last.key
    folder = event.folder / key.round / key.match
    return (folder if event.is_large else event.folder) / JOURNAL


def _serve(
    event: Event,
    last: Attempt,
    journal: Path,
    span: tuple[int, int | None],
    options: argparse.Namespace,
    is_over: bool,
) -> int:
    """Serve a match; hidden values only once they are public."""
    key = last.key
    start, end = span
    keys = event.folder / KEYS_FILE
    try:
        paths = None
        if last.status == "scored":
            paths = read_paths(event.folder / key.round / key.match / FILE)
        with readable(journal) as path:
            return run(
                path,
                title=f"{event.event.name}, {label_of(event, key)}",
                hostname=options.hostname,
                port=options.port,
                keys=keys if keys.exists() else None,
                is_published=is_over and event.event.publish_journals,
                has_leaderboard=(
                    event.event.live_board or last.status == "scored"
                ),
                start=start,
                end=end,
                make_fair=_teller(paths, last.opened_ts),
            )
    except (JournalError, FairError, OSError) as error:
        return failed(TOOL, error, 1)


def _teller(
    paths: FairPaths | None, opened_ts: int | None
) -> Callable[[Recording], Fair | None]:
    """Return what makes a teller of the hidden values for a recording."""

    def make(recording: Recording) -> Fair | None:
        if paths is None or opened_ts is None:
            return None
        known = paths
        spans = trading(recording.phases, opened_ts, recording.end_ts)
        times = moments(spans)  # once: a match of a day has 864,000

        def tell(symbol: str, until: int) -> Sequence[tuple[int, int]]:
            if symbol not in known.values:
                return ()
            count = bisect_right(times, until, key=itemgetter(0))
            return [
                (ts, known.at(ms, symbol))
                for ts, ms in times[: count : count // POINTS_MAX + 1]
            ]

        return tell

    return make


def trading(
    phases: Sequence[tuple[int, str, str]], opened_ts: int, end_ts: int
) -> list[tuple[int, int]]:
    """Return when the first instrument was open, from the opening on.

    ``phases`` has time, symbol and phase of each change.
    """
    first = phases[0][1] if phases else ""
    spans: list[tuple[int, int]] = []
    begun: int | None = None
    for ts, symbol, phase in (*phases, (end_ts, first, "")):
        if symbol != first:
            continue
        if phase == "open" and begun is None:
            begun = max(ts, opened_ts)
        elif phase != "open" and begun is not None:
            if ts > begun:
                spans.append((begun, ts))
            begun = None
    return spans


def moments(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return each time at which hidden values change, and its trading ms."""
    found: list[tuple[int, int]] = []
    traded = 0  # microseconds before the span
    step = STEP_MS * 1_000
    for begun, ended in spans:
        first = -traded % step
        for after in range(first, ended - begun, step):
            found.append((begun + after, (traded + after) // 1_000))
        traded += ended - begun
    return found
