"""Reports as lines of text, in the form whose hashes are published.

There is one line for each report, in the order of the messages; within a
message, by the number that a line begins with, and trades as they were made:

0. ``0,seq,side,id,price,qty``: a new order arrived
1. ``1,seq,price,qty,maker,taker``: a trade, with the ids of both orders
2. ``2,seq,side,id,price``: a resting order was canceled, or the rest of an
   immediate-or-cancel order dropped
3. ``3,seq,side,id,price,qty``: a resting order was modified
4. ``4,seq,id``: a cancel found no resting order
5. ``5,seq,id``: a modify found no resting order

``seq`` numbers the messages from 0; ``side`` is 0 for buy, 1 for sell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from orderbook import Side
from util.measure.workloads import Message


def accepted(seq: int, side: Side, order_id: int, price: int, qty: int) -> str:
    """Return the line of a new order."""
    return f"0,{seq},{int(side == 'sell')},{order_id},{price},{qty}"


def traded(seq: int, price: int, qty: int, maker: int, taker: int) -> str:
    """Return the line of a trade."""
    return f"1,{seq},{price},{qty},{maker},{taker}"


def ended(seq: int, side: Side, order_id: int, price: int) -> str:
    """Return the line of an order that was canceled, or dropped."""
    return f"2,{seq},{int(side == 'sell')},{order_id},{price}"


def modified(seq: int, side: Side, order_id: int, price: int, qty: int) -> str:
    """Return the line of a modified order."""
    return f"3,{seq},{int(side == 'sell')},{order_id},{price},{qty}"


def refused(seq: int, message: Message) -> str:
    """Return the line of a cancel or a modify that found no order."""
    return f"{4 if message.kind == 'cancel' else 5},{seq},{message.order_id}"


class Digest:
    """The SHA-256 of lines, with a newline between two of them."""

    def __init__(self) -> None:
        self.count = 0
        self._sha256 = hashlib.sha256()

    def add(self, lines: Sequence[str]) -> None:
        """Add lines."""
        if lines:
            start = "\n" if self.count else ""
            self._sha256.update((start + "\n".join(lines)).encode())
            self.count += len(lines)

    def __str__(self) -> str:
        return self._sha256.hexdigest()
