"""The bad bots: each is short, and does one wrong thing as hard as it can.

They log in as one account, come from an address of the loopback of their
own, and note what the exchange does to them.
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
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from exchange.doors.websocket import MAX_MESSAGE, READ_SIZE
from exchange.gateway.link import BYTES_WAITING
from orderbook import MAX_FRAME, MAX_ROWS
from util.measure.wire import framed

CULPRIT = "mallory"  # who they log in as
HIDEOUT = "127.0.0.2"  # where they come from
NARROW = 4_096  # bytes that the kernel takes in for one who does not read
LISTEN = 0.2  # of the time: the deaf hear in the end how they were dealt with
BOOK = range(1, 20_000)  # prices of the one who fills it
ORDERS = 100  # of one frame
WRONG = [1] * 20_000  # as much as a message has room for
CODE = re.compile(rb'"code":"([a-z_]+)"')
CLOSE = b"\x88"  # the first byte of a close frame; texts here are ASCII

Message: TypeAlias = dict[str, Any]


# What they say --------------------------------------------------------------


def frames(*requests: Message) -> bytes:
    """Return each request in a frame of its own."""
    return b"".join(framed(json.dumps(r).encode()) for r in requests)


def array(*requests: Message) -> bytes:
    """Return requests in one frame."""
    return framed(json.dumps(requests).encode())


def place(price: int, **more: Any) -> Message:
    """Return a request to buy; nobody here sells, so nothing trades."""
    return {"type": "place", "side": "buy", "qty": 1, "price": price, **more}


def get(what: str) -> Message:
    """Return a request for as much of a table as one may have."""
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


# Where they say it ----------------------------------------------------------


@dataclass
class Tally:
    """What the exchange did to the bad bots."""

    refused: Counter[str] = field(default_factory=Counter)  # by code
    closed: Counter[str] = field(default_factory=Counter)  # by close code


class Line:
    """A connection that says what it likes and notes what it hears."""

    def __init__(
        self,
        tally: Tally,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self._tally = tally

    async def say(self, data: bytes) -> None:
        """Send as soon as the socket takes it."""
        self.writer.write(data)
        await self.writer.drain()

    async def repeat(self, data: bytes) -> None:
        """Send the same for ever."""
        while True:
            await self.say(data)

    async def hear(self) -> None:
        """Read on until the exchange ends it, and note how."""
        how = "dropped"
        rest = b""
        with contextlib.suppress(ConnectionError):
            while data := await self.reader.read(MAX_MESSAGE):
                if data.startswith(b"HTTP/1.1 4"):
                    how = f"HTTP {data[9:12].decode()}"
                # No code stands across the end of an object.
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

    async def hear_for(self, seconds: float) -> None:
        """Listen no longer than that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.hear()


@dataclass
class Stage:
    """Where bad bots meet the exchange, and what became of them."""

    host: str
    port: int
    seconds: float
    tally: Tally = field(default_factory=Tally)

    @contextlib.asynccontextmanager
    async def dial(
        self, *first: bytes, is_narrow: bool = False
    ) -> AsyncIterator[Line]:
        """Connect, say something at once, and be gone at the end.

        Raises OSError where the exchange takes nobody in.
        """
        sock = socket.socket()
        sock.setblocking(False)
        if is_narrow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)
        try:
            if self.host == "127.0.0.1":
                sock.bind((HIDEOUT, 0))
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, (self.host, self.port))
            streams = await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise
        line = Line(self.tally, *streams)
        line.writer.write(b"".join(first))
        try:
            yield line
        finally:
            line.writer.transport.abort()

    async def crowd(self, count: int, bot: Bot) -> None:
        """Let so many bots live at a time; one that ends begins anew."""

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
        """Do something until little time is left."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.seconds * (1 - LISTEN)):
                await doing


Bot: TypeAlias = Callable[[Stage], Awaitable[None]]


async def pour(stage: Stage, data: bytes) -> None:
    """Log in and say the same for ever, hearing what is answered."""
    async with stage.dial(LOGIN) as line:
        saying = asyncio.ensure_future(line.repeat(data))
        try:
            await line.hear()
        finally:
            saying.cancel()
            await asyncio.wait([saying])


# What they do ---------------------------------------------------------------


async def flood(stage: Stage) -> None:
    """Place orders as fast as the socket takes them."""
    orders = [place(1, time_in_force="ioc")] * ORDERS
    data = frames(*orders) + array(*orders)
    await stage.crowd(4, lambda stage: pour(stage, data))


async def logins(stage: Stage) -> None:
    """Log in and hang up, again and again."""

    async def bot(stage: Stage) -> None:
        async with stage.dial(LOGIN) as line:
            await line.hear_for(0.01)

    await stage.crowd(32, bot)


async def cancels(stage: Stage) -> None:
    """Cancel what is not there, one by one and all at once."""
    data = frames({"type": "cancel", "order_id": 1}, {"type": "cancel_all"})
    await stage.crowd(4, lambda stage: pour(stage, data * ORDERS))


async def filler(stage: Stage) -> None:
    """Fill the book with thousands of orders and prices, then hang up."""
    orders = [
        array(*map(place, BOOK[start : start + ORDERS]))
        for start in range(0, len(BOOK), ORDERS)
    ]

    async def fill(line: Line) -> None:
        for data in orders:
            await line.say(data)

    async def bot(stage: Stage) -> None:
        async with stage.dial(LOGIN) as line:
            filling = asyncio.ensure_future(fill(line))
            try:
                await line.hear_for(stage.seconds / 3)
            finally:
                filling.cancel()
                await asyncio.wait([filling])

    await stage.crowd(2, bot)


TABLES = frames(*map(get, ("orders", "trades", "book")))


async def deaf(stage: Stage) -> None:
    """Follow everything, ask for much, and read nothing."""

    async def bot(stage: Stage) -> None:
        async with stage.dial(LOGIN, FOLLOW, is_narrow=True) as line:
            reading: Any = line.writer.transport
            reading.pause_reading()
            await stage.mostly(line.repeat(TABLES * ORDERS))
            reading.resume_reading()
            await line.hear()

    await stage.crowd(3, bot)


async def trickler(stage: Stage) -> None:
    """Follow everything; read, or else write, a byte at a time."""

    async def read(line: Line) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(line.repeat(TABLES * ORDERS))
            while await line.reader.read(1):
                await asyncio.sleep(0.001)

    async def write(line: Line) -> None:
        while True:
            for index in range(len(TABLES)):
                await line.say(TABLES[index : index + 1])
                await asyncio.sleep(0.001)

    def bot(doing: Callable[[Line], Awaitable[None]]) -> Bot:
        async def live(stage: Stage) -> None:
            async with stage.dial(LOGIN, FOLLOW, is_narrow=True) as line:
                await stage.mostly(doing(line))
                await line.hear()

        return live

    async with asyncio.TaskGroup() as group:
        group.create_task(stage.crowd(2, bot(read)))
        group.create_task(stage.crowd(2, bot(write)))


async def junk(stage: Stage) -> None:
    """Send noise, half of a frame, or frames that may not be."""
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
            await line.hear_for(dice.random())

    await stage.crowd(100, bot)


async def handshakes(stage: Stage) -> None:
    """Begin to connect and never come to an end, with much to say."""

    async def bot(stage: Stage) -> None:
        async with stage.dial(HANDSHAKE[:-2]) as line:
            for number in range(120):
                await asyncio.sleep(stage.seconds / 120)
                await line.say(b"X-%d: %b\r\n" % (number, b"x" * 8_000))
            await line.hear()

    await stage.crowd(300, bot)


async def thousand(stage: Stage) -> None:
    """Open a thousand connections that all follow everything."""

    async def bot(stage: Stage) -> None:
        async with stage.dial(LOGIN, FOLLOW) as line:
            await line.hear()
            await asyncio.sleep(1)

    await stage.crowd(1_000, bot)


async def tables(stage: Stage) -> None:
    """Ask for what takes the exchange longest, as much as one may."""
    wanted = ("orders", "book", "leaderboard", "trades", "candles")
    data = b"".join(array(*[get(what)] * MAX_FRAME) for what in wanted)
    # None of these is the same as the one before.
    for what in ("book", "leaderboard"):
        data += array(*[place(1), get(what)] * (MAX_FRAME // 2))
    orders = array(*map(place, BOOK[:ORDERS]))
    await stage.crowd(3, lambda stage: pour(stage, orders + data))


async def hit_and_run(stage: Stage) -> None:
    """Connect, leave as much to do as one read holds, and be gone."""
    request = frames({})
    data = request * (READ_SIZE // len(request))
    assert len(data) > BYTES_WAITING // 2

    async def bot(stage: Stage) -> None:
        async with stage.dial(HANDSHAKE, data) as line:
            await line.reader.read(1)

    await stage.crowd(32, bot)


ATTACKS: dict[str, Bot] = {
    bot.__name__.replace("_", "-"): bot
    for bot in (
        flood,
        logins,
        cancels,
        filler,
        deaf,
        trickler,
        junk,
        handshakes,
        thousand,
        tables,
        hit_and_run,
    )
}
