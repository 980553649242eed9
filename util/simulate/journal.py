"""A journal in memory, and its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from exchange.journal.records import decode_records
from exchange.journal.sqlite import SPACE_ENOUGH, Journal
from exchange.journal.storage import Batch

BATCH = 1_000  # commands of one transaction of a file, or more


class MemoryJournal:
    """The commands of one exchange, encoded as a file would hold them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last_seq = 0
        self.records: list[str] = []
        self._batches: list[tuple[int, int | None]] = (
            []
        )  # last seq and checksum

    def count(self) -> int:
        """Return the number of commands."""
        return len(self.records)

    def recover(self) -> Iterator[Batch]:
        """Yield the commands in larger batches than they came in."""
        for start, end, checksum in self._joined():
            text = ",".join(self.records[start:end])
            yield Batch(
                decode_records(start + 1, f"[{text}]".encode()), checksum
            )

    def _joined(self) -> Iterator[tuple[int, int, int | None]]:
        """Yield start, end and checksum of batches that are joined."""
        start = 0
        for end, checksum in self._batches:
            if end - start >= BATCH or end == self.last_seq:
                yield start, end, checksum
                start = end

    def append(
        self, first_seq: int, records: Sequence[str], checksum: int | None
    ) -> int:
        """Keep one batch; return the number of its last command."""
        assert first_seq == self.last_seq + 1
        self.records += records
        self.last_seq += len(records)
        self._batches.append((self.last_seq, checksum))
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
            for start, end, checksum in self._joined():
                journal.append(start + 1, self.records[start:end], checksum)
