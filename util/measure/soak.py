"""Run the exchange for hours, as a day with many bots does, and measure it.

``python -m util.measure.soak SECONDS`` runs an exchange with a journal in a
process of its own, and loads it steadily: orders of every kind, clients that
connect, subscribe and leave, slow readers, tables, and an administrator. (An
hour writes about 500 MB of journal, into a temporary folder.) From time to
time the exchange counts what it remembers, its objects, open files and tasks,
and its memory.

It fails if

- anything that has a bound is above it;
- from the end of the first quarter to the end of the run the memory grew by
  more than BYTES_EACH for each entry that bounded histories gained, and 5 %
  and 16 MiB; or the objects by more than OBJECTS_EACH, and 5 % and 10,000;
- more files are open, or more tasks run, at the end than at any time in the
  first quarter, by more than VISITORS;
- the exchange complains, ends, or leaves a request without a reply.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from exchange.gateway import feed
from exchange.host.process import GC_THRESHOLDS, new_event_loop
from exchange.host.settings import load_settings
from exchange.journal import candles, history
from exchange.market import accounts
from orderbook import INTERVALS, MAX_FRAME
from server import Server
from util.cli import above_0, amount_and_seed, new_parser
from util.measure.crowd import (
    OPEN_ORDERS,
    TRADERS,
    VISITING,
    VISITORS,
    Crowd,
    set_up,
)
from util.measure.process import MIB, Launched, launched, resident
from util.measure.wire import PATIENCE_S

# An order with its name and its place in the tables, or a fill: about 320
# bytes, and an object.
BYTES_EACH = 500
OBJECTS_EACH = 2
SAMPLES = 200  # at most
SAMPLE_S = 5.0  # at least, between two of them


# What it remembers ----------------------------------------------------------


def census(server: Server) -> dict[str, tuple[int, int]]:
    """Return the count and the bound of everything that is remembered."""
    gateway = server.gateway
    engine, public = gateway.engine, gateway.feed
    owners = engine.accounts.values()
    count, symbols = len(owners), len(engine.listings)
    states = public._states.values()
    connections = len(server.listener.connections)
    return {
        **_history(gateway.history, count, symbols),
        "finished orders": (
            sum(len(owner.finished) for owner in owners),
            count * accounts.ORDERS_REMEMBERED,
        ),
        "open orders": (
            sum(len(owner.open_orders) for owner in owners),
            count * OPEN_ORDERS,
        ),
        "updates of books": (
            sum(len(state.updates) for state in states),
            symbols * feed.UPDATES_KEPT,
        ),
        "sessions": (
            sum(len(owner.sessions) for owner in owners),
            count * accounts.SESSIONS_REMEMBERED + connections,
        ),
        "deadlines": (len(engine.deadlines), engine.deadlines_max),
        # And the administrator, and the house.
        "accounts": (count, TRADERS + VISITING + 2),
        "followers": (len(public._follows), connections),
        "connected": (len(gateway.links), connections),
    }


def _history(
    past: history.History, owners: int, symbols: int
) -> dict[str, tuple[int, int]]:
    kept = [account.kept for account in past._accounts.values()]
    fills = [account.fills for account in past._accounts.values()]
    series = [
        series
        for candles in past._candles.values()
        for series in candles._kept.values()
    ]
    per_owner = history.RESUME_EVENTS + 2 * history.JOINED + MAX_FRAME
    per_symbol = len(INTERVALS) * candles.CANDLES_KEPT
    trades = past._trades.values()
    return {
        "fills": (sum(map(len, fills)), owners * history.FILLS_KEPT),
        "private events": (sum(kept), owners * per_owner),
        "trades": (sum(map(len, trades)), symbols * history.TRADES_KEPT),
        "candles": (sum(map(len, series)), symbols * per_symbol),
    }


@dataclass(slots=True)
class Sample:
    """What an exchange uses at one moment."""

    entries: int  # in bounded histories
    memory: int  # bytes
    objects: int
    files: int
    tasks: int
    beyond: list[str]  # what is above its bound

    @classmethod
    def of(cls, server: Server) -> Sample:
        """Measure this process."""
        counts = census(server)
        return cls(
            sum(count for count, _ in counts.values()),
            resident(os.getpid()) or 0,
            len(gc.get_objects()),
            len(os.listdir("/proc/self/fd")),
            len(asyncio.all_tasks()),
            [
                f"{name}: {count}, of at most {most}"
                for name, (count, most) in counts.items()
                if count > most
            ],
        )


def judge(samples: list[Sample]) -> list[str]:
    """Return what is wrong with a run, by the rules above."""
    wrong = sorted({line for sample in samples for line in sample.beyond})
    early = samples[: max(1, len(samples) // 4)]
    before, after = early[-1], samples[-1]
    gained = max(0, after.entries - before.entries)
    files = max(sample.files for sample in early) + VISITORS
    tasks = max(sample.tasks for sample in early) + VISITORS
    memory = gained * BYTES_EACH + before.memory // 20 + 16 * MIB
    objects = gained * OBJECTS_EACH + before.objects // 20 + 10_000
    for what, grown, allowed in (
        ("bytes", after.memory - before.memory, memory),
        ("objects", after.objects - before.objects, objects),
        ("open files", after.files, files),
        ("tasks", after.tasks, tasks),
    ):
        if grown > allowed:
            wrong.append(f"{grown:,} {what}, and {allowed:,} are allowed")
    return wrong


# The exchange ---------------------------------------------------------------


def serve() -> None:
    """Run an exchange in this process, by the settings in its environment."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve())


async def _serve() -> None:
    """Answer each line of standard input with a sample."""
    gc.set_threshold(*GC_THRESHOLDS)
    server = Server(load_settings())
    await server.start()
    gc.freeze()
    print(server.url, flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(asdict(Sample.of(server))), flush=True)
    await server.stop()
    assert server.listener.errors == 0
    if server.failure.done():
        raise server.failure.result()


# The run --------------------------------------------------------------------


async def soak(seconds: float, seed: int) -> list[str]:
    """Load an exchange for ``seconds``; return what was wrong with it."""
    with tempfile.TemporaryDirectory() as folder:
        settings, tokens = set_up(Path(folder))
        program = ("-c", "from util.measure.soak import serve; serve()")
        with launched(*program, **settings) as server:
            crowd = Crowd(server.url, tokens, seed)
            loading = asyncio.ensure_future(crowd.run())
            samples = []
            start = time.monotonic()
            while time.monotonic() < start + seconds:
                await asyncio.wait(
                    [loading], timeout=max(SAMPLE_S, seconds / SAMPLES)
                )
                if loading.done():
                    loading.result()
                samples.append(await sample(server))
                report(time.monotonic() - start, crowd.answered, samples[-1])
            loading.cancel()
            await asyncio.wait([loading])
            status, errors = await server.ended()
    wrong = judge(samples)
    if status or errors:
        wrong.append(f"ended with {status}: {errors}")
    return wrong


async def sample(server: Launched) -> Sample:
    """Ask an exchange for a sample."""
    async with asyncio.timeout(PATIENCE_S):
        return Sample(**json.loads(await server.ask("")))


def report(elapsed_s: float, requests: int, now: Sample) -> None:
    """Print a sample."""
    print(
        f"{elapsed_s:7.0f} s {requests:12,} requests"
        f" {now.memory / MIB:7.1f} MiB {now.objects:10,} objects"
        f" {now.entries:10,} entries {now.files:4} files {now.tasks:3} tasks",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.measure.soak``; return the exit status."""
    parser = new_parser(
        "measure.soak", "Load the exchange for hours and look for growth."
    )
    seconds, seed = amount_and_seed(
        parser, "SECONDS", "how long it is loaded", arguments, above_0
    )
    print(f"{seconds:g} s, seed {seed}", flush=True)
    wrong = asyncio.run(soak(seconds, seed))
    print("\n".join(wrong) or "no growth that is not explained")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
