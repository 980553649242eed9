"""Short worlds with faults: ``python -m util.simulate.worlds N [SEED]``.

In each world an exchange on a simulated disk, and traders with ``client.py``,
live through 20 s of market while the network, the disk and the process fail.
Then all that the traders were told is compared with the journal, and what
their clients show with the exchange. Each world is a seed; the one that is
shown with a failure repeats it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tqdm import tqdm

from util.cli import amount_and_seed, new_parser

from .faulty import Outcome, World

CHUNK = 10  # worlds that a process takes at a time


def play(seed: int) -> Outcome:
    """Let one world happen."""
    return World(seed).run()


def play_all(seeds: range) -> Iterator[Outcome]:
    """Let worlds happen over all processors, in order of the seeds."""
    if len(seeds) == 1:
        _begin()
        yield play(seeds[0])
        return
    with ProcessPoolExecutor(
        min(len(seeds), os.cpu_count() or 1),
        multiprocessing.get_context("spawn"),
        _begin,
    ) as pool:
        yield from pool.map(play, seeds, chunksize=CHUNK)


def _begin() -> None:
    """Log nothing: faults are no news here."""
    logging.disable()


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.simulate.worlds``; return the exit status."""
    parser = new_parser(
        "simulate.worlds",
        "Let exchanges and clients live through faults, in virtual time.",
        "exit status: 0 all invariants held, 1 one was broken",
    )
    amount, seed = amount_and_seed(parser, "N", "number of worlds", arguments)
    print(f"{amount} worlds, seed {seed}", flush=True)
    start = time.perf_counter()
    counts: Counter[str] = Counter()
    broken = 0
    with tqdm(total=amount, unit=" worlds", disable=None) as progress:
        for outcome in play_all(range(seed, seed + amount)):
            progress.update()
            counts += outcome.counts
            if outcome.violation:
                broken += 1
                progress.write(str(outcome))
                sys.stdout.flush()
            elif amount == 1:
                print(f"digest {outcome.digest}")
    took_s = time.perf_counter() - start
    figures = ", ".join(f"{n:,} {what}" for what, n in counts.items())
    print(f"{figures}")
    print(
        f"{amount} worlds in {took_s:.0f} s, {60 * amount / took_s:,.0f} a"
        f" minute: {broken} broken"
    )
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
