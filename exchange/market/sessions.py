"""Sessions of accounts: what starts, resumes and ends them."""

from __future__ import annotations

from exchange.market import work
from exchange.market.closing import postpone_closes
from exchange.market.command import (
    Command,
    Connect,
    Disconnect,
    Restart,
    Shutdown,
)
from exchange.market.state import State


def connect(state: State, command: Command, action: Connect) -> None:
    """Start or resume a session."""
    account = state.account(command.account)
    role = action.role or ("admin" if action.is_admin else "trader")
    account.role = role
    account.connect(command.session, action.cancel_on_disconnect)


def disconnect(state: State, command: Command, action: Disconnect) -> None:
    """End a session's connection and cancel the orders that end with it."""
    account = state.account(command.account)
    orders = account.disconnect(command.session)
    work.cancel_all(state, orders, "disconnect")


def disconnect_all(
    state: State, command: Command, action: Shutdown | Restart
) -> None:
    """End every connection and cancel the orders that end with them."""
    orders = [
        order
        for account in state.accounts.values()
        for session in account.sessions
        for order in account.disconnect(session)
    ]
    work.cancel_all(state, orders, "disconnect")


def restart(state: State, command: Command, action: Restart) -> None:
    """End the connections of the old process; give its outage back.

    Instruments that close by themselves close later by the time in which
    nobody could trade.
    """
    postpone_closes(state, state.ts - state.previous_ts)
    disconnect_all(state, command, action)
