"""The processes that generate the load of ``util.measure.stress``."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier, Event
from typing import Self

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
BEAT_S = 0.1  # between two looks at whether the run was stopped
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
    """The counts of one process.

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


def trouble_of(reports: list[Report]) -> Trouble | None:
    """Return what ended a run early, if anything did."""
    return next((r.trouble for r in reports if r.trouble is not None), None)


# A process that generates load --------------------------------------------


class Worker:
    """The clients of one process."""

    def __init__(self, plan: Plan, number: int) -> None:
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._total = Tally()
        self._before: Tally | None = None  # when measuring began
        self._began = (0.0, 0.0, 0.0)  # the time, CPU and waiting time then
        self._report = Report(total=self._total)
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

    async def run(self, ready: Barrier, stop: Event) -> Report:
        """Log in, wait until all processes are ready, and run to the end."""
        try:
            await self._log_in()
            await asyncio.to_thread(ready.wait)
            await self._generate(stop)
        except Trouble as trouble:
            self._failed(trouble)
            ready.abort()
        except threading.BrokenBarrierError:
            pass  # another process could not start
        return self._report

    def _failed(self, trouble: Trouble) -> None:
        if self._report.trouble is None:
            self._report.trouble = trouble

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

    async def _generate(self, stop: Event) -> None:
        """Run all clients, then wait for the last replies."""
        plan = self._plan
        start = self._loop.time()
        measured_from = start + plan.warmup
        end = measured_from + plan.seconds
        apart = (plan.pace.interval_s or 0.0) / len(plan.accounts)
        for client, link in self._links.items():
            link.begin(start + client * apart, end, measured_from)
        measuring = self._loop.call_at(measured_from, self._measure)
        while not stop.is_set() and self._loop.time() < end:
            await asyncio.sleep(min(BEAT_S, end - self._loop.time()))
            if self._report.trouble is not None:
                stop.set()
        measuring.cancel()
        self._count()
        await self._finish()

    def _measure(self) -> None:
        self._before = Tally() + self._total
        self._began = self._times()

    def _count(self) -> None:
        report = self._report
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


_shared: list[tuple[Barrier, Event]] = []  # one, in each process


def _prepare(ready: Barrier, stop: Event) -> None:
    """Set a new process up; Ctrl-C is for its parent, which stops it."""
    _shared.append((ready, stop))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    raise_file_limit(CONNECTIONS + FILES_RESERVED)
    gc.set_threshold(*GC_THRESHOLDS)
    gc.freeze()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(2)


def work(plan: Plan, number: int) -> Report:
    """Generate the load of one process; return its counts."""

    async def run() -> Report:
        return await Worker(plan, number).run(*_shared[0])

    with asyncio.Runner(loop_factory=fine_loop if plan.rate else None) as loop:
        return loop.run(run())


class Crew:
    """The processes that generate load; leaving it stops them."""

    def __init__(self, plan: Plan) -> None:
        context = multiprocessing.get_context("fork")
        self._ready = context.Barrier(plan.processes + 1)
        self._stop = context.Event()
        self._pool = ProcessPoolExecutor(
            plan.processes, context, _prepare, (self._ready, self._stop)
        )
        self.reports = [
            self._pool.submit(work, plan, number)
            for number in range(plan.processes)
        ]
        for report in self.reports:
            report.add_done_callback(self._ended)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._pool.shutdown()

    def begin(self) -> bool:
        """Wait until all are logged in; return whether all could start."""
        with contextlib.suppress(threading.BrokenBarrierError):
            self._ready.wait()
            return True
        return False

    def stop(self) -> None:
        """End the run early, if it has not ended."""
        self._stop.set()
        self._ready.abort()

    def _ended(self, report: Future[Report]) -> None:
        if report.exception() is not None:  # the process died
            self._ready.abort()
