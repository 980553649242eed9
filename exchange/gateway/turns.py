"""Who is served next.

A link that had nothing waiting gets its first turn at once. A link that has
more to ask joins the backlog, which is served one turn at a time. A login
waits, with all that its link asked after it, for a look at the key file.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TypeAlias

from exchange.gateway.link import Link, Taken
from orderbook import Error, Request

# Weight served in a link's first turn. 16, so that a client with 32 requests
# in flight reads its first replies while we work on the rest.
REQUESTS_AT_FIRST = 16
# Weight served in a turn of the backlog: some 0.2 ms. Others wait no longer
# for a client that sends more than is carried out.
REQUESTS_PER_TURN = 16
# Weight of all first turns between two looks at the sockets. A turn counts
# as at least TURN_COUNTS, because it has a cost of its own.
REQUESTS_PER_ROUND = 64
TURN_COUNTS = 4

Turn: TypeAlias = tuple[int, int]  # how many requests; when the first came
Requests: TypeAlias = list[Request | Error]


class Turns:
    """The links with something to do, each in one queue at most."""

    def __init__(self) -> None:
        # The first link of each is served next.
        self.fresh: OrderedDict[Link, None] = OrderedDict()
        self.backlog: OrderedDict[Link, None] = OrderedDict()
        self.holds_logins = True  # until a look at the keys
        self.logins: list[Link] = []  # held up, and no look is asked for yet
        self._held_up: dict[Link, Taken] = {}
        self._released: dict[Link, Taken] = {}
        self.done: list[Turn] = []  # taken, and not yet sealed

    def add(self, link: Link) -> None:
        """Let a link have its turn."""
        if link in self._held_up:
            return
        if link.had_long_turn:
            self.backlog.setdefault(link)
        elif link not in self.backlog:
            self.fresh[link] = None

    def first(self) -> Iterator[tuple[Link, Requests]]:
        """Yield links that had nothing waiting, with what they ask."""
        left = REQUESTS_PER_ROUND
        while self.fresh and left > 0:
            link, _ = self.fresh.popitem(last=False)
            requests, weight = self._take(link, REQUESTS_AT_FIRST)
            left -= max(weight, TURN_COUNTS)
            if requests is not None:
                yield link, requests

    def next(self) -> Iterator[tuple[Link, Requests]]:
        """Yield one link that has more to ask, with a share of it."""
        link, _ = self.backlog.popitem(last=False)
        requests, _ = self._take(link, REQUESTS_PER_TURN)
        if requests is not None:
            yield link, requests

    @property
    def held_up(self) -> list[Link]:
        """Return the links that wait for a look at the keys."""
        return [*self._held_up]

    def release(self, link: Link) -> None:
        """Give a link its turn whose login has waited long enough."""
        self._released[link] = self._held_up.pop(link)
        self.add(link)

    def _take(self, link: Link, enough: int) -> tuple[Requests | None, int]:
        """Return requests of a link, None if it is held up; their weight."""
        taken = self._released.pop(link, None) if self._released else None
        if taken is None:
            taken = link.take(enough)
            if link.has_login and self.holds_logins:
                self._held_up[link] = taken
                self.logins.append(link)
                return None, taken[1]
        requests, weight, arrival = taken
        self.done.append((len(requests), arrival))
        link.had_long_turn = weight > REQUESTS_AT_FIRST
        if link.waiting:
            self.backlog[link] = None
        return requests, weight
