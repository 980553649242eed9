"""How the exchange logs: lines for people, or JSON for machines.

Both have time, level and logger. What is logged never holds a key: requests
are not logged at all, and the command in a failure has none.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

from pydantic_core import to_json

from exchange.host.printing import Outlet

LINE = "%(asctime)s %(levelname)s %(message)s"
REPEAT_S = 60.0  # until a line that others provoke is logged again
# Such lines in that time: a flood must not fill the log, nor the memory.
REPEATS_MAX = 20


class JsonFormatter(logging.Formatter):
    """One JSON object a line; ``ts`` in microseconds since the epoch."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line of JSON."""
        fields: dict[str, Any] = {
            "ts": int(record.created * 1_000_000),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return to_json(fields).decode()


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


def set_up(form: Literal["text", "json"]) -> None:
    """Log to standard error from now on, from INFO upwards."""
    handler = logging.StreamHandler()
    formatter = JsonFormatter() if form == "json" else logging.Formatter(LINE)
    handler.setFormatter(formatter)
    if isinstance(sys.stderr, Outlet):
        sys.stderr.notice = lambda message: (
            formatter.format(_record(message)) + "\n"
        )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _record(message: str) -> logging.LogRecord:
    return logging.LogRecord(
        "exchange", logging.WARNING, "", 0, message, None, None
    )
