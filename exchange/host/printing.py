"""Standard output and standard error that never make the writer wait.

A terminal that is stopped with Ctrl-S, or a pipe that nobody reads, blocks
each write. So while the exchange runs, a thread does the writing. Text beyond
HELD_BYTES is dropped, and a line says how much was, as soon as the reader has
taken what came before.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TextIO

# Bytes that wait for a reader: what debug mode prints of some 2,000 orders,
# so that a reader that is slow for a moment misses nothing.
HELD_BYTES = 1 << 20
# For a reader to take what is left when the process ends.
CLOSE_S = 1.0

logger = logging.getLogger("exchange")


class Outlet(io.TextIOBase):
    """A text stream that a thread of its own writes to a file descriptor.

    ``write`` returns at once, whatever the descriptor does, and raises
    nothing. After an error of the descriptor, such as a closed pipe, all text
    is thrown away; the error is logged once. ``notice`` makes a line of the
    message about dropped text.
    """

    def __init__(self, stream: TextIO) -> None:
        self.notice: Callable[[str], str] = "{}\n".format
        self._fd = stream.fileno()
        self._encoding = stream.encoding
        self._held: deque[bytes] = deque()
        self._held_bytes = 0  # with the text that is being written
        self._dropped = 0  # lines, since the reader stopped
        self._is_broken = False
        self._is_closing = False
        self._change = threading.Condition()
        # A daemon: a write that blocks must not keep the process alive.
        self._thread = threading.Thread(
            target=self._run, name=f"output {self._fd}", daemon=True
        )
        self._thread.start()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Name of the encoding."""
        return self._encoding

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Return whether the descriptor is a terminal."""
        return os.isatty(self._fd)

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Take text to be written; drop it if too much waits already."""
        data = text.encode(self._encoding, "backslashreplace")
        with self._change:
            is_full = self._held_bytes + len(data) > HELD_BYTES
            if self._is_broken or not data:
                pass
            elif self._dropped or (is_full and self._held_bytes):
                # Once text is missing, all that follows is dropped until the
                # reader has the rest: one gap, and one line about it.
                self._dropped += text.count("\n") or 1
            else:
                self._hold(data)
        return len(text)

    def finish(self, timeout: float = CLOSE_S) -> None:
        """Take no more; wait until all is written, or the time is over."""
        with self._change:
            self._is_closing = True
            self._change.notify()
        self._thread.join(timeout)

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        self._change.notify()

    def _run(self) -> None:
        while True:
            with self._change:
                while not self._held:
                    if self._dropped:
                        self._tell_of_gap()
                    elif self._is_closing:
                        return
                    else:
                        self._change.wait()
                data = self._held.popleft()
            try:
                self._write(data)
            except OSError as error:
                with self._change:
                    self._is_broken = True
                logger.warning("nothing more is printed: %s", error)
                return
            with self._change:
                self._held_bytes -= len(data)

    def _tell_of_gap(self) -> None:
        lines, self._dropped = self._dropped, 0
        text = self.notice(f"{lines:,} lines were dropped: nobody read them")
        self._hold(text.encode(self._encoding, "backslashreplace"))

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # another process made it non-blocking
                select.select([], [self._fd], [])


@contextlib.contextmanager
def in_threads() -> Iterator[None]:
    """Let threads write what is printed and logged meanwhile."""
    streams = sys.stdout, sys.stderr
    outlets: list[Outlet] = []
    for name, stream in zip(("stdout", "stderr"), streams, strict=True):
        if stream is not None:  # as it is where the descriptor is closed
            stream.flush()
            outlets.append(Outlet(stream))
            setattr(sys, name, outlets[-1])
    try:
        yield
    finally:
        for outlet in outlets:
            outlet.finish()
        sys.stdout, sys.stderr = streams
