"""The routing table of the front: ``DATA/front.json``.

The director replaces it as a whole; the front reads it after each change.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from exchange.doors.names import Proxies, read_network

FILE = "front.json"


class TableError(Exception):
    """The file is no routing table; the text names it and the reason."""


@dataclass(frozen=True, slots=True)
class Team:
    """Where a team plays, and from where it may come.

    ``match`` is as in "A/03", empty if it has none now. ``networks`` are those
    from which it may come natively, with its key: any if there are none.
    ``doors`` are those from which it may enter the doors, which ask for no
    key: none if there are none.
    """

    match: str = ""
    networks: tuple[str, ...] = ()
    doors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one exchange on this machine; 0: there is no such door."""

    native: int
    json: int = 0
    line: int = 0


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the front listens; a door 0 stays shut.

    ``plain`` is a port of the loopback without TLS, for the bots that are
    started here; 0: `native` has no TLS itself.
    """

    host: str
    native: int
    json: int = 0
    line: int = 0
    plain: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """Who plays where; ``pages`` is the port of standings and downloads."""

    listen: Listen
    pages: int
    teams: Mapping[str, Team] = field(default_factory=dict)
    matches: Mapping[str, Ports] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Replace the file, which is read again after a crash: no sync."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self)), "utf-8")
        new.replace(path)


def read_table(path: Path) -> Table:
    """Read the file; raises TableError."""
    try:
        value: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return Table(
            listen=Listen(**value["listen"]),
            pages=value["pages"],
            teams={
                name: Team(
                    one["match"], tuple(one["networks"]), tuple(one["doors"])
                )
                for name, one in value["teams"].items()
            },
            matches={
                name: Ports(**one) for name, one in value["matches"].items()
            },
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TableError(f"{path}: no routing table: {error!r}") from None


def includes(networks: Iterable[str], address: str) -> bool:
    """Return whether one of the networks has an address."""
    return Proxies(map(read_network, networks)).include(address)
