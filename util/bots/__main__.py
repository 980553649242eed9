"""Run house bots: ``python -m util.bots``, until Ctrl-C or SIGTERM.

Exit status: 0 stopped when asked to, 1 the exchange cannot be reached or
does not want the bots, 2 for a command line that makes no sense.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import re
import secrets
import sys
from pathlib import Path

from client import ExchangeError
from exchange.files import text_of
from orderbook import Refused

from ..cli import add_url, failed, on_stop, program, set_up_output, utf8
from .house import BadPlan, Plan, run_house
from .value import DEFAULT_MEAN

SEED_BITS = 128  # nobody can try all seeds until one gives the prices seen


def parse(arguments: list[str] | None = None) -> Plan:
    """Read the command line; exits with status 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog=program("bots"),
        description="Run house bots, so that whoever comes finds a market.",
        epilog="exit status: 0 stopped when asked to, 1 no exchange or not"
        " let in, 2 usage",
    )
    add = parser.add_argument
    add(
        "--symbols",
        type=utf8,
        default="",
        help="as in BOND,ETF (default: all listed)",
    )
    for kind, many, what in (
        ("--makers", 1, "market makers"),
        ("--noise", 3, "noise traders"),
        ("--informed", 1, "informed traders"),
    ):
        add(
            kind,
            type=_count,
            default=many,
            metavar="N",
            help=f"how many {what} (default: %(default)s)",
        )
    add(
        "--value",
        type=_value,
        action="append",
        default=[],
        metavar="[SYMBOL=]TICKS",
        help="what an instrument is worth in the long run; can be given"
        " again for another one, and without SYMBOL is of all others"
        " (default: their reference price, or else"
        f" {DEFAULT_MEAN}; if the bounds of an instrument do not allow that,"
        " the middle of them)",
    )
    add(
        "--seed",
        type=int,
        help="of all chance; the same one gives the same values again"
        " (default: drawn, and printed)",
    )
    add(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="HZ",
        help="how often a second each bot acts on each instrument"
        " (default: %(default)s)",
    )
    add_url(parser)
    add(
        "--tokens",
        type=Path,
        metavar="FILE",
        help="keys of the bots: lines of name, tab, token",
    )
    add(
        "--user-prefix",
        type=utf8,
        default="house-",
        metavar="PREFIX",
        help="what their names begin with; a second run beside the first"
        " needs another (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    given = vars(options)
    symbols = [s.strip() for s in given.pop("symbols").split(",")]
    path = given.pop("tokens")
    given["values"] = dict(given.pop("value"))
    if given["seed"] is None:
        given["seed"] = secrets.randbits(SEED_BITS)
    try:
        tokens = read_tokens(path) if path else {}
    except (OSError, ValueError) as error:
        parser.error(f"--tokens: {error}")
    plan = Plan(symbols=[*filter(None, symbols)], tokens=tokens, **given)
    if not plan.names():
        parser.error("no bots at all")
    if path and (missing := [n for _, n in plan.names() if n not in tokens]):
        parser.error(f"--tokens: {path} has no {missing[0]}")
    return plan


def read_tokens(path: Path) -> dict[str, str]:
    """Read lines of name, tab, token; raises OSError and ValueError."""
    tokens = {}
    for number, line in enumerate(text_of(path.read_bytes()).splitlines(), 1):
        name, _, token = line.strip().partition("\t")
        if token:
            tokens[name] = token
        elif name:
            raise ValueError(f"{path}, line {number}: no name, tab, token")
    return tokens


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("below 0")
    return number


def _value(argument: str) -> tuple[str, int]:
    symbol, equals, ticks = utf8(argument).rpartition("=")
    if bool(symbol) != bool(equals) or not re.fullmatch("[+-]?[0-9]+", ticks):
        raise argparse.ArgumentTypeError(
            f"{argument!r} is neither TICKS nor SYMBOL=TICKS"
        )
    return symbol, int(ticks)


def _speed(text: str) -> float:
    speed = float(text)
    if not 0 < speed < math.inf:
        raise argparse.ArgumentTypeError("not above 0")
    return speed


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
