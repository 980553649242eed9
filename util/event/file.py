"""The event file: read it, check it, and answer questions about it.

`read_event` returns an `Event`, or raises `EventError` with the file, line,
field and reason of what is wrong. Nothing is written.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

import util
from exchange.files import text_of
from exchange.host.market_file import (
    MarketSettings,
    SettingsError,
    load_market,
)
from orderbook import Instrument, Symbol, User

from .file_checks import problems
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
from .toml_lines import KeyPath, lines_of

PRESETS = Path(util.__file__).parent / "presets"
_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
# Texts of pydantic that say less than they could.
_PLAINER = {
    "extra_forbidden": "there is no such field",
    "missing": "is missing",
}
_Act = TypeVar("_Act", bound=Act)


class EventError(Exception):
    """The event file is wrong; the text names file, line and field."""


class Event(BaseModel):
    """An event file, with its market.

    The fields are the tables of the file. A round is given by its name.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    event: EventSettings
    teams: dict[User, TeamSettings]
    match: MatchSettings = MatchSettings()
    scoring: Scoring = Scoring()
    rounds: list[RoundSettings]
    fair: dict[Symbol, FairSettings] = {}
    house: HouseSettings | None = None  # None: no house bots
    news: list[News] = []
    dividends: list[Dividend] = []
    tenders: list[Tender] = []

    _path: Path = PrivateAttr(default=Path())
    _market: MarketSettings | None = PrivateAttr(default=None)

    @property
    def path(self) -> Path:
        """Return the path of the event file."""
        return self._path

    @property
    def folder(self) -> Path:
        """Return the data folder, absolute."""
        return (self._path.parent / self.event.data).absolute()

    @property
    def market_path(self) -> Path:
        """Return the path of the market file that the event names."""
        return market_path(self._path, self.event.market)

    @property
    def market(self) -> MarketSettings:
        """Return the market file."""
        assert self._market is not None
        return self._market

    @cached_property
    def instruments(self) -> dict[str, Instrument]:
        """Return the instruments of the market file, by symbol."""
        return {
            symbol: settings.listed_as(symbol, self.market.money)
            for symbol, settings in self.market.instruments.items()
        }

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return the symbols of the market, in the order of its file."""
        return tuple(self.market.instruments)

    @property
    def is_large(self) -> bool:
        """Return whether matches are isolated: each has its own exchange."""
        return any(self.settings_of(row.name).per_match for row in self.rounds)

    def round_named(self, name: str) -> RoundSettings:
        """Return a round; raises KeyError."""
        for settings in self.rounds:
            if settings.name == name:
                return settings
        raise KeyError(name)

    def settings_of(self, name: str) -> MatchSettings:
        """Return the settings of a round's matches."""
        return self.round_named(name).match(self.match)

    def scoring_of(self, name: str) -> Scoring:
        """Return the rule of a round."""
        return self.round_named(name).scoring or self.scoring

    def due_in(self, name: str, acts: Sequence[_Act]) -> list[_Act]:
        """Return the acts that happen in the matches of a round, by time."""
        found = [act for act in acts if not act.rounds or name in act.rounds]
        return sorted(found, key=lambda act: act.at)


def market_path(event_path: Path, market: str) -> Path:
    """Return the file of a preset, or of a path beside the event file."""
    preset = PRESETS / f"{market}.toml"
    is_name = re.fullmatch(r"[A-Za-z0-9_-]+", market) is not None
    if is_name and preset.is_file():
        return preset
    return event_path.parent / market


def read_event(path: Path) -> Event:
    """Read an event file and its market file; raises EventError."""
    try:
        text = text_of(path.read_bytes())
    except UnicodeDecodeError as error:
        raise EventError(f"{path}: not UTF-8: {error.reason}") from None
    except OSError as error:
        raise EventError(f"{path}: {error.strerror}") from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise EventError(_unreadable(path, text, str(error))) from None
    lines = lines_of(text)

    def wrong(where: KeyPath, reason: str) -> EventError:
        return EventError(_place(path, lines, where, reason))

    try:
        event = Event.model_validate(data)
    except ValidationError as error:
        raise wrong(*_first(error, data, lines)) from None
    event._path = path
    event._market = _market_of(event, wrong)
    if event.market_path.parent.resolve() == event.folder.resolve():
        raise wrong(
            ("event", "data"),
            "is the folder of the market file, which would be overwritten:"
            " name another one",
        )
    for where, reason in problems(event, event.market, event.instruments):
        raise wrong(where, reason)
    return event


def _market_of(event: Event, wrong: Any) -> MarketSettings:
    named = event.event.market
    if not event.market_path.is_file():
        presets = ", ".join(sorted(p.stem for p in PRESETS.glob("*.toml")))
        raise wrong(
            ("event", "market"),
            f"{named!r} is neither a preset ({presets}) nor a file beside the"
            " event file",
        )
    try:
        return load_market(event.market_path)
    except SettingsError as error:
        raise wrong(("event", "market"), str(error)) from None


# Errors -------------------------------------------------------------------


def _unreadable(path: Path, text: str, message: str) -> str:
    """Describe a text that is not TOML."""
    found = _PLACE.search(message)
    if found is None:
        return f"{path}: {message}"
    line = found[1] or max(1, len(text.splitlines()))
    return f"{path}, line {line}: {message[:found.start()]}"


def _place(
    path: Path, lines: dict[KeyPath, int], where: KeyPath, reason: str
) -> str:
    """Describe an error with its file, line and field."""
    known = where
    while known and known not in lines:
        known = known[:-1]
    line = lines.get(known, 1)
    return f"{path}, line {line}: {field_of(where)}: {reason}"


def field_of(where: KeyPath) -> str:
    """Return a path as text: ``rounds[2].name``, numbers from 1."""
    text = ""
    for part in where:
        if isinstance(part, int):
            text += f"[{part + 1}]"
        else:
            text += f".{part}" if text else part
    return text


def _first(
    error: ValidationError, data: Any, lines: dict[KeyPath, int]
) -> tuple[KeyPath, str]:
    """Return path and reason of the error that stands first in the file."""
    found = []
    for problem in error.errors(include_url=False):
        where = _path_in(data, problem["loc"], problem["type"])
        reason = _PLAINER.get(problem["type"])
        if reason is None:
            message = problem["msg"].removeprefix("Value error, ")
            shown = repr(problem["input"])
            is_short = len(shown) <= 60
            reason = message + (f" (got {shown})" if is_short else "")
        found.append((where, reason))

    def line_of(item: tuple[KeyPath, str]) -> int:
        where = item[0]
        while where and where not in lines:
            where = where[:-1]
        return lines.get(where, 0)

    return min(found, key=line_of)


def _path_in(data: Any, loc: Sequence[str | int], kind: str) -> KeyPath:
    """Return the part of pydantic's location that is a path in the file.

    Other parts name a kind of type. The last part may be a missing field.
    """
    path: KeyPath = ()
    for number, part in enumerate(loc):
        is_last = number == len(loc) - 1
        if isinstance(data, dict) and part in data:
            data = data[part]
        elif isinstance(data, list) and isinstance(part, int):
            data = data[part]
        elif not (is_last and kind == "missing"):
            continue
        path = (*path, part)
    return path
