"""Measure the exchange dialect: ``python -m util.measure.dialect``.

Clients place limit orders that rest, one after the other, each waiting for the
answer to its last one: through the native protocol, by POST over one
keep-alive connection each, and over the websocket API. They do so in turn, in
one run, each time at an exchange of its own. The memory of an idle keep-alive
connection is measured too.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from util.cli import above_0, new_parser, whole
from util.measure.load import fine_loop
from util.measure.process import Launched, Trouble, launched, resident
from util.measure.wire import framed

SECONDS, ROUNDS = 2.0, 3
CLIENTS = (1, 10)
IDLE = 1_000  # keep-alive connections of which the memory is measured
PRICES = 500  # different ones, so that books have some depth
MARKET = """\
[instruments.BOND]
[account]
open_orders = 0
"""
SIGNATURE = "0" * 64  # any will do where a name is enough
_UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Native:
    """A client of the native protocol."""

    name = "native"

    def __init__(self, number: int) -> None:
        self.user = f"user{number}"

    def hello(self) -> list[bytes]:
        """Return what is sent before the first order, each after a reply."""
        login = b'{"type":"login","user":"%s"}' % self.user.encode()
        return [_UPGRADE.format(path="/").encode(), framed(login)]

    def order(self, number: int) -> bytes:
        """Return a request that places an order."""
        return framed(
            b'{"type":"place","id":%d,"symbol":"BOND","side":"buy","qty":1,'
            b'"price":%d}' % (number, 1 + number % PRICES)
        )

    def has_reply(self, data: bytes) -> bool:
        """Whether bytes have the answer to the last request."""
        return b'"exec_type":"new"' in data


class Rest(Native):
    """A client that posts over one connection."""

    name = "POST"

    def hello(self) -> list[bytes]:
        """Send nothing before the first order."""
        return []

    def order(self, number: int) -> bytes:
        """Return a request that places an order."""
        body = (
            "symbol=BONDUSD&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1"
            f"&price={1 + number % PRICES}&timestamp={_now_ms()}"
            f"&signature={SIGNATURE}"
        )
        return (
            "POST /api/v3/order HTTP/1.1\r\nHost: localhost\r\n"
            f"X-MBX-APIKEY: {self.user}\r\nAccept: */*\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    def has_reply(self, data: bytes) -> bool:
        """Whether bytes have the answer to the last request."""
        return b'"orderId":' in data


class WsApi(Native):
    """A client of the websocket API."""

    name = "ws-api"

    def hello(self) -> list[bytes]:
        """Open the websocket."""
        return [_UPGRADE.format(path="/ws-api/v3").encode()]

    def order(self, number: int) -> bytes:
        """Return a request that places an order."""
        return framed(
            (
                f'{{"id":{number},"method":"order.place","params":{{'
                '"symbol":"BONDUSD","side":"BUY","type":"LIMIT",'
                f'"timeInForce":"GTC","price":"{1 + number % PRICES}",'
                f'"quantity":"1","apiKey":"{self.user}",'
                f'"timestamp":{_now_ms()},"signature":"{SIGNATURE}"}}}}'
            ).encode()
        )

    def has_reply(self, data: bytes) -> bool:
        """Whether bytes have the answer to the last request."""
        return b'"orderId":' in data


PROTOCOLS = (Native, Rest, WsApi)


class Client(asyncio.Protocol):
    """Sends the next order as soon as the last one is answered."""

    def __init__(self, protocol: Native) -> None:
        self.replies = 0
        loop = asyncio.get_running_loop()
        self.is_up = loop.create_future()
        self._protocol = protocol
        self._hello = protocol.hello()
        self._sent = 0
        self._data = b""
        self._is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first message."""
        self.transport = cast(asyncio.Transport, transport)
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        """Fail, unless the measurement is over."""
        if not self._is_over and not self.is_up.done():
            self.is_up.set_exception(Trouble("the exchange hung up"))

    def stop(self) -> None:
        """Send nothing more."""
        self._is_over = True
        self.transport.abort()

    def _next(self) -> None:
        if self._hello:
            self.transport.write(self._hello.pop(0))
            return
        if not self.is_up.done():
            self.is_up.set_result(None)
        self._sent += 1
        self.transport.write(self._protocol.order(self._sent))

    def data_received(self, data: bytes) -> None:
        """Go on when the answer is there."""
        if self._is_over:
            return
        self._data += data
        if not self.is_up.done():
            self._data = b""
            self._next()
        elif self._protocol.has_reply(self._data):
            self.replies += 1
            self._data = b""
            self._next()


@contextlib.contextmanager
def exchange() -> Iterator[Launched]:
    """Run an exchange that speaks the dialect."""
    with tempfile.TemporaryDirectory() as folder:
        market = Path(folder, "market.toml")
        market.write_text(MARKET)
        with launched(market=str(market), dialect="spot") as server:
            yield server


async def rate_of(
    port: int, protocol: type[Native], clients: int, seconds: float
) -> float:
    """Return the orders per second of this many clients."""
    loop = asyncio.get_running_loop()
    made = [Client(protocol(number)) for number in range(clients)]
    for client in made:
        await loop.create_connection(lambda: client, "127.0.0.1", port)
    for client in made:
        await client.is_up
    await asyncio.sleep(seconds / 4)
    before, began = sum(c.replies for c in made), loop.time()
    await asyncio.sleep(seconds)
    count = sum(c.replies for c in made) - before
    elapsed = loop.time() - began
    for client in made:
        client.stop()
    return count / elapsed


async def idle(port: int, pid: int) -> float:
    """Return the memory of an idle keep-alive connection, in KiB."""
    ping = b"GET /api/v3/ping HTTP/1.1\r\nHost: localhost\r\n\r\n"
    writers = []
    before = resident(pid) or 0
    for _ in range(IDLE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ping)
        await reader.readuntil(b"{}")
        writers.append(writer)
    after = resident(pid) or 0
    for writer in writers:
        writer.close()
    return (after - before) / IDLE / 1_024


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.measure.dialect``; return the exit status."""
    parser = new_parser(
        "measure.dialect",
        "Measure single orders through the dialect beside the native ones.",
        "exit status: 0 done, 1 the exchange hung up",
    )
    parser.add_argument("--seconds", type=above_0, default=SECONDS)
    parser.add_argument("--rounds", type=whole, default=ROUNDS)
    options = parser.parse_args(arguments)
    found: dict[tuple[str, int], list[float]] = {}
    try:
        for _ in range(options.rounds):
            for protocol in PROTOCOLS:
                for clients in CLIENTS:
                    with (
                        exchange() as server,
                        asyncio.Runner(loop_factory=fine_loop) as loop,
                    ):
                        port = int(server.url.rpartition(":")[2])
                        rate = loop.run(
                            rate_of(port, protocol, clients, options.seconds)
                        )
                    found.setdefault((protocol.name, clients), []).append(rate)
        with (
            exchange() as server,
            asyncio.Runner(loop_factory=fine_loop) as loop,
        ):
            port = int(server.url.rpartition(":")[2])
            kib = loop.run(idle(port, server.pid))
    except Trouble as trouble:
        print(f"measure.dialect: {trouble}", file=sys.stderr)
        return 1
    head = " | ".join(f"{n} client{'s' * (n > 1)}" for n in CLIENTS)
    print(f"| orders/s, 1 in flight | {head} | of native |")
    print("|---" * (len(CLIENTS) + 2) + "|")
    best = {key: max(rates) for key, rates in found.items()}
    for protocol in PROTOCOLS:
        rates = [best[protocol.name, n] for n in CLIENTS]
        shares = [
            f"{rate / best[Native.name, n]:.2f}"
            for rate, n in zip(rates, CLIENTS)
        ]
        words = " | ".join(f"{rate:,.0f}" for rate in rates)
        print(f"| {protocol.name} | {words} | {', '.join(shares)} |")
    print(f"\nidle keep-alive connection: {kib:.1f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
