"""The director: plays the rounds of an event in one exchange, in order.

It starts the exchange, the house bots, the bots of teams and the pages, and
keeps them running. They outlive it: a director that starts finds them, and
goes on where the last one was, as the record says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from client import Exchange
from exchange.files import lock
from orderbook import Refused

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
from .fair import secret_of
from .file import Event, read_event
from .file_checks import ADMINISTRATOR
from .keys import tokens_of
from .live import write_live
from .market import is_written, write_market
from .matches import cash_of, match_of, next_match, values_of
from .processes import BOT, LOOK_S, is_alive, last_line, start_time
from .record import EVENT, Attempt, Key, Process, Record
from .sentences import coming, greeting
from .specs import (
    EXCHANGE,
    HOUSE,
    bots_of,
    exchange_of,
    house_of,
    is_ready,
    local_url,
    pages_of,
    port_file,
)
from .supervise import Supervisor

LOCK = "director.lock"
HANDOVER_S = 30.0  # for another command to take the lock, or to end


@contextlib.contextmanager
def alone(folder: Path, is_player: bool = True) -> Iterator[None]:
    """Hold the lock of an event; raises DirectorError if another has it.

    The file names the process that plays the event. While a process that it
    does not name has the lock, that process begins or ends something: then
    this waits, at most HANDOVER_S.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + HANDOVER_S
    while True:
        try:
            held = lock(folder / LOCK, mode=0o600, is_waiting=False)
            break
        except BlockingIOError:
            other = player(folder)
            if other is not None:
                raise DirectorError(
                    f"another `run` (process {other.pid}) plays this event"
                ) from None
            if time.monotonic() > deadline:
                raise DirectorError(
                    f"another command has held {folder / LOCK} for"
                    f" {HANDOVER_S:g} s"
                ) from None
        time.sleep(LOOK_S)
    try:
        os.ftruncate(held, 0)
        if is_player:
            pid = os.getpid()
            os.pwrite(held, f"{pid} {start_time(pid)}\n".encode(), 0)
        yield
    finally:
        os.ftruncate(held, 0)
        os.close(held)


def leave(folder: Path) -> None:
    """Name no process as the player any more: it is about to end."""
    os.truncate(folder / LOCK, 0)


def player(folder: Path) -> Process | None:
    """Return the process that plays an event; None if there is none.

    It takes no lock, so it stands in nobody's way.
    """
    try:
        pid, _, started = (folder / LOCK).read_text().strip().partition(" ")
    except OSError:
        return None
    process = Process("director", int(pid or 0), started)
    return process if pid and is_alive(process) else None


class Director:
    """Plays one event; ``say`` prints a line."""

    def __init__(
        self, path: Path, record: Record, say: Callable[[str], None]
    ) -> None:
        self.event: Event = read_event(path)
        self._path = path
        self._record = record
        self._say = say
        self._supervisor = Supervisor(record, say)
        self._key = EVENT  # of the match that is played
        self._conductor: Conductor | None = None
        self._ready_pid: int | None = None  # the exchange that is ready
        self._is_replacing = False  # the exchange, between two rounds
        self._secret = secret_of(self.event.folder)
        self._changed = path.stat().st_mtime_ns
        self._ends = Ends(self._supervisor, say)
        self._written = 0.0

    async def run(self, until: str | None) -> None:
        """Play what is left up to a round; raises DirectorError."""
        attempts = self._record.attempts()
        supervisor = self._supervisor
        lost = EXCHANGE in self._record.processes().keys() - (
            supervisor.running.keys()
        )
        is_left = next_match(self.event, attempts) is not None
        is_spent = self._record.is_over() and is_left
        await check_start(self.event, self._record, supervisor, is_spent)
        for line in greeting(self.event):
            self._say(line)
        make_keys(self.event, self._say)
        if EXCHANGE not in supervisor.running:
            write_market(self.event)
        self._key = next_match(self.event, self._record.attempts()) or EVENT
        if lost:
            count_death(self._record, self._key)
        self._want()
        await play_and_tend(self._play_all(until), self._tend())

    async def end(self) -> None:
        """End everything but the pages, the exchange last."""
        await self._supervisor.end(BOT, HOUSE)
        await self._supervisor.end(EXCHANGE)

    # Preparing

    async def _follow_market(self) -> None:
        """Start the exchange again if its market file is not that of now.

        Between two rounds: a team that came late enters the doors then.
        """
        if is_written(self.event):
            return
        self._say(
            "The exchange is started again: its market file has changed."
        )
        self._is_replacing = True
        await self._supervisor.end(EXCHANGE)
        self._is_replacing = False
        self._ready_pid = None
        write_market(self.event)
        self._want()
        await self._until_ready()

    def _want(self) -> None:
        """Want the exchange, the pages, and who trades in the match."""
        event, key = self.event, self._key
        specs = [pages_of(event), *bots_of(event)]
        if not self._is_replacing:
            specs.append(exchange_of(event))
        attempt = self._record.attempts().get(key)
        if attempt is not None and "fair" in attempt.done:
            if attempt.status in BEING_PLAYED:
                specs += house_of(event, key)
        kept = {
            name: spec
            for name, spec in self._supervisor.wanted.items()
            if not name.startswith(BOT)
        }
        self._supervisor.wanted = kept | {spec.name: spec for spec in specs}

    def _read_again(self) -> None:
        """Follow a change of the event file: a team may have come late.

        The match that is played keeps its times. While the file is wrong,
        nothing changes.
        """
        with contextlib.suppress(OSError):
            changed = self._path.stat().st_mtime_ns
            if changed == self._changed:
                return
            self._changed = changed
            event = read_change(
                self._path,
                self.event,
                self._record,
                self._say,
                comes="takes part now",
            )
            if event is None:
                return
            self.event = event
            make_keys(event, self._say)
            self._want()
            if self._conductor is not None:
                self._conductor.match = replace(
                    self._conductor.match, cash=cash_of(event)
                )

    # Processes

    async def _tend(self) -> None:
        """Keep the processes running; raises DirectorError if one cannot."""
        supervisor = self._supervisor
        while True:
            if EXCHANGE not in supervisor.running:
                port_file(self.event).unlink(missing_ok=True)
            for name, status in supervisor.tend():
                if name.startswith(BOT):
                    self._want()  # its key may be another now
                if name == EXCHANGE:
                    self._exchange_ended(status)
                else:
                    self._ends.tell(name)
            await self._look_at_exchange()
            if time.monotonic() - self._written >= LIVE_S:
                self._written = time.monotonic()
                self._read_again()
                with contextlib.suppress(OSError):  # tried again soon
                    write_live(self.event, self._key, self._conductor)
            await asyncio.sleep(LOOK_S)

    def _exchange_ended(self, status: int | None) -> None:
        """Let the exchange be started again, unless it gave up itself."""
        log = self._supervisor.wanted[EXCHANGE].log
        if self._ready_pid is None and status is not None and status > 0:
            raise DirectorError(
                f"the exchange does not start: {last_line(log)}"
            )
        self._ready_pid = None
        self._say("The exchange has ended; it is started again.")
        count_death(self._record, self._key)
        self._supervisor.may_start_now(EXCHANGE)

    async def _look_at_exchange(self) -> None:
        """Find out whether the exchange that runs now accepts orders."""
        running = self._supervisor.running.get(EXCHANGE)
        if running is None or running.pid == self._ready_pid:
            return
        if await asyncio.to_thread(is_ready, self.event):
            self._ready_pid = running.pid
            if self._conductor is not None:
                self._conductor.warm_up()

    async def _until_ready(self) -> None:
        while self._ready_pid is None:
            await asyncio.sleep(LOOK_S)

    # Rounds

    async def _play_all(self, until: str | None) -> None:
        await self._until_ready()
        token = tokens_of(self.event.folder)[ADMINISTRATOR]
        exchange = Exchange(
            local_url(self.event),
            ADMINISTRATOR,
            token,
            cancel_on_disconnect=False,
        )
        try:
            await log_in(exchange, self._until_ready)
            while True:
                attempts = self._record.attempts()
                key = next_match(self.event, attempts, until)
                if key is None:
                    return
                await self._play(exchange, key, attempts.get(key))
        except (ActRefused, Refused) as error:
            raise DirectorError(str(error)) from None
        finally:
            await exchange.close()

    async def _play(
        self, exchange: Exchange, key: Key, attempt: Attempt | None
    ) -> None:
        """Play one match until it is scored or void."""
        self._key = key
        event = self.event
        make_keys(event, self._say)
        number = attempt.number if attempt is not None else None
        if number is None:
            await self._follow_market()
            is_first = not self._record.attempts() and exchange.round == 1
            number = 1 if is_first else exchange.round + 1
            self._record.begin(key, "start", number=number)
        if attempt is None or attempt.status in BEING_PLAYED:
            paths = values_of(event, self._record, key, self._secret)
            match = match_of(event, key, number, paths, self._secret)
            conductor = Conductor(exchange, match, self._record, self._say)
            self._conductor = conductor
            self._want()
            if attempt is None or attempt.status == "started":
                self._say(coming(match))
            else:
                self._say(f"{match.label}: goes on where it was.")
            try:
                await conductor.play()
                await self._supervisor.end(HOUSE)
            except MatchVoid as void:
                await make_void(conductor, self._record, str(void), self._say)
                await self._supervisor.end(HOUSE)
                return
            finally:
                self._conductor = None
        await score(self.event, self._record, key, self._say)
