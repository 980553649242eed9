"""What happens by itself at a time: gtd orders, cancel_after, phases."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from exchange.market import work
from exchange.market.closing import postpone_closes
from exchange.market.command import ClockStep, Command, TimePassed
from exchange.market.executions import cancel_order
from exchange.market.expiry import postpone_expiries
from exchange.market.phases import enter_phase
from exchange.market.reports import reply_ok
from exchange.market.settlement import expire
from exchange.market.state import (
    CLOSES,
    EXPIRES,
    ORDERS_EXPIRE,
    PHASE_ENDS,
    SWITCH,
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
    """Fire the deadlines that are due, by time and then by what it is.

    If none is due, continue the long work by one slice.
    """
    due = state.first_deadline
    if due is None or due > state.ts:
        work.go_on(state)
    elif state.rules < 3:
        _fire_all(state)
    else:
        while due is not None and due <= state.ts and work.room(state) > 0:
            if state.deadlines[0][1] == ORDERS_EXPIRE:
                work.expire_all(state, state.take_expiries())
            else:
                work.spend(state, 1)
                _fire(state, state.take_deadline())
            due = state.first_deadline


def _fire_all(state: State) -> None:
    """Fire what is due, as version 2 of the rules does."""
    remaining = DEADLINES_PER_COMMAND
    while remaining:
        due = state.first_deadline
        if due is None or due > state.ts:
            return
        _, kind, name = state.deadlines[0]
        if kind == ORDERS_EXPIRE:
            expiring = state.expiring[due].values()
            orders = [*islice(expiring, remaining)]
            for order in orders:
                cancel_order(state, order, "gtd", "expired")
            remaining -= len(orders)
        else:
            heapq.heappop(state.deadlines)
            DUE[kind](state, name)
            remaining -= 1


def _fire(state: State, entry: Deadline) -> None:
    """Do what is due, or queue it if it needs what is busy.

    A switch cancels orders of several symbols, of which some may be busy.
    The end of a tender needs nothing. A settlement may need any instrument.
    """
    _, kind, name = entry
    if state.work and (
        kind == EXPIRES
        or kind in (CLOSES, PHASE_ENDS)
        and work.is_needed(state, name)
    ):
        work.enqueue(state, Later(entry))
    else:
        DUE[kind](state, name)


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
            _, kind, name = self.entry
            DUE[kind](state, name)
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


# What each kind of deadline does, save for ORDERS_EXPIRE.
DUE: dict[int, Callable[[State, str], None]] = {
    SWITCH: _switch,
    CLOSES: _close,
    EXPIRES: expire,
    TENDER_ENDS: end_tender,
    PHASE_ENDS: _reopen,
}


def cancel_after(state: State, command: Command, request: CancelAfter) -> None:
    """Set, postpone or switch off (0) the account's dead man's switch."""
    account = state.account(command.account)
    account.cancel_after_ts = None
    if request.timeout_ms:
        account.cancel_after_ts = state.ts + request.timeout_ms * 1_000
        state.add_deadline((account.cancel_after_ts, SWITCH, account.name))
    reply_ok(state, account.name)


def step_clock(state: State, command: Command, action: ClockStep) -> None:
    """Postpone the deadlines that are durations by the clock's step."""
    for account in state.accounts.values():
        if account.cancel_after_ts is not None:
            account.cancel_after_ts += action.forward_us
            state.add_deadline((account.cancel_after_ts, SWITCH, account.name))
    for symbol, listing in state.listings.items():
        if listing.reopen_ts is not None:
            listing.reopen_ts += action.forward_us
            state.add_deadline((listing.reopen_ts, PHASE_ENDS, symbol))
    postpone_closes(state, action.forward_us)
    postpone_expiries(state, action.forward_us)
    postpone_tenders(state, action.forward_us)
