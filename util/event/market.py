"""The market file of an event's exchange: ``DATA/market.toml``.

It is the market file that the event names, with every instrument closed at
the start, house bots without limits of their rates, and the doors of the
event. Without a live board the exchange shows its leaderboard to nobody else.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from typing import Any

from exchange.files import text_of
from orderbook import PhaseName

from .file import Event
from .file_checks import is_door_name
from .keys import house_names
from .output import write_text

MARKET_FILE = "market.toml"
# Limits of a house bot; 0: unlimited.
HOUSE_LIMITS = {"orders_per_s": 0, "open_orders": 0}

LOOPBACK = ["127.0.0.0/8", "::1/128"]


def write_market(
    event: Event, phase: PhaseName = "closed", is_alone: bool = False
) -> None:
    """Write the market file; raises OSError. It starts in this phase.

    ``is_alone``: it has no other accounts than teams and house bots.
    """
    write_text(event.folder / MARKET_FILE, market_text(event, phase, is_alone))


def is_written(event: Event) -> bool:
    """Return whether the market file is what the event file says now."""
    path = event.folder / MARKET_FILE
    text = market_text(event, "closed")
    return path.exists() and path.read_text("utf-8") == text


def market_text(event: Event, phase: PhaseName, is_alone: bool = False) -> str:
    """Return the market file; raises OSError."""
    data = tomllib.loads(text_of(event.market_path.read_bytes()))
    for instrument in data["instruments"].values():
        instrument["phase"] = phase
    if not event.event.live_board:
        data["public_leaderboard"] = False
    accounts = data.setdefault("accounts", {})
    if is_alone:
        for name in accounts.keys() - event.teams.keys():
            del accounts[name]
    for name in house_names(event):
        accounts.setdefault(name, HOUSE_LIMITS)
    if event.event.doors is not None:
        doors = data.setdefault("doors", {})
        doors |= event.event.doors.model_dump()
        doors["teams"] = _entrances(event)
    return toml(data)


def _entrances(event: Event) -> dict[str, list[str]]:
    """Return the networks from which teams may enter the doors.

    A bot that is started here comes from this machine. Only names that the
    doors know can enter.
    """
    networks = {
        name: team.address + (LOOPBACK if team.bot else [])
        for name, team in event.teams.items()
        if is_door_name(name)
    }
    return {name: found for name, found in networks.items() if found}


def initial_cash(event: Event, team: str) -> int:
    """Return the cash of a team at the start of a round, in units."""
    own = event.market.accounts.get(team)
    if own is not None and "cash" in own.model_fields_set:
        return own.cash
    return event.market.account.cash


def toml(data: Mapping[str, Any]) -> str:
    """Return a mapping as TOML; its values are those that TOML can have."""
    lines = [
        f"{_key(name)} = {_value(value)}"
        for name, value in data.items()
        if not isinstance(value, Mapping)
    ]
    for name, value in data.items():
        if isinstance(value, Mapping):
            lines += _table(_key(name), value)
    return "".join(f"{line}\n" for line in lines)


def _table(path: str, table: Mapping[str, Any]) -> list[str]:
    """Return a table of tables, or one table, with its header."""
    if table and all(isinstance(v, Mapping) for v in table.values()):
        lines: list[str] = []
        for name, value in table.items():
            lines += _table(f"{path}.{_key(name)}", value)
        return lines
    return [
        f"[{path}]",
        *(f"{_key(name)} = {_value(value)}" for name, value in table.items()),
    ]


def _key(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{_key(name)} = {_value(v)}" for name, v in value.items())
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str | bool | int | float):
        return json.dumps(value, ensure_ascii=False)
    return str(value)  # a date
