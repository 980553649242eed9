"""The bots of `util.measure.crash`: each checks and keeps what it receives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from util.measure.requests import ADMINISTRATOR, ROWS, Message, Requests

WINDOW = 8  # requests of a bot in flight at most
# What is journaled, and is sent again if it got no reply.
COMMANDS = frozenset(
    "place amend cancel cancel_all cancel_after convert tender admin".split()
)
SYMBOLS = ("BOND", "ETF", "FUT")
LATEST = 20  # trades of which one may be busted
# Fields of a report that describe the event, not the order.
OF_THE_EVENT = frozenset(
    "type id seq ts exec_type last_qty last_price trade_id liquidity fee"
    " reason".split()
)

Book = dict[str, dict[int, int]]  # bids and asks, quantity by price


def messages_of(frame: str) -> Iterator[tuple[str, Message]]:
    """Yield the messages of a frame: each as it was sent, and decoded."""
    if not frame.startswith("["):
        yield frame, json.loads(frame)
        return
    decode = json.JSONDecoder().raw_decode
    at = 1
    while at < len(frame):
        message, end = decode(frame, at)
        yield frame[at:end], message
        at = end + 1


def as_order(message: Message) -> Message:
    """Return the fields of a report that describe the order."""
    return {k: v for k, v in message.items() if k not in OF_THE_EVENT}


class Course:
    """One process of the exchange: opens the trading, and ends it.

    ``end`` is called after a number of replies, or, where ``replies`` is
    None, as soon as all bots are ready. If ``is_lossy``, the bots drop what
    they have not read by then.
    """

    def __init__(
        self,
        bots: Sequence[Bot],
        replies: float | None,
        end: Callable[[], object],
        is_lossy: bool = False,
    ) -> None:
        self.opened = asyncio.Event()
        self.is_lost = False
        self._bots = bots
        self._replies = replies
        self._end = end
        self._is_lossy = is_lossy
        self._ready = 0

    def replied(self) -> None:
        """Count a reply; it may be the last one."""
        if self._replies is not None:
            self._replies -= 1
            if not self._replies:
                self._end()
                self.is_lost = self._is_lossy
                self.opened.set()

    def ready(self, bot: Bot) -> None:
        """Let the bots trade once all are ready."""
        assert not bot.cancel_on_disconnect or not bot.open_orders
        self._ready += 1
        if self._ready < len(self._bots):
            return
        if self._replies is None:
            self._end()
        self.opened.set()


@dataclass
class Life:
    """What a bot sent to one process of the exchange, and received."""

    is_welcome: bool = False
    requests: list[Message] = field(default_factory=list)  # only commands
    replies: list[str] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)


class Bot:
    """One trader, over all processes of the exchange."""

    def __init__(
        self,
        *,
        name: str,
        token: str,
        users: Sequence[str],
        chance: random.Random,
        cancel_on_disconnect: bool,
        is_follower: bool,
    ) -> None:
        self.name = name
        self.cancel_on_disconnect = cancel_on_disconnect
        self.skipped = 0  # account seq at the first welcome that came
        self.seq = 0  # account seq of the last private event received
        self.events: list[tuple[str, Any]] = []  # private ones, with their id
        self.lives: list[Life] = []
        self.trades: dict[tuple[str, int], str] = {}  # by symbol, trade_id
        self.busts: dict[tuple[str, int], str] = {}
        self.views: dict[tuple[str, int], Book] = {}  # by symbol, seq
        self.orders: dict[int, Message] = {}
        self.cash = 0
        self.realized = 0
        self.positions: dict[str, int] = {}
        self.counts: Counter[str] = Counter()
        self._token = token
        self._users = users
        self._chance = chance
        self._requests = Requests(name, chance, SYMBOLS)
        self._is_follower = is_follower
        self._session: str | None = None
        self._is_opening = False  # reads its state before it trades
        self._by_client_order_id: dict[str, Message] = {}
        self._tenders: list[str] = []  # the last ones offered
        self._fills: list[tuple[str, int]] = []  # the last trades of its own
        # Settlements that came before the event that they belong to.
        self._settlements: list[str] = []
        self._answered: set[tuple[str, str]] = set()  # what took effect
        self._last_id = 0
        self._again: deque[Message] = deque()
        self._unanswered: deque[Message] = deque()
        self._books: dict[str, Book] = {}
        self._held: dict[str, int] = {}  # seq of each symbol, in this life
        self._heartbeat: dict[str, int] = {}  # the last one, in this life

    @property
    def open_orders(self) -> list[Message]:
        """Its open orders, by the events received."""
        return [o for o in self.orders.values() if o.get("leaves_qty")]

    async def live(self, url: str, course: Course) -> None:
        """Trade with one process of the exchange until it ends."""
        self._books.clear()
        self._held.clear()
        self._heartbeat = {}
        self._settlements.clear()  # sent again
        self._is_opening = True
        self.lives.append(Life())
        with contextlib.suppress(OSError, EOFError, WebSocketException):
            async with connect(
                url, compression=None, proxy=None, max_queue=None
            ) as connection:
                await self._send(connection, self._opening())
                async for frame in connection:
                    assert isinstance(frame, str)
                    if course.is_lost:
                        break
                    for text, message in messages_of(frame):
                        self._receive(text, message)
                        if "id" in message:
                            course.replied()
                    if self._is_opening:
                        if self._unanswered:
                            continue
                        self._is_opening = False
                        course.ready(self)
                        await course.opened.wait()
                    await self._send(connection, self._more())
        self._again.extendleft(
            request
            for request in reversed(self._unanswered)
            if request["type"] in COMMANDS
        )
        self._unanswered.clear()

    # Sending

    async def _send(
        self, connection: ClientConnection, requests: list[Message]
    ) -> None:
        if requests:
            self._unanswered.extend(requests)
            await connection.send(json.dumps(requests))

    def _opening(self) -> list[Message]:
        login: Message = {
            "type": "login",
            "user": self.name,
            "token": self._token,
            "cancel_on_disconnect": self.cancel_on_disconnect,
        }
        if self._session is not None:
            login |= {"session": self._session, "last_seq": self.seq}
        requests = [
            login,
            {"type": "get", "what": "orders", "limit": ROWS},
            {"type": "get", "what": "account"},
        ]
        if self._is_follower:
            channels = ["book", "trades"]
            requests.append({"type": "subscribe", "channels": channels})
        return [self._with_id(request) for request in requests]

    def _more(self) -> list[Message]:
        """Return the requests of its next frame, as far as its window goes."""
        room = WINDOW - len(self._unanswered)
        if room <= 0:
            return []
        requests = []
        for _ in range(self._chance.randint(1, room)):
            if self._again:
                requests.append(self._again.popleft())
                self.counts["asked again"] += 1
            else:
                requests.append(self._with_id(self._choose()))
        self.lives[-1].requests += [
            r for r in requests if r["type"] in COMMANDS
        ]
        return requests

    def _choose(self) -> Message:
        if self.name == ADMINISTRATOR and self._chance.random() < 0.7:
            newest = max(self.orders, default=1)
            trades = [*self._fills, *self.trades][-LATEST:]
            return self._requests.administer(self._users, newest, trades)
        if self._tenders and self._chance.random() < 0.05:
            tender_id = self._chance.choice(self._tenders[-3:])
            return {"type": "tender", "tender_id": tender_id}
        orders = self.open_orders or list(self.orders.values())
        return self._requests.choose(orders)

    def _with_id(self, request: Message) -> Message:
        self._last_id += 1
        return {**request, "id": self._last_id}

    # Receiving

    def _receive(self, text: str, message: Message) -> None:
        try:
            if "id" in message:
                request = self._unanswered.popleft()
                assert message["id"] == request["id"]
                self._check_reply(text, message, request)
            match message["type"]:
                case "exec" | "account":
                    self._record_private(text, message)
                case "trade" | "book":
                    self._record_public(text, message)
                case "settlement":
                    self._settlements.append(text)
                case "tender":
                    self._tenders.append(message["tender_id"])
                case "bust":
                    key = message["symbol"], message["trade_id"]
                    assert key not in self.busts
                    self.busts[key] = text
                case "status":
                    self.lives[-1].statuses.append(text)
                case "heartbeat":
                    # The one before comes again while a commit takes long.
                    seqs = {**self._held, "@": self.seq}
                    assert message["seq"] in (seqs, self._heartbeat)
                    self._heartbeat = message["seq"]
        except AssertionError as error:
            error.add_note(f"{self.name} at {self.seq} got {text}")
            raise

    def _check_reply(
        self, text: str, message: Message, request: Message
    ) -> None:
        if request["type"] in COMMANDS:
            self.lives[-1].replies.append(text)
        match request["type"]:
            case "login":
                self._log_in(message)
            case "get" if request["what"] == "account":
                (row,) = message["data"]
                assert row["seq"] == self.seq
                assert row["cash"] == self.cash
                assert row.get("realized", 0) == self.realized
                assert row["positions"] == self.positions
            case "get":
                rows = [as_order(row) for row in message["data"]]
                orders = [self.orders[i] for i in sorted(self.orders)]
                assert rows == orders[-ROWS:]
            case "place" if message.get("code") == "duplicate_client_order_id":
                order = self._by_client_order_id[request["client_order_id"]]
                for name in ("order_id", "order_status"):
                    assert message[name] == order[name]
                assert message.get("cum_qty", 0) == order.get("cum_qty", 0)
                self.counts["recognized"] += 1
            case "convert" | "admin" | "tender":
                self._check_once(message, request)
            case "place":
                client_order_id = request["client_order_id"]
                assert client_order_id not in self._by_client_order_id

    def _check_once(self, message: Message, request: Message) -> None:
        """Check that what was told to have taken effect does so once."""
        name = request["type"], (
            request.get("client_order_id")
            or request.get("client_request_id")
            or request["tender_id"]
        )
        if message["type"] == "ok":
            assert name not in self._answered
            self._answered.add(name)
        elif str(message["code"]).startswith("duplicate_"):
            self.counts[f"recognized {request['type']}"] += 1

    def _log_in(self, welcome: Message) -> None:
        assert welcome["type"] == "welcome" and welcome["durable"]
        assert welcome["resumed"] == (self._session is not None)
        assert welcome["seq"] >= self.seq
        if self._session is not None:
            assert welcome["session"] == self._session
        else:
            self.skipped = self.seq = welcome["seq"]
        self._session = welcome["session"]
        self.lives[-1].is_welcome = True

    def _record_private(self, text: str, message: Message) -> None:
        if not self.events and message["seq"] == self.seq:
            assert message["type"] == "account"  # as it was at the login
        else:
            # A settlement has a number of its own, or that of what follows.
            more = len(self._settlements)
            assert 1 <= message["seq"] - self.seq <= 1 + more
            self.events += [(told, None) for told in self._settlements]
            self._settlements.clear()
            self.events.append((text, message.get("id")))
            self.seq = message["seq"]
        if message["type"] == "account":
            self.cash = message["cash"]
            self.realized = message.get("realized", 0)
            self.positions = message["positions"]
        else:
            order = as_order(message)
            self.orders[order["order_id"]] = order
            if "trade_id" in message:
                self._fills.append((message["symbol"], message["trade_id"]))
            self._by_client_order_id[order["client_order_id"]] = order

    def _record_public(self, text: str, message: Message) -> None:
        symbol, seq = message["symbol"], message["seq"]
        if message["type"] == "trade":
            assert (symbol, message["trade_id"]) not in self.trades
            self.trades[symbol, message["trade_id"]] = text
            return
        if message.get("snapshot"):
            assert symbol not in self._books
            self._books[symbol] = {"bids": {}, "asks": {}}
        else:
            assert message["prev_seq"] == self._held[symbol] < seq
        book = self._books[symbol]
        for side, levels in book.items():
            levels = levels | dict(message[side])
            book[side] = {price: qty for price, qty in levels.items() if qty}
        self._held[symbol] = seq
        self.views[symbol, seq] = dict(book)
