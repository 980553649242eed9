"""Many rounds with seeds that follow each other, over all processors."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from .result import Result
from .world import Nowhere, Simulation


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run: the arguments of `Simulation`, and how often.

    ``seconds`` None: as long as a round usually is, or as its flow.
    """

    bots: tuple[str, ...]
    seconds: float | None
    seed: int
    runs: int
    is_json: bool
    journal: Path | None
    options: dict[str, Any]


def rounds(plan: Plan) -> Generator[Result, None, None]:
    """Yield the result of each round, in order of the seeds.

    Ctrl-C ends the rounds, and each process leaves the one it is in: killed,
    it would leave locks behind. Raises BrokenProcessPool if a process dies.
    """
    context = multiprocessing.get_context("spawn")
    ending = context.Event()
    pool = ProcessPoolExecutor(
        min(plan.runs, os.cpu_count() or 1), context, _begin, (ending,)
    )
    try:
        with _interrupts_held_back():
            results = [
                pool.submit(run_seed, plan, seed)
                for seed in range(plan.seed, plan.seed + plan.runs)
            ]
        for future in results:
            result = future.result()
            assert result is not None  # nobody has said that they end
            yield result
    except KeyboardInterrupt:
        pass
    finally:
        ending.set()
        pool.shutdown(cancel_futures=True)


def run_seed(plan: Plan, seed: int) -> Result | None:
    """Run one of many rounds; None: it was left, because they end.

    What bots print is dropped.
    """
    with Simulation(
        *plan.bots, seed=seed, out=Nowhere(), **plan.options
    ) as simulation:
        try:
            simulation.run_until(
                plan.seconds or simulation.round_seconds, _leave_if_ending
            )
        except KeyboardInterrupt:
            return None
        return simulation.end()


# In each process: whether the rounds end.
_ending: Event | None = None


def _begin(ending: Event) -> None:
    """Leave Ctrl-C to the process that waits for the results."""
    global _ending
    _ending = ending
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _leave_if_ending(seconds: float) -> None:
    """Raise KeyboardInterrupt if the rounds end."""
    if _ending is not None and _ending.is_set():
        raise KeyboardInterrupt


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach before they ignore it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
