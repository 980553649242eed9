"""What the tools share: their names, options, input, output and exit.

The tools are the package `util` in a checkout and `exchange.util` in a wheel,
so those that a wheel holds import each other relatively.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import math
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from exchange.files import text_of
from orderbook import Refused, encode

# Exit statuses.
REFUSED = 1
UNUSABLE = 2  # nothing was sent: a wrong argument, file or connection
CONNECT_TIMEOUT_S = 3.0  # short: a person waits for it


def program(tool: str) -> str:
    """Return how a tool is started, as its usage shows it."""
    if __package__ == "util":
        return f"python -m util.{tool}"
    return f"exchange-{tool.replace('_', '-')}"


@contextlib.contextmanager
def extra_libraries(tool: str) -> Iterator[None]:
    """Import libraries of the extra `tools`.

    Exits with status 2, and prints what to install, if one is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        why = (
            f"needs {error.name}, which is not installed; run, in the"
            ' folder of the exchange: pip install ".[tools]"'
        )
        raise SystemExit(failed(tool, why)) from None


# Options ------------------------------------------------------------------


class _Help(argparse.HelpFormatter):
    """Shows the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, default = action.help, action.default
        is_plain = default in (None, False, "", argparse.SUPPRESS)
        if text is None or is_plain or "(default" in text:
            return text
        return f"{text} (default: %(default)s)"


def new_parser(
    tool: str, description: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    """Return the parser of a tool; its help shows the defaults."""
    return argparse.ArgumentParser(
        prog=program(tool),
        description=description,
        epilog=epilog,
        formatter_class=_Help,
    )


def amount_and_seed(
    parser: argparse.ArgumentParser,
    amount: str,
    about: str,
    arguments: list[str] | None,
    read: Callable[[str], Any] | None = None,
) -> tuple[Any, int]:
    """Read the command line of a random run: an amount and a seed.

    ``amount`` names the first argument, ``about`` describes it, and ``read``
    converts it; without ``read`` it is a whole number, 1 or more.
    """
    add = parser.add_argument
    add("amount", type=read or whole, metavar=amount, help=about)
    add(
        "seed",
        type=int,
        nargs="?",
        metavar="SEED",
        help="seed of all random choices (default: a new one, printed)",
    )
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = random.getrandbits(32)
    return options.amount, options.seed


def whole(text: str) -> int:
    """Read a count, 1 or more."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return int(text)


def count(text: str) -> int:
    """Read a count, 0 or more."""
    if int(text) < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return int(text)


def seconds(text: str) -> float:
    """Read a duration, 0 or more."""
    if not 0 <= float(text) < math.inf:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return float(text)


def above_0(text: str) -> float:
    """Read a number above 0."""
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError("must be above 0")
    return float(text)


def utf8(argument: str) -> str:
    """Read a text from the command line: the `type=` of its argument.

    The text is UTF-8 even if the locale is ASCII; then Python has put
    surrogates for the bytes that it could not decode. Raises
    ArgumentTypeError. Do not use it for a path: the system needs its bytes.
    """
    try:
        argument.encode()
        return argument
    except UnicodeEncodeError:
        pass
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        raise argparse.ArgumentTypeError("not UTF-8") from None


def add_url(parser: argparse.ArgumentParser) -> None:
    """Add the option --url."""
    parser.add_argument(
        "--url",
        type=utf8,
        default=os.environ.get("EXCHANGE_URL") or None,
        help="address of the exchange, as in ws://host:port, or several with"
        " commas between them (default: $EXCHANGE_URL, or the exchange on"
        " this machine)",
    )


def add_login(
    parser: argparse.ArgumentParser, user: str | None, about_user: str
) -> None:
    """Add --url, --user with its default and its help, and --token."""
    add_url(parser)
    parser.add_argument("--user", type=utf8, default=user, help=about_user)
    parser.add_argument(
        "--token",
        type=utf8,
        default=os.environ.get("EXCHANGE_TOKEN") or None,
        help="key of the user (default: $EXCHANGE_TOKEN)",
    )


def read_tokens(path: Path) -> dict[str, str]:
    """Read lines of name, tab, token; raises OSError and ValueError."""
    tokens = {}
    for number, line in enumerate(text_of(path.read_bytes()).splitlines(), 1):
        name, _, keys = line.strip().partition("\t")
        token = keys.partition("\t")[0]  # an API secret may follow
        if token:
            tokens[name] = token
        elif name:
            raise ValueError(f"{path}, line {number}: not name, tab, token")
    return tokens


# Output -------------------------------------------------------------------


def set_up_output(is_data: bool = False) -> None:
    """Make printing safe for any character.

    Text for people escapes the characters that the encoding of the terminal
    lacks. Data, such as JSON, are UTF-8. A closed output acts as /dev/null.
    """
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    if isinstance(sys.stdout, io.TextIOWrapper):
        if is_data:
            sys.stdout.reconfigure(encoding="utf-8", newline="\n")
        else:
            sys.stdout.reconfigure(errors="backslashreplace")


def print_result(line: str) -> None:
    """Print the result of an action that has been carried out.

    A broken pipe is ignored. If the line cannot be written, as on a full
    disk, it is printed on standard error.
    """
    try:
        print(line, flush=True)
    except BrokenPipeError:
        drop_output()
    except OSError as error:
        drop_output()
        print(f"{line} ({error.strerror})", file=sys.stderr)


def refused(refusal: Refused, is_data: bool) -> int:
    """Print a refusal of the exchange; return the exit status."""
    if is_data:
        print_result(encode(refusal.as_error()))
    else:
        print_result(f"refused: {refusal.code}: {refusal}")
    return REFUSED


def failed(tool: str, why: object, status: int = UNUSABLE) -> int:
    """Print on standard error why a tool ends; return the exit status."""
    print(f"{tool}: {why}", file=sys.stderr)
    return status


def drop_output() -> None:
    """Drop what could not be printed; else Python fails again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def on_stop(stop: Callable[[], object]) -> None:
    """Call `stop` in the running loop when SIGINT or SIGTERM comes."""
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(signum, stop)
        except NotImplementedError:  # Windows
            signal.signal(signum, lambda *_: loop.call_soon_threadsafe(stop))
