"""Run house bots: ``python -m util.bots``, until Ctrl-C or SIGTERM.

Exit status: 0 stopped by Ctrl-C or SIGTERM, 1 the exchange cannot be reached
or refuses the login, 2 the command line is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import secrets
import sys
from pathlib import Path

from client import ExchangeError
from orderbook import Refused

from ..cli import (
    above_0,
    add_url,
    count,
    failed,
    new_parser,
    on_stop,
    read_tokens,
    set_up_output,
    utf8,
)
from .fair_file import FairFile
from .house import run_house
from .plan import BadPlan, Plan
from .value import DEFAULT_MEAN

SEED_BITS = 128  # so that nobody finds the seed from the prices


def new_options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = new_parser(
        "bots",
        "Run house bots, so that there is a market to trade in.",
        "exit status: 0 stopped by Ctrl-C or SIGTERM, 1 no exchange or no"
        " login, 2 wrong usage",
    )
    add = parser.add_argument
    add(
        "--symbols",
        type=utf8,
        help="instruments to trade, as in BOND,ETF (default: all listed)",
    )
    add("--makers", type=count, default=1, metavar="N", help="market makers")
    add("--noise", type=count, default=3, metavar="N", help="noise traders")
    add(
        "--informed",
        type=count,
        default=1,
        metavar="N",
        help="informed traders",
    )
    add(
        "--arbitrageurs",
        type=count,
        default=0,
        metavar="N",
        help="arbitrageurs, where an instrument converts into others",
    )
    add(
        "--value",
        type=_value,
        action="append",
        metavar="[SYMBOL=]TICKS",
        help="mean of the fair value of one instrument, or, without SYMBOL,"
        " of all others; may be repeated (default: the reference price, or"
        f" {DEFAULT_MEAN} without one; the middle of the price bounds if that"
        " is outside them)",
    )
    add(
        "--fixed",
        type=utf8,
        metavar="SYMBOLS",
        help="instruments whose fair value stays at its mean, as in BOND,BILL",
    )
    add(
        "--fair",
        type=Path,
        metavar="FILE",
        help="file of the fair values over the trading time of a round",
    )
    add(
        "--trades-per-s",
        type=above_0,
        metavar="X",
        help="trades per second, of all instruments together, at which the"
        " noise traders aim (default: none; they act --speed times)",
    )
    add(
        "--seed",
        type=int,
        help="seed of all random choices (default: a new one, printed)",
    )
    add(
        "--speed",
        type=above_0,
        default=1.0,
        metavar="HZ",
        help="times per second that each bot acts on each instrument",
    )
    add_url(parser)
    add(
        "--tokens",
        type=Path,
        metavar="FILE",
        help="file of the bots' keys, a line for each: name, tab, token",
    )
    add(
        "--user-prefix",
        type=utf8,
        default="house-",
        metavar="PREFIX",
        help="first part of the bots' names; a second run on the same"
        " exchange needs another one",
    )
    return parser


def parse(arguments: list[str] | None = None) -> Plan:
    """Read the command line; exits with status 2 if it is wrong."""
    parser = new_options()
    given = vars(parser.parse_args(arguments))
    symbols = _symbols(given.pop("symbols"))
    given["fixed"] = _symbols(given["fixed"])
    path = given.pop("tokens")
    given["values"] = dict(given.pop("value") or [])
    if given["seed"] is None:
        given["seed"] = secrets.randbits(SEED_BITS)
    try:
        tokens = read_tokens(path) if path else {}
    except (OSError, ValueError) as error:
        parser.error(f"--tokens: {error}")
    if given["fair"]:
        if given["values"] or given["fixed"]:
            parser.error("--fair: the file has the values, no other option")
        given["fair"] = _fair(parser, given["fair"])
    plan = Plan(symbols=symbols, tokens=tokens, **given)
    if not plan.names():
        parser.error("no bots")
    if path and (missing := [n for _, n in plan.names() if n not in tokens]):
        parser.error(f"--tokens: {path} has no {missing[0]}")
    return plan


def _symbols(text: str | None) -> list[str]:
    return [*filter(None, (s.strip() for s in (text or "").split(",")))]


def _fair(parser: argparse.ArgumentParser, path: Path) -> FairFile:
    try:
        return FairFile.read(path)
    except (OSError, ValueError) as error:
        parser.error(f"--fair: {path}: {error}")


def _value(argument: str) -> tuple[str, int]:
    symbol, equals, ticks = utf8(argument).rpartition("=")
    if bool(symbol) != bool(equals) or not re.fullmatch("[+-]?[0-9]+", ticks):
        raise argparse.ArgumentTypeError(
            f"{argument!r} is neither TICKS nor SYMBOL=TICKS"
        )
    return symbol, int(ticks)


async def run(plan: Plan) -> None:
    """Run the bots until SIGINT or SIGTERM."""
    house = asyncio.create_task(run_house(plan))
    on_stop(house.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await house


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.bots``; return the exit status."""
    plan = parse(arguments)
    set_up_output()
    try:
        asyncio.run(run(plan))
    except (Refused, ExchangeError) as error:
        return failed("bots", error, 1)
    except BadPlan as error:
        return failed("bots", error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
