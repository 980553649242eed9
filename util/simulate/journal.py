"""A journal in memory, and its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from exchange.journal.records import decode_records
from exchange.journal.sqlite import SPACE_ENOUGH, Journal
from exchange.market.command import Command

BATCH = 1_000  # commands of one transaction of a file


class MemoryJournal:
    """The commands of one exchange, encoded as a file would hold them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last_seq = 0
        self.records: list[str] = []

    def count(self) -> int:
        """Return the number of commands."""
        return len(self.records)

    def recover(self) -> Iterator[list[Command]]:
        """Yield the commands in batches."""
        for start in range(0, len(self.records), BATCH):
            text = ",".join(self.records[start : start + BATCH])
            yield decode_records(start + 1, f"[{text}]".encode())

    def append(self, first_seq: int, records: Sequence[str]) -> int:
        """Keep one batch; return the number of its last command."""
        assert first_seq == self.last_seq + 1
        self.records += records
        self.last_seq += len(records)
        return self.last_seq

    def look(self) -> tuple[str, int]:
        """Return that nothing is wrong, and that there is enough space."""
        return "", SPACE_ENOUGH + 1

    def close(self) -> None:
        """Do nothing."""

    def digest(self) -> str:
        """Return the SHA-256 of all records, in hex."""
        return hashlib.sha256("\n".join(self.records).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write a journal file, which `util.replay` reads.

        Raises JournalError or OSError; also if the file has commands.
        """
        if path.exists():
            raise FileExistsError(f"{path}: the file exists")
        with Journal(path) as journal:
            for _ in journal.recover():
                pass
            for start in range(0, len(self.records), BATCH):
                journal.append(start + 1, self.records[start : start + BATCH])
