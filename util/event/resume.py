"""Let the trading time go on: ``python -m util.event resume``."""

from __future__ import annotations

from . import pause


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.event resume``; return the exit status."""
    return pause.main(arguments, is_pause=False)
