"""Make a snapshot of a journal: ``python -m util.compact JOURNAL``.

An exchange that starts goes on from it, so that a journal of millions of
commands is recovered in seconds. It may run beside the exchange, in as much
memory as that needs: it only reads the journal and writes files beside it.
The last three snapshots are kept.

A snapshot counts only after a second replay, from an earlier one, has come to
the same state. Whoever ends this tool meanwhile has lost nothing.

``--prune`` drops the commands that two snapshots cover from the journal
itself. The exchange must be stopped.

Exit status: 0 done, 1 no snapshot was made or nothing pruned, 2 the command
line is wrong.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from exchange.journal.chain import BEGINNING
from exchange.journal.checksum import DivergedError
from exchange.journal.pruning import prune
from exchange.journal.replica import Replica
from exchange.journal.snapshots.file import (
    TEXTS,
    SnapshotError,
    dump,
    head_of,
)
from exchange.journal.snapshots.folder import Snapshot, Snapshots
from exchange.journal.snapshots.market import is_at_rest
from exchange.journal.snapshots.proof import apply, new_replica, prove
from exchange.journal.sqlite import JournalError, place_in
from exchange.journal.storage import Batch
from exchange.market.command import RULES

from .cli import failed, new_parser, print_result, set_up_output
from .journal import batches_of

# In the folder of an event, or above that of one of its matches.
EVENT_FILE = "director.db"
# Added to the priority of the process: the exchange goes first.
NICENESS = 10


class Compacting:
    """The making of one snapshot."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._snapshots = Snapshots(path)
        self._place_at = partial(place_in, path)

    def run(self) -> str:
        """Make a snapshot; return a summary in one line.

        Raises JournalError, SnapshotError or OSError.
        """
        place_in(self._path)  # so that there is a journal
        with self._snapshots.lock():
            last = next(self._usable(), None)
            replica, at_rest = self._replay(last)
            if at_rest == (last.head.seq if last else 0):
                return f"{self._path}: nothing new since the last snapshot"
            if at_rest != replica.engine.seq:
                # The journal ends amid long work: go back before it.
                del replica
                replica, _ = self._replay(last, at_rest)
            verified = self._snapshots.verified()
            if self._snapshots.path_of(at_rest) in verified:
                made = self._snapshots.path_of(at_rest)
                return _summary(made, at_rest, "while it was made")
            snapshot = self._write(replica)
            del replica
            before = self._before(last)
            self._prove(snapshot, before)
        since = before.head.seq + 1 if before else 1
        made = self._snapshots.path_of(at_rest)
        return _summary(made, at_rest, f"by a replay from command {since:,}")

    def _usable(self, before: int | None = None) -> Iterator[Snapshot]:
        return self._snapshots.usable(self._place_at, RULES, _refused, before)

    def _before(self, last: Snapshot | None) -> Snapshot | None:
        """Return the snapshot from which a replay verifies the next one.

        Not the one that it was made from, if it can be: a replay from there
        would do the same again.
        """
        if last is None or last.head.texts != TEXTS:
            return last
        before = next(self._usable(last.head.seq), None)
        if before is None and place_in(self._path) != BEGINNING:
            return last
        return before

    def _replay(
        self, start: Snapshot | None, until: int | None = None
    ) -> tuple[Replica, int]:
        """Apply the commands after a snapshot; verify others on the way.

        ``until`` None: up to what is the end now.
        Returns the state, and the last command after which there was none.
        """
        replica = new_replica(start)
        at_rest = replica.engine.seq
        unverified = self._snapshots.to_verify(
            self._place_at, RULES, _refused, at_rest
        )
        for batch in self._batches(start, "replaying"):
            apply(replica, batch)
            seq = replica.engine.seq
            if is_at_rest(replica.engine):
                at_rest = seq
            if seq in unverified:
                snapshot = unverified.pop(seq)
                reason = self._snapshots.verify(snapshot, replica)
                if reason:
                    _refused(snapshot.path, reason)
            if until is not None and seq >= until:
                break
        return replica, at_rest

    def _batches(self, start: Snapshot | None, what: str) -> Iterator[Batch]:
        after = start.place if start else BEGINNING
        return batches_of(self._path, after=after, what=what)

    def _write(self, replica: Replica) -> Snapshot:
        place = self._place_at(replica.engine.seq)
        assert place is not None
        head = head_of(replica, place.digest)
        return self._snapshots.write(head, dump(replica))

    def _prove(self, snapshot: Snapshot, before: Snapshot | None) -> None:
        batches = self._batches(before, "verifying")
        reason = prove(self._snapshots, snapshot, before, batches)
        if reason:
            raise SnapshotError(f"{snapshot.path}: {reason}")


def compact(path: Path) -> str:
    """Make a snapshot beside a journal; return a summary in one line.

    Raises JournalError, SnapshotError or OSError.
    """
    try:
        return Compacting(path).run()
    except DivergedError as error:
        raise JournalError(f"{path}: {error}") from None


def prune_journal(path: Path) -> str:
    """Drop what two snapshots cover; return a summary in one line.

    Two, so that one that is damaged later is not missed. Raises JournalError,
    SnapshotError or OSError.
    """
    place_in(path)  # so that there is a journal
    for folder in path.resolve().parents:
        if (folder / EVENT_FILE).exists():
            raise JournalError(
                f"{path}: of the event in {folder}, which reads all of it for"
                " its scores: it is not pruned"
            )
    snapshots = Snapshots(path)
    size = path.stat().st_size
    with snapshots.lock():
        usable = snapshots.usable(partial(place_in, path), RULES, _refused)
        newest = [*islice(usable, 2)]
        if len(newest) < 2:
            raise SnapshotError(
                f"{path}: has {len(newest)} of the two snapshots that are"
                " needed: run util.compact, and again after more commands"
            )
        place = newest[1].place
        prune(path, place)
        snapshots.forget(place.seq)
    return (
        f"{path}: begins with command {place.seq + 1:,} now,"
        f" {path.stat().st_size:,} bytes instead of {size:,}"
    )


def _refused(path: Path, reason: str) -> None:
    print(f"compact: {path.name} is not used: {reason}", file=sys.stderr)


def _summary(path: Path, seq: int, how: str) -> str:
    size = path.stat().st_size
    return f"{path}: {seq:,} commands, {size:,} bytes, verified {how}"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with status 2 if it is wrong."""
    parser = new_parser(
        "compact",
        "Make a snapshot of a journal, also while an exchange writes it.",
        "exit status: 0 done, 1 no snapshot was made or nothing pruned,"
        " 2 wrong usage",
    )
    parser.add_argument("journal", type=Path, help="journal to read")
    parser.add_argument(
        "--prune",
        action="store_true",
        help="drop the commands that two snapshots cover; the exchange must be"
        " stopped",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.compact``; return the exit status."""
    options = parse(arguments)
    set_up_output()
    try:
        do = prune_journal if options.prune else compact
        print_result(do(options.journal))
    except (JournalError, SnapshotError, OSError) as error:
        return failed("compact", error, 1)
    return 0


if __name__ == "__main__":
    gc.disable()  # the engine makes no cycles
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    sys.exit(main())
