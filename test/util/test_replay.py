"""The contents of a journal as text, as JSON and as CSV."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from subprocess import PIPE
from textwrap import dedent
from typing import Any

import pytest

from exchange.journal.sqlite import Journal
from exchange.market.accounts import AccountLimits
from exchange.market.command import (
    Action,
    ClockStep,
    Command,
    Configure,
    Output,
    Restart,
    Shutdown,
    TimePassed,
)
from exchange.market.engine import Engine
from orderbook import Admin, Error, decode_events, decode_requests
from test.journal.files import ROOT, alter, append, read, write
from test.journal.golden import GOLDEN
from test.market.flows import MARKET, flow
from test.script import SECOND, in_full, parse
from util.replay import iso, main, microseconds, replay

START = 1_795_377_600_000_000  # 2026-11-22T20:00:00Z
SCRIPT = """
    ann connect
    ann sell 5@101 symbol=BOND as=mine
    bob sell 5@2 symbol=ETF
    bob buy 3@101 symbol=BOND ioc
    ann amend 1 price=102 qty=9
    bob buy 1@99 symbol=NONE
    cat cancel 1
    bob cancel_after 1000
    tick
    ann cancel as=mine
    cat cancel_all side=buy
    restart
"""
OWN: dict[str, Action] = {
    "tick": TimePassed(),
    "restart": Restart(),
    "shutdown": Shutdown(),
    "clock_step": ClockStep(forward_us=3_600_000_001),
}


def commands(script: str) -> list[Command]:
    """Read commands in the words of `test.script`, one a second."""
    found = [Command(1, START, "", "", MARKET)]
    for line in script.split("\n"):
        words = line.split()
        if not words:
            continue
        ts = START + len(found) * SECOND
        account, session = words[0], "5e55"
        if words[0] in OWN:
            account = session = ""
        action = OWN.get(words[0]) or parse(words[1:])
        found.append(Command(len(found) + 1, ts, account, session, action))
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "day.db", commands(SCRIPT))


def replayed(commands: Sequence[Command]) -> list[tuple[Command, Output]]:
    engine = Engine()
    return [(c, output) for c in commands for output in in_full(engine, c)]


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run the command, which must succeed; return its output."""
    assert main([str(word) for word in arguments]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    return output


def failed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run the command, which must fail, and return why."""
    assert main([str(word) for word in arguments]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("replay: ") and errors.count("\n") == 1
    return errors.removeprefix("replay: ").rstrip()


def without_times(text: str) -> str:
    """Leave out the times; check that they go by the second."""
    lines = []
    for line in text.splitlines():
        seq, time, rest = line.split(maxsplit=2)
        assert microseconds(time) == START + (int(seq) - 1) * SECOND
        lines.append(f"{seq} {' '.join(rest.split())}")
    return "\n".join(lines)


# For a person -------------------------------------------------------------


def test_a_day_is_printed_in_lines(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, path)
    assert without_times(text) == dedent("""\
        1 * > configure engine 3: BOND (96 to 104 ticks of 1, at most 9\
 lots), ETF (-3 to 3 ticks of 1, at most 5 lots), XAU (10 to 12 ticks of 1,\
 at most 20 lots)
        2 ann > connect 5e55
        3 ann > sell 5 BOND at 101 as mine
        3 ann order 1 new: sell 5 BOND at 101; 0 of 5 filled
        3 * book BOND 1: - | 101=5
        4 bob > sell 5 ETF at 2
        4 bob order 2 new: sell 5 ETF at 2; 0 of 5 filled
        4 * book ETF 1: - | 2=5
        5 bob > buy 3 BOND at 101 ioc
        5 bob order 3 new: buy 3 BOND at 101; 0 of 3 filled
        5 bob order 3 trade 1: 3 BOND at 101 as taker; 3 of 3 filled
        5 ann order 1 trade 1: 3 BOND at 101 as maker; 3 of 5 filled
        5 bob cash -303, 3 BOND; worth 0
        5 ann cash 303, -3 BOND; worth 0
        5 * trade 1: 3 BOND at 101 bought
        5 * book BOND 2: - | 101=2
        6 ann > amend order 1 to 9 at 102
        6 ann order 1 amended: sell 9 BOND at 102; 3 of 9 filled
        6 * book BOND 3: - | 101=0 102=6
        7 bob > buy 1 NONE at 99
        7 bob refused: unknown_symbol: NONE is not listed
        8 cat > cancel order 1
        8 cat refused: unknown_order: the account has no such order_id
        9 bob > cancel all after 1000 ms
        9 bob ok
        10 * > tick
        10 bob order 2 canceled (cancel_after); 0 of 5 filled
        10 * book ETF 2: - | 2=0
        11 ann > cancel mine
        11 ann order 1 canceled (user); 3 of 9 filled
        11 * book BOND 4: - | 102=0
        12 cat > cancel all buy orders
        12 cat ok: 0
        13 * > restart""")
    first, second, *_ = text.splitlines()
    assert first.startswith(
        "       1 2026-11-22T20:00:00.000000Z *          >"
    )
    assert len(second.partition(" > ")[0]) == len(first.partition(" > ")[0])


@pytest.mark.parametrize(
    "line, text",
    [
        (
            "ann buy 5@99 symbol=BOND gtd until=9s post_only cancel_both",
            "buy 5 BOND at 99 gtd until 1970-01-01T00:00:09.000000Z post-only"
            " stp cancel_both",
        ),
        ("ann buy 5@market", "buy 5 at market"),
        ("ann amend as=mine qty=3", "amend mine to 3"),
        ("ann amend 1 price=0", "amend order 1 at 0"),
        ("ann cancel_all", "cancel all orders"),
        ("ann cancel_all symbol=BOND", "cancel all orders of BOND"),
        ("ann cancel_after 0", "cancel all after never"),
        ("ann connect keep", "connect 5e55 without cancel_on_disconnect"),
        ("ann connect admin", "connect 5e55 as an administrator"),
        ("ann disconnect", "disconnect 5e55"),
        ("shutdown", "shutdown"),
        ("clock_step", "clock set forward by 3,600.000001 s"),
    ],
)
def test_a_command_is_printed_with_all_fields(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, text: str
) -> None:
    path = write(tmp_path / "day.db", commands(line))
    lines = told(capsys, path).splitlines()
    assert [s.partition(" > ")[2] for s in lines if " > " in s][1:] == [text]


RULES = Configure(
    instruments=(
        replace(
            MARKET.instruments[0],
            phase="pre_open",
            max_position=60,
            maker_fee=-1,
            taker_fee=2,
            reference_price=100,
            collar=4,
            band=2,
        ),
        replace(MARKET.instruments[1], short_selling=False),
    ),
    limits=AccountLimits(cash=1_000, min_cash=0),
    accounts={
        "bob": AccountLimits(open_orders=5),
        "cat": AccountLimits(max_position={"BOND": 9}),
        "dan": AccountLimits(),
    },
)


def test_a_configuration_is_printed_with_all_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "day.db", [Command(1, START, "", "", RULES)])
    assert without_times(told(capsys, path)) == (
        "1 * > configure engine 3: BOND (96 to 104 ticks of 1, at most 9"
        " lots, phase=pre_open, max_position=60, maker_fee=-1, taker_fee=2,"
        " reference_price=100, collar=4, band=2), ETF (-3 to 3 ticks of 1, at"
        " most 5 lots, short_selling=false) | everybody: cash=1000,"
        ' min_cash=0 | bob: open_orders=5 | cat: max_position={"BOND":9}'
    )


# Administrators -----------------------------------------------------------

GOVERNED = """
    ann connect
    op connect admin
    ann buy 3@101 symbol=BOND
    bob sell 2@99 symbol=BOND
    op admin phase symbol=BOND open
    ann buy 1@98 symbol=BOND
    op admin phase halted reopen_ms=2000
    op admin suspend user=ann
    ann buy 1@98 symbol=BOND
    tick
    op admin resume user=ann
    bob buy 1@98 symbol=BOND
    op admin cancel 4
    op admin adjust user=ann cash=-5
    op admin adjust user=ann cash=7 symbol=BOND qty=-2
    op admin settle symbol=BOND price=97
    op admin message message=lunch
    op admin message message=lunch symbol=ETF
    op admin reset
    op admin cancel 77
"""


@pytest.fixture
def governed(tmp_path: Path) -> Path:
    found = commands(GOVERNED)
    found[0].action = RULES
    return write(tmp_path / "day.db", found)


def test_admin_actions_are_printed_with_user_and_reason(
    governed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = without_times(told(capsys, governed))
    lines = [line for line in text.splitlines() if " book " not in line][1:]
    assert "\n".join(lines) == dedent("""\
        2 ann > connect 5e55
        3 op > connect 5e55 as an administrator
        4 ann > buy 3 BOND at 101
        4 ann order 1 new: buy 3 BOND at 101; 0 of 3 filled
        5 bob > sell 2 BOND at 99
        5 bob order 2 new: sell 2 BOND at 99; 0 of 2 filled
        6 op > admin set BOND to open because: why
        6 op ok
        6 ann order 1 trade 1: 2 BOND at 101 as auction; 2 of 3 filled
        6 bob order 2 trade 1: 2 BOND at 101 as auction; 2 of 2 filled
        6 ann cash 798, 2 BOND; worth 1000
        6 bob cash 202, -2 BOND; worth 0
        6 * status BOND open: why
        6 * trade 1: 2 BOND at 101 sold
        7 ann > buy 1 BOND at 98
        7 ann order 3 new: buy 1 BOND at 98; 0 of 1 filled
        8 op > admin set all to halted for 2000 ms because: why
        8 op ok
        8 * status BOND halted: why
        8 * status ETF halted: why
        9 op > admin suspend ann because: why
        9 op ok
        9 ann order 1 canceled (admin); 2 of 3 filled
        9 ann order 3 canceled (admin); 0 of 1 filled
        9 * status: suspend ann: why
        10 ann > buy 1 BOND at 98
        10 ann refused: forbidden: the account is suspended and may only cancel
        11 * > tick
        11 * status BOND open: time is up
        11 * status ETF open: time is up
        12 op > admin resume ann because: why
        12 op ok
        12 * status: resume ann: why
        13 bob > buy 1 BOND at 98
        13 bob order 4 new: buy 1 BOND at 98; 0 of 1 filled
        14 op > admin cancel order 4 because: why
        14 op ok
        14 bob order 4 canceled (admin); 0 of 1 filled
        14 * status: cancel order 4: why
        15 op > admin adjust ann by -5 cash because: why
        15 op ok
        15 ann cash 793, 2 BOND; worth 995
        15 * status: adjust ann by -5 cash: why
        16 op > admin adjust ann by +7 cash, -2 BOND because: why
        16 op ok
        16 ann cash 800, 0 BOND; worth 800
        16 * status: adjust ann by +7 cash, -2 BOND: why
        17 op > admin settle BOND at 97 because: why
        17 op ok
        17 bob settled -2 BOND at 97; profit 8
        17 bob cash 8, 0 BOND; worth 8
        17 * status BOND closed: settled at 97: why
        18 op > admin tell: lunch because: why
        18 op ok
        18 * status: lunch
        19 op > admin tell about ETF: lunch because: why
        19 op ok
        19 * status ETF: lunch
        20 op > admin reset because: why
        20 op ok
        20 ann cash 1000; worth 1000
        20 op cash 1000; worth 1000
        20 bob cash 0; worth 0
        20 * status BOND pre_open: reset: why
        20 * status ETF open: reset: why
        21 op > admin cancel order 77 because: why
        21 op refused: unknown_order: no order has this order_id""")


def seqs_of(text: str, mark: str = "") -> list[int]:
    """Return the commands or events that a text contains."""
    return [int(row.split()[0]) for row in text.splitlines() if mark in row]


def test_an_account_includes_admin_actions_on_it(
    governed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, governed, "--account", "bob")
    assert seqs_of(text, " > admin ") == [6, 14, 17, 20]
    text = told(capsys, governed, "--account", "ann")
    assert seqs_of(text, " > admin ") == [6, 9, 12, 15, 16, 20]
    assert " status " not in text and " bob " not in text
    text = told(capsys, governed, "--account", "op")
    assert seqs_of(text, " > admin ") == [6, 8, 9, 12, *range(14, 22)]


def test_a_symbol_includes_its_phases_and_admin_actions(
    governed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, governed, "--symbol", "BOND")
    assert seqs_of(text, " > admin ") == [6, 8, 9, 14, 16, 17, 20]
    assert seqs_of(text, " status") == [6, 8, 11, 14, 16, 17, 20]
    assert seqs_of(text, " ok") == [6, 14, 16, 17]
    text = told(capsys, governed, "--symbol", "ETF")
    assert seqs_of(text, " > admin ") == [8, 19, 20]
    assert seqs_of(text, " status") == [8, 11, 19, 20]


def test_a_fee_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = """
        op admin phase open
        ann buy 3@101 symbol=BOND
        bob sell 2@99 symbol=BOND
    """
    found = commands(script)
    found[0].action = RULES
    lines = told(capsys, write(tmp_path / "day.db", found)).splitlines()
    told_of = [
        line.partition(" at 101 ")[2] for line in lines if "as " in line
    ]
    assert told_of == [
        "as taker for a fee of 4; 2 of 2 filled",
        "as maker for a fee of -2; 2 of 3 filled",
    ]


def test_a_reason_cannot_break_a_line_or_hide_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "é\u2028  9 ann buy\u202e"
    found = commands("op admin reset")
    found[1].action = Admin(action="reset", reason=reason)
    text = told(capsys, write(tmp_path / "day.db", found))
    shown = r"é\u2028  9 ann buy\u202e"
    line = text.splitlines()[1]
    assert line.endswith(f"op         > admin reset because: {shown}")
    assert len(text.splitlines()) == 6


# Views --------------------------------------------------------------------


def test_an_account_includes_its_requests_and_private_events(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert without_times(told(capsys, path, "--account", "ann")) == dedent("""\
        2 ann > connect 5e55
        3 ann > sell 5 BOND at 101 as mine
        3 ann order 1 new: sell 5 BOND at 101; 0 of 5 filled
        5 ann order 1 trade 1: 3 BOND at 101 as maker; 3 of 5 filled
        5 ann cash 303, -3 BOND; worth 0
        6 ann > amend order 1 to 9 at 102
        6 ann order 1 amended: sell 9 BOND at 102; 3 of 9 filled
        11 ann > cancel mine
        11 ann order 1 canceled (user); 3 of 9 filled""")


def test_a_symbol_has_its_orders_trades_and_book(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert without_times(told(capsys, path, "--symbol", "ETF")) == dedent("""\
        4 bob > sell 5 ETF at 2
        4 bob order 2 new: sell 5 ETF at 2; 0 of 5 filled
        4 * book ETF 1: - | 2=5
        10 * > tick
        10 bob order 2 canceled (cancel_after); 0 of 5 filled
        10 * book ETF 2: - | 2=0""")
    bond = without_times(told(capsys, path, "--symbol", "BOND"))
    assert [line.split()[0] for line in bond.splitlines()] == (
        ["3"] * 3 + ["5"] * 6 + ["6"] * 3 + ["11"] * 3
    )
    assert "ETF" not in bond and "cash" not in bond


def test_a_symbol_includes_its_refusals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = """
        ann buy 5@99 symbol=BOND as=mine
        ann buy 5@105 symbol=BOND
        ann amend as=mine price=105
        ann amend 1 qty=77
        ann cancel as=mine
        ann cancel as=mine
        ann cancel_all symbol=BOND
    """
    path = write(tmp_path / "day.db", commands(script))
    text = told(capsys, path, "--symbol", "BOND")
    assert [line.split()[2:6] for line in text.splitlines()[3:]] == [
        ["ann", ">", "buy", "5"],
        ["ann", "refused:", "invalid_price:", "price"],
        ["ann", ">", "amend", "mine"],
        ["ann", "refused:", "invalid_price:", "price"],
        ["ann", ">", "amend", "order"],
        ["ann", "refused:", "invalid_qty:", "qty"],
        ["ann", ">", "cancel", "mine"],
        ["ann", "order", "1", "canceled"],
        ["*", "book", "BOND", "2:"],
        ["ann", ">", "cancel", "mine"],
        ["ann", "refused:", "order_closed:", "order"],
        ["ann", ">", "cancel", "all"],
        ["ann", "ok:", "0"],
    ]


def test_an_order_without_a_symbol_is_in_the_only_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = commands("ann buy 1@105")
    bond = MARKET.instruments[0]
    found[0].action = type(MARKET)(instruments=(bond,))
    path = write(tmp_path / "day.db", found)
    text = told(capsys, path, "--symbol", "BOND")
    assert [line.split()[3] for line in text.splitlines()] == [">", "refused:"]


def test_views_can_be_put_together(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, path, "--account", "bob", "--symbol", "BOND")
    assert without_times(text) == dedent("""\
        5 bob > buy 3 BOND at 101 ioc
        5 bob order 3 new: buy 3 BOND at 101; 0 of 3 filled
        5 bob order 3 trade 1: 3 BOND at 101 as taker; 3 of 3 filled""")


@pytest.mark.parametrize(
    "start, end, seqs",
    [
        ("2026-11-22T20:00:10", "2026-11-22T20:00:12", [11, 12]),
        ("2026-11-22T21:00:10+01:00", "2026-11-22 20:00:11Z", [11]),
        (START + 10 * SECOND, START + 11 * SECOND, [11]),
        (START + 10 * SECOND + 1, START + 11 * SECOND + 1, [12]),
        ("2026-11-22T20:00:10.000001Z", "2026-11-23", [12, 13]),
        ("2026-11-23", "2026-11-24", []),
    ],
)
def test_a_span_of_time_begins_with_the_first_and_ends_before_the_second(
    path: Path,
    capsys: pytest.CaptureFixture[str],
    start: object,
    end: object,
    seqs: list[int],
) -> None:
    text = told(capsys, path, "--from", start, "--to", end)
    assert sorted({int(line.split()[0]) for line in text.splitlines()}) == seqs


def test_a_time_that_was_printed_can_be_asked_for() -> None:
    for ts in (0, 1, START, START + 999_999):
        assert microseconds(iso(ts)) == microseconds(str(ts)) == ts


# For a program ------------------------------------------------------------


def test_json_lines_hold_everything(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = told(capsys, GOLDEN, "--format", "jsonl")
    lines = [json.loads(line) for line in text.splitlines()]
    events = [line for line in lines if "event" in line]
    expected = replayed(read(GOLDEN))
    assert len(events) == len(expected)
    for line, (command, (recipient, event)) in zip(events, expected):
        assert decode_events(json.dumps(line["event"])) == [event]
        assert line.get("account", "") == recipient
        assert (line["seq"], line["ts"]) == (command.seq, command.ts)
    asked = [line for line in lines if "command" in line]
    for line, command in zip(asked, read(GOLDEN), strict=True):
        found = (line.get("account", ""), line.get("session", ""))
        assert found == (command.account, command.session)
        assert (line["seq"], line["ts"]) == (command.seq, command.ts)
        (request,) = decode_requests(json.dumps(line["command"]))
        if not isinstance(request, Error):
            assert request == command.action
        assert line["command"]["type"] == command.action.type
    assert lines.index(asked[1]) == 1, "a command comes before its events"


def test_csv_is_one_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "day.csv"
    file.write_text("of yesterday")
    arguments = (GOLDEN, "--format", "csv", "--output", file)
    assert told(capsys, *arguments) == ""
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines, strict=True))
    asked = [row for row in rows if row["kind"] == "command"]
    events = [row for row in rows if row["kind"] == "event"]
    assert len(asked) + len(events) == len(rows)
    found = read(GOLDEN)
    for row, command in zip(asked, found, strict=True):
        same(row, command, command.account, command.action)
        assert row["session"] == command.session
    for row, (command, output) in zip(events, replayed(found), strict=True):
        same(row, command, *output)
        assert row["session"] == ""


def same(row: dict[str, str], command: Command, who: str, what: Any) -> None:
    """Compare a row with its command or event."""
    assert int(row["seq"]) == command.seq and int(row["ts"]) == command.ts
    assert row["account"] == who
    for name in what.__dataclass_fields__:
        value = getattr(what, name)
        text = row["event_seq" if name == "seq" else name]
        if name == "ts":
            continue  # a tender that is told again keeps that of its offer
        if value is None:
            assert text == ""
        elif isinstance(value, (str, int)) and not isinstance(value, bool):
            assert text == str(value)
        elif name in ("limits", "money"):
            assert json.loads(text) == asdict(value)
        elif name == "accounts":
            its = {user: asdict(limits) for user, limits in value.items()}
            assert json.loads(text) == its
        elif name == "instruments":
            assert json.loads(text) == [asdict(i) for i in value]
        elif isinstance(value, tuple):
            assert [tuple(level) for level in json.loads(text)] == list(value)
        else:
            assert json.loads(text) == value


def test_lines_tell_of_every_command_and_event(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = told(capsys, GOLDEN).splitlines()
    found = read(GOLDEN)
    assert len(lines) == len(found) + len(replayed(found))
    assert all(line.isascii() and line == line.rstrip() for line in lines)


# Checking -----------------------------------------------------------------


def test_verify_prints_a_summary(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(capsys, path, "--verify") == (
        f"{path}: good: 13 commands and 21 events from"
        " 2026-11-22T20:00:00.000000Z to 2026-11-22T20:00:12.000000Z,"
        " last seq 13\n"
    )
    empty = write(tmp_path / "empty.db", [])
    assert told(capsys, empty, "--verify") == f"{empty}: good, and empty\n"
    assert told(capsys, empty) == ""


def test_a_damaged_journal_is_printed_up_to_the_damage(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alter(path, "UPDATE batches SET digest = zeroblob(32) WHERE first_seq > 7")
    for more in ([], ["--verify"], ["--format", "csv"]):
        assert failed(capsys, path, *more) == (
            f"{path}: after command 7: a batch is missing or damaged"
        )


def test_a_command_that_cannot_be_applied_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = commands(SCRIPT)
    found[5].ts = found[4].ts  # time stands still
    path = write(tmp_path / "day.db", found)
    assert failed(capsys, path, "--verify") == (
        f"{path}: command 6 cannot be applied: AssertionError()"
    )


def test_a_file_that_is_not_a_journal_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.csv"
    text = tmp_path / "notes.txt"
    text.write_text("buy low, sell high\n")
    for path, reason in (
        (tmp_path / "none.db", "there is no such journal"),
        (tmp_path, "not a file"),
        (text, "file is not a database"),
    ):
        assert failed(capsys, path) == f"{path}: {reason}"
        assert failed(capsys, path, "--verify") == f"{path}: {reason}"
        assert failed(capsys, path, "--output", output) == f"{path}: {reason}"
        assert not output.exists()


def test_the_journal_itself_is_not_written_over(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = path.read_bytes()
    link = path.with_name("link")
    link.symlink_to(path)
    for output in (path, link):
        reason = failed(capsys, path, "--output", output)
        assert reason == f"{output}: this is the journal"
    nowhere = path.with_name("none") / "out.csv"
    assert "No such file" in failed(capsys, path, "--output", nowhere)
    assert path.read_bytes() == before


# As a process -------------------------------------------------------------


def test_a_journal_can_be_replayed_while_it_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "day.db"
    found = list(flow(random.Random(3), 300))
    with Journal(path) as journal:
        list(journal.recover())
        for i in range(0, 300, 100):
            append(journal, found[i : i + 100])
            text = told(capsys, path, "--format", "jsonl")
            seqs = [json.loads(line)["seq"] for line in text.splitlines()]
            assert sorted(set(seqs)) == list(range(1, i + 101))
    assert read(path) == found


def test_it_ends_with_the_last_command_at_its_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = list(flow(random.Random(3), 300))
    with Journal(tmp_path / "day.db") as journal:
        list(journal.recover())
        append(journal, found[:100])
        steps = replay(journal.path)
        assert next(steps).command == found[0]
        append(journal, found[100:])
        assert [step.command for step in steps] == found[1:100]


def test_a_broken_pipe_ends_it_quietly(tmp_path: Path) -> None:
    path = write(tmp_path / "day.db", list(flow(random.Random(3), 5_000)))
    with subprocess.Popen(
        [sys.executable, "-m", "util.replay", path],
        cwd=ROOT,
        stdout=PIPE,
        stderr=PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("       1 ")
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0
