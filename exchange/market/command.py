"""What goes into the engine and what comes out of it.

In: a `Command`, which is an action with its sequence number, time and sender.
An action is a request of a client, as defined in `orderbook`, or one of the
exchange's own below. Out: a list of `Output`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from exchange.market.accounts import AccountLimits
from orderbook import (
    AcceptTender,
    Admin,
    Amend,
    Cancel,
    CancelAfter,
    CancelAll,
    CommandRequest,
    Convert,
    Error,
    Event,
    Get,
    Instrument,
    Login,
    MatchInfo,
    Ping,
    Place,
    Rested,
    RoleName,
    Subscribe,
    Unsubscribe,
)

# The version of the rules. A change of any output is a new version, except
# for the texts written for people: `message` of refusals and statuses.
ENGINE_VERSION = 3
# The versions that this program can apply: the current one, and each older
# one for at least a year after its successor was released.
RULES = range(2, ENGINE_VERSION + 1)

PUBLIC = ""  # the recipient of public events; no account has this name
# The recipient is an account, or PUBLIC.
Output: TypeAlias = tuple[str, Event | Rested]

# Requests -----------------------------------------------------------------

# A name that an order has while it is open, and another one may have after it.
Tag: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]{1,36}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedPlace(Place):
    """A `Place` of another protocol, with a name that is free afterwards.

    No client of the native protocol sends it; a journal has it.
    """

    type: Literal["tagged_place"] = "tagged_place"  # type: ignore[assignment]
    tag: Tag


# The token bucket that limits a request: that of the account's orders, of its
# cancels, or of the connection.
BucketName: TypeAlias = Literal["orders", "cancels", "connection"]
# Weight of a login or a subscription: they send the state of the market, or
# a whole book. Both together are no more than a connection's first turn.
LONG_WEIGHT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """How the exchange treats the requests of one type.

    ``is_command``: the request needs a login, becomes a command and is
    journaled. ``weight``: how many requests it counts as in a turn; a table
    counts more, by its rows.
    """

    is_command: bool = False
    bucket: BucketName = "connection"
    weight: int = 1


REQUESTS: dict[type, Treatment] = {
    Place: Treatment(is_command=True, bucket="orders"),
    Amend: Treatment(is_command=True, bucket="orders"),
    Cancel: Treatment(is_command=True, bucket="cancels"),
    CancelAll: Treatment(is_command=True, bucket="cancels"),
    CancelAfter: Treatment(is_command=True, bucket="cancels"),
    Convert: Treatment(is_command=True, bucket="orders"),
    AcceptTender: Treatment(is_command=True, bucket="orders"),
    Admin: Treatment(is_command=True),
    Login: Treatment(weight=LONG_WEIGHT),
    Subscribe: Treatment(weight=LONG_WEIGHT),
    Unsubscribe: Treatment(),
    Get: Treatment(),
    Ping: Treatment(),
    Error: Treatment(),  # stands for a request that cannot be decoded
    TaggedPlace: Treatment(is_command=True, bucket="orders"),
}

# The exchange's own actions -----------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """The unit of cash as a decimal number of a currency: "0.01", "USD"."""

    unit: str
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Configure:
    """Set the market: the first command, and each change of the market.

    ``limits`` apply to every account that is not in ``accounts``. The phase
    of an instrument is the one that it starts in. ``engine_version`` is the
    version of the rules that apply from this command on.
    """

    type: Literal["configure"] = "configure"
    instruments: tuple[Instrument, ...]
    limits: AccountLimits = AccountLimits()
    accounts: dict[str, AccountLimits] = field(default_factory=dict)
    money: Money | None = None
    engine_version: int = ENGINE_VERSION
    match: MatchInfo | None = None


@dataclass(frozen=True, slots=True)
class Connect:
    """A login succeeded: the command's session starts or is resumed."""

    cancel_on_disconnect: bool
    is_admin: bool = False
    type: Literal["connect"] = "connect"
    role: RoleName | None = None  # None: as ``is_admin`` says


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnect:
    """The connection of the command's session ended."""

    type: Literal["disconnect"] = "disconnect"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePassed:
    """Fire the deadlines that are due at the command's time."""

    type: Literal["tick"] = "tick"  # the name that journals use


@dataclass(frozen=True, slots=True, kw_only=True)
class Shutdown:
    """The exchange stops and has ended every connection."""

    type: Literal["shutdown"] = "shutdown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """A new process continues; every connection of the old one has ended."""

    type: Literal["restart"] = "restart"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockStep:
    """The clock is about to be set forward although no time has passed.

    Deadlines that are durations move with it: `cancel_after`, and phases
    that end by themselves. An ``expire_ts`` is a time of day and stays.
    """

    type: Literal["clock_step"] = "clock_step"
    forward_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BustTrade:
    """Undo a trade: an administrator's `bust`, with what is to be undone.

    The gateway has found the two fills of the trade in the history.
    """

    type: Literal["bust_trade"] = "bust_trade"
    reason: str
    client_request_id: str | None = None
    symbol: str
    trade_id: int
    price: int
    qty: int
    buyer: str
    buy_order_id: int
    buy_fee: int
    seller: str
    sell_order_id: int
    sell_fee: int


OwnAction: TypeAlias = (
    BustTrade
    | ClockStep
    | Configure
    | Connect
    | Disconnect
    | Restart
    | Shutdown
    | TimePassed
)
Action: TypeAlias = CommandRequest | TaggedPlace | OwnAction


@dataclass(slots=True)
class Command:
    """An action with its sequence number, time and sender.

    ``seq`` counts 1, 2, 3, ...; ``ts`` is in microseconds since the epoch
    and strictly increases. ``account`` and ``session`` are "" for the
    exchange's own actions that concern no account.
    """

    seq: int
    ts: int
    account: str
    session: str
    action: Action
