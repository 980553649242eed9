"""Rules 14 and 17 of docs/DOORS.md: rates, and slow readers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exchange.gateway import pacing
from test.doors.challenge.bots import Bot, Door, Hall, hall
from test.support import order, until, wired

ADDS = [f"ADD {id_} BOND BUY {id_} 1" for id_ in range(1, 40)]


async def test_rule_14_what_is_beyond_the_rate_is_ignored(
    tmp_path: Path, door: Door
) -> None:
    """With one error a second; cancels may come five times as often."""
    async with hall(tmp_path, messages_per_s=1) as exchange:
        bot = await exchange.connect(door)
        bot.say("HELLO TEAMA")
        await bot.until("OPEN BOND XLF")
        bot.hears_books = False
        bot.say(*ADDS, "nonsense", "HELLO TEAMB", "ADD x", "CANCEL 1")
        await bot.hears("ACK 1", "ERROR RATE_LIMIT", "OUT 1")
        # The bucket is the account's, at both doors.
        second = await exchange.connect("json")
        second.say("HELLO TEAMA")
        await second.until("OPEN BOND XLF")
        second.hears_books = False
        await second.does("ADD 9 BOND BUY 1 1", "ERROR RATE_LIMIT")
        other = await exchange.enter("text", "OTHER", books=False)
        await other.does("ADD 9 BOND BUY 1 1", "ACK 9")


async def test_rule_14_before_hello_too(tmp_path: Path, door: Door) -> None:
    async with hall(tmp_path, messages_per_s=1) as exchange:
        bot = await exchange.connect(door)
        bot.say(*ADDS, "CANCEL 1")
        line = await bot.line()
        assert "NO_HELLO" in line
        await bot.hears("ERROR RATE_LIMIT")
        assert "NO_HELLO" in await bot.line()  # of the cancel
        assert not exchange.server.gateway.engine.accounts


async def test_rule_14_replaces_the_accounts_own_rate(
    tmp_path: Path, door: Door
) -> None:
    accounts = "[account]\norders_per_s = 1\nburst = 1\n"
    async with hall(tmp_path, accounts=accounts) as exchange:
        bot = await exchange.enter(door, "TEAMA", books=False)
        bot.say(*ADDS)
        await bot.hears(*(f"ACK {id_}" for id_ in range(1, 40)))


async def test_rule_14_a_bot_that_answers_every_message_with_two(
    tmp_path: Path, door: Door
) -> None:
    """It is neither cut off nor in the way of others."""
    async with hall(tmp_path, messages_per_s=300) as exchange:
        bot = await exchange.enter(door, "TEAMA")
        bot.say("ADD 0 BOND BUY 1 1")
        while "RATE_LIMIT" not in await bot.line():
            bot.say("ADD 0 BOND BUY 1 1", "ADD 0 NONE BUY 1 1")
        for _ in range(5_000):
            bot.say("ADD 0 BOND BUY 1 1", "ADD 0 NONE BUY 1 1")
        other = await exchange.enter("text", "OTHER")
        await other.does("CANCEL 1", "OUT 1")
        bot.say("CANCEL 7")
        await bot.until("OUT 7")


SLOW = "S" * 16  # its messages are long


async def pour(
    exchange: Hall, user: str, side: str, lots: int, price: int
) -> None:
    """Let a native account place this many orders of one lot."""
    request = order(side, 1, price, symbol=SLOW, time_in_force="ioc")
    frame = json.dumps([request] * 100)
    async with wired(exchange.server.url, user) as wire:
        for _ in range(lots // 100):
            await wire.connection.send(frame)
        await wire.ask(type="ping")


async def slow_bot(exchange: Hall, door: Door) -> Bot:
    """Let a bot say hello and then read nothing; it has small buffers."""
    bot = await exchange.connect(door, buffer=4_096)
    bot.say("HELLO SLOW", "CANCEL 5050505")
    await bot.until("OUT 5050505")
    bot.pause()
    return bot


async def test_rule_17_a_slow_reader_loses_trades_and_nothing_private(
    tmp_path: Path, door: Door
) -> None:
    trades = {"text": 12_000, "json": 6_000}[door]
    async with hall(
        tmp_path, [SLOW], instrument={"max_position": 0}
    ) as exchange:
        slow = await slow_bot(exchange, door)
        (link,) = exchange.server.links.values()
        slow.say(f"ADD 1 {SLOW} BUY 990 5", f"ADD 2 {SLOW} BUY 980 1")
        await until(lambda: exchange.server.gateway.engine.order_id == 2)
        other = await exchange.enter("json", "OTHER", books=False)
        other.say(f"ADD 1 {SLOW} SELL 999999 999999")
        await other.until("ACK 1")
        await pour(exchange, "TAKER", "buy", trades, 999_999)
        assert 2**18 < link.peer.buffered < 2**19
        await pour(exchange, "GIVER", "sell", 100, 985)  # 5 of them trade
        slow.resume()
        lines = await slow.until(f"FILL 1 {SLOW} BUY 990 1")
        assert f"{slow.told('ACK 1')}\n" in lines
        assert f"{slow.told('ACK 2')}\n" in lines
        heard = sum("TRADE" in line or '"trade"' in line for line in lines)
        assert 1_000 < heard < trades - 1_000
        await slow.until("OUT 1")
        left = 999_999 - trades
        await slow.until(f"BOOK {SLOW} BUY 980:1 SELL 999999:{left}")
        await slow.is_silent()


async def test_rule_17_who_reads_nothing_at_all_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above 4 MiB, here 512 KiB, of private messages."""
    monkeypatch.setattr(pacing, "STUCK_BYTES", 2**19)
    async with hall(
        tmp_path, [SLOW], instrument={"max_position": 0}
    ) as exchange:
        slow = await slow_bot(exchange, "json")
        slow.say(f"ADD {2**64 - 1} {SLOW} SELL 999999 999999")
        await until(lambda: exchange.server.gateway.engine.order_id == 1)
        await pour(exchange, "TAKER", "buy", 8_000, 999_999)
        await until(lambda: not exchange.server.links)


async def test_rule_17_books_are_merged_while_a_bot_does_not_read(
    tmp_path: Path, door: Door
) -> None:
    """Only the newest of each symbol waits; it does not get the others."""
    async with hall(
        tmp_path, ["BOND", SLOW], instrument={"max_position": 0}
    ) as exchange:
        slow = await slow_bot(exchange, door)
        (link,) = exchange.server.links.values()
        other = await exchange.enter("text", "OTHER")

        async def change(symbol: str, price: int) -> None:
            """Let the best bid be new, and then as before."""
            other.say(f"ADD 0 {symbol} BUY {price} 1")
            while f"BUY {price}:1 " not in await other.line():
                pass
            other.say("CANCEL 0")
            while f"BOOK {symbol} BUY" not in (line := await other.line()):
                pass
            assert f"{price}:1" not in line

        for price in range(100_000, 100_014):  # so that its book is long
            other.say(f"ADD {price} {SLOW} BUY {price} 999999")
        price = 200_000
        while not link.peer.buffered:  # until the kernel takes no more
            price += 1
            await change(SLOW, price)
        unread = link.peer.buffered
        for price in range(1, 51):
            await change("BOND", price)
        assert link.peer.buffered == unread
        other.say("ADD 1 BOND BUY 77 1")
        await other.until("BOOK BOND BUY 77:1 SELL")
        slow.resume()
        heard = await slow.until("BOOK BOND BUY 77:1 SELL")
        assert not any('"BOND"' in line or " BOND " in line for line in heard)
