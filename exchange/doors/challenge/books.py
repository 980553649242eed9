"""The books of one bot: which have changed, and when it gets them.

A bot gets a whole book, at most once in a while and only while it reads what
it has. So books never pile up: of each symbol only the newest waits.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from exchange.doors.challenge.audience import Audience
from exchange.doors.challenge.common import Common

# A timer may fire early by this much, because loops round to milliseconds.
EARLY_S = 0.000_5


class Books:
    """What one bot knows of the books. Methods return lines to send."""

    def __init__(self, common: Common, audience: Audience) -> None:
        self._common = common
        self._audience = audience
        self._owed: dict[str, None] = {}  # symbols that have changed
        self._sent_s: dict[str, float] = {}  # when each was last sent
        self._last: dict[str, bytes] = {}  # what the bot has, or need not get
        self._turn = 0  # of books that are sent because nothing happens

    def begin(self, symbols: Iterable[str], *, is_all: bool) -> bytes:
        """Return the first books: those with orders, or all."""
        lines: list[bytes] = []
        for symbol in symbols:
            if is_all or self._common.has_orders(symbol):
                lines.append(self._send(symbol))
            else:
                self.skip(symbol)
        return b"".join(lines)

    def skip(self, symbol: str) -> None:
        """Send no book as long as it stays as it is."""
        self._last[symbol] = self._audience.book(symbol)

    def owe(self, symbols: Iterable[str]) -> None:
        """Note that books have changed."""
        self._owed |= dict.fromkeys(symbols)

    @property
    def is_owed(self) -> bool:
        """Whether a book has changed that was not sent."""
        return bool(self._owed)

    def due(self, is_open: Container[str]) -> bytes:
        """Return the books that changed and may be sent now.

        Not those that look as before, nor empty ones of symbols that are not
        open.
        """
        now_s = self._common.now_s()
        pause_s = self._common.terms.book_s - EARLY_S
        lines: list[bytes] = []
        for symbol in list(self._owed):
            if now_s - self._sent_s.get(symbol, -pause_s) < pause_s:
                continue
            del self._owed[symbol]
            if symbol in is_open or self._common.has_orders(symbol):
                if self._audience.book(symbol) != self._last.get(symbol):
                    lines.append(self._send(symbol))
        return b"".join(lines)

    def next(self) -> bytes:
        """Return one book with orders, another one at each call, or b""."""
        symbols = [
            symbol
            for symbol in sorted(self._common.engine.listings)
            if self._common.has_orders(symbol)
        ]
        if not symbols:
            return b""
        self._turn += 1
        return self._send(symbols[self._turn % len(symbols)])

    def _send(self, symbol: str) -> bytes:
        book = self._audience.book(symbol)
        self._sent_s[symbol] = self._common.now_s()
        self._last[symbol] = book
        return book
