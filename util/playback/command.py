"""Serve a recording until SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from exchange.host.keyring import KeyRing

from ..cli import failed, on_stop
from .recording import Recording
from .server import Playback, Show
from .view import Rights
from .viewer import Fair

TOOL = "replay"


def run(
    journal: Path,
    *,
    title: str,
    hostname: str,
    port: int,
    keys: Path | None,
    is_published: bool,
    has_leaderboard: bool = True,
    start: int | None = None,
    end: int | None = None,
    make_fair: Callable[[Recording], Fair | None] = lambda recording: None,
) -> int:
    """Read a journal and serve it; return the exit status.

    ``has_leaderboard``: others than administrators see it.
    ``start`` and ``end`` are the first and the last time that is shown.
    ``make_fair`` returns what tells the hidden values. Raises JournalError.
    """
    ring = None if keys is None else KeyRing(keys)
    if ring is not None and (ring.problem or not ring.is_needed):
        return failed(TOOL, ring.problem or f"{keys}: there are no keys")
    with closing(Recording(journal, start=start, end=end)) as recording:
        show = Show(
            recording=recording,
            title=title,
            rights=Rights(
                keys=ring,
                is_published=is_published,
                public_leaderboard=has_leaderboard,
            ),
            fair=make_fair(recording),
        )
        return asyncio.run(_serve(show, hostname, port))


async def _serve(show: Show, hostname: str, port: int) -> int:
    stop = asyncio.Event()
    on_stop(stop.set)
    playback = Playback(show)
    try:
        await playback.start(hostname, port)
    except OSError as error:
        return failed(TOOL, error)
    page = playback.url.replace("ws", "http", 1)
    print(f"{show.title} on {page}/replay | {playback.url}", flush=True)
    await stop.wait()
    await playback.stop()
    return 0
