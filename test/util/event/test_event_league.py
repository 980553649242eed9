"""Isolated matches are played to their end, whatever is killed meanwhile.

One event of four teams and matches of two is played once, because processes
take long to start. In each wave of its round robin other things are killed.
"""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from pathlib import Path

from client import BlockingExchange, ExchangeError, Unauthorized
from exchange.journal.sqlite import read_journal
from exchange.market.command import Restart
from test.util.event.playing import Playing, free_ports, playing
from util.event.draws import read_drawn
from util.event.file import read_event
from util.event.record import Attempt, Key, Record
from util.event.standings import CSV_FILE, standings_of

TEAMS = """\
ORANGE = {}
APPLE = { bot = ["python", "bots/apple.py"] }
LEMON = {}
PLUM = { bot = ["python", "bots/lines.py"], door = "line" }
"""
# Buys GS as soon as it is open, and prints what it is told.
LINES = """\
import os, socket, time
while True:
    try:
        where = os.environ["EXCHANGE_HOST"], os.environ["EXCHANGE_LINE_PORT"]
        with socket.create_connection(where) as sock:
            sock.sendall(f"HELLO {os.environ['EXCHANGE_USER']}\\n".encode())
            for line in sock.makefile():
                print(line, end="", flush=True)
                if line.startswith("OPEN"):
                    sock.sendall(b"ADD 1 GS BUY 4000 1\\n")
    except OSError:
        pass
    time.sleep(0.1)
"""


def set_up(league: Playing) -> None:
    """Make matches of two, a door, and other teams; no house bots."""
    first = free_ports(13)
    league.change(
        f"pages = {league.pages}\n",
        f"pages = {league.pages}\nparallel = 2\n"
        f'match_ports = "{first}-{first + 12}"\n',
    )
    text = league.path.read_text()
    league.change(text.split("[teams]\n")[1].split("[match]")[0], TEAMS)
    league.change(text[text.index("[house]") :], "")
    league.change("[match]", "[match]\nper_match = 2")
    (league.path.parent / "bots/lines.py").write_text(LINES)


def last_attempts(league: Playing) -> dict[str, Attempt]:
    """Return the newest attempt at each match of the round."""
    return {one.key.match: one for one in league.attempts()}


def open_and_pause(league: Playing, *matches: str) -> None:
    """Open the matches of a wave, which a pause has held, and halt them.

    A pause lasts as long as a test needs.
    """
    for match in matches:
        until_done(league, match, "announce")
    assert not any("open" in last_attempts(league)[n].done for n in matches)
    log = league.data / "bots/PLUM/bot.log"
    league.until(lambda: log.exists() and "HELLO " in log.read_text())
    league.do("resume")
    for match in matches:
        until_done(league, match, "open")
    league.do("pause", "--reason", "lunch")


def close(league: Playing, *matches: str) -> None:
    """Let matches end; a pause holds the next wave."""
    league.do("resume")
    for match in matches:
        until_done(league, match, "close")
    league.do("pause")


def until_done(league: Playing, match: str, act: str) -> None:
    """Wait until an act of the newest attempt at a match is done."""
    league.until(
        lambda: match in last_attempts(league)
        and act in last_attempts(league)[match].done
    )


def restart_director(league: Playing) -> None:
    """Start a director, and wait until it has its lock."""
    league.start()
    assert league.director is not None
    lock, pid = league.data / "director.lock", str(league.director.pid)
    league.until(lambda: lock.read_text().split()[:1] == [pid])


def starts(league: Playing, match: str) -> int:
    """Return how often the exchange of a match was started again."""
    batches = read_journal(league.data / "A" / match / "journal.db")
    commands = [command for batch in batches for command in batch]
    return sum(isinstance(one.action, Restart) for one in commands)


def test_a_league_is_played_whatever_is_killed(tmp_path: Path) -> None:
    with playing(tmp_path, trading=1) as league:
        set_up(league)
        league.do("keys")
        league.do("pause")
        league.begin()
        director_and_processes(league)
        pause_and_machine(league)
        void_by_hand_and_by_deaths(league)
        league.is_scored()
        results(league)
        pages(league)


def director_and_processes(league: Playing) -> None:
    """They come back, and one match does not disturb the other."""
    until_done(league, "01", "announce")
    until_done(league, "02", "announce")
    league.kill()
    # As after a kill before the first row of a match.
    with Record.of(league.data) as record:
        record._file.execute("DELETE FROM acts WHERE match = '02'")
    restart_director(league)
    open_and_pause(league, "01", "02")
    league.kill()
    restart_director(league)
    league.kill_processes("front", "exchange of A/01/1", "pages")
    close(league, "01", "02")
    deaths = {n: one.deaths for n, one in last_attempts(league).items()}
    assert (deaths["01"], deaths["02"]) == (1, 0)
    assert (starts(league, "01"), starts(league, "02")) == (1, 0)


def pause_and_machine(league: Playing) -> None:
    """A pause holds all matches, also over a crash of the machine."""
    open_and_pause(league, "03", "04")
    # A team from another machine, at the one address of the event. It has
    # lost its key; the other one opens the match that is played.
    token = league.do("keys", "ORANGE", "--new").split()[1]
    league.until(lambda: phases(league, "ORANGE", token) == {"halted"})
    league.kill()
    for process in league.started("director.db"):
        os.killpg(process.pid, signal.SIGKILL)
    restart_director(league)
    league.until(lambda: league.do("status").count("market: halted") == 2)
    close(league, "03", "04")
    assert (starts(league, "03"), starts(league, "04")) == (1, 1)


def phases(league: Playing, team: str, token: str) -> set[str]:
    """Return the phases of the market in which a team plays."""
    url = f"ws://127.0.0.1:{league.front}/t/{team}"
    try:
        with BlockingExchange(url, team, token) as exchange:
            return {row["phase"] for row in exchange.get("instruments")}
    except (Unauthorized, ExchangeError):
        return set()


def void_by_hand_and_by_deaths(league: Playing) -> None:
    """Only the second is played again, when the wave is over."""
    open_and_pause(league, "05", "06")
    league.do("void", "A/06", "--reason", "a wrong cable")
    with Record.of(league.data) as record:  # its exchange has ended twice
        for number in (1, 2):
            record.done(Key("A", "05", 1), f"death-{number}")
    league.kill_processes("exchange of A/05/1")
    league.until(lambda: last_attempts(league)["05"].key.attempt == 2)
    first = [one for one in league.attempts() if one.key.match == "05"][0]
    assert first.reason == "the exchange ended 3 times"
    assert last_attempts(league)["06"].reason == "a wrong cable"
    league.do("resume")


def results(league: Playing) -> None:
    """Look at pairings, dossiers and standings."""
    event = read_event(league.path)
    drawn = read_drawn(event.folder)
    assert len({frozenset(one.teams) for one in drawn}) == 6
    for one in drawn:
        folder = league.data / "A" / one.match
        keys = (folder / "keys.json").read_text()
        for team in event.teams:
            assert (f'"{team}"' in keys) == (team in one.teams)
        if one.match == "06":
            assert not (folder / "public").exists()
            continue
        dossiers = {path.parent.name for path in folder.glob("*/fills.csv")}
        assert dossiers == {*one.teams}
        attempt = last_attempts(league)[one.match]
        assert attempt.number == attempt.key.attempt
        assert attempt.done["settled"]["cash"].keys() == {*one.teams}
        if "PLUM" in one.teams:  # it came in by its door
            assert "HELLO " in (folder / "PLUM/bot.log").read_text()
    written = (league.data / CSV_FILE).read_bytes()
    assert standings_of(event).as_csv().encode() == written
    files = [*league.data.glob("A/05/*/summary.json")]
    before = [path.read_bytes() for path in files]
    league.do("dossier", "A/05")
    assert [path.read_bytes() for path in files] == before


def pages(league: Playing) -> None:
    """They are at the front, which goes on."""
    url = f"http://127.0.0.1:{league.front}"
    with urllib.request.urlopen(f"{url}/now.json") as answer:
        rows = json.load(answer)["rounds"]
    assert [row["match"] for row in rows] == [f"0{n}" for n in range(1, 7)]
    assert all(len(row["teams"]) == 2 for row in rows)
    with urllib.request.urlopen(f"{url}/public/A/05/fair.csv") as answer:
        assert b"# salt" in answer.read()
