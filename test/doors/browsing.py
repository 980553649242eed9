"""A real browser on the page of a real exchange, and what it shows."""

from __future__ import annotations

import asyncio
import contextlib
import re
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from typing import Any

from playwright.async_api import Browser, Page, async_playwright, expect

from server import Server
from test.support import PATIENCE_S, ROOT, Wire, order

INSTALL_S = 600  # also installs the browser
# Chromium's own requests to hosts of its maker.
QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-sync",
    "--no-first-run",
)
WIDE = {"width": 1760, "height": 900}  # all tables are open
FRAME = "() => new Promise(requestAnimationFrame)"
MARKUP = "<img src=x onerror=\"document.title='hacked'\">"
LIVE = "● Live"
# Errors that the browser logs if a server is gone.
GONE = (
    r"WebSocket connection to 'wss?://\S+' failed|Failed to load resource"
    r"|Firefox can’t establish a connection to the server at wss?://"
)

expect.set_options(timeout=PATIENCE_S * 1_000)


async def path_of(browser: str) -> str:
    """Return the path of a browser, installed if need be."""
    finder = await asyncio.create_subprocess_exec(
        ROOT / ".ci" / "browser", browser, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(INSTALL_S):
        output, errors = await finder.communicate()
    assert finder.returncode == 0, errors.decode()
    return output.decode().strip()


@contextlib.asynccontextmanager
async def browsing(*arguments: str) -> AsyncIterator[Browser]:
    """Start Chromium."""
    path = await path_of("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=[*QUIET, *arguments]
        )
        yield browser
        await browser.close()


@contextlib.asynccontextmanager
async def browsing_firefox(**preferences: Any) -> AsyncIterator[Browser]:
    """Start Firefox as it is released, which WebDriver BiDi drives."""
    path = await path_of("firefox")
    async with async_playwright() as playwright:
        browser = await playwright.firefox.launch(
            channel="moz-firefox",
            executable_path=path,
            firefox_user_prefs=preferences,
        )
        yield browser
        await browser.close()


@contextlib.asynccontextmanager
async def visiting(
    browser: Browser, url: str, *, but: str = "^$", **options: Any
) -> AsyncIterator[Page]:
    """Open the page of the exchange at a URL, and check its behaviour.

    It must send no request to another host, and the browser must log no error
    other than ``but``, a regular expression.
    """
    home = url.replace("ws", "http", 1) + "/"
    problems: list[str] = []
    asked: list[str] = []
    context = await browser.new_context(**{"viewport": WIDE, **options})
    context.set_default_timeout(PATIENCE_S * 1_000)
    page = await context.new_page()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: problems.append(f"{message.type}: {message.text}"),
    )
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    try:
        await page.goto(home)
        await expect(page.locator("#connection")).to_have_text(LIVE)
        yield page
        bad = [p for p in problems if not re.search(but, p)]
        bad += [u for u in asked if not u.startswith((home, f"{url}/"))]
        assert not bad, bad
    finally:
        await context.close()


async def sign_in(
    page: Page, user: str = "alice", token: str = "s3cret"
) -> None:
    await page.click("#sign-in")
    await page.fill("#sign-in-dialog [name=user]", user)
    await page.fill("#sign-in-dialog [name=token]", token)
    await page.click("#sign-in-dialog [type=submit]")
    await expect(page.locator("#own-title")).to_have_text(user)
    await expect(page.locator("#sign-in-dialog")).to_be_hidden()


async def write(page: Page, selector: str, text: str) -> None:
    """Type a text into a field, in place of what it has.

    In Firefox the `fill` of Playwright appends to what a number field has.
    """
    field = page.locator(selector)
    await field.focus()
    await field.evaluate("(field) => field.select()")
    await page.keyboard.type(text)


async def place(page: Page, side: str, qty: int, price: str) -> None:
    """Fill in the order ticket and send it."""
    await page.check(f"#ticket [value={side}]", force=True)
    await write(page, "#ticket [name=qty]", str(qty))
    if price:
        await write(page, "#ticket [name=price]", price)
    await page.click("#ticket [type=submit]")


async def shows(page: Page, rows: str, *expected: str) -> None:
    """Wait until the visible rows of a table have these texts."""
    if rows in ("#orders", "#fills", "#positions"):
        await page.click(f"#tab-{rows[1:]}")
    visible = page.locator(f"{rows} tr:visible")
    await expect(visible).to_have_text(
        [re.compile(rf"^{text}$") for text in expected]
    )


async def shows_message(page: Page, text: str) -> None:
    """Wait until the newest message has this text."""
    newest = page.locator("#messages li:visible").first
    await expect(newest).to_have_text(re.compile(f"^[0-9:]{{8}} (! )?{text}$"))


async def ladder(page: Page) -> list[list[list[str]]]:
    """Return bids and asks as shown, best first: price, quantity, own."""
    shown: list[list[list[str]]] = await page.evaluate("""() => {
            const rows = [...document.querySelectorAll("#ladder tr")];
            const side = (name, own) => rows
              .map(({ cells }) => [
                  cells[2].textContent,
                  cells[name].querySelector(".qty").textContent,
                  cells[own].textContent,
              ])
              .filter(([, qty]) => qty);
            return [side(1, 0), side(3, 4).reverse()];
        }""")
    return shown


async def book_shows(
    page: Page, bids: list[list[str]], asks: list[list[str]]
) -> None:
    """Wait until the ladder has exactly these levels."""
    async with asyncio.timeout(PATIENCE_S):
        while await ladder(page) != [bids, asks]:
            await page.evaluate(FRAME)


def said_to_all(server: Server, *texts: str) -> None:
    """Send messages to every connection."""
    for session in server.gateway.links:
        for text in texts:
            session.send(text)
    server.step(lambda: None)


async def trade(maker: Wire, taker: Wire, price: int, **more: Any) -> None:
    """Let two accounts trade one lot."""
    await maker.ask(**order("sell", 1, price, **more))
    await taker.ask(**order("buy", 1, price, **more))


async def admin(boss: Wire, action: str, **arguments: Any) -> None:
    """Act as an administrator."""
    request = {"action": action, "reason": "r", **arguments}
    replies = await boss.ask(type="admin", **request)
    assert "ok" in [reply["type"] for reply in replies], replies
