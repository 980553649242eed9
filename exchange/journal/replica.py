"""The market and its history, rebuilt from the commands of a journal.

A process that starts recovers with it. It sends no events: the process that
applied the commands first has sent them. An edge sends them to its readers.
"""

from __future__ import annotations

from collections.abc import Callable

from exchange.journal.checksum import Checksum
from exchange.journal.history import History
from exchange.journal.storage import Batch
from exchange.market.command import Output
from exchange.market.engine import Engine


class Replica:
    """An engine, the history of its events and their checksum, in step."""

    def __init__(
        self, engine: Engine, history: History, checksum: Checksum
    ) -> None:
        self.engine = engine
        self.history = history
        self.checksum = checksum

    def apply(
        self,
        batch: Batch,
        record: Callable[[list[Output]], None] | None = None,
    ) -> None:
        """Apply a batch; its first command follows the engine's last one.

        ``record`` puts the outputs of a command into the history, and may do
        more with them; None: the history only. Raises DivergedError if the
        batch came out differently than at first.
        """
        apply, record = self.engine.apply, record or self.history.record
        for command in batch.commands:
            outputs = apply(command)
            self.checksum.add(command.seq, outputs)
            record(outputs)
        self.checksum.compare(batch)
