"""The challenge doors, and a disk that is slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from exchange.doors.challenge.messages import SECOND_HELLO
from orderbook import Admin
from test.doors.challenge.bots import Door, hall
from test.journal.disks import slowed


async def test_nothing_is_told_before_it_is_on_disk(
    tmp_path: Path, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And rule 13: bots hear something while it hangs."""
    disk = slowed(monkeypatch)
    settings = {"journal": tmp_path / "journal"}
    async with hall(tmp_path, idle_ms=20, settings=settings) as exchange:
        bot = await exchange.enter(door, "TEAMA")
        other = await exchange.enter("text", "OTHER")
        with disk.held():
            bot.say("ADD 1 BOND BUY 990 1", "ADD 2 BOND SELL 990 1")
            await bot.until("ERROR IDLE")
            await bot.hears(*["ERROR IDLE"] * 5)
            await other.until("ERROR IDLE")
            await other.hears(*["ERROR IDLE"] * 5)
        heard = await bot.until("OUT 1")
        assert not any("TRADE" in line or '"trade"' in line for line in heard)
        assert heard[-1] == f"{bot.told('FILL 1 BOND BUY 990 1')}\n"
        await other.until("TRADE BOND 990 1")


async def test_a_request_that_waits_for_long_work(
    tmp_path: Path, door: Door
) -> None:
    """It is judged when its turn comes, with all that follows it."""
    async with hall(
        tmp_path,
        ["BOND", "XLF"],
        instrument={"max_position": 0},
        messages_per_s=10_000,
    ) as exchange:
        bot = await exchange.enter(door, "TEAMA", books=False)
        other = await exchange.enter("text", "OTHER", books=False)
        ids = range(2_000)
        other.say(*(f"ADD {id_} BOND BUY {1 + id_ % 50} 1" for id_ in ids))
        await other.until(f"ACK {ids[-1]}")
        await bot.does("ADD 3 BOND BUY 990 1", "ACK 3")
        sequencer = exchange.server.gateway.sequencer
        closing = Admin(action="phase", phase="closed", reason="test")
        exchange.server.step(lambda: sequencer.run(closing))
        assert exchange.server.gateway.engine.work  # more than one slice
        bot.say(
            "ADD 7 BOND BUY 1 1",
            "CANCEL 7",
            "CANCEL 3",
            "HELLO TEAMB",
            "ADD 7 XLF BUY 1 1",
        )
        await bot.hears("CLOSE XLF", "CLOSE BOND", "OUT 3")
        await bot.hears("REJECT 7 TRADING_CLOSED", "OUT 7", "OUT 3")
        await bot.hears(f"ERROR {SECOND_HELLO}", "REJECT 7 TRADING_CLOSED")
