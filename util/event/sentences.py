"""What the commands of an event say to the organiser, in whole sentences."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence

from exchange.doors.names import in_url

from .conduct import Match
from .file import Event
from .isolated import plain_port

# Hosts that mean every address of this machine; and an address of a network
# for documents. Nothing is sent there, but the system tells from which
# address of this machine it would be.
ELSEWHERE = {
    "0.0.0.0": (socket.AF_INET, "192.0.2.1"),
    "::": (socket.AF_INET6, "2001:db8::1"),
}
DISCARD_PORT = 9


def hosts_of(event: Event) -> list[str]:
    """Return the hosts by which others reach the event, as URLs have them.

    Where it listens on every address: that of this machine in its network, if
    it has one, and "localhost".
    """
    host = event.event.host
    if host not in ELSEWHERE:
        return [in_url(host)]
    family, address = ELSEWHERE[host]
    hosts = ["localhost"]
    with contextlib.suppress(OSError):  # there is no network
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect((address, DISCARD_PORT))
            hosts.insert(0, in_url(str(asking.getsockname()[0])))
    return hosts


def greeting(event: Event) -> Iterator[str]:
    """Yield what is played, and where everything is."""
    rounds = ", ".join(settings.name for settings in event.rounds)
    yield f"{event.event.name}: {len(event.teams)} teams play {rounds}."
    yield from addresses(event)


def addresses(event: Event) -> Iterator[str]:
    """Yield where teams connect, and where the pages are."""
    settings, hosts = event.event, hosts_of(event)

    def urls(kind: str, port: int, path: str = "") -> str:
        if plain_port(event):  # the front has TLS
            kind += "s"
        return " or ".join(f"{kind}://{host}:{port}{path}" for host in hosts)

    native = urls("ws", settings.front, "/t/TEAM" if event.is_large else "")
    yield f"Teams connect to {native}, each with its name and key."
    if settings.doors is not None:
        doors = {
            "JSON": settings.doors.json_port,
            "text": settings.doors.line_port,
        }
        named = [f"{port} ({kind})" for kind, port in doors.items() if port]
        if named:
            yield (
                f"Challenge bots connect to {' or '.join(hosts)}, port"
                f" {' or '.join(named)}."
            )
    if event.is_large:
        pages = urls("http", settings.front, "/")
        yield f"Standings, downloads and live pages are at {pages}."
        return
    pages = urls("http", settings.pages, "/")
    yield f"Standings and downloads are at {pages}."
    live = urls("http", settings.front, "/")
    yield f"The live page of the market is at {live}."


def pages_url(event: Event) -> str:
    """Return one address of the pages."""
    scheme = "https" if plain_port(event) else "http"
    port = event.event.front if event.is_large else event.event.pages
    return f"{scheme}://{hosts_of(event)[0]}:{port}/"


def without_key(teams: Sequence[str]) -> str:
    """Return what to do about teams that have no key."""
    names, is_one = ", ".join(teams), len(teams) == 1
    return (
        f"{names} {'has' if is_one else 'have'} no key and cannot log in: the"
        f" command `keys` makes {'it' if is_one else 'them'}."
    )


def coming(match: Match) -> str:
    """Return the announcement of a match whose warm-up begins now."""
    warmup_s = match.plan.warmup_ms // 1_000
    opening = time.strftime("%H:%M:%S", time.localtime(time.time() + warmup_s))
    return (
        f"{match.label}: warm-up of {warmup_s} s; trading opens at {opening}"
        f" for {match.plan.trading_ms // 1_000} s, unless it is paused."
    )
