"""The director of isolated matches: several at a time, behind a front.

Each match has an exchange, house bots and bots of its own while it is played.
All of them outlive the director, as does the front: a director that starts
finds them, and goes on where the last one was, as the record says.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from client import Exchange
from orderbook import Refused

from .batch import play_batch
from .check import parallel_of
from .conduct import ActRefused, Conductor, MatchVoid
from .directing import (
    BEING_PLAYED,
    LIVE_S,
    DirectorError,
    Ends,
    check_start,
    count_death,
    log_in,
    make_keys,
    make_void,
    play_and_tend,
    read_change,
    score,
)
from .draws import next_batch, teams_of
from .fair import secret_of
from .file import Event, read_event
from .file_checks import ADMINISTRATOR
from .front.table import FILE as TABLE_FILE
from .front.table import Table
from .isolated import (
    event_of,
    exchange_at,
    free_ports,
    front_of,
    inner_pages_of,
    key_of,
    ports_at,
    table_of,
    traders_of,
    write_files,
    write_keys,
)
from .keys import KEYS_FILE, tokens_of
from .live import write_lives
from .matches import label_of as words_of
from .matches import match_of, values_of
from .processes import BOT, LOOK_S, Spec, last_line
from .record import Attempt, Key, Record
from .sentences import coming, greeting
from .specs import EXCHANGE, HOUSE, is_ready, local_url, port_file
from .supervise import Supervisor


@dataclass(slots=True)
class Game:
    """A match that is played now; ``event`` is the match as an event.

    starting: only its exchange is wanted; playing: also its traders, and the
    front lets its teams in; ending: nothing is wanted any more.
    """

    key: Key
    event: Event
    exchange: Spec
    stage: Literal["starting", "playing", "ending"] = "starting"
    ready_pid: int | None = None
    conductor: Conductor | None = None


class League:
    """Plays one event of isolated matches; ``say`` prints a line."""

    def __init__(
        self, path: Path, record: Record, say: Callable[[str], None]
    ) -> None:
        self.event: Event = read_event(path)
        self._path = path
        self._record = record
        self._say = say
        self._supervisor = Supervisor(record, say)
        self._games: dict[Key, Game] = {}
        self._secret = secret_of(self.event.folder)
        self._changed = path.stat().st_mtime_ns
        self._keys_changed = 0
        self._ends = Ends(self._supervisor, say)
        self._written = 0.0
        self._table: Table | None = None  # as it was written last
        self._scoring = asyncio.Lock()

    async def run(self, until: str | None) -> None:
        """Play what is left up to a round; raises DirectorError."""
        is_spent = self._record.is_over() and bool(
            next_batch(self.event, self._record)
        )
        await check_start(self.event, self._record, self._supervisor, is_spent)
        for line in greeting(self.event):
            self._say(line)
        make_keys(self.event, self._say)
        self._adopt()
        self._want()
        await play_and_tend(self._play_all(until), self._tend())

    async def end(self) -> None:
        """End everything but the front and the pages, exchanges last."""
        await self._supervisor.end(BOT, HOUSE)
        await self._supervisor.end(EXCHANGE)

    # Preparing

    def _adopt(self) -> None:
        """Go on with the matches that another director has begun."""
        supervisor, attempts = self._supervisor, self._record.attempts()
        for process in self._record.processes().values():
            key = key_of(process.name)
            if key is None:
                continue
            attempt = attempts.get(key)  # None: it has just been started
            if process.name not in supervisor.running:
                count_death(self._record, key)
            elif attempt is None or attempt.status in BEING_PLAYED:
                game = self._games[key] = self._game(key, process.port)
                if attempt is not None and "fair" in attempt.done:
                    game.stage = "playing"

    def _game(self, key: Key, port: int) -> Game:
        match = event_of(self.event, key, ports_at(self.event, port))
        return Game(key, match, exchange_at(self.event, key, match))

    def _want(self) -> None:
        """Want the front, the pages, and what the matches need."""
        event = self.event
        routed = [g for g in self._games.values() if g.stage != "starting"]
        table = table_of(
            event,
            {game.key: game.event for game in routed},
            {game.key for game in routed if game.stage == "playing"},
        )
        if table != self._table:
            table.write(event.folder / TABLE_FILE)
            self._table = table
        specs = [front_of(event), inner_pages_of(event)]
        for key, game in self._games.items():
            if game.stage != "ending":
                specs.append(game.exchange)
            if game.stage == "playing":
                specs += traders_of(event, key, game.event)
        self._supervisor.wanted = {spec.name: spec for spec in specs}

    def _read_again(self) -> None:
        """Follow changes of the event file and of the keys.

        A team that comes late is in the matches that are drawn later. While
        the file is wrong, nothing changes.
        """
        with contextlib.suppress(OSError):
            changed = self._path.stat().st_mtime_ns
            if changed != self._changed:
                self._changed = changed
                self._change()
            changed = (self.event.folder / KEYS_FILE).stat().st_mtime_ns
            if changed != self._keys_changed:
                self._keys_changed = changed
                for game in self._games.values():
                    write_keys(self.event, game.event)
                self._want()  # bots that start again take their new keys

    def _change(self) -> None:
        event = read_change(
            self._path,
            self.event,
            self._record,
            self._say,
            comes="takes part in matches that are drawn later",
        )
        if event is None:
            return
        self.event = event
        make_keys(self.event, self._say)
        self._want()

    # Processes

    async def _tend(self) -> None:
        """Keep the processes running; raises DirectorError if one cannot."""
        supervisor = self._supervisor
        while True:
            for game in self._games.values():
                if game.exchange.name not in supervisor.running:
                    port_file(game.event).unlink(missing_ok=True)
            for name, status in supervisor.tend():
                if name.startswith(BOT):
                    self._want()  # its key may be another now
                key = key_of(name)
                if key is not None and key in self._games:
                    self._exchange_ended(self._games[key], status)
                else:
                    self._ends.tell(name)
            for game in list(self._games.values()):
                await self._look_at(game)
            if time.monotonic() - self._written >= LIVE_S:
                self._written = time.monotonic()
                self._read_again()
                with contextlib.suppress(OSError):  # tried again soon
                    write_lives(
                        self.event,
                        {key: g.conductor for key, g in self._games.items()},
                    )
            await asyncio.sleep(LOOK_S)

    def _exchange_ended(self, game: Game, status: int | None) -> None:
        """Let an exchange be started again, unless it gave up itself."""
        name = words_of(self.event, game.key)
        if game.ready_pid is None and status is not None and status > 0:
            line = last_line(game.exchange.log)
            raise DirectorError(
                f"the exchange of {name} does not start: {line}"
            )
        game.ready_pid = None
        self._say(f"{name}: the exchange has ended; it is started again.")
        count_death(self._record, game.key)
        self._supervisor.may_start_now(game.exchange.name)

    async def _look_at(self, game: Game) -> None:
        """Find out whether an exchange that runs now accepts orders."""
        running = self._supervisor.running.get(game.exchange.name)
        if running is None or running.pid == game.ready_pid:
            return
        if await asyncio.to_thread(is_ready, game.event):
            game.ready_pid = running.pid
            if game.conductor is not None:
                game.conductor.warm_up()

    async def _until_ready(self, game: Game) -> None:
        while game.ready_pid is None:
            await asyncio.sleep(LOOK_S)

    async def _until_gone(self, names: Sequence[str]) -> None:
        """Wait until processes that are not wanted have ended."""
        while any(name in self._supervisor.running for name in names):
            await asyncio.sleep(LOOK_S)

    # Matches

    async def _play_all(self, until: str | None) -> None:
        try:
            while keys := next_batch(self.event, self._record, until):
                await play_batch(
                    {k: teams_of(self.event, k.round, k.match) for k in keys},
                    self._play,
                    room=parallel_of(self.event),
                    is_begun=self._games.__contains__,
                )
        except (ActRefused, Refused) as error:
            raise DirectorError(str(error)) from None

    async def _play(self, key: Key) -> None:
        """Play one match until it is scored or void."""
        attempt = self._record.attempts().get(key)
        if attempt is None or attempt.status in BEING_PLAYED:
            game = self._games.get(key) or self._new_game(key)
            try:
                await self._conduct(game, attempt)
            finally:
                game.conductor = None
            await self._end_game(game)
            if self._record.attempts()[key].status == "void":
                return
        async with self._scoring:
            await score(self.event, self._record, key, self._say)

    def _new_game(self, key: Key) -> Game:
        """Prepare a match; its exchange is wanted now."""
        make_keys(self.event, self._say)
        used = {game.event.event.front for game in self._games.values()}
        ports = free_ports(self.event, used)
        if ports is None:
            raise DirectorError(
                f"no port of match_ports, {self.event.event.match_ports}, is"
                f" free for {words_of(self.event, key)}"
            )
        game = self._game(key, ports.native)
        write_files(self.event, game.event)
        self._games[key] = game
        self._want()
        return game

    async def _conduct(self, game: Game, attempt: Attempt | None) -> None:
        """Play a match on its exchange until it is settled or void."""
        key, match_event = game.key, game.event
        exchange = Exchange(
            local_url(match_event),
            ADMINISTRATOR,
            tokens_of(self.event.folder)[ADMINISTRATOR],
            cancel_on_disconnect=False,
        )
        try:
            await log_in(exchange, lambda: self._until_ready(game))
            number = attempt.number if attempt is not None else None
            if number is None:
                is_first = key.attempt == 1 and exchange.round == 1
                number = 1 if is_first else exchange.round + 1
                teams = list(match_event.teams)
                self._record.begin(key, "start", number=number, teams=teams)
            paths = values_of(self.event, self._record, key, self._secret)
            match = match_of(match_event, key, number, paths, self._secret)
            game.conductor = Conductor(
                exchange, match, self._record, self._say
            )
            game.stage = "playing"
            self._want()
            names = ", ".join(match_event.teams)
            if attempt is None or attempt.status == "started":
                self._say(f"{coming(match)} Teams: {names}.")
            else:
                self._say(f"{match.label}: goes on where it was.")
            try:
                await game.conductor.play()
            except MatchVoid as void:
                await make_void(
                    game.conductor, self._record, str(void), self._say
                )
        finally:
            await exchange.close()

    async def _end_game(self, game: Game) -> None:
        """End the processes of a match, then its routes.

        An exchange that ends says so to its clients, so the front cuts what
        is left after that.
        """
        traders = traders_of(self.event, game.key, game.event)
        game.stage = "ending"
        self._want()
        await self._until_gone(
            [*(spec.name for spec in traders), game.exchange.name]
        )
        del self._games[game.key]
        self._want()
