"""Settings, the market file, and the messages for invalid ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from exchange.doors.names import is_loopback
from exchange.gateway.rates import Quotas, Rate
from exchange.host.market_file import (
    AccountSettings,
    InstrumentSettings,
    MarketSettings,
    Rules,
    SettingsError,
    load_market,
)
from exchange.host.product_settings import ProductSettings
from exchange.host.settings import Settings, load_settings
from exchange.market.accounts import CASH_MAX, VALUE_MAX, AccountLimits
from exchange.market.command import Configure
from orderbook import MAX_INT, Instrument, MatchInfo


@pytest.fixture
def market(tmp_path: Path) -> Path:
    return tmp_path / "market.toml"


def variable(name: str) -> str:
    return f"EXCHANGE_SERVER_{name}"


def option(name: str) -> str:
    """Return the option of a setting."""
    return f"--{name.lower().replace('_', '-')}"


def load(market: Path, *lines: str) -> MarketSettings:
    """Load a market file of these lines."""
    market.write_text("\n".join(lines), encoding="utf-8")
    return load_market(market)


def refusal(market: Path, *lines: str) -> str:
    """Return the error of a market file: one line."""
    with pytest.raises(SettingsError) as caught:
        load(market, *lines)
    message = str(caught.value)
    assert message.startswith(f"{market}: ")
    assert len(message.splitlines()) == 1
    return message


def rules(market: Path, *lines: str, is_guarded: bool = False) -> Rules:
    """Return the rules of a market file of these lines."""
    market.write_text("\n".join(lines), encoding="utf-8")
    return Settings(market=market).rules(is_guarded)


# The environment and the command line -------------------------------------


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(variable("JOURNAL"))
    monkeypatch.delenv(variable("KEYS"))
    settings = load_settings()
    assert settings.model_dump() == {
        "hostname": "localhost",
        "port": 8765,
        "port_file": None,
        "symbols": ("BOND",),
        "market": None,
        "origins": (),
        "proxies": (),
        "journal": Path("data/exchange.db"),
        "role": "trade",
        "lease": 2,
        "journal_copy": None,
        "keys": Path("data/keys.json"),
        "open": False,
        "tls_cert": None,
        "tls_key": None,
        "max_connections": 10_000,
        "max_per_address": None,
        "max_per_account": None,
        "speed": 1,
        "dialect": "off",
        "log": "text",
        "debug": True,
    }
    assert settings.tls() is None
    assert settings.rules(is_guarded=False) == Rules(
        configure=Configure(
            instruments=(BOND,), limits=AccountLimits(open_orders=1_000)
        ),
        quotas=Quotas(),
    )


BOND = Instrument(
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
    ("PORT_FILE", "some/port", Path("some/port")),
    ("SYMBOLS", "ETF", ("ETF",)),
    ("SYMBOLS", "BOND,ETF", ("BOND", "ETF")),
    ("SYMBOLS", " BOND , ETF ,", ("BOND", "ETF")),
    ("SYMBOLS", "A-1_B.C", ("A-1_B.C",)),
    ("MARKET", "some/market.toml", Path("some/market.toml")),
    ("ORIGINS", "https://a.example", ("https://a.example",)),
    ("ORIGINS", "https://a, https://b", ("https://a", "https://b")),
    ("ORIGINS", "https://A.example/", ("https://a.example",)),
    ("ORIGINS", "https://a:443,http://b:80", ("https://a", "http://b")),
    ("ORIGINS", "http://[0::1]:3000", ("http://[::1]:3000",)),
    ("PROXIES", "127.0.0.1", ("127.0.0.1/32",)),
    ("PROXIES", "::1, 10.0.0.0/8", ("::1/128", "10.0.0.0/8")),
    ("JOURNAL", "some/journal.db", Path("some/journal.db")),
    ("JOURNAL", "off", None),
    ("KEYS", "some/keys.json", Path("some/keys.json")),
    ("OPEN", "1", True),
    ("OPEN", "0", False),
    ("MAX_CONNECTIONS", "1", 1),
    ("MAX_PER_ADDRESS", "0", 0),
    ("MAX_PER_ADDRESS", "7", 7),
    ("MAX_PER_ACCOUNT", "0", 0),
    ("MAX_PER_ACCOUNT", "7", 7),
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
    settings = load_settings([option(name), text])
    assert getattr(settings, name.lower()) == value


@pytest.mark.parametrize(
    "name",
    [
        *("HOSTNAME", "PORT", "SYMBOLS", "DEBUG", "OPEN", "TLS_CERT"),
        *("MAX_CONNECTIONS", "MAX_PER_ADDRESS", "MAX_PER_ACCOUNT"),
    ],
)
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
    ("ORIGINS", "a.example"),
    ("ORIGINS", "*"),
    ("ORIGINS", "null"),
    ("ORIGINS", "https://a.example/exchange"),
    ("ORIGINS", "https://a.example https://b.example"),
    ("ORIGINS", "https://a.example,wss://b.example"),
    ("ORIGINS", "https://börse.example"),
    ("PROXIES", "*"),
    ("PROXIES", "localhost"),
    ("PROXIES", "10.0.0.1/8"),
    ("PROXIES", "127.0.0.1 10.0.0.1"),
    ("DEBUG", "maybe"),
    ("DEBUG", "2"),
    ("OPEN", "yes please"),
    ("MAX_CONNECTIONS", "0"),
    ("MAX_CONNECTIONS", "many"),
    ("MAX_PER_ADDRESS", "-1"),
    ("MAX_PER_ACCOUNT", "-1"),
]


@pytest.mark.parametrize("name, text", BAD)
def test_a_bad_value_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(variable(name), text)
    with pytest.raises(SettingsError, match=variable(name)) as caught:
        load_settings()
    assert len(str(caught.value).splitlines()) == 1


def test_an_invalid_origin_in_the_settings_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable("ORIGINS"), "https://a.example,b.example/")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "b.example/ is not an origin: give http:// or" in str(caught.value)


@pytest.mark.parametrize("name, text", BAD)
def test_a_bad_option_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=variable(name)):
        load_settings([f"{option(name)}={text}"])


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
        assert option(name) in text
    assert "EXCHANGE_SERVER_PORT" in text


def test_help_shows_values_as_people_write_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        load_settings(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for shown in (
        "--symbols A,B symbols of the instruments to list, such as BOND,ETF"
        " (default: BOND)",
        "--tls-key FILE file of the certificate's private key (default: none)",
        "--debug 0|1 1: print each new order and its book (default: 1)",
        "0: unlimited (default: 20 if others can connect or there are keys,"
        " else 0)",
    ):
        assert shown in text


def test_a_symbol_named_twice_is_listed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable("SYMBOLS"), "ETF,BOND,ETF")
    rules = load_settings().rules(is_guarded=False)
    instruments = rules.configure.instruments
    assert [i.symbol for i in instruments] == ["ETF", "BOND"]


@pytest.mark.parametrize("name", ["TLS_CERT", "TLS_KEY"])
def test_a_certificate_needs_its_key(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(variable(name), "some/file.pem")
    with pytest.raises(SettingsError, match="both TLS_CERT and TLS_KEY"):
        load_settings()


@pytest.mark.parametrize(
    "address, is_local",
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("fe80::1%eth0", False),
    ],
)
def test_which_addresses_are_loopback(address: str, is_local: bool) -> None:
    assert is_loopback(address) is is_local


# The market file: instruments ---------------------------------------------


def test_a_market_file(monkeypatch: pytest.MonkeyPatch, market: Path) -> None:
    market.write_text("""
        [instruments.BOND]

        [instruments.ETF]
        tick_size = "0.05"
        min_price = -10
        max_price = 10
        max_qty = 5
        max_position = 70
        short_selling = false
        maker_fee = -1
        taker_fee = 2
        reference_price = -3
        collar = 8
        band = 4
        auction_s = 90
        phase = "pre_open"
        """)
    monkeypatch.setenv(variable("MARKET"), str(market))
    rules = load_settings().rules(is_guarded=False)
    assert rules.configure.instruments == (
        BOND,
        Instrument(
            symbol="ETF",
            tick_size="0.05",
            min_price=-10,
            max_price=10,
            max_qty=5,
            phase="pre_open",
            max_position=70,
            short_selling=False,
            maker_fee=-1,
            taker_fee=2,
            reference_price=-3,
            collar=8,
            band=4,
            auction_ms=90_000,
        ),
    )


MOST = VALUE_MAX // 100_000  # lots, at the default prices of one instrument


@pytest.mark.parametrize(
    "lines",
    [
        'tick_size = "0.000000000001"',
        'tick_size = "100"',
        "min_price = 0",
        "min_price = -100_000",
        "min_price = 7\nmax_price = 7",
        "min_price = 0\nmax_price = 0",
        f"min_price = -{VALUE_MAX}\nmax_qty = 1",
        f"max_price = {VALUE_MAX}\nmax_qty = 1",
        "max_qty = 1",
        f"max_qty = {MOST}",
        f"max_position = {MOST}",
        "max_position = 0",
        "short_selling = true",
        "maker_fee = 5\ntaker_fee = 5",
        "maker_fee = -5\ntaker_fee = 5",
        "maker_fee = 5\ntaker_fee = -5",
        "reference_price = 1",
        "reference_price = 100_000",
        "reference_price = 1\ncollar = 1",
        "reference_price = 1\nband = 1",
        "reference_price = 1\ncollar = 2\nband = 1",
        f"reference_price = 1\ncollar = {MAX_INT}\nband = {MAX_INT - 1}",
        "min_price = -1\ncollar = 1",  # 0 is a price here
        "auction_s = 1",
        "auction_s = 86_400",
        *(
            f'phase = "{phase}"'
            for phase in ("pre_open", "auction", "open", "halted", "closed")
        ),
    ],
)
def test_a_good_field(market: Path, lines: str) -> None:
    loaded = load(market, "[instruments.BOND]", lines)
    assert list(loaded.instruments) == ["BOND"]


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
        ("max_position = -1", "max_position"),
        ("max_position = 1.5", "max_position"),
        ("short_selling = 0", "short_selling"),
        ('short_selling = "no"', "short_selling"),
        ("maker_fee = 0.5", "maker_fee"),
        ("taker_fee = 0.5", "taker_fee"),
        ("maker_fee = -1", "rebate"),
        ("maker_fee = -2\ntaker_fee = 1", "rebate"),
        ("maker_fee = 1\ntaker_fee = -2", "rebate"),
        ("reference_price = 100_001", "reference_price"),
        ("reference_price = -1", "reference_price"),
        ("reference_price = 1.5", "reference_price"),
        ("collar = 5", "reference_price"),
        ("band = 5", "reference_price"),
        ("reference_price = 9\ncollar = -1", "collar"),
        ("reference_price = 9\nband = -1", "band"),
        ("reference_price = 9\ncollar = 5\nband = 5", "band"),
        ("reference_price = 9\ncollar = 5\nband = 6", "band"),
        ("auction_s = 0", "auction_s"),
        ("auction_s = 86_401", "auction_s"),
        ("auction_s = 0.5", "auction_s"),
        ("auction_ms = 1000", "auction_ms"),
        ("colour = 1", "colour"),
        ('symbol = "BOND"', "symbol"),
        ('phase = "Open"', "phase"),
        ("phase = 1", "phase"),
    ],
)
def test_a_bad_field_is_refused_by_name(
    market: Path, line: str, field: str
) -> None:
    message = refusal(market, "[instruments.BOND]", line)
    assert "BOND" in message and field in message


def test_the_leaderboard_is_public_unless_the_file_says_no(
    market: Path,
) -> None:
    assert rules(market, "[instruments.BOND]").public_leaderboard
    assert Settings().rules(is_guarded=False).public_leaderboard
    lines = "public_leaderboard = false", "[instruments.BOND]"
    assert not rules(market, *lines).public_leaderboard


def test_positions_are_public_only_if_the_file_says_so(market: Path) -> None:
    assert not rules(market, "[instruments.BOND]").public_positions
    assert not Settings().rules(is_guarded=False).public_positions
    lines = "public_positions = true", "[instruments.BOND]"
    assert rules(market, *lines).public_positions
    lines = "public_positions = 1", "[instruments.BOND]"
    assert "public_positions" in refusal(market, *lines)


MATCH = f"""
[match]
name = "Spring A/03"
round = "A"
teams = ["ORANGE", "APPLE"]
fair_sha256 = "{"0f" * 32}"
"""


def test_a_match_table(market: Path) -> None:
    listed = "[instruments.BOND]"
    assert rules(market, listed).configure.match is None
    assert rules(market, listed, MATCH).configure.match == MatchInfo(
        name="Spring A/03",
        round="A",
        teams=("ORANGE", "APPLE"),
        fair_sha256="0f" * 32,
    )
    short = rules(market, listed, '[match]\nname = "x"').configure.match
    assert short == MatchInfo(name="x")


@pytest.mark.parametrize(
    "line, field",
    [
        ("", "match.name"),
        ('name = ""', "match.name"),
        ('name = "x"\nround = 2', "match.round"),
        ('name = "x"\nteams = ["a b"]', "match.teams.0"),
        ('name = "x"\nteams = ["A", "A"]', "teams: one is named twice"),
        (f'name = "x"\nteams = {["T%d" % i for i in range(1_001)]}', "teams"),
        ('name = "x"\nfair_sha256 = "0f"', "match.fair_sha256"),
        ('name = "x"\nseed = 5', "match.seed"),
    ],
)
def test_a_bad_match_is_refused_by_name(
    market: Path, line: str, field: str
) -> None:
    assert field in refusal(market, "[instruments.BOND]\n[match]", line)


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
        (b"[account]\n", "instruments"),
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
        load_settings().rules(is_guarded=False)
    assert str(market) in str(caught.value)


# No number may exceed 2**53


@pytest.mark.parametrize(
    "lines, name",
    [
        (f"max_qty = {MOST + 1}", "max_qty"),
        (f"max_position = {MOST + 1}", "max_position"),
        (f"max_price = {VALUE_MAX + 1}\nmax_qty = 1", "max_qty"),
        (f"min_price = -{VALUE_MAX + 1}\nmax_qty = 1", "max_qty"),
        (f"max_price = {MAX_INT}", "max_qty"),
        # Fees and rebates increase the worth of a lot.
        (f"maker_fee = 1\nmax_qty = {MOST}", "max_qty"),
        (f"taker_fee = 1\nmax_qty = {MOST}", "max_qty"),
        (f"maker_fee = -1\ntaker_fee = 1\nmax_qty = {MOST}", "max_qty"),
        (f"maker_fee = 1\ntaker_fee = -1\nmax_qty = {MOST}", "max_qty"),
    ],
)
def test_limits_that_could_exceed_2_53_are_refused(
    market: Path, lines: str, name: str
) -> None:
    message = refusal(market, "[instruments.BOND]", lines)
    assert f"instruments.BOND: {name} " in message and "2**53" in message


def test_the_limit_named_in_a_refusal_is_accepted(market: Path) -> None:
    message = refusal(
        market,
        "[instruments.BOND]",
        "max_price = 3",
        "taker_fee = 4",
        f"max_qty = {MAX_INT}",
    )
    _, _, most = message.partition("at most ")
    assert most.startswith(f"{VALUE_MAX // 7} ")
    for qty, is_good in ((VALUE_MAX // 7, True), (VALUE_MAX // 7 + 1, False)):
        lines = "[instruments.BOND]\nmax_price = 3\ntaker_fee = 4"
        attempt = load if is_good else refusal
        attempt(market, lines, f"max_qty = {qty}")


def test_several_instruments_share_the_limit(market: Path) -> None:
    both = ("[instruments.BOND]", f"max_qty = {MOST // 2}")
    load(market, *both, "[instruments.ETF]")
    both = ("[instruments.BOND]", f"max_qty = {MOST // 2 + 1}")
    assert "instruments.BOND: max_qty" in refusal(
        market, *both, "[instruments.ETF]"
    )


@pytest.mark.parametrize("table", ["account", "accounts.alice"])
def test_a_position_that_could_exceed_2_53_is_refused(
    market: Path, table: str
) -> None:
    def lines(most: int) -> tuple[str, str]:
        return "[instruments.BOND]", f"[{table}.max_position]\nBOND = {most}"

    load(market, *lines(MOST))
    message = refusal(market, *lines(MOST + 1))
    name = table.removeprefix("accounts.")
    assert f"max_position of {name} {MOST + 1}" in message


# The market file: accounts ------------------------------------------------


def test_without_strangers_only_open_orders_are_limited(
    market: Path,
) -> None:
    found = rules(market, "[instruments.BOND]", "[account]")
    assert found == Settings().rules(is_guarded=False)
    assert found.configure.limits == AccountLimits(open_orders=1_000)
    assert found.quotas == Quotas()
    free = rules(market, "[instruments.BOND]", "[account]", "open_orders = 0")
    assert free.configure.limits == AccountLimits()


@pytest.mark.parametrize("lines", ["", "[account]\n[accounts.alice]"])
def test_with_strangers_everything_has_a_limit(
    market: Path, lines: str
) -> None:
    found = rules(market, "[instruments.BOND]", lines, is_guarded=True)
    limits = AccountLimits(cash=0, min_cash=None, open_orders=200)
    assert found.configure.limits == limits
    assert found.quotas.rate == Rate(100, 200)
    assert found.quotas.connections == 20
    if lines:
        assert found.configure.accounts == {"alice": limits}
        assert found.quotas.rates == {"alice": Rate(100, 200)}
    assert Settings().connections_per_address(True) == 1_000


def test_an_account_table(market: Path) -> None:
    lines = """
        [instruments.BOND]
        [account]
        cash = 1_000_000
        min_cash = -500
        open_orders = 50
        orders_per_s = 20
        burst = 40
        [account.max_position]
        BOND = 300
        """
    for is_guarded in (False, True):
        found = rules(market, lines, is_guarded=is_guarded)
        assert found.configure.limits == AccountLimits(
            cash=1_000_000,
            min_cash=-500,
            open_orders=50,
            max_position={"BOND": 300},
        )
        assert found.quotas.rate == Rate(20, 40)


def test_a_table_of_one_account_inherits_the_rest(
    market: Path,
) -> None:
    found = rules(
        market,
        """
        [instruments.BOND]
        [account]
        cash = 1_000
        min_cash = 0
        open_orders = 50
        orders_per_s = 20
        burst = 40
        max_position = { BOND = 300 }
        [accounts.maker]
        open_orders = 0
        orders_per_s = 500
        burst = 900
        max_position = { BOND = 9_000 }
        [accounts.poor]
        cash = 10
        [accounts.same]
        """,
        is_guarded=True,
    )
    common = found.configure.limits
    assert found.configure.accounts == {
        "maker": AccountLimits(
            cash=1_000, min_cash=0, max_position={"BOND": 9_000}
        ),
        "poor": AccountLimits(
            cash=10,
            min_cash=0,
            open_orders=50,
            max_position={"BOND": 300},
        ),
        "same": common,
    }
    assert found.quotas.rates == {
        "maker": Rate(500, 900),
        "poor": Rate(20, 40),
        "same": Rate(20, 40),
    }


@pytest.mark.parametrize("is_guarded", [False, True])
def test_a_zero_is_unlimited_also_with_strangers(
    market: Path, is_guarded: bool
) -> None:
    found = rules(
        market,
        "[instruments.BOND]\n[account]\nopen_orders = 0\norders_per_s = 0",
        is_guarded=is_guarded,
    )
    assert found.configure.limits == AccountLimits()
    assert found.quotas.rate.per_s == 0


@pytest.mark.parametrize(
    "lines, rate",
    [
        ("orders_per_s = 7", Rate(7, 7)),  # a burst of a second
        ("orders_per_s = 7\nburst = 1", Rate(7, 1)),
        ("orders_per_s = 7\nburst = 700", Rate(7, 700)),
    ],
)
def test_the_default_burst_is_one_second(
    market: Path, lines: str, rate: Rate
) -> None:
    found = rules(market, "[instruments.BOND]\n[account]", lines)
    assert found.quotas.rate == rate


@pytest.mark.parametrize("table", ["account", "accounts.alice"])
@pytest.mark.parametrize(
    "lines, field",
    [
        ("cash = 1.5", "cash"),
        ('cash = "1"', "cash"),
        (f"cash = {CASH_MAX + 1}", "cash"),
        (f"cash = {-CASH_MAX - 1}", "cash"),
        (f"min_cash = {-CASH_MAX - 1}", "min_cash"),
        (f"min_cash = {CASH_MAX + 1}", "min_cash"),
        ("cash = 5\nmin_cash = 6", "min_cash"),
        ("open_orders = -1", "open_orders"),
        ("open_orders = true", "open_orders"),
        ("orders_per_s = -1", "orders_per_s"),
        ("orders_per_s = 0.5", "orders_per_s"),
        ("burst = -1", "burst"),
        ("orders_per_s = 5\nburst = 0", "burst"),
        ("max_position = 5", "max_position"),
        ("max_position = { BOND = 0 }", "max_position"),
        ("max_position = { BOND = 1.5 }", "max_position"),
        ("max_position = { bond = 5 }", "max_position"),
        ("colour = 1", "colour"),
    ],
)
def test_a_bad_field_of_an_account_is_refused_by_name(
    market: Path, table: str, lines: str, field: str
) -> None:
    message = refusal(market, "[instruments.BOND]", f"[{table}]", lines)
    assert field in message and f"{market}: {table}" in message


@pytest.mark.parametrize(
    "lines",
    [
        f"cash = {CASH_MAX}",
        f"cash = {-CASH_MAX}",
        "cash = 5\nmin_cash = 5",
        f"min_cash = {-CASH_MAX}",
        f"cash = {CASH_MAX}\nmin_cash = {CASH_MAX}",
        "orders_per_s = 0\nburst = 0",
        "max_position = { BOND = 1 }",
    ],
)
def test_a_good_field_of_an_account(market: Path, lines: str) -> None:
    for table in ("account", "accounts.alice"):
        load(market, "[instruments.BOND]", f"[{table}]", lines)


@pytest.mark.parametrize("name", ["a b", "é", "x" * 33, "@exchange"])
def test_an_account_must_have_a_name_that_can_log_in(
    market: Path, name: str
) -> None:
    message = refusal(market, "[instruments.BOND]", f'[accounts."{name}"]')
    assert "accounts" in message


@pytest.mark.parametrize("is_guarded", [False, True])
@pytest.mark.parametrize(
    "lines, where",
    [
        ("[account]\nmin_cash = 1", "account"),
        ("[accounts.bob]\nmin_cash = 1", "accounts.bob"),
        ("[accounts.bob]\ncash = -1\n[account]\nmin_cash = 0", "bob"),
        ("[account]\ncash = 9\n[accounts.bob]\nmin_cash = 10", "bob"),
    ],
)
def test_an_inherited_cash_below_min_cash_is_refused(
    market: Path, lines: str, where: str, is_guarded: bool
) -> None:
    with pytest.raises(SettingsError, match="min_cash") as caught:
        rules(market, "[instruments.BOND]", lines, is_guarded=is_guarded)
    assert str(market) in str(caught.value) and where in str(caught.value)


@pytest.mark.parametrize(
    "settings, is_guarded, per_account, per_address",
    [
        ({}, False, 0, 0),
        ({}, True, 20, 1_000),
        ({"max_per_account": 3, "max_per_address": 4}, False, 3, 4),
        ({"max_per_account": 3, "max_per_address": 4}, True, 3, 4),
        ({"max_per_account": 0, "max_per_address": 0}, True, 0, 0),
    ],
)
def test_limits_of_connections(
    settings: dict[str, Any],
    is_guarded: bool,
    per_account: int,
    per_address: int,
) -> None:
    made = Settings(**settings)
    assert made.rules(is_guarded).quotas.connections == per_account
    assert made.connections_per_address(is_guarded) == per_address


def test_these_tests_try_every_field_of_both_tables() -> None:
    """A new field needs rows above, or in test_money_file."""
    products = set(ProductSettings.model_fields)  # test_product_settings
    assert set(InstrumentSettings.model_fields) - products == {
        *("maker_fee_bp", "taker_fee_bp", "multiplier", "lot_size"),
        "self_trades",
        *("tick_size", "min_price", "max_price", "max_qty", "max_position"),
        *("short_selling", "maker_fee", "taker_fee", "reference_price"),
        *("collar", "band", "auction_s", "phase"),
    }
    assert set(AccountSettings.model_fields) == {
        *("cash", "min_cash", "open_orders", "orders_per_s", "burst"),
        "max_position",
    }
