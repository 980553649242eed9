"""Writes batches to connections: one write for each socket and batch.

Public data are written after all private data, to a bounded number of links
between two polls of the sockets. A link with other data to send gets its
pending public data first.
"""

from __future__ import annotations

import asyncio

from exchange.gateway.link import Link
from exchange.gateway.outbox import FLOODING, Batch
from exchange.gateway.pacing import Pacing, is_stuck
from exchange.host.clock import Clock
from exchange.host.metrics import Timing
from exchange.journal.gate import Gate

CLOSED_S = 0.01  # from one look at a closed gate to the next


class Writer:
    """Writes batches to connections, paced by a `Pacing`."""

    def __init__(
        self,
        pacing: Pacing[Link],
        clock: Clock,
        timing: Timing,
        gate: Gate[Batch],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pacing = pacing
        self._clock = clock
        self._timing = timing
        self._gate = gate
        self._flush_due: asyncio.TimerHandle | None = None

    def write(self, batch: Batch) -> None:
        """Write one batch."""
        pacing = self._pacing
        for frames, readers in batch.broadcasts:
            pacing.enqueue(frames, readers)
        for link, frames in batch.frames:
            if link.is_gone:
                continue
            if pacing.pending:
                self.flush_to(link)
            link.sealed_bytes -= len(frames)
            link.peer.write(frames)
            if is_stuck(link):
                link.peer.close(4008, "slow reader")
            if link.peer.is_paused and not link.is_full:
                link.peer.resume_reading()
        if pacing.pending and self._flush_due is None:
            self.flush()
        now = self._clock.elapsed()
        for requests, arrival in batch.turns:
            if requests:
                waited_us = now - arrival
                self._timing.ack_s.observe(waited_us / 1e6, requests)
        for answer in batch.answers:
            answer()
        for link, code, reason in batch.closings:
            if link.is_gone:
                continue
            self.flush_to(link)
            if code == FLOODING:
                link.peer.fail(code, reason)
            else:
                link.peer.close(code, reason)
        if batch.report:
            print(f"{batch.report}\n", end="")

    def flush(self) -> None:
        """Write public data to some of the links they are pending for."""
        self._flush_due = None
        pacing = self._pacing
        if not self._gate.may_open():  # they are of the time before
            self._flush_due = self._loop.call_later(CLOSED_S, self.flush)
            return
        for link, frames in pacing.take():
            if not link.is_gone:
                link.peer.write(frames)
        if pacing.pending:
            self._flush_due = self._loop.call_later(0, self.flush)

    def flush_to(self, link: Link) -> None:
        """Write the public data that are pending for a link."""
        frames = self._pacing.take_for(link)
        if frames:
            link.peer.write(frames)

    def stop(self) -> None:
        """Write no more public data."""
        if self._flush_due is not None:
            self._flush_due.cancel()
