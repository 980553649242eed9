"""What the tools share: names, options, texts in, texts out, the end.

The tools are the package `util` in a checkout and `exchange.util` in a wheel,
so those that a wheel holds import each other relatively.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator

from orderbook import Refused, encode

# Exit statuses.
REFUSED = 1
UNUSABLE = 2  # nothing could be asked: a wrong argument, file or connection
CONNECT_TIMEOUT_S = 3.0  # a person waits for it


def program(tool: str) -> str:
    """Return how a tool is started, as its usage shows it."""
    if __package__ == "util":
        return f"python -m util.{tool}"
    return f"exchange-{tool.replace('_', '-')}"


@contextlib.contextmanager
def extra_libraries(tool: str) -> Iterator[None]:
    """Import what only the extra `tools` brings.

    Exits with status 2, and says what to install, if it is not there.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        why = (
            f"needs {error.name}, which is not installed; run, in the"
            ' folder of the exchange: pip install ".[tools]"'
        )
        raise SystemExit(failed(tool, why)) from None


def utf8(argument: str) -> str:
    """Take a text from the command line: the `type=` of such an argument.

    It is UTF-8, also where the locale knows only ASCII; then Python has left
    what it could not decode as surrogates. Raises ArgumentTypeError. A path
    is not decoded: the system wants it back as it was.
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
        help="(default: $EXCHANGE_URL, or the local exchange)",
    )


def add_login(
    parser: argparse.ArgumentParser, user: str | None, about_user: str
) -> None:
    """Add --url, --user with its default and help, and --token."""
    add_url(parser)
    parser.add_argument("--user", type=utf8, default=user, help=about_user)
    parser.add_argument(
        "--token",
        type=utf8,
        default=os.environ.get("EXCHANGE_TOKEN") or None,
        help="its key (default: $EXCHANGE_TOKEN)",
    )


def set_up_output(is_data: bool = False) -> None:
    """Let no character that is printed make the tool fail.

    In a text, what the terminal's encoding lacks is shown escaped. Data, such
    as JSON, are UTF-8 wherever they go. A closed output is as /dev/null.
    """
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    if isinstance(sys.stdout, io.TextIOWrapper):
        if is_data:
            sys.stdout.reconfigure(encoding="utf-8", newline="\n")
        else:
            sys.stdout.reconfigure(errors="backslashreplace")


def say(line: str) -> None:
    """Print what became of something, which is so even if nobody reads it.

    Where it cannot be written, as on a full disk, standard error has it.
    """
    try:
        print(line, flush=True)
    except BrokenPipeError:
        drop_output()
    except OSError as error:
        drop_output()
        print(f"{line} ({error.strerror})", file=sys.stderr)


def refused(refusal: Refused, is_data: bool) -> int:
    """Print that the exchange refused, and return the exit status."""
    if is_data:
        say(encode(refusal.as_error()))
    else:
        say(f"refused: {refusal.code}: {refusal}")
    return REFUSED


def failed(tool: str, why: object, status: int = UNUSABLE) -> int:
    """Print on standard error why a tool ends, and return the exit status."""
    print(f"{tool}: {why}", file=sys.stderr)
    return status


def drop_output() -> None:
    """Let go what could not be printed, or it would fail again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def on_stop(stop: Callable[[], object]) -> None:
    """Call `stop` in the running loop when SIGINT or SIGTERM comes."""
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(signum, stop)
        except NotImplementedError:  # Windows
            signal.signal(signum, lambda *_: loop.call_soon_threadsafe(stop))
