"""Orders with a tag: a name that no two open orders of an account share."""

from __future__ import annotations

from exchange.market.accounts import duplicate
from exchange.market.command import Command, TaggedPlace
from exchange.market.orders import place
from exchange.market.state import State


def place_tagged(state: State, command: Command, request: TaggedPlace) -> None:
    """Place an order and give it its tag.

    Refused ("duplicate_client_order_id") while another open order has it,
    before anything else is checked.
    """
    account = state.account(command.account)
    tags = account.tags
    other = account.orders.get(tags.newest.get(request.tag, 0))
    if other is not None and other.is_open:
        raise duplicate(
            other, "tag", f"{request.tag} is the tag of order {other.order_id}"
        )
    place(state, command, request)
    tags.add(request.tag, state.order_id, command.ts, account.orders)
