"""Log lines that anybody may provoke at any time: each once a minute."""

from __future__ import annotations

REPEAT_S = 60.0  # until a line that others provoke is logged again
# Such lines in that time: a flood must not fill the log, nor the memory.
REPEATS_MAX = 20


class OncePerMinute:
    """Tells whether to log a line that anybody may provoke at any time.

    Each text is logged once in ``REPEAT_S``, and of different ones the first
    ``REPEATS_MAX``; the next one is replaced by a line that says so.
    """

    FULL = "more like these are only counted, for a minute"

    def __init__(self) -> None:
        self._logged: dict[str, float] = {}  # the oldest first

    def line(self, text: str, now_s: float) -> str | None:
        """Return what to log for a text, if anything."""
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
