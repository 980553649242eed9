"""What a bot was told is there after a kill -9, and it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from dataclasses import dataclass
from pathlib import Path

from test.doors.challenge.bots import INSTRUMENT, Bot, Door, market
from test.support import greeting, launched

CYCLES = 2
BASKET = 3  # BOND for one XLF


@dataclass
class Player:
    """A bot that trades and converts, and counts what it is told.

    It only buys, or only sells, so what was done never becomes less.
    """

    door: Door
    side: str
    next_id: int = 0
    filled: int = 0  # lots of BOND, as it was told
    converted: int = 0  # conversions, as it was told
    most_filled: int = 0  # if all that it asked for was done
    most_converted: int = 0

    @property
    def team(self) -> str:
        return f"TEAM{self.side}"

    async def enter(self, port: int) -> Bot:
        """Say hello; check the positions against what was told before."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        bot = Bot(self.door, reader, writer)
        bot.say(f"HELLO {self.team}")
        bond, xlf = positions(await bot.line())
        filled = abs(bond + BASKET * xlf)
        assert self.filled <= filled <= self.most_filled
        assert self.converted <= abs(xlf) <= self.most_converted
        self.filled = self.most_filled = filled
        self.converted = self.most_converted = abs(xlf)
        return bot

    async def play(self, bot: Bot) -> None:
        """Trade and convert until the connection is lost."""
        with contextlib.suppress(ConnectionError):
            while True:
                self.next_id += 2
                order, conversion = self.next_id, self.next_id + 1
                self.most_filled += 2
                self.most_converted += 1
                bot.say(
                    f"ADD {order} BOND {self.side} 1000 2",
                    f"CONVERT {conversion} XLF {self.side} 1",
                )
                is_done = False
                while not is_done:
                    line = await bot.line()
                    if not line:
                        return
                    is_done = self.note(line, conversion)

    def note(self, line: str, conversion: int) -> bool:
        """Count what a line says; return whether it ends the exchange."""
        if line.startswith("{"):
            message = json.loads(line)
            word, number = message["type"], message.get("order_id")
            size = message.get("size", 0)
        else:
            word, *fields = line.lower().split()
            number = int(fields[0]) if word == "ack" else None
            size = int(fields[-1]) if word == "fill" else 0
        if word == "fill":
            self.filled += size
        is_done = word == "ack" and number == conversion
        self.converted += is_done
        return is_done


def positions(hello: str) -> tuple[int, int]:
    """Return the positions in BOND and in XLF of a hello."""
    if hello.startswith("{"):
        rows = json.loads(hello)["symbols"]
        held = {row["symbol"]: row["position"] for row in rows}
    else:
        pairs = [word.split(":") for word in hello.split()[1:]]
        held = {symbol: int(position) for symbol, position in pairs}
    return held["BOND"], held["XLF"]


async def test_a_round_that_is_killed_and_goes_on(tmp_path: Path) -> None:
    instrument = {**INSTRUMENT, "max_position": 0, "phase": "open"}
    path, ports = market(
        tmp_path,
        {
            "BOND": instrument,
            "XLF": instrument,
            "XLF.convert": {"lot": 1, "fee": 1},
            "XLF.convert.basket": {"BOND": BASKET},
        },
    )
    settings = {"market": str(path), "journal": str(tmp_path / "journal")}
    players = [Player("text", "BUY"), Player("json", "SELL")]
    chance = random.Random(1)
    for _ in range(CYCLES):
        async with launched(**settings) as process:
            await greeting(process)
            bots = [await p.enter(ports[p.door]) for p in players]
            games = [
                asyncio.ensure_future(player.play(bot))
                for player, bot in zip(players, bots)
            ]
            least = players[0].filled + chance.randrange(50, 150)
            while players[0].filled < least:
                await asyncio.sleep(0.001)
            process.kill()
            await asyncio.gather(*games)
            for bot in bots:
                bot.writer.close()
        buyer, seller = players
    assert buyer.filled >= 100
    async with launched(**settings) as process:
        await greeting(process)
        for player in players:
            (await player.enter(ports[player.door])).writer.close()
        assert buyer.filled == seller.filled
