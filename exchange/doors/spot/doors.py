"""The dialect of one exchange: its links, its streams, its timers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from exchange.doors.spot.api_link import ApiLink
from exchange.doors.spot.asked import WS_API
from exchange.doors.spot.common import Common
from exchange.doors.spot.http import Connection
from exchange.doors.spot.link import SpotLink
from exchange.doors.spot.rest import RestLink
from exchange.doors.spot.stream_link import StreamLink
from exchange.doors.spot.streams import TICK_S, Hub
from exchange.doors.spot.values import Symbols
from exchange.gateway.gateway import Gateway
from exchange.gateway.link import Link
from exchange.gateway.logins import Keys


class SpotDoors:
    """Makes the links of connections; ``step`` does work and writes.

    ``now`` returns microseconds since the epoch, ``elapsed`` counts real
    ones.
    """

    def __init__(
        self,
        gateway: Gateway,
        symbols: Symbols,
        keys: Keys,
        step: Callable[[Callable[[], object]], None],
        *,
        now: Callable[[], int],
        elapsed: Callable[[], int],
    ) -> None:
        self._gateway = gateway
        self._step = step
        self._common = Common(gateway, symbols, keys, now, elapsed)
        self._hub = Hub(self._common, gateway.feed)
        self._loop = asyncio.get_running_loop()
        self._readers: dict[StreamLink, None] = {}
        self._tick_due: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Know the instruments that only the journal has, too.

        Raises ValuesError if their numbers do not fit.
        """
        listings = self._gateway.engine.listings
        self._common.symbols.add(
            {symbol: one.instrument for symbol, one in listings.items()}
        )

    @property
    def followed(self) -> int:
        """The number of streams that connections follow, each counted."""
        return self._hub.followed

    def serves(self, connection: object) -> bool:
        """Whether a connection speaks the dialect."""
        return isinstance(connection, Connection) and (
            connection.is_http or connection.path != "/"
        )

    def connect(self, connection: Connection) -> Link:
        """Return the link of a new connection."""
        common = self._common
        link: SpotLink
        if connection.is_http:
            link = RestLink(connection, common)
        elif connection.path == WS_API:
            link = ApiLink(connection, common)
        else:
            link = StreamLink(connection, common, self._hub, connection.target)
        self._gateway.add(link)
        if isinstance(link, StreamLink):
            self._readers[link] = None
            # The owner must know the link before anything is written to it.
            self._loop.call_soon(partial(self._open, link))
        return link

    def _open(self, link: StreamLink) -> None:
        if not link.is_gone:
            self._step(link.open)
            self._tick_later()

    def forget(self, link: Link) -> None:
        """Drop a link that is gone from the streams."""
        if isinstance(link, StreamLink):
            self._readers.pop(link, None)
            self._hub.drop(link)

    # Time --------------------------------------------------------------------

    def _tick_later(self) -> None:
        """Look soon what is due, while there are links with streams."""
        if self._tick_due is None:
            self._tick_due = self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._tick_due = None
        self._step(self._hub.tick)
        if self._readers:
            self._tick_later()

    def stop(self) -> None:
        """Let nothing happen by time any more."""
        if self._tick_due is not None:
            self._tick_due.cancel()
