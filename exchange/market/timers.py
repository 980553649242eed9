"""What happens by itself at a time: gtd orders, cancel_after, phases."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from exchange.market import work
from exchange.market.closing import postpone_closes
from exchange.market.command import ClockStep, Command, TimePassed
from exchange.market.executions import cancel_order
from exchange.market.phases import enter_phase
from exchange.market.reports import reply_ok
from exchange.market.state import (
    CLOSES,
    PHASE_ENDS,
    TENDER_ENDS,
    Deadline,
    State,
)
from exchange.market.tenders import end_tender, postpone_tenders
from orderbook import CancelAfter

# Deadlines that one command fires under version 2 of the rules; the next one
# fires the rest. A cancel_after counts as one, like a cancel_all. Later
# versions count the orders that are canceled: `work.room`.
DEADLINES_PER_COMMAND = 1_000


def pass_time(state: State, command: Command, action: TimePassed) -> None:
    """Fire the deadlines that are due, by time and then by order id.

    If none is due, continue the long work by one slice.
    """
    due = state.first_deadline
    if due is None or due > state.ts:
        work.go_on(state)
        return
    fired = 0
    while due is not None and due <= state.ts:
        if state.rules < 3:
            if fired == DEADLINES_PER_COMMAND:
                return
        elif work.room(state) <= 0:
            _expire(state)
            return
        fired += 1
        work.spend(state, 1)
        _fire(state, heapq.heappop(state.deadlines))
        due = state.first_deadline


def _fire(state: State, entry: Deadline) -> None:
    """Do what is due, or queue it if it needs what is busy."""
    _, order_id, name = entry
    act = DUE.get(order_id)
    if act is None:
        order = state.open_gtd[order_id]
        if state.work and work.is_busy(state, order.symbol):
            work.cancel_all(state, [order], "gtd", order_status="expired")
        else:
            cancel_order(state, order, "gtd", "expired")
    elif order_id and state.work and work.is_needed(state, name):
        work.enqueue(state, Later(entry))
    else:
        act(state, name)


def _expire(state: State) -> None:
    """Queue the expiries that are due and too many for this command."""
    orders = state.take_expiries()
    work.cancel_all(state, orders, "gtd", order_status="expired")


@dataclass(slots=True)
class Later:
    """A deadline of an instrument, due while the instrument is busy."""

    entry: Deadline

    @property
    def symbols(self) -> tuple[str, ...]:
        """The instrument."""
        return (self.entry[2],)

    @property
    def accounts(self) -> tuple[str, ...]:
        """None."""
        return ()

    def step(self, state: State) -> bool:
        """Fire the deadline, unless it was outdated meanwhile."""
        if state.is_valid(self.entry):
            _, order_id, name = self.entry
            DUE[order_id](state, name)
        return True


def _switch(state: State, name: str) -> None:
    """Cancel the orders of an account: its dead man's switch."""
    account = state.accounts[name]
    account.cancel_after_ts = None
    work.cancel_all(state, account.open_orders.values(), "cancel_after")


def _reopen(state: State, symbol: str) -> None:
    """End a phase after its reopen_ms."""
    enter_phase(state, state.listings[symbol], "open", "time is up")


def _close(state: State, symbol: str) -> None:
    """Close an instrument after its close_ms."""
    enter_phase(state, state.listings[symbol], "closed", "trading time is up")


# What is due, by the number that stands for an order id in a `Deadline`. A
# switch cancels orders of several symbols, of which some may be busy.
DUE: dict[int, Callable[[State, str], None]] = {
    0: _switch,
    CLOSES: _close,
    TENDER_ENDS: end_tender,
    PHASE_ENDS: _reopen,
}


def cancel_after(state: State, command: Command, request: CancelAfter) -> None:
    """Set, postpone or switch off (0) the account's dead man's switch."""
    account = state.account(command.account)
    account.cancel_after_ts = None
    if request.timeout_ms:
        account.cancel_after_ts = state.ts + request.timeout_ms * 1_000
        state.add_deadline((account.cancel_after_ts, 0, account.name))
    reply_ok(state, account.name)


def step_clock(state: State, command: Command, action: ClockStep) -> None:
    """Postpone the deadlines that are durations by the clock's step."""
    for account in state.accounts.values():
        if account.cancel_after_ts is not None:
            account.cancel_after_ts += action.forward_us
            state.add_deadline((account.cancel_after_ts, 0, account.name))
    for symbol, listing in state.listings.items():
        if listing.reopen_ts is not None:
            listing.reopen_ts += action.forward_us
            state.add_deadline((listing.reopen_ts, PHASE_ENDS, symbol))
    postpone_closes(state, action.forward_us)
    postpone_tenders(state, action.forward_us)
