"""What the director did and what was typed: ``DATA/director.db``.

SQLite, synchronous=FULL. Rows are only ever added. An act has one row before
it and one after it, so that a director that was killed knows what it may have
done already. What a person typed (void, pause, resume) is one row with its
reason. The state of every match follows from the rows.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

FILE = "director.db"
FINISHED = "finished"  # the event: all its rounds are scored
DEATH = "death-"  # and a number: the exchange ended during the match
BUSY_S = 10.0  # to wait while another process writes

Stage: TypeAlias = Literal["begin", "done", "typed"]
Status: TypeAlias = Literal[
    "started", "open", "closed", "settled", "scored", "void"
]
# The status that a match has after an act of this name and stage.
STATUS_AFTER: dict[tuple[str, Stage], Status] = {
    ("start", "begin"): "started",
    ("open", "done"): "open",
    ("close", "done"): "closed",
    ("settled", "done"): "settled",
    ("score", "done"): "scored",
    ("void", "typed"): "void",
    ("void", "done"): "void",  # by the director
}

_TABLES = """
CREATE TABLE IF NOT EXISTS acts (
    row INTEGER PRIMARY KEY,
    ts INTEGER NOT NULL,
    round TEXT NOT NULL,
    match TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    act TEXT NOT NULL,
    stage TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS processes (
    name TEXT PRIMARY KEY,
    pid INTEGER NOT NULL,
    started TEXT NOT NULL,
    port INTEGER NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class Key:
    """Which match is meant; all fields empty: the event itself."""

    round: str = ""
    match: str = ""
    attempt: int = 0


EVENT = Key()


@dataclass(frozen=True, slots=True)
class Row:
    """One row: ``ts`` is in microseconds since the epoch."""

    ts: int
    key: Key
    act: str
    stage: Stage
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Process:
    """A process that was started; ``started`` is its start time.

    A pid is used again by the system, a pid with its start time is not.
    ``port`` is 0 for a process that does not listen.
    """

    name: str
    pid: int
    started: str
    port: int = 0


@dataclass(frozen=True, slots=True)
class MatchRow:
    """The state of one attempt to play a match.

    ``opened_ts`` is in microseconds since the epoch, None before the opening;
    ``reason`` says why it is void. ``number`` is the round of the market
    (``welcome.round``), None until it is known.
    """

    round: str
    match: str
    attempt: int
    status: str
    opened_ts: int | None
    reason: str
    number: int | None = None


@dataclass(slots=True)
class Attempt:
    """One attempt to play a match, with the acts that were begun and done."""

    key: Key
    status: Status = "started"
    opened_ts: int | None = None
    number: int | None = None
    reason: str = ""
    is_again: bool = False  # void, and to be played once more
    begun: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    done: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def deaths(self) -> int:
        """Return how often the exchange has ended during the match."""
        return sum(name.startswith(DEATH) for name in self.done)

    def add(self, row: Row) -> None:
        """Follow one row."""
        if row.stage == "begin":
            self.begun[row.act] = row.detail
        elif row.stage == "done":
            self.done[row.act] = row.detail
        if self.status != "void":
            self.status = STATUS_AFTER.get((row.act, row.stage), self.status)
        self.opened_ts = row.detail.get("opened_ts", self.opened_ts)
        self.number = row.detail.get("number", self.number)
        if row.act == "void":
            self.reason = row.detail["reason"]
            self.is_again = self.is_again or row.detail["again"]

    def as_row(self) -> MatchRow:
        """Return what others read of it."""
        key = self.key
        return MatchRow(
            key.round,
            key.match,
            key.attempt,
            self.status,
            self.opened_ts,
            self.reason,
            self.number,
        )


def attempts_of(rows: Iterable[Row]) -> dict[Key, Attempt]:
    """Return every attempt, in the order in which they began."""
    attempts: dict[Key, Attempt] = {}
    for row in rows:
        if row.key != EVENT:
            attempts.setdefault(row.key, Attempt(row.key)).add(row)
    return attempts


class RecordError(OSError):
    """The record cannot be read or written; the text names the file."""


class Record:
    """The record of one event; ``":memory:"`` keeps it in memory.

    Several processes may write it. Every method that writes returns after the
    row is on disk. Every method raises RecordError.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = path
        if path != ":memory:":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        with self._named():
            self._file = sqlite3.connect(
                path, timeout=BUSY_S, isolation_level=None
            )
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=FULL")
            self._file.executescript(_TABLES)

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Open the record of an event by its data folder."""
        return cls(folder / FILE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Name the file in what SQLite raises."""
        try:
            yield
        except sqlite3.Error as error:
            raise RecordError(f"{self._path}: {error}") from None

    def _run(self, statement: str, *values: object) -> list[Any]:
        with self._named():
            return self._file.execute(statement, values).fetchall()

    # Acts

    def begin(self, key: Key, act: str, **detail: Any) -> None:
        """Note that an act is about to be done."""
        self._add(key, act, "begin", detail)

    def done(self, key: Key, act: str, **detail: Any) -> None:
        """Note that an act was done, with what came of it."""
        self._add(key, act, "done", detail)

    def typed(self, key: Key, act: str, **detail: Any) -> None:
        """Note what a person typed."""
        self._add(key, act, "typed", detail)

    def _add(
        self, key: Key, act: str, stage: Stage, detail: Mapping[str, Any]
    ) -> None:
        self._run(
            "INSERT INTO acts (ts, round, match, attempt, act, stage, detail)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            time.time_ns() // 1_000,
            key.round,
            key.match,
            key.attempt,
            act,
            stage,
            json.dumps(detail),
        )

    def rows(self) -> list[Row]:
        """Return all rows, oldest first."""
        return [
            Row(ts, Key(*key), act, stage, json.loads(detail))
            for ts, *key, act, stage, detail in self._run(
                "SELECT ts, round, match, attempt, act, stage, detail"
                " FROM acts ORDER BY row"
            )
        ]

    def attempts(self) -> dict[Key, Attempt]:
        """Return every attempt, in the order in which they began."""
        return attempts_of(self.rows())

    def paused(self) -> str | None:
        """Return the reason of a pause that was typed and not ended."""
        reason = None
        for row in self.rows():
            if row.key == EVENT and row.act in ("pause", "resume"):
                is_pause = row.act == "pause"
                reason = row.detail["reason"] if is_pause else None
        return reason

    def is_over(self) -> bool:
        """Return whether all rounds were scored, and the event has ended."""
        return any(
            row.key == EVENT and row.act == FINISHED for row in self.rows()
        )

    # Processes

    def keep(self, process: Process) -> None:
        """Note a process that was started, in the place of an older one."""
        self._run(
            "INSERT OR REPLACE INTO processes VALUES (?, ?, ?, ?)",
            process.name,
            process.pid,
            process.started,
            process.port,
        )

    def forget(self, name: str) -> None:
        """Note that a process was ended and is not to be started again."""
        self._run("DELETE FROM processes WHERE name = ?", name)

    def processes(self) -> dict[str, Process]:
        """Return the processes that were started last, by name."""
        rows = self._run("SELECT name, pid, started, port FROM processes")
        return {name: Process(name, *rest) for name, *rest in rows}


def read_matches(folder: Path) -> list[MatchRow]:
    """Return the state of every attempt, in the order in which they began.

    ``folder`` is the data folder of the event. Empty if no director has run.
    """
    if not (folder / FILE).exists():
        return []
    with Record.of(folder) as record:
        return [attempt.as_row() for attempt in record.attempts().values()]
