"""A replay that shows whether a snapshot is true.

For whoever makes snapshots: a tool beside the exchange, or a child that a
follower of a stream has forked. The commands come from the caller.
"""

from __future__ import annotations

from collections.abc import Iterable

from exchange.journal.checksum import Checksum
from exchange.journal.history import History
from exchange.journal.replica import Replica
from exchange.journal.snapshots.folder import Snapshot, Snapshots
from exchange.journal.storage import Batch
from exchange.market.engine import Engine


def new_replica(snapshot: Snapshot | None) -> Replica:
    """Return a replica at a snapshot; None: before the first command."""
    replica = Replica(Engine(), History(), Checksum())
    if snapshot is not None:
        snapshot.load(replica)
    return replica


def apply(replica: Replica, batch: Batch) -> None:
    """Apply a batch whose events nobody gets; raises DivergedError."""
    replica.apply(batch)
    replica.engine.take_book_updates(())


def prove(
    snapshots: Snapshots,
    snapshot: Snapshot,
    before: Snapshot | None,
    batches: Iterable[Batch],
) -> str:
    """Let a snapshot count if a replay from an earlier one comes to it.

    ``before`` None: from the first command. ``batches`` follow it. Returns
    why the snapshot does not count, and was removed; "" if it does. Raises
    DivergedError if a batch came out differently than at first.
    """
    replica = new_replica(before)
    for batch in batches:
        apply(replica, batch)
        if replica.engine.seq >= snapshot.head.seq:
            break
    return snapshots.verify(snapshot, replica)
