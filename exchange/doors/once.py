"""Log lines that clients can cause: each at most once a minute."""

from __future__ import annotations

REPEAT_S = 60.0  # until the same line is logged again
# Different lines in that time. Bounds the log and the memory.
REPEATS_MAX = 20


class OncePerMinute:
    """Chooses which lines to log.

    Each text is logged once in ``REPEAT_S``. After ``REPEATS_MAX`` different
    texts in that time, one line says that more follow.
    """

    FULL = "further lines like these are not logged for a minute"

    def __init__(self) -> None:
        self._logged: dict[str, float] = {}  # the oldest first

    def line(self, text: str, now_s: float) -> str | None:
        """Return the line to log for a text, or None."""
        while self._logged:
            oldest, at = next(iter(self._logged.items()))
            if now_s - at < REPEAT_S:
                break
            del self._logged[oldest]
        if text in self._logged:
            return None
        if len(self._logged) >= REPEATS_MAX:
            text = self.FULL
            if text in self._logged:
                return None
        self._logged[text] = now_s
        return text
