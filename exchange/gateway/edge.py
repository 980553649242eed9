"""The gateway of an edge: it shows a market that another process runs.

An edge applies the commands of the primary and sends the outputs to its
readers. It makes no command of its own, so time passes by the commands of the
primary only, and nobody can log in. Books, trades, tables and their sequence
numbers are the primary's, because all of them follow from the commands.
"""

from __future__ import annotations

from exchange.gateway.gateway import Gateway
from exchange.gateway.link import Link
from exchange.gateway.logins import Logins
from exchange.gateway.sequencer import Sequencer
from exchange.journal.storage import Batch
from exchange.market.command import Action, Output
from orderbook import Login, Refused

READ_ONLY = (
    "this server shows the market and takes no orders: log in at the exchange"
    " itself"
)


class _ReadOnlySequencer(Sequencer):
    """Makes no command: time passes by those of the primary."""

    def apply(
        self, account: str, session_id: str, action: Action, now: int
    ) -> list[Output]:
        raise AssertionError(f"an edge makes no command: {action}")

    def pass_time(self, now: int) -> int:
        return now


class _ReadOnlyLogins(Logins):
    """Refuses every login."""

    def login(self, link: Link, request: Login) -> None:
        raise Refused("unauthorized", READ_ONLY)


class EdgeGateway(Gateway):
    """A gateway that follows a journal and does not write one."""

    make_sequencer = _ReadOnlySequencer
    make_logins = _ReadOnlyLogins

    def follow(self, batch: Batch) -> None:
        """Apply a batch of the primary; queue the outputs for readers.

        Raises DivergedError if it came out differently than there.
        """
        self.replica.apply(batch, self.routing.route)
        self.sequencer.seq = self.engine.seq

    def commit(self, seq: int) -> None:
        """Do nothing: all that an edge hears of is committed."""

    def end_sessions(self) -> None:
        """Do nothing: the sessions are the primary's."""

    @property
    def next_deadline(self) -> int | None:
        """None: the primary lets time pass."""
        return None

    def pass_time(self) -> None:
        """Do nothing: the primary lets time pass."""

    def note_time(self) -> None:
        """Do nothing: the primary notes the time."""

    def step_clock(self, forward_us: int) -> None:
        """Do nothing: the deadlines are the primary's."""
