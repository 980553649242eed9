"""The challenge doors of one exchange: their ports, bots and timers.

Bots of both doors are links of the gateway. What they share is here: market
data, encoded once for all who speak one language; the buckets of accounts; and
what happens by time: books that were held back, the sign of life that a bot
gets if nothing happens, the end of a round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from pydantic_core import from_json

from exchange.doors.challenge.json_lines import Json
from exchange.doors.challenge.lines import GOING_AWAY, LINE_MAX, Connection
from exchange.doors.challenge.messages import (
    IDLE,
    TOO_LONG,
    Dialect,
    Hello,
    Language,
    Malformed,
)
from exchange.doors.challenge.session import ChallengeLink
from exchange.doors.challenge.text_lines import Text
from exchange.doors.listener import Listener
from exchange.doors.names import Proxies
from exchange.gateway.gateway import Gateway
from exchange.gateway.link import Deferred, Link
from exchange.gateway.outbox import Batch
from exchange.gateway.rates import CANCELS_RATE, Bucket, Rate

# From one look for bots that got nothing to the next, as a part of the time
# after which they get something.
LOOKS_PER_IDLE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The settings of the doors; a port 0 stays shut."""

    json_port: int = 0
    line_port: int = 0
    dialect: Dialect = "2017"
    levels: int = 15
    book_s: float = 0.02
    idle_s: float = 1.0
    messages_per_s: int = 500
    linger_s: float = 1.0
    # Addresses from which an account may enter without its key.
    teams: Mapping[str, Proxies] = field(default_factory=dict)


class Audience:
    """What all bots with one language share; their links' door."""

    def __init__(self, doors: ChallengeDoors, language: Language) -> None:
        self.language = language
        self.engine = doors.gateway.engine
        self.is_one_market = doors.terms.dialect == "2015"
        self._doors = doors
        self._levels = doors.terms.levels
        # The lines of books, with the ``seq`` at which they were made.
        self._books: dict[str, tuple[int, bytes]] = {}

    def decode(self, message: bytes) -> Sequence[Deferred]:
        """Return what a line says."""
        if len(message) > LINE_MAX:
            return [Deferred(Malformed(TOO_LONG, is_last=True))]
        said = self.language.read(message)
        return [Deferred(said, isinstance(said, Hello))]

    def encode(self, texts: list[str]) -> bytes:
        """Return public texts as lines; books come a moment later."""
        lines: list[bytes] = []
        for text in texts:
            if text.startswith('{"type":"trade"'):
                trade = from_json(text)
                lines.append(
                    self.language.trade(
                        trade["symbol"], trade["price"], trade["qty"]
                    )
                )
            elif text.startswith('{"type":"book"'):
                self._doors.changed(from_json(text)["symbol"])
        return b"".join(lines)

    def book(self, symbol: str) -> bytes:
        """Return the line of a whole book as it is now."""
        listing = self.engine.listings[symbol]
        seq, line = self._books.get(symbol, (-1, b""))
        if seq != listing.seq:
            book, levels = listing.book, self._levels
            line = self.language.book(
                symbol, book.depth("buy", levels), book.depth("sell", levels)
            )
            self._books[symbol] = listing.seq, line
        return line

    def now_s(self) -> float:
        """Return the time of the loop."""
        return self._doors.now_s()

    def buckets_of(self, account: str) -> tuple[Bucket, Bucket]:
        """Return the buckets of an account's messages and cancels."""
        return self._doors.buckets_of(account)

    def vouches_for(self, account: str, address: str) -> bool:
        """Whether this address may use an account without its key."""
        networks = self._doors.terms.teams.get(account)
        return networks is not None and networks.include(address)

    def changed(self, symbol: str) -> None:
        """Note that a book may have changed."""
        self._doors.changed(symbol)

    def refused(self) -> None:
        """Count a line that became no request."""
        self._doors.gateway.routing.refusals["bad_request"] += 1

    def closed(self) -> None:
        """Note that trading ended."""
        self._doors.closed_s = self.now_s()

    def end(self, link: ChallengeLink) -> None:
        """Hang up because a round is over."""
        link.line.linger_s = self._doors.linger_left_s
        self._doors.gateway.outbox.close(link, GOING_AWAY, "the round is over")

    def cut(self, link: ChallengeLink, code: int, reason: str) -> None:
        """Hang up on a bot after what was sent to it."""
        self._doors.gateway.outbox.cut(link, code, reason)


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
        self.terms = terms
        self.gateway = gateway
        self.links: dict[ChallengeLink, None] = {}
        self.closed_s = float("-inf")  # when trading last ended
        self._step = step
        self._loop = asyncio.get_running_loop()
        self._audiences: dict[bool, Audience] = {
            True: Audience(self, Json(terms.dialect)),
            False: Audience(self, Text(terms.dialect)),
        }
        self._buckets: dict[str, tuple[Bucket, Bucket]] = {}
        self._changed: dict[str, None] = {}  # books, since the last flush
        self._flushed_s = float("-inf")
        self._flush_due: asyncio.TimerHandle | None = None
        self._look_due: asyncio.TimerHandle | None = None

    @property
    def greeting(self) -> str:
        """Return what the exchange says of them when it starts."""
        ports = (
            ("JSON", self.terms.json_port),
            ("text", self.terms.line_port),
        )
        return ", ".join(f"{word} lines on {n}" for word, n in ports if n)

    async def bind(self, listener: Listener, hostname: str) -> None:
        """Bind the ports; raises OSError."""
        for is_json, port in (
            (True, self.terms.json_port),
            (False, self.terms.line_port),
        ):
            if port:
                make = partial(Connection, is_json=is_json)
                await listener.bind_other(hostname, port, make)

    def stop(self) -> None:
        """Tell all bots that trading ends; nothing happens by time now."""
        for timer in (self._flush_due, self._look_due):
            if timer is not None:
                timer.cancel()
        for link in self.links:
            link.close_all()
            link.line.linger_s = self.terms.linger_s

    # Bots --------------------------------------------------------------------

    def connect(self, connection: Connection) -> Link:
        """Return the link of a new bot."""
        link = ChallengeLink(
            connection,
            self._audiences[connection.is_json],
            self.gateway.outbox.links,
        )
        self.gateway.add(link)
        self.links[link] = None
        if self._look_due is None:
            self._look_later()
        return link

    def buckets_of(self, account: str) -> tuple[Bucket, Bucket]:
        """Return the buckets of an account's messages and cancels.

        "": new ones, for a bot that has not said hello.
        """
        buckets = self._buckets.get(account)
        if buckets is None:
            per_s, now = self.terms.messages_per_s, int(self.now_s() * 1e6)
            rate = Rate(per_s, per_s)
            buckets = (
                Bucket(rate, now),
                Bucket(rate.times(CANCELS_RATE), now),
            )
            if account:
                self._buckets[account] = buckets
        return buckets

    # Time --------------------------------------------------------------------

    def now_s(self) -> float:
        """Return the time of the loop."""
        return self._loop.time()

    @property
    def linger_left_s(self) -> float:
        """Return how long bots are still connected after trading ended."""
        return max(0.0, self.closed_s + self.terms.linger_s - self.now_s())

    def changed(self, symbol: str) -> None:
        """Send a book soon, at most once in ``book_s``."""
        self._changed[symbol] = None
        if self._flush_due is None:
            wait_s = self._flushed_s + self.terms.book_s - self.now_s()
            self._flush_due = self._loop.call_later(
                max(0, wait_s), self._flush
            )

    def _flush(self) -> None:
        self._flush_due = None
        self._step(self._send_books)

    def _send_books(self) -> None:
        """Send the books that changed, each bot those that are due."""
        now_s, pause_s = self.now_s(), self.terms.book_s
        self._flushed_s = now_s
        changed, self._changed = [*self._changed], {}
        some_wait = False
        for link in self.links:
            link.owe(changed)
            some_wait |= link.send_books(now_s, pause_s)
        if some_wait and self._flush_due is None:
            self._flush_due = self._loop.call_later(pause_s, self._flush)

    def _look_later(self) -> None:
        self._look_due = self._loop.call_later(
            self.terms.idle_s / LOOKS_PER_IDLE, self._look
        )

    def _look(self) -> None:
        """Find the bots that got nothing for ``idle_s``."""
        self._look_due = None
        self._drop_links()
        if not self.links:
            return
        self._look_later()
        latest_s = self.now_s() - self.terms.idle_s
        idle = [
            link
            for link in self.links
            if link.line.is_known
            and link.line.wrote_at <= latest_s
            and not link.line.buffered
        ]
        if idle:
            self._step(partial(self._send_something, idle))

    def _drop_links(self) -> None:
        """Forget the bots that have gone."""
        for link in [link for link in self.links if link.is_gone]:
            del self.links[link]

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
            self.gateway.gate.pass_by(batch)
