"""Which match is next, and what is played in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .conduct import Match
from .draws import EVERYBODY, matches_of
from .fair import FILE, FairPaths, edge_of
from .fair import label_of as chance_of
from .fair import make_paths, read_paths
from .file import Event
from .market import initial_cash
from .record import Attempt, Key, Record
from .schedule import Plan, Timed

LINE_MAX = 200  # characters of a name that clients are told


def names_of(event: Event, round_name: str) -> list[str]:
    """Return the names of the matches of a round, in order."""
    if event.is_large:
        return [one.match for one in matches_of(event, round_name)]
    repeats = event.settings_of(round_name).repeats
    return [
        EVERYBODY if number == 1 else f"{EVERYBODY}-{number}"
        for number in range(1, repeats + 1)
    ]


def next_match(
    event: Event, attempts: Mapping[Key, Attempt], until: str | None = None
) -> Key | None:
    """Return the match to be played now; None: all are played.

    A match that was begun goes on. A void one is played again if that was
    asked for. ``until`` is the last round.
    """
    for settings in event.rounds:
        for name in names_of(event, settings.name):
            key = _due(settings.name, name, attempts)
            if key is not None:
                return key
        if settings.name == until:
            break
    return None


def _due(
    round_name: str, name: str, attempts: Mapping[Key, Attempt]
) -> Key | None:
    """Return the attempt at a match that is to be played; None: none is."""
    last = last_attempt(attempts, round_name, name)
    if last is None:
        return Key(round_name, name, 1)
    if last.status == "scored" or last.status == "void" and not last.is_again:
        return None
    is_new = last.status == "void"
    return Key(round_name, name, last.key.attempt + is_new)


def last_attempt(
    attempts: Mapping[Key, Attempt], round_name: str, name: str
) -> Attempt | None:
    """Return the newest attempt at a match, None if there is none."""
    own = [
        attempt
        for key, attempt in attempts.items()
        if (key.round, key.match) == (round_name, name)
    ]
    return own[-1] if own else None


def find_match(event: Event, text: str) -> tuple[str, str]:
    """Read ROUND, or ROUND/MATCH; raises ValueError."""
    round_name, slash, name = text.partition("/")
    if round_name not in [settings.name for settings in event.rounds]:
        raise ValueError(f"there is no round {round_name!r}")
    names = names_of(event, round_name)
    if slash and name not in names:
        raise ValueError(f"round {round_name} has no match {name!r}")
    if not slash and len(names) > 1:
        raise ValueError(
            f"round {round_name} has several matches: name one, as in"
            f" {round_name}/{names[-1]}"
        )
    return round_name, name or names[0]


def label_of(event: Event, key: Key) -> str:
    """Return what people call a match."""
    again = f", attempt {key.attempt}" if key.attempt > 1 else ""
    settings = event.settings_of(key.round)
    is_one = settings.pairs_as == "all" and settings.repeats == 1
    name = key.round if is_one else f"{key.round}/{key.match}"
    return f"round {name}{again}"


def plan_of(event: Event, round_name: str) -> Plan:
    """Return what the file says about the matches of a round."""
    settings = event.settings_of(round_name)
    acts = []
    for number, news in enumerate(event.due_in(round_name, event.news), 1):
        detail: dict[str, Any] = {
            "headline": news.headline,
            "symbol": news.symbol,
            "body": news.body,
        }
        acts.append(
            Timed(f"news-{number}", "news", news.at * 1_000, detail, True)
        )
    for number, dividend in enumerate(
        event.due_in(round_name, event.dividends), 1
    ):
        detail = {"symbol": dividend.symbol, "amount": dividend.amount}
        name = f"dividend-{number}"
        acts.append(Timed(name, "dividend", dividend.at * 1_000, detail, True))
    for number, tender in enumerate(
        event.due_in(round_name, event.tenders), 1
    ):
        detail = {
            "symbol": tender.symbol,
            "side": tender.side,
            "qty": tender.qty,
            "valid_ms": tender.valid * 1_000,
        }
        name = f"tender-{number}"
        acts.append(Timed(name, "tender", tender.at * 1_000, detail, False))
    blow_out = settings.blow_out
    return Plan(
        warmup_ms=settings.warmup * 1_000,
        trading_ms=settings.trading * 1_000,
        acts=tuple(acts),
        blow_out=None if blow_out is None else blow_out.limit,
    )


def match_of(
    event: Event, key: Key, number: int, values: FairPaths, secret: bytes
) -> Match:
    """Return a match of all teams, to be conducted."""
    blow_out = event.settings_of(key.round).blow_out
    return Match(
        key=key,
        number=number,
        label=label_of(event, key),
        name=f"{event.event.name}, {label_of(event, key)}"[:LINE_MAX],
        fair_sha256=values.commitment,
        plan=plan_of(event, key.round),
        cash=cash_of(event),
        values=values,
        settled=tuple(event.fair),
        edges=edges_of(event, key, secret),
        at_mark=blow_out is not None and blow_out.at == "mark",
    )


def values_of(
    event: Event, record: Record, key: Key, secret: bytes
) -> FairPaths:
    """Return the hidden values of a match, made and recorded once."""
    path = event.folder / key.round / key.match / FILE
    attempt = record.attempts()[key]
    if "fair" in attempt.done and path.exists():
        return read_paths(path)
    paths = make_paths(event, key.round, key.match, key.attempt, secret)
    record.done(key, "fair", sha256=paths.write(path))
    return paths


def cash_of(event: Event) -> dict[str, int]:
    """Return the cash of each team at the start of a round, in units."""
    return {team: initial_cash(event, team) for team in event.teams}


def edges_of(event: Event, key: Key, secret: bytes) -> dict[str, int]:
    """Return how much better than fair each tender is, in ticks, by name."""
    label = chance_of(key.round, key.match, key.attempt)
    return {
        f"tender-{number}": edge_of(
            tender, event.tenders.index(tender), label, secret
        )
        for number, tender in enumerate(
            event.due_in(key.round, event.tenders), 1
        )
    }
