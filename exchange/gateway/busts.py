"""What an administrator's `bust` undoes: the fills of the trade."""

from __future__ import annotations

from exchange.journal.history import History
from exchange.market.command import BustTrade
from orderbook import Admin


def busting(history: History, request: Admin) -> Admin | BustTrade:
    """Return the command that undoes a trade, with its two fills.

    If they are not found it is the request itself, which the market refuses:
    only the market knows for which of its reasons.
    """
    symbol, trade_id = request.symbol, request.trade_id
    assert symbol is not None and trade_id is not None
    fills = history.parties(symbol, trade_id)
    if len(fills) < 2:
        return request
    if fills[0][1].side == "sell":
        fills.reverse()
    (buyer, bought), (seller, sold) = fills
    price, qty = bought.last_price, bought.last_qty
    assert price is not None and qty is not None
    return BustTrade(
        reason=request.reason,
        client_request_id=request.client_request_id,
        symbol=symbol,
        trade_id=trade_id,
        price=price,
        qty=qty,
        buyer=buyer,
        buy_order_id=bought.order_id,
        buy_fee=bought.fee or 0,
        seller=seller,
        sell_order_id=sold.order_id,
        sell_fee=sold.fee or 0,
    )
