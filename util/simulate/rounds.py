"""Many rounds with seeds that follow each other, over all processors."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
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


def rounds(plan: Plan) -> Iterator[Result]:
    """Yield the result of each round, in order of the seeds.

    Ctrl-C ends the rounds. Raises BrokenProcessPool if a process dies.
    """
    seeds = range(plan.seed, plan.seed + plan.runs)
    pool = ProcessPoolExecutor(
        min(plan.runs, os.cpu_count() or 1),
        multiprocessing.get_context("spawn"),
        _ignore_interrupts,
    )
    try:
        yield from pool.map(partial(run_seed, plan), seeds)
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.terminate()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def run_seed(plan: Plan, seed: int) -> Result:
    """Run one of many rounds; what bots print is dropped."""
    with Simulation(
        *plan.bots, seed=seed, out=Nowhere(), **plan.options
    ) as simulation:
        return simulation.run(plan.seconds)


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the process that waits for the results."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
