"""A short soak in this process: bounded histories fill up and stay full."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from exchange.gateway import feed
from exchange.journal import candles, history
from exchange.market import accounts, state
from orderbook import INTERVALS
from server import Server
from test.support import PATIENCE_S, serving
from util.measure import crowd as crowds
from util.measure.crowd import TRADERS, Crowd, set_up
from util.measure.process import MIB
from util.measure.requests import ACTIONS
from util.measure.soak import Sample, census, judge

SEED = 3
SMALL = {
    (accounts, "ORDERS_REMEMBERED"): 30,
    (accounts, "SESSIONS_REMEMBERED"): 2,
    (state, "DEADLINES_MIN"): 10,
    (feed, "UPDATES_KEPT"): 20,
    (history, "TRADES_KEPT"): 50,
    (candles, "CANDLES_KEPT"): 5,
    (history, "FILLS_KEPT"): 10,
    (history, "RESUME_EVENTS"): 20,
    (crowds, "VISITING"): 3,
}
MORE = 3_000  # requests after all is full


def fullness(server: Server) -> list[tuple[int, int]]:
    """Return how full all is that traders fill, and how full it can be."""
    gateway = server.gateway
    past, public = gateway.history, gateway.feed
    bots = [f"bot{number}" for number in range(TRADERS)]
    owners = [gateway.engine.accounts.get(bot) for bot in bots]
    finished = [len(owner.finished) if owner else 0 for owner in owners]
    pasts = [past._accounts[bot] for bot in bots]
    symbols = list(gateway.engine.listings)
    seconds = [past._candles[symbol]._kept["1s"] for symbol in symbols]
    states = [public._state(symbol) for symbol in symbols]
    return [
        (min(finished), accounts.ORDERS_REMEMBERED),
        (min(len(one.fills) for one in pasts), history.FILLS_KEPT),
        (
            min(history.RESUME_EVENTS, *(one.kept for one in pasts)),
            history.RESUME_EVENTS,
        ),
        (min(map(len, past._trades.values()), default=0), history.TRADES_KEPT),
        (min(map(len, seconds)), candles.CANDLES_KEPT),
        (min(len(state.updates) for state in states), feed.UPDATES_KEPT),
    ]


async def test_bounded_histories_fill_up_and_stay_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for (module, name), value in SMALL.items():
        monkeypatch.setattr(module, name, value)
    for number, interval in enumerate(INTERVALS, start=1):
        monkeypatch.setitem(INTERVALS, interval, 1_000 * number)
    # The next round begins with no trades and no candles.
    monkeypatch.setitem(ACTIONS, "reset", 0)
    settings, tokens = set_up(tmp_path)
    async with serving(**settings) as server:
        crowd = Crowd(server.url, tokens, SEED, pause_s=0)
        loading = asyncio.ensure_future(crowd.run())

        async def look() -> bool:
            """Whether all is full, and nothing fuller than that."""
            await asyncio.sleep(0)
            if loading.done():
                loading.result()
            for name, (count, most) in census(server).items():
                assert count <= most, name
            return all(count == most for count, most in fullness(server))

        async with asyncio.timeout(3 * PATIENCE_S):
            while not await look():
                pass
            end = crowd.answered + MORE
            while crowd.answered < end:
                assert await look()
        loading.cancel()
        await asyncio.wait([loading])
        assert Sample.of(server).beyond == []


STEADY = Sample(1_000, 100 * MIB, 100_000, 20, 5, [])


@pytest.mark.parametrize(
    "last, complaint",
    [
        (STEADY, None),
        (replace(STEADY, memory=120 * MIB), None),
        (replace(STEADY, memory=122 * MIB), "bytes"),
        (replace(STEADY, memory=150 * MIB, entries=101_000), None),
        (replace(STEADY, memory=170 * MIB, entries=101_000), "bytes"),
        (replace(STEADY, objects=114_000), None),
        (replace(STEADY, objects=116_000), "objects"),
        (replace(STEADY, objects=300_000, entries=101_000), None),
        (replace(STEADY, files=25), "open files"),
        (replace(STEADY, tasks=10), "tasks"),
        (replace(STEADY, beyond=["fills: 6, of at most 5"]), "fills"),
    ],
)
def test_growth_must_be_explained(last: Sample, complaint: str | None) -> None:
    wrong = judge([STEADY] * 7 + [last])
    assert len(wrong) == (complaint is not None)
    assert complaint is None or complaint in wrong[0]
