"""Logging: lines for people, or JSON for machines.

Both have time and level. The log holds no key: requests are not logged, and
the command in a failure holds no token.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

from pydantic_core import to_json

from exchange.host.printing import Outlet

LINE = "%(asctime)s %(levelname)s %(message)s"


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


def set_up(form: Literal["text", "json"]) -> None:
    """Log to standard error, from INFO upwards."""
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
