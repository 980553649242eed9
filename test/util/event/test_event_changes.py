"""Which changes of an event file a director does not follow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from test.util.event.files import EVENT, MARKET, write_event
from util.event.changes import moved_port, refusal
from util.event.file import read_event
from util.event.record import Key, Process


@pytest.mark.parametrize(
    "old, new, field",
    [
        ("front = 9000", "front = 9002", "event.front"),
        ('host = "0.0.0.0"', 'host = "localhost"', "event.host"),
        ('data = "spring"', 'data = "autumn"', "event.data"),
        ("line_port = 20000", "line_port = 20001", "event.doors"),
        ("9100-9199", "9300-9399", "event.match_ports"),
        ("per_match = 0\npairing", "per_match = 2\npairing", "per_match"),
        ('name = "A"', 'name = "Z"', "round A has begun"),
        ('name = "B"', 'name = "Z"', ""),
        ("PLUM   = {}", "FIG = {}", ""),
        ("trading = 300", "trading = 400", ""),
    ],
)
def test_a_change_of_what_runs_is_refused(
    tmp_path: Path, old: str, new: str, field: str
) -> None:
    assert EVENT.count(old) == 1
    before = read_event(write_event(tmp_path))
    after = read_event(write_event(tmp_path, EVENT.replace(old, new)))
    why = refusal(before, after, [Key("A", "all", 1)])
    assert field in why and bool(why) == bool(field)


def test_the_market_stays(tmp_path: Path) -> None:
    before = read_event(write_event(tmp_path))
    for market in (
        f"{MARKET}[account]\ncash = 7\n",
        MARKET.replace("max_qty = 100\n", "max_qty = 200\n"),
    ):
        after = read_event(write_event(tmp_path, market=market))
        assert refusal(before, after, ()).startswith("event.market: ")


def test_a_process_keeps_its_port(tmp_path: Path) -> None:
    event = read_event(write_event(tmp_path))
    process = Process("exchange", os.getpid(), "", 9000)
    assert moved_port(event, {"exchange": process}) == ""
    process = Process("exchange", os.getpid(), "", 9002)
    why = moved_port(event, {"exchange": process})
    assert why.startswith("event.front: is 9000") and "9002" in why
