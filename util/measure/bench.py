"""Measure the exchange: ``python -m util.measure.bench``.

Ratios tell more than rates: each figure is measured by turns, in one run,
beside something else. By itself that is the stock echo server of the
websockets library, or raw writes. With ``--against FOLDER`` it is the code of
another checkout, such as the one before a change, which may be older than
this program: it is started, loaded and read from outside.

CPU of the server per order, as the kernel counts it, moves less than rates
do where others use the machine. A ratio above 1 says that this checkout is
the better one, be it more orders or less CPU.

The load generator is this process. It writes ready-made requests and counts
replies without parsing them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import math
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import cache, partial
from importlib.metadata import version
from itertools import count
from pathlib import Path

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError

from orderbook import Login, Place, Side, encode
from server import FILES_RESERVED, GC_THRESHOLDS, raise_file_limit
from util.measure.histogram import Histogram
from util.measure.load import Link, Pace, fine_loop
from util.measure.process import ROOT, Launched, Trouble, cpu_s, launched

ROUNDS = 5
SECONDS = 2.0
WARM_UP = 0.2  # of the seconds; not counted
MID = 50_000  # the price around which everything happens
MOULDS = 1_009  # different orders
FIRST_NUMBER = 1_000_000
CROSSING = 0.1  # of the orders; each trades with some two others
PACE = 2_000  # orders per second, of which the latency is measured
PACED_CLIENTS = 10
READERS = 1_000
RECORDED_S = 3.0  # of trading, in the journal that is read again
MANY = 1_000_000_000  # lots
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
}

Figures = dict[str, float]  # by unit


@dataclass(frozen=True, slots=True)
class Contender:
    """What is measured: a server, by the folder and the program."""

    name: str
    folder: str = str(ROOT)
    program: tuple[str, ...] = ("server.py",)
    has_journal: bool = True


HERE = Contender("this checkout")
ECHO = Contender("stock echo", program=("-m", "util.measure.bench", "--echo"))
RAW = Contender("raw writes", program=("-m", "util.measure.bench", "--raw"))
IN_MEMORY = Contender("without a journal", has_journal=False)


@dataclass(frozen=True, slots=True)
class Load:
    """How many clients keep how many frames of how many orders in flight.

    With ``subscribes`` each of them follows the book and the trades.
    """

    clients: int
    in_flight: int
    per_frame: int = 1
    subscribes: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure, beside what, and the least ratio aimed at."""

    what: str
    measure: Callable[[Contender, float], Figures]
    rival: Contender | None = None
    floor: str = ""


# The load -------------------------------------------------------------------


def orders(prefix: str) -> Iterator[str]:
    """Yield orders without end: small ones near the top of the book.

    Only the numbers in them are new each time, for the load generator must
    cost little.
    """
    dice = random.Random(prefix)
    moulds: list[list[str]] = []
    for _ in range(MOULDS):
        side: Side = "buy" if dice.random() < 0.5 else "sell"
        offset = dice.randint(1, 10)
        if dice.random() < CROSSING:
            offset = -3
        order = Place(
            id=FIRST_NUMBER,
            symbol="BOND",
            side=side,
            qty=dice.randint(1, 10),
            price=MID - offset if side == "buy" else MID + offset,
            client_order_id=f"{prefix}-{FIRST_NUMBER}",
        )
        moulds.append(encode(order).split(str(FIRST_NUMBER)))
    for number in count(FIRST_NUMBER):
        yield str(number).join(moulds[number % MOULDS])


class Counter:
    """A client that believes what it is told: a reply is an ``"id":``."""

    is_raw = True
    mark = b'"id":'

    def __init__(self, name: str, subscribes: bool = False) -> None:
        self.is_ready = False
        self.hold_until = 0.0
        self.measured_from = math.inf
        self.unanswered: deque[float] = deque()  # when each was due
        self.replies = 0
        self.latency = Histogram()
        self._name = name
        self._subscribes = subscribes
        self._orders = orders(name)
        self._tail = b""  # of the last read: a mark may be cut in two

    def login(self) -> str:
        """Return the requests to begin with, of which one has an id."""
        login = encode(Login(id=0, user=self._name))
        if not self._subscribes:
            return login
        return f'[{login},{{"type":"subscribe","channels":["book","trades"]}}]'

    def request(self, due: float) -> str:
        """Return the next request, which is due at that time."""
        self.unanswered.append(due)
        return next(self._orders)

    def read(self, data: bytes, now: float) -> None:
        """Count the replies."""
        marks = self._count(data)
        if not self.is_ready:
            self.is_ready = marks > 0
            return
        for _ in range(marks):
            due = self.unanswered.popleft()
            if now >= self.measured_from:
                self.replies += 1
                self.latency.record(int((now - due) * 1_000_000))

    def _count(self, data: bytes) -> int:
        data = self._tail + data
        self._tail = data[1 - len(self.mark) :]
        return data.count(self.mark)


class Partner(Counter):
    """The other side of a lone trader: two orders that are never used up.

    They stand nearer to the middle than anything the trader rests, so that
    it never meets itself.
    """

    def login(self) -> str:
        """Return the requests to begin with, of which one has an id."""
        quotes = [
            Place(symbol="BOND", side="buy", qty=MANY, price=MID),
            Place(symbol="BOND", side="sell", qty=MANY, price=MID + 1),
        ]
        requests = [encode(Login(user=self._name)), *map(encode, quotes)]
        return f"[{','.join(requests)},{{\"type\":\"ping\",\"id\":0}}]"


class Reader(Counter):
    """A subscriber of the book, who counts its updates."""

    mark = b'"type":"book"'

    def login(self) -> str:
        """Return the request to begin with; a snapshot is the answer."""
        return '{"type":"subscribe","id":0,"channels":["book"]}'

    def read(self, data: bytes, now: float) -> None:
        """Count the updates."""
        self.replies += self._count(data)
        self.is_ready = self.replies > 0


def fail(trouble: Trouble) -> None:
    """Stop the measurement: a lost connection would falsify it."""
    raise trouble


async def connect(url: str, clients: list[Counter], pace: Pace) -> list[Link]:
    """Return a connection for each client, logged in."""
    links = [Link(url, client, pace, fail) for client in clients]
    for link in links:
        await link.open()
    return links


@contextlib.contextmanager
def served(side: Contender, journal: Path | None = None) -> Iterator[Launched]:
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


# What is measured -----------------------------------------------------------


async def drive(
    server: Launched, load: Load, pace: Pace, seconds: float
) -> Figures:
    """Load a server, and return what an order took."""
    loop = asyncio.get_running_loop()
    clients: list[Counter] = [
        Counter(f"bot{number}", load.subscribes)
        for number in range(load.clients)
    ]
    others = await connect(
        server.url, [Partner("partner")] if load.clients == 1 else [], pace
    )
    links = await connect(server.url, clients, pace)
    start = loop.time()
    measured_from = start + WARM_UP * seconds
    for number, link in enumerate(links):
        shift = (pace.interval_s or 0.0) * number / len(links)
        link.begin(start + shift, math.inf, measured_from)
    await asyncio.sleep(measured_from - loop.time())
    used, began = cpu_s(server.pid), loop.time()
    before = sum(client.replies for client in clients)
    await asyncio.sleep(seconds)
    replies = sum(client.replies for client in clients) - before
    elapsed = loop.time() - began
    cpu = (cpu_s(server.pid) or 0.0) - (used or 0.0)
    for link in links + others:
        link.abort()
    latency = Histogram()
    for client in clients:
        latency.add(client.latency)
    return {
        "orders/s": replies / elapsed,
        "us of CPU per order": 1e6 * cpu / max(replies, 1),
        "ms of p99": latency.percentile_ms(99),
    }


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


def latency(side: Contender, seconds: float) -> Figures:
    """Measure how long orders take that come at a fixed rate."""
    pace = Pace(PACE, 1, PACED_CLIENTS / PACE)
    load = Load(PACED_CLIENTS, PACE)
    with (
        served(side) as server,
        asyncio.Runner(loop_factory=fine_loop) as loop,
    ):
        found = loop.run(drive(server, load, pace, seconds))
    return {"ms of p99": found["ms of p99"]}


async def fan_out(server: Launched, readers: int, seconds: float) -> Figures:
    """Move the book, an order at a time, before many readers."""
    loop = asyncio.get_running_loop()
    clients: list[Counter] = [Reader("") for _ in range(readers)]
    links = await connect(server.url, clients, Pace(1, 1))
    [mover] = await connect(server.url, [Counter("mover")], Pace(1, 1))
    mover.begin(loop.time(), math.inf, math.inf)
    await asyncio.sleep(WARM_UP * seconds)
    used = cpu_s(server.pid) or 0.0
    before = sum(client.replies for client in clients)
    await asyncio.sleep(seconds)
    cpu = (cpu_s(server.pid) or 0.0) - used
    updates = sum(client.replies for client in clients) - before
    for link in (*links, mover):
        link.abort()
    return {"us of CPU per update": 1e6 * cpu / max(updates, 1)}


def to_readers(readers: int, side: Contender, seconds: float) -> Figures:
    """Measure what an update of the book costs for each reader."""
    with served(side) as server:
        return asyncio.run(fan_out(server, readers, seconds))


@cache
def recorded(folder: str, side: Contender) -> tuple[Path, int]:
    """Return a journal that a side has written, and how many commands."""
    path = Path(folder, "recorded.db")
    load = Load(10, 8, per_frame=50)
    with served(side, path) as server:
        found = asyncio.run(drive(server, load, Pace(400, 50), RECORDED_S))
    # The rate holds for the time before it is measured, too, or nearly so.
    seconds = RECORDED_S * (1 + WARM_UP)
    return path, round(found["orders/s"] * seconds)


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


def core(*what: str, side: Contender, unit: str) -> Figures:
    """Measure book or engine alone, in a process of its own."""
    output = subprocess.check_output(
        [sys.executable, "-P", f"{ROOT}/util/measure/core.py", *what],
        cwd=side.folder,
        env=os.environ | {"PYTHONPATH": side.folder},
    )
    return {unit: float(output)}


def book(resting: int, side: Contender, seconds: float) -> Figures:
    """Measure the book alone."""
    return core("book", str(resting), side=side, unit="operations/s")


def engine(side: Contender, seconds: float) -> Figures:
    """Measure the engine alone."""
    return core("engine", side=side, unit="commands/s")


def cases(folder: str, writer: Contender) -> list[Case]:
    """Return all that is measured; ``writer`` writes what is recovered."""
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
        Case("recovery", partial(recovery, folder, writer)),
        Case("`Engine.apply`", engine),
        Case("`OrderBook`, 1,000 resting", partial(book, 1_000)),
        Case("`OrderBook`, 1,000,000 resting", partial(book, 1_000_000)),
    ]


# Other servers --------------------------------------------------------------


async def echo() -> None:
    """Serve the stock echo: every frame is answered with itself."""

    async def answer(connection: ServerConnection) -> None:
        # A measurement ends without a closing handshake.
        with contextlib.suppress(ConnectionClosedError):
            async for message in connection:
                await connection.send(message)

    async with serve(answer, "127.0.0.1", 0, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        print(f"Echo on ws://127.0.0.1:{port}", flush=True)
        await server.serve_forever()


async def write_raw() -> None:
    """Serve without an exchange: a frame of a mover goes to all readers."""
    update = b"\x81\x7e\x00\x68" + Reader.mark + b"x" * (104 - 13)
    everybody: list[asyncio.Transport] = []

    async def answer(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosedError):
            async for message in connection:
                if "subscribe" in message:
                    everybody.append(connection.transport)
                    connection.transport.write(update)
                else:
                    for transport in everybody:
                        transport.write(update)
                    await connection.send('{"id":1}')

    async with serve(answer, "127.0.0.1", 0, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        print(f"Raw on ws://127.0.0.1:{port}", flush=True)
        await server.serve_forever()


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
    """Measure a case, both sides by turns."""
    rows: dict[str, Row] = {}
    for number in range(rounds):
        sides = [HERE] if rival is None else [HERE, rival]
        # Neither side is always the first.
        for side in sides[:: -1 if number % 2 else 1]:
            for unit, value in case.measure(side, seconds).items():
                row = rows.setdefault(unit, Row(case, unit, rival))
                (row.ours if side is HERE else row.theirs).append(value)
    return list(rows.values())


HEAD = ["what", "this checkout", "beside", "ratio", "floor"]


def line(cells: list[str]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def page(rows: list[Row], rounds: int, seconds: float) -> str:
    """Return the report as Markdown."""
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("websockets", "pydantic")
    )
    return "\n".join(
        [
            "# Benchmarks",
            "",
            f"Measured on {date.today()} with `make bench`: {rounds} rounds"
            f" of {seconds:g} s, the two sides of a comparison",
            "by turns; median (minimum-maximum). Read them as ratios:"
            " another machine has other rates. Above 1",
            "is better for us, be it more orders or less CPU.",
            "",
            f"The machine: {cpu_model()}, {os.cpu_count()} cores,"
            f" {platform.system()} {platform.release()}, Python"
            f" {platform.python_version()} ({interpreter_build()}),"
            f" {versions}.",
            "",
            line(HEAD),
            line(["---"] * len(HEAD)),
            *(line(row.cells()) for row in rows),
            "",
            "How each of them is measured stands in `util/measure/bench.py`;"
            " a tenth of the orders cross the spread.",
            "`--against FOLDER` measures beside another checkout.",
            "",
        ]
    )


def cpu_model() -> str:
    """Return what the kernel calls the processor."""
    with contextlib.suppress(OSError):
        for text in Path("/proc/cpuinfo").read_text().splitlines():
            if text.startswith("model name"):
                return text.partition(":")[2].strip()
    return platform.machine()


def interpreter_build() -> str:
    """Say how the interpreter was optimised when it was built."""
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    has_pgo = "--enable-optimizations" in options
    has_lto = "--with-lto" in options
    return (
        f"{'with' if has_pgo else 'no'} PGO, {'with' if has_lto else 'no'} LTO"
    )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with status 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m util.measure.bench",
        description="Measure the exchange.",
    )
    add = parser.add_argument
    add("--against", type=Path, metavar="FOLDER", help="another checkout")
    add("--only", default="", metavar="TEXT", help="cases with this name")
    add("--rounds", type=int, default=ROUNDS, help="of each measurement")
    add("--seconds", type=float, default=SECONDS, help="of one round")
    add("--markdown", type=Path, help="file to write a page to")
    add("--echo", action="store_true", help=argparse.SUPPRESS)
    add("--raw", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run all measurements, or a server that some need."""
    options = parse(arguments)
    for is_wanted, serve_it in (
        (options.echo, echo),
        (options.raw, write_raw),
    ):
        if is_wanted:
            with contextlib.suppress(KeyboardInterrupt):
                asyncio.run(serve_it())
            return 0
    other = None
    if options.against is not None:
        other = Contender(str(options.against), str(options.against.resolve()))
    gc.set_threshold(*GC_THRESHOLDS)
    raise_file_limit(READERS + FILES_RESERVED)
    rounds, seconds = options.rounds, options.seconds
    rows: list[Row] = []
    print(f"{line(HEAD)}\n{line(['---'] * len(HEAD))}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(folder, other or HERE):
            if options.only in case.what:
                more = measured(case, other or case.rival, rounds, seconds)
                print(*(line(row.cells()) for row in more), sep="\n")
                sys.stdout.flush()
                rows += more
    if options.markdown is not None:
        options.markdown.write_text(page(rows, rounds, seconds), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
