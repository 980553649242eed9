"""Set bad bots on the exchange: ``python -m util.measure.hostile``.

Beside each attack a few well-behaved clients, the canaries, place and cancel
at a fixed rate. Each attack gets an exchange of its own, twice: ``open`` is
what one runs at a desk, where nothing is limited; ``guarded`` has the limits
that hold where strangers come in.

Everybody is on one machine, and should not be: the exchange gets a processor
of its own, and the bad bots run in a process that has the other one only when
the canaries do not want it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from exchange.host.market_file import BURST, OPEN_ORDERS, ORDERS_PER_S
from exchange.host.process import raise_file_limit
from exchange.host.settings import (
    CONNECTIONS_PER_ACCOUNT,
    CONNECTIONS_PER_ADDRESS,
)
from util.cli import utf8
from util.measure.histogram import Histogram
from util.measure.hostile.bots import ATTACKS, Stage
from util.measure.hostile.canary import ANSWER_S, RATE, Canary
from util.measure.load import fine_loop
from util.measure.process import MIB, Launched, launched, resident
from util.measure.trader import look

SECONDS = 5.0  # of calm, and again of each attack
WARM_UP_S = 0.5  # of the canaries; not counted
CANARIES = 5
WEIGH_S = 0.1  # between two looks at the memory
SCRAPE_S = 1.0  # between two looks at the figures of the exchange
LOOKS = 10  # after the attack, until one succeeds
NICENESS = 19  # of the bad bots, where there is nothing better
FILES = 4_096  # open at a time, of the bad bots
# The figures that can name somebody, and the label that does, in the order
# in which they are believed.
NAMING = {
    "exchange_requests_total": "account",
    "exchange_outbox_bytes": "account",
    "exchange_connections": "address",
    "exchange_connections_opened_total": "address",
}
GUARDED = f"""\
[instruments.BOND]
[account]
orders_per_s = {ORDERS_PER_S}
burst = {BURST}
open_orders = {OPEN_ORDERS}
"""

Figures: TypeAlias = Counter[tuple[str, str]]  # of NAMING, by figure and name


@dataclass
class Result:
    """What an attack did to the canaries, and the exchange to the attacker.

    Delays in milliseconds, memory in MiB; None where it cannot be known.
    """

    attack: str
    server: str
    calm_p50_ms: float = 0.0
    calm_p99_ms: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    ratio: float = 0.0  # of the two p99
    memory_mib: float | None = None  # grown by, at most
    refused: dict[str, int] = field(default_factory=dict)  # by code
    closed: dict[str, int] = field(default_factory=dict)  # by close code
    named: str = "-"  # whom the exchange's own figures make out
    faults: list[str] = field(default_factory=list)


# What the exchange shows of itself ------------------------------------------


def read_figures(url: str) -> Figures | None:
    """Return the figures that can name somebody; None if there are none."""
    parts = urlsplit(url)
    address = f"http://{parts.hostname}:{parts.port}/metrics"
    try:
        with urllib.request.urlopen(address, timeout=ANSWER_S) as answer:
            text = answer.read().decode()
    except OSError:
        return None
    figures: Figures = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in NAMING:
                name = sample.labels[NAMING[sample.name]]
                figures[sample.name, name] += int(sample.value)
    return figures


def culprit(before: Figures, after: Figures) -> str:
    """Return the name that most of the growth of some figure belongs to."""
    for figure in NAMING:
        growth = {
            name: value - before[figure, name]
            for (of, name), value in after.items()
            if of == figure
        }
        top = max(growth, key=growth.__getitem__, default="")
        if top and growth[top] > sum(growth.values()) / 2:
            return top
    return "-"


class Watch:
    """Looks at an exchange while it is attacked."""

    def __init__(self, url: str, server: Launched | None) -> None:
        self._url = url
        self._pid = server.pid if server else None
        self._memory = [resident(self._pid) or 0]
        self._before = read_figures(url)
        self._most: Figures = Counter()

    async def keep(self) -> None:
        """Note the greatest values, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._weigh())
            if self._before is not None:
                group.create_task(self._scrape())

    async def _weigh(self) -> None:
        while True:
            await asyncio.sleep(WEIGH_S)
            self._memory.append(resident(self._pid) or 0)

    async def _scrape(self) -> None:
        while True:
            await asyncio.sleep(SCRAPE_S)
            await self.look()

    async def look(self) -> bool:
        """Note the figures; return whether there were any."""
        figures = await asyncio.to_thread(read_figures, self._url)
        self._most |= figures or Counter()
        return figures is not None

    async def look_back(self) -> None:
        """Note the figures after all, as soon as the exchange shows them."""
        for _ in range(LOOKS):
            if await self.look():
                break
            await asyncio.sleep(WEIGH_S)

    @property
    def growth_mib(self) -> float | None:
        """By how much the memory was greater than before, at most."""
        if not self._pid:
            return None
        return (max(self._memory) - self._memory[0]) / MIB

    @property
    def named(self) -> str:
        """Whom the figures of the exchange make out; "-": nobody."""
        return culprit(self._before or Counter(), self._most)


# One attack -----------------------------------------------------------------


@contextlib.contextmanager
def exchange(kind: str) -> Iterator[Launched]:
    """Run an exchange, "open" or "guarded", on a processor of its own."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {}
        if kind == "guarded":
            market = Path(folder, "market.toml")
            market.write_text(GUARDED)
            settings = {
                "market": str(market),
                "max_per_account": str(CONNECTIONS_PER_ACCOUNT),
                "max_per_address": str(CONNECTIONS_PER_ADDRESS),
            }
        mine = allowed()
        with launched(**settings) as server:
            try:
                if len(mine) > 1:
                    os.sched_setaffinity(server.pid, mine[:1])
                    os.sched_setaffinity(0, mine[1:])
                yield server
            finally:
                if len(mine) > 1:
                    os.sched_setaffinity(0, mine)
                server.process.kill()


def allowed() -> list[int]:
    """Return the processors to share out, if one can."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))


async def end(server: Launched) -> list[str]:
    """End an exchange in order; return what was wrong with it."""
    faults = []
    status = server.process.poll()
    if status is None:
        server.process.terminate()
    else:
        faults.append(f"the exchange ended with {status}")
    _, errors = await server.ended()
    if errors:
        faults.append(f"the exchange complained: {errors}")
    return faults


async def assail(attack: str, stage: Stage) -> None:
    """Say that one is ready, attack when told to, and tell the tally."""
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(NICENESS)
    raise_file_limit(FILES)
    print("ready", flush=True)
    sys.stdin.readline()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(stage.seconds):
            await ATTACKS[attack](stage)
    print(json.dumps(vars(stage.tally)), flush=True)


async def run(
    attack: str, kind: str, url: str, server: Launched | None, seconds: float
) -> Result:
    """Let canaries sing in calm, and then beside an attack."""
    loop = asyncio.get_running_loop()
    result = Result(attack, kind)
    url, flow = await look(url, {})
    canaries = [Canary(f"canary{n}", flow) for n in range(1, CANARIES + 1)]
    calm, bad = Histogram(), Histogram()
    program = ("-m", "util.measure.hostile", "--assail", attack)
    with launched(*program, "--url", url, f"--seconds={seconds}") as attacker:
        start = loop.time() + WARM_UP_S
        async with asyncio.TaskGroup() as group:
            for number, canary in enumerate(canaries):
                canary.measure(calm, start + WARM_UP_S)
                shift = number / CANARIES / RATE
                group.create_task(canary.sing(url, start + shift))
            await asyncio.sleep(2 * WARM_UP_S + seconds)
            watch = Watch(url, server)
            watching = asyncio.ensure_future(watch.keep())
            for canary in canaries:
                canary.measure(bad, loop.time())
            told = json.loads(await attacker.ask("go"))
            watching.cancel()
            await watch.look_back()
            for canary in canaries:
                canary.hush()
    if calm.total and bad.total:
        result.calm_p50_ms = calm.percentile_ms(50)
        result.calm_p99_ms = calm.percentile_ms(99)
        result.p50_ms = bad.percentile_ms(50)
        result.p99_ms = bad.percentile_ms(99)
        result.ratio = result.p99_ms / result.calm_p99_ms
    result.refused, result.closed = told["refused"], told["closed"]
    result.memory_mib, result.named = watch.growth_mib, watch.named
    result.faults = [f"{c.name}: {f}" for c in canaries for f in c.faults]
    if server is not None:
        result.faults += await end(server)
    return result


def run_on(attack: str, kind: str, url: str | None, seconds: float) -> Result:
    """Run an attack on the exchange at a URL, or on one of its own."""
    with asyncio.Runner(loop_factory=fine_loop) as loop:
        if url is not None:
            return loop.run(run(attack, kind, url, None, seconds))
        with exchange(kind) as server:
            return loop.run(run(attack, kind, server.url, server, seconds))


# The report -----------------------------------------------------------------

COLUMNS = "{:<12}{:<8}{:>16}{:>17}{:>8}{:>9}  {}"
HEAD = COLUMNS.format(
    *("attack", "server", "calm p50/p99 ms", "attack p50/p99", "ratio"),
    *("MiB", "what the exchange did, and whom it names"),
)


def counted(counts: dict[str, int]) -> str:
    """Return counts as text, the greatest first."""
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{count:,} {what}" for what, count in ranked) or "none"


def tell(result: Result) -> str:
    """Return a result as lines of the table."""
    memory = result.memory_mib
    line = COLUMNS.format(
        result.attack,
        result.server,
        f"{result.calm_p50_ms:.1f}/{result.calm_p99_ms:.1f}",
        f"{result.p50_ms:.1f}/{result.p99_ms:.1f}",
        f"{result.ratio:.1f}x",
        "-" if memory is None else f"{memory:+.0f}",
        f"refused: {counted(result.refused)};"
        f" closed: {counted(result.closed)}; names {result.named}",
    )
    return "\n".join([line, *(f"  ! {fault}" for fault in result.faults)])


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with status 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m util.measure.hostile",
        description="Set bad bots on the exchange, beside good ones.",
        epilog="exit status: 0; 1 if a good bot was disconnected, one of its"
        " orders was lost or not answered, or the exchange ended or"
        " complained",
    )
    add = parser.add_argument
    add(
        "--attack",
        action="append",
        choices=ATTACKS,
        help="may be repeated (default: all of them)",
    )
    add(
        "--seconds",
        type=float,
        default=SECONDS,
        help="of calm, and of each attack (default: %(default)g)",
    )
    add(
        "--url",
        type=utf8,
        help="an exchange where a name is enough to log in (default: for"
        " each attack one without limits, then one with them)",
    )
    add("--json", action="store_true", help="print JSON")
    add("--assail", choices=ATTACKS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.measure.hostile``; return the exit status."""
    options = parse(arguments)
    if options.assail:
        parts = urlsplit(options.url)
        stage = Stage(parts.hostname, parts.port, options.seconds)
        asyncio.run(assail(options.assail, stage))
        return 0
    if not options.json:
        print(
            f"{CANARIES} canaries, {RATE} requests a second each;"
            f" {options.seconds:g} s of calm and of attack\n{HEAD}",
            flush=True,
        )
    results = []
    for attack in options.attack or ATTACKS:
        for kind in ["given"] if options.url else ["open", "guarded"]:
            result = run_on(attack, kind, options.url, options.seconds)
            results.append(result)
            if not options.json:
                print(tell(result), flush=True)
    if options.json:
        print(json.dumps(list(map(asdict, results)), indent=2))
    return int(any(result.faults for result in results))


if __name__ == "__main__":
    sys.exit(main())
