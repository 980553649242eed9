"""The page of an event, in a real browser."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

from playwright.async_api import expect

from test.doors.test_page import browsing
from test.util.event.playing import Playing
from util.event.file import read_event
from util.event.pages import Pages
from util.event.record import Key, Record
from util.event.serve import Handler, PagesServer


async def test_before_the_first_score_it_shows_teams_and_timetable(
    tmp_path: Path,
) -> None:
    playing = Playing(tmp_path, rounds="AB", trading=60)
    event = read_event(playing.path)
    with Record.of(event.folder) as record:
        record.begin(Key("A", "all", 1), "start", number=1)
        record.done(Key("A", "all", 1), "open")
    pages = Pages(event)
    with PagesServer(event, partial(Handler, lambda: pages)) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            async with browsing() as browser:
                page = await browser.new_page()
                await page.goto(f"http://127.0.0.1:{playing.pages}/")
                cells = page.locator("#rows td")
                await expect(cells).to_have_text(["ORANGE", "APPLE"])
                await expect(page.locator("#empty")).to_be_visible()
                await expect(page.locator("#playing")).to_have_text(
                    "Round A: trading. Next: B"
                )
                await expect(page.locator("#rounds tr")).to_have_text(
                    ["A100 %1:00trading", "B100 %1:00to come"]
                )
        finally:
            server.shutdown()
            serving.join()
