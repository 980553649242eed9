"""The trader's door: an account and its markets as live Python objects.

    async with Exchange(user="alice") as ex:
        bond = await ex.market("BOND")
        order = await bond.buy(10, 99)
        await order.done()

``Exchange`` is for asyncio; ``BlockingExchange`` has the same names, without
``await``, for plain scripts and notebooks. Prices are integer ticks,
quantities integer lots, cash is ticks times lots, times are microseconds
since the epoch (UTC).

The objects follow the exchange by themselves. Each report and each change
of a book is numbered, so a duplicate is ignored and a gap is noticed. There
is one cure for a gap, for silence and for an answer that does not come: the
client connects again, resumes its session, and then sends again what got no
answer, where that cannot take effect twice. Nothing is sent twice on one
connection, so a slow exchange gets each request once. While it is not
connected, ``Exchange.trouble`` says why, and so does one line in the log
``exchange.client``.

What goes wrong is raised, never returned:

::

    Exception
     +-- Refused (of orderbook)   the exchange says no; nothing has changed
     |    +-- BadRequest                bad_request
     |    +-- Unauthorized              unauthorized
     |    +-- RateLimited               rate_limited
     |    +-- Busy                      busy
     |    +-- Forbidden                 forbidden
     |    +-- UnknownSymbol             unknown_symbol
     |    +-- DuplicateClientOrderId    duplicate_client_order_id
     |    +-- UnknownOrder              unknown_order
     |    +-- OrderClosed               order_closed
     |    +-- MarketClosed              market_closed
     |    +-- InvalidQty                invalid_qty
     |    +-- InvalidPrice              invalid_price
     |    +-- TooManyOrders             too_many_orders
     |    +-- PositionLimit             position_limit
     |    +-- InsufficientFunds         insufficient_funds
     |    +-- WouldTake                 would_take
     +-- ExchangeError            something else than a refusal
          +-- ConnectionLost            not connected; nothing was sent
          +-- OutcomeUnknown            sent; the connection ended unanswered
          +-- EventsLost                an iterator can no longer be complete

This module and ``orderbook.py`` are all a participant needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import logging
import os
import random
import secrets
import threading
from collections import deque
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import count
from types import NoneType
from typing import (
    Any,
    Concatenate,
    Generic,
    NamedTuple,
    ParamSpec,
    Self,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
    get_args,
    get_origin,
    get_type_hints,
)
from urllib.parse import urlsplit
from weakref import WeakSet, WeakValueDictionary, finalize

from pydantic import TypeAdapter
from pydantic_core import to_json
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidMessage,
    InvalidStatus,
)

from orderbook import (
    MAX_ROWS,
    AccountReport,
    Admin,
    AdminAction,
    Amend,
    BookUpdate,
    Cancel,
    CancelAfter,
    CancelAll,
    Error,
    Event,
    Exec,
    Get,
    Heartbeat,
    Instrument,
    Interval,
    Login,
    Ok,
    OrderStatus,
    Phase,
    Ping,
    Place,
    PriceLevel,
    Reason,
    Refused,
    Request,
    Side,
    Status,
    Stp,
    Subscribe,
    Table,
    Ticker,
    TimeInForce,
    Trade,
    Welcome,
    decode_events,
    decode_requests,
    encode,
)

DEFAULT_HOSTNAME = "localhost"
DEFAULT_PORT = 8765
CONNECT_TIMEOUT = 10.0  # seconds until one is connected and logged in ...
CONNECT_TRIES = 3  # ... in which a try that got stuck can be repeated
REQUEST_TIMEOUT = 10.0  # seconds a request waits for a lost connection
SILENCE_TIMEOUT = 16.0  # seconds: three heartbeats of 5 s, and some delay
CLOSE_TIMEOUT = 1.0  # seconds that a closing handshake may take
BACKOFF_MIN = 0.1  # seconds at most before the first reconnect ...
BACKOFF_MAX = 10.0  # ... doubled at each failure up to this
# Seconds more after the exchange has cut off who asked too much: as a rule a
# whole burst is allowed again by then.
CUT_OFF_PAUSE = 2.0
MAX_FRAME_BYTES = 16 << 20  # of a frame received; servers send 1 MiB at most
EVENTS_WAITING = 100_000  # in an iterator before its reader is too slow

logger = logging.getLogger("exchange.client")

T = TypeVar("T")
A = TypeVar("A")
P = ParamSpec("P")

# What goes wrong ----------------------------------------------------------


class BadRequest(Refused):
    """The request makes no sense; ``field`` names what is wrong."""

    code = "bad_request"


class Unauthorized(Refused):
    """The login failed, or there was none."""

    code = "unauthorized"


class RateLimited(Refused):
    """Too many requests; ``retry_after_ms`` may say when to try again."""

    code = "rate_limited"


class Busy(Refused):
    """The exchange takes no new orders for a moment; cancels go on."""

    code = "busy"


class Forbidden(Refused):
    """This account may not do that."""

    code = "forbidden"


class UnknownSymbol(Refused):
    """No such instrument is listed."""

    code = "unknown_symbol"


class DuplicateClientOrderId(Refused):
    """The ``client_order_id`` was used before, by ``order_id``."""

    code = "duplicate_client_order_id"


class UnknownOrder(Refused):
    """The account has, or remembers, no such order."""

    code = "unknown_order"


class OrderClosed(Refused):
    """Too late: the order has ended, as ``order_status`` says."""

    code = "order_closed"


class MarketClosed(Refused):
    """The instrument does not trade now."""

    code = "market_closed"


class InvalidQty(Refused):
    """The quantity is outside the instrument's bounds."""

    code = "invalid_qty"


class InvalidPrice(Refused):
    """The price is outside the instrument's bounds."""

    code = "invalid_price"


class TooManyOrders(Refused):
    """The account has as many open orders as it may have."""

    code = "too_many_orders"


class PositionLimit(Refused):
    """The order could take the position over its limit."""

    code = "position_limit"


class InsufficientFunds(Refused):
    """The order could cost more than the account has."""

    code = "insufficient_funds"


class WouldTake(Refused):
    """The post-only order would have traded at once."""

    code = "would_take"


class ExchangeError(Exception):
    """Something else than a refusal."""


class ConnectionLost(ExchangeError):
    """The exchange cannot be reached, or this object is not connected.

    Raised by a request, it means that the request was never sent.
    """


class OutcomeUnknown(ExchangeError):
    """A request was sent, and the connection ended before an answer came.

    It may have been carried out. The live objects are right all the same,
    once connected again.
    """


class EventsLost(ExchangeError):
    """An iterator of events has ended because it would have a hole.

    Its reader fell more than EVENTS_WAITING events behind, or the exchange
    no longer knows what was missed.
    """


_REFUSALS: dict[str, type[Refused]] = {
    kind.code: kind for kind in Refused.__subclasses__()
}


def _refusal(error: Error) -> Refused:
    """Return the exception for an error; codes yet unknown are Refused."""
    return _REFUSALS.get(error.code, Refused)(
        error.code,
        error.message,
        field=error.field,
        retry_after_ms=error.retry_after_ms,
        order_id=error.order_id,
        order_status=error.order_status,
        cum_qty=error.cum_qty,
    )


def _make(type_: str, **fields: Any) -> Request:
    """Return a request; fields that are None are left out.

    Whatever counts as an integer to Python, such as those of numpy, does
    here. Raises BadRequest, which names the field, for anything else that
    the exchange would not understand.
    """
    given = {k: v for k, v in fields.items() if v is not None}
    for name, value in given.items():
        if isinstance(value, str) and not _is_unicode(value):
            problem = f"{name}: is not Unicode text"
            raise BadRequest("bad_request", problem, field=name)
    text = to_json(
        {"type": type_, **given}, inf_nan_mode="strings", fallback=_as_int
    )
    [request] = decode_requests(text)
    if isinstance(request, Error):
        raise _refusal(request)
    return request


def _is_unicode(text: str) -> bool:
    """Return whether a text has no surrogates, such as undecoded bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _as_int(value: Any) -> Any:
    return value.__index__() if hasattr(value, "__index__") else repr(value)


# Values -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Book:
    """A book at one moment: levels are (price, qty), best first."""

    symbol: str
    seq: int = 0
    ts: int = 0
    bids: tuple[PriceLevel, ...] = ()
    asks: tuple[PriceLevel, ...] = ()

    @property
    def bid(self) -> int | None:
        """The best price to sell at, None if nobody buys."""
        return self.bids[0][0] if self.bids else None

    @property
    def ask(self) -> int | None:
        """The best price to buy at, None if nobody sells."""
        return self.asks[0][0] if self.asks else None

    @property
    def mid(self) -> float | None:
        """The middle between bid and ask, None if either is missing.

        Also None while they cross, as before an auction: then neither is a
        price to trade at.
        """
        if not self.bids or not self.asks:
            return None
        bid, ask = self.bids[0][0], self.asks[0][0]
        return (bid + ask) / 2 if bid <= ask else None

    def _updated(self, update: BookUpdate) -> Book:
        """Return the book that a snapshot is, or a change makes of this."""
        base = Book(self.symbol) if update.snapshot else self
        return Book(
            self.symbol,
            update.seq,
            update.ts,
            _merge(base.bids, update.bids, best_is_highest=True),
            _merge(base.asks, update.asks, best_is_highest=False),
        )


def _merge(
    levels: Iterable[PriceLevel],
    changes: Iterable[PriceLevel],
    best_is_highest: bool,
) -> tuple[PriceLevel, ...]:
    merged = {**dict(levels), **dict(changes)}
    kept = [(price, qty) for price, qty in merged.items() if qty]
    return tuple(sorted(kept, reverse=best_is_highest))


class OrderOptions(TypedDict, total=False):
    """What an order may be given besides side, quantity and price.

    time_in_force: "gtc" rests until it is filled or canceled, "ioc" trades
        what it can at once, "fok" all or nothing at once, "gtd" rests until
        expire_ts. By default "gtc"; "ioc" of a market order, "gtd" where
        expire_ts is given.
    expire_ts: when the order expires, in microseconds since the epoch.
    post_only: True refuses the order (WouldTake) if it would trade at once.
    stp: which of two orders of the account is canceled where they would
        trade with each other: "cancel_oldest" (default), "cancel_newest" or
        "cancel_both".
    client_order_id: 1 to 36 of A-Z a-z 0-9 _ . : -, never used by the
        account before; by default one is made up.
    """

    time_in_force: TimeInForce
    expire_ts: int
    post_only: bool
    stp: Stp
    client_order_id: str


class AdminArguments(TypedDict, total=False):
    """What an administrator's action is about.

    Which of them an action needs, and which it may have, stands in
    ``docs/PROTOCOL.md``; ``cash`` and ``qty`` are to be added.
    """

    symbol: str
    phase: Phase
    reopen_ms: int
    user: str
    order_id: int
    cash: int
    qty: int
    price: int
    message: str


class Candle(NamedTuple):
    """The trades of one interval; ``start_ts`` in microseconds."""

    start_ts: int
    open: int
    high: int
    low: int
    close: int
    volume: int


_INSTRUMENT: TypeAdapter[Instrument] = TypeAdapter(Instrument)

# Tables as pandas has them -------------------------------------------------

_TIMES = ("ts", "start_ts", "expire_ts")


def _dtype(hint: Any) -> str:
    """Return the type that pandas gives a field; each may be missing."""
    kinds = set(get_args(hint) or (hint,)) - {NoneType}
    if kinds <= {int}:
        return "Int64"
    if kinds <= {bool}:
        return "boolean"
    return "object" if get_origin(hint) in (dict, tuple) else "string"


def _columns(message: type[Any]) -> dict[str, str]:
    hints = get_type_hints(message)
    return {
        field.name: _dtype(hints[field.name])
        for field in fields(message)
        if field.name not in ("type", "id")
    }


_COLUMNS: dict[Table, dict[str, str]] = {
    "trades": _columns(Trade),
    "orders": _columns(Exec),
    "fills": _columns(Exec),
    "book": _columns(BookUpdate),
    "account": _columns(AccountReport),
    "instruments": _columns(Instrument),
    "candles": dict.fromkeys(Candle._fields, "Int64"),
    "leaderboard": {
        "rank": "Int64",
        "user": "string",
        "equity": "Int64",
        "cash": "Int64",
        "positions": "object",
    },
    "positions": {
        "symbol": "string",
        **dict.fromkeys(("position", "cost", "mark", "unrealized"), "Int64"),
    },
}


def _plain(row: Any, what: Table) -> dict[str, Any]:
    """Return a row of a table with all fields, those at default too."""
    if what == "candles":
        return Candle(*row)._asdict()
    if what == "instruments":
        row = _INSTRUMENT.validate_python(row)
    return row if isinstance(row, dict) else asdict(row)


# What can be looked at ----------------------------------------------------


class OrderView:
    """An order as the exchange last reported it."""

    def __init__(self, state: _OrderState) -> None:
        self._state = state

    @property
    def order_id(self) -> int:
        """The exchange's number of the order."""
        return self._state.report.order_id

    @property
    def client_order_id(self) -> str | None:
        """The order's name as given when placing it, or made up."""
        return self._state.report.client_order_id

    @property
    def symbol(self) -> str:
        """The instrument."""
        return self._state.report.symbol

    @property
    def side(self) -> Side:
        """``"buy"`` or ``"sell"``."""
        return self._state.report.side

    @property
    def order_status(self) -> OrderStatus:
        """new, partially_filled, filled, canceled or expired."""
        return self._state.report.order_status

    @property
    def price(self) -> int | None:
        """The limit in ticks, None for a market order."""
        return self._state.report.price

    @property
    def qty(self) -> int:
        """The total quantity, fills included."""
        return self._state.report.qty

    @property
    def cum_qty(self) -> int:
        """The quantity filled."""
        return self._state.report.cum_qty

    @property
    def leaves_qty(self) -> int:
        """The quantity that can still trade."""
        return self._state.report.leaves_qty

    @property
    def avg_price(self) -> float | None:
        """The average price of the fills, None without any."""
        report = self._state.report
        return report.cum_cost / report.cum_qty if report.cum_qty else None

    @property
    def fills(self) -> tuple[Exec, ...]:
        """The executions seen since the order is known here, in order."""
        return tuple(self._state.fills)

    @property
    def is_open(self) -> bool:
        """Whether the order can still trade."""
        return self._state.is_open

    @property
    def reason(self) -> Reason | None:
        """Why it was canceled or expired; "unknown_order": forgotten."""
        return self._state.report.reason

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OrderView):
            return NotImplemented
        return self._state is other._state

    def __hash__(self) -> int:
        return id(self._state)

    def __repr__(self) -> str:
        price = "market" if self.price is None else f"@ {self.price}"
        return (
            f"<{type(self).__name__} {self.order_id}: {self.side} {self.qty}"
            f" {self.symbol} {price}, {self.order_status},"
            f" filled {self.cum_qty}>"
        )


class MarketView:
    """One instrument: its book, its last trade, the position in it."""

    def __init__(self, core: _Core, state: _MarketState) -> None:
        self._core = core
        self._state = state

    @property
    def symbol(self) -> str:
        """The instrument's name."""
        return self._state.symbol

    @property
    def book(self) -> Book:
        """The newest book; a value that does not change."""
        return self._state.book

    @property
    def is_live(self) -> bool:
        """Whether ``book`` follows the exchange: False while catching up."""
        return self._state.is_live and self._core.is_online

    @property
    def instrument(self) -> Instrument:
        """Tick size, bounds and phase."""
        return self._core.instruments[self._state.symbol]

    @property
    def avg_price(self) -> float | None:
        """The average price of the lots held, None where none are."""
        holding = self._state.holding
        if not (holding and holding.position):
            return None
        return holding.cost / holding.position

    @property
    def profit(self) -> int | None:
        """The profit here: of what was closed since `connect`, less fees,
        and of the lots held, at their mark of now.

        None while it is not known, just after a market is first followed.
        """
        holding = self._state.holding
        mark = self._core.mark(self._state.symbol)
        if holding is None or mark is None:
            return None
        return holding.realized + holding.position * mark - holding.cost

    @property
    def last(self) -> int | None:
        """The price of the last trade, None if there was none yet."""
        trade = self._state.last_trade
        return trade.price if trade else None

    @property
    def position(self) -> int:
        """The lots held; negative when short."""
        return self._core.account.positions.get(self._state.symbol, 0)

    def __repr__(self) -> str:
        book = self.book
        return f"<{type(self).__name__} {self.symbol}: {book.bid}/{book.ask}>"


class ExchangeView:
    """The account. Private facts raise Unauthorized without a user."""

    url: str

    def __init__(self, core: _Core) -> None:
        self._core = core

    def __repr__(self) -> str:
        who = f"{self.user} at {self.url}" if self.user else self.url
        text = "connected" if self.is_connected else self._core.not_connected
        if self.user and self.is_connected:
            text += f", cash {self.cash}, equity {self.equity}"
        return f"<{type(self).__name__} {who}: {text}>"

    @property
    def user(self) -> str | None:
        """The account's name, None for public data only."""
        return self._core.user

    @property
    def is_connected(self) -> bool:
        """Whether the account is in step with the exchange."""
        return self._core.is_online

    @property
    def trouble(self) -> str | None:
        """Why it is not connected, in a line; None while it is."""
        return self._core.trouble

    @property
    def instruments(self) -> dict[str, Instrument]:
        """What is listed, by symbol."""
        return dict(self._core.instruments)

    @property
    def cash(self) -> int:
        """The money of the account, in ticks times lots."""
        return self._core.account.cash

    @property
    def equity(self) -> int:
        """Cash, and the positions at their marks of now."""
        return self._core.equity

    @property
    def realized(self) -> int:
        """The profit of what has been closed, fees paid."""
        return self._core.account.realized

    @property
    def unrealized(self) -> int:
        """The profit of the positions, at their marks of now."""
        account = self._core.account
        return account.unrealized + self._core.equity - account.equity

    @property
    def positions(self) -> dict[str, int]:
        """The lots held of each symbol ever traded."""
        return dict(self._core.account.positions)


# Asyncio ------------------------------------------------------------------


class Exchange(ExchangeView):
    """A connection to the exchange that repairs itself.

    ``url`` is by default $EXCHANGE_URL, else made of
    $EXCHANGE_SERVER_HOSTNAME and $EXCHANGE_SERVER_PORT, else
    ws://localhost:8765; ``user`` and ``token`` are by default $EXCHANGE_USER
    and $EXCHANGE_TOKEN. Without a user, "" where that variable is set, there
    is public data only. When the connection ends and no other replaces it,
    the exchange cancels the orders placed here, unless
    ``cancel_on_disconnect`` is False.
    A revoked key ends it: pending and later requests raise Unauthorized.

    Times are in seconds. A request waits for its answer as long as the
    connection lives, so put ``asyncio.timeout`` around one that must not;
    while the connection is lost, ``request_timeout`` bounds the wait.
    ``silence_timeout`` without a heartbeat means that the connection is lost.

    ``connect`` and ``close`` may be called in any order and any number of
    times. An Exchange that nothing refers to any more closes itself; in a
    notebook, outputs and the last traceback may refer to it, so close it
    before another takes its name.
    """

    def __init__(
        self,
        url: str | None = None,
        user: str | None = None,
        token: str | None = None,
        *,
        cancel_on_disconnect: bool = True,
        connect_timeout: float = CONNECT_TIMEOUT,
        request_timeout: float = REQUEST_TIMEOUT,
        silence_timeout: float = SILENCE_TIMEOUT,
    ) -> None:
        if user is None:
            user = os.environ.get("EXCHANGE_USER")
        login = None
        if user:
            login = _make(
                "login",
                user=user,
                token=token or os.environ.get("EXCHANGE_TOKEN") or None,
                cancel_on_disconnect=cancel_on_disconnect,
            )
        assert login is None or isinstance(login, Login)
        self.url = url or _default_url()
        if urlsplit(self.url).scheme not in ("ws", "wss"):
            raise ValueError(f"{self.url} is not like ws://hostname:port")
        super().__init__(_Core(login, secrets.token_hex(4)))
        self._link = _Link(
            self.url,
            self._core,
            connect_timeout=connect_timeout,
            request_timeout=request_timeout,
            silence_timeout=silence_timeout,
        )
        self._markets: WeakValueDictionary[str, Market] = WeakValueDictionary()
        # At the end of the process the system closes the connection.
        finalize(self, self._link.drop).atexit = False

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """Connect and log in; ``async with`` does it for you.

        Does nothing where it is connected. May be called again after it
        failed, and after ``close``. Raises ConnectionLost if the exchange
        cannot be reached within ``connect_timeout``, Unauthorized if it
        refuses the login.
        """
        is_new = self._link.start()
        try:
            await self._link.come_online(self._link.connect_timeout)
        except BaseException as error:
            if is_new:  # else it goes on trying, as before
                await self._link.close(_ending(error))
            raise

    async def close(self) -> None:
        """Disconnect; iterators end, pending requests raise ConnectionLost."""
        await self._link.close()

    async def market(self, symbol: str) -> Market:
        """Follow an instrument's book and trades.

        Raises UnknownSymbol.
        """
        channels = ("book", "trades")
        request = _make("subscribe", channels=channels, symbols=[symbol])
        state = self._core.follow(symbol)
        try:
            await self._link.ask(_Call(request))
        except UnknownSymbol:
            self._core.unfollow(symbol)
            raise
        state.is_subscribed = True
        self._core.catch_up(state)
        self._core.learn_holdings()
        self._link.wake()
        await self._link.until(lambda: state.is_live and state.knows_trades)
        return self._markets.setdefault(symbol, Market(self, state))

    @property
    def orders(self) -> list[Order]:
        """The account's open orders, oldest first, wherever placed."""
        return [Order(self, o) for o in self._core.open_orders()]

    async def cancel_all(
        self, symbol: str | None = None, side: Side | None = None
    ) -> int:
        """Cancel the account's open orders; return how many there were.

        Never sent twice: OutcomeUnknown if the connection breaks meanwhile.
        """
        reply = await self._ask(_make("cancel_all", symbol=symbol, side=side))
        assert isinstance(reply, Ok)
        return reply.count or 0

    async def cancel_after(self, seconds: float) -> None:
        """Let all orders be canceled then; call again to postpone, 0 never.

        The dead man's switch of the account: 0, or 1 to 86,400 seconds.
        """
        timeout_ms = round(seconds * 1_000)
        await self._ask(_make("cancel_after", timeout_ms=timeout_ms))

    async def admin(
        self,
        action: AdminAction,
        reason: str,
        **arguments: Unpack[AdminArguments],
    ) -> None:
        """Act as an administrator; every connection is told, with the reason.

        Returns once it is done. Raises Refused: Forbidden without an
        administrator's key. Never sent twice: OutcomeUnknown if the
        connection breaks meanwhile.
        """
        await self._ask(
            _make("admin", action=action, reason=reason, **arguments)
        )

    async def get(
        self,
        what: Table,
        *,
        symbol: str | None = None,
        after: int | None = None,
        limit: int | None = None,
        interval: Interval | None = None,
    ) -> list[Any]:
        """Return rows of a table, oldest first: the newest ``limit`` ones.

        With ``after`` (a trade_id, order_id or account seq) those that
        follow it. Rows of trades, orders, fills, book and account are events
        of ``orderbook``, those of instruments, leaderboard and positions
        dicts, candles lists.
        """
        reply = await self._ask(
            _make(
                "get",
                what=what,
                symbol=symbol,
                after=after,
                limit=limit,
                interval=interval,
            )
        )
        assert isinstance(reply, Ok)
        return _rows(reply)

    async def frame(
        self,
        what: Table,
        *,
        symbol: str | None = None,
        after: int | None = None,
        limit: int = MAX_ROWS,
        interval: Interval | None = None,
    ) -> Any:
        """Return a table as a pandas DataFrame, the arguments as of `get`.

        A table has the same columns and types whatever its rows: integers
        are Int64, which may be missing, and times are UTC timestamps. ``ts``,
        or ``start_ts`` of candles, is the index where a table has one. Needs
        pandas: raises ImportError.
        """
        import pandas  # not needed for anything else

        rows = await self.get(
            what, symbol=symbol, after=after, limit=limit, interval=interval
        )
        columns = _COLUMNS[what]
        plain = [_plain(row, what) for row in rows]
        table = pandas.DataFrame(
            {
                name: pandas.Series(
                    [row.get(name) for row in plain], dtype=kind
                )
                for name, kind in columns.items()
            }
        )
        for name in set(_TIMES) & columns.keys():
            table[name] = pandas.to_datetime(table[name], unit="us", utc=True)
        index = [name for name in ("ts", "start_ts") if name in columns]
        return table.set_index(index[0]) if index else table

    async def leaderboard(self) -> list[dict[str, Any]]:
        """Return rank, user, equity, cash, positions; the best first."""
        return await self.get("leaderboard", limit=MAX_ROWS)

    def fills(self) -> Stream[Exec]:
        """Iterate over every execution of the account from now on."""
        self._core.require_user()
        return self._stream(self._core.fills)

    def statuses(self) -> Stream[Status]:
        """Iterate over the exchange's news from now on.

        News that come while there is no connection are not sent later; the
        phase of a ``Market.instrument`` is right all the same.
        """
        return self._stream(self._core.statuses)

    # Within

    def _stream(self, topic: WeakSet[_Topic[T]]) -> Stream[T]:
        events: _Topic[T] = _Topic()
        topic.add(events)
        return Stream(self, events)

    async def _place(self, call: _Call) -> Order:
        try:
            await self._link.ask(call)
        except Refused as refusal:
            if not call.is_in_doubt:
                raise
            # An earlier copy may have been accepted.
            call.order = await self._find(call, refusal)
            if call.order is None:
                raise
        assert call.order is not None
        return Order(self, call.order)

    async def _find(self, call: _Call, refusal: Refused) -> _OrderState | None:
        """Look an order up that a place, sent twice, may have made."""
        assert isinstance(call.request, Place)
        after, limit = None, MAX_ROWS
        if refusal.order_id is not None:
            after, limit = max(refusal.order_id - 1, 0), 1
        try:
            rows = await self.get("orders", after=after, limit=limit)
        except Refused as error:
            raise OutcomeUnknown(f"sent twice, then: {refusal}") from error
        for row in rows:
            if row.client_order_id == call.request.client_order_id:
                return self._core.learn(row)
        return None

    async def _ask(
        self, request: Request, order: _OrderState | None = None
    ) -> Event:
        return await self._link.ask(_Call(request, order))


class Market(MarketView):
    """One instrument to trade; made by ``Exchange.market``."""

    def __init__(self, exchange: Exchange, state: _MarketState) -> None:
        super().__init__(exchange._core, state)
        self._exchange = exchange

    @property
    def orders(self) -> list[Order]:
        """The account's open orders here, oldest first."""
        return [o for o in self._exchange.orders if o.symbol == self.symbol]

    async def buy(
        self,
        qty: int,
        price: int | None = None,
        **options: Unpack[OrderOptions],
    ) -> Order:
        """Place an order to buy; without a price a market order.

        Returns the live order, its immediate fills applied; ``OrderOptions``
        lists the options. Raises Refused; OutcomeUnknown if the connection
        was lost and did not come back in time, in which case the order may
        turn up in ``orders``. An order that is given up before it was sent,
        as by ``asyncio.timeout(0)``, is never sent.
        """
        call = self._core.placing(self.symbol, "buy", qty, price, **options)
        return await self._exchange._place(call)

    async def sell(
        self,
        qty: int,
        price: int | None = None,
        **options: Unpack[OrderOptions],
    ) -> Order:
        """Place an order to sell; in all else like ``buy``."""
        call = self._core.placing(self.symbol, "sell", qty, price, **options)
        return await self._exchange._place(call)

    async def quote(
        self, bid: int | None, ask: int | None, qty: int
    ) -> tuple[Order | None, Order | None]:
        """Show ``qty`` lots at each price; None pulls that side.

        Keeps at most one bid and one ask of its own, which are placed,
        amended or canceled in one frame; a side already as wanted is not
        touched. Returns both orders, None where there is none. If a side is
        refused, the first refusal is raised after both were tried, and what
        stood on that side still stands. The exception is an order whose
        total, its fills included, would come above the instrument's
        ``max_qty``: it is canceled and a new one placed.
        """
        if bid is not None and ask is not None and bid >= ask:
            raise BadRequest("bad_request", "bid: not below ask", field="bid")
        prices: dict[Side, int | None] = {"buy": bid, "sell": ask}
        link, state = self._exchange._link, self._state
        async with link.quoting(self.symbol):
            sides: Sequence[Side] = ("buy", "sell")
            while sides:
                await link.know_quotes(state)
                calls = self._core.quoting(state, prices, sides, qty)
                answers = await link.ask_all(
                    [call for both in calls.values() for call in both]
                )
                for answer in answers.values():
                    if isinstance(answer, Exception):
                        if not isinstance(answer, OrderClosed):
                            raise answer
                # An order that has ended must be placed again.
                sides = [
                    side
                    for side, both in calls.items()
                    if isinstance(answers[both[-1]], OrderClosed)
                ]
            return self._quoted("buy"), self._quoted("sell")

    def _quoted(self, side: Side) -> Order | None:
        order = self._core.quoted(self._state, side)
        return None if order is None else Order(self._exchange, order)

    async def cancel_all(self, side: Side | None = None) -> int:
        """Cancel the account's open orders here; return how many."""
        return await self._exchange.cancel_all(self.symbol, side)

    async def candles(
        self, interval: Interval = "1m", limit: int | None = None
    ) -> list[Candle]:
        """Return the newest candles, oldest first; empty ones left out."""
        rows = await self._exchange.get(
            "candles", symbol=self.symbol, interval=interval, limit=limit
        )
        return [Candle(*row) for row in rows]

    def books(self) -> AsyncIterator[Book]:
        """Iterate over the book: the one there is, then each newer one.

        A slow reader skips to the newest; there is never a backlog.
        """
        return _Books(self._exchange, self._state)

    def trades(self) -> Stream[Trade]:
        """Iterate over every trade of the instrument from now on."""
        return self._exchange._stream(self._state.trades)


class Order(OrderView):
    """A live order; made by ``Market.buy`` and the like."""

    def __init__(self, exchange: Exchange, state: _OrderState) -> None:
        super().__init__(state)
        self._exchange = exchange

    async def amend(
        self, price: int | None = None, qty: int | None = None
    ) -> None:
        """Change price, total quantity (fills included) or both.

        Raises OrderClosed if it was too late; the order is as it was after
        any refusal. OutcomeUnknown if the connection was lost and a newer
        amend was made meanwhile.
        """
        request = _make("amend", order_id=self.order_id, price=price, qty=qty)
        await self._exchange._ask(request, self._state)

    async def cancel(self) -> None:
        """Cancel what is left; raises OrderClosed if it was too late."""
        request = _make("cancel", order_id=self.order_id)
        await self._exchange._ask(request, self._state)

    async def done(self) -> Self:
        """Wait until the order is filled, canceled or expired."""
        await self._exchange._link.until(lambda: not self._state.is_open)
        return self


class Stream(Generic[T]):
    """Every event of a kind, in order, each once.

    Ends when the exchange is closed. Raises EventsLost rather than skip one.
    """

    def __init__(self, exchange: Exchange, topic: _Topic[T]) -> None:
        self._exchange = exchange
        self._topic = topic

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        topic = self._topic
        try:
            await self._exchange._link.until(
                lambda: topic.events or topic.error
            )
        except ConnectionLost:
            if self._exchange._link.is_closed:
                raise StopAsyncIteration from None
            raise
        if topic.error is not None:
            raise topic.error
        return topic.events.popleft()


class _Books:
    def __init__(self, exchange: Exchange, state: _MarketState) -> None:
        self._exchange = exchange
        self._state = state
        self._seen: Book | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Book:
        state = self._state
        try:
            await self._exchange._link.until(
                lambda: state.book is not self._seen
            )
        except ConnectionLost:
            if self._exchange._link.is_closed:
                raise StopAsyncIteration from None
            raise
        self._seen = state.book
        return self._seen


def _default_url() -> str:
    environ = os.environ
    hostname = environ.get("EXCHANGE_SERVER_HOSTNAME") or DEFAULT_HOSTNAME
    port = environ.get("EXCHANGE_SERVER_PORT") or DEFAULT_PORT
    return environ.get("EXCHANGE_URL") or f"ws://{hostname}:{port}"


# The connection -----------------------------------------------------------


class _Link:
    """The connection of an Exchange, replaced whenever it is lost.

    It does not refer to the Exchange, so that one which nothing uses any
    more is collected; then `drop` closes the connection. ``failure`` says
    why no request can be made, None while one can; ``is_closed``: because
    the user closed it.
    """

    def __init__(
        self,
        url: str,
        core: _Core,
        *,
        connect_timeout: float,
        request_timeout: float,
        silence_timeout: float,
    ) -> None:
        self.connect_timeout = connect_timeout
        self.is_closed = False
        self.failure: Exception | None = ConnectionLost(core.not_connected)
        self._url = url
        self._name = f"{core.user} at {url}" if core.user else url
        self._core = core
        self._try_timeout = connect_timeout / CONNECT_TRIES
        self._request_timeout = request_timeout
        self._silence_timeout = silence_timeout
        # Of the loop in which it was started:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._to_send = asyncio.Event()
        self._locks: dict[str, asyncio.Lock] = {}  # of quotes, by symbol
        self._waiters: dict[asyncio.Future[None], Callable[[], object]] = {}
        self._timers: dict[_Call, asyncio.TimerHandle] = {}
        self._sockets: list[ClientConnection] = []  # the newest last
        self._closing: dict[asyncio.Task[None], ClientConnection] = {}
        self._backoff = BACKOFF_MIN
        self._lost_at: float | None = None  # None: it was not connected yet

    # Life

    def start(self) -> bool:
        """Begin to connect in the running loop; False if that has begun."""
        if self._task and not self._task.done() and self._loop:
            if not self._loop.is_closed():
                return False
        self._loop = asyncio.get_running_loop()
        self._to_send = asyncio.Event()
        self._locks.clear()
        self._waiters.clear()
        self._backoff = BACKOFF_MIN
        self._lost_at = None
        self.failure = None
        self.is_closed = False
        self._core.started()
        self._task = self._loop.create_task(self._run())
        return True

    async def come_online(self, seconds: float) -> None:
        """Wait for a connection; raises ConnectionLost if none comes."""
        try:
            async with asyncio.timeout(seconds):
                await self.until(lambda: self._core.is_online)
        except TimeoutError:
            raise ConnectionLost(
                f"not connected to {self._url}: {self._core.trouble}"
            ) from None

    async def close(self, failure: Exception | None = None) -> None:
        """End, maybe with a failure; wait until every socket is closed."""
        self.is_closed = failure is None
        self._stop(failure or ConnectionLost("this Exchange is closed"))
        await self.ended()

    async def ended(self) -> None:
        """Wait until nothing is left of what `start` began."""
        if self._task is not None and not self._task.done():
            await asyncio.wait((self._task,))

    def drop(self) -> None:
        """Close, in whatever thread: nothing uses the Exchange any more."""
        if self._loop is not None:
            failure = ConnectionLost("no object refers to this Exchange")
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._stop, failure)

    def _stop(self, failure: Exception) -> None:
        if self.failure is None and self._task is not None:
            self._fail(failure)
            self._task.cancel()

    def _fail(self, failure: Exception) -> None:
        if self.failure is None:
            self.failure = failure
            reason = str(failure).removeprefix(
                f"not connected to {self._url}: "
            )
            self._core.fail(failure, reason)
            self._look()

    async def _run(self) -> None:
        """Keep one connection after the other until there is a failure."""
        core = self._core
        try:
            while self.failure is None:
                try:
                    await self._attend()
                except Exception as error:  # whatever it is, it is lost
                    if isinstance(error, ConnectionClosed) and error.rcvd:
                        core.closed(error.rcvd.code, error.rcvd.reason)
                    self._lost(self._explain(error))
                if core.refused is not None:
                    self._fail(core.refused)
                if self.failure is not None:
                    return
                pause = random.uniform(0, self._backoff)
                if core.is_cut_off:
                    pause += CUT_OFF_PAUSE
                await asyncio.sleep(pause)
                self._backoff = min(self._backoff * 2, BACKOFF_MAX)
        finally:
            self._fail(ConnectionLost("the event loop of this Exchange ended"))
            await self._hang_up()

    async def _hang_up(self) -> None:
        """Close every socket, within CLOSE_TIMEOUT."""
        sockets = [*self._sockets, *self._closing.values()]
        work = [socket.close() for socket in self._sockets]
        self._sockets = []
        try:
            await asyncio.gather(*work, *self._closing, return_exceptions=True)
        except asyncio.CancelledError:
            for socket in sockets:
                socket.transport.abort()
            raise

    # Requests

    async def ask(self, call: _Call) -> Event:
        """Send a request, wait for its answer and return it, or raise it."""
        answer = (await self.ask_all([call]))[call]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def ask_all(
        self, calls: Sequence[_Call]
    ) -> dict[_Call, Event | Exception]:
        """Send requests in one frame; return the answer to each.

        What is not sent yet when this is canceled is never sent.
        """
        await asyncio.sleep(0)  # a timeout of 0 s cancels here
        if self.failure is not None:
            raise self.failure
        loop = asyncio.get_running_loop()
        futures: dict[_Call, asyncio.Future[Event | Exception]] = {}
        for call in calls:
            futures[call] = future = loop.create_future()
            call.settle = functools.partial(_resolve, future)
        self._core.submit(calls)
        self.wake()
        if not self._core.is_online:
            self._arm(calls)
        try:
            if futures:
                await asyncio.wait(futures.values())
        finally:
            for call in calls:
                self._core.withdraw(call)
                timer = self._timers.pop(call, None)
                if timer is not None:
                    timer.cancel()
        return {call: future.result() for call, future in futures.items()}

    def quoting(self, symbol: str) -> asyncio.Lock:
        """Return the lock of a symbol's quotes."""
        return self._locks.setdefault(symbol, asyncio.Lock())

    async def know_quotes(self, market: _MarketState) -> None:
        """Wait until it is known which quotes stand.

        It is not while there is no connection, nor while a quote that was
        given up is unanswered. Raises ConnectionLost like a request.
        """
        if self.failure is not None:
            raise self.failure
        if not self._core.is_online:
            await self.come_online(self._request_timeout)
        await self.until(lambda: self._core.knows_quotes(market))

    async def until(self, is_so: Callable[[], object]) -> None:
        """Wait until something is so; looked at after each frame."""
        while not is_so():
            if self.failure is not None:
                raise self.failure
            future = asyncio.get_running_loop().create_future()
            self._waiters[future] = is_so
            try:
                await future
            finally:
                self._waiters.pop(future, None)

    def wake(self) -> None:
        """Let the core's requests be sent."""
        self._to_send.set()

    def _look(self) -> None:
        for future, is_so in list(self._waiters.items()):
            if not future.done() and (self.failure or is_so()):
                future.set_result(None)

    def _arm(self, calls: Iterable[_Call]) -> None:
        """Bound the time that calls wait for a connection."""
        loop = asyncio.get_running_loop()
        for call in calls:
            self._timers[call] = loop.call_later(
                self._request_timeout, self._core.give_up, call
            )

    # One connection

    async def _attend(self) -> None:
        """Live through one connection, from its opening to its end.

        A connection given up by this side stays open until the next one has
        taken its session over: closing it first would cancel the orders.
        """
        loop, core = asyncio.get_running_loop(), self._core
        async with asyncio.timeout(self._try_timeout) as deadline:
            socket = await connect(
                self._url,
                compression=None,
                proxy=None if _is_loopback(self._url) else True,
                max_size=MAX_FRAME_BYTES,
                open_timeout=None,
                close_timeout=CLOSE_TIMEOUT,
                # Heartbeats tell of a loss. Pings without an answer would
                # close a connection that has to stay open, see above.
                ping_interval=None,
            )
            alive = [s for s in self._sockets if s.close_code is None]
            self._sockets = [*alive, socket]
            core.connected()
            self.wake()
            writer = asyncio.create_task(self._write(socket))
            try:
                while True:
                    was_online = core.is_online
                    events = decode_events(await socket.recv())
                    self._receive(events)
                    beats = any(isinstance(e, Heartbeat) for e in events)
                    if not was_online and core.is_online:
                        self._came_online(socket)
                    elif beats and core.is_online:
                        self._backoff = BACKOFF_MIN
                    else:
                        continue
                    deadline.reschedule(loop.time() + self._silence_timeout)
            finally:
                writer.cancel()

    def _receive(self, events: list[Event]) -> None:
        """Take in a frame; raise ConnectionLost if it shows a loss."""
        core = self._core
        try:
            core.receive(events)
        except Exception as bug:
            self._fail(bug)
            raise
        if core.outbox:
            self.wake()
        self._look()
        if core.hole is not None:
            raise ConnectionLost(core.hole)

    async def _write(self, socket: ClientConnection) -> None:
        core = self._core
        with contextlib.suppress(Exception):  # the reader notices, too
            while True:
                while (frame := core.next_frame()) is not None:
                    await socket.send(frame)
                self._to_send.clear()
                await self._to_send.wait()

    def _came_online(self, socket: ClientConnection) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for old in self._sockets:
            if old is not socket:
                task = asyncio.create_task(old.close())
                self._closing[task] = old
                task.add_done_callback(self._closing.pop)
        self._sockets = [socket]
        if self._lost_at is not None:
            away_s = asyncio.get_running_loop().time() - self._lost_at
            logger.info("%s: connected again after %.1f s", self._name, away_s)

    def _lost(self, reason: str) -> None:
        """Note that there is no connection, and say why: once each time."""
        core = self._core
        if core.is_online:
            self._lost_at = asyncio.get_running_loop().time()
            logger.warning("%s: not connected: %s", self._name, reason)
            self._arm(core.disconnected(reason))
        else:
            core.disconnected(reason)
        self._look()

    def _explain(self, error: Exception) -> str:
        """Say in a line why a connection was lost, or did not come about."""
        match error:
            case ConnectionClosed() if error.rcvd:
                reason = f" {error.rcvd.reason}".rstrip()
                text = f"the exchange closed it ({error.rcvd.code}{reason})"
            case ConnectionClosed():
                text = "the connection broke off"
            case InvalidStatus(response=response):
                text = f"the server answers HTTP {response.status_code}"
                kind = response.headers.get("Content-Type", "")
                if kind.startswith("text/plain"):  # and not a page of a proxy
                    body = response.body or b""
                    text += f": {body.decode(errors='replace')}"
            case InvalidMessage() if self._url.startswith("ws:"):
                text = f"{error}; if it speaks TLS, its address is wss://"
            case TimeoutError() if self._core.is_online:
                text = f"no heartbeat for {self._silence_timeout:g} s"
            case TimeoutError():
                text = f"no login within {self._try_timeout:.3g} s"
            case _:
                text = str(error) or repr(error)
        return " ".join(text.split())


def _ending(error: BaseException) -> Exception:
    """Return what requests raise after `connect` ended with an error."""
    if isinstance(error, Exception):
        return error
    return ConnectionLost("not connected: connect() was canceled")


def _resolve(
    future: asyncio.Future[Event | Exception],
    answer: Event | Exception,
) -> None:
    if not future.done():
        future.set_result(answer)


def _is_loopback(url: str) -> bool:
    hostname = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return hostname == "localhost"


# Blocking -----------------------------------------------------------------


class _Thread:
    """The thread whose event loop has the asyncio side, while it lives.

    It begins with `start`, and ends by itself when the connection does, for
    whatever reason; then it may begin again.
    """

    def __init__(self, link: _Link) -> None:
        self.link = link
        # Held to begin, and to hand work over: neither meets the end.
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> bool:
        """Begin; False if it has begun already."""
        with self._lock:
            if self._loop is not None:
                return False
            self.join()  # the one before may not be quite over
            begun = threading.Event()
            thread = threading.Thread(
                target=asyncio.run,
                args=(self._live(begun),),
                name="exchange",
                daemon=True,
            )
            thread.start()
            begun.wait()
            self._thread = thread  # which others may join
            return True

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine over there and wait for its result."""
        with self._lock:
            if self._loop is None:
                work.close()
                raise self.link.failure or ConnectionLost("it has ended")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # such as after Ctrl-C
            raise

    def join(self) -> None:
        """Wait for the end, for which there must be a reason."""
        if self._thread is not None:
            self._thread.join()

    async def _live(self, begun: threading.Event) -> None:
        self.link.start()
        self._loop = asyncio.get_running_loop()
        begun.set()
        await self.link.ended()
        with self._lock:
            self._loop = None
        await asyncio.sleep(0)  # the last work handed over becomes a task
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)


class _Blocking(Generic[A]):
    """The blocking side of an asyncio object."""

    _inner: A
    _thread: _Thread


def _blocking(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[_Blocking[A], P], T]:
    """Return the method that waits for what ``method`` does."""

    @functools.wraps(method)
    def wait(self: _Blocking[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._thread.wait(method(self._inner, *args, **kwargs))

    return wait


def _blocking_order(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, Order]],
) -> Callable[Concatenate[_Blocking[A], P], BlockingOrder]:
    """Like ``_blocking``, for a method that returns an order."""

    @functools.wraps(method)
    def wait(
        self: _Blocking[A], /, *args: P.args, **kwargs: P.kwargs
    ) -> BlockingOrder:
        order = self._thread.wait(method(self._inner, *args, **kwargs))
        return BlockingOrder(order, self._thread)

    return wait


def _blocking_iterator(
    method: Callable[Concatenate[A, P], AsyncIterator[T]],
) -> Callable[Concatenate[_Blocking[A], P], Iterator[T]]:
    """Return the method whose iterator waits for that of ``method``."""

    @functools.wraps(method)
    def begin(
        self: _Blocking[A], /, *args: P.args, **kwargs: P.kwargs
    ) -> Iterator[T]:
        async def start() -> AsyncIterator[T]:
            return method(self._inner, *args, **kwargs)

        return _BlockingIterator(self._thread.wait(start()), self._thread)

    return begin


class _BlockingIterator(Generic[T]):
    def __init__(self, inner: AsyncIterator[T], thread: _Thread) -> None:
        self._inner = inner
        self._thread = thread

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        try:
            return self._thread.wait(self._next())
        except StopAsyncIteration:
            raise StopIteration from None
        except ConnectionLost:  # the thread has ended
            if self._thread.link.is_closed:
                raise StopIteration from None
            raise

    async def _next(self) -> T:
        return await anext(self._inner)


class BlockingOrder(OrderView, _Blocking[Order]):
    """A live order; its methods wait."""

    def __init__(self, inner: Order, thread: _Thread) -> None:
        super().__init__(inner._state)
        self._inner = inner
        self._thread = thread

    amend = _blocking(Order.amend)
    cancel = _blocking(Order.cancel)
    done = _blocking_order(Order.done)


class BlockingMarket(MarketView, _Blocking[Market]):
    """One instrument to trade; made by ``BlockingExchange.market``."""

    def __init__(self, inner: Market, thread: _Thread) -> None:
        super().__init__(inner._core, inner._state)
        self._inner = inner
        self._thread = thread

    @property
    def orders(self) -> list[BlockingOrder]:
        """The account's open orders here, oldest first."""
        return [BlockingOrder(o, self._thread) for o in self._inner.orders]

    def quote(
        self, bid: int | None, ask: int | None, qty: int
    ) -> tuple[BlockingOrder | None, BlockingOrder | None]:
        """Show ``qty`` lots at each price, as ``Market.quote`` does."""
        left, right = self._thread.wait(self._inner.quote(bid, ask, qty))
        return (
            None if left is None else BlockingOrder(left, self._thread),
            None if right is None else BlockingOrder(right, self._thread),
        )

    buy = _blocking_order(Market.buy)
    sell = _blocking_order(Market.sell)
    cancel_all = _blocking(Market.cancel_all)
    candles = _blocking(Market.candles)
    books = _blocking_iterator(Market.books)
    trades = _blocking_iterator(Market.trades)


class BlockingExchange(ExchangeView, _Blocking[Exchange]):
    """An ``Exchange`` for plain scripts and notebooks: no ``await``.

    Takes the arguments of ``Exchange`` and has its methods; each waits until
    it is done, iterators are plain ones. Use it in a ``with`` block, or call
    ``connect`` and ``close``. It may be used from several threads. While it
    is connected it has a thread of its own.
    """

    def __init__(
        self,
        url: str | None = None,
        user: str | None = None,
        token: str | None = None,
        **options: Any,
    ) -> None:
        self._inner = Exchange(url, user, token, **options)
        super().__init__(self._inner._core)
        self.url = self._inner.url
        self._thread = _Thread(self._inner._link)

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def connect(self) -> None:
        """Connect and log in, as ``Exchange.connect`` does."""
        is_new = self._thread.start()
        try:
            self._thread.wait(self._inner.connect())
        except BaseException as error:
            if is_new:
                self._end(self._inner._link.close(_ending(error)))
            raise

    def close(self) -> None:
        """Disconnect and end the thread; iterators end."""
        self._end(self._inner.close())

    def _end(self, closing: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(Exception):  # it has ended already
            self._thread.wait(closing)
        self._thread.join()

    def market(self, symbol: str) -> BlockingMarket:
        """Follow an instrument's book and trades; UnknownSymbol if none."""
        market = self._thread.wait(self._inner.market(symbol))
        return BlockingMarket(market, self._thread)

    @property
    def orders(self) -> list[BlockingOrder]:
        """The account's open orders, oldest first, wherever placed."""
        return [BlockingOrder(o, self._thread) for o in self._inner.orders]

    cancel_all = _blocking(Exchange.cancel_all)
    cancel_after = _blocking(Exchange.cancel_after)
    admin = _blocking(Exchange.admin)
    get = _blocking(Exchange.get)
    frame = _blocking(Exchange.frame)
    leaderboard = _blocking(Exchange.leaderboard)
    fills = _blocking_iterator(Exchange.fills)
    statuses = _blocking_iterator(Exchange.statuses)


# State, without sockets or clocks -----------------------------------------


class _Topic(Generic[T]):
    """The events that wait for one reader."""

    def __init__(self) -> None:
        self.events: deque[T] = deque()
        self.error: EventsLost | None = None

    def push(self, event: T) -> None:
        if len(self.events) >= EVENTS_WAITING:
            self.fail(f"the reader is {EVENTS_WAITING} events behind")
        if self.error is None:
            self.events.append(event)

    def fail(self, message: str) -> None:
        self.error = EventsLost(message)
        self.events.clear()


@dataclass(slots=True, eq=False)
class _OrderState:
    """What is known of one order; ``report`` is the newest about it."""

    report: Exec
    fills: list[Exec] = field(default_factory=list)
    newest_amend: _Call | None = None

    @property
    def is_open(self) -> bool:
        return self.report.leaves_qty > 0


@dataclass(slots=True)
class _Holding:
    """The lots held of a symbol, and what they cost; below 0: brought in.

    ``realized`` is the profit of what was closed since `connect`, less fees.
    """

    position: int = 0
    cost: int = 0
    realized: int = 0

    def fill(self, report: Exec) -> int:
        """Book an execution; return its profit, by "Profit" of PROTOCOL.md."""
        qty, price = report.last_qty or 0, report.last_price or 0
        bought = qty if report.side == "buy" else -qty
        position, cost = self.position, self.cost
        profit = -(report.fee or 0)
        self.position += bought
        if (position < 0) == (bought < 0) or not position:
            self.cost += price * bought
        elif qty < abs(position):
            released = cost * qty // abs(position)
            profit -= price * bought + released
            self.cost -= released
        else:  # closed, and the rest opened the other way round
            profit += price * position - cost
            self.cost = price * self.position
        self.realized += profit
        return profit


@dataclass(slots=True, eq=False)
class _MarketState:
    """What is known of one symbol.

    ``last_trade`` is the newest of the trades known without a hole; None
    with ``knows_trades``: there was none yet. ``quotes`` are the calls that
    placed the orders of ``Market.quote``. ``holding`` is None while it is not
    known, as without a user.
    """

    symbol: str
    book: Book
    is_subscribed: bool = False  # on this connection, as `ok` said
    is_live: bool = False  # False: waiting for a snapshot
    last_trade: Trade | None = None
    knows_trades: bool = False
    catching_up: Generator[Get, list[Any], None] | None = None
    trades: WeakSet[_Topic[Trade]] = field(default_factory=WeakSet)
    quotes: dict[Side, _Call] = field(default_factory=dict)
    holding: _Holding | None = None


@dataclass(slots=True, eq=False)
class _Call:
    """A request of the user's, until it is answered.

    ``order`` is the order concerned; of a place, once it is known.
    ``times_sent`` counts the connections on which it was sent; it is never
    sent twice on one. ``is_in_doubt``: it was sent, and then a login did not
    report everything since. ``is_withdrawn``: the caller no longer waits for
    the answer, so it is not sent again.
    """

    request: Request
    order: _OrderState | None = None
    settle: Callable[[Event | Exception], None] = lambda answer: None
    times_sent: int = 0
    is_in_doubt: bool = False
    is_withdrawn: bool = False


@dataclass(slots=True, eq=False)
class _Resync:
    """A login that did not resume: the state as the exchange tells it."""

    welcome: Welcome
    is_same_history: bool
    orders: list[Exec] = field(default_factory=list)
    account: AccountReport | None = None
    later: list[Exec | AccountReport] = field(default_factory=list)


_FORGOTTEN: Any = "unknown_order"  # a reason no exchange gives
# Close codes: the login failed, or its key was revoked; and abuse.
_LOGIN_FAILED, _CUT_OFF = 4001, 4002
_Private: TypeAlias = Place | Amend | Cancel | CancelAll | CancelAfter | Admin
_Rows: TypeAlias = Generator[Get, list[Any], None]


class _Own(NamedTuple):
    """A request of the core's own, and what takes its reply."""

    request: Request
    then: Callable[[Event], None]


def _rows(reply: Ok) -> list[Any]:
    """Return the rows of a reply, those that are messages as events."""
    rows = reply.data or []
    if rows and isinstance(rows[0], dict) and "type" in rows[0]:
        return list(decode_events(to_json(rows)))
    return rows


class _Core:
    """The account and its markets as the exchange has told them.

    Fed with events; `next_frame` is what it wants sent. ``trouble`` says why
    it is not online, None while it is. ``hole`` says that something is
    missing, so that the connection must be replaced; ``refused`` that the
    login was refused and must not be repeated, and ``is_cut_off`` that the
    exchange closed the connection because of too many requests.
    """

    def __init__(self, login: Login | None, prefix: str) -> None:
        self.user = login.user if login else None
        self.instruments: dict[str, Instrument] = {}
        self.markets: dict[str, _MarketState] = {}
        self.fills: WeakSet[_Topic[Exec]] = WeakSet()
        self.statuses: WeakSet[_Topic[Status]] = WeakSet()
        self.is_online = False
        self.trouble: str | None = "call connect() first"
        # Frames to be sent: calls, or a request of the core's own.
        self.outbox: deque[Sequence[_Call] | _Own] = deque()
        self.hole: str | None = None
        self.refused: Refused | None = None
        self.is_cut_off = False
        self._login = login
        self._prefix = prefix
        self._placed = count(1)
        self._ids = count(1)
        self._calls: dict[_Call, None] = {}
        self._placing: dict[str, _Call] = {}  # by client_order_id
        # By id, in the order of the requests: so come the replies.
        self._replies: dict[int, Callable[[Event], None]] = {}
        self._oldest_id: int | None = None  # of them, at the last heartbeat
        # Requests of the core's own that were too many at the time.
        self._put_off: list[_Own] = []
        # Of symbols held and not followed; None: no ticker has come yet.
        self._tickers: dict[str, Ticker | None] = {}
        self._open: dict[int, _OrderState] = {}
        self._account = AccountReport(
            seq=0, ts=0, cash=0, positions={}, equity=0
        )
        # Of the account: the newest event held. None before the first login
        # has been taken in, and `_target` is the seq that completes one.
        self._seq: int | None = None
        self._ts = 0
        self._target: int | None = None
        self._resync: _Resync | None = None

    # What is known

    @property
    def not_connected(self) -> str:
        """Say that there is no connection, and why."""
        return f"not connected: {self.trouble}"

    @property
    def account(self) -> AccountReport:
        self.require_user()
        return self._account

    @property
    def equity(self) -> int:
        """Cash and positions at the marks of now.

        While a mark is not known yet: as the exchange last reported it.
        """
        account = self.account
        equity = account.cash
        for symbol, position in account.positions.items():
            if position:
                mark = self.mark(symbol)
                if mark is None:
                    return account.equity
                equity += position * mark
        return equity

    def mark(self, symbol: str) -> int | None:
        """Return what positions are valued at, None if it is not known.

        "The mark" of docs/PROTOCOL.md: the median of best bid, reference
        price and best ask, or the reference price where a side is missing.
        """
        market, ticker = self.markets.get(symbol), self._tickers.get(symbol)
        if market is not None and market.is_live and market.knows_trades:
            bid, ask = market.book.bid, market.book.ask
            last = market.last_trade.price if market.last_trade else None
        elif ticker is not None:
            bid, ask, last = ticker.bid, ticker.ask, ticker.last
        else:
            return None
        if last is None:
            last = self.instruments[symbol].reference_price
        if bid is None or ask is None:
            return last
        return sorted((bid, last, ask))[1]

    def learn_holdings(self) -> None:
        """Ask what the lots held of each market have cost."""
        if self.user is not None and self.markets:
            self._ask(Get(what="positions"), self._learn_holdings)

    def _learn_holdings(self, reply: Event) -> None:
        if not isinstance(reply, Ok):
            return  # of an exchange that has no such table
        rows = {row["symbol"]: row for row in reply.data or ()}
        for symbol, market in self.markets.items():
            row = rows.get(symbol, {"position": 0, "cost": 0})
            market.holding = _Holding(
                row["position"],
                row["cost"],
                market.holding.realized if market.holding else 0,
            )

    def _check_holdings(self, report: AccountReport) -> None:
        """Notice lots that came or went without an execution.

        So does an administrator's settlement, reset or adjustment. If it is
        of one market, the profit that comes with it is that market's.
        """
        moved: dict[str, _Holding] = {
            symbol: market.holding
            for symbol, market in self.markets.items()
            if market.holding is not None
            and market.holding.position != report.positions.get(symbol, 0)
        }
        for symbol, holding in moved.items():
            if len(moved) == 1:
                profit = report.realized - self._account.realized
                holding.realized += profit
            if not report.positions.get(symbol):
                holding.position = holding.cost = 0
        if moved:
            self.learn_holdings()

    def _follow_held(self) -> None:
        """Ask for the tickers of what is held and not followed."""
        symbols = tuple(
            symbol
            for symbol, position in self._account.positions.items()
            if position
            and symbol not in self.markets
            and symbol not in self._tickers
        )
        if symbols and self.is_online:
            self._tickers |= dict.fromkeys(symbols)
            self._ask(
                Subscribe(channels=("ticker",), symbols=symbols),
                lambda event: None,
            )

    def require_user(self) -> None:
        if self.user is None:
            raise Unauthorized("unauthorized", "no user was given")

    def open_orders(self) -> list[_OrderState]:
        self.require_user()
        orders = list(self._open.values())
        return sorted(orders, key=lambda order: order.report.order_id)

    def follow(self, symbol: str) -> _MarketState:
        if symbol not in self.markets:
            self.markets[symbol] = _MarketState(symbol, Book(symbol))
        return self.markets[symbol]

    def unfollow(self, symbol: str) -> None:
        self.markets.pop(symbol, None)

    # Requests of the user

    def placing(
        self,
        symbol: str,
        side: Side,
        qty: int,
        price: int | None,
        **options: Unpack[OrderOptions],
    ) -> _Call:
        """Return the call that places an order."""
        given = {k: v for k, v in options.items() if v is not None}
        fields: dict[str, Any] = {
            "client_order_id": f"{self._prefix}-{next(self._placed)}",
            "order_type": "market" if price is None else "limit",
            "time_in_force": "gtd" if "expire_ts" in given else None,
            **given,
        }
        return _Call(
            _make(
                "place",
                symbol=symbol,
                side=side,
                qty=qty,
                price=price,
                **fields,
            )
        )

    def quoted(self, market: _MarketState, side: Side) -> _OrderState | None:
        """Return the open order that quotes a side."""
        call = market.quotes.get(side)
        if call is None:
            return None
        assert isinstance(call.request, Place)
        name = call.request.client_order_id
        for order in self._open.values():
            if order.report.client_order_id == name:
                return order
        return None

    def knows_quotes(self, market: _MarketState) -> bool:
        """Whether `quoted` can say which quotes stand."""
        return self.is_online and not any(
            call in self._calls for call in market.quotes.values()
        )

    def quoting(
        self,
        market: _MarketState,
        prices: dict[Side, int | None],
        sides: Iterable[Side],
        qty: int,
    ) -> dict[Side, list[_Call]]:
        """Return what makes a quote of some sides, in the order to do it.

        Of two orders that move, first the one that moves away, so that they
        do not meet.
        """
        calls: dict[Side, list[_Call]] = {}
        most = self.instruments[market.symbol].max_qty
        for side in sides:
            order, price = self.quoted(market, side), prices[side]
            if order is None and price is not None:
                calls[side] = [self._quote(market, side, price, qty)]
            elif order is not None:
                report = order.report
                request = _requote(report, price, qty, most)
                if request is not None:
                    calls[side] = [_Call(request, order)]
                if isinstance(request, Cancel) and price is not None:
                    calls[side] += [self._quote(market, side, price, qty)]
        ask, bid = self.quoted(market, "sell"), prices["buy"]
        if ask is not None and bid is not None and len(calls) == 2:
            assert ask.report.price is not None
            if bid >= ask.report.price:
                calls = dict(reversed(calls.items()))
        return calls

    def _quote(
        self, market: _MarketState, side: Side, price: int, qty: int
    ) -> _Call:
        call = self.placing(market.symbol, side, qty, price)
        market.quotes[side] = call
        return call

    def submit(self, calls: Sequence[_Call]) -> None:
        """Send requests in one frame, or as soon as there is a connection.

        Raises Unauthorized for private ones without a user.
        """
        for call in calls:
            if isinstance(call.request, _Private):
                self.require_user()
        for call in calls:
            self._calls[call] = None
            request = call.request
            if isinstance(request, Place) and request.client_order_id:
                self._placing.setdefault(request.client_order_id, call)
            elif isinstance(request, Amend) and call.order is not None:
                call.order.newest_amend = call
        if self.is_online and calls:
            self.outbox.append(calls)

    def withdraw(self, call: _Call) -> None:
        """Stop waiting for an answer; what is not sent yet never is."""
        if call in self._calls:
            call.is_withdrawn = True
            if not call.times_sent:
                self._forget(call)

    def give_up(self, call: _Call) -> None:
        """Stop waiting for a connection."""
        if call.times_sent:
            self._settle(call, self._unknown(call))
        else:
            self._settle(
                call, ConnectionLost(f"{self.not_connected}; nothing was sent")
            )

    def _unknown(self, call: _Call) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"the connection was lost before {call.request.type} was answered"
        )

    def _forget(self, call: _Call) -> None:
        """Let go of a call that is answered, or never will be."""
        self._calls.pop(call, None)
        request = call.request
        if isinstance(request, Place) and request.client_order_id:
            if self._placing.get(request.client_order_id) is call:
                del self._placing[request.client_order_id]

    def learn(self, report: Exec) -> _OrderState:
        """Take in an order as a table has it."""
        state = self._order(report)
        self._update(state, report)
        return state

    def fail(self, failure: Exception, reason: str) -> None:
        """Answer every call with a failure: there will be no connection."""
        self.is_online = False
        self.trouble = reason
        for call in list(self._calls):
            self._settle(call, failure)

    # Connections

    def started(self) -> None:
        """Begin to connect, for the first time or once more."""
        self.trouble = "the first attempt has not ended"
        self.refused = None

    def connected(self) -> None:
        """Begin a new connection: log in, or at least say hello."""
        self.outbox.clear()
        self._put_off.clear()
        self._replies.clear()
        self._tickers.clear()
        self._resync = self._target = self.hole = self._oldest_id = None
        self.is_cut_off = False
        for market in self.markets.values():
            market.catching_up = None
            market.is_subscribed = False
        if self._login is None:
            self._ask(Get(what="instruments"), self._hello)
            return
        session, seq = self._login.session, self._seq
        last_seq = None if session is None else seq
        self._ask(replace(self._login, last_seq=last_seq), self._welcome)

    def disconnected(self, reason: str) -> list[_Call]:
        """Note why nothing is in step any more; return what is unanswered."""
        self.is_online = False
        self.trouble = reason
        for call in list(self._calls):
            if call.is_withdrawn:
                self._forget(call)
        return list(self._calls)

    def closed(self, code: int, reason: str) -> None:
        """Note why the exchange has closed the connection."""
        if code == _LOGIN_FAILED and self.refused is None:
            self.refused = Unauthorized("unauthorized", reason)
        elif code == _CUT_OFF:
            self.is_cut_off = True

    def next_frame(self) -> str | None:
        """Return the next frame to be sent, None if there is none."""
        while self.outbox:
            wanted = self.outbox.popleft()
            if isinstance(wanted, _Own):
                replied = functools.partial(self._replied, wanted)
                return self._numbered(wanted.request, replied)
            texts = []
            for call in wanted:
                if call in self._calls and not call.is_withdrawn:
                    call.times_sent += 1
                    then = functools.partial(self._answered, call)
                    texts.append(self._numbered(call.request, then))
            if texts:
                return texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"
        return None

    def receive(self, events: Iterable[Event]) -> None:
        """Take in the events of one frame."""
        for event in events:
            match event:
                case Exec() | AccountReport():
                    self._receive_private(event)
                case BookUpdate():
                    self._receive_book(event)
                case Trade():
                    self._receive_trade(event)
                case Heartbeat():
                    self._check(event)
                case Status():
                    self._receive_status(event)
                case Ticker():
                    self._tickers[event.symbol] = event
                case _:
                    pass
            if self.hole is not None:
                return
            reply_to = getattr(event, "id", None)
            if isinstance(reply_to, int) and reply_to in self._replies:
                is_next = reply_to == next(iter(self._replies))
                self._replies.pop(reply_to)(event)
                if not is_next:
                    self.hole = "an answer is missing"
                    return

    def _ask(self, request: Request, then: Callable[[Event], None]) -> None:
        """Send a request of the core's own."""
        self.outbox.append(_Own(request, then))

    def _numbered(
        self, request: Request, then: Callable[[Event], None]
    ) -> str:
        """Return a request with an id, by which its reply finds back."""
        request_id = next(self._ids)
        self._replies[request_id] = then
        return encode(replace(request, id=request_id))

    def _go_online(self) -> None:
        self.is_online = True
        self.trouble = None
        for market in self.markets.values():
            self._subscribe(market)
        for call in list(self._calls):
            if call.times_sent and self._is_placed(call):
                assert call.order is not None
                self._settle(call, call.order.report)
            elif not call.times_sent or _may_repeat(call):
                self.outbox.append((call,))
            else:
                self._settle(call, self._unknown(call))

        self.learn_holdings()
        self._follow_held()

    # Answers

    def _is_placed(self, call: _Call) -> bool:
        return isinstance(call.request, Place) and call.order is not None

    def _replied(self, own: _Own, event: Event) -> None:
        """Take the reply to a request of the core's own."""
        if not isinstance(event, Error) or own.request.type == "login":
            own.then(event)
        elif event.code in ("rate_limited", "busy"):
            self._put_off.append(own)
        elif event.code == "bad_request":
            own.then(event)  # an older exchange does not know the request
        else:
            self.hole = event.message

    def _answered(self, call: _Call, event: Event) -> None:
        if not isinstance(event, Error):
            self._settle(call, event)
            return
        too_late = event.code in ("order_closed", "unknown_order")
        if too_late and call.order is not None and call.order.is_open:
            self.hole = "an answer was ahead of its reports"
        else:
            self._decide(call, event)

    def _decide(self, call: _Call, error: Error) -> None:
        """Settle a refused call, whose first copy may have succeeded."""
        report = None if call.order is None else call.order.report
        answer: Event | Exception = _refusal(error)
        if call.times_sent > 1 and report is not None:
            match call.request:
                case Cancel() if report.order_status == "canceled":
                    answer = report
                case Amend(price=price, qty=qty) if price in (
                    None,
                    report.price,
                ) and qty in (None, report.qty):
                    answer = report
                case _:
                    pass
        self._settle(call, answer)

    def _settle(self, call: _Call, answer: Event | Exception) -> None:
        if call in self._calls:
            self._forget(call)
            call.settle(answer)

    # Login

    def _hello(self, event: Event) -> None:
        if isinstance(event, Ok):
            self._list(map(_INSTRUMENT.validate_python, event.data or ()))
            self._go_online()

    def _list(self, instruments: Iterable[Instrument]) -> None:
        self.instruments = {i.symbol: i for i in instruments}

    def _welcome(self, event: Event) -> None:
        if isinstance(event, Error):
            if event.code not in ("rate_limited", "busy"):
                self.refused = _refusal(event)
            self.is_cut_off = event.code == "rate_limited"
            self.hole = event.message
        if not isinstance(event, Welcome):
            return
        assert self._login is not None
        is_same = self._seq is None or (
            event.seq >= self._seq
            and (event.durable or event.session == self._login.session)
        )
        self._login = replace(self._login, session=event.session)
        self._list(event.instruments)
        if not event.resumed:
            self._resync = _Resync(event, is_same)
        elif self._seq == event.seq:
            self._go_online()
        else:
            self._target = event.seq

    def _receive_private(self, event: Exec | AccountReport) -> None:
        if self._resync is not None:
            self._collect(self._resync, event)
            return
        if self._seq is None or self._login is None:
            return
        if not self.is_online and self._target is None:
            return  # of a login whose welcome was lost
        if event.seq > self._seq + 1:
            self.hole = f"reports after {self._seq} are missing"
        elif event.seq == self._seq + 1:
            self._seq, self._ts = event.seq, event.ts
            if isinstance(event, AccountReport):
                self._check_holdings(event)
                self._account = event
                self._follow_held()
            else:
                self._apply(event)
            if not self.is_online and self._seq == self._target:
                self._go_online()

    def _collect(self, resync: _Resync, event: Exec | AccountReport) -> None:
        if resync.account is not None:
            resync.later.append(event)
        elif isinstance(event, Exec):
            resync.orders.append(event)
        else:
            resync.account = event
            self._drive(self._recover(resync))

    def _recover(self, resync: _Resync) -> _Rows:
        """Fetch what the login did not report; then apply all of it."""
        fills: list[Exec] = []
        ended: dict[int, Exec] = {}
        seq = resync.welcome.seq
        if self._seq is not None:
            after = self._seq if resync.is_same_history else 0
            while after < seq:
                rows = yield Get(what="fills", after=after, limit=MAX_ROWS)
                fills += rows
                after = rows[-1].seq if len(rows) == MAX_ROWS else seq
            fills = [
                fill
                for fill in fills
                if fill.seq <= seq
                and (resync.is_same_history or fill.ts > self._ts)
            ]
            missing = self._missing(resync, fills)
            after = missing[0] - 1 if missing else 0
            while missing and after < missing[-1]:
                rows = yield Get(what="orders", after=after, limit=MAX_ROWS)
                ended |= {row.order_id: row for row in rows}
                after = rows[-1].order_id if rows else missing[-1]
        self._adopt(resync, fills, ended)

    def _missing(self, resync: _Resync, fills: list[Exec]) -> list[int]:
        """Return the orders that seem open here and are not over there."""
        newest = {o.report.order_id: o.report for o in self._open.values()}
        newest |= {fill.order_id: fill for fill in fills}
        for report in resync.orders:
            newest.pop(report.order_id, None)
        return sorted(i for i, r in newest.items() if r.leaves_qty)

    def _adopt(
        self, resync: _Resync, fills: list[Exec], ended: dict[int, Exec]
    ) -> None:
        """Take in the state of a login that did not resume."""
        assert resync.account is not None
        for fill in fills:
            self._apply(fill)
        reported = {report.order_id: report for report in resync.orders}
        for order_id, order in list(self._open.items()):
            found = reported.get(order_id) or ended.get(order_id)
            if found is None or not _is_same_order(order.report, found):
                order.report = _forgotten(order.report)
            else:
                order.report = found
            if not order.is_open:
                del self._open[order_id]
        for report in resync.orders:
            self._order(report)
        for call in self._calls:
            call.is_in_doubt = call.times_sent > 0
        self._account = resync.account
        self._seq, self._ts = resync.welcome.seq, resync.welcome.ts
        self._resync, self._target = None, self._seq
        for event in resync.later:
            self._receive_private(event)
        self._go_online()

    # Orders

    def _order(self, report: Exec) -> _OrderState:
        """Return the state of an open order, new if it is not known."""
        state = self._open.get(report.order_id)
        if state is not None:
            if _is_same_order(state.report, report):
                return state
            state.report = _forgotten(state.report)
        name = report.client_order_id
        call = self._placing.get(name) if name else None
        if call is not None and call.order is not None:
            state = call.order
        else:
            state = _OrderState(report)
            if call is not None:
                call.order = state
        if report.leaves_qty:
            self._open[report.order_id] = state
        return state

    def _apply(self, report: Exec) -> None:
        """Take in an execution report, the next in sequence."""
        state = self._order(report)
        if report.exec_type == "trade":
            state.fills.append(report)
            market = self.markets.get(report.symbol)
            if market is not None and market.holding is not None:
                market.holding.fill(report)
            for topic in self.fills:
                topic.push(report)
        self._update(state, report)

    def _update(self, state: _OrderState, report: Exec) -> None:
        if report.seq >= state.report.seq:
            state.report = report
        if not state.is_open:
            self._open.pop(report.order_id, None)

    # Public data

    def _subscribe(self, market: _MarketState) -> None:
        market.is_live = False

        def subscribed(event: Event) -> None:
            market.is_subscribed = True
            self.catch_up(market)

        symbols = (market.symbol,)
        self._ask(
            Subscribe(channels=("book", "trades"), symbols=symbols), subscribed
        )

    def _receive_book(self, update: BookUpdate) -> None:
        market = self.markets.get(update.symbol)
        if market is None:
            return
        if update.snapshot:
            if not market.is_live or update.seq > market.book.seq:
                market.book = market.book._updated(update)
                market.is_live = True
        elif market.is_live and update.seq > market.book.seq:
            if (update.prev_seq or 0) > market.book.seq:
                self.hole = (
                    f"changes of the book of {market.symbol} are missing"
                )
            else:
                market.book = market.book._updated(update)

    def _receive_trade(self, trade: Trade) -> None:
        market = self.markets.get(trade.symbol)
        if market is None or market.catching_up is not None:
            return  # what is under way brings this one too
        last = market.last_trade
        if trade.trade_id == (last.trade_id if last else 0) + 1:
            self._deliver(market, trade)
        elif last is None or trade.trade_id > last.trade_id:
            self.catch_up(market)

    def _deliver(self, market: _MarketState, trade: Trade) -> None:
        market.last_trade = trade
        for topic in market.trades:
            topic.push(trade)

    def catch_up(self, market: _MarketState) -> None:
        """Fetch the trades missed, unless that is already under way."""
        if market.catching_up is None:
            market.catching_up = self._missed_trades(market)
            self._drive(market.catching_up)

    def _missed_trades(self, market: _MarketState) -> _Rows:
        """Fetch and deliver trades; from the last one known, to see it again.

        If it is another one now, the exchange has begun a new history.
        """
        symbol, last = market.symbol, market.last_trade
        if not market.knows_trades:
            rows = yield Get(what="trades", symbol=symbol, limit=1)
            market.last_trade = rows[-1] if rows else None
            market.knows_trades = True
            market.catching_up = None
            return
        after = 0
        if last is not None:
            after = last.trade_id - 1
            rows = yield Get(
                what="trades", symbol=symbol, after=after, limit=1
            )
            after = last.trade_id if rows and rows[0].ts == last.ts else 0
        while True:
            rows = yield Get(
                what="trades", symbol=symbol, after=after, limit=MAX_ROWS
            )
            for trade in rows:
                if trade.trade_id != after + 1:
                    for topic in market.trades:
                        topic.fail("the exchange forgot some trades")
                self._deliver(market, trade)
                after = trade.trade_id
            if len(rows) < MAX_ROWS:
                market.catching_up = None
                return

    def _receive_status(self, status: Status) -> None:
        instrument = self.instruments.get(status.symbol or "")
        if instrument is not None and status.phase is not None:
            listed = replace(instrument, phase=status.phase)
            self.instruments[listed.symbol] = listed
        for topic in self.statuses:
            topic.push(status)

    def _check(self, heartbeat: Heartbeat) -> None:
        """Compare what was sent with what has come.

        Replies come in the order of requests. So where one is long in
        coming, the reply to a `ping` tells a slow exchange from a lost reply.
        """
        if not self.is_online:
            return
        if self._seq is not None and heartbeat.seq.get("@", 0) > self._seq:
            self.hole = f"reports after {self._seq} are missing"
            return
        for market in self.markets.values():
            seq = heartbeat.seq.get(market.symbol, 0)
            if market.is_subscribed and (
                not market.is_live or seq > market.book.seq
            ):
                self.hole = f"data of {market.symbol} are missing"
                return
        oldest_id = next(iter(self._replies), None)
        if oldest_id is not None and oldest_id == self._oldest_id:
            self._ask(Ping(), lambda event: None)
        self._oldest_id = oldest_id
        self.outbox.extend(self._put_off)
        self._put_off.clear()

    def _drive(self, steps: _Rows, reply: Event | None = None) -> None:
        """Let steps that need rows of tables go on, request by request."""
        try:
            if reply is None:
                request = next(steps)
            elif isinstance(reply, Ok):
                request = steps.send(_rows(reply))
            else:
                return
        except StopIteration:
            return
        self._ask(request, functools.partial(self._drive, steps))


def _requote(
    order: Exec, price: int | None, qty: int, most: int
) -> Request | None:
    """Return what makes an order show ``qty`` at a price, if anything.

    A Cancel where its total, fills included, would come above ``most``.
    """
    total = order.cum_qty + qty
    if price is None or qty <= most < total:
        return Cancel(order_id=order.order_id)
    if price == order.price and qty == order.leaves_qty:
        return None
    return _make("amend", order_id=order.order_id, price=price, qty=total)


def _is_same_order(one: Exec, other: Exec) -> bool:
    """Whether two reports of one id are of one order, not of two lives."""
    return (
        one.order_id == other.order_id
        and one.client_order_id == other.client_order_id
        and one.symbol == other.symbol
        and one.side == other.side
    )


def _forgotten(report: Exec) -> Exec:
    """Return the end of an order that the exchange knows nothing of."""
    return replace(
        report, order_status="canceled", leaves_qty=0, reason=_FORGOTTEN
    )


def _may_repeat(call: _Call) -> bool:
    """Whether doing a request twice does no more than doing it once."""
    if isinstance(call.request, Amend):
        return call.order is not None and call.order.newest_amend is call
    return not isinstance(call.request, (CancelAll, Admin))
