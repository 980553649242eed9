"""The processes that generate the load of ``util.measure.stress``."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from multiprocessing.connection import Connection

from exchange.host.process import (
    FILES_RESERVED,
    GC_THRESHOLDS,
    raise_file_limit,
)
from exchange.host.settings import CONNECTIONS
from util.measure.histogram import Histogram
from util.measure.load import Link, Pace, fine_loop
from util.measure.process import Trouble, waited_s
from util.measure.trader import Account, Flow, Tally, Trader

LOGIN_S = 10.0  # for one batch of clients to log in
LOGINS_AT_ONCE = 100  # clients of a batch
BEAT_S = 1.0  # between two reports to the parent
DRAIN_S = 10.0  # for the last replies; later ones count as lost
CLOSE_S = 5.0  # for the exchange to close the connections


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do; times in seconds, ``rate`` in requests per second."""

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
    """The counts of one process so far.

    ``total`` is from the start on. ``measured``, ``latency``, CPU time
    (``cpu_s``) and time waiting for a core (``wait_s``) are of the
    ``seconds`` measured.
    """

    total: Tally = field(default_factory=Tally)
    measured: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    cpu_s: float = 0.0
    wait_s: float = 0.0
    latency: Histogram = field(default_factory=Histogram)
    overdue: int = 0  # requests that were due and not sent
    lost: int = 0  # requests without a reply
    trouble: Trouble | None = None
    is_last: bool = False


def trouble_of(reports: list[Report]) -> Trouble | None:
    """Return what ended a run early, if anything did."""
    return next((r.trouble for r in reports if r.trouble is not None), None)


# A process that generates load --------------------------------------------


class Worker:
    """The clients of one process, with a pipe to the parent.

    It sends a ``Report`` when all are logged in, at each beat, and at the
    end. It receives the time to start; any later message stops it.
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
        """Run from start to end."""
        self._loop.add_reader(self._pipe.fileno(), self._on_message)
        try:
            await self._log_in()
            self._pipe.send(self._report)
            await self._generate(await self._start)
        except Trouble as trouble:
            self._failed(trouble)
        self._report.is_last = True
        self._pipe.send(self._report)

    def _on_message(self) -> None:
        """Start or stop; exit if the parent has ended."""
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
        """Connect all clients in batches; raises Trouble."""
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
                    f"no reply to a login within {LOGIN_S:g} s"
                ) from None
            for error in results:
                if isinstance(error, OSError):
                    raise Trouble(f"{self._plan.url}: {error}")
                if error is not None:
                    raise error

    async def _generate(self, start: float) -> None:
        """Run all clients, then wait for the last replies."""
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
        wait_s = waited_s(os.getpid()) or 0.0
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
    """Run one process; ``pairs`` are the pipes of all."""
    pipe = pairs[number][1]
    for end in chain.from_iterable(pairs):
        if end is not pipe:
            end.close()  # or the end of another process would go unnoticed
    raise_file_limit(CONNECTIONS + FILES_RESERVED)
    gc.set_threshold(*GC_THRESHOLDS)
    gc.freeze()

    async def run() -> None:
        await Worker(plan, number, pipe).run()

    with asyncio.Runner(loop_factory=fine_loop if plan.rate else None) as loop:
        loop.run(run())


@contextlib.contextmanager
def workers(plan: Plan) -> Iterator[list[Connection]]:
    """Run the processes that generate load; yield the pipe to each.

    They are forked with SIGINT and SIGTERM blocked: only the parent receives
    Ctrl-C, and stops them.
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
            process.kill()  # it has sent its last report
            process.join()
