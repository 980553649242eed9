"""Asks exchanges for a book all the time, and notes when each one answers.

Of several exchanges that share a journal, at most one may tell anybody
anything at a time. `probing` starts a process that has a connection of its
own to each exchange, asks for a book 20 times a second, whether there are
answers or not, and notes the time of each message. All times are of one
monotonic clock of one machine, so they show whether an exchange told
something after its successor did.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from util.measure.process import Launched, launched
from util.measure.wire import PATIENCE_S

ASKED_S = 0.05  # from one question to the next
QUESTION = '{"type": "get", "what": "book", "symbol": "BOND"}'
READY = "ready"  # the first line


@dataclass
class Told:
    """What one exchange has told: how much, and from when to when.

    ``first`` and ``last`` are seconds of the monotonic clock.
    """

    messages: int
    first: float
    last: float


def check_alone(told: Mapping[str, Told]) -> None:
    """Check that no exchange told anything after its successor had begun.

    Raises AssertionError, which names both.
    """
    ordered = sorted(told.items(), key=lambda item: item[1].first)
    for (name, one), (later, other) in zip(ordered, ordered[1:]):
        assert one.last < other.first, (
            f"{name} told something {one.last - other.first:.3f} s after"
            f" {later} had begun to"
        )


class Prober:
    """A process that asks exchanges; names tell them apart."""

    def __init__(self, process: Launched) -> None:
        self._process = process

    async def watch(self, name: str, url: str) -> None:
        """Ask one more exchange until it ends."""
        await self._process.ask(json.dumps({"watch": name, "url": url}))

    async def hears(self, name: str) -> None:
        """Wait until an exchange has told something."""
        async with asyncio.timeout(PATIENCE_S):
            while name not in await self.told():
                await asyncio.sleep(ASKED_S)

    async def told(self) -> dict[str, Told]:
        """Return what each exchange has told so far."""
        answer = json.loads(await self._process.ask("{}"))
        return {name: Told(*values) for name, values in answer.items()}


@contextlib.asynccontextmanager
async def probing(inside: Sequence[str] = ()) -> AsyncIterator[Prober]:
    """Start a prober, and end it; ``inside`` as in `launched`."""
    with contextlib.ExitStack() as stack:
        start = launched("-m", "util.measure.prober", inside=inside)
        process = await asyncio.to_thread(stack.enter_context, start)
        yield Prober(process)


# The process ----------------------------------------------------------------


async def _probe(name: str, url: str, told: dict[str, Told]) -> None:
    """Ask one exchange until nobody listens there any more."""
    while True:
        try:
            async with connect(
                url,
                compression=None,
                proxy=None,
                max_queue=None,
                ping_interval=None,  # it may be stopped for long
                open_timeout=PATIENCE_S,
            ) as connection:
                asking = asyncio.create_task(_ask(connection))
                try:
                    async for _ in connection:
                        now = time.monotonic()
                        one = told.setdefault(name, Told(0, now, now))
                        one.messages += 1
                        one.last = now
                finally:
                    asking.cancel()
        except ConnectionRefusedError:
            return
        except (OSError, EOFError, WebSocketException, TimeoutError):
            pass
        await asyncio.sleep(ASKED_S)


async def _ask(connection: ClientConnection) -> None:
    with contextlib.suppress(OSError, WebSocketException):
        while True:
            await connection.send(QUESTION)
            await asyncio.sleep(ASKED_S)


async def _serve() -> None:
    """Do what each line says: watch one more, or say what was told."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    told: dict[str, Told] = {}
    print(READY, flush=True)
    async with asyncio.TaskGroup() as group:
        probes = []
        async for line in reader:
            request = json.loads(line)
            if "watch" in request:
                probe = _probe(request["watch"], request["url"], told)
                probes.append(group.create_task(probe))
            answer = {
                name: (one.messages, one.first, one.last)
                for name, one in told.items()
            }
            print(json.dumps(answer), flush=True)
        for task in probes:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(_serve())
