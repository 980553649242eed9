"""Messages to send, collected until they are sealed into one batch."""

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
    """What is sent together, in this order; ``report`` is printed last."""

    broadcasts: list[tuple[bytes, list[Link]]]
    frames: list[tuple[Link, bytes]]
    closings: list[Closing]
    answers: list[Callable[[], None]]  # send the answers to HTTP requests
    turns: Sequence[Turn]
    report: str


class Outbox:
    """The messages, closings and answers of the next batch."""

    def __init__(self) -> None:
        self.links: dict[Link, None] = {}  # those with anything to send
        self.broadcasts: list[tuple[bytes, list[Link]]] = []
        self.closings: list[Closing] = []
        self.answers: list[Callable[[], None]] = []

    def broadcast(self, texts: list[str], readers: list[Link]) -> None:
        """Send public messages, encoded once, to links with one door.

        Each link gets them after what it has been sent in this batch, and
        before what it is sent from now on.
        """
        if not readers:
            return
        frames = readers[0].door.encode(texts)
        queued = self.links.keys() & readers
        if queued:
            for link in queued:
                link.push(frames)
            readers = [link for link in readers if link not in queued]
        self.broadcasts.append((frames, readers))

    def close(self, link: Link, code: int, reason: str) -> None:
        """Close a connection after all that was sent to it."""
        self.closings.append((link, code, reason))

    def cut(self, link: Link, code: int, reason: str) -> None:
        """Close a connection, and ignore its further requests."""
        if not link.is_cut:
            link.is_cut = True
            self.close(link, code, reason)

    def drop(self, link: Link) -> None:
        """Forget a link that is gone."""
        self.links.pop(link, None)

    def seal(self, turns: Sequence[Turn], report: str) -> Batch | None:
        """Return the next batch; None if nothing is to be sent."""
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
