"""Where an event stands: ``python -m util.event status``."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from client import Exchange, ExchangeError
from orderbook import Refused
from util.cli import CONNECT_TIMEOUT_S, failed

from .director import player
from .draws import teams_of
from .file import Event, EventError, read_event
from .file_checks import ADMINISTRATOR
from .isolated import markets_of
from .keys import tokens_of
from .market import initial_cash
from .matches import last_attempt, names_of
from .options import event_parser
from .processes import is_alive
from .record import Attempt, Record
from .specs import EXCHANGE, http_url, local_url

# A figure of the exchange: it has a line for each account that is connected.
_LINK = re.compile(r'^exchange_outbox_bytes\{account="([^"]+)"\}', re.M)


async def look(event: Event) -> dict[str, Any]:
    """Ask the exchange; raises ExchangeError, Refused, OSError."""
    token = tokens_of(event.folder).get(ADMINISTRATOR)
    async with Exchange(
        local_url(event),
        ADMINISTRATOR,
        token,
        cancel_on_disconnect=False,
        connect_timeout=CONNECT_TIMEOUT_S,
    ) as exchange:
        return {
            "instruments": await exchange.get("instruments"),
            "leaderboard": await exchange.leaderboard(),
            "connected": await asyncio.to_thread(connected, event),
        }


def connected(event: Event) -> set[str]:
    """Return the accounts that are connected; raises OSError."""
    with urllib.request.urlopen(
        http_url(event) + "/metrics", timeout=CONNECT_TIMEOUT_S
    ) as answer:
        return set(_LINK.findall(answer.read().decode()))


def lines_of(event: Event, record: Record) -> Iterator[str]:
    """Yield what the record says: director, processes, matches."""
    director = player(event.folder)
    if director is not None:
        yield f"director: process {director.pid}"
    elif record.is_over():
        yield "the event is over: all rounds are scored"
    else:
        yield "no director: start it with `run`"
    for process in record.processes().values():
        state = f"process {process.pid}"
        if not is_alive(process):
            state = "has ended"
        port = f", port {process.port}" if process.port else ""
        yield f"{process.name}: {state}{port}"
    paused = record.paused()
    if paused is not None:
        yield f"paused: {paused}"
    attempts = record.attempts()
    for settings in event.rounds:
        for name in names_of(event, settings.name):
            last = last_attempt(attempts, settings.name, name)
            teams: tuple[str, ...] = ()
            if event.is_large:
                teams = teams_of(event, settings.name, name)
            yield _match(settings.name, name, teams, last)


def _match(
    round_name: str, name: str, teams: Sequence[str], last: Attempt | None
) -> str:
    """Return the line of a match."""
    who = f" ({', '.join(teams)})" if teams else ""
    text = f"{round_name}/{name}{who}: "
    if last is None:
        return text + "to come"
    if last.key.attempt > 1:
        text += f"attempt {last.key.attempt}, "
    text += last.status
    if last.opened_ts is not None:
        opened = datetime.fromtimestamp(last.opened_ts / 1e6)
        text += f", opened at {opened:%H:%M:%S}"
    if last.deaths:
        text += f", the exchange ended {last.deaths} times"
    return text + (f": {last.reason}" if last.reason else "")


def live_lines(event: Event, seen: dict[str, Any]) -> Iterator[str]:
    """Yield what the exchange says: phases, time left, P&L at marks."""
    rows = seen["instruments"]
    phases = sorted({row["phase"] for row in rows})
    closing = [row["close_ts"] for row in rows if row.get("close_ts")]
    left = ""
    if closing:
        left = f", {max(closing) / 1e6 - time.time():.0f} s left"
    yield f"market: {', '.join(phases)}{left}"
    there = [team for team in event.teams if team in seen["connected"]]
    missing = [team for team in event.teams if team not in seen["connected"]]
    yield f"connected: {', '.join(there) or 'no team'}"
    if missing:
        yield f"not connected: {', '.join(missing)}"
    for row in seen["leaderboard"]:
        team = row["user"]
        if team in event.teams:
            pnl = row["equity"] - initial_cash(event, team)
            yield f"{row['rank']:>4} {team:<20} {pnl:>12,}"


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.event status``; return the exit status."""
    parser = event_parser("status", "Show where an event stands.")
    options = parser.parse_args(arguments)
    try:
        event = read_event(options.event)
        with Record.of(event.folder) as record:
            for line in lines_of(event, record):
                print(line)
            markets = markets_of(event, record)
            exchange = record.processes().get(EXCHANGE)
        if not event.is_large and (exchange is None or not is_alive(exchange)):
            markets = []
        if not markets:
            print("no exchange runs")
        for name, market in markets:
            _show(name, market)
    except (EventError, ValueError, OSError) as error:
        return failed("event status", error)
    return 0


def _show(name: str, event: Event) -> None:
    """Print what the exchange of an event, or of a match, says."""
    if name:
        print(f"\n{name}")
    try:
        seen = asyncio.run(look(event))
    except (Refused, ExchangeError, OSError) as error:
        print(f"the exchange does not answer: {error}")
        return
    for line in live_lines(event, seen):
        print(line)
