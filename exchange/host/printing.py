"""Standard output and standard error whose writes never block.

A terminal that is stopped with Ctrl-S, or a pipe that is not read, blocks each
write. So threads do the writing while the exchange runs. Text beyond
HELD_BYTES is dropped. Once the reader has the text before the gap, a line says
how many lines were dropped.
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

# Bytes that wait for a reader: what debug mode prints for some 2,000 orders,
# so that a short pause of the reader loses nothing.
HELD_BYTES = 1 << 20
# Time for a reader to take what is left when the process ends.
CLOSE_S = 1.0

logger = logging.getLogger("exchange")


class Outlet(io.TextIOBase):
    """A text stream that a thread writes to a file descriptor.

    ``write`` returns at once, even if the descriptor blocks, and raises
    nothing. After an error of the descriptor, such as a closed pipe, all text
    is dropped; the error is logged once. ``notice`` formats the message about
    dropped text.
    """

    def __init__(self, stream: TextIO) -> None:
        self.notice: Callable[[str], str] = "{}\n".format
        self._fd = stream.fileno()
        self._encoding = stream.encoding
        self._held: deque[bytes] = deque()
        self._held_bytes = 0  # including the text that is being written
        self._dropped = 0  # lines, since the reader stopped
        self._is_broken = False
        self._is_closing = False
        self._change = threading.Condition()
        # A daemon, so that a blocked write does not keep the process alive.
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
        """Queue text; drop it if too much waits already."""
        data = text.encode(self._encoding, "backslashreplace")
        with self._change:
            is_full = self._held_bytes + len(data) > HELD_BYTES
            if self._is_broken or not data:
                pass
            elif self._dropped or (is_full and self._held_bytes):
                # After a first drop all text is dropped until the reader has
                # the rest: so there is one gap, and one line about it.
                self._dropped += text.count("\n") or 1
            else:
                self._hold(data)
        return len(text)

    def finish(self, timeout: float = CLOSE_S) -> None:
        """Wait up to ``timeout`` seconds until all text is written; end."""
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
                        self._note_gap()
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
                logger.warning("printing stops: %s", error)
                return
            with self._change:
                self._held_bytes -= len(data)

    def _note_gap(self) -> None:
        lines, self._dropped = self._dropped, 0
        text = self.notice(f"{lines:,} lines were dropped: not read in time")
        self._hold(text.encode(self._encoding, "backslashreplace"))

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # another process made it non-blocking
                select.select([], [self._fd], [])


@contextlib.contextmanager
def in_threads() -> Iterator[None]:
    """Print and log through threads."""
    streams = sys.stdout, sys.stderr
    outlets: list[Outlet] = []
    for name, stream in zip(("stdout", "stderr"), streams, strict=True):
        if stream is not None:  # None if the descriptor is closed
            stream.flush()
            outlets.append(Outlet(stream))
            setattr(sys, name, outlets[-1])
    try:
        yield
    finally:
        for outlet in outlets:
            outlet.finish()
        sys.stdout, sys.stderr = streams
