"""Kill anything of an event while it is played, and check what comes of it.

``python -m util.measure.event_crash ROUNDS [SEED] [--league]``: teams of local
bots play rounds; every few seconds the director, an exchange, house bots, a
bot, the pages or the front are killed with SIGKILL, drawn by the seed. The
event must end with every match scored, with standings that the journals give
again, and with no unit of cash made or lost. ``--league``: in matches of two,
several at a time. Exit status: 0 so it was, 1 it was not.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from random import Random, SystemRandom

from exchange.journal.sqlite import read_journal
from exchange.market.engine import Engine
from util.cli import amount_and_seed, failed, new_parser
from util.event.draws import next_batch
from util.event.file import Event, read_event
from util.event.matches import next_match
from util.event.processes import BOT, is_alive
from util.event.record import Key, Record
from util.event.results import played
from util.event.specs import EXCHANGE, FRONT, HOUSE, PAGES
from util.event.standings import CSV_FILE, standings_of
from util.measure.process import ROOT, environment

TEAMS = 16
LEAGUE_TEAMS = 8
PARALLEL = 2  # matches of a league at a time
TRADING_S = 20
KILL_S = 5.0  # between two kills
LOOK_S = 0.1
PATIENCE_S = 300.0  # for a round, with all that is killed in it
DIRECTOR = "director"
MARKET = """\
[instruments.BOND]
max_price = 10000
[instruments.GS]
max_price = 10000
"""
BOT_FILE = """\
import asyncio
import os
import random
from client import Exchange, ExchangeError
from orderbook import Refused

async def main():
    chance = random.Random(os.environ["EXCHANGE_USER"])
    async with Exchange() as ex:
        markets = [await ex.market(symbol) for symbol in ex.instruments]
        while True:
            market = chance.choice(markets)
            trade = chance.choice((market.buy, market.sell))
            try:
                price = (market.last or 1000) + chance.randint(-3, 3)
                await trade(chance.randint(1, 9), max(price, 1))
            except (Refused, ExchangeError):
                pass
            await asyncio.sleep(chance.uniform(0.2, 0.6))

asyncio.run(main())
"""


def write_event(folder: Path, rounds: int, is_league: bool) -> Path:
    """Write the event file and what it names; return its path."""
    front = _free_port(3 + 3 * PARALLEL)
    pages, first = front + 1, front + 2
    count = LEAGUE_TEAMS if is_league else TEAMS
    teams = "".join(
        f'T{number:02} = {{ bot = ["python", "bot.py"] }}\n'
        for number in range(1, count + 1)
    )
    ports = pairing = ""
    if is_league:
        ports = f'match_ports = "{first}-{first + 3 * PARALLEL}"\n'
        ports += f"parallel = {PARALLEL}\n"
        pairing = 'per_match = 2\npairing = "swiss"\n'
    named = "".join(
        f'[[rounds]]\nname = "R{number}"\n' for number in range(1, rounds + 1)
    )
    (folder / "market.toml").write_text(MARKET)
    (folder / "bot.py").write_text(BOT_FILE)
    path = folder / "event.toml"
    path.write_text(
        f'[event]\nname = "Crash"\nmarket = "market.toml"\ndata = "data"\n'
        f'host = "127.0.0.1"\nfront = {front}\npages = {pages}\n{ports}'
        f"[teams]\n{teams}[match]\nwarmup = 3\ntrading = {TRADING_S}\n"
        f"{pairing}"
        f'[scoring]\nrule = "rank_squared"\n{named}'
        '[fair.BOND]\nkind = "constant"\nstart = 1000\n'
        '[fair.GS]\nkind = "walk"\nstart = 4000\nsigma = 5.0\n'
        "[house]\nmakers = 1\nnoise = 2\ninformed = 1\n"
        '[[news]]\nat = 8\nsymbol = "GS"\nheadline = "GS rises"\njump = 60\n'
        '[[dividends]]\nat = 12\nsymbol = "GS"\namount = 5\n'
    )
    return path


def _free_port(count: int) -> int:
    """Return the first of some ports in a row that nobody uses.

    They are below those that the system gives to connections: one of these
    could have the port of a process that is killed, until it ends.
    """
    while True:
        port = SystemRandom().randrange(10_000, 32_000)
        with ExitStack() as stack:
            try:
                for number in range(port, port + count):
                    one = stack.enter_context(socket.socket())
                    one.bind(("127.0.0.1", number))
            except OSError:
                continue
            return port


class Killer:
    """Plays an event to its end, and kills its processes meanwhile."""

    def __init__(self, path: Path, chance: Random) -> None:
        self.event: Event = read_event(path)
        self.killed: Counter[str] = Counter()
        self._path = path
        self._chance = chance
        self._kinds = [DIRECTOR, EXCHANGE, HOUSE, BOT, PAGES]
        if self.event.is_large:
            self._kinds.append(FRONT)

    def run(self, seconds: float) -> int:
        """Return the exit status of the last director; raises TimeoutError."""
        deadline = time.monotonic() + seconds
        director = self._start()
        kill_at = time.monotonic() + KILL_S
        try:
            while director.poll() is None:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not over after {seconds:g} s")
                if time.monotonic() > kill_at:
                    kill_at += KILL_S
                    kind = self._chance.choice(self._kinds)
                    if kind == DIRECTOR:
                        director.kill()
                        director.wait()
                        director = self._start()
                        self.killed[DIRECTOR] += 1
                    else:
                        self._kill(kind)
                time.sleep(LOOK_S)
            return director.returncode
        finally:
            director.kill()
            director.wait()
            self._command("stop").wait()

    def _start(self) -> subprocess.Popen[bytes]:
        return self._command("run")

    def _command(self, name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "util.event", name, str(self._path)],
            cwd=ROOT,
            env=environment(),
            process_group=0,
        )

    def _kill(self, kind: str) -> None:
        """Kill one process of a kind, if one is alive."""
        with Record.of(self.event.folder) as record:
            found = [
                process
                for process in record.processes().values()
                if process.name.startswith(kind) and is_alive(process)
            ]
        if found:
            process = self._chance.choice(found)
            os.kill(process.pid, signal.SIGKILL)
            self.killed[kind.split(" of")[0]] += 1
            print(f"killed {process.name}", flush=True)


def problems(event: Event) -> list[str]:
    """Return what is wrong with an event that has ended."""
    found = []
    with Record.of(event.folder) as record:
        found += [f"{key} was not played" for key in _left(event, record)]
    csv = (event.folder / CSV_FILE).read_text()
    again = standings_of(event).as_csv()
    if csv.splitlines() != again.splitlines():
        found.append("the journals give other standings")
    for journal in sorted({one.journal for one in played(event)}):
        engine = Engine()
        for batch in read_journal(journal):
            for command in batch:
                engine.apply(command)
        engine.check()
        cash = sum(account.cash for account in engine.accounts.values())
        if cash:
            found.append(f"{journal}: all accounts have {cash} units, not 0")
    return found


def _left(event: Event, record: Record) -> list[Key]:
    """Return matches that are still to be played."""
    if event.is_large:
        return next_batch(event, record)
    key = next_match(event, record.attempts())
    return [] if key is None else [key]


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.measure.event_crash``; return the exit status."""
    parser = new_parser("measure.event_crash", "Kill parts of an event.")
    parser.add_argument(
        "--league", action="store_true", help="play in matches of two"
    )
    rounds, seed = amount_and_seed(
        parser, "ROUNDS", "rounds to be played", arguments
    )
    is_league = parser.parse_args(arguments).league
    with tempfile.TemporaryDirectory() as folder:
        path = write_event(Path(folder), rounds, is_league)
        killer = Killer(path, Random(seed))
        try:
            status = killer.run(rounds * PATIENCE_S)
        except TimeoutError as error:
            return failed("event_crash", f"seed {seed}: {error}", 1)
        found = problems(killer.event)
        if status:
            found.insert(0, f"`run` ended with status {status}")
        print((killer.event.folder / CSV_FILE).read_text(), end="")
    killed = ", ".join(f"{n} x {kind}" for kind, n in killer.killed.items())
    teams = len(killer.event.teams)
    print(f"seed {seed}: {rounds} rounds of {teams} teams; killed: {killed}")
    for problem in found:
        print(f"wrong: {problem}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
