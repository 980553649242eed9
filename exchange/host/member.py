"""One of several processes that share a journal on a stream.

It stands by until it is the primary. As the primary it may tell anybody
anything only while its lease holds; if it has none for long, it sends its
clients away. Another process that writes the journal ends it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Iterable
from decimal import Decimal
from typing import Protocol

from exchange.doors.closed import Connection as ClosedConnection
from exchange.doors.tcp import Connection
from exchange.gateway.gateway import Gateway
from exchange.host.clock import Clock
from exchange.host.committer import Commit
from exchange.host.edge import PublicServer
from exchange.host.journal_copy import JournalCopy
from exchange.host.metrics import Standing, Timing
from exchange.host.standby import Standby
from exchange.host.stream_committer import StreamCommitter
from exchange.host.tasks import end
from exchange.journal.address import Address
from exchange.journal.lease import NEVER
from exchange.journal.message import Writer
from exchange.journal.storage import Storage

WATCH_S = 0.05  # from one look at the lease to the next
AWAY = 1013  # the close code "try again later", here: elsewhere
AWAY_TEXT = "no lease: another server may lead"
STANDING_BY = "standing by"
NO_LEASE = "no lease: the journal's stream does not answer"

logger = logging.getLogger("exchange")


class Primary(PublicServer, Protocol):
    """What a `Server` does when it leads."""

    gateway: Gateway

    @property
    def clients(self) -> Iterable[Connection]:
        """The connections of clients."""

    def committed(self, commit: asyncio.Future[Commit]) -> None:
        """Release what a commit made durable; fail if the commit did."""

    async def lead(self, committer: StreamCommitter) -> None:
        """Open the market and take requests."""


class Member:
    """The life of a process that shares its journal.

    Args:
        address: of the stream.
        lease: T in seconds.
        server: leads.
        clock: gives elapsed time, and goes on from the market's last.
        timing: counts sizes and durations.
    """

    def __init__(
        self,
        address: Address,
        *,
        lease: Decimal,
        server: Primary,
        clock: Clock,
        timing: Timing,
    ) -> None:
        self._address = address
        self._lease_us = int(lease * 1_000_000)
        self._copy: JournalCopy | None = None
        self._server = server
        self._clock = clock
        self._timing = timing
        self._standby: Standby | None = None
        self._committer: StreamCommitter | None = None
        self._open_protocol = server.listener.protocol
        self._is_open = False  # for clients
        self._is_away = False  # clients were sent away
        self._life: asyncio.Task[None] | None = None
        server.gateway.gate.may_open = self._holds
        server.listener.protocol = ClosedConnection

    def __str__(self) -> str:
        return f"journal {self._address}: {self.standing.role}"

    @property
    def hindrance(self) -> str:
        """Why no request is carried out; "": they are."""
        if not self._is_open:
            trouble = self._standby.trouble if self._standby else ""
            return f"{STANDING_BY}: {trouble}" if trouble else STANDING_BY
        return "" if self._holds() and not self._is_away else NO_LEASE

    @property
    def standing(self) -> Standing:
        """What the metrics say about this process."""
        if self._committer is not None:
            left_us = self._committer.lease.until - self._clock.elapsed()
            return Standing("primary", None, max(0.0, left_us / 1e6))
        pending = None if self._standby is None else self._standby.pending
        return Standing("standby", pending, 0.0)

    def keep(self, journal: Storage) -> None:
        """Let a journal, which was recovered, get each batch too."""
        self._copy = JournalCopy(journal)

    def start(self) -> None:
        """Stand by."""
        self._life = asyncio.create_task(self._live())

    @property
    def leads(self) -> bool:
        """Whether this is, or was, the primary."""
        return self._committer is not None

    async def leave(self) -> bool:
        """Store what is queued, and say that this process leads no more.

        Return whether that is stored: if not, another one may lead.
        """
        return self._committer is not None and await self._committer.bye()

    async def stop(self) -> None:
        """Follow nothing any more, and hang up."""
        if self._life is not None:
            await end(self._life)
        if self._committer is not None:
            await self._committer.hang_up()
        if self._copy is not None:
            await self._copy.close()

    def _holds(self) -> bool:
        committer = self._committer
        return committer is not None and committer.lease.holds(
            self._clock.elapsed()
        )

    async def _live(self) -> None:
        try:
            await self._stand_by()
            await self._watch()
        except Exception as error:
            self._server.fail(error)

    async def _stand_by(self) -> None:
        """Follow the primary; become the primary when there is none."""
        server, clock = self._server, self._clock
        host = socket.gethostname().encode("ascii", "replace").decode()
        writer = Writer(f"{host}-{secrets.token_hex(4)}", self._lease_us)
        self._standby = Standby(
            self._address,
            writer,
            server.gateway.replay,
            copy=self._copy,
            elapsed=clock.elapsed,
            new_id=lambda: secrets.token_hex(4),
        )
        lead = await self._standby.take_over()
        logger.warning("%s: leads as %s", self._address, writer.node)
        server.gateway.commit(lead.appender.at.seq)
        clock.go_on_from(server.gateway.engine.ts)
        self._committer = StreamCommitter(
            lead.stream,
            lead.appender,
            writer,
            timing=self._timing,
            elapsed=clock.elapsed,
            ended=server.committed,
            copy=self._copy,
        )
        await server.lead(self._committer)
        self._is_open = True
        server.listener.protocol = self._open_protocol

    async def _watch(self) -> None:
        """Send clients away after a while without a lease."""
        assert self._committer is not None
        lease, listener = self._committer.lease, self._server.listener
        while True:
            now = self._clock.elapsed()
            if lease.holds(now):
                self._is_away = False
                listener.protocol = self._open_protocol
            elif now >= lease.close_at and lease.until != NEVER:
                if not self._is_away:
                    logger.warning("%s: %s", self._address, NO_LEASE)
                self._is_away = True
                listener.protocol = ClosedConnection
                for connection in [*self._server.clients]:
                    connection.close(AWAY, AWAY_TEXT)
            await asyncio.sleep(WATCH_S)
