"""Events that were played, for tests: a journal and a record of each.

The commands are those of the dialect of `test.script`, with the time since
the opening of their round in seconds, as in ``12.5 ann buy 5@99 symbol=BOND``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from exchange.journal.sqlite import Journal
from exchange.market.command import Action, Command, Restart, TimePassed
from exchange.market.engine import Engine
from orderbook import Admin, Error
from test.journal.files import append
from test.script import parse
from test.util.event.files import MARKET, write_event
from util.event.fair import FairPaths, make_paths
from util.event.file import Event, read_event
from util.event.file_checks import ADMINISTRATOR
from util.event.record import Key, Record

SECRET = bytes(range(32))
START_TS = 1_700_000_000_000_000
SECOND_US = 1_000_000
GAP_S = 100.0  # between two rounds
TEAMS = ("ORANGE", "APPLE", "LEMON", "PLUM")

EVENT = """\
[event]
name = "Played"
market = "market.toml"
data = "data"
[teams]
ORANGE = {}
APPLE = {}
LEMON = {}
PLUM = {}
[match]
trading = 60
[[rounds]]
name = "A"
weight = 40
[[rounds]]
name = "B"
weight = 60
scoring = { rule = "rank_squared" }
[fair.BOND]
kind = "constant"
start = 1000
[fair.GS]
kind = "walk"
start = 4200
sigma = 3
[fair.MS]
kind = "walk"
start = 3000
sigma = 1
[fair.XLF]
kind = "basket"
"""


class Day:
    """An event that is played by commands, with the journal of its market."""

    def __init__(
        self, folder: Path, text: str = EVENT, market: str = MARKET
    ) -> None:
        self.event: Event = read_event(write_event(folder, text, market))
        self.engine = Engine()
        self.commands: list[Command] = []
        self.opening_ts = START_TS
        self.fair: FairPaths
        rules = self.event.market.rules(False, 0)
        configure = replace(
            rules.configure,
            instruments=tuple(
                replace(instrument, phase="closed")
                for instrument in rules.configure.instruments
            ),
        )
        self._apply(START_TS - 50 * SECOND_US, configure)
        self.say("-40 director connect admin")

    def say(self, script: str) -> None:
        """Play lines of a script; time passes where something is due."""
        for line in filter(None, map(str.strip, script.splitlines())):
            time, account, *words = line.split()
            ts = self.opening_ts + round(float(time) * SECOND_US)
            if account == "restart":  # nobody was there since the last line
                self._apply(ts, Restart())
                continue
            self.pass_time(ts)
            name, _, session = account.partition("/")
            self._apply(ts, parse(words), name, session or "a")

    def admin(self, time: float, action: Action) -> None:
        """Let the administrator act."""
        ts = self.opening_ts + round(time * SECOND_US)
        self.pass_time(ts)
        outputs = self._apply(ts, action, ADMINISTRATOR)
        assert not isinstance(outputs[0][1], Error), outputs

    def pass_time(self, ts: int) -> None:
        """Let the deadlines before a moment fire."""
        while True:
            due = self.engine.next_deadline
            if due is None or due > ts:
                return
            self._apply(max(due, self.engine.ts + 1), TimePassed())

    def _apply(
        self, ts: int, action: Action, account: str = "", session: str = ""
    ) -> list[tuple[str, object]]:
        ts = max(ts, self.engine.ts + 1)
        seq = self.engine.seq + 1
        command = Command(seq, ts, account, session, action)
        self.commands.append(command)
        outputs: list[tuple[str, object]] = [*self.engine.apply(command)]
        self.engine.check()
        return outputs

    def begin(self, name: str, attempt: int = 1) -> None:
        """Begin a round: its hidden values, `reset`, and the record."""
        if len(self.commands) > 2:
            self.opening_ts = self.engine.ts + round(GAP_S * SECOND_US)
            self.admin(-50, Admin(action="reset", reason=name))
            self.pass_time(self.opening_ts - 40 * SECOND_US)
        folder = self.event.folder / name / "all"
        self.fair = make_paths(self.event, name, "all", attempt, SECRET)
        commitment = self.fair.write(folder / "fair.csv")
        with Record.of(self.event.folder) as record:
            key = Key(name, "all", attempt)
            record.begin(key, "start", number=self.engine.round)
            record.done(key, "fair", sha256=commitment)

    def open(self, seconds: int | None = None) -> None:
        """Open the market for the time of the hidden values."""
        close_ms = self.fair.last_ms if seconds is None else seconds * 1_000
        action = Admin(
            action="phase", reason="begin", phase="open", close_ms=close_ms
        )
        self.admin(0, action)

    def end(self, name: str, attempt: int = 1, status: str = "score") -> None:
        """Settle the market and note it."""
        prices = self.fair.prices(self.fair.last_ms)
        spot = {symbol: prices[symbol] for symbol in self.event.fair}
        listings = self.engine.listings.values()
        while closing := [one.close_ts for one in listings if one.close_ts]:
            self.pass_time(max(closing))
        time = (self.engine.ts - self.opening_ts) / SECOND_US + 1
        self.admin(time, Admin(action="settle", reason="end", prices=spot))
        self.pass_time(self.engine.ts)
        cash = {
            team: self.engine.accounts[team].cash
            for team in self.event.teams
            if team in self.engine.accounts
        }
        with Record.of(self.event.folder) as record:
            key = Key(name, "all", attempt)
            record.done(key, "open", opened_ts=self.opening_ts)
            record.done(key, "settled", cash=cash)
            if status == "score":
                record.done(key, "score")

    def round(self, name: str, script: str, before: str = "") -> None:
        """Play a whole round; ``before`` is what happens in its warm-up."""
        self.begin(name)
        self.say(before)
        self.open()
        self.say(script)
        self.end(name)

    def save(self) -> Path:
        """Write the journal; return the event file."""
        path = self.event.folder / "journal.db"
        for old in path.parent.glob("journal.db*"):
            old.unlink()
        with Journal(path) as journal:
            list(journal.recover())
            append(journal, self.commands, 1_000)
        return self.event.path


CONNECT = "\n".join(f"-30 {team} connect" for team in TEAMS)
ROUND_A = """
1 ORANGE buy 10@995 symbol=BOND as=o-1
2 ORANGE sell 10@1005 symbol=BOND
3 APPLE buy 4@1005 symbol=BOND
3.5 APPLE buy 500@1005 symbol=GS
4 APPLE sell 2@995 symbol=BOND
10.25 LEMON convert buy 10 symbol=XLF
20 ORANGE cancel 1
"""


def played(folder: Path) -> Day:
    """Return an event after round A, saved."""
    day = Day(folder)
    day.round("A", ROUND_A, CONNECT)
    day.save()
    return day
