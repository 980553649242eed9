"""Rules 10 to 13 of docs/DOORS.md: phases, rounds, and signs of life."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from test.doors.challenge.bots import Door, hall
from test.support import PATIENCE_S


@pytest.mark.parametrize("dialect", ["2015", "2016", "2017"])
async def test_rule_10_close_comes_before_the_outs(
    tmp_path: Path, door: Door, dialect: str
) -> None:
    """All symbols of a command in one message; no emptied books."""
    async with hall(tmp_path, dialect=dialect) as exchange:
        bot = await exchange.enter(door, "TEAMA")
        await bot.does("ADD 1 BOND BUY 990 1", "ACK 1")
        await bot.hears("BOOK BOND BUY 990:1 SELL")
        await bot.does("ADD 2 XLF BUY 990 1", "ACK 2")
        await bot.hears("BOOK XLF BUY 990:1 SELL")
        await bot.is_silent()
        exchange.act(action="phase", phase="closed")
        is_one = dialect == "2015"
        await bot.hears("MARKET_CLOSED" if is_one else "CLOSE BOND XLF")
        await bot.hears("OUT 1", "OUT 2")
        await bot.does("ADD 1 BOND BUY 990 1", "REJECT 1 TRADING_CLOSED")
        exchange.open()
        await bot.hears("MARKET_OPEN" if is_one else "OPEN BOND XLF")
        await bot.does("ADD 1 BOND BUY 990 1", "ACK 1")
        await bot.hears("BOOK BOND BUY 990:1 SELL")


async def test_rule_10_close_comes_before_many_outs(
    tmp_path: Path, door: Door
) -> None:
    """So many that the exchange cancels them in several commands."""
    async with hall(
        tmp_path,
        ["BOND"],
        instrument={"max_position": 0},
        messages_per_s=5_000,
    ) as exchange:
        bot = await exchange.enter(door, "TEAMA", books=False)
        ids = range(1_200)
        for id_ in ids:
            bot.say(f"ADD {id_} BOND BUY {1 + id_ % 50} 1")
        await bot.until(f"ACK {ids[-1]}")
        exchange.act(action="phase", phase="closed")
        await bot.hears("CLOSE BOND", *(f"OUT {id_}" for id_ in ids))


async def test_rule_11_a_close_lists_what_closed(
    tmp_path: Path, door: Door
) -> None:
    async with hall(tmp_path) as exchange:
        bot = await exchange.enter(door, "TEAMA")
        exchange.act(action="phase", phase="halted", symbol="XLF")
        await bot.hears("CLOSE XLF")
        exchange.act(action="phase", phase="auction", symbol="XLF")
        exchange.act(action="phase", phase="closed")
        await bot.hears("CLOSE BOND")
        await bot.is_silent()


async def test_rule_12_a_reset_ends_every_connection(
    tmp_path: Path, door: Door
) -> None:
    """While open too: a close comes first."""
    async with hall(tmp_path, linger_ms=50) as exchange:
        bot = await exchange.enter(door, "TEAMA", books=False)
        second = await exchange.enter(door, "TEAMA", books=False)
        await bot.does("ADD 1 BOND BUY 990 1", "ACK 1")
        exchange.act(action="reset")
        await bot.hears("CLOSE BOND XLF", "OUT 1")
        # It is still served, and nothing is accepted any more.
        await bot.does("ADD 1 BOND BUY 990 1", "REJECT 1 TRADING_CLOSED")
        assert await bot.ends() == []
        await second.hears("CLOSE BOND XLF")
        assert await second.ends() == []
        # It comes back at once, and waits for the next round.
        bot = await exchange.enter(door, "TEAMA")
        exchange.open()
        await bot.hears("OPEN BOND XLF")


async def test_rule_12_a_round_that_ended_long_ago_does_not_linger(
    tmp_path: Path, door: Door
) -> None:
    async with hall(tmp_path, linger_ms=0) as exchange:
        bot = await exchange.enter(door, "TEAMA")
        exchange.act(action="phase", phase="closed")
        await bot.hears("CLOSE BOND XLF")
        await bot.is_silent()
        exchange.act(action="reset")
        assert await bot.ends() == []


async def test_rule_12_a_shutdown_closes_then_hangs_up(
    tmp_path: Path, door: Door
) -> None:
    async with hall(tmp_path, linger_ms=50) as exchange:
        bot = await exchange.enter(door, "TEAMA", books=False)
        await bot.does("ADD 1 BOND BUY 990 1", "ACK 1")
        stopping = asyncio.ensure_future(exchange.server.stop())
        await bot.hears("CLOSE BOND XLF", "OUT 1")
        assert await bot.ends() == []
        bot.writer.close()
        async with asyncio.timeout(PATIENCE_S):
            await stopping


async def test_rule_13_a_silent_connection_gets_a_book(
    tmp_path: Path, door: Door
) -> None:
    """Those with orders in turn, also while closed."""
    async with hall(tmp_path, idle_ms=20) as exchange:
        bot = await exchange.enter(door, "TEAMA", books=False)
        await bot.hears("ERROR IDLE", "ERROR IDLE")
        bot.hears_books = True
        bot.say("ADD 1 XLF BUY 990 1")
        await bot.until("BOOK XLF BUY 990:1 SELL")
        await bot.hears("BOOK XLF BUY 990:1 SELL")
        bot.say("ADD 2 BOND SELL 995 1")
        await bot.until("BOOK BOND BUY SELL 995:1")
        both = ["BOOK BOND BUY SELL 995:1", "BOOK XLF BUY 990:1 SELL"]
        heard = [await bot.line() for _ in range(4)]
        assert heard[:2] == heard[2:]
        assert sorted(heard[:2]) == sorted(f"{bot.told(b)}\n" for b in both)
        exchange.act(action="phase", phase="closed")
        await bot.until("CLOSE BOND XLF")
        await bot.hears("OUT 2", "OUT 1", "ERROR IDLE", "ERROR IDLE")


async def test_rule_13_before_hello_nothing_comes_by_itself(
    tmp_path: Path, door: Door
) -> None:
    async with hall(tmp_path, idle_ms=10) as exchange:
        bot = await exchange.connect(door)
        known = await exchange.enter(door, "TEAMA")
        await known.hears("ERROR IDLE", "ERROR IDLE", "ERROR IDLE")
        bot.say("HELLO TEAMB")
        assert "TEAMB" not in await bot.line()
        await bot.hears("OPEN BOND XLF")
