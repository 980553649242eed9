"""Kinds of instruments in the market file: derivatives, binaries, baskets.

`ProductSettings` are the settings of one instrument that say what its lots
become; `check_products` is what several instruments must have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from exchange.market.accounts import CASH_MAX
from exchange.market.products import DERIVATIVES
from orderbook import MAX_INT, Conversion, Kind, Line, Name, Price, Qty, Symbol

LEGS_MAX = 16  # of a basket: bounds the time of a conversion
EXPIRES_MAX_S = 31_536_000  # a year

# The settings that a kind needs, and those that it may have besides.
SETTINGS: dict[Kind, tuple[set[str], set[str]]] = {
    "spot": (set(), {"convert"}),
    "future": ({"underlying"}, {"expires"}),
    "call": ({"underlying", "strike"}, {"expires"}),
    "put": ({"underlying", "strike"}, {"expires"}),
    "binary": ({"pays"}, {"question", "group"}),
}
PRODUCT_FIELDS = set().union(*(a | b for a, b in SETTINGS.values()))


class ConversionSettings(BaseModel):
    """An ``[instruments.SYMBOL.convert]`` table of the market file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    lot: Qty = 1  # a conversion is of a multiple of it
    fee: Annotated[int, Field(ge=0, le=CASH_MAX)] = 0  # of one conversion
    # Lots of each symbol for ``per`` lots of the instrument.
    basket: Annotated[
        dict[Symbol, Qty], Field(min_length=1, max_length=LEGS_MAX)
    ]
    per: Qty = 1

    @model_validator(mode="after")
    def _has_whole_legs(self) -> Self:
        if self.lot % self.per:
            raise ValueError(
                f"lot {self.lot} is not a multiple of per {self.per}"
            )
        return self


class ProductSettings(BaseModel):
    """What the lots of an instrument become, and when."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    kind: Literal["spot", "future", "call", "put", "binary"] = "spot"
    underlying: Symbol | None = None
    strike: Price | None = None  # in ticks of the underlying
    # With the underlying, or seconds after the instrument opened.
    expires: (
        Literal["round"] | Annotated[int, Field(ge=1, le=EXPIRES_MAX_S)] | None
    ) = None
    pays: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None  # in ticks
    question: Line | None = None
    group: Name | None = None
    convert: ConversionSettings | None = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        needed, allowed = SETTINGS[self.kind]
        for name in sorted(PRODUCT_FIELDS):
            is_given = getattr(self, name) is not None
            if name in needed and not is_given:
                raise ValueError(f"{name} is missing: kind is {self.kind}")
            if is_given and name not in needed | allowed:
                raise ValueError(f"{name} is not for kind {self.kind}")
        return self

    def product(self) -> dict[str, Any]:
        """Return the fields of an `Instrument` that these settings are."""
        fields = {name: getattr(self, name) for name in PRODUCT_FIELDS}
        if self.kind in DERIVATIVES and self.expires is None:
            fields["expires"] = "round"
        if self.convert is not None:
            fields["convert"] = Conversion(**self.convert.model_dump())
        return fields


def check_products(
    instruments: Mapping[str, ProductSettings], ticks: Mapping[str, Decimal]
) -> None:
    """Raise ValueError if instruments do not fit together.

    ``ticks`` is the tick size of each.
    """
    for symbol, settings in instruments.items():
        underlying = settings.underlying
        if underlying is not None:
            _check_underlying(instruments, symbol, underlying)
            _check_tick(ticks, symbol, underlying, "underlying")
        if settings.convert is not None:
            _check_basket(instruments, symbol, settings.convert.basket)
    groups: dict[str, list[str]] = {}
    for symbol, settings in instruments.items():
        if settings.group is not None:
            groups.setdefault(settings.group, []).append(symbol)
    for first, *others in groups.values():
        _check_group(instruments, first, others)
        for symbol in others:
            _check_tick(ticks, symbol, first, "group")


def _check_underlying(
    instruments: Mapping[str, ProductSettings], symbol: str, name: str
) -> None:
    where = f"instruments.{symbol}.underlying"
    underlying = instruments.get(name)
    if underlying is None:
        raise ValueError(f"{where}: {name} is not listed")
    if underlying.kind != "spot":
        raise ValueError(f"{where}: {name} is no spot instrument")


def _check_tick(
    ticks: Mapping[str, Decimal], symbol: str, other: str, field: str
) -> None:
    if ticks[symbol] != ticks[other]:
        raise ValueError(
            f"instruments.{symbol}.{field}: {other} has another tick_size,"
            f" {ticks[other]} and not {ticks[symbol]}"
        )


def _check_basket(
    instruments: Mapping[str, ProductSettings],
    symbol: str,
    basket: Mapping[str, int],
) -> None:
    """Refuse symbols that are not listed, and what leads back to it."""
    where = f"instruments.{symbol}.convert.basket"
    for name in basket:
        if name not in instruments:
            raise ValueError(f"{where}: {name} is not listed")
    reached = list(basket)
    for name in reached:  # grows while it is read
        part = instruments.get(name)
        if name == symbol:
            raise ValueError(f"{where}: leads back to {symbol}")
        if part is not None and part.convert is not None:
            reached += [s for s in part.convert.basket if s not in reached]


def _check_group(
    instruments: Mapping[str, ProductSettings], first: str, others: list[str]
) -> None:
    """Refuse a group of one, and one whose members pay differently."""
    group, pays = instruments[first].group, instruments[first].pays
    if not others:
        raise ValueError(f"instruments.{first}.group: {group} has no other")
    for symbol in others:
        if instruments[symbol].pays != pays:
            raise ValueError(
                f"instruments.{symbol}.pays: {first}, of the same group, pays"
                f" {pays}"
            )
