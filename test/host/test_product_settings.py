"""Kinds of instruments in the market file, and what does not fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from exchange.host.market_file import (
    MarketSettings,
    SettingsError,
    load_market,
)
from exchange.market.accounts import VALUE_MAX
from exchange.market.engine import Engine
from orderbook import Conversion, Instrument
from test.script import apply

MARKET = """
[instruments.GS]
tick_size = "0.01"
max_price = 5_000
[instruments.MS]
[instruments.XLF]
[instruments.XLF.convert]
lot = 10
fee = 100
basket = { GS = 2, MS = 3 }
[instruments.FUT]
tick_size = "0.010"
kind = "future"
underlying = "GS"
[instruments.CALL]
tick_size = "0.01"
kind = "call"
underlying = "GS"
strike = 100
expires = 90
max_price = 10
[instruments.RED]
kind = "binary"
pays = 100
question = "Does red win?"
group = "RACE"
[instruments.BLUE]
kind = "binary"
pays = 100
group = "RACE"
[instruments.RAIN]
kind = "binary"
pays = 100
"""


def load(tmp_path: Path, text: str) -> MarketSettings:
    path = tmp_path / "market.toml"
    path.write_text(text, encoding="utf-8")
    return load_market(path)


def listed(tmp_path: Path, text: str) -> dict[str, Instrument]:
    """Return the instruments that a market file lists."""
    rules = load(tmp_path, text).rules(is_guarded=False, connections=0)
    engine = Engine()
    apply(engine, rules.configure)
    return {s: x.instrument for s, x in engine.listings.items()}


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    return str(caught.value)


def test_kinds_of_instruments(tmp_path: Path) -> None:
    found = listed(tmp_path, MARKET)
    assert {symbol: i.kind for symbol, i in found.items()} == {
        **dict.fromkeys(("GS", "MS", "XLF"), "spot"),
        **{"FUT": "future", "CALL": "call"},
        **dict.fromkeys(("RED", "BLUE", "RAIN"), "binary"),
    }
    basket = {"GS": 2, "MS": 3}
    assert found["XLF"].convert == Conversion(lot=10, fee=100, basket=basket)
    assert found["GS"].convert is None
    future, call, red = found["FUT"], found["CALL"], found["RED"]
    assert (future.underlying, future.expires) == ("GS", "round")
    assert (call.underlying, call.strike, call.expires) == ("GS", 100, 90)
    assert (red.pays, red.question, red.group) == (
        *(100, "Does red win?", "RACE"),
    )
    assert found["GS"].expires is found["RAIN"].expires is None


def test_the_defaults_of_a_conversion(tmp_path: Path) -> None:
    text = MARKET.replace("lot = 10\nfee = 100\n", "")
    conversion = listed(tmp_path, text)["XLF"].convert
    assert conversion == Conversion(lot=1, fee=0, basket={"GS": 2, "MS": 3})


@pytest.mark.parametrize(
    "old, new, field",
    [
        ('kind = "call"', 'kind = "option"', "instruments.CALL.kind"),
        ("strike = 100\n", "", "strike is missing: kind is call"),
        ("strike = 100", 'strike = "100"', "instruments.CALL.strike"),
        ("expires = 90", "expires = 0", "instruments.CALL.expires"),
        ("expires = 90", 'expires = "day"', "instruments.CALL.expires"),
        ("expires = 90", "expires = 40000000", "instruments.CALL.expires"),
        ('kind = "future"', "strike = 5", "strike is not for kind spot"),
        ('kind = "future"', "", "underlying is not for kind spot"),
        ('"future"', '"future"\nstrike = 5', "strike is not for kind future"),
        ('"future"', '"future"\npays = 5', "pays is not for kind future"),
        ('underlying = "GS"\n[', "[", "underlying is missing"),
        ('"GS"\n[', '"NONE"\n[', "instruments.FUT.underlying: NONE is not"),
        ('"GS"\n[', '"RAIN"\n[', "instruments.FUT.underlying: RAIN is no"),
        ('"GS"\n[', '"MS"\n[', "instruments.FUT.underlying: MS has another"),
        ("pays = 100\nquestion", "question", "pays is missing"),
        ("pays = 100\nquestion", "pays = 0\nquestion", "RED.pays"),
        ("pays = 100\ngroup", "pays = 99\ngroup", "instruments.BLUE.pays"),
        (
            "100\ngroup",
            '100\ntick_size = "2"\ngroup',
            "instruments.BLUE.group",
        ),
        ('pays = 100\ngroup = "RACE"', "pays = 100", "instruments.RED.group"),
        ('"RACE"\n[instruments.B', '"a b"\n[instruments.B', "RED.group"),
        ('question = "Does', 'question = "\\n', "instruments.RED.question"),
        (
            "[instruments.MS]",
            "[instruments.MS]\nexpires = 9",
            "expires is not",
        ),
        ("lot = 10", "lot = 0", "instruments.XLF.convert.lot"),
        ("fee = 100", "fee = -1", "instruments.XLF.convert.fee"),
        ("GS = 2", "GS = 0", "instruments.XLF.convert.basket.GS"),
        ("{ GS = 2, MS = 3 }", "{}", "instruments.XLF.convert.basket"),
        ("basket =", "parts =", "instruments.XLF.convert"),
        ("basket =", "per = 0\nbasket =", "instruments.XLF.convert.per"),
        ("basket =", "per = 4\nbasket =", "lot 10 is not a multiple of per 4"),
        ("GS = 2", "NONE = 2", "XLF.convert.basket: NONE is not listed"),
        ("GS = 2", "XLF = 2", "XLF.convert.basket: leads back to XLF"),
        (
            "[instruments.MS]",
            "[instruments.MS.convert]\nbasket = { XLF = 1 }",
            "instruments.MS.convert.basket: leads back to MS",
        ),
        (
            "[instruments.RAIN]",
            "[instruments.RAIN.convert]\nbasket = { MS = 1 }\n"
            "[instruments.RAIN]",
            "convert is not for kind binary",
        ),
        (
            "GS = 2, MS = 3",
            ", ".join(f"A{n} = 1" for n in range(17)),
            "instruments.XLF.convert.basket",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    tmp_path: Path, old: str, new: str, field: str
) -> None:
    assert old in MARKET
    assert field in refusal(tmp_path, MARKET.replace(old, new, 1))


def test_a_long_way_back_to_itself_is_refused(tmp_path: Path) -> None:
    links = "".join(
        f"[instruments.A{n}.convert]\nbasket = {{ A{(n + 1) % 5} = 1 }}\n"
        for n in range(5)
    )
    assert "A0.convert.basket: leads back to A0" in refusal(tmp_path, links)
    open_end = links.replace("basket = { A0 = 1 }", "basket = { MS = 1 }")
    listed(tmp_path, open_end + "[instruments.MS]\n")


def test_sixteen_legs_are_allowed(tmp_path: Path) -> None:
    basket = ", ".join(f"A{n} = 1" for n in range(16))
    parts = "".join(f"[instruments.A{n}]\n" for n in range(16))
    text = f"{parts}[instruments.X.convert]\nbasket = {{ {basket} }}\n"
    found = listed(tmp_path, text)["X"].convert
    assert found is not None and len(found.basket) == 16


def test_limits_count_what_a_lot_may_be_paid(tmp_path: Path) -> None:
    """CALL trades up to 10, but may pay 4,900."""
    most = VALUE_MAX // (8 * 4_900)
    text = MARKET.replace("strike", f"max_position = {most}\nstrike")
    listed(tmp_path, text)
    text = MARKET.replace("strike", f"max_position = {most + 1}\nstrike")
    assert "instruments.CALL: max_position" in refusal(tmp_path, text)


def test_limits_count_what_a_lot_is_paid_in_units(tmp_path: Path) -> None:
    """A contract of 50 lots of GS, in cents."""
    money = '[money]\nunit = "0.01"\ncurrency = "USD"\n'
    most = VALUE_MAX // (8 * 4_900 * 50)
    for limit in (most, most + 1):
        settings = f"multiplier = 50\nmax_position = {limit}\nstrike"
        text = money + MARKET.replace("strike", settings)
        if limit == most:
            assert listed(tmp_path, text)["CALL"].tick_value == 50
        else:
            assert "CALL: max_position" in refusal(tmp_path, text)
