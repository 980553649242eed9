"""What tools need to open the doors of challenge bots: ports, and a table."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Mapping

DOORS = ("json", "text")
# Ports that systems give to nobody who asks for any.
PORTS = range(20_000, 30_000)
_FIELDS = {"json": "json_port", "text": "line_port"}


def free_port() -> int:
    """Return a port on which nobody listens."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def door_ports() -> dict[str, int]:
    """Return a free port for each door."""
    return {door: free_port() for door in DOORS}


def doors_table(
    ports: Mapping[str, int],
    teams: Mapping[str, str] | None = None,
    **settings: int,
) -> str:
    """Return the table of a market file that opens the doors there.

    ``teams`` are the accounts that enter by their address.
    """
    rows = {_FIELDS[door]: port for door, port in ports.items()} | settings
    lines = ["[doors]", *(f"{name} = {n}" for name, n in rows.items())]
    if teams:
        lines.append("[doors.teams]")
        lines += [f'{team} = "{network}"' for team, network in teams.items()]
    return "\n".join([*lines, ""])
