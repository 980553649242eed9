"""The examples of docs/PROTOCOL.md, "Instruments", give what stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from exchange.market.accounts import Account
from exchange.market.engine import Engine
from orderbook import Conversion, Instrument
from test.market.test_products import binary, derivative
from test.script import act, listed, listing

PROTOCOL = Path(__file__).parents[2] / "docs" / "PROTOCOL.md"
BASKET = {"BOND": 3, "GS": 2, "MS": 3, "WFC": 2}
# The instruments of the examples, with the marks of the conversion.
LISTED: dict[str, Instrument] = {
    instrument.symbol: instrument
    for instrument in (
        listing("GS", reference_price=20),
        listing("MS", reference_price=30),
        listing("BOND", reference_price=50),
        listing("WFC", reference_price=15),
        listing(
            "XLF",
            reference_price=300,
            convert=Conversion(lot=10, fee=100, basket=BASKET),
        ),
        derivative("FUT", "future"),
        derivative("CALL", "call", strike=100),
        derivative("PUT", "put", strike=100),
        derivative("SOON", "call", strike=100, expires=90),
        binary("RED", group="COLOUR"),
        binary("BLUE", group="COLOUR"),
    )
}


def examples() -> Iterator[list[dict[str, str]]]:
    """Yield the rows of each table of requests, by the heads of columns."""
    text = PROTOCOL.read_text(encoding="utf-8")
    (chapter,) = re.findall(r"^## Instruments\n(.*?)^## ", text, re.M | re.S)
    for table in re.findall(r"(?:^\|.*\n)+", chapter, re.M):
        head, _, *rows = [
            [cell.strip() for cell in line.strip("|\n").split("|")]
            for line in table.splitlines()
        ]
        if head[:2] == ["instruments", "requests"]:
            yield [dict(zip(head, row, strict=True)) for row in rows]


EXAMPLES = {rows[0]["instruments"]: rows for rows in examples()}


def test_every_kind_has_an_example() -> None:
    assert len(EXAMPLES) == 6
    played = {symbol for symbols in EXAMPLES for symbol in symbols.split()}
    assert played == set(LISTED)


@pytest.mark.parametrize("symbols", EXAMPLES)
def test_an_example_goes_as_documented(symbols: str) -> None:
    rows = EXAMPLES[symbols]
    engine = listed(*(LISTED[symbol] for symbol in symbols.split()))
    for name in ("alice", "bob", "op"):
        act(engine, f"{name} connect")
    for row in rows:
        for line in re.findall(r"`(.+?)`", row["requests"]):
            act(engine, line)
        engine.check()
        shown = dict(row)
        del shown["instruments"], shown["requests"]
        found = {head: value(engine, head) for head in shown}
        assert found == shown, row["requests"]


def value(engine: Engine, head: str) -> str:
    """Return what stands in a column, as "alice cash"."""
    name, what = head.split()
    account = engine.accounts.get(name) or Account(name)
    report = engine.account_report(account)
    if what == "cash":
        return str(report.cash)
    if what == "profit":
        return str(report.realized + report.unrealized)
    assert what == "lots"
    held = [f"{qty} {s}" for s, qty in account.positions.items() if qty]
    return ", ".join(held) or "none"
