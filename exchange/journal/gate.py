"""Nothing that depends on a command leaves before it is committed.

What leaves is held here, in order, with the sequence number of the last
command applied when it was made, and let go once that command is committed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Gate(Generic[T]):
    """Hold items until their sequence number is committed.

    ``let_go`` is called with each item, in the order they were held. With
    ``committed`` at the largest number there is, the gate stands open.
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
        """Let go what depends on no command after ``seq``."""
        self._committed = seq
        self._open()

    def _open(self) -> None:
        while self._held and self._held[0][0] <= self._committed:
            self._let_go(self._held.popleft()[1])
