"""What may not change in an event file while the event is played.

Processes that run have their ports, and matches that have begun their round,
instruments and cash. A change of these is refused; all else is followed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .file import Event
from .market import initial_cash
from .record import Key, Process
from .specs import EXCHANGE, FRONT, PAGES

# Fields of ``[event]`` that processes have taken when they started.
FIXED = ("data", "host", "front", "pages", "doors", "match_ports")


def refusal(old: Event, new: Event, begun: Iterable[Key]) -> str:
    """Return why a changed file is not followed, by its field; empty: it is.

    ``begun`` are the matches that have begun.
    """
    for name in FIXED:
        if getattr(old.event, name) != getattr(new.event, name):
            return f"event.{name}: cannot change while processes run"
    if old.is_large != new.is_large:
        return "match.per_match: 0 and other sizes cannot be exchanged"
    if missing := missing_round(new, begun):
        return missing
    if old.instruments != new.instruments or old.market.money != (
        new.market.money
    ):
        return "event.market: its instruments cannot change now"
    for team in old.teams.keys() & new.teams.keys():
        if initial_cash(old, team) != initial_cash(new, team):
            return f"event.market: the cash of {team} cannot change now"
    return ""


def missing_round(event: Event, begun: Iterable[Key]) -> str:
    """Return which round has begun and is not in the file; empty: none."""
    names = {settings.name for settings in event.rounds}
    for key in begun:
        if key.round not in names:
            return (
                f"rounds: round {key.round} has begun; it cannot be left out"
                " or have another name"
            )
    return ""


def moved_port(event: Event, running: Mapping[str, Process]) -> str:
    """Return which process has another port than its field; empty: none."""
    fields = {EXCHANGE: "front", FRONT: "front", PAGES: "pages"}
    for name, field in fields.items():
        process = running.get(name)
        wanted = getattr(event.event, field)
        if process is not None and process.port != wanted:
            return (
                f"event.{field}: is {wanted}, but the {name} that runs has"
                f" port {process.port}: change it back, or call `stop` first"
            )
    return ""
