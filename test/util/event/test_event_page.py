"""The page of an event, in a real browser."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from playwright.async_api import Page, expect

from test.doors.browsing import browsing
from test.util.event.playing import Playing
from util.event.draws import next_batch
from util.event.file import Event, read_event
from util.event.pages import Pages
from util.event.record import Key, Record
from util.event.serve import Handler, PagesServer
from util.event.uptime import Uptime, write_uptime


@contextlib.asynccontextmanager
async def opened(event: Event) -> AsyncIterator[Page]:
    """Serve the page of an event, and open it."""
    pages = Pages(event)
    handler = partial(Handler, lambda: pages)
    with PagesServer("127.0.0.1", event.event.pages, handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            async with browsing() as browser:
                page = await browser.new_page()
                await page.goto(f"http://127.0.0.1:{event.event.pages}/")
                yield page
        finally:
            server.shutdown()
            serving.join()


async def test_before_the_first_score_it_shows_teams_and_timetable(
    tmp_path: Path,
) -> None:
    event = read_event(Playing(tmp_path, rounds="AB", trading=60).path)
    with Record.of(event.folder) as record:
        record.begin(Key("A", "all", 1), "start", number=1)
        record.done(Key("A", "all", 1), "open")
    async with opened(event) as page:
        cells = page.locator("#rows td")
        await expect(cells).to_have_text(["ORANGE", "APPLE"])
        await expect(page.locator("#empty")).to_be_visible()
        await expect(page.locator("#playing")).to_have_text(
            "Round A: trading. Next: B"
        )
        await expect(page.locator("#rounds tr")).to_have_text(
            ["A100 %1:00trading", "B100 %1:00to come"]
        )
        await expect(page.locator("#practice")).to_be_hidden()


async def test_it_shows_the_matches_that_are_played_side_by_side(
    tmp_path: Path,
) -> None:
    playing = Playing(tmp_path, rounds="A", trading=3_600)
    playing.change("[match]", "[match]\nper_match = 2")
    playing.change("ORANGE = {}", "ORANGE = {}\nLEMON = {}\nPLUM = {}")
    event = read_event(playing.path)
    live = []
    with Record.of(event.folder) as record:
        keys = next_batch(event, record)
        for key in keys:
            record.begin(key, "start", number=1)
            record.done(key, "open")
            pnls = {"ORANGE": 7} if key.match == "01" else {"PLUM": -5}
            clock = {"state": "open", "left_ms": 61_000, "pnls": pnls}
            live.append({"round": "A", "match": key.match, **clock})
    value = {"ts": time.time_ns() // 1_000, "matches": live}
    (event.folder / "live.json").write_text(json.dumps(value))
    practice = event.folder / "practice"
    practice.mkdir()
    slower = Uptime("slower", 9_001, is_up=True, up_s=99.0, down_s=1.0)
    write_uptime(practice, [slower])
    async with opened(event) as page:
        lines = page.locator("#matches li")
        await expect(lines).to_have_count(2)
        await expect(lines.first).to_contain_text("1:01")
        link = lines.first.locator("a")
        await expect(link).to_have_attribute(
            "href", f"http://127.0.0.1:{event.event.front}/live/A/01/"
        )
        words = "Round A: 2 matches. Next: A/03"
        await expect(page.locator("#playing")).to_contain_text(words)
        await expect(page.locator("#board li")).to_have_text(
            ["ORANGE+7", "PLUM-5"]
        )
        await expect(page.locator("#servers tr")).to_have_text(
            ["slower9001up99.0 %"]
        )
