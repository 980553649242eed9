"""Trade on an exchange: an account and its markets as live Python objects.

    async with Exchange(user="alice") as ex:
        bond = await ex.market("BOND")
        order = await bond.buy(10, 99)
        await order.done()

``Exchange`` is for asyncio; ``BlockingExchange`` has the same names, without
``await``, for plain scripts and notebooks. Prices are integer ticks, or
money as a Decimal where an order takes one; quantities are integer lots,
cash is integer units of money (``Exchange.unit``), times are microseconds
since the epoch (UTC).

The objects follow the exchange by themselves. Each report and each change
of a book has a number, so the client ignores a duplicate and notices a gap.
A gap, a silence and a missing reply have one cure: the client connects
again, resumes its session, and repeats the requests that got no reply, if a
repetition has no second effect. On one connection it sends each request
once, even if the exchange is slow. An exchange may have several addresses,
of which one serves at a time; the client finds it. While the client is not
connected, ``Exchange.trouble`` and a line in the log ``exchange.client`` say
why.

Errors are raised, never returned:

::

    Exception
     +-- Refused (of orderbook)   a refusal: nothing has changed
     |    +-- BadRequest, ...          one for each code, such as bad_request
     +-- ExchangeError            any other error
          +-- ConnectionLost            not connected; nothing was sent
          +-- OutcomeUnknown            sent; the connection ended first
          +-- EventsLost                an iterator has missed an event

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
import re
import threading
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, fields, replace
from decimal import Decimal
from fractions import Fraction
from itertools import count
from operator import attrgetter
from types import NoneType
from typing import (
    Any,
    Concatenate,
    Generic,
    NamedTuple,
    ParamSpec,
    Protocol,
    Self,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)
from urllib.parse import urlsplit
from weakref import WeakSet, WeakValueDictionary

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
    AcceptTender,
    AccountReport,
    Admin,
    AdminAction,
    Amend,
    BookUpdate,
    Bust,
    Cancel,
    CancelAll,
    CommandRequest,
    Conversion,
    Convert,
    Error,
    Event,
    Exec,
    Get,
    Heartbeat,
    Instrument,
    Interval,
    Login,
    MatchChanged,
    MatchInfo,
    News,
    Ok,
    OrderStatus,
    OrderType,
    Phase,
    Ping,
    Place,
    PriceLevel,
    Reason,
    Refused,
    Request,
    Role,
    Settlement,
    Side,
    Status,
    Stp,
    Subscribe,
    Table,
    Tender,
    Ticker,
    TimeInForce,
    Trade,
    Welcome,
    decode_events,
    decode_requests,
    encode,
    with_id,
)

DEFAULT_HOSTNAME = "localhost"
DEFAULT_PORT = 8765
CONNECT_TIMEOUT = 10.0  # seconds to connect and log in
CONNECT_TRIES = 3  # attempts in that time: one may get stuck
REQUEST_TIMEOUT = 10.0  # seconds a request waits for a lost connection
SILENCE_TIMEOUT = 5.0  # seconds without a byte from the exchange
# Parts of the silence timeout: from the last byte to a ping, that is 2 s; by
# how much a timer is late if this process stood still, 1 s; the longest time
# between heartbeats, 16 s for three of 5 s and some delay.
PING_AFTER, LATE, HEARTBEAT_AFTER = 0.4, 0.2, 3.2
CLOSE_TIMEOUT = 1.0  # seconds for the closing handshake
BACKOFF_MIN = 0.1  # seconds: the longest pause before the first reconnect
BACKOFF_MAX = 10.0  # seconds: each failure doubles the pause up to this
# The same with several addresses, for the pause after a round through all of
# them. Short, because another machine takes over within seconds.
ROUND_BACKOFF_MAX = 1.0
# Seconds added to the pause after the exchange has closed the connection
# because of too many requests. By then most accounts have a full burst again.
CUT_OFF_PAUSE = 2.0
MAX_FRAME_BYTES = 16 << 20  # received in one frame; servers send up to 1 MiB
EVENTS_WAITING = 100_000  # kept for the reader of one iterator

logger = logging.getLogger("exchange.client")

T = TypeVar("T")
A = TypeVar("A")
P = ParamSpec("P")

Price: TypeAlias = int | Decimal  # in ticks, or in money

# Errors -------------------------------------------------------------------


class BadRequest(Refused):
    """The request is not valid; ``field`` names the wrong field."""

    code = "bad_request"


class Unauthorized(Refused):
    """The login failed, or the request needs one."""

    code = "unauthorized"


class RateLimited(Refused):
    """Too many requests; try again after ``retry_after_ms``, if given."""

    code = "rate_limited"


class Busy(Refused):
    """The exchange is overloaded: it accepts only cancels for a moment."""

    code = "busy"


class Forbidden(Refused):
    """The account has no permission for the request."""

    code = "forbidden"


class UnknownSymbol(Refused):
    """No instrument with this symbol is listed."""

    code = "unknown_symbol"


class DuplicateClientOrderId(Refused):
    """The order ``order_id`` has used the ``client_order_id`` before."""

    code = "duplicate_client_order_id"


class NoConversion(Refused):
    """The instrument cannot be converted."""

    code = "no_conversion"


class DuplicateClientRequestId(Refused):
    """An administrator's request had the ``client_request_id`` before."""

    code = "duplicate_client_request_id"


class UnknownTender(Refused):
    """No such tender is offered to the account, or it has ended."""

    code = "unknown_tender"


class DuplicateTender(Refused):
    """The account has accepted the tender before."""

    code = "duplicate_tender"


class UnknownOrder(Refused):
    """The exchange knows no such order of the account."""

    code = "unknown_order"


class OrderClosed(Refused):
    """The order has ended already; ``order_status`` says how."""

    code = "order_closed"


class MarketClosed(Refused):
    """The phase of the instrument does not allow the order."""

    code = "market_closed"


class InvalidQty(Refused):
    """The quantity is outside the bounds of the instrument."""

    code = "invalid_qty"


class InvalidPrice(Refused):
    """The price is outside the bounds of the instrument."""

    code = "invalid_price"


class TooManyOrders(Refused):
    """The account has its maximum number of open orders."""

    code = "too_many_orders"


class PositionLimit(Refused):
    """The order could take the position above its limit."""

    code = "position_limit"


class InsufficientFunds(Refused):
    """The order could cost more than the cash of the account."""

    code = "insufficient_funds"


class WouldTake(Refused):
    """The post-only order would trade at once."""

    code = "would_take"


class ExchangeError(Exception):
    """An error that is no refusal."""


class ConnectionLost(ExchangeError):
    """There is no connection to the exchange.

    A request that raises this was never sent.
    """


class OutcomeUnknown(ExchangeError):
    """The connection ended after a request was sent and before its reply.

    The request may have taken effect. The live objects show whether it has,
    once the client is connected again.
    """


class EventsLost(ExchangeError):
    """An iterator has ended because it has missed an event.

    Its reader fell more than EVENTS_WAITING events behind, or the exchange
    no longer has the events missed while there was no connection.
    """


_REFUSALS: dict[str, type[Refused]] = {
    kind.code: kind for kind in Refused.__subclasses__()
}


def _refusal(error: Error) -> Refused:
    """Return the exception for an error; Refused for an unknown code."""
    return _REFUSALS.get(error.code, Refused)(
        error.code,
        error.message,
        field=error.field,
        retry_after_ms=error.retry_after_ms,
        order_id=error.order_id,
        order_status=error.order_status,
        cum_qty=error.cum_qty,
    )


# Python puts these into a text for bytes that it cannot decode.
_SURROGATE = re.compile("[\ud800-\udfff]")


def _make(type_: str, **fields: Any) -> Request:
    """Return a request without the fields that are None.

    Accepts any object with ``__index__`` as an integer, such as numpy's.
    Raises BadRequest, which names the field, if the request is not valid.
    """
    given = {k: v for k, v in fields.items() if v is not None}
    for name, value in given.items():
        if isinstance(value, str) and _SURROGATE.search(value):
            problem = f"{name}: is not Unicode text"
            raise BadRequest("bad_request", problem, field=name)
    text = to_json(
        {"type": type_, **given}, inf_nan_mode="strings", fallback=_as_int
    )
    [request] = decode_requests(text)
    if isinstance(request, Error):
        raise _refusal(request)
    return request


def _as_int(value: Any) -> Any:
    return value.__index__() if hasattr(value, "__index__") else repr(value)


# Values -------------------------------------------------------------------


def ticks_of(
    price: Price | None, instrument: Instrument, name: str = "price"
) -> int | None:
    """Return a price in ticks; a Decimal is money, anything else ticks.

    Raises BadRequest for the field ``name`` if a Decimal is not a whole
    number of ticks.
    """
    if not isinstance(price, Decimal):
        return price
    size = instrument.tick_size
    if price.is_finite():
        ticks = Fraction(price) / Fraction(size)
        if ticks.denominator == 1:
            return ticks.numerator
    problem = f"{name}: {price} is not a multiple of the tick size {size}"
    raise BadRequest("bad_request", problem, field=name)


def money_of(price: int, instrument: Instrument) -> Decimal:
    """Return the money of a price in ticks."""
    return price * Decimal(instrument.tick_size)


@dataclass(frozen=True, slots=True)
class Book:
    """The book at one moment: levels are (price, qty), best first."""

    symbol: str
    seq: int = 0
    ts: int = 0
    bids: tuple[PriceLevel, ...] = ()
    asks: tuple[PriceLevel, ...] = ()

    @property
    def bid(self) -> int | None:
        """The best price to sell at, None without bids."""
        return self.bids[0][0] if self.bids else None

    @property
    def ask(self) -> int | None:
        """The best price to buy at, None without asks."""
        return self.asks[0][0] if self.asks else None

    @property
    def mid(self) -> float | None:
        """The middle between bid and ask, None if either is missing.

        Also None while they cross, as before an auction: then nobody can
        trade at either price.
        """
        bid, ask = self.bid, self.ask
        if bid is None or ask is None or bid > ask:
            return None
        return (bid + ask) / 2

    def updated(self, update: BookUpdate) -> Book:
        """Return the book after a snapshot, or after the next change."""
        base = Book(self.symbol) if update.snapshot else self
        return Book(
            self.symbol,
            update.seq,
            update.ts,
            _merge(base.bids, update.bids, best_is_highest=True),
            _merge(base.asks, update.asks, best_is_highest=False),
        )


def _merge(
    levels: tuple[PriceLevel, ...],
    changes: tuple[PriceLevel, ...],
    best_is_highest: bool,
) -> tuple[PriceLevel, ...]:
    if not changes:  # most updates change one side
        return levels
    merged = dict(levels)
    merged.update(changes)
    kept = [(price, qty) for price, qty in merged.items() if qty]
    return tuple(sorted(kept, reverse=best_is_highest))


class OrderOptions(TypedDict, total=False):
    """The options of an order besides side, quantity and price.

    time_in_force: "gtc" rests until it is filled or canceled, "ioc" trades
        what it can at once, "fok" trades all of it at once or nothing,
        "gtd" rests until expire_ts, "auction" (a market order) trades in the
        next uncrossing. The default is "gtd" with an expire_ts, "ioc" for a
        market order, and "gtc" for any other.
    expire_ts: when the order expires, in microseconds since the epoch.
    trigger_price: makes it a stop order, or with a price a stop-limit order.
        It waits until the last trade is at this price or beyond: above to
        buy, below to sell. Then it arrives as a market or limit order.
    display_qty: the part of an order in the book that others see.
    post_only: True refuses the order (WouldTake) if it would trade at once.
    stp: which of two orders of the account is canceled where they would
        trade with each other: "cancel_oldest" (default), "cancel_newest" or
        "cancel_both"; "none", where the instrument has self_trades, lets
        them trade.
    client_order_id: 1 to 36 characters of A-Z a-z 0-9 _ . : -, which the
        account has never used before. The default is a generated one.
    """

    time_in_force: TimeInForce
    expire_ts: int
    trigger_price: Price
    display_qty: int
    post_only: bool
    stp: Stp
    client_order_id: str


class AdminArguments(TypedDict, total=False):
    """The arguments of an administrator's action.

    ``docs/PROTOCOL.md`` says which of them each action takes. ``cash`` and
    ``qty`` of "adjust" are added to what the account has. An action whose
    ``client_request_id`` was used before is refused; the default is a
    generated one.
    """

    client_request_id: str

    symbol: str
    phase: Phase
    reopen_ms: int
    user: str
    order_id: int
    cash: int
    qty: int
    price: int
    message: str
    close_ms: int
    prices: dict[str, int]
    headline: str
    body: str
    value: int
    amount: int
    tender_id: str
    side: Side
    valid_ms: int
    trade_id: int
    name: str
    round: str
    teams: Sequence[str]
    fair_sha256: str


class Leader(TypedDict):
    """A row of the leaderboard."""

    rank: int
    user: str
    equity: int
    cash: int
    positions: dict[str, int]  # by symbol


class Candle(NamedTuple):
    """The trades of one interval, which begins at ``start_ts``."""

    start_ts: int
    open: int
    high: int
    low: int
    close: int
    volume: int


_INSTRUMENT: TypeAdapter[Instrument] = TypeAdapter(Instrument)

# Columns of the tables, for pandas -----------------------------------------

_TIMES = ("ts", "start_ts", "expire_ts", "reopen_ts", "close_ts")


def _dtype(hint: Any) -> str:
    """Return the pandas type of a field, which allows missing values."""
    kinds = set(get_args(hint) or (hint,)) - {NoneType}
    if kinds <= {int}:
        return "Int64"
    if kinds <= {bool}:
        return "boolean"
    is_object = get_origin(hint) in (dict, tuple) or kinds & {int, Conversion}
    return "object" if is_object else "string"


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
    "news": _columns(News),
    "statuses": _columns(Status),
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
    """Return a row of a table with every field, defaults included."""
    if what == "candles":
        return Candle(*row)._asdict()
    if what == "instruments":
        row = _INSTRUMENT.validate_python(row)
    return row if isinstance(row, dict) else asdict(row)


def _frame(what: Table, rows: list[Any]) -> Any:
    """Return the rows of a table as a pandas DataFrame."""
    import pandas  # nothing else needs it

    columns = _COLUMNS[what]
    plain = [_plain(row, what) for row in rows]
    table = pandas.DataFrame(
        {
            name: pandas.Series([row.get(name) for row in plain], dtype=kind)
            for name, kind in columns.items()
        }
    )
    for name in set(_TIMES) & columns.keys():
        table[name] = pandas.to_datetime(table[name], unit="us", utc=True)
    index = [name for name in ("ts", "start_ts") if name in columns]
    return table.set_index(index[0]) if index else table


# Calls: requests until they are answered -----------------------------------

_Reply: TypeAlias = Callable[[Event], None]  # takes the reply to a request
# A generator that yields a request for rows and is then sent these rows.
_Steps: TypeAlias = Generator[Get, list[Any], None]


@dataclass(slots=True, eq=False, weakref_slot=True)
class _OrderState:
    """One order: its newest report and its executions."""

    report: Exec
    fills: list[Exec] = field(default_factory=list)
    newest_amend: _Call | None = None

    @property
    def is_open(self) -> bool:
        return self.report.leaves_qty > 0


@dataclass(slots=True, eq=False)
class _Call:
    """A request of the user until it is answered.

    ``order`` is the order concerned; for a place it is set by the first
    report. ``times_sent`` counts the connections on which it was sent.
    ``is_in_doubt``: it was sent before a login that did not resume the
    session, so its reports may be missing. ``is_withdrawn``: the caller no
    longer waits for the answer, so it is not sent again.
    """

    request: Request
    order: _OrderState | None = None
    resolve: Callable[[Event | Exception], None] = lambda answer: None
    times_sent: int = 0
    is_in_doubt: bool = False
    is_withdrawn: bool = False

    @property
    def is_repeatable(self) -> bool:
        """Whether sending it twice has the effect of sending it once."""
        if isinstance(self.request, Amend):
            return self.order is not None and self.order.newest_amend is self
        return not isinstance(self.request, CancelAll)


class _Own(NamedTuple):
    """A request of the client itself, and what takes its reply."""

    request: Request
    reply: _Reply


def _rows(reply: Ok) -> list[Any]:
    """Return the rows of a reply; rows that are messages as events."""
    rows = reply.data or []
    if rows and isinstance(rows[0], dict) and "type" in rows[0]:
        return list(decode_events(to_json(rows)))
    return rows


class _Calls:
    """Requests in flight: the frames to send, and the replies to them.

    ``is_online``: the client is in step with the exchange, and calls are
    sent at once; ``trouble`` says why not. ``outbox`` holds the frames to
    send: calls, or a request of the client itself. ``pending`` has the calls
    that are not answered, oldest first.
    """

    def __init__(self) -> None:
        self.is_online = False
        self.trouble: str | None = "call connect() first"
        self.outbox: deque[Sequence[_Call] | _Own] = deque()
        self.pending: dict[_Call, None] = {}
        self._ids = count(1)
        # By request id, oldest first: replies come in the order of requests.
        self._replies: dict[int, _Reply] = {}
        self._oldest_id: int | None = (
            None  # of _replies, at the last heartbeat
        )
        self._put_off: list[_Own] = []  # refused; sent again at a heartbeat
        self.misses_answer = False  # a later one has come on this connection

    @property
    def not_connected(self) -> str:
        """Say that there is no connection, and why."""
        return f"not connected: {self.trouble}"

    # Requests

    def submit(self, calls: Sequence[_Call]) -> None:
        """Send calls in one frame, now or once there is a connection."""
        for call in calls:
            self.pending[call] = None
            if isinstance(call.request, Amend) and call.order is not None:
                call.order.newest_amend = call
        if self.is_online and calls:
            self.outbox.append(calls)

    def withdraw(self, call: _Call) -> None:
        """Stop waiting for an answer; an unsent call is never sent.

        While there is no connection no answer will come: see `disconnected`.
        """
        call.is_withdrawn = True
        if not call.times_sent or not self.is_online:
            self.pending.pop(call, None)

    def give_up(self, call: _Call) -> None:
        """Stop waiting for a connection."""
        if call.times_sent:
            self._resolve(call, _unknown(call))
        else:
            text = f"{self.not_connected}; nothing was sent"
            self._resolve(call, ConnectionLost(text))

    def ask(self, request: Request, reply: _Reply) -> None:
        self.outbox.append(_Own(request, reply))

    def fetch(self, steps: _Steps, reply: Event | None = None) -> None:
        """Fetch the rows that a generator asks for, request by request."""
        try:
            if reply is None:
                request = next(steps)
            elif isinstance(reply, Ok):
                request = steps.send(_rows(reply))
            else:
                return
        except StopIteration:
            return
        self.ask(request, functools.partial(self.fetch, steps))

    def placing(self, client_order_id: str | None) -> _Call | None:
        """Return the call that places an order and is not answered."""
        for call in self.pending:  # near the front: replies come in order
            request = call.request
            if isinstance(request, Place) and (
                request.client_order_id == client_order_id is not None
            ):
                return call
        return None

    def next_frame(self) -> str | None:
        """Return the next frame to send, None if there is none."""
        while self.outbox:
            wanted = self.outbox.popleft()
            if isinstance(wanted, _Own):
                reply = functools.partial(self._reply_to_own, wanted)
                return self._numbered(wanted.request, reply)
            texts = []
            for call in wanted:
                if call in self.pending and not call.is_withdrawn:
                    call.times_sent += 1
                    reply = functools.partial(self._reply_to_call, call)
                    texts.append(self._numbered(call.request, reply))
            if texts:
                return texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"
        return None

    def _numbered(self, request: Request, reply: _Reply) -> str:
        request_id = next(self._ids)
        self._replies[request_id] = reply
        return with_id(encode(request), request_id)

    # Replies

    def receive(self, event: Event) -> None:
        """Take in an event if it is a reply; note if an earlier is missing."""
        reply_to = getattr(event, "id", None)
        if isinstance(reply_to, int) and reply_to in self._replies:
            if reply_to != next(iter(self._replies)):
                self.misses_answer = True
            self._replies.pop(reply_to)(event)

    def check(self) -> None:
        """Look for a missing reply, at a heartbeat.

        Replies come in the order of requests. So if a `ping` has a reply and
        an older request has none, the older request's reply is lost.
        """
        oldest_id = next(iter(self._replies), None)
        if oldest_id is not None and oldest_id == self._oldest_id:
            self.ask(Ping(), lambda event: None)
        self._oldest_id = oldest_id
        self.outbox.extend(self._put_off)
        self._put_off.clear()

    def _reply_to_own(self, own: _Own, event: Event) -> None:
        if not isinstance(event, Error) or own.request.type == "login":
            own.reply(event)
        elif event.code in ("rate_limited", "busy"):
            self._put_off.append(own)
        else:
            raise ConnectionLost(event.message)

    def _reply_to_call(self, call: _Call, event: Event) -> None:
        if not isinstance(event, Error):
            self._resolve(call, event)
            return
        is_late = event.code in ("order_closed", "unknown_order")
        if is_late and call.order is not None and call.order.is_open:
            raise ConnectionLost("an answer was ahead of its reports")
        self._resolve(call, self._judge(call, event))

    def _judge(self, call: _Call, error: Error) -> Event | Exception:
        """Return the answer to a refused call.

        A repeated call is refused if its first copy took effect; then the
        answer is the report of the order, or ``Ok`` without an order.
        """
        if call.times_sent > 1 and call.order is not None:
            report = call.order.report
            match call.request:
                case Cancel() if report.order_status == "canceled":
                    return report
                case Amend() as amend if _is_amended(report, amend):
                    return report
                case _:
                    pass
        if call.times_sent > 1:
            match call.request, error.code:
                case (
                    (Convert(), "duplicate_client_order_id")
                    | (AcceptTender(), "duplicate_tender")
                    | (Admin(), "duplicate_client_request_id")
                ):
                    return Ok(ts=0)
        return _refusal(error)

    def _resolve(self, call: _Call, answer: Event | Exception) -> None:
        if call in self.pending:
            del self.pending[call]
            call.resolve(answer)

    # Connections

    def connected(self) -> None:
        """Begin a new connection: nothing has been sent on it."""
        self.outbox.clear()
        self._put_off.clear()
        self._replies.clear()
        self._oldest_id = None
        self.misses_answer = False

    def resume(self) -> None:
        """Answer or send the unanswered calls; the client is online now."""
        for call in list(self.pending):
            is_place = isinstance(call.request, Place)
            if call.times_sent and is_place and call.order is not None:
                self._resolve(call, call.order.report)
            elif not call.times_sent or call.is_repeatable:
                self.outbox.append((call,))
            else:
                self._resolve(call, _unknown(call))

    def disconnected(self, reason: str) -> list[_Call]:
        """Note why there is no connection; return the unanswered calls."""
        self.is_online = False
        self.trouble = reason
        for call in list(self.pending):
            if call.is_withdrawn:
                del self.pending[call]
        return list(self.pending)

    def fail(self, failure: Exception, reason: str) -> None:
        """Answer every call with a failure: no connection will follow."""
        for call in self.disconnected(reason):
            self._resolve(call, failure)


_AMENDED = ("price", "qty", "expire_ts", "trigger_price", "display_qty")


def _is_amended(report: Exec, amend: Amend) -> bool:
    """Return whether an order has every value that an amend asks for."""
    return all(
        getattr(amend, name) in (None, getattr(report, name))
        for name in _AMENDED
    )


def _unknown(call: _Call) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"the connection was lost before {call.request.type} was answered"
    )


# Account: orders, executions, positions, money -----------------------------

_FORGOTTEN: Any = "unknown_order"  # a reason that no exchange gives
_IDENTITY = attrgetter("order_id", "client_order_id", "symbol", "side")


class _Topic(Generic[T]):
    """The events that wait for the reader of one iterator."""

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


@dataclass(slots=True)
class _Holding:
    """The lots held of a symbol, and their cost; both negative when short.

    ``realized`` is the profit of closed lots since `connect`, less fees. Cost
    and profit are in units of money.
    """

    position: int = 0
    cost: int = 0
    realized: int = 0

    def fill(self, report: Exec, tick_value: int) -> None:
        """Book an execution, by "Profit" of docs/PROTOCOL.md."""
        qty = report.last_qty or 0
        price = (report.last_price or 0) * tick_value  # of one lot
        bought = qty if report.side == "buy" else -qty
        position, cost = self.position, self.cost
        self.realized -= report.fee or 0
        self.position += bought
        if (position < 0) == (bought < 0) or not position:
            self.cost += price * bought
        elif qty < abs(position):
            released = cost * qty // abs(position)
            self.realized -= price * bought + released
            self.cost -= released
        else:  # it closes the position, and opens one with the rest
            self.realized += price * position - cost
            self.cost = price * self.position


_Report: TypeAlias = Exec | AccountReport | Settlement


@dataclass(slots=True, eq=False)
class _Resync:
    """A login that did not resume: the state that the exchange reports.

    ``later`` holds the reports that come while the client fetches the rest.
    """

    welcome: Welcome
    is_same_history: bool
    orders: list[Exec] = field(default_factory=list)
    account: AccountReport | None = None
    later: list[_Report] = field(default_factory=list)


class _Account:
    """The account as the exchange has reported it.

    ``is_in_step``: the login has reported everything up to ``welcome.seq``.
    ``holdings`` has the symbols whose cost is known.
    """

    def __init__(
        self,
        login: Login | None,
        calls: _Calls,
        markets: _Markets,
        prefix: str,
    ) -> None:
        self.user = login.user if login else None
        self.role: Role = "trader"
        self.fills: WeakSet[_Topic[Exec]] = WeakSet()
        self.settlements: WeakSet[_Topic[Settlement]] = WeakSet()
        self.holdings: dict[str, _Holding] = {}
        self.is_in_step = False
        self._login = login
        self._calls = calls
        self._markets = markets
        self._prefix = prefix  # of generated client order ids
        self._placed = count(1)
        self._open: dict[int, _OrderState] = {}
        # Orders with fills that somebody may still look at.
        self._filled: WeakSet[_OrderState] = WeakSet()
        self._report = AccountReport(
            seq=0, ts=0, cash=0, positions={}, equity=0
        )
        # seq of the newest report applied, None before the first login is
        # complete; _target is the seq that completes a resumed login.
        self._seq: int | None = None
        self._ts = 0
        self._target: int | None = None
        self._resync: _Resync | None = None
        # Settlements that came, but not yet the account report after them.
        self._settled: list[Settlement] = []

    def require_user(self) -> None:
        if self.user is None:
            raise Unauthorized("unauthorized", "no user was given")

    @property
    def report(self) -> AccountReport:
        """The newest report of positions and money."""
        self.require_user()
        return self._report

    @property
    def held(self) -> list[str]:
        """The symbols with a position."""
        return [s for s, lots in self._report.positions.items() if lots]

    @property
    def open_orders(self) -> list[_OrderState]:
        self.require_user()
        orders = self._open.values()
        return sorted(orders, key=lambda order: order.report.order_id)

    def named(self, client_order_id: str | None) -> _OrderState | None:
        for order in self._open.values():
            if order.report.client_order_id == client_order_id:
                return order
        return None

    def placing(
        self,
        symbol: str,
        side: Side,
        qty: int,
        price: Price | None,
        **options: Unpack[OrderOptions],
    ) -> _Call:
        """Return the call that places an order."""
        given: dict[str, Any] = {
            "price": price,
            **{k: v for k, v in options.items() if v is not None},
        }
        instrument = self._markets.instruments.get(symbol)
        for name in ("price", "trigger_price"):
            if instrument is not None and name in given:
                given[name] = ticks_of(given[name], instrument, name)
        plain, stop = "market" if price is None else "limit", "stop"
        fields: dict[str, Any] = {
            "client_order_id": self.next_name(),
            "order_type": plain,
            "time_in_force": "gtd" if "expire_ts" in given else None,
            **given,
        }
        if "trigger_price" in given:
            fields["order_type"] = stop if price is None else "stop_limit"
        request = _make("place", symbol=symbol, side=side, qty=qty, **fields)
        return _Call(request)

    def next_name(self) -> str:
        """Return a client_order_id that was never used."""
        return f"{self._prefix}-{next(self._placed)}"

    # Login

    def login(self) -> Login | None:
        """Return the login of a new connection, None without a user."""
        self._resync = self._target = None
        self._settled = []
        self.is_in_step = False
        if self._login is None or self._login.session is None:
            return self._login
        return replace(self._login, last_seq=self._seq)

    def welcome(self, event: Welcome) -> None:
        """Take in the reply to the login; its reports follow."""
        assert self._login is not None
        is_same = self._seq is None or (
            event.seq >= self._seq
            and (event.durable or event.session == self._login.session)
        )
        self._login = replace(self._login, session=event.session)
        if not event.resumed:
            self._resync = _Resync(event, is_same)
        else:
            self._target = event.seq
            self.is_in_step = self._seq == event.seq

    def receive(self, event: _Report) -> None:
        """Take in a report; raise ConnectionLost if one before is missing."""
        if self._resync is not None:
            self._collect(self._resync, event)
        elif self._seq is None or self._target is None:
            return  # reports of a login without its welcome
        elif event.seq > self._seq + 1:
            raise ConnectionLost(f"reports after {self._seq} are missing")
        elif event.seq == self._seq + 1:
            if isinstance(event, Settlement):
                self._settled.append(event)
                return  # its account report has the same seq
            self._seq, self._ts = event.seq, event.ts
            if isinstance(event, AccountReport):
                self._check_holdings(event)
                self._report = event
                self._push_settlements()
            else:
                self._apply(event)
            self.is_in_step = self.is_in_step or self._seq == self._target

    def _push_settlements(self) -> None:
        """Hand on the settlements before an account report."""
        settled, self._settled = self._settled, []
        for settlement in settled:
            for topic in self.settlements:
                topic.push(settlement)

    def check(self, seq: int) -> None:
        """Raise ConnectionLost if reports up to ``seq`` are missing."""
        if self._seq is not None and seq > self._seq:
            raise ConnectionLost(f"reports after {self._seq} are missing")

    def _collect(self, resync: _Resync, event: _Report) -> None:
        if resync.account is not None:
            resync.later.append(event)
        elif isinstance(event, Exec):
            resync.orders.append(event)
        elif isinstance(event, AccountReport):
            resync.account = event
            self._calls.fetch(self._recover(resync))

    def _recover(self, resync: _Resync) -> _Steps:
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
        """Return the ids of orders that are open here but not reported."""
        newest = {o.report.order_id: o.report for o in self._open.values()}
        newest |= {fill.order_id: fill for fill in fills}
        for report in resync.orders:
            newest.pop(report.order_id, None)
        return sorted(i for i, r in newest.items() if r.leaves_qty)

    def _adopt(
        self, resync: _Resync, fills: list[Exec], ended: dict[int, Exec]
    ) -> None:
        """Replace the state by that of a login that did not resume."""
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
        for call in self._calls.pending:
            call.is_in_doubt = call.times_sent > 0
        self._report = resync.account
        self._seq, self._ts = resync.welcome.seq, resync.welcome.ts
        self._resync, self._target = None, self._seq
        for event in resync.later:
            self.receive(event)
        self.is_in_step = True

    # Orders

    def learn(self, report: Exec) -> _OrderState:
        """Take in an order from a table, which may be ahead of reports."""
        state = self._order(report)
        self._update(state, report)
        return state

    def _order(self, report: Exec) -> _OrderState:
        """Return the state of an order, a new one if it is not known."""
        state = self._open.get(report.order_id)
        if state is not None:
            if _is_same_order(state.report, report):
                return state
            state.report = _forgotten(state.report)
        call = self._calls.placing(report.client_order_id)
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
        """Take in the execution report that is next in sequence."""
        state = self._order(report)
        if report.exec_type == "trade":
            state.fills.append(report)
            self._filled.add(state)
            holding = self.holdings.get(report.symbol)
            if holding is not None:
                tick_value = self._markets.tick_value(report.symbol)
                holding.fill(report, tick_value)
            for topic in self.fills:
                topic.push(report)
        self._update(state, report)

    def _update(self, state: _OrderState, report: Exec) -> None:
        if report.seq >= state.report.seq:
            state.report = report
        if not state.is_open:
            self._open.pop(report.order_id, None)

    def bust(self, bust: Bust) -> None:
        """Mark the executions of a trade that was undone.

        The account that the exchange reports corrects the position.
        """
        for order in self._filled:
            if order.report.symbol == bust.symbol:
                order.fills = [
                    (
                        replace(fill, busted=True)
                        if fill.trade_id == bust.trade_id
                        else fill
                    )
                    for fill in order.fills
                ]

    # Holdings

    def learn_holdings(self, symbols: Iterable[str]) -> None:
        """Ask for the cost of the lots held of each symbol."""
        if self.user is not None and symbols:
            reply = functools.partial(self._learn_holdings, tuple(symbols))
            self._calls.ask(Get(what="positions"), reply)

    def _learn_holdings(self, symbols: Iterable[str], reply: Event) -> None:
        assert isinstance(reply, Ok)
        rows = {row["symbol"]: row for row in reply.data or ()}
        for symbol in symbols:
            row = rows.get(symbol, {"position": 0, "cost": 0})
            holding = self.holdings.setdefault(symbol, _Holding())
            holding.position, holding.cost = row["position"], row["cost"]

    def _check_holdings(self, report: AccountReport) -> None:
        """Notice a position that has changed without an execution.

        A conversion, a tender, or an administrator's settlement, reset,
        adjustment or bust does that. If only one symbol has changed, the
        realized profit is that symbol's.
        """
        moved = {
            symbol: holding
            for symbol, holding in self.holdings.items()
            if holding.position != report.positions.get(symbol, 0)
        }
        for symbol, holding in moved.items():
            if len(moved) == 1:
                holding.realized += report.realized - self._report.realized
            if not report.positions.get(symbol):
                holding.position = holding.cost = 0
        if moved:
            self.learn_holdings(self.holdings)


def _is_same_order(one: Exec, other: Exec) -> bool:
    """Return whether two reports are about one order.

    An exchange that begins a new history uses its order ids again.
    """
    return _IDENTITY(one) == _IDENTITY(other)


def _forgotten(report: Exec) -> Exec:
    """Return the last report of an order that the exchange has forgotten."""
    return replace(
        report, order_status="canceled", leaves_qty=0, reason=_FORGOTTEN
    )


class _Quotes:
    """The orders of ``Market.quote`` in one symbol: at most one per side."""

    def __init__(self, symbol: str, account: _Account, calls: _Calls) -> None:
        self._symbol = symbol
        self._account = account
        self._calls = calls
        self._placed: dict[Side, _Call] = {}

    @property
    def are_known(self) -> bool:
        """Whether the client knows which quotes stand."""
        return self._calls.is_online and not any(
            call in self._calls.pending for call in self._placed.values()
        )

    def order(self, side: Side) -> _OrderState | None:
        """Return the open order that quotes a side."""
        call = self._placed.get(side)
        if call is None:
            return None
        assert isinstance(call.request, Place)
        return self._account.named(call.request.client_order_id)

    def changes(
        self,
        prices: dict[Side, int | None],
        sides: Iterable[Side],
        qty: int,
        max_qty: int,
    ) -> dict[Side, list[_Call]]:
        """Return the calls that make a quote, by side, in sending order.

        If the new bid reaches the old ask, the ask moves first, so that the
        two orders never trade with each other.
        """
        calls: dict[Side, list[_Call]] = {}
        for side in sides:
            order, price = self.order(side), prices[side]
            if order is None and price is not None:
                calls[side] = [self._place(side, price, qty)]
            elif order is not None:
                request = _requote(order.report, price, qty, max_qty)
                if request is not None:
                    calls[side] = [_Call(request, order)]
                if isinstance(request, Cancel) and price is not None:
                    calls[side] += [self._place(side, price, qty)]
        ask, bid = self.order("sell"), prices["buy"]
        if ask is not None and bid is not None and len(calls) == 2:
            assert ask.report.price is not None
            if bid >= ask.report.price:
                calls = dict(reversed(calls.items()))
        return calls

    def _place(self, side: Side, price: int, qty: int) -> _Call:
        call = self._account.placing(self._symbol, side, qty, price)
        self._placed[side] = call
        return call


def _requote(
    order: Exec, price: int | None, qty: int, max_qty: int
) -> Request | None:
    """Return the request that makes an order show ``qty`` at a price.

    None if it does already. A Cancel if its total quantity, fills included,
    would come above ``max_qty``.
    """
    total = order.cum_qty + qty
    if price is None or qty <= max_qty < total:
        return Cancel(order_id=order.order_id)
    if price == order.price and qty == order.leaves_qty:
        return None
    return _make("amend", order_id=order.order_id, price=price, qty=total)


# Markets: books, trades, tickers -------------------------------------------


@dataclass(slots=True, eq=False)
class _MarketState:
    """The public data of one symbol.

    ``last_trade`` is the newest trade before which none is missing; with
    ``knows_trades``, None means that there was none yet. ``has_busts``: a
    trade was undone, so the newest one may not be the last price.
    """

    symbol: str
    book: Book
    is_subscribed: bool = False  # on this connection
    is_live: bool = False  # False: waiting for a snapshot
    last_trade: Trade | None = None
    knows_trades: bool = False
    has_busts: bool = False
    catching_up: _Steps | None = None
    trades: WeakSet[_Topic[Trade]] = field(default_factory=WeakSet)


class _Markets:
    """The instruments, and the public data of the symbols followed."""

    def __init__(
        self,
        calls: _Calls,
        update_book: Callable[[Book, BookUpdate], Book],
    ) -> None:
        self.instruments: dict[str, Instrument] = {}
        self.followed: dict[str, _MarketState] = {}
        self.statuses: WeakSet[_Topic[Status]] = WeakSet()
        self.round = 1
        self.match: MatchInfo | None = None
        self.currency: str | None = None
        self._calls = calls
        self._update_book = update_book
        # Of symbols with a position that are not followed, and of those whose
        # trades do not tell the last price; None: not yet.
        self.tickers: dict[str, Ticker | None] = {}

    def relist(self, instruments: Iterable[Instrument]) -> None:
        """Replace the instruments by those of a new connection."""
        self.instruments = {i.symbol: i for i in instruments}

    @property
    def unit(self) -> Decimal | None:
        """The money of one unit of cash; None if it differs by symbol."""
        units = {
            Decimal(i.tick_size) * i.multiplier / i.tick_value
            for i in self.instruments.values()
        }
        return units.pop() if len(units) == 1 else None

    def tick_value(self, symbol: str) -> int:
        """Return the units of money of one tick of one lot."""
        instrument = self.instruments.get(symbol)
        return instrument.tick_value if instrument else 1

    def last(self, market: _MarketState) -> int | None:
        """Return the price of the last trade that counts."""
        ticker = self.tickers.get(market.symbol)
        if self._needs_ticker(market.symbol) and ticker is not None:
            return ticker.last
        return market.last_trade.price if market.last_trade else None

    def _needs_ticker(self, symbol: str) -> bool:
        """Return whether the trades do not tell the last price.

        A trade that was undone does not count, nor one of an account with
        itself.
        """
        market = self.followed.get(symbol)
        instrument = self.instruments.get(symbol)
        return (
            market is None
            or market.has_busts
            or (instrument is not None and instrument.self_trades)
        )

    def value(self, symbol: str) -> int | None:
        """Return the mark of one lot in units of money, None if not known."""
        mark = self.mark(symbol)
        return None if mark is None else mark * self.tick_value(symbol)

    def mark(self, symbol: str) -> int | None:
        """Return the price that values a position, None if not known.

        "The mark" of docs/PROTOCOL.md: the median of best bid, reference
        price and best ask, or the reference price where a side is missing.
        """
        market, ticker = self.followed.get(symbol), self.tickers.get(symbol)
        if market is not None and market.is_live and market.knows_trades:
            bid, ask = market.book.bid, market.book.ask
            last = self.last(market)
        elif ticker is not None:
            bid, ask, last = ticker.bid, ticker.ask, ticker.last
        else:
            return None
        if last is None:
            last = self.instruments[symbol].reference_price
        if bid is None or ask is None:
            return last
        return sorted((bid, last, ask))[1]

    # Subscriptions

    def follow(self, symbol: str) -> _MarketState:
        state = _MarketState(symbol, Book(symbol))
        return self.followed.setdefault(symbol, state)

    def unfollow(self, symbol: str) -> None:
        self.followed.pop(symbol, None)

    def follow_tickers(self, symbols: Iterable[str]) -> None:
        """Ask for the tickers of symbols whose last price needs them."""
        missing = tuple(
            symbol
            for symbol in symbols
            if symbol not in self.tickers and self._needs_ticker(symbol)
        )
        if missing:
            self.tickers |= dict.fromkeys(missing)
            request = Subscribe(channels=("ticker",), symbols=missing)
            self._calls.ask(request, lambda event: None)

    def connected(self) -> None:
        """Begin a new connection: nothing is subscribed to."""
        self.tickers.clear()
        for market in self.followed.values():
            market.catching_up = None
            market.is_subscribed = False

    def resume(self) -> None:
        """Subscribe to the symbols followed."""
        for market in self.followed.values():
            market.is_live = False
            symbols = (market.symbol,)
            self._calls.ask(
                Subscribe(channels=("book", "trades"), symbols=symbols),
                functools.partial(self.subscribed, market),
            )
        self.follow_tickers(self.followed)

    def subscribed(self, market: _MarketState, reply: Event) -> None:
        """Take in the reply to a subscription."""
        market.is_subscribed = True
        self.catch_up(market)

    # Events

    def check(self, seq: dict[str, int]) -> None:
        """Raise ConnectionLost if changes up to ``seq`` are missing."""
        for market in self.followed.values():
            if market.is_subscribed and (
                not market.is_live
                or seq.get(market.symbol, 0) > market.book.seq
            ):
                raise ConnectionLost(f"data of {market.symbol} are missing")

    def receive_book(self, update: BookUpdate) -> None:
        """Take in a book; raise ConnectionLost if changes are missing."""
        market = self.followed.get(update.symbol)
        if market is None:
            return
        is_newer = update.seq > market.book.seq
        if update.snapshot:
            if is_newer or not market.is_live:
                market.book = self._update_book(market.book, update)
                market.is_live = True
        elif market.is_live and is_newer:
            if (update.prev_seq or 0) > market.book.seq:
                raise ConnectionLost(
                    f"changes of the book of {market.symbol} are missing"
                )
            market.book = self._update_book(market.book, update)

    def receive_trade(self, trade: Trade) -> None:
        market = self.followed.get(trade.symbol)
        if market is None or market.catching_up is not None:
            return  # the fetch under way brings this trade, too
        last_id = market.last_trade.trade_id if market.last_trade else 0
        if trade.trade_id == last_id + 1:
            self._deliver(market, trade)
        elif market.last_trade is None or trade.trade_id > last_id:
            self.catch_up(market)

    def receive_bust(self, bust: Bust) -> None:
        market = self.followed.get(bust.symbol)
        if market is not None:
            market.has_busts = True
            self.follow_tickers((bust.symbol,))

    def receive_status(self, status: Status) -> None:
        self.round = max(self.round, status.round)
        instrument = self.instruments.get(status.symbol or "")
        if instrument is not None and status.phase is not None:
            listed = replace(instrument, phase=status.phase)
            self.instruments[listed.symbol] = listed
        for topic in self.statuses:
            topic.push(status)

    def _deliver(self, market: _MarketState, trade: Trade) -> None:
        market.last_trade = trade
        if market.trades:  # to go through a WeakSet takes 1 us, even if empty
            for topic in market.trades:
                topic.push(trade)

    # Trades missed

    def catch_up(self, market: _MarketState) -> None:
        """Fetch the trades missed, unless a fetch is under way."""
        if market.catching_up is None:
            market.catching_up = self._missed_trades(market)
            self._calls.fetch(market.catching_up)

    def _missed_trades(self, market: _MarketState) -> _Steps:
        symbol = market.symbol
        if not market.knows_trades:
            rows = yield Get(what="trades", symbol=symbol, limit=1)
            market.last_trade = rows[-1] if rows else None
            market.knows_trades = True
            market.catching_up = None
            return
        after, last = 0, market.last_trade
        if last is not None:  # if it differs now, the history is a new one
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


# News ----------------------------------------------------------------------


class _NewsTopic(_Topic[News]):
    """The news that wait for the reader of one iterator.

    ``last``: how many of the past it wants. ``newest``: the one before which
    none is missing, None: none yet. ``is_behind``: a fetch is under way.
    """

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last = last
        self.newest: News | None = None
        self.is_begun = False
        self.is_behind = True

    @property
    def newest_id(self) -> int:
        return self.newest.news_id if self.newest else 0

    def take(self, news: News) -> None:
        self.newest = news
        self.push(news)


class _Newsroom:
    """Delivers each of the news once, also after a lost connection."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        self._topics: WeakSet[_NewsTopic] = WeakSet()

    def follow(self, last: int) -> _NewsTopic:
        topic = _NewsTopic(last)
        self._topics.add(topic)
        if self._calls.is_online:
            self._catch_up(topic)
        return topic

    def resume(self) -> None:
        """Fetch the news missed on a new connection."""
        for topic in list(self._topics):
            self._catch_up(topic)

    def receive(self, news: News) -> None:
        for topic in list(self._topics):
            if topic.is_behind:
                continue  # the fetch under way brings these, too
            if news.news_id == topic.newest_id + 1:
                topic.take(news)
            elif news.news_id > topic.newest_id:
                self._catch_up(topic)

    def _catch_up(self, topic: _NewsTopic) -> None:
        topic.is_behind = True
        self._calls.fetch(self._missed(topic))

    def _missed(self, topic: _NewsTopic) -> _Steps:
        if not topic.is_begun:
            limit = min(max(topic.last, 1), MAX_ROWS)
            rows = yield Get(what="news", limit=limit)
            topic.is_begun, topic.is_behind = True, False
            topic.newest = rows[-1] if rows else None
            for news in rows if topic.last else ():
                topic.push(news)
            return
        after, newest = 0, topic.newest
        if newest is not None:  # if it differs now, the history is a new one
            rows = yield Get(
                what="news", after=max(newest.news_id - 1, 0), limit=1
            )
            if rows and rows[0] == newest:
                after = newest.news_id
        while True:
            rows = yield Get(what="news", after=after, limit=MAX_ROWS)
            for news in rows:
                if news.news_id != after + 1:
                    topic.fail("the exchange no longer has some news")
                topic.take(news)
                after = news.news_id
            if len(rows) < MAX_ROWS:
                topic.is_behind = False
                return


# Tenders -------------------------------------------------------------------


class _Tenders:
    """The offers to the account that it has not accepted.

    ``now`` is the newest time that the exchange has told.
    """

    def __init__(self) -> None:
        self.offers: WeakSet[_Topic[Tender]] = WeakSet()
        self.offered: dict[str, Tender] = {}
        self._now = 0

    @property
    def valid(self) -> list[Tender]:
        return list(self.offered.values())

    def receive(self, tender: Tender) -> None:
        self.offered[tender.tender_id] = tender
        for topic in self.offers:
            topic.push(tender)

    def drop(self, tender_id: str) -> None:
        """Forget an offer that is accepted or has ended."""
        self.offered.pop(tender_id, None)

    def pass_time(self, ts: int) -> None:
        """Forget the offers that have ended by a time of the exchange."""
        self._now = max(self._now, ts)
        self.offered = {
            tender_id: tender
            for tender_id, tender in self.offered.items()
            if tender.expire_ts > self._now
        }

    def clear(self) -> None:
        self.offered.clear()


class _Time:
    """The exchange's time: last told by a message, and estimated since.

    ``clock`` returns seconds of real time; the link sets it.
    """

    def __init__(self) -> None:
        self.clock: Callable[[], float] = lambda: 0.0
        self.speed = 1.0
        self._told_ts = 0
        self._told_at = 0.0

    def tell(self, event: Welcome | Heartbeat) -> None:
        self.speed = float(event.speed or 1)
        self._told_ts = event.ts
        self._told_at = self.clock()

    def now(self) -> int:
        if not self._told_ts:
            return 0
        passed_s = (self.clock() - self._told_at) * self.speed
        return self._told_ts + round(passed_s * 1e6)


# All of it, without sockets and clocks -------------------------------------


class _Core:
    """Calls, account and markets: events in, frames out."""

    def __init__(
        self,
        login: Login | None,
        prefix: str,
        update_book: Callable[[Book, BookUpdate], Book],
    ) -> None:
        self.calls = _Calls()
        self.markets = _Markets(self.calls, update_book)
        self.account = _Account(login, self.calls, self.markets, prefix)
        self.news = _Newsroom(self.calls)
        self.tenders = _Tenders()
        self.time = _Time()
        self._quotes: dict[str, _Quotes] = {}

    @property
    def equity(self) -> int:
        """Cash and positions at their current marks.

        While a mark is not known, the equity in the newest report.
        """
        report = self.account.report
        equity = report.cash
        for symbol in self.account.held:
            value = self.markets.value(symbol)
            if value is None:
                return report.equity
            equity += report.positions[symbol] * value
        return equity

    def money(self, units: int) -> Decimal | None:
        """Return an amount in units as money."""
        unit = self.markets.unit
        return None if unit is None else units * unit

    def quotes(self, symbol: str) -> _Quotes:
        quotes = _Quotes(symbol, self.account, self.calls)
        return self._quotes.setdefault(symbol, quotes)

    def submit(self, calls: Sequence[_Call]) -> None:
        """Send calls in one frame, now or once there is a connection.

        Raises Unauthorized for private ones without a user.
        """
        if any(isinstance(call.request, CommandRequest) for call in calls):
            self.account.require_user()
        self.calls.submit(calls)

    def connected(self) -> None:
        """Begin a new connection: log in, or ask for public data."""
        self.calls.connected()
        self.markets.connected()
        login = self.account.login()
        if login is None:
            self.calls.ask(Get(what="instruments"), self._listed)
        else:
            self.calls.ask(login, self._logged_in)

    def receive(self, event: Event) -> None:
        """Take in an event.

        Raises ConnectionLost if something is missing, so that the connection
        must be replaced; raises Refused if the login is refused.
        """
        if self.tenders.offered:
            ts = getattr(event, "ts", None)
            if ts is not None:
                self.tenders.pass_time(ts)
        match event:
            case BookUpdate():  # most of what comes; it is no reply
                self.markets.receive_book(event)
                return
            case Trade():
                self.markets.receive_trade(event)
                return
            case Exec() | AccountReport() | Settlement():
                self.account.receive(event)
            case Ticker():
                self.markets.tickers[event.symbol] = event
            case Status():
                if event.round > self.markets.round:
                    self.tenders.clear()
                self.markets.receive_status(event)
            case News():
                self.news.receive(event)
            case MatchChanged():
                self.markets.match = event.match
            case Tender():
                self.tenders.receive(event)
            case Bust():
                self.account.bust(event)
                self.markets.receive_bust(event)
            case Heartbeat():
                self.time.tell(event)
                self._check(event)
            case _:
                pass
        self.calls.receive(event)
        if self.account.is_in_step and not self.calls.is_online:
            self._go_online()
        elif isinstance(event, AccountReport) and self.calls.is_online:
            self.markets.follow_tickers(self.account.held)

    def subscribed(self, market: _MarketState, reply: Event) -> None:
        """Take in the reply to a subscription of the user."""
        self.markets.subscribed(market, reply)
        self.account.learn_holdings(self.markets.followed)

    def _listed(self, event: Event) -> None:
        if isinstance(event, Ok):
            instruments = map(_INSTRUMENT.validate_python, event.data or ())
            self.markets.relist(instruments)
            self._go_online()

    def _logged_in(self, event: Event) -> None:
        if isinstance(event, Error):
            raise _refusal(event)
        if isinstance(event, Welcome):
            self.markets.relist(event.instruments)
            self.markets.round = event.round
            self.markets.match = event.match
            self.markets.currency = event.currency
            self.time.tell(event)
            self.account.role = event.role
            self.account.welcome(event)

    def _go_online(self) -> None:
        self.calls.is_online = True
        self.calls.trouble = None
        self.markets.resume()
        self.news.resume()
        self.calls.resume()
        self.account.learn_holdings(self.markets.followed)
        self.markets.follow_tickers(self.account.held)

    def _check(self, heartbeat: Heartbeat) -> None:
        """Compare what the exchange has sent with what has come."""
        if self.calls.is_online:
            self.account.check(heartbeat.seq.get("@", 0))
            self.markets.check(heartbeat.seq)
            self.calls.check()


# Connections of the asyncio side -------------------------------------------

# Close codes: the login failed or its key was revoked; too many requests.
_LOGIN_FAILED, _CUT_OFF = 4001, 4002


class _AnyConnection(Protocol):
    @property
    def close_code(self) -> int | None: ...

    @property
    def heard_at(self) -> float: ...

    async def send(self, message: str, /) -> None: ...

    async def ping(self) -> object: ...

    async def close(self) -> None: ...


class Connection(_AnyConnection, Protocol):
    """One connection to an exchange, as `connect` of ``Exchange`` opens it.

    ``close_code`` is None until the connection has ended; after the end,
    ``send``, ``ping`` and ``recv`` raise ConnectionClosed of websockets.
    ``heard_at`` is when the last bytes came, in seconds of the running loop.
    ``ping`` asks the other side for a sign of life and does not wait for it.
    """

    async def recv(self) -> str | bytes: ...


@runtime_checkable
class PushConnection(_AnyConnection, Protocol):
    """One connection that calls back with each message, without a task."""

    async def push(self, take: Callable[[str | bytes], None]) -> None:
        """Call ``take`` with each message; raise what it raises.

        Raises ConnectionClosed after the last message.
        """


_Connect: TypeAlias = Callable[[str], Awaitable[Connection | PushConnection]]


class _Socket(ClientConnection):
    heard_at = 0.0  # seconds of the loop

    def data_received(self, data: bytes) -> None:
        self.heard_at = self.loop.time()
        super().data_received(data)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        try:
            await super().close(code, reason)
        except asyncio.CancelledError:
            self.transport.abort()  # the event loop ends
            raise


async def open_connection(url: str) -> Connection:
    """Open a websocket, through the proxy that the environment may name.

    Raises OSError or InvalidHandshake of websockets.
    """
    socket = await connect(
        url,
        compression=None,
        proxy=None if _is_loopback(url) else True,
        max_size=MAX_FRAME_BYTES,
        open_timeout=None,
        close_timeout=CLOSE_TIMEOUT,
        # The library would close the connection after an unanswered ping, and
        # that cancels orders. `_Watch` pings: a new connection opens first.
        ping_interval=None,
        create_connection=_Socket,
    )
    assert isinstance(socket, _Socket)
    return socket


def _is_loopback(url: str) -> bool:
    hostname = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return hostname == "localhost"


class _Addresses:
    """Where an exchange may be, tried in turn: ``current``, then the next.

    A round is one attempt at each. There is no pause within a round, and a
    longer one after each round, until `served` is called.
    """

    def __init__(self, urls: Sequence[str], chance: random.Random) -> None:
        self._urls = urls
        self._chance = chance
        self._longest = ROUND_BACKOFF_MAX if len(urls) > 1 else BACKOFF_MAX
        self._at = 0
        self.served()

    @property
    def current(self) -> str:
        return self._urls[self._at]

    @property
    def are_several(self) -> bool:
        return len(self._urls) > 1

    def __str__(self) -> str:
        return ",".join(self._urls)

    def served(self) -> None:
        """Note that the current address serves: a new round begins there."""
        self._tried = 0
        self._backoff = BACKOFF_MIN

    def failed(self) -> float:
        """Go to the next address; return the seconds to wait before it."""
        self._at = (self._at + 1) % len(self._urls)
        self._tried += 1
        return 0.0 if self._tried < len(self._urls) else self.stay()

    def stay(self) -> float:
        """End the round; return the seconds to wait before the next one."""
        self._tried = 0
        pause = self._chance.uniform(0, self._backoff)
        self._backoff = min(self._backoff * 2, self._longest)
        return pause


class _Watch:
    """Notices that an exchange is silent, and that it sends no heartbeats.

    Any byte is a sign of life. An exchange with nothing to send is pinged: it
    answers at once, even while it waits for its disk. Time in which this
    process stood still, as a laptop that sleeps, is no silence of the
    exchange. ``give_up`` is called once, with the reason.
    """

    def __init__(
        self,
        socket: _AnyConnection,
        silence_s: float,
        ping: Callable[[], object],
        give_up: Callable[[str], object],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = socket
        self._silence_s = silence_s
        self._ping = ping
        self._give_up = give_up
        # All in seconds of the loop. What is before `_since` is no silence.
        self._since = self._beat_at = self._loop.time()
        self._pinged_for = -1.0  # the silence since then has been pinged
        self._look_at(self._since + silence_s * PING_AFTER)

    def beat(self) -> None:
        """Note that a heartbeat came."""
        self._beat_at = self._loop.time()

    def stop(self) -> None:
        self._timer.cancel()

    def _look_at(self, when: float) -> None:
        self._due = when
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        """Ping, give up, or look again later.

        The loop reads the sockets before it calls a timer, so ``heard_at`` is
        up to date here, even if this process has just been woken.
        """
        # A loop may call a timer a little early.
        now, silence_s = max(self._loop.time(), self._due), self._silence_s
        if now - self._due > silence_s * LATE:  # this process stood still
            self._since = now
        heard_at = max(self._socket.heard_at, self._since)
        beat_at = max(self._beat_at, self._since)
        if now - beat_at >= silence_s * HEARTBEAT_AFTER:
            longest_s = silence_s * HEARTBEAT_AFTER
            self._give_up(f"no heartbeat for {longest_s:g} s")
        elif now < heard_at + silence_s * PING_AFTER:
            self._look_at(heard_at + silence_s * PING_AFTER)
        elif self._pinged_for != heard_at:
            self._pinged_for = heard_at
            self._ping()
            ends_at = heard_at + silence_s
            self._look_at(min(ends_at, now + silence_s * PING_AFTER))
        elif now < heard_at + silence_s:
            self._look_at(heard_at + silence_s)
        else:
            self._give_up(f"no answer to a ping, silent for {silence_s:g} s")


class _Link:
    """The connection of an Exchange, replaced whenever it is lost.

    It does not refer to the Exchange, so Python collects an Exchange that
    nothing uses, and then `drop` closes the connection. ``failure`` says why
    no request can be made, None while one can; ``is_closed``: the user has
    closed it.
    """

    def __init__(
        self,
        urls: Sequence[str],
        core: _Core,
        *,
        connect_timeout: float,
        request_timeout: float,
        silence_timeout: float,
        connect: _Connect,
        chance: random.Random,
        decode: Callable[[str | bytes], list[Event]],
    ) -> None:
        self.connect_timeout = connect_timeout
        self.is_closed = False
        self.failure: Exception | None = ConnectionLost(
            core.calls.not_connected
        )
        self._addresses = _Addresses(urls, chance)
        self._core = core
        self._calls = core.calls
        self._connect = connect
        self._decode = decode
        # With several addresses, of which each may get stuck, one more.
        self._try_timeout = connect_timeout / max(CONNECT_TRIES, len(urls) + 1)
        self._request_timeout = request_timeout
        self._silence_timeout = silence_timeout
        # These belong to the loop in which it was started.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._to_send = asyncio.Event()
        self._is_ping_due = False
        self._silence = ""  # why the watch has given the connection up
        self._locks: dict[str, asyncio.Lock] = {}  # of quotes, by symbol
        self._waiters: dict[asyncio.Future[None], Callable[[], object]] = {}
        self._timers: dict[_Call, asyncio.TimerHandle] = {}
        self._sockets: list[_AnyConnection] = []  # the newest last
        self._closing: set[asyncio.Task[None]] = set()
        self._lost_at: float | None = None  # None: never connected

    # Start and end

    def start(self) -> bool:
        """Begin to connect in the running loop; False if that has begun."""
        if self._task and not self._task.done() and self._loop:
            if not self._loop.is_closed():
                return False
        self._loop = asyncio.get_running_loop()
        self._core.time.clock = self._loop.time
        self._to_send = asyncio.Event()
        self._locks.clear()
        self._waiters.clear()
        self._addresses.served()
        self._lost_at = None
        self.failure = None
        self.is_closed = False
        self._calls.trouble = "the first attempt has not ended"
        if self._addresses.are_several:
            self._calls.trouble += f", at {self._addresses.current}"
        self._task = self._loop.create_task(self._run())
        return True

    async def come_online(self, seconds: float) -> None:
        """Wait for a connection; raise ConnectionLost if none comes."""
        try:
            async with asyncio.timeout(seconds):
                await self.until(lambda: self._calls.is_online)
        except TimeoutError:
            raise ConnectionLost(
                f"not connected to {self._addresses}: {self._calls.trouble}"
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
        """Close, from any thread: nothing uses the Exchange any more."""
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
                f"not connected to {self._addresses}: "
            )
            self._calls.fail(failure, reason)
            self._test_waiters()

    async def _run(self) -> None:
        """Keep one connection after another until there is a failure."""
        try:
            while self.failure is None:
                try:
                    await self._serve_connection()
                except Exception as error:  # any error ends the connection
                    pause = self._end_of_connection(error)
                    if self.failure is None:
                        await asyncio.sleep(pause)
        finally:
            self._fail(ConnectionLost("the event loop of this Exchange ended"))
            # Each closes within CLOSE_TIMEOUT.
            work = [socket.close() for socket in self._sockets]
            self._sockets = []
            await asyncio.gather(*work, *self._closing, return_exceptions=True)

    def _end_of_connection(self, error: Exception) -> float:
        """Note why it ended; return the seconds to wait before the next."""
        addresses, address = self._addresses, self._addresses.current
        reason = self._explain(error)
        meaning = _meaning(error)
        # Something is missing, but the exchange is there.
        is_there = isinstance(meaning, ConnectionLost)
        pause = addresses.stay() if is_there else addresses.failed()
        trouble = reason
        if addresses.are_several:
            trouble = f"{address}: {reason}; trying {addresses.current}"
        self._lost(address, reason, trouble)
        match meaning:
            case RateLimited():
                pause += CUT_OFF_PAUSE
            case Busy():
                pass
            case Refused() as refusal:
                self._fail(refusal)
        return pause

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

        If this is canceled, requests that are not sent yet are never sent.
        """
        await asyncio.sleep(0)  # a timeout of 0 s cancels here
        if self.failure is not None:
            raise self.failure
        loop = asyncio.get_running_loop()
        futures: dict[_Call, asyncio.Future[Event | Exception]] = {}
        for call in calls:
            futures[call] = future = loop.create_future()
            call.resolve = future.set_result
        self._core.submit(calls)
        self.wake()
        if not self._calls.is_online:
            self._start_timers(calls)
        try:
            if futures:
                await asyncio.wait(futures.values())
        finally:
            for call in calls:
                self._calls.withdraw(call)
                timer = self._timers.pop(call, None)
                if timer is not None:
                    timer.cancel()
        return {call: future.result() for call, future in futures.items()}

    def quoting(self, symbol: str) -> asyncio.Lock:
        return self._locks.setdefault(symbol, asyncio.Lock())

    async def until_known(self, quotes: _Quotes) -> None:
        """Wait until it is known which quotes stand.

        It is not known while there is no connection, nor while a quote that
        was given up is unanswered. Raises ConnectionLost like a request.
        """
        if not self._calls.is_online:
            await self.come_online(self._request_timeout)
        await self.until(lambda: quotes.are_known)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds; it is tested after each frame."""
        while not condition():
            if self.failure is not None:
                raise self.failure
            future = asyncio.get_running_loop().create_future()
            self._waiters[future] = condition
            try:
                await future
            finally:
                self._waiters.pop(future, None)

    async def advance(self, condition: Callable[[], object]) -> None:
        """Wait like `until`; end the iterator if the user has closed it."""
        try:
            await self.until(condition)
        except ConnectionLost:
            if self.is_closed:
                raise StopAsyncIteration from None
            raise

    def wake(self) -> None:
        self._to_send.set()

    def _test_waiters(self) -> None:
        """End the waits whose condition holds; all after a failure."""
        for future, condition in list(self._waiters.items()):
            if not future.done() and (self.failure or condition()):
                future.set_result(None)

    def _start_timers(self, calls: Iterable[_Call]) -> None:
        """Bound the time that calls wait for a connection."""
        loop = asyncio.get_running_loop()
        for call in calls:
            self._timers[call] = loop.call_later(
                self._request_timeout, self._calls.give_up, call
            )

    # One connection

    async def _serve_connection(self) -> None:
        """Open a connection and serve it until it ends.

        A connection given up by this side stays open until the next one has
        taken over its session: closing it first would cancel the orders.
        """
        loop = asyncio.get_running_loop()
        watch: _Watch | None = None

        def give_up(reason: str) -> None:
            self._silence = reason
            deadline.reschedule(loop.time())

        def take(message: str | bytes) -> None:
            nonlocal watch
            events = self._decode(message)
            self._receive(events)
            if watch is None:
                if self._calls.is_online:
                    self._came_online(socket)
                    deadline.reschedule(None)
                    silence_s = self._silence_timeout
                    watch = _Watch(socket, silence_s, self._ping, give_up)
            elif Heartbeat in map(type, events):
                self._addresses.served()
                watch.beat()

        async with asyncio.timeout(self._try_timeout) as deadline:
            socket = await self._connect(self._addresses.current)
            alive = [s for s in self._sockets if s.close_code is None]
            self._sockets = [*alive, socket]
            self._core.connected()
            self.wake()
            writer = asyncio.create_task(self._write(socket))
            try:
                if isinstance(socket, PushConnection):
                    await socket.push(take)
                else:
                    while True:
                        take(await socket.recv())
            finally:
                writer.cancel()
                if watch is not None:
                    watch.stop()

    def _ping(self) -> None:
        self._is_ping_due = True
        self.wake()

    def _receive(self, events: list[Event]) -> None:
        """Take in the events of one frame; raise what ends the connection."""
        try:
            for event in events:
                self._core.receive(event)
        except (ConnectionLost, Refused):
            raise
        except Exception as bug:
            self._fail(bug)
            raise
        if self._calls.misses_answer:  # after all reports of the frame
            raise ConnectionLost("an answer is missing")
        if self._calls.outbox:
            self.wake()
        if self._waiters:
            self._test_waiters()

    async def _write(self, socket: _AnyConnection) -> None:
        self._is_ping_due = False
        with contextlib.suppress(Exception):  # the reader notices, too
            while True:
                if self._is_ping_due:
                    self._is_ping_due = False
                    await socket.ping()
                while (frame := self._calls.next_frame()) is not None:
                    await socket.send(frame)
                self._to_send.clear()
                await self._to_send.wait()

    def _came_online(self, socket: _AnyConnection) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for old in self._sockets:
            if old is not socket:
                task = asyncio.create_task(old.close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        self._sockets = [socket]
        if self._lost_at is not None:
            away_s = asyncio.get_running_loop().time() - self._lost_at
            name = self._name(self._addresses.current)
            logger.info("%s: connected again after %.1f s", name, away_s)

    def _name(self, address: str) -> str:
        user = self._core.account.user
        return f"{user} at {address}" if user else address

    def _lost(self, address: str, reason: str, trouble: str) -> None:
        """Note why there is no connection; log it once for each loss."""
        was_online = self._calls.is_online
        unanswered = self._calls.disconnected(trouble)
        if was_online:
            self._lost_at = asyncio.get_running_loop().time()
            name = self._name(address)
            logger.warning("%s: not connected: %s", name, reason)
            self._start_timers(unanswered)
        self._test_waiters()

    def _explain(self, error: Exception) -> str:
        """Say in one line why there is no connection."""
        match error:
            case ConnectionClosed() if error.rcvd:
                reason = f" {error.rcvd.reason}".rstrip()
                text = f"the exchange closed it ({error.rcvd.code}{reason})"
            case ConnectionClosed():
                text = "the connection broke off"
            case InvalidStatus(response=response):
                text = f"the server answers HTTP {response.status_code}"
                kind = response.headers.get("Content-Type", "")
                if kind.startswith("text/plain"):  # not the page of a proxy
                    body = response.body or b""
                    text += f": {body.decode(errors='replace')}"
            case InvalidMessage() if self._addresses.current[:3] == "ws:":
                text = f"{error}; if it speaks TLS, its address is wss://"
            case TimeoutError() if self._calls.is_online:
                text = self._silence
            case TimeoutError():
                text = f"no login within {self._try_timeout:.3g} s"
            case _:
                text = str(error) or repr(error)
        return " ".join(text.split())


def _meaning(error: Exception) -> Exception:
    """Return the refusal that a close code stands for, or the error."""
    if isinstance(error, ConnectionClosed) and error.rcvd is not None:
        if error.rcvd.code == _LOGIN_FAILED:
            return Unauthorized("unauthorized", error.rcvd.reason)
        if error.rcvd.code == _CUT_OFF:
            return RateLimited("rate_limited", error.rcvd.reason)
    return error


def _ending(error: BaseException) -> Exception:
    """Return what requests raise after `connect` has raised an error."""
    if isinstance(error, Exception):
        return error
    return ConnectionLost("not connected: connect() was canceled")


# What the client takes from the machine -------------------------------------


class Runner(Protocol):
    """Runs the asyncio side of a BlockingExchange."""

    @property
    def link(self) -> _Link: ...

    def start(self) -> bool:
        """Begin; False if it has begun already."""

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for its result."""

    def end(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that ends the link; wait for the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What an Exchange takes from the machine; a simulator gives its own.

    ``connect`` opens connections, ``chance`` makes the prefix of generated
    ids and the pauses between attempts to connect, ``decode`` returns the
    events of a frame, ``update_book`` the book after an event, ``environ`` has
    the defaults of an Exchange, ``runner`` runs the asyncio side of a
    BlockingExchange. Time is that of the running event loop. Events and books
    are never changed, so several clients may be given the same ones.
    """

    connect: _Connect = open_connection
    chance: random.Random = random.SystemRandom()
    decode: Callable[[str | bytes], list[Event]] = decode_events
    update_book: Callable[[Book, BookUpdate], Book] = Book.updated
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    runner: Callable[[_Link], Runner] = lambda link: _Thread(link)


# Each Exchange takes the value of the context in which it is made.
surroundings: ContextVar[Surroundings] = ContextVar(
    "surroundings", default=Surroundings()
)


# Views: what both sides show ------------------------------------------------


class OrderView:
    """An order as the exchange has last reported it."""

    def __init__(self, core: _Core, state: _OrderState) -> None:
        self._core = core
        self._state = state

    @property
    def order_id(self) -> int:
        """The id that the exchange has given the order."""
        return self._state.report.order_id

    @property
    def client_order_id(self) -> str | None:
        """The id given when placing the order, or a generated one."""
        return self._state.report.client_order_id

    @property
    def symbol(self) -> str:
        """The symbol of the instrument."""
        return self._state.report.symbol

    @property
    def side(self) -> Side:
        """``"buy"`` or ``"sell"``."""
        return self._state.report.side

    @property
    def order_status(self) -> OrderStatus:
        """waiting, new, partially_filled, filled, canceled or expired.

        A stop order is "waiting" until it is triggered.
        """
        return self._state.report.order_status

    @property
    def order_type(self) -> OrderType:
        """``"limit"`` or ``"market"``.

        Of a stop order it says what that becomes when it is triggered;
        ``trigger_price`` says that it is one.
        """
        return self._state.report.order_type

    @property
    def price(self) -> int | None:
        """The limit in ticks, None for a market or stop order."""
        return self._state.report.price

    @property
    def price_money(self) -> Decimal | None:
        """The limit in money, None without a limit."""
        instrument = self._core.markets.instruments.get(self.symbol)
        if self.price is None or instrument is None:
            return None
        return money_of(self.price, instrument)

    @property
    def trigger_price(self) -> int | None:
        """The price in ticks that triggers a stop order, None for others."""
        return self._state.report.trigger_price

    @property
    def display_qty(self) -> int | None:
        """The lots that the book shows at most, None: all of them."""
        return self._state.report.display_qty

    @property
    def expire_ts(self) -> int | None:
        """When the order expires, None: never."""
        return self._state.report.expire_ts

    @property
    def is_waiting(self) -> bool:
        """Whether it is a stop order that is not triggered yet."""
        return self.order_status == "waiting"

    @property
    def qty(self) -> int:
        """The total quantity in lots, fills included."""
        return self._state.report.qty

    @property
    def cum_qty(self) -> int:
        """The quantity filled, in lots."""
        return self._state.report.cum_qty

    @property
    def leaves_qty(self) -> int:
        """The quantity that can still trade, in lots."""
        return self._state.report.leaves_qty

    @property
    def avg_price(self) -> float | None:
        """The average price of the fills, None without any."""
        report = self._state.report
        return report.cum_cost / report.cum_qty if report.cum_qty else None

    @property
    def fills(self) -> tuple[Exec, ...]:
        """The executions since this client has known the order, in order.

        Those of a trade that was undone have ``busted`` set, if the client
        follows the market.
        """
        return tuple(self._state.fills)

    @property
    def is_open(self) -> bool:
        """Whether the order can still trade."""
        return self._state.is_open

    @property
    def reason(self) -> Reason | None:
        """Why it was canceled or expired, None otherwise.

        "unknown_order": the exchange no longer knows the order. Of a stop
        order that was refused when it was triggered: the refusal's code.
        """
        return self._state.report.reason

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OrderView):
            return NotImplemented
        return self._state is other._state

    def __hash__(self) -> int:
        return id(self._state)

    def __repr__(self) -> str:
        price = "market" if self.price is None else f"@ {self.price}"
        if self.trigger_price is not None:
            price += f" stop {self.trigger_price}"
        return (
            f"<{type(self).__name__} {self.order_id}: {self.side} {self.qty}"
            f" {self.symbol} {price}, {self.order_status},"
            f" filled {self.cum_qty}>"
        )


class MarketView:
    """One instrument: its book, last trade, position and profit."""

    def __init__(self, core: _Core, state: _MarketState) -> None:
        self._core = core
        self._state = state

    @property
    def symbol(self) -> str:
        """The symbol of the instrument."""
        return self._state.symbol

    @property
    def book(self) -> Book:
        """The newest book; an immutable value."""
        return self._state.book

    @property
    def is_live(self) -> bool:
        """Whether ``book`` is up to date: False while catching up."""
        return self._state.is_live and self._core.calls.is_online

    @property
    def instrument(self) -> Instrument:
        """Tick size, bounds and phase."""
        return self._core.markets.instruments[self.symbol]

    @property
    def avg_price(self) -> float | None:
        """The average price of the lots held in ticks, None without any."""
        holding = self._core.account.holdings.get(self.symbol)
        if not (holding and holding.position):
            return None
        tick_value = self._core.markets.tick_value(self.symbol)
        return holding.cost / holding.position / tick_value

    @property
    def profit(self) -> int | None:
        """The profit in this instrument, in units of money, less fees.

        That is the profit of what was closed since `connect`, and of the
        lots held at their current mark. None while it is not known, just
        after a market is first followed.
        """
        holding = self._core.account.holdings.get(self.symbol)
        value = self._core.markets.value(self.symbol)
        if holding is None or value is None:
            return None
        return holding.realized + holding.position * value - holding.cost

    @property
    def last(self) -> int | None:
        """The price of the last trade, None before the first.

        A trade that was undone, or of an account with itself, does not count.
        """
        return self._core.markets.last(self._state)

    @property
    def position(self) -> int:
        """The lots held; negative when short."""
        return self._core.account.report.positions.get(self.symbol, 0)

    def __repr__(self) -> str:
        book = self.book
        return f"<{type(self).__name__} {self.symbol}: {book.bid}/{book.ask}>"


class ExchangeView:
    """The account; private properties raise Unauthorized without a user."""

    url: str  # as given to Exchange; several are separated by commas
    urls: tuple[str, ...]  # one by one

    def __init__(self, core: _Core) -> None:
        self._core = core

    def __repr__(self) -> str:
        who = f"{self.user} at {self.url}" if self.user else self.url
        calls = self._core.calls
        text = "connected" if calls.is_online else calls.not_connected
        if self.user and calls.is_online:
            text += f", cash {self.cash}, equity {self.equity}"
        return f"<{type(self).__name__} {who}: {text}>"

    @property
    def user(self) -> str | None:
        """The account's name, None for public data only."""
        return self._core.account.user

    @property
    def is_connected(self) -> bool:
        """Whether the objects follow the exchange now."""
        return self._core.calls.is_online

    @property
    def trouble(self) -> str | None:
        """Why it is not connected, in one line; None while it is.

        With several addresses it names the one that failed last, and the one
        that is tried next.
        """
        return self._core.calls.trouble

    @property
    def instruments(self) -> dict[str, Instrument]:
        """The listed instruments, by symbol."""
        return dict(self._core.markets.instruments)

    @property
    def round(self) -> int:
        """The number of the round: 1, then one more with each reset."""
        return self._core.markets.round

    @property
    def speed(self) -> float:
        """How many times as fast as real time the exchange's time runs.

        Known after a login, or after the first heartbeat; 1 before.
        """
        return self._core.time.speed

    @property
    def now(self) -> int:
        """The exchange's time in microseconds, as ``ts`` of messages is.

        It is that of the last heartbeat, or of the login, and what has passed
        since; 0 before.
        """
        return self._core.time.now()

    @property
    def match(self) -> MatchInfo | None:
        """The match that is played, with its teams; None: none is set.

        Known after a login, or once it has changed.
        """
        return self._core.markets.match

    @property
    def role(self) -> Role:
        """What the account may do: "trader" unless its key says otherwise.

        The others are "admin", "house" and "spectator"; known after a login.
        """
        return self._core.account.role

    @property
    def unit(self) -> Decimal | None:
        """The money of one unit of cash.

        None if cash is ticks times lots of instruments whose ticks differ.
        """
        return self._core.markets.unit

    @property
    def currency(self) -> str | None:
        """The currency of the money, None if the market names none.

        Known after a login only.
        """
        return self._core.markets.currency

    @property
    def cash(self) -> int:
        """The cash of the account, in units of money.

        One unit is ``unit``, or one tick of one lot if the market has none.
        """
        return self._core.account.report.cash

    @property
    def cash_money(self) -> Decimal | None:
        """The cash of the account as money, None without a ``unit``."""
        return self._core.money(self.cash)

    @property
    def equity(self) -> int:
        """Cash and the positions at their current marks."""
        return self._core.equity

    @property
    def equity_money(self) -> Decimal | None:
        """The equity of the account as money, None without a ``unit``."""
        return self._core.money(self.equity)

    @property
    def tenders(self) -> list[Tender]:
        """The offers that the account may still accept, oldest first.

        Offers that come while there is no connection are missing.
        """
        self._core.account.require_user()
        return self._core.tenders.valid

    @property
    def realized(self) -> int:
        """The profit of what has been closed, less fees."""
        return self._core.account.report.realized

    @property
    def unrealized(self) -> int:
        """The profit of the positions at their current marks."""
        report = self._core.account.report
        return report.unrealized + self._core.equity - report.equity

    @property
    def positions(self) -> dict[str, int]:
        """The lots held of each symbol ever traded."""
        return dict(self._core.account.report.positions)


# Asyncio ------------------------------------------------------------------


class Exchange(ExchangeView):
    """An account on an exchange; connects again by itself after a loss.

    ``url`` is one address of the exchange or several, in a string with commas
    between them or in a sequence: those of a standby, for example. One after
    the other is tried until one serves; the session goes on there. It is by
    default $EXCHANGE_URL, else made of $EXCHANGE_SERVER_HOSTNAME and
    $EXCHANGE_SERVER_PORT, else ws://localhost:8765. ``user`` and ``token``
    are by default $EXCHANGE_USER and $EXCHANGE_TOKEN. Without a user there is
    public data only; "" means no user even if $EXCHANGE_USER is set. When the
    connection ends and no other replaces it, the exchange cancels the orders
    placed here, unless ``cancel_on_disconnect`` is False. A revoked key ends
    this client: pending and later requests raise Unauthorized.

    Timeouts are in seconds of real time, whatever the exchange's ``speed``. A
    request waits for its answer as long as the connection lives; put it into
    ``asyncio.timeout`` to wait less. While the connection is lost,
    ``request_timeout`` bounds the wait. The connection counts as lost after
    ``silence_timeout`` without a byte from the exchange. It is pinged before
    that, and answers even while it waits for its disk.
    ``connect`` opens each connection to an address: see ``Connection``; the
    default is that of ``surroundings``.

    The methods ``connect`` and ``close`` may be called in any order and any
    number of times. An Exchange that nothing refers to closes itself. In a
    notebook, outputs and the last traceback may refer to it, so close it
    before you use its name for another.
    """

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        user: str | None = None,
        token: str | None = None,
        *,
        cancel_on_disconnect: bool = True,
        connect_timeout: float = CONNECT_TIMEOUT,
        request_timeout: float = REQUEST_TIMEOUT,
        silence_timeout: float = SILENCE_TIMEOUT,
        connect: _Connect | None = None,
    ) -> None:
        around = surroundings.get()
        environ = around.environ
        if user is None:
            user = environ.get("EXCHANGE_USER")
        login = None
        if user:
            login = _make(
                "login",
                user=user,
                token=token or environ.get("EXCHANGE_TOKEN") or None,
                cancel_on_disconnect=cancel_on_disconnect,
            )
        assert login is None or isinstance(login, Login)
        self.urls = _addresses(url or _default_url(environ))
        self.url = ",".join(self.urls)
        prefix = f"{around.chance.getrandbits(32):08x}"
        super().__init__(_Core(login, prefix, around.update_book))
        self._link = _Link(
            self.urls,
            self._core,
            connect_timeout=connect_timeout,
            request_timeout=request_timeout,
            silence_timeout=silence_timeout,
            connect=connect or around.connect,
            chance=around.chance,
            decode=around.decode,
        )
        self._markets: WeakValueDictionary[str, Market] = WeakValueDictionary()

    def __del__(self) -> None:
        # A registered finalizer would keep the link for ever where the link
        # leads back to this object, as that of a simulation does.
        if hasattr(self, "_link"):
            self._link.drop()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """Connect and log in; ``async with`` does it for you.

        Does nothing while connected. May be called again after it has
        failed, and after ``close``. Raises ConnectionLost if the exchange
        cannot be reached within ``connect_timeout``, Unauthorized if it
        refuses the login.
        """
        is_new = self._link.start()
        try:
            await self._link.come_online(self._link.connect_timeout)
        except BaseException as error:
            if is_new:  # else the attempts go on, as before
                await self._link.close(_ending(error))
            raise

    async def close(self) -> None:
        """Disconnect: iterators end, pending requests raise ConnectionLost."""
        await self._link.close()

    async def market(self, symbol: str) -> Market:
        """Follow the book and trades of an instrument, and return it.

        Raises UnknownSymbol.
        """
        channels = ("book", "trades")
        request = _make("subscribe", channels=channels, symbols=[symbol])
        state = self._core.markets.follow(symbol)
        try:
            reply = await self._ask(request)
        except UnknownSymbol:
            self._core.markets.unfollow(symbol)
            raise
        self._core.subscribed(state, reply)
        self._link.wake()
        await self._link.until(lambda: state.is_live and state.knows_trades)
        return self._markets.setdefault(symbol, Market(self, state))

    @property
    def orders(self) -> list[Order]:
        """The open orders of the account, oldest first, wherever placed."""
        return [Order(self, o) for o in self._core.account.open_orders]

    async def cancel_all(
        self, symbol: str | None = None, side: Side | None = None
    ) -> int:
        """Cancel the open orders of the account; return their number.

        Never sent twice: raises OutcomeUnknown if the connection is lost
        before the reply.
        """
        reply = await self._ask(_make("cancel_all", symbol=symbol, side=side))
        assert isinstance(reply, Ok)
        return reply.count or 0

    async def cancel_after(self, seconds: float) -> None:
        """Cancel all orders after 1 to 86,400 seconds, unless called again.

        The seconds are of the exchange's time: see ``speed``. It is the dead
        man's switch of the account; 0 turns it off.
        """
        timeout_ms = round(seconds * 1_000)
        await self._ask(_make("cancel_after", timeout_ms=timeout_ms))

    async def admin(
        self,
        action: AdminAction,
        reason: str,
        **arguments: Unpack[AdminArguments],
    ) -> None:
        """Act as an administrator, as "suspend" or "resume" an account.

        Everybody gets the action and its ``reason``. The older names "kill"
        and "unkill" of these two are accepted as well. Raises Refused:
        Forbidden without an administrator's key. Sent again after a lost
        connection: the exchange carries out a ``client_request_id`` once.
        """
        named: dict[str, Any] = {
            "client_request_id": self._core.account.next_name(),
            **arguments,
        }
        await self._ask(_make("admin", action=action, reason=reason, **named))

    async def accept(self, tender: Tender | str) -> None:
        """Accept an offer of ``tenders``, or of a ``tender_id``, once.

        The lots and the cash move at the price of the tender. Raises Refused:
        UnknownTender if it has ended, DuplicateTender if the account has
        accepted it before, PositionLimit or InsufficientFunds.
        """
        name = tender.tender_id if isinstance(tender, Tender) else tender
        try:
            await self._ask(_make("tender", tender_id=name))
        except (UnknownTender, DuplicateTender):
            self._core.tenders.drop(name)
            raise
        self._core.tenders.drop(name)

    async def get(
        self,
        what: Table,
        *,
        symbol: str | None = None,
        after: int | None = None,
        limit: int | None = None,
        interval: Interval | None = None,
    ) -> list[Any]:
        """Return the newest ``limit`` rows of a table, oldest first.

        With ``after`` (a trade_id, order_id, account seq or news_id) return
        the rows that follow it. Rows of trades, orders, fills, book, account,
        news and statuses are events of ``orderbook``; rows of instruments,
        leaderboard and positions are dicts; candles are lists.
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
        """Return a table as a pandas DataFrame; takes the arguments of `get`.

        A table has the same columns and types whatever its rows: integers
        are Int64, which allows missing values, and times are UTC timestamps.
        The index is ``ts``, or ``start_ts`` of candles, where a table has
        one. Raises ImportError without pandas.
        """
        rows = await self.get(
            what, symbol=symbol, after=after, limit=limit, interval=interval
        )
        return _frame(what, rows)

    async def leaderboard(self) -> list[Leader]:
        """Return who has traded in this round, the best first.

        The positions of others are empty unless the exchange makes them
        public; their cash is then the same as their equity.
        """
        rows: list[Leader] = await self.get("leaderboard", limit=MAX_ROWS)
        return rows

    def fills(self) -> Stream[Exec]:
        """Iterate over every execution of the account from now on."""
        self._core.account.require_user()
        return self._stream(self._core.account.fills)

    def statuses(self) -> Stream[Status]:
        """Iterate over the news of the exchange from now on.

        News that come while there is no connection are lost; the phase of a
        ``Market.instrument`` is right once it is connected again.
        """
        return self._stream(self._core.markets.statuses)

    def news(self, last: int = 0) -> Stream[News]:
        """Iterate over the news: the last ones, then every one from now on.

        ``last`` is a number of past news, 0 to 1,000. News that come while
        there is no connection follow when it is back.
        """
        topic = self._core.news.follow(last)
        self._link.wake()
        return Stream(self, topic)

    def offers(self) -> Stream[Tender]:
        """Iterate over the tenders offered to the account from now on."""
        self._core.account.require_user()
        return self._stream(self._core.tenders.offers)

    def settlements(self) -> Stream[Settlement]:
        """Iterate over the account's positions that are settled from now on.

        Those that happen while there is no connection come after it is back,
        if the exchange resumes the session.
        """
        self._core.account.require_user()
        return self._stream(self._core.account.settlements)

    # Internals

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
            # The first copy may have been accepted.
            call.order = await self._find(call, refusal)
            if call.order is None:
                raise
        assert call.order is not None
        return Order(self, call.order)

    async def _find(self, call: _Call, refusal: Refused) -> _OrderState | None:
        """Return the order that the first of two copies has placed."""
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
                return self._core.account.learn(row)
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
        """The open orders of the account here, oldest first."""
        return [o for o in self._exchange.orders if o.symbol == self.symbol]

    async def buy(
        self,
        qty: int,
        price: Price | None = None,
        **options: Unpack[OrderOptions],
    ) -> Order:
        """Place an order to buy; without a price, a market order.

        An integer price is in ticks, a Decimal in money. With a
        ``trigger_price`` it is a stop order, or a stop-limit order.

        Returns the live order with its immediate fills; ``OrderOptions``
        lists the options. Raises Refused. Raises OutcomeUnknown if the
        connection is lost and does not come back in time; then the order may
        appear in ``orders`` later. A call that is canceled before the order
        was sent, as by ``asyncio.timeout(0)``, sends nothing.
        """
        return await self._place("buy", qty, price, **options)

    async def sell(
        self,
        qty: int,
        price: Price | None = None,
        **options: Unpack[OrderOptions],
    ) -> Order:
        """Place an order to sell, as ``buy`` does to buy."""
        return await self._place("sell", qty, price, **options)

    async def _place(
        self,
        side: Side,
        qty: int,
        price: Price | None,
        **options: Unpack[OrderOptions],
    ) -> Order:
        account = self._core.account
        call = account.placing(self.symbol, side, qty, price, **options)
        return await self._exchange._place(call)

    async def convert(self, side: Side, qty: int) -> None:
        """Turn a basket into ``qty`` lots of the instrument, or back.

        "buy" gives the basket of ``instrument.convert`` and gets the lots,
        "sell" the reverse; either costs its fee. All or nothing. Raises
        Refused: NoConversion, InvalidQty unless a multiple of its ``lot``,
        PositionLimit, InsufficientFunds or MarketClosed. Sent again after a
        lost connection, without a second effect.
        """
        request = _make(
            "convert",
            symbol=self.symbol,
            side=side,
            qty=qty,
            client_order_id=self._core.account.next_name(),
        )
        await self._exchange._ask(request)

    async def quote(
        self, bid: Price | None, ask: Price | None, qty: int
    ) -> tuple[Order | None, Order | None]:
        """Show ``qty`` lots at each price; None pulls that side.

        Keeps at most one bid and one ask of its own. Places, amends or
        cancels them in one frame; a side that is as wanted stays untouched.
        Returns both orders, None for a side without one. If a side is
        refused, both are tried, then the first refusal is raised; the old
        order of a refused side stands. An order whose total quantity, fills
        included, would come above ``max_qty`` of the instrument is canceled
        and a new one placed.
        """
        bid = ticks_of(bid, self.instrument, "bid")
        ask = ticks_of(ask, self.instrument, "ask")
        if bid is not None and ask is not None and bid >= ask:
            raise BadRequest("bad_request", "bid: not below ask", field="bid")
        prices: dict[Side, int | None] = {"buy": bid, "sell": ask}
        link, quotes = self._exchange._link, self._core.quotes(self.symbol)
        async with link.quoting(self.symbol):
            sides: Sequence[Side] = ("buy", "sell")
            while sides:
                await link.until_known(quotes)
                most = self.instrument.max_qty
                calls = quotes.changes(prices, sides, qty, most)
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
            buy, sell = quotes.order("buy"), quotes.order("sell")
            return (
                Order(self._exchange, buy) if buy else None,
                Order(self._exchange, sell) if sell else None,
            )

    async def cancel_all(self, side: Side | None = None) -> int:
        """Cancel the open orders of the account here; return their number."""
        return await self._exchange.cancel_all(self.symbol, side)

    async def candles(
        self, interval: Interval = "1m", limit: int | None = None
    ) -> list[Candle]:
        """Return the newest candles, oldest first, without empty ones."""
        rows = await self._exchange.get(
            "candles", symbol=self.symbol, interval=interval, limit=limit
        )
        return [Candle(*row) for row in rows]

    def books(self) -> AsyncIterator[Book]:
        """Iterate over the book: the current one, then each newer one.

        A slow reader skips to the newest book.
        """
        return _Books(self._exchange, self._state)

    def trades(self) -> Stream[Trade]:
        """Iterate over every trade of the instrument from now on."""
        return self._exchange._stream(self._state.trades)


class Order(OrderView):
    """A live order; made by ``Market.buy`` and the like."""

    def __init__(self, exchange: Exchange, state: _OrderState) -> None:
        super().__init__(exchange._core, state)
        self._exchange = exchange

    async def amend(
        self,
        price: Price | None = None,
        qty: int | None = None,
        *,
        expire_ts: int | None = None,
        trigger_price: Price | None = None,
        display_qty: int | None = None,
    ) -> None:
        """Change the values given; ``qty`` is the total, fills included.

        Raises OrderClosed if the order has ended; a refusal changes nothing.
        Raises OutcomeUnknown if the connection is lost before the reply and
        a newer amend has been sent.
        """
        instrument = self._core.markets.instruments.get(self.symbol)
        if instrument is not None:
            price = ticks_of(price, instrument)
            trigger_price = ticks_of(
                trigger_price, instrument, "trigger_price"
            )
        request = _make(
            "amend",
            order_id=self.order_id,
            price=price,
            qty=qty,
            expire_ts=expire_ts,
            trigger_price=trigger_price,
            display_qty=display_qty,
        )
        await self._exchange._ask(request, self._state)

    async def cancel(self) -> None:
        """Cancel what is left; raises OrderClosed if the order has ended."""
        request = Cancel(order_id=self.order_id)
        await self._exchange._ask(request, self._state)

    async def done(self) -> Self:
        """Wait until the order is filled, canceled or expired."""
        await self._exchange._link.until(lambda: not self._state.is_open)
        return self


class Stream(Generic[T]):
    """An iterator over every event of a kind, in order, each once.

    Ends when the exchange is closed. Raises EventsLost if it would miss one.
    """

    def __init__(self, exchange: Exchange, topic: _Topic[T]) -> None:
        self._exchange = exchange
        self._topic = topic

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        topic = self._topic
        await self._exchange._link.advance(lambda: topic.events or topic.error)
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
        await self._exchange._link.advance(
            lambda: state.book is not self._seen
        )
        self._seen = state.book
        return self._seen


def _addresses(url: str | Sequence[str]) -> tuple[str, ...]:
    """Return the addresses in a string with commas, or in several strings.

    Raises ValueError if one is not that of a websocket.
    """
    texts = [url] if isinstance(url, str) else url
    found = [part.strip() for text in texts for part in text.split(",")]
    for address in found:
        if urlsplit(address).scheme not in ("ws", "wss"):
            raise ValueError(
                f"{address or 'an empty address'} is not like"
                " ws://hostname:port"
            )
    return tuple(dict.fromkeys(found))


def _default_url(environ: Mapping[str, str]) -> str:
    hostname = environ.get("EXCHANGE_SERVER_HOSTNAME") or DEFAULT_HOSTNAME
    port = environ.get("EXCHANGE_SERVER_PORT") or DEFAULT_PORT
    return environ.get("EXCHANGE_URL") or f"ws://{hostname}:{port}"


# Blocking -----------------------------------------------------------------


class _Thread:
    """The thread whose event loop runs the asyncio side.

    `start` begins it, and it ends when the link does; `start` may then begin
    another.
    """

    def __init__(self, link: _Link) -> None:
        self.link = link
        # Held to begin, to hand work over, and to end.
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> bool:
        """Begin; False if it has begun already."""
        with self._lock:
            if self._loop is not None:
                return False
            if self._thread is not None:
                self._thread.join()  # it may still be about to end
            begun = threading.Event()
            thread = threading.Thread(
                target=asyncio.run,
                args=(self._live(begun),),
                name="exchange",
                daemon=True,
            )
            thread.start()
            begun.wait()
            self._thread = thread
            return True

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the thread and wait for its result."""
        with self._lock:
            if self._loop is None:
                work.close()
                raise self.link.failure or ConnectionLost("it has ended")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # after Ctrl-C, for example
            raise

    def end(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that ends the link; wait for the thread's end."""
        with self._lock:
            thread = self._thread  # another may have begun after it
        with contextlib.suppress(Exception):  # it has ended already
            self.wait(work)
        if thread is not None:
            thread.join()

    async def _live(self, begun: threading.Event) -> None:
        self.link.start()
        self._loop = asyncio.get_running_loop()
        begun.set()
        await self.link.ended()
        with self._lock:
            self._loop = None
        await asyncio.sleep(0)  # so that the last work becomes a task
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)


class _Blocking(Generic[A]):
    """The blocking side of an asyncio object."""

    _inner: A
    _thread: Runner


def _blocking(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[_Blocking[A], P], T]:
    """Return the method that waits for the result of ``method``."""

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
    """Like ``_blocking``, for a method that returns an iterator."""

    @functools.wraps(method)
    def begin(
        self: _Blocking[A], /, *args: P.args, **kwargs: P.kwargs
    ) -> Iterator[T]:
        async def start() -> AsyncIterator[T]:
            return method(self._inner, *args, **kwargs)

        return _BlockingIterator(self._thread.wait(start()), self._thread)

    return begin


class _BlockingIterator(Generic[T]):
    def __init__(self, inner: AsyncIterator[T], thread: Runner) -> None:
        self._inner = inner
        self._thread = thread

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        try:
            return self._thread.wait(self._next())
        except StopAsyncIteration:
            raise StopIteration from None
        except ConnectionLost:  # perhaps because the thread has ended
            if self._thread.link.is_closed:
                raise StopIteration from None
            raise

    async def _next(self) -> T:
        return await anext(self._inner)


class BlockingOrder(OrderView, _Blocking[Order]):
    """A live order; its methods wait."""

    def __init__(self, inner: Order, thread: Runner) -> None:
        super().__init__(inner._core, inner._state)
        self._inner = inner
        self._thread = thread

    amend = _blocking(Order.amend)
    cancel = _blocking(Order.cancel)
    done = _blocking_order(Order.done)


class BlockingMarket(MarketView, _Blocking[Market]):
    """One instrument to trade; made by ``BlockingExchange.market``."""

    def __init__(self, inner: Market, thread: Runner) -> None:
        super().__init__(inner._core, inner._state)
        self._inner = inner
        self._thread = thread

    @property
    def orders(self) -> list[BlockingOrder]:
        """The open orders of the account here, oldest first."""
        return [BlockingOrder(o, self._thread) for o in self._inner.orders]

    def quote(
        self, bid: Price | None, ask: Price | None, qty: int
    ) -> tuple[BlockingOrder | None, BlockingOrder | None]:
        """Show ``qty`` lots at each price, as ``Market.quote`` does."""
        left, right = self._thread.wait(self._inner.quote(bid, ask, qty))
        return (
            None if left is None else BlockingOrder(left, self._thread),
            None if right is None else BlockingOrder(right, self._thread),
        )

    buy = _blocking_order(Market.buy)
    sell = _blocking_order(Market.sell)
    convert = _blocking(Market.convert)
    cancel_all = _blocking(Market.cancel_all)
    candles = _blocking(Market.candles)
    books = _blocking_iterator(Market.books)
    trades = _blocking_iterator(Market.trades)


class BlockingExchange(ExchangeView, _Blocking[Exchange]):
    """An ``Exchange`` without ``await``, for plain scripts and notebooks.

    Takes the arguments of ``Exchange`` and has its methods, each of which
    waits until it is done; iterators are plain ones. Use it in a ``with``
    block, or call ``connect`` and ``close``. Several threads may use it. It
    has a thread of its own while it is connected.
    """

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        user: str | None = None,
        token: str | None = None,
        **options: Any,
    ) -> None:
        self._inner = Exchange(url, user, token, **options)
        super().__init__(self._inner._core)
        self.url, self.urls = self._inner.url, self._inner.urls
        self._thread = surroundings.get().runner(self._inner._link)

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def connect(self) -> None:
        """Connect and log in, as ``Exchange.connect`` does."""
        link = self._inner._link
        is_new = self._thread.start()
        try:
            self._thread.wait(link.come_online(link.connect_timeout))
        except BaseException as error:
            if is_new:
                self._thread.end(link.close(_ending(error)))
            raise

    def close(self) -> None:
        """Disconnect and end the thread: iterators end."""
        self._thread.end(self._inner.close())

    def market(self, symbol: str) -> BlockingMarket:
        """Follow the book and trades of an instrument, and return it.

        Raises UnknownSymbol.
        """
        market = self._thread.wait(self._inner.market(symbol))
        return BlockingMarket(market, self._thread)

    @property
    def orders(self) -> list[BlockingOrder]:
        """The open orders of the account, oldest first, wherever placed."""
        return [BlockingOrder(o, self._thread) for o in self._inner.orders]

    cancel_all = _blocking(Exchange.cancel_all)
    cancel_after = _blocking(Exchange.cancel_after)
    admin = _blocking(Exchange.admin)
    accept = _blocking(Exchange.accept)
    get = _blocking(Exchange.get)
    frame = _blocking(Exchange.frame)
    leaderboard = _blocking(Exchange.leaderboard)
    fills = _blocking_iterator(Exchange.fills)
    statuses = _blocking_iterator(Exchange.statuses)
    news = _blocking_iterator(Exchange.news)
    offers = _blocking_iterator(Exchange.offers)
    settlements = _blocking_iterator(Exchange.settlements)
