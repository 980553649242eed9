"""Snapshots beside a journal: which counts, which is refused, pruning."""

from __future__ import annotations

import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE

import pytest

from exchange.gateway.gateway import Gateway
from exchange.host import snapshots as host_snapshots
from exchange.host.clock import Clock
from exchange.host.recovery import Recovery, recover
from exchange.host.snapshots import keep_state
from exchange.journal.records import encode_record
from exchange.journal.replica import Replica
from exchange.journal.snapshots.file import (
    FORMAT,
    TEXTS,
    SnapshotError,
    check,
    dump,
    head_of,
    lines_of,
    read_head,
    write,
)
from exchange.journal.snapshots.folder import Snapshots
from exchange.journal.sqlite import Journal, JournalError, read_journal
from exchange.market.command import ENGINE_VERSION, Command
from test.journal.files import ROOT, alter, read
from test.journal.golden import DAYS, GOLDEN
from test.journal.states import apply, busy_day, lines, new
from test.support import NOON
from util import backup, compact, replay
from util.event.record import FILE as RECORD_FILE

PER_BATCH = 11
COMMANDS = busy_day(3, 1_200, 0)[:1_200]
FIRST, SECOND, THIRD, END = 330, 660, 990, 1_199


def write_journal(
    path: Path, commands: list[Command], replica: Replica | None = None
) -> Replica:
    """Append commands as an exchange does; return what came of them."""
    replica = replica or new()
    with Journal(path) as journal:
        for _ in journal.recover():
            pass
        for first in range(0, len(commands), PER_BATCH):
            batch = commands[first : first + PER_BATCH]
            for command in batch:
                apply(replica, command)
            records = [encode_record(command) for command in batch]
            journal.append(batch[0].seq, records, replica.checksum.value)
    return replica


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "exchange.db"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Return a journal with three snapshots, and the lines of its state."""
    path = tmp_path_factory.mktemp("three") / "exchange.db"
    replica, done = new(), 0
    for end in (FIRST, SECOND, THIRD):
        write_journal(path, COMMANDS[done:end], replica)
        assert compact.main([str(path)]) == 0
        done = end
    write_journal(path, COMMANDS[done:], replica)
    return path, lines(replica)


@pytest.fixture
def journal(three: tuple[Path, list[str]], tmp_path: Path) -> Path:
    """Return a copy of it."""
    shutil.copytree(three[0].parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / three[0].name


def started(path: Path) -> tuple[Gateway, Recovery]:
    """Recover a journal as an exchange does at its start."""
    gateway = Gateway(lambda: NOON, durable=True)
    recovery = recover(path, gateway, Clock(), Journal)
    recovery.journal.close()
    return gateway, recovery


def loaded(path: Path) -> int:
    """Return the command of the snapshot from which a start goes on."""
    return started(path)[1].loaded


def names(path: Path) -> list[str]:
    found = [p.name for p in path.parent.iterdir() if ".snapshot-" in p.name]
    return sorted(found)


def names_of(*seqs: int) -> list[str]:
    return sorted(f"exchange.db.snapshot-{seq}" for seq in seqs)


# What a start takes ---------------------------------------------------------


def test_a_start_from_a_snapshot_is_as_one_without(
    journal: Path, three: tuple[Path, list[str]]
) -> None:
    assert names(journal) == names_of(FIRST, SECOND, THIRD)
    for seq in (THIRD, SECOND, FIRST, 0):
        gateway, recovery = started(journal)
        assert recovery.loaded == seq
        assert recovery.commands == gateway.sequencer.seq == END + 1
        assert lines(gateway.replica) == three[1]
        text = f"1,200 commands recovered in {recovery.took_s:.1f} s"
        if seq:
            text += f", {seq} of them from a snapshot"
        assert str(recovery).endswith(text)
        if seq:
            Snapshots(journal).path_of(seq).unlink()


def test_it_goes_on_writing_and_is_read_back(journal: Path) -> None:
    with Journal(journal) as writer:
        place = writer.place_at(THIRD)
        assert place is not None
        for _ in writer.recover(place):
            pass
        assert writer.end.seq == END + 1
        records = [encode_record(c) for c in COMMANDS[:2]]
        writer.append(END + 2, records, None)
    found = [c for batch in read_journal(journal) for c in batch]
    assert len(found) == END + 3


def test_at_the_last_command_there_is_nothing_to_replay(path: Path) -> None:
    replica = write_journal(path, COMMANDS[:FIRST])
    assert compact.main([str(path)]) == 0
    gateway, recovery = started(path)
    assert recovery.loaded == recovery.commands == FIRST
    assert lines(gateway.replica) == lines(replica)
    write_journal(path, COMMANDS[FIRST:SECOND], replica)
    assert lines(started(path)[0].replica) == lines(replica)


def refusal(
    caplog: pytest.LogCaptureFixture, journal: Path, before: int = SECOND
) -> str:
    """Return why the newest snapshot was not taken, but the one before."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "exchange"):
        assert loaded(journal) == before
    (message,) = caplog.messages
    head = f"the snapshot exchange.db.snapshot-{THIRD} is not used: "
    assert message.startswith(head)
    return message.removeprefix(head)


def rewritten(path: Path, **changes: object) -> None:
    """Write a snapshot again with another head."""
    head, _ = read_head(path)
    found = [*lines_of(path)]
    write(path, replace(head, **changes), found)  # type: ignore[arg-type]
    if "format" not in changes:
        check(path)


@pytest.mark.parametrize(
    "changes, reason",
    [
        (
            {"format": FORMAT + 1},
            f"of format {FORMAT + 1}; this program reads format {FORMAT}",
        ),
        (
            {"format": 0},
            f"of format 0; this program reads format {FORMAT}",
        ),
        (
            {"rules": ENGINE_VERSION + 1},
            f"of version {ENGINE_VERSION + 1} of the rules, which this program"
            " does not have",
        ),
        ({"digest": "00" * 32}, "of another journal: the digest differs"),
        ({"seq": THIRD + 1}, f"it is of command {THIRD + 1}, as it says"),
    ],
    ids=["newer", "older", "rules", "journal", "name"],
)
def test_one_that_does_not_fit_is_passed_over(
    journal: Path,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, object],
    reason: str,
) -> None:
    rewritten(Snapshots(journal).path_of(THIRD), **changes)
    assert refusal(caplog, journal) == reason


def test_one_of_other_sentences_can_be_loaded(journal: Path) -> None:
    rewritten(Snapshots(journal).path_of(THIRD), texts=TEXTS + 1)
    assert loaded(journal) == THIRD


def test_one_that_is_newer_than_the_journal_is_passed_over(
    journal: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a copy of yesterday was put back."""
    alter(journal, f"DELETE FROM batches WHERE last_seq >= {THIRD}")
    reason = "no batch of the journal ends with its command"
    assert refusal(caplog, journal) == reason


def test_a_bit_that_flips_is_noticed_or_harmless(
    journal: Path,
    three: tuple[Path, list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Harmless are bits that decompress to the same, such as padding."""
    path = Snapshots(journal).path_of(THIRD)
    good = path.read_bytes()
    head, wanted = read_head(path), [*lines_of(path)]
    places = [*range(0, 400), *range(400, len(good), 97), len(good) - 1]
    noticed = 0
    for place in places:
        damaged = bytearray(good)
        damaged[place] ^= 1 << random.randrange(8)
        path.write_bytes(damaged)
        try:
            check(path)
        except SnapshotError:
            noticed += 1
        else:
            assert read_head(path) == head and [*lines_of(path)] == wanted
    assert noticed > len(places) - 10
    damaged = bytearray(good)
    damaged[len(good) // 2] ^= 4
    path.write_bytes(damaged)
    assert refusal(caplog, journal).startswith("damaged: ")


@pytest.mark.parametrize("size", [0, 1, 200, 1_000, -1])
def test_one_that_is_cut_off_or_goes_on_is_refused(
    journal: Path, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    path = Snapshots(journal).path_of(THIRD)
    content = path.read_bytes()
    path.write_bytes(content[:size] if size >= 0 else content + b"x")
    assert refusal(caplog, journal).startswith("damaged: ")


def test_a_name_with_another_ending_does_not_count(journal: Path) -> None:
    good = Snapshots(journal).path_of(THIRD)
    for suffix in (".new", ".unverified", ".old", "x"):
        other = good.with_name(f"exchange.db.snapshot-{END + 1}{suffix}")
        shutil.copy(good, other)
    assert loaded(journal) == THIRD


# Making one -----------------------------------------------------------------


def test_the_last_three_are_kept(path: Path) -> None:
    replica = new()
    for end in range(110, 661, 110):
        write_journal(path, COMMANDS[end - 110 : end], replica)
        assert compact.main([str(path)]) == 0
    assert names(path) == names_of(440, 550, 660)


def test_the_tool_says_what_it_made(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = journal.read_bytes()
    assert compact.main([str(journal)]) == 0
    made = Snapshots(journal).path_of(END + 1)
    assert capsys.readouterr().out == (
        f"{made}: 1,200 commands, {made.stat().st_size:,} bytes, verified by a"
        f" replay from command {SECOND + 1}\n"
    )
    assert compact.main([str(journal)]) == 0
    assert capsys.readouterr().out == (
        f"{journal}: nothing new since the last snapshot\n"
    )
    assert journal.read_bytes() == before


def test_a_journal_that_ends_amid_long_work(path: Path) -> None:
    """The state before it is kept: an exchange was killed at its end."""
    rest = 0
    golden = read(GOLDEN)
    replica = new()
    for command in golden:
        apply(replica, command)
        if replica.engine.work:
            break
        rest = command.seq
    write_one_by_one(path, golden[: rest + 1])
    assert replica.engine.work
    assert compact.main([str(path)]) == 0
    assert Snapshots(path).verified() == [Snapshots(path).path_of(rest)]
    gateway, recovery = started(path)
    assert recovery.loaded == rest and gateway.engine.work


def write_one_by_one(path: Path, commands: list[Command]) -> None:
    with Journal(path) as journal:
        assert not [*journal.recover()]
        for command in commands:
            journal.append(command.seq, [encode_record(command)], None)


KILLED = """
import os, signal, sys
import util.compact
left = int(sys.argv[2])
sync = os.fsync
def fsync(file):
    global left
    sync(file)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = fsync
util.compact.main([sys.argv[1]])
"""


@pytest.mark.parametrize(
    "syncs, left",
    [(1, ".new"), (2, ".unverified"), (3, "")],
    ids=["written", "named", "verified"],
)
def test_whoever_is_killed_leaves_none_that_counts(
    journal: Path, syncs: int, left: str
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(journal), str(syncs)], cwd=ROOT
    )
    assert killed.returncode == -signal.SIGKILL
    rest = f"exchange.db.snapshot-{END + 1}{left}"
    others = names_of(FIRST, SECOND, THIRD)
    assert names(journal) == sorted([*others, rest])
    assert loaded(journal) == (END + 1 if not left else THIRD)
    assert compact.main([str(journal)]) == 0
    assert f"exchange.db.snapshot-{END + 1}" in names(journal)
    assert not [n for n in names(journal) if n.endswith(("new", "unverified"))]
    assert loaded(journal) == END + 1


def test_a_disk_that_is_full_leaves_nothing(journal: Path) -> None:
    limited = subprocess.run(
        [sys.executable, "-m", "util.compact", str(journal)],
        cwd=ROOT,
        stderr=PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_FSIZE, (40_000, 40_000)
        ),
    )
    assert limited.returncode == 1
    assert limited.stderr == "compact: [Errno 27] File too large\n"
    assert names(journal) == names_of(FIRST, SECOND, THIRD)


def test_one_tool_at_a_time(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Snapshots(journal).lock():
        assert compact.main([str(journal)]) == 1
    error = capsys.readouterr().err
    assert error.endswith("another process is making a snapshot\n")


def test_a_child_that_was_forked_makes_one(path: Path) -> None:
    """As a follower of a stream does, which goes on meanwhile."""
    replica = write_journal(path, COMMANDS[:FIRST])
    with Journal(path) as journal:
        place = journal.place_at(FIRST)
    assert place is not None
    child = os.fork()
    if not child:
        status = 1
        try:
            head = head_of(replica, place.digest, stream=77)
            Snapshots(path).write(head, dump(replica))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    (made,) = Snapshots(path).unverified()
    assert read_head(made)[0].stream == 77
    assert started(path)[1].loaded == 0
    assert started(path)[1].loaded == FIRST, "verified by the start before"


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_the_lines_do_not_depend_on_hashes(hash_seed: str) -> None:
    elsewhere = subprocess.run(
        [sys.executable, "-m", "test.journal.states"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=PIPE,
        text=True,
        check=True,
    )
    recorded = [day.with_suffix(".snapshot").read_text() for day in DAYS]
    assert elsewhere.stdout.split() == [text.split()[1] for text in recorded]


# At a stop, and verified by the next start ----------------------------------


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_snapshots, "COMMANDS_BETWEEN", 200)


def stopped(path: Path, replica: Replica, late: bool = False) -> None:
    """Do what a server does at the end of its stop."""
    with Journal(path) as journal:
        for _ in journal.recover():
            pass
    ticks = iter(range(0, 10**12, 10**9 if late else 1))
    keep_state(journal, replica, lambda: next(ticks))


def test_a_stop_makes_one_that_the_next_start_verifies(
    path: Path, often: None
) -> None:
    replica = write_journal(path, COMMANDS[:FIRST])
    stopped(path, replica)
    assert names(path) == [f"exchange.db.snapshot-{FIRST}.unverified"]
    assert loaded(path) == 0
    assert names(path) == names_of(FIRST)
    assert loaded(path) == FIRST
    write_journal(path, COMMANDS[FIRST : FIRST + 110], replica)
    stopped(path, replica)
    assert names(path) == names_of(FIRST), "too few commands since"


def test_the_tool_verifies_one_of_a_stop_in_passing(
    path: Path, often: None, capsys: pytest.CaptureFixture[str]
) -> None:
    replica = write_journal(path, COMMANDS[:FIRST])
    stopped(path, replica)
    assert compact.main([str(path)]) == 0
    assert "verified while it was made" in capsys.readouterr().out
    assert names(path) == names_of(FIRST)


def test_a_stop_that_takes_too_long_makes_none(
    path: Path, often: None, caplog: pytest.LogCaptureFixture
) -> None:
    replica = write_journal(path, COMMANDS[:FIRST])
    stopped(path, replica, late=True)
    assert names(path) == []
    assert caplog.messages == ["no snapshot was made: it takes too long"]


def test_a_state_that_is_not_true_never_counts(
    path: Path, often: None, caplog: pytest.LogCaptureFixture
) -> None:
    replica = write_journal(path, COMMANDS[:FIRST])
    replica.engine.accounts["ann"].cash += 1
    stopped(path, replica)
    assert loaded(path) == 0
    assert names(path) == []
    assert caplog.messages[-1].endswith("a replay comes to another state")


def test_one_of_another_release_is_not_compared(
    path: Path, often: None, caplog: pytest.LogCaptureFixture
) -> None:
    replica = write_journal(path, COMMANDS[:FIRST])
    stopped(path, replica)
    (made,) = Snapshots(path).unverified()
    rewritten(made, texts=TEXTS + 1)
    assert loaded(path) == 0 and names(path) == []
    assert caplog.messages[-1].endswith("another release has made it")


def test_a_snapshot_that_leads_elsewhere_stops_the_start(
    journal: Path, path: Path
) -> None:
    """The checksum of the outputs shows it, as with a fault of the dump."""
    made = Snapshots(journal).path_of(THIRD)
    rewritten(made, checksum=1)
    with pytest.raises(JournalError) as caught:
        started(journal)
    assert str(caught.value).endswith(
        f". {made.name} was loaded: without it the start is from the snapshot"
        " before"
    )
    made.unlink()
    assert loaded(journal) == SECOND


# Pruning --------------------------------------------------------------------


@pytest.fixture
def pruned(journal: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    size = journal.stat().st_size
    assert compact.main([str(journal), "--prune"]) == 0
    assert capsys.readouterr().out == (
        f"{journal}: begins with command {SECOND + 1} now,"
        f" {journal.stat().st_size:,} bytes instead of {size:,}\n"
    )
    assert journal.stat().st_size < size * 0.7
    return journal


def test_a_pruned_journal_goes_on(
    pruned: Path, three: tuple[Path, list[str]]
) -> None:
    assert names(pruned) == names_of(SECOND, THIRD)
    assert lines(started(pruned)[0].replica) == three[1]
    Snapshots(pruned).path_of(THIRD).unlink()
    gateway, recovery = started(pruned)
    assert recovery.loaded == SECOND
    assert lines(gateway.replica) == three[1]
    assert compact.main([str(pruned)]) == 0
    assert loaded(pruned) == END + 1


def test_without_its_snapshots_it_is_refused(pruned: Path) -> None:
    for made in Snapshots(pruned).verified():
        made.unlink()
    reason = (
        f"{pruned}: begins with command {SECOND + 1}: the commands before it"
        " were pruned, and what came of them is only in its snapshots"
    )
    for use in (started, lambda path: [*read_journal(path)]):
        with pytest.raises(JournalError) as caught:
            use(pruned)
        assert str(caught.value) == reason


def test_its_chain_is_verified_from_there(pruned: Path) -> None:
    alter(
        pruned,
        "UPDATE batches SET records = CAST(replace(records, 'ann', 'bob')"
        " AS BLOB)"
        f" WHERE first_seq = {SECOND + 1}",
    )
    Snapshots(pruned).path_of(THIRD).unlink()
    with pytest.raises(JournalError, match="a batch is missing or damaged"):
        started(pruned)


def test_it_is_replayed_from_where_it_begins(
    pruned: Path,
    three: tuple[Path, list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def printed(path: Path, *options: str) -> tuple[list[str], str]:
        assert replay.main([str(path), "--format", "jsonl", *options]) == 0
        output, errors = capsys.readouterr()
        return output.splitlines(), errors

    note = (
        f"{pruned}: begins with command {SECOND + 1}: those before were"
        " pruned\n"
    )
    found, errors = printed(pruned)
    assert errors == note
    whole, _ = printed(three[0])
    assert found == whole[-len(found) :]
    assert found[0].startswith(f'{{"seq":{SECOND + 1},')
    assert replay.main([str(pruned), "--verify"]) == 0
    output, errors = capsys.readouterr()
    assert f": good: {END + 1 - SECOND} commands and" in output
    assert errors == note


def test_an_older_program_refuses_it(pruned: Path) -> None:
    """It reads formats 1 and 2; see `test_sqlite` for what it says."""
    with Journal(pruned) as journal:
        version = journal.file.execute("PRAGMA user_version").fetchone()
    assert version == (3,)


def test_a_copy_of_it_has_its_snapshots(
    pruned: Path, three: tuple[Path, list[str]], tmp_path: Path
) -> None:
    copy = tmp_path / "safe" / "exchange.db"
    copy.parent.mkdir()
    assert backup.main([str(pruned), str(copy)]) == 0
    assert names(copy) == names_of(SECOND, THIRD)
    assert lines(started(copy)[0].replica) == three[1]


def refused_to_prune(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    before = path.read_bytes()
    assert compact.main([str(path), "--prune"]) == 1
    assert path.read_bytes() == before
    return capsys.readouterr().err.removeprefix("compact: ").rstrip()


def test_a_journal_that_is_written_is_not_pruned(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Journal(journal):
        assert refused_to_prune(journal, capsys) == (
            f"{journal}: another exchange is writing this journal"
        )


def test_one_snapshot_is_not_enough(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seq in (FIRST, SECOND):
        Snapshots(journal).path_of(seq).unlink()
    assert refused_to_prune(journal, capsys) == (
        f"{journal}: has 1 of the two snapshots that are needed: run"
        " util.compact, and again after more commands"
    )


@pytest.mark.parametrize("levels", [0, 2])
def test_a_journal_of_an_event_is_not_pruned(
    journal: Path, capsys: pytest.CaptureFixture[str], levels: int
) -> None:
    assert compact.EVENT_FILE == RECORD_FILE
    event = journal.parent
    if levels:
        event = journal.parent / "event"
        match = event / "A" / "01"
        shutil.copytree(journal.parent, match, ignore=lambda *_: ["event"])
        journal = match / journal.name
    (event / RECORD_FILE).touch()
    assert refused_to_prune(journal, capsys) == (
        f"{journal}: of the event in {event}, which reads all of it for its"
        " scores: it is not pruned"
    )


def test_nothing_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none.db"
    for options in ([], ["--prune"]):
        assert compact.main([str(path), *options]) == 1
        assert capsys.readouterr().err == (
            f"compact: {path}: there is no such journal\n"
        )
    assert not [*tmp_path.iterdir()]
