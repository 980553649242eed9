"""Measure how many orders an exchange handles.

``python -m util.measure.stress`` lets clients place, cancel and amend orders
near the top of the book, and checks every reply and report against the
protocol. They run in processes of their own, so that the exchange reaches its
limit first; the last line that is printed names the side that did.

Without ``--rate`` a client sends as soon as its window has room, and a slow
reply delays its next request. With ``--rate`` each request is due at a fixed
time, from which its latency counts.

Exit status: 0 done, 1 the protocol was violated or requests were lost, 2 it
could not run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tqdm import tqdm

from client import ExchangeError
from orderbook import MAX_FRAME, Refused
from util.cli import (
    above_0,
    add_url,
    failed,
    new_parser,
    read_tokens,
    seconds,
    whole,
)
from util.measure.figures import Meter, as_text, figures
from util.measure.process import PREFIX, Trouble, launched
from util.measure.trader import Account, Violation, look
from util.measure.workers import Crew, Plan, Report, trouble_of

CLIENTS = 10
FRAMES_IN_FLIGHT = 8  # of each client
SECONDS = 10.0
WARMUP_S = 2.0  # for the book to fill and the caches to warm
# The book keeps its size: a tenth of the requests takes what rests.
MIX = {"place": 45, "cancel": 35, "amend": 10, "cross": 10}
USER_PREFIX = "stress-"
CORES = max((os.cpu_count() or 1) - 1, 1)


def conduct(plan: Plan, meter: Meter) -> list[Report]:
    """Run from start to end, or to Ctrl-C; return the counts of each process.

    Raises Trouble if it cannot start.
    """
    with Crew(plan) as crew:
        is_begun = crew.begin()
        try:
            if is_begun:
                _watch(plan, meter, crew)
        except KeyboardInterrupt:
            crew.stop()
        meter.end()
        try:
            reports = [future.result() for future in crew.reports]
        except BrokenProcessPool:
            raise Trouble("a process that generates load died") from None
    trouble = trouble_of(reports)
    if not is_begun and trouble is not None:
        raise trouble
    return reports


def _watch(plan: Plan, meter: Meter, crew: Crew) -> None:
    """Show how much time has passed, until all is measured."""
    start = time.monotonic()
    measured_from = start + plan.warmup
    end = measured_from + plan.seconds
    with tqdm(
        total=round(end - start),
        bar_format="{desc}: {n} of {total} s",
        desc="stress",
        disable=None,  # unless it is a terminal
        leave=False,
    ) as bar:
        for until in (measured_from, end):
            while (left := until - time.monotonic()) > 0:
                done, _ = wait(crew.reports, min(left, 1), FIRST_COMPLETED)
                if done:
                    return
                bar.n = round(time.monotonic() - start)
                bar.refresh()
            if until == measured_from:
                meter.begin()


# The command --------------------------------------------------------------


def new_options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = new_parser(
        "measure.stress",
        "Measure how many orders an exchange handles.",
        "exit status: 0 done, 1 the protocol was violated or requests were"
        " lost, 2 it could not run",
    )
    add = parser.add_argument
    add_url(parser)
    add(
        "--tokens",
        type=Path,
        metavar="FILE",
        help="file of accounts and keys, a line for each: name, tab, token"
        f" (default: {USER_PREFIX}0 and so on, without keys)",
    )
    add("--start", action="store_true", help="start an exchange for the run")
    add("--clients", type=whole, default=CLIENTS, help="number of clients")
    add(
        "--processes",
        type=whole,
        default=CORES,
        help="number of processes that run the clients",
    )
    add(
        "--window",
        type=whole,
        help="requests that a client has in flight"
        f" (default: {FRAMES_IN_FLIGHT} frames)",
    )
    add("--frame", type=whole, default=1, help="requests per frame")
    add(
        "--rate",
        type=above_0,
        help="requests per second of all clients together"
        " (default: as fast as the windows allow)",
    )
    add("--seconds", type=above_0, default=SECONDS, help="seconds to measure")
    add(
        "--warmup",
        type=seconds,
        default=WARMUP_S,
        help="seconds of load before the measurement",
    )
    add(
        "--seed",
        type=int,
        help="seed of all random choices (default: a new one)",
    )
    add("--json", action="store_true", help="print one JSON object")
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with status 2 if it is wrong."""
    parser = new_options()
    options = parser.parse_args(arguments)
    if options.start and (options.url or options.tokens):
        parser.error("--start goes with neither --url nor --tokens")
    if options.frame > MAX_FRAME:
        parser.error(f"--frame: {MAX_FRAME} requests at most")
    options.window = options.window or FRAMES_IN_FLIGHT * options.frame
    if options.frame > options.window:
        parser.error("--frame is larger than --window")
    return options


def accounts(options: argparse.Namespace) -> tuple[Account, ...]:
    """Return the account of each client.

    Raises Trouble, OSError and ValueError.
    """
    if options.tokens is None:
        names = (f"{USER_PREFIX}{n}" for n in range(options.clients))
        return tuple(map(Account, names))
    tokens = read_tokens(options.tokens)
    found = [Account(user, token) for user, token in tokens.items()]
    if len(found) < options.clients:
        raise Trouble(
            f"{options.tokens}: {len(found)} accounts for {options.clients}"
            " clients"
        )
    return tuple(found[: options.clients])


@contextlib.contextmanager
def exchange(
    options: argparse.Namespace,
) -> Iterator[tuple[str | None, int | None]]:
    """Yield URL and process id of the exchange; None if unknown."""
    # Like Ctrl-C, so that nothing stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not options.start:
        yield options.url, None
        return
    given = os.environ.get(f"{PREFIX}MARKET")
    market = {} if given is None else {"market": given}
    with tempfile.TemporaryDirectory(prefix="stress-") as folder:
        with launched(journal=f"{folder}/exchange.db", **market) as server:
            yield server.url, server.pid


def stress(options: argparse.Namespace) -> None:
    """Run as the options say, and print the figures.

    Raises Trouble if something was wrong; ExchangeError, Refused, OSError or
    ValueError if it could not run.
    """
    users = accounts(options)
    seed = options.seed
    with exchange(options) as (url, pid):
        url, flow = asyncio.run(look(url, MIX))
        plan = Plan(
            url=url,
            accounts=users,
            flow=flow,
            processes=min(options.processes, options.clients),
            window=options.window,
            frame=options.frame,
            rate=options.rate,
            seconds=options.seconds,
            warmup=options.warmup,
            seed=random.randrange(2**32) if seed is None else seed,
        )
        meter = Meter(pid)
        reports = conduct(plan, meter)
    found = figures(plan, reports, meter)
    if found["seconds"]:
        print(json.dumps(found) if options.json else as_text(found))
    trouble = trouble_of(reports)
    if trouble is not None:
        raise trouble
    if found["lost"]:
        raise Violation(f"requests without a reply: {found['lost']}")
    if not found["seconds"]:
        raise Trouble("stopped before anything was measured")


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.measure.stress``; return the exit status."""
    options = parse(arguments)
    try:
        stress(options)
        return 0
    except Trouble as trouble:
        return failed("stress", trouble, trouble.status)
    except (ExchangeError, Refused, OSError, ValueError) as error:
        return failed("stress", error)
    except KeyboardInterrupt:
        return failed("stress", "interrupted")


if __name__ == "__main__":
    sys.exit(main())
