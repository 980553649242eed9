"""The example bots, unchanged, at the doors of a real exchange.

The test is the rest of the market: it quotes, trades with the bot, and knows
what the bot then has to do.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from client import Exchange, Market
from orderbook import Side
from test.doors.challenge.bots import free_port
from test.support import PATIENCE_S, ROOT, add_key, serving

EXAMPLES = ROOT / "examples"
MARKET = ROOT / "util" / "presets" / "challenge-2020.toml"
INSTALL_S = 600  # for a machine that has no Java yet
TEAM = "ORANGE"
# What others quote: bid and ask.
QUOTES = {
    "VALBZ": (4_198, 4_202),
    "GS": (7_998, 8_002),
    "MS": (3_999, 4_001),
    "WFC": (4_999, 5_001),
}


@dataclass(frozen=True)
class Case:
    """A bot, what it quotes, and what comes of trading with it.

    ``sold`` lots are sold to the bot, ``size`` at a time.
    """

    file: str
    symbol: str
    bid: int
    ask: int
    size: int
    sold: int
    cash: int
    positions: dict[str, int]


CASES = [
    # 40 lots at 999, which it keeps.
    Case("bond_lines.py", "BOND", 999, 1_001, 20, 40, -39_960, {"BOND": 40}),
    # Converts 4 for 10, and sells them: 4 x (4198 - 4195) - 10.
    Case("pair_json.py", "VALE", 4_195, 4_205, 2, 4, 2, {}),
    # Converts 20 for 100, and sells 6 BOND, 4 GS, 6 MS and 4 WFC:
    # 6 x 998 + 4 x 7998 + 6 x 3999 + 4 x 4999 - 20 x 4094 - 100.
    Case("BasketBot.java", "XLF", 4_094, 4_106, 5, 20, -10, {}),
]


def compiled(folder: Path) -> list[str]:
    """Return the command that runs the bot in Java."""
    found = subprocess.run(
        [ROOT / ".ci" / "java"],
        stdout=PIPE,
        text=True,
        timeout=INSTALL_S,
        check=True,
    )
    [javac] = found.stdout.split()
    source = EXAMPLES / "BasketBot.java"
    subprocess.run(
        [javac, "-Xlint:all", "-Werror", "-d", folder, source], check=True
    )
    java = Path(javac).with_name("java")
    return [str(java), "-cp", str(folder), source.stem]


def command(case: Case, folder: Path) -> list[str]:
    if case.file.endswith(".java"):
        return compiled(folder)
    return [sys.executable, "-u", "-W", "error", str(EXAMPLES / case.file)]


@dataclass
class Venue:
    """A closed market with doors: an administrator, another trader, a bot."""

    boss: Exchange
    other: Exchange
    door: dict[str, str]  # environment that leads a bot to its door

    async def open(self, case: Case) -> Market:
        """Open the market and quote; return the market of the bot."""
        await self.boss.admin("phase", "a round begins", phase="open")
        for symbol, (bid, ask) in QUOTES.items():
            await (await self.other.market(symbol)).quote(bid, ask, 10)
        if case.symbol != "BOND":
            await (await self.other.market("BOND")).quote(998, 1_002, 10)
        return await self.other.market(case.symbol)

    async def bot(self) -> tuple[int, dict[str, int]]:
        """Return cash and positions of the bot."""
        for row in await self.boss.leaderboard():
            if row["user"] == TEAM:
                held = {s: n for s, n in row["positions"].items() if n}
                return row["cash"], held
        return 0, {}


@asynccontextmanager
async def venue(folder: Path) -> AsyncIterator[Venue]:
    ports = {"json_port": free_port(), "line_port": free_port()}
    doors = "".join(f"{name} = {port}\n" for name, port in ports.items())
    path, keys = folder / "market.toml", folder / "keys.json"
    path.write_text(
        f"{MARKET.read_text()}\n[doors]\n{doors}linger_ms = 0\n"
        f'[doors.teams]\n{TEAM} = "127.0.0.1"\n'
    )
    boss, other = add_key(keys, "boss", is_admin=True), add_key(keys, "other")
    add_key(keys, TEAM)
    async with (
        serving(market=path, keys=keys) as server,
        Exchange(server.url, "boss", boss) as ex,
        Exchange(server.url, "other", other) as trader,
    ):
        yield Venue(
            ex,
            trader,
            {
                "EXCHANGE_HOST": "127.0.0.1",
                "EXCHANGE_JSON_PORT": str(ports["json_port"]),
                "EXCHANGE_LINE_PORT": str(ports["line_port"]),
                "EXCHANGE_USER": TEAM,
            },
        )


@asynccontextmanager
async def playing(
    words: list[str], door: dict[str, str]
) -> AsyncIterator[Process]:
    """Run a bot; kill it at the end."""
    process = await asyncio.create_subprocess_exec(
        *words, env={**os.environ, **door}, stdout=PIPE, stderr=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def quoted(market: Market, side: Side, price: int, qty: int) -> None:
    """Wait until the best level of a side is this one."""
    async with asyncio.timeout(PATIENCE_S):
        async for book in market.books():
            levels = book.bids if side == "buy" else book.asks
            if levels[:1] == ((price, qty),):
                return


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
async def test_a_bot_trades_and_comes_back(case: Case, tmp_path: Path) -> None:
    words = command(case, tmp_path)
    async with (
        venue(tmp_path) as it,
        playing(words, it.door) as process,
    ):
        market = await it.open(case)
        await quoted(market, "sell", case.ask, case.size)
        for _ in range(case.sold // case.size):
            await quoted(market, "buy", case.bid, case.size)
            order = await market.sell(case.size, case.bid)
            assert order.cum_qty == case.size
        async with asyncio.timeout(PATIENCE_S):
            while await it.bot() != (case.cash, case.positions):
                assert process.returncode is None
                await asyncio.sleep(0.01)
        # It quotes again, and so has nothing more to send.
        await quoted(market, "buy", case.bid, case.size)
        await quoted(market, "sell", case.ask, case.size)
        # The round ends, its connection too; it comes back for the next.
        await it.boss.admin("phase", "the round ends", phase="closed")
        await it.boss.admin("reset", "the next round")
        market = await it.open(case)
        await quoted(market, "buy", case.bid, case.size)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_S):
            output, errors = await process.communicate()
    assert errors == b""
    assert b"the exchange hung up" in output
    assert b"error" not in output and b"rejected" not in output
    assert process.returncode in (0, 130)  # Java says that it was a signal


def test_every_example_is_played() -> None:
    names = {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    played_elsewhere = {"random_agent.py"}  # test/util/test_gym.py
    assert names == {case.file for case in CASES} | played_elsewhere
