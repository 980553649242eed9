"""Requests and answers between a connection and its link, as bytes.

A link takes messages of bytes and gives bytes to write. Here stands what they
look like between plain HTTP and its link, and which paths are of the dialect.
"""

from __future__ import annotations

from typing import NamedTuple

API = ("/api/", "/sapi/")
API_BYTES = tuple(path.encode() for path in API)
STREAMS = ("/ws", "/stream")
WS_API = "/ws-api/v3"


class Asked(NamedTuple):
    """One request, as the link gets it."""

    method: str
    path: str
    query: str
    api_key: str
    body: str


def pack_request(asked: Asked) -> bytes:
    """Return a request as one message; only the body may have new lines."""
    return "\n".join(asked).encode("latin-1")


def unpack_request(message: bytes) -> Asked:
    """Undo `pack_request`."""
    return Asked(*message.decode("latin-1").split("\n", 4))


def pack_answer(
    status: int, body: bytes, headers: list[tuple[str, str]], is_last: bool
) -> bytes:
    """Return an answer as `Connection.write` takes it."""
    lines = [f"{status} {int(is_last)}", *(f"{n}:{v}" for n, v in headers)]
    return "\n".join([*lines, "\n"]).encode() + body


def is_stream(path: str) -> bool:
    """Whether a websocket at this path carries streams."""
    return path in STREAMS or path.startswith("/ws/")


def serves(path: str) -> bool:
    """Whether a websocket may be opened at this path."""
    return path == "/" or path == WS_API or is_stream(path)
