"""Administer an exchange: ``python -m util.admin ACTION ...``.

The exchange journals each action with its administrator and its reason, and
sends both to all clients. An action that is sent again after a lost
connection takes effect once. Exit status: 0 done, 1 refused, 2 not sent or
result unknown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from typing import Any, cast, get_args

from client import AdminArguments, Exchange, ExchangeError
from orderbook import (
    ADMIN_FIELDS,
    PHASES,
    AdminAction,
    PhaseName,
    Refused,
    Side,
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

# Actions that cannot be undone.
FINAL = ("settle", "reset", "close_out", "bust")
# Actions that are a `phase` for each instrument in one of some phases: these,
# and the new phase. So instruments that have ended stay as they are.
PAUSES: dict[str, tuple[tuple[PhaseName, ...], PhaseName]] = {
    "pause": (("open", "auction"), "halted"),
    "continue": (("halted",), "open"),
}
# Older names of actions, which the command line still accepts.
OLD_NAMES = {"kill": "suspend", "unkill": "resume"}

USER = {"account": {"type": utf8, "metavar": "USER"}}
NUMBER = {"type": int, "metavar": "N"}
SYMBOL = {"type": utf8, "metavar": "SYMBOL"}
PRICE = {"type": int, "metavar": "PRICE", "help": "price in ticks"}


def price_of(text: str) -> tuple[str, int]:
    """Read SYMBOL=PRICE."""
    symbol, is_given, price = utf8(text).partition("=")
    try:
        if is_given and symbol:
            return symbol, int(price)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(
        f"{text} is not like BOND=104, a symbol and its price in ticks"
    )


PRICES = {"type": price_of, "nargs": "+", "metavar": "SYMBOL=PRICE"}
# Each action with its description and its own arguments.
ACTIONS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "phase": (
        "set the phase of an instrument, or of all",
        {
            "symbol": {"type": utf8, "metavar": "SYMBOL|all"},
            "phase": {"choices": tuple(PHASES)},
            "--reopen": {
                "type": int,
                "metavar": "SECONDS",
                "help": "open again after that time, 1 to 86400 s",
            },
            "--close": {
                "type": int,
                "metavar": "SECONDS",
                "help": "with open: close after so much trading time, 1 to"
                " 86400 s",
            },
        },
    ),
    "pause": (
        "halt all instruments that trade; the time until they close by"
        " themselves stands still",
        {},
    ),
    "continue": ("open all halted instruments; their time goes on", {}),
    "suspend": ("cancel all orders of an account and refuse new ones", USER),
    "resume": ("let a suspended account trade again", USER),
    "cancel": (
        "cancel an order of any account",
        {"order_id": {"type": int, "metavar": "ORDER_ID"}},
    ),
    "adjust": (
        "add cash or lots to an account; a negative number subtracts",
        {
            **USER,
            "--cash": {**NUMBER, "help": "cash to add, in units of money"},
            "--symbol": {"type": utf8, "help": "instrument of --qty"},
            "--qty": {**NUMBER, "help": "lots to add to the position"},
        },
    ),
    "settle": (
        "turn all positions in instruments into cash, and close them",
        {
            "symbol": {
                **SYMBOL,
                "nargs": "?",
                "help": "one instrument; or give --prices",
            },
            "price": {
                **PRICE,
                "nargs": "?",
                "help": "its price in ticks; a derivative may go without",
            },
            "--prices": {
                **PRICES,
                "help": "several instruments at once, with their prices in"
                " ticks",
            },
        },
    ),
    "reset": (
        "start a new round: no orders, no positions, the initial cash",
        {},
    ),
    "message": (
        "send a message to all clients",
        {
            "message": {"type": utf8, "metavar": "TEXT"},
            "--symbol": {
                "type": utf8,
                "help": "instrument of the message",
            },
        },
    ),
    "news": (
        "publish news, which the exchange keeps",
        {
            "headline": {"type": utf8, "metavar": "TEXT"},
            "--symbol": {"type": utf8, "help": "instrument of the news"},
            "--body": {"type": utf8, "help": "more text, of several lines"},
            "--value": {**NUMBER, "help": "a number that the news tell"},
        },
    ),
    "dividend": (
        "pay every holder of an instrument; who is short pays",
        {
            "symbol": SYMBOL,
            "amount": {**NUMBER, "help": "units of money for each lot"},
        },
    ),
    "tender": (
        "offer lots at a price, which each account may accept once",
        {
            "tender_id": {"type": utf8, "metavar": "TENDER_ID"},
            "symbol": SYMBOL,
            "side": {
                "choices": get_args(Side),
                "help": "what an account that accepts does",
            },
            "qty": {**NUMBER, "help": "lots"},
            "price": PRICE,
            "--valid": {
                "type": int,
                "metavar": "SECONDS",
                "required": True,
                "help": "how long it may be accepted, 1 to 86400 s",
            },
            "--account": {
                "type": utf8,
                "metavar": "USER",
                "help": "offer it to this account only (default: to all)",
            },
        },
    ),
    "close_out": (
        "cancel the orders of an account, turn its positions into cash and"
        " suspend it until the next reset",
        {**USER, "prices": PRICES},
    ),
    "bust": (
        "undo a trade of this round",
        {
            "symbol": SYMBOL,
            "trade_id": {"type": int, "metavar": "TRADE_ID"},
        },
    ),
    "match": (
        "tell all clients which match is played from now on",
        {
            "name": {"type": utf8, "metavar": "TEXT"},
            "--round": {"type": utf8, "help": "name of the event's round"},
            "--teams": {
                "type": utf8,
                "nargs": "+",
                "metavar": "USER",
                "help": "accounts that take part",
            },
            "--fair-sha256": {
                "metavar": "HEX",
                "help": "digest of the file of hidden values",
            },
        },
    ),
    "reference": (
        "move the reference price of an instrument",
        {"symbol": SYMBOL, "price": PRICE},
    ),
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with status 2 if it is wrong."""
    parser = new_parser(
        "admin",
        "Administer an exchange.",
        "ACTION --help lists the arguments of an action. Exit status: 0 done,"
        " 1 refused, 2 not sent or result unknown",
    )
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    for name, (words, own) in ACTIONS.items():
        action = actions.add_parser(
            name,
            help=words,
            description=words,
            aliases=[old for old, new in OLD_NAMES.items() if new == name],
        )
        add = action.add_argument
        for argument, meaning in own.items():
            add(argument, **meaning)
        add(
            "--reason",
            type=utf8,
            metavar="TEXT",
            required=name not in ("message", "news"),
            default=name,
            help="the reason; it is journaled, and sent to all clients",
        )
        add_login(
            action,
            os.environ.get("EXCHANGE_USER"),
            "name of the administrator (default: $EXCHANGE_USER)",
        )
        add("--json", action="store_true", help="print JSON")
        if name in FINAL:
            add("--yes", action="store_true", help="do not ask first")
    options = parser.parse_args(arguments)
    if not options.user:
        parser.error("--user or EXCHANGE_USER must name the administrator")
    options.action = OLD_NAMES.get(options.action, options.action)
    if options.action == "settle":
        if (options.symbol is None) == (options.prices is None):
            parser.error("settle: give either SYMBOL or --prices")
    return options


def arguments_of(options: argparse.Namespace) -> AdminArguments:
    """Return the arguments of the action, as the exchange names them."""
    given = dict(vars(options))
    given["user"] = given.get("account")
    for name in ("reopen", "close", "valid"):
        if given.get(name) is not None:
            given[f"{name}_ms"] = given[name] * 1_000
    if given.get("prices") is not None:
        given["prices"] = dict(given["prices"])
    if options.action == "phase" and options.symbol == "all":
        del given["symbol"]
    wanted = {n: given[n] for n in ADMIN_FIELDS if given.get(n) is not None}
    return cast(AdminArguments, wanted)


def is_meant(options: argparse.Namespace) -> bool:
    """Return whether to go on; ask first about what cannot be undone."""
    if options.action not in FINAL or options.yes:
        return True
    words, _ = ACTIONS[options.action]
    if sys.stdin.isatty():
        print(f"{words}.\nType yes to confirm: ", end="", file=sys.stderr)
        sys.stderr.flush()
        if sys.stdin.readline().strip() == "yes":
            return True
        print("admin: nothing was sent", file=sys.stderr)
    else:
        print(f"admin: {options.action} needs --yes", file=sys.stderr)
    return False


async def send(options: argparse.Namespace) -> None:
    """Send the action; raises Refused, ExchangeError, ValueError."""
    async with Exchange(
        options.url,
        options.user,
        options.token,
        cancel_on_disconnect=False,
        connect_timeout=CONNECT_TIMEOUT_S,
    ) as exchange:
        if options.action in PAUSES:
            phases, phase = PAUSES[options.action]
            for symbol, instrument in exchange.instruments.items():
                if instrument.phase in phases:
                    await exchange.admin(
                        "phase", options.reason, symbol=symbol, phase=phase
                    )
            return
        await exchange.admin(
            cast(AdminAction, options.action),
            options.reason,
            **arguments_of(options),
        )


def summary(options: argparse.Namespace) -> str:
    """Return what was done, as a line."""
    arguments = arguments_of(options)
    if options.json:
        done = {"action": options.action, "reason": options.reason}
        return json.dumps(done | arguments)
    words = [f"{name}={_shown(value)}" for name, value in arguments.items()]
    return f"done: {' '.join([options.action, *words])}"


def _shown(value: object) -> object:
    if isinstance(value, dict):
        return ",".join(f"{name}={price}" for name, price in value.items())
    if isinstance(value, list):
        return ",".join(value)
    return value


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.admin``; return the exit status."""
    options = parse(arguments)
    set_up_output(is_data=options.json)
    if not is_meant(options):
        return 2
    try:
        asyncio.run(send(options))
    except Refused as refusal:
        return refused(refusal, options.json)
    except (ExchangeError, ValueError) as error:
        return failed("admin", error)
    print_result(summary(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
