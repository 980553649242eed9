"""Applies again what a journal holds, and shows how far it is."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

from tqdm import tqdm

from exchange.gateway.gateway import Gateway
from exchange.journal.sqlite import Journal

PROGRESS_AFTER_S = 2.0  # of recovery, until it shows how far it is


def replay(journal: Journal, gateway: Gateway) -> None:
    """Apply all commands of a journal; raises JournalError."""
    with (
        without_collections(),
        tqdm(
            total=journal.count(),
            desc="recovering",
            unit=" commands",
            delay=PROGRESS_AFTER_S,
            disable=None,  # where nobody watches
        ) as progress,
    ):
        for commands in journal.recover():
            gateway.replay(commands)
            progress.update(len(commands))


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Collect no garbage: the engine makes no cycles."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
