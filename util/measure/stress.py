"""Tell how many orders an exchange handles: ``python -m util.measure.stress``.

Any number of clients place, cancel and amend orders near the top of the
book, and hold every reply and report against the protocol. They live in
processes of their own, so that the exchange is what gets tired first; the
last line of what is printed says which side did.

Without ``--rate`` a client sends as soon as its window has room, and a slow
reply delays its next request. With it each request is due at a time fixed
beforehand, and its latency counts from then.

Exit status: 0, 1 the protocol was violated or requests were lost, 2 it could
not run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
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
from util.cli import add_url, failed
from util.measure.figures import Meter, figures, merged, tell
from util.measure.process import PREFIX, Trouble, launched
from util.measure.trader import OPEN_ORDERS, Account, Violation, look
from util.measure.workers import Plan, Report, trouble_of, workers

CLIENTS = 10
FRAMES_IN_FLIGHT = 8  # of each client
SECONDS = 10.0
WARMUP_S = 2.0  # for the book to fill and the caches to warm
# As many orders come as go: a tenth of the requests takes what rests.
MIX = {"place": 45, "cancel": 35, "amend": 10, "cross": 10}
USER_PREFIX = "stress-"
START_S = 0.2  # until every process has heard that it goes off


# The parent ---------------------------------------------------------------


class Run:
    """One run as its parent sees it: starts, watches and ends it."""

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
        """What ended the run before its time, if something did."""
        return trouble_of(self.reports)

    async def conduct(self) -> None:
        """Do all of it; raises Trouble if it does not get to start."""
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
            disable=None,  # where nobody watches
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
        """End it before its time, or once more when it has ended."""
        for timer in self._timers:
            timer.cancel()
        self._meter.end()
        for pipe in self._pipes:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                pipe.send(None)


# The command --------------------------------------------------------------


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with status 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m util.measure.stress",
        description="Tell how many orders an exchange handles.",
        epilog="exit status: 0, 1 the protocol was violated or requests were"
        " lost, 2 it could not run",
    )
    add = parser.add_argument
    cores = max((os.cpu_count() or 1) - 1, 1)
    mix = ",".join(f"{kind}={share}" for kind, share in MIX.items())
    given = "(default: %(default)s)"
    add_url(parser)
    add("--pid", type=whole, help="process of that exchange, to measure it")
    add("--user-prefix", help=f"of the accounts (default: {USER_PREFIX})")
    add(
        "--tokens",
        type=Path,
        metavar="FILE",
        help="accounts that have keys; a line each: name, tab, token",
    )
    add("--start", action="store_true", help="start an exchange for the run")
    add(
        "--journal",
        choices=("on", "off"),
        help="of that exchange, in a temporary folder (default: on)",
    )
    add("--clients", type=whole, default=CLIENTS, help=given)
    add("--processes", type=whole, default=cores, help=f"of ours {given}")
    add(
        "--window",
        type=whole,
        help="requests that a client has in flight"
        f" (default: {FRAMES_IN_FLIGHT} frames)",
    )
    add("--frame", type=whole, default=1, help=f"requests in a frame {given}")
    add(
        "--rate",
        type=above_0,
        help="requests a second of all clients together"
        " (default: as fast as the windows allow)",
    )
    add(
        "--mix",
        type=mixture,
        default=mix,
        help="shares; to cross is to take what rests"
        f" {given}. A client with {OPEN_ORDERS} open orders cancels instead of"
        " placing.",
    )
    add("--seconds", type=above_0, default=SECONDS, help=f"measured {given}")
    add("--warmup", type=seconds, default=WARMUP_S, help=f"before {given}")
    add("--seed", type=int, help="of all choices (default: a new one)")
    add("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if options.start and (options.url or options.pid or options.tokens):
        parser.error("--start goes with none of --url, --pid and --tokens")
    if options.journal and not options.start:
        parser.error("--journal needs --start")
    if options.tokens and options.user_prefix:
        parser.error("--tokens has the names: leave out --user-prefix")
    if options.frame > MAX_FRAME:
        parser.error(f"--frame: {MAX_FRAME} requests at most")
    options.window = options.window or FRAMES_IN_FLIGHT * options.frame
    if options.frame > options.window:
        parser.error("--frame is larger than --window")
    return options


def whole(text: str) -> int:
    """Read a number of things, 1 or more."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
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


def mixture(text: str) -> dict[str, int]:
    """Read shares, as in ``place=45,cancel=35``; the others are 0."""
    mix = dict.fromkeys(MIX, 0)
    for part in text.split(","):
        kind, _, share = part.partition("=")
        if kind not in mix or not share.isdecimal():
            raise argparse.ArgumentTypeError(
                f"{part}: not as in place=45,cancel=35,amend=10,cross=10"
            )
        mix[kind] = int(share)
    if not any(mix.values()):
        raise argparse.ArgumentTypeError("all shares are 0")
    return mix


def accounts(options: argparse.Namespace) -> tuple[Account, ...]:
    """Return an account for each client; raises Trouble or OSError."""
    if options.tokens is None:
        prefix = options.user_prefix or USER_PREFIX
        return tuple(Account(f"{prefix}{n}") for n in range(options.clients))
    found = []
    for line in options.tokens.read_text().splitlines():
        user, tab, token = line.partition("\t")
        if not tab:
            raise Trouble(f"{options.tokens}: a line is no name, tab, token")
        found.append(Account(user, token))
    if len(found) < options.clients:
        raise Trouble(
            f"{options.tokens}: {options.clients} clients need an account"
            f" each, and here are {len(found)}"
        )
    return tuple(found[: options.clients])


@contextlib.contextmanager
def exchange(
    options: argparse.Namespace,
) -> Iterator[tuple[str | None, int | None]]:
    """Give URL and process id of the exchange, as far as they are known."""
    if not options.start:
        yield options.url, options.pid
        return
    # Like Ctrl-C, so that it does not stay behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    given = os.environ.get(f"{PREFIX}MARKET")
    market = {} if given is None else {"market": given}
    with tempfile.TemporaryDirectory(prefix="stress-") as folder:
        path = "off" if options.journal == "off" else f"{folder}/exchange.db"
        with launched(journal=path, **market) as server:
            yield server.url, server.pid


def stress(options: argparse.Namespace) -> None:
    """Do what the options ask for, and print what was found.

    Raises Trouble if something was wrong; ExchangeError, Refused or OSError
    if it could not run.
    """
    users = accounts(options)
    seed = options.seed
    with exchange(options) as (url, pid):
        url, flow = asyncio.run(look(url, options.mix))
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
        print(json.dumps(found) if options.json else tell(found))
    if run.trouble is not None:
        raise run.trouble
    if found["lost"]:
        raise Violation(f"requests without a reply: {found['lost']}")
    if not found["seconds"]:
        raise Trouble("it was stopped before anything was measured")


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.measure.stress``; return the exit status."""
    options = parse(arguments)
    try:
        stress(options)
        return 0
    except Trouble as trouble:
        return failed("stress", trouble, trouble.status)
    except (ExchangeError, Refused, OSError) as error:
        return failed("stress", error)
    except KeyboardInterrupt:
        return failed("stress", "interrupted before it began")


if __name__ == "__main__":
    sys.exit(main())
