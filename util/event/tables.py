"""The tables of an event file: their fields, types and defaults.

What two fields must have in common is in `rules_of_file`. Times are in
seconds, prices in ticks.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from orderbook import MAX_INT, Integer, Line, Lines, Qty, Side, Symbol

TRADING_MAX_S = 86_400  # `close_ms` of the exchange takes no more
WEIGHT_MAX = 10_000
REPEATS_MAX = 100
HOUSE_MAX = 100  # bots of one kind

Port = Annotated[int, Field(ge=1, le=65_535)]
Second = Annotated[int, Field(ge=0, le=TRADING_MAX_S)]
# A round's name is that of a folder, and part of addresses.
RoundName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
Pairing: TypeAlias = Literal["round_robin", "swiss", "groups", "all"]


class Table(BaseModel):
    """One table of the file; it has no other fields than these."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False
    )


def _host(text: str) -> str:
    """Check a name that can be looked up; raises ValueError."""
    try:
        text.encode("idna")
    except UnicodeError:
        raise ValueError("is neither a host name nor an address") from None
    return text


Path = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]
Host = Annotated[Path, AfterValidator(_host)]


class DoorPorts(Table):
    """Ports of the challenge doors; 0: that door stays shut."""

    json_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    line_port: Annotated[int, Field(ge=0, le=65_535)] = 0


class EventSettings(Table):
    """``[event]``."""

    name: Line
    market: Path  # preset, or path of a file
    data: Path  # folder of all that is made
    seed: Integer = 0  # of pairings and simulations, not of hidden values
    host: Host = "localhost"
    front: Port = 9000  # where teams connect natively
    pages: Port = 9001  # standings and downloads
    doors: DoorPorts | None = None
    match_ports: Annotated[str, Field(pattern=r"^[0-9]{1,5}-[0-9]{1,5}$")] = (
        "9100-9199"
    )
    # Matches at a time; None: half of the cores.
    parallel: Annotated[int, Field(ge=1, le=1_000)] | None = None
    publish: Literal["after_match", "after_round", "after_event"] = (
        "after_match"
    )
    live_board: bool = True  # whether P&L of a running match is public
    publish_journals: bool = True  # after the event

    @property
    def ports(self) -> range:
        """Return the ports of the exchanges of single matches."""
        first, last = self.match_ports.split("-")
        return range(int(first), int(last) + 1)

    @property
    def ports_per_match(self) -> int:
        """Return how many ports an exchange needs: also one for each door."""
        return 1 if self.doors is None else 3

    @property
    def slots(self) -> int:
        """Return how many matches `ports` suffice for.

        The first port is for bots that are started here, if the front has
        TLS.
        """
        return (len(self.ports) - 1) // self.ports_per_match


def _network(text: str) -> str:
    """Check an address or a CIDR network; raises ValueError."""
    ipaddress.ip_network(text)
    return text


Network = Annotated[str, BeforeValidator(_network)]


def _listed(value: Any) -> Any:
    """Return a list of one for a single text."""
    return [value] if isinstance(value, str) else value


class TeamSettings(Table):
    """One line of ``[teams]``."""

    # Networks from which it may enter the challenge doors; none: any.
    address: Annotated[list[Network], BeforeValidator(_listed)] = []
    # Command of a bot that the director starts; none: the team's own machine.
    bot: list[Annotated[str, Field(min_length=1)]] = []
    door: Literal["native", "json", "line"] = "native"  # that the bot uses


class BlowOut(Table):
    """When a team is closed out, and which score it gets."""

    limit: Annotated[int, Field(ge=-MAX_INT, lt=0)]  # P&L, in units
    at: Literal["fair", "mark"] = "fair"
    score: Literal["actual", "limit"] = "actual"


class MatchSettings(Table):
    """``[match]``: what holds for every match of a round."""

    warmup: Second = 20  # connected, still closed
    trading: Annotated[int, Field(ge=1, le=TRADING_MAX_S)] = 300
    per_match: Annotated[int, Field(ge=0, le=1_000)] = 0  # 0: all teams
    pairing: Pairing = "round_robin"
    repeats: Annotated[int, Field(ge=1, le=REPEATS_MAX)] = 1
    blow_out: BlowOut | None = None
    no_show: Integer = 0  # P&L of a team that never connected, in units

    @property
    def pairs_as(self) -> Pairing:
        """Return the pairing that ``per_match`` leaves a choice of."""
        if self.per_match == 0:
            return "all"
        return "groups" if self.per_match > 2 else self.pairing


class Scoring(Table):
    """``[scoring]``: a built-in rule, or "module:function"."""

    rule: Annotated[str, Field(min_length=1)] = "pnl"
    options: dict[str, Any] = {}


class RoundSettings(Table):
    """One ``[[rounds]]``: a name, a weight, and what is different in it."""

    name: RoundName
    weight: Annotated[int, Field(ge=0, le=WEIGHT_MAX)] = 100  # percent
    scoring: Scoring | None = None
    warmup: Second | None = None
    trading: Annotated[int, Field(ge=1, le=TRADING_MAX_S)] | None = None
    per_match: Annotated[int, Field(ge=0, le=1_000)] | None = None
    pairing: Pairing | None = None
    repeats: Annotated[int, Field(ge=1, le=REPEATS_MAX)] | None = None
    blow_out: BlowOut | None = None
    no_show: Integer | None = None

    def match(self, common: MatchSettings) -> MatchSettings:
        """Return the settings of the matches of this round."""
        own = {
            name: getattr(self, name)
            for name in MatchSettings.model_fields
            if getattr(self, name) is not None
        }
        return common.model_copy(update=own)


# Hidden values ------------------------------------------------------------


class Jump(Table):
    """Jumps of a walk: a second of ``every`` on average, of this size."""

    every: Annotated[float, Field(ge=1, le=TRADING_MAX_S)]
    sigma: Annotated[float, Field(gt=0, le=MAX_INT)]  # in ticks


class FairSettings(Table):
    """One ``[fair.SYMBOL]``: the hidden value of an instrument."""

    kind: Literal["constant", "walk", "basket"]
    start: Integer | None = None  # in ticks
    # In ticks per square root of a second.
    sigma: Annotated[float, Field(ge=0, le=1_000_000)] | None = None
    jump: Jump | None = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        needed, allowed = {
            "constant": ({"start"}, {"start"}),
            "walk": ({"start", "sigma"}, {"start", "sigma", "jump"}),
            "basket": (set[str](), set[str]()),
        }[self.kind]
        for name in ("start", "sigma", "jump"):
            is_given = getattr(self, name) is not None
            if name in needed and not is_given:
                raise ValueError(f"{name} is missing: kind is {self.kind}")
            if is_given and name not in allowed:
                raise ValueError(f"{name} is not for kind {self.kind}")
        return self


class HouseSettings(Table):
    """``[house]``: bots that make a market around the hidden values."""

    makers: Annotated[int, Field(ge=0, le=HOUSE_MAX)] = 1
    noise: Annotated[int, Field(ge=0, le=HOUSE_MAX)] = 3
    informed: Annotated[int, Field(ge=0, le=HOUSE_MAX)] = 1
    arbitrageurs: Annotated[int, Field(ge=0, le=HOUSE_MAX)] = 0
    # Aimed at, over all instruments; None: as it comes.
    trades_per_s: Annotated[float, Field(gt=0, le=10_000)] | None = None
    # Times per second that each bot acts on each instrument.
    speed: Annotated[float, Field(gt=0, le=1_000)] = 1.0


# What the director does during a match ------------------------------------


class Act(Table):
    """Something at a time of each match, counted from the opening."""

    at: Second
    rounds: list[RoundName] = []  # empty: all
    symbol: Symbol | None = None


class News(Act):
    """One ``[[news]]``."""

    headline: Line
    body: Lines | None = None
    jump: Integer | None = None  # of the hidden value at that moment


class Dividend(Act):
    """One ``[[dividends]]``."""

    symbol: Symbol
    amount: Integer  # units of money per lot; shorts pay


class Tender(Act):
    """One ``[[tenders]]``."""

    symbol: Symbol
    side: Side  # what a team that accepts does
    qty: Qty
    # Ticks better than fair, drawn between the two.
    edge: Annotated[list[Integer], Field(min_length=2, max_length=2)]
    valid: Annotated[int, Field(ge=1, le=TRADING_MAX_S)] = 15
