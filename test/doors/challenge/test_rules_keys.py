"""Who may enter by the challenge doors, and what the figures say of them."""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path

import pytest

from test.doors.challenge.bots import INSTRUMENT, Door, hall, market
from test.support import add_key, serving, wired

HERE = "127.0.0.1"
NO_ENTRY = "ERROR HELLO:UNAUTHORIZED"


async def test_without_keys_any_team_enters(
    tmp_path: Path, door: Door
) -> None:
    """Also one that has addresses, from any other."""
    teams: dict[str, str | list[str]] = {"ORANGE": "10.0.3.0/24"}
    async with hall(tmp_path, teams=teams) as exchange:
        for team in ("ORANGE", "APPLE"):
            await (await exchange.enter(door, team)).is_silent()


async def test_with_keys_only_from_a_teams_addresses(
    tmp_path: Path, door: Door
) -> None:
    keys = tmp_path / "keys.json"
    for name in ("ORANGE", "APPLE", "PEAR", "PLUM"):
        add_key(keys, name)
    teams: dict[str, str | list[str]] = {
        "ORANGE": HERE,
        "APPLE": ["10.0.3.0/24", "127.0.0.0/8"],
        "PEAR": "10.0.3.0/24",
        "NOKEY": HERE,
    }
    async with hall(
        tmp_path, teams=teams, settings={"keys": keys}
    ) as exchange:
        for team in ("ORANGE", "APPLE"):
            bot = await exchange.enter(door, team)
            await bot.is_silent()
        for team in ("PEAR", "PLUM", "NOKEY", "GRAPE"):
            bot = await exchange.connect(door)
            bot.say(f"HELLO {team}")
            await bot.hears(NO_ENTRY)
            assert await bot.ends() == []


async def test_an_administrator_never_enters(
    tmp_path: Path, door: Door
) -> None:
    keys = tmp_path / "keys.json"
    add_key(keys, "BOSS", is_admin=True)
    teams: dict[str, str | list[str]] = {"BOSS": HERE}
    for is_open in (False, True):
        settings = {"keys": keys, "open": is_open}
        async with hall(tmp_path, teams=teams, settings=settings) as exchange:
            bot = await exchange.connect(door)
            bot.say("HELLO BOSS")
            await bot.hears(NO_ENTRY)
            assert await bot.ends() == []


async def test_an_open_exchange_lets_in_names_that_have_no_key(
    tmp_path: Path, door: Door
) -> None:
    keys = tmp_path / "keys.json"
    add_key(keys, "ORANGE")
    settings = {"keys": keys, "open": True}
    async with hall(tmp_path, settings=settings) as exchange:
        await (await exchange.enter(door, "APPLE")).is_silent()
        bot = await exchange.connect(door)
        bot.say("HELLO ORANGE")
        await bot.hears(NO_ENTRY)


async def test_a_key_that_is_revoked_ends_the_connection(
    tmp_path: Path, door: Door
) -> None:
    keys = tmp_path / "keys.json"
    add_key(keys, "ORANGE")
    teams: dict[str, str | list[str]] = {"ORANGE": HERE}
    async with hall(
        tmp_path, teams=teams, settings={"keys": keys}
    ) as exchange:
        bot = await exchange.enter(door, "ORANGE")
        add_key(keys, "ORANGE")  # another one
        exchange.server.looks.reload()
        assert await bot.ends() == []


async def test_an_account_has_its_limit_of_connections(
    tmp_path: Path, door: Door
) -> None:
    """Native ones count too."""
    settings = {"max_per_account": 2}
    async with hall(tmp_path, settings=settings) as exchange:
        await exchange.enter(door, "TEAMA")
        async with wired(exchange.server.url, "TEAMA"):
            third = await exchange.connect(door)
            third.say("HELLO TEAMA")
            await third.hears("ERROR HELLO:RATE_LIMITED")
            assert await third.ends() == []


async def test_the_figures_name_the_account(
    tmp_path: Path, door: Door
) -> None:
    async with hall(tmp_path) as exchange:
        bot = await exchange.enter(door, "TEAMA", books=False)
        await bot.does("ADD 1 BOND BUY 9 1", "ACK 1")
        await bot.does("ADD 2 BOND BUY 9 0", "REJECT 2 BAD_SIZE")
        await bot.does("CANCEL 1", "OUT 1")
        url = exchange.server.url.replace("ws", "http")
        text = await asyncio.to_thread(
            lambda: urllib.request.urlopen(f"{url}/metrics").read().decode()
        )
        name = 'exchange_requests_total{account="TEAMA",type='
        for word, count in (("line", 4), ("place", 1), ("cancel", 1)):
            assert f'{name}"{word}"}} {count}.0' in text
        assert 'exchange_refusals_total{code="bad_request"} 1.0' in text
        assert 'exchange_connections{address="127.0.0.1"} 2.0' in text


# Doors that are asked for, and those that are not ----------------------------


async def test_nothing_listens_that_was_not_asked_for(tmp_path: Path) -> None:
    path, ports = market(tmp_path, {"BOND": INSTRUMENT}, line_port=0)
    async with serving(market=path) as server:
        assert server.greeting.endswith(f" | JSON lines on {ports['json']}")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HERE, ports["text"])
    path.write_text("[instruments.BOND]\n")
    async with serving(market=path) as server:
        assert "lines on" not in server.greeting


async def test_a_port_that_is_in_use_ends_the_start(tmp_path: Path) -> None:
    async with hall(tmp_path) as exchange:
        market_path = tmp_path / "market.toml"
        with pytest.raises(OSError, match=str(exchange.ports["json"])):
            async with serving(market=market_path):
                pass
