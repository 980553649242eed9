"""The exchange's time while the machine's clock is set."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exchange.host import timers
from exchange.host.clock import JUMP_US, READ_NS, Change, Clock
from exchange.journal.sqlite import read_journal
from exchange.market.command import ClockStep, TimePassed
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
    words,
)

HOUR = 3_600 * SECOND
STAY = {"cancel_on_disconnect": False}


class Machine:
    """A machine's clocks, in microseconds, set by a test."""

    def __init__(self) -> None:
        self.wall = NOON
        self.elapsed = 5 * SECOND
        self.awake = 2 * SECOND
        self.clock = Clock(
            lambda: self.wall * 1_000,
            lambda: self.elapsed * 1_000,
            lambda: self.awake * 1_000,
        )

    def run(self, us: int) -> None:
        self.wall += us
        self.elapsed += us
        self.awake += us

    def sleep(self, us: int) -> None:
        self.wall += us
        self.elapsed += us


@pytest.fixture
def machine() -> Machine:
    return Machine()


# The clock ----------------------------------------------------------------


def test_time_passes() -> None:
    clock = Clock()
    before, now, after = time.time_ns(), clock.now(), time.time_ns()
    assert before // 1_000 - 1_000 <= now <= after // 1_000 + 1_000
    elapsed = clock.elapsed()
    while clock.elapsed() == elapsed:
        pass
    assert clock.look() is None


def test_a_clock_without_changes(machine: Machine) -> None:
    for _ in range(3):
        machine.run(SECOND)
        assert machine.clock.look() is None
    assert machine.clock.now() == machine.wall
    assert machine.clock.ahead == 0


def test_a_step_back_is_reported_once_and_not_followed(
    machine: Machine,
) -> None:
    clock = machine.clock
    machine.run(SECOND)
    machine.wall -= HOUR
    assert clock.now() == NOON + SECOND
    assert clock.look() == Change(jumped=-HOUR, slept=0, behind=0)
    machine.run(SECOND)
    assert clock.look() is None
    assert clock.now() == NOON + 2 * SECOND and clock.ahead == HOUR
    # A later step forward counts from where the wall clock is ahead.
    machine.wall += 600 * SECOND
    assert clock.look() == Change(jumped=600 * SECOND, slept=0, behind=0)
    assert clock.ahead == HOUR - 600 * SECOND
    machine.wall += HOUR
    assert clock.look() == Change(jumped=HOUR, slept=0, behind=600 * SECOND)


def test_a_step_forward_is_followed(machine: Machine) -> None:
    clock = machine.clock
    elapsed = clock.elapsed()
    machine.wall += HOUR
    assert clock.now() == NOON, "only after a look"
    assert clock.look() == Change(jumped=HOUR, slept=0, behind=HOUR)
    clock.forward(HOUR)
    assert clock.now() == machine.wall and clock.ahead == 0
    assert clock.look() is None and clock.elapsed() == elapsed


def test_small_differences_count_once_they_are_large(machine: Machine) -> None:
    clock = machine.clock
    for _ in range(3):
        machine.wall += JUMP_US // 4
        assert clock.look() is None
    machine.wall += JUMP_US // 4
    change = clock.look()
    assert change == Change(jumped=JUMP_US, slept=0, behind=JUMP_US)


def test_time_asleep_has_passed(machine: Machine) -> None:
    clock = machine.clock
    machine.sleep(HOUR)
    assert clock.now() == NOON + HOUR
    assert clock.look() == Change(jumped=0, slept=HOUR, behind=0)
    assert clock.look() is None


def test_it_goes_on_from_a_given_time(machine: Machine) -> None:
    clock = machine.clock
    clock.go_on_from(NOON - HOUR)
    assert clock.now() == NOON and clock.ahead == 0
    clock.go_on_from(NOON + HOUR)
    assert clock.now() == NOON + HOUR and clock.ahead == HOUR
    machine.run(SECOND)
    assert clock.now() == NOON + HOUR + SECOND and clock.look() is None


def test_a_busy_machine_causes_no_jump() -> None:
    elapsed = {"ns": 0}

    def busy() -> int:
        elapsed["ns"] += READ_NS + 1
        return elapsed["ns"]

    clock = Clock(lambda: 10**18, busy, lambda: 0)
    assert clock.look() is None


# A running exchange -------------------------------------------------------


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Look at the clock every millisecond."""
    assert timers.CLOCK_S < 1.0, "as the manual says"
    monkeypatch.setattr(timers, "CLOCK_S", 0.001)
    yield


def gtd(expire_ts: int, **more: Any) -> dict[str, Any]:
    times = {"time_in_force": "gtd", "expire_ts": expire_ts}
    return order("buy", 1, 90, **times, **more)


async def test_durations_hold_where_the_clock_is_set_forward(
    machine: Machine,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An order with an ``expire_ts`` ends by the new time."""
    path, market = tmp_path / "exchange.db", tmp_path / "market.toml"
    market.write_text(
        "[instruments.BOND]\nreference_price = 100\nband = 5\n"
        "auction_s = 4\n[instruments.ETF]\n"
    )
    async with (
        serving(machine.clock, journal=path, market=market) as exchange,
        wired(exchange.url, "alice") as alice,
        wired(exchange.url, "bob") as bob,
    ):
        await bob.ask(type="cancel_after", timeout_ms=10_000)
        await bob.ask(**order("sell", 1, 110, symbol="BOND"))
        await alice.ask(**order("buy", 1, 110, symbol="BOND"))
        await alice.ask(**gtd(NOON + HOUR // 2, symbol="ETF"))
        await alice.ask(**gtd(NOON + 2 * HOUR, symbol="ETF"))
        machine.wall += HOUR
        expired = await alice.until(exec_type="expired")
        assert expired["order_id"] == 3 and expired["ts"] >= NOON + HOUR
        assert len(caplog.records) == 1
        assert "set forward by 3600.0 s" in caplog.text
        assert (await alice.ask(type="ping"))[0]["ts"] == NOON + HOUR
        late = (await alice.ask(**gtd(NOON + HOUR // 2, symbol="ETF")))[0]
        assert late["field"] == "expire_ts"
        rows = (await alice.ask(type="get", what="instruments"))[0]["data"]
        assert [row["phase"] for row in rows] == ["auction", "open"]
        news = words(await bob.ask(type="ping"))
        assert news == ["status", "ok"], "the auction began, and all is open"

        machine.sleep(3 * SECOND)
        await until(lambda: len(caplog.records) == 2)
        assert words(await bob.ask(type="ping")) == ["ok"]
        machine.sleep(2 * SECOND)
        status = await bob.until(type="status", phase="open")
        assert status["ts"] == NOON + HOUR + 5 * SECOND
        await bob.ask(**order("sell", 1, 120, symbol="ETF"))
        machine.sleep(6 * SECOND)
        canceled = await bob.until(exec_type="canceled")
        assert canceled["reason"] == "cancel_after"
        assert canceled["ts"] == NOON + HOUR + 11 * SECOND
        assert caplog.text.count("slept") == 3
    actions = [c.action for batch in read_journal(path) for c in batch]
    steps = [a for a in actions if isinstance(a, (ClockStep, TimePassed))]
    assert steps == [ClockStep(forward_us=HOUR), *[TimePassed()] * 3]


async def test_a_step_back_is_logged_and_time_goes_on(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        serving(machine.clock) as exchange,
        wired(exchange.url, "alice") as alice,
    ):
        machine.wall -= HOUR
        await until(lambda: caplog.records)
        assert "set back by 3600.0 s" in caplog.text
        assert "is 3600.0 s ahead of it" in caplog.text
        assert (await alice.ask(type="ping"))[0]["ts"] == NOON
        assert (await alice.ask(**gtd(NOON - 1)))[0]["field"] == "expire_ts"
    assert len(caplog.records) == 1


async def test_deadlines_that_passed_during_sleep_fire_at_once(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        serving(machine.clock) as exchange,
        wired(exchange.url, "alice") as alice,
    ):
        await alice.ask(**gtd(NOON + HOUR // 2))
        machine.sleep(HOUR)
        assert (await alice.until(exec_type="expired"))["reason"] == "gtd"
        assert "slept for 3600.0 s" in caplog.text
    assert len(caplog.records) == 1


# A journal that is ahead --------------------------------------------------


async def test_it_goes_on_where_a_journal_of_the_future_ends(
    tmp_path: Path,
) -> None:
    path, market = tmp_path / "exchange.db", tmp_path / "market.toml"
    market.write_text(
        "[instruments.BOND]\nreference_price = 100\nband = 5\n"
        "auction_s = 1\n"
    )
    ahead = Clock(lambda: time.time_ns() + HOUR * 1_000)
    settings: dict[str, Any] = {"journal": path, "market": market}
    async with (
        serving(ahead, **settings) as exchange,
        wired(exchange.url, "alice", **STAY) as alice,
    ):
        await alice.ask(**order("buy", 1, 90))
        last_ts = (await alice.ask(type="cancel_all"))[0]["ts"]
    assert last_ts - time.time_ns() // 1_000 > HOUR - 600 * SECOND
    texts = {name: str(value) for name, value in settings.items()}
    async with launched(**texts) as process:
        line = await greeting(process)
        assert " s ahead of this machine's" in line
        said = line.partition(" s ahead")[0].split()[-1].replace(",", "")
        assert 3_000 <= float(said) <= 3_600
        url = address(line)
        async with wired(url, "bob") as bob, wired(url, "carl") as carl:
            await carl.ask(**order("buy", 1, 90))
            (ok,) = await carl.ask(type="cancel_after", timeout_ms=1_000)
            canceled = await carl.until(exec_type="canceled")
            assert ok["ts"] > last_ts
            assert canceled["ts"] >= ok["ts"] + SECOND
            await bob.ask(**order("sell", 1, 110))
            stopped = await carl.ask(**order("buy", 1, 110))
            assert stopped[-1]["phase"] == "auction"
            opened = await bob.until(type="status", phase="open")
            assert opened["ts"] >= stopped[-1]["ts"] + SECOND
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[::2] == (0, "")
