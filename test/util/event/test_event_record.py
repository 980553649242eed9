"""The director's record: what it holds, and what follows from its rows."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from util.event.record import (
    EVENT,
    FILE,
    Key,
    MatchRow,
    Process,
    Record,
    RecordError,
    read_matches,
)

A1 = Key("A", "all", 1)
A2 = Key("A", "all", 2)


def test_the_status_of_a_match_follows_its_acts(tmp_path: Path) -> None:
    def status() -> str:
        [row] = read_matches(tmp_path)
        return row.status

    assert read_matches(tmp_path) == []
    with Record.of(tmp_path) as record:
        record.begin(A1, "start", number=1)
        assert status() == "started"
        record.begin(A1, "open")
        assert status() == "started"
        record.done(A1, "open", opened_ts=17)
        assert status() == "open"
        record.done(A1, "close")
        assert status() == "closed"
        record.begin(A1, "settled")
        assert status() == "closed"
        record.done(A1, "settled", cash={"ORANGE": 5})
        assert status() == "settled"
        record.begin(A1, "score")
        record.done(A1, "score")
    assert read_matches(tmp_path) == [
        MatchRow("A", "all", 1, "scored", 17, "", 1)
    ]


def test_a_void_match_stays_void_with_its_first_reason_known(
    tmp_path: Path,
) -> None:
    with Record.of(tmp_path) as record:
        record.begin(A1, "start", number=1)
        record.typed(A1, "void", reason="the net was down", again=True)
        record.done(A1, "score")
        record.begin(A2, "start", number=2)
        first, second = record.attempts().values()
    assert (first.status, first.is_again) == ("void", True)
    assert second.status == "started"
    assert [row.reason for row in read_matches(tmp_path)] == [
        "the net was down",
        "",
    ]


def test_an_act_that_was_begun_is_known_after_a_kill(tmp_path: Path) -> None:
    record = Record.of(tmp_path)
    record.begin(A1, "tender-1", price=104)
    with Record.of(tmp_path) as other:  # the first one was never closed
        [attempt] = other.attempts().values()
    assert attempt.begun == {"tender-1": {"price": 104}}
    assert not attempt.done
    record.close()


def test_a_pause_lasts_until_it_is_ended(tmp_path: Path) -> None:
    with Record.of(tmp_path) as record:
        assert record.paused() is None
        record.typed(EVENT, "pause", reason="lunch")
        assert record.paused() == "lunch"
    with Record.of(tmp_path) as record:
        assert record.paused() == "lunch"
        record.typed(EVENT, "resume", reason="lunch is over")
        assert record.paused() is None
        assert not record.attempts()


def test_the_last_process_of_a_name_is_kept(tmp_path: Path) -> None:
    with Record.of(tmp_path) as record:
        record.keep(Process("exchange", 17, "100", 9_000))
        record.keep(Process("exchange", 18, "200", 9_000))
        record.keep(Process("pages", 19, "300"))
        record.forget("pages")
        assert record.processes() == {
            "exchange": Process("exchange", 18, "200", 9_000)
        }


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no SQLite" * 1_000)
    with pytest.raises(RecordError, match=f"{FILE}: file is not a database"):
        Record.of(tmp_path)
    (tmp_path / FILE).unlink()
    with Record.of(tmp_path) as record:
        other = sqlite3.connect(tmp_path / FILE)
        other.execute("DROP TABLE acts")
        with pytest.raises(RecordError, match=f"{FILE}: no such table"):
            record.done(A1, "open")
        other.close()
