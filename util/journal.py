"""The commands of a journal, with a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from exchange.journal.chain import BEGINNING, Place
from exchange.journal.replica import Replica
from exchange.journal.snapshots.folder import Snapshots
from exchange.journal.snapshots.proof import new_replica
from exchange.journal.sqlite import (
    JournalError,
    count_commands,
    place_in,
    read_batches,
)
from exchange.journal.storage import Batch
from exchange.market.command import RULES, Command

from .cli import extra_libraries

with extra_libraries("replay"):
    from tqdm import tqdm

PROGRESS_AFTER_S = 1.0


def start_of(path: Path, base: Path) -> tuple[Replica, Place]:
    """Return the state before the first command that a journal holds.

    If commands were pruned it is that of a snapshot, and a line on standard
    error says so. ``base`` is the path beside which snapshots are. Raises
    JournalError.
    """
    if place_in(path) == BEGINNING:
        return new_replica(None), BEGINNING
    refused: list[str] = []

    def note(snapshot: Path, reason: str) -> None:
        refused.append(f"; {snapshot.name} is not used: {reason}")

    usable = [*Snapshots(base).usable(partial(place_in, path), RULES, note)]
    if not usable:
        raise JournalError(
            f"{base}: its first commands were pruned, and no snapshot beside"
            f" it can be used{''.join(refused)}"
        )
    oldest = usable[-1]
    print(
        f"{base}: begins with command {oldest.place.seq + 1}: those before"
        " were pruned",
        file=sys.stderr,
    )
    return new_replica(oldest), oldest.place


def commands_of(path: Path, *, is_quiet: bool = False) -> Iterator[Command]:
    """Yield the commands of `batches_of`."""
    for batch in batches_of(path, is_quiet=is_quiet):
        yield from batch.commands


def batches_of(
    path: Path,
    *,
    is_quiet: bool = False,
    after: Place = BEGINNING,
    what: str = "",
) -> Iterator[Batch]:
    """Yield the batches that a journal holds now, each verified.

    Only those after a place, if it is given. Raises JournalError. Shows
    progress on a terminal unless ``is_quiet``, with ``what`` is being done.
    """
    total = count_commands(path)
    with tqdm(
        total=total - after.seq,
        desc=what or path.name,
        unit=" commands",
        delay=PROGRESS_AFTER_S,
        disable=is_quiet or None,  # None: shown on a terminal only
    ) as progress:
        for batch in read_batches(path, after=after):
            yield batch
            progress.update(len(batch.commands))
            if batch.commands[-1].seq >= total:
                break
