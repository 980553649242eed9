"""Do what an administrator may do: ``python -m util.admin ACTION ...``.

The exchange records each action, with who and why, and tells everybody.
Exit status: 0 it was done, 1 it was refused, 2 it was not sent or nobody
knows whether it was done.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from typing import Any, cast, get_args

from client import AdminArguments, Exchange, ExchangeError
from orderbook import ADMIN_FIELDS, AdminAction, Phase, Refused

from .cli import (
    CONNECT_TIMEOUT_S,
    add_login,
    failed,
    program,
    refused,
    say,
    set_up_output,
    utf8,
)

# What cannot be undone.
FINAL = ("settle", "reset")

USER = {"account": {"type": utf8, "metavar": "USER"}}
NUMBER = {"type": int, "metavar": "N"}
# Of each action: what it does, and the arguments that only it has.
ACTIONS: dict[AdminAction, tuple[str, dict[str, dict[str, Any]]]] = {
    "phase": (
        "let an instrument, or all of them, enter a phase",
        {
            "symbol": {"type": utf8, "metavar": "SYMBOL|all"},
            "phase": {"choices": get_args(get_args(Phase)[0])},
            "--reopen": {
                "type": int,
                "metavar": "SECONDS",
                "help": "open by itself after that time, 1 to 86400",
            },
        },
    ),
    "kill": ("cancel all orders of an account and take no more", USER),
    "unkill": ("let an account trade again", USER),
    "cancel": (
        "cancel an order, whosever it is",
        {"order_id": {"type": int, "metavar": "ORDER_ID"}},
    ),
    "adjust": (
        "give an account cash or lots; below 0: take them",
        {
            **USER,
            "--cash": {**NUMBER, "help": "in ticks x lots"},
            "--symbol": {"type": utf8, "help": "of --qty"},
            "--qty": {**NUMBER, "help": "in lots"},
        },
    ),
    "settle": (
        "turn all positions in an instrument into cash, and close it",
        {
            "symbol": {"type": utf8, "metavar": "SYMBOL"},
            "price": {"type": int, "metavar": "PRICE", "help": "in ticks"},
        },
    ),
    "reset": (
        "begin a new round: no orders, no positions, the cash of the start",
        {},
    ),
    "message": (
        "tell everybody something",
        {
            "message": {"type": utf8, "metavar": "TEXT"},
            "--symbol": {
                "type": utf8,
                "help": "the instrument it is about",
            },
        },
    ),
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with status 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog=program("admin"),
        description="Do what an administrator may do.",
        epilog="exit status: 0 done, 1 refused, 2 not sent or unknown."
        " ACTION --help lists the arguments of an action",
    )
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    for name, (words, own) in ACTIONS.items():
        action = actions.add_parser(name, help=words, description=words)
        add = action.add_argument
        for argument, meaning in own.items():
            add(argument, **meaning)
        add(
            "--reason",
            type=utf8,
            metavar="TEXT",
            required=name != "message",
            default="message",
            help="why: it is recorded, and everybody is told",
        )
        add_login(
            action,
            os.environ.get("EXCHANGE_USER"),
            "the administrator (default: $EXCHANGE_USER)",
        )
        add("--json", action="store_true", help="print JSON")
        if name in FINAL:
            add("--yes", action="store_true", help="do not ask first")
    options = parser.parse_args(arguments)
    if not options.user:
        parser.error("--user: who are you? EXCHANGE_USER is not set either")
    return options


def arguments_of(options: argparse.Namespace) -> AdminArguments:
    """Return the arguments of the action, as the exchange names them."""
    given = dict(vars(options))
    given["user"] = given.get("account")
    if given.get("reopen") is not None:
        given["reopen_ms"] = given["reopen"] * 1_000
    if options.action == "phase" and options.symbol == "all":
        del given["symbol"]
    wanted = {n: given[n] for n in ADMIN_FIELDS if given.get(n) is not None}
    return cast(AdminArguments, wanted)


def is_meant(options: argparse.Namespace) -> bool:
    """Ask whoever sits at the terminal about what cannot be undone."""
    if options.action not in FINAL or options.yes:
        return True
    words, _ = ACTIONS[options.action]
    if sys.stdin.isatty():
        print(f"{words}.\nType yes if you mean it: ", end="", file=sys.stderr)
        sys.stderr.flush()
        if sys.stdin.readline().strip() == "yes":
            return True
        print("admin: nothing was sent", file=sys.stderr)
    else:
        print(f"admin: {options.action} needs --yes", file=sys.stderr)
    return False


async def send(options: argparse.Namespace) -> None:
    """Have it done; raises Refused, ExchangeError, ValueError."""
    async with Exchange(
        options.url,
        options.user,
        options.token,
        cancel_on_disconnect=False,
        connect_timeout=CONNECT_TIMEOUT_S,
    ) as exchange:
        await exchange.admin(
            options.action, options.reason, **arguments_of(options)
        )


def tell(options: argparse.Namespace) -> str:
    """Say what was done, in a line."""
    arguments = arguments_of(options)
    if options.json:
        done = {"action": options.action, "reason": options.reason}
        return json.dumps(done | arguments)
    words = [f"{name}={value}" for name, value in arguments.items()]
    return f"done: {' '.join([options.action, *words])}"


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
    say(tell(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
