"""Batches in, commits out: one at a time, and none after a failure."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from exchange.host.committer import Commit, Committer
from exchange.host.market_file import InstrumentSettings
from exchange.host.metrics import Timing
from exchange.journal.sqlite import Journal, read_journal
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
            assert commit.result().seen[0] == ""
        else:
            self.errors.append(error)


def committer(journal: Journal, ended: Ended, **more: Any) -> Committer:
    return Committer(
        journal, timing=Timing(), elapsed=lambda: 0, ended=ended, **more
    )


def commands(first: int, last: int) -> list[Command]:
    """Return commands; command 1 is the configuration."""
    return [
        Command(n, n, "", "", Shutdown() if n > 1 else MARKET)
        for n in range(first, last + 1)
    ]


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
    commits.commit([])
    await commits.finish()
    assert ended.seqs == [1, 5], "nothing is no batch"
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
