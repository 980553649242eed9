"""Attack the exchange with bad bots: ``python -m util.measure.hostile``.

Beside each attack a few well-behaved clients, the canaries, place and cancel
at a fixed rate. Each attack gets an exchange of its own, twice: ``open`` has
no limits, as at a desk; ``guarded`` has the limits of an exchange that is
open to strangers.

All run on one machine: the exchange gets a processor of its own, and the bad
bots run in a process that uses the other one only when the canaries do not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from exchange.host.market_file import BURST, OPEN_ORDERS, ORDERS_PER_S
from exchange.host.settings import (
    CONNECTIONS_PER_ACCOUNT,
    CONNECTIONS_PER_ADDRESS,
)
from util.cli import above_0, new_parser
from util.measure.histogram import Histogram
from util.measure.hostile.attacks import ATTACKS
from util.measure.hostile.canary import RATE, Canary
from util.measure.lines import DOORS, door_ports, doors_table
from util.measure.load import fine_loop
from util.measure.process import MIB, Launched, launched, resident
from util.measure.trader import look

SECONDS = 5.0  # of calm, and again of each attack
WARM_UP_S = 0.5  # of the canaries; not counted
CANARIES = 5
WEIGH_S = 0.1  # between two readings of the memory
OPEN = "[instruments.BOND]\nself_trades = true\n"
GUARDED = f"""\
{OPEN}[account]
orders_per_s = {ORDERS_PER_S}
burst = {BURST}
open_orders = {OPEN_ORDERS}
"""


@dataclass
class Result:
    """What an attack did to the canaries, and the exchange to the attacker."""

    attack: str
    server: str
    calm: Histogram  # delays of the canaries before the attack
    bad: Histogram  # and during it
    refused: dict[str, int]  # by code
    closed: dict[str, int]  # by close code
    memory_mib: float = 0.0  # growth of the exchange, at most
    faults: list[str] = field(default_factory=list)


class Memory:
    """The memory of a process, and its largest growth."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._first = self._most = resident(pid) or 0

    async def watch(self) -> None:
        """Record the largest value, until cancelled."""
        while True:
            await asyncio.sleep(WEIGH_S)
            self._most = max(self._most, resident(self._pid) or 0)

    @property
    def growth_mib(self) -> float:
        """The largest growth since the start, in MiB."""
        return (self._most - self._first) / MIB


# One attack -----------------------------------------------------------------


@contextlib.contextmanager
def exchange(kind: str) -> Iterator[tuple[Launched, dict[str, int]]]:
    """Run an exchange, "open" or "guarded", on a processor of its own.

    Also yield the ports of its doors.
    """
    ports = door_ports()
    with tempfile.TemporaryDirectory() as folder:
        market = Path(folder, "market.toml")
        is_guarded = kind == "guarded"
        text = GUARDED if is_guarded else OPEN
        market.write_text(text + doors_table(ports))
        settings = {"market": str(market)}
        if is_guarded:
            settings["max_per_account"] = str(CONNECTIONS_PER_ACCOUNT)
            settings["max_per_address"] = str(CONNECTIONS_PER_ADDRESS)
        mine = allowed()
        with launched(**settings) as server:
            try:
                if len(mine) > 1:
                    os.sched_setaffinity(server.pid, mine[:1])
                    os.sched_setaffinity(0, mine[1:])
                yield server, ports
            finally:
                if len(mine) > 1:
                    os.sched_setaffinity(0, mine)
                server.process.kill()


def allowed() -> list[int]:
    """Return the processors that this process may use, if known."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))


async def end(server: Launched) -> list[str]:
    """End an exchange in order; return what was wrong."""
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


async def run(
    attack: str,
    kind: str,
    server: Launched,
    doors: Mapping[str, int],
    seconds: float,
) -> Result:
    """Measure the canaries in calm, and then beside an attack."""
    loop = asyncio.get_running_loop()
    url, flow = await look(server.url, {})
    port = url.rpartition(":")[2]
    canaries = [Canary(f"canary{n}", flow) for n in range(1, CANARIES + 1)]
    calm, bad = Histogram(), Histogram()
    program = ("-m", "util.measure.hostile.attacks", attack, f"{seconds}")
    ports = (port, *(f"{doors[door]}" for door in DOORS))
    with launched(*program, *ports) as attacker:
        start = loop.time() + WARM_UP_S
        async with asyncio.TaskGroup() as group:
            for number, canary in enumerate(canaries):
                canary.measure(calm, start + WARM_UP_S)
                shift = number / CANARIES / RATE
                group.create_task(canary.sing(url, start + shift))
            await asyncio.sleep(2 * WARM_UP_S + seconds)
            memory = Memory(server.pid)
            watching = asyncio.ensure_future(memory.watch())
            for canary in canaries:
                canary.measure(bad, loop.time())
            tally = json.loads(await attacker.ask("go"))
            watching.cancel()
            for canary in canaries:
                canary.hush()
    result = Result(attack, kind, calm, bad, tally["refused"], tally["closed"])
    result.memory_mib = memory.growth_mib
    result.faults = [f"{c.name}: {f}" for c in canaries for f in c.faults]
    result.faults += await end(server)
    return result


def run_on(attack: str, kind: str, seconds: float) -> Result:
    """Run an attack on an exchange of its own."""
    with (
        asyncio.Runner(loop_factory=fine_loop) as loop,
        exchange(kind) as (server, doors),
    ):
        return loop.run(run(attack, kind, server, doors, seconds))


# The report -----------------------------------------------------------------

COLUMNS = "{:<12}{:<8}{:>16}{:>17}{:>8}{:>9}  {}"
HEAD = COLUMNS.format(
    *("attack", "server", "calm p50/p99 ms", "attack p50/p99", "ratio"),
    *("MiB", "what the exchange did"),
)


def counted(counts: dict[str, int]) -> str:
    """Return counts as text, the largest first."""
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{count:,} {what}" for what, count in ranked) or "none"


def as_text(result: Result) -> str:
    """Return a result as lines of the table."""
    memory, calm, bad = result.memory_mib, result.calm, result.bad
    p99_ms, calm_p99_ms = bad.percentile_ms(99), calm.percentile_ms(99)
    line = COLUMNS.format(
        result.attack,
        result.server,
        f"{calm.percentile_ms(50):.1f}/{calm_p99_ms:.1f}",
        f"{bad.percentile_ms(50):.1f}/{p99_ms:.1f}",
        f"{p99_ms / calm_p99_ms:.1f}x" if calm_p99_ms else "-",
        f"{memory:+.0f}",
        f"refused: {counted(result.refused)};"
        f" closed: {counted(result.closed)}",
    )
    return "\n".join([line, *(f"  ! {fault}" for fault in result.faults)])


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with status 2 if it is wrong."""
    parser = new_parser(
        "measure.hostile",
        "Attack an exchange, and measure what that does to other clients.",
        "exit status: 0 done, 1 a good client was disconnected, one of its"
        " orders was lost or got no reply, or the exchange ended or"
        " complained",
    )
    parser.add_argument(
        "--attack",
        action="append",
        choices=ATTACKS,
        help="attack to run; may be repeated (default: all of them)",
    )
    parser.add_argument(
        "--seconds",
        type=above_0,
        default=SECONDS,
        help="seconds of calm, and as many of each attack",
    )
    return parser.parse_args(arguments)


def main(
    arguments: list[str] | None = None,
    run_on: Callable[[str, str, float], Result] = run_on,
) -> int:
    """Run ``python -m util.measure.hostile``; return the exit status."""
    options = parse(arguments)
    print(
        f"{CANARIES} canaries, {RATE} requests per second each;"
        f" {options.seconds:g} s of calm and of attack\n{HEAD}",
        flush=True,
    )
    is_faulty = False
    for attack in options.attack or ATTACKS:
        for kind in ("open", "guarded"):
            result = run_on(attack, kind, options.seconds)
            is_faulty |= bool(result.faults)
            print(as_text(result), flush=True)
    return int(is_faulty)


if __name__ == "__main__":
    sys.exit(main())
