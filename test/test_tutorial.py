"""The tutorial does what it says: its programs run, its commands exist."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path

import pytest

from client import Exchange, Market
from test.relay import relaying
from test.support import PATIENCE_S, ROOT, serving
from test.test_docs import MAKEFILE, frames, run
from test.util.test_bots import plan_for, working
from util.bots.__main__ import parse
from util.bots.house import run_house

TUTORIAL = (ROOT / "docs" / "TUTORIAL.md").read_text()
# Each program with the name that the sentence before it gives.
PROGRAMS = dict(
    re.findall(
        r"`bots/(\w+\.py)`:\n\n```python\n(.*?)^```$", TUTORIAL, re.M | re.S
    )
)
COUNT = 5


async def run_program(
    path: Path, name: str, url: str, count: int, **changes: int
) -> list[str]:
    """Run a program of the tutorial as a script; return what it printed."""
    program = PROGRAMS[name]
    for constant, value in changes.items():
        program, found = re.subn(
            rf"^{constant} = \d+", f"{constant} = {value}", program, flags=re.M
        )
        assert found == 1
    (path / name).write_text(program)
    status, output, errors = await run(name, str(count), url=url, cwd=path)
    assert (status, errors) == (0, "")
    return output.splitlines()


def test_every_program_is_found() -> None:
    assert list(PROGRAMS) == ["listen.py", "quote.py", "lean.py", "careful.py"]
    # Two more are of other libraries: test/clients runs them.
    assert TUTORIAL.count("```python") == len(PROGRAMS) + 2


async def test_listening(tmp_path: Path) -> None:
    async with serving() as server, working(run_house(plan_for(server.url))):
        first, *trades = await run_program(
            tmp_path, "listen.py", server.url, COUNT
        )
    assert re.fullmatch(r"bid \S+ ask \S+", first)
    assert len(trades) == COUNT
    for trade in trades:
        assert re.fullmatch(r"(buy|sell) \d+ at \d+", trade)


@pytest.mark.parametrize("name", ["quote.py", "lean.py", "careful.py"])
async def test_quoting(tmp_path: Path, name: str) -> None:
    async with serving() as server, working(run_house(plan_for(server.url))):
        lines = await run_program(tmp_path, name, server.url, COUNT)
        async with Exchange(server.url, "you") as ex:
            orders = await ex.get("orders")
    if name == "careful.py":
        assert lines.pop().startswith("profit ")
    assert len(lines) == COUNT
    for line in lines:
        assert re.fullmatch(r"(\d+|None) (\d+|None) -?\d+ -?\d+", line)
    assert {order.side for order in orders} == {"buy", "sell"}
    assert not any(order.leaves_qty for order in orders)


async def sell_to_every_bid(market: Market) -> None:
    """Sell 5 lots whenever somebody wants to buy."""
    async for book in market.books():
        if book.bid is not None:
            await market.sell(5, book.bid, time_in_force="ioc")


async def test_leaning_ends_at_a_bound(tmp_path: Path) -> None:
    async with serving() as server, Exchange(server.url, "other") as other:
        bond = await other.market("BOND")
        async with (
            working(run_program(tmp_path, "lean.py", server.url, 0)),
            working(sell_to_every_bid(bond)),
            asyncio.timeout(PATIENCE_S),
        ):
            async for book in bond.books():
                if book.ask == 100 - 50 // 10 + 2:
                    break
        assert book.bid is None
        assert bond.position == -50


async def test_a_careful_bot_stops_at_its_loss(tmp_path: Path) -> None:
    async with serving() as server, Exchange(server.url, "other") as other:
        bond = await other.market("BOND")
        async with working(sell_to_every_bid(bond)):
            lines = await run_program(
                tmp_path, "careful.py", server.url, 0, LOSS=0
            )
    assert lines[-1].startswith("profit -")


async def test_a_careful_bot_lives_through_a_restart(tmp_path: Path) -> None:
    async with serving() as server:
        program = run_program(tmp_path, "careful.py", server.url, 0)
        async with working(program), asyncio.timeout(PATIENCE_S):
            await a_quote(server.url)
            await server.stop()
            async with serving(port=server.port):
                await a_quote(server.url)


async def test_a_careful_bot_bears_to_get_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty = 'user="you", request_timeout=0.1'
    program = PROGRAMS["careful.py"].replace('user="you"', hasty)
    program = program.replace("sleep(1)", "sleep(0.1)")
    monkeypatch.setitem(PROGRAMS, "careful.py", program)
    asked = '"limit":20'
    async with serving() as server, relaying(server.url) as relay:
        relay.fault = lambda way, n, frame: (
            "cut_before" if way == "up" and asked in frame else "pass"
        )
        async with (
            working(run_program(tmp_path, "careful.py", relay.url, 0)),
            asyncio.timeout(PATIENCE_S),
        ):
            await relay.until(
                lambda: sum(asked in f for f in relay.seen["up"]) > 4
            )
            relay.fault = lambda way, n, frame: "pass"
            await a_quote(server.url)


async def a_quote(url: str) -> None:
    """Wait until somebody shows a bid and an ask."""
    async with Exchange(url, user="") as ex:
        async for book in (await ex.market("BOND")).books():
            if book.mid is not None:
                return


# Commands -----------------------------------------------------------------


@pytest.mark.parametrize("command", dict.fromkeys(frames(TUTORIAL, "sh")))
async def test_command(command: str) -> None:
    words = shlex.split(command)
    match words:
        case ["make", target] | [
            "EXCHANGE_SERVER_DIALECT=spot",
            "make",
            target,
        ]:
            assert re.search(rf"^{target}:.*## ", MAKEFILE, re.M)
        case [".", ".venv/bin/activate"]:
            pass
        case ["python", "-m", "util.bots"]:
            status, _, errors = await run(*words[1:], "--help", url="")
            assert (status, errors) == (0, "")
        case ["python", "-m", *_]:
            async with serving() as server:
                status, output, errors = await run(*words[1:], url=server.url)
            assert (status, errors) == (0, "")
            assert "BOND" in output
        case ["python", program]:
            assert program.removeprefix("bots/") in PROGRAMS
        case _:
            pytest.fail(f"what is {command}?")


def test_every_program_is_started() -> None:
    commands = frames(TUTORIAL, "sh")
    started = [c.split()[-1].removeprefix("bots/") for c in commands]
    assert [name for name in started if name in PROGRAMS] == list(PROGRAMS)


def test_commands_in_the_text_make_sense() -> None:
    [arguments] = re.findall(r"`python -m util\.bots (.+)`", TUTORIAL)
    assert parse(shlex.split(arguments)).informed == 3
