"""The exchange as a state machine: ``Engine.apply(command) -> outputs``.

The engine gets sequence number, time and sender as data; it reads no clock
and no setting, makes no random choice, iterates no set, uses no float and
calls nothing outside. The same commands give the same outputs, to the byte,
wherever and whenever they are applied.

The outputs are a list of (recipient, event): an account's name for private
events, PUBLIC for public ones. The first output is the reply to the request,
addressed to its account. Then follow the executions as they happened, last
those of stop orders that they triggered, one
``AccountReport`` for each account whose cash or positions changed, and the
public ``Status`` and trades. Changes of the books are fetched separately,
with ``Engine.take_book_updates()``.

A new request is a module with its handler and a row in HANDLERS. Where the
rules change, the handler asks ``state.rules`` which version applies.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any, TypeAlias

from exchange.market import reports, work
from exchange.market.command import (
    RULES,
    Action,
    BustTrade,
    ClockStep,
    Command,
    Configure,
    Connect,
    Disconnect,
    Output,
    Restart,
    Shutdown,
    TaggedPlace,
    TimePassed,
)
from exchange.market.configuration import configure
from exchange.market.conversion import convert
from exchange.market.operator import administer
from exchange.market.orders import amend, cancel, cancel_all, place
from exchange.market.ranking import leaderboard
from exchange.market.sessions import (
    connect,
    disconnect,
    disconnect_all,
    restart,
)
from exchange.market.state import State
from exchange.market.tags import place_tagged
from exchange.market.tenders import accept
from exchange.market.timers import cancel_after, pass_time, step_clock
from exchange.market.triggers import elect
from orderbook import (
    AcceptTender,
    Admin,
    Amend,
    Cancel,
    CancelAfter,
    CancelAll,
    Convert,
    Place,
    Refused,
)

# A handler carries out the action of a command. If it raises Refused it has
# changed nothing.
Handler: TypeAlias = Callable[[State, Command, Any], None]
HANDLERS: dict[type[Action], Handler] = {
    Place: place,
    TaggedPlace: place_tagged,
    Amend: amend,
    Cancel: cancel,
    CancelAll: cancel_all,
    CancelAfter: cancel_after,
    Convert: convert,
    AcceptTender: accept,
    Admin: administer,
    BustTrade: administer,
    Configure: configure,
    Connect: connect,
    Disconnect: disconnect,
    Restart: restart,
    Shutdown: disconnect_all,
    TimePassed: pass_time,
    ClockStep: step_clock,
}


class Engine(State):
    """The state, changed by one command at a time.

    ``known_rules`` are the versions of the rules that ``handlers`` apply.
    """

    def __init__(
        self,
        handlers: Mapping[type[Action], Handler] = HANDLERS,
        known_rules: Container[int] = RULES,
    ) -> None:
        super().__init__(known_rules)
        self._handlers = handlers

    def apply(self, command: Command) -> list[Output]:
        """Carry out one command and return its outputs.

        A request that the rules refuse changes only ``seq`` and ``ts``; its
        only output is an ``Error``. Any exception is a bug.
        """
        assert command.seq == self.seq + 1 and command.ts > self.ts
        self.seq = command.seq
        self.previous_ts = self.ts
        self.ts = command.ts
        outputs: list[Output] = []
        self.outputs = outputs
        action = command.action
        assert not self.work or not work.touches(
            self, command.account, command.session, action
        )
        try:
            self._handlers[action.__class__](self, command, action)
        except Refused as refusal:
            assert not outputs, "refused after something happened"
            return [(command.account, refusal.as_error())]
        if self.touched or self.changed_accounts or self.statuses:
            if self.reached:
                elect(self)
            reports.finish_command(self)
        return outputs

    # Views, which `reports` and `ranking` make of the state.
    take_book_updates = reports.take_book_updates
    snapshot = reports.snapshot
    ticker = reports.ticker
    account_report = reports.account_report
    positions = reports.positions
    order_reports = reports.order_reports
    leaderboard = leaderboard
