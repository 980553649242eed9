"""What is to leave: gathered until it is sealed into one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from exchange.gateway.link import Link
from exchange.gateway.turns import Turn

FLOODING = 4002  # the close code of the protocol for abuse
Closing: TypeAlias = tuple[Link, int, str]  # close code, reason


@dataclass(slots=True)
class Batch:
    """What leaves together, in this order; last, what to print."""

    broadcasts: list[tuple[bytes, list[Link]]]
    frames: list[tuple[Link, bytes]]
    closings: list[Closing]
    answers: list[Callable[[], None]]  # to what was asked over HTTP
    turns: Sequence[Turn]
    report: str


class Outbox:
    """What is to leave, and to whom."""

    def __init__(self) -> None:
        self.links: dict[Link, None] = {}  # those with anything to send
        self.broadcasts: list[tuple[bytes, list[Link]]] = []
        self.closings: list[Closing] = []
        self.answers: list[Callable[[], None]] = []

    def broadcast(self, texts: list[str], readers: list[Link]) -> None:
        """Send public messages, encoded once, to links with one door.

        They leave before what links are sent from now on, and after what
        some of them have been sent.
        """
        if not readers:
            return
        frames = readers[0].door.encode(texts)
        late = self.links.keys() & readers
        if late:
            for link in late:
                link.push(frames)
            readers = [link for link in readers if link not in late]
        self.broadcasts.append((frames, readers))

    def close(self, link: Link, code: int, reason: str) -> None:
        """Close a connection, after what it has been sent."""
        self.closings.append((link, code, reason))

    def cut(self, link: Link, code: int, reason: str) -> None:
        """Close a connection, and do nothing more for it."""
        if not link.is_cut:
            link.is_cut = True
            self.close(link, code, reason)

    def drop(self, link: Link) -> None:
        """Forget a link that is gone."""
        self.links.pop(link, None)

    def seal(self, turns: Sequence[Turn], report: str) -> Batch | None:
        """Return all that is to leave in one batch; None if nothing is."""
        if not (
            self.links or self.broadcasts or self.closings or self.answers
        ):
            return None
        broadcasts, self.broadcasts = self.broadcasts, []
        frames = [(link, link.seal()) for link in self.links]
        self.links.clear()
        closings, self.closings = self.closings, []
        answers, self.answers = self.answers, []
        return Batch(broadcasts, frames, closings, answers, turns, report)
