"""What fields of an event file must have in common, and with the market.

Each check yields the path of a field and the reason why it is wrong. What one
field may be is in `tables`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeAlias

from exchange.host.market_file import MarketSettings
from exchange.market.products import DERIVATIVES
from orderbook import Instrument

from .tables import (
    Act,
    Dividend,
    EventSettings,
    FairSettings,
    HouseSettings,
    MatchSettings,
    News,
    RoundSettings,
    Scoring,
    TeamSettings,
    Tender,
)
from .toml_lines import KeyPath

# Accounts of the event itself. House bots have names that begin like this.
ADMINISTRATOR = "director"
SPECTATOR = "spectator"
HOUSE_PREFIX = "house-"
# A team's files stand beside a folder of this name.
PUBLIC_FOLDER = "public"
# Files of a match stand there too: names that end like one are theirs.
FILE_ENDINGS = (".csv", ".db", ".json", ".toml", ".tsv", ".log", ".port")
# Names of the data folder that no round may have.
RESERVED_ROUNDS = ("secret", "practice", "all", "bots")
PRACTICE_SERVERS = 3
RULES = ("pnl", "rank_weighted", "rank_squared", "drawdown")

Problem: TypeAlias = tuple[KeyPath, str]


class Tables(Protocol):
    """The tables of an event file, as `file.Event` has them."""

    event: EventSettings
    teams: dict[str, TeamSettings]
    match: MatchSettings
    scoring: Scoring
    rounds: list[RoundSettings]
    fair: dict[str, FairSettings]
    house: HouseSettings | None
    news: list[News]
    dividends: list[Dividend]
    tenders: list[Tender]


def problems(
    tables: Tables,
    market: MarketSettings,
    instruments: Mapping[str, Instrument],
) -> Iterator[Problem]:
    """Yield what is wrong with tables that are right one by one."""
    yield from _ports(tables.event)
    yield from _match_ports(tables)
    yield from _teams(tables)
    yield from _rounds(tables)
    yield from _rules(tables)
    yield from _fair(tables.fair, instruments)
    yield from _acts(tables, instruments)


def _ports(event: EventSettings) -> Iterator[Problem]:
    """Refuse ports that are used twice."""
    if not event.ports or not 1 <= event.ports[0] <= event.ports[-1] <= 65_535:
        yield (
            ("event", "match_ports"),
            f"{event.match_ports} is no range of ports within 1 and 65535",
        )
    used: dict[int, str] = {}
    named = {"front": event.front, "pages": event.pages}
    if event.doors is not None:
        named["doors.json_port"] = event.doors.json_port
        named["doors.line_port"] = event.doors.line_port
    for name, port in named.items():
        path = ("event", *name.split("."))
        if not port:
            continue
        if port in used:
            yield path, f"port {port} is that of {used[port]}"
        if port in event.ports:
            yield path, f"port {port} is one of match_ports"
        used[port] = name


def _match_ports(tables: Tables) -> Iterator[Problem]:
    """Refuse too few ports for matches that run at a time, and practice."""
    if not any(row.match(tables.match).per_match for row in tables.rounds):
        return
    event = tables.event
    wanted = max(event.parallel or 1, PRACTICE_SERVERS)
    if event.slots < wanted:
        needed = 1 + wanted * event.ports_per_match
        yield (
            ("event", "match_ports"),
            f"{len(event.ports)} ports; {needed} are needed for {wanted}"
            " exchanges at a time",
        )


def _teams(tables: Tables) -> Iterator[Problem]:
    """Refuse names that mean something else, or the same on some disks."""
    if not tables.teams:
        yield ("teams",), "there are no teams"
    seen: dict[str, str] = {}
    doors = tables.event.doors
    for name, team in tables.teams.items():
        path = ("teams", name)
        folded = name.lower()
        if folded in seen:
            yield path, (
                f"differs from {seen[folded]} by capital letters only, and"
                " some disks would give both the same folder"
            )
        seen[folded] = name
        if set(name) == {"."} or folded == PUBLIC_FOLDER:
            yield path, "this name cannot be that of a folder"
        if folded.endswith(FILE_ENDINGS):
            yield path, "files of a match have names that end like this one"
        if folded in (ADMINISTRATOR, SPECTATOR):
            yield path, f"the event itself has an account {folded}"
        if folded.startswith(HOUSE_PREFIX):
            yield path, f"names in {HOUSE_PREFIX} are those of house bots"
        if team.door != "native":
            port = doors and getattr(doors, f"{team.door}_port")
            if not port:
                yield (
                    (*path, "door"),
                    f"event.doors has no {team.door}_port",
                )
        uses_door = "door" if team.door != "native" else "address"
        is_at_door = doors is not None and (
            team.address or team.door != "native"
        )
        if is_at_door and not is_door_name(name):
            yield (
                (*path, uses_door),
                "a team at the doors has a name of A-Z only",
            )


def is_door_name(name: str) -> bool:
    """Return whether a team of this name can enter the challenge doors."""
    return re.fullmatch("[A-Z]{1,32}", name) is not None


def _rounds(tables: Tables) -> Iterator[Problem]:
    if not tables.rounds:
        yield ("rounds",), "there are no rounds"
    seen: dict[str, int] = {}
    for number, settings in enumerate(tables.rounds):
        path = ("rounds", number, "name")
        folded = settings.name.lower()
        if folded in seen:
            yield path, f"round {seen[folded] + 1} has this name too"
        if folded in RESERVED_ROUNDS:
            yield path, f"a round cannot be named {settings.name!r}"
        seen.setdefault(folded, number)
        match = settings.match(tables.match)
        if match.per_match == 1:
            yield (
                ("rounds", number, "per_match"),
                "a match needs two teams; 0 puts all into one",
            )
        elif match.per_match and len(tables.teams) < 2:
            yield (
                ("rounds", number, "per_match"),
                f"matches of {match.per_match}, but there is one team only",
            )
        elif match.per_match and match.pairs_as == "all":
            yield (
                ("rounds", number, "pairing"),
                f"all teams in one match, but per_match is {match.per_match}",
            )
    if tables.rounds and not any(r.weight for r in tables.rounds):
        yield ("rounds", 0, "weight"), "every round has the weight 0"


def _rules(tables: Tables) -> Iterator[Problem]:
    """Refuse names that are neither a rule nor a function."""
    named: list[tuple[KeyPath, Scoring]] = [(("scoring",), tables.scoring)]
    for number, settings in enumerate(tables.rounds):
        if settings.scoring is not None:
            named.append((("rounds", number, "scoring"), settings.scoring))
    for path, scoring in named:
        module, colon, function = scoring.rule.partition(":")
        if scoring.rule in RULES or colon and module and function:
            continue
        yield (
            (*path, "rule"),
            f"{scoring.rule!r} is neither one of {', '.join(RULES)} nor"
            ' "module:function"',
        )


def _fair(
    fair: Mapping[str, FairSettings], instruments: Mapping[str, Instrument]
) -> Iterator[Problem]:
    """Refuse hidden values that do not fit the instruments."""
    for symbol, settings in fair.items():
        path = ("fair", symbol)
        instrument = instruments.get(symbol)
        if instrument is None:
            yield path, f"the market has no {symbol}"
        elif instrument.kind in DERIVATIVES:
            yield path, (
                f"{symbol} is a {instrument.kind}: its value follows from"
                f" {instrument.underlying}"
            )
        elif settings.kind == "basket" and instrument.convert is None:
            yield (*path, "kind"), f"{symbol} converts into nothing"
        elif settings.start is not None and not (
            instrument.min_price <= settings.start <= instrument.max_price
        ):
            yield (
                (*path, "start"),
                f"{settings.start} is not within {instrument.min_price} and"
                f" {instrument.max_price}, the prices of {symbol}",
            )
    for symbol, instrument in instruments.items():
        if instrument.kind == "binary":
            yield ("event", "market"), (
                f"{symbol} is binary, and no hidden value says whether it"
                " pays"
            )
        elif symbol not in fair and instrument.kind not in DERIVATIVES:
            yield ("fair",), f"there is no hidden value of {symbol}"


def _acts(
    tables: Tables, instruments: Mapping[str, Instrument]
) -> Iterator[Problem]:
    for table, acts in (
        ("news", tables.news),
        ("dividends", tables.dividends),
        ("tenders", tables.tenders),
    ):
        yield from _times(tables, table, acts)
        for number, act in enumerate(acts):
            path = (table, number)
            symbol = act.symbol
            if symbol is not None and symbol not in instruments:
                yield (*path, "symbol"), f"the market has no {symbol}"
    for number, news in enumerate(tables.news):
        yield from _jump(tables, ("news", number), news, instruments)
    for number, dividend in enumerate(tables.dividends):
        if not dividend.amount:
            yield ("dividends", number, "amount"), "is 0"
    for number, tender in enumerate(tables.tenders):
        if tender.edge[0] > tender.edge[1]:
            yield ("tenders", number, "edge"), "the first exceeds the second"
        instrument = instruments.get(tender.symbol)
        if instrument is not None and tender.qty > instrument.max_qty:
            yield (
                ("tenders", number, "qty"),
                f"{tender.qty} is above {instrument.max_qty}, the max_qty of"
                f" {tender.symbol}",
            )


def _times(
    tables: Tables, table: str, acts: Iterable[Act]
) -> Iterator[Problem]:
    """Refuse times after the end of a round, and rounds that are not."""
    trading = {r.name: r.match(tables.match).trading for r in tables.rounds}
    for number, act in enumerate(acts):
        for index, name in enumerate(act.rounds):
            if name not in trading:
                yield (
                    table,
                    number,
                    "rounds",
                    index,
                ), "there is no such round"
        for name in act.rounds or trading:
            if act.at >= trading.get(name, act.at + 1):
                yield (
                    (table, number, "at"),
                    f"{act.at} s is not within the {trading[name]} s of"
                    f" trading of round {name}",
                )


def _jump(
    tables: Tables,
    path: KeyPath,
    news: News,
    instruments: Mapping[str, Instrument],
) -> Iterator[Problem]:
    """Refuse a jump of what has no value of its own."""
    if news.jump is None:
        return
    if news.symbol is None:
        yield (*path, "jump"), "symbol is missing: what jumps?"
    elif news.symbol in instruments:
        settings = tables.fair.get(news.symbol)
        if settings is None or settings.kind == "basket":
            yield (
                (*path, "jump"),
                f"the value of {news.symbol} follows from others",
            )
