"""Limits after money, positions or limits have changed from outside."""

from __future__ import annotations

from exchange.market.accounts import Account
from exchange.market.state import State


def enforce(state: State, account: Account) -> None:
    """Cancel open orders until the account is within its limits."""
