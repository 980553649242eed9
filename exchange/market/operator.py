"""What an administrator does: which action is carried out where.

Each action first checks whether it is possible, then replies, then acts and
publishes a status with the administrator's reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from exchange.market.busts import bust
from exchange.market.close_out import close_out
from exchange.market.command import BustTrade, Command
from exchange.market.dividends import pay_dividend
from exchange.market.interventions import (
    cancel,
    move_reference,
    resume,
    set_phase,
    suspend,
)
from exchange.market.news import publish_message, publish_news, set_match
from exchange.market.rounds import reset
from exchange.market.settlement import settle
from exchange.market.state import State
from exchange.market.tenders import offer_tender
from exchange.market.transfers import adjust
from orderbook import Admin, AdminAction, Refused

ACTIONS: dict[AdminAction, Callable[[State, str, Any], None]] = {
    "phase": set_phase,
    "suspend": suspend,
    "resume": resume,
    "kill": suspend,
    "unkill": resume,
    "cancel": cancel,
    "adjust": adjust,
    "settle": settle,
    "reset": reset,
    "message": publish_message,
    "news": publish_news,
    "tender": offer_tender,
    "bust": bust,
    "reference": move_reference,
    "dividend": pay_dividend,
    "close_out": close_out,
    "match": set_match,
}


def administer(
    state: State, command: Command, admin: Admin | BustTrade
) -> None:
    """Carry out an administrator's request, once; raises Refused."""
    name, request_id = command.account, admin.client_request_id
    if request_id is not None:
        _check_repeated(state, name, admin, request_id)
    action = "bust" if isinstance(admin, BustTrade) else admin.action
    ACTIONS[action](state, name, admin)
    if request_id is not None:
        state.account(name).remember_request(request_id)


def _check_repeated(
    state: State, name: str, admin: Admin | BustTrade, request_id: str
) -> None:
    """Refuse a request that has taken effect, even if it could not now."""
    account = state.accounts.get(name)
    if account is None or request_id not in account.admin_requests:
        return
    if admin.symbol is not None:
        state.listing(admin.symbol)
    raise Refused(
        "duplicate_client_request_id",
        f"{request_id} was used for a request that took effect",
        field="client_request_id",
    )
