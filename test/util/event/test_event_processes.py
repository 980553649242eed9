"""Processes of an event: known again, ended, and their logs bounded."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from test.support import PATIENCE_S
from util.event.processes import (
    CUT,
    Spec,
    drop_middle,
    is_alive,
    last_line,
    launch,
    start_time,
)
from util.event.record import Record
from util.event.supervise import AGAIN_S, Supervisor

SLEEPING = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return Spec(
        name="one",
        owner=tmp_path,
        command=SLEEPING,
        folder=tmp_path / "one",
        log=tmp_path / "one.log",
    )


def tend_until(supervisor: Supervisor, pid: int) -> int:
    """Tend until another process than this runs; return its pid."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        supervisor.tend()
        process = supervisor.running.get("one")
        if process is not None and process.pid != pid:
            return process.pid
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_what_ends_is_started_again_after_a_second(spec: Spec) -> None:
    with Record.of(spec.owner) as record:
        supervisor = Supervisor(record, print)
        supervisor.wanted["one"] = spec
        first = tend_until(supervisor, 0)
        os.kill(first, signal.SIGKILL)
        ended = time.monotonic()
        second = tend_until(supervisor, first)
        assert time.monotonic() - ended >= AGAIN_S
        assert await supervisor.end("one") == ["one"]
        assert start_time(second) is None
        assert not record.processes()


async def test_the_next_supervisor_adopts_what_runs(spec: Spec) -> None:
    with Record.of(spec.owner) as record:
        first = Supervisor(record, print)
        first.wanted["one"] = spec
        pid = tend_until(first, 0)
        second = Supervisor(record, print)
        assert second.running["one"].pid == pid
        second.wanted["one"] = spec
        second.tend()
        assert second.running["one"].pid == pid
        # Of another start time it is another process.
        other = replace(second.running["one"], started="another")
        assert not is_alive(other)
        record.keep(other)
        assert not Supervisor(record, print).running
        await first.end("one")


def test_what_nobody_keeps_is_ended(spec: Spec) -> None:
    child = launch(spec)
    other = launch(replace(spec, owner=spec.owner / "other"))
    with Record.of(spec.owner) as record:
        Supervisor(record, print).end_strays(spec.owner)
    assert child.wait(PATIENCE_S) == -signal.SIGKILL
    assert other.poll() is None
    other.kill()
    other.wait()


def test_a_log_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    log = tmp_path / "bot.log"
    lines = [f"line {number}\n" for number in range(10_000)]
    log.write_text("".join(lines))
    assert not drop_middle(log, 1 << 20)
    with open(log, "ab") as writing:  # as a bot does
        assert drop_middle(log, 4_000)
        writing.write(b"and on\n")
    text = log.read_bytes()
    assert len(text) < 4_000
    assert text.startswith(b"line 0\nline 1\n")
    assert CUT in text
    assert text.endswith(b"line 9999\nand on\n")
    assert last_line(log) == "and on"


async def test_a_bot_that_prints_without_end_does_not_fill_the_disk(
    spec: Spec,
) -> None:
    code = "while True: print('x' * 1000)"
    spec = replace(spec, command=[sys.executable, "-c", code], log_max=200_000)
    with Record.of(spec.owner) as record:
        supervisor = Supervisor(record, print)
        supervisor.wanted["one"] = spec
        tend_until(supervisor, 0)
        deadline = time.monotonic() + PATIENCE_S
        while not (spec.log.exists() and CUT in spec.log.read_bytes()):
            supervisor.tend()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        await supervisor.end("one")
