"""What loads an exchange: a server process, and clients that check it.

A ``Trader`` decides what to ask for and holds every answer against the
protocol; it has no socket and no clock. A ``Link`` is its connection, and
keeps its pace. ``util.stress`` runs many of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import random
import struct
import subprocess
import sys
from bisect import bisect
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import CONT, TEXT, CloseCode, Frame
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from client import MAX_FRAME_BYTES
from orderbook import (
    AccountReport,
    Error,
    Event,
    Exec,
    Heartbeat,
    Login,
    Side,
    Welcome,
    decode_events,
    encode,
)

ROOT = Path(__file__).parent.parent
STOP_S = 10.0  # for a server to end in order, until it is killed
DEPTH = 10  # ticks from the middle within which orders are placed
QTY = 10  # lots of an order at most
# Of one client, so that neither book nor positions grow without limit.
OPEN_ORDERS = 100
POSITION = 100  # lots, from which on it only trades the other way
RETRY_S = 1.0  # to wait where an exchange that is busy does not say how long

# At DEBUG the library prints every frame, and frames hold tokens.
_QUIET = logging.getLogger(f"{__name__}.websocket")
_QUIET.setLevel(logging.WARNING)


class Trouble(Exception):
    """What ends a run; ``status`` is the exit status."""

    status = 2


class Violation(Trouble):
    """The exchange broke the protocol."""

    status = 1


class Gone(Trouble):
    """The exchange went away while it was loaded."""

    status = 1


@contextlib.contextmanager
def launched(
    *arguments: str, journal: str = "off", market: Path | None = None
) -> Iterator[tuple[str, int]]:
    """Run a server of ours on a free port; give its URL and process id.

    The server prints its URL as the third word of its first line. It is out
    of reach of the terminal's Ctrl-C, since it is to outlive its clients.
    Raises Trouble if it does not start.
    """
    environment = os.environ | {
        "EXCHANGE_SERVER_HOSTNAME": "127.0.0.1",
        "EXCHANGE_SERVER_PORT": "0",
        "EXCHANGE_SERVER_DEBUG": "0",
        "EXCHANGE_SERVER_JOURNAL": journal,
        "EXCHANGE_SERVER_KEYS": f"{os.devnull}/none",  # never those of a desk
    }
    if market is not None:
        environment["EXCHANGE_SERVER_MARKET"] = str(market)
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise Trouble(f"{' '.join(arguments)} did not start")
            yield line.split()[2], process.pid
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def masked(payload: bytes) -> bytes:
    """Return a client's text frame; its mask of zeros leaves it readable."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x81, 0x80 | size)
    else:
        head = struct.pack("!BBH", 0x81, 0x80 | 126, size)
    return head + bytes(4) + payload


# What is counted ----------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """Requests sent, and what became of them."""

    sent: int = 0
    accepted: Counter[str] = field(default_factory=Counter)  # by exec_type
    refused: Counter[str] = field(default_factory=Counter)  # by code
    trades: int = 0  # in which an order counted here was the one to arrive

    @property
    def answered(self) -> int:
        """Requests that got their reply."""
        return self.accepted.total() + self.refused.total()

    @property
    def orders(self) -> int:
        """Orders placed or amended."""
        return self.accepted["new"] + self.accepted["amended"]

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.sent + other.sent,
            self.accepted + other.accepted,
            self.refused + other.refused,
            self.trades + other.trades,
        )

    def __sub__(self, other: Tally) -> Tally:
        return Tally(
            self.sent - other.sent,
            self.accepted - other.accepted,
            self.refused - other.refused,
            self.trades - other.trades,
        )


class Histogram:
    """Durations in whole microseconds, in memory that does not grow.

    As in HdrHistogram the buckets get wider as durations do, so that each
    is known to within 0.8 %. The library of that name takes six times as
    long for a record, which is made for every reply.
    """

    SUB_BITS = 7  # 128 buckets each time that a duration doubles
    MOST_US = 2**32 - 1  # 71 minutes; what takes longer counts as that
    SIZE = (34 - SUB_BITS) << SUB_BITS

    def __init__(self) -> None:
        self.counts = [0] * self.SIZE
        self.max_us = 0

    @property
    def total(self) -> int:
        """How many durations were recorded."""
        return sum(self.counts)

    def record(self, us: int) -> None:
        """Count one duration."""
        us = min(us, self.MOST_US)
        if us > self.max_us:
            self.max_us = us
        shift = us.bit_length() - self.SUB_BITS - 1
        if shift < 0:
            shift = 0
        self.counts[(shift << self.SUB_BITS) + (us >> shift)] += 1

    def add(self, other: Histogram) -> None:
        """Count what another one has counted."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts)]
        self.max_us = max(self.max_us, other.max_us)

    def bars(self) -> Iterator[tuple[int, int, int]]:
        """Yield first and last duration and the count of filled buckets."""
        for index, number in enumerate(self.counts):
            if number:
                shift = max((index >> self.SUB_BITS) - 1, 0)
                first = (index - (shift << self.SUB_BITS)) << shift
                yield first, first + (1 << shift) - 1, number

    def percentile(self, percent: float) -> int:
        """Return what so many of the durations do not exceed; 0 if none."""
        wanted = math.ceil(self.total * percent / 100)
        for _, last, number in self.bars():
            wanted -= number
            if wanted <= 0:
                return min(last, self.max_us)
        return 0


# Trading ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Account:
    """Who trades."""

    user: str
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What is traded, and how.

    Prices are within ``depth`` ticks of the ``middle``. ``mix`` weighs
    "place", "cancel", "amend" and "cross": an order that takes what it can
    at once. Names of orders begin with ``run``, to be new each time.
    """

    symbol: str
    middle: int
    depth: int
    max_qty: int
    mix: Mapping[str, int]
    run: str


# What a crossing order has besides. Where it meets one of its own account it
# ends, or it would cancel one after the other.
TAKING = '"time_in_force":"ioc","stp":"cancel_newest",'
# By what was asked: the reports that accept it.
ACCEPTED = {
    "place": ("new",),
    "amend": ("amended", "canceled"),
    "cancel": ("canceled",),
}


class Trader:
    """One account: makes up requests, and checks what is answered.

    Counts go into ``tally``, and into ``latency`` the time from when a
    request was due to its reply, of replies from ``measured_from`` on. Times
    are in seconds.
    """

    def __init__(
        self,
        account: Account,
        flow: Flow,
        seed: str,
        tally: Tally,
        latency: Histogram,
    ) -> None:
        self.account = account
        self.limits: dict[str, int] = {}
        self.is_ready = False  # logged in, and its state is known
        self.hold_until = 0.0  # the exchange asked to send nothing before
        self.measured_from = math.inf
        # What was asked, of which order, and when it was due.
        self.unanswered: deque[tuple[str, int, float]] = deque()
        self._flow = flow
        self._kinds = list(flow.mix)
        self._weights = list(accumulate(flow.mix.values()))
        self._random = random.Random(seed).random
        self._tally = tally
        self._latency = latency
        self._number = 0  # of the last request
        self._replies = 0
        self._seq = 0
        self._position = 0
        self._sides: dict[int, Side] = {}  # of open orders, by order_id
        self._known: list[int] = []  # to choose from; some may have ended

    def login(self) -> str:
        """Return the request to begin with."""
        account = self.account
        return encode(Login(id=0, user=account.user, token=account.token))

    def request(self, due: float) -> str:
        """Return the next request, which is due at that time."""
        self._number += 1
        self._tally.sent += 1
        kind = self._kind()
        order_id = self._take_out() if kind in ("cancel", "amend") else None
        if order_id is None:
            self.unanswered.append(("place", 0, due))
            return self._place(is_crossing=kind == "cross")
        self.unanswered.append((kind, order_id, due))
        if kind == "amend":
            self._known.append(order_id)
            return self._amend(order_id)
        return f'{{"type":"cancel","id":{self._number},"order_id":{order_id}}}'

    def take(self, event: Event, now: float) -> None:
        """Take what the exchange says; raise Violation if it may not.

        Raises Trouble where it does not let the account in.
        """
        match event:
            case Exec() if self.is_ready:
                self._count(event.seq)
                if event.id is not None:
                    self._replied(event, now)
                self._follow(event)
            case AccountReport():
                if self.is_ready:
                    self._count(event.seq)
                self.is_ready = True  # the last one of the state
                self._position = event.positions.get(self._flow.symbol, 0)
            case Error():
                if not self.is_ready:
                    raise Trouble(f"{self}: {event.code}: {event.message}")
                self._replied(event, now)
            case Welcome() if not self.limits:
                self._seq = event.seq
                self.limits = event.limits
            case Heartbeat() if self.is_ready:
                if event.seq.get("@", self._seq) != self._seq:
                    raise Violation(
                        f"{self}: seq is {event.seq['@']} by the heartbeat,"
                        f" {self._seq} by the events"
                    )
            case _ if getattr(event, "id", None) is not None:
                raise Violation(f"{self}: {event.type} is no reply to this")

    def __str__(self) -> str:
        return self.account.user

    # Asking

    def _kind(self) -> str:
        point = self._random() * self._weights[-1]
        kind = self._kinds[bisect(self._weights, point)]
        most = self.limits.get("open_orders") or OPEN_ORDERS
        if kind == "place" and len(self._sides) >= min(most, OPEN_ORDERS):
            return "cancel"
        return kind

    def _take_out(self) -> int | None:
        """Take an open order out of those known, at random."""
        known = self._known
        while known:
            index = int(self._random() * len(known))
            order_id, known[index] = known[index], known[-1]
            known.pop()
            if order_id in self._sides:
                return order_id
        return None

    def _place(self, is_crossing: bool) -> str:
        flow, number = self._flow, self._number
        is_buy = self._random() < 0.5
        if abs(self._position) >= POSITION:
            is_buy = self._position < 0
        away = flow.depth if is_crossing else -self._some(flow.depth)
        price = flow.middle + (away if is_buy else -away)
        return (
            f'{{"type":"place","id":{number},"symbol":"{flow.symbol}",'
            f'"side":"{"buy" if is_buy else "sell"}",'
            f'"qty":{self._some(flow.max_qty)},"price":{price},'
            + (TAKING if is_crossing else "")
            + f'"client_order_id":"{flow.run}-{number}"}}'
        )

    def _amend(self, order_id: int) -> str:
        flow = self._flow
        if self._random() < 0.5:
            change = f'"qty":{self._some(flow.max_qty)}'
        else:
            away = self._some(flow.depth)
            is_buy = self._sides[order_id] == "buy"
            price = flow.middle + (-away if is_buy else away)
            change = f'"price":{price}'
        return (
            f'{{"type":"amend","id":{self._number},"order_id":{order_id},'
            f"{change}}}"
        )

    def _some(self, most: int) -> int:
        return 1 + int(self._random() * most)

    # Checking

    def _count(self, seq: int) -> None:
        self._seq += 1
        if seq != self._seq:
            raise Violation(
                f"{self}: seq {seq} came where {self._seq} was due"
            )

    def _replied(self, reply: Exec | Error, now: float) -> None:
        """Hold a reply against the request that is next to be answered."""
        due_id = self._replies + 1 if self.unanswered else "none"
        if reply.id != due_id:
            raise Violation(
                f"{self}: a reply with id {reply.id} ({_word(reply)}) came"
                f" where {due_id} was due"
            )
        asked, order_id, due = self.unanswered.popleft()
        self._replies += 1
        if now >= self.measured_from:
            self._latency.record(int((now - due) * 1_000_000))
        if isinstance(reply, Error):
            self._refused(reply, asked, order_id, now)
            return
        self._tally.accepted[reply.exec_type] += 1
        if asked == "place":
            name = f"{self._flow.run}-{self._replies}"
            is_the_order = reply.client_order_id == name
        else:
            is_the_order = reply.order_id == order_id
        if not is_the_order or reply.exec_type not in ACCEPTED[asked]:
            raise Violation(
                f"{self}: request {reply.id} ({asked}) got the reply"
                f" {_word(reply)}"
            )

    def _refused(
        self, error: Error, asked: str, order_id: int, now: float
    ) -> None:
        self._tally.refused[error.code] += 1
        if error.code in ("rate_limited", "busy"):
            wait_ms = error.retry_after_ms
            wait_s = RETRY_S if wait_ms is None else wait_ms / 1_000
            self.hold_until = max(self.hold_until, now + wait_s)
        if asked == "cancel" and order_id in self._sides:
            self._known.append(order_id)

    def _follow(self, report: Exec) -> None:
        if report.exec_type == "trade" and report.liquidity == "taker":
            self._tally.trades += 1
        if not report.leaves_qty:
            self._sides.pop(report.order_id, None)
        elif report.exec_type == "new" and report.time_in_force == "gtc":
            self._sides[report.order_id] = report.side
            self._known.append(report.order_id)


def _word(reply: Exec | Error) -> str:
    if isinstance(reply, Error):
        return f"{reply.code}: {reply.message}"
    return f"{reply.exec_type} of order {reply.order_id}"


# The connection -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a client sends.

    ``window`` requests at most are in flight, ``frame`` in each frame. A
    frame is due every ``interval_s`` seconds, whatever is answered when;
    None: as soon as the window has room.
    """

    window: int
    frame: int
    interval_s: float | None = None


class Link(asyncio.Protocol):
    """The connection of a trader, to be made by ``open``.

    ``failed`` is told of the trouble that ended it, once it is logged in.
    Times are the loop's.
    """

    def __init__(
        self,
        url: str,
        trader: Trader,
        pace: Pace,
        failed: Callable[[Trouble], None],
    ) -> None:
        self.trader = trader
        self._url = parse_uri(url)
        self._pace = pace
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._is_up: asyncio.Future[None] = self._loop.create_future()
        self._is_over: asyncio.Future[None] = self._loop.create_future()
        self._is_lost: asyncio.Future[None] = self._loop.create_future()
        self._protocol = ClientProtocol(
            self._url, max_size=MAX_FRAME_BYTES, logger=_QUIET
        )
        self._parts: list[bytes] = []  # of a message not complete yet
        self._trouble: Trouble | None = None
        self._is_closing = False
        self._due = self._end = math.inf  # of the next frame, of the last
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Connect and log in; raises Trouble or OSError if one cannot."""
        url = self._url
        await self._loop.create_connection(
            lambda: self, url.host, url.port, ssl=url.secure or None
        )
        await self._is_up

    def begin(self, start: float, end: float, measured_from: float) -> None:
        """Send requests between these times."""
        self.trader.measured_from = measured_from
        self._due, self._end = start, end
        self._wait_until(start)

    @property
    def overdue(self) -> int:
        """Requests that were due and could not be sent; after the end."""
        interval_s = self._pace.interval_s
        if interval_s is None or self._due >= self._end:
            return 0
        frames = int((self._end - self._due) / interval_s)
        return frames * self._pace.frame

    async def finish(self) -> None:
        """Send nothing more; wait for all replies, or for the end."""
        self._end = min(self._end, self._loop.time())
        if self._timer is not None:
            self._timer.cancel()
        self._settle()
        await self._is_over

    async def close(self) -> None:
        """Hang up, and wait until the exchange has."""
        self._is_closing = True
        if self._protocol.state is OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._flush()
        await self._is_lost

    def abort(self) -> None:
        """Cut the connection off."""
        self._is_closing = True
        self._transport.abort()

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Shake hands."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._protocol.send_request(self._protocol.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Check what came, and send what there is room for."""
        now = self._loop.time()
        self._protocol.receive_data(data)
        try:
            for event in self._protocol.events_received():
                if isinstance(event, Frame):
                    self._take(event, now)
                elif self._protocol.handshake_exc is None:
                    login = self.trader.login()
                    self._transport.write(masked(login.encode()))
        except Trouble as trouble:
            self._fail(trouble)
        self._flush()
        if self._trouble is None:
            self._send(self._loop.time())
            self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        """Find out why."""
        self._protocol.receive_eof()
        self._is_lost.set_result(None)
        if not self._is_closing:
            self._fail(self._what_ended_it())
        self._settle()

    # Receiving

    def _take(self, frame: Frame, now: float) -> None:
        if frame.opcode not in (TEXT, CONT):
            return
        self._parts.append(bytes(frame.data))
        if not frame.fin:
            return
        message = b"".join(self._parts)
        self._parts.clear()
        try:
            events = decode_events(message)
        except ValueError as error:
            why = " ".join(str(error).split())
            raise Violation(f"{self.trader}: not understood: {why}") from None
        trader = self.trader
        for event in events:
            trader.take(event, now)
        if trader.is_ready and not self._is_up.done():
            self._is_up.set_result(None)

    def _what_ended_it(self) -> Trouble:
        protocol = self._protocol
        if protocol.handshake_exc is not None:
            return Trouble(f"no websocket: {protocol.handshake_exc}")
        if isinstance(protocol.parser_exc, (ProtocolError, PayloadTooBig)):
            return Violation(f"{self.trader}: {protocol.parser_exc}")
        kind = Gone if self._is_up.done() else Trouble
        why = protocol.close_exc
        return kind(f"{self.trader}: the exchange hung up: {why}")

    def _fail(self, trouble: Trouble) -> None:
        if self._trouble is not None:
            return
        self._trouble = trouble
        self._transport.abort()
        if self._is_up.done():
            self._failed(trouble)
        else:
            self._is_up.set_exception(trouble)

    # Sending

    def _send(self, now: float) -> None:
        """Send the frames that are due and have room."""
        trader, pace = self.trader, self._pace
        if now >= self._end or self._due == math.inf:
            return
        if self._protocol.close_rcvd is not None:
            return
        frames: list[bytes] = []
        while len(trader.unanswered) + pace.frame <= pace.window:
            if now < trader.hold_until:
                self._wait_until(trader.hold_until)
                break
            due = now
            if pace.interval_s is not None:
                if self._due > now:
                    self._wait_until(self._due)
                    break
                due = self._due
                self._due += pace.interval_s
            frames.append(self._frame(due))
        if frames:
            self._transport.write(b"".join(frames))

    def _frame(self, due: float) -> bytes:
        request = self.trader.request
        if self._pace.frame == 1:
            return masked(request(due).encode())
        requests = [request(due) for _ in range(self._pace.frame)]
        return masked(f"[{','.join(requests)}]".encode())

    def _wait_until(self, when: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_at(when, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._send(self._loop.time())

    def _settle(self) -> None:
        """Say that it is over, if so."""
        is_done = self._loop.time() >= self._end
        if (is_done and not self.trader.unanswered) or self._is_lost.done():
            if not self._is_over.done():
                self._is_over.set_result(None)

    def _flush(self) -> None:
        data = b"".join(self._protocol.data_to_send())
        if data and not self._transport.is_closing():
            self._transport.write(data)
