"""A short run of ``python -m util.measure.fuzz``, in this process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from exchange.doors.once import REPEATS_MAX
from test.support import serving
from util.measure.fuzz import assault, set_up, trade

SEED = 5
CONNECTIONS = 400


async def test_whatever_is_thrown_at_it_the_healthy_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And connections ended in many ways."""
    unhandled: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: unhandled.append(context))
    settings, tokens, doors = set_up(tmp_path)
    is_over = asyncio.Event()
    async with serving(**settings) as server:
        async with asyncio.TaskGroup() as group:
            trading = group.create_task(trade(server.url, tokens, is_over))
            counts = await assault(
                server.port, doors, tokens, SEED, range(CONNECTIONS)
            )
            is_over.set()
    assert unhandled == []
    assert all(line.startswith("refused ") for line in caplog.messages)
    assert len(caplog.messages) <= REPEATS_MAX + 1
    assert len(trading.result()) > 2
    assert counts.total() == CONNECTIONS
    assert set(counts) >= {
        *("reset", "gone", "no reply", "no close"),
        *("HTTP 405", "HTTP 431", "1000", "1002", "1007"),
        *("deaf", "door ended", "door ended, no reply"),
    }, counts
