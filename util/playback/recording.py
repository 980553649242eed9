"""A journal that can be entered at any moment.

It is read once, at the start. That verifies it, and finds what the viewers ask
for: when something happened, and the state of the market at checkpoints. A
moment is the state of the last checkpoint before it, and the commands since.
"""

from __future__ import annotations

import gc
import os
import pickle
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal, TypeAlias

from exchange.journal.history import History
from exchange.journal.sqlite import (
    JournalError,
    commands_after,
    count_commands,
)
from exchange.market.command import Command, Output
from exchange.market.engine import Engine
from exchange.market.reports import in_full
from orderbook import Admin, Exec, MatchChanged, News, Status, Trade

from ..journal import commands_of

# Commands between two checkpoints: applying them takes 0.1 s. A long journal
# has longer gaps, so that it has at most CHECKPOINTS_MAX checkpoints.
CHECKPOINT_COMMANDS = 3_000
CHECKPOINTS_MAX = 64
MARKS_MAX = 2_000

Kind: TypeAlias = Literal["news", "blow_out", "phase", "match"]
StepKind: TypeAlias = Literal["trade", "event", "fill"]


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that everybody was told, at a time in microseconds."""

    ts: int
    kind: Kind
    text: str


@dataclass(slots=True)
class Moment:
    """The market and its history after the command ``engine.seq``."""

    engine: Engine
    history: History

    def apply(self, command: Command) -> list[Output]:
        """Apply the next command, which nobody follows."""
        outputs = self.engine.apply(command)
        self.history.record(outputs)
        return outputs


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """Where the state after the command ``seq`` is in the file."""

    ts: int
    seq: int
    offset: int
    size: int


class Recording:
    """The commands of a journal from ``start`` to ``end``, in microseconds.

    None: from its first command, to the last one that is committed now. The
    first command of all is always applied. Raises JournalError if the journal
    is damaged, or has no command in that time.
    """

    def __init__(
        self,
        path: Path,
        *,
        start: int | None = None,
        end: int | None = None,
        is_quiet: bool = False,
        spacing: int = CHECKPOINT_COMMANDS,
    ) -> None:
        self.path = path
        self._spacing = spacing  # least commands between checkpoints
        self.marks: list[Mark] = []
        # Times of trades by symbol, of fills by account, and of all commands
        # that changed anything public; each time once.
        self._trades: defaultdict[str, array[int]] = defaultdict(_times)
        self._fills: defaultdict[str, array[int]] = defaultdict(_times)
        self._fill_symbols: defaultdict[str, list[str]] = defaultdict(list)
        self._events = _times()
        self._file = TemporaryFile(buffering=0)
        self._checkpoints: list[_Checkpoint] = []
        # What each instrument entered, and when.
        self.phases: list[tuple[int, str, str]] = []
        self.start_ts = self.end_ts = 0
        try:
            self._read(start, end, is_quiet)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the checkpoints."""
        self._file.close()

    @property
    def accounts(self) -> list[str]:
        """The accounts that have fills, in the order of their names."""
        return sorted(self._fills)

    # Moments

    def at(self, ts: int) -> Moment:
        """Return the market after all commands up to a time."""
        index = bisect_right(self._checkpoints, ts, key=lambda c: c.ts) - 1
        checkpoint = self._checkpoints[max(0, index)]
        # Several threads read the file: each from its own place.
        moment = _load(
            os.pread(self._file.fileno(), checkpoint.size, checkpoint.offset)
        )
        for command in self.after(checkpoint.seq):
            if command.ts > ts:
                break
            moment.apply(command)
        # What changed before is in the snapshots that a reader gets.
        moment.engine.take_book_updates(())
        return moment

    def after(self, seq: int) -> Iterator[Command]:
        """Yield the commands after ``seq``, up to the end."""
        for command in commands_after(self.path, seq):
            if command.ts > self.end_ts:
                return
            yield command

    def clamp(self, ts: int) -> int:
        """Return the time within the recording that is nearest to one."""
        return min(max(ts, self.start_ts), self.end_ts)

    def step(
        self,
        ts: int,
        kind: StepKind,
        *,
        name: str | None = None,
        is_back: bool = False,
    ) -> int:
        """Return the time of the next trade, event or fill; ``ts`` if none.

        ``name`` is the symbol of a trade, None: of any; or the account of a
        fill.
        """
        times: list[array[int]]
        if kind == "event":
            times = [self._events]
        elif kind == "fill":
            times = [self._fills.get(name or "", _times())]
        elif name is None:
            times = [*self._trades.values()]
        else:
            times = [self._trades.get(name, _times())]
        found = [_next(each, ts, is_back) for each in times]
        known = [time for time in found if time is not None]
        if not known:
            return ts
        return max(known) if is_back else min(known)

    def fill_symbol(self, account: str, ts: int) -> str | None:
        """Return the symbol of an account's first fill at a time."""
        times = self._fills.get(account, _times())
        index = bisect_left(times, ts)
        if index == len(times) or times[index] != ts:
            return None
        return self._fill_symbols[account][index]

    # Reading

    def _read(
        self, start: int | None, end: int | None, is_quiet: bool
    ) -> None:
        path, moment = self.path, Moment(Engine(), History())
        total = count_commands(path)
        spacing = max(self._spacing, total // CHECKPOINTS_MAX)
        is_begun = False
        due = 0  # seq of the next checkpoint
        for command in commands_of(path, is_quiet=is_quiet):
            if end is not None and command.ts > end:
                break
            if not is_begun and (start is None or command.ts >= start):
                is_begun, self.start_ts = True, command.ts
                if moment.engine.seq:
                    self._keep(moment)
                due = moment.engine.seq + spacing
            self._apply(moment, command, is_begun)
            self.end_ts = command.ts
            is_first = is_begun and not self._checkpoints
            if is_first or is_begun and moment.engine.seq >= due:
                self._keep(moment)
                due = moment.engine.seq + spacing
        if not is_begun:
            raise JournalError(f"{path}: no command in the time asked for")

    def _apply(self, moment: Moment, command: Command, is_begun: bool) -> None:
        try:
            outputs = moment.apply(command)
        except Exception as error:
            raise JournalError(
                f"{self.path}: command {command.seq} cannot be applied:"
                f" {error!r}"
            ) from error
        has_changed = bool(moment.engine.changed_books)
        moment.engine.take_book_updates(())
        if not is_begun:
            return
        for recipient, event in in_full(outputs):
            if isinstance(event, Exec):
                if event.exec_type == "trade":
                    if _note(self._fills[recipient], command.ts):
                        self._fill_symbols[recipient].append(event.symbol)
                continue
            if isinstance(event, Trade):
                _note(self._trades[event.symbol], command.ts)
            if isinstance(event, Status) and event.phase is not None:
                self.phases.append(
                    (command.ts, event.symbol or "", event.phase)
                )
            if isinstance(event, (Trade, News, Status, MatchChanged)):
                has_changed = True
                self._mark(command, event)
        if has_changed:
            _note(self._events, command.ts)

    def _mark(
        self, command: Command, event: Trade | News | Status | MatchChanged
    ) -> None:
        """Note what stands out; one mark for each command is enough."""
        marks, ts = self.marks, command.ts
        if len(marks) >= MARKS_MAX or marks and marks[-1].ts == ts:
            return
        match event:
            case News():
                marks.append(Mark(ts, "news", event.headline))
            case MatchChanged():
                marks.append(Mark(ts, "match", event.match.name))
            case Status(message=message):
                action = command.action
                if isinstance(action, Admin) and action.action == "close_out":
                    text = f"{action.user}: {action.reason}"
                    marks.append(Mark(ts, "blow_out", text))
                elif event.phase is not None:
                    is_all = not (
                        isinstance(action, Admin) and action.symbol is not None
                    )
                    words = ["" if is_all else event.symbol, event.phase]
                    text = ": ".join(filter(None, words))
                    marks.append(
                        Mark(ts, "phase", f"{text} {message or ''}".strip())
                    )

    def _keep(self, moment: Moment) -> None:
        """Write a checkpoint."""
        moment.history.compact()
        text = zlib.compress(pickle.dumps(moment, pickle.HIGHEST_PROTOCOL), 1)
        offset = self._file.seek(0, 2)
        self._file.write(text)
        engine = moment.engine
        self._checkpoints.append(
            _Checkpoint(engine.ts, engine.seq, offset, len(text))
        )


def _load(text: bytes) -> Moment:
    """Return the state of a checkpoint.

    The collector of garbage would search the many new objects several times.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        moment: Moment = pickle.loads(zlib.decompress(text))  # written by us
    finally:
        if was_enabled:
            gc.enable()
    return moment


def _times() -> array[int]:
    return array("q")


def _note(times: array[int], ts: int) -> bool:
    """Add a time unless it is the last one; return whether it is new."""
    is_new = not times or times[-1] != ts
    if is_new:
        times.append(ts)
    return is_new


def _next(times: array[int], ts: int, is_back: bool) -> int | None:
    """Return the time before or after one; None: there is none."""
    if is_back:
        index = bisect_left(times, ts) - 1
        return times[index] if index >= 0 else None
    index = bisect_right(times, ts)
    return times[index] if index < len(times) else None
