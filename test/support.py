"""A real exchange for a test, a bare connection to it, and its inner half."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import ssl
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from exchange.gateway.gateway import Gateway
from exchange.gateway.link import Link
from exchange.gateway.outbox import Batch
from exchange.host import clock as clocks
from exchange.host.market_file import InstrumentSettings
from exchange.host.settings import Settings
from exchange.market.command import Configure
from orderbook import decode_requests
from server import Server
from test.script import message
from util.measure.process import NO_KEYS, ROOT, add_key, environment
from util.measure.wire import PATIENCE_S, Wire, order, wired, words

# Those that tests may import from here.
__all__ = [
    "FOLLOW",
    "NOBODY",
    "NO_KEYS",
    "PATIENCE_S",
    "PING",
    "ROOT",
    "UNLIMITED",
    "Clock",
    "Floor",
    "Peer",
    "Wire",
    "add_key",
    "address",
    "alive",
    "answer",
    "ended",
    "free_port",
    "greeting",
    "launched",
    "order",
    "running",
    "serving",
    "state_of",
    "until",
    "wired",
    "words",
]
# Below what the kernel gives to those that connect.
PORTS = range(20_000, 32_000)
NOBODY = "ws://127.0.0.1:9"  # where nobody listens
# A market where an account may have any number of open orders.
UNLIMITED = "[instruments.BOND]\n[account]\nopen_orders = 0\n"


@contextlib.asynccontextmanager
async def serving(
    clock: clocks.Clock | None = None, **settings: Any
) -> AsyncIterator[Server]:
    """Run a server on a free port of the loopback, and end it in order.

    ``server.url`` is where it listens. Nothing may have failed inside.
    """
    # Also here, because fixtures of modules start before those of tests.
    nothing = {"journal": None, "keys": NO_KEYS}
    here = {"hostname": "127.0.0.1", "port": 0, "debug": False}
    server = Server(Settings(**{**nothing, **here, **settings}), clock)
    await server.start()
    try:
        yield server
    finally:
        async with asyncio.timeout(PATIENCE_S):
            await server.stop()
    assert not server.failure.done(), server.failure
    assert server.listener.errors == 0


def free_port() -> int:
    """Return a port that nobody listens on, for a program that starts later.

    The kernel gives it to nobody who connects meanwhile.
    """
    while True:
        port = random.choice(PORTS)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("", port))
            return port


async def until(condition: Callable[[], object]) -> None:
    """Run the event loop until a condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0)


async def alive(*wires: Wire) -> None:
    """Check that each connection is served."""
    for wire in wires:
        assert words(await wire.ask(type="ping")) == ["ok"]


async def answer(
    port: int,
    *headers: str,
    to: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
) -> int:
    """Ask for a websocket with these headers; return the HTTP status."""
    reader, writer = await asyncio.open_connection(to, port, ssl=tls)
    lines = [
        "GET / HTTP/1.1",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        *headers,
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    async with asyncio.timeout(PATIENCE_S):
        status = int((await reader.readline()).split()[1])
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
    return status


def state_of(server: Server | Gateway) -> Any:
    """Return all that a request may change, to be compared.

    The first element, the engine's ``seq``, counts refused commands too.
    """
    gateway = server.gateway if isinstance(server, Server) else server
    engine = gateway.engine
    books = {
        symbol: (
            listing.phase,
            listing.reopen_ts,
            [
                (order.order_id, order.account, order.price, order.leaves_qty)
                for side in ("buy", "sell")
                for order in listing.book.queue(side)
            ],
        )
        for symbol, listing in engine.listings.items()
    }
    accounts = {
        name: (
            account.seq,
            account.cash,
            account.realized,
            dict(account.positions),
            sorted(account.orders),
            account.cancel_after_ts,
            account.is_suspended,
            account.role,
        )
        for name, account in engine.accounts.items()
    }
    return engine.seq, books, accounts


@contextlib.asynccontextmanager
async def running(
    *arguments: str, env: dict[str, str], cwd: Path = ROOT, **streams: Any
) -> AsyncIterator[Process]:
    """Run Python as a process of its own; kill it if it is left at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=cwd,
        env=env,
        **{"stdout": PIPE, "stderr": PIPE, **streams},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@contextlib.asynccontextmanager
async def launched(
    *arguments: str, code: str = "", output: int = PIPE, **settings: str
) -> AsyncIterator[Process]:
    """Run ``python server.py``, or some code, as a process of its own.

    Settings are variables: ``debug="0"`` is EXCHANGE_SERVER_DEBUG=0. What
    is left of it at the end is killed.
    """
    async with running(
        *("-W", "default::ResourceWarning"),
        *(("-c", code) if code else ("server.py",)),
        *arguments,
        env=environment(**settings),
        stdout=output,
    ) as process:
        yield process


async def greeting(process: Process) -> str:
    """Return the line a server prints once it listens."""
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        return (await process.stdout.readline()).decode()


def address(line: str) -> str:
    """Return the URL in the line that a server greets with."""
    (url,) = [word for word in line.split() if "://" in word]
    return url


async def ended(process: Process) -> tuple[int, str, str]:
    """Wait for the end of a process; return status, output and errors."""
    async with asyncio.timeout(PATIENCE_S):
        output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, (output or b"").decode(), errors.decode()


# Without sockets ----------------------------------------------------------

PING = {"type": "ping", "id": "ping"}
FOLLOW = {"type": "subscribe", "channels": ["book", "trades", "ticker"]}
NOON = 1_795_340_157_000_000
SECOND = 1_000_000


class Peer:
    """A connection with some bytes that the peer has not read."""

    buffered = 0
    is_congested = True  # a real one only says so if there is much


class Clock:
    """A wall clock that a test sets."""

    ts = NOON

    def now(self) -> int:
        return self.ts


class Lines:
    """A door that ends each message with a newline."""

    decode = staticmethod(decode_requests)

    def encode(self, texts: list[str]) -> bytes:
        return "".join(f"{text}\n" for text in texts).encode()


LINES = Lines()


class Floor:
    """A gateway, its clock, and the batches that have left it.

    Options are those of the gateway; without a ``market`` the symbols are
    listed with nothing special about them.
    """

    def __init__(
        self,
        *symbols: str,
        market: Configure | None = None,
        **options: Any,
    ) -> None:
        self.clock = Clock()
        self._batches: list[Batch] = []
        self.gateway = Gateway(self.clock.now, **options)
        self.gateway.begin(
            market
            or Configure(
                instruments=tuple(
                    InstrumentSettings().listed_as(symbol)
                    for symbol in symbols or ("BOND",)
                )
            )
        )

    @property
    def seq(self) -> int:
        return self.gateway.engine.seq

    @property
    def batches(self) -> list[Batch]:
        """The batches that have left."""
        self._batches += self.gateway.gate.open()
        return self._batches

    def connect(self, peer: Any) -> Link:
        return self.gateway.connect(peer, LINES)

    def join(self, user: str = "", **more: Any) -> Link:
        """Connect, log in if a user is given, and drop the replies."""
        session = self.connect(Peer())
        if user:
            self.do(session, {"type": "login", "user": user, **more})
        return session

    def do(self, session: Link, *requests: dict[str, Any] | str) -> Any:
        """Handle requests in one batch; return the messages for ``session``.

        A string is a request in the words of `test.script`.
        """
        self.gateway.pass_time()
        decoded = decode_requests(
            json.dumps(
                [message(r) if isinstance(r, str) else r for r in requests]
            )
        )
        self.gateway.requests.handle(session, decoded)
        self.gateway.seal()
        return self.read(session)

    def read(self, session: Link) -> list[dict[str, Any]]:
        """Return the messages for a session since the last call."""
        messages: list[dict[str, Any]] = []
        for batch in self.batches:
            for frames, readers in batch.broadcasts:
                if session in readers:
                    readers.remove(session)
                    messages += map(json.loads, frames.splitlines())
            for index, (recipient, frames) in enumerate(batch.frames):
                if recipient is session:
                    batch.frames[index] = (recipient, b"")
                    messages += map(json.loads, frames.splitlines())
        return messages

    def closings(self, session: Link) -> list[int]:
        """Return the close codes that have left for a session."""
        return [
            code
            for batch in self.batches
            for recipient, code, _ in batch.closings
            if recipient is session
        ]

    def close_gate(self) -> None:
        """Commit nothing from now on."""
        self.gateway.gate.commit(self.seq)

    def commit(self, seq: int) -> None:
        self.gateway.gate.commit(seq)
