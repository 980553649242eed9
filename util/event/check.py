"""The plan of an event: ``python -m util.event check``. Touches nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from datetime import datetime, timedelta

from util.cli import failed

from .draws import shape
from .file import Event, EventError, read_event
from .options import event_parser
from .ports import free_for, problems_of
from .processes import is_alive
from .record import FILE, Record
from .scoring import RuleError, load_rule
from .sentences import addresses


def parallel_of(event: Event) -> int:
    """Return how many matches run at a time."""
    by_cores = max(1, (os.cpu_count() or 1) // 2)
    return min(event.event.parallel or by_cores, event.event.slots)


def duration(event: Event, name: str) -> int:
    """Return the least time of a round, in seconds."""
    match = event.settings_of(name)
    waves, together = shape(match, len(event.teams))
    turns = -(-together // parallel_of(event))
    return waves * turns * (match.warmup + match.trading)


def check_rules(event: Event) -> None:
    """Load the rule of each round; raises RuleError."""
    for settings in event.rounds:
        load_rule(event.scoring_of(settings.name).rule, event.path.parent)


def plan(event: Event, now: datetime) -> Iterator[str]:
    """Yield the lines of the plan of an event that starts now."""
    settings = event.event
    yield f"{settings.name}: {len(event.teams)} teams, {_many(event)}"
    yield f"market {event.market_path}: {', '.join(event.symbols)}"
    yield f"data in {event.folder}"
    yield from addresses(event)
    if event.is_large:
        yield (
            "each match has its own exchange, on ports"
            f" {settings.match_ports}; {parallel_of(event)} at a time"
        )
    bots = sum(bool(team.bot) for team in event.teams.values())
    if bots:
        yield f"{bots} bots of teams are started here; they are not sandboxed"
    yield ""
    start = now
    for row in event.rounds:
        seconds = duration(event, row.name)
        yield _round(event, row.name, start)
        start += timedelta(seconds=seconds)
    yield f"ends at {start:%Y-%m-%d %H:%M:%S} if it starts now, or later"


def port_problems(event: Event) -> list[str]:
    """Return which ports another program holds now."""
    running: list[str] = []
    if (event.folder / FILE).exists():
        with Record.of(event.folder) as record:
            known = record.processes().items()
        running = [name for name, process in known if is_alive(process)]
    return asyncio.run(problems_of(event, free_for(event, running)))


def _many(event: Event) -> str:
    count = len(event.rounds)
    return "1 round" if count == 1 else f"{count} rounds"


def _round(event: Event, name: str, start: datetime) -> str:
    """Return the line of a round."""
    row = event.round_named(name)
    match = event.settings_of(name)
    waves, together = shape(match, len(event.teams))
    count = waves * together
    matches = "1 match" if count == 1 else f"{count} matches"
    acts = sum(
        len(event.due_in(name, acts))
        for acts in (event.news, event.dividends, event.tenders)
    )
    return (
        f"{start:%H:%M:%S}  {name}: {matches} ({match.pairs_as}) of"
        f" {match.warmup} + {match.trading} s, weight {row.weight},"
        f" {event.scoring_of(name).rule}"
        + (f", {acts} acts of the exchange" if acts else "")
    )


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.event check``; return the exit status."""
    parser = event_parser(
        "check", "Read an event file and print its plan; touch nothing."
    )
    options = parser.parse_args(arguments)
    try:
        event = read_event(options.event)
        check_rules(event)
    except (EventError, RuleError) as error:
        return failed("event check", error)
    for line in plan(event, datetime.now()):
        print(line)
    for problem in port_problems(event):
        print(f"`run` would be refused: {problem}")
    return 0
