"""The load of `util.measure.bench`: ready-made requests, counted replies.

The load generator must cost little: it writes orders that differ only in
their numbers, and counts replies without parsing them.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from orderbook import Login, Ping, Place, Request, Side, encode
from util.measure.histogram import Histogram
from util.measure.load import Link, Pace
from util.measure.process import Launched, Trouble, cpu_s

WARM_UP = 0.2  # of the seconds measured, before them
MID = 50_000  # ticks; the price around which everything happens
MOULDS = 1_009  # different orders
FIRST_NUMBER = 1_000_000
MANY = 1_000_000_000  # lots that are never used up
CROSSING = 0.1  # of the orders; each trades with about two others

Figures = dict[str, float]  # by unit


@dataclass(frozen=True, slots=True)
class Load:
    """How many clients keep how many frames of how many orders in flight.

    With ``subscribes`` each of them follows the book and the trades.
    """

    clients: int
    in_flight: int
    per_frame: int = 1
    subscribes: bool = False


def orders(prefix: str) -> Iterator[str]:
    """Yield small orders near the top of the book, without end."""
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
    """A client that checks nothing: each ``"id":`` counts as a reply."""

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
        self._tail = b""  # of the last read: it may end within a mark

    def login(self) -> str:
        """Return the requests to begin with, one of them with an id."""
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
    """The account that a lone trader trades with: one order on each side.

    Their prices are better than those of the orders that the trader rests,
    so the trader never meets its own orders.
    """

    def login(self) -> str:
        """Return the requests to begin with, one of them with an id."""
        requests: list[Request] = [
            Login(user=self._name),
            Place(symbol="BOND", side="buy", qty=MANY, price=MID),
            Place(symbol="BOND", side="sell", qty=MANY, price=MID + 1),
            Ping(id=0),
        ]
        return f"[{','.join(map(encode, requests))}]"


class Reader(Counter):
    """A subscriber of the book, which counts its updates."""

    mark = b'"type":"book"'

    def login(self) -> str:
        """Return the request to begin with; the reply is a snapshot."""
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


async def drive(
    server: Launched, load: Load, pace: Pace, seconds: float
) -> Figures:
    """Load a server, and return what an order took."""
    loop = asyncio.get_running_loop()
    clients: list[Counter] = [
        Counter(f"bot{number}", load.subscribes)
        for number in range(load.clients)
    ]
    partners: list[Counter] = []
    if load.clients == 1:
        partners.append(Partner("partner"))
    others = await connect(server.url, partners, pace)
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
