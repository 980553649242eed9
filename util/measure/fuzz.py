"""Send anything to the exchange while two healthy traders trade.

``python -m util.measure.fuzz COUNT`` makes COUNT hostile connections: damaged
handshakes and frames, noise, and invalid requests of every type; every fourth
goes to one of the doors of challenge bots, where it sends split lines, lines
of a mebibyte and bytes that are no text, and may never read; and every fourth
speaks the exchange dialect, with heads and bodies that contradict each other.
A seed and the number of a connection give the same bytes again. Meanwhile
alice and bob trade with each other, and check every message that they receive.

It fails if the exchange complains or ends, if the exchange does not end a
connection that was closed in order, if alice or bob receive anything wrong,
or if 1 % of their requests took 25 ms or more.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from exchange.host.keyfile import changing
from util.cli import amount_and_seed, new_parser
from util.measure.door_speech import CULPRIT, DoorSpeech
from util.measure.histogram import Histogram
from util.measure.http_speech import CULPRIT as SIGNER
from util.measure.http_speech import SECRET, HttpSpeech
from util.measure.lines import door_ports, doors_table
from util.measure.process import launched, prepare
from util.measure.speech import Speech
from util.measure.wire import PATIENCE_S, Wire, order, wired, words

P99_MS = 25.0  # the longest delay of the healthy traders
PAUSE_S = 0.005  # of the healthy, between two trades
AT_A_TIME = 20  # hostile connections open at a time
BATCH = 200  # hostile connections between two steps of the progress bar
PRICE = 100  # at which the healthy trade
# The hostile connections do not name ETF: only the healthy trade it.
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
USERS = ("alice", "bob", "mallory", "boss", CULPRIT)
DEAF_S = 0.2  # at most, for which a bot at a door does not read
AT_DOORS = 1 / 4  # of the hostile connections
OVER_HTTP = 1 / 4

# What the exchange may log: whose page or address it refused.
REFUSED = " WARNING refused "

Message = dict[str, Any]
Tokens = dict[str, str]


def set_up(
    folder: Path,
) -> tuple[dict[str, str], Tokens, dict[str, int]]:
    """Write what an exchange needs.

    Return its settings, the tokens, and the ports of the doors.
    """
    doors = door_ports()
    market = MARKET + doors_table(doors, {CULPRIT: "127.0.0.1"})
    settings, tokens = prepare(folder, market, USERS)
    with changing(Path(settings["keys"])) as accounts:
        signer = {"api_secret": SECRET}
        accounts[SIGNER] = accounts[SIGNER].model_copy(update=signer)
    settings |= {"max_per_address": "0", "max_per_account": "0"}
    settings["dialect"] = "spot"
    return settings, tokens, doors


# The healthy ----------------------------------------------------------------


class Healthy:
    """Two traders that know each message that they must receive."""

    def __init__(self, alice: Wire, bob: Wire) -> None:
        self.delays: list[float] = []  # seconds, of each order
        self._alice = alice
        self._bob = bob
        self._seq = 0  # of the book

    async def begin(self) -> None:
        """Subscribe to the market."""
        follow = {"channels": ["book", "trades"], "symbols": ["ETF"]}
        _, snapshot = await self._alice.ask(type="subscribe", **follow)
        self._seq = snapshot["seq"]

    async def trade(self, number: int) -> None:
        """Trade one lot and check every message; counts from 1."""
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
    """Trade until ``is_over`` is set; return the delay of each order."""
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


async def attack(
    port: int, speech: bytes, chance: random.Random, is_door: bool = False
) -> str:
    """Send bytes in pieces, and leave; return how it ended.

    Raises AssertionError if the exchange leaves a closed connection open.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    cuts = sorted(chance.randrange(len(speech) + 1) for _ in range(3))
    received, status = b"", ""
    try:
        for start, end in zip([0, *cuts], [*cuts, len(speech)]):
            writer.write(speech[start:end])
            await asyncio.sleep(0)
        match chance.randrange(4):
            case 1 if is_door:  # it never reads, and stays for a while
                reading: Any = writer.transport
                reading.pause_reading()
                await asyncio.sleep(chance.random() * DEAF_S)
                return "deaf"
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
                status = status or data[9:12].decode("latin-1")
                received = (received + data)[
                    -127:
                ]  # a close frame is the last
    except ConnectionError:
        return "cut"
    except TimeoutError:
        raise AssertionError("the connection was not ended") from None
    finally:
        writer.transport.abort()
    if is_door:
        return "door ended" if received else "door ended, no reply"
    return result(received, status) if received else "no reply"


def result(received: bytes, status: str) -> str:
    """Return the close code, or else the HTTP status."""
    if status != "101":
        return f"HTTP {status}"
    for at in range(len(received) - 3):
        if received[at : at + 2] == bytes([0x88, len(received) - at - 2]):
            return str(*struct.unpack_from("!H", received, at + 2))
    return "no close"


async def assault(
    port: int,
    doors: Mapping[str, int],
    tokens: Tokens,
    seed: int,
    numbers: range,
) -> Counter[str]:
    """Make the hostile connections of these numbers; count how they ended.

    Raises an ExceptionGroup with the number in a note if one goes wrong.
    """
    counts: Counter[str] = Counter()

    async def work(left: Iterator[int]) -> None:
        for number in left:
            chance = random.Random(f"{seed}/{number}")
            to, speech, where = port, b"", chance.random()
            is_door = where < AT_DOORS
            if is_door:
                door = chance.choice([*doors])
                to, speech = doors[door], DoorSpeech(chance, door).make()
            elif where < AT_DOORS + OVER_HTTP:
                speech = HttpSpeech(chance).make()
            else:
                speech = Speech(chance, tokens).make()
            try:
                counts[await attack(to, speech, chance, is_door)] += 1
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
    port: int,
    doors: Mapping[str, int],
    tokens: Tokens,
    seed: int,
    numbers: range,
) -> Counter[str]:
    """`assault` in a process of its own."""
    return asyncio.run(assault(port, doors, tokens, seed, numbers))


async def fuzz(count: int, seed: int) -> tuple[Counter[str], list[float]]:
    """Make hostile connections to an exchange; return counts and delays."""
    loop = asyncio.get_running_loop()
    counts: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        # The hostile must not take CPU time from the healthy.
        ProcessPoolExecutor(
            1, get_context("spawn"), initializer=os.nice, initargs=(10,)
        ) as pool,
        tqdm(total=count, unit=" connections") as progress,
    ):
        settings, tokens, doors = set_up(Path(folder))
        with launched(**settings) as server:
            port = int(server.url.rpartition(":")[2])
            is_over = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                trading = group.create_task(
                    trade(server.url, tokens, is_over, PAUSE_S)
                )
                for start in range(0, count, BATCH):
                    numbers = range(start, min(count, start + BATCH))
                    counts += await loop.run_in_executor(
                        pool,
                        assault_alone,
                        *(port, doors, tokens, seed, numbers),
                    )
                    progress.update(len(numbers))
                is_over.set()
            server.process.terminate()
            status, errors = await server.ended()
    lines = errors.splitlines()
    assert not status and all(REFUSED in line for line in lines), errors
    return counts, trading.result()


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.measure.fuzz``; return the exit status."""
    parser = new_parser(
        "measure.fuzz", "Send anything to an exchange while others trade."
    )
    number, seed = amount_and_seed(
        parser, "COUNT", "hostile connections to make", arguments
    )
    print(f"seed {seed}", flush=True)
    counts, delays = asyncio.run(fuzz(number, seed))
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
