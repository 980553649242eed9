"""Token buckets: limits of requests per second and of bursts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from math import ceil

from exchange.market.command import REQUESTS

# Cancels may come this many times as often as orders, so that a bot that is
# throttled can always get flat.
CANCELS_RATE = 5
# Refusals, in bursts, after which a connection is cut off. They are forgiven
# at the allowed rate, so a client that sends less than twice that rate stays.
STRIKES_BURST = 10

# Credits of a token. A rate per second is one in credits per microsecond.
_TOKEN = 1_000_000


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests per second on average, and at once; 0: unlimited."""

    per_s: int = 0
    burst: int = 0

    def times(self, factor: int) -> Rate:
        """Return the rate multiplied by a number."""
        return Rate(self.per_s * factor, self.burst * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """The limits of accounts and connections; 0: unlimited.

    ``rate`` limits each account that ``rates`` does not name, and the
    requests of each connection that are neither orders nor cancels.
    """

    rate: Rate = Rate()
    rates: dict[str, Rate] = field(default_factory=dict)
    connections: int = 0  # of one account


class Bucket:
    """A token bucket, full at first. It counts in integers."""

    __slots__ = ("rate", "_per_s", "_most", "_credits", "_ts")

    def __init__(self, rate: Rate, now: int) -> None:
        self.rate = rate
        self._per_s = rate.per_s
        self._most = self._credits = rate.burst * _TOKEN
        self._ts = now

    def take(self, now: int) -> int:
        """Take a token; return 0, or the milliseconds until there is one.

        ``now`` is in microseconds. If there is no token, nothing is taken.
        """
        gained = max(0, now - self._ts) * self._per_s
        self._credits = min(self._most, self._credits + gained)
        self._ts = now
        if self._credits >= _TOKEN:
            self._credits -= _TOKEN
            return 0
        missing_us = -(-(_TOKEN - self._credits) // self._per_s)
        return -(-missing_us // 1_000)


class Limiter:
    """The buckets of accounts and links, and the requests counted.

    ``now`` returns microseconds since the epoch, and runs ``speed`` times as
    fast as the time in which clients wait.
    """

    def __init__(
        self,
        quotas: Quotas,
        now: Callable[[], int],
        speed: Decimal = Decimal(1),
    ) -> None:
        self.quotas = quotas
        # Requests by account ("" before the login) and type.
        self.counts: defaultdict[str, defaultdict[type, int]]
        self.counts = defaultdict(lambda: defaultdict(int))
        self.buckets: dict[str, dict[type, Bucket | None]] = {}  # by account
        self._now = now
        self._speed = speed

    def rate_of(self, user: str) -> Rate:
        """Return the rate of an account's orders."""
        return self.quotas.rates.get(user, self.quotas.rate)

    def of_link(self) -> Bucket | None:
        """Return the bucket of a new link; None: it is not limited."""
        rate = self.quotas.rate
        return Bucket(rate, self._now()) if rate.per_s else None

    def of_account(self, user: str) -> dict[type, Bucket | None]:
        """Return the buckets of an account's requests, by their type.

        None: unlimited. A type that is missing uses the link's bucket.
        """
        buckets = self.buckets.get(user)
        if buckets is None:
            buckets = self.buckets[user] = {}
            rate = self.rate_of(user)
            if not (rate.per_s or self.quotas.rate.per_s):
                return buckets
            orders = cancels = None  # not missing: see above
            if rate.per_s:
                orders = Bucket(rate, self._now())
                cancels = Bucket(rate.times(CANCELS_RATE), self._now())
            for kind, row in REQUESTS.items():
                if row.bucket != "connection":
                    is_order = row.bucket == "orders"
                    buckets[kind] = orders if is_order else cancels
        return buckets

    def draw(
        self, bucket: Bucket, strikes: dict[Bucket, Bucket]
    ) -> tuple[int, bool]:
        """Take a token; return the wait, and whether the client floods.

        The wait is in real milliseconds, 0 if there was a token. ``strikes``
        has for each bucket another one, of the refusals that are forgiven.
        """
        now = self._now()
        retry_after_ms = bucket.take(now)
        if not retry_after_ms:
            return 0, False
        forgiven_bucket = strikes.get(bucket)
        if forgiven_bucket is None:
            rate = bucket.rate
            forgiven = Rate(rate.per_s, rate.burst * STRIKES_BURST)
            forgiven_bucket = strikes[bucket] = Bucket(forgiven, now)
        is_flood = bool(forgiven_bucket.take(now))
        return ceil(retry_after_ms / self._speed), is_flood
