"""House bots in the markets of challenge bots, in virtual time."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from statistics import median

import pytest

from client import Exchange, Market
from test.support import PATIENCE_S, ROOT
from test.util.test_presets import POSITIONS
from util.bots.__main__ import parse
from util.bots.house import run_house
from util.bots.value import grain
from util.simulate.exchange import URL
from util.simulate.world import Simulation

WARM_UP_S, SECONDS = 4, 12
LOOK_S = 0.25
NEAR, FAR = 6, 14  # grains from the basket: half of the time, and at most
PRESETS = ROOT / "util" / "presets"


class Onlooker:
    """Compares what converts with its basket, and counts trades."""

    def __init__(self) -> None:
        self.distances: dict[str, list[float]] = {}
        self.trades: Counter[str] = Counter()
        self.mids: dict[str, list[float]] = {}

    async def look(self) -> None:
        """Look at the market until the end."""
        async with Exchange(user="") as ex, asyncio.TaskGroup() as group:
            markets = {s: await ex.market(s) for s in ex.instruments}
            for market in markets.values():
                group.create_task(self._count(market))
            while True:
                await asyncio.sleep(LOOK_S)
                for market in markets.values():
                    self._compare(market, markets)

    async def _count(self, market: Market) -> None:
        async for _ in market.trades():
            self.trades[market.symbol] += 1

    def _compare(self, market: Market, markets: dict[str, Market]) -> None:
        mid, convert = market.book.mid, market.instrument.convert
        if mid is not None:
            self.mids.setdefault(market.symbol, []).append(mid)
        if convert is None or mid is None:
            return
        worth = 0.0
        for symbol, count in convert.basket.items():
            part = markets[symbol].book.mid
            if part is None:
                return
            worth += count * part
        found = self.distances.setdefault(market.symbol, [])
        found.append(abs(mid - worth / convert.per) / grain(mid))


@contextmanager
def round_of(
    folder: Path, year: str | None, *more: str, seconds: float = SECONDS
) -> Iterator[Onlooker]:
    """Play a round of the demo in virtual time; None: 2020, other values."""
    market = folder / "market.toml"
    text = (PRESETS / f"challenge-{year or 2020}.toml").read_text()
    market.write_text(text.replace('phase = "closed"', 'phase = "open"'))
    words: list[str] = []
    if year is not None:
        words = (PRESETS / f"challenge-{year}.bots").read_text().split()
    plan = parse([*words, "--seed=7", "--url", URL, *more])
    onlooker = Onlooker()
    none = {"makers": 0, "noise": 0, "informed": 0}
    with Simulation(seed=7, market=market, **none) as simulation:
        simulation.inject(run_house(plan, lambda line: None), name="house")
        simulation.run_until(WARM_UP_S)
        simulation.inject(onlooker.look(), name="onlooker")
        simulation.run_until(WARM_UP_S + seconds)
        yield onlooker


def test_pairs_and_baskets_stay_near(tmp_path: Path) -> None:
    options = ("--makers=3", "--noise=4", "--arbitrageurs=1", "--speed=3")
    with round_of(tmp_path, "2020", *options) as seen:
        assert seen.trades.keys() == POSITIONS["2020"].keys()
        assert min(seen.trades.values()) > SECONDS
        assert seen.distances.keys() == {"VALE", "XLF"}
        for distances in seen.distances.values():
            assert len(distances) > 0.8 * SECONDS / LOOK_S
            assert median(distances) < NEAR
            assert max(distances) < FAR
        # Its fair value is 1000 throughout.
        assert abs(median(seen.mids["BOND"]) - 1_000) < 3


@pytest.mark.parametrize("year", ["2015", "2017", "2018"])
def test_all_instruments_trade(year: str, tmp_path: Path) -> None:
    with round_of(tmp_path, year, "--makers=2", "--arbitrageurs=1") as seen:
        assert seen.trades.keys() == POSITIONS[year].keys()


# Values from a file --------------------------------------------------------

JUMP_S, JUMP, RATE = 12, 100, 15.0


def test_the_market_follows_a_file(tmp_path: Path) -> None:
    """Nobody knows the jump before it; then all of them come to know it."""
    fair = tmp_path / "fair.csv"
    values = {"BOND": 1_000, "VALBZ": 4_200, "VALE": 4_200, "GS": 8_000}
    values |= {"MS": 4_000, "WFC": 5_000, "XLF": 4_100}
    rows = [",".join(["ms", *values])]
    for ms in range(0, 30_001, 100):
        jump = JUMP if ms >= 1_000 * (WARM_UP_S + JUMP_S) else 0
        now = [v + jump * (s in ("VALE", "VALBZ")) for s, v in values.items()]
        rows.append(",".join(map(str, [ms, *now])))
    fair.write_text("\n".join(rows))
    options = ("--makers=3", "--noise=6", "--fair", str(fair))
    with round_of(
        tmp_path, None, *options, f"--trades-per-s={RATE}", seconds=2 * JUMP_S
    ) as seen:
        looks = round(JUMP_S / LOOK_S)
        for symbol in ("VALE", "VALBZ"):
            mids = seen.mids[symbol]
            start, value = grain(values[symbol]), values[symbol]
            before = mids[: looks - 4]
            assert all(abs(mid - value) < 6 * start for mid in before)
            after = mids[-looks // 2 :]
            assert abs(median(after) - value - JUMP) < 4 * start
        for distances in seen.distances.values():
            assert median(distances) < NEAR
        found = seen.trades.total() / (2 * JUMP_S)
        assert found == pytest.approx(RATE, rel=0.3)


# The demo -----------------------------------------------------------------


def free_port() -> int:
    """Return a port of the loopback that nobody uses."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@asynccontextmanager
async def demo(preset: str, port: int) -> AsyncIterator[Process]:
    """Run ``make demo``; end it with Ctrl-C."""
    process = await asyncio.create_subprocess_exec(
        ROOT / ".ci" / "demo",
        *("--speed", "50"),
        env={
            **os.environ,
            "PRESET": preset,
            "EXCHANGE_SERVER_HOSTNAME": "127.0.0.1",
            "EXCHANGE_SERVER_PORT": str(port),
        },
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
    )
    try:
        yield process
        if process.returncode is None:  # as a terminal does
            os.killpg(process.pid, signal.SIGINT)
        async with asyncio.timeout(PATIENCE_S):
            await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)


async def test_the_demo_opens_a_market_of_challenge_bots() -> None:
    port = free_port()
    async with demo("challenge-2020", port) as process:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            await process.stdout.readuntil(b" house bots trade")
        async with Exchange(f"ws://127.0.0.1:{port}", user="") as ex:
            markets = [await ex.market(s) for s in POSITIONS["2020"]]
            streams = [market.trades() for market in markets]
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*map(anext, streams))
    assert process.returncode == 0


async def test_a_demo_of_no_preset_is_refused() -> None:
    async with demo("none", free_port()) as process:
        async with asyncio.timeout(PATIENCE_S):
            output, errors = await process.communicate()
    assert (process.returncode, output) == (2, b"")
    assert errors == b"PRESET: there is no util/presets/none.toml\n"
