"""The commands of a journal, with a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from exchange.journal.sqlite import count_commands, read_batches
from exchange.journal.storage import Batch
from exchange.market.command import Command

from .cli import extra_libraries

with extra_libraries("replay"):
    from tqdm import tqdm

PROGRESS_AFTER_S = 1.0


def commands_of(path: Path, *, is_quiet: bool = False) -> Iterator[Command]:
    """Yield the commands of `batches_of`."""
    for batch in batches_of(path, is_quiet=is_quiet):
        yield from batch.commands


def batches_of(path: Path, *, is_quiet: bool = False) -> Iterator[Batch]:
    """Yield the batches that a journal holds now, each verified.

    Raises JournalError. Shows progress on a terminal unless ``is_quiet``.
    """
    total = count_commands(path)
    with tqdm(
        total=total,
        desc=path.name,
        unit=" commands",
        delay=PROGRESS_AFTER_S,
        disable=is_quiet or None,  # None: shown on a terminal only
    ) as progress:
        for batch in read_batches(path):
            yield batch
            progress.update(len(batch.commands))
            if batch.commands[-1].seq >= total:
                break
