"""Trades that an administrator undoes.

Lots and cash go back at the price of the trade, and the fees with them. The
orders stay as they are. The market keeps which trades can be undone; the
gateway finds the parties of a trade in the history.
"""

from __future__ import annotations

from exchange.market import solvency
from exchange.market.accounts import HOUSE
from exchange.market.command import BustTrade
from exchange.market.listing import TRADES_BUSTABLE, Listing
from exchange.market.reports import reply_ok, report_bust, report_status
from exchange.market.state import State
from exchange.market.transfers import check_position, report_account
from orderbook import Admin, Refused


def bust(state: State, name: str, request: Admin | BustTrade) -> None:
    """Undo a trade of this round; an `Admin` has nothing that says how."""
    listing = state.listing(request.symbol)
    assert request.trade_id is not None
    _check_trade(listing, request.trade_id)
    if isinstance(request, Admin):
        raise _refused(f"the fills of trade {request.trade_id} are not kept")
    symbol, value = request.symbol, listing.value_of(request.price)
    sides = (
        (state.accounts[request.buyer], -request.qty, request.buy_fee),
        (state.accounts[request.seller], request.qty, request.sell_fee),
    )
    for account, bought, _ in sides:
        check_position(listing, account, bought)
    reply_ok(state, name)
    for account, bought, fee in sides:
        account.book_fill(symbol, bought, value, -fee)
        state.account(HOUSE).cash -= fee
        report_account(state, account)
    _forget_trade(listing, request)
    report_bust(state, listing, request.trade_id)
    message = f"bust trade {request.trade_id}: {request.reason}"
    report_status(state, message, symbol)
    for account, _, _ in sides:
        solvency.enforce(state, account)


def _check_trade(listing: Listing, trade_id: int) -> None:
    """Refuse a trade that cannot be undone."""
    if not 0 < trade_id <= listing.trade_id:
        raise _refused(f"there is no trade {trade_id}")
    if trade_id <= listing.round_trade_id:
        raise _refused(f"trade {trade_id} is of another round")
    if trade_id <= listing.trade_id - TRADES_BUSTABLE:
        raise _refused(
            f"trade {trade_id} is not among the last {TRADES_BUSTABLE:,}"
        )
    if listing.settlement_price is not None:
        raise _refused(f"trade {trade_id} is of an instrument that is settled")
    if trade_id in listing.busted:
        raise _refused(f"trade {trade_id} is busted already")


def _refused(reason: str) -> Refused:
    return Refused("bad_request", f"trade_id: {reason}", field="trade_id")


def _forget_trade(listing: Listing, request: BustTrade) -> None:
    """Let the trade count for nothing; `last` is the newest one left."""
    listing.busted[request.trade_id] = None
    if len(listing.busted) > TRADES_BUSTABLE:
        oldest = listing.trade_id - TRADES_BUSTABLE
        listing.busted = {i: None for i in listing.busted if i > oldest}
    listing.volume -= request.qty
    printed = (request.trade_id, request.price)
    if printed in listing.recent:  # a trade with oneself is not
        listing.recent.remove(printed)
        if listing.prints is not None:
            listing.prints.remove(*printed, request.qty)
        listing.last = listing.recent[-1][1] if listing.recent else None
