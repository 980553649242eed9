"""A market with money over a socket, and a start with other money."""

from __future__ import annotations

from pathlib import Path

import pytest

from exchange.host.market_file import SettingsError
from exchange.host.settings import Settings
from server import Server
from test.server.asking import place, rows
from test.support import serving, wired

CENTS = """
[money]
unit = "0.01"
currency = "USD"
[instruments.FUND]
tick_size = "0.05"
maker_fee_bp = 50
[account]
cash = 10000
min_cash = 0
"""


async def test_the_unit_of_a_journal_stays(tmp_path: Path) -> None:
    market, journal = tmp_path / "market.toml", tmp_path / "exchange.db"
    market.write_text(CENTS, "utf-8")
    async with serving(market=market, journal=journal) as exchange:
        pass  # nobody came
    market.write_text(CENTS.replace("USD", "EUR"), "utf-8")
    async with serving(market=market, journal=journal) as exchange:
        async with wired(exchange.url) as ann, wired(exchange.url) as bob:
            welcome = await ann.login("ann")
            await bob.login("bob")
            await place(ann, "buy", 30, 33)
            *_, report = await place(bob, "sell", 10, 33)
            assert report["cash"] == 10_000 + 1_650
            assert (await ann.until(type="account"))["cash"] == 10_000 - 1_658
            (row,) = await rows(ann, "positions")
            assert (row["cost"], row["mark"], row["unrealized"]) == (
                1_650,
                33,
                0,
            )
            first, last = await rows(ann, "leaderboard")
            assert (first["user"], first["equity"]) == ("bob", 10_000)
            assert last["cash"] == 10_000 - 1_658
    assert welcome["rules"] == 3
    assert (welcome["unit"], welcome["currency"]) == ("0.01", "EUR")
    (fund,) = welcome["instruments"]
    assert (fund["tick_value"], fund["maker_fee_bp"]) == (5, 50)
    assert "multiplier" not in fund and "lot_size" not in fund

    market.write_text(CENTS, "utf-8")
    before = journal.read_bytes()
    settings = Settings(
        market=market, journal=journal, port=0, hostname="127.0.0.1"
    )
    words = "money: was unit 0.01 EUR, would become unit 0.01 USD; "
    with pytest.raises(SettingsError, match=words):
        await Server(settings).start()
    assert journal.read_bytes() == before, "a refused start changes nothing"
