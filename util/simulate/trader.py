"""A trader of a world: it acts at random, and keeps what it was told.

It uses `client.Exchange` as a person's bot would: it names some of its orders
and sends them again under that name until it knows what became of them, gives
up waiting now and then, and connects again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Protocol

import client
from client import (
    Connection,
    ConnectionLost,
    DuplicateClientOrderId,
    Exchange,
    ExchangeError,
    Market,
    Order,
    PushConnection,
    surroundings,
)
from orderbook import Event, Exec, Refused, Side, Table, Trade

from .bots import Bot
from .bots import World as Place
from .exchange import URL
from .latency import Latency
from .loop import NS

SYMBOLS = ("BOND", "ETF")
PRICE = 100  # about which orders are priced, in ticks
LATENCIES = ("200us", "1ms±1ms", "5ms±4ms", "30ms±25ms", "100ms±90ms")
AT_ONCE = 4  # actions whose answers a trader waits for
# What may become of a request.
ACCEPTED, REFUSED, UNSENT, UNKNOWN = "accepted", "refused", "unsent", "unknown"


class World(Place, Protocol):
    """What a trader uses of its world."""

    @property
    def is_quiet(self) -> bool:
        """Whether traders shall do nothing more."""

    def now_us(self) -> int:
        """Return the exchange's time."""


@dataclass(eq=False)
class Life:
    """What one Exchange of a trader was told.

    ``told`` has the events of each frame with its time in nanoseconds; no
    events where a connection began. ``fills`` and ``trades`` are what each of
    its iterators returned, which end when it is closed.
    """

    exchange: Exchange
    told: list[tuple[int, list[Event]]]
    fills: list[list[Exec]] = field(default_factory=list)
    trades: dict[str, list[list[Trade]]] = field(default_factory=dict)
    orders: dict[int, Order] = field(default_factory=dict)
    markets: dict[str, Market] = field(default_factory=dict)
    readers: list[asyncio.Task[None]] = field(default_factory=list)


class Trader:
    """One trader with one account.

    ``lives`` are its Exchanges, the newest last. ``outcomes`` has what became
    of the orders that it named, each time that it was told something.
    ``books`` are books as it saw them, by symbol and seq.
    """

    def __init__(self, world: World, name: str, chance: Random) -> None:
        self.name = name
        self.lives: list[Life] = []
        self.outcomes: dict[str, list[str]] = {}
        self.canceled: set[int] = set()  # orders whose cancel was confirmed
        self.books: dict[tuple[str, int], list[client.Book]] = {}
        self.rows: list[Event] = []  # of tables
        self.counts: Counter[str] = Counter()
        self._world = world
        self._chance = chance
        latency = chance.choice(LATENCIES)
        self.bot = Bot(
            world, name, latency=Latency.read(latency), chance=chance
        )
        self._stays = chance.random() < 0.7
        self._pause_s = chance.choice((0.1, 0.2, 0.4))
        self._is_maker = chance.random() < 0.6
        self._silence_s = chance.choice((3.0, 5.0, 16.0))
        self._request_s = chance.choice((0.5, 3.0, 10.0))
        self._named = 0
        # Orders that are sent again under their names: see `_try`.
        self._again: dict[str, tuple[str, Side, int, int | None, Any]] = {}
        self._acting: dict[asyncio.Task[None], None] = {}
        self._is_away = False  # it closed its Exchange
        self._is_done = False

    def is_ready(self, since: float) -> bool:
        """Return whether it does nothing, and is connected.

        Its Exchange must have heard something since then, in seconds.
        """
        if not self._is_done or not self.lives[-1].exchange.is_connected:
            return False
        return self.lives[-1].told[-1][0] / NS > since

    @property
    def trouble(self) -> str:
        """Why it is not ready."""
        trouble = self.lives[-1].exchange.trouble if self.lives else None
        return trouble or "it waits for an answer"

    @property
    def logins(self) -> int:
        """How often it connected."""
        return sum(
            not events for life in self.lives for _, events in life.told
        )

    # Life

    async def live(self) -> None:
        """Trade until the world is quiet; then stay connected."""
        await self._enter()
        while not self._world.is_quiet:
            await asyncio.sleep(self._chance.expovariate(1.0) * self._pause_s)
            if not self._world.is_quiet:
                await self._begin(self._choose())
        await self._finish()
        await self._come_back()
        self._is_done = True
        await asyncio.Event().wait()

    async def _enter(self) -> None:
        """Begin with a new Exchange."""
        told: list[tuple[int, list[Event]]] = []
        loop, decode = self._world.loop, self._world.decoder.decode
        connect = surroundings.get().connect

        def record(frame: str | bytes) -> list[Event]:
            events = decode(frame)
            told.append((loop.now, events))
            return events

        async def open_connection(url: str) -> Connection | PushConnection:
            connection = await connect(url)
            told.append((loop.now, []))
            return connection

        around = surroundings.get()
        surroundings.set(
            replace(around, decode=record, connect=open_connection)
        )
        exchange = Exchange(
            URL,
            self.name,
            cancel_on_disconnect=not self._stays,
            silence_timeout=self._silence_s,
            request_timeout=self._request_s,
        )
        surroundings.set(around)
        life = Life(exchange, told)
        self.lives.append(life)
        self._read(life, exchange.fills(), life.fills)
        await self._come_back()
        await self._follow(life)

    async def _follow(self, life: Life) -> None:
        for symbol in SYMBOLS:
            while symbol not in life.markets:
                try:
                    market = await life.exchange.market(symbol)
                except ExchangeError:
                    await asyncio.sleep(0.05)
                    continue
                life.markets[symbol] = market
                series = life.trades.setdefault(symbol, [])
                self._read(life, market.trades(), series)

    async def _come_back(self) -> None:
        """Connect, unless the Exchange does so by itself."""
        exchange = self.lives[-1].exchange
        self._is_away = True
        while self._is_away:
            try:
                await exchange.connect()
                self._is_away = False
            except ExchangeError:
                await asyncio.sleep(0.05)

    def _read(self, life: Life, events: Any, series: list[Any]) -> None:
        """Keep what an iterator of the client returns."""
        returned: list[Any] = []
        series.append(returned)

        async def read() -> None:
            async for event in events:
                returned.append(event)

        life.readers.append(asyncio.create_task(read()))

    # Actions

    async def _begin(self, name: str) -> None:
        """Do one thing, and do not wait for its end if it does not matter."""
        if name in ("leave", "renew"):
            await self._finish()
            await self._act(name, None)
            return
        patience = self._chance.choice((0.02, 0.3, 5.0, 5.0, 5.0, 5.0))
        task = asyncio.create_task(self._act(name, patience))
        self._acting[task] = None
        task.add_done_callback(self._acted)
        if len(self._acting) >= AT_ONCE:
            await asyncio.wait(
                self._acting, return_when=asyncio.FIRST_COMPLETED
            )

    def _acted(self, task: asyncio.Task[None]) -> None:
        del self._acting[task]
        if not task.cancelled():
            task.result()  # raises what no trader expects, into the loop

    async def _finish(self) -> None:
        """Wait until everything that was begun has ended."""
        if self._acting:
            await asyncio.wait(self._acting)

    async def _act(self, name: str, patience: float | None) -> None:
        """Do one thing; give up waiting for its answer after a time."""
        self.counts[name] += 1
        try:
            async with asyncio.timeout(patience):
                await getattr(self, f"_{name}")(self.lives[-1])
        except TimeoutError:
            self.counts["timeouts"] += 1
        except Refused as refusal:
            self.counts[refusal.code] += 1
        except ExchangeError as error:
            self.counts[type(error).__name__] += 1

    def _choose(self) -> str:
        weights: dict[str, float] = {
            "place": 24,
            "stop": 5,
            "repeat": 30 if self._again else 0,
            "amend": 12,
            "cancel": 10,
            "quote": 25 if self._is_maker else 0,
            "cancel_all": 2,
            "cancel_after": 3,
            "convert": 4,
            "look": 5,
            "glance": 16,
            "leave": 2,
            "renew": 0.5,
        }
        return self._chance.choices(list(weights), list(weights.values()))[0]

    def _market(self, life: Life) -> Market:
        market = life.markets[self._chance.choice(SYMBOLS)]
        book = market.book
        self.books.setdefault((book.symbol, book.seq), []).append(book)
        return market

    def _price(self, side: Side) -> int:
        away = int(self._chance.gauss(-0.5, 2))
        return PRICE - away if side == "buy" else PRICE + away

    async def _place(self, life: Life) -> None:
        chance = self._chance
        side: Side = chance.choice(("buy", "sell"))
        options: dict[str, Any] = {}
        price: int | None = self._price(side)
        kind = chance.choice(
            ("gtc", "gtc", "gtc", "gtd", "gtd", "ioc", "fok", "market")
        )
        if kind == "market":
            price = None
        elif kind == "gtd":
            options["expire_ts"] = self._world.now_us() + chance.randint(
                100_000, 6_000_000
            )
        else:
            options["time_in_force"] = kind
        qty = chance.randint(1, 8)
        if kind in ("gtc", "gtd") and chance.random() < 0.2:
            options["display_qty"] = chance.randint(1, qty)
        if kind in ("gtc", "gtd") and chance.random() < 0.1:
            options["post_only"] = True
        await self._send(life, side, qty, price, options)

    async def _stop(self, life: Life) -> None:
        side: Side = self._chance.choice(("buy", "sell"))
        away = self._chance.randint(0, 4)
        trigger = PRICE + away if side == "buy" else PRICE - away
        price = self._price(side) if self._chance.random() < 0.5 else None
        options = {"trigger_price": trigger}
        await self._send(
            life, side, self._chance.randint(1, 5), price, options
        )

    async def _send(
        self,
        life: Life,
        side: Side,
        qty: int,
        price: int | None,
        options: dict[str, Any],
    ) -> None:
        """Place an order, mostly under a name of its own."""
        market = self._market(life)
        if self._chance.random() < 0.3:
            buy_or_sell = market.buy if side == "buy" else market.sell
            order = await buy_or_sell(qty, price, **options)
            life.orders[order.order_id] = order
            return
        self._named += 1
        name = f"{self.name}:{self._named}"
        options["client_order_id"] = name
        self._again[name] = market.symbol, side, qty, price, options
        await self._try(life, name)

    async def _repeat(self, life: Life) -> None:
        """Send an order again whose first copy got no answer yet."""
        if self._again:
            await self._try(life, self._chance.choice(list(self._again)))

    async def _try(self, life: Life, name: str) -> None:
        symbol, side, qty, price, options = self._again[name]
        market = life.markets[symbol]
        buy_or_sell = market.buy if side == "buy" else market.sell
        outcomes = self.outcomes.setdefault(name, [])
        copy = len(outcomes)
        outcomes.append(UNKNOWN)
        try:
            order = await buy_or_sell(qty, price, **options)
        except DuplicateClientOrderId:
            outcomes[copy] = ACCEPTED
            self._again.pop(name, None)
            raise
        except Refused as refusal:
            outcomes[copy] = REFUSED
            if refusal.code not in ("busy", "rate_limited"):
                self._again.pop(name, None)
            raise
        except ConnectionLost as error:
            if "nothing was sent" in str(error):
                outcomes[copy] = UNSENT
            raise
        outcomes[copy] = ACCEPTED
        self._again.pop(name, None)
        life.orders[order.order_id] = order

    def _own(self, life: Life) -> Order | None:
        orders = life.exchange.orders
        return self._chance.choice(orders) if orders else None

    async def _amend(self, life: Life) -> None:
        order = self._own(life)
        if order is None:
            return
        life.orders[order.order_id] = order
        qty = order.cum_qty + self._chance.randint(1, 8)
        if self._chance.random() < 0.5 or order.price is None:
            await order.amend(qty=qty)
        else:
            await order.amend(self._price(order.side), qty)

    async def _cancel(self, life: Life) -> None:
        order = self._own(life)
        if order is not None:
            life.orders[order.order_id] = order
            await order.cancel()
            self.canceled.add(order.order_id)

    async def _quote(self, life: Life) -> None:
        market, chance = self._market(life), self._chance
        middle = PRICE + chance.randint(-3, 3)
        await market.quote(
            middle - chance.randint(1, 3) if chance.random() < 0.9 else None,
            middle + chance.randint(1, 3) if chance.random() < 0.9 else None,
            chance.randint(1, 6),
        )

    async def _cancel_all(self, life: Life) -> None:
        await life.exchange.cancel_all()

    async def _cancel_after(self, life: Life) -> None:
        await life.exchange.cancel_after(self._chance.choice((0, 1, 2, 3)))

    async def _convert(self, life: Life) -> None:
        side: Side = self._chance.choice(("buy", "sell"))
        await life.markets["ETF"].convert(side, 2)

    async def _look(self, life: Life) -> None:
        """Read a table."""
        tables: tuple[Table, ...] = ("fills", "trades", "book")
        table = self._chance.choice(tables)
        symbol = None if table == "fills" else self._chance.choice(SYMBOLS)
        self.rows += await life.exchange.get(table, symbol=symbol, limit=5)

    async def _glance(self, life: Life) -> None:
        """Place an order, and ask at once for the book that results."""
        market = self._market(life)
        side: Side = self._chance.choice(("buy", "sell"))
        buy_or_sell = market.buy if side == "buy" else market.sell
        placing = asyncio.create_task(
            buy_or_sell(self._chance.randint(1, 8), self._price(side))
        )
        try:
            await life.exchange.market(market.symbol)
        finally:
            order = await placing
            life.orders[order.order_id] = order

    async def _leave(self, life: Life) -> None:
        """Close the Exchange, and use it again."""
        await life.exchange.close()
        await asyncio.sleep(self._chance.random() * 3)
        await self._come_back()
        self._read(life, life.exchange.fills(), life.fills)
        for symbol, market in life.markets.items():
            self._read(life, market.trades(), life.trades[symbol])

    async def _renew(self, life: Life) -> None:
        """Close the Exchange, and go on with another: a new session."""
        await life.exchange.close()
        await self._enter()
