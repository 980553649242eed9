"""A trader that makes requests and checks every reply of the exchange.

It has no socket and no clock; ``util.measure.load`` connects it.
"""

from __future__ import annotations

import math
import random
import secrets
from bisect import bisect
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from client import Exchange
from orderbook import (
    AccountReport,
    BookUpdate,
    Error,
    Event,
    Exec,
    Heartbeat,
    Login,
    Side,
    Welcome,
    decode_events,
    encode,
)
from util.cli import CONNECT_TIMEOUT_S
from util.measure.histogram import Histogram
from util.measure.process import Trouble

DEPTH = 10  # ticks from the middle within which orders are placed
QTY = 10  # lots of an order at most
# Limits of each client, so that neither book nor positions grow.
OPEN_ORDERS = 100
POSITION = 100  # lots; beyond that a client only reduces its position
RETRY_S = 1.0  # wait after a refusal without retry_after_ms


class Violation(Trouble):
    """The exchange broke the protocol."""

    status = 1


@dataclass(slots=True)
class Tally:
    """Requests sent, and their results."""

    sent: int = 0
    accepted: Counter[str] = field(default_factory=Counter)  # by exec_type
    refused: Counter[str] = field(default_factory=Counter)  # by code
    trades: int = 0  # in which an order counted here was the taker

    @property
    def answered(self) -> int:
        """Requests with a reply."""
        return self.accepted.total() + self.refused.total()

    @property
    def orders(self) -> int:
        """Orders placed or amended."""
        return self.accepted["new"] + self.accepted["amended"]

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.sent + other.sent,
            self.accepted + other.accepted,
            self.refused + other.refused,
            self.trades + other.trades,
        )

    def __sub__(self, other: Tally) -> Tally:
        return Tally(
            self.sent - other.sent,
            self.accepted - other.accepted,
            self.refused - other.refused,
            self.trades - other.trades,
        )


@dataclass(frozen=True, slots=True)
class Account:
    """An account, with its key if it has one."""

    user: str
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What is traded, and how.

    Prices are within ``depth`` ticks of the ``middle``. ``mix`` weighs
    "place", "cancel", "amend" and "cross": an order that takes at once.
    Each client_order_id begins with ``run``, which is new for each run.
    """

    symbol: str
    middle: int
    depth: int
    max_qty: int
    mix: Mapping[str, int]
    run: str
    is_buying: bool = False  # it never sells


# Fields of a crossing order. It ends when it meets an order of its own
# account; otherwise it would cancel one after the other.
TAKING = '"time_in_force":"ioc","stp":"cancel_newest",'
# The exec_type that accepts each kind of request.
ACCEPTED = {
    "place": ("new",),
    "amend": ("amended", "canceled"),
    "cancel": ("canceled",),
}


class Trader:
    """One account: makes requests at random, and checks the replies.

    ``tally`` counts them. ``latency`` has the time from when a request was
    due to its reply, for replies from ``measured_from`` on. Times are in
    seconds.
    """

    is_raw = False  # messages are read one by one

    def __init__(
        self,
        account: Account,
        flow: Flow,
        seed: str,
        tally: Tally,
        latency: Histogram,
    ) -> None:
        self.account = account
        self.limits: dict[str, int] = {}
        self.is_ready = False  # logged in, and its state is known
        self.hold_until = 0.0  # no request is sent before
        self.measured_from = math.inf
        # Kind, order_id and due time of each request.
        self.unanswered: deque[tuple[str, int, float]] = deque()
        self._flow = flow
        self._kinds = list(flow.mix)
        self._weights = list(accumulate(flow.mix.values()))
        self._random = random.Random(seed).random
        self.tally = tally
        self.latency = latency
        self._number = 0  # of the last request
        self._replies = 0
        self._seq = 0
        self._position = 0
        self._sides: dict[int, Side] = {}  # of open orders, by order_id
        self._known: list[int] = []  # to choose from; some may have ended

    def login(self) -> str:
        """Return the request to begin with."""
        account = self.account
        return encode(Login(id=0, user=account.user, token=account.token))

    def request(self, due: float) -> str:
        """Return the next request, which is due at that time."""
        self._number += 1
        self.tally.sent += 1
        kind = self._kind()
        order_id = self._take_out() if kind in ("cancel", "amend") else None
        if order_id is None:
            self.unanswered.append(("place", 0, due))
            return self._place(is_crossing=kind == "cross")
        self.unanswered.append((kind, order_id, due))
        if kind == "amend":
            self._known.append(order_id)
            return self._amend(order_id)
        return f'{{"type":"cancel","id":{self._number},"order_id":{order_id}}}'

    def read(self, message: bytes, now: float) -> None:
        """Read a message of the exchange.

        Raises Violation if it breaks the protocol, Trouble if it refuses the
        login.
        """
        try:
            events = decode_events(message)
        except ValueError as error:
            why = " ".join(str(error).split())
            raise Violation(f"{self}: not understood: {why}") from None
        for event in events:
            self.take(event, now)

    def take(self, event: Event, now: float) -> None:
        """Read an event; raises as `read` does."""
        match event:
            case Exec() if self.is_ready:
                self._count(event.seq)
                if event.id is not None:
                    self._replied(event, now)
                self._follow(event)
            case AccountReport():
                if self.is_ready:
                    self._count(event.seq)
                self.is_ready = True  # the last one of the state
                self._position = event.positions.get(self._flow.symbol, 0)
            case Error():
                if not self.is_ready:
                    raise Trouble(f"{self}: {event.code}: {event.message}")
                self._replied(event, now)
            case Welcome() if not self.limits:
                self._seq = event.seq
                self.limits = event.limits
            case Heartbeat() if self.is_ready:
                if event.seq.get("@", self._seq) != self._seq:
                    raise Violation(
                        f"{self}: seq is {event.seq['@']} by the heartbeat,"
                        f" {self._seq} by the events"
                    )
            case _ if getattr(event, "id", None) is not None:
                raise Violation(f"{self}: {event.type} is no reply to this")

    def __str__(self) -> str:
        return self.account.user

    # Requests

    def _kind(self) -> str:
        point = self._random() * self._weights[-1]
        kind = self._kinds[bisect(self._weights, point)]
        most = self.limits.get("open_orders") or OPEN_ORDERS
        if kind == "place" and len(self._sides) >= min(most, OPEN_ORDERS):
            return "cancel"
        return kind

    def _take_out(self) -> int | None:
        """Remove an open order from those known, at random."""
        known = self._known
        while known:
            index = int(self._random() * len(known))
            order_id, known[index] = known[index], known[-1]
            known.pop()
            if order_id in self._sides:
                return order_id
        return None

    def _place(self, is_crossing: bool) -> str:
        flow, number = self._flow, self._number
        is_buy = self._random() < 0.5
        if flow.is_buying:
            is_buy = True
        elif abs(self._position) >= POSITION:
            is_buy = self._position < 0
        away = flow.depth if is_crossing else -self._some(flow.depth)
        price = flow.middle + (away if is_buy else -away)
        return (
            f'{{"type":"place","id":{number},"symbol":"{flow.symbol}",'
            f'"side":"{"buy" if is_buy else "sell"}",'
            f'"qty":{self._some(flow.max_qty)},"price":{price},'
            + (TAKING if is_crossing else "")
            + f'"client_order_id":"{flow.run}-{number}"}}'
        )

    def _amend(self, order_id: int) -> str:
        flow = self._flow
        if self._random() < 0.5:
            change = f'"qty":{self._some(flow.max_qty)}'
        else:
            away = self._some(flow.depth)
            is_buy = self._sides[order_id] == "buy"
            price = flow.middle + (-away if is_buy else away)
            change = f'"price":{price}'
        return (
            f'{{"type":"amend","id":{self._number},"order_id":{order_id},'
            f"{change}}}"
        )

    def _some(self, most: int) -> int:
        return 1 + int(self._random() * most)

    # Replies

    def _count(self, seq: int) -> None:
        self._seq += 1
        if seq != self._seq:
            raise Violation(
                f"{self}: seq {seq} came where {self._seq} was due"
            )

    def _replied(self, reply: Exec | Error, now: float) -> None:
        """Hold a reply against the request that is next to be answered."""
        due_id = self._replies + 1 if self.unanswered else "none"
        if reply.id != due_id:
            raise Violation(
                f"{self}: a reply with id {reply.id} ({_word(reply)}) came"
                f" where {due_id} was due"
            )
        asked, order_id, due = self.unanswered.popleft()
        self._replies += 1
        if now >= self.measured_from:
            self.latency.record(int((now - due) * 1_000_000))
        if isinstance(reply, Error):
            self._refused(reply, asked, order_id, now)
            return
        self.tally.accepted[reply.exec_type] += 1
        if asked == "place":
            name = f"{self._flow.run}-{self._replies}"
            is_the_order = reply.client_order_id == name
        else:
            is_the_order = reply.order_id == order_id
        if not is_the_order or reply.exec_type not in ACCEPTED[asked]:
            raise Violation(
                f"{self}: request {reply.id} ({asked}) got the reply"
                f" {_word(reply)}"
            )

    def _refused(
        self, error: Error, asked: str, order_id: int, now: float
    ) -> None:
        self.tally.refused[error.code] += 1
        if error.code in ("rate_limited", "busy"):
            wait_ms = error.retry_after_ms
            wait_s = RETRY_S if wait_ms is None else wait_ms / 1_000
            self.hold_until = max(self.hold_until, now + wait_s)
        if asked == "cancel" and order_id in self._sides:
            self._known.append(order_id)

    def _follow(self, report: Exec) -> None:
        if report.exec_type == "trade" and report.liquidity == "taker":
            self.tally.trades += 1
        if not report.leaves_qty:
            self._sides.pop(report.order_id, None)
        elif report.exec_type == "new" and report.time_in_force == "gtc":
            self._sides[report.order_id] = report.side
            self._known.append(report.order_id)


def _word(reply: Exec | Error) -> str:
    if isinstance(reply, Error):
        return f"{reply.code}: {reply.message}"
    return f"{reply.exec_type} of order {reply.order_id}"


async def look(url: str | None, mix: dict[str, int]) -> tuple[str, Flow]:
    """Find the exchange; return its URL, and what to trade there.

    That is the first instrument listed, around the middle of its book, or of
    its price bounds if the book is empty. Raises Trouble if the URL is
    invalid, ExchangeError if there is no exchange.
    """
    try:
        public = Exchange(url, user="", connect_timeout=CONNECT_TIMEOUT_S)
    except ValueError as error:
        raise Trouble(str(error)) from None
    async with public as exchange:
        listed = next(iter(exchange.instruments.values()))
        [book] = await exchange.get("book", symbol=listed.symbol)
        assert isinstance(book, BookUpdate)
        tops = [side[0][0] for side in (book.bids, book.asks) if side]
        tops = tops or [listed.min_price, listed.max_price]
        depth = min(DEPTH, (listed.max_price - listed.min_price) // 2)
        lowest, highest = listed.min_price + depth, listed.max_price - depth
        flow = Flow(
            symbol=listed.symbol,
            middle=max(lowest, min(sum(tops) // len(tops), highest)),
            depth=depth,
            max_qty=min(QTY, listed.max_qty),
            mix=mix,
            run=secrets.token_hex(4),
        )
        return exchange.url, flow
