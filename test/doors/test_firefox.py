"""The sessions of other tests of the page again, in Firefox.

They run with the `browser` of this module. Firefox can only be told at its
start which theme the system has, so that test is one of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from test.doors.browsing import browsing_firefox, visiting
from test.doors.test_page import (
    test_an_order_is_amended_and_canceled,
    test_an_order_trades,
    test_markup_could_not_be_made,
    test_the_keyboard_is_enough,
    test_the_page_reconnects_to_a_killed_exchange,
)
from test.doors.test_replay_page import (
    test_a_recording_is_shown_at_any_moment,
)
from test.doors.test_screen import (
    test_everything_is_within_a_small_screen,
    test_one_enter_is_one_order,
    test_the_ladder_trades,
)
from test.doors.test_wall import (
    test_a_wall_says_what_is_missing,
    test_a_wall_shows_the_round,
)
from test.support import serving

__all__ = [
    "test_a_recording_is_shown_at_any_moment",
    "test_a_wall_says_what_is_missing",
    "test_a_wall_shows_the_round",
    "test_an_order_is_amended_and_canceled",
    "test_an_order_trades",
    "test_everything_is_within_a_small_screen",
    "test_markup_could_not_be_made",
    "test_one_enter_is_one_order",
    "test_the_keyboard_is_enough",
    "test_the_ladder_trades",
    "test_the_page_reconnects_to_a_killed_exchange",
]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with browsing_firefox() as browser:
        yield browser


THEME = "layout.css.prefers-color-scheme.content-override"
DARK, LIGHT = 0, 1
GROUND = "() => getComputedStyle(document.body).backgroundColor"


async def test_it_has_the_theme_of_the_system_until_one_is_chosen() -> None:
    grounds: list[str] = []
    async with serving() as server:
        for theme, offer in ((LIGHT, "☾ Dark"), (DARK, "☀ Light")):
            async with (
                browsing_firefox(**{THEME: theme}) as browser,
                visiting(browser, server.url) as page,
            ):
                await page.click("#menu > summary")
                button = page.locator("#theme")
                await expect(button).to_have_text(offer)
                grounds.append(await page.evaluate(GROUND))
                await button.click()
                await expect(button).not_to_have_text(offer)
                await page.reload()
                grounds.append(await page.evaluate(GROUND))
    light, dark = grounds[:2]
    assert light != dark
    assert grounds == [light, dark, dark, light]
