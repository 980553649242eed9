"""The snapshots beside a journal: their names, and which of them counts.

``exchange.db.snapshot-3000000`` is a snapshot of the first 3,000,000 commands.
With ``.unverified`` it does not count: it gets its name once a replay up to
its command has come to the same state. With ``.new`` it is being written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from exchange.files import lock, sync_folder
from exchange.journal.chain import Place
from exchange.journal.replica import Replica
from exchange.journal.snapshots.file import (
    TEXTS,
    Head,
    SnapshotError,
    check,
    dump,
    head_of,
    lines_of,
    load,
    read_head,
    sha256_of,
    write,
)
from exchange.journal.snapshots.market import is_at_rest

KEPT = 3  # verified snapshots of a journal: the last ones
UNVERIFIED, NEW = ".unverified", ".new"

# Returns the place after a command, None if no batch ends with it.
PlaceAt = Callable[[int], Place | None]
# Told of a file that is not used, and why.
Refused = Callable[[Path, str], None]


class Snapshot(NamedTuple):
    """A file that can be used."""

    path: Path
    head: Head
    sha256: str

    @property
    def place(self) -> Place:
        """The place in the journal from which to go on."""
        return Place(self.head.seq, bytes.fromhex(self.head.digest))

    def load(self, replica: Replica) -> None:
        """Fill a new replica."""
        load(replica, self.head, lines_of(self.path))
        state = replica.engine
        assert state.seq == self.head.seq and state.ts == self.head.ts


class Snapshots:
    """The snapshots of one journal, or of one follower of a stream.

    ``base`` is the journal's path; a name is made of it and a number. Any
    process may read; one that writes holds the `lock`.
    """

    def __init__(self, base: Path) -> None:
        self._base = base

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other writers away; raises SnapshotError if there is one."""
        path = self._path(".snapshots.lock")
        try:
            held = lock(path, mode=0o644, is_waiting=False)
        except BlockingIOError:
            raise SnapshotError(
                f"{path}: another process is making a snapshot"
            ) from None
        try:
            yield
        finally:
            os.close(held)

    def verified(self) -> list[Path]:
        """Return the files that count, newest first; none is looked at."""
        return self._found("")

    def unverified(self) -> list[Path]:
        """Return the files that wait for a replay, newest first."""
        return self._found(UNVERIFIED)

    def usable(
        self,
        place_at: PlaceAt,
        rules: Iterable[int],
        refused: Refused,
        before: int | None = None,
    ) -> Iterator[Snapshot]:
        """Yield the snapshots that count and are good, newest first.

        They fit a journal, have one of the known ``rules``, and are of
        commands before ``before``, if given. The whole file of each is read.
        """
        known = set(rules)
        for path in self.verified():
            if before is not None and number_of(path) >= before:
                continue
            try:
                snapshot = _fitting(path, place_at, known)
                check(path)
            except SnapshotError as error:
                refused(path, str(error))
            else:
                yield snapshot

    def to_verify(
        self,
        place_at: PlaceAt,
        rules: Iterable[int],
        refused: Refused,
        after: int,
    ) -> dict[int, Snapshot]:
        """Return the unverified snapshots of later commands, by command.

        Those that can never be verified are removed.
        """
        known = set(rules)
        found = {}
        for path in self.unverified():
            try:
                snapshot = _fitting(path, place_at, known)
                if snapshot.head.texts != TEXTS:
                    raise SnapshotError("another release has made it")
                if snapshot.head.seq > after:
                    found[snapshot.head.seq] = snapshot
                    continue
            except SnapshotError as error:
                refused(path, str(error))
            path.unlink(missing_ok=True)
        return found

    def write(
        self,
        head: Head,
        lines: Iterable[str],
        is_late: Callable[[], bool] = lambda: False,
    ) -> Snapshot:
        """Write a snapshot that does not count yet.

        Whoever was killed while writing leaves a file that is removed here.
        Raises SnapshotError if ``is_late`` returns true meanwhile, OSError if
        the disk is full. It may be called in a forked child.
        """
        for path in self._found(NEW):
            path.unlink(missing_ok=True)
        new = self._path(f".snapshot-{head.seq}{NEW}")
        try:
            sha256 = write(new, head, lines, is_late)
            path = new.replace(new.with_suffix(UNVERIFIED))
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
        return Snapshot(path, head, sha256)

    def verify(self, snapshot: Snapshot, replica: Replica) -> str:
        """Let a snapshot count if a replay came to the same state.

        ``replica`` is that of the replay, at the snapshot's command. If it
        differs or the file is damaged, the file is removed. Returns why; "" if
        it counts now.
        """
        state, place = replica.engine, snapshot.place
        try:
            assert state.seq == place.seq
            if not is_at_rest(state):
                raise SnapshotError("a replay has long work at its command")
            head = head_of(replica, place.digest, snapshot.head.stream)
            if sha256_of(head, dump(replica)) != snapshot.sha256:
                raise SnapshotError("a replay comes to another state")
            check(snapshot.path)
        except SnapshotError as error:
            snapshot.path.unlink(missing_ok=True)
            return str(error)
        path = snapshot.path
        path.replace(path.with_suffix(""))
        sync_folder(path.parent)
        for old in self.verified()[KEPT:]:
            old.unlink(missing_ok=True)
        return ""

    def path_of(self, seq: int) -> Path:
        """Return the name of a snapshot that counts."""
        return self._path(f".snapshot-{seq}")

    def forget(self, before: int) -> None:
        """Remove the snapshots of commands before this one."""
        for path in [*self.verified(), *self.unverified()]:
            if number_of(path) < before:
                path.unlink(missing_ok=True)

    def _path(self, suffix: str) -> Path:
        return self._base.with_name(self._base.name + suffix)

    def _found(self, suffix: str) -> list[Path]:
        name = re.escape(f"{self._base.name}.snapshot-")
        pattern = re.compile(rf"{name}[0-9]+{re.escape(suffix)}")
        try:
            paths = [*self._base.parent.iterdir()]
        except FileNotFoundError:
            return []
        found = [path for path in paths if pattern.fullmatch(path.name)]
        return sorted(found, key=number_of, reverse=True)


def number_of(path: Path) -> int:
    """Return the command that a snapshot's name has."""
    _, _, number = path.name.rpartition(".snapshot-")
    return int(number.partition(".")[0])


def _fitting(path: Path, place_at: PlaceAt, rules: set[int]) -> Snapshot:
    """Return a snapshot whose head fits; raises SnapshotError."""
    head, sha256 = read_head(path)
    if head.rules not in rules:
        raise SnapshotError(
            f"of version {head.rules} of the rules, which this program does"
            " not have"
        )
    if head.seq != number_of(path):
        raise SnapshotError(f"it is of command {head.seq}, as it says")
    snapshot = Snapshot(path, head, sha256)
    place = place_at(head.seq)
    if place is None:
        raise SnapshotError("no batch of the journal ends with its command")
    if place != snapshot.place:
        raise SnapshotError("of another journal: the digest differs")
    return snapshot
