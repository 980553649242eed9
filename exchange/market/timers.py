"""What happens by itself at a time: gtd orders, cancel_after, phases."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from exchange.market.closing import postpone_closes
from exchange.market.command import ClockStep, Command, TimePassed
from exchange.market.executions import cancel_each, cancel_order
from exchange.market.phases import enter_phase
from exchange.market.reports import reply_ok
from exchange.market.state import CLOSES, PHASE_ENDS, TENDER_ENDS, State
from exchange.market.tenders import end_tender, postpone_tenders
from exchange.market.triggers import elect
from orderbook import CancelAfter

# Deadlines that one command fires; the next one fires the rest. It bounds
# the time of a command. A cancel_after counts as one, like a cancel_all.
DEADLINES_PER_COMMAND = 1_000


def _reopen(state: State, symbol: str) -> None:
    enter_phase(state, state.listings[symbol], "open", "time is up")


def _close(state: State, symbol: str) -> None:
    enter_phase(state, state.listings[symbol], "closed", "trading time is up")


# What happens at a deadline that is not an order's or an account's: it gets
# the name in the entry.
DUE: dict[int, Callable[[State, str], None]] = {
    CLOSES: _close,
    TENDER_ENDS: end_tender,
    PHASE_ENDS: _reopen,
}


def pass_time(state: State, command: Command, action: TimePassed) -> None:
    """Fire the deadlines that are due, by time and then by order id.

    Stop orders that the last command elected and did not trigger go first.
    """
    if state.elected:
        elect(state)
        return
    for _ in range(DEADLINES_PER_COMMAND):
        due = state.next_deadline
        if due is None or due > state.ts:
            return
        _, order_id, name = heapq.heappop(state.deadlines)
        if order_id in DUE:
            DUE[order_id](state, name)
        elif order_id:
            cancel_order(state, state.open_gtd[order_id], "gtd", "expired")
        else:
            account = state.accounts[name]
            account.cancel_after_ts = None
            orders = account.open_orders.values()
            cancel_each(state, orders, "cancel_after")


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
