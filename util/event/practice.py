"""Practice servers of an event: ``python -m util.event practice``.

Three exchanges of the same market, until stopped: *prod-like* plays matches
one after another, *slower* runs at a fifth of the speed and is never reset,
*empty* has no house bots. Their ports are that of the event, +1 and +2, and so
are those of the doors. Every key of the event enters. Hidden values come from
a secret of their own; those of a match are public after it. Everything is in
memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from dataclasses import replace
from functools import partial

from client import Exchange, ExchangeError
from exchange.host.keyfile import KeysError
from orderbook import Refused
from util.cli import failed, on_stop

from .conduct import ActRefused, Conductor, MatchVoid
from .director import KILLED_S, DirectorError, alone
from .fair import FILE, make_paths, secret_of
from .file import Event, EventError, read_event
from .file_checks import ADMINISTRATOR
from .keys import KEYS_FILE, TOKENS_FILE, make_own_keys, tokens_of
from .market import write_market
from .matches import EVERYBODY, match_of
from .options import event_parser
from .ports import free_for, problems_of
from .processes import LOOK_S, Spec, last_line
from .record import Key, Record
from .rehearse import moved
from .run import say
from .sentences import hosts_of, without_key
from .specs import (
    EXCHANGE,
    HOUSE,
    PAGES,
    exchange_of,
    house_at,
    is_ready,
    local_url,
    port_file,
)
from .supervise import Supervisor
from .tables import RoundSettings

TOOL = "event practice"
FOLDER = "practice"  # in the data folder
PUBLIC = "public"  # hidden values of past matches
PROD_LIKE, SLOWER, EMPTY = NAMES = ("prod-like", "slower", "empty")
SPEED_SLOWER = 0.2
KEPT = 20  # past matches whose hidden values are kept


def variant(event: Event, name: str) -> Event:
    """Return the event of a practice server: its folder and its ports."""
    shift = NAMES.index(name)
    other = moved(event, event.folder / FOLDER / name)
    settings = other.event
    changes: dict[str, object] = {"front": settings.front + shift}
    if settings.doors is not None:
        ports = settings.doors.model_dump()
        changes["doors"] = settings.doors.model_copy(
            update={n: port and port + shift for n, port in ports.items()}
        )
    update = {
        "event": settings.model_copy(update=changes),
        "rounds": [RoundSettings(name=FOLDER)],
    }
    found = other.model_copy(update=update)
    found._path, found._market = event.path, event.market
    return found


class Server:
    """One practice server, kept running."""

    def __init__(self, event: Event, name: str, record: Record) -> None:
        self._event = variant(event, name)
        self._name = name
        self._supervisor = Supervisor(record, self._say)
        self._token = tokens_of(event.folder)[ADMINISTRATOR]
        self._secret = secret_of(event.folder / FOLDER)
        self._prepare(event)

    def _say(self, line: str) -> None:
        say(f"{self._name}: {line}")

    def _prepare(self, event: Event) -> None:
        """Write the market, and share the keys of the event."""
        folder = self._event.folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in (KEYS_FILE, TOKENS_FILE):
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(event.folder / name)
        is_played = self._name == PROD_LIKE
        write_market(self._event, "closed" if is_played else "open")

    async def check_ports(self) -> None:
        """Raise DirectorError if another program holds a port."""
        supervisor = self._supervisor
        supervisor.end_strays(self._event.folder)
        ports = free_for(self._event, [*supervisor.running, PAGES])
        if problems := await problems_of(self._event, ports, KILLED_S):
            raise DirectorError(f"{self._name}: {'; '.join(problems)}")

    async def run(self) -> None:
        """Keep the server running, and play; raises DirectorError."""
        supervisor = self._supervisor
        wanted = [self._exchange()]
        if self._name == SLOWER:
            wanted += house_at(self._event, None, self._name)
        supervisor.wanted = {spec.name: spec for spec in wanted}
        port_file(self._event).unlink(missing_ok=True)
        playing = None
        if self._name == PROD_LIKE:
            playing = asyncio.create_task(self._play())
        try:
            while True:
                for name, status in supervisor.tend():
                    self._ended(name, status)
                if playing is not None and playing.done():
                    playing.result()
                await asyncio.sleep(LOOK_S)
        finally:
            if playing is not None:
                playing.cancel()
                await asyncio.gather(playing, return_exceptions=True)
            await supervisor.end(HOUSE)
            await supervisor.end(EXCHANGE)

    def _exchange(self) -> Spec:
        spec = exchange_of(self._event)
        settings = {"EXCHANGE_SERVER_JOURNAL": "off"}
        if self._name == SLOWER:
            settings["EXCHANGE_SERVER_SPEED"] = str(SPEED_SLOWER)
        return replace(spec, variables={**spec.variables, **settings})

    def _ended(self, name: str, status: int | None) -> None:
        """Let a process be started again, unless it gave up itself."""
        if name != EXCHANGE:
            return
        line = last_line(exchange_of(self._event).log)
        if status is not None and status > 0:
            raise DirectorError(f"{self._name} does not start: {line}")
        self._say("the exchange has ended; it is started again.")
        self._supervisor.may_start_now(name)

    # Matches

    async def _play(self) -> None:
        """Play one match after another."""
        event = self._event
        while not await asyncio.to_thread(is_ready, event):
            await asyncio.sleep(LOOK_S)
        url = local_url(event)
        async with Exchange(
            url, ADMINISTRATOR, self._token, cancel_on_disconnect=False
        ) as exchange:
            number = 0
            while True:
                number += 1
                with contextlib.suppress(MatchVoid):
                    await self._match(exchange, number)
                await self._supervisor.end(HOUSE)
                self._publish(number)

    async def _match(self, exchange: Exchange, number: int) -> None:
        """Play one match; raises MatchVoid if the exchange was replaced."""
        event = self._event
        key = Key(FOLDER, EVERYBODY, number)
        secret = self._secret
        paths = make_paths(event, FOLDER, EVERYBODY, number, secret)
        path = event.folder / FOLDER / EVERYBODY / FILE
        paths.write(path)
        match = match_of(event, key, exchange.round + 1, paths, secret)
        for spec in house_at(event, path, str(number)):
            self._supervisor.wanted[spec.name] = spec
        with Record(":memory:") as record:
            conductor = Conductor(exchange, match, record, self._say)
            await conductor.play()

    def _publish(self, number: int) -> None:
        """Let everybody read the hidden values of a match that is over."""
        folder = self._event.folder
        public = folder / PUBLIC
        public.mkdir(exist_ok=True)
        source = folder / FOLDER / EVERYBODY / FILE
        shutil.copyfile(source, public / f"fair-{number}.csv")
        (public / f"fair-{number - KEPT}.csv").unlink(missing_ok=True)


async def serve(event: Event) -> None:
    """Run the practice servers until canceled."""
    with contextlib.ExitStack() as stack:
        servers = []
        for name in NAMES:
            folder = event.folder / FOLDER / name
            record = stack.enter_context(Record.of(folder))
            servers.append(Server(event, name, record))
            front = servers[-1]._event.event.front
            hosts = " or ".join(f"ws://{h}:{front}" for h in hosts_of(event))
            say(f"{name}: teams connect to {hosts}.")
        for server in servers:
            await server.check_ports()
        tasks = [asyncio.create_task(server.run()) for server in servers]
        on_stop(partial(_cancel, tasks))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            _cancel(tasks)
            done = await asyncio.gather(*tasks, return_exceptions=True)
    for result in done:
        if isinstance(result, Exception):
            raise result


def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks that are not ending already."""
    for task in tasks:
        if not task.cancelling():
            task.cancel()


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.event practice``; return the exit status."""
    parser = event_parser("practice", "Run practice servers until stopped.")
    options = parser.parse_args(arguments)
    try:
        event = read_event(options.event)
        if without := make_own_keys(event):
            say(without_key(without))
        with alone(event.folder / FOLDER):
            asyncio.run(serve(event))
    except (EventError, KeysError, ValueError, OSError) as error:
        return failed(TOOL, error)
    except (DirectorError, ActRefused, Refused, ExchangeError) as error:
        return failed(TOOL, error, 1)
    return 0
