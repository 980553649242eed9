"""What all bots of the challenge doors share: settings, limits, the market.

`Common` reads the engine. It changes nothing but buckets, figures and notes
for `ChallengeDoors`, which does what happens by time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from exchange.doors.challenge.lines import GOING_AWAY, Connection
from exchange.doors.challenge.messages import Dialect
from exchange.doors.names import Proxies
from exchange.gateway.gateway import Gateway
from exchange.gateway.link import Link
from exchange.gateway.rates import CANCELS_RATE, Bucket, Rate
from orderbook import Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The settings of the doors; a port 0 stays shut."""

    json_port: int = 0
    line_port: int = 0
    dialect: Dialect = "2017"
    levels: int = 15  # of each side in a book
    book_s: float = 0.02  # the least time between two books of a symbol
    idle_s: float = 1.0  # without a message, after which a bot gets one
    messages_per_s: int = 500  # of an account
    linger_s: float = 1.0  # from the close of a round to hanging up
    # Addresses from which an account may enter without its key.
    teams: Mapping[str, Proxies] = field(default_factory=dict)


class Common:
    """What the bots of both doors share.

    ``now_s`` returns the time of the loop. ``books_changed`` is called when a
    book may have changed.
    """

    def __init__(
        self,
        terms: Terms,
        gateway: Gateway,
        now_s: Callable[[], float],
        books_changed: Callable[[], None],
    ) -> None:
        self.terms = terms
        self.engine = gateway.engine
        self.outgoing = gateway.outbox.links
        self.now_s = now_s
        self.changed: dict[str, None] = {}  # books, since they were last sent
        self._gateway = gateway
        self._books_changed = books_changed
        self._buckets: dict[str, tuple[Bucket, Bucket]] = {}
        self._closed_s = float("-inf")  # when trading last ended

    # Limits ------------------------------------------------------------------

    def buckets_of(self, account: str) -> tuple[Bucket, Bucket]:
        """Return the buckets of an account's messages and cancels.

        "": new ones, for a bot that has not said hello.
        """
        buckets = self._buckets.get(account)
        if buckets is None:
            per_s, now = self.terms.messages_per_s, self.now_us()
            rate = Rate(per_s, per_s)
            buckets = (
                Bucket(rate, now),
                Bucket(rate.times(CANCELS_RATE), now),
            )
            if account:
                self._buckets[account] = buckets
        return buckets

    def now_us(self) -> int:
        """Return the time of the loop in microseconds, as buckets take it."""
        return int(self.now_s() * 1_000_000)

    def vouches_for(self, account: str, address: str) -> bool:
        """Whether this address may use an account without its key."""
        networks = self.terms.teams.get(account)
        return networks is not None and networks.include(address)

    def count_refusal(self, code: Code) -> None:
        """Count a line that the door refused by itself."""
        self._gateway.routing.refusals[code] += 1

    # The market --------------------------------------------------------------

    def is_open(self, symbol: str) -> bool:
        """Whether an instrument trades."""
        return self.engine.listings[symbol].phase == "open"

    def has_orders(self, symbol: str) -> bool:
        """Whether anything rests in a book."""
        bid, ask = self.engine.listings[symbol].book.top()
        return bid is not None or ask is not None

    def note_change(self, symbol: str) -> None:
        """Note that a book may have changed."""
        self.changed[symbol] = None
        self._books_changed()

    # Ends --------------------------------------------------------------------

    def note_close(self) -> None:
        """Note that trading ended now."""
        self._closed_s = self.now_s()

    @property
    def linger_left_s(self) -> float:
        """Return how long bots stay connected after trading ended."""
        return max(0.0, self._closed_s + self.terms.linger_s - self.now_s())

    def end_round(self, link: Link, line: Connection) -> None:
        """Hang up ``linger_s`` after trading ended: the round is over."""
        line.linger_s = self.linger_left_s
        self._gateway.outbox.close(link, GOING_AWAY, "the round is over")

    def cut(self, link: Link, code: int, reason: str) -> None:
        """Hang up on a bot after what was sent to it."""
        self._gateway.outbox.cut(link, code, reason)
