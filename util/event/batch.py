"""Play several matches at a time, none of them with a team that is busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

from .record import Key


async def play_batch(
    teams: Mapping[Key, Collection[str]],
    play: Callable[[Key], Coroutine[Any, Any, None]],
    *,
    room: int,
    is_begun: Callable[[Key], bool],
) -> None:
    """Play matches, at most ``room`` at a time; raise what one raises.

    ``teams`` are those of each match. A match that another director has begun
    goes on at once, also if there is no room for it.
    """
    waiting = sorted(teams, key=lambda key: not is_begun(key))
    tasks: dict[asyncio.Task[None], Key] = {}
    try:
        while waiting or tasks:
            busy = [team for key in tasks.values() for team in teams[key]]
            for key in startable(
                waiting, teams, busy, room - len(tasks), is_begun
            ):
                waiting.remove(key)
                tasks[asyncio.create_task(play(key))] = key
            done, _ = await asyncio.wait(
                tasks, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                del tasks[task]
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def startable(
    waiting: Sequence[Key],
    teams: Mapping[Key, Collection[str]],
    busy: Collection[str],
    room: int,
    is_begun: Callable[[Key], bool],
) -> list[Key]:
    """Return the matches that may begin now, in their order."""
    taken = set(busy)
    found = []
    for key in waiting:
        is_free = room > 0 and taken.isdisjoint(teams[key])
        if is_free or is_begun(key):
            found.append(key)
            taken.update(teams[key])
            room -= 1
    return found
