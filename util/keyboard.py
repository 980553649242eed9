"""Read single keys from a terminal, on every system."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

ESCAPE_SEQUENCE = re.compile(r"\x1b[\[O][0-9;]*.")  # such as an arrow key
POLL_S = 0.05  # between two polls of the keyboard, on Windows
# On Windows such a character and a code stand for an arrow key.
NO_CHARACTER = ("\x00", "\xe0")


@contextlib.contextmanager
def keyboard(press: Callable[[str], None]) -> Iterator[None]:
    """Call ``press`` with each key, if there is a keyboard.

    Restores the terminal afterwards.
    """
    with _keys(press) if sys.stdin.isatty() else contextlib.nullcontext():
        yield


try:
    import termios
    import tty

    @contextlib.contextmanager
    def _keys(press: Callable[[str], None]) -> Iterator[None]:
        loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()

        def read() -> None:
            keys = os.read(stdin, 1_024).decode(errors="replace")
            if not keys:  # the terminal is gone
                loop.remove_reader(stdin)
            for key in ESCAPE_SEQUENCE.sub("", keys):
                press(key)

        before = termios.tcgetattr(stdin)
        tty.setcbreak(stdin)
        loop.add_reader(stdin, read)
        try:
            yield
        finally:
            loop.remove_reader(stdin)
            termios.tcsetattr(stdin, termios.TCSADRAIN, before)

except ImportError:  # Windows
    msvcrt: Any = import_module("msvcrt")

    @contextlib.contextmanager
    def _keys(press: Callable[[str], None]) -> Iterator[None]:
        polling = asyncio.create_task(_poll(press))
        try:
            yield
        finally:
            polling.cancel()

    async def _poll(press: Callable[[str], None]) -> None:
        while True:
            while msvcrt.kbhit():
                key = msvcrt.getwch()
                if key in NO_CHARACTER:
                    msvcrt.getwch()
                else:
                    press(key)
            await asyncio.sleep(POLL_S)
