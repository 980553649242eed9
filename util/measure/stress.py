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
from collections.abc import Iterator
from multiprocessing.connection import Connection
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
from util.measure.figures import Meter, as_text, figures, merged
from util.measure.process import PREFIX, Trouble, launched
from util.measure.trader import Account, Violation, look
from util.measure.workers import Plan, Report, trouble_of, workers

CLIENTS = 10
FRAMES_IN_FLIGHT = 8  # of each client
SECONDS = 10.0
WARMUP_S = 2.0  # for the book to fill and the caches to warm
# The book keeps its size: a tenth of the requests takes what rests.
MIX = {"place": 45, "cancel": 35, "amend": 10, "cross": 10}
USER_PREFIX = "stress-"
CORES = max((os.cpu_count() or 1) - 1, 1)
START_S = 0.2  # for every process to read the time at which to start


# The parent ---------------------------------------------------------------


class Run:
    """One run in the parent: starts, watches and ends the processes."""

    def __init__(
        self, plan: Plan, pipes: list[Connection], meter: Meter
    ) -> None:
        self.reports = [Report() for _ in pipes]
        self._plan = plan
        self._pipes = pipes
        self._meter = meter
        self._heard: asyncio.Queue[tuple[int, Report]] = asyncio.Queue()
        self._timers: list[asyncio.TimerHandle] = []

    @property
    def trouble(self) -> Trouble | None:
        """What ended the run early, if anything did."""
        return trouble_of(self.reports)

    async def conduct(self) -> None:
        """Run from start to end; raises Trouble if it cannot start."""
        loop = asyncio.get_running_loop()
        for number, pipe in enumerate(self._pipes):
            loop.add_reader(pipe.fileno(), self._hear, number, pipe)
        for _ in self._pipes:
            await self._next()
            if self.trouble is not None:
                raise self.trouble
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, self._stop)
        start = loop.time() + START_S
        for pipe in self._pipes:
            pipe.send(start)
        measured_from = start + self._plan.warmup
        self._timers = [
            loop.call_at(measured_from, self._meter.begin),
            loop.call_at(measured_from + self._plan.seconds, self._meter.end),
        ]
        with tqdm(
            total=round(self._plan.warmup + self._plan.seconds),
            bar_format="{desc}: {n} of {total} s{postfix}",
            desc="stress",
            disable=None,  # unless it is a terminal
            leave=False,
        ) as bar:
            while not all(report.is_last for report in self.reports):
                await self._next()
                if self.trouble is not None:
                    self._stop()
                bar.n = round(loop.time() - start)
                bar.set_postfix_str(self._how_it_goes())

    def _how_it_goes(self) -> str:
        measured = [report for report in self.reports if report.seconds]
        if not measured:
            return "warming up"
        rate = sum(r.measured.orders / r.seconds for r in measured)
        p99_ms = merged(measured).percentile(99) / 1_000
        return f"{rate:,.0f} orders/s, p99 {p99_ms:.2f} ms"

    async def _next(self) -> None:
        number, report = await self._heard.get()
        self.reports[number] = report

    def _hear(self, number: int, pipe: Connection) -> None:
        try:
            report = pipe.recv()
        except EOFError:
            report = self.reports[number]
            report.trouble = Trouble("a process that generates load died")
            report.is_last = True
        if report.is_last:
            asyncio.get_running_loop().remove_reader(pipe.fileno())
        self._heard.put_nowait((number, report))

    def _stop(self) -> None:
        """End the run early, if it has not ended."""
        for timer in self._timers:
            timer.cancel()
        self._meter.end()
        for pipe in self._pipes:
            with contextlib.suppress(OSError):  # it has ended
                pipe.send(None)


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
    if not options.start:
        yield options.url, None
        return
    # Like Ctrl-C, so that it does not stay behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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
        with workers(plan) as pipes:
            run = Run(plan, pipes, meter)
            asyncio.run(run.conduct())
    found = figures(plan, run.reports, meter)
    if found["seconds"]:
        print(json.dumps(found) if options.json else as_text(found))
    if run.trouble is not None:
        raise run.trouble
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
        return failed("stress", "interrupted before the start")


if __name__ == "__main__":
    sys.exit(main())
