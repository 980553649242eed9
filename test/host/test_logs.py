"""The log in both formats."""

from __future__ import annotations

import json
import signal

import pytest

from exchange.doors.once import REPEAT_S, REPEATS_MAX, OncePerMinute
from test.support import address, ended, greeting, launched, order, wired

DOOMED = """
import sys
import exchange.market.engine
import server

apply = exchange.market.engine.Engine.apply

def fail(self, command):
    if command.action.type == "place":
        raise ZeroDivisionError("as planned")
    return apply(self, command)

exchange.market.engine.Engine.apply = fail
sys.argv = ["server.py"]
sys.exit(server.main())
"""


@pytest.mark.parametrize("form", ["text", "json"])
async def test_a_failure_is_logged_with_its_command(form: str) -> None:
    async with launched(code=DOOMED, log=form) as process:
        async with wired(address(await greeting(process)), "ann") as ann:
            await ann.send(order("buy", 1, 100))
            await ann.rest()
        status, _, errors = await ended(process)
    assert status == 1
    if form == "text":
        assert " CRITICAL the exchange stops" in errors
        assert "while applying Command(" in errors
        return
    [line] = [json.loads(line) for line in errors.splitlines()]
    assert set(line) == {"ts", "level", "logger", "message", "exception"}
    assert (line["level"], line["logger"]) == ("critical", "exchange")
    assert line["message"] == "the exchange stops"
    assert "while applying Command(" in line["exception"]
    assert abs(line["ts"] - 1_795_000_000_000_000) < 10**16  # microseconds


async def test_an_unknown_log_format_is_refused() -> None:
    async with launched(log="xml") as process:
        status, _, errors = await ended(process)
    assert status == 2 and "EXCHANGE_SERVER_LOG" in errors


async def test_ordinary_use_logs_nothing() -> None:
    async with launched(log="json") as process:
        async with wired(address(await greeting(process)), "ann") as ann:
            await ann.ask(**order("buy", 1, 100))
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[::2] == (0, "")


# What others provoke ------------------------------------------------------


def test_a_text_is_logged_once_a_minute() -> None:
    once = OncePerMinute()
    assert once.line("a", 0.0) == "a"
    assert once.line("b", 1.0) == "b"
    assert once.line("a", REPEAT_S - 0.1) is None
    assert once.line("a", REPEAT_S) == "a"
    assert once.line("b", REPEAT_S + 0.9) is None
    assert once.line("b", REPEAT_S + 1.0) == "b"
    assert once.line("a", 2 * REPEAT_S - 0.1) is None


def test_a_bounded_number_of_texts_is_logged_and_remembered() -> None:
    once = OncePerMinute()
    lines = [once.line(str(n), n / 1e6) for n in range(100_000)]
    assert lines[:REPEATS_MAX] == [str(n) for n in range(REPEATS_MAX)]
    assert lines[REPEATS_MAX] == OncePerMinute.FULL
    assert set(lines[REPEATS_MAX + 1 :]) == {None}
    assert once.line("later", REPEAT_S + 1.0) == "later"
