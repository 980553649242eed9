"""Measure the exchange: ``python -m util.measure.bench``.

Ratios say more than rates: each figure is measured in turn, in one run,
beside something else. By default that is a server without an exchange
(`util.measure.rival`). With ``--against FOLDER`` it is another checkout, such
as the one before a change, which may be older than this program: it is
started, loaded and read from outside. All servers run in the interpreter of
this program; an exchange chooses its event loop as for a user, and the rival
runs in asyncio's, as a stock server of the websockets library does.

The CPU of the server per order, as the kernel counts it, varies less than
rates do where others use the machine. A ratio above 1 says that this checkout
is better, by more orders or by less CPU.

It prints a Markdown table. Each cell is median (minimum-maximum) of the
rounds; a tenth of the orders cross the spread.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import platform
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from exchange.host.process import (
    FILES_RESERVED,
    GC_THRESHOLDS,
    new_event_loop,
    raise_file_limit,
)
from exchange.journal.sqlite import count_commands
from util.cli import above_0, new_parser, whole
from util.measure.cluster import is_ready
from util.measure.drive import MANY, Figures, Load, drive, fan_out
from util.measure.load import Pace, fine_loop
from util.measure.long_work import Work, held
from util.measure.nats_servers import nats_servers
from util.measure.process import ROOT, Launched, cpu_s, launched

ROUNDS = 5
SECONDS = 2.0
PACE = 2_000  # orders per second, of which the latency is measured
PACED_CLIENTS = 10
READERS = 1_000
HELD = 100_000  # orders that uncross or expire at once
ELECTED = 10_000  # stop orders that one trade elects
READY_S = 0.05  # between questions whether a member leads
RECORDED_S = 3.0  # of trading, in the journal that is recovered
MARKET = f"[instruments.BOND]\nmax_qty = {MANY}\n[account]\nopen_orders = 0\n"
# Units, and whether more of it is better.
IS_RATE = {
    "orders/s": True,
    "us of CPU per order": False,
    "ms of p99": False,
    "us of CPU per update": False,
    "commands/s": True,
    "us of CPU per command": False,
    "operations/s": True,
    "ms of longest wait": False,
}
HEAD = ["what", "this checkout", "beside", "ratio", "floor"]


@dataclass(frozen=True, slots=True)
class Contender:
    """A server to measure, by its folder and its program."""

    name: str
    folder: str = str(ROOT)
    program: tuple[str, ...] = ("server.py",)
    has_journal: bool = True
    has_stream: bool = True  # where a case asks for one


HERE = Contender("this checkout")
ECHO = Contender("stock echo", program=("-m", "util.measure.rival"))
RAW = Contender("raw writes", program=ECHO.program)
IN_MEMORY = Contender("without a journal", has_journal=False)
IN_A_FILE = Contender("journal in a file", has_stream=False)


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure, the rival, and the least ratio aimed at."""

    what: str
    measure: Callable[[Contender, float], Figures]
    rival: Contender | None = None
    floor: str = ""


# What is measured -----------------------------------------------------------


@contextlib.contextmanager
def served(
    side: Contender, journal: Path | str | None = None
) -> Iterator[Launched]:
    """Run a server where accounts may have any number of open orders."""
    with tempfile.TemporaryDirectory() as folder:
        market = Path(folder, "market.toml")
        market.write_text(MARKET)
        with launched(
            *side.program,
            folder=side.folder,
            market=str(market),
            journal="off" if journal is None else str(journal),
        ) as server:
            yield server


def under_load(
    load: Load, side: Contender, seconds: float, has_journal: bool = False
) -> Figures:
    """Measure orders as fast as the windows allow."""
    pace = Pace(load.in_flight * load.per_frame, load.per_frame)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "exchange.db")
        keeps = has_journal and side.has_journal
        with served(side, path if keeps else None) as server:
            found = asyncio.run(drive(server, load, pace, seconds))
    del found["ms of p99"]
    return found


def on_stream(load: Load, side: Contender, seconds: float) -> Figures:
    """Measure orders with the journal on a stream: three servers here."""
    if not side.has_stream:
        return under_load(load, side, seconds, has_journal=True)
    pace = Pace(load.in_flight * load.per_frame, load.per_frame)
    with nats_servers() as servers:
        with served(side, servers.url("bench")) as server:
            while not is_ready(server.url):
                time.sleep(READY_S)
            found = asyncio.run(drive(server, load, pace, seconds))
    del found["ms of p99"]
    return found


def latency(side: Contender, seconds: float) -> Figures:
    """Measure the latency of orders at a fixed rate."""
    pace = Pace(PACE, 1, PACED_CLIENTS / PACE)
    load = Load(PACED_CLIENTS, PACE)
    with (
        served(side) as server,
        asyncio.Runner(loop_factory=fine_loop) as loop,
    ):
        found = loop.run(drive(server, load, pace, seconds))
    return {"ms of p99": found["ms of p99"]}


def to_readers(readers: int, side: Contender, seconds: float) -> Figures:
    """Measure the cost of an update of the book, for each reader."""
    with served(side) as server:
        return asyncio.run(fan_out(server, readers, seconds))


@cache
def recorded(folder: str, side: Contender) -> tuple[Path, int]:
    """Return a journal written by a side, and its number of commands."""
    path = Path(folder, "recorded.db")
    load = Load(10, 8, per_frame=50)
    with served(side, path) as server:
        asyncio.run(drive(server, load, Pace(400, 50), RECORDED_S))
    return path, count_commands(path)


def recovery(
    folder: str, writer: Contender, side: Contender, seconds: float
) -> Figures:
    """Measure the CPU that a server needs until it listens again."""
    path, commands = recorded(folder, writer)
    with tempfile.TemporaryDirectory() as elsewhere:
        with served(side, Path(elsewhere, "empty.db")) as server:
            empty = cpu_s(server.pid) or 0.0
        copy = shutil.copy(path, elsewhere)
        with served(side, Path(copy)) as server:
            full = cpu_s(server.pid) or 0.0
    return {"us of CPU per command": 1e6 * (full - empty) / commands}


def long_work(work: Work, side: Contender, seconds: float) -> Figures:
    """Measure how long others wait for an uncrossing or an expiry."""
    # Half of the orders of a cascade are those that the stop orders meet.
    orders = 2 * ELECTED if work == "cascade" else HELD
    return held(work, orders, side.folder, side.program)


def core(*what: str, side: Contender, unit: str) -> Figures:
    """Measure book or engine in a process of its own."""
    output = subprocess.check_output(
        [sys.executable, "-P", f"{ROOT}/util/measure/core.py", *what],
        cwd=side.folder,
        env=os.environ | {"PYTHONPATH": side.folder},
    )
    return {unit: float(output)}


def book(resting: int, side: Contender, seconds: float) -> Figures:
    """Measure only the book."""
    return core("book", str(resting), side=side, unit="operations/s")


def engine(side: Contender, seconds: float) -> Figures:
    """Measure only the engine."""
    return core("engine", side=side, unit="commands/s")


def cases(folder: str, writer: Contender) -> list[Case]:
    """Return all cases; ``writer`` writes the journal to recover."""
    lone = partial(under_load, Load(1, 1))
    lone_durable = partial(under_load, Load(1, 1), has_journal=True)
    one = partial(under_load, Load(1, 32))
    ten = partial(under_load, Load(10, 8))
    ten_readers = partial(under_load, Load(10, 8, subscribes=True))
    many = partial(under_load, Load(10, 8, per_frame=50))
    journal = partial(under_load, Load(50, 8), has_journal=True)
    return [
        Case("orders, 1 x 1", lone, ECHO, "0.67x"),
        Case("orders, 1 x 1, journal on", lone_durable, IN_MEMORY),
        Case("orders, 1 x 32", one, ECHO, "0.8x"),
        Case("orders, 10 x 8", ten, ECHO, "0.8x"),
        Case("orders, 10 x 8, all of them subscribed", ten_readers),
        Case("orders, 10 x 8, 50 per frame", many),
        Case(f"{PACE:,} orders/s, acknowledged", latency, ECHO, "0.75x"),
        Case(
            f"book to {READERS:,} subscribers",
            partial(to_readers, READERS),
            RAW,
            "0.8x",
        ),
        Case("journal on, 50 x 8", journal, IN_MEMORY, "0.85x"),
        Case(
            "journal on a stream, 50 x 8",
            partial(on_stream, Load(50, 8)),
            IN_A_FILE,
            "0.7x",
        ),
        Case(
            "journal on a stream, 1 x 1",
            partial(on_stream, Load(1, 1)),
            IN_A_FILE,
        ),
        Case("recovery", partial(recovery, folder, writer)),
        Case(
            f"long work: uncrossing of {HELD:,} orders",
            partial(long_work, "uncrossing"),
        ),
        Case(
            f"long work: expiry of {HELD:,} orders",
            partial(long_work, "expiry"),
        ),
        Case(
            f"long work: cascade of {ELECTED:,} stop orders",
            partial(long_work, "cascade"),
        ),
        Case("`Engine.apply`", engine),
        Case("`OrderBook`, 1,000 resting", partial(book, 1_000)),
        Case("`OrderBook`, 1,000,000 resting", partial(book, 1_000_000)),
    ]


# The report -----------------------------------------------------------------


@dataclass(slots=True)
class Row:
    """A figure of a case, as measured on both sides."""

    case: Case
    unit: str
    rival: Contender | None
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    def cells(self) -> list[str]:
        """Return the row of the table."""
        ours = self.ours
        shown = [f"{self.case.what}: {self.unit}", spread(ours)]
        if self.rival is None:
            return [*shown, "", "", ""]
        theirs = self.theirs
        up, down = (ours, theirs) if IS_RATE[self.unit] else (theirs, ours)
        ratio = statistics.median(up) / statistics.median(down)
        each = [a / b for a, b in zip(up, down)]
        return [
            *shown,
            f"{spread(theirs)} ({self.rival.name})",
            f"{ratio:.2f}x ({min(each):.2f}-{max(each):.2f})",
            "" if self.rival.folder != HERE.folder else self.case.floor,
        ]


def spread(values: list[float]) -> str:
    """Return median, minimum and maximum as text."""
    low, middle, high = min(values), statistics.median(values), max(values)
    digits = 0 if middle >= 1_000 else 1 if middle >= 10 else 2
    return f"{middle:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def measured(
    case: Case, rival: Contender | None, rounds: int, seconds: float
) -> list[Row]:
    """Measure a case, both sides in turn."""
    rows: dict[str, Row] = {}
    for number in range(rounds):
        sides = [HERE] if rival is None else [HERE, rival]
        # Neither side is always the first.
        for side in sides[:: -1 if number % 2 else 1]:
            for unit, value in case.measure(side, seconds).items():
                row = rows.setdefault(unit, Row(case, unit, rival))
                (row.ours if side is HERE else row.theirs).append(value)
    return list(rows.values())


def line(cells: list[str]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def interpreter_build() -> str:
    """Say how the interpreter was optimised when it was built."""
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    pgo = "with" if "--enable-optimizations" in options else "without"
    lto = "with" if "--with-lto" in options else "without"
    return f"built {pgo} PGO and {lto} LTO"


def event_loop() -> str:
    """Name the library whose loop runs the exchange of this checkout."""
    with contextlib.closing(new_event_loop()) as loop:
        return type(loop).__module__.partition(".")[0]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with status 2 if it is wrong."""
    parser = new_parser(
        "measure.bench",
        "Measure the exchange, in turn with a server that does nothing, or"
        " with another checkout.",
    )
    add = parser.add_argument
    add(
        "--against",
        type=Path,
        metavar="FOLDER",
        help="another checkout to compare with",
    )
    add(
        "--only",
        default="",
        metavar="TEXT",
        help="only cases with TEXT in their name",
    )
    add("--rounds", type=whole, default=ROUNDS, help="rounds of each case")
    add(
        "--seconds",
        type=above_0,
        default=SECONDS,
        help="seconds to measure in each round",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.measure.bench``; return the exit status."""
    options = parse(arguments)
    other = None
    if options.against is not None:
        other = Contender(str(options.against), str(options.against.resolve()))
    gc.set_threshold(*GC_THRESHOLDS)
    raise_file_limit(READERS + FILES_RESERVED)
    rounds, seconds = options.rounds, options.seconds
    python = f"Python {platform.python_version()}, {interpreter_build()}"
    print(f"{python}; this checkout runs in the loop of {event_loop()}\n")
    print(f"{line(HEAD)}\n{line(['---'] * len(HEAD))}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(folder, other or HERE):
            if options.only in case.what:
                rows = measured(case, other or case.rival, rounds, seconds)
                print(*(line(row.cells()) for row in rows), sep="\n")
                sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
