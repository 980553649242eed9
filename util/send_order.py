"""Send one order and print its result: ``python -m util.send_order``.

Exit status: 0 accepted, 1 refused, 2 not sent or result unknown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from typing import Any, cast, get_args

from client import Exchange, ExchangeError, Order, OrderOptions
from orderbook import OrderType, Refused, Side, Stp, TimeInForce

from .cli import (
    CONNECT_TIMEOUT_S,
    add_login,
    failed,
    new_parser,
    print_result,
    refused,
    set_up_output,
    utf8,
)

DEFAULT_USER = "tester"
DEFAULT_PRICE = 100


def new_options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = new_parser(
        "send_order",
        "Send one order and print its result.",
        "exit status: 0 accepted, 1 refused, 2 not sent or result unknown",
    )
    add = parser.add_argument
    add("--side", choices=get_args(Side), default="buy", help="buy or sell")
    add("--qty", type=int, default=1, help="quantity in lots")
    add(
        "--price",
        type=int,
        help=f"limit in ticks (default: {DEFAULT_PRICE}, or none for a market"
        " order)",
    )
    add(
        "--symbol",
        type=utf8,
        help="instrument (default: the first one listed)",
    )
    add(
        "--type",
        choices=get_args(OrderType),
        default="limit",
        help="type of order",
    )
    add(
        "--tif",
        choices=get_args(TimeInForce),
        help="time in force (default: gtc, or ioc for a market order)",
    )
    add(
        "--expire-ts",
        type=int,
        help="when a gtd order expires, in microseconds since 1970 (UTC)",
    )
    add(
        "--post-only",
        action="store_true",
        help="refuse the order if it would trade at once",
    )
    add(
        "--stp",
        choices=get_args(Stp),
        help="self-trade prevention (default: cancel_oldest)",
    )
    add(
        "--client-order-id",
        type=utf8,
        help="your own name for the order (default: a random one)",
    )
    add_login(
        parser,
        os.environ.get("EXCHANGE_USER") or DEFAULT_USER,
        f"account that places it (default: $EXCHANGE_USER, or {DEFAULT_USER})",
    )
    add(
        "--cancel-on-disconnect",
        action="store_true",
        help="cancel the order when the tool ends",
    )
    add("--json", action="store_true", help="print JSON")
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with status 2 if it is wrong."""
    parser = new_options()
    options = parser.parse_args(arguments)
    if options.type == "market" and options.price is not None:
        parser.error("--price: a market order has no price")
    return options


async def send(options: argparse.Namespace) -> Order:
    """Place the order; raises Refused or ExchangeError."""
    price = options.price
    if options.type == "limit" and price is None:
        price = DEFAULT_PRICE
    given = {
        "time_in_force": options.tif,
        "expire_ts": options.expire_ts,
        "post_only": options.post_only,
        "stp": options.stp,
        "client_order_id": options.client_order_id,
    }
    async with Exchange(
        options.url,
        options.user,
        options.token,
        cancel_on_disconnect=options.cancel_on_disconnect,
        connect_timeout=CONNECT_TIMEOUT_S,
    ) as exchange:
        symbol = options.symbol or next(iter(exchange.instruments))
        market = await exchange.market(symbol)
        place = market.buy if options.side == "buy" else market.sell
        wanted = {name: value for name, value in given.items() if value}
        return await place(options.qty, price, **cast(OrderOptions, wanted))


def describe(order: Order) -> dict[str, Any]:
    """Return an order and its fills as plain values."""
    return {
        "order_id": order.order_id,
        "client_order_id": order.client_order_id,
        "symbol": order.symbol,
        "side": order.side,
        "price": order.price,
        "qty": order.qty,
        "order_status": order.order_status,
        "cum_qty": order.cum_qty,
        "leaves_qty": order.leaves_qty,
        "reason": order.reason,
        "fills": [
            {
                "trade_id": fill.trade_id,
                "price": fill.last_price,
                "qty": fill.last_qty,
                "liquidity": fill.liquidity,
            }
            for fill in order.fills
        ],
    }


def as_text(order: Order) -> str:
    """Return the result of an order as lines of text."""
    price = "at market" if order.price is None else f"at {order.price}"
    lines = [
        f"order {order.order_id}: {order.side} {order.qty} {order.symbol}"
        f" {price} is {order.order_status}"
    ]
    for fill in order.fills:
        lines.append(
            f"  traded {fill.last_qty} at {fill.last_price}"
            f" (trade {fill.trade_id}, {fill.liquidity})"
        )
    if order.leaves_qty:
        lines.append(f"  {order.leaves_qty} in the book")
    elif order.reason:
        lines.append(f"  the rest ended: {order.reason}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.send_order``; return the exit status."""
    options = parse(arguments)
    set_up_output(is_data=options.json)
    try:
        order = asyncio.run(send(options))
    except Refused as refusal:
        return refused(refusal, options.json)
    except ExchangeError as error:
        return failed("send_order", error)
    print_result(
        json.dumps(describe(order)) if options.json else as_text(order)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
