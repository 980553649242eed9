"""What was committed is there, as it was written, or the journal says no.

``appending`` leads a process of its own that appends batches and prints what
it has committed, to be killed or starved of space.

``golden/`` has one busy day for each version of the rules that the engine
knows: ``rules-2.journal`` holds the commands, as the program of that version
wrote them, and ``rules-2.sha256`` the digest of the events, without the texts
written for people (``message``). A digest that differs means that the rules
have changed. If that is intended, raise ENGINE_VERSION and run
``python -m test.journal.test_journal golden``: it writes the files of the new
version and keeps the old ones. With ``events`` in the place of ``golden`` it
prints the digests. Interpreters named in TEST_PYTHONS, separated as in PATH,
are tried as well.
"""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from subprocess import PIPE
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.journal.records import decode_records, encode_record
from exchange.journal.sqlite import (
    APPLICATION_ID,
    FORMAT_VERSION,
    Journal,
    JournalError,
    count_commands,
    read_journal,
)
from exchange.market.accounts import AccountLimits
from exchange.market.command import (
    ENGINE_VERSION,
    RULES,
    Action,
    ClockStep,
    Command,
    Configure,
    Connect,
    Disconnect,
    Restart,
    Shutdown,
    TimePassed,
)
from exchange.market.engine import Engine
from orderbook import (
    ADMIN_ARGUMENTS,
    MAX_INT,
    Admin,
    AdminAction,
    Amend,
    Cancel,
    CancelAfter,
    CancelAll,
    Code,
    Error,
    Exec,
    Instrument,
    Liquidity,
    Ok,
    Phase,
    Place,
    Reason,
    Status,
    encode,
)
from test.market.test_engine import MARKET, flow
from test.script import in_full
from test.support import order, serving, wired

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "test" / "golden" / f"rules-{ENGINE_VERSION}.journal"
DAYS = sorted(GOLDEN.parent.glob("rules-*.journal"))
GOLDEN_COMMANDS = 1_400
GOLDEN_BYTES = 200_000  # at most
PYTHONS = [sys.executable]
PYTHONS += filter(None, os.environ.get("TEST_PYTHONS", "").split(os.pathsep))

COMMANDS = list(flow(random.Random(5), 400))

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
    print(journal.append(journal.last_seq + 1, records), flush=True)
"""


def append(
    journal: Journal, commands: Sequence[Command], per_batch: int = 7
) -> None:
    for i in range(0, len(commands), per_batch):
        batch = commands[i : i + per_batch]
        journal.append(batch[0].seq, [encode_record(c) for c in batch])


def write(path: Path, commands: Sequence[Command], per_batch: int = 7) -> Path:
    """Write a journal of these commands."""
    with Journal(path) as journal:
        list(journal.recover())
        append(journal, commands, per_batch)
    return path


def read(path: Path) -> list[Command]:
    return [command for batch in read_journal(path) for command in batch]


def recover(path: Path) -> list[Command]:
    """Open a journal as a server does; return what it holds."""
    with Journal(path) as journal:
        assert journal.count() >= 0
        commands = [c for batch in journal.recover() for c in batch]
        assert journal.last_seq == len(commands)
    return commands


def refused(path: Path) -> str:
    """Return why a journal is refused, to its owner and to a reader.

    Each time it must be named, and left as it is.
    """
    before = path.read_bytes()
    reasons = set()
    for use in (recover, read):
        with pytest.raises(JournalError) as caught:
            use(path)
        assert path.read_bytes() == before
        file, _, reason = str(caught.value).partition(": ")
        assert file == str(path) and "\n" not in reason
        reasons.add(reason)
    (reason,) = reasons
    return reason


def alter(path: Path, sql: str, *values: Any) -> None:
    """Change a journal behind its back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute(sql, values)


def forget_readers(path: Path) -> None:
    """Remove what SQLite keeps beside a journal that is closed."""
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


# A day and the next -------------------------------------------------------


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "data" / "exchange.db"
    with Journal(path) as journal:
        assert list(journal.recover()) == [] and journal.last_seq == 0
        records = [encode_record(c) for c in COMMANDS[:3]]
        assert journal.append(1, records) == journal.last_seq == 3
        assert journal.append(4, [encode_record(COMMANDS[3])]) == 4
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
                journal.append(first_seq, records)
        journal.append(1, records)
        with pytest.raises(AssertionError):
            journal.append(1, records)
        with pytest.raises(AssertionError):
            journal.append(2, [])
        assert journal.last_seq == 1


def test_a_journal_is_durable_and_says_what_it_is(tmp_path: Path) -> None:
    with Journal(tmp_path / "exchange.db") as journal:
        list(journal.recover())
        pragmas = {
            name: journal._file.execute(f"PRAGMA {name}").fetchone()[0]
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


def test_what_a_start_that_failed_left_is_no_journal(tmp_path: Path) -> None:
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
        busy, *_ = journal._file.execute(
            "PRAGMA wal_checkpoint(TRUNCATE)"
        ).fetchone()
        assert not busy, "the log can be tidied up between two batches"
        append(journal, COMMANDS[21:28])
        assert [c for b in batches for c in b] == COMMANDS[7:28]


# Records ------------------------------------------------------------------


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def name(pattern: str) -> st.SearchStrategy[str]:
    return st.from_regex(pattern, fullmatch=True)


INTEGER = st.integers(-MAX_INT, MAX_INT)
SIDE = st.sampled_from(["buy", "sell"])
SYMBOL = name("[A-Z0-9_.-]{1,16}")
CLIENT_ORDER_ID = name("[A-Za-z0-9_.:-]{1,36}")
QTY = st.integers(1, MAX_INT)
USER = name("[A-Za-z0-9_.-]{1,32}")
PHASE = st.sampled_from(get_args(get_args(Phase)[0]))
LINE = st.characters(exclude_categories=("Cc", "Cs"))
WORDS = st.text(LINE, min_size=1, max_size=200)
ID = {"id": maybe(INTEGER | st.text(max_size=36))}
ONE_ORDER = st.one_of(
    st.fixed_dictionaries({"order_id": st.integers(0, MAX_INT)}),
    st.fixed_dictionaries({"client_order_id": CLIENT_ORDER_ID}),
)
CHANGES = st.one_of(
    st.fixed_dictionaries({"price": INTEGER, "qty": maybe(QTY)}),
    st.fixed_dictionaries({"qty": QTY}),
)
KINDS = st.one_of(
    st.fixed_dictionaries(
        {
            "order_type": st.just("market"),
            "time_in_force": st.sampled_from([None, "ioc", "fok"]),
        }
    ),
    st.fixed_dictionaries(
        {
            "price": INTEGER,
            "time_in_force": st.sampled_from([None, "gtc", "ioc", "fok"]),
        }
    ),
    st.fixed_dictionaries(
        {
            "price": INTEGER,
            "time_in_force": st.just("gtd"),
            "expire_ts": st.integers(0, MAX_INT),
            "post_only": st.booleans(),
        }
    ),
    st.fixed_dictionaries({"price": INTEGER, "post_only": st.just(True)}),
)
PLACE = st.fixed_dictionaries(
    {
        **ID,
        "symbol": maybe(SYMBOL),
        "side": SIDE,
        "qty": QTY,
        "stp": st.sampled_from(
            ["cancel_oldest", "cancel_newest", "cancel_both"]
        ),
        "client_order_id": maybe(CLIENT_ORDER_ID),
    }
)
INSTRUMENT = st.builds(
    Instrument,
    symbol=SYMBOL,
    tick_size=name(r"[0-9]{1,12}(\.[0-9]{1,12})?"),
    min_price=INTEGER,
    max_price=INTEGER,
    max_qty=QTY,
    phase=PHASE,
    max_position=INTEGER,
    short_selling=st.booleans(),
    maker_fee=INTEGER,
    taker_fee=INTEGER,
    reference_price=INTEGER,
    collar=INTEGER,
    band=INTEGER,
    auction_ms=INTEGER,
)
LIMITS = st.builds(
    AccountLimits,
    cash=INTEGER,
    min_cash=maybe(INTEGER),
    open_orders=INTEGER,
    max_position=st.dictionaries(SYMBOL, INTEGER, max_size=3),
)
ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    "symbol": SYMBOL,
    "phase": PHASE,
    "user": USER,
    "order_id": st.integers(0, MAX_INT),
    "cash": INTEGER,
    "qty": INTEGER,
    "price": INTEGER,
    "message": WORDS,
}


@st.composite
def admins(draw: st.DrawFn) -> Admin:
    """Return what an administrator may ask for."""
    action = draw(st.sampled_from(get_args(AdminAction)))
    needed, allowed = ADMIN_ARGUMENTS[action]
    chosen = sorted(needed | {a for a in allowed if draw(st.booleans())})
    if action == "adjust":
        what = [["cash"], ["symbol", "qty"], ["cash", "symbol", "qty"]]
        chosen = ["user", *draw(st.sampled_from(what))]
    given = {a: draw(ARGUMENTS[a]) for a in chosen if a in ARGUMENTS}
    if "reopen_ms" in chosen and given["phase"] not in ("open", "closed"):
        given["reopen_ms"] = draw(st.integers(1_000, 86_400_000))
    given |= {field: draw(its) for field, its in ID.items()}
    return Admin(action=action, reason=draw(WORDS), **given)


ACTIONS: dict[type, st.SearchStrategy[Any]] = {
    Place: st.builds(lambda a, b: Place(**a, **b), PLACE, KINDS),
    Amend: st.builds(
        lambda a, b, c: Amend(**a, **b, **c),
        st.fixed_dictionaries(ID),
        ONE_ORDER,
        CHANGES,
    ),
    Cancel: st.builds(
        lambda a, b: Cancel(**a, **b), st.fixed_dictionaries(ID), ONE_ORDER
    ),
    CancelAll: st.builds(
        CancelAll, **ID, symbol=maybe(SYMBOL), side=maybe(SIDE)
    ),
    CancelAfter: st.builds(
        CancelAfter,
        **ID,
        timeout_ms=st.just(0) | st.integers(1_000, 86_400_000),
    ),
    Admin: admins(),
    Connect: st.builds(Connect, st.booleans(), is_admin=st.booleans()),
    Disconnect: st.just(Disconnect()),
    TimePassed: st.just(TimePassed()),
    Configure: st.builds(
        Configure,
        instruments=st.lists(INSTRUMENT, max_size=3).map(tuple),
        limits=LIMITS,
        accounts=st.dictionaries(USER, LIMITS, max_size=3),
        engine_version=st.integers(1, MAX_INT),
    ),
    Shutdown: st.just(Shutdown()),
    Restart: st.just(Restart()),
    ClockStep: st.builds(ClockStep, forward_us=st.integers(1, MAX_INT)),
}


def test_the_strategies_leave_no_action_out() -> None:
    assert set(ACTIONS) == set(get_args(Action))


@pytest.mark.parametrize("kind", ACTIONS, ids=lambda kind: kind.__name__)
def test_every_command_survives(kind: type) -> None:
    commands = st.builds(
        Command,
        seq=st.integers(1, MAX_INT),
        ts=st.integers(1, MAX_INT),
        account=st.just("") | USER,
        session=st.just("") | name("[0-9a-f]{32}"),
        action=ACTIONS[kind],
    )

    @given(commands)
    def survives(command: Command) -> None:
        records = f"[{encode_record(command)}]".encode()
        (decoded,) = decode_records(command.seq, records)
        assert decoded == command
        assert type(decoded.action) is kind

    survives()


def test_a_place_in_the_journal_is_the_sequence_number() -> None:
    text = ",".join(encode_record(c) for c in COMMANDS[100:110])
    decoded = decode_records(COMMANDS[100].seq, f"[{text}]".encode())
    assert decoded == COMMANDS[100:110]


# What is refused ----------------------------------------------------------


def newer_format(path: Path) -> None:
    write(path, COMMANDS)
    alter(path, f"PRAGMA user_version = {FORMAT_VERSION + 1}")


OTHER_ENGINE = Configure(
    instruments=MARKET.instruments, engine_version=ENGINE_VERSION + 1
)


def other_engine(path: Path) -> None:
    write(path, [Command(1, 1, "", "", OTHER_ENGINE)])


def bad_record(path: Path) -> None:
    with Journal(path) as journal:
        list(journal.recover())
        append(journal, COMMANDS[:7])
        journal.append(8, ['[99,"","",{"type":"merge"}]'])


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda p: p.write_text("a"), "a database, but no journal"),
        (lambda p: p.write_text("a" * 9), "file is not a database"),
        (lambda p: p.write_text("a" * 9_999), "file is not a database"),
        (
            lambda p: alter(p, "CREATE TABLE batches (first_seq)"),
            "a database, but no journal",
        ),
        (newer_format, "of format 2; this program reads format 1"),
        (
            other_engine,
            f"needs version {ENGINE_VERSION + 1} of the rules; this program"
            f" has version {ENGINE_VERSION}: use a newer release",
        ),
        (
            lambda p: write(p, [Command(1, 1, "", "", TimePassed())]),
            "the first command is no configuration",
        ),
        (
            bad_record,
            "after command 7: a record that this program does not know",
        ),
    ],
    ids="one-byte few-bytes text foreign format engine first record".split(),
)
def test_what_it_cannot_read_it_refuses_and_leaves_alone(
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


# One writer ---------------------------------------------------------------


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
    for _ in range(10):
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


def test_what_a_crash_left_is_not_tidied_up_if_it_is_refused(
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


# No space -----------------------------------------------------------------


def test_a_full_disk_refuses_a_batch_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "exchange.db"
    with Journal(path) as journal:
        list(journal.recover())
        append(journal, COMMANDS[:200])
        journal._file.execute("PRAGMA max_page_count = 1")  # no page more
        with pytest.raises(sqlite3.OperationalError, match="full"):
            append(journal, COMMANDS[200:])
        held = journal.last_seq
        assert 200 <= held < len(COMMANDS)
        assert read(path) == COMMANDS[:held]
        journal._file.execute("PRAGMA max_page_count = 1000000")
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


# Damage -------------------------------------------------------------------


def flipped(value: Any, bit: int) -> Any:
    """Return a value of a column with one of its bits the other way."""
    if isinstance(value, int):
        return value ^ 1 << bit % 53
    damaged = bytearray(value)
    damaged[bit // 8 % len(damaged)] ^= 1 << bit % 8
    return bytes(damaged)


@pytest.mark.parametrize(
    "column", ["first_seq", "last_seq", "digest", "records"]
)
def test_no_bit_of_a_row_can_change(tmp_path: Path, column: str) -> None:
    path = write(tmp_path / "exchange.db", COMMANDS[:35])
    rng = random.Random(column)
    good = path.read_bytes()
    for _ in range(60):
        with closing(sqlite3.connect(path, isolation_level=None)) as file:
            rows = file.execute(
                f"SELECT first_seq, {column} FROM batches"
            ).fetchall()
            first_seq, value = rng.choice(rows)
            file.execute(
                f"UPDATE OR REPLACE batches SET {column} = ?"
                " WHERE first_seq = ?",
                (flipped(value, rng.randrange(10_000)), first_seq),
            )
        with pytest.raises(JournalError):
            recover(path)
        forget_readers(path)
        path.write_bytes(good)
    assert recover(path) == COMMANDS[:35]


@pytest.mark.parametrize("first_seq", [1, 8, 22])
def test_a_row_that_is_missing_is_noticed(
    tmp_path: Path, first_seq: int
) -> None:
    path = write(tmp_path / "exchange.db", COMMANDS[:35])
    alter(path, "DELETE FROM batches WHERE first_seq = ?", first_seq)
    expected = f"after command {first_seq - 1}: a batch is missing or damaged"
    assert refused(path) == expected


def test_a_row_of_another_journal_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "exchange.db", COMMANDS[:35])
    others = [*COMMANDS[:3], Command(4, 10**9, "", "", TimePassed())]
    other = write(tmp_path / "other.db", [*others, *COMMANDS[4:35]])
    with closing(sqlite3.connect(other)) as file:
        row = file.execute("SELECT * FROM batches LIMIT 1 OFFSET 2").fetchone()
    alter(path, "REPLACE INTO batches VALUES (?, ?, ?, ?)", *row)
    assert refused(path) == "after command 14: a batch is missing or damaged"


def test_a_bit_that_flips_anywhere_in_the_file_is_noticed_or_harmless(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "exchange.db", COMMANDS[:70])
    good = path.read_bytes()
    rng = random.Random(2)
    is_noticed = 0
    # The heads of the pages, which say what is in them, and the rest.
    heads = [at + i for at in range(0, len(good), 4096) for i in range(32)]
    places = heads + rng.sample(range(len(good)), 1_000)
    for place in places:
        damaged = bytearray(good)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert read(path) == COMMANDS[:70]
        except JournalError as error:
            assert str(error).startswith(f"{path}: ")
            is_noticed += 1
        forget_readers(path)
    assert is_noticed > len(places) / 3


# Determinism --------------------------------------------------------------


def write_golden() -> None:
    """Write the first busy day of this version that has everything in it."""
    for seed in count(2026):
        commands = list(flow(random.Random(seed), GOLDEN_COMMANDS))
        if not missing(commands):
            break
    write(GOLDEN, commands, per_batch=100)
    # So that reading it leaves no files beside it.
    alter(GOLDEN, "PRAGMA journal_mode = DELETE")
    GOLDEN.with_name(f"{GOLDEN.name}.lock").unlink()
    digest_of(GOLDEN).write_text(f"{events_digest(read(GOLDEN))}\n")


def digest_of(day: Path) -> Path:
    """Return the file with the digest of a golden day's events."""
    return day.with_suffix(".sha256")


def events_digest(
    commands: Iterable[Command], engine: Engine | None = None
) -> str:
    """Return the SHA-256 of the events that commands cause.

    As they are sent, but without ``message``: a text for people is no rule.
    """
    engine = engine or Engine()
    digest = hashlib.sha256()
    for command in commands:
        for recipient, event in in_full(engine, command):
            if isinstance(event, (Error, Status)):
                event = replace(event, message="")
            line = f"{command.seq} {recipient}: {encode(event)}\n"
            digest.update(line.encode())
    return digest.hexdigest()


# What can come of commands, each of which must come of the golden day.
EVERYTHING: dict[str, set[Any]] = {
    # It is older than the command about the clock.
    "command": set(get_args(Action)) - {ClockStep},
    "interference": set(get_args(AdminAction)),
    "event": set("ok error exec account status trade book".split()),
    "exec_type": set("new trade amended canceled expired".split()),
    "reason": set(get_args(get_args(Reason)[0])) | {None},
    "liquidity": set(get_args(get_args(Liquidity)[0])) | {None},
    "fee": {"paid", "got", "none"},
    "phase": set(get_args(get_args(Phase)[0])) | {None},
    # Those that the gateway answers with are not of the engine.
    "refusal": set(get_args(get_args(Code)[0]))
    - {"unauthorized", "rate_limited", "busy"},
    "in time": {"an auction began", "a phase ended"},
}


def missing(commands: Iterable[Command]) -> dict[str, set[Any]]:
    """Return what there could be, and does not come of commands."""
    engine = Engine()
    found: defaultdict[str, set[Any]] = defaultdict(set)
    for command in commands:
        action = command.action
        found["command"].add(type(action))
        for _, event in in_full(engine, command):
            found["event"].add(event.type)
            match event:
                case Ok() if isinstance(action, Admin):
                    found["interference"].add(action.action)
                case Exec():
                    found["exec_type"].add(event.exec_type)
                    found["reason"].add(event.reason)
                    found["liquidity"].add(event.liquidity)
                    fee = event.fee or 0
                    words = "paid" if fee > 0 else "got" if fee else "none"
                    found["fee"].add(words)
                case Status():
                    found["phase"].add(event.phase)
                    if isinstance(action, (Place, Amend)):
                        found["in time"].add("an auction began")
                    elif isinstance(action, TimePassed):
                        found["in time"].add("a phase ended")
                case Error():
                    found["refusal"].add(event.code)
    return {k: v - found[k] for k, v in EVERYTHING.items() if v - found[k]}


def test_the_golden_day_has_everything_in_it() -> None:
    assert GOLDEN.stat().st_size < GOLDEN_BYTES
    assert not missing(read(GOLDEN))


def test_every_version_of_the_rules_has_a_golden_day() -> None:
    names = {file.name for file in GOLDEN.parent.iterdir()}
    assert names == {
        f"rules-{version}.{suffix}"
        for version in RULES
        for suffix in ("journal", "sha256")
    }


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day.stem)
def test_a_golden_day_is_of_its_version(day: Path) -> None:
    first, *_ = read(day)
    assert isinstance(first.action, Configure)
    assert day.stem == f"rules-{first.action.engine_version}"


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day.stem)
def test_a_golden_day_is_decoded_without_loss(day: Path) -> None:
    """Commands encode to the bytes that the program of the time wrote."""
    with closing(sqlite3.connect(f"file:{day}?mode=ro", uri=True)) as file:
        rows = file.execute("SELECT first_seq, records FROM batches")
        for first_seq, records in rows.fetchall():
            commands = decode_records(first_seq, records)
            text = ",".join(map(encode_record, commands))
            assert f"[{text}]".encode() == records


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
@pytest.mark.parametrize("python", PYTHONS)
def test_the_golden_days_come_out_the_same_everywhere(
    python: str, hash_seed: str
) -> None:
    elsewhere = subprocess.run(
        [python, "-m", "test.journal.test_journal", "events"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=PIPE,
        text=True,
        check=True,
    )
    digests = [digest_of(day).read_text() for day in DAYS]
    assert elsewhere.stdout == "".join(digests)


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day.stem)
def test_a_golden_day_comes_out_the_same_here(day: Path) -> None:
    assert f"{events_digest(read(day))}\n" == digest_of(day).read_text()


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day.stem)
async def test_an_exchange_goes_on_from_a_golden_day(
    day: Path, tmp_path: Path
) -> None:
    """The server of today opens it, and what it adds is read back."""
    path = tmp_path / day.name
    path.write_bytes(day.read_bytes())
    old = read(day)
    async with serving(journal=path) as server:
        async with wired(server.url, "ann") as ann:
            await ann.ask(**order("buy", 1, 1))
    commands = recover(path)
    assert commands[: len(old)] == old
    added = [type(command.action) for command in commands[len(old) :]]
    assert added[0] is Restart and added[-1] is Shutdown
    assert {Configure, Connect, Place} < set(added)
    assert events_digest(commands)


if __name__ == "__main__":
    if sys.argv[1:] == ["golden"]:
        write_golden()
    for day in DAYS:
        print(events_digest(read(day)))
