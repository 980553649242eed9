"""An event is played to its end, whatever is killed meanwhile.

The tests share one event. Each of them plays one more round of it.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from client import BlockingExchange
from test.support import PATIENCE_S
from test.util.event.playing import Playing, playing
from util.event import practice, run, void
from util.event.director import LOCK, alone, leave, player
from util.event.keys import tokens_of
from util.event.processes import is_alive
from util.event.record import Record


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playing]:
    folder = tmp_path_factory.mktemp("event")
    with playing(folder, rounds="ABCDEFGHIJKLMN", trading=2) as event:
        yield event


@pytest.fixture
def event(shared: Playing) -> Iterator[Playing]:
    """The event, with its next round open."""
    shared.begin()
    try:
        shared.until_done("open")
        yield shared
    finally:
        shared.kill()


@pytest.fixture
def long_event(shared: Playing) -> Iterator[Playing]:
    """The event, with a round open that ends when a test closes it."""
    shared.begin(trading=600)
    try:
        shared.until_done("open")
        yield shared
    finally:
        shared.kill()


def test_a_director_that_is_killed_goes_on_where_it_was(
    event: Playing,
) -> None:
    before = event.said.count("open for")
    for act in ("open", "close"):
        event.until_done(act)
        exchange = event.process("exchange")
        event.kill()
        event.start()
    event.is_scored()
    [attempt] = event.attempts()
    assert attempt.deaths == 0
    assert event.process("exchange") == exchange
    assert event.said.count("open for") == before


def test_any_act_may_be_done_twice(event: Playing) -> None:
    """As after a kill between an act and its second row."""
    event.until_done("settled")
    event.kill()
    with Record.of(event.data) as record:
        record._file.execute(
            "DELETE FROM acts WHERE stage = 'done' AND round = ?"
            " AND act != 'score'",
            (event.round,),
        )
    event.start()
    event.is_scored()
    assert event.statuses == ["scored"]


def test_an_exchange_that_is_killed_gives_the_time_back(
    event: Playing,
) -> None:
    event.kill_processes("exchange")
    event.is_scored()
    [attempt] = event.attempts()
    assert attempt.deaths == 1


def test_the_third_death_of_the_exchange_makes_the_match_void(
    event: Playing,
) -> None:
    for _ in range(3):
        event.kill_processes("exchange")
    event.is_scored()
    assert event.statuses == ["void", "scored"]
    first, second = event.attempts()
    assert first.reason == "the exchange ended 3 times"
    assert first.done["fair"] != second.done["fair"]


def test_bots_and_pages_are_started_again(event: Playing) -> None:
    event.kill_processes("house bots", "bot of APPLE", "pages")
    event.is_scored()


def test_after_a_crash_of_the_machine_the_round_goes_on(
    event: Playing,
) -> None:
    names = ("exchange", "house bots", "bot of APPLE", "pages")
    old = [event.process(name).pid for name in names]
    event.kill()
    for pid in old:
        os.killpg(pid, signal.SIGKILL)
    event.start()
    event.is_scored()
    [attempt] = event.attempts()
    assert attempt.deaths == 1
    assert event.process("pages").pid not in old


def test_a_void_match_is_played_again_if_asked_for(event: Playing) -> None:
    event.do("void", event.round, "--reason", "the net is down", "--again")
    event.is_scored()
    assert event.statuses == ["void", "scored"]
    event.do("void", event.round, "--reason", "a wrong file")
    event.start()
    assert event.ended() == 0
    assert event.statuses == ["void", "void"]


def test_a_pause_holds_over_a_start_of_the_director(
    long_event: Playing,
) -> None:
    event = long_event
    event.do("pause", "--reason", "lunch")
    event.signal(signal.SIGINT)
    assert "go on, and an open round closes at its time" in event.said
    event.start()
    event.until(lambda: "director: process" in event.do("status"))
    status = event.do("status")
    assert "market: halted" in status
    assert "paused: lunch" in status
    assert event.statuses == ["open"]
    event.do("resume")
    assert "market: open" in event.do("status")
    event.close()
    event.is_scored()


def test_a_pause_delays_the_opening(shared: Playing) -> None:
    shared.do("pause")
    shared.begin()
    try:
        shared.until_done("announce")
        assert "market: closed" in shared.do("status")
        assert "open" not in shared.attempts()[0].done
        shared.do("resume")
        shared.is_scored()
    finally:
        shared.kill()
        shared.do("resume")


def test_a_second_run_is_refused_and_the_first_one_named(
    long_event: Playing, capsys: pytest.CaptureFixture[str]
) -> None:
    event = long_event
    assert event.director is not None
    pid = event.director.pid
    assert run.main([str(event.path), "--until", event.round]) == 1
    refusal = f"another `run` (process {pid}) plays this event"
    assert refusal in capsys.readouterr().err
    assert f"director: process {pid}\n" in event.do("status")
    event.close()
    event.is_scored()


def test_a_run_waits_for_a_command_that_is_about_to_end(
    tmp_path: Path,
) -> None:
    """Its name has been taken out of the file, but it has the lock still."""
    entered = threading.Event()

    def enter() -> None:
        with alone(tmp_path):
            entered.set()

    with alone(tmp_path):
        leave(tmp_path)
        assert player(tmp_path) is None
        waiting = threading.Thread(target=enter)
        waiting.start()
        assert not entered.wait(0.2)
    waiting.join(PATIENCE_S)
    assert entered.is_set()


def test_a_look_stands_in_nobodys_way(tmp_path: Path) -> None:
    with playing(tmp_path) as event:
        with alone(event.data):
            pass
        before = (event.data / LOCK).stat().st_mtime_ns
        assert "no director" in event.do("status")
        assert (event.data / LOCK).stat().st_mtime_ns == before


def test_a_team_that_comes_late_gets_in(long_event: Playing) -> None:
    """At once, and at the challenge doors from the next round."""
    event = long_event
    late = 'LATE = { address = "127.0.0.1" }'
    event.change("ORANGE = {}", f"ORANGE = {{}}\n{late}")
    lines = event.do("keys").splitlines()
    token = dict(line.split("\t") for line in lines)["LATE"]
    url = f"ws://127.0.0.1:{event.front}"
    with BlockingExchange(url, "LATE", token) as exchange:
        assert exchange.cash == 0
        there = "\nconnected: LATE, APPLE\nnot connected: ORANGE\n"
        event.until(lambda: there in event.do("status"))
    event.until(lambda: "ORANGE, LATE\n" in event.do("status"))
    event.until(lambda: " LATE  " in event.do("status"))
    assert "LATE takes part" in event.said
    assert not says_hello(event.line_port, "LATE")
    event.close()
    event.is_scored()
    with Record.of(event.data) as record:
        last = [*record.attempts().values()][-1]
    assert {"LATE", "APPLE"} <= last.done["settled"]["cash"].keys()
    old = event.process("exchange").pid
    event.begin()
    event.until_done("open")
    assert event.process("exchange").pid != old
    assert says_hello(event.line_port, "LATE")
    event.is_scored()
    [attempt] = event.attempts()
    assert attempt.deaths == 0


def says_hello(port: int, team: str) -> bool:
    """Return whether a team may enter the text door."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as bot:
        bot.sendall(f"HELLO {team}\n".encode())
        return bot.makefile().readline().startswith("HELLO ")


def test_a_bot_gets_the_new_key_of_its_team(event: Playing) -> None:
    """Also one that does not notice that its key has ended."""
    bot = 'PLUM = { bot = ["sleep", "600"] }'
    event.change("ORANGE = {}", f"ORANGE = {{}}\n{bot}")
    old = event.process("bot of PLUM").pid
    event.do("keys", "PLUM", "--new")
    new = event.process("bot of PLUM", other_than=old)
    token = tokens_of(event.data)["PLUM"]
    variables = Path(f"/proc/{new.pid}/environ").read_bytes().split(b"\0")
    assert f"EXCHANGE_TOKEN={token}".encode() in variables
    event.change(f"{bot}\n", "")  # its bot ends with it
    event.until(lambda: not is_alive(new))
    assert "PLUM is left out now" in event.said
    event.is_scored()


def test_one_command_plays_an_event(tmp_path: Path) -> None:
    with playing(tmp_path, trading=1) as event:
        event.launch("run")
        assert event.ended() == 0
        event.round = "A"
        assert event.statuses == ["scored"]
        said = [line[9:] for line in event.said.splitlines()]
        native = f"ws://127.0.0.1:{event.front}"
        assert said[:5] == [
            "Try: 2 teams play A.",
            f"Teams connect to {native}, each with its name and key.",
            "Challenge bots connect to 127.0.0.1, port"
            f" {event.line_port} (text).",
            "Standings and downloads are at"
            f" http://127.0.0.1:{event.pages}/.",
            "The live page of the market is at"
            f" http://127.0.0.1:{event.front}/.",
        ]
        assert any("warm-up of 0 s; trading opens at" in s for s in said)
        assert "All rounds are scored." in event.said
        # The pages go on; everything else has ended.
        with Record.of(event.data) as record:
            assert [*record.processes()] == ["pages"]
        # Its secret is public now: no other values can be drawn from it.
        assert void.main([str(event.path), "A", "--reason", "x", "--again"])
        assert "the event is over" in event.do("status")
        event.launch("run")
        assert event.ended() == 0
        event.change('name = "A"', 'name = "A"\n[[rounds]]\nname = "B"')
        event.launch("run")
        assert event.ended() == 1
        assert "use another data folder" in event.said


def test_a_port_that_is_in_use_is_named_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with playing(tmp_path) as event, socket.socket() as taken:
        port = event.line_port
        problem = f"event.doors.line_port: another program holds port {port};"
        assert "another program" not in event.do("check")
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert problem in event.do("check")
        for main in (run.main, practice.main):
            assert main([str(event.path)]) == 1
            assert problem in capsys.readouterr().err
        assert not event.started("**/director.db")
