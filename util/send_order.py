"""Send one order and print its result: ``python -m util.send_order``.

Exit status: 0 accepted, 1 refused, 2 not sent or result unknown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast, get_args

from client import (
    Exchange,
    ExchangeError,
    Order,
    OrderOptions,
    Price,
    money_of,
)
from orderbook import (
    Exec,
    Instrument,
    OrderType,
    Refused,
    Side,
    Stp,
    TimeInForce,
)

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


def number(text: str) -> str:
    """Read a price; whether it is ticks or money depends on the market."""
    if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text):
        return text
    raise argparse.ArgumentTypeError(f"{text} is not a number like 100.05")


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
        type=number,
        help="limit in ticks; in money, as in 100.05, if the market has a"
        f" currency or the number has a point (default: {DEFAULT_PRICE} ticks,"
        " or none for a market or stop order)",
    )
    add(
        "--trigger",
        type=number,
        metavar="PRICE",
        help="make it a stop order, which waits for a trade at this price or"
        " beyond; with --price a stop-limit order",
    )
    add(
        "--display",
        type=int,
        metavar="QTY",
        help="lots of it that the book shows (default: all)",
    )
    add(
        "--symbol",
        type=utf8,
        help="instrument (default: the first one listed)",
    )
    add(
        "--type",
        choices=get_args(OrderType),
        help="type of order (default: limit; stop or stop_limit with"
        " --trigger)",
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
    has_price = options.price is not None
    if options.type is None:
        options.type = "limit"
        if options.trigger is not None:
            options.type = "stop_limit" if has_price else "stop"
    if options.type in ("market", "stop") and has_price:
        parser.error(f"--price: a {options.type} order has no price")
    if options.type == "stop_limit" and not has_price:
        parser.error("--price: a stop_limit order needs a price")
    is_stop = options.type in ("stop", "stop_limit")
    if is_stop and options.trigger is None:
        parser.error(f"--trigger: a {options.type} order needs a trigger")
    if not is_stop and options.trigger is not None:
        parser.error(f"--trigger: a {options.type} order has no trigger")
    return options


@dataclass(frozen=True, slots=True)
class Placed:
    """A placed order; ``currency`` None: prices are shown in ticks."""

    order: Order
    instrument: Instrument
    currency: str | None

    def shown(self, price: int | None) -> str:
        """Return a price for people to read."""
        if price is None:
            return "market"
        if self.currency is None:
            return str(price)
        return f"{money_of(price, self.instrument):f} {self.currency}"

    def money(self, price: int | None) -> str | None:
        """Return the money of a price as a decimal number."""
        if price is None:
            return None
        return f"{money_of(price, self.instrument):f}"


def price_of(text: str | None, currency: str | None) -> Price | None:
    """Return a price of the command line: ticks, or money as a Decimal."""
    if text is None:
        return None
    is_money = currency is not None or "." in text
    return Decimal(text) if is_money else int(text)


async def send(options: argparse.Namespace) -> Placed:
    """Place the order; raises Refused or ExchangeError."""
    given: dict[str, Any] = {
        "time_in_force": options.tif,
        "expire_ts": options.expire_ts,
        "display_qty": options.display,
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
        price = price_of(options.price, exchange.currency)
        if options.type == "limit" and price is None:
            price = DEFAULT_PRICE
        wanted = {name: value for name, value in given.items() if value}
        trigger = price_of(options.trigger, exchange.currency)
        if trigger is not None:
            wanted["trigger_price"] = trigger
        options_ = cast(OrderOptions, wanted)
        order = await place(options.qty, price, **options_)
        return Placed(order, market.instrument, exchange.currency)


def describe(placed: Placed) -> dict[str, Any]:
    """Return an order and its fills as plain values."""
    order = placed.order
    return {
        "order_id": order.order_id,
        "client_order_id": order.client_order_id,
        "symbol": order.symbol,
        "side": order.side,
        "order_type": order.order_type,
        "price": order.price,
        "price_money": placed.money(order.price),
        "trigger_price": order.trigger_price,
        "display_qty": order.display_qty,
        "qty": order.qty,
        "order_status": order.order_status,
        "cum_qty": order.cum_qty,
        "leaves_qty": order.leaves_qty,
        "reason": order.reason,
        "fills": [
            {
                "trade_id": fill.trade_id,
                "price": fill.last_price,
                "price_money": placed.money(fill.last_price),
                "qty": fill.last_qty,
                "liquidity": fill.liquidity,
            }
            for fill in order.fills
        ],
    }


def as_text(placed: Placed) -> str:
    """Return the result of an order as lines of text."""
    order = placed.order
    price = f"at {placed.shown(order.price)}"
    if order.trigger_price is not None:
        price += f", stop {placed.shown(order.trigger_price)},"
    lines = [
        f"order {order.order_id}: {order.side} {order.qty} {order.symbol}"
        f" {price} is {order.order_status}"
    ]
    lines += [f"  {_traded(placed, fill)}" for fill in order.fills]
    if order.is_waiting:
        lines.append(f"  {order.leaves_qty} wait for the trigger")
    elif order.leaves_qty:
        lines.append(f"  {order.leaves_qty} in the book")
    elif order.reason:
        lines.append(f"  the rest ended: {order.reason}")
    return "\n".join(lines)


def _traded(placed: Placed, fill: Exec) -> str:
    return (
        f"traded {fill.last_qty} at {placed.shown(fill.last_price)}"
        f" (trade {fill.trade_id}, {fill.liquidity})"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.send_order``; return the exit status."""
    options = parse(arguments)
    set_up_output(is_data=options.json)
    try:
        placed = asyncio.run(send(options))
    except Refused as refusal:
        return refused(refusal, options.json)
    except ExchangeError as error:
        return failed("send_order", error)
    print_result(
        json.dumps(describe(placed)) if options.json else as_text(placed)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
