"""Bad bots at the doors of a challenge: lines of JSON or text over TCP.

Each of them has a team, `CULPRIT`, and does one wrong thing as hard as it can.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from util.measure.hostile.bots import Line, Stage

CULPRIT = "MALLORY"
BATCH = 200  # messages in one write
HELLO = {
    "json": b'{"type":"hello","team":"%s"}\n' % CULPRIT.encode(),
    "text": b"HELLO %s\n" % CULPRIT.encode(),
}
# Words of refusals in what a door sends.
WORD = re.compile(rb'(?:REJECT \d+ |ERROR |"error":")([A-Z_:]+)')


class DoorLine(Line):
    """A connection to a door; it counts the words of refusals."""

    async def read(self) -> None:
        """Read until the exchange ends the connection; count how it did."""
        rest = b""
        with contextlib.suppress(ConnectionError):
            while data := await self.reader.read(2**20):
                lines, _, rest = (rest + data).rpartition(b"\n")
                words = map(bytes.decode, WORD.findall(lines))
                self._tally.refused.update(words)
        self._tally.closed["dropped"] += 1


def orders(door: str, start: int) -> bytes:
    """Return orders that cross each other, and cancels of what rests."""
    lines = []
    for number in range(start, start + BATCH // 2):
        side = ("BUY", "SELL")[number % 2]
        if door == "json":
            lines.append(
                f'{{"type":"add","order_id":{number},"symbol":"BOND",'
                f'"dir":"{side}","price":100,"size":1}}\n'
                f'{{"type":"cancel","order_id":{number}}}\n'
            )
        else:
            lines.append(f"ADD {number} BOND {side} 100 1\nCANCEL {number}\n")
    return "".join(lines).encode()


@asynccontextmanager
async def entered(
    stage: Stage, door: str, *first: bytes, is_narrow: bool = False
) -> AsyncIterator[DoorLine]:
    """Connect to a door and say hello."""
    async with stage.dial(
        HELLO[door],
        *first,
        is_narrow=is_narrow,
        port=stage.doors[door],
        kind=DoorLine,
    ) as line:
        assert isinstance(line, DoorLine)
        yield line


async def door_flood(stage: Stage) -> None:
    """Place and cancel at both doors as fast as the sockets accept."""

    async def pour(line: Line, door: str) -> None:
        start = 0
        while True:
            await line.send(orders(door, start))
            start += BATCH

    async def bot(stage: Stage, door: str) -> None:
        async with entered(stage, door) as line:
            sending = asyncio.ensure_future(pour(line, door))
            try:
                await line.read()
            finally:
                sending.cancel()
                await asyncio.wait([sending])

    async with asyncio.TaskGroup() as group:
        for door in stage.doors:
            group.create_task(stage.crowd(4, partial(bot, door=door)))


async def door_deaf(stage: Stage) -> None:
    """Make the doors send as much as they will, and read nothing."""

    async def bot(stage: Stage, door: str) -> None:
        async with entered(stage, door, is_narrow=True) as line:
            reading: Any = line.writer.transport
            reading.pause_reading()
            await stage.mostly(line.repeat(orders(door, 0)))
            reading.resume_reading()
            await line.read()

    async with asyncio.TaskGroup() as group:
        for door in stage.doors:
            group.create_task(stage.crowd(4, partial(bot, door=door)))


async def door_junk(stage: Stage) -> None:
    """Send noise, lines without an end, and a second hello."""
    dice = random.Random(1)

    async def bot(stage: Stage) -> None:
        door = dice.choice([*stage.doors])
        noise = dice.randbytes(dice.randint(1, 2**16))
        junk = dice.choice(
            [
                noise,
                b"x" * 2**20,
                b"\n" * 2**16,
                HELLO[door] * BATCH,
                b"[" * 4_000 + b"\n",
                b'{"type":"add","order_id":1e400}\n' * BATCH,
                b"ADD " + b"9" * 4_000 + b" BOND BUY 1 1\n",
                orders(door, 0)[:-7],
            ]
        )
        async with entered(stage, door, junk) as line:
            await line.read_for(dice.random())

    await stage.crowd(50, bot)


async def door_hellos(stage: Stage) -> None:
    """Say hello and hang up, again and again."""
    dice = random.Random(1)

    async def bot(stage: Stage) -> None:
        door = dice.choice([*stage.doors])
        async with entered(stage, door) as line:
            await line.read_for(0.01)

    await stage.crowd(32, bot)
