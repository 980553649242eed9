"""Kill the exchange under load, again and again, and hold it to its word.

``python -m util.measure.crash CYCLES SEED`` runs a real exchange, with fees,
limits and keys, and bots that trade with it at random over real sockets, each
writing down what it is told. One of them is an administrator, who opens and
halts the market, suspends the others, gives and takes. After some number of
replies the exchange is killed, and started again on the same journal. Then

- all that any bot was told must be in the journal before the restart, to
  the byte, and nothing in it twice;
- the restart must have canceled the orders that die with their connection,
  and no other;
- cash and lots must have gone from one to the other, and nowhere else;
- every bot comes back for what it missed, finds its own books equal to the
  exchange's, asks again what was left unanswered, and trades on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from exchange.journal.sqlite import read_journal
from exchange.market.accounts import HOUSE
from exchange.market.command import Action, Command, Connect, Restart
from exchange.market.engine import Engine
from exchange.market.reports import in_full
from orderbook import (
    AccountReport,
    Error,
    Exec,
    Status,
    Trade,
    decode_requests,
    encode,
    with_id,
)
from util.measure.process import add_key, launched
from util.measure.wire import PATIENCE_S

BOTS = 20
REPLIES = 2_000  # the most that all bots together get before the kill
CYCLES_PER_JOURNAL = 25  # each cycle reads all of it
SYMBOLS = ("BOND", "ETF")
PRICES = range(96, 105)  # few, so that orders often meet
CASH = 20_000
# Every limit is reached now and then; the first bot has limits of its own.
MARKET = f"""
    [instruments.BOND]
    maker_fee = -1
    taker_fee = 2
    max_position = 60
    reference_price = 100
    collar = 5
    band = 3
    auction_s = 1
    [instruments.ETF]
    taker_fee = 1
    phase = "pre_open"
    [account]
    cash = {CASH}
    min_cash = 0
    open_orders = 9
    orders_per_s = 0
    [accounts.bot0]
    min_cash = -5_000
    max_position = {{ BOND = 20, ETF = 30 }}
"""
ADMINISTRATOR = "boss"
WINDOW = 8  # requests of a bot that wait for their reply, at most
ROWS = 1_000  # of `get orders`, at most
# What is journaled, and asked again when it is left unanswered.
COMMANDS = frozenset(
    "place amend cancel cancel_all cancel_after admin".split()
)
# Fields of a report that tell what happened, not what the order is.
OF_THE_EVENT = frozenset(
    "type id seq ts exec_type last_qty last_price trade_id liquidity fee"
    " reason".split()
)

Message = dict[str, Any]
Book = dict[str, dict[int, int]]  # bids and asks, quantity by price


# The bots -----------------------------------------------------------------


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


@dataclass
class Life:
    """What a bot asked of one process, and the replies it got."""

    is_welcome: bool = False
    requests: list[Message] = field(default_factory=list)  # only commands
    replies: list[str] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)


class Bot:
    """One trader, who writes down all that it is told and looks for lies."""

    def __init__(
        self,
        name: str,
        token: str,
        chance: random.Random,
        cancel_on_disconnect: bool,
        is_follower: bool,
    ) -> None:
        self.name = name
        self.cancel_on_disconnect = cancel_on_disconnect
        self.untold = 0  # private events before the first welcome that came
        self.told: list[tuple[str, Any]] = []  # private events, with their id
        self.lives: list[Life] = []
        self.trades: dict[tuple[str, int], str] = {}  # by symbol, trade_id
        self.views: dict[tuple[str, int], Book] = {}  # by symbol, seq
        self.orders: dict[int, Message] = {}
        self.cash = 0
        self.realized = 0
        self.positions: dict[str, int] = {}
        self.counts: Counter[str] = Counter()
        self._token = token
        self._chance = chance
        self._is_follower = is_follower
        self._session: str | None = None
        self._is_opening = False  # looks around before it trades
        self._by_client_order_id: dict[str, Message] = {}
        self._named = 0  # the last client_order_id
        self._asked = 0  # the last id
        self._again: deque[Message] = deque()
        self._unanswered: deque[Message] = deque()
        self._books: dict[str, Book] = {}
        self._held: dict[str, int] = {}  # seq of each symbol, in this life

    @property
    def seq(self) -> int:
        """The last account seq that it was told."""
        return self.untold + len(self.told)

    @property
    def open_orders(self) -> list[Message]:
        """Its open orders, as far as it was told."""
        return [o for o in self.orders.values() if o.get("leaves_qty")]

    async def live(self, url: str, course: Course) -> None:
        """Trade with one process until it dies."""
        self._books.clear()
        self._held.clear()
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
                        self._hear(text, message)
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

    async def _send(
        self, connection: ClientConnection, requests: list[Message]
    ) -> None:
        if requests:
            self._unanswered.extend(requests)
            await connection.send(json.dumps(requests))

    # What it asks

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
        """Return the requests of its next frame: none while many wait."""
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

    def _with_id(self, request: Message) -> Message:
        self._asked += 1
        return {**request, "id": self._asked}

    def _choose(self) -> Message:
        chance = self._chance
        draw = chance.random()
        if self.name == ADMINISTRATOR and chance.random() < 0.7:
            return self._interfere()
        if draw < 0.6 or not self.orders:
            return self._place()
        if draw < 0.65:
            return {"type": "get", "what": "account"}
        if draw < 0.66:
            return {"type": "get", "what": "orders", "limit": ROWS}
        if draw < 0.68:
            return {"type": "ping"}
        if draw < 0.69:
            return {"type": "cancel_all", "symbol": chance.choice(SYMBOLS)}
        if draw < 0.70:
            timeout_ms = chance.choice((0, 1_000, 60_000))
            return {"type": "cancel_after", "timeout_ms": timeout_ms}
        candidates = self.open_orders or list(self.orders.values())
        order = chance.choice(candidates)
        key = chance.choice(("order_id", "client_order_id"))
        if draw < 0.85:
            return {"type": "cancel", key: order[key]}
        return {
            "type": "amend",
            key: order[key],
            "price": chance.choice(PRICES),
            "qty": chance.randint(1, 20),
        }

    def _place(self) -> Message:
        chance = self._chance
        self._named += 1
        request: Message = {
            "type": "place",
            "symbol": chance.choice(SYMBOLS),
            "side": chance.choice(("buy", "sell")),
            "qty": chance.randint(1, 20),
            "price": chance.choice(PRICES),
            "client_order_id": f"{self.name}-{self._named}",
        }
        match chance.randrange(20):
            case 0:
                request["post_only"] = True
            case 1:
                request["time_in_force"] = chance.choice(("ioc", "fok"))
            case 2:
                del request["price"]
                request["order_type"] = "market"
            case 3:
                request["price"] = 0  # refused
            case 4:
                in_us = chance.randrange(1_000, 2_000_000)
                request["time_in_force"] = "gtd"
                request["expire_ts"] = time.time_ns() // 1_000 + in_us
        return request

    def _interfere(self) -> Message:
        chance = self._chance
        symbol = chance.choice(SYMBOLS)
        action = chance.choices(
            ("phase", "unkill", "adjust", "kill", "cancel", "message")
            + ("reset", "settle"),
            (40, 25, 15, 8, 8, 2, 1, 1),
        )[0]
        request: Message = {"type": "admin", "action": action, "reason": "é"}
        match action:
            case "phase":
                request["phase"] = "open"
                if chance.random() < 0.4:
                    phases = ("auction", "pre_open", "halted", "closed")
                    request |= {"symbol": symbol}
                    request["phase"] = chance.choices(phases, (6, 6, 3, 1))[0]
                    if request["phase"] != "closed":
                        request["reopen_ms"] = 1_000
            case "kill" | "unkill" | "adjust":
                request["user"] = f"bot{chance.randrange(BOTS)}"
                if action == "adjust":
                    request["cash"] = chance.randint(-500, 500)
                    qty = chance.randint(-9, 9)
                    request |= {"symbol": symbol, "qty": qty}
            case "cancel":
                newest = max(self.orders, default=1)
                request["order_id"] = max(newest - chance.randrange(40), 0)
            case "message":
                request["message"] = "lunch is served"
            case "settle":
                request |= {"symbol": symbol, "price": chance.choice(PRICES)}
        return request

    # What it is told

    def _hear(self, text: str, message: Message) -> None:
        try:
            request = None
            if "id" in message:
                request = self._unanswered.popleft()
                assert message["id"] == request["id"]
                self._hear_reply(text, message, request)
            match message["type"]:
                case "exec" | "account":
                    self._hear_private(text, message)
                case "trade" | "book":
                    self._hear_public(text, message)
                case "status":
                    self.lives[-1].statuses.append(text)
                case "heartbeat":
                    seqs = {**self._held, "@": self.seq}
                    assert message["seq"] == seqs
        except AssertionError as error:
            error.add_note(f"{self.name} at {self.seq} got {text}")
            raise

    def _hear_reply(
        self, text: str, message: Message, request: Message
    ) -> None:
        if request["type"] in COMMANDS:
            self.lives[-1].replies.append(text)
        match request["type"]:
            case "login":
                assert message["type"] == "welcome" and message["durable"]
                assert message["resumed"] == (self._session is not None)
                assert message["seq"] >= self.seq
                if self._session is not None:
                    assert message["session"] == self._session
                else:
                    self.untold = message["seq"]
                self._session = message["session"]
                self.lives[-1].is_welcome = True
            case "get" if request["what"] == "account":
                (row,) = message["data"]
                assert row["seq"] == self.seq
                assert row["cash"] == self.cash
                assert row.get("realized", 0) == self.realized
                assert row["positions"] == self.positions
            case "get":
                rows = [_as_order(row) for row in message["data"]]
                orders = [self.orders[i] for i in sorted(self.orders)]
                assert rows == orders[-ROWS:]
            case "place" if message.get("code") == "duplicate_client_order_id":
                order = self._by_client_order_id[request["client_order_id"]]
                for name in ("order_id", "order_status"):
                    assert message[name] == order[name]
                assert message.get("cum_qty", 0) == order.get("cum_qty", 0)
                self.counts["recognized"] += 1
            case "place":
                client_order_id = request["client_order_id"]
                assert client_order_id not in self._by_client_order_id

    def _hear_private(self, text: str, message: Message) -> None:
        if not self.told and message["seq"] == self.seq:
            assert message["type"] == "account"  # as it was at the login
        else:
            assert message["seq"] == self.seq + 1
            self.told.append((text, message.get("id")))
        if message["type"] == "account":
            self.cash = message["cash"]
            self.realized = message.get("realized", 0)
            self.positions = message["positions"]
        else:
            order = _as_order(message)
            self.orders[order["order_id"]] = order
            self._by_client_order_id[order["client_order_id"]] = order

    def _hear_public(self, text: str, message: Message) -> None:
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


def _as_order(message: Message) -> Message:
    return {k: v for k, v in message.items() if k not in OF_THE_EVENT}


class Course:
    """One run of the exchange: opens the trading, and ends it.

    ``end`` is called after so many replies, or, where they are None, as
    soon as all bots are ready. What is lossy loses all that no bot has
    heard by then.
    """

    def __init__(
        self,
        bots: list[Bot],
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
        """Let them trade once all are there."""
        assert not bot.cancel_on_disconnect or not bot.open_orders
        self._ready += 1
        if self._ready < len(self._bots):
            return
        if self._replies is None:
            self._end()
        self.opened.set()


# The comparison -----------------------------------------------------------


class Record:
    """What the journal says has happened, by a new engine.

    Of each run, from one restart to the next, ``runs`` has the commands of
    every account with the replies they got.
    """

    def __init__(self, path: Path, bots: list[Bot]) -> None:
        self.commands = 0
        self.events: defaultdict[str, list[str]] = defaultdict(list)
        self.trades: defaultdict[str, list[str]] = defaultdict(list)
        self.runs: list[defaultdict[str, list[tuple[Action, str]]]] = [
            defaultdict(list)
        ]
        self.statuses: list[list[str]] = [[]]  # of each run
        self.counts: Counter[str] = Counter()
        # Private and public events until the last restart.
        self.before: dict[str, int] = {}
        self._engine = engine = Engine()
        self._bots = {bot.name: bot for bot in bots}
        self._followers = [bot for bot in bots if bot.views]
        self._order_id = 0
        self._names: set[tuple[str, str | None]] = set()
        for commands in read_journal(path):
            for command in commands:
                self._apply(command)
        opened = engine.accounts.keys() - {HOUSE}
        accounts = engine.accounts.values()
        assert sum(account.cash for account in accounts) == CASH * len(opened)
        for symbol in SYMBOLS:
            assert not sum(a.positions.get(symbol, 0) for a in accounts)

    def check(self) -> None:
        """Compare it with what every bot was told."""
        for bot in self._bots.values():
            try:
                self._check(bot)
            except AssertionError as error:
                error.add_note(f"of {bot.name}")
                raise

    def _apply(self, command: Command) -> None:
        self.commands += 1
        assert command.seq == self.commands
        is_restart = isinstance(command.action, Restart)
        if is_restart:
            doomed = self._doomed()
            self.before = {k: len(v) for k, v in self.events.items()}
            self.runs.append(defaultdict(list))
            self.statuses.append([])
        outputs = in_full(self._engine.apply(command))
        for recipient, event in outputs:
            self._take(recipient, event, command.action.type)
        if is_restart:
            ends = [e for _, e in outputs if isinstance(e, Exec)]
            assert [e.order_id for e in ends] == doomed
            assert {e.reason for e in ends} <= {"disconnect"}
            assert not self._doomed()
        elif command.account:
            reply = encode(outputs[0][1]) if outputs else ""
            self.runs[-1][command.account].append((command.action, reply))
        self._look_at_books()

    def _doomed(self) -> list[int]:
        """Return the orders that die with the exchange."""
        return sorted(
            order_id
            for name, account in self._engine.accounts.items()
            if name != HOUSE and self._bots[name].cancel_on_disconnect
            for order_id in account.open_orders
        )

    def _take(self, recipient: str, event: object, by: str) -> None:
        match event:
            case Trade():
                self.trades[event.symbol].append(encode(event))
                assert event.trade_id == len(self.trades[event.symbol])
            case Exec() | AccountReport():
                self.events[recipient].append(encode(event))
                assert event.seq == len(self.events[recipient])
            case Status():
                self.statuses[-1].append(encode(event))
                self.counts[f"statuses by {by}"] += 1
            case Error():
                self.counts[event.code] += 1
        if isinstance(event, Exec) and event.liquidity is not None:
            self.counts[event.liquidity] += 1
        if isinstance(event, Exec) and event.exec_type == "new":
            self._order_id += 1
            assert event.order_id == self._order_id
            name = recipient, event.client_order_id
            assert name not in self._names
            self._names.add(name)

    def _look_at_books(self) -> None:
        """Compare every book that a bot has seen with the book as it was."""
        for symbol, listing in self._engine.listings.items():
            for bot in self._followers:
                view = bot.views.pop((symbol, listing.seq), None)
                if view is not None:
                    book = listing.book
                    assert view["bids"] == dict(book.depth("buy"))
                    assert view["asks"] == dict(book.depth("sell"))

    def _check(self, bot: Bot) -> None:
        events = self.events[bot.name]
        assert bot.seq <= self.before.get(bot.name, 0)
        for (text, request_id), event in zip(bot.told, events[bot.untold :]):
            assert text == with_id(event, request_id)
        for (symbol, trade_id), text in bot.trades.items():
            assert text == self.trades[symbol][trade_id - 1]
        assert not bot.views
        # The run of the last restart has just begun.
        assert len(self.runs) == len(bot.lives) + 1
        for life, run, statuses in zip(bot.lives, self.runs, self.statuses):
            _check_life(life, run[bot.name])
            if life.statuses:
                first = statuses.index(life.statuses[0])
                last = first + len(life.statuses)
                assert life.statuses == statuses[first:last]


def _check_life(life: Life, done: list[tuple[Action, str]]) -> None:
    """Compare what a bot asked of a process with what was carried out."""
    if not done:
        assert not life.is_welcome
        return
    assert isinstance(done[0][0], Connect)
    done = done[1:]
    assert len(life.replies) <= len(done) <= len(life.requests)
    for request, (action, _) in zip(life.requests, done):
        assert decode_requests(json.dumps(request)) == [action]
    for request, text, (_, reply) in zip(life.requests, life.replies, done):
        assert text == with_id(reply, request["id"])


# The cycles ---------------------------------------------------------------


def make_bots(count: int, chance: random.Random, keys: Path) -> list[Bot]:
    """Return bots of every kind, and an administrator, with their keys."""
    names = [f"bot{number}" for number in range(count)]
    return [
        Bot(
            name=name,
            token=add_key(keys, name, is_admin=name == ADMINISTRATOR),
            chance=random.Random(chance.random()),
            cancel_on_disconnect=number % 2 == 0,
            is_follower=number % 4 < 2,
        )
        for number, name in enumerate([*names, ADMINISTRATOR])
    ]


async def crash(
    path: Path,
    seed: int,
    cycles: int,
    bots: int = BOTS,
    replies: int = REPLIES,
    progress: Callable[[], object] = lambda: None,
) -> Counter[str]:
    """Kill an exchange so many times; return what was done, in figures.

    ``progress`` is called after each. Raises AssertionError, maybe in a
    group, where the exchange broke its word.
    """
    chance = random.Random(seed)
    keys, market = path.with_name("keys.json"), path.with_name("market.toml")
    market.write_text(MARKET)
    traders = make_bots(bots, chance, keys)
    counts: Counter[str] = Counter()
    for cycle in range(cycles + 1):
        with launched(
            journal=str(path), keys=str(keys), market=str(market)
        ) as server:
            if cycle:
                record = Record(path, traders)
                record.check()
                progress()
            left, end = None, server.process.terminate  # the last one
            if cycle < cycles:
                left = chance.choice((3 * bots, replies, replies))
                left, end = chance.randint(1, left), server.process.kill
                counts["replies"] += left
            is_lossy = chance.random() < 0.5
            course = Course(traders, left, end, is_lossy)
            async with asyncio.timeout(3 * PATIENCE_S):
                async with asyncio.TaskGroup() as group:
                    for bot in traders:
                        group.create_task(bot.live(server.url, course))
            status, errors = await server.ended()
            assert errors == ""
            assert status == (0 if left is None else -signal.SIGKILL)
    counts["cycles"] = cycles
    counts["commands"] = record.commands
    counts += record.counts
    counts["trades"] = sum(map(len, record.trades.values()))
    for bot in traders:
        counts["events"] += bot.seq
        counts["public"] += len(bot.trades)
        counts += bot.counts
    return counts


def main() -> None:
    """Run ``python -m util.measure.crash CYCLES SEED``."""
    cycles, seed = int(sys.argv[1]), int(sys.argv[2])
    print(f"{cycles} cycles of {BOTS} bots, seed {seed}", flush=True)
    start = time.perf_counter()
    counts: Counter[str] = Counter()
    with tqdm(total=cycles, unit=" cycles") as progress:
        while counts["cycles"] < cycles:
            more = min(cycles - counts["cycles"], CYCLES_PER_JOURNAL)
            # A journal that fails alone is told to `main` by its own seed.
            journal_seed = seed + counts["cycles"]
            progress.set_postfix(seed=journal_seed)
            with tempfile.TemporaryDirectory() as directory:
                counts += asyncio.run(
                    crash(
                        Path(directory, "exchange.db"),
                        journal_seed,
                        more,
                        progress=progress.update,
                    )
                )
    elapsed_s = time.perf_counter() - start
    figures = ", ".join(f"{n:,} {what}" for what, n in counts.items())
    print(f"nothing lost, nothing doubled in {elapsed_s:.0f} s: {figures}")


if __name__ == "__main__":
    main()
