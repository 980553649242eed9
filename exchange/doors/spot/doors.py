"""The dialect of one exchange: its links, its streams, its timers."""

from __future__ import annotations

from collections.abc import Callable

from exchange.doors.spot.common import Common
from exchange.doors.spot.http import Connection
from exchange.doors.spot.rest import RestLink
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

    def serves(self, connection: object) -> bool:
        """Whether a connection speaks the dialect."""
        return isinstance(connection, Connection) and (
            connection.is_http or connection.path != "/"
        )

    def connect(self, connection: Connection) -> Link:
        """Return the link of a new connection."""
        link = RestLink(connection, connection.remote, self._common)
        self._gateway.add(link)
        return link

    def stop(self) -> None:
        """Let nothing happen by time any more."""
