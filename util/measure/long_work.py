"""How long a client waits while the exchange does long work for others.

Some accounts fill the book of BOND and leave. Then all of it uncrosses, or
expires, at one instant; or one trade elects all stop orders to buy, each of
which trades. Meanwhile a client places and cancels an order of ETF, one
request after the other. What it waited most is the figure.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from orderbook import MAX_FRAME
from util.measure.drive import Figures
from util.measure.process import Launched, launched, prepare
from util.measure.wire import Wire, order, wired

Work: TypeAlias = Literal["uncrossing", "expiry", "cascade"]

MARKET = """\
[instruments.BOND]
phase = "auction"
[instruments.ETF]
[account]
open_orders = 0
orders_per_s = 0
"""
TRADERS = 20
MID = 1_000
SPREAD = 50  # ticks on each side of MID
LASTS_S = 4.0  # longer than the work
OPEN = {
    "type": "admin",
    "action": "phase",
    "symbol": "BOND",
    "phase": "open",
    "reason": "measured",
}
# From the first order until all expire; the orders must be there by then.
US_PER_ORDER = 600


def held(
    work: Work, orders: int, folder: str, program: Sequence[str]
) -> Figures:
    """Measure the longest wait in a server of a checkout."""
    with tempfile.TemporaryDirectory() as elsewhere:
        users = [f"trader{number}" for number in range(TRADERS)]
        settings, tokens = prepare(
            Path(elsewhere), MARKET, [*users, "client", "boss"]
        )
        with launched(
            *program, folder=folder, journal="off", **settings
        ) as server:
            waited_s = asyncio.run(_measure(server, work, orders, tokens))
    return {"ms of longest wait": 1e3 * waited_s}


async def _measure(
    server: Launched, work: Work, orders: int, tokens: dict[str, str]
) -> float:
    due_s = time.time() + orders * US_PER_ORDER / 1e6
    more: dict[str, Any] = {}
    if work == "expiry":
        more = {"time_in_force": "gtd", "expire_ts": round(due_s * 1e6)}
    make: Callable[[str], dict[str, Any]]
    make = partial(_crossing, random.Random(1), more)
    if work == "cascade":
        make = _electing
    for number in range(TRADERS):
        name = f"trader{number}"
        side = "buy" if number % 2 else "sell"
        async with _joined(server, name, tokens, keep=True) as trader:
            for _ in range(orders // TRADERS // MAX_FRAME):
                await trader.send(*[make(side) for _ in range(MAX_FRAME)])
                await trader.take(MAX_FRAME)
    async with (
        _joined(server, "client", tokens) as client,
        _joined(server, "boss", tokens) as boss,
    ):
        if work == "expiry":
            assert time.time() < due_s, "the orders came too late"
            await asyncio.sleep(due_s - time.time() - 0.5)
        if work == "cascade":
            await boss.ask(**OPEN)
        probe = asyncio.create_task(_longest_wait(client))
        await asyncio.sleep(0.2)
        if work == "uncrossing":
            await boss.send(OPEN)
        elif work == "cascade":
            await boss.send(order("buy", 1, MID, symbol="BOND"))
        return await probe


def _crossing(
    dice: random.Random, more: dict[str, Any], side: str
) -> dict[str, Any]:
    """Return an order that may cross those of the other side."""
    price = MID + dice.randint(-SPREAD, SPREAD)
    return order(side, dice.randint(1, 9), price, symbol="BOND", **more)


def _electing(side: str) -> dict[str, Any]:
    """Return a stop order to buy, or an order to sell that it meets."""
    if side == "sell":
        return order("sell", 1, MID, symbol="BOND")
    stop = order("buy", 1, MID, symbol="BOND")
    return {**stop, "order_type": "stop_limit", "trigger_price": MID}


@contextlib.asynccontextmanager
async def _joined(
    server: Launched, name: str, tokens: dict[str, str], keep: bool = False
) -> AsyncIterator[Wire]:
    async with wired(
        server.url,
        name,
        token=tokens[name],
        cancel_on_disconnect=not keep,
    ) as wire:
        yield wire


async def _longest_wait(client: Wire) -> float:
    """Place and cancel until the work is over; return the longest wait."""
    worst, end = 0.0, time.perf_counter() + LASTS_S
    place = order("buy", 1, 1, symbol="ETF", client_order_id="probe")
    number = 0
    while (sent := time.perf_counter()) < end:
        number += 1
        name = f"probe{number // 2}"
        if number % 2:
            await client.send({"type": "cancel", "client_order_id": name})
        else:
            await client.send({**place, "client_order_id": name})
        while (await client.receive())["type"] not in ("exec", "error"):
            pass  # a status, a heartbeat
        worst = max(worst, time.perf_counter() - sent)
    return worst
