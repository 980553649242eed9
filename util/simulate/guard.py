"""What would break the promise of a simulation is refused.

A bot may not open a socket of the machine, start a thread or a process. Each
attempt raises NotSimulated, which names the call. Python reports such calls
to an audit hook, but not all versions report threads, so their start is
wrapped. Both stay for the life of the process, because a hook cannot be
removed; outside of bots they do nothing.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

THREAD = "starts a thread (threading.Thread): use asyncio.create_task"
PROCESS = "starts a process ({call}): a simulated bot has only its own"
# Refused events of `sys.audit`, and what to say of them.
REFUSED = {
    "socket.__new__": "opens a socket (socket.socket): a simulated bot reaches"
    " the exchange through client.py",
    "socket.getaddrinfo": "asks for an address (socket.getaddrinfo): a"
    " simulated bot reaches the exchange through client.py",
    **{
        event: PROCESS.format(call=event)
        for event in (
            *("subprocess.Popen", "os.system", "os.fork", "os.forkpty"),
            *("os.exec", "os.posix_spawn", "os.spawn"),
        )
    },
}
# By these names `threading` starts threads: until 3.12, and since 3.13.
STARTS = ("_start_new_thread", "_start_joinable_thread")
_names: Callable[[], str | None] | None = None


class NotSimulated(RuntimeError):
    """A call that a simulation cannot repeat."""


def install(current: Callable[[], str | None]) -> None:
    """Refuse these calls where ``current`` returns the name of a bot."""
    global _names
    if _names is None:
        sys.addaudithook(_audit)
        for name in STARTS:
            if hasattr(threading, name):
                start = getattr(threading, name)
                setattr(threading, name, partial(_start_thread, start))
    _names = current


def _start_thread(
    start: Callable[..., Any], *arguments: Any, **options: Any
) -> Any:
    if _names is not None and _names() is not None:
        raise NotSimulated(THREAD)
    return start(*arguments, **options)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in REFUSED and _names is not None and _names() is not None:
        raise NotSimulated(REFUSED[event])
