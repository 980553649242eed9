"""Measure the exchange: ``python -m util.bench``.

What goes through websockets is measured as a ratio against the stock echo
server of the websockets library, which answers each frame with itself: same
load generator, same requests, same machine, turn by turn in one run. Book
and engine are measured alone, in this process, in operations per second.

The load generator is this process, the server another one. It writes ready
made frames and counts replies without parsing them; the line says how busy
it was, for a generator near 100 % would measure itself.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import os
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from websockets.asyncio.server import ServerConnection, serve

from exchange.engine import Action, Command, Configure, Connect, Engine
from exchange.gateway import Gateway
from exchange.journal import Journal
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
from server import GC_THRESHOLDS

ROUNDS = 5
SECONDS = 3.0
WARM_UP = 0.2  # of the seconds; not counted
OPERATIONS = 200_000  # of one round of book or engine
MID = 50_000  # the price around which everything happens
MOULDS = 1_009  # different orders
FIRST_NUMBER = 1_000_000
CROSSING = 0.1  # the share of orders that cross the spread
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

    def __str__(self) -> str:
        each = f", {self.per_frame} per frame" if self.per_frame > 1 else ""
        return f"{self.clients} x {self.in_flight}{each}"


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests answered per second, and how busy the generator was."""

    per_s: float
    generator: float


def orders(prefix: str) -> Iterator[bytes]:
    """Yield orders without end: small ones near the top of the book.

    Only the numbers in them are new each time, for the load generator must
    cost little.
    """
    dice = random.Random(prefix)
    moulds: list[list[bytes]] = []
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
        moulds.append(encode(order).encode().split(b"%d" % FIRST_NUMBER))
    for number in count(FIRST_NUMBER):
        yield (b"%d" % number).join(moulds[number % MOULDS])


# Load over websockets -----------------------------------------------------


def masked(payload: bytes) -> bytes:
    """Return a client's text frame; its mask of zeros leaves it readable."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x81, 0x80 | size)
    else:
        head = struct.pack("!BBH", 0x81, 0x80 | 126, size)
    return head + bytes(4) + payload


class LoadClient(asyncio.Protocol):
    """One connection that keeps a number of requests in flight.

    A reply is known by its "id"; one cut in two by the end of a read is
    counted with the next read.
    """

    MARK = b'"id":'

    def __init__(self, name: str, load: Load) -> None:
        self.replies = 0
        self.is_up = asyncio.get_running_loop().create_future()
        self._frames = self._make_frames(name, load.per_frame)
        self._login = masked(encode(Login(id=0, user=name)).encode())
        self._per_frame = load.per_frame
        self._window = load.in_flight
        self._unsent = 0  # replies not yet made up for by a new frame
        self._tail = b""

    @staticmethod
    def _make_frames(name: str, per_frame: int) -> Iterator[bytes]:
        source = orders(name)
        while True:
            if per_frame == 1:
                yield masked(next(source))
            else:
                yield masked(b"[%b]" % b",".join(islice(source, per_frame)))

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


async def drive(port: int, load: Load, seconds: float) -> Rate:
    """Load a server and return the rate of its replies."""
    loop = asyncio.get_running_loop()
    clients: list[LoadClient] = []
    for number in range(load.clients):
        _, client = await loop.create_connection(
            lambda: LoadClient(f"bot{number}", load), "127.0.0.1", port
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


def measure(
    arguments: list[str], load: Load, seconds: float, journal: str = "off"
) -> Rate:
    """Start a server, load it, and end it."""
    environment = os.environ | {
        "EXCHANGE_SERVER_HOSTNAME": "127.0.0.1",
        "EXCHANGE_SERVER_PORT": "0",
        "EXCHANGE_SERVER_DEBUG": "0",
        "EXCHANGE_SERVER_JOURNAL": journal,
    }
    with subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[2]
            port = int(url.rpartition(":")[2])
            return asyncio.run(drive(port, load, seconds))
        finally:
            process.kill()


async def echo() -> None:
    """Serve the stock echo: every frame is answered with itself."""

    async def answer(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(answer, "127.0.0.1", 0, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        print(f"Echo on ws://127.0.0.1:{port}", flush=True)
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
            order = Order(
                order_id=order_id,
                account=f"a{order_id % 7}",
                side=side,
                qty=qty,
                price=price,
            )
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


# The report ---------------------------------------------------------------


def spread(values: list[float], form: Callable[[float], str]) -> str:
    """Return median, minimum and maximum as text."""
    low, high = min(values), max(values)
    return f"{form(statistics.median(values))} ({form(low)}-{form(high)})"


def thousands(value: float) -> str:
    """Write a rate in thousands."""
    return f"{value / 1_000:.0f} k"


def times(value: float) -> str:
    """Write a ratio."""
    return f"{value:.2f}x"


def compare_with_echo(rounds: int, seconds: float) -> None:
    """Measure orders per second against the stock echo."""
    loads = [
        (Load(1, 32), Load(1, 32), 0.8),
        (Load(10, 8), Load(10, 8), 0.8),
        (Load(10, 8, per_frame=50), Load(10, 8), 1.5),
    ]
    for load, echo_load, floor in loads:
        ours: list[Rate] = []
        theirs: list[Rate] = []
        for _ in range(rounds):
            theirs.append(
                measure(["-m", "util.bench", "--echo"], echo_load, seconds)
            )
            ours.append(measure(["server.py"], load, seconds))
        ratios = [a.per_s / b.per_s for a, b in zip(ours, theirs)]
        print(
            f"orders/s, {load}: {spread([r.per_s for r in ours], thousands)};"
            f" echo {echo_load}:"
            f" {spread([r.per_s for r in theirs], thousands)};"
            f" ratio {spread(ratios, times)}, floor {floor}x;"
            f" generator busy {max(r.generator for r in ours):.0%}"
            f" and {max(r.generator for r in theirs):.0%}",
            flush=True,
        )


def compare_with_memory(rounds: int, seconds: float) -> None:
    """Measure what the journal costs, and how fast it is read again."""
    for load, floor in ((Load(50, 8), "floor 0.65x"), (Load(1, 1), "")):
        off: list[Rate] = []
        on: list[Rate] = []
        recovery: list[float] = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "exchange.db"
                off.append(measure(["server.py"], load, seconds))
                on.append(measure(["server.py"], load, seconds, str(path)))
                recovery.append(recovery_rate(path))
        ratios = [a.per_s / b.per_s for a, b in zip(on, off)]
        print(
            f"orders/s, {load}, journal on:"
            f" {spread([r.per_s for r in on], thousands)}; off:"
            f" {spread([r.per_s for r in off], thousands)};"
            f" ratio {spread(ratios, times)} {floor}",
            flush=True,
        )
        if load.clients > 1:
            print(
                f"recovery, commands/s: {spread(recovery, thousands)},"
                " floor 80 k",
                flush=True,
            )


def recovery_rate(path: Path) -> float:
    """Return commands per second of verifying and applying a journal."""
    with Journal(path) as journal:
        gateway = Gateway(time.time_ns, lambda batch: None, lambda texts: [])
        start = time.perf_counter()
        for commands in journal.recover():
            gateway.replay(commands)
        elapsed = time.perf_counter() - start
        return journal.last_seq / elapsed


def measure_core(rounds: int) -> None:
    """Measure book and engine alone."""
    small: list[float] = []
    large: list[float] = []
    engine: list[float] = []
    for _ in range(rounds):
        small.append(book_rate(1_000))
        large.append(book_rate(1_000_000))
        engine.append(engine_rate())
    ratios = [a / b for a, b in zip(small, large)]
    print(f"book, operations/s: {spread(small, thousands)}, floor 300 k")
    print(
        "cost with 1,000,000 orders resting against 1,000:"
        f" {spread(ratios, times)}, floor 1.3x"
    )
    print(
        f"Engine.apply, commands/s: {spread(engine, thousands)},"
        " floor 150 k",
        flush=True,
    )


def main() -> None:
    """Run all measurements, or the echo server that some need."""
    parser = argparse.ArgumentParser(
        prog="python -m util.bench", description="Measure the exchange."
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="of each measurement"
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="of one round"
    )
    parser.add_argument("--echo", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.echo:
        asyncio.run(echo())
        return
    print(
        f"{arguments.rounds} rounds of {arguments.seconds:g} s;"
        " median (minimum-maximum)"
    )
    gc.set_threshold(*GC_THRESHOLDS)
    measure_core(arguments.rounds)
    compare_with_echo(arguments.rounds, arguments.seconds)
    compare_with_memory(arguments.rounds, arguments.seconds)


if __name__ == "__main__":
    main()
