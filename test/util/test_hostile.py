"""The bad bots attack, and the canaries measure the effect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.request import urlopen

import pytest

from exchange.host.market_file import OPEN_ORDERS_PRIVATE
from server import Server
from test.support import PATIENCE_S, serving, until, wired, words
from util.measure.histogram import Histogram
from util.measure.hostile import __main__ as hostile
from util.measure.hostile.__main__ import (
    Result,
    as_text,
    exchange,
    main,
    run,
)
from util.measure.hostile.attacks import ATTACKS
from util.measure.hostile.bots import HIDEOUT, Stage
from util.measure.hostile.canary import Canary
from util.measure.lines import door_ports, doors_table
from util.measure.trader import Flow

# The bad bots ----------------------------------------------------------------


def commands(server: Server) -> int:
    return server.gateway.engine.seq


def resting(server: Server) -> int:
    return len(server.gateway.engine.listings["BOND"].book.orders)


def shaken(server: Server) -> int:
    """How many handshakes have begun that need not come to an end."""
    return len(server.listener.connections) - len(server.links)


def stuffed(server: Server) -> int:
    """How many connections leave much unread."""
    return sum(c.buffered > 2**16 for c in server.links)


def halves(server: Server) -> int:
    """How many connections have sent half of a frame."""
    return sum(bool(c._unread) for c in server.links)


# What is to be seen of each of them.
SIGNS: dict[str, Callable[[Server], bool]] = {
    "flood": lambda server: commands(server) > 2_000,
    "logins": lambda server: commands(server) > 200,
    "cancels": lambda server: commands(server) > 2_000,
    "filler": lambda server: resting(server) == OPEN_ORDERS_PRIVATE,
    "deaf": lambda server: stuffed(server) >= 3,
    "trickler": lambda server: halves(server) >= 2 <= stuffed(server),
    "junk": lambda server: commands(server) > 50,
    "handshakes": lambda server: shaken(server) >= 300,
    "thousand": lambda server: len(server.gateway.feed._follows) >= 1_000,
    "tables": lambda server: commands(server) > 200,
    "hit-and-run": lambda server: len(server.listener.leaving) > 0,
    "door-flood": lambda server: commands(server) > 200,
    "door-deaf": lambda server: commands(server) > 200,
    "door-junk": lambda server: server.gateway.routing.refusals.total() > 50,
    "door-hellos": lambda server: commands(server) > 200,
}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[tuple[Server, Stage]]:
    ports = door_ports()
    market = tmp_path / "market.toml"
    market.write_text(hostile.OPEN + doors_table(ports))
    async with serving(market=market) as server:
        yield server, Stage(server.port, 60, ports)


@pytest.mark.parametrize("name", ATTACKS)
async def test_each_attack_does_its_wrong_and_the_exchange_runs_on(
    stage: tuple[Server, Stage], name: str
) -> None:
    server, there = stage
    async with wired(server.url, "alice") as healthy:
        attack = asyncio.ensure_future(ATTACKS[name](there))
        try:
            await until(lambda: attack.done() or SIGNS[name](server))
            assert not attack.done()
            assert HIDEOUT in server.listener.by_address
            assert words(await healthy.ask(type="ping")) == ["ok"]
        finally:
            attack.cancel()
            await asyncio.wait([attack])
        await until(lambda: len(server.listener.connections) == 1)
        assert words(await healthy.ask(type="ping")) == ["ok"]


@pytest.mark.parametrize(
    "name, refused, closed",
    [
        ("cancels", ["unknown_order", "rate_limited"], ["4002"]),
        ("thousand", ["rate_limited"], ["4002", "dropped"]),
        ("junk", ["bad_request"], ["1002", "4002"]),
    ],
)
async def test_the_tally_counts_refusals_and_closed_connections(
    name: str, refused: list[str], closed: list[str]
) -> None:
    async with serving(max_per_address=5, max_per_account=2) as server:
        stage = Stage(server.port, seconds=60)
        attack = asyncio.ensure_future(ATTACKS[name](stage))
        told = stage.tally
        await until(
            lambda: all(told.refused[code] for code in refused)
            and all(told.closed[code] for code in closed)
        )
        attack.cancel()
        await asyncio.wait([attack])


async def test_the_tally_counts_words_of_the_doors(
    stage: tuple[Server, Stage],
) -> None:
    _, there = stage
    attack = asyncio.ensure_future(ATTACKS["door-junk"](there))
    told = there.tally
    words = ("PROTOCOL_ERROR:MALFORMED", "PROTOCOL_ERROR:TOO_LONG")
    await until(lambda: all(told.refused[w] for w in words))
    await until(lambda: told.closed["dropped"])
    attack.cancel()
    await asyncio.wait([attack])


# The canaries ----------------------------------------------------------------


FLOW = Flow(symbol="BOND", middle=50, depth=10, max_qty=1, mix={}, run="a")


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_canary_counts_from_when_a_request_was_due() -> None:
    """One that could not be sent for a while has waited all that time."""
    async with serving() as server:
        canary, delays = Canary("canary", FLOW), Histogram()
        late = 1.0
        canary.measure(delays, 0.0)
        singing = asyncio.ensure_future(canary.sing(server.url, now() - late))
        await until(lambda: delays.total > 5)
        canary.hush()
        await singing
        assert canary.faults == []
        assert delays.max_us >= late * 1_000_000
        book = server.gateway.engine.listings["BOND"].book
        assert not book.orders  # it leaves nothing there


async def test_a_canary_is_measured_from_the_time_given() -> None:
    async with serving() as server:
        canary, calm, bad = Canary("canary", FLOW), Histogram(), Histogram()
        canary.measure(calm, 0.0)
        singing = asyncio.ensure_future(canary.sing(server.url, now()))
        await until(lambda: calm.total > 5)
        canary.measure(bad, now())
        counted = calm.total
        await until(lambda: bad.total > 5)
        canary.hush()
        await singing
        assert calm.total == counted


async def test_a_canary_reports_refusals_and_lost_connections() -> None:
    async with serving() as server:
        refused = Canary("refused", FLOW)
        listing = server.gateway.engine.listings["BOND"]
        listing.phase = "closed"
        singing = asyncio.ensure_future(refused.sing(server.url, now()))
        await until(lambda: refused.tally.refused)
        refused.hush()
        await singing
        assert "market_closed" in refused.faults[0]
        listing.phase = "open"
        cut_off = Canary("cut-off", FLOW)
        singing = asyncio.ensure_future(cut_off.sing(server.url, now()))
        await until(lambda: cut_off.tally.answered)
        (connection,) = server.links
        connection.abort()
        await singing
        assert "disconnected" in cut_off.faults[0]


async def test_a_canary_reports_missing_replies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("util.measure.hostile.canary.ANSWER_S", 0.01)
    async with serving() as server:
        canary = Canary("canary", FLOW)
        singing = asyncio.ensure_future(canary.sing(server.url, now()))
        await until(lambda: canary.tally.answered)
        monkeypatch.setattr(server, "drain", lambda: None)
        before = len(server.turns.fresh)
        await until(lambda: len(server.turns.fresh) > before)
        canary.hush()
        await singing
        assert any("without a reply" in fault for fault in canary.faults)
        monkeypatch.undo()


# The run ---------------------------------------------------------------------


async def test_a_run_beside_a_guarded_exchange() -> None:
    for seconds in (0.5, 2.0, 8.0, 32.0):  # the bad bots get what is left
        with exchange("guarded") as (server, doors):
            result = await run("cancels", "guarded", server, doors, seconds)
        if {"unknown_order", "rate_limited"} <= result.refused.keys():
            break
    assert result.faults == []
    for delays in (result.calm, result.bad):
        assert 0 < delays.percentile(50) <= delays.percentile(99)
    assert result.refused["unknown_order"] and result.refused["rate_limited"]
    assert result.memory_mib >= 0
    line = as_text(result)
    assert line.startswith("cancels     guarded ") and "rate_limited" in line


def figures(home: str) -> list[str]:
    with urlopen(f"{home}/metrics") as answer:
        lines: list[str] = answer.read().decode().splitlines()
    return lines


async def test_the_end_of_the_exchange_is_reported() -> None:
    with exchange("open") as (server, doors):
        running = asyncio.ensure_future(
            run("trickler", "open", server, doors, 0.5)
        )
        # Once the canaries have come.
        home = server.url.replace("ws", "http", 1)
        accounts = f"exchange_accounts {float(hostile.CANARIES)}"
        async with asyncio.timeout(PATIENCE_S):
            while accounts not in await asyncio.to_thread(figures, home):
                pass
        server.process.kill()
        result = await running
    assert sum("disconnected" in fault for fault in result.faults) == 5
    assert "the exchange ended with -9" in result.faults
    assert as_text(result).count("\n  ! ") == len(result.faults)


@pytest.mark.parametrize(
    "arguments, attacks, seconds",
    [
        (["--attack", "flood", "--attack", "junk"], ["flood", "junk"], 5.0),
        (["--seconds", "2"], [*ATTACKS], 2.0),
    ],
)
@pytest.mark.parametrize("faults", [[], ["canary1: disconnected"]])
def test_each_attack_runs_on_an_open_and_on_a_guarded_exchange(
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    attacks: list[str],
    seconds: float,
    faults: list[str],
) -> None:
    """The exit status is 1 if a single run had a fault."""
    asked: list[tuple[str, str, float]] = []

    def run_on(attack: str, kind: str, seconds: float) -> Result:
        asked.append((attack, kind, seconds))
        result = Result(attack, kind, Histogram(), Histogram(), {}, {})
        result.faults = faults if len(asked) == 2 else []
        return result

    assert main(arguments, run_on) == len(faults)
    kinds = ("open", "guarded")
    assert asked == [
        (name, kind, seconds) for name in attacks for kind in kinds
    ]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(asked) + len(faults)


@pytest.mark.parametrize("arguments", ["--attack nonsense", "--seconds 0"])
def test_a_wrong_command_line_is_refused(arguments: str) -> None:
    with pytest.raises(SystemExit):
        main(arguments.split())
