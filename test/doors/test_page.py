"""The live page, in a real browser, on a real exchange."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import random
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from orderbook import Heartbeat, News, Status, Tender, encode
from server import Server
from test.doors.browsing import (
    FRAME,
    GONE,
    LIVE,
    MARKUP,
    book_shows,
    ladder,
    place,
    said_to_all,
    shows,
    shows_message,
    sign_in,
    visiting,
    write,
)
from test.support import (
    PATIENCE_S,
    Wire,
    add_key,
    address,
    greeting,
    launched,
    order,
    serving,
    until,
    wired,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

BURST = 2_000  # orders
FEW = 5  # levels of each side that the ladder shows at least


@contextlib.contextmanager
def losing(server: Server, *channels: str) -> Iterator[None]:
    """Lose the messages of public channels to their present subscribers."""
    feed = server.gateway.feed
    before = dict(feed._follows)
    for reader, follows in before.items():
        feed._follow(
            reader, frozenset(f for f in follows if f[1] not in channels)
        )
    yield
    for reader, follows in before.items():
        feed._follow(reader, follows)


# A visitor -------------------------------------------------------------------


async def test_a_visitor_sees_the_market(browser: Browser) -> None:
    async with serving() as server:
        async with (
            wired(server.url, "maker") as maker,
            wired(server.url, "taker") as taker,
        ):
            await maker.ask(**order("buy", 10, 99))
            await maker.ask(**order("sell", 1_000, 1_101))
            await taker.ask(**order("sell", 4, 99))
            async with visiting(browser, server.url) as page:
                await book_shows(
                    page, [["99", "6", ""]], [["1,101", "1,000", ""]]
                )
                await expect(page.locator("#chart-title")).to_have_text("BOND")
                await expect(page.locator("#last")).to_have_text("99")
                await expect(page.locator("#phase")).to_have_text("● Open")
                await shows(page, "#tape", "[0-9:]{8}▼ sell994")
                await shows(page, "#leaderboard", "1maker0", "1taker0")
                await taker.ask(**order("buy", 1, 1_101))
                await shows(
                    page,
                    "#tape",
                    "[0-9:]{8}▲ buy1,1011",
                    "[0-9:]{8}▼ sell994",
                )
                await expect(page.locator("#last")).to_have_text("1,101 ▲")
                await expect(page.locator("#ticket")).to_be_hidden()


async def test_prices_are_money(browser: Browser, tmp_path: Path) -> None:
    market = tmp_path / "market.toml"
    market.write_text(
        '[instruments.BOND]\ntick_size = "0.25"\n'
        '[instruments.ETF]\ntick_size = "0.001"\nmin_price = -9000\n'
    )
    async with serving(market=market) as server:
        async with wired(server.url, "bob") as bob:
            await bob.ask(**order("buy", 1, 401, symbol="BOND"))
            await bob.ask(**order("buy", 2, -7, symbol="ETF"))
            async with visiting(browser, server.url) as page:
                await book_shows(page, [["100.25", "1", ""]], [])
                await page.click("#instruments button:has-text('ETF')")
                await book_shows(page, [["−0.007", "2", ""]], [])
                assert page.url.endswith("/#ETF")
                await bob.ask(**order("buy", 3, -6, symbol="ETF"))
                await bob.ask(**order("buy", 3, 402, symbol="BOND"))
                await book_shows(
                    page, [["−0.006", "3", ""], ["−0.007", "2", ""]], []
                )
                await page.reload()
                await expect(page.locator("#chart-title")).to_have_text("ETF")
                await page.go_back()
                await book_shows(
                    page, [["100.50", "3", ""], ["100.25", "1", ""]], []
                )
                await sign_in(page)
                field = page.locator("#ticket [name=price]")
                await place(page, "sell", 1, "100.3")
                assert await field.evaluate(
                    "field => field.validity.stepMismatch"
                )
                await place(page, "sell", 1, "101.75")
                await shows(
                    page, "#orders", r"\d+▼ sell BOND101.750/1AmendCancel"
                )


async def test_a_phase_and_its_reason_are_shown(browser: Browser) -> None:
    async with serving(symbols=("BOND", "ETF")) as server:
        async with visiting(browser, server.url) as page:
            phase = page.locator("#phase")
            halt = Status(
                ts=1, symbol="BOND", phase="halted", message="back soon"
            )
            said_to_all(server, encode(halt))
            await expect(phase).to_have_text("❙❙ Halted")
            await shows_message(page, "BOND: halted: back soon")
            for word, text in (
                ("pre_open", "◔ Not open yet"),
                ("auction", "⇄ Auction"),
                ("closed", "■ Closed"),
                ("a_new_one", "a new one"),
                ("open", "● Open"),
            ):
                status = json.loads(encode(halt)) | {"phase": word}
                said_to_all(server, json.dumps(status))
                await expect(phase).to_have_text(text)
            said_to_all(
                server, encode(dataclasses.replace(halt, symbol="ETF"))
            )
            button = page.locator("#instruments button:has-text('ETF')")
            await expect(button).to_have_text("ETF❙❙ Halted")
            await expect(phase).to_have_text("● Open")


async def test_news_rounds_and_busts_are_shown(browser: Browser) -> None:
    async with (
        serving() as server,
        wired(server.url, "ann") as ann,
        wired(server.url, "bob") as bob,
    ):
        await ann.ask(**order("sell", 2, 101))
        await bob.ask(**order("buy", 2, 101))
        async with visiting(browser, server.url) as page:
            await shows(page, "#tape", "[0-9:]{8}▲ buy1012")
            await expect(page.locator("#round")).to_be_hidden()
            beat = Heartbeat(ts=1, seq={}, speed="10")
            said_to_all(server, encode(beat))
            live = page.locator("#connection")
            await expect(live).to_have_text("● Live, time ×10")
            said_to_all(server, encode(Heartbeat(ts=1, seq={})))
            await expect(live).to_have_text("● Live")
            await expect(page.locator("#headline")).to_be_hidden()
            news = News(
                ts=1, news_id=1, headline=MARKUP, symbol="BOND", value=-5
            )
            said_to_all(server, encode(news), encode(news))
            await expect(page.locator("#headline")).to_contain_text(
                f"BOND: {MARKUP} (-5)"
            )
            await shows_message(page, re.escape(f"News: BOND: {MARKUP} (-5)"))
            assert await page.locator("#messages li").count() == 1
            said_to_all(server, encode(Status(ts=1, round=3, message="go")))
            await expect(page.locator("#round")).to_have_text("Round 3")
            tender = Tender(
                **{"ts": 1, "tender_id": "t", "symbol": "BOND", "qty": 5},
                **{"side": "buy", "price": 99, "expire_ts": 2},
            )
            said_to_all(server, encode(tender))
            await shows_message(page, "Offer t: buy 5 BOND at 99")


async def test_the_match_and_the_time_left_are_shown(
    browser: Browser, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    token = add_key(keys, "boss", is_admin=True)
    async with (
        serving(keys=keys) as server,
        wired(server.url, "boss", token=token) as boss,
        visiting(browser, server.url) as page,
    ):

        async def act(action: str, **arguments: Any) -> None:
            request = {"action": action, "reason": "r", **arguments}
            assert (await boss.ask(type="admin", **request))[0]["type"] == "ok"

        match = page.locator("#match")
        await expect(match).to_be_hidden()
        await act("match", name=MARKUP, round="A")
        await expect(match).to_have_text(f"{MARKUP} · round A")
        await act("phase", phase="open", close_ms=3_600_000)
        running = re.compile(r" · round A · (60:00|59:\d\d) left$")
        await expect(match).to_have_text(running)
        await act("phase", phase="halted")
        await act("match", name="paused")  # what it shows is of now
        await expect(page.locator("#phase")).to_have_text("❙❙ Halted")
        standing = re.compile(r"^paused · (60:00|59:\d\d) left$")
        await expect(match).to_have_text(standing)
        await act("phase", phase="closed")
        await expect(match).to_have_text("paused")


async def test_a_derivative_says_what_it_is(
    browser: Browser, tmp_path: Path
) -> None:
    market = tmp_path / "market.toml"
    market.write_text(
        '[instruments.BOND]\ntick_size = "0.05"\n'
        '[instruments.CALL]\nkind = "call"\nunderlying = "BOND"\n'
        'strike = 2010\nexpires = "round"\ntick_size = "0.05"\n'
    )
    async with serving(market=market) as server:
        async with visiting(browser, server.url) as page:
            await page.click("#instruments button:has-text('CALL')")
            terms = page.locator("#terms")
            await expect(terms).to_have_text("call 100.50 of BOND")
            await expect(page.locator("#last")).to_have_text("no trade yet")


async def test_text_is_never_markup(browser: Browser) -> None:
    async with serving() as server:
        async with visiting(browser, server.url) as page:
            server.gateway.announce(MARKUP)
            server.step(lambda: None)
            await shows_message(page, re.escape(MARKUP))
            await expect(page.locator("#live")).to_have_text(MARKUP)
            leaders = {"rank": 1, "user": MARKUP, "equity": 0, "positions": {}}
            await page.evaluate(
                """async (row) => {
                    const { Leaderboard } = await import("/draw.js");
                    const body = document.getElementById("leaderboard");
                    new Leaderboard(body).draw({
                        leaderboard: [row], instruments: new Map(),
                        tickers: new Map(),
                    });
                }""",
                leaders,
            )
            await expect(page.locator("#leaders")).to_contain_text(MARKUP)
            assert await page.locator("img").count() == 0


async def test_markup_could_not_be_made(browser: Browser) -> None:
    """The browser enforces it, even if the page has a bug."""
    async with serving() as server:
        async with visiting(
            browser, server.url, but="TrustedHTML|-types-for"
        ) as page:
            outcome = await page.evaluate(
                """(text) => {
                    try {
                        document.body.innerHTML = text;
                    } catch (error) {
                        return error.name;
                    }
                }""",
                MARKUP,
            )
            assert outcome == "TypeError"


async def test_unknown_fields_and_types_are_ignored(browser: Browser) -> None:
    async with serving() as server:
        async with visiting(browser, server.url) as page:
            said_to_all(
                server,
                '{"type":"novelty","id":"x","symbol":"BOND"}',
                '{"type":"book","symbol":"NEW","seq":9,"prev_seq":8,"ts":1,'
                '"bids":[],"asks":[]}',
                '{"type":"heartbeat","ts":1,"seq":{"NEW":9},"more":[]}',
                '{"type":"trade","symbol":"BOND","seq":1,"ts":1,"trade_id":1,'
                '"price":7,"qty":2,"side":"buy","venue":"moon"}',
            )
            await shows(page, "#tape", "[0-9:]{8}▲ buy72")


# A trader --------------------------------------------------------------------


async def test_an_order_trades(browser: Browser) -> None:
    async with serving() as server:
        async with (
            wired(server.url, "bob") as bob,
            visiting(browser, server.url) as page,
        ):
            await sign_in(page)
            await place(page, "buy", 10, "99")
            await book_shows(page, [["99", "10", "10"]], [])
            await shows(page, "#orders", r"\d+▲ buy BOND990/10AmendCancel")
            result = page.locator("#ticket-result")
            await expect(result).to_have_text(
                re.compile(r"^Order \d+: buy 10 BOND at 99: accepted$")
            )
            await bob.ask(**order("sell", 4, 98))
            await shows(page, "#tape", "[0-9:]{8}▼ sell994")
            await shows(page, "#orders", r"\d+▲ buy BOND994/10AmendCancel")
            await shows(page, "#fills", "[0-9:]{8}▲ buy BOND9940")
            await expect(page.locator("#position")).to_have_text("BOND +4")
            await expect(page.locator("#cash")).to_have_text("−396")
            await expect(page.locator("#profit")).to_have_text("0")
            await expect(result).to_have_text("Bought 4 BOND at 99")
            await book_shows(page, [["99", "6", "6"]], [])
            # The mark moves with the bid: 4 lots are worth 2 more each.
            await bob.ask(**order("buy", 1, 101))
            await bob.ask(**order("sell", 1, 102))
            await expect(page.locator("#profit")).to_have_text("+8")
            await shows(page, "#leaderboard", r"1alice \(you\)\+48", "2bob−8")
            # A market order trades on two levels and ends.
            await bob.ask(**order("sell", 2, 103))
            await page.click("#more > summary")
            kind = page.locator("#ticket [name=order_type]")
            await kind.select_option("limit")
            await kind.select_option("market")
            await place(page, "buy", 9, "")
            await expect(result).to_have_text(
                re.compile(
                    r"^Bought 3 BOND at 102 to 103\. Order \d+: buy 9 BOND"
                    " at market: expired, no liquidity$"
                )
            )
            # A limit order rests again by default.
            await kind.select_option("limit")
            await place(page, "buy", 1, "99")
            await expect(result).to_have_text(re.compile("accepted$"))


async def test_an_order_is_amended_and_canceled(browser: Browser) -> None:
    async with serving() as server:
        async with visiting(browser, server.url) as page:
            await sign_in(page)
            for price in ("95", "96", "97"):
                await place(page, "buy", 10, price)
            await book_shows(
                page,
                [["97", "10", "10"], ["96", "10", "10"], ["95", "10", "10"]],
                [],
            )
            await page.click("#orders tr:nth-child(2) >> text=Amend")
            dialog = page.locator("#amend-dialog")
            await expect(dialog.locator("h2")).to_contain_text("buy BOND")
            await expect(dialog.locator("[name=qty]")).to_have_value("10")
            await expect(dialog.locator("[name=price]")).to_have_value("96")
            await write(page, "#amend-dialog [name=qty]", "7")
            await write(page, "#amend-dialog [name=price]", "98")
            await dialog.locator("[type=submit]").click()
            await expect(dialog).to_be_hidden()
            await book_shows(
                page,
                [["98", "7", "7"], ["97", "10", "10"], ["95", "10", "10"]],
                [],
            )
            await page.click("#orders tr:nth-child(1) >> text=Cancel")
            await book_shows(page, [["98", "7", "7"], ["97", "10", "10"]], [])
            await expect(page.locator("#ticket-result")).to_have_text(
                re.compile("at 95: canceled, user$")
            )
            await page.click("#cancel-all")
            await book_shows(page, [], [])
            await shows(page, "#orders")
            await shows_message(page, "2 canceled")


async def test_a_refusal_is_shown(browser: Browser) -> None:
    async with serving() as server:
        async with (
            wired(server.url, "bob") as bob,
            visiting(browser, server.url) as page,
        ):
            await bob.ask(**order("sell", 1, 100))
            await sign_in(page)
            await page.click("#more > summary")
            await page.check("#ticket [name=post_only]")
            await place(page, "buy", 1, "100")
            text = "Refused: post-only buy at 100 would trade with 100"
            await expect(page.locator("#ticket-result")).to_have_text(text)
            await shows_message(page, text)
            await page.uncheck("#ticket [name=post_only]")
            await place(page, "buy", 2, "99")
            await page.click("#orders >> text=Amend")
            await write(page, "#amend-dialog [name=qty]", "3")
            await write(page, "#amend-dialog [name=price]", "100")
            # The order trades meanwhile.
            await bob.ask(**order("sell", 2, 99))
            await page.click("#amend-dialog [type=submit]")
            result = page.locator("#amend-dialog .result")
            await expect(result).to_have_text(
                re.compile(r"^Refused: order \d+ is filled$")
            )


async def test_a_login_lasts_as_long_as_the_tab(browser: Browser) -> None:
    async with serving() as server:
        async with visiting(browser, server.url) as page:
            await sign_in(page)
            await place(page, "sell", 5, "105")
            await page.reload()
            await expect(page.locator("#own-title")).to_have_text("alice")
            await book_shows(page, [], [["105", "5", "5"]])
            assert "s3cret" not in page.url
            assert await page.evaluate("() => localStorage.length") > 0
            assert "s3cret" not in await page.evaluate(
                "() => JSON.stringify({ ...localStorage })"
            )
            await page.click("#sign-out")
            await expect(page.locator("#own")).to_be_hidden()
            await book_shows(page, [], [["105", "5", ""]])
            await page.reload()
            await expect(page.locator("#sign-in")).to_be_visible()
            kept = await page.evaluate(
                "() => JSON.stringify({ ...sessionStorage })"
            )
            assert "s3cret" not in kept and "alice" not in kept


async def test_a_failed_login_shows_the_reason(browser: Browser) -> None:
    async with serving() as server:
        async with visiting(browser, server.url) as page:
            await page.click("#sign-in")
            name = page.locator("#sign-in-dialog [name=user]")
            await name.evaluate("field => field.removeAttribute('pattern')")
            await name.fill("no name")
            await page.keyboard.press("Enter")
            await expect(
                page.locator("#sign-in-dialog .result")
            ).to_contain_text("user")
            await page.keyboard.press("Escape")
            await expect(page.locator("#sign-in")).to_be_visible()
            await expect(page.locator("#connection")).to_have_text(LIVE)


async def test_the_keyboard_is_enough(browser: Browser) -> None:
    async with serving() as server:
        async with visiting(browser, server.url) as page:

            async def tab_to(selector: str, key: str = "Tab") -> None:
                for _ in range(50):
                    await page.keyboard.press(key)
                    if await page.evaluate(
                        "(s) => document.activeElement.matches(s)", selector
                    ):
                        return
                raise AssertionError(f"no way to {selector}")

            await tab_to("#sign-in")
            await page.keyboard.press("Enter")
            await page.keyboard.type("alice")
            await page.keyboard.press("Enter")
            await expect(page.locator("#own-title")).to_have_text("alice")
            # What is typed replaces the lots, where the focus is now.
            await expect(page.locator("#ticket-qty")).to_be_focused()
            await page.keyboard.type("7")
            await expect(page.locator("#ticket-qty")).to_have_value("7")
            # Back, because on the way around Firefox passes its own buttons.
            await tab_to("#ticket [name=side]", "Shift+Tab")
            await page.keyboard.press("ArrowRight")
            await tab_to("#ticket [name=qty]")
            await page.keyboard.type("12")
            await tab_to("#ticket [name=price]")
            await page.keyboard.type("101")
            await page.keyboard.press("ArrowUp")
            await page.keyboard.press("Enter")
            await book_shows(page, [], [["102", "12", "12"]])
            await tab_to("#orders [aria-label^='Amend order']", "Shift+Tab")
            await page.keyboard.press("Space")
            await page.keyboard.type("8")
            await page.keyboard.press("Enter")
            await book_shows(page, [], [["102", "8", "8"]])
            await tab_to("#orders [aria-label^='Cancel order']")
            await page.keyboard.press("Enter")
            await book_shows(page, [], [])
            # The focus after its button has been removed.
            await expect(page.locator("#orders-title")).to_be_focused()


# Sequence and reconnecting ---------------------------------------------------


@pytest.mark.parametrize("is_durable", [True, False])
async def test_the_page_reconnects_to_a_killed_exchange(
    browser: Browser, tmp_path: Path, unused_tcp_port: int, is_durable: bool
) -> None:
    settings = {
        "port": str(unused_tcp_port),
        "journal": str(tmp_path / "journal.db") if is_durable else "off",
    }
    async with launched(**settings) as process:
        url = address(await greeting(process))
        async with visiting(browser, url, but=GONE) as page:
            await sign_in(page)
            await place(page, "buy", 10, "99")
            await book_shows(page, [["99", "10", "10"]], [])
            process.kill()
            await expect(page.locator("#connection")).to_have_text(
                re.compile("^○")
            )
            await expect(page.locator("main")).to_have_class("stale")
            async with launched(**settings) as successor:
                await greeting(successor)
                await expect(page.locator("#connection")).to_have_text(LIVE)
                await shows_message(page, "Connected again")
                mine = [["99", "10", "10"]] if is_durable else []
                await book_shows(page, mine, [])
                orders = page.locator("#orders tr")
                await expect(orders).to_have_count(len(mine))
                await place(page, "buy", 5, "97")
                await book_shows(page, [*mine, ["97", "5", "5"]], [])
                async with wired(url, "bob") as bob:
                    await bob.ask(**order("sell", 1, 97))
                price = "99" if is_durable else "97"
                await shows(page, "#fills", f"[0-9:]{{8}}▲ buy BOND{price}10")


async def test_a_burst_leaves_the_right_book(browser: Browser) -> None:
    async with serving() as server:
        async with (
            wired(server.url, "bob") as bob,
            wired(server.url, "carol") as carol,
            visiting(browser, server.url) as page,
        ):
            nodes = "() => document.querySelectorAll('*').length"
            before = await page.evaluate(nodes)
            dice = random.Random(1)
            for _ in range(BURST):
                price = 500 + round(dice.gauss(0, 20))
                side = "buy" if price + dice.gauss(0, 10) < 500 else "sell"
                wire = dice.choice([bob, carol])
                await wire.send(order(side, dice.randrange(1, 50), price))
            for wire in (bob, carol):
                await wire.send({"type": "ping", "id": "last"})
                await wire.until(id="last")
            await bob.send({"type": "get", "what": "book", "id": "book"})
            [snapshot] = (await bob.until(id="book"))["data"]
            sides = (snapshot["bids"], snapshot["asks"])
            assert min(map(len, sides)) > FEW
            await page.select_option("#step", "1")
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    shown = await ladder(page)
                    expected = [
                        [[str(price), str(qty), ""] for price, qty in levels]
                        for levels in sides
                    ]
                    if min(map(len, shown)) >= FEW and all(
                        some == every[: len(some)]
                        for some, every in zip(shown, expected, strict=True)
                    ):
                        break
                    await page.evaluate(FRAME)
            assert await page.evaluate(nodes) == before


async def test_a_gap_in_the_book_is_repaired(browser: Browser) -> None:
    async with serving() as server:
        assert server.timers._heartbeat_due is not None
        server.timers._heartbeat_due.cancel()  # it would repair it too
        async with (
            wired(server.url, "bob") as bob,
            visiting(browser, server.url) as page,
        ):
            await bob.ask(**order("buy", 1, 90))
            await book_shows(page, [["90", "1", ""]], [])
            with losing(server, "book"):
                await bob.ask(**order("buy", 2, 91))
            await bob.ask(**order("buy", 3, 92))
            await book_shows(
                page, [["92", "3", ""], ["91", "2", ""], ["90", "1", ""]], []
            )
            # Only a heartbeat follows the lost messages.
            with losing(server, "book"):
                await bob.ask(**order("buy", 4, 93))
            server.step(server.gateway.heartbeat)
            await book_shows(
                page,
                [[str(price), str(price - 89), ""] for price in (93, 92)]
                + [["91", "2", ""], ["90", "1", ""]],
                [],
            )


async def test_missed_trades_are_fetched(browser: Browser) -> None:
    async with serving() as server:
        async with (
            wired(server.url, "bob") as bob,
            wired(server.url, "carol") as carol,
            visiting(browser, server.url) as page,
        ):
            await bob.ask(**order("sell", 9, 90))
            await carol.ask(**order("buy", 1, 90))
            await shows(page, "#tape", "[0-9:]{8}▲ buy901")
            with losing(server, "trades"):
                await carol.ask(**order("buy", 2, 90))
                await carol.ask(**order("buy", 3, 90))
            await carol.ask(**order("buy", 1, 90))
            await shows(
                page,
                "#tape",
                *(f"[0-9:]{{8}}▲ buy90{n}" for n in (1, 3, 2, 1)),
            )


@pytest.mark.parametrize("is_told_by_heartbeat", [True, False])
async def test_missed_reports_are_fetched(
    browser: Browser, is_told_by_heartbeat: bool
) -> None:
    async with serving() as server:
        async with (
            wired(server.url, "bob") as bob,
            visiting(browser, server.url) as page,
        ):
            await sign_in(page)
            await place(page, "buy", 10, "99")
            await shows(page, "#orders", r"\d+▲ buy BOND990/10AmendCancel")
            online = server.gateway.routing.online
            sessions = online.pop("alice")
            await bob.ask(**order("sell", 1, 99))
            online["alice"] = sessions
            if is_told_by_heartbeat:
                server.step(server.gateway.heartbeat)
            else:
                await bob.ask(**order("sell", 1, 99))
            lots = ["1"] if is_told_by_heartbeat else ["1", "1"]
            await shows(
                page, "#fills", *(f"[0-9:]{{8}}▲ buy BOND99{n}0" for n in lots)
            )
            await shows(
                page, "#orders", rf"\d+▲ buy BOND99{len(lots)}/10AmendCancel"
            )
            await expect(page.locator("#position")).to_have_text(
                f"BOND +{len(lots)}"
            )
            # The session was resumed.
            assert len(server.gateway.engine.accounts["alice"].sessions) == 1


@pytest.mark.parametrize("has_arrived", [True, False])
async def test_an_order_without_a_reply_is_looked_up(
    browser: Browser, has_arrived: bool
) -> None:
    async with serving() as server:
        async with visiting(browser, server.url) as page:
            await sign_in(page)
            [connection] = server.links
            writer = server.writer
            write, writer.write = writer.write, lambda batch: None
            if not has_arrived:
                connection.pause_reading()
            await place(page, "buy", 10, "99")
            if has_arrived:
                alice = server.gateway.engine.accounts["alice"]
                await until(lambda: alice.open_orders)
            writer.write = write
            connection.abort()
            await expect(page.locator("#ticket-result")).to_have_text(
                re.compile(r"^Order \d+: buy 10 BOND at 99: new$")
                if has_arrived
                else re.compile("the order is not open: it was lost$")
            )
            await expect(page.locator("#orders tr")).to_have_count(
                1 if has_arrived else 0
            )


async def test_a_session_taken_over_is_not_resumed(browser: Browser) -> None:
    async with serving() as server:
        async with visiting(browser, server.url) as page:
            await sign_in(page)
            [session] = server.gateway.links
            async with wired(
                server.url, "alice", session=session.session_id
            ) as wire:
                await expect(page.locator("#sign-in")).to_be_visible()
                await expect(page.locator("#connection")).to_have_text(LIVE)
                assert "id" in (await wire.ask(type="ping", id=1))[0]


async def test_a_request_on_no_open_connection_has_no_reply(
    browser: Browser,
) -> None:
    async with serving() as server:
        async with visiting(browser, server.url, but=GONE) as page:
            found = await page.evaluate("""async () => {
                const { Link } = await import("/link.js");
                const url = location.href.replace("http", "ws");
                const link = new Link(url, () => {});
                const replies = [];
                link.connect(); // it opens later
                link.send([{ type: "ping" }], (reply) =>
                    replies.push(reply === undefined));
                const before = [...replies];
                link.drop();
                return [before, replies];
            }""")
            assert found == [[], [True]]


# The rules, without a connection ---------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rules(browser: Browser) -> AsyncIterator[Page]:
    """Open the page only for its module market.js."""
    async with serving() as server:
        async with visiting(browser, server.url) as page:
            yield page


BOOK_RULES = [  # messages after a snapshot with seq 5: [90, 1] and [91, 1]
    ("old", {"seq": 5, "prev_seq": 4, "bids": [[90, 7]]}, [[90, 1]]),
    ("taken", {"seq": 6, "prev_seq": 5, "bids": [[90, 7]]}, [[90, 7]]),
    ("taken", {"seq": 9, "prev_seq": 2, "bids": [[90, 0]]}, []),
    (
        "taken",
        {"seq": 6, "prev_seq": 5, "bids": [[89, 3]]},
        [[90, 1], [89, 3]],
    ),
    (
        "taken",
        {"seq": 6, "prev_seq": 5, "bids": [[92, 3]]},
        [[92, 3], [90, 1]],
    ),
    ("taken", {"seq": 6, "prev_seq": 5, "bids": [[7, 0]]}, [[90, 1]]),
    ("gap", {"seq": 8, "prev_seq": 6, "bids": [[90, 7]]}, [[90, 1]]),
    ("old", {"seq": 5, "snapshot": True, "bids": []}, [[90, 1]]),
    ("taken", {"seq": 6, "snapshot": True, "bids": [[3, 2]]}, [[3, 2]]),
]


@pytest.mark.parametrize("outcome, message, bids", BOOK_RULES)
async def test_rules_of_the_book(
    rules: Page, outcome: str, message: dict[str, Any], bids: list[list[int]]
) -> None:
    found = await rules.evaluate(
        """async (message) => {
            const { Book } = await import("/market.js");
            const book = new Book();
            const [bids, asks] = [[[90, 1]], [[91, 1]]];
            const first = { seq: 5, snapshot: true, bids, asks };
            const outcomes = [
                book.take({ seq: 4, prev_seq: 3, bids, asks }, false),
                book.take(first, true),
                book.take({ asks: [], ...message }, false),
            ];
            return [outcomes, book.bids.top(9), book.held];
        }""",
        message,
    )
    held = message["seq"] if outcome == "taken" else 5
    assert found == [["gap", "taken", outcome], bids, held]


async def test_a_requested_snapshot_is_applied(rules: Page) -> None:
    assert await rules.evaluate("""async () => {
            const { Book } = await import("/market.js");
            const book = new Book();
            const [bids, asks] = [[[90, 1]], []];
            book.take({ seq: 9, snapshot: true, bids, asks }, true);
            book.take({ seq: 2, snapshot: true, bids: [], asks }, true);
            return [book.held, book.bids.top(9)];
        }""") == [2, []]


ACCOUNT_RULES = [  # reports after the state at seq 5: order 1 is open
    (["old"], [(5, 1, 0)], [1]),
    (["taken"], [(6, 1, 0)], []),
    (["taken", "old"], [(6, 2, 3), (6, 1, 0)], [1, 2]),
    (["taken", "taken"], [(6, 2, 3), (7, 1, 0)], [2]),
    (["gap"], [(7, 1, 0)], [1]),
    (["gap", "taken"], [(8, 1, 0), (6, 2, 1)], [1, 2]),
]


@pytest.mark.parametrize("outcomes, reports, orders", ACCOUNT_RULES)
async def test_rules_of_the_account(
    rules: Page,
    outcomes: list[str],
    reports: list[tuple[int, int, int]],
    orders: list[int],
) -> None:
    found = await rules.evaluate(
        """async (reports) => {
            const { Account } = await import("/account.js");
            const account = new Account("alice");
            const report = ([seq, order_id, leaves_qty]) => account.take(
                { type: "exec", exec_type: "new", seq, order_id, leaves_qty },
            );
            account.welcome({ session: "x", seq: 4, resumed: false });
            report([4, 7, 1]);
            account.take({ type: "account", seq: 4 });
            account.welcome({ session: "x", seq: 5, resumed: false });
            report([5, 1, 2]);
            account.take({ type: "account", seq: 5 });
            account.welcome({ session: "x", seq: 9, resumed: true });
            return [reports.map(report), [...account.orders.keys()]];
        }""",
        reports,
    )
    assert found == [outcomes, orders]


MONEY = [
    ("1", 0, "0", "0"),
    ("1", -1_234_567, "-1234567", "−1,234,567"),
    ("0.25", 401, "100.25", "100.25"),
    ("0.25", -1, "-0.25", "−0.25"),
    ("0.001", 7, "0.007", "0.007"),
    ("2.50", 1_001, "2502.50", "2,502.50"),
    ("25", 4, "100", "100"),
    ("0.1", 2**53 - 1, "900719925474099.1", "900,719,925,474,099.1"),
]


@pytest.mark.parametrize("size, ticks, plain, shown", MONEY)
async def test_ticks_are_money(
    rules: Page, size: str, ticks: int, plain: str, shown: str
) -> None:
    found = await rules.evaluate(
        """async ([size, ticks]) => {
            const { Tick } = await import("/market.js");
            const tick = new Tick(size);
            const plain = tick.plain(ticks);
            return [plain, tick.show(ticks), tick.parse(plain)];
        }""",
        [size, ticks],
    )
    assert found == [plain, shown, ticks]


@pytest.mark.parametrize(
    "size, multiplier, value, shown",
    [
        ("1", 1, 1, "1,234"),
        ("0.05", 1, 1, "61.70"),
        ("0.05", 5, 25, "12.34"),
        ("1", 1, 100, "12.34"),
        ("0.25", 4, 10_000, "0.1234"),
    ],
)
async def test_the_unit_of_cash(
    rules: Page, size: str, multiplier: int, value: int, shown: str
) -> None:
    found = await rules.evaluate(
        """async ([size, multiplier, value]) => {
            const { Tick, unitOf } = await import("/market.js");
            const its = { tick_size: size, multiplier, tick_value: value };
            const unit = unitOf(its);
            return [unit.show(1234), unit.equals(new Tick("0.010"))];
        }""",
        [size, multiplier, value],
    )
    assert found == [shown, shown == "12.34"]


async def test_the_profit_counts_the_value_of_a_tick(rules: Page) -> None:
    found = await rules.evaluate("""async () => {
            const { Account } = await import("/account.js");
            const account = new Account("alice");
            account.welcome({ session: "s", seq: 0, resumed: false });
            account.take({
                type: "account", seq: 0, cash: 9_600, positions: { F: 2 },
                equity: 10_000,
            });
            account.take({
                type: "settlement", seq: 1, symbol: "X", position: 5, price: 1,
            });
            const next = account.take({
                type: "account", seq: 1, cash: 9_600, positions: { F: 2 },
                equity: 10_000,
            });
            const instruments = new Map([["F", { tick_value: 25 }]]);
            const tickers = new Map([["F", { last: 10 }]]);
            return [next, account.profit(tickers, instruments)];
        }""")
    assert found == ["taken", 100]


LIMIT_TICKET = {"symbol": "BOND", "side": "buy", "qty": 10}


@pytest.mark.parametrize(
    "fields, order",
    [
        (
            {"order_type": "stop", "trigger_price": "2.5"},
            {
                "order_type": "stop",
                "trigger_price": 5,
                "time_in_force": "gtc",
            },
        ),
        (
            {
                "order_type": "stop_limit",
                "trigger_price": "-1",
                "price": "3",
                "display_qty": "4",
            },
            {
                "order_type": "stop_limit",
                "trigger_price": -2,
                "price": 6,
                "display_qty": 4,
                "time_in_force": "gtc",
            },
        ),
        (
            {"order_type": "market", "time_in_force": "auction"},
            {"order_type": "market", "time_in_force": "auction"},
        ),
        (
            {"price": "3", "display_qty": "4", "time_in_force": "gtc"},
            {
                "order_type": "limit",
                "price": 6,
                "display_qty": 4,
                "time_in_force": "gtc",
            },
        ),
        (
            {"price": "3", "time_in_force": "ioc", "stp": "cancel_both"},
            {
                "order_type": "limit",
                "price": 6,
                "time_in_force": "ioc",
                "stp": "cancel_both",
            },
        ),
        (
            {"price": "3", "time_in_force": "gtd", "seconds": "5"},
            {"order_type": "limit", "price": 6, "time_in_force": "gtd"},
        ),
    ],
)
async def test_the_ticket_makes_every_kind_of_order(
    browser: Browser,
    tmp_path: Path,
    fields: dict[str, str],
    order: dict[str, Any],
) -> None:
    market = tmp_path / "market.toml"
    bounds = "min_price = -9\nmax_price = 99\nmax_qty = 50"
    market.write_text(f"[instruments.BOND]\ntick_size = '0.5'\n{bounds}\n")
    placed: list[dict[str, Any]] = []

    def note(frame: str | bytes) -> None:
        request = json.loads(frame)
        if isinstance(request, dict) and request["type"] == "place":
            del request["type"], request["id"], request["client_order_id"]
            placed.append(request)

    async with (
        serving(market=market) as server,
        visiting(browser, server.url) as page,
    ):
        page.on("websocket", lambda socket: socket.on("framesent", note))
        await page.reload()
        await sign_in(page)
        await page.click("#more > summary")
        ticket = page.locator("#ticket-form")
        await ticket.locator("[name=qty]").fill("10")
        for name, value in fields.items():
            field = ticket.locator(f"[name={name}]")
            if name in ("order_type", "time_in_force", "stp"):
                await field.select_option(value)
            else:
                await field.fill(value)
        is_stop = fields.get("order_type", "").startswith("stop")
        trigger = ticket.locator("[name=trigger_price]")
        assert await trigger.is_visible() == is_stop
        await ticket.locator("[type=submit]").click()
        await expect(page.locator("#ticket-result")).not_to_be_empty()
        expire = placed[0].pop("expire_ts", 0) - time.time() * 1e6
        is_for_a_time = fields.get("time_in_force") == "gtd"
        assert (expire > 0) == is_for_a_time
    assert placed == [LIMIT_TICKET | order]


@pytest.mark.parametrize(
    "text",
    ["", "x", "1e3", "0x10", "100.3", "1.2.3", ".25", "1,000", "9" * 30],
)
async def test_text_that_is_no_whole_number_of_ticks(
    rules: Page, text: str
) -> None:
    found = await rules.evaluate(
        """async (text) => {
            const { Tick } = await import("/market.js");
            return new Tick("0.25").parse(text);
        }""",
        text,
    )
    assert found is None


@pytest.mark.parametrize(
    "ticker, value",
    [
        ({"bid": 9, "ask": 12, "last": 10}, 10),
        ({"bid": 9, "ask": 12, "last": 20}, 12),
        ({"bid": 9, "ask": 12, "last": 2}, 9),
        ({"bid": 9, "last": 2}, 2),
        ({"ask": 100, "last": 2}, 2),
        ({"bid": 9, "ask": 12}, None),
    ],
)
async def test_the_mark(
    rules: Page, ticker: dict[str, int], value: int | None
) -> None:
    found = await rules.evaluate(
        """async (ticker) => {
            const { mark } = await import("/account.js");
            return mark(ticker);
        }""",
        ticker,
    )
    assert found == value


async def test_the_chart_is_drawn_on(rules: Page) -> None:
    bars, volumes, points = await rules.evaluate("""async () => {
            const { Chart } = await import("/chart.js");
            const { Candles, Tick } = await import("/market.js");
            const box = document.createElement("div");
            document.body.append(box);
            const chart = new Chart(box);
            chart.setTick(new Tick("0.25"));
            const candles = new Candles("1m");
            const trade = (trade_id, ts, price) =>
                ({ trade_id, ts, price, qty: 5 });
            candles.take(trade(1, 60e6, 400)); // before the table came
            candles.fill([[60e6, 400, 404, 400, 404, 9]], 7);
            chart.drawCandles(candles.rows);
            for (const one of [
                trade(7, 61e6, 999), // in the table already
                trade(8, 62e6, 396),
                trade(9, 119e6, 408),
                trade(10, 250e6, 412),
                trade(11, 310e6, 416),
            ]) candles.take(one);
            chart.drawCandles(candles.rows);
            const bars = chart.candles.data();
            const volumes = chart.volumes.data();
            const trades = [trade(1, 2e6, 4), trade(2, 2e6, 8)];
            chart.drawTrades(trades);
            const left = chart.candles.data().length;
            const points = chart.line.data().map(({ value }) => value);
            box.remove();
            return [bars, volumes, [left, points]];
        }""")
    names = ("time", "open", "high", "low", "close")
    assert [[bar[name] for name in names] for bar in bars] == [
        [60, 100, 102, 99, 102],
        [240, 103, 103, 103, 103],
        [300, 104, 104, 104, 104],
    ]
    assert [volume["value"] for volume in volumes] == [19, 5, 5]
    assert points == [0, [1, 2]]


async def test_each_chart_can_be_chosen(browser: Browser) -> None:
    async with serving() as server:
        async with (
            wired(server.url, "bob") as bob,
            wired(server.url, "carol") as carol,
            visiting(browser, server.url) as page,
        ):
            await bob.ask(**order("sell", 99, 90))
            modes = ("trades", "1m", "5m", "1h", "1d", "1s")
            for count, mode in enumerate(modes, 1):
                await page.check(f"[value='{mode}']", force=True)
                await carol.ask(**order("buy", count, 90))
                newest = page.locator("#tape tr").first
                await expect(newest).to_have_text(re.compile(f"90{count}$"))
            await page.check("[value='5m']", force=True)
            await page.reload()
            await expect(page.locator("[value='5m']")).to_be_checked()


# Screens and people ----------------------------------------------------------


async def busy(server: Server, wire: Wire) -> None:
    """Fill the market with long names and numbers."""
    for n in range(15):
        await wire.ask(**order("buy", 1_000, 90_000 - n))
        await wire.ask(**order("sell", 1_000, 90_100 + n))
    server.gateway.announce("no new orders for a while, " * 5)
    server.step(lambda: None)


@pytest.mark.parametrize(
    "width, height", [(360, 740), (820, 1180), (1280, 720), (1920, 1080)]
)
async def test_it_fits_the_screen(
    browser: Browser, width: int, height: int
) -> None:
    viewport = {"width": width, "height": height}
    symbols = tuple(f"LONG.NAME-{n}" for n in range(10)) + ("BOND",)
    async with serving(symbols=symbols) as server:
        async with (
            wired(server.url, "b" * 32) as wire,
            visiting(browser, server.url, viewport=viewport) as page,
        ):
            size = """() => {
                const { scrollWidth, scrollHeight } = document.documentElement;
                return [scrollWidth, scrollHeight];
            }"""
            await busy(server, wire)
            await sign_in(page, "a" * 32)
            if width < 700:
                await page.click("#quick-buy")
            await place(page, "buy", 1_000, "90050")
            if width < 700:
                await page.click("#ticket-close")
            await shows(page, "#orders", ".*AmendCancel")
            wide, high = await page.evaluate(size)
            assert wide <= width
            if width >= 1_100:
                assert high <= height


async def test_every_control_has_a_name(browser: Browser) -> None:
    async with serving() as server:
        async with visiting(browser, server.url) as page:
            await sign_in(page)
            await place(page, "buy", 1, "99")
            await shows(page, "#orders", ".*AmendCancel")
            nameless = await page.evaluate("""() => {
                    const all = (s) => [...document.querySelectorAll(s)];
                    const text = (node) => node?.textContent.trim();
                    const named = (node) =>
                        node.ariaLabel ||
                        text(byId(node.getAttribute("aria-labelledby")));
                    const byId = (id) => id && document.getElementById(id);
                    const ids = all("[id]").map(({ id }) => id);
                    return [
                        ...all("input, select").filter(
                            (node) => !text(node.labels[0]),
                        ),
                        ...all("button, th, a").filter(
                            (node) => !named(node) && !text(node),
                        ),
                        ...all("section, nav, dialog, [role=img]").filter(
                            (node) => !named(node),
                        ),
                        ...all("fieldset").filter(
                            (node) => !text(node.querySelector("legend")),
                        ),
                        ...all("th:not([scope])"),
                        ...all("[tabindex]").filter(
                            (node) => node.tabIndex > 0,
                        ),
                        ...all("[id]:not(svg *)").filter(
                            ({ id }, n) => ids.indexOf(id) !== n,
                        ),
                    ].map((node) => node.outerHTML);
                }""")
            assert nameless == []
            assert await page.locator("html").get_attribute("lang") == "en"
            for landmark in ("header", "nav", "main", "footer", "h1"):
                await expect(page.locator(landmark)).to_have_count(1)
            live = page.locator("[aria-live]")
            await expect(live).to_have_count(1)
            await expect(live).to_have_attribute("aria-live", "polite")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_contrast_is_enough(browser: Browser, scheme: Any) -> None:
    async with serving() as server:
        async with visiting(browser, server.url, color_scheme=scheme) as page:
            contrasts = await page.evaluate("""() => {
                    const probe = document.createElement("p");
                    document.body.append(probe);
                    const light = (name) => {
                        probe.style.color = `var(--${name})`;
                        const parts = getComputedStyle(probe)
                            .color.match(/[\\d.]+/g)
                            .slice(0, 3)
                            .map((part) => part / 255)
                            .map((part) =>
                                part <= 0.04045
                                    ? part / 12.92
                                    : ((part + 0.055) / 1.055) ** 2.4,
                            );
                        const [r, g, b] = parts;
                        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
                    };
                    const contrast = (one, other) => {
                        const pair = [light(one), light(other)];
                        return Math.max(...pair) / Math.min(...pair);
                    };
                    const found = {};
                    const words = "text muted buy sell accent warn".split(" ");
                    for (const word of words) {
                        for (const ground of ["panel", "ground"]) {
                            found[`${word} on ${ground}`] =
                                contrast(word, ground);
                        }
                    }
                    for (const ground of ["accent", "buy", "sell", "warn"]) {
                        found[`on ${ground}`] = contrast("on-strong", ground);
                    }
                    return found;
                }""")
            assert len(contrasts) == 16
            assert {k: v for k, v in contrasts.items() if v < 4.5} == {}


async def test_light_and_dark(browser: Browser) -> None:
    async with serving() as server:
        async with visiting(browser, server.url, color_scheme="light") as page:
            ground = """() =>
                getComputedStyle(document.body).backgroundColor"""
            button = page.locator("#theme")
            await page.click("#menu > summary")
            light = await page.evaluate(ground)
            await page.emulate_media(color_scheme="dark")
            await expect(button).to_have_text("☀ Light")
            dark = await page.evaluate(ground)
            assert dark != light
            await button.click()
            await expect(button).to_have_text("☾ Dark")
            assert await page.evaluate(ground) == light
            await page.reload()
            await expect(button).to_have_text("☾ Dark", use_inner_text=False)
            assert await page.evaluate(ground) == light
