"""Copy a journal, also while it is written: ``python -m util.backup``.

The copy is the state of the journal at one moment, in one file. It is
verified as a journal is at start-up, and gets its name only then. If commands
of the journal were pruned, its snapshots are copied too.

Exit status: 0 done, 1 no good copy was made, 2 the command line is wrong.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from exchange.journal.chain import BEGINNING
from exchange.journal.reading import readable
from exchange.journal.snapshots.folder import Snapshots
from exchange.journal.sqlite import (
    JournalError,
    count_commands,
    open_journal,
    place_in,
    read_batches,
)
from exchange.market.command import RULES

from .cli import (
    extra_libraries,
    failed,
    new_parser,
    print_result,
    set_up_output,
)

with extra_libraries("backup"):
    from tqdm import tqdm

PROGRESS_AFTER_S = 1.0


def backup(journal: Path, target: Path) -> str:
    """Copy a journal; return a summary in one line.

    Raises JournalError, OSError or sqlite3.Error, and leaves no file then.
    """
    if target.exists():
        raise FileExistsError(f"{target}: exists already")
    with TemporaryDirectory(
        prefix=f".{target.name}.", dir=target.parent
    ) as folder:
        copy = Path(folder, target.name)
        with (
            readable(journal) as original,
            closing(open_journal(original)) as source,
            closing(sqlite3.connect(copy, isolation_level=None)) as file,
        ):
            source.backup(file)  # all pages in one step: one moment
            file.execute("PRAGMA journal_mode = DELETE")  # no other files
        try:
            batches, commands = verify(copy)
        except JournalError as error:  # the original has the same fault
            reason = str(error).replace(str(copy), str(journal))
            raise JournalError(reason) from None
        size = copy.stat().st_size
        _copy_snapshots(journal, copy, target)
        copy.rename(target)
    return (
        f"{target}: {batches:,} batches, {commands:,} commands, {size:,} bytes"
    )


def _copy_snapshots(journal: Path, copy: Path, target: Path) -> None:
    """Copy those on which a pruned journal depends; none if it is whole."""
    if place_in(copy) == BEGINNING:
        return
    snapshots, names = Snapshots(journal), Snapshots(target)
    refused: list[str] = []
    place_at = partial(place_in, copy)
    for snapshot in snapshots.usable(
        place_at, RULES, lambda path, why: refused.append(f"; {path}: {why}")
    ):
        shutil.copyfile(snapshot.path, names.path_of(snapshot.head.seq))
    if not names.verified():
        raise JournalError(
            f"{journal}: its first commands were pruned, and no snapshot"
            f" beside it can be used{''.join(refused)}"
        )


def verify(path: Path) -> tuple[int, int]:
    """Read a journal to its end; return the count of batches and commands.

    Raises JournalError.
    """
    batches = commands = 0
    beginning = place_in(path)
    assert beginning is not None
    with tqdm(
        total=count_commands(path) - beginning.seq,
        desc="verifying",
        unit=" commands",
        delay=PROGRESS_AFTER_S,
        disable=None,  # shown on a terminal only
    ) as progress:
        for batch in read_batches(path, after=beginning):
            batches += 1
            commands += len(batch.commands)
            progress.update(len(batch.commands))
    return batches, commands


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with status 2 if it is wrong."""
    parser = new_parser(
        "backup",
        "Copy a journal, also while an exchange writes it.",
        "exit status: 0 done, 1 no good copy was made, 2 wrong usage",
    )
    parser.add_argument("journal", type=Path, help="journal to copy")
    parser.add_argument(
        "target", type=Path, help="file to write; must not exist"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.backup``; return the exit status."""
    options = parse(arguments)
    set_up_output()
    try:
        print_result(backup(options.journal, options.target))
    except (JournalError, OSError, sqlite3.Error) as error:
        return failed("backup", error, 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
