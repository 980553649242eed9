"""The end of tasks that talk to the servers of NATS."""

from __future__ import annotations

import asyncio
from typing import Any

# From one cancellation of a task to the next. One hangs up within this.
AGAIN_S = 1.0


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and wait until they have ended.

    A cancellation is repeated, because `asyncio.wait_for` of Python 3.11
    loses it if what it waits for comes in the same turn, and nats-py waits in
    that way.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_S)
