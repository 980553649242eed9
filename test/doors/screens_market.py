"""A market worth a picture, and who takes pictures of its page."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from playwright.async_api import Page

from server import Server
from test.support import Wire, add_key, order, serving, wired

VIEWS = {390: 844, 1280: 720, 1920: 1080, 3840: 2160}
SOME = (390, 1280)
WIDE: Any = {"width": 1920, "height": 1080}
TRADES = 400
USERS = ("me", "maker", "taker", "boss", *(f"team-{n}" for n in range(1, 9)))
CALL = """
[instruments.{kind}-{strike}]
kind = "{word}"
underlying = "SHARE"
strike = {strike}00
expires = "round"
tick_size = "0.01"
min_price = 0
reference_price = 120
"""
MARKET = """
[money]
unit = "0.01"
currency = "USD"
[instruments.SHARE]
tick_size = "0.01"
reference_price = 5000
[instruments.BOND]
tick_size = "0.01"
reference_price = 10000
[instruments.FUND]
tick_size = "0.01"
reference_price = 20000
[instruments.FUND.convert]
lot = 5
fee = 10
basket = { BOND = 1, SHARE = 2 }
[instruments.RAIN]
kind = "binary"
pays = 100
question = "Does it rain on Friday?"
tick_size = "0.01"
min_price = 0
max_price = 100
reference_price = 40
""" + "".join(
    CALL.format(kind=kind, word=word, strike=strike)
    for strike in (49, 50, 51)
    for kind, word in (("C", "call"), ("P", "put"))
)
MIDDLES = {"SHARE": 5_000, "BOND": 10_000, "FUND": 20_000, "RAIN": 40}


async def trade_much(wires: dict[str, Wire], trades: int = TRADES) -> None:
    """Make a market: trades that wander, and books around the last price."""
    dice = random.Random(7)
    prices = dict(MIDDLES)
    for n in range(trades):
        symbol = dice.choice(["SHARE", "SHARE", "BOND", "RAIN"])
        prices[symbol] += dice.choice([-2, -1, -1, 0, 1, 1, 2])
        one, other = dice.sample([w for w in wires if w[0] == "t"], 2)
        about = {"symbol": symbol}
        qty, price = dice.randrange(1, 9), prices[symbol]
        sides = dice.choice([("sell", "buy"), ("buy", "sell")])
        await wires[one].ask(**order(sides[0], qty, price, **about))
        await wires[other].ask(**order(sides[1], qty, price, **about))
        if not n % 20:
            await asyncio.sleep(0.25)  # bars of several seconds
    for name, wire in wires.items():
        if name[0] == "t":
            await wire.ask(type="cancel_all")
    maker = wires["maker"]
    for symbol in [
        *MIDDLES,
        *(f"{k}-{s}" for s in (49, 50, 51) for k in "CP"),
    ]:
        middle = prices.get(symbol, 120)
        for n in range(9):
            about, lots = {"symbol": symbol}, dice.randrange(1, 40)
            away = 1 + n + n // 3
            await maker.ask(**order("buy", lots, middle - away, **about))
            await maker.ask(**order("sell", lots, middle + away, **about))


@contextlib.asynccontextmanager
async def market(
    folder: Path, **settings: Any
) -> AsyncIterator[tuple[Server, dict[str, str], dict[str, Wire]]]:
    """Serve a market with trades; yield it with keys and connections."""
    path, keys = folder / "market.toml", folder / "keys.json"
    path.write_text(MARKET)
    tokens = {user: add_key(keys, user, user == "boss") for user in USERS}
    async with (
        serving(market=path, keys=keys, **settings) as server,
        contextlib.AsyncExitStack() as stack,
    ):
        wires = {
            user: await stack.enter_async_context(
                wired(server.url, user, token=token)
            )
            for user, token in tokens.items()
            if user != "me"
        }
        yield server, tokens, wires


class Photographer:
    """Takes pictures of one page in all widths; names tell the state."""

    def __init__(self, folder: Path, page: Page, theme: str) -> None:
        self.folder = folder
        self.page = page
        self.theme = theme

    async def take(self, state: str, *widths: int, show: str = "") -> None:
        """Take pictures; on a page that scrolls, of the part ``show``."""
        for width in widths or VIEWS:
            await self.resize(width)
            await self.page.wait_for_timeout(300)  # until all is drawn
            if show:
                await self.page.eval_on_selector(
                    show, "(node) => node.scrollIntoView()"
                )
            await self.page.wait_for_timeout(100)
            name = f"{state}-{width}-{self.theme}.png"
            await self.page.screenshot(path=self.folder / name)

    async def resize(self, width: int) -> None:
        size: Any = {"width": width, "height": VIEWS[width]}
        await self.page.set_viewport_size(size)

    async def click(self, selector: str) -> None:
        """Click what may be out of sight at this width."""
        await self.page.eval_on_selector(selector, "(node) => node.click()")
