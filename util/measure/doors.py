"""Measure the doors of challenge bots: ``python -m util.measure.doors``.

Clients place an order far from the market and cancel it, over and over. They
do so through the native protocol, the JSON door and the text door in turn, in
one run, each time at an exchange of its own. All get the public books and
trades as well.

First they send as fast as their windows allow, which gives the rate and the
CPU of the exchange for each request; then at a fixed rate, which gives the
delays, counted from when a request was due. Figures are medians of the rounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from util.cli import above_0, new_parser, whole
from util.measure.histogram import Histogram
from util.measure.hostile.bots import FOLLOW, HANDSHAKE, frames
from util.measure.lines import door_ports, doors_table
from util.measure.load import fine_loop
from util.measure.process import Launched, Trouble, cpu_s, launched
from util.measure.wire import framed

CLIENTS = 10
WINDOW = 8  # requests of a client that have no reply
RATE = 1_000  # requests per second, of which the delay is measured
SECONDS, ROUNDS = 2.0, 3
WARM_UP = 0.25  # of the seconds measured, before them
PACED_FROM = 10**9  # first id at a fixed rate; each is used once
PRICES = 500  # different ones, so that books have some depth
MARKET = "[instruments.BOND]\n[account]\nopen_orders = 0\n"
UNLIMITED = 1_000_000  # messages per second of a door


# The protocols --------------------------------------------------------------


@dataclass(frozen=True)
class Protocol:
    """How to log in, place and cancel; and what each reply has in it."""

    name: str
    login: Callable[[str], bytes]
    place: Callable[[int, int], bytes]  # id and price
    cancel: Callable[[int], bytes]
    marks: tuple[bytes, ...]


def _line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _native_login(user: str) -> bytes:
    return HANDSHAKE + frames({"type": "login", "user": user}) + FOLLOW


def _native_place(number: int, price: int) -> bytes:
    return framed(
        b'{"type":"place","symbol":"BOND","side":"buy","qty":1,'
        b'"price":%d,"client_order_id":"%d"}' % (price, number)
    )


def _native_cancel(number: int) -> bytes:
    return framed(b'{"type":"cancel","client_order_id":"%d"}' % number)


def _json_place(number: int, price: int) -> bytes:
    return (
        b'{"type":"add","order_id":%d,"symbol":"BOND","dir":"BUY",'
        b'"price":%d,"size":1}\n' % (number, price)
    )


PROTOCOLS = (
    Protocol(
        "native",
        _native_login,
        _native_place,
        _native_cancel,
        (b'"exec_type":"',),
    ),
    Protocol(
        "json",
        lambda team: _line(type="hello", team=team),
        _json_place,
        lambda number: b'{"type":"cancel","order_id":%d}\n' % number,
        (b'"type":"ack"', b'"type":"out"'),
    ),
    Protocol(
        "text",
        lambda team: f"HELLO {team}\n".encode(),
        lambda number, price: b"ADD %d BOND BUY %d 1\n" % (number, price),
        lambda number: b"CANCEL %d\n" % number,
        (b"ACK ", b"OUT "),
    ),
)


# The load -------------------------------------------------------------------


class Client(asyncio.Protocol):
    """Places and cancels; ``interval_s`` None: as the window allows."""

    def __init__(
        self, protocol: Protocol, number: int, interval_s: float | None
    ) -> None:
        self.delays = Histogram()
        self.replies = 0
        self.measured_from = float("inf")
        self.is_up = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._number = number
        self._interval_s = interval_s
        self._sent = 0
        self._due: deque[float] = deque()  # of requests without a reply
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Log in."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        team = f"TEAM{chr(ord('A') + self._number)}"  # letters only
        transport.write(self._protocol.login(team))

    def connection_lost(self, error: Exception | None) -> None:
        """Fail, unless the measurement is over."""
        if not self.is_up.done():
            self.is_up.set_exception(Trouble("the exchange hung up"))

    def begin(self, start: float) -> None:
        """Send from a time of the loop on."""
        self._loop.call_at(start, self._go_on, start)

    def _go_on(self, due: float) -> None:
        if self.transport.is_closing():
            return
        if self._interval_s is None:
            self._fill()
            return
        self.transport.write(self._request(due))
        due += self._interval_s
        self._loop.call_at(due, self._go_on, due)

    def _fill(self) -> None:
        now = self._loop.time()
        room = WINDOW - len(self._due)
        self.transport.write(b"".join(self._request(now) for _ in range(room)))

    def _request(self, due: float) -> bytes:
        self._due.append(due)
        number, is_cancel = divmod(self._sent, 2)
        if self._interval_s is not None:
            number += PACED_FROM
        self._sent += 1
        if is_cancel:
            return self._protocol.cancel(number)
        return self._protocol.place(number, 1 + number % PRICES)

    def data_received(self, data: bytes) -> None:
        """Count replies, and send what the window has room for."""
        if not self.is_up.done():
            if b"BOND" in data:
                self.is_up.set_result(None)
            return
        now, count = self._loop.time(), self._count(data)
        for _ in range(count):
            due = self._due.popleft()
            if now >= self.measured_from:
                self.replies += 1
                self.delays.record(int((now - due) * 1e6))
        if count and self._interval_s is None:
            self._fill()

    def _count(self, data: bytes) -> int:
        data = self._tail + data
        marks = self._protocol.marks
        self._tail = data[1 - len(marks[0]) :]
        return sum(map(data.count, marks))


# The measurement ------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """What one round found."""

    rate: float = 0.0  # requests per second
    cpu_us: float = 0.0  # of the exchange, for each request
    p50_ms: float = 0.0
    p99_ms: float = 0.0


@contextlib.contextmanager
def exchange() -> Iterator[tuple[Launched, dict[str, int]]]:
    """Run an exchange with doors; also yield the port of each protocol."""
    ports = door_ports()
    with tempfile.TemporaryDirectory() as folder:
        market = Path(folder, "market.toml")
        doors = doors_table(ports, messages_per_s=UNLIMITED)
        market.write_text(MARKET + doors)
        with launched(market=str(market)) as server:
            native = int(server.url.rpartition(":")[2])
            yield server, {"native": native, **ports}


async def measure(
    server: Launched,
    port: int,
    protocol: Protocol,
    seconds: float,
    rate: float | None,
) -> Figures:
    """Load an exchange through one protocol; ``rate`` None: at its limit."""
    loop = asyncio.get_running_loop()
    interval_s = None if rate is None else CLIENTS / rate
    clients = [
        Client(protocol, number, interval_s) for number in range(CLIENTS)
    ]
    for client in clients:
        await loop.create_connection(lambda: client, "127.0.0.1", port)
        await client.is_up
    start = loop.time() + 0.1
    measured_from = start + WARM_UP * seconds
    for number, client in enumerate(clients):
        client.measured_from = measured_from
        client.begin(start + (interval_s or 0.0) * number / CLIENTS)
    await asyncio.sleep(measured_from - loop.time())
    used, began = cpu_s(server.pid) or 0.0, loop.time()
    before = sum(client.replies for client in clients)
    await asyncio.sleep(seconds)
    replies = sum(client.replies for client in clients) - before
    elapsed = loop.time() - began
    cpu = (cpu_s(server.pid) or 0.0) - used
    delays = Histogram()
    for client in clients:
        if client.transport.is_closing():
            raise Trouble(f"{protocol.name}: the exchange hung up")
        client.transport.abort()
        delays.add(client.delays)
    return Figures(
        replies / elapsed,
        1e6 * cpu / max(replies, 1),
        delays.percentile_ms(50),
        delays.percentile_ms(99),
    )


def round_of(protocol: Protocol, seconds: float) -> Figures:
    """Measure one protocol at an exchange of its own."""
    with (
        exchange() as (server, ports),
        asyncio.Runner(loop_factory=fine_loop) as loop,
    ):
        port = ports[protocol.name]
        most = loop.run(measure(server, port, protocol, seconds, None))
        paced = loop.run(measure(server, port, protocol, seconds, RATE))
    return Figures(most.rate, most.cpu_us, paced.p50_ms, paced.p99_ms)


def median(rounds: list[Figures]) -> Figures:
    """Return the median of each figure."""
    return Figures(
        statistics.median(f.rate for f in rounds),
        statistics.median(f.cpu_us for f in rounds),
        statistics.median(f.p50_ms for f in rounds),
        statistics.median(f.p99_ms for f in rounds),
    )


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.measure.doors``; return the exit status."""
    parser = new_parser(
        "measure.doors",
        "Measure orders through each door beside the native protocol.",
        "exit status: 0 done, 1 the exchange hung up",
    )
    parser.add_argument("--seconds", type=above_0, default=SECONDS)
    parser.add_argument("--rounds", type=whole, default=ROUNDS)
    options = parser.parse_args(arguments)
    found: dict[str, list[Figures]] = {p.name: [] for p in PROTOCOLS}
    try:
        for _ in range(options.rounds):
            for protocol in PROTOCOLS:
                figures = round_of(protocol, options.seconds)
                found[protocol.name].append(figures)
    except Trouble as trouble:
        print(f"measure.doors: {trouble}", file=sys.stderr)
        return 1
    print(
        f"| {CLIENTS} clients | requests/s, {WINDOW} in flight each"
        f" | us of CPU | p50 ms at {RATE:,}/s | p99 ms |\n"
        "|---|---|---|---|---|"
    )
    for name, rounds in found.items():
        it = median(rounds)
        print(
            f"| {name} | {it.rate:,.0f} | {it.cpu_us:.0f}"
            f" | {it.p50_ms:.2f} | {it.p99_ms:.2f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
