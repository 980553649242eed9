"""The exchange of one isolated match: its ports, its files, its process.

A match is an event of its own kind: the same file with fewer teams, other
ports and the folder of the match. So everything that plays an event in one
exchange plays a match, too.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from exchange.host.keyfile import changing, read_keys

from .draws import teams_of
from .fair import FILE as FAIR
from .file import Event
from .file_checks import ADMINISTRATOR, SPECTATOR
from .front.table import FILE as TABLE_FILE
from .front.table import Listen, Ports, Table, Team
from .keys import KEYS_FILE, TOKENS_FILE, house_names
from .market import LOOPBACK, write_market
from .processes import Spec, checkout, is_alive, python
from .record import Key, Process, Record
from .specs import (
    BOT_LOG_MAX,
    EXCHANGE,
    FRONT,
    bots_of,
    exchange_of,
    house_at,
    local_url,
    pages_of,
)
from .tables import DoorPorts, TeamSettings

HERE = "127.0.0.1"
PREFIX = f"{EXCHANGE} of "
# What the front takes from the environment of the director.
TLS_CERT = "EXCHANGE_SERVER_TLS_CERT"
FILE_VARIABLES = (TLS_CERT, "EXCHANGE_SERVER_TLS_KEY")
ORIGINS = "EXCHANGE_SERVER_ORIGINS"


# Ports -------------------------------------------------------------------


def ports_at(event: Event, first: int) -> Ports:
    """Return the ports of an exchange by the first of them."""
    doors = event.event.doors
    if doors is None:
        return Ports(first)
    return Ports(
        first,
        json=first + 1 if doors.json_port else 0,
        line=first + 2 if doors.line_port else 0,
    )


def free_ports(event: Event, used: Collection[int]) -> Ports | None:
    """Return ports that nobody uses; None: there are none left.

    ``used`` are the first ports of other matches. The first of all belongs to
    the front.
    """
    step = event.event.ports_per_match
    ports = event.event.ports
    for first in range(ports.start + 1, ports.stop - step + 1, step):
        if first not in used and all(
            is_free(HERE, port) for port in range(first, first + step)
        ):
            return ports_at(event, first)
    return None


def is_free(host: str, port: int) -> bool:
    """Return whether a port can be listened on."""
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, proto, _, address = infos[0]
        with socket.socket(family, kind, proto) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
    except OSError:
        return False
    return True


# The event of a match ----------------------------------------------------


def folder_of(event: Event, key: Key) -> Path:
    """Return the folder of a match."""
    return event.folder / key.round / key.match


def event_of(event: Event, key: Key, ports: Ports) -> Event:
    """Return a match as an event of its own."""
    teams = teams_of(event, key.round, key.match)
    return event_at(event, folder_of(event, key), ports, teams)


def event_at(
    event: Event, folder: Path, ports: Ports, names: Iterable[str]
) -> Event:
    """Return an event with some teams behind a front.

    Its doors let the teams in from this machine: the front has looked at
    their addresses.
    """
    doors = None
    if event.event.doors is not None:
        doors = DoorPorts(json_port=ports.json, line_port=ports.line)
    settings = event.event.model_copy(
        update={
            "host": HERE,
            "front": ports.native,
            "doors": doors,
            "data": str(folder),
        }
    )
    teams = {}
    for name in names:
        team = event.teams[name]
        networks = LOOPBACK if team.address or team.bot else []
        update = {"address": networks, "bot": []}
        teams[name] = team.model_copy(update=update)
    other = event.model_copy(update={"event": settings, "teams": teams})
    other._path, other._market = event.path, event.market
    return other


def label_of(key: Key) -> str:
    """Return what the processes of a match are called."""
    return f"{key.round}/{key.match}/{key.attempt}"


def key_of(name: str) -> Key | None:
    """Return the match of an exchange by the name of its process."""
    parts = name.removeprefix(PREFIX).split("/")
    if not name.startswith(PREFIX) or len(parts) != 3:
        return None
    return Key(parts[0], parts[1], int(parts[2]))


def running(
    event: Event, processes: Collection[Process]
) -> Iterator[tuple[Key, Event]]:
    """Yield the matches whose exchanges are among these processes."""
    for process in processes:
        key = key_of(process.name)
        if key is not None:
            yield key, event_of(event, key, ports_at(event, process.port))


def markets_of(event: Event, record: Record) -> list[tuple[str, Event]]:
    """Return the markets that may run, each with the match in it.

    In the usual size that is one without a name.
    """
    if not event.is_large:
        return [("", event)]
    alive = [one for one in record.processes().values() if is_alive(one)]
    return [(label_of(key), match) for key, match in running(event, alive)]


# Files -------------------------------------------------------------------


def write_files(event: Event, match: Event) -> None:
    """Write what the exchange of a match reads; raises OSError, KeysError."""
    match.folder.mkdir(parents=True, exist_ok=True)
    write_market(match, is_alone=True)
    write_keys(event, match)
    tokens = match.folder / TOKENS_FILE  # of the house bots
    tokens.unlink(missing_ok=True)
    tokens.symlink_to(event.folder / TOKENS_FILE)


def write_keys(event: Event, match: Event) -> None:
    """Write the keys of a match: of its teams, the house and the director."""
    names = (ADMINISTRATOR, SPECTATOR, *house_names(event), *match.teams)
    keys = read_keys(event.folder / KEYS_FILE)
    wanted = {name: keys[name] for name in names if name in keys}
    with changing(match.folder / KEYS_FILE, create=True) as accounts:
        accounts.clear()
        accounts.update(wanted)


# Processes ---------------------------------------------------------------


def exchange_at(event: Event, key: Key, match: Event) -> Spec:
    """Return the exchange of a match."""
    spec = exchange_of(match)
    return replace(
        spec,
        name=f"{PREFIX}{label_of(key)}",
        owner=event.folder,
        # All its clients come from the front.
        variables={**spec.variables, **checkout(max_per_address=0)},
    )


def traders_of(event: Event, key: Key, match: Event) -> Iterator[Spec]:
    """Yield the house bots of a match, and the bots of its teams."""
    for spec in house_at(match, match.folder / FAIR, label_of(key)):
        yield replace(spec, owner=event.folder)
    plain = plain_port(event)
    front = f"ws://{HERE}:{plain}" if plain else local_url(event)
    for spec in bots_of(event, front):
        if spec.variables["EXCHANGE_USER"] in match.teams:
            yield spec


def plain_port(event: Event) -> int:
    """Return the port of a front without TLS; 0: it has no TLS itself."""
    if not event.is_large:
        return 0
    return event.event.ports.start if os.environ.get(TLS_CERT) else 0


def front_of(event: Event) -> Spec:
    """Return the front of an event."""
    folder = event.folder
    return Spec(
        name=FRONT,
        owner=folder,
        command=python("-m", "util.event.front", str(folder / TABLE_FILE)),
        folder=folder,
        log=folder / "front.log",
        variables=checkout() | _front_variables(),
        port=event.event.front,
        log_max=BOT_LOG_MAX,
    )


def _front_variables() -> dict[str, str]:
    """Return the settings of the front; it runs in another folder."""
    found = {
        name: str(Path(os.environ[name]).absolute())
        for name in FILE_VARIABLES
        if os.environ.get(name)
    }
    if ORIGINS in os.environ:
        found[ORIGINS] = os.environ[ORIGINS]
    return found


def inner_pages_of(event: Event) -> Spec:
    """Return the pages, which only the front reaches."""
    spec = pages_of(event)
    return replace(spec, command=[*spec.command, "--local"])


def table_of(
    event: Event, matches: Mapping[Key, Event], playing: Collection[Key]
) -> Table:
    """Return the routing table with these matches.

    Only teams of ``playing`` are let in; others stay connected.
    """
    settings = event.event
    doors = settings.doors or DoorPorts()
    routed: dict[str, str] = {}
    ports: dict[str, Ports] = {}
    for key, match in matches.items():
        name = f"{key.round}/{key.match}"
        ports[name] = ports_at(event, match.event.front)
        if key in playing:
            routed |= dict.fromkeys(match.teams, name)
    return Table(
        listen=Listen(
            settings.host,
            settings.front,
            doors.json_port,
            doors.line_port,
            plain_port(event),
        ),
        pages=settings.pages,
        teams={
            name: _team(team, routed.get(name, ""))
            for name, team in event.teams.items()
        },
        matches=ports,
    )


def _team(settings: TeamSettings, match: str) -> Team:
    """Return where a team plays, and from where it may come."""
    local = LOOPBACK if settings.bot else []
    own = (*settings.address, *local)
    return Team(match, own if settings.address else (), own)
