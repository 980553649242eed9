"""Token buckets: so many requests a second, and so many at once."""

from __future__ import annotations

from dataclasses import dataclass, field

_REQUEST = 1_000_000  # credits; so a rate per second is one per microsecond


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests per second in the long run, and at once; 0: unlimited."""

    per_s: int = 0
    burst: int = 0

    def times(self, factor: int) -> Rate:
        """Return a rate so many times as large."""
        return Rate(self.per_s * factor, self.burst * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """What connections may do, 0 meaning unlimited.

    ``rate`` is that of each account that ``rates`` does not name, and of
    each connection for what is neither order nor cancel.
    """

    rate: Rate = Rate()
    rates: dict[str, Rate] = field(default_factory=dict)
    connections: int = 0  # of one account


class Bucket:
    """What is left of a rate. It begins full. Time is given, in integers."""

    __slots__ = ("rate", "_per_s", "_most", "_credits", "_ts")

    def __init__(self, rate: Rate, now: int) -> None:
        self.rate = rate
        self._per_s = rate.per_s
        self._most = self._credits = rate.burst * _REQUEST
        self._ts = now

    def take(self, now: int) -> int:
        """Draw one request; return 0, or the milliseconds until there is one.

        ``now`` in microseconds. Nothing is drawn where there is none.
        """
        gained = max(0, now - self._ts) * self._per_s
        self._credits = min(self._most, self._credits + gained)
        self._ts = now
        if self._credits >= _REQUEST:
            self._credits -= _REQUEST
            return 0
        missing_us = -(-(_REQUEST - self._credits) // self._per_s)
        return -(-missing_us // 1_000)
