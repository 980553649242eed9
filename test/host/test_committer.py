"""Batches in, commits out: one at a time, and none after a failure."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from exchange.host.committer import (
    BATCH_IN_LOOP,
    LOOK_US,
    Commit,
    Committer,
)
from exchange.host.market_file import InstrumentSettings
from exchange.host.metrics import Timing
from exchange.journal.sqlite import Journal, read_batches, read_journal
from exchange.journal.storage import Batch
from exchange.market.command import Command, Configure, Shutdown

MARKET = Configure(instruments=(InstrumentSettings().listed_as("BOND"),))


class Inline(Executor):
    """Runs submitted calls at once, in the caller."""

    def submit(self, run: Callable[..., Any], /, *arguments: Any) -> Any:
        done: Future[Any] = Future()
        try:
            done.set_result(run(*arguments))
        except Exception as error:
            done.set_exception(error)
        return done


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path / "exchange.db")
    assert list(journal.recover()) == []
    return journal


class Ended:
    """Collects the commits that have ended."""

    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.errors: list[BaseException] = []

    def __call__(self, commit: asyncio.Future[Commit]) -> None:
        error = commit.exception()
        if error is None:
            self.seqs.append(commit.result().seq)
            seen = commit.result().seen
            assert seen is None or seen[0] == ""
        else:
            self.errors.append(error)


def committer(journal: Journal, ended: Ended, **more: Any) -> Committer:
    return Committer(
        journal, timing=Timing(), elapsed=lambda: 0, ended=ended, **more
    )


class TimedJournal(Journal):
    """A journal whose commits take as long as the test says."""

    now_us = 0
    takes_us = 0

    def append(
        self, first_seq: int, records: Sequence[str], checksum: int | None
    ) -> int:
        self.now_us += self.takes_us
        return super().append(first_seq, records, checksum)


@pytest.fixture
def timed(tmp_path: Path) -> TimedJournal:
    journal = TimedJournal(tmp_path / "exchange.db")
    assert list(journal.recover()) == []
    return journal


async def quickened(journal: TimedJournal, ended: Ended) -> Committer:
    """Return a committer that has seen many commits of no time at all."""
    commits = Committer(
        journal, timing=Timing(), elapsed=lambda: journal.now_us, ended=ended
    )
    for seq in range(1, 100):
        commits.commit(commands(seq, seq))
        await commits.finish()
    return commits


def commands(first: int, last: int) -> Batch:
    """Return commands; command 1 is the configuration."""
    found = [
        Command(n, n, "", "", Shutdown() if n > 1 else MARKET)
        for n in range(first, last + 1)
    ]
    return Batch(found, checksum=last)


def on_disk(journal: Journal) -> list[int]:
    return [c.seq for batch in read_journal(journal.path) for c in batch]


@pytest.mark.parametrize("executor", [None, Inline()])
async def test_commands_queued_during_a_commit_are_the_next_batch(
    journal: Journal, executor: Executor | None
) -> None:
    ended = Ended()
    commits = committer(journal, ended, executor=executor)
    commits.commit(commands(1, 1))
    commits.commit(commands(2, 3))
    commits.commit(commands(4, 5))
    await commits.finish()
    assert ended.seqs == [1, 5] and not ended.errors
    assert on_disk(journal) == [1, 2, 3, 4, 5]
    commits.commit(Batch([], 5))
    await commits.finish()
    assert ended.seqs == [1, 5], "nothing is no batch"
    checksums = [batch.checksum for batch in read_batches(journal.path)]
    assert checksums == [1, 5], "each is that after the batch's last command"
    commits.close()


async def test_an_inline_commit_is_done_on_return(
    journal: Journal,
) -> None:
    commits = committer(journal, Ended(), executor=Inline())
    commits.commit(commands(1, 2))
    assert on_disk(journal) == [1, 2]
    await commits.finish()
    commits.close()


async def test_after_a_failure_nothing_is_written(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = Ended()
    commits = committer(journal, ended)
    gate = threading.Event()

    def fail(*arguments: Any) -> int:
        gate.wait()
        raise OSError("no disk")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", fail)
        commits.commit(commands(1, 1))
        commits.commit(commands(2, 2))  # while the first is under way
        gate.set()
        await commits.finish()
    commits.commit(commands(3, 3))
    await commits.finish()
    assert [str(error) for error in ended.errors] == ["no disk"]
    assert ended.seqs == [] and on_disk(journal) == []
    commits.close()


async def test_the_loop_commits_while_the_disk_is_quick(
    timed: TimedJournal,
) -> None:
    ended = Ended()
    commits = await quickened(timed, ended)
    done = commits.commit(commands(100, 101), is_idle=True)
    assert done is not None and done.seq == 101
    assert on_disk(timed)[-1] == 101 and ended.seqs[-1] == 99
    commits.close()


async def test_a_new_committer_does_not_trust_its_disk(
    timed: TimedJournal,
) -> None:
    commits = committer(timed, Ended())
    assert commits.commit(commands(1, 1), is_idle=True) is None
    await commits.finish()
    commits.close()


async def test_a_disk_that_becomes_slow_holds_the_loop_once(
    timed: TimedJournal,
) -> None:
    commits = await quickened(timed, Ended())
    timed.takes_us = 3_000
    in_loop = []
    for seq in range(100, 200):
        in_loop.append(commits.commit(commands(seq, seq), is_idle=True))
        await commits.finish()
    assert [done is not None for done in in_loop] == [True] + 99 * [False]
    timed.takes_us = 100
    for seq in range(200, 300):
        last = commits.commit(commands(seq, seq), is_idle=True)
        await commits.finish()
    assert last is not None, "the disk is quick again"
    commits.close()


@pytest.mark.parametrize(
    ("last", "is_idle"), [(100, False), (100 + BATCH_IN_LOOP, True)]
)
async def test_a_thread_commits_while_requests_wait_and_large_batches(
    timed: TimedJournal, last: int, is_idle: bool
) -> None:
    ended = Ended()
    commits = await quickened(timed, ended)
    assert commits.commit(commands(100, last), is_idle) is None
    await commits.finish()
    assert ended.seqs[-1] == last == on_disk(timed)[-1]
    commits.close()


async def test_a_failure_in_the_loop_is_raised_and_the_last(
    timed: TimedJournal,
) -> None:
    commits = await quickened(timed, Ended())
    timed.file.execute("DROP TABLE batches")
    with pytest.raises(sqlite3.OperationalError):
        commits.commit(commands(100, 100), is_idle=True)
    assert commits.commit(commands(101, 101), is_idle=True) is None
    await commits.finish()
    commits.close()


async def test_the_disk_is_looked_at_from_time_to_time(
    timed: TimedJournal,
) -> None:
    commits = await quickened(timed, Ended())
    timed.takes_us = LOOK_US // 50
    looks = 0
    for seq in range(100, 200):
        done = commits.commit(commands(seq, seq), is_idle=True)
        assert done is not None
        looks += done.seen is not None
    assert looks == 2
    commits.close()
