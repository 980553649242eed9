"""Copy a journal, also while it is written: ``python -m util.backup``.

The copy is the journal as it was at one moment. It is verified like any
journal at start-up, and only then gets its name; it is one file and needs
no other beside it.

Exit status: 0, 1 where there is no good copy, 2 for a command line that
makes no sense.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from exchange.journal.sqlite import (
    JournalError,
    count_commands,
    open_journal,
    read_journal,
    readable,
)

from .cli import extra_libraries, failed, program, say, set_up_output

with extra_libraries("backup"):
    from tqdm import tqdm

PROGRESS_AFTER_S = 1.0


def backup(journal: Path, target: Path) -> str:
    """Copy a journal; return what was copied, in a line.

    Raises JournalError, OSError or sqlite3.Error, and leaves nothing then.
    """
    if target.exists():
        raise FileExistsError(f"{target}: is there already")
    with TemporaryDirectory(
        prefix=f".{target.name}.", dir=target.parent
    ) as folder:
        copy = Path(folder, target.name)
        with (
            readable(journal) as original,
            closing(open_journal(original)) as source,
            closing(sqlite3.connect(copy, isolation_level=None)) as file,
        ):
            source.backup(file)  # all pages at once: of one moment
            file.execute("PRAGMA journal_mode = DELETE")  # no files beside it
        try:
            batches, commands = verify(copy)
        except JournalError as error:  # what is wrong with it came with it
            reason = str(error).replace(str(copy), str(journal))
            raise JournalError(reason) from None
        size = copy.stat().st_size
        copy.rename(target)
    return (
        f"{target}: {batches:,} batches, {commands:,} commands, {size:,} bytes"
    )


def verify(path: Path) -> tuple[int, int]:
    """Read a journal to its end; return the count of batches and commands.

    Raises JournalError.
    """
    batches = commands = 0
    with tqdm(
        total=count_commands(path),
        desc="verifying",
        unit=" commands",
        delay=PROGRESS_AFTER_S,
        disable=None,  # where nobody watches
    ) as progress:
        for batch in read_journal(path):
            batches += 1
            commands += len(batch)
            progress.update(len(batch))
    return batches, commands


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with status 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog=program("backup"),
        description="Copy a journal, also while an exchange writes it.",
        epilog="exit status: 0, 1 no good copy was made, 2 usage",
    )
    parser.add_argument("journal", type=Path)
    parser.add_argument("target", type=Path, help="a new file")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.backup``; return the exit status."""
    options = parse(arguments)
    set_up_output()
    try:
        say(backup(options.journal, options.target))
    except (JournalError, OSError, sqlite3.Error) as error:
        return failed("backup", error, 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
