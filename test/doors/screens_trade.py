"""Scenes of the page for who trades."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from playwright.async_api import Page, expect

from test.doors.browsing import LIVE, admin, sign_in
from test.doors.screens_market import (
    SOME,
    WIDE,
    Photographer,
    market,
    trade_much,
)
from test.support import (
    Wire,
    address,
    greeting,
    launched,
    order,
    serving,
    wired,
)

FEW_TRADES = 100
DOZEN = tuple(f"FUTURE-{month:02}" for month in range(1, 13))


def home(url: str, name: str) -> str:
    """Return the address of a view of the page."""
    return f"{url.replace('ws', 'http', 1)}/#{name}"


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


async def submit(page: Page) -> None:
    """Send the ticket, wherever it is."""
    await page.evaluate(
        "document.getElementById('ticket-form').requestSubmit()"
    )


async def offer(boss: Wire) -> None:
    """Offer a block to everybody, and tell news."""
    await admin(
        boss,
        "tender",
        tender_id="block-1",
        qty=50,
        valid_ms=3_600_000,
        symbol="SHARE",
        side="sell",
        price=4_995,
        reason="a fund sells",
    )
    await admin(boss, "news", headline="SHARE earns more than expected")


async def a_day(camera: Photographer) -> None:
    """A visitor, then a trader with orders, fills, positions and offers."""
    page = camera.page
    with tempfile.TemporaryDirectory() as folder:
        async with market(Path(folder)) as (server, tokens, wires):
            await page.goto(home(server.url, "FUND"))
            await camera.take("empty")
            await sign_in(page, "me", tokens["me"])
            await camera.take("empty-trader")
            await camera.click("#sign-out")
            await trade_much(wires)
            await page.goto(home(server.url, "SHARE"))
            await camera.take("visitor")
            await camera.click("#sign-in")
            await camera.take("sign-in", *SOME)
            await page.fill("[name=user]", "me")
            await page.fill("[name=token]", "wrong")
            await page.click("#sign-in-dialog [type=submit]")
            await expect(
                page.locator("#sign-in-dialog .result")
            ).not_to_contain_text("Signing in")
            await camera.take("sign-in-refused", *SOME)
            await page.set_viewport_size(WIDE)
            await camera.click("#sign-in-dialog [value=close]")
            await sign_in(page, "me", tokens["me"])
            await trade_a_little(page)
            await offer(wires["boss"])
            await trade_much(wires, FEW_TRADES)  # for the curves
            await page.wait_for_timeout(2_000)
            await camera.click("[name=mode][value=trades]")
            await camera.take("trade")
            await trader_s_views(camera)
            await products(camera)


async def trader_s_views(camera: Photographer) -> None:
    """Tables, dialogs and other views of a trader."""
    page = camera.page
    await camera.click("[name=mode][value='1s']")
    await camera.click("#quick-buy")
    await camera.take("ticket", *SOME)
    await camera.click("#more > summary")
    await camera.take("more")
    await camera.click("#more > summary")
    await page.evaluate(
        "document.getElementById('tenders').scrollIntoView({block: 'end'})"
    )
    await camera.take("offer", 390)
    await camera.click("#ticket-close")
    for tab in ("fills", "positions", "curve"):
        await camera.click(f"#tab-{tab}")
        await camera.take(tab, show="#own")
    await page.evaluate("scrollTo(0, 0)")
    await camera.click("#tab-orders")
    await camera.click("#orders [aria-label^=Amend]")
    await camera.take("amend", *SOME)
    await camera.click("#amend-dialog [value=close]")
    await camera.click("#confirm")
    await submit(page)
    await camera.take("confirm", *SOME)
    await camera.click("#confirm-dialog [value=close]")
    await camera.click("#confirm")
    await camera.click("#overview-open")
    await camera.take("overview")
    await camera.take("chain", *SOME, show="#chains")
    await camera.click("#overview-close")
    await camera.click("#keys-open")
    await camera.take("keys", *SOME)
    await camera.click("#keys-dialog [value=close]")
    await camera.click("#menu > summary")
    await camera.take("menu", *SOME)
    await camera.click("#menu > summary")
    await camera.click("#side-tabs [value=news]")
    await camera.take("messages", *SOME, show="#news")
    await page.evaluate("scrollTo(0, 0)")


async def products(camera: Photographer) -> None:
    """Instruments of other kinds."""
    for symbol, state in (("FUND", "convert"), ("C-50", "option")):
        await camera.page.evaluate("(s) => { location.hash = s; }", symbol)
        await camera.take(state, *SOME)
        await camera.click("#quick-buy")
        await camera.take(f"{state}-ticket", 390)
        await camera.click("#ticket-close")
    await camera.page.evaluate("location.hash = 'RAIN'")
    await camera.take("binary")


async def phases(camera: Photographer) -> None:
    """Phases other than open, and what they refuse."""
    page = camera.page
    with tempfile.TemporaryDirectory() as folder:
        async with market(Path(folder)) as (server, tokens, wires):
            boss = wires["boss"]
            await trade_much(wires, FEW_TRADES)
            await page.goto(home(server.url, "SHARE"))
            await sign_in(page, "me", tokens["me"])
            await trade_a_little(page)
            why = {"reason": "opens with the news"}
            await admin(
                boss, "phase", phase="pre_open", reopen_ms=60_000, **why
            )
            await camera.take("pre-open", *SOME)
            await admin(boss, "phase", symbol="SHARE", phase="auction", **why)
            for name, side, price in (
                ("maker", "buy", 5_003),
                ("taker", "sell", 4_993),
            ):
                await wires[name].ask(**order(side, 7, price, symbol="SHARE"))
            await camera.take("auction")
            why = {"reason": "price moved by more than 10 % in a minute"}
            await admin(
                *(boss, "phase"),
                symbol="SHARE",
                phase="halted",
                reopen_ms=90_000,
                **why,
            )
            await submit(page)
            await camera.take("halted-and-refused")
            await admin(boss, "phase", phase="closed", reason="end of day")
            await camera.take("closed")


async def rounds(camera: Photographer) -> None:
    """A new round, and the chart of one that goes on."""
    page = camera.page
    with tempfile.TemporaryDirectory() as folder:
        async with market(Path(folder)) as (server, tokens, wires):
            await trade_much(wires, FEW_TRADES)
            await page.goto(home(server.url, "SHARE"))
            await sign_in(page, "me", tokens["me"])
            await trade_a_little(page)
            boss, why = wires["boss"], {"reason": "the next round"}
            await admin(boss, "match", name="Cup", round="2 of 3", **why)
            await admin(boss, "reset", **why)
            await camera.take("new-round")
            await admin(boss, "phase", phase="open", close_ms=300_000, **why)
            await trade_much(wires)
            await page.set_viewport_size(WIDE)
            await trade_a_little(page)
            await page.wait_for_timeout(1_500)  # until a bar has its quote
            await camera.take("second-round")
            await camera.click("[name=mode][value=trades]")
            await camera.click("#earlier input")
            await camera.take("both-rounds", *SOME)
            box: Any = await page.locator("#plot").bounding_box()
            await page.mouse.move(box["x"] + 100, box["y"] + 100)
            await page.mouse.wheel(-600, 0)
            await camera.take("panned", 1280, 1920)


async def troubles(camera: Photographer) -> None:
    """No connection yet, none any more, and one to a forgetful exchange."""
    page = camera.page
    with tempfile.TemporaryDirectory() as folder:
        async with market(Path(folder)) as (server, tokens, wires):
            await trade_much(wires, FEW_TRADES)
            silent = await page.context.new_page()
            await silent.route_web_socket("**", lambda socket: None)
            await silent.goto(home(server.url, "SHARE"))
            late = Photographer(camera.folder, silent, camera.theme)
            await late.take("late")
            await silent.close()
            await page.goto(home(server.url, "SHARE"))
            await sign_in(page, "me", tokens["me"])
            await trade_a_little(page)
            await camera.resize(390)  # where no message is in sight
            await page.evaluate("location.hash = 'NOTHING'")
            await camera.take("unknown", *SOME)
            await camera.click("#notice-close")
        await page.wait_for_timeout(1_000)  # until it is pale
        await camera.take("disconnected")
    async with launched(journal="off") as process:
        url = address(await greeting(process))
        port = url.rsplit(":", 1)[1]
        await page.goto(home(url, "BOND"))
        await sign_in(page, "me", "")
        async with wired(url, "bob") as bob:
            await bob.ask(**order("sell", 9, 100))
            await bob.ask(**order("buy", 9, 90))
            await page.set_viewport_size(WIDE)
            await page.fill("#ticket-qty", "3")
            await submit(page)
            await expect(page.locator("#position")).to_have_text("BOND +3")
        await camera.resize(390)
        process.kill()
        await process.wait()
        async with launched(journal="off", port=port) as successor:
            await greeting(successor)
            await expect(page.locator("#connection")).to_have_text(LIVE)
            await expect(page.locator("#messages")).to_contain_text("Lost:")
            await camera.take("restarted", *SOME)


async def a_dozen(camera: Photographer) -> None:
    """Twelve instruments."""
    page = camera.page
    async with serving(symbols=DOZEN) as server:
        async with wired(server.url, "bob") as bob:
            await rest_everywhere(bob, DOZEN)
            await page.goto(home(server.url, DOZEN[-1]))
            await sign_in(page, "me", "")
            await page.wait_for_timeout(1_000)
            await camera.take("dozen")


async def rest_everywhere(wire: Wire, symbols: Iterable[str]) -> None:
    for n, symbol in enumerate(symbols):
        about = {"symbol": symbol}
        middle = 10_000 + 100 * n
        for away in range(1, 6):
            await wire.ask(**order("buy", away, middle - away, **about))
            await wire.ask(**order("sell", away, middle + away, **about))
