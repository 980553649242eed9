"""What the requests of an address or an account weigh, minute by minute."""

from __future__ import annotations

from collections import Counter

from exchange.doors.spot.errors import too_many
from exchange.doors.spot.market import WEIGHT_PER_MINUTE

MINUTE_MS = 60_000


class Weights:
    """Weights of the running minute. ``is_limited``: too many are refused."""

    def __init__(self, is_limited: bool) -> None:
        self._is_limited = is_limited
        self._minute = 0
        self._used: Counter[str] = Counter()

    def charge(self, whose: str, weight: int, now_ms: int) -> int:
        """Add a weight; return the sum. Raises SpotError if it is too much."""
        minute, past_ms = divmod(now_ms, MINUTE_MS)
        if minute != self._minute:
            self._minute = minute
            self._used.clear()
        used = self._used[whose] + weight
        if self._is_limited and used > WEIGHT_PER_MINUTE:
            raise too_many(MINUTE_MS - past_ms)
        self._used[whose] = used
        return used
