"""The challenge doors of one exchange: their ports, bots and timers.

Bots of both doors are links of the gateway. What they share is here: market
data, encoded once for all who speak one language; the buckets of accounts; and
what happens by time: books that were held back, the sign of life that a bot
gets if nothing happens, the end of a round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from exchange.doors.challenge.audience import Audience
from exchange.doors.challenge.common import Common, Terms
from exchange.doors.challenge.json_lines import Json
from exchange.doors.challenge.lines import Connection
from exchange.doors.challenge.messages import IDLE
from exchange.doors.challenge.session import ChallengeLink
from exchange.doors.challenge.text_lines import Text
from exchange.doors.listener import Listener
from exchange.gateway.gateway import Gateway
from exchange.gateway.link import Link
from exchange.gateway.outbox import Batch

# From one look for bots that got nothing to the next, as a part of the time
# after which they get something.
LOOKS_PER_IDLE = 10


class ChallengeDoors:
    """The doors of one exchange.

    ``step`` does some work and writes its results.
    """

    def __init__(
        self,
        terms: Terms,
        gateway: Gateway,
        step: Callable[[Callable[[], object]], None],
    ) -> None:
        self._terms = terms
        self._gateway = gateway
        self._step = step
        self._loop = asyncio.get_running_loop()
        self._links: dict[ChallengeLink, None] = {}
        self._common = Common(
            terms, gateway, self._loop.time, self._books_changed
        )
        self._audiences = {  # by whether it speaks JSON
            True: Audience(self._common, Json(terms.dialect)),
            False: Audience(self._common, Text(terms.dialect)),
        }
        self._is_stopped = False
        self._flushed_s = float("-inf")
        self._flush_due: asyncio.TimerHandle | None = None
        self._look_due: asyncio.TimerHandle | None = None

    @property
    def greeting(self) -> str:
        """Return the end of the line that the exchange prints at its start."""
        ports = (
            ("JSON", self._terms.json_port),
            ("text", self._terms.line_port),
        )
        return "".join(f" | {word} lines on {n}" for word, n in ports if n)

    async def bind(self, listener: Listener, hostname: str) -> None:
        """Bind the ports; raises OSError."""
        for is_json, port in (
            (True, self._terms.json_port),
            (False, self._terms.line_port),
        ):
            if port:
                make = partial(Connection, is_json=is_json)
                await listener.bind_other(hostname, port, make)

    def stop(self) -> None:
        """Tell all bots that trading ends; nothing happens by time now."""
        self._is_stopped = True
        for timer in (self._flush_due, self._look_due):
            if timer is not None:
                timer.cancel()
        for link in self._links:
            link.close_all()
            link.line.linger_s = self._common.linger_left_s

    # Bots --------------------------------------------------------------------

    def connect(self, connection: Connection) -> Link:
        """Return the link of a new bot."""
        audience = self._audiences[connection.is_json]
        link = ChallengeLink(connection, self._common, audience)
        self._gateway.add(link)
        self._links[link] = None
        if self._look_due is None:
            self._look_later()
        return link

    # Time --------------------------------------------------------------------

    def _books_changed(self) -> None:
        """Send books soon, at most once in ``book_s``."""
        if self._flush_due is None and not self._is_stopped:
            wait_s = self._flushed_s + self._terms.book_s - self._loop.time()
            self._flush_due = self._loop.call_later(
                max(0, wait_s), self._flush
            )

    def _flush(self) -> None:
        self._flush_due = None
        self._step(self._send_books)

    def _send_books(self) -> None:
        """Send the books that changed, each bot those that are due."""
        self._drop_links()
        self._flushed_s = self._loop.time()
        changed = [*self._common.changed]
        self._common.changed.clear()
        # All of them, so no generator.
        if any([link.send_books(changed) for link in self._links]):
            self._books_changed()

    def _look_later(self) -> None:
        self._look_due = self._loop.call_later(
            self._terms.idle_s / LOOKS_PER_IDLE, self._look
        )

    def _look(self) -> None:
        """Find the bots that got nothing for ``idle_s``."""
        self._look_due = None
        self._drop_links()
        if not self._links:
            return
        self._look_later()
        latest_s = self._loop.time() - self._terms.idle_s
        idle = [
            link
            for link in self._links
            if link.line.wrote_at is not None
            and link.line.wrote_at <= latest_s
            and not link.line.buffered
        ]
        if idle:
            self._step(partial(self._send_something, idle))

    def _drop_links(self) -> None:
        """Forget the bots that have gone."""
        for link in [link for link in self._links if link.is_gone]:
            del self._links[link]

    def _send_something(self, idle: Sequence[ChallengeLink]) -> None:
        """Send each bot a line; past the gate if the disk holds up others."""
        frames: list[tuple[Link, bytes]] = []
        for link in idle:
            link.release_outs()
            if link.sealed_bytes:
                line = self._audiences[link.line.is_json].language.error(IDLE)
                link.sealed_bytes += len(line)
                frames.append((link, line))
            else:
                link.send_something()
        if frames:
            batch = Batch([], frames, [], [], turns=(), report="")
            self._gateway.gate.pass_by(batch)
