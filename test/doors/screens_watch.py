"""Scenes of the page for who watches: the wall, a crowd, a replay."""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from playwright.async_api import expect

from exchange.host.keyring import KeyRing
from server import Server
from test.doors.browsing import admin, sign_in
from test.doors.screens_market import (
    MARKET,
    SOME,
    Photographer,
    market,
    trade_much,
)
from test.doors.screens_trade import FEW_TRADES, home
from test.support import Wire, add_key, order, serving, wired
from test.util.test_playback import SPACING
from util.playback.recording import Recording
from util.playback.server import Playback, Show
from util.playback.view import Rights

HALL = (10, 200)  # teams
SECONDS = 8  # of trades, for the curves
TRADES = 6  # in half a second
MINUTES = 60_000  # ms
LONG = "the-long-name-of-a-team-of-32-ch"  # longer ones are refused
STRIP = {"SHARE": 5_000, "BOND": 10_000, "FUND": 20_000, "RAIN": 40}


def names(count: int) -> list[str]:
    """Return names of teams; the first has as many letters as may be."""
    return [LONG, *(f"team-{n:03}" for n in range(2, count + 1))][:count]


async def quote(maker: Wire) -> None:
    """Let everybody trade at any time."""
    for symbol, middle in STRIP.items():
        for away in range(1, 10):
            about = {"symbol": symbol}
            await maker.ask(**order("buy", 900, middle - away, **about))
            await maker.ask(**order("sell", 900, middle + away, **about))


async def first_trades(url: str, teams: list[str]) -> None:
    """Let each team trade once, so that it is ranked."""
    for n, team in enumerate(teams):
        async with wired(url, team) as wire:
            side, price = ("buy", 5_009) if n % 2 else ("sell", 4_991)
            await wire.ask(**order(side, 1 + n % 7, price, symbol="SHARE"))


async def some_seconds(
    camera: Photographer, url: str, teams: list[str]
) -> None:
    """Let ten teams trade while the wall draws their curves."""
    dice = random.Random(3)
    async with contextlib.AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(wired(url, team))
            for team in teams[:10]
        ]
        for _ in range(2 * SECONDS):
            for _ in range(TRADES):
                symbol = dice.choice(list(STRIP))
                side, sign = dice.choice([("buy", 1), ("sell", -1)])
                price = STRIP[symbol] + 9 * sign
                await dice.choice(wires).ask(
                    **order(side, dice.randrange(1, 90), price, symbol=symbol)
                )
            await camera.page.wait_for_timeout(500)


@contextlib.asynccontextmanager
async def hall(folder: Path) -> AsyncIterator[tuple[Server, Wire, Wire]]:
    """Serve a market without keys but for its administrator and maker."""
    path, keys = folder / "market.toml", folder / "keys.json"
    path.write_text(MARKET)
    boss_key = add_key(keys, "boss", is_admin=True)
    maker_key = add_key(keys, "maker", role="house")
    async with serving(market=path, keys=keys, open=True) as server:
        async with (
            wired(server.url, "boss", token=boss_key) as boss,
            wired(server.url, "maker", token=maker_key) as maker,
        ):
            yield server, boss, maker


async def begin(boss: Wire, maker: Wire) -> None:
    """Begin a round with a clock, quotes and news."""
    why = {"reason": "the next round"}
    await admin(boss, "match", name="Delft Open 2026", round="2 of 5", **why)
    await admin(boss, "phase", phase="open", close_ms=10 * MINUTES, **why)
    await quote(maker)
    await admin(boss, "news", headline="Rain is likely", symbol="RAIN")
    await admin(
        boss,
        "news",
        headline="SHARE earns more than anybody expected it to, and says so"
        " in a long headline",
    )


async def walls(camera: Photographer) -> None:
    """The wall: without and with few teams, closed, disconnected."""
    page = camera.page
    with tempfile.TemporaryDirectory() as folder:
        async with hall(Path(folder)) as (server, boss, maker):
            await page.goto(home(server.url, "wall"))
            await camera.take("wall-0")
            await begin(boss, maker)
            await first_trades(server.url, names(1))
            await page.wait_for_timeout(3_000)
            await camera.take("wall-1")
            await admin(boss, "phase", phase="halted", symbol="RAIN")
            await admin(boss, "phase", phase="open", close_ms=50_000)
            await admin(boss, "phase", phase="halted", symbol="BOND")
            await camera.take("wall-soon", 390, 1920)
            await admin(boss, "phase", phase="closed")
            await camera.take("wall-closed", 390, 1920)
        await page.wait_for_timeout(1_000)
        await camera.take("wall-disconnected", 390, 1920)


async def a_crowd(camera: Photographer) -> None:
    """Ten and two hundred teams, on the wall and on the page."""
    page = camera.page
    for count in HALL:
        with tempfile.TemporaryDirectory() as folder:
            async with hall(Path(folder)) as (server, boss, maker):
                teams = names(count)
                await page.goto(home(server.url, "wall"))
                await begin(boss, maker)
                await first_trades(server.url, teams)
                await some_seconds(camera, server.url, teams)
                await camera.take(f"wall-{count}")
    await leaders(camera)


async def leaders(camera: Photographer) -> None:
    """The leaderboard of 200 accounts; one's own row is far below."""
    page = camera.page
    with tempfile.TemporaryDirectory() as folder:
        async with hall(Path(folder)) as (server, boss, maker):
            teams = names(HALL[-1])
            await begin(boss, maker)
            await first_trades(server.url, teams)
            await page.goto(home(server.url, "SHARE"))
            await sign_in(page, teams[-1], "")
            await expect(page.locator("#leaderboard .us")).to_be_attached()
            await camera.take("leaders", show="#leaders")


async def record(path: Path, folder: Path) -> dict[str, str]:
    """Record a short round; return its keys."""
    async with market(folder, journal=path) as (_, tokens, wires):
        await trade_much(wires, FEW_TRADES)
        cup = {"name": "Cup", "round": "2 of 3", "reason": "the next round"}
        await admin(wires["boss"], "match", **cup)
        await admin(
            wires["boss"], "news", headline="SHARE earns more than expected"
        )
        await trade_much(wires, FEW_TRADES)
        await admin(wires["boss"], "phase", symbol="BOND", phase="halted")
        return tokens


async def a_replay(camera: Photographer) -> None:
    """A recording: at its start, then with all choices, and its wall."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "round.db"
        await record(path, Path(folder))
        rights = Rights(
            keys=KeyRing(Path(folder) / "keys.json"), is_published=True
        )
        with contextlib.closing(
            Recording(path, is_quiet=True, spacing=SPACING)
        ) as recording:
            start = recording.start_ts
            playback = Playback(
                Show(
                    recording=recording,
                    title="Cup/02",
                    rights=rights,
                    fair=lambda symbol, until: [
                        (ts, STRIP[symbol] + (ts // 700_000) % 7)
                        for ts in range(start, until, 1_000_000)
                    ],
                )
            )
            await playback.start("127.0.0.1", 0)
            try:
                await see(camera, home(playback.url, "SHARE"))
            finally:
                await playback.stop()


async def see(camera: Photographer, address: str) -> None:
    page = camera.page
    await page.goto(address)
    await expect(page.locator("#connection")).to_have_text("● Replay")
    await camera.take("replay-start", *SOME)
    await page.locator("#replay-time").focus()
    await page.keyboard.press("End")
    await sign_in(page, "team-1", "")
    await camera.click("#replay [data-step=fill][data-back]")
    await camera.click("#replay-names")
    await camera.click("#replay-fair")
    await page.wait_for_timeout(2_000)  # until both have come
    await camera.take("replay")
    await page.locator("#replay-time").focus()
    await page.keyboard.press("End")
    await page.evaluate("location.hash = 'wall'")
    await camera.take("replay-wall", 390, 1920)
