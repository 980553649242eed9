"""Prices, quantities and amounts as the dialect writes them.

Every number is a decimal with exactly eight places: clients key their books
by the text. Inside, such a number is an integer of 10**-8. A price is ticks
times ``tick_size``, a quantity lots times ``lot_size``; a symbol is the
instrument's and the currency's name together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

from exchange.doors.spot.errors import (
    SpotError,
    filtered,
    illegal,
    invalid_symbol,
)
from exchange.market.command import Money
from orderbook import Instrument

PLACES = 8
ONE = 100_000_000
ZERO = "0.00000000"
CURRENCY = "USD"  # of a market without [money]
_NUMBER = re.compile(r"(-?)([0-9]{1,20})(?:\.([0-9]{1,20}))?")


class ValuesError(ValueError):
    """A market whose numbers do not fit into eight places."""


def decimal(units: int) -> str:
    """Return an integer of 10**-8 as a decimal number."""
    if units < 0:
        return f"-{decimal(-units)}"
    return f"{units // ONE}.{units % ONE:08d}"


def read_decimal(name: str, text: str) -> int:
    """Return a decimal number as an integer of 10**-8.

    Raises SpotError if it is none, or has more than eight places.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise illegal(name, "it must be a decimal number")
    sign, whole, part = match[1], match[2], match[3] or ""
    if part[PLACES:].strip("0"):
        raise SpotError(-1111, f"Parameter '{name}' has too much precision.")
    units = int(whole) * ONE + int(f"{part[:PLACES]:0<8}")
    return -units if sign else units


def _exact(what: str, number: str) -> int:
    units: Decimal = Decimal(number).scaleb(PLACES)
    if units != int(units):
        raise ValuesError(
            f"{what} {number} has more than {PLACES} decimal places, which"
            " the exchange dialect cannot write"
        )
    return int(units)  # it is whole


class Listed:
    """One symbol of the dialect: an instrument and a currency."""

    def __init__(self, instrument: Instrument, currency: str) -> None:
        self.base = instrument.symbol
        self.quote = currency
        self.name = f"{self.base}{currency}"
        self.tick = _exact(f"{self.base}: tick_size", instrument.tick_size)
        self.lot = _exact(f"{self.base}: lot_size", instrument.lot_size)

    def price(self, ticks: int | None) -> str:
        """Return a price; None, of an order without one, is zero."""
        return decimal(ticks * self.tick) if ticks else ZERO

    def qty(self, lots: int | None) -> str:
        """Return a quantity; None is zero."""
        return decimal(lots * self.lot) if lots else ZERO

    def cost(self, product: int) -> str:
        """Return an amount of the currency, of ticks times lots."""
        return decimal(product * self.tick * self.lot // ONE)

    def ticks(self, name: str, text: str) -> int:
        """Return a price in ticks; raises SpotError between two ticks."""
        ticks, rest = divmod(read_decimal(name, text), self.tick)
        if rest:
            raise filtered("PRICE_FILTER")
        return ticks

    def lots(self, name: str, text: str) -> int:
        """Return a positive quantity in lots; raises SpotError."""
        units = read_decimal(name, text)
        lots, rest = divmod(units, self.lot)
        if rest or lots < 1:
            raise filtered("LOT_SIZE")
        return lots


class Symbols:
    """The symbols of a market, by their names and by the instruments'.

    Raises ValuesError if a number of the market has more than eight places.
    """

    def __init__(
        self, instruments: Mapping[str, Instrument], money: Money | None
    ) -> None:
        self.currency = CURRENCY if money is None else money.currency.upper()
        self.of: dict[str, Listed] = {}
        self.by_name: dict[str, Listed] = {}
        self.add(instruments)
        if money is not None:
            self.unit = _exact("money.unit", money.unit)
        else:  # a unit is a tick times a lot, of whatever the first one is
            first = next(iter(self.of.values()))
            self.unit = first.tick * first.lot // ONE

    def add(self, instruments: Mapping[str, Instrument]) -> None:
        """Add instruments that are not known yet; raises ValuesError."""
        for symbol, instrument in instruments.items():
            if symbol not in self.of:
                listed = Listed(instrument, self.currency)
                self.of[symbol] = self.by_name[listed.name] = listed

    def find(self, name: str) -> Listed:
        """Return a symbol, in any case; raises SpotError."""
        listed = self.by_name.get(name.upper())
        if listed is None:
            raise invalid_symbol()
        return listed

    def money(self, units: int) -> str:
        """Return an amount of cash."""
        return decimal(units * self.unit)
