"""Who is served next.

A link that had nothing waiting gets its first turn at once. A link with more
requests joins the backlog, which is served one turn at a time. A login, with
all later requests of its link, waits until the key file has been read again.
So does a request that needs what is busy, until some long work has ended.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TypeAlias

from exchange.gateway.link import Incoming, Link, Taken, weigh

# Weight served in a link's first turn. 16, so that a client with 32 requests
# in flight reads its first replies while we work on the rest.
REQUESTS_AT_FIRST = 16
# Weight served in a turn of the backlog: some 0.2 ms, which others wait for a
# client that sends faster than it is served.
REQUESTS_PER_TURN = 16
# Weight of all first turns between two looks at the sockets. A turn counts
# as at least TURN_COUNTS, because it has a cost of its own.
REQUESTS_PER_ROUND = 64
TURN_COUNTS = 4

Turn: TypeAlias = tuple[int, int]  # requests, arrival of the first one
Requests: TypeAlias = list[Incoming]


class Turns:
    """The links that have requests, each in one queue at most."""

    def __init__(self) -> None:
        # The first link of each is served next.
        self.fresh: OrderedDict[Link, None] = OrderedDict()
        self.backlog: OrderedDict[Link, None] = OrderedDict()
        self.delays_logins = True  # until the keys are read again
        self.logins: list[Link] = []  # delayed since the owner last took them
        self._delayed: dict[Link, Taken] = {}
        self._released: dict[Link, Taken] = {}
        self.parked: dict[Link, Taken] = {}  # until long work has ended
        self.done: list[Turn] = []  # since the last batch was sealed

    def add(self, link: Link) -> None:
        """Queue a link for its next turn."""
        if link in self._delayed or link in self.parked:
            return
        if link.had_long_turn:
            self.backlog.setdefault(link)
        elif link not in self.backlog:
            self.fresh[link] = None

    def first(self) -> Iterator[tuple[Link, Requests]]:
        """Yield links that had nothing waiting, with their requests."""
        remaining = REQUESTS_PER_ROUND
        while self.fresh and remaining > 0:
            link, _ = self.fresh.popitem(last=False)
            requests, weight = self._take(link, REQUESTS_AT_FIRST)
            remaining -= max(weight, TURN_COUNTS)
            if requests is not None:
                yield link, requests

    def next(self) -> Iterator[tuple[Link, Requests]]:
        """Yield one link of the backlog, with a share of its requests."""
        link, _ = self.backlog.popitem(last=False)
        requests, _ = self._take(link, REQUESTS_PER_TURN)
        if requests is not None:
            yield link, requests

    @property
    def delayed(self) -> list[Link]:
        """Return the links whose login waits for the keys."""
        return [*self._delayed]

    def release(self, link: Link) -> None:
        """Queue a link whose login need not wait any longer."""
        self._released[link] = self._delayed.pop(link)
        self.add(link)

    def park(self, link: Link, requests: Requests) -> None:
        """Keep the end of the turn that a link just had for later.

        ``requests`` may be empty, if the end of the link must wait.
        """
        count, arrival = self.done[-1]
        self.done[-1] = count - len(requests), arrival
        self.parked[link] = requests, sum(map(weigh, requests)), arrival
        self.backlog.pop(link, None)

    def unpark(self) -> list[Link]:
        """Let the parked links go on; the owner queues each of them."""
        self._released |= self.parked
        links = [*self.parked]
        self.parked.clear()
        return links

    def _take(self, link: Link, enough: int) -> tuple[Requests | None, int]:
        """Return requests of a link and their weight; None: it is delayed."""
        taken = self._released.pop(link, None) if self._released else None
        if taken is None:
            taken = link.take(enough)
            if link.has_login and self.delays_logins:
                self._delayed[link] = taken
                self.logins.append(link)
                return None, taken[1]
        requests, weight, arrival = taken
        self.done.append((len(requests), arrival))
        link.had_long_turn = weight > REQUESTS_AT_FIRST
        if link.waiting:
            self.backlog[link] = None
        return requests, weight
