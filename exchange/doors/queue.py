"""Turns for work that takes long, one at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Queue:
    """Gives turns to work that takes long and can wait, one at a time.

    Such work is accepting a socket, a handshake, and the rest of a read that
    is too much for one turn. The loop polls its sockets between two turns, so
    a crowd of new connections does not delay the others. All connections of a
    loop share one queue.
    """

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_open = True  # no turn was given since the last poll

    def join(self, turn: Callable[[], None]) -> None:
        """Call ``turn`` at once if the queue is free, or else later."""
        if self._is_open:
            self._give(turn)
        else:
            self._waiting.append(turn)

    def _give(self, turn: Callable[[], None]) -> None:
        self._is_open = False
        # call_later(0): poll the sockets once before the next turn.
        asyncio.get_running_loop().call_later(0, self._give_next)
        turn()

    def _give_next(self) -> None:
        if self._waiting:
            self._give(self._waiting.popleft())
        else:
            self._is_open = True
