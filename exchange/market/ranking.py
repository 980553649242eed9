"""Which accounts are ranked, and the leaderboard that follows.

It depends on commands only: the role of an account is that of its last login,
which the journal has, so a replay ranks as the exchange did.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from exchange.market.accounts import HOUSE, Account
from exchange.market.state import State
from orderbook import MAX_ROWS


def leaderboard(state: State) -> list[dict[str, Any]]:
    """Return the leaderboard: the best MAX_ROWS rows of `rank`.

    Ranked are traders who have had a position in this round (a closed one
    stays in ``positions``, as 0, until `reset`), and the teams of the match.
    """
    due = dict.fromkeys(state.match.teams if state.match else ())
    ranked = [
        account
        for account in state.accounts.values()
        if _may_rank(account) and (account.positions or account.name in due)
    ]
    for name in due:  # those that have never logged in
        if name not in state.accounts:
            limits = state.limits(name)
            ranked.append(Account(name, limits.cash, limits))
    return rank(state, ranked)[:MAX_ROWS]


def rank(state: State, accounts: Iterable[Account]) -> list[dict[str, Any]]:
    """Rank accounts by equity, the best first; equal ones share a rank.

    Returns a row for each: rank, user, equity, cash, positions.
    """
    standings = sorted(
        ((account.equity(state.value), account) for account in accounts),
        key=lambda standing: (-standing[0], standing[1].name),
    )
    rows: list[dict[str, Any]] = []
    for place, (equity, account) in enumerate(standings, start=1):
        is_tied = rows and rows[-1]["equity"] == equity
        rows.append(
            {
                "rank": rows[-1]["rank"] if is_tied else place,
                "user": account.name,
                "equity": equity,
                "cash": account.cash,
                "positions": dict(account.positions),
            }
        )
    return rows


def _may_rank(account: Account) -> bool:
    return account.role == "trader" and account.name != HOUSE
