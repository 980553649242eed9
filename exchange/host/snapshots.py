"""Snapshots of the exchange's own journal: used at a start, made at a stop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from exchange.gateway.gateway import Gateway
from exchange.host.process import without_collections
from exchange.journal.chain import BEGINNING
from exchange.journal.replica import Replica
from exchange.journal.snapshots.file import SnapshotError, dump, head_of
from exchange.journal.snapshots.folder import Snapshot, Snapshots, number_of
from exchange.journal.snapshots.market import is_at_rest
from exchange.journal.sqlite import Journal
from exchange.journal.storage import Batch, Storage
from exchange.market.command import RULES

# Commands since the last snapshot from which on a stop makes one: 10 to 30 s
# of a recovery.
COMMANDS_BETWEEN = 1_000_000
# The longest time that a stop takes for it, in microseconds. Kubernetes and
# systemd give a process 30 s and 90 s before they kill it.
STOP_US = 20_000_000

logger = logging.getLogger("exchange")


@dataclass(slots=True)
class Start:
    """From where a recovery goes on.

    ``seq`` is the last command of the snapshot that was loaded; 0: none was.
    """

    batches: Iterator[Batch]  # those after it
    seq: int = 0
    advice: str = ""  # what to do if a batch comes out differently
    snapshots: Snapshots | None = None
    unverified: dict[int, Snapshot] = field(default_factory=dict)

    def verify(self, replica: Replica) -> None:
        """Let a snapshot count that has the state of this moment."""
        snapshot = self.unverified.pop(replica.engine.seq, None)
        if snapshot is None or self.snapshots is None:
            return
        try:
            with self.snapshots.lock():
                reason = self.snapshots.verify(snapshot, replica)
        except (SnapshotError, OSError) as error:
            reason = str(error)
        if reason:
            _refused(snapshot.path, reason)


def start_of(journal: Storage, gateway: Gateway) -> Start:
    """Load the newest snapshot that can be used; raise JournalError.

    Each one that cannot be used is logged with its reason.
    """
    if not isinstance(journal, Journal):
        return Start(journal.recover())
    snapshots, place_at = Snapshots(journal.path), journal.place_at
    snapshot = next(snapshots.usable(place_at, RULES, _refused), None)
    place, advice = BEGINNING, ""
    if snapshot is not None:
        snapshot.load(gateway.replica)
        gateway.loaded()
        place = snapshot.place
        advice = (
            f". {snapshot.path.name} was loaded: without it the start is from"
            " the snapshot before"
        )
    unverified = {}
    if snapshots.unverified():
        try:
            with snapshots.lock():
                unverified = snapshots.to_verify(
                    place_at, RULES, _refused, place.seq
                )
        except (SnapshotError, OSError) as error:
            logger.warning("no snapshot is verified: %s", error)
    batches = journal.recover(place)
    return Start(batches, place.seq, advice, snapshots, unverified)


def keep_state(
    journal: Storage, replica: Replica, elapsed: Callable[[], int]
) -> None:
    """Make a snapshot of a closed journal if many commands have no other.

    It takes STOP_US at most, and whoever is killed meanwhile has lost
    nothing. The next start verifies it, as a replay comes past it.
    ``elapsed`` counts microseconds.
    """
    if not isinstance(journal, Journal):
        return
    snapshots, place = Snapshots(journal.path), journal.end
    made = [*snapshots.verified(), *snapshots.unverified()]
    newest = max(map(number_of, made), default=0)
    engine = replica.engine
    if place.seq - newest < COMMANDS_BETWEEN or engine.seq != place.seq:
        return
    if not is_at_rest(engine):
        return
    end = elapsed() + STOP_US
    try:
        with snapshots.lock(), without_collections():
            head = head_of(replica, place.digest)
            made_now = snapshots.write(
                head, dump(replica), lambda: elapsed() > end
            )
    except (SnapshotError, OSError) as error:
        logger.warning("no snapshot was made: %s", error)
    else:
        logger.info("%s waits for the next start", made_now.path.name)


def _refused(path: Path, reason: str) -> None:
    logger.warning("the snapshot %s is not used: %s", path.name, reason)
