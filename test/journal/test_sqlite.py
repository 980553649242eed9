"""The journal's file: append, read, recover; what is refused; one writer."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import PIPE

import pytest

from exchange.journal.records import encode_record
from exchange.journal.sqlite import (
    APPLICATION_ID,
    FORMAT_VERSION,
    FORMATS,
    Journal,
    JournalError,
    count_commands,
    read_journal,
)
from exchange.market.command import (
    ENGINE_VERSION,
    RULES,
    Command,
    Configure,
    TimePassed,
)
from test.journal.files import (
    COMMANDS,
    ROOT,
    alter,
    append,
    read,
    recover,
    refused,
    write,
)
from test.market.flows import MARKET, flow

APPENDER = """
import resource, sys
from pathlib import Path
from exchange.journal.sqlite import Journal
if int(sys.argv[2]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
journal = Journal(Path(sys.argv[1]))
list(journal.recover())
for line in sys.stdin:
    records = line.rstrip().split("\t")
    print(journal.append(journal.last_seq + 1, records, None), flush=True)
"""


# A day and the next ---------------------------------------------------------


def test_appended_commands_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "data" / "exchange.db"
    with Journal(path) as journal:
        assert list(journal.recover()) == [] and journal.last_seq == 0
        records = [encode_record(c) for c in COMMANDS[:3]]
        assert journal.append(1, records, None) == journal.last_seq == 3
        assert journal.append(4, [encode_record(COMMANDS[3])], None) == 4
        batches = list(read_journal(path))
        assert batches == [COMMANDS[:3], COMMANDS[3:4]]
    assert recover(path) == read(path) == COMMANDS[:4]


def test_after_recovery_it_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = write(tmp_path / "exchange.db", COMMANDS[:100])
    with Journal(path) as journal:
        assert journal.count() == count_commands(path) == 100
        assert len(list(journal.recover())) == 15
        assert journal.last_seq == 100
        append(journal, COMMANDS[100:], per_batch=50)
    assert recover(path) == read(path) == COMMANDS


def test_a_batch_must_follow_the_one_before(tmp_path: Path) -> None:
    with Journal(tmp_path / "exchange.db") as journal:
        list(journal.recover())
        records = [encode_record(COMMANDS[0])]
        for first_seq in (0, 2):
            with pytest.raises(AssertionError):
                journal.append(first_seq, records, None)
        journal.append(1, records, None)
        with pytest.raises(AssertionError):
            journal.append(1, records, None)
        with pytest.raises(AssertionError):
            journal.append(2, [], None)
        assert journal.last_seq == 1


def test_a_journal_is_durable_and_says_what_it_is(tmp_path: Path) -> None:
    with Journal(tmp_path / "exchange.db") as journal:
        list(journal.recover())
        pragmas = {
            name: journal.file.execute(f"PRAGMA {name}").fetchone()[0]
            for name in (
                "application_id",
                "user_version",
                "journal_mode",
                "synchronous",
            )
        }
        trouble, free = journal.look()
        assert trouble == "" and 0 < free
    assert pragmas == {
        "application_id": APPLICATION_ID,
        "user_version": FORMAT_VERSION,
        "journal_mode": "wal",
        "synchronous": 2,  # FULL: each commit is on disk
    }
    assert APPLICATION_ID.to_bytes(4) == b"EXCH"


@pytest.mark.parametrize("suffix", ["", "-wal", ".lock"])
def test_a_file_that_is_taken_away_is_missed(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / "exchange.db"
    name = f"exchange.db{suffix}"
    file, away = tmp_path / name, tmp_path / "away"
    with Journal(path) as journal:
        list(journal.recover())
        assert journal.look()[0] == ""
        file.rename(away)
        assert journal.look() == (f"the journal's file {name} is gone", 0)
        file.touch()
        assert journal.look() == (f"the journal's file {name} was replaced", 0)
        away.replace(file)
        trouble, free = journal.look()
        assert trouble == "" and free > 0
        folder = tmp_path.rename(tmp_path.with_name("elsewhere"))
        assert "is gone" in journal.look()[0]
        tmp_path.symlink_to(tmp_path)
        assert "symbolic links" in journal.look()[0]
        tmp_path.unlink()
        folder.rename(tmp_path)
        assert journal.look()[0] == ""


def test_a_file_of_a_failed_start_is_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "exchange.db"
    path.touch()
    path.with_name("exchange.db.new").write_bytes(b"half a head")
    assert recover(write(path, COMMANDS)) == COMMANDS
    assert not path.with_name("exchange.db.new").exists()


def test_a_reader_follows_the_writer_and_is_not_in_its_way(
    tmp_path: Path,
) -> None:
    path = tmp_path / "exchange.db"
    with Journal(path) as journal:
        list(journal.recover())
        append(journal, COMMANDS[:14])
        batches = read_journal(path)
        assert next(batches) == COMMANDS[:7]
        append(journal, COMMANDS[14:21])
        busy, *_ = journal.file.execute(
            "PRAGMA wal_checkpoint(TRUNCATE)"
        ).fetchone()
        assert not busy, "the log can be tidied up between two batches"
        append(journal, COMMANDS[21:28])
        assert [c for b in batches for c in b] == COMMANDS[7:28]


# What is refused ------------------------------------------------------------


def newer_format(path: Path) -> None:
    write(path, COMMANDS)
    alter(path, f"PRAGMA user_version = {FORMATS[-1] + 1}")


OTHER_ENGINE = Configure(
    instruments=MARKET.instruments, engine_version=ENGINE_VERSION + 1
)


def other_engine(path: Path) -> None:
    write(path, [Command(1, 1, "", "", OTHER_ENGINE)])


def bad_record(path: Path) -> None:
    with Journal(path) as journal:
        list(journal.recover())
        append(journal, COMMANDS[:7])
        journal.append(8, ['[99,"","",{"type":"merge"}]'], None)


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda p: p.write_text("a"), "a database, but not a journal"),
        (lambda p: p.write_text("a" * 9), "file is not a database"),
        (lambda p: p.write_text("a" * 9_999), "file is not a database"),
        (
            lambda p: alter(p, "CREATE TABLE batches (first_seq)"),
            "a database, but not a journal",
        ),
        (newer_format, "of format 4; this program reads formats 1 to 3"),
        (
            other_engine,
            f"needs version {ENGINE_VERSION + 1} of the rules; this program"
            f" has versions {RULES[0]} to {ENGINE_VERSION}: use a newer"
            " release",
        ),
        (
            lambda p: write(p, [Command(1, 1, "", "", TimePassed())]),
            "the first command is not a configuration",
        ),
        (
            bad_record,
            "after command 7: a record that this program cannot read",
        ),
    ],
    ids="one-byte few-bytes text foreign format engine first record".split(),
)
def test_an_unreadable_file_is_refused_and_not_changed(
    tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    path = tmp_path / "exchange.db"
    make(path)
    assert refused(path) == reason


def test_there_must_be_a_journal_to_read(tmp_path: Path) -> None:
    path = tmp_path / "exchange.db"
    with pytest.raises(JournalError, match="exchange.db: there is no such"):
        read(path)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_journal(tmp_path: Path) -> None:
    for use in (recover, read):
        with pytest.raises(JournalError):
            use(tmp_path)


# One writer -----------------------------------------------------------------


def appending(
    path: Path, commands: Sequence[Command], limit: int = 0
) -> subprocess.Popen[str]:
    """Append in another process, which prints what it has committed.

    ``limit`` is the most bytes that it may write to a file; 0: any.
    """
    batches = path.with_name("batches")
    batches.write_text(
        "".join(
            "\t".join(map(encode_record, commands[i : i + 3])) + "\n"
            for i in range(0, len(commands), 3)
        )
    )
    with batches.open() as lines:
        return subprocess.Popen(
            [sys.executable, "-c", APPENDER, path, str(limit)],
            cwd=ROOT,
            stdin=lines,
            stdout=PIPE,
            stderr=PIPE,
            text=True,
        )


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "exchange.db"
    with Journal(path) as journal:
        list(journal.recover())
        append(journal, COMMANDS[:21])
        before = path.read_bytes()
        _, errors = appending(path, COMMANDS).communicate()
        assert errors.endswith(
            f"JournalError: {path}: another exchange is writing this"
            " journal\n"
        )
        with pytest.raises(JournalError, match="another exchange is writing"):
            Journal(path)
        assert path.read_bytes() == before
        append(journal, COMMANDS[21:])
    assert recover(path) == COMMANDS


def test_a_writer_that_was_killed_left_what_it_had_committed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "exchange.db"
    rng = random.Random(8)
    commands = list(flow(rng, 30_000))
    found: list[Command] = []
    for _ in range(5):
        with appending(path, commands[len(found) :]) as process:
            assert process.stdout is not None
            for _ in range(rng.randrange(1, 60)):
                reported = process.stdout.readline()
            process.kill()
            reported = (process.stdout.readlines() or [reported])[-1]
            assert not reported or reported.endswith("\n")
        assert process.returncode == -9, "in the middle of it"
        found = read(path)
        assert found == commands[: len(found)]
        assert 0 <= len(found) - int(reported) <= 3, "one batch at most"
    assert recover(path) == found


def test_a_refused_journal_keeps_what_a_crash_left(
    tmp_path: Path,
) -> None:
    path = tmp_path / "exchange.db"
    commands = [Command(1, 1, "", "", OTHER_ENGINE), *COMMANDS[1:]]
    with appending(path, commands) as process:
        assert process.stdout is not None and process.stdout.readline()
        process.kill()
    log = path.with_name("exchange.db-wal").read_bytes()
    assert log
    assert f"needs version {ENGINE_VERSION + 1} of the rules" in refused(path)
    assert path.with_name("exchange.db-wal").read_bytes() == log


# No space -------------------------------------------------------------------


def test_a_full_disk_refuses_a_batch_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "exchange.db"
    with Journal(path) as journal:
        list(journal.recover())
        append(journal, COMMANDS[:200])
        journal.file.execute("PRAGMA max_page_count = 1")  # no page more
        with pytest.raises(sqlite3.OperationalError, match="full"):
            append(journal, COMMANDS[200:])
        held = journal.last_seq
        assert 200 <= held < len(COMMANDS)
        assert read(path) == COMMANDS[:held]
        journal.file.execute("PRAGMA max_page_count = 1000000")
        append(journal, COMMANDS[held:])
    assert recover(path) == COMMANDS


def test_a_disk_that_fails_ends_the_writer_and_not_the_journal(
    tmp_path: Path,
) -> None:
    path = tmp_path / "exchange.db"
    found: list[Command] = []
    for limit in (40_000, 80_000, 120_000):
        process = appending(path, COMMANDS[len(found) :], limit)
        output, errors = process.communicate()
        assert process.returncode == 1
        assert "sqlite3.OperationalError: disk" in errors.splitlines()[-1]
        reported = int(output.splitlines()[-1])
        assert reported > len(found)
        found = read(path)
        assert found == COMMANDS[: len(found)]
        assert 0 <= len(found) - reported <= 3, "one batch at most"
    with Journal(path) as journal:
        list(journal.recover())
        append(journal, COMMANDS[journal.last_seq :])
    assert recover(path) == COMMANDS


@pytest.mark.parametrize("limit", [1_000, 5_000, 9_000])
def test_a_start_that_failed_can_be_tried_again(
    tmp_path: Path, limit: int
) -> None:
    path = tmp_path / "exchange.db"
    _, errors = appending(path, COMMANDS, limit).communicate()
    assert "Error: " in errors and "disk" in errors.splitlines()[-1]
    assert write(path, COMMANDS) and recover(path) == COMMANDS
