"""Tasks end, although a cancellation got lost."""

from __future__ import annotations

import asyncio

import pytest

from exchange.host import tasks
from util.measure.wire import PATIENCE_S


async def test_a_task_that_lost_its_cancellation_is_canceled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in `asyncio.wait_for`, if what it waits for comes just then."""
    monkeypatch.setattr(tasks, "AGAIN_S", 0.01)
    cancellations = 0

    async def live() -> None:
        nonlocal cancellations
        while True:
            try:
                await asyncio.sleep(PATIENCE_S)
            except asyncio.CancelledError:
                cancellations += 1
                if cancellations > 2:
                    raise

    task = asyncio.create_task(live())
    other = asyncio.create_task(asyncio.sleep(PATIENCE_S))
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        await tasks.end(task, other)
    assert task.cancelled() and other.cancelled() and cancellations == 3
    await tasks.end(task)  # it has ended
