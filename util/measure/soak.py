"""Run the exchange for hours, as a day with many bots does, and weigh it.

``python -m util.measure.soak SECONDS SEED`` runs an exchange with a journal in
a process of its own, and loads it steadily: orders of every kind, clients that
come and go and follow this and that, slow readers, tables, and an
administrator. (An hour writes some 500 MB of journal, into a temporary
folder.) From time to time the exchange counts what it remembers, its objects,
open files and tasks, and weighs its memory.

It fails if

- anything that has a bound is above it;
- from the end of the first quarter to the end of the run the memory grew by
  more than BYTES_EACH for each entry that bounded histories gained, and 5 %
  and 16 MiB; or the objects by more than OBJECTS_EACH, and 5 % and 10,000;
- more files are open, or more tasks run, in the end than at any time in the
  first quarter, by more than VISITORS, who come and go;
- the exchange complains, ends, or leaves a request without an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed

from exchange.gateway import feed
from exchange.host.process import GC_THRESHOLDS
from exchange.host.settings import Settings
from exchange.journal import history
from exchange.market import accounts
from orderbook import MAX_FRAME
from server import Server
from util.measure.process import MIB, Launched, add_key, launched, resident
from util.measure.wire import PATIENCE_S, Wire, order, wired

# An order with its name and its place in the tables, or a fill: some 320
# bytes, and an object.
BYTES_EACH = 500
OBJECTS_EACH = 2
SAMPLES = 200  # at most
SAMPLE_S = 5.0  # at least, between two of them
PAUSE_S = 0.05  # of a bot, between two frames
TRADERS = 8
VISITORS = 4  # at a time, of so many accounts:
VISITING = 20
OPEN_ORDERS = 100  # of each account
DEAF_PAUSES = 40  # for which a slow reader reads nothing
SYMBOLS = ("BOND", "ETF")
PRICES = range(90, 111)
MARKET = f"""\
[instruments.BOND]
taker_fee = 1
[instruments.ETF]
reference_price = 100
collar = 50
band = 20
auction_s = 1
[account]
orders_per_s = 0
open_orders = {OPEN_ORDERS}
"""
CHANNELS = ("book", "trades", "ticker")
TABLES = ("book", "trades", "candles", "leaderboard", "orders", "fills")

Message = dict[str, Any]
Tokens = dict[str, str]


def prepare(folder: Path) -> Tokens:
    """Write what an exchange needs; return the tokens of its accounts."""
    (folder / "market.toml").write_text(MARKET)
    users = [
        *(f"bot{number}" for number in range(TRADERS)),
        *(f"visitor{number}" for number in range(VISITING)),
        "boss",
    ]
    keys = folder / "keys.json"
    return {user: add_key(keys, user, user == "boss") for user in users}


def settings(folder: Path) -> dict[str, Any]:
    """Return the settings of an exchange that was prepared."""
    return {
        "market": folder / "market.toml",
        "keys": folder / "keys.json",
        "journal": folder / "exchange.db",
        "max_per_account": 0,
    }


# What it holds --------------------------------------------------------------


def census(server: Server) -> dict[str, tuple[int, int]]:
    """Return of each thing that is remembered how many, and the most."""
    gateway = server.gateway
    engine, past, public = gateway.engine, gateway.history, gateway.feed
    owners = engine.accounts.values()
    count, symbols = len(owners), len(engine.listings)
    pasts = past._accounts.values()
    candles = past._candles.values()
    streams = public._streams.values()
    connections = len(server.listener.connections)
    return {
        "finished orders": (
            sum(len(owner.finished) for owner in owners),
            count * accounts.ORDERS_REMEMBERED,
        ),
        "open orders": (
            sum(len(owner.open_orders) for owner in owners),
            count * OPEN_ORDERS,
        ),
        "fills": (
            sum(len(one.fills) for one in pasts),
            count * history.FILLS_KEPT,
        ),
        "private events": (
            sum(one.kept for one in pasts),
            count * (history.RESUME_EVENTS + 2 * history.JOINED + MAX_FRAME),
        ),
        "trades": (
            sum(map(len, past._trades.values())),
            symbols * history.TRADES_KEPT,
        ),
        "candles": (
            sum(len(kept) for one in candles for kept in one._kept.values()),
            symbols * len(history.INTERVALS) * history.CANDLES_KEPT,
        ),
        "updates of books": (
            sum(len(stream.past) for stream in streams),
            symbols * feed.UPDATES_KEPT,
        ),
        "sessions": (
            sum(len(owner.sessions) for owner in owners),
            count * accounts.SESSIONS_REMEMBERED + connections,
        ),
        "deadlines": (len(engine.deadlines), engine.deadlines_max),
        "accounts": (count, TRADERS + VISITING + 2),  # boss and the house
        "followers": (len(public._follows), connections),
        "connected": (len(gateway.links), connections),
    }


@dataclass(slots=True)
class Sample:
    """What an exchange takes at one moment."""

    entries: int  # in bounded histories
    memory: int  # bytes
    objects: int
    files: int
    tasks: int
    beyond: list[str]  # what is above its bound

    @classmethod
    def of(cls, server: Server) -> Sample:
        """Look at this process."""
        counts = census(server)
        return cls(
            sum(count for count, _ in counts.values()),
            resident(os.getpid()) or 0,
            len(gc.get_objects()),
            len(os.listdir("/proc/self/fd")),
            len(asyncio.all_tasks()),
            [
                f"{name}: {count}, of at most {most}"
                for name, (count, most) in counts.items()
                if count > most
            ],
        )


def judge(samples: list[Sample]) -> list[str]:
    """Return what is wrong with a run: see the rule above."""
    wrong = sorted({line for sample in samples for line in sample.beyond})
    early = samples[: max(1, len(samples) // 4)]
    before, after = early[-1], samples[-1]
    gained = max(0, after.entries - before.entries)
    for what, grown, allowed in (
        (
            "bytes",
            after.memory - before.memory,
            gained * BYTES_EACH + before.memory // 20 + 16 * MIB,
        ),
        (
            "objects",
            after.objects - before.objects,
            gained * OBJECTS_EACH + before.objects // 20 + 10_000,
        ),
        (
            "open files",
            after.files,
            max(sample.files for sample in early) + VISITORS,
        ),
        (
            "tasks",
            after.tasks,
            max(sample.tasks for sample in early) + VISITORS,
        ),
    ):
        if grown > allowed:
            wrong.append(f"{grown:,} {what}, and {allowed:,} are allowed")
    return wrong


async def host(folder: Path) -> None:
    """Run an exchange; each line read is answered with a sample."""
    gc.set_threshold(*GC_THRESHOLDS)
    server = Server(
        Settings(hostname="127.0.0.1", port=0, debug=False, **settings(folder))
    )
    await server.start()
    gc.freeze()
    print(server.url, flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(asdict(Sample.of(server))), flush=True)
    await server.stop()
    assert server.listener.errors == 0
    if server.failure.done():
        raise server.failure.result()


# The load -------------------------------------------------------------------


class Crowd:
    """All who load an exchange, until cancelled.

    ``answered`` counts their requests. Raises an ExceptionGroup if one of
    them is cut off, or gets no answer.
    """

    def __init__(
        self, url: str, tokens: Tokens, seed: int, pause_s: float = PAUSE_S
    ) -> None:
        self.answered = 0
        self._url = url
        self._tokens = tokens
        self._chance = random.Random(seed)
        self._pause_s = pause_s

    async def run(self) -> None:
        """Live."""
        async with asyncio.TaskGroup() as group:
            for number in range(TRADERS):
                group.create_task(self._trade(f"bot{number}"))
            for _ in range(VISITORS):
                group.create_task(self._visit())
            group.create_task(self._read_slowly())
            group.create_task(self._look_up())
            group.create_task(self._rule())

    @contextlib.asynccontextmanager
    async def _join(self, user: str, **more: Any) -> AsyncIterator[Wire]:
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

    def _request(self, user: str) -> Message:
        """Return what a trader may want; some of it will be refused."""
        chance = self._chance
        draw = chance.random()
        name = f"{user}-{chance.randrange(10**9)}"
        side = chance.choice(("buy", "sell"))
        place = order(side, chance.randint(1, 20), chance.choice(PRICES))
        place |= {"symbol": chance.choice(SYMBOLS), "client_order_id": name}
        if draw < 0.5:
            return place
        if draw < 0.6:
            tif = chance.choice(("ioc", "fok"))
            return {**place, "time_in_force": tif}
        if draw < 0.7:
            end = time.time_ns() // 1_000 + chance.randint(1_000, 2_000_000)
            return {**place, "time_in_force": "gtd", "expire_ts": end}
        if draw < 0.75:
            return {"type": "cancel_after", "timeout_ms": 60_000}
        if draw < 0.8:
            return {"type": "cancel_all", "side": side}
        recent = {"order_id": chance.randint(1, 100 + self.answered)}
        if draw < 0.9:
            return {"type": "amend", **recent, "qty": chance.randint(1, 20)}
        return {"type": "cancel", **recent}

    async def _trade(self, user: str) -> None:
        async with self._join(user) as wire:
            await self._ask(wire, {"type": "subscribe", "channels": CHANNELS})
            while True:
                count = self._chance.randint(1, 10)
                requests = [self._request(user) for _ in range(count)]
                await self._ask(wire, *requests)

    async def _visit(self) -> None:
        """Come as somebody, trade and look around, and go, for ever."""
        chance = self._chance
        while True:
            user = f"visitor{chance.randrange(VISITING)}"
            stays = {"cancel_on_disconnect": chance.random() < 0.5}
            async with self._join(user, **stays) as wire:
                for _ in range(chance.randint(1, 5)):
                    symbols = [chance.choice(SYMBOLS)]
                    some = {
                        "channels": [chance.choice(CHANNELS)],
                        "symbols": symbols,
                    }
                    await self._ask(wire, {"type": "subscribe", **some})
                    requests = [self._request(user) for _ in range(5)]
                    await self._ask(wire, *requests)
                    await self._ask(wire, {"type": "unsubscribe", **some})
                if chance.random() < 0.3:
                    wire.connection.transport.abort()

    async def _read_slowly(self) -> None:
        """Follow everything, and all that a trader does; read now and then."""
        while True:
            with contextlib.suppress(ConnectionClosed):
                async with self._join("bot0") as wire:
                    follow = {"type": "subscribe", "channels": CHANNELS}
                    while True:
                        await self._ask(wire, follow)
                        wire.pause()
                        try:
                            await asyncio.sleep(DEAF_PAUSES * self._pause_s)
                        finally:
                            wire.resume()

    async def _look_up(self) -> None:
        async with self._join("bot1") as wire:
            while True:
                table = {
                    "type": "get",
                    "what": self._chance.choice(TABLES),
                    "symbol": self._chance.choice(SYMBOLS),
                    "interval": self._chance.choice(("1s", "1m")),
                }
                await self._ask(wire, table)

    async def _rule(self) -> None:
        """Do what an administrator may do, now and then."""
        chance = self._chance
        async with self._join("boss") as wire:
            while True:
                user = {"user": f"bot{chance.randrange(TRADERS)}"}
                symbol = {"symbol": chance.choice(SYMBOLS)}
                actions: list[Message] = [
                    {"action": "phase", "phase": "halted", **symbol},
                    {"action": "phase", "phase": "auction", **symbol},
                    {"action": "kill", **user},
                    {"action": "adjust", "cash": 5, **user},
                    {"action": "adjust", "qty": 5, **symbol, **user},
                    {"action": "message", "message": "hello"},
                    {"action": "reset"},
                ]
                mended: list[Message] = [
                    {"action": "phase", "phase": "open"},
                    {"action": "unkill", **user},
                ]
                for action in (chance.choice(actions), *mended):
                    admin = {"type": "admin", "reason": "soak", **action}
                    await self._ask(wire, admin)


# The run --------------------------------------------------------------------


async def soak(seconds: float, seed: int) -> list[str]:
    """Load an exchange for so long; return what was wrong with it."""
    with tempfile.TemporaryDirectory() as folder:
        tokens = prepare(Path(folder))
        program = ("-m", "util.measure.soak", "--host", folder)
        with launched(*program) as server:
            crowd = Crowd(server.url, tokens, seed)
            loading = asyncio.ensure_future(crowd.run())
            samples = []
            start = time.monotonic()
            while time.monotonic() < start + seconds:
                await asyncio.wait(
                    [loading], timeout=max(SAMPLE_S, seconds / SAMPLES)
                )
                if loading.done():
                    loading.result()
                samples.append(await sample(server))
                tell(time.monotonic() - start, crowd.answered, samples[-1])
            loading.cancel()
            await asyncio.wait([loading])
            status, errors = await server.ended()
    wrong = judge(samples)
    if status or errors:
        wrong.append(f"ended with {status}: {errors}")
    return wrong


async def sample(server: Launched) -> Sample:
    """Ask an exchange what it takes."""
    async with asyncio.timeout(PATIENCE_S):
        return Sample(**json.loads(await server.ask("")))


def tell(elapsed_s: float, requests: int, now: Sample) -> None:
    """Print a sample."""
    print(
        f"{elapsed_s:7.0f} s {requests:12,} requests"
        f" {now.memory / MIB:7.1f} MiB {now.objects:10,} objects"
        f" {now.entries:10,} entries {now.files:4} files {now.tasks:3} tasks",
        flush=True,
    )


def main() -> int:
    """Run ``python -m util.measure.soak SECONDS SEED``."""
    if sys.argv[1] == "--host":
        asyncio.run(host(Path(sys.argv[2])))
        return 0
    seconds, seed = float(sys.argv[1]), int(sys.argv[2])
    print(f"{seconds:g} s, seed {seed}", flush=True)
    wrong = asyncio.run(soak(seconds, seed))
    print("\n".join(wrong) or "no growth that is not explained")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
