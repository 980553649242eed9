"""A checksum of the outputs of commands, to find a run that differs.

The chain of digests in a journal covers the commands. This covers the
outputs of the engine: each batch carries the checksum as it was after its last
command, and a process that applies the batch again compares its own. It can
differ after a fault of the machine or of a program, or with another program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from zlib import crc32

from exchange.journal.storage import Batch
from exchange.market.command import Command, Output
from orderbook import Error, Event, Rested, Status, encode

# The outputs of every 17th command count: those of all would cost an order
# 10 % of its time, these less than 2 %. A prime, so that a bot that repeats
# its requests in the same order meets it with each of them.
EVERY = 17


class DivergedError(Exception):
    """Commands came out differently than when they were applied first."""

    def __init__(self, commands: Sequence[Command]) -> None:
        first, last = commands[0].seq, commands[-1].seq
        super().__init__(
            f"commands {first} to {last} came out differently than when they"
            " were applied first: use the release that applied them, or a"
            " copy of the journal"
        )


class Checksum:
    """The CRC-32 of the outputs of every 17th command since the first one.

    The owner of an engine calls `add` with each command's outputs. ``value``
    starts at 0; a snapshot gives it another start.
    """

    def __init__(self) -> None:
        self.value = 0

    def add(self, seq: int, outputs: Sequence[Output]) -> None:
        """Count the outputs of a command, if its turn is due."""
        if seq % EVERY == 0:
            text = "".join(
                [f"{to}: {_text(event)}\n" for to, event in outputs]
            )
            self.value = crc32(f"{seq}\n{text}".encode(), self.value)

    def compare(self, batch: Batch) -> None:
        """Compare with the checksum of a batch that has been applied.

        Raises DivergedError if one of its commands, or of those before, came
        out differently than when it was applied first.
        """
        if batch.checksum not in (None, self.value):
            raise DivergedError(batch.commands)


def _text(event: Event | Rested) -> str:
    """Encode an output as it is sent, without ``message``.

    Texts for people may change with a release.
    """
    if isinstance(event, Error | Status):
        event = replace(event, message="")
    return encode(event)
