"""Measure the exchange: ``python -m util.bench``.

Less than ten minutes for all of it. ``--markdown docs/BENCHMARKS.md`` writes
what was measured, and on what machine, as a page.

What goes through websockets is measured as a ratio against the stock echo
server of the websockets library, which answers each frame with itself: same
load generator, same requests, same machine, turn by turn in one run. An echo
on the exchange's own transport stands beside it, as the limit of what one
could reach in this way. Book
and engine are measured alone, in this process, in operations per second. The
books of other libraries go through one flow with ours, where they are there:
``poetry install --with bench``.

The load generator is this process, the server another one. It writes ready
made frames and counts replies without parsing them; the line says how busy
it was, for a generator near 100 % would measure itself.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import gc
import os
import platform
import random
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain, count, islice
from pathlib import Path
from typing import Literal, NamedTuple

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError
from websockets.uri import parse_uri

from exchange.doors.names import Refusal
from exchange.doors.websocket import Connection, frame
from exchange.gateway.gateway import Gateway
from exchange.host.recovery import without_collections
from exchange.journal.sqlite import Journal
from exchange.market.command import Action, Command, Configure, Connect
from exchange.market.engine import Engine
from orderbook import (
    Amend,
    Cancel,
    Instrument,
    Login,
    Order,
    OrderBook,
    Place,
    Side,
    encode,
)
from server import (
    FILES_RESERVED,
    GC_THRESHOLDS,
    raise_file_limit,
)
from util.load import launched, masked

EXCHANGE = ["server.py"]
ECHO = ["-m", "util.bench", "--echo"]
LIMIT = ["-m", "util.bench", "--limit"]
RAW = ["-m", "util.bench", "--raw"]
ROUNDS = 5
SECONDS = 2.0
WARM_UP = 0.2  # of the seconds; not counted
OPERATIONS = 200_000  # of one round of book or engine
MID = 50_000  # the price around which everything happens
MOULDS = 1_009  # different orders
FIRST_NUMBER = 1_000_000
CROSSING = 0.1  # of the orders; each trades with some two others
PACE = 2_000  # orders per second, of which the latency is measured
PACED_CLIENTS = 10
RESTING = 400  # orders at most, in the book beside others'
READERS = 1_000
SUBSCRIBE = b'{"type":"subscribe","id":0,"channels":["book"]}'
RAW_UPDATE = b"\x81\x7e\x00\x68" + b"x" * 104  # as long as such an update
MARKET = "[instruments.BOND]\n[account]\nopen_orders = 0\n"
BOND = Instrument(
    symbol="BOND",
    tick_size="1",
    min_price=1,
    max_price=2 * MID,
    max_qty=1_000,
    phase="open",
)


@dataclass(frozen=True, slots=True)
class Load:
    """How many clients keep how many frames of how many orders in flight."""

    clients: int
    in_flight: int
    per_frame: int = 1
    crossing: float = CROSSING  # the share of orders that cross the spread

    def __str__(self) -> str:
        each = f", {self.per_frame} per frame" if self.per_frame > 1 else ""
        none = "" if self.crossing else ", none of them crossing"
        return f"{self.clients} x {self.in_flight}{each}{none}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report: all but ``what`` as it is to be read."""

    what: str
    measured: str
    floor: str = ""
    aim: str = ""
    remarks: str = ""

    def __str__(self) -> str:
        floor = f"; floor {self.floor}" if self.floor else ""
        aim = f"; aim {self.aim}" if self.aim else ""
        remarks = f"; {self.remarks}" if self.remarks else ""
        return f"{self.what}: {self.measured}{floor}{aim}{remarks}"


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests answered per second, and how busy the generator was."""

    per_s: float
    generator: float


def orders(prefix: str, crossing: float = CROSSING) -> Iterator[bytes]:
    """Yield orders without end: small ones near the top of the book.

    Only the numbers in them are new each time, for the load generator must
    cost little.
    """
    dice = random.Random(prefix)
    moulds: list[list[bytes]] = []
    for _ in range(MOULDS):
        side: Side = "buy" if dice.random() < 0.5 else "sell"
        offset = dice.randint(1, 10)
        if dice.random() < crossing:
            offset = -3
        order = Place(
            id=FIRST_NUMBER,
            symbol="BOND",
            side=side,
            qty=dice.randint(1, 10),
            price=MID - offset if side == "buy" else MID + offset,
            client_order_id=f"{prefix}-{FIRST_NUMBER}",
        )
        moulds.append(encode(order).encode().split(b"%d" % FIRST_NUMBER))
    for number in count(FIRST_NUMBER):
        yield (b"%d" % number).join(moulds[number % MOULDS])


# Load over websockets -----------------------------------------------------


class LoadClient(asyncio.Protocol):
    """One connection that keeps a number of requests in flight.

    A reply is known by its "id"; one cut in two by the end of a read is
    counted with the next read.
    """

    MARK = b'"id":'

    def __init__(self, name: str, load: Load) -> None:
        self.replies = 0
        self.is_up = asyncio.get_running_loop().create_future()
        self._frames = self._make_frames(name, load)
        self._login = masked(encode(Login(id=0, user=name)).encode())
        self._per_frame = load.per_frame
        self._window = load.in_flight
        self._unsent = 0  # replies not yet made up for by a new frame
        self._tail = b""

    @staticmethod
    def _make_frames(name: str, load: Load) -> Iterator[bytes]:
        source = orders(name, load.crossing)
        while True:
            if load.per_frame == 1:
                yield masked(next(source))
            else:
                several = islice(source, load.per_frame)
                yield masked(b"[%b]" % b",".join(several))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Shake hands."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
        )

    def begin(self) -> None:
        """Send the first requests."""
        self._send(self._window)

    def data_received(self, data: bytes) -> None:
        """Count replies and send as many requests anew."""
        if not self.is_up.done():
            if b"\r\n\r\n" in data:
                self._transport.write(self._login)
            if self.MARK in data:
                self.is_up.set_result(None)
            return
        data = self._tail + data
        self._tail = data[1 - len(self.MARK) :]
        replies = data.count(self.MARK)
        self.replies += replies
        self._unsent += replies
        frames, self._unsent = divmod(self._unsent, self._per_frame)
        self._send(frames)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the measurement: a lost connection would falsify it."""
        if not self.is_up.done():
            self.is_up.set_exception(ConnectionError("connection lost"))

    def _send(self, count: int) -> None:
        self._transport.write(
            b"".join(next(self._frames) for _ in range(count))
        )


async def drive(url: str, load: Load, seconds: float) -> Rate:
    """Load a server and return the rate of its replies."""
    loop = asyncio.get_running_loop()
    uri = parse_uri(url)
    clients: list[LoadClient] = []
    for number in range(load.clients):
        _, client = await loop.create_connection(
            lambda: LoadClient(f"bot{number}", load), uri.host, uri.port
        )
        clients.append(client)
        await client.is_up
    for client in clients:
        client.begin()
    await asyncio.sleep(WARM_UP * seconds)
    before = sum(client.replies for client in clients)
    start, start_cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    elapsed = time.perf_counter() - start
    busy = (time.process_time() - start_cpu) / elapsed
    replies = sum(client.replies for client in clients) - before
    for client in clients:
        client._transport.abort()
    return Rate(replies / elapsed, busy)


@contextlib.contextmanager
def served(
    arguments: list[str], journal: str = "off"
) -> Iterator[tuple[str, int]]:
    """Run a server where accounts may have any number of open orders."""
    with tempfile.TemporaryDirectory() as folder:
        market = Path(folder, "market.toml")
        market.write_text(MARKET)
        with launched(*arguments, journal=journal, market=market) as server:
            yield server


def measure(
    arguments: list[str], load: Load, seconds: float, journal: str = "off"
) -> Rate:
    """Start a server, load it, and end it."""
    with served(arguments, journal) as (url, _):
        return asyncio.run(drive(url, load, seconds))


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


class Mirror:
    """A receiver that does nothing but answer each message with itself."""

    def opened(self, connection: Connection) -> bool:
        """Take in everybody."""
        return True

    def forwarded(self, connection: Connection, client: str) -> bool:
        """Take in everybody."""
        return True

    def refused(self, connection: Connection, refusal: Refusal) -> None:
        """Take no note."""

    def connected(self, connection: Connection) -> None:
        """Take no note."""

    def received(self, connection: Connection, messages: list[bytes]) -> None:
        """Answer in one write."""
        connection.write(b"".join(map(frame, messages)))

    def congested(self, connection: Connection) -> None:
        """Take no note."""

    def drained(self, connection: Connection) -> None:
        """Take no note."""

    def disconnected(self, connection: Connection) -> None:
        """Take no note."""

    def closed(self, connection: Connection) -> None:
        """Take no note."""

    def failed(self, connection: Connection, error: Exception) -> None:
        """Fail the measurement."""
        raise error


async def mirror() -> None:
    """Serve an echo on the exchange's transport."""
    loop = asyncio.get_running_loop()
    receiver = Mirror()
    server = await loop.create_server(
        lambda: Connection(receiver, admission=receiver, names=None),
        "127.0.0.1",
        0,
    )
    port = server.sockets[0].getsockname()[1]
    print(f"Mirror on ws://127.0.0.1:{port}", flush=True)
    await server.serve_forever()


# Latency ------------------------------------------------------------------


class PacedClient(LoadClient):
    """A client whose requests are due at fixed times, answered or not."""

    def __init__(self, name: str) -> None:
        super().__init__(name, Load(1, 1))
        self.latencies: list[float] = []  # from due time to reply
        self._due: deque[float] = deque()

    def send_due(self, due: float) -> None:
        """Send a request that was due at this time of the loop."""
        self._due.append(due)
        self._send(1)

    def data_received(self, data: bytes) -> None:
        """Note how long each reply took."""
        if not self.is_up.done():
            super().data_received(data)
            return
        now = asyncio.get_running_loop().time()
        data = self._tail + data
        self._tail = data[1 - len(self.MARK) :]
        for _ in range(data.count(self.MARK)):
            self.latencies.append(now - self._due.popleft())


async def pace(url: str, seconds: float) -> float:
    """Return the 99th percentile of the latency at PACE orders/s."""
    loop = asyncio.get_running_loop()
    uri = parse_uri(url)
    clients: list[PacedClient] = []
    for number in range(PACED_CLIENTS):
        _, client = await loop.create_connection(
            lambda: PacedClient(f"bot{number}"), uri.host, uri.port
        )
        clients.append(client)
        await client.is_up
    start = loop.time()
    for number in range(round(PACE * seconds * (1 + WARM_UP))):
        due = start + number / PACE
        if due > loop.time():
            await asyncio.sleep(due - loop.time())
        clients[number % PACED_CLIENTS].send_due(due)
    while any(client._due for client in clients):
        await asyncio.sleep(0)
    latencies = sorted(
        latency
        for client in clients
        for latency in client.latencies[
            round(PACE / PACED_CLIENTS * seconds * WARM_UP) :
        ]
    )
    for client in clients:
        client._transport.abort()
    return latencies[round(len(latencies) * 0.99)]


def latency(arguments: list[str], seconds: float) -> float:
    """Start a server, pace it, and end it; return its p99 in seconds."""
    with served(arguments) as (url, _):
        return asyncio.run(pace(url, seconds))


# Fan-out ------------------------------------------------------------------


class QuietClient(LoadClient):
    """A client that sends when told to, and throws away what it gets."""

    def __init__(self, name: str) -> None:
        super().__init__(name, Load(1, 1))
        self.size = 0

    def data_received(self, data: bytes) -> None:
        """Count the bytes."""
        if self.is_up.done():
            self.size += len(data)
        else:
            super().data_received(data)


class Reader(QuietClient):
    """A subscriber of the book."""

    def __init__(self) -> None:
        super().__init__("")
        self._login = masked(SUBSCRIBE)


async def fan_out(url: str, pid: int, seconds: float) -> float:
    """Return seconds of the server's CPU for each update to a reader.

    One client moves the book, and waits until the readers have it: an update
    for each of its orders, and all of them in turn.
    """
    loop = asyncio.get_running_loop()
    uri = parse_uri(url)
    readers: list[Reader] = []
    for _ in range(READERS):
        _, reader = await loop.create_connection(Reader, uri.host, uri.port)
        readers.append(reader)
        await reader.is_up
    _, mover = await loop.create_connection(
        lambda: QuietClient("mover"), uri.host, uri.port
    )
    await mover.is_up
    updates, before = 0, cpu_of(pid)
    end = loop.time() + seconds
    while loop.time() < end:
        sizes = [reader.size for reader in readers]
        mover._send(1)
        while any(r.size == size for r, size in zip(readers, sizes)):
            await asyncio.sleep(0)
        updates += 1
    used = cpu_of(pid) - before
    for client in (*readers, mover):
        client._transport.abort()
    return used / updates / READERS


def cpu_of(pid: int) -> float:
    """Return the seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fan_out_cost(arguments: list[str], seconds: float) -> float:
    """Start a server with many readers, and end it."""
    with served(arguments) as (url, pid):
        return asyncio.run(fan_out(url, pid, seconds))


class RawWriter(asyncio.Protocol):
    """A server without an exchange: answers, and writes the same to all."""

    everybody: list[asyncio.Transport] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take in one more reader."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Do what is needed, and no more: nothing is parsed."""
        if data.startswith(b"GET"):
            self._transport.write(b"HTTP/1.1 101 \r\n\r\n")
        elif b"subscribe" in data:
            self._transport.write(b'"id":')
            self.everybody.append(self._transport)
        elif b"login" in data:
            self._transport.write(b'"id":')
        else:
            for transport in self.everybody:
                transport.write(RAW_UPDATE)


async def write_raw() -> None:
    """Serve raw writes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(RawWriter, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(f"Raw on ws://127.0.0.1:{port}", flush=True)
    await server.serve_forever()


# Book and engine alone ----------------------------------------------------


def book_rate(resting: int) -> float:
    """Return operations per second of a book with so many orders resting.

    Half of them place, a tenth crosses, a tenth amends, the rest cancels
    what was placed; all within ten ticks of the top.
    """
    book = OrderBook()
    for number in range(resting):
        side: Side = "buy" if number % 2 else "sell"
        offset = 20 + number // 2 % 2_000
        price = MID - offset if side == "buy" else MID + offset
        book.place(
            Order(
                order_id=number + 1,
                account="deep",
                side=side,
                qty=1,
                price=price,
            )
        )
    book.take_changes()
    dice = random.Random(1)
    steps = [
        (
            dice.random(),
            "buy" if dice.random() < 0.5 else "sell",
            dice.randint(1, 20),
            dice.randint(1, 10),
            dice.random(),
        )
        for _ in range(OPERATIONS)
    ]
    gc.freeze()
    live: list[int] = []
    order_id = resting
    start = time.perf_counter()
    for kind, step_side, qty, offset, pick in steps:
        side = "buy" if step_side == "buy" else "sell"
        if kind < 0.6 or not live:
            order_id += 1
            if kind >= 0.5:
                offset = -3
            price = MID - offset if side == "buy" else MID + offset
            account = f"a{order_id % 7}"
            order = Order(order_id, account, side, qty, "BOND", price)
            book.place(order)
            if order.leaves_qty:
                live.append(order_id)
        else:
            index = int(pick * len(live))
            chosen = live[index]
            if kind < 0.7 and chosen in book.orders:
                book.amend(chosen, qty=max(1, qty - 1))
            else:
                live[index] = live[-1]
                live.pop()
                if chosen in book.orders:
                    book.cancel(chosen)
        book.take_changes()
    elapsed = time.perf_counter() - start
    gc.unfreeze()
    return OPERATIONS / elapsed


def engine_rate() -> float:
    """Return commands per second of `Engine.apply`, reports included.

    The flow of `book_rate` from ten accounts.
    """
    dice = random.Random(2)
    accounts = [f"bot{number}" for number in range(10)]
    actions: list[tuple[str, Action]] = [
        ("", Configure(instruments=(BOND,))),
        *((account, Connect(True)) for account in accounts),
    ]
    live: list[tuple[str, str]] = []
    for number in range(OPERATIONS):
        kind = dice.random()
        if kind < 0.6 or not live:
            account = dice.choice(accounts)
            name = f"{account}-{number}"
            side: Side = "buy" if dice.random() < 0.5 else "sell"
            offset = -3 if kind >= 0.5 else dice.randint(1, 10)
            price = MID - offset if side == "buy" else MID + offset
            place = Place(
                symbol="BOND",
                side=side,
                qty=dice.randint(1, 20),
                price=price,
                client_order_id=name,
            )
            actions.append((account, place))
            live.append((account, name))
        else:
            index = dice.randrange(len(live))
            account, name = live[index]
            if kind < 0.7:
                qty = dice.randint(1, 20)
                actions.append((account, Amend(client_order_id=name, qty=qty)))
            else:
                live[index] = live[-1]
                live.pop()
                actions.append((account, Cancel(client_order_id=name)))
    commands = [
        Command(seq, 10**15 + seq, account, account, action)
        for seq, (account, action) in enumerate(actions, start=1)
    ]
    engine = Engine()
    gc.freeze()
    start = time.perf_counter()
    for command in commands:
        engine.apply(command)
    elapsed = time.perf_counter() - start
    gc.unfreeze()
    return len(commands) / elapsed


# The book beside others' --------------------------------------------------


class Step(NamedTuple):
    """One operation on a book; ``qty`` is what the order has left."""

    action: Literal["place", "amend", "cancel"]
    order_id: int
    side: Side
    qty: int
    price: int


def book_steps() -> list[Step]:
    """Return the flow of `book_rate` in a book that stays small.

    Each step finds its order, no order meets one of its own account, and an
    order is amended to another price: it arrives anew, as it does in a book
    that can only cancel it and place it again.
    """
    dice = random.Random(3)
    book = OrderBook()
    steps: list[Step] = []
    for order_id in range(1, OPERATIONS + 1):
        kind = dice.random()
        resting = list(book.orders)
        if not resting or kind < 0.6 and len(resting) < RESTING:
            side: Side = "buy" if dice.random() < 0.5 else "sell"
            offset = -3 if kind >= 0.5 else dice.randint(1, 10)
            price = MID - offset if side == "buy" else MID + offset
            step = Step("place", order_id, side, dice.randint(1, 20), price)
        else:
            order = book.orders[dice.choice(resting)]
            assert order.price is not None
            step = Step(
                "amend" if 0.6 <= kind < 0.7 else "cancel",
                order.order_id,
                order.side,
                order.leaves_qty,
                order.price + dice.choice((-1, 1)),
            )
        trade_here([step], book)
        steps.append(step)
    return steps


def trade_here(steps: Iterable[Step], book: OrderBook | None = None) -> int:
    """Take the steps in our book; return how many lots they traded."""
    book = book or OrderBook()
    lots = 0
    for action, order_id, side, qty, price in steps:
        if action == "cancel":
            book.cancel(order_id)
            continue
        if action == "amend":
            sweep = book.amend(order_id, price=price)
        else:
            # By position, as the engine makes them.
            order = Order(order_id, side, side, qty, "BOND", price)
            sweep = book.place(order)
        for match in sweep.matches:
            lots += match.qty
    return lots


def trade_in_lightmatchingengine(steps: Iterable[Step]) -> int:
    """Do so in the book of lightmatchingengine, which cannot amend."""
    library = import_module("lightmatchingengine.lightmatchingengine")
    engine = library.LightMatchingEngine()
    sides = {"buy": library.Side.BUY, "sell": library.Side.SELL}
    ids: dict[int, int] = {}
    lots = 0
    for action, order_id, side, qty, price in steps:
        if action != "place":
            engine.cancel_order(ids[order_id], "BOND")
        if action != "cancel":
            order, _ = engine.add_order("BOND", price, qty, sides[side])
            ids[order_id] = order.order_id
            lots += order.cum_qty
    return lots


def trade_in_liquibook(steps: Iterable[Step]) -> int:
    """Do so in the book of liquibook; amending fails there."""
    library = import_module("liquibook")
    fills: list[int] = []
    listener = type(
        "Listener",
        (library.OrderListener,),
        {
            "on_accept": lambda self, order: None,
            "on_cancel": lambda self, order: None,
            "on_fill": lambda self, maker, taker, qty, cost: fills.append(qty),
        },
    )()
    book = library.DepthOrderBook()
    book.set_symbol("BOND")
    book.set_order_listener(listener)
    orders: dict[int, object] = {}
    for action, order_id, side, qty, price in steps:
        if action != "place":
            book.cancel(orders[order_id])
        if action != "cancel":
            order = library.SimpleOrder(side == "buy", price, qty)
            orders[order_id] = order
            book.add(order)
    return sum(fills)


def trading_rate(
    trade: Callable[[Iterable[Step]], int], steps: list[Step], lots: int
) -> float:
    """Return steps per second; all books must trade as many lots."""
    gc.collect()
    gc.freeze()
    start = time.perf_counter()
    traded = trade(steps)
    elapsed = time.perf_counter() - start
    gc.unfreeze()
    assert traded == lots, f"{trade.__name__}: {traded} lots, not {lots}"
    return len(steps) / elapsed


# The report ---------------------------------------------------------------


def spread(values: list[float], form: Callable[[float], str]) -> str:
    """Return median, minimum and maximum as text."""
    low, high = min(values), max(values)
    return f"{form(statistics.median(values))} ({form(low)}-{form(high)})"


def thousands(value: float) -> str:
    """Write a rate in thousands."""
    return f"{value / 1_000:.0f} k"


def milliseconds(value: float) -> str:
    """Write a time in milliseconds."""
    return f"{value * 1e3:.2f} ms"


def microseconds(value: float) -> str:
    """Write a time in microseconds."""
    return f"{value * 1e6:.1f} us"


def times(value: float) -> str:
    """Write a ratio."""
    return f"{value:.2f}x"


def compare_with_echo(rounds: int, seconds: float) -> Iterator[Row]:
    """Measure orders per second against the stock echo."""
    for load, echo_load, floor, aim in (
        (Load(1, 32), Load(1, 32), "0.8x", "1.2x"),
        (Load(10, 8), Load(10, 8), "0.8x", "1.2x"),
        (Load(10, 8, per_frame=50), Load(10, 8), "1.5x", "2.5x"),
        # No floor: it tells what of the above is the trades.
        (Load(10, 8, per_frame=50, crossing=0), Load(10, 8), "", ""),
    ):
        ours: list[Rate] = []
        theirs: list[Rate] = []
        limit: list[float] = []
        for _ in range(rounds):
            theirs.append(measure(ECHO, echo_load, seconds))
            limit.append(measure(LIMIT, load, seconds).per_s)
            ours.append(measure(EXCHANGE, load, seconds))
        ratios = [a.per_s / b.per_s for a, b in zip(ours, theirs)]
        yield Row(
            f"orders/s, {load}, against the stock echo, {echo_load}",
            f"{spread([r.per_s for r in ours], thousands)} against"
            f" {spread([r.per_s for r in theirs], thousands)}:"
            f" {spread(ratios, times)}",
            floor,
            aim,
            f"our transport alone: {spread(limit, thousands)}; generator busy"
            f" {max(r.generator for r in ours):.0%} and"
            f" {max(r.generator for r in theirs):.0%}",
        )


def compare_latency(rounds: int, seconds: float) -> Iterator[Row]:
    """Measure the p99 of acknowledgements against the stock echo's."""
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds):
        theirs.append(latency(ECHO, seconds))
        ours.append(latency(EXCHANGE, seconds))
    ratios = [a / b for a, b in zip(ours, theirs)]
    yield Row(
        f"ack p99 at {PACE:,} orders/s, against the stock echo's",
        f"{spread(ours, milliseconds)} against"
        f" {spread(theirs, milliseconds)}: {spread(ratios, times)}",
        "2x",
        "1.3x",
    )


def compare_fan_out(rounds: int, seconds: float) -> Iterator[Row]:
    """Measure what a reader of the book costs, against raw writes."""
    raise_file_limit(READERS + FILES_RESERVED)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds):
        theirs.append(fan_out_cost(RAW, seconds))
        ours.append(fan_out_cost(EXCHANGE, seconds))
    ratios = [b / a for a, b in zip(ours, theirs)]
    yield Row(
        f"book to {READERS:,} subscribers, CPU of the server for each,"
        " against raw writes",
        f"{spread(ours, microseconds)} against"
        f" {spread(theirs, microseconds)}: {spread(ratios, times)}",
        "0.8x",
        "0.95x",
    )


def compare_with_memory(rounds: int, seconds: float) -> Iterator[Row]:
    """Measure what the journal costs, and how fast it is read again."""
    for load, floor, aim in (
        (Load(50, 8), "0.65x", "0.85x"),
        (Load(1, 1), "", ""),
    ):
        off: list[Rate] = []
        on: list[Rate] = []
        recovery: list[float] = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "exchange.db"
                off.append(measure(EXCHANGE, load, seconds))
                on.append(measure(EXCHANGE, load, seconds, str(path)))
                recovery.append(recovery_rate(path))
        ratios = [a.per_s / b.per_s for a, b in zip(on, off)]
        yield Row(
            f"orders/s, {load}, journal on against off",
            f"{spread([r.per_s for r in on], thousands)} against"
            f" {spread([r.per_s for r in off], thousands)}:"
            f" {spread(ratios, times)}",
            floor,
            aim,
        )
        if load.clients > 1:
            yield Row(
                "recovery, commands/s",
                spread(recovery, thousands),
                "80 k",
                "150 k",
            )


def recovery_rate(path: Path) -> float:
    """Return commands per second of verifying and applying a journal."""
    with Journal(path) as journal:
        gateway = Gateway(time.time_ns)
        start = time.perf_counter()
        with without_collections():
            for commands in journal.recover():
                gateway.replay(commands)
        elapsed = time.perf_counter() - start
        return journal.last_seq / elapsed


def measure_core(rounds: int) -> Iterator[Row]:
    """Measure book and engine alone."""
    small: list[float] = []
    large: list[float] = []
    engine: list[float] = []
    for _ in range(rounds):
        small.append(book_rate(1_000))
        large.append(book_rate(1_000_000))
        engine.append(engine_rate())
    ratios = [a / b for a, b in zip(small, large)]
    yield Row(
        "`OrderBook` alone, operations/s", spread(small, thousands), "300 k"
    )
    yield Row(
        "its cost with 1,000,000 orders resting against 1,000",
        spread(ratios, times),
        "1.3x",
        "1.1x",
    )
    yield Row(
        "`Engine.apply`, commands/s",
        spread(engine, thousands),
        "150 k",
        "300 k",
    )


def compare_books(rounds: int) -> Iterator[Row]:
    """Measure the book beside those of other libraries."""
    steps = book_steps()
    lots = trade_here(steps)
    for library, kind, trade, floor, aim in (
        (
            "lightmatchingengine",
            "pure Python",
            trade_in_lightmatchingengine,
            "1.5x",
            "",
        ),
        ("liquibook", "C++", trade_in_liquibook, "", "0.5x"),
    ):
        what = f"`OrderBook` against {library} ({kind}), operations/s"
        if find_spec(library) is None:
            yield Row(
                what,
                "not measured",
                floor,
                aim,
                "`poetry install --with bench`",
            )
            continue
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(rounds):
            theirs.append(trading_rate(trade, steps, lots))
            ours.append(trading_rate(trade_here, steps, lots))
        ratios = [a / b for a, b in zip(ours, theirs)]
        yield Row(
            what,
            f"{spread(ours, thousands)} against"
            f" {spread(theirs, thousands)}: {spread(ratios, times)}",
            floor,
            aim,
            f"version {version(library)}; at most {RESTING} orders resting;"
            " without `take_changes`",
        )


def page(rows: Iterable[Row], rounds: int, seconds: float) -> str:
    """Return the report as Markdown."""
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("websockets", "pydantic")
    )
    lines = [
        "# Benchmarks",
        "",
        f"Measured on {date.today()} with `make bench`: {rounds} rounds of"
        f" {seconds:g} s, the two sides of a comparison in turn; median",
        "(minimum-maximum). Read them as ratios: another machine has other"
        " rates.",
        "",
        f"The machine: {cpu_model()}, {os.cpu_count()} cores,"
        f" {platform.system()} {platform.release()}, Python"
        f" {platform.python_version()}, {versions}.",
        "",
        "| what | measured | floor | aim | remarks |",
        "|---|---|---|---|---|",
        *(
            f"| {row.what} | {row.measured} | {row.floor} | {row.aim} |"
            f" {row.remarks} |"
            for row in rows
        ),
        "",
        "How each of them is measured stands in `util/bench.py`. The load"
        " comes from",
        "another process, which counts replies without parsing them, and"
        " says how busy",
        "it was; a tenth of the orders cross the spread; debug printing is"
        " off.",
    ]
    return "\n".join(lines) + "\n"


def cpu_model() -> str:
    """Return what the kernel calls the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    """Run all measurements, or a server that some need."""
    parser = argparse.ArgumentParser(
        prog="python -m util.bench", description="Measure the exchange."
    )
    add = parser.add_argument
    add("--rounds", type=int, default=ROUNDS, help="of each measurement")
    add("--seconds", type=float, default=SECONDS, help="of one round")
    add("--markdown", type=Path, help="file to write a page to")
    add("--echo", action="store_true", help=argparse.SUPPRESS)
    add("--limit", action="store_true", help=argparse.SUPPRESS)
    add("--raw", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for is_wanted, serve_it in (
        (arguments.echo, echo),
        (arguments.limit, mirror),
        (arguments.raw, write_raw),
    ):
        if is_wanted:
            asyncio.run(serve_it())
            return
    rounds, seconds = arguments.rounds, arguments.seconds
    print(f"{rounds} rounds of {seconds:g} s; median (minimum-maximum)")
    gc.set_threshold(*GC_THRESHOLDS)
    rows: list[Row] = []
    for row in chain(
        measure_core(rounds),
        compare_books(rounds),
        compare_with_echo(rounds, seconds),
        compare_latency(rounds, seconds),
        compare_fan_out(rounds, seconds),
        compare_with_memory(rounds, seconds),
    ):
        rows.append(row)
        print(row, flush=True)
    if arguments.markdown is not None:
        arguments.markdown.write_text(page(rows, rounds, seconds), "utf-8")


if __name__ == "__main__":
    main()
