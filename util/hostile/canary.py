"""A well-behaved client, and how long it waits for its answers.

Canaries place and cancel by turns, at a fixed rate, whatever becomes of the
answers. A delay counts from the moment a request was due, not from when it
could be sent: an exchange that stands still for a second has kept all waiting
who would have asked for something in that second.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

RATE = 80  # requests per second; below what is allowed to everybody
SPIN_S = 0.001  # the loop's timers are no more exact
ANSWER_S = 10.0  # for the last answers


class Canary:
    """One client. ``faults`` say what should not have happened."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.delays: list[tuple[float, float]] = []  # when due, seconds
        self.faults: list[str] = []
        self._waiting: dict[int, float] = {}  # by id, when it was due
        self._is_over = False
        self._is_answered = asyncio.Event()

    async def sing(self, url: str, start: float) -> None:
        """Begin at a time of the monotonic clock, and go on until `hush`."""
        try:
            async with connect(
                url, compression=None, proxy=None, max_queue=None
            ) as connection:
                login = {"type": "login", "user": self.name, "id": 0}
                await connection.send(json.dumps(login))
                hearing = asyncio.ensure_future(self._hear(connection))
                try:
                    await self._ask(connection, start)
                    async with asyncio.timeout(ANSWER_S):
                        await self._is_answered.wait()
                finally:
                    hearing.cancel()
                    await asyncio.wait([hearing])
        except (OSError, ConnectionClosed) as error:
            self.faults.append(f"disconnected: {error!r}")
        if self._waiting:
            self.faults.append(f"{len(self._waiting)} requests not answered")

    def hush(self) -> None:
        """Ask for nothing more; `sing` returns once all is answered."""
        self._is_over = True

    async def _ask(self, connection: ClientConnection, start: float) -> None:
        number = 0
        while not self._is_over:
            due = start + number / RATE
            await asyncio.sleep(max(0, due - time.monotonic() - SPIN_S))
            while time.monotonic() < due:
                await asyncio.sleep(0)
            number += 1
            self._waiting[number] = due
            self._is_answered.clear()
            await connection.send(json.dumps(self._request(number)))

    def _request(self, number: int) -> dict[str, Any]:
        order = {"client_order_id": f"{self.name}-{(number + 1) // 2}"}
        if number % 2 == 0:
            return {"type": "cancel", "id": number, **order}
        price = {"side": "buy", "qty": 1, "price": 1}
        return {"type": "place", "id": number, **price, **order}

    async def _hear(self, connection: ClientConnection) -> None:
        async for data in connection:
            now = time.monotonic()
            frame = json.loads(data)
            for message in frame if isinstance(frame, list) else [frame]:
                if message.get("id"):
                    self._take(message, now)
            if not self._waiting:
                self._is_answered.set()

    def _take(self, reply: dict[str, Any], now: float) -> None:
        number = reply["id"]
        due = self._waiting.pop(number)
        self.delays.append((due, now - due))
        expected = "new" if number % 2 else "canceled"
        if reply.get("exec_type") != expected:
            self.faults.append(f"instead of {expected}: {reply}")


def quantile_ms(delays: list[float], share: float) -> float:
    """Return what so great a share of delays in seconds is not above."""
    return 1_000 * sorted(delays)[math.ceil(share * len(delays)) - 1]
