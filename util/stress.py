"""Tell how many orders an exchange handles: ``python -m util.stress``.

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
import gc
import json
import math
import multiprocessing
import os
import random
import secrets
import select
import selectors
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import chain
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tqdm import tqdm

from client import Exchange, ExchangeError
from exchange.host.settings import CONNECTIONS
from orderbook import MAX_FRAME, BookUpdate, Refused
from server import FILES_RESERVED, GC_THRESHOLDS, raise_file_limit
from util.load import (
    DEPTH,
    OPEN_ORDERS,
    QTY,
    Account,
    Flow,
    Histogram,
    Link,
    Pace,
    Tally,
    Trader,
    Trouble,
    Violation,
    launched,
)

CLIENTS = 10
FRAMES_IN_FLIGHT = 8  # of each client
SECONDS = 10.0
WARMUP_S = 2.0  # for the book to fill and the caches to warm
# As many orders come as go: a tenth of the requests takes what rests.
MIX = {"place": 45, "cancel": 35, "amend": 10, "cross": 10}
USER_PREFIX = "stress-"
CONNECT_S = 3.0  # to find the exchange: a person waits for it
LOGIN_S = 10.0  # for one batch of clients to log in ...
LOGINS_AT_ONCE = 100  # ... which has so many
START_S = 0.2  # until every process has heard that it goes off
BEAT_S = 1.0  # between two looks at how far it is
DRAIN_S = 10.0  # for the last replies to come; then they are lost
CLOSE_S = 5.0  # for the exchange to hang up
BUSY = 0.9  # of a core, from which on a process is what limits the rate
PERCENTILES = (50, 99, 99.9)
PICTURES = (".png", ".pdf", ".svg")
BINS = 80  # of the picture
DPI = 200  # to be printed


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done; times in seconds, ``rate`` in requests a second."""

    url: str
    accounts: tuple[Account, ...]  # one for each client
    flow: Flow
    processes: int
    window: int
    frame: int
    rate: float | None
    seconds: float
    warmup: float
    seed: int

    @property
    def pace(self) -> Pace:
        """How fast each client sends."""
        if self.rate is None:
            return Pace(self.window, self.frame)
        frames_per_s = self.rate / self.frame / len(self.accounts)
        return Pace(self.window, self.frame, 1 / frames_per_s)


@dataclass(slots=True)
class Report:
    """What one process has counted so far.

    ``total`` is from the start on; ``measured``, ``latency``, and the time
    it used a core (``cpu_s``) or waited for one (``wait_s``), belong to the
    ``seconds`` measured.
    """

    total: Tally = field(default_factory=Tally)
    measured: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    cpu_s: float = 0.0
    wait_s: float = 0.0
    latency: Histogram = field(default_factory=Histogram)
    overdue: int = 0  # requests that were due and never sent
    lost: int = 0  # requests without a reply
    trouble: Trouble | None = None
    is_last: bool = False


# A process that generates load --------------------------------------------


class FineSelector(selectors.DefaultSelector):
    """Waits as long as asked: epoll by itself rounds up to milliseconds."""

    def select(
        self, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the files that are ready, after ``timeout`` s at most."""
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


class Worker:
    """The clients of one process, which talks to the parent over a pipe.

    It sends a ``Report`` when all are logged in, one at each beat, and one
    that is the last. It is told the time to start, then anything to stop.
    """

    def __init__(self, plan: Plan, number: int, pipe: Connection) -> None:
        self._plan = plan
        self._pipe = pipe
        self._loop = asyncio.get_running_loop()
        self._start: asyncio.Future[float] = self._loop.create_future()
        self._stopped = asyncio.Event()
        self._total = Tally()
        self._before: Tally | None = None  # when measuring began
        self._began = (0.0, 0.0, 0.0)  # the time, CPU and waiting time then
        self._report = Report()
        self._links: dict[int, Link] = {}  # by the number of the client
        for client in range(number, len(plan.accounts), plan.processes):
            trader = Trader(
                plan.accounts[client],
                plan.flow,
                f"{plan.seed}-{client}",
                self._total,
                self._report.latency,
            )
            self._links[client] = Link(
                plan.url, trader, plan.pace, self._failed
            )

    async def run(self) -> None:
        """Do all of it."""
        self._loop.add_reader(self._pipe.fileno(), self._told)
        try:
            await self._log_in()
            self._pipe.send(self._report)
            await self._generate(await self._start)
        except Trouble as trouble:
            self._failed(trouble)
        self._report.is_last = True
        self._pipe.send(self._report)

    def _told(self) -> None:
        """Start, or stop; stop also if the parent is no more."""
        try:
            start = self._pipe.recv()
        except EOFError:
            os._exit(2)
        if self._start.done():
            self._stopped.set()
        else:
            self._start.set_result(start)

    def _failed(self, trouble: Trouble) -> None:
        if self._report.trouble is None:
            self._report.trouble = trouble
        self._stopped.set()

    async def _log_in(self) -> None:
        """Connect all clients, a batch after the other; raises Trouble."""
        links = list(self._links.values())
        for first in range(0, len(links), LOGINS_AT_ONCE):
            batch = links[first : first + LOGINS_AT_ONCE]
            try:
                async with asyncio.timeout(LOGIN_S):
                    results = await asyncio.gather(
                        *(link.open() for link in batch),
                        return_exceptions=True,
                    )
            except TimeoutError:
                raise Trouble(
                    f"no answer to a login within {LOGIN_S:g} s"
                ) from None
            for error in results:
                if isinstance(error, OSError):
                    raise Trouble(f"{self._plan.url}: {error}")
                if error is not None:
                    raise error

    async def _generate(self, start: float) -> None:
        """Let all clients trade, then wait for the last replies."""
        plan = self._plan
        measured_from = start + plan.warmup
        end = measured_from + plan.seconds
        apart = (plan.pace.interval_s or 0.0) / len(plan.accounts)
        for client, link in self._links.items():
            link.begin(start + client * apart, end, measured_from)
        measuring = self._loop.call_at(measured_from, self._measure)
        while not self._stopped.is_set() and self._loop.time() < end:
            beat_s = min(BEAT_S, end - self._loop.time())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), beat_s)
            self._count()
            self._pipe.send(self._report)
        measuring.cancel()
        self._before = None
        await self._finish()

    def _measure(self) -> None:
        self._before = Tally() + self._total
        self._began = self._times()

    def _count(self) -> None:
        report = self._report
        report.total = self._total
        if self._before is not None:
            report.measured = self._total - self._before
            report.seconds, report.cpu_s, report.wait_s = (
                now - then for then, now in zip(self._began, self._times())
            )

    def _times(self) -> tuple[float, float, float]:
        wait_s = waited(os.getpid()) or 0.0
        return self._loop.time(), time.process_time(), wait_s

    async def _finish(self) -> None:
        links = self._links.values()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await asyncio.gather(*(link.finish() for link in links))
        self._report.overdue = sum(link.overdue for link in links)
        self._report.lost = sum(len(link.trader.unanswered) for link in links)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(*(link.close() for link in links))
        for link in links:
            link.abort()


def work(
    plan: Plan, number: int, pairs: list[tuple[Connection, Connection]]
) -> None:
    """Run one of the processes; ``pairs`` are the pipes of all."""
    pipe = pairs[number][1]
    for end in chain.from_iterable(pairs):
        if end is not pipe:
            end.close()  # or nobody would notice the end of another process
    raise_file_limit(CONNECTIONS + FILES_RESERVED)
    gc.set_threshold(*GC_THRESHOLDS)
    gc.freeze()

    async def run() -> None:
        await Worker(plan, number, pipe).run()

    def make_loop() -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(FineSelector())

    with asyncio.Runner(loop_factory=make_loop if plan.rate else None) as loop:
        loop.run(run())


# The parent ---------------------------------------------------------------


def waited(pid: int | None) -> float | None:
    """Return the seconds that a process waited for a core so far.

    Of its main thread, while that could have run; None if unknown.
    """
    text = read_proc(pid, "schedstat")
    return None if text is None else int(text.split()[1]) / 1e9


def read_proc(pid: int | None, name: str) -> str | None:
    """Return what Linux tells of a process; None if it does not."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return None


class Meter:
    """What the process of the exchange uses meanwhile; None if unknown.

    ``cpu`` is in cores, ``wait`` the share of the time in which it could
    not have one, ``rss`` in bytes.
    """

    def __init__(self, pid: int | None) -> None:
        self.cpu: float | None = None
        self.wait: float | None = None
        self.rss: int | None = None
        self._pid = pid
        self._start: tuple[float, float | None, float | None] | None = None

    def begin(self) -> None:
        """Start to measure."""
        self._start = time.monotonic(), self._cpu_s(), waited(self._pid)

    def end(self) -> None:
        """Say what was used since the start; once is enough."""
        if self._start is None:
            return
        then, cpu_before, wait_before = self._start
        self._start = None
        seconds = time.monotonic() - then
        cpu_s, wait_s = self._cpu_s(), waited(self._pid)
        if cpu_s is not None and cpu_before is not None:
            self.cpu = (cpu_s - cpu_before) / seconds
        if wait_s is not None and wait_before is not None:
            self.wait = (wait_s - wait_before) / seconds
        text = read_proc(self._pid, "statm")
        if text is not None:
            self.rss = int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def _cpu_s(self) -> float | None:
        text = read_proc(self._pid, "stat")
        if text is None:
            return None
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


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
        for report in self.reports:
            if report.trouble is not None:
                return report.trouble
        return None

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


def merged(reports: list[Report]) -> Histogram:
    """Return the latencies of all processes."""
    latency = Histogram()
    for report in reports:
        latency.add(report.latency)
    return latency


@contextlib.contextmanager
def workers(plan: Plan) -> Iterator[list[Connection]]:
    """Run the processes that generate load; give a pipe to each.

    They are forked with these signals blocked, and leave them so: the parent
    alone hears of Ctrl-C, and tells them.
    """
    context = multiprocessing.get_context("fork")
    pairs = [context.Pipe() for _ in range(plan.processes)]
    ours = [our for our, _ in pairs]
    processes = [
        context.Process(target=work, args=(plan, number, pairs), daemon=True)
        for number in range(plan.processes)
    ]
    signals = (signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    for process in processes:
        process.start()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        for _, their in pairs:
            their.close()
        yield ours
    finally:
        for process, our in zip(processes, ours):
            our.close()
            process.kill()  # its last report was its last act
            process.join()


async def look(url: str | None, mix: dict[str, int]) -> tuple[str, Flow]:
    """Find the exchange; return its URL, and what to trade there.

    That is the first instrument listed, around the middle of its book, or
    of its bounds where there is nobody. Raises Trouble if the URL is none,
    ExchangeError if nobody answers.
    """
    try:
        public = Exchange(url, user="", connect_timeout=CONNECT_S)
    except ValueError as error:
        raise Trouble(str(error)) from None
    async with public as exchange:
        listed = next(iter(exchange.instruments.values()))
        [book] = await exchange.get("book", symbol=listed.symbol)
        assert isinstance(book, BookUpdate)
        tops = [side[0][0] for side in (book.bids, book.asks) if side]
        tops = tops or [listed.min_price, listed.max_price]
        depth = min(DEPTH, (listed.max_price - listed.min_price) // 2)
        lowest, highest = listed.min_price + depth, listed.max_price - depth
        flow = Flow(
            symbol=listed.symbol,
            middle=max(lowest, min(sum(tops) // len(tops), highest)),
            depth=depth,
            max_qty=min(QTY, listed.max_qty),
            mix=mix,
            run=secrets.token_hex(4),
        )
        return exchange.url, flow


# The figures --------------------------------------------------------------


def figures(plan: Plan, run: Run, meter: Meter) -> dict[str, Any]:
    """Return everything that was measured, by the names that JSON shows.

    Rates and latencies are of the seconds measured, counts of the whole run.
    """
    measured = [report for report in run.reports if report.seconds]
    total = sum((report.total for report in run.reports), Tally())
    latency = merged(run.reports)

    def per_s(name: str) -> float:
        return math.fsum(
            getattr(report.measured, name) / report.seconds
            for report in measured
        )

    overdue = sum(report.overdue for report in run.reports)
    busiest = max(measured, key=lambda r: r.cpu_s, default=Report(seconds=1))
    generator = busiest.cpu_s / busiest.seconds
    generator_wait = busiest.wait_s / busiest.seconds
    side, verdict = bottleneck(
        exchange=meter.cpu,
        exchange_wait=meter.wait or 0.0,
        generator=generator,
        generator_wait=generator_wait,
        codes=set(total.refused),
        is_on_time=plan.rate is not None and not overdue,
    )
    shown = {f"p{p:g}": latency.percentile(p) for p in PERCENTILES}
    shown["max"] = latency.max_us
    return {
        "url": plan.url,
        "symbol": plan.flow.symbol,
        "clients": len(plan.accounts),
        "processes": plan.processes,
        "window": plan.window,
        "frame": plan.frame,
        "rate": plan.rate,
        "mix": plan.flow.mix,
        "seed": plan.seed,
        "seconds": max((report.seconds for report in measured), default=0.0),
        "orders_per_minute": 60 * per_s("orders"),
        "orders_per_s": per_s("orders"),
        "requests_per_s": per_s("answered"),
        "trades_per_s": per_s("trades"),
        "latency_ms": {name: us / 1_000 for name, us in shown.items()},
        "sent": total.sent,
        "answered": total.answered,
        "lost": sum(report.lost for report in run.reports),
        "overdue": overdue,
        "accepted": dict(total.accepted),
        "refused": dict(total.refused.most_common()),
        "trades": total.trades,
        "exchange_cpu": meter.cpu,
        "exchange_wait": meter.wait,
        "exchange_rss": meter.rss,
        "generator_cpu": generator,
        "generator_wait": generator_wait,
        "bottleneck": side,
        "verdict": verdict,
        "trouble": None if run.trouble is None else str(run.trouble),
    }


def bottleneck(
    *,
    exchange: float | None,
    exchange_wait: float,
    generator: float,
    generator_wait: float,
    codes: Set[str],
    is_on_time: bool,
) -> tuple[str, str]:
    """Say what kept the rate from being higher, in a word and a sentence.

    ``exchange`` and ``generator`` are cores used by one process, the first
    None if unknown; what they waited for one is a share of the time;
    ``codes`` are those of the requests refused.
    """
    if "rate_limited" in codes:
        return "limit", "the exchange's limit of requests (rate_limited)"
    if "busy" in codes:
        return "busy", "the exchange: it took no new orders for a time (busy)"
    if is_on_time:
        return "rate", "none: every request left when it was due"
    for side, name, used, wait in (
        ("exchange", "the exchange", exchange or 0.0, exchange_wait),
        ("generator", "the load generator", generator, generator_wait),
    ):
        if used < BUSY and wait > 1 - BUSY:
            why = f"{name} had to wait for a core {wait:.0%} of the time"
            return "machine", f"the machine: {why}"
        if used + wait >= BUSY:
            hint = "" if side == "exchange" else " (give it more --processes)"
            return side, f"{name}: it used a whole core{hint}"
    if exchange is None:
        return (
            "unknown",
            "not the load generator; whether the exchange was, its CPU would"
            " tell (--pid)",
        )
    return (
        "window",
        "neither side: the clients waited for replies (more --clients, or a"
        " larger --window)",
    )


def tell(found: dict[str, Any]) -> str:
    """Return the figures as lines for a person."""
    latency = found["latency_ms"]
    pace = "as fast as they can"
    if found["rate"] is not None:
        pace = f"{found['rate']:,.10g} requests/s"
    lines = [
        f"{found['clients']} clients x {found['window']} in flight,"
        f" {found['frame']} per frame, {pace}; processes:"
        f" {found['processes']}, seconds: {found['seconds']:.1f}, seed:"
        f" {found['seed']}",
        f"orders per minute    {found['orders_per_minute']:,.0f}"
        f" ({found['orders_per_s']:,.0f} per second; placed or amended)",
        f"requests per second  {found['requests_per_s']:,.0f}",
        f"trades per second    {found['trades_per_s']:,.0f}",
        "ack latency          "
        + ", ".join(f"{name} {ms:,.2f} ms" for name, ms in latency.items()),
        f"in the whole run     {found['sent']:,} requests,"
        f" {found['answered']:,} replies, {found['lost']:,} lost,"
        f" {found['trades']:,} trades",
        "refused              " + (counted(found["refused"]) or "none"),
    ]
    if found["overdue"]:
        lines.append(
            f"overdue              {found['overdue']:,} requests were due and"
            " could not be sent: the rate was not reached"
        )
    if found["exchange_cpu"] is not None:
        lines.append(
            f"exchange             CPU {found['exchange_cpu']:.0%} of a core,"
            f" memory {found['exchange_rss'] / 2**20:,.0f} MiB"
        )
    lines += [
        f"load generator       CPU {found['generator_cpu']:.0%} of a core"
        " (the busiest process)",
        f"bottleneck           {found['verdict']}",
    ]
    return "\n".join(lines)


def counted(numbers: dict[str, int]) -> str:
    """Name each with its number."""
    return ", ".join(f"{name} {n:,}" for name, n in numbers.items())


def draw(path: Path, found: dict[str, Any], latency: Histogram) -> None:
    """Draw how often each latency occurred, if any; raises OSError."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    bars = list(latency.bars())
    values = [max(first + last, 2) / 2_000 for first, last, _ in bars]
    shares = [100 * number / latency.total for _, _, number in bars]
    ratio = (values[-1] / values[0]) ** (1 / BINS)
    edges = [0.99 * values[0] * ratio**n for n in range(BINS + 2)]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.hist(values, edges, weights=shares, color="0.8", edgecolor="0.4")
    styles = ("-", "--", "-.", ":")
    for style, (name, ms) in zip(styles, found["latency_ms"].items()):
        label = f"{name}: {ms:,.2f} ms"
        axes.axvline(ms, color="black", linestyle=style, label=label)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("ack latency in ms")
    axes.set_ylabel("% of the requests")
    axes.set_title(
        f"{found['orders_per_minute']:,.0f} orders a minute from"
        f" {found['clients']} clients"
    )
    axes.legend()
    figure.savefig(path, dpi=DPI)


# The command --------------------------------------------------------------


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with status 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m util.stress",
        description="Tell how many orders an exchange handles.",
        epilog="exit status: 0, 1 the protocol was violated or requests were"
        " lost, 2 it could not run",
    )
    add = parser.add_argument
    cores = max((os.cpu_count() or 1) - 1, 1)
    mix = ",".join(f"{kind}={share}" for kind, share in MIX.items())
    given = "(default: %(default)s)"
    add("--url", help="(default: $EXCHANGE_URL, or the local exchange)")
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
    add("--plot", type=picture, metavar="FILE", help="draw the latencies")
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


def picture(text: str) -> Path:
    """Read where to draw to."""
    path = Path(text)
    if path.suffix not in PICTURES:
        raise argparse.ArgumentTypeError(f"ends in none of {PICTURES}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path.parent} is no folder")
    return path


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
    with tempfile.TemporaryDirectory(prefix="stress-") as folder:
        path = "off" if options.journal == "off" else f"{folder}/exchange.db"
        with launched("server.py", journal=path) as (url, pid):
            yield url, pid


def stress(options: argparse.Namespace) -> None:
    """Do what the options ask for, and print what was found.

    Raises Trouble if something was wrong; ExchangeError, Refused or OSError
    if it could not run.
    """
    if options.plot and find_spec("matplotlib") is None:
        raise Trouble("--plot needs matplotlib, which is not installed")
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
    found = figures(plan, run, meter)
    if found["seconds"]:
        print(json.dumps(found) if options.json else tell(found))
        latency = merged(run.reports)
        if options.plot and latency.total:
            draw(options.plot, found, latency)
    if run.trouble is not None:
        raise run.trouble
    if found["lost"]:
        raise Violation(f"requests without a reply: {found['lost']}")
    if not found["seconds"]:
        raise Trouble("it was stopped before anything was measured")


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.stress``; return the exit status."""
    options = parse(arguments)
    try:
        stress(options)
        return 0
    except Trouble as trouble:
        print(f"stress: {trouble}", file=sys.stderr)
        return trouble.status
    except (ExchangeError, Refused, OSError) as error:
        print(f"stress: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stress: interrupted before it began", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
