"""Holds what depends on a command until that command is committed.

Items are held in order, each with the sequence number of the last command
that was applied when it was made, and released when that is committed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Gate(Generic[T]):
    """Hold items until their sequence number is committed.

    ``let_go`` is called with each item, in the order they were held. With
    ``committed`` at MAX_INT every item is released at once.
    """

    def __init__(self, let_go: Callable[[T], None], committed: int) -> None:
        self._let_go = let_go
        self._committed = committed
        self._held: deque[tuple[int, T]] = deque()

    def hold(self, seq: int, item: T) -> None:
        """Hold an item that depends on commands up to ``seq``."""
        self._held.append((seq, item))
        self._open()

    def pass_by(self, item: T) -> None:
        """Let an item go at once that depends on no command."""
        self._let_go(item)

    def commit(self, seq: int) -> None:
        """Release the items that depend on no command after ``seq``."""
        self._committed = seq
        self._open()

    def _open(self) -> None:
        while self._held and self._held[0][0] <= self._committed:
            self._let_go(self._held.popleft()[1])
