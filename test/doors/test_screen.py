"""What the page must not get wrong, and what a trader does with it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from test.doors.browsing import (
    FRAME,
    admin,
    book_shows,
    ladder,
    place,
    shows,
    sign_in,
    trade,
    visiting,
    write,
)
from test.support import (
    PATIENCE_S,
    add_key,
    order,
    serving,
    wired,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

SMALL = {"width": 1280, "height": 720}
PHONE = {"width": 390, "height": 844}
TRADES = 30  # while prices are compared
# In each frame, all places that show the last price.
WATCH = """() => {
    window.seen = [];
    const text = (s) => document.querySelector(s)?.textContent ?? "";
    const number = (words) => /[\\d,]+/.exec(words)?.[0] ?? "";
    const look = () => {
        window.seen.push([
            number(text("#instruments [aria-pressed=true] span")),
            number(text("#last")),
            number(document.title.replace(/ BOND.*/, "")),
            number(text("#overview-rows tr td:nth-child(2)")),
        ].join());
        requestAnimationFrame(look);
    };
    look();
}"""


async def until_page(page: Page, condition: str, wanted: Any = True) -> None:
    """Wait until a function in the page returns a value."""
    async with asyncio.timeout(PATIENCE_S):
        while (found := await page.evaluate(condition)) != wanted:
            await page.evaluate(FRAME)
            assert found is not None or wanted is not None


# Seen broken -----------------------------------------------------------------


async def test_all_places_show_the_same_last_price(browser: Browser) -> None:
    async with (
        serving() as server,
        wired(server.url, "bob") as bob,
        wired(server.url, "carol") as carol,
        visiting(browser, server.url) as page,
    ):
        await trade(bob, carol, 500)
        await expect(page.locator("#last")).to_have_text("500")
        await page.evaluate(WATCH)
        for n in range(TRADES):
            await trade(bob, carol, 500 + n * 7 % 41)
            await page.evaluate(FRAME)
        last = str(500 + (TRADES - 1) * 7 % 41)
        await expect(page.locator("#last")).to_contain_text(last)
        seen: list[str] = await page.evaluate("window.seen")
        assert len(set(seen)) > 2
        # The overview is drawn only while it is shown.
        assert [s for s in seen if len(set(s.split(",")[:3])) > 1] == []
        await page.click("#overview-open")
        await expect(page.locator("#overview-rows td").nth(1)).to_have_text(
            last
        )


async def test_the_axis_shows_the_last_price_wherever_one_scrolled(
    browser: Browser,
) -> None:
    async with (
        serving() as server,
        visiting(browser, server.url) as page,
    ):
        found = await page.evaluate("""async () => {
            const { Chart } = await import("/chart.js");
            const { Lines } = await import("/chart_lines.js");
            const { Book, Candles, Tick } = await import("/market.js");
            const { Prices } = await import("/prices.js");
            const box = document.createElement("div");
            box.style.width = box.style.height = "400px";
            document.body.append(box);
            const chart = new Chart(box);
            chart.setTick(new Tick("0.5"));
            const prices = new Prices();
            prices.take("BOND", 777, 1);
            const state = { symbol: "BOND", book: new Book(), prices };
            const lines = new Lines(state, chart, () => {});
            const rows = Array.from({ length: 300 }, (_, n) =>
                [n * 1e6, n, n, n, n, 1]);
            chart.drawCandles(rows);
            const frame = () => new Promise(requestAnimationFrame);
            const scale = chart.chart.timeScale();
            await frame(); await frame();
            let following = chart.isFollowing;
            scale.setVisibleLogicalRange({ from: 10, to: 60 });
            await frame(); await frame();
            const panned = chart.isFollowing;
            lines.draw();
            const labels = [chart.candles, chart.line].map((series) => [
                series.options().lastValueVisible,
                series.priceLines()
                    .map((line) => line.options())
                    .filter((line) => line.axisLabelVisible)
                    .map(({ price }) => price),
            ]);
            chart.latest();
            await frame(); await frame();
            const { to } = scale.getVisibleLogicalRange();
            // Few bars begin at the left edge.
            chart.drawCandles(rows.slice(0, 5));
            await frame(); await frame();
            const { from } = scale.getVisibleLogicalRange();
            box.remove();
            return [following, panned, labels, to > 299, Math.round(from)];
        }""")
        assert found == [
            True,
            False,
            [[False, [388.5]], [False, []]],
            True,
            0,
        ]


async def test_a_new_round_is_a_new_picture(
    browser: Browser, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    token = add_key(keys, "boss", is_admin=True)
    async with (
        serving(keys=keys) as server,
        wired(server.url, "boss", token=token) as boss,
        wired(server.url, "bob", token=add_key(keys, "bob")) as bob,
        wired(server.url, "carol", token=add_key(keys, "carol")) as carol,
        visiting(browser, server.url) as page,
    ):
        await trade(bob, carol, 500)
        await shows(page, "#tape", "[0-9:]{8}▲ buy5001")
        await admin(boss, "reset")
        await expect(page.locator("#round")).to_have_text("Round 2")
        await expect(page.locator("#last")).to_have_text("no trade yet")
        await shows(page, "#tape")
        await expect(page.locator("#trades .empty")).to_be_visible()
        tab = page.locator("#instruments button span")
        await expect(tab).to_be_empty()
        await trade(bob, carol, 600)
        await shows(page, "#tape", "[0-9:]{8}▲ buy6001")
        # A page that comes later sees the same.
        await page.reload()
        await expect(page.locator("#round")).to_have_text("Round 2")
        await shows(page, "#tape", "[0-9:]{8}▲ buy6001")
        await page.click("#menu > summary")
        await page.check("#earlier input")
        await shows(page, "#tape", "[0-9:]{8}▲ buy6001", "[0-9:]{8}▲ buy5001")


async def test_who_comes_later_is_told_what_was_said(
    browser: Browser, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    token = add_key(keys, "boss", is_admin=True)
    async with (
        serving(keys=keys) as server,
        wired(server.url, "boss", token=token) as boss,
    ):
        await admin(boss, "message", message="lunch at noon")
        await admin(boss, "news", headline="Rain", body="It falls\nhere.")
        await admin(
            boss, "phase", symbol="BOND", phase="halted", reopen_ms=3_600_000
        )
        async with visiting(browser, server.url) as page:
            messages = page.locator("#messages")
            for text in ("lunch at noon", "News: Rain", "It falls\nhere."):
                await expect(messages).to_contain_text(text)
            why = page.locator("#why")
            await expect(why).to_have_text(
                re.compile(r"^r, opens in (60:00|59:\d\d)$")
            )
            await expect(page.locator("#news .empty")).to_be_hidden()


async def test_the_address_names_what_is_shown(browser: Browser) -> None:
    async with serving(symbols=("BOND", "ETF")) as server:
        async with visiting(browser, server.url) as page:
            for wrong in ("#FOO", "#%E0%A4%A", "#etf"):
                await page.evaluate("(h) => { location.hash = h; }", wrong)
                await until_page(page, "() => location.hash", "#BOND")
                await expect(page.locator("#messages")).to_contain_text(
                    "is not listed"
                )
            await page.goto(f"{server.url.replace('ws', 'http', 1)}/#NO")
            await page.reload()
            await until_page(page, "() => location.hash", "#BOND")
            await expect(page.locator("#chart-title")).to_have_text("BOND")


async def test_no_old_result_stands_below_a_complaint(
    browser: Browser,
) -> None:
    async with serving() as server:
        async with visiting(browser, server.url) as page:
            await sign_in(page)
            await place(page, "buy", 1, "99")
            result = page.locator("#ticket-result")
            await expect(result).to_contain_text("accepted")
            await page.fill("#ticket-qty", "5000")  # typing clears it
            await expect(result).to_be_empty()
            await page.fill("#ticket-qty", "1")
            await page.click("#ticket-form [type=submit]")
            await expect(result).to_contain_text("accepted")
            # As a browser that fills a form in: no input event.
            await page.eval_on_selector(
                "#ticket-qty", "(field) => { field.value = 5000; }"
            )
            await page.click("#ticket-form [type=submit]")
            await expect(result).to_be_empty()


async def test_the_leaderboard_agrees_with_the_own_panel(
    browser: Browser,
) -> None:
    """Also between two answers of the exchange."""
    async with serving() as server:
        async with (
            wired(server.url, "bob") as bob,
            visiting(browser, server.url) as page,
        ):
            await sign_in(page)
            await bob.ask(**order("sell", 5, 100))
            await place(page, "buy", 5, "100")
            await shows(page, "#leaderboard", ".*alice.*", ".*bob.*")
            seen = await page.evaluate("""async () => {
                const text = (s) => document.querySelector(s)?.textContent;
                const seen = [];
                for (let n = 0; n < 40; n += 1) {
                    await new Promise(requestAnimationFrame);
                    seen.push([text("#equity"), text(".us td:last-child")]);
                }
                return seen;
            }""")
            await bob.ask(**order("sell", 1, 140))
            await bob.ask(**order("buy", 1, 130))
            await expect(page.locator("#equity")).to_have_text("150")
            seen += [
                await page.evaluate("""() => ["#equity", ".us td:last-child"]
                    .map((s) => document.querySelector(s).textContent)""")
            ]
            assert [pair for pair in seen if len(set(pair)) > 1] == []


async def test_everything_is_within_a_small_screen(browser: Browser) -> None:
    symbols = tuple(f"SYMBOL-{n}" for n in range(14))
    async with serving(symbols=symbols) as server:
        async with visiting(browser, server.url, viewport=SMALL) as page:
            await sign_in(page)
            about = {"symbol": "SYMBOL-0"}
            async with wired(server.url, "bob") as bob:
                await bob.ask(**order("sell", 25, 100, **about))
                await bob.ask(**order("sell", 5, 110, **about))
                for n in range(25):
                    async with wired(server.url, f"t{n:02}") as wire:
                        await wire.ask(**order("buy", 1, 100, **about))
                await place(page, "buy", 5, "110")
                await expect(page.locator("#position")).to_contain_text("+5")
            await place(page, "sell", 1, "500")
            await shows(page, "#orders", ".*AmendCancel")
            cut = await page.evaluate("""() => {
                const within = (node) => {
                    const { left, right, top, bottom } =
                        node.getBoundingClientRect();
                    return left >= 0 && right <= innerWidth + 1 &&
                        top >= 0 && bottom <= innerHeight + 1;
                };
                const shown = (node) => node.checkVisibility();
                const buttons = document.querySelectorAll(
                    "header > button, #orders button, #ticket button, " +
                    "#tabs-left, #tabs-right, #side-tabs button, tr.us td");
                return [...buttons].filter(shown)
                    .filter((node) => !within(node))
                    .map((node) => node.outerHTML);
            }""")
            assert cut == []
            # The own row is pinned, though 20 others are ahead.
            await expect(page.locator("tr.us td").last).to_be_in_viewport()
            await expect(page.locator("tr.us td").first).to_have_text("26")
            right = page.locator("#tabs-right")
            last = page.locator("#instruments button").last
            await expect(last).not_to_be_in_viewport()
            async with asyncio.timeout(PATIENCE_S):
                while await right.is_enabled():
                    await right.click()
                    await page.evaluate(FRAME)
            await expect(last).to_be_in_viewport()


async def test_the_focus_and_the_words_of_what_is_empty(
    browser: Browser,
) -> None:
    async with serving() as server:
        async with visiting(browser, server.url) as page:
            focus = "() => document.activeElement.id"
            await page.click("#sign-in")
            await expect(page.locator("#key-hint")).to_contain_text("empty")
            await page.keyboard.type("alice")
            await page.keyboard.press("Enter")
            await expect(page.locator("#own-title")).to_have_text("alice")
            await until_page(page, focus, "ticket-qty")
            for tab, words in {
                "orders": "No open orders",
                "fills": "No fills yet",
                "positions": "No position",
            }.items():
                await page.click(f"#tab-{tab}")
                await expect(page.locator(f"#{tab}-empty")).to_have_text(words)
            for table in ("#trades", "#leaders", "#news"):
                await expect(page.locator(f"{table} .empty")).to_be_visible()
            await expect(page.locator("#depth")).to_have_text(
                "Nobody bids or offers"
            )
            await page.click("#sign-out")
            await until_page(page, focus, "sign-in")


# A ladder and a ticket -------------------------------------------------------


async def cell(page: Page, price: str, column: int) -> Any:
    """Return the cell of the ladder in the row of a price."""
    row = page.locator("#ladder tr").filter(
        has=page.locator("td.price", has_text=re.compile(f"^{price}$"))
    )
    return row.locator("td").nth(column)


async def test_the_ladder_trades(browser: Browser) -> None:
    async with serving() as server:
        async with (
            wired(server.url, "bob") as bob,
            visiting(browser, server.url) as page,
        ):
            for price in (97, 98):
                await bob.ask(**order("buy", 4, price))
            for price in (101, 103):
                await bob.ask(**order("sell", 2, price))
            await sign_in(page)
            await book_shows(
                page,
                [["98", "4", ""], ["97", "4", ""]],
                [["101", "2", ""], ["103", "2", ""]],
            )
            # Rows for prices that nobody asks for, and sums behind.
            prices = await page.evaluate(
                "() => [...document.querySelectorAll('#ladder .price')]"
                ".map((cell) => cell.textContent)"
            )
            assert prices == sorted(prices, key=int, reverse=True)
            assert {"99", "100", "102"} < set(prices)
            sums = await page.evaluate(
                "() => [...document.querySelectorAll('#ladder .ask .upto')]"
                ".map((cell) => cell.textContent).filter(Boolean)"
            )
            assert sums == ["4", "2"]
            # The first click fills, the second sends.
            await (await cell(page, "99", 1)).click()
            await expect(page.locator("#ticket-price")).to_have_value("99")
            assert await ladder(page) == [
                [["98", "4", ""], ["97", "4", ""]],
                [["101", "2", ""], ["103", "2", ""]],
            ]
            await (await cell(page, "99", 1)).click()
            await expect(await cell(page, "99", 0)).to_have_text("1")
            # A click on own lots cancels them.
            await (await cell(page, "99", 0)).click()
            await expect(await cell(page, "99", 0)).to_have_text("")
            await shows(page, "#orders")
            # The same by keys.
            await page.keyboard.press("l")
            await page.keyboard.press("ArrowRight")
            start = await page.locator("#ladder .at-sell .price").inner_text()
            for _ in range(abs(int(start) - 102)):
                up = int(start) < 102
                await page.keyboard.press("ArrowUp" if up else "ArrowDown")
            await page.keyboard.press("Enter")
            await page.keyboard.press("Enter")
            await expect(await cell(page, "102", 4)).to_have_text("1")
            await page.keyboard.press("x")
            await shows(page, "#orders")
            # Rows stay until the best prices leave them.
            await bob.ask(type="cancel_all")
            await bob.ask(**order("sell", 1, 900))
            await page.mouse.move(1_000, 300)
            await expect(await cell(page, "900", 3)).to_contain_text("1")


AXES = [  # bids, asks, rows and ticks in a row that the ladder has then
    ([99], [101], [104, 103, 102, 101, 100, 99, 98, 97, 96], 1),
    ([100], [1_101], [1_102, 1_101, 1_100, None, 101, 100, 99, 98, 97], 1),
    ([100, 90], [101], [125, 120, 115, 110, 105, 100, 95, 90, 85], 5),
    ([], [7], [11, 10, 9, 8, 7, 6, 5, 4, 3], 1),
    ([], [], [54, 53, 52, 51, 50, 49, 48, 47, 46], 1),
]


async def test_the_rows_of_the_ladder(browser: Browser) -> None:
    async with serving() as server, visiting(browser, server.url) as page:
        found = await page.evaluate(
            """async (books) => {
                const { Axis } = await import("/axis.js");
                const { Book } = await import("/market.js");
                const made = books.map(([bids, asks]) => {
                    const book = new Book();
                    for (const price of bids) book.bids.set(price, 1);
                    for (const price of asks) book.asks.set(price, 1);
                    const axis = new Axis();
                    axis.fit("BOND", book, 9, 50, false);
                    return [axis.rows, axis.step];
                });
                const book = new Book();
                book.bids.set(99, 1);
                book.asks.set(101, 1);
                const axis = new Axis();
                const tops = [];
                const look = (isHeld) => {
                    axis.fit("BOND", book, 9, 50, isHeld);
                    tops.push([axis.rows[0], axis.isAway]);
                };
                look(false);
                book.asks.set(101, 0);
                book.asks.set(102, 1);
                look(false); // they stand still
                book.asks.set(102, 0);
                book.bids.set(104, 1);
                look(true); // and under a pointer
                look(false);
                axis.move(3);
                look(false);
                axis.centre();
                look(false);
                return [made, tops];
            }""",
            [[bids, asks] for bids, asks, *_ in AXES],
        )
        assert found[0] == [[rows, step] for *_, rows, step in AXES]
        assert found[1] == [
            [104, False],
            [104, False],
            [104, True],
            [112, False],
            [118, False],
            [112, False],
        ]


async def test_one_enter_is_one_order(browser: Browser) -> None:
    async with serving() as server:
        async with (
            wired(server.url, "bob") as bob,
            visiting(browser, server.url) as page,
        ):
            await bob.ask(**order("sell", 50, 101))
            await bob.ask(**order("buy", 50, 99))
            await sign_in(page)
            price = page.locator("#ticket-price")
            button = page.locator("#ticket-form [type=submit]")
            await page.mouse.move(5, 5)
            await page.evaluate("() => document.activeElement.blur()")
            await expect(price).to_have_value("101")  # the best opposite
            await page.keyboard.press("s")
            await expect(price).to_have_value("99")
            await page.keyboard.press("b")
            await expect(price).to_have_value("101")
            await write(page, "#ticket-qty", "2")
            await expect(button).to_have_text(
                "Buy 2 BOND at 101 costs 202 · position 0 → +2"
            )
            await page.keyboard.down("Enter")
            for _ in range(5):
                await page.keyboard.down("Enter")  # held down
            await page.keyboard.up("Enter")
            await expect(page.locator("#position")).to_have_text("BOND +2")
            await page.click("[aria-label='One tick lower']")
            await expect(price).to_have_value("100")
            await page.click("#tab-positions")
            await shows(
                page,
                "#positions",
                r"BOND\+2101.010100Flatten",
                "All00",
            )
            # An unusually large order asks once.
            await write(page, "#ticket-qty", "40")
            await page.keyboard.press("Enter")
            dialog = page.locator("#confirm-dialog")
            await expect(dialog).to_contain_text("You usually send 2")
            await page.keyboard.press("Enter")
            await expect(dialog).to_be_hidden()
            await book_shows(
                page,
                [["100", "40", "40"], ["99", "50", ""]],
                [["101", "48", ""]],
            )
            await write(page, "#ticket-qty", "41")
            await page.keyboard.press("Escape")
            await expect(price).not_to_have_value("100")
            await page.click("#flatten")
            await expect(page.locator("#position")).to_have_text("BOND 0")


async def test_the_ticket_says_what_it_sends(browser: Browser) -> None:
    """Also at once after another instrument is shown."""
    async with serving(symbols=("BOND", "ETF")) as server:
        async with (
            wired(server.url, "bob") as bob,
            visiting(browser, server.url) as page,
        ):
            await bob.ask(**order("sell", 1, 200, symbol="ETF"))
            await sign_in(page)
            await write(page, "#ticket-price", "77")
            sent = await page.evaluate("""() => {
                location.hash = "ETF";
                const form = document.getElementById("ticket-form");
                dispatchEvent(new HashChangeEvent("hashchange"));
                form.requestSubmit();
                return document.getElementById("ticket-price").value;
            }""")
            assert sent in ("", "200")
            button = page.locator("#ticket-form [type=submit]")
            await page.keyboard.press("Escape")
            await expect(button).to_contain_text("Buy 1 ETF at 200")
            assert not server.gateway.engine.accounts["alice"].open_orders


async def test_offers_and_conversions_are_accepted(
    browser: Browser, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    token = add_key(keys, "boss", is_admin=True)
    own = add_key(keys, "alice")
    market = tmp_path / "market.toml"
    market.write_text(
        "[instruments.FUND]\n[instruments.FUND.convert]\nlot = 5\nfee = 10\n"
        "basket = { BOND = 2 }\n[instruments.BOND]\n"
    )
    async with (
        serving(keys=keys, market=market) as server,
        wired(server.url, "boss", token=token) as boss,
        visiting(browser, server.url) as page,
    ):
        await sign_in(page, token=own)
        offered = {"tender_id": "block-7", "symbol": "BOND", "side": "buy"}
        await admin(
            boss, "tender", qty=20, price=90, valid_ms=3_600_000, **offered
        )
        offer = page.locator("#tenders li")
        await expect(offer).to_contain_text("Offer: buy 20 BOND at 90")
        await offer.locator("button").click()
        await expect(offer).to_have_count(0)
        position = page.locator("#position")
        await expect(position).to_contain_text("BOND +20")
        await page.click("#convert > summary")
        await write(page, "#convert-qty", "10")
        await page.click("#convert [value=buy]")
        await expect(position).to_have_text("FUND +10")
        await expect(page.locator("#ticket-result")).to_have_text(
            "10 FUND made"
        )


async def test_all_orders_and_fills_can_be_saved(browser: Browser) -> None:
    async with serving() as server:
        async with (
            wired(server.url, "bob") as bob,
            wired(server.url, "alice") as alice,
        ):
            await bob.ask(**order("sell", 1_000, 100))
            count = 1_050  # more than a page of the table
            for _ in range(count // 50):
                await alice.send(*[order("buy", 1, 100) for _ in range(50)])
            await alice.ask(**order("buy", 9, 90))
            # Bob's rest of 1,000 lots is gone: 50 of them rest at 100.
            async with visiting(browser, server.url) as page:
                await sign_in(page)
                await page.click("#tab-fills")
                await expect(page.locator("#fills-pager")).to_contain_text(
                    "1 of 20"
                )
                for what, lines in (("fills", 1_000), ("orders", 1_051)):
                    await page.click(f"#tab-{what}")
                    async with page.expect_download() as event:
                        await page.click(f"#{what}-csv")
                    download = await event.value
                    text = Path(await download.path()).read_text()
                    assert len(text.splitlines()) == lines + 1
                await page.click("#tab-orders")
                await page.select_option("#orders-side", "sell")
                await expect(page.locator("#orders-empty")).to_be_visible()


async def test_the_phone_has_what_a_thumb_needs(browser: Browser) -> None:
    async with serving() as server:
        async with (
            wired(server.url, "bob") as bob,
            visiting(
                browser, server.url, viewport=PHONE, has_touch=True
            ) as page,
        ):
            await bob.ask(**order("sell", 3, 101))
            await sign_in(page)
            buy = page.locator("#quick-buy")
            await expect(buy).to_have_text("▲ Buy 101")
            await expect(buy).to_be_in_viewport()
            small = await page.evaluate("""() =>
                [...document.querySelectorAll("button, select, #ladder tr")]
                    .filter((node) => node.checkVisibility())
                    .filter((node) => node.offsetHeight < 44)
                    .map((node) => node.outerHTML.slice(0, 60))""")
            assert small == []
            assert await page.locator("#ladder tr").count() == 9
            await buy.click()
            await write(page, "#ticket-qty", "2")
            await page.click("#ticket-form [type=submit]")
            await expect(page.locator("#position")).to_have_text("BOND +2")
            await page.click("#ticket-close")
            await expect(page.locator("#ticket")).to_be_hidden()
