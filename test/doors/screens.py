"""Make pictures of every state of the page, to be looked at.

    python -m test.doors.screens [FOLDER]

Each state in both themes and four widths; the default FOLDER is screens/,
which git ignores. The README shows trade-1280-dark.png and trade-390-dark.png,
as docs/page-dark.png and docs/page-phone.png.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, expect

from server import Server
from test.doors.browsing import admin, browsing, sign_in
from test.support import ROOT, Wire, add_key, order, serving, wired

VIEWS = {390: 844, 1280: 720, 1920: 1080, 3840: 2160}
THEMES = ("light", "dark")
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


async def trade_much(wires: dict[str, Wire]) -> None:
    """Make a market: trades that wander, and books around the last price."""
    dice = random.Random(7)
    prices = dict(MIDDLES)
    for n in range(TRADES):
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
    folder: Path,
) -> AsyncIterator[tuple[Server, dict[str, str], dict[str, Wire]]]:
    """Serve a market with trades; yield it with keys and connections."""
    path, keys = folder / "market.toml", folder / "keys.json"
    path.write_text(MARKET)
    tokens = {user: add_key(keys, user, user == "boss") for user in USERS}
    async with (
        serving(market=path, keys=keys) as server,
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

    async def take(self, state: str, *widths: int) -> None:
        for width in widths or VIEWS:
            size: Any = {"width": width, "height": VIEWS[width]}
            await self.page.set_viewport_size(size)
            await self.page.wait_for_timeout(300)  # until all is drawn
            name = f"{state}-{width}-{self.theme}.png"
            await self.page.screenshot(path=self.folder / name)

    async def click(self, selector: str) -> None:
        """Click what may be out of sight at this width."""
        await self.page.eval_on_selector(selector, "(node) => node.click()")


async def trade_a_little(page: Page) -> None:
    """Leave a position, fills and open orders."""
    await page.fill("#ticket-qty", "12")
    await page.click("#ticket-form [type=submit]")
    await expect(page.locator("#position")).to_contain_text("SHARE +12")
    for qty, ticks in ((5, -3), (20, -6)):
        await page.fill("#ticket-qty", str(qty))
        for _ in range(-ticks):
            await page.click("[aria-label='One tick lower']")
        await page.click("#ticket-form [type=submit]")
    await expect(page.locator("#orders tr")).to_have_count(2)


async def photograph(folder: Path, browser: Browser, theme: Any) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        async with market(Path(temporary)) as (server, tokens, wires):
            boss = wires["boss"]
            wide: Any = {"width": 1920, "height": 1080}
            page = await browser.new_page(viewport=wide, color_scheme=theme)
            camera = Photographer(folder, page, theme)
            await page.goto(server.url.replace("ws", "http", 1) + "/#FUND")
            await camera.take("empty")
            await trade_much(wires)
            await page.goto(server.url.replace("ws", "http", 1) + "/#SHARE")
            await camera.take("visitor")
            await camera.click("#sign-in")
            await camera.take("sign-in")
            await page.set_viewport_size(wide)
            await camera.click("#sign-in-dialog [value=close]")
            await sign_in(page, "me", tokens["me"])
            await trade_a_little(page)
            offered = {"symbol": "SHARE", "side": "sell", "price": 4_995}
            await admin(
                boss,
                "tender",
                tender_id="block-1",
                qty=50,
                valid_ms=3_600_000,
                **offered,
            )
            await admin(
                boss, "news", headline="SHARE earns more than expected"
            )
            await page.set_viewport_size(wide)
            await camera.click("[name=mode][value=trades]")
            await camera.take("trade")
            await camera.click("[name=mode][value='1s']")
            await camera.click("#quick-buy")
            await camera.take("ticket", 390, 1280)
            await camera.click("#more > summary")
            await camera.take("more")
            await camera.click("#more > summary")
            await camera.click("#ticket-close")
            for tab in ("fills", "positions", "curve"):
                await camera.click(f"#tab-{tab}")
                await camera.take(tab)
            await camera.click("#tab-orders")
            await camera.click("#overview-open")
            await camera.take("overview")
            await camera.click("#overview-close")
            await camera.click("#keys-open")
            await camera.take("keys")
            await camera.click("#keys-dialog [value=close]")
            await camera.click("#menu > summary")
            await camera.take("menu", 390, 1280)
            await camera.click("#menu > summary")
            await page.evaluate("location.hash = 'FUND'")
            await camera.take("convert", 1280)
            await page.evaluate("location.hash = 'RAIN'")
            await camera.take("binary")
            await page.evaluate("location.hash = 'SHARE'")
            await admin(
                boss, "phase", symbol="SHARE", phase="halted", reopen_ms=90_000
            )
            await page.evaluate(
                "document.getElementById('ticket-form').requestSubmit()"
            )
            await camera.take("halted-and-refused")
            await admin(boss, "reset")
            await camera.take("new-round")
        await camera.take("disconnected")


async def photograph_all(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    async with browsing() as browser:
        for theme in THEMES:
            await photograph(folder, browser, theme)


def main() -> None:
    """Make all pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "screens"
    asyncio.run(photograph_all(folder))
    print(f"{len(list(folder.glob('*.png')))} pictures in {folder}")


if __name__ == "__main__":
    main()
