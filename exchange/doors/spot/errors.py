"""Refusals of the dialect: a code, the words that clients know, a status.

Clients map the words, or the code, to exceptions, so both are fixed. What the
native protocol refuses is put into these terms here.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic_core import to_json

from orderbook import Instrument

BAD = HTTPStatus.BAD_REQUEST
UNKNOWN = -1000
# Bytes of a header or a parameter in a message.
SHOWN = 40


class SpotError(Exception):
    """A request is refused; it changed nothing.

    ``retry_ms`` is the time after which it may succeed; ``is_login``: the
    client could not prove who it is, so its connection ends; ``data`` goes
    with the error.
    """

    def __init__(
        self,
        code: int,
        msg: str,
        status: HTTPStatus = BAD,
        *,
        retry_ms: int = 0,
        is_login: bool = False,
        data: Any = None,
    ) -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg
        self.status = status
        self.retry_ms = retry_ms
        self.is_login = is_login
        self.data = data

    @property
    def body(self) -> dict[str, Any]:
        """Return what the client gets."""
        body: dict[str, Any] = {"code": self.code, "msg": self.msg}
        if self.data is not None:
            body["data"] = self.data
        return body

    @property
    def text(self) -> bytes:
        """Return the same as JSON."""
        return to_json(self.body)


def missing(name: str) -> SpotError:
    """A parameter is not there, or is malformed."""
    return SpotError(
        -1102,
        f"Mandatory parameter '{name}' was not sent, was empty/null, or"
        " malformed.",
    )


def illegal(name: str, why: str) -> SpotError:
    """A parameter has a value that no parameter of its kind has."""
    return SpotError(
        -1100, f"Illegal characters found in parameter '{name}'; {why}."
    )


def needless(name: str, why: str) -> SpotError:
    """A parameter is there that must not be."""
    return SpotError(
        -1106, f"Parameter '{name}' sent when not required: {why}."
    )


def filtered(name: str) -> SpotError:
    """A value does not pass a filter of its symbol."""
    return SpotError(-1013, f"Filter failure: {name}")


def invalid_symbol() -> SpotError:
    """No such symbol is listed."""
    return SpotError(-1121, "Invalid symbol.")


def invalid_order_type(kind: str) -> SpotError:
    """There are no orders of this type here."""
    return SpotError(-1116, f"Invalid orderType: {kind[:SHOWN]}.")


def unknown_order() -> SpotError:
    """An order that is to be canceled is not open."""
    return SpotError(-2011, "Unknown order sent.")


def no_order() -> SpotError:
    """An order that is asked for does not exist."""
    return SpotError(-2013, "Order does not exist.")


def bad_key() -> SpotError:
    """No account has this API key, or it may not be used this way."""
    return SpotError(
        -2015,
        "Invalid API-key, IP, or permissions for action.",
        HTTPStatus.UNAUTHORIZED,
        is_login=True,
    )


def not_built(what: str) -> SpotError:
    """A part of the dialect that this exchange does not have."""
    return SpotError(
        UNKNOWN,
        f"{what[:SHOWN]} is not part of this exchange; see docs/DIALECT.md.",
        HTTPStatus.NOT_FOUND,
    )


def busy() -> SpotError:
    """Too much waits, or the disk cannot be written."""
    return SpotError(
        -1008,
        "Server is currently overloaded with other requests. Please try again"
        " in a few minutes.",
        HTTPStatus.SERVICE_UNAVAILABLE,
        retry_ms=1_000,
    )


def too_many(retry_ms: int, what: str = "requests") -> SpotError:
    """An account or an address is beyond its rate."""
    code = -1015 if what == "orders" else -1003
    return SpotError(
        code,
        f"Too many {'new ' if what == 'orders' else ''}{what}; try again in"
        f" {retry_ms} ms.",
        HTTPStatus.TOO_MANY_REQUESTS,
        retry_ms=retry_ms,
    )


INSUFFICIENT = "Account has insufficient balance for requested action."
# By the code of the native refusal of an order.
_ORDERS = {
    "forbidden": (-2010, "This account may not place or cancel orders."),
    "unknown_symbol": (-1121, "Invalid symbol."),
    "duplicate_client_order_id": (-2010, "Duplicate order sent."),
    "market_closed": (-1013, "Market is closed."),
    "too_many_orders": (-1013, "Filter failure: MAX_NUM_ORDERS"),
    "insufficient_funds": (-2010, INSUFFICIENT),
    "would_take": (-2010, "Order would immediately match and take."),
    "unknown_order": (-2011, "Unknown order sent."),
    "order_closed": (-2011, "Unknown order sent."),
}


def of_native(
    error: dict[str, Any],
    instrument: Instrument | None = None,
    side: str = "",
    price: int | None = None,
) -> SpotError:
    """Return what a native refusal is here.

    The last three are those of the order that was refused, if it was one.
    """
    code = error["code"]
    if code == "rate_limited":
        return too_many(error.get("retry_after_ms", 1_000), "orders")
    if code == "busy":
        return busy()
    if code == "invalid_qty":
        is_part = error.get("field") == "display_qty"
        return filtered("ICEBERG_PARTS" if is_part else "LOT_SIZE")
    if code == "invalid_price":
        is_within = (
            instrument is not None
            and price is not None
            and instrument.min_price <= price <= instrument.max_price
        )
        return filtered(
            "PERCENT_PRICE_BY_SIDE" if is_within else "PRICE_FILTER"
        )
    if code == "position_limit":
        is_owned = instrument is not None and not instrument.short_selling
        if side == "sell" and is_owned:
            return SpotError(-2010, INSUFFICIENT)
        return filtered("MAX_POSITION")
    if code in _ORDERS:
        return SpotError(*_ORDERS[code])
    return SpotError(-1100, error["message"])
