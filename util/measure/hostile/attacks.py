"""All attacks, and the program that runs one of them.

``python -m util.measure.hostile.attacks ATTACK SECONDS PORT JSON TEXT`` has
the ports of the exchange: the native one and those of its doors.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys

from exchange.host.process import raise_file_limit
from util.measure.hostile import bots, doors
from util.measure.hostile.bots import Bot, Stage
from util.measure.lines import DOORS

NICENESS = 19  # of this process, where the system knows no idle class
FILES = 4_096  # open at a time

ATTACKS: dict[str, Bot] = {
    bot.__name__.replace("_", "-"): bot
    for bot in (
        bots.flood,
        bots.logins,
        bots.cancels,
        bots.filler,
        bots.deaf,
        bots.trickler,
        bots.junk,
        bots.handshakes,
        bots.thousand,
        bots.tables,
        bots.hit_and_run,
        doors.door_flood,
        doors.door_deaf,
        doors.door_junk,
        doors.door_hellos,
    )
}


async def main(attack: str, seconds: float, *ports: int) -> None:
    """Print a line, attack when one comes, and print the tally."""
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(NICENESS)
    raise_file_limit(FILES)
    stage = Stage(ports[0], seconds, dict(zip(DOORS, ports[1:])))
    print("ready", flush=True)
    sys.stdin.readline()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await ATTACKS[attack](stage)
    tally = stage.tally
    told = {"refused": tally.refused, "closed": tally.closed}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), *map(int, sys.argv[3:])))
