"""The exchange's own protocol: JSON texts in websocket frames.

Outgoing messages are such texts already, encoded once for all their readers.
This door only joins and frames them.
"""

from __future__ import annotations

from collections.abc import Iterator

from exchange.doors.websocket import frame
from orderbook import decode_requests

# Characters of one outgoing frame: less than 1 MiB at 4 bytes each.
FRAME_CHARS = 250_000


class Native:
    """The door of the native protocol; stateless, one for all links."""

    decode = staticmethod(decode_requests)

    def encode(self, texts: list[str]) -> bytes:
        """Return messages as websocket frames, ready to be written."""
        text = _join(texts)
        if len(text) <= FRAME_CHARS:  # as nearly always
            return frame(text.encode())
        return b"".join([frame(text.encode()) for text in pack(texts)])


def pack(texts: list[str]) -> Iterator[str]:
    """Join one or more messages into as few texts as FRAME_CHARS allows.

    A single message stays an object, several become an array.
    """
    first, size = 0, 0
    for index, text in enumerate(texts):
        size += len(text) + 1
        if size > FRAME_CHARS and index > first:
            yield _join(texts[first:index])
            first, size = index, len(text) + 1
    yield _join(texts[first:])


def _join(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"
