"""The load of `util.measure.soak`: a day with many kinds of clients."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed

from util.measure.process import prepare
from util.measure.requests import ADMINISTRATOR, SYMBOLS, Message, Requests
from util.measure.wire import PATIENCE_S, Wire, wired

PAUSE_S = 0.05  # of a client, between two frames
TRADERS = 8
VISITORS = 4  # connected at a time, each as one of VISITING accounts
VISITING = 20
OPEN_ORDERS = 100  # limit of each account
DEAF_PAUSES = 40  # for which a slow reader reads nothing
RECENT = 100  # orders that a trader may try to amend or cancel
CHANNELS = ("book", "trades", "ticker")
TABLES = ("book", "trades", "candles", "leaderboard", "orders", "fills")
MARKET = f"""\
[instruments.BOND]
taker_fee = 1
[instruments.ETF]
reference_price = 100
collar = 50
band = 3
auction_s = 1
[account]
orders_per_s = 0
open_orders = {OPEN_ORDERS}
"""


def set_up(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Write what an exchange needs; return its settings and the tokens."""
    users = [
        *(f"bot{number}" for number in range(TRADERS)),
        *(f"visitor{number}" for number in range(VISITING)),
        ADMINISTRATOR,
    ]
    settings, tokens = prepare(folder, MARKET, users)
    journal = str(folder / "exchange.db")
    return settings | {"journal": journal, "max_per_account": "0"}, tokens


class Crowd:
    """All clients that load an exchange, until cancelled.

    ``answered`` counts their requests. Raises an ExceptionGroup if one of
    them is disconnected, or a request gets no reply.
    """

    def __init__(
        self,
        url: str,
        tokens: Mapping[str, str],
        seed: int,
        pause_s: float = PAUSE_S,
    ) -> None:
        self.answered = 0
        self._url = url
        self._tokens = tokens
        self._chance = random.Random(seed)
        self._pause_s = pause_s

    async def run(self) -> None:
        """Run all clients."""
        async with asyncio.TaskGroup() as group:
            for number in range(TRADERS):
                group.create_task(self._trade(f"bot{number}"))
            for _ in range(VISITORS):
                group.create_task(self._visit())
            group.create_task(self._read_slowly())
            group.create_task(self._look_up())
            group.create_task(self._administer())

    @contextlib.asynccontextmanager
    async def _connect(self, user: str, **more: Any) -> AsyncIterator[Wire]:
        token = self._tokens[user]
        async with wired(self._url, user, token=token, **more) as wire:
            yield wire

    async def _ask(self, wire: Wire, *requests: Message) -> None:
        """Send requests in one frame, and wait for all replies."""
        numbered = [{**r, "id": n} for n, r in enumerate(requests)]
        await wire.send(*numbered)
        waiting = set(range(len(requests)))
        async with asyncio.timeout(PATIENCE_S):
            while waiting:
                waiting.discard((await wire.receive()).get("id", -1))
        self.answered += len(requests)
        await asyncio.sleep(self._pause_s)

    def _some(self, requests: Requests, count: int) -> list[Message]:
        """Return requests of a trader; many name an order of another."""
        newest = RECENT + self.answered
        orders = [
            {"order_id": n + 1, "client_order_id": f"bot0-{n + 1}"}
            for n in range(newest)[-RECENT:]
        ]
        return [requests.choose(orders) for _ in range(count)]

    async def _trade(self, user: str) -> None:
        requests = Requests(user, self._chance)
        async with self._connect(user) as wire:
            await self._ask(wire, {"type": "subscribe", "channels": CHANNELS})
            while True:
                count = self._chance.randint(1, 10)
                await self._ask(wire, *self._some(requests, count))

    async def _visit(self) -> None:
        """Connect, trade and subscribe for a while, and leave, for ever."""
        chance = self._chance
        while True:
            user = f"visitor{chance.randrange(VISITING)}"
            requests = Requests(f"{user}-{self.answered}", chance)
            stays = {"cancel_on_disconnect": chance.random() < 0.5}
            async with self._connect(user, **stays) as wire:
                for _ in range(chance.randint(1, 5)):
                    some = {
                        "channels": [chance.choice(CHANNELS)],
                        "symbols": [chance.choice(SYMBOLS)],
                    }
                    await self._ask(wire, {"type": "subscribe", **some})
                    await self._ask(wire, *self._some(requests, 5))
                    await self._ask(wire, {"type": "unsubscribe", **some})
                if chance.random() < 0.3:
                    wire.connection.transport.abort()

    async def _read_slowly(self) -> None:
        """Subscribe to all channels and to a trader; read now and then."""
        while True:
            with contextlib.suppress(ConnectionClosed):
                async with self._connect("bot0") as wire:
                    follow = {"type": "subscribe", "channels": CHANNELS}
                    while True:
                        await self._ask(wire, follow)
                        wire.pause()
                        try:
                            await asyncio.sleep(DEAF_PAUSES * self._pause_s)
                        finally:
                            wire.resume()

    async def _look_up(self) -> None:
        async with self._connect("bot1") as wire:
            while True:
                table = {
                    "type": "get",
                    "what": self._chance.choice(TABLES),
                    "symbol": self._chance.choice(SYMBOLS),
                    "interval": self._chance.choice(("1s", "1m")),
                }
                await self._ask(wire, table)

    async def _administer(self) -> None:
        """Do what an administrator may do, and undo what stops trading."""
        requests = Requests(ADMINISTRATOR, self._chance)
        users = [f"bot{number}" for number in range(TRADERS)]
        admin = {"type": "admin", "reason": "soak"}
        undo = [
            {**admin, "action": "phase", "phase": "open"},
            *({**admin, "action": "resume", "user": user} for user in users),
        ]
        async with self._connect(ADMINISTRATOR) as wire:
            while True:
                await self._ask(
                    wire, requests.administer(users, self.answered)
                )
                await self._ask(wire, *undo)
