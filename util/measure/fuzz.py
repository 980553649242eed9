"""Throw anything at the exchange while two healthy traders go on.

``python -m util.measure.fuzz COUNT SEED`` makes COUNT hostile connections, and
``python -m util.measure.fuzz 60s SEED`` as many as there is time for: damaged
handshakes and frames, noise, and requests of every type that make no sense.
What connection NUMBER of a seed says is always the same. Meanwhile alice and
bob trade with each other, and check every message that they get.

It fails if the exchange complains or ends, if a connection that was closed in
order is not ended by the exchange, if alice or bob hear anything wrong, or if
1 % of their requests took 25 ms or more.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm
from websockets.frames import TEXT, Frame

from util.measure.histogram import Histogram
from util.measure.hostile.bots import HANDSHAKE
from util.measure.process import add_key, launched
from util.measure.wire import PATIENCE_S, Wire, order, wired, words

P99_MS = 25.0  # what the healthy may have to wait
PAUSE_S = 0.005  # of the healthy, between two trades
AT_A_TIME = 20  # hostile connections
BATCH = 200  # of them, between two looks at the time
PRICE = 100  # at which the healthy trade
# The hostile know nothing of ETF: it is for the healthy.
MARKET = """\
[instruments.BOND]
[instruments.ETF]
[account]
orders_per_s = 0
open_orders = 0
[accounts.mallory]
orders_per_s = 50
burst = 100
open_orders = 100
"""
USERS = ("alice", "bob", "mallory", "boss")

# What an exchange may log of them: whose page or address it refused.
REFUSED = " WARNING refused "

Message = dict[str, Any]
Tokens = dict[str, str]


def prepare(folder: Path) -> tuple[dict[str, Any], Tokens]:
    """Write what an exchange needs; return its settings, and the tokens."""
    market, keys = folder / "market.toml", folder / "keys.json"
    market.write_text(MARKET)
    tokens = {user: add_key(keys, user, user == "boss") for user in USERS}
    settings = {"market": market, "keys": keys}
    return settings | {"max_per_address": 0, "max_per_account": 0}, tokens


# The healthy ----------------------------------------------------------------


class Healthy:
    """Two who trade with each other, and know what they must hear."""

    def __init__(self, alice: Wire, bob: Wire) -> None:
        self.delays: list[float] = []  # seconds, of each order
        self._alice = alice
        self._bob = bob
        self._seq = 0  # of the book

    async def begin(self) -> None:
        """Follow the market."""
        follow = {"channels": ["book", "trades"], "symbols": ["ETF"]}
        _, snapshot = await self._alice.ask(type="subscribe", **follow)
        self._seq = snapshot["seq"]

    async def trade(self, number: int) -> None:
        """Trade one lot, for this time, and check every message."""
        place = {"symbol": "ETF", "id": number}
        new = await self._ask(self._alice, order("sell", 1, PRICE, **place))
        assert words(new) == ["new"]
        self._follow(await self._alice.receive(), [[PRICE, 1]])
        bought = await self._ask(self._bob, order("buy", 1, PRICE, **place))
        bought += await self._bob.take(2)
        assert words(bought) == ["new", "trade", "account"]
        assert bought[1]["trade_id"] == number
        sold = await self._alice.take(2)
        assert words(sold) == ["trade", "account"]
        assert sold[0]["order_id"] == new[0]["order_id"]
        for account, sign in ((bought[2], 1), (sold[1], -1)):
            assert account["positions"] == {"ETF": sign * number}
            assert account["cash"] == -sign * number * PRICE
        trade, update = await self._alice.take(2)
        assert trade["trade_id"] == number and trade["price"] == PRICE
        self._follow(update, [[PRICE, 0]])

    async def _ask(self, wire: Wire, request: Message) -> list[Message]:
        start = time.perf_counter()
        await wire.send(request)
        reply = await wire.receive()
        self.delays.append(time.perf_counter() - start)
        assert reply["id"] == request["id"], reply
        return [reply]

    def _follow(self, update: Message, asks: list[list[int]]) -> None:
        assert update["type"] == "book" and update["prev_seq"] == self._seq
        assert update["asks"] == asks and update["bids"] == []
        self._seq = update["seq"]


async def trade(
    url: str, tokens: Tokens, is_over: asyncio.Event, pause_s: float = 0.0
) -> list[float]:
    """Trade until it is over; return how long each order took."""
    async with (
        wired(url, "alice", token=tokens["alice"]) as alice,
        wired(url, "bob", token=tokens["bob"]) as bob,
    ):
        healthy = Healthy(alice, bob)
        await healthy.begin()
        for number in count(1):
            await healthy.trade(number)
            if is_over.is_set():
                return healthy.delays
            await asyncio.sleep(pause_s)
    raise AssertionError


# The hostile ----------------------------------------------------------------

JUNK: list[Any] = [
    *(None, True, 0, -1, 1, 7, 2**53, -(2**53), 10**30, 1.5, -0.0, 1e300),
    *("", "a", "buy", "BOND", "x" * 40, "x" * 5_000, "\0", "é", "\u202e"),
    *([], [1], ["book"], [[]], {}, {"a": {"b": []}}, ["BOND"] * 500),
]
ADMIN = {"type": "admin", "reason": "why not"}
# A good request of each kind, more or less.
REQUESTS: list[Message] = [
    order("buy", 1, 99, symbol="BOND"),
    order("sell", 1, 101, symbol="BOND", client_order_id="a", id=1),
    order("buy", 2, 101, symbol="BOND", time_in_force="ioc"),
    {"type": "amend", "client_order_id": "a", "price": 102, "qty": 2},
    {"type": "cancel", "client_order_id": "a"},
    {"type": "cancel", "order_id": 1},
    {"type": "cancel_all", "symbol": "BOND", "side": "buy"},
    {"type": "cancel_after", "timeout_ms": 1_000},
    {"type": "subscribe", "channels": ["book", "trades", "ticker"]},
    {"type": "unsubscribe", "channels": ["book"], "symbols": ["BOND"]},
    *(
        {"type": "get", "what": what, "symbol": "BOND", "limit": 5}
        for what in ("book", "trades", "candles", "orders", "fills")
    ),
    *({"type": "get", "what": w} for w in ("account", "leaderboard")),
    {"type": "ping", "id": "p"},
    {**ADMIN, "action": "phase", "phase": "halted", "reopen_ms": 1_000},
    {**ADMIN, "action": "kill", "user": "alice"},
    {**ADMIN, "action": "unkill", "user": "mallory"},
    {**ADMIN, "action": "cancel", "order_id": 1},
    {**ADMIN, "action": "adjust", "user": "alice", "cash": -1_000},
    {**ADMIN, "action": "settle", "symbol": "BOND", "price": 1},
    {**ADMIN, "action": "reset"},
    {**ADMIN, "action": "message", "message": "hello"},
]


def framed(first: int, data: bytes, length: int | None = None) -> bytes:
    """Return a client's frame with any first byte; it may lie in length."""
    length = len(data) if length is None else length
    if length < 126:
        head = struct.pack("!BB", first, 0x80 | length)
    elif length < 2**16:
        head = struct.pack("!BBH", first, 0xFE, length)
    else:
        head = struct.pack("!BBQ", first, 0xFF, length)
    return head + bytes(4) + data


class Speech:
    """What one hostile connection says, drawn from its own chance."""

    def __init__(self, chance: random.Random, tokens: Tokens) -> None:
        self._chance = chance
        self._tokens = tokens

    def make(self) -> bytes:
        """Return all of it."""
        kinds: list[Callable[[], bytes]] = [
            self._noise,
            lambda: self._damaged(HANDSHAKE) + self._traffic(),
            self._page,
            lambda: HANDSHAKE + self._noise(),
            lambda: HANDSHAKE + self._damaged(self._traffic()),
            lambda: HANDSHAKE + self._traffic() + self._odd_frames(),
            lambda: HANDSHAKE + self._traffic() + self._end(),
            lambda: HANDSHAKE + self._traffic() * 20,
        ]
        return self._chance.choice(kinds)()

    def _noise(self) -> bytes:
        return self._chance.randbytes(self._chance.randrange(3_000))

    def _damaged(self, data: bytes) -> bytes:
        """Return some bytes with something wrong in a few places."""
        chance = self._chance
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data) + 1)
            to = min(len(data), at + chance.randint(1, 20))
            some = chance.choice(
                [
                    b"",
                    data[at:to] * 2,
                    chance.randbytes(to - at),
                    bytes(b ^ 1 << chance.randrange(8) for b in data[at:to]),
                ]
            )
            data = data[:at] + some + data[to:]
        return data[: chance.randrange(len(data) + 1)] if at % 5 == 0 else data

    def _page(self) -> bytes:
        chance = self._chance
        methods = ["GET"] * 5 + ["HEAD", "POST", "get", "", "\0"]
        paths = ["/", "/", "/metrics", "/../x", "*", "/" + "x" * 9_000]
        versions = ["HTTP/1.1"] * 5 + ["HTTP/1.0", "HTTP/2", ""]
        headers = [
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 8",
            "Origin: http://evil.example",
            "Content-Length: 5",
            "Transfer-Encoding: chunked",
            "no colon",
            "X: " + "x" * 9_000,
        ]
        lines = [
            " ".join(map(chance.choice, (methods, paths, versions))),
            chance.choice(["Host: localhost"] * 5 + ["Host: evil.example"]),
            *chance.choices(headers, k=chance.choice([0, 0, 0, 1, 2, 200])),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + self._noise()

    def _traffic(self) -> bytes:
        """Return frames of requests, most after a login."""
        chance = self._chance
        texts = [self._text() for _ in range(chance.randint(1, 10))]
        if chance.random() < 0.8:
            texts.insert(0, json.dumps(self._login()))
        return b"".join(
            Frame(TEXT, text.encode("utf-8", "surrogatepass")).serialize(
                mask=True
            )
            for text in texts
        )

    def _login(self) -> Message:
        chance = self._chance
        if chance.random() < 0.5:
            user = "mallory"
            token: Any = self._tokens[user]
        else:
            user = chance.choice([*USERS, "nobody", "@exchange"])
            token = chance.choice([self._tokens["mallory"], *JUNK])
        login = {"type": "login", "user": user, "token": token}
        if chance.random() < 0.2:
            login["session"] = chance.choice(JUNK)
        if chance.random() < 0.2:
            login["last_seq"] = chance.choice(JUNK)
        if chance.random() < 0.2:
            login["cancel_on_disconnect"] = chance.choice(JUNK)
        return login

    def _text(self) -> str:
        chance = self._chance
        draw = chance.random()
        if draw < 0.5:
            return json.dumps(self._request())
        if draw < 0.8:
            size = chance.choice([0, 1, 5, 100, 101])
            return json.dumps([self._request() for _ in range(size)])
        if draw < 0.9:
            return json.dumps(chance.choice(JUNK))
        text = json.dumps(self._request())
        return text[: chance.randrange(len(text))]

    def _request(self) -> Message:
        """Return a request; something may be wrong with it."""
        chance = self._chance
        request = dict(chance.choice(REQUESTS))
        while chance.random() < 0.5:
            name = chance.choice([*request, "id", "symbol", "price", "x"])
            if chance.random() < 0.3:
                request.pop(name, None)
            else:
                request[name] = chance.choice(JUNK)
        return request

    def _end(self) -> bytes:
        code = self._chance.choice([1000, 1000, 4000, 999, 1005, 5000])
        return framed(0x88, struct.pack("!H", code) + b"bye")

    def _odd_frames(self) -> bytes:
        chance = self._chance
        odd = b""
        for _ in range(chance.randint(1, 8)):
            first = chance.choice([0x01, 0x00, 0x80, 0x81, 0x89, 0x8A, 0x88])
            if chance.random() < 0.2:
                first = chance.randrange(256)
            data = chance.choice([b"", b"\x03\xe8", b"\xff", self._noise()])
            length = None
            if chance.random() < 0.1:
                length = chance.choice([0, 1, 126, 65_536, 65_537, 2**63])
            odd += framed(first, data, length)
        return odd


async def attack(port: int, speech: bytes, chance: random.Random) -> str:
    """Say something in pieces, and leave; return what became of it.

    Raises AssertionError if the exchange does not end what was ended.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    cuts = sorted(chance.randrange(len(speech) + 1) for _ in range(3))
    heard, status = b"", ""
    try:
        for start, end in zip([0, *cuts], [*cuts, len(speech)]):
            writer.write(speech[start:end])
            await asyncio.sleep(0)
        match chance.randrange(4):
            case 0:  # a reset
                linger = struct.pack("ii", 1, 0)
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return "reset"
            case 1:
                return "gone"
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            while data := await reader.read(2**16):
                status = status or data[9:12].decode()
                heard = (heard + data)[-127:]  # a close frame is the last
    except ConnectionError:
        return "cut"
    except TimeoutError:
        raise AssertionError("the connection was not ended") from None
    finally:
        writer.transport.abort()
    return said(heard, status) if heard else "no word"


def said(heard: bytes, status: str) -> str:
    """Return the close code, or else the status, of all that was heard."""
    if status != "101":
        return f"HTTP {status}"
    for at in range(len(heard) - 3):
        if heard[at : at + 2] == bytes([0x88, len(heard) - at - 2]):
            return str(*struct.unpack_from("!H", heard, at + 2))
    return "no close"


async def assault(
    port: int, tokens: Tokens, seed: int, numbers: range
) -> Counter[str]:
    """Make the hostile connections of these numbers; count what came of it.

    Raises an ExceptionGroup with the number in a note if one goes wrong.
    """
    counts: Counter[str] = Counter()

    async def work(left: Iterator[int]) -> None:
        for number in left:
            chance = random.Random(f"{seed}/{number}")
            speech = Speech(chance, tokens).make()
            try:
                counts[await attack(port, speech, chance)] += 1
            except BaseException as error:
                error.add_note(f"hostile connection {number} of seed {seed}")
                raise

    async with asyncio.TaskGroup() as group:
        left = iter(numbers)
        for _ in range(AT_A_TIME):
            group.create_task(work(left))
    return counts


# The run --------------------------------------------------------------------


def assault_alone(
    port: int, tokens: Tokens, seed: int, numbers: range
) -> Counter[str]:
    """`assault` in a process of its own."""
    return asyncio.run(assault(port, tokens, seed, numbers))


async def fuzz(
    count: float, seconds: float, seed: int
) -> tuple[Counter[str], list[float]]:
    """Throw things at an exchange, so many or for so long."""
    with tempfile.TemporaryDirectory() as folder:
        settings, tokens = prepare(Path(folder))
        environment = {name: str(value) for name, value in settings.items()}
        with launched(**environment) as server:
            url = server.url
            port = int(url.rpartition(":")[2])
            is_over = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                trading = group.create_task(
                    trade(url, tokens, is_over, PAUSE_S)
                )
                counts = await _assaults(port, tokens, seed, count, seconds)
                is_over.set()
            server.process.terminate()
            status, errors = await server.ended()
            complaints = [
                line for line in errors.splitlines() if REFUSED not in line
            ]
            assert not status and not complaints, errors
            return counts, trading.result()


async def _assaults(
    port: int, tokens: Tokens, seed: int, count: float, seconds: float
) -> Counter[str]:
    loop = asyncio.get_running_loop()
    counts: Counter[str] = Counter()
    start = time.monotonic()
    total = count if count < float("inf") else None
    with (
        # The hostile must not take the time of those who are measured.
        ProcessPoolExecutor(
            1, get_context("spawn"), initializer=os.nice, initargs=(10,)
        ) as pool,
        tqdm(total=total, unit=" connections") as progress,
    ):
        while (done := counts.total()) < count:
            if time.monotonic() - start >= seconds:
                break
            more = range(done, int(min(count, done + BATCH)))
            counts += await loop.run_in_executor(
                pool, assault_alone, port, tokens, seed, more
            )
            progress.update(len(more))
    return counts


def main() -> int:
    """Run ``python -m util.measure.fuzz COUNT|SECONDSs SEED``."""
    much, seed = sys.argv[1], int(sys.argv[2])
    limit = float("inf")
    if much.endswith("s"):
        number, seconds = limit, float(much[:-1])
    else:
        number, seconds = float(much), limit
    print(f"seed {seed}", flush=True)
    counts, delays = asyncio.run(fuzz(number, seconds, seed))
    waits = Histogram(delays)
    p99_ms = waits.percentile_ms(99)
    what = ", ".join(f"{n:,} {how}" for how, n in counts.most_common())
    print(
        f"{counts.total():,} hostile connections: {what}\n"
        f"{len(delays):,} orders of the healthy: p50"
        f" {waits.percentile_ms(50):.1f} ms, p99 {p99_ms:.1f} ms,"
        f" max {waits.percentile_ms(100):.1f} ms"
    )
    return int(p99_ms >= P99_MS)


if __name__ == "__main__":
    sys.exit(main())
