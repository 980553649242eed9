"""Requests that the tests of the server send."""

from __future__ import annotations

from typing import Any

from test.support import Wire, order

Message = dict[str, Any]
PING = {"type": "ping", "id": "ping"}
ABSENT = "absent"


def follow(*channels: str, **more: Any) -> Message:
    return {"type": "subscribe", "channels": channels, **more}


def get(what: str, **more: Any) -> Message:
    return {"type": "get", "what": what, **more}


def without_id(message: Message) -> Message:
    return {key: message[key] for key in message if key != "id"}


async def rows(wire: Wire, what: str, **more: Any) -> list[Any]:
    """Return the rows of a table."""
    (reply,) = await wire.ask(**get(what, **more))
    data: list[Any] = reply["data"]
    return data


async def place(wire: Wire, side: str, qty: int, price: int) -> list[Message]:
    return await wire.ask(**order(side, qty, price))
