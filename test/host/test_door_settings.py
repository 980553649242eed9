"""The table [doors] of the market file, and what is refused in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from exchange.doors.challenge.common import Terms
from exchange.host.market_file import SettingsError, load_market


def load(tmp_path: Path, text: str, symbols: str = "BOND") -> Terms:
    path = tmp_path / "market.toml"
    instruments = "".join(f"[instruments.{s}]\n" for s in symbols.split())
    path.write_text(f"{instruments}{text}\n", encoding="utf-8")
    return load_market(path).rules(False, 0).doors


def test_without_the_table_all_doors_are_shut(tmp_path: Path) -> None:
    terms = load(tmp_path, "")
    assert (terms.json_port, terms.line_port) == (0, 0)
    assert load(tmp_path, "[doors]") == terms


def test_the_defaults(tmp_path: Path) -> None:
    terms = load(tmp_path, "[doors]\njson_port = 25000")
    assert terms == Terms(
        json_port=25_000,
        line_port=0,
        dialect="2017",
        levels=15,
        book_s=0.02,
        idle_s=1.0,
        messages_per_s=500,
        linger_s=1.0,
        teams={},
    )


def test_teams_have_addresses_and_networks(tmp_path: Path) -> None:
    terms = load(
        tmp_path,
        '[doors.teams]\nORANGE = "10.0.3.0/24"\n'
        'APPLE = ["10.0.4.7", "fd00::/8"]',
    )
    assert terms.teams["ORANGE"].include("10.0.3.255")
    assert not terms.teams["ORANGE"].include("10.0.4.0")
    assert terms.teams["APPLE"].include("10.0.4.7")
    assert terms.teams["APPLE"].include("fd00::1")
    assert not terms.teams["APPLE"].include("::1")


@pytest.mark.parametrize(
    "text, field, reason",
    [
        ("json_port = -1", "doors.json_port", "greater than or equal to 0"),
        ("json_port = 65536", "doors.json_port", "less than or equal"),
        ('line_port = "20000"', "doors.line_port", "valid integer"),
        ("line_port = 7\njson_port = 7", "doors", "line_port is the same"),
        ("dialect = 2017", "doors.dialect", "'2015', '2016' or '2017'"),
        ('dialect = "2020"', "doors.dialect", "'2015', '2016' or '2017'"),
        ("levels = 0", "doors.levels", "greater than or equal to 1"),
        ("levels = 101", "doors.levels", "less than or equal to 100"),
        ("book_ms = 0", "doors.book_ms", "greater than or equal to 1"),
        ("idle_ms = 0", "doors.idle_ms", "greater than or equal to 10"),
        ("idle_ms = 1.5", "doors.idle_ms", "valid integer"),
        ("messages_per_s = 0", "doors.messages_per_s", "or equal to 1"),
        ("linger_ms = 3001", "doors.linger_ms", "or equal to 3000"),
        ("linger_ms = true", "doors.linger_ms", "valid integer"),
        ("port = 1", "doors.port", "not permitted"),
        ('[doors.teams]\nteam = "::1"', "doors.teams.team.[key]", "pattern"),
        ("[doors.teams]\nTEAM = []", "doors.teams.TEAM", "at least 1 item"),
        ("[doors.teams]\nTEAM = 7", "doors.teams.TEAM", "valid list"),
        ('[doors.teams]\nTEAM = "home"', "doors.teams", "TEAM: 'home'"),
        ('[doors.teams]\nTEAM = "10.0.0.1/8"', "doors.teams", "TEAM: 10.0"),
    ],
)
def test_an_error_names_the_field(
    tmp_path: Path, text: str, field: str, reason: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, f"[doors]\n{text}")
    assert f"market.toml: {field}: " in str(caught.value)
    assert reason in str(caught.value)


def test_usd_stands_for_cash(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="doors: instruments.USD"):
        load(tmp_path, "[doors]\nline_port = 1", "BOND USD")
    load(tmp_path, "[doors]", "BOND USD")  # they are shut


def test_a_hello_is_no_longer_than_bots_can_read(tmp_path: Path) -> None:
    symbols = " ".join(f"S{number}" for number in range(151))
    with pytest.raises(SettingsError, match="doors: with more than 150"):
        load(tmp_path, "[doors]\nline_port = 1", symbols)
    load(tmp_path, "[doors]\nline_port = 1", symbols.removesuffix(" S150"))
