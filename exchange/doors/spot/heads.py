"""Heads of HTTP requests and of answers, as bytes and as h11 gives them."""

from __future__ import annotations

import re
from http import HTTPStatus

import h11

JSON = b"application/json;charset=UTF-8"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_BLANK_LINES = (b"\n\r\n", b"\n\n")


def end_of_head(data: bytes) -> int:
    """Return where the blank line after a head begins; -1: nowhere yet."""
    ends = [data.find(blank) for blank in _BLANK_LINES]
    return min((at for at in ends if at >= 0), default=-1)


def asks_for_websocket(head: bytes) -> bool:
    """Whether a head is that of a GET for a websocket, without a body."""
    first, *lines = head.split(b"\n")
    if not first.startswith(b"GET ") or first.count(b" ") != 2:
        return False
    is_websocket = False
    for line in lines:
        name, _, value = line.partition(b":")
        match name.strip().lower():
            case b"upgrade":
                is_websocket |= b"websocket" in value.lower()
            case b"transfer-encoding":
                return False
            case b"content-length" if value.strip() != b"0":
                return False
    return is_websocket


def values_of(request: h11.Request, name: bytes) -> list[str]:
    """Return the values of a header; ``name`` is in lower case."""
    return [v.decode("latin-1") for n, v in request.headers if n == name]


def has_control(request: h11.Request) -> bool:
    """Whether a header has control characters, which h11 lets through."""
    return any(_CONTROL.search(value) for _, value in request.headers)


def serialized(
    status: int,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    is_last: bool,
    is_head: bool,
) -> bytes:
    """Return an answer as it is sent."""
    lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
    lines += [b"%s: %s" % header for header in headers]
    lines.append(b"Content-Length: %d" % len(body))
    if is_last:
        lines.append(b"Connection: close")
    return b"\r\n".join([*lines, b"", b"" if is_head else body])
