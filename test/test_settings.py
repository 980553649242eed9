"""What can be set, and what is said of a setting that makes no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from exchange.settings import (
    Settings,
    SettingsError,
    load_market,
    load_settings,
)
from orderbook import MAX_INT, Instrument


@pytest.fixture
def market(tmp_path: Path) -> Path:
    return tmp_path / "market.toml"


def variable(name: str) -> str:
    return f"EXCHANGE_SERVER_{name}"


# The environment and the command line -------------------------------------


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(variable("JOURNAL"))
    settings = load_settings()
    assert settings.model_dump() == {
        "hostname": "localhost",
        "port": 8765,
        "symbols": ("BOND",),
        "market": None,
        "origins": (),
        "journal": Path("data/exchange.db"),
        "debug": True,
    }
    (bond,) = settings.configure().instruments
    assert bond == Instrument(
        symbol="BOND",
        tick_size="1",
        min_price=1,
        max_price=100_000,
        max_qty=1_000,
        phase="open",
    )


GOOD = [
    ("HOSTNAME", "0.0.0.0", "0.0.0.0"),
    ("HOSTNAME", "::1", "::1"),
    ("PORT", "0", 0),
    ("PORT", "65535", 65_535),
    ("SYMBOLS", "ETF", ("ETF",)),
    ("SYMBOLS", "BOND,ETF", ("BOND", "ETF")),
    ("SYMBOLS", " BOND , ETF ,", ("BOND", "ETF")),
    ("SYMBOLS", "A-1_B.C", ("A-1_B.C",)),
    ("MARKET", "some/market.toml", Path("some/market.toml")),
    ("ORIGINS", "https://a.example", ("https://a.example",)),
    ("ORIGINS", "https://a, https://b", ("https://a", "https://b")),
    ("DEBUG", "0", False),
    ("DEBUG", "false", False),
    ("DEBUG", "1", True),
    ("DEBUG", "true", True),
]


@pytest.mark.parametrize("name, text, value", GOOD)
def test_a_good_value(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: Any
) -> None:
    monkeypatch.setenv(variable(name), text)
    assert getattr(load_settings(), name.lower()) == value


@pytest.mark.parametrize("name, text, value", GOOD)
def test_a_good_value_on_the_command_line(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: Any
) -> None:
    if name != "MARKET":
        monkeypatch.setenv(variable(name), "overruled")
    settings = load_settings([f"--{name.lower()}", text])
    assert getattr(settings, name.lower()) == value


@pytest.mark.parametrize("name", ["HOSTNAME", "PORT", "SYMBOLS", "DEBUG"])
def test_an_empty_variable_counts_as_not_set(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(variable(name), "")
    assert load_settings() == Settings()


BAD = [
    ("PORT", "x"),
    ("PORT", "-1"),
    ("PORT", "65536"),
    ("PORT", "80.5"),
    ("PORT", "8765 8766"),
    ("SYMBOLS", "bond"),
    ("SYMBOLS", "BOND,e tf"),
    ("SYMBOLS", "A" * 17),
    ("SYMBOLS", ","),
    ("SYMBOLS", "É"),
    ("DEBUG", "maybe"),
    ("DEBUG", "2"),
]


@pytest.mark.parametrize("name, text", BAD)
def test_a_bad_value_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(variable(name), text)
    with pytest.raises(SettingsError, match=variable(name)) as caught:
        load_settings()
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name, text", BAD)
def test_a_bad_option_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=variable(name)):
        load_settings([f"--{name.lower()}={text}"])


def test_market_and_symbols_exclude_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable("MARKET"), "market.toml")
    monkeypatch.setenv(variable("SYMBOLS"), "BOND")
    with pytest.raises(SettingsError, match="MARKET or SYMBOLS"):
        load_settings()


def test_an_unknown_option_ends_the_program(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        load_settings(["--bogus", "1"])
    assert caught.value.code == 2
    assert "--bogus" in capsys.readouterr().err


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load_settings(["--help"])
    assert not caught.value.code
    text = capsys.readouterr().out
    for name in Settings.model_fields:
        assert f"--{name}" in text
    assert "EXCHANGE_SERVER_PORT" in text


def test_a_symbol_named_twice_is_listed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable("SYMBOLS"), "ETF,BOND,ETF")
    instruments = load_settings().configure().instruments
    assert [i.symbol for i in instruments] == ["ETF", "BOND"]


# The market file ----------------------------------------------------------


def test_a_market_file(monkeypatch: pytest.MonkeyPatch, market: Path) -> None:
    market.write_text("""
        [instruments.BOND]

        [instruments.ETF]
        tick_size = "0.05"
        min_price = -10
        max_price = 10
        max_qty = 5
        """)
    monkeypatch.setenv(variable("MARKET"), str(market))
    bond, etf = load_settings().configure().instruments
    assert bond == Settings().configure().instruments[0]
    assert etf == Instrument(
        symbol="ETF",
        tick_size="0.05",
        min_price=-10,
        max_price=10,
        max_qty=5,
        phase="open",
    )


@pytest.mark.parametrize(
    "line",
    [
        'tick_size = "0.000000000001"',
        'tick_size = "100"',
        "min_price = 0",
        f"min_price = -{MAX_INT}",
        f"max_price = {MAX_INT}",
        "min_price = 7\nmax_price = 7",
        "max_qty = 1",
        f"max_qty = {MAX_INT}",
    ],
)
def test_a_good_field(market: Path, line: str) -> None:
    market.write_text(f"[instruments.BOND]\n{line}\n")
    assert [i.symbol for i in load_market(market)] == ["BOND"]


@pytest.mark.parametrize(
    "line, field",
    [
        ("tick_size = 1", "tick_size"),
        ("tick_size = 0.5", "tick_size"),
        ('tick_size = ""', "tick_size"),
        ('tick_size = "-1"', "tick_size"),
        ('tick_size = "1e3"', "tick_size"),
        ('tick_size = ".5"', "tick_size"),
        ('tick_size = "0"', "tick_size"),
        ('tick_size = "0.00"', "tick_size"),
        ('tick_size = "\N{ARABIC-INDIC DIGIT ONE}"', "tick_size"),
        ("min_price = 1.0", "min_price"),
        ('min_price = "1"', "min_price"),
        ("min_price = true", "min_price"),
        (f"min_price = {-MAX_INT - 1}", "min_price"),
        (f"max_price = {MAX_INT + 1}", "max_price"),
        ("min_price = 8\nmax_price = 7", "min_price"),
        ("max_price = 0", "max_price"),
        ("max_qty = 0", "max_qty"),
        ("max_qty = -1", "max_qty"),
        ("max_qty = 1.5", "max_qty"),
        (f"max_qty = {MAX_INT + 1}", "max_qty"),
        ("colour = 1", "colour"),
        ('symbol = "BOND"', "symbol"),
        ('phase = "open"', "phase"),
    ],
)
def test_a_bad_field_is_refused_by_name(
    market: Path, line: str, field: str
) -> None:
    market.write_text(f"[instruments.BOND]\n{line}\n", encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_market(market)
    message = str(caught.value)
    assert str(market) in message and "BOND" in message and field in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "content, word",
    [
        (b"", "instruments"),
        (b"[instruments]\n", "instruments"),
        (b"instruments = 5\n", "instruments"),
        (b"instruments = []\n", "instruments"),
        (b"[instruments]\nBOND = 5\n", "BOND"),
        (b"[instruments.bond]\n", "bond"),
        (b"[instruments.BOND]\n[other]\n", "other"),
        (b"[instruments.BOND]\n[instruments.BOND]\n", "BOND"),
        (b"[instruments.BOND\n", "line 1"),
        (b"\xff", "utf-8"),
    ],
)
def test_a_bad_file_is_refused_by_name(
    market: Path, content: bytes, word: str
) -> None:
    market.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load_market(market)
    message = str(caught.value)
    assert str(market) in message and word in message


def test_a_missing_file_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, market: Path
) -> None:
    monkeypatch.setenv(variable("MARKET"), str(market))
    with pytest.raises(SettingsError, match="No such file") as caught:
        load_settings().configure()
    assert str(market) in str(caught.value)
