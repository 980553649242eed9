"""The command line of the server: settings in, exit status out.

Exit status: 0 after a signal, 1 after a failure inside, 2 if the exchange
cannot start, 3 if another process leads, 130 if a signal ends it before it
listens.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable
from typing import Protocol

from exchange.host import logs, printing
from exchange.host.looks import Looks
from exchange.host.market_file import SettingsError
from exchange.host.membership import exit_status
from exchange.host.process import (
    GC_THRESHOLDS,
    Signals,
    announce_port,
    forget_port,
    new_event_loop,
    prepare_signals,
)
from exchange.host.settings import Settings, load_settings
from exchange.journal.sqlite import JournalError


class Server(Protocol):
    """What `run` needs of a server."""

    failure: asyncio.Future[Exception]
    port: int

    @property
    def looks(self) -> Looks:
        """Looks at the files that a signal asks to read again."""

    @property
    def greeting(self) -> str:
        """The line that is printed at the start."""

    async def start(self) -> None:
        """Listen."""

    async def stop(self) -> None:
        """End in order."""


def run(make: Callable[[Settings], Server]) -> int:
    """Read the settings, run the server of them; return the exit status."""
    prepare_signals()
    with printing.in_threads():
        try:
            settings = load_settings(sys.argv[1:])
            logs.set_up(settings.log)
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                return runner.run(_serve(make, settings))
        except KeyboardInterrupt:  # before it listened
            return 130
        except (SettingsError, JournalError, OSError) as error:
            print(f"server.py: {error}", file=sys.stderr)
            return 2


async def _serve(
    make: Callable[[Settings], Server], settings: Settings
) -> int:
    """Run a server until a signal or a failure; return the exit status."""
    gc.set_threshold(*GC_THRESHOLDS)
    forget_port(settings.port_file)
    server = make(settings)
    await server.start()
    gc.freeze()
    signals = Signals()
    announce_port(settings.port_file, server.port)
    print(server.greeting)
    async for _ in signals.reloads(server.failure):
        server.looks.reload()
    await server.stop()
    failure = server.failure
    return exit_status(failure.result() if failure.done() else None)
