"""One connection of a playback: its place in time, and its messages.

Each viewer has a market of its own, so each goes where it likes. A jump gives
it another `View`: subscriptions and the login end with the old one, and the
reply says so. Time only goes forward between two jumps.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from pydantic_core import to_json

from exchange.doors.tcp import Connection
from exchange.gateway.outbox import FLOODING
from exchange.gateway.pacing import SLOW_BYTES
from orderbook import Error, Refused, decode_requests, encode, with_id

from .asking import PAUSED, Move, is_move, read_move, read_speed
from .recording import Recording
from .view import Rights, View

TICK_S = 0.05  # between two sends while time passes
BUDGET_S = 0.02  # of one tick, for commands; others are served meanwhile
HEARTBEAT_S = 5.0
INBOX_BYTES = 64 * 1024  # from which a connection is not read
# A step or a jump forward by less is played, which is faster than to load.
PLAYED_US = 2_000_000

# Values of a symbol at times, of which the last one that has passed counts.
Fair = Callable[[str, int], Sequence[tuple[int, int]]]


class Viewer:
    """Moves one connection through a recording; `run` is its life.

    It starts at ``ts`` and plays with ``speed``. ``fair`` returns the hidden
    values of a symbol up to a time; None: there are none to tell. ``loading``
    is held while a moment is loaded, so that viewers who jump do it in turns.
    """

    def __init__(
        self,
        recording: Recording,
        connection: Connection,
        rights: Rights,
        *,
        ts: int,
        speed: Decimal,
        fair: Fair | None,
        loading: asyncio.Lock,
        heartbeat_s: float,
    ) -> None:
        self._recording = recording
        self._connection = connection
        self._rights = rights
        self._fair = fair
        self._loading = loading
        self._heartbeat_s = heartbeat_s
        self._speed = speed
        self._start = ts
        self._view: View | None = None  # made by `run`
        self._hears_moves = False  # it has sent a `replay`, so it knows them
        self._inbox: deque[bytes] = deque()
        self._waiting = 0  # bytes in the inbox
        self._woken = asyncio.Event()
        self._is_gone = False
        self._played_at = time.monotonic()  # when `view.ts` was right

    # Called by the connection

    def receive(self, messages: list[bytes]) -> None:
        """Take messages; they are answered in their order."""
        self._inbox.extend(messages)
        self._waiting += sum(map(len, messages))
        if self._waiting > INBOX_BYTES:
            self._connection.pause_reading()
        self._woken.set()

    def drained(self) -> None:
        """Go on: the client has taken what was written."""
        self._woken.set()

    def leave(self) -> None:
        """Note that the connection has ended."""
        self._is_gone = True
        self._woken.set()

    # Life

    async def run(self) -> None:
        """Answer messages and let time pass, until the connection ends."""
        await self._enter(self._start)
        beat_at = time.monotonic() + self._heartbeat_s
        try:
            while not self._is_gone:
                if not self._inbox:
                    await self._wait(beat_at)
                while self._inbox and not self._is_gone:
                    message = self._inbox.popleft()
                    self._waiting -= len(message)
                    await self._answer(message)
                    await self._yield()
                if self._connection.is_paused:
                    self._connection.resume_reading()
                self._play()
                if time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + self._heartbeat_s
                    self.view.heartbeat(f"{self._speed:f}")
                self._write()
                await asyncio.sleep(0)
        finally:
            if self._view is not None:
                self._view.close()

    @property
    def view(self) -> View:
        """What it sees; there is one as soon as `run` has begun."""
        assert self._view is not None
        return self._view

    async def _wait(self, beat_at: float) -> None:
        """Wait for a message, or until something is due."""
        timeout = beat_at - time.monotonic()
        if self._speed:
            timeout = min(timeout, TICK_S)
        self._woken.clear()
        try:
            async with asyncio.timeout(max(0.0, timeout)):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _yield(self) -> None:
        """Write, serve others, and wait until the client has taken it."""
        self._write()
        await asyncio.sleep(0)
        while not self._is_gone and self._connection.buffered > SLOW_BYTES:
            self._woken.clear()
            await self._woken.wait()

    async def _enter(self, ts: int) -> None:
        """Go to another moment, with nothing subscribed."""
        recording = self._recording
        ts = recording.clamp(ts)
        async with self._loading:
            if self._is_gone:
                return
            moment = await asyncio.to_thread(recording.at, ts)
        if self._view is not None:
            self._view.close()
        self._view = View(
            recording, moment, ts, self._connection, self._rights
        )
        self._played_at = time.monotonic()

    def _play(self) -> None:
        """Let the time pass that has passed here, times the speed.

        A viewer that cannot keep up gets it later: nothing is left out.
        """
        now = time.monotonic()
        passed_s, self._played_at = now - self._played_at, now
        connection = self._connection
        if not self._speed or connection.buffered > SLOW_BYTES:
            return
        view, end = self.view, self._recording.end_ts
        before = view.ts
        target = before + int(passed_s * 1_000_000 * float(self._speed))
        view.advance(min(target, end), BUDGET_S)
        if view.ts >= end:
            self._speed = PAUSED
        if self._hears_moves:
            view.send(self._told({"type": "replay", **self._place()}))

    # Messages

    async def _answer(self, message: bytes) -> None:
        if not is_move(message):
            for request in decode_requests(message):
                self.view.handle(request)
                await self._yield()
            return
        move = read_move(message)
        if isinstance(move, Error):
            self.view.send(encode(move))
            return
        self._hears_moves = True
        try:
            reply = await self._move(move)
        except Refused as refusal:
            self.view.send(with_id(encode(refusal.as_error()), move.id))
            return
        number = {} if move.id is None else {"id": move.id}
        self.view.send(
            self._told({"type": "ok", **number, **self._place(), **reply})
        )

    async def _move(self, move: Move) -> dict[str, Any]:
        """Do what a request says; return what its reply has besides."""
        try:
            speed = None if move.speed is None else read_speed(move.speed)
        except ValueError as error:
            raise Refused("bad_request", str(error), field="speed") from None
        if move.what is not None:
            return {"data": self._tell(move)}
        self._play()  # up to this request at the old speed
        if speed is not None:
            self._speed = speed
        if move.step is not None:
            return await self._step(move)
        if move.ts is None:
            return {}
        return {"jumped": await self._go(move.ts)}

    async def _step(self, move: Move) -> dict[str, Any]:
        """Go to the next trade, event or fill, and pause there."""
        assert move.step is not None
        self._speed = PAUSED
        recording, name = self._recording, self._name(move)
        target = recording.step(
            self.view.ts, move.step, name=name, is_back=move.back
        )
        reply: dict[str, Any] = {}
        if move.step == "fill":
            symbol = recording.fill_symbol(name or "", target)
            reply = {} if symbol is None else {"symbol": symbol}
        return {"jumped": await self._go(target), **reply}

    def _name(self, move: Move) -> str | None:
        """Return whose fills, or which trades, a step is about."""
        if move.step != "fill":
            return move.symbol
        own = self.view.link.account
        name = move.account or own
        if not name:
            raise Refused("unauthorized", "sign in first", field="account")
        if name != own and not self.view.is_omniscient:
            raise Refused(
                "forbidden",
                "only your own fills are told",
                field="account",
            )
        return name

    async def _go(self, ts: int) -> bool:
        """Go to a time; return whether the connection begins again."""
        view, ts = self.view, self._recording.clamp(ts)
        if view.ts <= ts <= view.ts + PLAYED_US:
            while not view.advance(ts, BUDGET_S):
                await asyncio.sleep(0)
            self._played_at = time.monotonic()
            return False
        await self._enter(ts)
        return True

    def _tell(self, move: Move) -> Any:
        view = self.view
        if move.what == "match":
            return view.match()
        if move.what == "accounts":
            own = [view.link.account] if view.link.account else []
            return self._recording.accounts if view.is_omniscient else own
        if move.what == "fair":
            if self._fair is None:
                raise Refused("forbidden", "the hidden values are not told")
            return self._fair(move.symbol or "", view.ts)
        if not view.is_omniscient:
            raise Refused("forbidden", "who traded is not told")
        return view.names(move.symbol)

    def _place(self) -> dict[str, Any]:
        return {"ts": self.view.ts, "speed": f"{self._speed.normalize():f}"}

    @staticmethod
    def _told(message: dict[str, Any]) -> str:
        return to_json(message).decode()

    def _write(self) -> None:
        """Write what is to be sent."""
        batch = self.view.take()
        if batch is None:
            return
        connection = self._connection
        for frames, _ in batch.broadcasts:
            connection.write(frames)
        for link, frames in batch.frames:
            link.sealed_bytes -= len(frames)
            connection.write(frames)
        for _, code, reason in batch.closings:
            if code == FLOODING:
                connection.fail(code, reason)
            else:
                connection.close(code, reason)
