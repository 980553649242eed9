"""Run the front of an event: ``python -m util.event.front TABLE``.

The director starts it. Exit status: 0 stopped, 2 a wrong table or setting, or
a port is in use.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

from exchange.host.market_file import SettingsError
from exchange.host.process import new_event_loop, raise_file_limit
from exchange.host.settings import CONNECTIONS, load_settings
from util.cli import failed, new_parser, on_stop, set_up_output

from .server import Front
from .table import TableError

TOOL = "event.front"
# Two sockets for each connection, and what the process has open itself.
FILES = 2 * CONNECTIONS + 100


async def serve(path: Path) -> None:
    """Serve until a signal says to stop."""
    front = Front(path, load_settings())
    listen = front.table.listen
    serving = asyncio.create_task(front.run())
    on_stop(serving.cancel)
    print(f"front on {listen.host}:{listen.native}", flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.event.front``; return the exit status."""
    parser = new_parser(TOOL, "Join teams with the exchanges of their matches")
    parser.add_argument("table", type=Path, metavar="TABLE")
    options = parser.parse_args(arguments)
    set_up_output()
    raise_file_limit(FILES)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(serve(options.table))
    except (TableError, SettingsError, OSError) as error:
        return failed(TOOL, error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
