"""Open orders whose margin is no longer there are canceled.

Orders are accepted only if their fills keep the account within its limits. A
settlement, an adjustment or a new configuration can take that away. Such
orders are canceled at once, with the reason "funds", so that no later fill
takes the account over a limit.
"""

from __future__ import annotations

from exchange.market.accounts import HOUSE, Account
from exchange.market.executions import cancel_order
from exchange.market.state import State
from orderbook import Order, Refused


def enforce(state: State, account: Account) -> None:
    """Cancel open orders until the account is within its limits.

    The newest are canceled first, and only those that count against a limit
    that is exceeded. The number of open orders is no such limit. Before
    version 3 of the rules nothing is canceled.
    """
    if state.rules < 3 or account.name == HOUSE:
        return
    for order in reversed(list(account.open_orders.values())):
        if _lacks_cash(account, order) or _lacks_room(state, account, order):
            cancel_order(state, order, "funds")


def _lacks_cash(account: Account, order: Order) -> bool:
    """Whether an order needs cash, and the account has too little."""
    if account.free_cash() >= 0:
        return False
    fees = order.fees.margin if order.fees is not None else 0
    return order.leaves_qty * order.unit_cost + fees > 0


def _lacks_room(state: State, account: Account, order: Order) -> bool:
    """Whether the orders of this side could exceed the position limit."""
    listing = state.listings[order.symbol]
    try:
        account.check_position(
            listing.instrument, order.side, 0, listing.position_max
        )
    except Refused:
        return True
    return False
