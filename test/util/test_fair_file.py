"""Fair values from a file: its form, and which line is that of now."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, AsyncIterator

import pytest

from client import Exchange
from test.support import PATIENCE_S, add_key, serving, until
from util.bots.__main__ import parse
from util.bots.fair_file import FairFile
from util.bots.house import run_house
from util.bots.pace import HZ_MAX, HZ_MIN, Pace
from util.bots.plan import BadPlan

HEAD = "# salt 00112233445566778899aabbccddeeff\nms,BOND,ETF\n"
LAST_MS = 60_000
# A value that tells the trading time: one tick for each 100 ms.
START = 1_000
CLOCK = "# salt 00\nms,BOND\n" + "".join(
    f"{ms},{START + ms // 100}\n" for ms in range(0, LAST_MS + 1, 100)
)


# The file -----------------------------------------------------------------


def test_the_value_of_a_moment_is_that_of_the_last_line() -> None:
    file = FairFile(HEAD + "0,100,-5\n100,101,-4\n250,99,-3\n")
    assert file.symbols == ["BOND", "ETF"] and file.last_ms == 250
    moments = (-50, 0, 99.9, 100, 249, 250, 10_000)
    assert [file.at(ms, "BOND") for ms in moments] == [
        *(100, 100, 100, 101, 101, 99, 99)
    ]
    assert file.at(100, "ETF") == -4


@pytest.mark.parametrize(
    "text, told",
    [
        ("", "the first line is not ms,SYMBOL,SYMBOL,..."),
        ("BOND,ms\n0,1\n", "the first line is not"),
        ("ms,BOND,\n0,1,1\n", "the first line is not"),
        ("ms,BOND,BOND\n0,1,1\n", "the first line is not"),
        (HEAD, "there are no values"),
        (HEAD + "0,100\n", "line 3: not 3 whole numbers"),
        (HEAD + "0,100,5,5\n", "line 3: not 3 whole numbers"),
        (HEAD + "0,100,1.5\n", "line 3: not 3 whole numbers"),
        (HEAD + f"0,100,{2**63}\n", "line 3: not 3 whole numbers"),
        (HEAD + "0,100,5\n\n", "line 4: not 3 whole numbers"),
        (HEAD + "5,100,5\n", "line 3: ms does not rise from 0"),
        (HEAD + "0,1,5\n0,1,5\n", "line 4: ms does not rise from 0"),
    ],
)
def test_a_wrong_file_is_refused_by_line(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(told)}"):
        FairFile(text)


def test_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fair.csv"
    path.write_text(CLOCK)
    plan = parse(["--fair", str(path), "--trades-per-s", "2.5"])
    assert plan.fair is not None and plan.fair.last_ms == LAST_MS
    assert plan.trades_per_s == 2.5
    for arguments, told in (
        (["--fair", str(tmp_path / "none")], "none"),
        (["--fair", __file__], "the first line is not"),
        (["--fair", str(path), "--fixed", "BOND"], "the file has the values"),
        (["--fair", str(path), "--value", "5"], "the file has the values"),
        (["--trades-per-s", "0"], "above 0"),
    ):
        with pytest.raises(SystemExit):
            parse(arguments)
        assert told in capsys.readouterr().err


# The pace -----------------------------------------------------------------


@pytest.mark.parametrize("per_act", [0.1, 0.6, 3.0])
def test_the_pace_finds_the_rate_that_is_wanted(per_act: float) -> None:
    pace = Pace(1.0)
    for _ in range(40):
        pace.adapt(40 * pace.hz * per_act, 15)
    assert 40 * pace.hz * per_act == pytest.approx(15, rel=0.05)


@pytest.mark.parametrize("rate, bound", [(0.0, HZ_MAX), (1e6, HZ_MIN)])
def test_the_pace_has_bounds(rate: float, bound: float) -> None:
    pace = Pace(1.0)
    for _ in range(40):
        pace.adapt(rate, 15)
    assert pace.hz == bound


# A round ------------------------------------------------------------------


@asynccontextmanager
async def closed_market(
    folder: Path,
) -> AsyncIterator[tuple[Exchange, Callable[..., Any]]]:
    """Be an administrator of a closed market; also return a house."""
    market, keys, fair = (folder / n for n in ("m.toml", "k.json", "f.csv"))
    market.write_text('[instruments.BOND]\nphase = "closed"\n')
    fair.write_text(CLOCK)
    names = [f"house-{name}-1" for name in ("maker", "noise", "informed")]
    token = add_key(keys, "boss", is_admin=True)
    tokens = folder / "tokens.tsv"
    tokens.write_text("".join(f"{n}\t{add_key(keys, n)}\n" for n in names))
    async with (
        serving(market=market, keys=keys) as server,
        Exchange(server.url, "boss", token) as boss,
    ):
        words = ["--url", server.url, "--tokens", str(tokens), "--noise=1"]
        words += ["--seed=1", "--speed=50", "--fair", str(fair)]

        def house(said: list[str]) -> asyncio.Task[None]:
            return asyncio.create_task(run_house(parse(words), said.append))

        yield boss, house


async def worth_at_the_end(house: asyncio.Task[None], said: list[str]) -> int:
    """Stop a house; return the value that it says at its end."""
    house.cancel()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.wait([house])
    assert house.cancelled(), house.exception()
    return int(said[-1].removeprefix("BOND: worth "))


async def test_bots_that_start_amid_a_round_know_where_it_stands(
    tmp_path: Path,
) -> None:
    """They idle before the opening, and go on from the time that is left."""
    async with closed_market(tmp_path) as (boss, new_house):
        said: list[str] = []
        house = new_house(said)
        await until(lambda: said or house.done())  # they have begun
        assert await worth_at_the_end(house, said) == START

        bond = await boss.market("BOND")
        await boss.admin("phase", "go", phase="open", close_ms=LAST_MS)
        for _ in range(2):
            said.clear()
            house = new_house(said)
            stream = bond.trades()
            async with asyncio.timeout(PATIENCE_S):
                for _ in range(20):
                    trade = await anext(stream)
            [row] = await boss.get("instruments")
            close_ts = row.get("close_ts")
            assert close_ts is not None
            open_ts = close_ts - LAST_MS * 1_000
            least = START + (boss.now - open_ts) // 100_000 - 1
            worth = await worth_at_the_end(house, said)
            most = START + (boss.now - open_ts) // 100_000 + 1
            assert least <= worth <= most
            # The market is where the file is: makers are 2 s late at most.
            assert least - 40 <= trade.price <= most + 20
        assert bond.book.bids == bond.book.asks == ()


async def test_a_file_without_an_instrument_is_refused(
    tmp_path: Path,
) -> None:
    fair = tmp_path / "fair.csv"
    fair.write_text(CLOCK)
    async with serving(symbols=("BOND", "ETF")) as server:
        words = ["--url", server.url, "--fair", str(fair)]
        with pytest.raises(BadPlan, match="--fair: the file has no ETF"):
            await run_house(parse(words))
