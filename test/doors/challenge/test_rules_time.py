"""Rules of docs/DOORS.md about time, in virtual time; no test waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

from exchange.gateway.link import Deferred
from orderbook import Admin, Place
from server import Server
from test.doors.challenge.bots import INSTRUMENT, market
from util.simulate.exchange import new_server
from util.simulate.journal import MemoryJournal
from util.simulate.latency import Latency
from util.simulate.loop import VirtualLoop
from util.simulate.network import Network

AT_ONCE = Latency.read("0ms")
DEFAULTS = {
    "book_ms": 20,
    "idle_ms": 1_000,
    "linger_ms": 1_000,
    "messages_per_s": 10,
}


class Bot(asyncio.Protocol):
    """A bot of the text door; notes each line with its milliseconds."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.heard: list[tuple[int, str]] = []
        self.ended_ms: int | None = None

    @property
    def now_ms(self) -> int:
        return round(asyncio.get_running_loop().time() * 1_000)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert data.endswith(b"\n"), "a line is cut"
        for line in data.decode().splitlines():
            self.heard.append((self.now_ms, line))

    def eof_received(self) -> None:
        self.ended_ms = self.now_ms

    def connection_lost(self, exc: Exception | None) -> None:
        if self.ended_ms is None:
            self.ended_ms = self.now_ms

    def say(self, *lines: str) -> None:
        self.transport.write("".join(f"{line}\n" for line in lines).encode())

    def take(self, word: str = "") -> list[tuple[int, str]]:
        """Return what was heard since the last call, of one kind."""
        heard, self.heard = self.heard, []
        return [(at, line) for at, line in heard if line.startswith(word)]


class World:
    """An exchange with doors in virtual time."""

    def __init__(self, network: Network, server: Server, port: int) -> None:
        self.server = server
        self._network = network
        self._port = port

    async def connect(self) -> Bot:
        _, bot = await self._network.connect(Bot, self._port, AT_ONCE)
        assert isinstance(bot, Bot)
        return bot

    async def enter(self, team: str) -> Bot:
        """Say hello, and drop the answer."""
        bot = await self.connect()
        bot.say(f"HELLO {team}")
        await asyncio.sleep(0.001)
        bot.take()
        return bot

    async def until(self, ms: float) -> None:
        """Wait until this time since the start."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(ms / 1_000 - loop.time())

    def act(self, **arguments: Any) -> None:
        request = Admin(reason="test", **arguments)
        sequencer = self.server.gateway.sequencer
        self.server.step(lambda: sequencer.run(request))


def play(
    folder: Path, test: Callable[[World], Awaitable[None]], **doors: int
) -> None:
    """Run a test in a world whose market is open."""
    instrument = {**INSTRUMENT, "max_position": 0, "phase": "open"}
    path, ports = market(
        folder,
        {"BOND": instrument, "ETF": instrument},
        **{**DEFAULTS, **doors},
    )
    loop = VirtualLoop()
    network = Network(loop, "a")

    async def run() -> None:
        server = new_server(
            loop, network, MemoryJournal(Path("memory")), path, Random(1)
        )
        await server.start()
        await test(World(network, server, ports["text"]))
        await server.stop()
        assert not server.failure.done()
        assert not server.listener.errors

    try:
        loop.run_until_complete(run())
    finally:
        loop.close()


def test_rule_2_ten_seconds_for_a_hello(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        silent, chatty = await world.connect(), await world.connect()
        known = await world.connect()
        for second in range(9):
            await world.until(second * 1_000)
            chatty.say("CANCEL 1")
        known.say("HELLO TEAM")
        await world.until(9_990)
        assert silent.ended_ms is chatty.ended_ms is None
        await world.until(10_010)
        assert silent.ended_ms == chatty.ended_ms == 10_000
        await world.until(60_000)
        assert known.ended_ms is None

    play(tmp_path, test)


def test_rule_13_after_a_second_of_silence_a_book_comes(
    tmp_path: Path,
) -> None:
    """Within a tenth of that time; those with orders take turns."""

    async def test(world: World) -> None:
        bot = await world.enter("TEAM")
        await world.until(3_500)
        times = [at for at, line in bot.take() if line == "ERROR IDLE"]
        assert len(times) == 3
        for earlier, later in zip([0, *times], times):
            assert 1_000 <= later - earlier <= 1_105
        bot.say("ADD 1 BOND BUY 9 1", "ADD 2 ETF BUY 8 1")
        await world.until(3_600)
        assert len(bot.take("BOOK")) == 2
        await world.until(8_000)
        books = [line for _, line in bot.take()]
        assert len(books) == 4
        assert books[:2] == books[2:] and len(set(books)) == 2

    play(tmp_path, test)


def test_rule_13_whoever_gets_something_gets_no_more(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        bot = await world.enter("TEAM")
        for step in range(1, 20):
            await world.until(step * 990)
            bot.say("CANCEL 1")
        assert {line for _, line in bot.take()} == {"OUT 1"}

    play(tmp_path, test)


def test_rule_14_tokens_come_back(tmp_path: Path) -> None:
    """Ten a second; one error a second however many are ignored."""

    async def test(world: World) -> None:
        bot = await world.enter("TEAM")
        second = await world.enter("TEAM")
        for step in range(300):  # 100 a second for three seconds
            await world.until(100 + step * 10)
            (bot, second)[step % 2].say(f"ADD {step} BOND BUY 9 1")
        await world.until(3_200)
        heard = [*bot.take(), *second.take()]
        acks = [at for at, line in heard if line.startswith("ACK")]
        # The burst of ten, and ten a second.
        assert 38 <= len(acks) <= 41
        limits = [at for at, line in heard if line == "ERROR RATE_LIMIT"]
        assert 2 * 2 <= len(limits) <= 2 * 3
        assert bot.ended_ms is second.ended_ms is None

    play(tmp_path, test)


def test_rule_14_cancels_have_five_times_as_many(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        bot = await world.enter("TEAM")
        bot.say(*["CANCEL 1"] * 100)
        await world.until(50)
        heard = [line for _, line in bot.take()]
        assert heard.count("OUT 1") in (50, 51, 52)
        assert heard.count("ERROR RATE_LIMIT") == 1
        bot.say("ADD 1 BOND BUY 9 1")
        await world.until(60)
        assert [line for _, line in bot.take("ACK")] == ["ACK 1"]

    play(tmp_path, test)


def test_rule_18_books_of_one_symbol_are_book_ms_apart(
    tmp_path: Path,
) -> None:
    """The first comes at once, and the last one shows all."""

    async def test(world: World) -> None:
        bot, other = await world.enter("TEAM"), await world.enter("OTHER")
        for price in range(1, 201):  # one each millisecond
            await world.until(100 + price)
            other.say(f"ADD {price} BOND BUY {price} 1")
            if price == 100:
                other.say("ADD 0 ETF BUY 7 7")
        await world.until(400)
        books = bot.take("BOOK")
        bond = [at for at, line in books if " BOND " in line]
        assert bond[0] - 101 <= 1
        assert 9 <= len(bond) <= 12
        for earlier, later in zip(bond, bond[1:]):
            assert later - earlier >= 20
        levels = " ".join(f"{price}:1" for price in range(200, 185, -1))
        assert books[-1][1] == f"BOOK BOND BUY {levels} SELL"
        assert [line for _, line in books if " ETF " in line] == [
            "BOOK ETF BUY 7:7 SELL"
        ]

    play(tmp_path, test, messages_per_s=5_000)


def test_rule_18_the_books_after_a_hello_count_too(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        other = await world.enter("OTHER")
        other.say("ADD 1 BOND BUY 9 1")
        await world.until(200)
        other.take()
        bot = await world.connect()
        bot.say("HELLO TEAM")
        await world.until(205)
        other.say("ADD 2 BOND BUY 8 1")
        await world.until(300)
        assert other.take("BOOK")[0][0] == 205
        (first, _), (second, line) = bot.take("BOOK")
        assert first == 200 and 220 <= second <= 245
        assert line == "BOOK BOND BUY 9:1 8:1 SELL"

    play(tmp_path, test)


def test_rule_12_a_second_from_close_to_hanging_up(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        bot = await world.enter("TEAM")
        await world.until(500)
        world.act(action="phase", phase="closed")
        await world.until(900)
        world.act(action="reset")
        await world.until(1_400)
        assert bot.take() == [(500, "CLOSE BOND ETF")]
        assert bot.ended_ms is None
        await world.until(1_600)
        assert bot.ended_ms == 1_500
        # It comes back before the market is open again: here at once.
        bot = await world.enter("TEAM")
        await world.until(5_000)
        world.act(action="phase", phase="closed")
        await world.until(9_000)
        world.act(action="reset")
        await world.until(9_100)
        assert bot.ended_ms == 9_000

    play(tmp_path, test)


def test_rule_12_a_shutdown_waits_as_long(tmp_path: Path) -> None:
    bots: list[Bot] = []

    async def test(world: World) -> None:
        bots.append(await world.enter("TEAM"))
        await world.until(700)

    play(tmp_path, test)
    assert bots[0].take() == [(700, "CLOSE BOND ETF")]
    assert bots[0].ended_ms == 1_700


def test_rule_14_a_flood_is_read_slowly(tmp_path: Path) -> None:
    """And a message of an honest moment is answered at once."""

    async def test(world: World) -> None:
        bot, other = await world.enter("TEAM"), await world.enter("OTHER")
        flood = "ADD 1 BOND BUY 9 1\n".encode() * 50_000
        bot.transport.write(flood + b"CANCEL 7\n")
        await world.until(900)
        (link,) = (
            link
            for link in world.server.gateway.links
            if link.account == "TEAM"
        )
        # Lines that are ignored become no requests; the figures have them.
        assert link.counts[Place] <= 30
        assert link.counts[Deferred] > 10_000
        refusals = world.server.gateway.routing.refusals
        assert refusals["rate_limited"] > 10_000
        other.say("CANCEL 1")
        await world.until(901)
        assert other.take("OUT") == [(900, "OUT 1")]
        await world.until(8_000)
        assert bot.ended_ms is None
        ((answered, line),) = bot.take("OUT")
        assert line == "OUT 7"
        # 950 KB, of which 16 KiB come every 50 ms.
        assert 2_500 <= answered <= 3_500

    play(tmp_path, test)
