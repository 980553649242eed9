"""The messages that clients and exchange share, and the order book.

Three things live here, in this order:

* the **messages** of the wire protocol (``docs/PROTOCOL.md``): slotted
  dataclasses, one class for each ``type``, immutable by contract;
* the **codec**: ``decode_requests``, ``decode_events`` and ``encode``, with
  pydantic as a strict validator and serialiser;
* the **order book** of one instrument, with price-time priority.

Nothing in this module reads a clock, opens a socket, makes a random choice
or uses a float. Prices are integer ticks, quantities integer lots, times
integer microseconds since the epoch (UTC).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from itertools import islice
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeAlias,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import (
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import core_schema, from_json, to_json

PROTOCOL_VERSION = 1
MAX_INT = 2**53 - 1  # the largest integer every JSON reader keeps exactly
MAX_FRAME = 100  # requests in one array; others wait for all of them
MAX_FIELD_ECHOED = 40  # characters of an unknown field's name in its error
DEFAULT_ROWS = 500  # rows that `get` returns if it has no limit
MAX_ROWS = 1_000  # the greatest limit of `get`

# Values -------------------------------------------------------------------

T = TypeVar("T")


class _NotNull:
    """Refuse ``null``: an optional field has a value or is absent."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        schema = handler(source)
        assert schema["type"] == "nullable"
        inner: core_schema.CoreSchema = schema["schema"]
        return inner


class _Open:
    """Accept any string for words that are a closed set for mypy.

    A client must accept words that a newer exchange adds.
    """

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.str_schema()


Maybe = Annotated[T | None, _NotNull()]  # a field that may be absent

Integer: TypeAlias = Annotated[int, Field(ge=-MAX_INT, le=MAX_INT)]
Price: TypeAlias = Integer
Qty: TypeAlias = Annotated[int, Field(ge=1, le=MAX_INT)]
Seq: TypeAlias = Annotated[int, Field(ge=0, le=MAX_INT)]
Ts: TypeAlias = Annotated[int, Field(ge=0, le=MAX_INT)]
Id: TypeAlias = Integer | Annotated[str, Field(max_length=36)]
User: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,32}$")]
# What an administrator may name: users, and those of flow in a simulation.
AccountName: TypeAlias = Annotated[
    str, Field(pattern=r"^(@flow\.)?[A-Za-z0-9_.-]{1,32}$")
]
Symbol: TypeAlias = Annotated[str, Field(pattern=r"^[A-Z0-9_.-]{1,16}$")]
TEAMS_MAX = 1_000  # of a match; each login gets their names
Teams: TypeAlias = Annotated[
    tuple[User, ...],
    Field(min_length=1, max_length=TEAMS_MAX, fail_fast=True),
]
ClientOrderId: TypeAlias = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,36}$")
]
# A line of text for people, without control characters.
Line: TypeAlias = Annotated[
    str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")
]
Sha256: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# Text of several lines for people; of the control characters only line feeds.
Lines: TypeAlias = Annotated[
    str,
    Field(max_length=2_000, pattern=r"^[^\x00-\x09\x0b-\x1f\x7f-\x9f]+$"),
]
# A name that an administrator gives to a tender or to a request.
Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,36}$")]
PriceLevel: TypeAlias = tuple[int, int]  # price, total quantity
Band: TypeAlias = tuple[int, int]  # the lowest and the highest price

Side: TypeAlias = Literal["buy", "sell"]
OrderType: TypeAlias = Literal["limit", "market", "stop", "stop_limit"]
TimeInForce: TypeAlias = Literal["gtc", "ioc", "fok", "gtd", "auction"]
Stp: TypeAlias = Literal[
    "cancel_oldest", "cancel_newest", "cancel_both", "none"
]
Kind: TypeAlias = Literal["spot", "future", "call", "put", "binary"]
Channel: TypeAlias = Literal["book", "trades", "ticker"]
Interval: TypeAlias = Literal["1s", "1m", "5m", "1h", "1d"]
INTERVALS: dict[Interval, int] = {  # of candles; in microseconds
    "1s": 1_000_000,
    "1m": 60_000_000,
    "5m": 300_000_000,
    "1h": 3_600_000_000,
    "1d": 86_400_000_000,
}
Table: TypeAlias = Literal[
    "instruments",
    "book",
    "trades",
    "candles",
    "leaderboard",
    "account",
    "positions",
    "fills",
    "orders",
    "news",
    "statuses",
]
OrderStatus: TypeAlias = Annotated[
    Literal[
        "waiting", "new", "partially_filled", "filled", "canceled", "expired"
    ],
    _Open(),
]
ExecType: TypeAlias = Annotated[
    Literal[
        "new",
        "triggered",
        "trade",
        "amended",
        "canceled",
        "expired",
        "status",
    ],
    _Open(),
]
Reason: TypeAlias = Annotated[
    Literal[
        "user",
        "disconnect",
        "cancel_after",
        "stp",
        "admin",
        "ioc",
        "fok",
        "gtd",
        "no_liquidity",
        "closed",
        "funds",
        # Codes of refusals: why a stop ended when it was triggered.
        "invalid_price",
        "position_limit",
        "insufficient_funds",
        "would_take",
    ],
    _Open(),
]
Liquidity: TypeAlias = Annotated[Literal["maker", "taker", "auction"], _Open()]
PhaseName: TypeAlias = Literal[
    "pre_open", "auction", "open", "halted", "closed"
]
Phase: TypeAlias = Annotated[PhaseName, _Open()]
# The orders that each phase accepts, new or amended. Only "open" matches them
# on arrival; "resting" are orders that stay: limit orders that are gtc or gtd,
# stop orders, and market orders with the time in force "auction", which "all"
# does not include. Cancels are accepted in every phase.
PHASES: dict[PhaseName, Literal["all", "resting", "none"]] = {
    "pre_open": "resting",
    "auction": "resting",
    "open": "all",
    "halted": "none",
    "closed": "none",
}
# What the owner of a key may do. A house account trades for the market, such
# as a market maker: it is not ranked. A spectator places no orders.
RoleName: TypeAlias = Literal["trader", "admin", "house", "spectator"]
Role: TypeAlias = Annotated[RoleName, _Open()]
Code: TypeAlias = Annotated[
    Literal[  # in order of precedence: the first that applies is answered
        "bad_request",
        "unauthorized",
        "rate_limited",
        "busy",
        "forbidden",
        "unknown_symbol",
        "no_conversion",
        "duplicate_client_order_id",
        "duplicate_client_request_id",
        "unknown_tender",
        "duplicate_tender",
        "unknown_order",
        "order_closed",
        "market_closed",
        "invalid_qty",
        "invalid_price",
        "too_many_orders",
        "position_limit",
        "insufficient_funds",
        "would_take",
    ],
    _Open(),
]


class Refused(Exception):
    """The rules refuse a request. It changed nothing; ``code`` says why.

    ``field`` names the field to correct, if there is one, and
    ``retry_after_ms`` the time to wait, if a later request may succeed.
    ``order_id``, ``order_status`` and ``cum_qty`` are the state of the order
    concerned.
    """

    code: Code

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        field: str | None = None,
        retry_after_ms: int | None = None,
        order_id: int | None = None,
        order_status: OrderStatus | None = None,
        cum_qty: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.retry_after_ms = retry_after_ms
        self.order_id = order_id
        self.order_status = order_status
        self.cum_qty = cum_qty

    def as_error(self) -> Error:
        """Return the event that reports the refusal."""
        return Error(
            code=self.code,
            message=self.message,
            field=self.field,
            retry_after_ms=self.retry_after_ms,
            order_id=self.order_id,
            order_status=self.order_status,
            cum_qty=self.cum_qty,
        )


class FieldError(ValueError):
    """Fields of a message contradict each other; ``field`` is one of them."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


# Requests -----------------------------------------------------------------


class _Strict:
    """The base of every request: strict types, no unknown fields."""

    __slots__ = ()
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)


NO_TRIGGER = "only a stop or stop_limit order has one"
# The times in force of each type of order.
TIMES_IN_FORCE: dict[OrderType, tuple[TimeInForce, ...]] = {
    "limit": ("gtc", "gtd", "ioc", "fok"),
    "market": ("ioc", "fok", "auction"),
    "stop": ("gtc", "gtd"),
    "stop_limit": ("gtc", "gtd", "ioc", "fok"),
}


# At least one. Validation stops at the first invalid one: a list of all
# errors in a message of the greatest size takes 0.2 s.
_SEVERAL = Field(min_length=1, fail_fast=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Login(_Strict):
    """Name the account; must come first. Answered with ``Welcome``."""

    type: Literal["login"] = "login"
    id: Maybe[Id] = None
    user: User
    token: Maybe[Annotated[str, Field(max_length=128)]] = field(
        default=None, repr=False
    )
    cancel_on_disconnect: bool = True
    session: Maybe[Annotated[str, Field(max_length=36)]] = None
    last_seq: Maybe[Seq] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place(_Strict):
    """Place an order (FIX NewOrderSingle). Answered with ``Exec`` "new".

    Raises FieldError for fields that contradict each other.
    """

    type: Literal["place"] = "place"
    id: Maybe[Id] = None
    symbol: Maybe[Symbol] = None
    side: Side
    qty: Qty
    price: Maybe[Price] = None
    order_type: OrderType = "limit"
    time_in_force: Maybe[TimeInForce] = None  # limit: gtc; market: ioc
    expire_ts: Maybe[Ts] = None
    post_only: bool = False
    stp: Stp = "cancel_oldest"
    client_order_id: Maybe[ClientOrderId] = None
    trigger_price: Maybe[Price] = None  # of the last trade
    display_qty: Maybe[Qty] = None  # the part that the book shows

    def __post_init__(self) -> None:
        tif = self.time_in_force
        if self.order_type != "limit" or tif == "auction":
            self._check_type()
        elif self.price is None:
            raise FieldError("price", "a limit order needs a price")
        elif self.trigger_price is not None:
            raise FieldError("trigger_price", NO_TRIGGER)
        if self.post_only and (tif == "ioc" or tif == "fok"):
            raise FieldError("post_only", f"not allowed with {tif}")
        if (tif == "gtd") != (self.expire_ts is not None):
            raise FieldError(
                "expire_ts", "required with gtd, not allowed otherwise"
            )
        if self.display_qty is not None and not (
            self.price is not None and tif in (None, "gtc", "gtd")
        ):
            raise FieldError(
                "display_qty",
                "only a limit or stop_limit order that is gtc or gtd has one",
            )

    def _check_type(self) -> None:
        """Check the fields of an order that is not a plain limit order."""
        kind, tif = self.order_type, self.time_in_force
        if kind == "limit" or kind == "stop_limit":
            if self.price is None:
                raise FieldError("price", f"a {kind} order needs a price")
        elif self.price is not None:
            hint = "; a stop_limit order has one" if kind == "stop" else ""
            raise FieldError(
                "price", f"a {kind} order must not have a price{hint}"
            )
        elif self.post_only:
            raise FieldError(
                "post_only", f"a {kind} order cannot be post-only"
            )
        allowed = TIMES_IN_FORCE[kind]
        if tif is not None and tif not in allowed:
            raise FieldError(
                "time_in_force",
                f"of a {kind} order must be {', '.join(allowed[:-1])}"
                f" or {allowed[-1]}",
            )
        has_trigger = self.trigger_price is not None
        if has_trigger and kind != "stop" and kind != "stop_limit":
            raise FieldError("trigger_price", NO_TRIGGER)
        if not has_trigger and (kind == "stop" or kind == "stop_limit"):
            raise FieldError(
                "trigger_price", f"a {kind} order needs a trigger_price"
            )


def _one_order(order_id: int | None, client_order_id: str | None) -> None:
    if (order_id is None) == (client_order_id is None):
        raise FieldError(
            "order_id", "give exactly one of order_id and client_order_id"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Amend(_Strict):
    """Change fields of an open order, which keeps its id."""

    type: Literal["amend"] = "amend"
    id: Maybe[Id] = None
    order_id: Maybe[Seq] = None
    client_order_id: Maybe[ClientOrderId] = None
    price: Maybe[Price] = None
    qty: Maybe[Qty] = None  # the new total, fills included
    expire_ts: Maybe[Ts] = None
    trigger_price: Maybe[Price] = None
    display_qty: Maybe[Qty] = None

    def __post_init__(self) -> None:
        _one_order(self.order_id, self.client_order_id)
        if (
            self.price is None
            and self.qty is None
            and self.expire_ts is None
            and self.trigger_price is None
            and self.display_qty is None
        ):
            raise FieldError("price", "give at least one new value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel(_Strict):
    """Cancel one open order."""

    type: Literal["cancel"] = "cancel"
    id: Maybe[Id] = None
    order_id: Maybe[Seq] = None
    client_order_id: Maybe[ClientOrderId] = None

    def __post_init__(self) -> None:
        _one_order(self.order_id, self.client_order_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAll(_Strict):
    """Cancel the account's open orders, all or of one symbol or side."""

    type: Literal["cancel_all"] = "cancel_all"
    id: Maybe[Id] = None
    symbol: Maybe[Symbol] = None
    side: Maybe[Side] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAfter(_Strict):
    """Arm the account's dead man's switch; 0 disarms it."""

    type: Literal["cancel_after"] = "cancel_after"
    id: Maybe[Id] = None
    timeout_ms: Annotated[int, Field(ge=0, le=86_400_000)]

    def __post_init__(self) -> None:
        if 0 < self.timeout_ms < 1_000:
            raise FieldError("timeout_ms", "must be 0, or 1000 to 86400000")


@dataclass(frozen=True, slots=True, kw_only=True)
class Convert(_Strict):
    """Turn a basket into lots of an instrument (buy), or back (sell)."""

    type: Literal["convert"] = "convert"
    id: Maybe[Id] = None
    symbol: Symbol
    side: Side
    qty: Qty  # lots of the instrument
    client_order_id: Maybe[ClientOrderId] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptTender(_Strict):
    """Accept the offer of a ``Tender`` event, once, while it is valid."""

    type: Literal["tender"] = "tender"
    id: Maybe[Id] = None
    tender_id: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribe(_Strict):
    """Follow public channels; without ``symbols`` those of all symbols."""

    type: Literal["subscribe"] = "subscribe"
    id: Maybe[Id] = None
    channels: Annotated[tuple[Channel, ...], _SEVERAL]
    symbols: Maybe[Annotated[tuple[Symbol, ...], _SEVERAL]] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribe(_Strict):
    """Stop following public channels."""

    type: Literal["unsubscribe"] = "unsubscribe"
    id: Maybe[Id] = None
    channels: Annotated[tuple[Channel, ...], _SEVERAL]
    symbols: Maybe[Annotated[tuple[Symbol, ...], _SEVERAL]] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Get(_Strict):
    """Ask for rows of a table. Answered with ``Ok`` and its ``data``."""

    type: Literal["get"] = "get"
    id: Maybe[Id] = None
    what: Table
    symbol: Maybe[Symbol] = None
    after: Maybe[Seq] = None
    limit: Annotated[int, Field(ge=1, le=MAX_ROWS)] = DEFAULT_ROWS
    interval: Interval = "1m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping(_Strict):
    """Ask whether the exchange is there. Answered with ``Ok``."""

    type: Literal["ping"] = "ping"
    id: Maybe[Id] = None


AdminAction: TypeAlias = Literal[
    "phase",
    "suspend",
    "resume",
    "kill",
    "unkill",
    "cancel",
    "adjust",
    "settle",
    "reset",
    "message",
    "news",
    "dividend",
    "tender",
    "close_out",
    "bust",
    "reference",
    "match",
]
# The arguments of each action: those it needs, and those it may have.
# "kill" and "unkill" are older names of "suspend" and "resume".
ADMIN_ARGUMENTS: dict[AdminAction, tuple[set[str], set[str]]] = {
    "phase": ({"phase"}, {"symbol", "reopen_ms", "close_ms"}),
    "suspend": ({"user"}, set()),
    "resume": ({"user"}, set()),
    "kill": ({"user"}, set()),
    "unkill": ({"user"}, set()),
    "cancel": ({"order_id"}, set()),
    "adjust": ({"user"}, {"cash", "symbol", "qty"}),
    "settle": (set(), {"symbol", "price", "prices"}),
    "reset": (set(), set()),
    "message": ({"message"}, {"symbol"}),
    "news": ({"headline"}, {"symbol", "body", "value"}),
    "dividend": ({"symbol", "amount"}, set()),
    "tender": (
        {"tender_id", "symbol", "side", "qty", "price", "valid_ms"},
        {"user"},
    ),
    "close_out": ({"user", "prices"}, set()),
    "bust": ({"symbol", "trade_id"}, set()),
    "reference": ({"symbol", "price"}, set()),
    "match": ({"name"}, {"round", "teams", "fair_sha256"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin(_Strict):
    """Act as an administrator; ``reason`` is shown to everybody.

    Raises FieldError if an argument is missing or does not belong to the
    action. A ``client_request_id`` takes effect once.
    """

    type: Literal["admin"] = "admin"
    id: Maybe[Id] = None
    client_request_id: Maybe[ClientOrderId] = None
    action: AdminAction
    reason: Line
    symbol: Maybe[Symbol] = None
    phase: Maybe[PhaseName] = None
    reopen_ms: Maybe[Annotated[int, Field(ge=1_000, le=86_400_000)]] = None
    user: Maybe[AccountName] = None
    order_id: Maybe[Seq] = None
    cash: Maybe[Integer] = None  # to add
    qty: Maybe[Integer] = None  # to add to a position; of a tender: lots
    price: Maybe[Price] = None
    message: Maybe[Line] = None
    close_ms: Maybe[Annotated[int, Field(ge=1_000, le=86_400_000)]] = None
    prices: Maybe[Annotated[dict[Symbol, Price], Field(min_length=1)]] = None
    headline: Maybe[Line] = None
    body: Maybe[Lines] = None
    value: Maybe[Integer] = None
    amount: Maybe[Integer] = None  # cash for each lot
    tender_id: Maybe[Name] = None
    side: Maybe[Side] = None  # what an account that accepts does
    valid_ms: Maybe[Annotated[int, Field(ge=1_000, le=86_400_000)]] = None
    trade_id: Maybe[Seq] = None
    name: Maybe[Line] = None  # of the match, and so are the next three
    round: Maybe[Line] = None
    teams: Maybe[Teams] = None
    fair_sha256: Maybe[Sha256] = None

    def __post_init__(self) -> None:
        needed, allowed = ADMIN_ARGUMENTS[self.action]
        for name in ADMIN_FIELDS:
            is_given = getattr(self, name) is not None
            if name in needed and not is_given:
                raise FieldError(name, f"required by the action {self.action}")
            if is_given and name not in needed | allowed:
                raise FieldError(
                    name, f"not allowed with the action {self.action}"
                )
        if self.action == "adjust":
            if (self.symbol is None) != (self.qty is None):
                raise FieldError("qty", "give symbol and qty together")
            if self.cash is None and self.qty is None:
                raise FieldError("cash", "give cash, or symbol and qty")
        if self.reopen_ms is not None and self.phase in ("open", "closed"):
            raise FieldError(
                "reopen_ms", f"not allowed with the phase {self.phase}"
            )
        if self.close_ms is not None and self.phase != "open":
            raise FieldError(
                "close_ms", f"not allowed with the phase {self.phase}"
            )
        if self.action == "settle":
            if self.symbol is None and self.prices is None:
                raise FieldError("symbol", "give either symbol or prices")
            if self.symbol is not None and self.prices is not None:
                raise FieldError("prices", "not allowed with symbol")
            if self.prices is not None and self.price is not None:
                raise FieldError("price", "not allowed with prices")
        if self.action == "tender" and self.qty is not None and self.qty < 1:
            raise FieldError("qty", "of a tender must be 1 or more")
        if self.teams is not None and len({*self.teams}) < len(self.teams):
            raise FieldError("teams", "one is named twice")


ADMIN_FIELDS = (
    "symbol",
    "phase",
    "reopen_ms",
    "user",
    "order_id",
    "cash",
    "qty",
    "price",
    "message",
    "close_ms",
    "prices",
    "headline",
    "body",
    "value",
    "amount",
    "tender_id",
    "side",
    "valid_ms",
    "trade_id",
    "name",
    "round",
    "teams",
    "fair_sha256",
)

Request: TypeAlias = (
    Login
    | Place
    | Amend
    | Cancel
    | CancelAll
    | CancelAfter
    | Convert
    | AcceptTender
    | Subscribe
    | Unsubscribe
    | Get
    | Ping
    | Admin
)

# Those that change something: an account sends them, after its login.
CommandRequest: TypeAlias = (
    Place
    | Amend
    | Cancel
    | CancelAll
    | CancelAfter
    | Convert
    | AcceptTender
    | Admin
)

# Events -------------------------------------------------------------------

if TYPE_CHECKING:

    @dataclass_transform(kw_only_default=True, frozen_default=True)
    def _event(cls: type[T]) -> type[T]: ...

    @dataclass_transform(frozen_default=True)
    def _positional_event(cls: type[T]) -> type[T]: ...

else:
    # Frozen for the type checker only: to make a frozen dataclass of this size
    # takes four times as long, and each order makes some.
    _event = dataclass(slots=True, kw_only=True)
    # For classes that are made by position: by name `Exec` takes 0.7 us more.
    _positional_event = dataclass(slots=True)


def _is_one(value: object) -> bool:
    """Leave a field out of the journal that is 1, which is its default."""
    return value == 1


@_event
class Conversion:
    """What an instrument converts into, and from."""

    lot: int  # a conversion is of a multiple of it
    fee: int  # cash, once for each conversion
    basket: dict[str, int]  # lots of each symbol for ``per`` lots
    per: Annotated[int, Field(exclude_if=_is_one)] = 1


@_event
class Instrument:
    """One listed instrument: its tick in money, its bounds in ticks.

    ``max_position``, ``collar`` and ``band`` 0: unlimited. The last fields,
    from ``reason`` on, tell the state of the instrument, not its settings.
    """

    symbol: Symbol
    tick_size: str  # a decimal number
    min_price: int
    max_price: int
    max_qty: int
    phase: Phase
    max_position: int = 0  # lots, long or short
    short_selling: bool = True
    maker_fee: int = 0  # ticks per lot; below 0: a rebate
    taker_fee: int = 0
    reference_price: int = 0  # before the first trade
    collar: int = 0  # most ticks of an order's price beyond the reference
    band: int = 0  # most ticks between a trade's price and the reference
    auction_ms: int = 30_000  # length of the auction when the band is left
    kind: Annotated[Kind, _Open()] = "spot"
    underlying: str | None = None  # of a future, call or put
    strike: int | None = None  # of a call or put, in ticks of the underlying
    # "round": it settles with its underlying; a number: that many seconds
    # after it first opens in a round.
    expires: Literal["round"] | int | None = None
    pays: int | None = None  # of a binary that comes true, in ticks
    question: str | None = None  # of a binary
    group: str | None = None  # binaries of which exactly one pays
    convert: Conversion | None = None
    tick_value: int = 1  # of one tick of one lot, in units of money
    multiplier: int = 1  # lots of the underlying in one contract
    lot_size: str = "1"  # what one lot is called outside, a decimal number
    maker_fee_bp: int = 0  # basis points of the notional, besides maker_fee
    taker_fee_bp: int = 0
    self_trades: bool = False  # whether ``stp`` may be "none"
    reason: str | None = None  # of the last change of phase
    reopen_ts: int | None = None  # when the phase ends by itself
    close_ts: int | None = None  # when the instrument closes by itself
    close_left_ms: int | None = None  # trading time left, while that stands
    expire_ts: int | None = None  # when the instrument settles by itself
    settlement_price: int | None = None  # once it is settled


@_event
class MatchInfo:
    """What an exchange is used for just now, as a match of an event."""

    name: str
    round: str | None = None  # of the event, as its organiser calls it
    teams: tuple[str, ...] = ()  # accounts that are due to take part
    # Of the file of hidden values, which is published after the match.
    fair_sha256: str | None = None


@_event
class Welcome:
    """The reply to a login; missed events or the account's state follow."""

    type: Literal["welcome"] = "welcome"
    id: Id | None = None
    protocol: int
    session: str
    user: str
    ts: int
    seq: int
    resumed: bool
    durable: bool
    limits: dict[str, int]  # 0 means unlimited
    instruments: tuple[Instrument, ...]
    rules: int = 2  # version of the rules in force
    unit: str | None = None  # of cash, a decimal number; None: ticks x lots
    currency: str | None = None
    round: int = 1  # counts resets
    role: Role = "trader"
    match: MatchInfo | None = None
    speed: str | None = None  # of the exchange's time, a decimal; None: 1


@_event
class Ok:
    """The reply to a request that succeeded and has no other reply."""

    type: Literal["ok"] = "ok"
    id: Id | None = None
    ts: int
    count: int | None = None
    data: list[Any] | None = None


@_event
class Error:
    """The reply to a request that was refused and changed nothing."""

    type: Literal["error"] = "error"
    id: Id | None = None
    code: Code
    message: str
    field: str | None = None
    retry_after_ms: int | None = None
    order_id: int | None = None
    order_status: OrderStatus | None = None
    cum_qty: int | None = None


@_positional_event
class Exec:
    """An execution report (FIX 35=8): what happened to one order.

    It repeats every field of the order that is not at its default.
    """

    seq: int
    ts: int
    exec_type: ExecType
    order_id: int
    symbol: str
    side: Side
    order_status: OrderStatus
    qty: int
    cum_qty: int
    leaves_qty: int
    cum_cost: int = 0
    price: int | None = None
    client_order_id: str | None = None
    order_type: OrderType = "limit"
    time_in_force: TimeInForce = "gtc"
    expire_ts: int | None = None
    post_only: bool = False
    stp: Stp = "cancel_oldest"
    last_qty: int | None = None
    last_price: int | None = None
    trade_id: int | None = None
    liquidity: Liquidity | None = None
    fee: int | None = None
    reason: Reason | None = None
    trigger_price: int | None = None
    display_qty: int | None = None
    round: int = 1
    busted: bool = False  # in tables: the trade of this fill was undone
    type: Literal["exec"] = "exec"  # last, as this is made by position
    id: Id | None = None


@_positional_event
class AccountReport:
    """Cash, positions and equity of an account after a command."""

    seq: int
    ts: int
    cash: int
    positions: dict[str, int]
    equity: int
    realized: int = 0
    unrealized: int = 0
    type: Literal["account"] = "account"  # last, as this is made by position


@_event
class BookUpdate:
    """A snapshot of a book, or the levels that changed; qty 0 deletes."""

    type: Literal["book"] = "book"
    symbol: str
    seq: int
    prev_seq: int | None = None
    ts: int
    snapshot: bool = False
    bids: tuple[PriceLevel, ...]
    asks: tuple[PriceLevel, ...]


@_positional_event
class Trade:
    """Two orders met; ``side`` is the aggressor's.

    A trade of an account with itself is printed and moves no price.
    """

    symbol: str
    seq: int
    ts: int
    trade_id: int
    price: int
    qty: int
    side: Side
    round: int = 1
    busted: bool = False  # in tables: it was undone
    is_self: bool = False  # both orders are of one account
    type: Literal["trade"] = "trade"  # last, as this is made by position


@_event
class Ticker:
    """The top of a book, the last price and the volume since the start."""

    type: Literal["ticker"] = "ticker"
    symbol: str
    ts: int
    bid: int | None = None
    bid_qty: int | None = None
    ask: int | None = None
    ask_qty: int | None = None
    last: int | None = None
    volume: int


@_event
class Status:
    """News about an instrument, or about the exchange without a symbol."""

    type: Literal["status"] = "status"
    ts: int
    symbol: str | None = None
    phase: Phase | None = None
    message: str | None = None
    round: int = 1


@_event
class News:
    """What an administrator tells about the world, or about an instrument."""

    type: Literal["news"] = "news"
    ts: int
    news_id: int  # 1, 2, 3, ...
    headline: str
    symbol: str | None = None
    body: str | None = None
    value: int | None = None


@_event
class MatchChanged:
    """An administrator set another match."""

    type: Literal["match"] = "match"
    ts: int
    match: MatchInfo


@_event
class Tender:
    """An offer of the exchange, which an account may accept once."""

    type: Literal["tender"] = "tender"
    ts: int
    tender_id: str
    symbol: str
    side: Side  # what an account that accepts does
    qty: int
    price: int
    expire_ts: int


@_event
class Settlement:
    """A position of the account became cash at its final price."""

    type: Literal["settlement"] = "settlement"
    seq: int  # that of the account report that follows
    ts: int
    symbol: str
    position: int
    price: int
    realized: int  # profit of this position


@_event
class Bust:
    """A trade was undone by an administrator."""

    type: Literal["bust"] = "bust"
    symbol: str
    seq: int  # the symbol's
    ts: int
    trade_id: int


@_event
class Heartbeat:
    """The last ``seq`` sent on this connection, by symbol; "@": account."""

    type: Literal["heartbeat"] = "heartbeat"
    ts: int
    seq: dict[str, int]
    speed: str | None = None  # as in `Welcome`


Event: TypeAlias = (
    Welcome
    | Ok
    | Error
    | Exec
    | AccountReport
    | BookUpdate
    | Trade
    | Ticker
    | Status
    | News
    | MatchChanged
    | Tender
    | Settlement
    | Bust
    | Heartbeat
)

# Codec --------------------------------------------------------------------

_AnyRequest: TypeAlias = Annotated[Request, Field(discriminator="type")]
_AnyEvent: TypeAlias = Annotated[Event, Field(discriminator="type")]

_HIDDEN = ConfigDict(hide_input_in_errors=True)  # it may hold a token
_REQUEST: TypeAdapter[Request] = TypeAdapter(_AnyRequest, config=_HIDDEN)
_REQUESTS: TypeAdapter[list[Request]] = TypeAdapter(
    Annotated[
        list[_AnyRequest],
        Field(min_length=1, max_length=MAX_FRAME, fail_fast=True),
    ],
    config=_HIDDEN,
)
_EVENT: TypeAdapter[Event] = TypeAdapter(_AnyEvent)
_EVENTS: TypeAdapter[list[Event]] = TypeAdapter(list[_AnyEvent])
# Called directly: the adapter's wrapper takes a tenth of the decoding time.
_validate_request = _REQUEST.validator.validate_json
_validate_requests = _REQUESTS.validator.validate_json
_ID: TypeAdapter[Id] = TypeAdapter(Id, config=ConfigDict(strict=True))


def decode_requests(text: str | bytes) -> list[Request | Error]:
    """Decode one frame of a client: its requests, or why they are invalid.

    Each element of an array is checked separately: an ``Error`` with the code
    ``bad_request`` takes the place of a bad one, with its ``id`` where that
    is valid. A frame that is not JSON, or an array that is empty, nested or
    longer than MAX_FRAME, gives a single ``Error``. Never raises.
    """
    try:
        if text[:1] not in (b"[", "["):
            return [_validate_request(text)]
        requests: list[Request | Error] = _validate_requests(text)
        return requests
    except ValidationError:
        pass
    return _decode_each(text)


def _decode_each(text: str | bytes) -> list[Request | Error]:
    """Decode each element of an invalid frame separately."""
    try:
        frame = from_json(text, allow_inf_nan=False)
    except (TypeError, ValueError) as error:
        return [_bad_request(f"the frame is not JSON: {error}")]
    if not isinstance(frame, list):
        return [_decode_one(frame)]
    if not frame:
        return [_bad_request("the frame is an empty array")]
    if len(frame) > MAX_FRAME:
        return [_bad_request(f"more than {MAX_FRAME} requests in a frame")]
    if any(isinstance(element, list) for element in frame):
        return [_bad_request("the frame is an array with an array in it")]
    return [_decode_one(element) for element in frame]


def _decode_one(element: Any) -> Request | Error:
    try:
        return _REQUEST.validate_json(to_json(_shortened(element)))
    except ValidationError as error:
        request_id = None
        if isinstance(element, dict) and "id" in element:
            try:
                request_id = _ID.validate_python(element["id"])
            except ValidationError:
                pass
        return _bad_request(*_first_problem(error), request_id)


def _shortened(element: Any) -> Any:
    """Drop all unknown fields of a request except the first.

    Pydantic would list every one, which takes ten times as long as reading
    them.
    """
    word = element.get("type") if isinstance(element, dict) else None
    if not isinstance(word, str) or word not in REQUEST_TYPES:
        return element
    known = REQUEST_TYPES[word].__dataclass_fields__
    unknown = [name for name in element if name not in known]
    kept = {*known, *unknown[:1]}
    return {name: element[name] for name in element if name in kept}


def _bad_request(
    message: str, name: str | None = None, request_id: Id | None = None
) -> Error:
    return Error(
        id=request_id, code="bad_request", message=message, field=name
    )


def _first_problem(error: ValidationError) -> tuple[str, str | None]:
    """Return message and field of the first error.

    The message does not show the input, which may hold a token.
    """
    problem = error.errors(include_url=False, include_input=False)[0]
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, FieldError):
        return f"{cause.field}: {cause}", cause.field
    if problem["type"].startswith("union_tag"):
        known = ", ".join(REQUEST_TYPES)
        return f"type: must be one of {known}", "type"
    if len(problem["loc"]) < 2:
        return "a request must be a JSON object", None
    name = str(problem["loc"][1])[:MAX_FIELD_ECHOED]
    if problem["type"] == "unexpected_keyword_argument":
        return f"{name}: unknown field", name
    if problem["type"] == "missing":
        return f"{name}: missing", name
    words = problem["msg"]
    return f"{name}: {words[0].lower()}{words[1:]}", name


def decode_events(text: str | bytes) -> list[Event]:
    """Decode one frame of the server.

    As the protocol asks, unknown fields and messages of an unknown type are
    ignored. Raises ValueError (pydantic's ValidationError is one) for a frame
    that is not JSON, or a message of a known type with a field missing.
    """
    try:
        if text[:1] not in (b"[", "["):
            return [_EVENT.validate_json(text)]
        return _EVENTS.validate_json(text)
    except ValidationError:
        frame = from_json(text)
        elements = frame if isinstance(frame, list) else [frame]
        return [
            _EVENT.validate_json(to_json(element))
            for element in elements
            if not isinstance(element, dict)
            or str(element.get("type")) in EVENT_TYPES
        ]


REQUEST_TYPES: dict[str, type[Request]] = {
    cls.__dataclass_fields__["type"].default: cls for cls in Request.__args__
}
EVENT_TYPES: dict[str, type[Event]] = {
    cls.__dataclass_fields__["type"].default: cls for cls in Event.__args__
}


# Fields of events that may hold any text. All others hold words and names of
# the protocol, whose characters need no escaping in JSON.
_FREE_TEXT = ("message", "field", "headline", "body")


def _as_object(values: dict[str, int]) -> str:
    """Encode numbers by name; the names need no escaping."""
    return "{" + ",".join([f'"{k}":{v}' for k, v in values.items()]) + "}"


def _placeholder(name: str, hint: Any, source: str) -> str | None:
    """Return the part of an f-string that encodes a field.

    ``source`` is an expression for the field's value, which is not None and,
    if it is a boolean, not False. Returns None for a type that no f-string
    can encode.
    """
    if source.startswith('"'):
        return source
    is_union = get_origin(hint) in (Union, UnionType)
    kinds = set(get_args(hint)) if is_union else {hint}
    kinds = {get_origin(kind) or kind for kind in kinds - {NoneType}}
    if name == "id" or name in _FREE_TEXT:
        return f"{{to_json({source}).decode()}}"
    if kinds == {bool}:
        return "true"
    if kinds == {int}:
        return f"{{{source}}}"
    if kinds <= {str, Literal}:
        return f'"{{{source}}}"'
    if hint == dict[str, int]:
        return f"{{as_object({source})}}"
    return None


def _source(
    word: str, cls: type[Any], sources: Mapping[str, str] | None = None
) -> str | None:
    """Return the source code of the function that encodes a class' events.

    ``type`` comes first, then the fields in their order, except those at
    their default. ``sources`` are expressions for the fields of an event
    ``m``; None: its attributes. A field that is not in ``sources`` is left
    out. Returns None if `_placeholder` cannot encode one of the fields.
    """
    hints = get_type_hints(cls)
    lines = ["def encode_it(m):", f"""    text = f'{{{{"type":"{word}"'"""]
    for f in fields(cls):
        source = f"m.{f.name}" if sources is None else sources.get(f.name)
        if f.name == "type" or source is None:
            continue
        value = _placeholder(f.name, hints[f.name], source)
        if value is None:
            return None
        part = f',"{f.name}":{value}'
        if f.default is MISSING and lines[-1].startswith("    text"):
            lines[-1] = f"{lines[-1][:-1]}{part}'"  # the same text goes on
        elif f.default is MISSING:
            lines.append(f"    text += f'{part}'")
        else:
            test = source  # for a default of 0 or False
            if f.default is None:
                test += " is not None"
            elif f.default:
                test += f" != {f.default!r}"
            lines += [f"    if {test}:", f"        text += f'{part}'"]
    return "\n".join([*lines, "    return text + '}'"])


def _compiled(source: str) -> Callable[[Any], str]:
    scope: dict[str, Any] = {"to_json": to_json, "as_object": _as_object}
    exec(source, scope)
    made: Callable[[Any], str] = scope["encode_it"]
    return made


def _encoder(word: str, cls: type[Any]) -> Callable[[Any], str]:
    """Return the function that encodes the messages of one class.

    For events it is generated from the fields, as ``dataclasses`` generates
    ``__init__``: an execution report takes half the time that pydantic needs.
    Pydantic encodes the others, with a serializer for each class, which is
    2.5 times as fast as one for the union.
    """
    source = _source(word, cls) if word in EVENT_TYPES else None
    if source is not None:
        return _compiled(source)
    head = f'{{"type":"{word}",'
    serialize = TypeAdapter(cls).serializer.to_json

    def encode_it(message: Any) -> str:
        body: bytes = serialize(message, exclude_defaults=True)
        return (head + body.decode()[1:]) if body != b"{}" else head[:-1] + "}"

    return encode_it


_ENCODERS: dict[type, Callable[[Any], str]] = {
    cls: _encoder(word, cls)
    for word, cls in (*REQUEST_TYPES.items(), *EVENT_TYPES.items())
}


def encode(message: Request | Event | Rested) -> str:
    """Encode one message; fields at their default are left out."""
    return _ENCODERS[message.__class__](message)


def with_id(text: str, request_id: Id | None) -> str:
    """Put the ``id`` of a request into the text of its reply."""
    if request_id.__class__ is int:  # most are, and need no encoder
        return f'{text[:-1]},"id":{request_id}}}'
    if request_id is None:
        return text
    return f'{text[:-1]},"id":{to_json(request_id).decode()}}}'


def with_data(text: str, rows: Iterable[str]) -> str:
    """Put encoded rows into the text of an ``Ok``."""
    return f'{text[:-1]},"data":[{",".join(rows)}]}}'


# Order book ---------------------------------------------------------------


@dataclass(slots=True)
class OrderFees:
    """What an order pays in basis points, if its instrument has such fees.

    ``lot``, the most for one lot, and ``paid``, the sum of its fills, are
    exact, in 10,000ths of a unit. ``margin`` are the units that the account
    has set aside for ``held_qty`` lots.
    """

    lot: int
    paid: int = 0
    held_qty: int = 0
    margin: int = 0


@dataclass(slots=True)
class Order:
    """One order, from its acceptance to its end.

    ``qty == cum_qty + leaves_qty + what was canceled`` always holds, and
    ``cum_cost`` is the sum of price times quantity of its fills, in ticks
    times lots. The ``OrderBook`` changes the orders that it has been given;
    the exchange changes a stop order while it waits, the ``expire_ts``, the
    ``fees``, and ``unit_cost``, the cash that the account sets aside for each
    lot.
    """

    order_id: int
    account: str
    side: Side
    qty: int
    symbol: str = "BOND"
    price: int | None = None  # None: market
    order_type: OrderType = "limit"
    time_in_force: TimeInForce = "gtc"
    expire_ts: int | None = None
    post_only: bool = False
    stp: Stp = "cancel_oldest"
    client_order_id: str | None = None
    session: str | None = None
    unit_cost: int = 0
    fees: OrderFees | None = None  # in basis points; None: has none
    round: int = 1  # in which it was placed
    trigger_price: int | None = None  # of a stop order, also once triggered
    display_qty: int | None = None  # None: the book shows the whole order
    order_status: OrderStatus = "new"
    cum_qty: int = 0
    cum_cost: int = 0
    leaves_qty: int = 0  # becomes qty when a book gets the order
    # Most orders have no value in these. The limit of an order without a
    # price; the part that the book shows of an order with display_qty; the
    # place among the orders of its price, if younger ones are before it.
    worst_price: int | None = field(init=False, repr=False, compare=False)
    shown_qty: int = field(init=False, repr=False, compare=False)
    requeued: tuple[int, int] = field(init=False, repr=False, compare=False)

    @property
    def is_open(self) -> bool:
        """Whether the order can still trade."""
        return self.leaves_qty > 0

    @property
    def is_waiting(self) -> bool:
        """Whether it is a stop order that has not been triggered."""
        return self.order_status == "waiting"

    @property
    def may_rest(self) -> bool:
        """Whether lots that are not filled at once stay in the book."""
        return self.time_in_force in ("gtc", "gtd", "auction")

    @property
    def limit(self) -> int | None:
        """The worst price at which the order may trade; None: any."""
        return self.worst_price if self.price is None else self.price

    @property
    def turn(self) -> tuple[int, int]:
        """Orders that rest at one price trade by ascending turn.

        That is by their ids, unless an order came back behind younger ones.
        """
        turn: tuple[int, int] = getattr(self, "requeued", (self.order_id, 0))
        return turn

    @property
    def hidden_qty(self) -> int:
        """The lots of a resting order that the book does not show."""
        if self.display_qty is None:
            return 0
        return self.leaves_qty - self.shown_qty

    def end(self, order_status: OrderStatus) -> None:
        """Leave nothing to trade: "canceled" or "expired"."""
        self.leaves_qty = 0
        self.order_status = order_status

    def _fill(self, price: int, qty: int) -> None:
        self.cum_qty += qty
        self.cum_cost += price * qty
        self.leaves_qty -= qty
        self.order_status = "partially_filled" if self.leaves_qty else "filled"


# Fields that an order without ``expire_ts`` never changes, except its type.
_FIXED = (
    *("order_id", "symbol", "side", "client_order_id", "time_in_force"),
    *("expire_ts", "post_only", "stp", "round"),
)


@dataclass(slots=True)
class Rested:
    """The execution report of a new order that rests with nothing filled.

    Most orders do, and an ``Exec`` takes four times as long to make. ``qty``
    and ``price`` are copies, because an amend changes those of the order; the
    other fields that are reported never change. Only for limit orders without
    ``expire_ts`` and ``display_qty``.
    """

    seq: int
    ts: int
    qty: int
    price: int | None
    order: Order

    def as_exec(self) -> Exec:
        """Return the report as an ``Exec``."""
        fixed = {name: getattr(self.order, name) for name in _FIXED}
        return Exec(
            seq=self.seq,
            ts=self.ts,
            exec_type="new",
            order_status="new",
            qty=self.qty,
            cum_qty=0,
            leaves_qty=self.qty,
            price=self.price,
            **fixed,
        )


def _exec_encoder(sources: Mapping[str, str]) -> Callable[[Any], str]:
    """Return an encoder that writes another object as an `Exec`."""
    source = _source("exec", Exec, sources)
    assert source is not None
    return _compiled(source)


_ENCODERS[Rested] = _exec_encoder(
    {name: f"m.order.{name}" for name in _FIXED}
    | {name: f"m.{name}" for name in ("seq", "ts", "qty", "price")}
    | {"exec_type": '"new"', "order_status": '"new"', "cum_qty": "0"}
    | {"leaves_qty": "m.qty"}
)
_CHANGING = (
    *("order_status", "qty", "cum_qty", "leaves_qty", "cum_cost"),
    *("price", "order_type", "trigger_price", "display_qty"),
)
_encode_status = _exec_encoder(
    {name: f"m[2].{name}" for name in (*_FIXED, *_CHANGING)}
    | {"seq": "m[0]", "ts": "m[1]", "exec_type": '"status"'}
)


def encode_order(order: Order, seq: int, ts: int) -> str:
    """Encode an order as it is: an `Exec` with the ``exec_type`` "status".

    It takes half the time of making an ``Exec`` and encoding that.
    """
    return _encode_status((seq, ts, order))


class Match(NamedTuple):
    """One step of a sweep: the resting order met, and the quantity traded.

    The price is the resting order's. Quantity 0: both orders are of one
    account, and self-trade prevention canceled the resting one instead.
    """

    maker: Order
    qty: int


class Cross(NamedTuple):
    """One step of an uncrossing: two resting orders, and their quantity."""

    bid: Order
    ask: Order
    qty: int


class Sweep(NamedTuple):
    """The result of an order's arrival.

    ``reason`` says why the order ended with lots unfilled; None: it is
    filled, or rests in the book. ``is_stopped``: it did not trade further,
    because the next price is outside the band.
    """

    matches: Sequence[Match]
    reason: Reason | None
    is_stopped: bool = False


NO_MATCHES: tuple[Match, ...] = ()
RESTED = Sweep(NO_MATCHES, None)  # the most frequent; made once
NO_ORDERS: Mapping[int, Order] = {}
VOID_PLACES = 16  # void places of a level, besides one for each order


@dataclass(slots=True)
class _Level:
    """The orders resting at one price, oldest first.

    To find an order in the queue takes long, so one that leaves keeps its
    place, and ``void`` counts the places of each order that are void. If the
    order has come back, its last place is the valid one. A void place is
    removed when it reaches the head, or with all others when they are more
    than the orders. ``qty`` is what is shown, ``hidden`` the rest.
    """

    qty: int = 0
    hidden: int = 0
    count: int = 0  # of orders
    queue: deque[Order] = field(default_factory=deque)
    void: dict[int, int] = field(default_factory=dict)  # places, by order id

    def __iter__(self) -> Iterator[Order]:
        void = self.void.copy()
        for order in self.queue:
            if void.get(order.order_id):
                void[order.order_id] -= 1
            else:
                yield order

    def take(self, order: Order, qty: int) -> None:
        """Take lots of an order out of the totals, shown ones last."""
        if order.display_qty is None:
            self.qty -= qty
            return
        hidden = min(qty, order.hidden_qty)
        self.hidden -= hidden
        self.qty -= qty - hidden
        order.shown_qty -= qty - hidden

    def show(self, order: Order) -> None:
        """Show of an order as much as its ``display_qty`` says."""
        assert order.display_qty is not None
        shown = min(order.display_qty, order.leaves_qty)
        self.qty += shown - order.shown_qty
        self.hidden -= shown - order.shown_qty
        order.shown_qty = shown

    def head(self) -> Order:
        queue, void = self.queue, self.void
        order = queue[0]
        while void and order.order_id in void:
            void[order.order_id] -= 1
            if not void[order.order_id]:
                del void[order.order_id]
            queue.popleft()
            order = queue[0]
        return order


@dataclass(slots=True)
class _BookSide:
    """The levels of one side, best last.

    ``keys`` is sorted ascending; a key is the price of a bid and minus the
    price of an ask, so that "better" is "greater" on both sides and the
    matching is written once. Keys never leave this module. ``markets`` are
    the market orders that take part in the next uncrossing, oldest first.
    """

    sign: int
    keys: list[int] = field(default_factory=list)
    levels: dict[int, _Level] = field(default_factory=dict)  # by key
    markets: dict[int, Order] = field(default_factory=dict)  # by order id
    changed: dict[int, None] = field(  # keys: an ordered set
        default_factory=dict, compare=False
    )

    def new_level(self, key: int) -> _Level:
        level = self.levels[key] = _Level()
        if not self.keys or key > self.keys[-1]:
            self.keys.append(key)
        else:
            insort(self.keys, key)
        return level

    def remove(self, order: Order) -> None:
        if order.price is None:
            del self.markets[order.order_id]
            return
        key = order.price * self.sign
        level = self.levels[key]
        self.changed[key] = None
        level.count -= 1
        if order.display_qty is None:
            level.qty -= order.leaves_qty
        else:
            level.take(order, order.leaves_qty)
        order_id = order.order_id
        level.void[order_id] = level.void.get(order_id, 0) + 1
        self.tidy(key, level)

    def tidy(self, key: int, level: _Level) -> None:
        """Drop a level that all orders have left, or its void places."""
        if level.count:
            if len(level.queue) > 2 * level.count + VOID_PLACES:
                level.queue = deque(level)
                level.void.clear()
            return
        del self.levels[key]
        if self.keys[-1] == key:
            self.keys.pop()
        else:
            del self.keys[bisect_left(self.keys, key)]

    def markets_at(self, price: int) -> deque[Order]:
        """Return the market orders that may trade at a price."""
        key = price * self.sign
        return deque(
            order
            for order in self.markets.values()
            if order.worst_price is None
            or order.worst_price * self.sign >= key
        )

    def head_at(self, price: int) -> Order | None:
        """Return the first limit order that may trade at a price, if any."""
        if not self.keys or self.keys[-1] < price * self.sign:
            return None
        return self.levels[self.keys[-1]].head()

    def fill_head(self, order: Order, price: int, qty: int) -> None:
        """Trade lots of the first limit order, hidden ones as well."""
        key = self.keys[-1]
        level = self.levels[key]
        level.take(order, qty)
        self.changed[key] = None
        order._fill(price, qty)
        if not order.leaves_qty:
            level.queue.popleft()
            level.count -= 1
            self.tidy(key, level)
        elif order.display_qty is not None:
            level.show(order)

    def load_level(self, orders: list[Order]) -> None:
        """Add a level, better than all others, with orders as they are."""
        price = orders[0].price
        assert price is not None
        hidden = sum([order.hidden_qty for order in orders])
        shown = sum([order.leaves_qty for order in orders]) - hidden
        self.levels[price * self.sign] = _Level(
            shown, hidden, len(orders), deque(orders)
        )
        self.keys.append(price * self.sign)

    def take_changes(self) -> tuple[PriceLevel, ...]:
        if not self.changed:
            return ()
        sign, levels = self.sign, self.levels
        changes = tuple(
            (key * sign, levels[key].qty if key in levels else 0)
            for key in sorted(self.changed, reverse=True)
        )
        self.changed.clear()
        return changes


@dataclass(slots=True)
class OrderBook:
    """The limit order book of one instrument, with price-time priority.

    A better price trades first, and of equal prices the older order. A
    trade is made at the price of the resting order, so the arriving order
    gets the better price. If both are of one account, the arriving order's
    ``stp`` says which of them is canceled.

    An order with ``display_qty`` shows at most that many lots. When they are
    traded, the next ones are shown, behind all orders of the same price.

    While ``is_collecting``, orders rest as they arrive, nothing matches, and
    the book may be crossed, but not by two orders of one account: ``stp``
    cancels one of them on arrival. Market orders with the time in force
    "auction" rest outside the levels. ``uncross`` then trades at one price.

    An account trades with itself only by an arriving order whose ``stp`` is
    "none". ``rules`` is the version of the rules that apply: before 3, own
    orders that an order crosses were taken in order of their ids, and an own
    order outside the band was canceled.

    Costs, with n levels on a side: best price O(1), placing at or canceling
    from a level that stays O(1), a level that comes or goes O(log n) and a
    move of at most n pointers, a match O(1) for each order met. On average
    over many calls, none grows with the number of resting orders.

    ``copy.deepcopy(book)`` is an independent, equal book.
    """

    symbol: str = "BOND"
    orders: dict[int, Order] = field(default_factory=dict)  # resting, by id
    # Grows with every call that changes the quantity at any price.
    version: int = field(default=0, compare=False)
    is_collecting: bool = False
    rules: int = 3
    _bids: _BookSide = field(default_factory=lambda: _BookSide(1))
    _asks: _BookSide = field(default_factory=lambda: _BookSide(-1))
    _newest: int = field(default=0, compare=False)  # id of the youngest order
    _requeued: int = field(default=0, compare=False)  # counts them

    def place(
        self,
        order: Order,
        limit: int | None = None,
        band: Band | None = None,
        own: Mapping[int, Order] = NO_ORDERS,
    ) -> Sweep:
        """Match an arriving order and rest what its time in force allows.

        ``limit`` is the worst price for an order that has none, ``band`` the
        lowest and the highest price a match may have, and ``own`` are the
        account's other orders by id, of this book and others. Raises Refused
        ("would_take") for a post-only order that would trade, with nothing
        changed.
        """
        assert order.order_id not in self.orders
        if order.price is not None:
            limit = order.price
        else:
            order.worst_price = limit
        if order.post_only:
            self._refuse_if_crossing(order, limit)
        order.leaves_qty = order.qty
        if order.time_in_force == "fok" and not self._can_fill(
            order, limit, band
        ):
            order.end("expired")
            return Sweep([], "fok")
        return self._arrive(order, limit, band, own)

    def amend(
        self,
        order_id: int,
        price: int | None = None,
        qty: int | None = None,
        band: Band | None = None,
        own: Mapping[int, Order] = NO_ORDERS,
        *,
        display_qty: int | None = None,
        worst_price: int | None = None,
    ) -> Sweep:
        """Change a resting order's price, total or shown quantity.

        The order keeps its priority if the price is unchanged and neither the
        total nor ``display_qty`` is raised; otherwise it arrives like a new
        order. A lower total takes hidden lots first. A total at or below the
        filled quantity cancels the rest (``reason`` "user"). ``worst_price``
        is the new limit of a market order that arrives again. Raises
        Refused ("would_take") for a post-only order whose new price would
        trade, with nothing changed; KeyError if no such order rests.
        """
        order = self.orders[order_id]
        side = self._bids if order.side == "buy" else self._asks
        price = order.price if price is None else price
        qty = order.qty if qty is None else qty
        if qty <= order.cum_qty:
            self.cancel(order_id)
            return Sweep([], "user")
        hides = display_qty is not None or order.display_qty is not None
        if (
            price == order.price
            and qty <= order.qty
            and not (hides and _is_raised(order, display_qty))
        ):
            less = order.qty - qty
            order.qty = qty
            if hides:
                self._reduce_shown(side, order, less, display_qty)
            elif less:
                order.leaves_qty -= less
                if price is not None:
                    key = price * side.sign
                    side.levels[key].qty -= less
                    side.changed[key] = None
                    self.version += 1
            return Sweep(NO_MATCHES, None)
        if order.post_only:
            self._refuse_if_crossing(order, price)
        version = self.version
        public = self._level_of(order) if hides else None
        pending = dict(side.changed) if hides else {}
        side.remove(order)
        if order.price is None:
            order.worst_price = worst_price
        else:
            self.version += 1
        del self.orders[order_id]
        order.price = price
        order.leaves_qty += qty - order.qty
        order.qty = qty
        if display_qty is not None:
            order.display_qty = display_qty
        sweep = self._arrive(order, price, band, own)
        if (
            hides
            and public == self._level_of(order)
            and all(maker.price is None for maker, _ in sweep.matches)
        ):
            self.version = version  # only what no level shows changed
            side.changed = pending
        return sweep

    def cancel(
        self, order_id: int, order_status: OrderStatus = "canceled"
    ) -> Order:
        """Take a resting order off the book, as "canceled" or "expired".

        Raises KeyError if no such order rests.
        """
        order = self.orders.pop(order_id)
        side = self._bids if order.side == "buy" else self._asks
        side.remove(order)
        if order.price is not None:
            self.version += 1
        order.leaves_qty = 0
        order.order_status = order_status
        return order

    def uncross(self, price: int) -> Iterator[Cross]:
        """Let bids at or above a price trade with asks at or below it.

        All trades are made at that price, market orders first, then by price,
        then time, until no such bid or no such ask is left. A trade is made
        when it is asked for, so the caller must iterate to the end.
        """
        bids, asks = self._bids, self._asks
        buyers, sellers = bids.markets_at(price), asks.markets_at(price)
        while True:
            bid = buyers[0] if buyers else bids.head_at(price)
            ask = sellers[0] if sellers else asks.head_at(price)
            if bid is None or ask is None:
                return
            qty = min(bid.leaves_qty, ask.leaves_qty)
            self.version += 1
            for side, markets, order in (
                (bids, buyers, bid),
                (asks, sellers, ask),
            ):
                if order.price is not None:
                    side.fill_head(order, price, qty)
                else:
                    order._fill(price, qty)
                    if not order.leaves_qty:
                        del side.markets[order.order_id]
                        markets.popleft()
                if not order.leaves_qty:
                    del self.orders[order.order_id]
            yield Cross(bid, ask, qty)

    def best(self, side: Side) -> PriceLevel | None:
        """Return the best price of a side and the quantity there, if any."""
        half = self._side(side)
        if not half.keys:
            return None
        key = half.keys[-1]
        return key * half.sign, half.levels[key].qty

    def top(self) -> tuple[int | None, int | None]:
        """Return the best bid and the best ask, as prices."""
        bids, asks = self._bids.keys, self._asks.keys
        return bids[-1] if bids else None, -asks[-1] if asks else None

    def depth(
        self, side: Side, levels: int | None = None
    ) -> tuple[PriceLevel, ...]:
        """Return price and shown quantity of each level, best first."""
        half = self._side(side)
        return tuple(
            (key * half.sign, half.levels[key].qty)
            for key in islice(reversed(half.keys), levels)
        )

    def whole_depth(self, side: Side) -> list[PriceLevel]:
        """Return price and total quantity of each level, best first.

        That is with the hidden quantity, which is not public.
        """
        half = self._side(side)
        sign, levels = half.sign, half.levels
        return [
            (key * sign, (level := levels[key]).qty + level.hidden)
            for key in reversed(half.keys)
        ]

    def queue(self, side: Side) -> Iterator[Order]:
        """Yield the limit orders of a side in the order they trade."""
        half = self._side(side)
        for key in reversed(half.keys):
            yield from half.levels[key]

    def market_orders(self, side: Side) -> list[Order]:
        """Return the market orders of a side that wait for an uncrossing."""
        return list(self._side(side).markets.values())

    def take_changes(
        self,
    ) -> tuple[tuple[PriceLevel, ...], tuple[PriceLevel, ...]]:
        """Return the bid and ask levels changed since the last call.

        Each as price and the total quantity there now, best first; quantity
        0: the level is gone.
        """
        return self._bids.take_changes(), self._asks.take_changes()

    def drop_changes(self) -> None:
        """Forget which levels changed since the last call."""
        self._bids.changed.clear()
        self._asks.changed.clear()

    def dump(self) -> dict[str, Any]:
        """Return plain data from which `load` makes an equal book.

        Orders are ids. Changes that were not taken are left out.
        """
        return {
            "version": self.version,
            "is_collecting": self.is_collecting,
            "rules": self.rules,
            "newest": self._newest,
            "requeued": self._requeued,
            "orders": [*self.orders],
            "sides": [
                [
                    [
                        [order.order_id for order in half.levels[key]]
                        for key in half.keys
                    ],
                    [*half.markets],
                ]
                for half in (self._bids, self._asks)
            ],
        }

    def load(self, dumped: dict[str, Any], orders: dict[int, Order]) -> None:
        """Fill this empty book with what `dump` returned of another one.

        ``orders`` has the orders by id, as they were then.
        """
        self.version = dumped["version"]
        self.is_collecting = dumped["is_collecting"]
        self.rules = dumped["rules"]
        self._newest = dumped["newest"]
        self._requeued = dumped["requeued"]
        self.orders = {i: orders[i] for i in dumped["orders"]}
        for half, (levels, markets) in zip(
            (self._bids, self._asks), dumped["sides"]
        ):
            for ids in levels:
                half.load_level([orders[order_id] for order_id in ids])
            half.markets = {i: orders[i] for i in markets}

    def check(self) -> None:
        """Verify every invariant; raise AssertionError with the book."""
        try:
            self._check()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self!r}") from error

    def render(self, levels: int | None = None) -> str:
        """Draw the book: a row for each level, bids left and asks right."""
        head = f"{self.symbol:<16}{'qty':>8} {'bid':>9} | {'ask':<9} qty"
        bids, asks = self.depth("buy", levels), self.depth("sell", levels)
        rows = [head]
        for row in range(max(len(bids), len(asks))):
            left = right = ""
            if row < len(bids):
                left = f"{bids[row][1]} {bids[row][0]:>9}"
            if row < len(asks):
                right = f"{asks[row][0]:<9} {asks[row][1]}"
            rows.append(f"{left:>34} | {right}".rstrip())
        if len(rows) == 1:
            rows.append(f"{'empty':>34} |")
        return "\n".join(rows)

    def __str__(self) -> str:
        return self.render()

    # Matching

    def _side(self, side: Side) -> _BookSide:
        return self._bids if side == "buy" else self._asks

    def _opposite(self, side: Side) -> _BookSide:
        return self._asks if side == "buy" else self._bids

    def _refuse_if_crossing(self, order: Order, price: int | None) -> None:
        other = self._opposite(order.side)
        assert price is not None
        if other.keys and other.keys[-1] >= price * other.sign:
            met = str(other.keys[-1] * other.sign)
        elif other.markets and other.markets_at(price):
            met = "a market order"
        else:
            return
        raise Refused(
            "would_take",
            f"post-only {order.side} at {price} would trade with {met}",
            field="price",
        )

    def _reduce_shown(
        self,
        side: _BookSide,
        order: Order,
        less: int,
        display_qty: int | None,
    ) -> None:
        """Lower the leaves or the shown quantity of an order in its place."""
        assert order.price is not None
        key = order.price * side.sign
        level = side.levels[key]
        before = level.qty
        if display_qty is not None:
            if order.display_qty is None:
                order.shown_qty = order.leaves_qty
            order.display_qty = display_qty
        level.take(order, less)
        order.leaves_qty -= less
        if display_qty is not None and order.shown_qty > display_qty:
            level.show(order)
        if level.qty != before:  # what is hidden changes without a trace
            side.changed[key] = None
            self.version += 1

    def _arrive(
        self,
        order: Order,
        limit: int | None,
        band: Band | None,
        own: Mapping[int, Order],
    ) -> Sweep:
        """Match an order that is in no level, then rest or end it."""
        if self.is_collecting:
            assert order.may_rest
            return self._rest(NO_MATCHES, order, own)
        other = self._asks if order.side == "buy" else self._bids
        matches: Sequence[Match] = NO_MATCHES
        stop = None
        keys = other.keys
        if keys and (limit is None or keys[-1] >= limit * other.sign):
            matches, stop = self._sweep(order, other, limit, band)
            if matches:
                self.version += 1
                if not order.leaves_qty:
                    return Sweep(matches, None)
            if stop == "stp":
                order.end("canceled")
                return Sweep(matches, "stp")
        tif = order.time_in_force
        if tif == "gtc" or tif == "gtd":
            if stop:
                return self._rest(matches, order, own, True)
            self._insert(order)
            return Sweep(matches, None) if matches else RESTED
        order.end("expired")
        reason: Reason = "fok" if tif == "fok" else "ioc"
        if order.order_type == "market":
            reason = "no_liquidity"
        return Sweep(matches, reason, stop is not None)

    def _rest(
        self,
        matches: Sequence[Match],
        order: Order,
        own: Mapping[int, Order],
        is_stopped: bool = False,
    ) -> Sweep:
        """Rest an order in a book that may be crossed.

        If it crosses orders of its account, its ``stp`` cancels them or it.
        """
        limit = order.limit
        crossed = []
        if order.stp != "none":
            sign = self._opposite(order.side).sign
            crossed = [
                other
                for other in own.values()
                if other.order_id in self.orders
                and other.side != order.side
                and _reaches(other.limit, limit, sign)
            ]
            crossed.sort(key=self._in_queue)
        if crossed and order.stp != "cancel_oldest":
            del crossed[0 if order.stp == "cancel_newest" else 1 :]
            order.end("canceled")
        canceled = [Match(self.cancel(met.order_id), 0) for met in crossed]
        matches = [*matches, *canceled]
        if not order.leaves_qty:
            return Sweep(matches, "stp", is_stopped)
        self._insert(order)
        return Sweep(matches, None, is_stopped)

    def _level_of(self, order: Order) -> PriceLevel | None:
        """Return the level of a limit order as it is shown, if it rests."""
        if order.price is None or order.order_id not in self.orders:
            return None
        side = self._side(order.side)
        return order.price, side.levels[order.price * side.sign].qty

    def _in_queue(self, order: Order) -> tuple[bool, int, tuple[int, int]]:
        """Return a key to sort the orders of a side as they would trade."""
        turn = (order.order_id, 0) if self.rules < 3 else order.turn
        if order.price is None:
            return False, 0, turn
        return True, -self._side(order.side).sign * order.price, turn

    def _insert(self, order: Order) -> None:
        side = self._bids if order.side == "buy" else self._asks
        order_id = order.order_id
        if order_id > self._newest:
            self._newest = order_id
        else:
            self._requeue(order)
        self.orders[order_id] = order
        if order.price is None:
            side.markets[order.order_id] = order
            return
        key = order.price * side.sign
        level = side.levels.get(key) or side.new_level(key)
        level.queue.append(order)
        level.count += 1
        if order.display_qty is None:
            level.qty += order.leaves_qty
        else:
            order.shown_qty = 0
            level.hidden += order.leaves_qty
            level.show(order)
        side.changed[key] = None
        self.version += 1

    def _sweep(
        self,
        taker: Order,
        side: _BookSide,
        limit: int | None,
        band: Band | None,
    ) -> tuple[Sequence[Match], Literal["stp", "band"] | None]:
        """Trade while prices cross; return the matches and why it stopped."""
        keys = side.keys
        worst = None if limit is None else limit * side.sign
        matches: list[Match] = []
        leaves_qty = wanted = taker.leaves_qty
        cost = 0
        stop: Literal["stp", "band"] | None = None
        while leaves_qty and keys and stop is None:
            key = keys[-1]
            if worst is not None and key < worst:
                break
            level = side.levels[key]
            price = key * side.sign
            outside = band is not None and not band[0] <= price <= band[1]
            if outside and self.rules > 2:
                stop = "band"
                break
            while level.count and leaves_qty and stop is None:
                maker = level.head()
                qty = maker.leaves_qty
                if maker.display_qty is not None:
                    qty = maker.shown_qty
                if maker.account == taker.account and taker.stp != "none":
                    if taker.stp != "cancel_oldest":
                        stop = "stp"
                        if taker.stp == "cancel_newest":
                            break
                    level.qty -= qty
                    level.hidden -= maker.leaves_qty - qty
                    qty = 0
                    maker.end("canceled")
                elif outside:
                    stop = "band"
                    break
                else:
                    if qty > leaves_qty:
                        qty = leaves_qty
                    leaves_qty -= qty
                    cost += price * qty
                    level.qty -= qty
                    maker._fill(price, qty)
                side.changed[key] = None
                matches.append(Match(maker, qty))
                if not maker.leaves_qty:
                    del self.orders[maker.order_id]
                    level.queue.popleft()
                    level.count -= 1
                elif maker.display_qty is not None:
                    maker.shown_qty -= qty
                    if not maker.shown_qty:
                        self._show_next(level, maker)
            side.tidy(key, level)
        if leaves_qty < wanted:
            taker.leaves_qty = leaves_qty
            taker.cum_qty += wanted - leaves_qty
            taker.cum_cost += cost
            taker.order_status = "partially_filled" if leaves_qty else "filled"
        return matches, stop

    def _show_next(self, level: _Level, order: Order) -> None:
        """Show the next lots of the first order, behind all others."""
        level.queue.popleft()
        level.queue.append(order)
        level.show(order)
        self._requeue(order)

    def _requeue(self, order: Order) -> None:
        """Note that an order is behind all others of its price."""
        self._requeued += 1
        order.requeued = self._newest, self._requeued

    def _can_fill(
        self, taker: Order, limit: int | None, band: Band | None
    ) -> bool:
        """Whether a fill-or-kill order would be filled whole.

        Orders of its own account do not count, unless ``stp`` is "none". With
        "cancel_newest" or "cancel_both" the first of them stops the order, and
        lots behind it do not count either; hidden lots are behind all that a
        level shows. Looks at no more orders than there are lots wanted and own
        orders met.
        """
        wanted = taker.leaves_qty
        side = self._opposite(taker.side)
        worst = None if limit is None else limit * side.sign
        for key in reversed(side.keys):
            if worst is not None and key < worst:
                return False
            price = key * side.sign
            outside = band is not None and not band[0] <= price <= band[1]
            if outside and self.rules > 2:
                return False
            hidden = 0
            for maker in side.levels[key]:
                if maker.account != taker.account or taker.stp == "none":
                    if outside:
                        return False
                    wanted -= maker.leaves_qty
                    if maker.display_qty is not None:
                        wanted += maker.hidden_qty
                        hidden += maker.hidden_qty
                elif taker.stp != "cancel_oldest":
                    return False
                if wanted <= 0:
                    return True
            wanted -= hidden
            if wanted <= 0:
                return True
        return False

    def _check(self) -> None:
        for order_id, order in self.orders.items():
            assert order.order_id == order_id, "under its own id"
        seen = 0
        for half, side in ((self._bids, "buy"), (self._asks, "sell")):
            assert half.keys == sorted(half.levels), "levels sorted"
            for key, level in half.levels.items():
                resting = list(level)
                assert resting, "no empty level"
                for order in resting:
                    seen += 1
                    assert order is self.orders.get(order.order_id), "indexed"
                    assert order.symbol == self.symbol, "of this instrument"
                    assert order.side == side, "on its side"
                    assert order.price is not None, "has a price"
                    assert order.price * half.sign == key, "at its price"
                    assert order.leaves_qty >= 1, "has quantity left"
                    assert (
                        order.cum_qty + order.leaves_qty == order.qty
                    ), "quantity adds up"
                    assert order.may_rest, "may rest"
                    assert order.order_status == (
                        "partially_filled" if order.cum_qty else "new"
                    ), "status is true"
                    if order.display_qty is not None:
                        most = min(order.display_qty, order.leaves_qty)
                        assert 1 <= order.shown_qty <= most, "shows a part"
                turns = [order.turn for order in resting]
                assert turns == sorted(set(turns)), "by their turns"
                assert level.count == len(resting), "orders are counted"
                total = sum(order.leaves_qty for order in resting)
                hidden = sum(order.hidden_qty for order in resting)
                assert level.hidden == hidden, "hidden lots add up"
                assert level.qty == total - hidden, "level adds up"
                assert (
                    len(level.queue) <= 2 * level.count + VOID_PLACES + 1
                ), "few void places"
            for order_id, order in half.markets.items():
                seen += 1
                assert order is self.orders.get(order_id), "indexed"
                assert order.order_id == order_id and order.side == side
                assert order.price is None and order.leaves_qty >= 1
                assert order.may_rest
                assert self.is_collecting, "expired after an uncrossing"
        assert seen == len(self.orders), "each order in exactly one level"
        bid, ask = self.best("buy"), self.best("sell")
        if not self.is_collecting:
            assert not (bid and ask and bid[0] >= ask[0]), "not crossed"
            return
        sellers = [*self.market_orders("sell"), *self.queue("sell")]
        for order in (*self.market_orders("buy"), *self.queue("buy")):
            for other in sellers:
                assert (
                    order.account != other.account
                    or "none" in (order.stp, other.stp)
                    or not _reaches(order.limit, other.limit, 1)
                ), "no account crosses itself"


def _is_raised(order: Order, display_qty: int | None) -> bool:
    """Whether an order is to show more of itself."""
    if display_qty is None or order.display_qty is None:
        return False
    return display_qty > order.display_qty


def _reaches(limit: int | None, price: int | None, sign: int) -> bool:
    """Whether a limit allows a price; ``sign`` 1: the limit of a buyer."""
    if limit is None or price is None:
        return True
    return limit * sign >= price * sign
