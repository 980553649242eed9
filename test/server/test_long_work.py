"""Long work in a process that is killed in the middle of it."""

from __future__ import annotations

from pathlib import Path

from exchange.journal.sqlite import read_journal
from exchange.market.command import Command
from exchange.market.engine import Engine
from orderbook import MAX_FRAME
from test.journal.golden import events_digest
from test.support import (
    address,
    ended,
    greeting,
    launched,
    order,
    wired,
    words,
)
from util.measure.process import prepare

MARKET = """\
[instruments.BOND]
phase = "auction"
[account]
open_orders = 0
orders_per_s = 0
"""
FRAMES = 40  # of orders, on each side
ATTEMPTS = 10  # the exchange may be done before it is killed


def commands_of(path: Path) -> list[Command]:
    return [command for batch in read_journal(path) for command in batch]


async def killed_amid(
    settings: dict[str, str], tokens: dict[str, str]
) -> Engine:
    """Kill an exchange after the first trade of an uncrossing.

    Return the market as its journal has it.
    """
    async with launched(**settings) as process:
        url = address(await greeting(process))
        async with (
            wired(url, "ann", token=tokens["ann"]) as ann,
            wired(url, "bob", token=tokens["bob"]) as bob,
            wired(url, "boss", token=tokens["boss"]) as boss,
        ):
            for wire, side in ((ann, "buy"), (bob, "sell")):
                for _ in range(FRAMES):
                    await wire.send(*[order(side, 1, 100)] * MAX_FRAME)
                await wire.take(FRAMES * MAX_FRAME)
            await boss.send(
                {
                    "type": "admin",
                    "action": "phase",
                    "phase": "open",
                    "reason": "noon",
                }
            )
            await ann.until(exec_type="trade")
            process.kill()
            await ended(process)
    killed = Engine()
    for command in commands_of(Path(settings["journal"])):
        killed.apply(command)
    return killed


async def test_a_killed_exchange_finishes_its_uncrossing(
    tmp_path: Path,
) -> None:
    users = ("ann", "bob", "boss")
    for attempt in range(ATTEMPTS):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        journal = folder / "exchange.db"
        settings, tokens = prepare(folder, MARKET, users)
        settings |= {"journal": str(journal), "debug": "0"}
        killed = await killed_amid(settings, tokens)
        if killed.work:
            break
    assert killed.work, "each kill came too late"
    before = commands_of(journal)
    assert killed.listings["BOND"].phase == "auction"
    traded = killed.listings["BOND"].trade_id
    assert 0 < traded < FRAMES * MAX_FRAME

    async with launched(**settings) as process:
        url = address(await greeting(process))
        async with wired(url, "ann", token=tokens["ann"]) as ann:
            (found,) = await ann.ask(type="get", what="account")
            # All of it is done before anybody is let in.
            assert found["data"][0]["positions"] == {
                "BOND": FRAMES * MAX_FRAME
            }
            assert words(await ann.ask(**order("buy", 1, 100))) == ["new"]
        process.terminate()
        await ended(process)
    after = commands_of(journal)
    assert after[: len(before)] == before
    engine = Engine()
    digest = events_digest(after, engine)
    assert digest == events_digest(after)
    engine.check()
    assert not engine.work
    assert engine.listings["BOND"].phase == "open"
    assert engine.listings["BOND"].trade_id == FRAMES * MAX_FRAME
