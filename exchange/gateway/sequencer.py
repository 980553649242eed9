"""The only writer: stamps actions and applies them as commands.

A command gets its sequence number and time here, is applied by the engine,
and is queued for the journal. Time passes by command: if a deadline is due, a
``TimePassed`` is applied before anything else is stamped. Long work goes on
by the same command, one slice for each call of `continue_work`.
"""

from __future__ import annotations

from collections.abc import Callable

from exchange.gateway.routing import Routing
from exchange.journal.checksum import Checksum
from exchange.journal.storage import Batch
from exchange.market.command import (
    Action,
    Command,
    Output,
    Restart,
    TimePassed,
)
from exchange.market.engine import Engine
from exchange.market.work import touches
from orderbook import MAX_INT

# Commands applied and not yet committed; more than a second's worth. Beyond
# that new orders are refused, so that the disk keeps up with cancels.
COMMANDS_UNCOMMITTED = 20_000


class Sequencer:
    """Applies one action after the other.

    ``now`` returns microseconds since the epoch. ``is_durable``: there is a
    journal; otherwise everything counts as committed. ``checksum`` covers
    the outputs of the commands of the journal.
    """

    def __init__(
        self,
        engine: Engine,
        routing: Routing,
        now: Callable[[], int],
        is_durable: bool,
        checksum: Checksum,
    ) -> None:
        self.seq = 0  # of the last command applied without a failure
        self.committed = 0 if is_durable else MAX_INT
        self.is_durable = is_durable
        self.has_freed = False  # long work has ended; its reader resets it
        self.disk_trouble = (
            ""  # why new orders are refused, if the disk is bad
        )
        self._engine = engine
        self._routing = routing
        self._now = now
        self._checksum = checksum
        self._applied: list[Command] = []  # since the last `take`

    def apply(
        self, account: str, session_id: str, action: Action, now: int
    ) -> list[Output]:
        """Stamp an action as the next command and apply it.

        Deadlines that are due fire before it, except before a restart, which
        happened earlier.
        """
        engine = self._engine
        ts = now if now > engine.ts else engine.ts + 1
        if ts >= engine.earliest and action.__class__ not in (
            TimePassed,
            Restart,
        ):
            ts = self.pass_time(now)
            if engine.work and touches(engine, account, session_id, action):
                # Deadlines within the turn of a link made much work. Others
                # wait for all of it, because this request cannot any more.
                self.finish_work()
                ts = max(ts, engine.ts + 1)
        seq = engine.seq + 1
        command = Command(seq, ts, account, session_id, action)
        try:
            outputs = engine.apply(command)
        except Exception as error:
            self._routing.is_broken = True
            error.add_note(f"while applying {command}")
            raise
        self.seq = seq
        if self.is_durable:
            self._applied.append(command)
            self._checksum.add(seq, outputs)
        return outputs

    def run(
        self, action: Action, account: str = "", session_id: str = ""
    ) -> list[Output]:
        """Apply an action that no link waits for; route and return its events.

        What it needs must not be busy, or all long work is finished first.
        """
        engine = self._engine
        if engine.work and touches(engine, account, session_id, action):
            self.finish_work()
        outputs = self.apply(account, session_id, action, self._now())
        self._routing.route(outputs)
        return outputs

    def pass_time(self, now: int) -> int:
        """Fire every deadline that is due; return the next command's ts."""
        engine = self._engine
        while True:
            ts = now if now > engine.ts else engine.ts + 1
            due = engine.first_deadline
            if due is None or due > ts:
                return ts
            self._tick(ts)

    def continue_work(self, now: int) -> None:
        """Do one slice of the long work, if there is any.

        The deadlines that are due must have been fired.
        """
        engine = self._engine
        if engine.work:
            self._tick(now if now > engine.ts else engine.ts + 1)

    def finish_work(self) -> None:
        """Do all of the long work, without letting time pass."""
        engine = self._engine
        while engine.work:
            self._tick(engine.ts + 1)

    def _tick(self, ts: int) -> None:
        ended = self._engine.work_ended
        self._routing.send_replies()  # to the commands before
        self._routing.route(self.apply("", "", TimePassed(), ts))
        if self._engine.work_ended != ended:
            self.has_freed = True

    def take(self) -> Batch:
        """Return the commands applied since the last call, to commit them.

        There are none without a journal.
        """
        commands, self._applied = self._applied, []
        return Batch(commands, self._checksum.value)

    # Commands not yet committed

    @property
    def busy_from(self) -> int:
        """Return the seq from which new orders are refused."""
        if self.disk_trouble:
            return 0
        return self.committed + COMMANDS_UNCOMMITTED

    @property
    def trouble(self) -> str:
        """Return why new orders are refused; "" if they are accepted."""
        if self._engine.seq < self.busy_from:
            return ""
        return self.disk_trouble or "the journal's disk is too slow"

    @property
    def uncommitted(self) -> int:
        """Return how many commands are applied and not committed."""
        return max(0, self._engine.seq - self.committed)
