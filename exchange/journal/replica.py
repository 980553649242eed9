"""The market and its history, rebuilt from the commands of a journal.

A process that starts recovers with it. It sends no events: the process that
applied the commands first has sent them.
"""

from __future__ import annotations

from collections.abc import Iterable

from exchange.journal.history import History
from exchange.market.command import Command
from exchange.market.engine import Engine


class Replica:
    """An engine and the history of its events, kept in step."""

    def __init__(self, engine: Engine, history: History) -> None:
        self._engine = engine
        self._history = history

    def apply(self, commands: Iterable[Command]) -> None:
        """Apply commands; the first one follows the engine's last one."""
        apply, record = self._engine.apply, self._history.record
        for command in commands:
            record(apply(command))
