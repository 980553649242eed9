"""The request that moves a viewer through time.

It is a message of its own, never an element of an array:
``{"type":"replay","id":1,"ts":1795340157000000,"speed":"5"}``.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import from_json

from orderbook import MAX_INT, Error, Id

from .recording import StepKind

SPEED_MAX = Decimal(100)
SPEED_PLACES = 6  # decimals of a speed; it is told with all of its digits
PAUSED = Decimal(0)

Text = Annotated[str, Field(max_length=40)]


@dataclass(
    frozen=True,
    kw_only=True,
    config=ConfigDict(extra="forbid", strict=True),
)
class Move:
    """Where to go, how fast, or what to tell; all fields may be left out.

    ``ts`` is a time in microseconds. ``speed`` is how many times as fast as
    recorded, "0": paused. ``step`` goes to the next of its kind, or with
    ``back`` to the one before: a trade of ``symbol`` or of any, an event of
    any kind, a fill of ``account``. ``what`` asks for data.
    """

    type: Literal["replay"]
    id: Id | None = None
    ts: Annotated[int, Field(ge=0, le=MAX_INT)] | None = None
    speed: Text | None = None
    step: StepKind | None = None
    back: bool = False
    symbol: Text | None = None
    account: Text | None = None
    what: Literal["match", "names", "accounts", "fair"] | None = None


_MOVE = TypeAdapter(Move)


def is_move(message: bytes) -> bool:
    """Return whether a message is such a request, right or wrong."""
    if b'"replay"' not in message:
        return False
    try:
        frame = from_json(message)
    except ValueError:
        return False
    return isinstance(frame, dict) and frame.get("type") == "replay"


def read_move(message: bytes) -> Move | Error:
    """Return the request in a message, or why it is none."""
    try:
        return _MOVE.validate_json(message)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "replay"
        given = from_json(message).get("id")
        return Error(
            id=given if isinstance(given, (int, str)) else None,
            code="bad_request",
            message=f"{name}: {first['msg']}",
            field=name,
        )


def read_speed(text: str) -> Decimal:
    """Return a speed; raises ValueError."""
    try:
        speed = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"speed: {text!r} is no number") from None
    if not speed.is_finite() or not PAUSED <= speed <= SPEED_MAX:
        raise ValueError(f"speed: must be from 0 to {SPEED_MAX}")
    exponent = speed.as_tuple().exponent
    if isinstance(exponent, int) and abs(exponent) > SPEED_PLACES:
        raise ValueError(f"speed: has more than {SPEED_PLACES} decimals")
    return speed
