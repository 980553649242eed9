"""Holds what depends on a command until that command is committed.

Items are held in order, each with the sequence number of the last command
that was applied when it was made. The owner takes out what is committed.
A process that shares its journal with others has a second condition: it may
tell nobody anything unless its lease holds. Between two commits nothing waits
for a commit, so the gate asks before each item.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Gate(Generic[T]):
    """Hold items until their sequence number is committed.

    With ``committed`` at MAX_INT every item may leave at once.
    """

    def __init__(self, committed: int) -> None:
        self._committed = committed
        # Whether anything may leave; the owner of a lease replaces it.
        self.may_open: Callable[[], bool] = _always
        self._held: deque[tuple[int, T]] = deque()
        self._free: deque[T] = deque()  # depends on no command

    def hold(self, seq: int, item: T) -> None:
        """Hold an item that depends on commands up to ``seq``."""
        self._held.append((seq, item))

    def pass_by(self, item: T) -> None:
        """Let an item leave, before those held, that depends on no command."""
        self._free.append(item)

    def commit(self, seq: int) -> None:
        """Note that the commands up to ``seq`` are committed."""
        self._committed = seq

    def open(self) -> Iterator[T]:
        """Yield what may leave, in the order in which it was held."""
        free, held = self._free, self._held
        while free and self.may_open():
            yield free.popleft()
        while held and held[0][0] <= self._committed and self.may_open():
            yield held.popleft()[1]

    def __len__(self) -> int:
        """Return how many items are held."""
        return len(self._held)


def _always() -> bool:
    return True
