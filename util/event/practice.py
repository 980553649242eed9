"""Practice servers of an event: ``python -m util.event practice``.

Three exchanges of the same market, until stopped: *prod-like* plays matches
one after another, *slower* runs at a fifth of the speed and is never reset,
*empty* has no house bots. Their ports are that of the event, +1 and +2, and so
are those of the doors. Every key of the event enters. Hidden values come from
a secret of their own; those of a match are public after it. Everything is in
memory. In an event of isolated matches each of them has a front, so that the
addresses of teams are those of the event.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from client import Exchange, ExchangeError
from exchange.host.keyfile import KeysError
from orderbook import Refused
from util.cli import failed, on_stop

from .conduct import ActRefused, Conductor, MatchVoid
from .directing import KILLED_S, DirectorError
from .director import alone
from .draws import EVERYBODY
from .fair import FILE, make_paths, secret_of
from .file import Event, EventError, read_event
from .file_checks import ADMINISTRATOR
from .front.table import FILE as TABLE_FILE
from .isolated import (
    HERE,
    event_at,
    front_of,
    inner_pages_of,
    is_free,
    ports_at,
    table_of,
)
from .keys import KEYS_FILE, TOKENS_FILE, make_own_keys, tokens_of
from .market import write_market
from .matches import match_of
from .options import event_parser
from .ports import PAGES_FIELD, free_for, ports_of, problems_of
from .processes import LOOK_S, Spec, last_line
from .record import Key, Record
from .rehearse import moved
from .run import say
from .sentences import hosts_of, without_key
from .specs import (
    EXCHANGE,
    FRONT,
    HOUSE,
    PAGES,
    exchange_of,
    house_at,
    is_ready,
    local_url,
    pages_of,
    port_file,
)
from .supervise import Supervisor
from .tables import RoundSettings
from .uptime import PRACTICE, SERVERS, Uptime, write_uptime

TOOL = "event practice"
FOLDER = PRACTICE
PUBLIC = "public"  # hidden values of past matches
PROD_LIKE, SLOWER, EMPTY = NAMES = SERVERS
SPEED_SLOWER = 0.2
UPTIME_S = 1.0  # between two looks
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


def pages_port(event: Event) -> int:
    """Return the port of the pages: another one if a server has theirs."""
    used = {
        port.number
        for name in NAMES
        for port in ports_of(variant(event, name))
        if port.field != PAGES_FIELD
    }
    port = event.event.pages
    if port in used:
        port = event.event.front + len(NAMES)
    while port in used:
        port += 1
    return port


class Server:
    """One practice server, kept running."""

    def __init__(self, event: Event, name: str, record: Record) -> None:
        outer = self._outer = self._event = variant(event, name)
        self.uptime = Uptime(name, outer.event.front)
        self._front: Spec | None = None
        self._pages = pages_port(event)
        self._looked = 0.0
        self._name = name
        if event.is_large:
            self._front = self._go_behind(outer)
        self._supervisor = Supervisor(record, self._say)
        self._token = tokens_of(event.folder)[ADMINISTRATOR]
        self._secret = secret_of(event.folder / FOLDER)
        self._prepare(event)

    def _say(self, line: str) -> None:
        say(f"{self._name}: {line}")

    def _go_behind(self, outer: Event) -> Spec:
        """Move the exchange behind a front; return the front."""
        step = outer.event.ports_per_match
        first = outer.event.ports.start + 1 + NAMES.index(self._name) * step
        self._event = event_at(
            outer, outer.folder, ports_at(outer, first), outer.teams
        )
        key = Key(FOLDER, EVERYBODY, 1)
        table = table_of(outer, {key: self._event}, {key})
        listen = replace(table.listen, plain=0)
        table = replace(table, listen=listen, pages=self._pages)
        table.write(outer.folder / TABLE_FILE)
        return front_of(outer)

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
        supervisor.end_strays(self._outer.folder)
        ports = free_for(self._outer, [*supervisor.running, PAGES])
        if problems := await problems_of(self._event, ports, KILLED_S):
            raise DirectorError(f"{self._name}: {'; '.join(problems)}")

    async def run(self) -> None:
        """Keep the server running, and play; raises DirectorError."""
        supervisor = self._supervisor
        wanted = [self._exchange()]
        if self._front is not None:
            wanted.append(self._front)
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
                await self._look()
                if playing is not None and playing.done():
                    playing.result()
                await asyncio.sleep(LOOK_S)
        finally:
            if playing is not None:
                playing.cancel()
                await asyncio.gather(playing, return_exceptions=True)
            await supervisor.end(HOUSE)
            await supervisor.end(EXCHANGE, FRONT)

    async def _look(self) -> None:
        """Look, once a second, whether the exchange accepts orders."""
        now = time.monotonic()
        if now - self._looked >= UPTIME_S:
            self._looked = now
            is_up = await asyncio.to_thread(is_ready, self._event)
            self.uptime.look(is_up, time.monotonic())

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
        self.uptime.ends += 1
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
            number = self._last_published()
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

    def _last_published(self) -> int:
        """Return the last match of earlier practice; its values are known."""
        public = self._event.folder / PUBLIC
        names = [path.stem for path in public.glob("fair-*.csv")]
        return max((int(name[5:]) for name in names), default=0)

    def _publish(self, number: int) -> None:
        """Let everybody read the hidden values of a match that is over."""
        folder = self._event.folder
        public = folder / PUBLIC
        public.mkdir(exist_ok=True)
        source = folder / FOLDER / EVERYBODY / FILE
        shutil.copyfile(source, public / f"fair-{number}.csv")
        (public / f"fair-{number - KEPT}.csv").unlink(missing_ok=True)
        self.uptime.match = number


async def serve_pages(event: Event, record: Record) -> None:
    """Keep the pages running until canceled, unless somebody serves them."""
    spec = inner_pages_of(event) if event.is_large else pages_of(event)
    port = pages_port(event)
    spec = replace(
        spec,
        owner=event.folder / FOLDER,
        command=[*spec.command, "--port", str(port)],
        port=port,
    )
    supervisor = Supervisor(record, say)
    host = HERE if event.is_large else event.event.host
    if PAGES not in supervisor.running and not is_free(host, port):
        say(f"port {port}, that of the pages, is in use already")
        return
    say(f"pages on port {event.event.front if event.is_large else port}")
    supervisor.wanted = {spec.name: spec}
    try:
        while True:
            supervisor.tend()
            await asyncio.sleep(LOOK_S)
    finally:
        await supervisor.end(PAGES)


async def note_uptime(event: Event, servers: Sequence[Server]) -> None:
    """Write how long the servers were up, once a second, until canceled."""
    while True:
        folder = event.folder / FOLDER
        write_uptime(folder, [server.uptime for server in servers])
        await asyncio.sleep(UPTIME_S)


async def serve(event: Event) -> None:
    """Run the practice servers until canceled."""
    with contextlib.ExitStack() as stack:
        servers = []
        for name in NAMES:
            folder = event.folder / FOLDER / name
            record = stack.enter_context(Record.of(folder))
            servers.append(Server(event, name, record))
            hosts = " or ".join(
                f"ws://{host}:{servers[-1].uptime.port}"
                for host in hosts_of(event)
            )
            say(f"{name}: teams connect to {hosts}.")
        for server in servers:
            await server.check_ports()
        record = stack.enter_context(Record.of(event.folder / FOLDER))
        others = [
            asyncio.create_task(serve_pages(event, record)),
            asyncio.create_task(note_uptime(event, servers)),
        ]
        tasks = [asyncio.create_task(server.run()) for server in servers]
        on_stop(partial(_cancel, tasks))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            _cancel([*tasks, *others])
            done = await asyncio.gather(
                *tasks, *others, return_exceptions=True
            )
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
