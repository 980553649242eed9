"""Applies the commands of a journal, with a progress bar.

It goes on from the newest snapshot beside the journal that can be used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from exchange.gateway.gateway import Gateway
from exchange.host.clock import JUMP_US, Clock
from exchange.host.market_file import SettingsError
from exchange.host.process import without_collections
from exchange.host.snapshots import Start, start_of
from exchange.journal.checksum import DivergedError
from exchange.journal.sqlite import JournalError
from exchange.journal.storage import Storage
from exchange.market.command import Configure
from exchange.market.configuration import money_conflict
from exchange.market.state import State

PROGRESS_AFTER_S = 2.0  # from the start of a recovery to its progress bar


@dataclass(frozen=True, slots=True)
class Recovery:
    """A journal whose commands have been applied."""

    journal: Storage
    commands: int
    loaded: int  # of them those in a snapshot
    took_s: float
    ahead_us: int  # of the machine's clock; below 0: behind it

    def __str__(self) -> str:
        text = f"journal {self.journal.path}: "
        if not self.commands:
            return f"{text}new"
        text += f"{self.commands:,} commands recovered in {self.took_s:.1f} s"
        if self.loaded:
            text += f", {self.loaded:,} of them from a snapshot"
        if abs(self.ahead_us) >= JUMP_US:
            where = "ahead of" if self.ahead_us > 0 else "behind"
            text += (
                f", its time goes on {abs(self.ahead_us) / 1e6:,.1f} s {where}"
                " this machine's"
            )
        return text


def recover(
    path: Path,
    gateway: Gateway,
    clock: Clock,
    open_journal: Callable[[Path], Storage],
) -> Recovery:
    """Open a journal and apply all its commands; raise JournalError."""
    began = clock.elapsed()
    journal = open_journal(path)
    try:
        with without_collections():
            start = start_of(journal, gateway)
            _replay(journal, gateway, start)
    except BaseException:
        journal.close()
        raise
    gateway.commit(journal.last_seq)
    clock.go_on_from(gateway.engine.ts)
    took_s = (clock.elapsed() - began) / 1e6
    return Recovery(journal, journal.last_seq, start.seq, took_s, clock.ahead)


def check_money(state: State, market: Configure) -> None:
    """Raise SettingsError if the accounts' cash is counted in another unit."""
    conflict = money_conflict(state, market)
    if conflict:
        raise SettingsError(
            f"{conflict}; the cash of the journal's accounts is counted in the"
            " old unit: set the old values again, or start with another"
            " journal"
        )


def _replay(journal: Storage, gateway: Gateway, start: Start) -> None:
    with tqdm(
        total=journal.count() - start.seq,
        desc="recovering",
        unit=" commands",
        delay=PROGRESS_AFTER_S,
        disable=None,  # where standard error is no terminal
    ) as progress:
        for batch in start.batches:
            try:
                gateway.replay(batch)
            except DivergedError as error:
                raise JournalError(
                    f"{journal.path}: {error}{start.advice}"
                ) from None
            start.verify(gateway.replica)
            progress.update(len(batch.commands))
