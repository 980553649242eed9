"""Money in the market file: its unit, tick values, fees and bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from exchange.host.market_file import SettingsError, load_market
from exchange.host.recovery import check_money
from exchange.host.settings import Settings
from exchange.market.accounts import VALUE_MAX
from exchange.market.command import Configure, Money
from exchange.market.engine import Engine
from test.script import act, apply

CENTS = '[money]\nunit = "0.01"\ncurrency = "USD"\n[instruments.BOND]\n'


def configured(folder: Path, text: str) -> Configure:
    """Return what a market file with this text configures."""
    path = folder / "market.toml"
    path.write_text(text, "utf-8")
    return Settings(market=path).rules(is_guarded=False).configure


def refusal(folder: Path, text: str) -> str:
    path = folder / "market.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(SettingsError) as caught:
        load_market(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ").removeprefix("Value error, ")


def test_a_market_with_money(tmp_path: Path) -> None:
    text = f"""{CENTS}
    tick_size = "1"
    taker_fee = 3
    taker_fee_bp = 25
    maker_fee_bp = -10
    self_trades = true

    [instruments.FUND]
    tick_size = "0.05"
    multiplier = 20
    lot_size = "0.001"
    """
    market = configured(tmp_path, text)
    bond, fund = market.instruments
    assert market.money == Money(unit="0.01", currency="USD")
    assert (bond.tick_value, bond.multiplier, bond.lot_size) == (100, 1, "1")
    assert (bond.taker_fee, bond.taker_fee_bp) == (3, 25)
    assert bond.maker_fee_bp == -10 and bond.self_trades
    assert (fund.tick_value, fund.multiplier) == (100, 20)
    assert fund.lot_size == "0.001" and not fund.self_trades


def test_without_money_a_tick_of_a_lot_is_a_unit(tmp_path: Path) -> None:
    text = '[instruments.BOND]\ntick_size = "0.05"\nmaker_fee_bp = 5'
    market = configured(tmp_path, text)
    (bond,) = market.instruments
    assert market.money is None
    assert (bond.tick_value, bond.maker_fee_bp) == (1, 5)


@pytest.mark.parametrize(
    "unit, tick_size, multiplier, value",
    [
        ("0.01", "0.01", 1, 1),
        ("0.01", "0.010", 1, 1),
        ("0.005", "0.01", 3, 6),
        ("2", "1", 4, 2),
        ("0.000000000001", "999", 1, 999 * 10**12),
        ("0.3", "0.1", 3, 1),
    ],
)
def test_the_tick_value_is_exact(
    tmp_path: Path, unit: str, tick_size: str, multiplier: int, value: int
) -> None:
    text = (
        f'money = {{ unit = "{unit}", currency = "EUR" }}\n[instruments.BOND]'
        f'\ntick_size = "{tick_size}"\nmultiplier = {multiplier}'
        "\nmax_price = 1\nmax_qty = 1"
    )
    (bond,) = configured(tmp_path, text).instruments
    assert bond.tick_value == value


@pytest.mark.parametrize(
    "line, words",
    [
        ('tick_size = "0.005"', "instruments.BOND.tick_size: 0.005 x "),
        ('tick_size = "0.001"\nmultiplier = 5', "x multiplier 5 is not"),
        ('tick_size = "0.001"', "choose a money.unit that divides it"),
        ("multiplier = 0", "instruments.BOND.multiplier: "),
        ("multiplier = 1.5", "instruments.BOND.multiplier: "),
        ('lot_size = "0"', "lot_size is zero"),
        ("lot_size = 1", "instruments.BOND.lot_size: "),
        ("maker_fee_bp = 10_001", "instruments.BOND.maker_fee_bp: "),
        ("taker_fee_bp = -10_001", "instruments.BOND.taker_fee_bp: "),
        ("taker_fee_bp = 0.5", "instruments.BOND.taker_fee_bp: "),
        ("maker_fee_bp = -1", "maker_fee_bp and taker_fee_bp: the rebate"),
        ("taker_fee_bp = -2\nmaker_fee_bp = 1\ntaker_fee = 9", "rebate"),
        ("self_trades = 1", "instruments.BOND.self_trades: "),
    ],
)
def test_a_bad_field_is_refused_by_name(
    tmp_path: Path, line: str, words: str
) -> None:
    assert words in refusal(tmp_path, CENTS + line)


@pytest.mark.parametrize(
    "fields, words",
    [
        ('unit = "0.01"', "money.currency: "),
        ('currency = "USD"', "money.unit: "),
        ('unit = "0"\ncurrency = "USD"', "unit is zero"),
        ('unit = "-1"\ncurrency = "USD"', "money.unit: "),
        ('unit = 0.01\ncurrency = "USD"', "money.unit: "),
        ('unit = "1e-2"\ncurrency = "USD"', "money.unit: "),
        ('unit = "1"\ncurrency = ""', "money.currency: "),
        (f'unit = "1"\ncurrency = "{17 * "X"}"', "money.currency: "),
        ('unit = "1"\ncurrency = \'a"b\'', "money.currency: "),
        ('unit = "1"\ncurrency = "USD"\nname = "x"', "money.name: "),
    ],
)
def test_bad_money_is_refused_by_name(
    tmp_path: Path, fields: str, words: str
) -> None:
    text = f"[money]\n{fields}\n[instruments.BOND]\n"
    assert words in refusal(tmp_path, text)


def test_a_multiplier_needs_money(tmp_path: Path) -> None:
    message = refusal(tmp_path, "[instruments.BOND]\nmultiplier = 2")
    assert message.startswith("instruments.BOND.multiplier: add [money]")


# 100,000 ticks of 100 units, and 0.5 % of that, and 7.
WORTH = 10_000_000 + 50_000 + 7


@pytest.mark.parametrize("field", ["max_qty", "max_position"])
def test_the_bounds_count_tick_value_and_fees(
    tmp_path: Path, field: str
) -> None:
    most = VALUE_MAX // WORTH
    fees = "taker_fee = 7\ntaker_fee_bp = 50\nmaker_fee_bp = -50\n"
    market = configured(tmp_path, f"{CENTS}{fees}{field} = {most}")
    assert getattr(market.instruments[0], field) == most
    message = refusal(tmp_path, f"{CENTS}{fees}{field} = {most + 1}")
    assert message.startswith(f"instruments.BOND: {field} {most + 1} ")
    assert f"at most {most} " in message


def test_an_engine_bounds_positions_by_tick_value(tmp_path: Path) -> None:
    engine = Engine()
    apply(engine, configured(tmp_path, CENTS))
    most = engine.listings["BOND"].position_max
    assert most == VALUE_MAX // 10_000_000


# A journal with accounts --------------------------------------------------

OLD = CENTS + '[instruments.FUND]\ntick_size = "0.05"\n'


@pytest.mark.parametrize(
    "new, words",
    [
        (OLD.replace('"0.01"', '"0.001"'), "unit 0.01 USD, would become unit"),
        (OLD.replace("USD", "EUR"), "money: was unit 0.01 USD, would become"),
        ("[instruments.BOND]\n[instruments.FUND]", "would become none"),
        (
            OLD.replace("0.05", "0.10"),
            "instruments.FUND: tick_value (tick_size x multiplier / unit) was"
            " 5, would become 10",
        ),
        (OLD + "multiplier = 3", "was 5, would become 15"),
    ],
)
def test_the_unit_of_accounts_does_not_change(
    tmp_path: Path, new: str, words: str
) -> None:
    engine = Engine()
    apply(engine, configured(tmp_path, OLD))
    market = configured(tmp_path, new)
    check_money(engine, market)  # nobody has cash
    act(engine, "ann connect")
    with pytest.raises(SettingsError) as caught:
        check_money(engine, market)
    message = str(caught.value)
    assert words in message
    assert message.endswith(
        "set the old values again, or start with another journal"
    )


def test_money_is_not_added_to_accounts_either(tmp_path: Path) -> None:
    engine = Engine()
    apply(engine, configured(tmp_path, "[instruments.BOND]"))
    act(engine, "ann connect")
    with pytest.raises(SettingsError, match="was none, would become unit"):
        check_money(engine, configured(tmp_path, CENTS))


def test_all_else_may_change(tmp_path: Path) -> None:
    engine = Engine()
    before = configured(tmp_path, OLD)
    apply(engine, before)
    act(engine, "ann connect")
    check_money(engine, before)
    check_money(engine, replace(before, instruments=before.instruments[:1]))
    dearer = OLD + "taker_fee_bp = 5\n[instruments.NEW]\nmultiplier = 7\n"
    check_money(engine, configured(tmp_path, dearer))
