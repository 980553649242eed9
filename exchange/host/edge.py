"""An edge: it shows the market of a primary to readers, and takes no orders.

It follows the stream of the primary like a standby that never takes over, so
its readers cost the primary nothing. It asks the servers of NATS to read only.
While it hears nothing of the primary, it says that what it shows may be old: a
server of NATS that is left alone answers, but the market stands still.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from typing import Protocol

from exchange.doors.closed import Connection as ClosedConnection
from exchange.doors.listener import Listener
from exchange.gateway.edge import EdgeGateway
from exchange.host.clock import Clock
from exchange.host.journal_copy import JournalCopy
from exchange.host.metrics import Standing
from exchange.host.standby import AGAIN_S, has_caught_up, open_at
from exchange.host.tasks import end
from exchange.journal.address import Address
from exchange.journal.follower import Follower
from exchange.journal.message import Message, Position
from exchange.journal.servers import Unanswered
from exchange.journal.storage import Batch, Storage
from exchange.journal.stream import Stream

# Without a message for so long, the stream is asked whether there is one. A
# primary sends several in each of its T.
SILENCE_S = 1.0
LEASES = 2  # T of the primary without a message until it counts as silent
# An edge whose machine's clock is further ahead of the primary's sets its
# time back; a network delays a batch by less.
AHEAD_US = 1_000_000
READING = "reading the journal"
LOST = "nothing is heard of the exchange: what is shown may be old"
FOUND = "the exchange is heard again"
SILENT = "no message in the journal's stream"

logger = logging.getLogger("exchange")


class PublicServer(Protocol):
    """What a `Server` does for readers."""

    listener: Listener

    def show(self) -> None:
        """Begin to send heartbeats and what has changed."""

    def step(self, work: Callable[[], object]) -> None:
        """Do some work and write its results."""

    def fail(self, error: Exception) -> None:
        """End the process."""


class Edge:
    """The life of an edge.

    Args:
        address: of the stream.
        server: shows the market.
        gateway: the server's.
        clock: follows the primary's time.
    """

    def __init__(
        self,
        address: Address,
        *,
        server: PublicServer,
        gateway: EdgeGateway,
        clock: Clock,
    ) -> None:
        self._address = address
        self._server = server
        self._gateway = gateway
        self._clock = clock
        self._copy: JournalCopy | None = None
        self._follower: Follower | None = None
        self._is_shown = False  # all that was there has been read
        self._trouble = ""  # why the primary is not heard
        self._silent_at = 0  # elapsed time at which it counts as silent
        self._life: asyncio.Task[None] | None = None
        self._open_protocol = server.listener.protocol
        server.listener.protocol = ClosedConnection

    def __str__(self) -> str:
        return f"journal {self._address}: edge, which takes no orders"

    @property
    def hindrance(self) -> str:
        """Why readers are not shown what is; "": they are."""
        if not self._trouble:
            return "" if self._is_shown else READING
        return f"{LOST if self._is_shown else READING}: {self._trouble}"

    @property
    def standing(self) -> Standing:
        """What the metrics say about this process."""
        pending = None
        if self._follower is not None and not self._trouble:
            pending = self._follower.pending
        return Standing("edge", pending, 0.0)

    @property
    def leads(self) -> bool:
        """Whether there are clients to be served to the end."""
        return self._is_shown

    def keep(self, journal: Storage) -> None:
        """Let a journal, which was recovered, get each batch too."""
        self._copy = JournalCopy(journal)

    def start(self) -> None:
        """Read the journal; then show the market."""
        self._life = asyncio.create_task(self._live())

    async def leave(self) -> bool:
        """Do nothing, since nobody waits for an edge; return True."""
        return True

    async def stop(self) -> None:
        """Follow nothing any more, and hang up."""
        if self._life is not None:
            await end(self._life)
        if self._copy is not None:
            await self._copy.close()

    async def _live(self) -> None:
        gc.disable()  # the engine makes no cycles
        try:
            stream, at = await open_at(
                self._address, None, self._copy, self._note
            )
            await self._follow(stream, at)
        except Exception as error:
            self._server.fail(error)
        finally:
            gc.enable()

    async def _follow(self, stream: Stream, at: Position) -> None:
        """Apply what the primary applies, for ever."""
        copy = self._copy
        follower = self._follower = Follower(
            stream, self._apply, at, keep=copy.keep if copy else None
        )
        try:
            while True:
                try:
                    messages = await follower.read(SILENCE_S)
                    if not messages:
                        await follower.look()
                except Unanswered as error:
                    self._note(str(error))
                    await asyncio.sleep(AGAIN_S)
                    continue
                self._hear(messages)
                if copy is not None:
                    await copy.room()
                has_market = self._gateway.engine.seq > 0
                if has_market and not self._is_shown and not follower.pending:
                    has_caught_up(self._address, follower)
                    self._show()
        finally:
            await stream.close()

    def _show(self) -> None:
        """Take clients: all that was in the journal has been applied."""
        self._is_shown = True
        self._clock.go_on_from(self._gateway.engine.ts)
        self._server.show()
        self._server.listener.protocol = self._open_protocol

    def _apply(self, batch: Batch) -> None:
        if not self._is_shown:
            self._gateway.replay(batch)
            return
        self._gateway.follow(batch)
        behind = self._gateway.engine.ts - self._clock.now()
        if behind > 0 or behind < -AHEAD_US:
            self._clock.forward(behind)
        self._server.step(lambda: None)  # it writes what is queued

    def _hear(self, messages: list[Message]) -> None:
        """Note whether the primary is silent."""
        now = self._clock.elapsed()
        if messages:
            self._silent_at = now + LEASES * messages[-1].lease_us
        self._note("" if now < self._silent_at else SILENT)

    def _note(self, trouble: str) -> None:
        """Tell readers and the log when nothing is heard, and when it is."""
        if bool(trouble) != bool(self._trouble):
            text = LOST if trouble else FOUND
            logger.warning(
                "%s: %s%s", self._address, text, trouble and f" ({trouble})"
            )
            if self._is_shown:
                self._server.step(lambda: self._gateway.announce(text))
        self._trouble = trouble
