"""What a director does in both sizes of events.

`director` plays all matches in one exchange, `league` each match in an
exchange of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from client import Exchange, ExchangeError

from .changes import missing_round, moved_port, refusal
from .conduct import Conductor
from .file import Event, EventError, read_event
from .keys import make_own_keys
from .matches import label_of
from .ports import free_for, problems_of
from .processes import LOOK_S, last_line
from .publish import UNSCORED, publish
from .record import DEATH, Key, Record
from .sentences import without_key
from .specs import HOUSE
from .supervise import Supervisor

KILLED_S = 1.0  # a process that was killed frees its ports
LIVE_S = 0.5  # between two writes of what the pages show
TOLD_S = 60.0  # between two lines about ends of one process
BEING_PLAYED = ("started", "open", "closed")  # statuses of a match
DEATHS_MAX = 3  # of the exchange in a match, which is void then


class DirectorError(Exception):
    """The event cannot go on; the text says why and what to do."""


# Start --------------------------------------------------------------------


async def check_start(
    event: Event, record: Record, supervisor: Supervisor, is_spent: bool
) -> None:
    """Raise DirectorError if the event cannot be played now.

    ``is_spent`` says that the event is over, and matches are left. Processes
    that nobody keeps are killed first, because they hold ports.
    """
    if is_spent:
        raise DirectorError(
            "the event is over and its secret is public: hidden values of"
            " more matches could be known; use another data folder"
        )
    supervisor.end_strays(event.folder)
    running = supervisor.running
    if wrong := moved_port(event, running) or missing_round(
        event, record.attempts()
    ):
        raise DirectorError(wrong)
    ports = free_for(event, running)
    if problems := await problems_of(event, ports, KILLED_S):
        raise DirectorError("; ".join(problems))


def make_keys(event: Event, say: Callable[[str], None]) -> None:
    """Make the keys of the event's own accounts; tell who has none."""
    if without := make_own_keys(event):
        say(without_key(without))


async def play_and_tend(
    play: Coroutine[Any, Any, None], tend: Coroutine[Any, Any, None]
) -> None:
    """Play to the end; ``tend`` runs meanwhile. The first error is raised."""
    tending, playing = asyncio.create_task(tend), asyncio.create_task(play)
    try:
        await asyncio.wait(
            [tending, playing], return_when=asyncio.FIRST_COMPLETED
        )
        if tending.done():
            tending.result()
        playing.result()
    finally:
        for task in (tending, playing):
            task.cancel()
        await asyncio.gather(tending, playing, return_exceptions=True)


async def log_in(
    exchange: Exchange, until_ready: Callable[[], Awaitable[None]]
) -> None:
    """Connect; the exchange may end and be started again meanwhile."""
    while True:
        await until_ready()
        with contextlib.suppress(ExchangeError):
            await exchange.connect()
            return
        await asyncio.sleep(LOOK_S)


# Changes and ends ---------------------------------------------------------


def read_change(
    path: Path,
    old: Event,
    record: Record,
    say: Callable[[str], None],
    comes: str,
) -> Event | None:
    """Read an event file that has changed; None if it is not followed.

    ``comes`` is told of each new team.
    """
    try:
        event = read_event(path)
    except EventError as error:
        say(f"{error}; the event goes on as it was.")
        return None
    if wrong := refusal(old, event, record.attempts()):
        say(f"{wrong}; the event goes on as it was.")
        return None
    for team in sorted(event.teams.keys() - old.teams.keys()):
        say(f"{team} {comes}; `keys` makes its key.")
    for team in sorted(old.teams.keys() - event.teams.keys()):
        say(f"{team} is left out now: it has no score.")
    return event


def count_death(record: Record, key: Key) -> None:
    """Note the end of a match's exchange; too many make the match void."""
    attempt = record.attempts().get(key)
    if attempt is None or attempt.status != "open":
        return
    record.done(key, f"{DEATH}{attempt.deaths + 1}")
    if attempt.deaths + 1 >= DEATHS_MAX:
        reason = f"the exchange ended {DEATHS_MAX} times"
        record.done(key, "void", reason=reason, again=True)


class Ends:
    """Tells of ends of processes, each process once in TOLD_S."""

    def __init__(
        self, supervisor: Supervisor, say: Callable[[str], None]
    ) -> None:
        self._supervisor = supervisor
        self._say = say
        self._not_before: dict[str, float] = {}

    def tell(self, name: str) -> None:
        """Tell that a process has ended, with the last line that it wrote.

        House bots may have printed their seed, which is nobody's business.
        """
        if time.monotonic() < self._not_before.get(name, 0):
            return
        self._not_before[name] = time.monotonic() + TOLD_S
        spec = self._supervisor.wanted.get(name)
        why = ""
        if spec is not None and not name.startswith(HOUSE):
            why = f": {last_line(spec.log)}"
        self._say(f"{name}: ended, and started again{why}")


# Ends of matches ----------------------------------------------------------


async def make_void(
    conductor: Conductor,
    record: Record,
    reason: str,
    say: Callable[[str], None],
) -> None:
    """Close the market of a void match."""
    key = conductor.match.key
    say(f"{conductor.match.label}: void: {reason}")
    if record.attempts()[key].status != "void":
        record.done(key, "void", reason=reason, again=True)
    await conductor.close(f"void: {reason}")


async def score(
    event: Event, record: Record, key: Key, say: Callable[[str], None]
) -> None:
    """Score a match and write its dossiers; raises DirectorError."""
    label = label_of(event, key)
    try:
        await asyncio.to_thread(publish, event, key)
    except UNSCORED as error:
        raise DirectorError(
            f"{label} cannot be scored: {error}; mend that and `run` again, or"
            " `void` it"
        ) from None
    record.done(key, "score")
    say(f"{label}: scored; its dossiers are written.")
