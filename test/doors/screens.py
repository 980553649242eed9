"""Make pictures of every state of the page, to be looked at.

    python -m test.doors.screens [FOLDER] [SCENE ...]
    python -m test.doors.screens publish

By default all SCENES, into screens/, which git ignores. Each state is shown in
both themes, and in four widths or, where they differ little, in two. The
second form makes nothing; it copies those that README and docs show.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from playwright.async_api import Browser

from test.doors import screens_trade, screens_watch
from test.doors.browsing import browsing
from test.doors.screens_market import WIDE, Photographer
from test.support import ROOT

THEMES = ("light", "dark")
Scene = Callable[[Photographer], Awaitable[None]]
SCENES: dict[str, Scene] = {
    "day": screens_trade.a_day,
    "phases": screens_trade.phases,
    "rounds": screens_trade.rounds,
    "troubles": screens_trade.troubles,
    "dozen": screens_trade.a_dozen,
    "wall": screens_watch.walls,
    "crowd": screens_watch.a_crowd,
    "replay": screens_watch.a_replay,
}
SCREENS = ROOT / "screens"
PUBLISHED = {
    "page-dark.png": "trade-1280-dark.png",
    "page-phone.png": "trade-390-dark.png",
    "wall.png": "wall-10-1920-dark.png",
}


async def photograph(folder: Path, browser: Browser, scene: Scene) -> None:
    for theme in THEMES:
        options: Any = {"viewport": WIDE, "color_scheme": theme}
        context = await browser.new_context(**options)
        page = await context.new_page()
        await scene(Photographer(folder, page, theme))
        await context.close()


async def photograph_all(folder: Path, names: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    async with browsing() as browser:
        for name in names:
            await photograph(folder, browser, SCENES[name])


def main() -> None:
    """Make the pictures, or copy the published ones."""
    if sys.argv[1:] == ["publish"]:
        for name, made in PUBLISHED.items():
            shutil.copyfile(SCREENS / made, ROOT / "docs" / name)
        return
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SCREENS
    asyncio.run(photograph_all(folder, sys.argv[2:] or list(SCENES)))
    print(f"{len(list(folder.glob('*.png')))} pictures in {folder}")


if __name__ == "__main__":
    main()
