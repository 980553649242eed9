"""An exchange whose time runs faster or slower than the machine's."""

from __future__ import annotations

import io
import signal
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from client import Exchange
from exchange.host import timers
from exchange.host.clock import JUMP_US, Change, Clock
from exchange.host.market_file import SettingsError
from exchange.host.settings import load_settings
from exchange.journal.sqlite import read_journal
from exchange.market.command import CancelAfter, TimePassed
from test.support import (
    NOON,
    SECOND,
    address,
    ended,
    greeting,
    launched,
    order,
    serving,
    until,
    wired,
)
from util.replay import main as replay
from util.simulate import exchange as simulated
from util.simulate.loop import VirtualLoop
from util.simulate.world import Simulation

HOUR = 3_600 * SECOND
STAY = {"cancel_on_disconnect": False}
SPEEDS = ["0.2", "10", "100"]


class Machine:
    """A machine's clocks, in microseconds, set by a test."""

    def __init__(self, speed: str, wall: int = NOON) -> None:
        self.wall = wall
        self.elapsed = 5 * SECOND
        self.awake = 2 * SECOND
        self.clock = Clock(
            lambda: self.wall * 1_000,
            lambda: self.elapsed * 1_000,
            lambda: self.awake * 1_000,
            Decimal(speed),
        )

    def run(self, us: int) -> None:
        self.wall += us
        self.elapsed += us
        self.awake += us

    def sleep(self, us: int) -> None:
        """Let time pass for which the exchange does not wait."""
        self.wall += us
        self.elapsed += us


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Look at the clock every millisecond."""
    monkeypatch.setattr(timers, "CLOCK_S", 0.001)
    yield


# The clock ----------------------------------------------------------------


@pytest.mark.parametrize("speed", SPEEDS)
def test_time_runs_n_times_as_fast(speed: str) -> None:
    machine = Machine(speed)
    clock = machine.clock
    assert clock.now() == NOON
    for seconds in range(1, 4):
        machine.run(SECOND)
        assert clock.now() == NOON + Decimal(speed) * seconds * SECOND
        assert clock.look() is None
    assert clock.elapsed() == machine.elapsed, "real time"
    assert clock.seconds_until(clock.now()) <= 0.001
    due = clock.now() + 20 * SECOND
    assert 0 <= clock.seconds_until(due) - 20 / float(speed) < 0.0011
    assert clock.seconds_until(0) == 0


def test_it_does_not_follow_the_wall_clock() -> None:
    machine = Machine("10")
    machine.run(SECOND)
    for us in (HOUR, -2 * HOUR):
        machine.wall += us
        assert machine.clock.look() is None
        assert machine.clock.now() == NOON + 10 * SECOND
    machine.sleep(SECOND)
    change = machine.clock.look()
    assert change == Change(jumped=0, slept=SECOND, behind=0)
    assert machine.clock.now() == NOON + 20 * SECOND


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("moved", [-HOUR, HOUR])
def test_it_goes_on_from_the_last_time_of_a_market(
    speed: str, moved: int
) -> None:
    machine = Machine(speed)
    machine.clock.go_on_from(0)
    assert machine.clock.now() == NOON, "a new market begins now"
    machine.clock.go_on_from(NOON + moved)
    assert machine.clock.now() == NOON + moved
    machine.run(SECOND)
    assert machine.clock.now() == NOON + moved + Decimal(speed) * SECOND
    assert not machine.clock.is_wall_clock


def test_only_a_time_that_the_wall_clock_has_is_found_again() -> None:
    clock = Machine("1").clock
    assert clock.is_wall_clock
    clock.go_on_from(NOON + JUMP_US)
    assert not clock.is_wall_clock


# The setting --------------------------------------------------------------


@pytest.mark.parametrize("text", ["0", "-1", "0.001", "100.5", "nan", "fast"])
def test_a_wrong_speed_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="EXCHANGE_SERVER_SPEED: .*got"):
        load_settings(["--speed", text])


def test_speeds_have_two_decimals() -> None:
    for text in ("0.01", "1.25", "100"):
        assert load_settings(["--speed", text]).speed == Decimal(text)


# A running exchange -------------------------------------------------------


@pytest.mark.parametrize(
    "speed, told", [("1", None), ("10.00", "10"), ("0.20", "0.2")]
)
async def test_clients_are_told(speed: str, told: str | None) -> None:
    async with (
        serving(Machine(speed).clock) as server,
        wired(server.url) as wire,
    ):
        wire.hears_heartbeats = True
        welcome, _ = await wire.ask(type="login", user="alice")
        assert welcome.get("speed") == told
        server.timers.beat()
        assert (await wire.until(type="heartbeat")).get("speed") == told
        text = "" if told is None else f" | time runs {speed} times as fast"
        assert server.greeting.endswith(f"empty market{text}")


async def test_durations_are_of_the_exchanges_time(_quick: None) -> None:
    machine = Machine("10")
    async with (
        serving(machine.clock) as server,
        wired(server.url, "alice") as alice,
    ):
        await alice.ask(**order("buy", 1, 90))
        await alice.ask(type="cancel_after", timeout_ms=10_000)
        machine.sleep(SECOND * 8 // 10)
        assert (await alice.ask(type="ping"))[-1]["ts"] == NOON + 8 * SECOND
        machine.sleep(SECOND * 3 // 10)
        canceled = await alice.until(exec_type="canceled")
        assert canceled["reason"] == "cancel_after"
        assert canceled["ts"] == NOON + 11 * SECOND


async def test_timers_wait_for_real_time() -> None:
    """With the machine's real clocks: 5 s of the market are 0.05 s."""
    async with (
        serving(Clock(speed=Decimal(100))) as server,
        wired(server.url, "alice") as alice,
    ):
        sent = time.monotonic_ns()
        await alice.ask(**order("buy", 1, 90))
        (ok,) = await alice.ask(type="cancel_after", timeout_ms=5_000)
        canceled = await alice.until(exec_type="canceled")
        passed_ns = time.monotonic_ns() - sent
        passed_us = canceled["ts"] - ok["ts"]
        assert 5 * SECOND <= passed_us <= 100 * passed_ns // 1_000


@pytest.mark.parametrize("speed", SPEEDS)
async def test_rates_count_in_the_exchanges_time(
    speed: str, tmp_path: Path
) -> None:
    """The time to wait is told in real time, for the client's own timer."""
    market = tmp_path / "market.toml"
    market.write_text(
        "[instruments.BOND]\n[account]\norders_per_s = 2\nburst = 1\n"
    )
    machine = Machine(speed)
    async with (
        serving(machine.clock, market=market) as server,
        wired(server.url, "alice") as alice,
    ):
        assert (await alice.ask(**order("buy", 1, 90)))[0]["type"] == "exec"
        error = (await alice.ask(**order("buy", 1, 90)))[0]
        wait_ms = error["retry_after_ms"]
        assert wait_ms == 500 / float(speed)
        assert f"try again in {wait_ms} ms" in error["message"]
        machine.run(wait_ms * 1_000 - 1)
        error = (await alice.ask(**order("buy", 1, 90)))[0]
        assert error["retry_after_ms"] == max(1, 1 / float(speed))
        machine.run(1)
        assert (await alice.ask(**order("buy", 1, 90)))[0]["type"] == "exec"


async def test_heartbeats_come_in_real_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At a hundredth of the speed, too, so no client takes us for dead."""
    monkeypatch.setattr(timers, "HEARTBEAT_S", 0.2)
    async with (
        serving(Clock(speed=Decimal("0.01"))) as server,
        wired(server.url, "alice") as alice,
    ):
        alice.hears_heartbeats = True
        for _ in range(3):  # in market time they would take a minute
            await alice.until(type="heartbeat")


# Restarts -----------------------------------------------------------------


async def test_a_time_that_no_wall_clock_has_is_journaled(
    _quick: None, tmp_path: Path
) -> None:
    """So what ends by time ends on time after a crash."""
    path = tmp_path / "exchange.db"

    def ticks() -> list[int]:
        commands = [c for batch in read_journal(path) for c in batch]
        return [c.ts for c in commands if isinstance(c.action, TimePassed)]

    machine = Machine("10")
    async with (
        serving(machine.clock, journal=path) as server,
        wired(server.url, "alice", **STAY) as alice,
    ):
        machine.run(SECOND)
        await alice.ask(type="ping")
        assert ticks() == [], "nothing ends by time"
        await alice.ask(type="cancel_after", timeout_ms=30_000)
        machine.run(SECOND)
        await until(lambda: ticks() == [NOON + 20 * SECOND])
        await alice.ask(type="ping")
        assert ticks() == [NOON + 20 * SECOND], "once for each moment"


@pytest.mark.parametrize("later", [0, 10 * HOUR])
async def test_another_speed_goes_on_from_the_last_time(
    later: int, tmp_path: Path
) -> None:
    """At a speed of 1 from the wall clock's time, if that is later."""
    path = tmp_path / "exchange.db"
    machine = Machine("10")
    async with (
        serving(machine.clock, journal=path) as server,
        wired(server.url, "alice", **STAY) as alice,
    ):
        await alice.ask(**order("buy", 1, 90))
        await alice.ask(type="cancel_after", timeout_ms=60_000)
        machine.run(5 * SECOND)
        ts = (await alice.ask(**order("buy", 1, 91)))[0]["ts"]
        assert ts == NOON + 50 * SECOND
    for speed in ("0.2", "100"):
        machine = Machine(speed, NOON + later)
        async with (
            serving(machine.clock, journal=path) as server,
            wired(server.url, "alice", **STAY) as alice,
        ):
            rows = (await alice.ask(type="get", what="orders"))[0]["data"]
            statuses = [row["order_status"] for row in rows]
            assert statuses == ["new"] * 2, "no time has passed"
            now = (await alice.ask(type="ping"))[0]["ts"]
            assert ts <= now < ts + SECOND
            if speed == "0.2":
                assert " 50.0 s ahead of " in server.greeting or later
                assert not later or " s behind " in server.greeting
    machine = Machine("1", NOON + later)
    async with (
        serving(machine.clock, journal=path) as server,
        wired(server.url, "alice", **STAY) as alice,
    ):
        rows = (await alice.ask(type="get", what="orders"))[0]["data"]
        status = "canceled" if later else "new"
        assert [row["order_status"] for row in rows] == [status] * 2
        now = (await alice.ask(type="ping"))[0]["ts"]
        assert now >= max(ts, NOON + later)


async def test_a_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fast exchange is killed, and goes on slowly."""
    path = tmp_path / "exchange.db"
    async with launched("--speed", "100", journal=str(path)) as process:
        line = await greeting(process)
        assert line.endswith("time runs 100 times as fast\n")
        async with wired(address(line), "alice", **STAY) as alice:
            begun = time.monotonic_ns()
            first = (await alice.ask(type="ping"))[0]["ts"]
            heard = time.monotonic_ns()
            await alice.ask(**order("buy", 1, 90))
            (ok,) = await alice.ask(type="cancel_after", timeout_ms=50_000)
            canceled = await alice.until(exec_type="canceled")
            assert canceled["ts"] >= ok["ts"] + 50 * SECOND
            asked = time.monotonic_ns()
            last = (await alice.ask(type="ping"))[0]["ts"]
            ended_ns = time.monotonic_ns()
            passed = (last - first) * 1_000
            slack = 100_000  # the clock rounds to microseconds
            assert 100 * (asked - heard) - slack <= passed
            assert passed <= 100 * (ended_ns - begun) + slack
            (ok,) = await alice.ask(type="cancel_after", timeout_ms=86_400_000)
            process.kill()
    async with launched("--speed", "0.5", journal=str(path)) as process:
        line = await greeting(process)
        assert " s ahead of this machine's" in line
        async with wired(address(line), "bob") as bob:
            now = (await bob.ask(type="ping"))[0]["ts"]
            assert now > ok["ts"]
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[::2] == (0, "")
    commands = [c for batch in read_journal(path) for c in batch]
    assert sum(isinstance(c.action, CancelAfter) for c in commands) == 2
    assert all(a.ts < b.ts for a, b in zip(commands, commands[1:]))
    assert replay([str(path), "--verify"]) == 0
    capsys.readouterr()


# Clients ------------------------------------------------------------------


async def test_the_client_knows_the_speed_and_the_time() -> None:
    machine = Machine("10")
    async with (
        serving(machine.clock) as server,
        Exchange(server.url, user="alice") as ex,
        Exchange(server.url, user="") as public,
    ):
        assert ex.speed == 10 and ex.now >= NOON
        assert public.speed == 1 and public.now == 0, "not known yet"
        machine.run(HOUR)
        server.timers.beat()
        await until(lambda: public.speed == 10)
        await until(lambda: ex.now >= NOON + 10 * HOUR)
        assert public.now >= NOON + 10 * HOUR
    async with (
        serving(Clock(speed=Decimal(10))) as server,
        Exchange(server.url, user="alice") as ex,
    ):
        assert ex.now <= server.gateway.engine.ts + HOUR
        before, real = ex.now, time.monotonic_ns()
        await until(lambda: ex.now >= before + SECOND)
        assert time.monotonic_ns() - real >= 99_000_000


def test_house_bots_act_in_the_exchanges_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def orders(speed: int, seconds: float) -> int:
        def clock_of(loop: VirtualLoop, epoch_ns: int) -> Clock:
            def wall_ns() -> int:
                return epoch_ns + loop.now

            def elapsed_ns() -> int:
                return loop.now

            return Clock(wall_ns, elapsed_ns, elapsed_ns, Decimal(speed))

        monkeypatch.setattr(simulated, "clock_of", clock_of)
        options: dict[str, Any] = {"makers": 1, "noise": 3, "informed": 1}
        with Simulation(seed=1, out=io.StringIO(), **options) as simulation:
            result = simulation.run(seconds)
        return sum(standing.orders for standing in result.standings)

    plain, fast = orders(1, 60), orders(10, 6)
    assert plain > 100
    assert abs(fast - plain) < 0.3 * plain
