"""The load client: a connection that sends at a pace, and reads.

Its ``Client`` makes the requests and reads the replies: a ``Trader`` checks
every reply, the ``Counter`` of ``bench`` only counts them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import select
import selectors
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Protocol

from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import CONT, TEXT, CloseCode, Frame
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from client import MAX_FRAME_BYTES
from util.measure.process import Trouble
from util.measure.trader import Violation
from util.measure.wire import framed

# At DEBUG the library prints every frame, and frames hold tokens.
_QUIET = logging.getLogger(f"{__name__}.websocket")
_QUIET.setLevel(logging.WARNING)


class Gone(Trouble):
    """The exchange went away while it was loaded."""

    status = 1


class Client(Protocol):
    """What a ``Link`` needs from its user. Times are the loop's."""

    is_ready: bool  # logged in: requests may be sent
    hold_until: float  # no request may be sent before
    measured_from: float  # replies before that are not measured

    @property
    def is_raw(self) -> bool:
        """Whether ``read`` takes raw bytes, frame heads included."""

    @property
    def unanswered(self) -> Sized:
        """The requests without a reply."""

    def login(self) -> str:
        """Return the request to begin with."""

    def request(self, due: float) -> str:
        """Return the next request, which is due at that time."""

    def read(self, data: bytes, now: float) -> None:
        """Take a message, or bytes; raises Trouble."""


class FineSelector(selectors.DefaultSelector):
    """Waits exactly as long as asked; epoll rounds up to milliseconds."""

    def select(
        self, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the files that are ready, after ``timeout`` s at most."""
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


def fine_loop() -> asyncio.AbstractEventLoop:
    """Return a loop whose timers are as exact as those of the kernel."""
    return asyncio.SelectorEventLoop(FineSelector())


# The connection -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a client sends.

    At most ``window`` requests are in flight, ``frame`` in each frame. A
    frame is due every ``interval_s`` seconds, however late replies are; with
    None, as soon as the window has room.
    """

    window: int
    frame: int
    interval_s: float | None = None


class Link(asyncio.Protocol):
    """The connection of a client, made by ``open``.

    Calls ``failed`` with the trouble that ended it after the login. Times
    are the loop's.
    """

    def __init__(
        self,
        url: str,
        trader: Client,
        pace: Pace,
        failed: Callable[[Trouble], None],
    ) -> None:
        self.trader = trader
        self._url = parse_uri(url)
        self._pace = pace
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._is_up: asyncio.Future[None] = self._loop.create_future()
        self._is_over: asyncio.Future[None] = self._loop.create_future()
        self._is_lost: asyncio.Future[None] = self._loop.create_future()
        self._protocol = ClientProtocol(
            self._url, max_size=MAX_FRAME_BYTES, logger=_QUIET
        )
        self._parts: list[bytes] = []  # of an incomplete message
        self._trouble: Trouble | None = None
        self._is_closing = False
        self._due = self._end = math.inf  # of the next frame, of the last
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Connect and log in; raises Trouble or OSError."""
        url = self._url
        await self._loop.create_connection(
            lambda: self, url.host, url.port, ssl=url.secure or None
        )
        await self._is_up

    def begin(self, start: float, end: float, measured_from: float) -> None:
        """Send requests between these times."""
        self.trader.measured_from = measured_from
        self._due, self._end = start, end
        self._wait_until(start)

    @property
    def overdue(self) -> int:
        """Requests that were due and could not be sent; after the end."""
        interval_s = self._pace.interval_s
        if interval_s is None or self._due >= self._end:
            return 0
        frames = int((self._end - self._due) / interval_s)
        return frames * self._pace.frame

    async def finish(self) -> None:
        """Send nothing more; wait for all replies, or a lost connection."""
        self._end = min(self._end, self._loop.time())
        if self._timer is not None:
            self._timer.cancel()
        self._check_end()
        await self._is_over

    async def close(self) -> None:
        """Close, and wait until the exchange has closed, too."""
        self._is_closing = True
        if self._protocol.state is OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._flush()
        await self._is_lost

    def abort(self) -> None:
        """Close at once, without a handshake."""
        self._is_closing = True
        self._transport.abort()

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._protocol.send_request(self._protocol.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Read what came, and send what the window has room for."""
        now = self._loop.time()
        if self.trader.is_raw and self._protocol.state is OPEN:
            self._read(data, now)
        else:
            self._receive(data, now)
        if self._trouble is None:
            self._send(self._loop.time())
            self._check_end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Report why, unless this side has closed."""
        self._protocol.receive_eof()
        self._is_lost.set_result(None)
        if not self._is_closing:
            self._fail(self._reason())
        self._check_end()

    # Receiving

    def _receive(self, data: bytes, now: float) -> None:
        self._protocol.receive_data(data)
        try:
            for event in self._protocol.events_received():
                if isinstance(event, Frame):
                    self._take(event, now)
                elif self._protocol.handshake_exc is None:
                    login = self.trader.login()
                    self._transport.write(framed(login.encode()))
        except Trouble as trouble:
            self._fail(trouble)
        self._flush()

    def _take(self, frame: Frame, now: float) -> None:
        if frame.opcode not in (TEXT, CONT):
            return
        self._parts.append(bytes(frame.data))
        if not frame.fin:
            return
        message = b"".join(self._parts)
        self._parts.clear()
        self._read(message, now)

    def _read(self, data: bytes, now: float) -> None:
        self.trader.read(data, now)
        if self.trader.is_ready and not self._is_up.done():
            self._is_up.set_result(None)

    def _reason(self) -> Trouble:
        protocol = self._protocol
        if protocol.handshake_exc is not None:
            return Trouble(f"no websocket: {protocol.handshake_exc}")
        if isinstance(protocol.parser_exc, (ProtocolError, PayloadTooBig)):
            return Violation(f"{self.trader}: {protocol.parser_exc}")
        kind = Gone if self._is_up.done() else Trouble
        why = protocol.close_exc
        return kind(f"{self.trader}: the exchange hung up: {why}")

    def _fail(self, trouble: Trouble) -> None:
        if self._trouble is not None:
            return
        self._trouble = trouble
        self._transport.abort()
        if self._is_up.done():
            self._failed(trouble)
        else:
            self._is_up.set_exception(trouble)

    # Sending

    def _send(self, now: float) -> None:
        """Send the frames that are due and have room."""
        trader, pace = self.trader, self._pace
        if now >= self._end or self._due == math.inf:
            return
        if self._protocol.close_rcvd is not None:
            return
        frames: list[bytes] = []
        while len(trader.unanswered) + pace.frame <= pace.window:
            if now < trader.hold_until:
                self._wait_until(trader.hold_until)
                break
            due = now
            if pace.interval_s is not None:
                if self._due > now:
                    self._wait_until(self._due)
                    break
                due = self._due
                self._due += pace.interval_s
            frames.append(self._frame(due))
        if frames:
            self._transport.write(b"".join(frames))

    def _frame(self, due: float) -> bytes:
        request = self.trader.request
        if self._pace.frame == 1:
            return framed(request(due).encode())
        requests = [request(due) for _ in range(self._pace.frame)]
        return framed(f"[{','.join(requests)}]".encode())

    def _wait_until(self, when: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_at(when, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._send(self._loop.time())

    def _check_end(self) -> None:
        """Report the end once nothing more can come."""
        is_done = self._loop.time() >= self._end
        if (is_done and not self.trader.unanswered) or self._is_lost.done():
            if not self._is_over.done():
                self._is_over.set_result(None)

    def _flush(self) -> None:
        data = b"".join(self._protocol.data_to_send())
        if data and not self._transport.is_closing():
            self._transport.write(data)
