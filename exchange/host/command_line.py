"""The command line of the server: settings in, exit status out.

Exit status: 0 after a signal, 1 after a failure inside, 2 if the exchange
cannot start, 130 if a signal ends it before it listens.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine

from exchange.host import logs, printing
from exchange.host.market_file import SettingsError
from exchange.host.process import new_event_loop, prepare_signals
from exchange.host.settings import Settings, load_settings
from exchange.journal.sqlite import JournalError


def run(serve: Callable[[Settings], Coroutine[None, None, int]]) -> int:
    """Read the settings and run ``serve``; return the exit status."""
    prepare_signals()
    with printing.in_threads():
        try:
            settings = load_settings(sys.argv[1:])
            logs.set_up(settings.log)
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                return runner.run(serve(settings))
        except KeyboardInterrupt:  # before it listened
            return 130
        except (SettingsError, JournalError, OSError) as error:
            print(f"server.py: {error}", file=sys.stderr)
            return 2
