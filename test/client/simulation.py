"""An exchange in memory that says what a test tells it, in simulated time.

A test with `simulated` runs on an event loop whose clock jumps to the next
timer when there is nothing else to do. So a wait of an hour takes no time, and
``asyncio.sleep`` returns after everything that can happen before has happened.
"""

from __future__ import annotations

import asyncio
import functools
import json
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

P = ParamSpec("P")
URL = "ws://nowhere"


class _Selector(selectors.SelectSelector):
    """Reports the file events of now, and advances the clock instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "the test waits for what never comes"
        self.now += max(timeout, 0)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._simulated = _Selector()
        super().__init__(self._simulated)

    def time(self) -> float:
        return self._simulated.now


def simulated(
    test: Callable[P, Coroutine[Any, Any, None]],
) -> Callable[P, None]:
    """Run a test in simulated time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def stand_still(seconds: float) -> None:
    """Let time pass in which this process does nothing."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, _Loop)
    loop._simulated.now += seconds


async def settle() -> None:
    """Let everything happen that does not wait for a timer."""
    await asyncio.sleep(1e-6)


class Line:
    """One connection, seen from the exchange."""

    def __init__(self) -> None:
        self.close_code: int | None = None
        self.opened_at = self._heard_at = asyncio.get_running_loop().time()
        self.is_silent = False  # it answers no ping
        self.pings: list[float] = []  # when the client pinged
        self.frames: list[list[dict[str, Any]]] = []  # sent by the client
        self._read = 0
        self._incoming: asyncio.Queue[str | Exception] = asyncio.Queue()

    # What the client uses

    async def send(self, message: str, /) -> None:
        sent = json.loads(message)
        self.frames.append(sent if isinstance(sent, list) else [sent])

    @property
    def heard_at(self) -> float:
        return self._heard_at

    async def ping(self) -> None:
        self.pings.append(asyncio.get_running_loop().time())
        if not self.is_silent:
            self._heard_at = self.pings[-1]

    async def recv(self) -> str:
        frame = await self._incoming.get()
        if isinstance(frame, Exception):
            raise frame
        return frame

    async def close(self) -> None:
        self.end(1000)

    # What a test uses

    def say(self, *events: dict[str, Any]) -> None:
        """Send events to the client in one frame."""
        self._heard_at = asyncio.get_running_loop().time()
        self._incoming.put_nowait(json.dumps(events))

    def end(self, code: int, reason: str = "") -> None:
        """Close the connection with a code and a reason."""
        if self.close_code is None:
            self.close_code = code
            close = Close(code, reason)
            end = ConnectionClosedError(close, close, True)
            self._incoming.put_nowait(end)

    async def hear(self, *events: dict[str, Any]) -> list[dict[str, Any]]:
        """Send events in one frame, if any; return the new requests."""
        if events:
            self.say(*events)
        await settle()
        requests = [request for frame in self.frames for request in frame]
        new = requests[self._read :]
        self._read = len(requests)
        return new


class Venue:
    """The exchange: `connect` opens a new line to it, unless it is down."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.is_down = False
        self.dead: set[str] = set()  # addresses that refuse
        self.tries = 0
        # The addresses tried, one after the other, and when.
        self.asked: list[str] = []
        self.asked_at: list[float] = []

    async def connect(self, url: str) -> Line:
        self.tries += 1
        self.asked.append(url)
        self.asked_at.append(asyncio.get_running_loop().time())
        if self.is_down or url in self.dead:
            raise OSError("Connect call failed")
        self.lines.append(Line())
        return self.lines[-1]

    @property
    def line(self) -> Line:
        """The newest line."""
        return self.lines[-1]
