"""A copy is the journal as it was at one moment, or there is no copy."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from subprocess import PIPE

import pytest

from exchange.journal.records import encode_record
from exchange.journal.sqlite import Journal
from exchange.market.command import Command, TimePassed
from test.journal.files import ROOT, alter, append, read, recover, write
from test.market.flows import flow
from util.backup import main

COMMANDS = list(flow(random.Random(6), 300))


def failed(
    capsys: pytest.CaptureFixture[str], journal: Path, target: Path
) -> str:
    """Run the command, which must fail, and return why."""
    assert main([str(journal), str(target)]) == 1
    output, errors = capsys.readouterr()
    assert not output and errors.startswith("backup: ")
    assert errors.count("\n") == 1
    return errors.removeprefix("backup: ").rstrip()


def test_a_copy_has_the_commands_of_the_journal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "exchange.db", COMMANDS)
    before = path.read_bytes()
    folder = tmp_path / "safe"
    folder.mkdir()
    target = folder / "copy.db"
    assert main([str(path), str(target)]) == 0
    assert capsys.readouterr() == (
        f"{target}: 43 batches, 300 commands,"
        f" {target.stat().st_size:,} bytes\n",
        "",
    )
    assert read(target) == COMMANDS
    assert list(folder.iterdir()) == [target], "nothing else, then or now"
    assert path.read_bytes() == before


def test_an_exchange_can_go_on_from_a_copy(tmp_path: Path) -> None:
    path = write(tmp_path / "exchange.db", COMMANDS[:200])
    target = tmp_path / "copy.db"
    assert main([str(path), str(target)]) == 0
    with Journal(target) as journal:
        list(journal.recover())
        append(journal, COMMANDS[200:])
    assert recover(target) == COMMANDS
    assert read(path) == COMMANDS[:200]


def test_an_empty_journal_can_be_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "exchange.db", [])
    assert main([str(path), str(tmp_path / "copy.db")]) == 0
    assert ": 0 batches, 0 commands, " in capsys.readouterr().out
    assert recover(tmp_path / "copy.db") == []


def test_a_copy_is_made_while_the_journal_is_written(tmp_path: Path) -> None:
    path = tmp_path / "exchange.db"
    copies = [tmp_path / f"{i}.db" for i in range(2)]
    is_over = threading.Event()
    written: list[Command] = []

    def write_on() -> None:
        while not is_over.is_set():
            last = written[-1]
            batch = [
                Command(last.seq + i, last.ts + i, "", "", TimePassed())
                for i in range(1, 10)
            ]
            journal.append(
                batch[0].seq, [encode_record(c) for c in batch], None
            )
            written.extend(batch)

    with Journal(path) as journal:
        list(journal.recover())
        append(journal, COMMANDS)
        written += COMMANDS
        writing = threading.Thread(target=write_on)
        writing.start()
        try:
            for copy in copies:
                before = len(written)
                subprocess.run(
                    [sys.executable, "-m", "util.backup", path, copy],
                    cwd=ROOT,
                    stdout=PIPE,
                    check=True,
                )
                copied = read(copy)
                assert before <= len(copied) <= len(written) + 9
                assert (
                    len(written) > before
                ), "nothing was written at the same time"
        finally:
            is_over.set()
            writing.join()
    assert recover(path) == written
    for copy in copies:
        copied = read(copy)
        assert copied == written[: len(copied)]


def test_a_log_not_yet_in_the_file_is_in_the_copy(tmp_path: Path) -> None:
    path = tmp_path / "exchange.db"
    with Journal(path) as journal:
        list(journal.recover())
        append(journal, COMMANDS)
        alone = tmp_path / "alone.db"
        alone.write_bytes(path.read_bytes())
        assert recover(alone) == [], "all is in the log"
        assert main([str(path), str(tmp_path / "copy.db")]) == 0
    assert read(tmp_path / "copy.db") == COMMANDS


def test_nothing_is_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "exchange.db", COMMANDS)
    before = path.read_bytes()
    target = tmp_path / "copy.db"
    target.write_text("of yesterday")
    for there in (target, path, tmp_path):
        assert failed(capsys, path, there) == f"{there}: exists already"
    assert target.read_text() == "of yesterday"
    assert path.read_bytes() == before


def test_a_damaged_journal_is_not_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "exchange.db", COMMANDS)
    alter(path, "UPDATE batches SET last_seq = 15 WHERE first_seq = 8")
    folder = tmp_path / "safe"
    folder.mkdir()
    assert failed(capsys, path, folder / "copy.db") == (
        f"{path}: after command 7: a batch is missing or damaged"
    )
    assert not list(folder.iterdir())


def test_a_page_that_hides_the_end_is_not_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "exchange.db", COMMANDS[:7], per_batch=1)
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA page_size").fetchone() == (4096,)
    damaged = bytearray(path.read_bytes())
    cells = 4096 + 3  # of the second page: how many rows it has
    assert int.from_bytes(damaged[cells : cells + 2]) == 7
    damaged[cells + 1] ^= 1
    path.write_bytes(damaged)
    reason = failed(capsys, path, tmp_path / "copy.db")
    assert reason.startswith(f"{path}: damaged: ")


def test_a_file_that_is_not_a_journal_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("buy low, sell high\n")
    none, target = tmp_path / "none.db", tmp_path / "copy.db"
    assert failed(capsys, none, target) == f"{none}: there is no such journal"
    assert failed(capsys, text, target) == f"{text}: file is not a database"
    path = write(tmp_path / "exchange.db", COMMANDS)
    nowhere = tmp_path / "no folder" / "copy.db"
    assert "No such file" in failed(capsys, path, nowhere)
    assert not target.exists()
