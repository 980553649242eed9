"""What a journal is to the process that writes it.

`exchange.journal.sqlite.Journal` keeps it in a file. A simulation keeps it in
memory, or on a disk that fails on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from exchange.market.command import Command


class Batch(NamedTuple):
    """Commands that were committed together.

    ``checksum`` is that of `exchange.journal.checksum` after the last one;
    None: not known, as an older program wrote the batch.
    """

    commands: list[Command]
    checksum: int | None


class Storage(Protocol):
    """The journal of the one process that writes it."""

    path: Path

    @property
    def last_seq(self) -> int:
        """The number of the last command that is committed."""

    def count(self) -> int:
        """Return the number of commands; nothing is verified."""

    def recover(self) -> Iterator[Batch]:
        """Yield every batch; after the last one, allow `append`."""

    def append(
        self, first_seq: int, records: Sequence[str], checksum: int | None
    ) -> int:
        """Commit one batch of encoded commands; return its last number."""

    def look(self) -> tuple[str, int]:
        """Return what is wrong ("": nothing), and the bytes that are free."""

    def close(self) -> None:
        """Release what the journal holds."""
