"""The bad bots: each does one wrong thing as hard as it can.

They log in as one account, connect from an address of their own on the
loopback, and count what the exchange does to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from exchange.doors.tcp import MAX_MESSAGE, READ_SIZE
from exchange.gateway.link import BYTES_WAITING
from orderbook import MAX_FRAME, MAX_ROWS
from util.measure.wire import framed

CULPRIT = "mallory"  # their account
HIDEOUT = "127.0.0.2"  # their address
NARROW = 4_096  # bytes that the kernel buffers for a bot that does not read
LISTEN = 0.2  # of the time: then bots that did not read see how they ended
BOOK = range(1, 20_000)  # prices of the bot that fills the book
ORDERS = 100  # in one frame
WRONG = [1] * 20_000  # about as many as fit into a message
CODE = re.compile(rb'"code":"([a-z_]+)"')
CLOSE = b"\x88"  # the first byte of a close frame; texts here are ASCII

Message: TypeAlias = dict[str, Any]


# What they send --------------------------------------------------------------


def frames(*requests: Message) -> bytes:
    """Return each request in a frame of its own."""
    return b"".join(framed(json.dumps(r).encode()) for r in requests)


def array(*requests: Message) -> bytes:
    """Return requests in one frame."""
    return framed(json.dumps(requests).encode())


def place(price: int, **more: Any) -> Message:
    """Return an order to buy; nobody sells, so nothing trades."""
    return {"type": "place", "side": "buy", "qty": 1, "price": price, **more}


def get(what: str) -> Message:
    """Return a request for the largest part of a table that is allowed."""
    return {"type": "get", "what": what, "limit": MAX_ROWS}


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
LOGIN = HANDSHAKE + frames({"type": "login", "user": CULPRIT})
FOLLOW = frames(
    {"type": "subscribe", "channels": ["book", "trades", "ticker"]}
)


# Their connections ----------------------------------------------------------


@dataclass
class Tally:
    """What the exchange did to the bad bots."""

    refused: Counter[str] = field(default_factory=Counter)  # by code
    closed: Counter[str] = field(default_factory=Counter)  # by close code


class Line:
    """A connection that sends any bytes and counts what it receives."""

    def __init__(
        self,
        tally: Tally,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self._tally = tally

    async def send(self, data: bytes) -> None:
        """Send as soon as the socket has room."""
        self.writer.write(data)
        await self.writer.drain()

    async def repeat(self, data: bytes) -> None:
        """Send the same for ever."""
        while True:
            await self.send(data)

    async def read(self) -> None:
        """Read until the exchange ends the connection; count how it did."""
        how = "dropped"
        rest = b""
        with contextlib.suppress(ConnectionError):
            while data := await self.reader.read(MAX_MESSAGE):
                if data.startswith(b"HTTP/1.1 4"):
                    how = f"HTTP {data[9:12].decode()}"
                # No code extends beyond the end of an object.
                text = rest + data
                cut = text.rfind(b"}") + 1
                codes = CODE.findall(text, 0, cut)
                self._tally.refused.update(map(bytes.decode, codes))
                rest = text[cut:]
                at = rest.rfind(CLOSE)
                if 0 <= at <= len(rest) - 4:
                    how = str(*struct.unpack_from("!H", rest, at + 2))
                    break
        self._tally.closed[how] += 1

    async def read_for(self, seconds: float) -> None:
        """Read for at most ``seconds``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.read()


@dataclass
class Stage:
    """The exchange to attack, and what it did to the bad bots."""

    port: int
    seconds: float
    doors: Mapping[str, int] = field(default_factory=dict)  # ports
    tally: Tally = field(default_factory=Tally)

    @contextlib.asynccontextmanager
    async def dial(
        self,
        *first: bytes,
        is_narrow: bool = False,
        port: int | None = None,
        kind: type[Line] = Line,
    ) -> AsyncIterator[Line]:
        """Connect, send ``first`` at once, and abort at the end.

        ``port`` is by default that of the native protocol. Raises
        OSError if the exchange accepts no connection.
        """
        sock = socket.socket()
        sock.setblocking(False)
        if is_narrow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)
        try:
            sock.bind((HIDEOUT, 0))
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", port or self.port))
            streams = await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise
        line = kind(self.tally, *streams)
        line.writer.write(b"".join(first))
        try:
            yield line
        finally:
            line.writer.transport.abort()

    async def crowd(self, count: int, bot: Bot) -> None:
        """Run ``count`` bots at a time; start each again when it ends."""

        async def live() -> None:
            while True:
                try:
                    await bot(self)
                except* (OSError, EOFError):
                    pass  # cut off
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(live())

    async def mostly(self, doing: Awaitable[None]) -> None:
        """Do something until the last part of the time, LISTEN."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.seconds * (1 - LISTEN)):
                await doing


Bot: TypeAlias = Callable[[Stage], Awaitable[None]]


async def pour(stage: Stage, data: bytes) -> None:
    """Log in and send the same for ever, while reading."""
    async with stage.dial(LOGIN) as line:
        sending = asyncio.ensure_future(line.repeat(data))
        try:
            await line.read()
        finally:
            sending.cancel()
            await asyncio.wait([sending])


# What they do ---------------------------------------------------------------


async def flood(stage: Stage) -> None:
    """Place orders as fast as the socket accepts them."""
    orders = [place(1, time_in_force="ioc")] * ORDERS
    data = frames(*orders) + array(*orders)
    await stage.crowd(4, lambda stage: pour(stage, data))


async def logins(stage: Stage) -> None:
    """Log in and hang up, again and again."""

    async def bot(stage: Stage) -> None:
        async with stage.dial(LOGIN) as line:
            await line.read_for(0.01)

    await stage.crowd(32, bot)


async def cancels(stage: Stage) -> None:
    """Cancel unknown orders, one by one and all at once."""
    data = frames({"type": "cancel", "order_id": 1}, {"type": "cancel_all"})
    await stage.crowd(4, lambda stage: pour(stage, data * ORDERS))


async def filler(stage: Stage) -> None:
    """Fill the book with thousands of orders and prices, then leave."""
    orders = [
        array(*map(place, BOOK[start : start + ORDERS]))
        for start in range(0, len(BOOK), ORDERS)
    ]

    async def fill(line: Line) -> None:
        for data in orders:
            await line.send(data)

    async def bot(stage: Stage) -> None:
        async with stage.dial(LOGIN) as line:
            filling = asyncio.ensure_future(fill(line))
            try:
                await line.read_for(stage.seconds / 3)
            finally:
                filling.cancel()
                await asyncio.wait([filling])

    await stage.crowd(2, bot)


TABLES = frames(*map(get, ("orders", "trades", "book")))


async def deaf(stage: Stage) -> None:
    """Subscribe to everything, ask for large tables, and read nothing."""

    async def bot(stage: Stage) -> None:
        async with stage.dial(LOGIN, FOLLOW, is_narrow=True) as line:
            reading: Any = line.writer.transport
            reading.pause_reading()
            await stage.mostly(line.repeat(TABLES * ORDERS))
            reading.resume_reading()
            await line.read()

    await stage.crowd(3, bot)


async def trickler(stage: Stage) -> None:
    """Subscribe to everything; read or write one byte at a time."""

    async def read(line: Line) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(line.repeat(TABLES * ORDERS))
            while await line.reader.read(1):
                await asyncio.sleep(0.001)

    async def write(line: Line) -> None:
        while True:
            for index in range(len(TABLES)):
                await line.send(TABLES[index : index + 1])
                await asyncio.sleep(0.001)

    def bot(doing: Callable[[Line], Awaitable[None]]) -> Bot:
        async def live(stage: Stage) -> None:
            async with stage.dial(LOGIN, FOLLOW, is_narrow=True) as line:
                await stage.mostly(doing(line))
                await line.read()

        return live

    async with asyncio.TaskGroup() as group:
        group.create_task(stage.crowd(2, bot(read)))
        group.create_task(stage.crowd(2, bot(write)))


async def junk(stage: Stage) -> None:
    """Send noise, half a frame, or invalid frames."""
    dice = random.Random(1)

    async def bot(stage: Stage) -> None:
        noise = dice.randbytes(dice.randint(1, READ_SIZE))
        data = dice.choice(
            [
                noise,
                HANDSHAKE[: dice.randrange(len(HANDSHAKE))],
                HANDSHAKE + noise,
                LOGIN + frames(place(1))[:-3],
                LOGIN + b"\x81\xfe\xff\xff" + noise,
                LOGIN + b"\x01\x84\0\0\0\0junk" * MAX_FRAME,
                LOGIN + b"\x89\x80\0\0\0\0" * 2_000,
                LOGIN + frames({"type": "junk"}) * MAX_FRAME,
                LOGIN + frames({"type": "subscribe", "channels": WRONG}),
            ]
        )
        async with stage.dial(data) as line:
            await line.read_for(dice.random())

    await stage.crowd(100, bot)


async def handshakes(stage: Stage) -> None:
    """Begin a handshake with many headers and never complete it."""

    async def bot(stage: Stage) -> None:
        async with stage.dial(HANDSHAKE[:-2]) as line:
            for number in range(120):
                await asyncio.sleep(stage.seconds / 120)
                await line.send(b"X-%d: %b\r\n" % (number, b"x" * 8_000))
            await line.read()

    await stage.crowd(300, bot)


async def thousand(stage: Stage) -> None:
    """Open a thousand connections that subscribe to everything."""

    async def bot(stage: Stage) -> None:
        async with stage.dial(LOGIN, FOLLOW) as line:
            await line.read()
            await asyncio.sleep(1)

    await stage.crowd(1_000, bot)


async def tables(stage: Stage) -> None:
    """Ask for the slowest tables, as many as are allowed."""
    wanted = ("orders", "book", "leaderboard", "trades", "candles")
    data = b"".join(array(*[get(what)] * MAX_FRAME) for what in wanted)
    # Each of these differs from the one before, so no answer is reused.
    for what in ("book", "leaderboard"):
        data += array(*[place(1), get(what)] * (MAX_FRAME // 2))
    orders = array(*map(place, BOOK[:ORDERS]))
    await stage.crowd(3, lambda stage: pour(stage, orders + data))


async def hit_and_run(stage: Stage) -> None:
    """Connect, send as many requests as one read holds, and leave."""
    request = frames({})
    data = request * (READ_SIZE // len(request))
    assert len(data) > BYTES_WAITING // 2

    async def bot(stage: Stage) -> None:
        async with stage.dial(HANDSHAKE, data) as line:
            await line.reader.read(1)

    await stage.crowd(32, bot)
