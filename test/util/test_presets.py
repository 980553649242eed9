"""The market files in util/presets: they load, and hold what they should."""

from __future__ import annotations

import pytest

from exchange.gateway.rates import Rate
from exchange.host.market_file import Rules, load_market
from orderbook import Conversion, Instrument
from test.support import ROOT

PRESETS = ROOT / "util" / "presets"
MOST = 999_999  # the largest price and size that challenge bots send
# Positions at most, by symbol.
TECH = dict.fromkeys(("BOND", "AAPL", "MSFT", "GOOG", "XLK"), 100)
BANKS = dict.fromkeys(("BOND", "GS", "MS", "WFC", "XLF"), 100)
POSITIONS = {
    "2015": dict.fromkeys(("FOO", "BAR", "BAZ", "QUUX", "CORGE"), 10_000),
    "2017": {**TECH, "NOKFH": 10, "NOKUS": 10},
    "2018": {**TECH, "BABZ": 10, "BABA": 10},
    "2020": {**BANKS, "VALBZ": 10, "VALE": 10},
}


def fund(**basket: int) -> Conversion:
    """Return a conversion of ten lots into a basket."""
    return Conversion(lot=10, per=10, fee=100, basket=basket)


def pair(symbol: str) -> Conversion:
    """Return a conversion of a lot into another one."""
    return Conversion(lot=1, fee=10, basket={symbol: 1})


CONVERSIONS = {
    "2015": {"CORGE": fund(FOO=3, BAR=8)},
    "2017": {
        "XLK": fund(BOND=3, AAPL=2, MSFT=3, GOOG=2),
        "NOKUS": pair("NOKFH"),
    },
    "2018": {
        "XLK": fund(BOND=3, AAPL=2, MSFT=3, GOOG=2),
        "BABA": pair("BABZ"),
    },
    "2020": {"XLF": fund(BOND=3, GS=2, MS=3, WFC=2), "VALE": pair("VALBZ")},
}


def rules(name: str) -> Rules:
    market = load_market(PRESETS / f"{name}.toml")
    return market.rules(is_guarded=False, connections=0)


def test_every_preset_is_tested_here() -> None:
    names = {path.stem for path in PRESETS.glob("*.toml")}
    assert names == {"demo"} | {f"challenge-{year}" for year in POSITIONS}


@pytest.mark.parametrize("year", POSITIONS)
def test_a_market_of_challenge_bots(year: str) -> None:
    found = rules(f"challenge-{year}")
    # All else is as an instrument is by default: no fees, no collar.
    assert {i.symbol: i for i in found.configure.instruments} == {
        symbol: Instrument(
            symbol=symbol,
            tick_size="1",
            min_price=1,
            max_price=MOST,
            max_qty=MOST,
            max_position=most,
            self_trades=True,
            convert=CONVERSIONS[year].get(symbol),
            phase="closed",
        )
        for symbol, most in POSITIONS[year].items()
    }
    limits = found.configure.limits
    assert (limits.open_orders, limits.min_cash, limits.cash) == (0, None, 0)
    assert not found.configure.accounts
    assert found.configure.money is None
    assert found.quotas.rate == Rate()
    assert not found.quotas.rates


def test_the_market_of_the_demo_is_open() -> None:
    assert {i.phase for i in rules("demo").configure.instruments} == {"open"}
