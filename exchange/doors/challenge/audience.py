"""The door of all bots with one language: public data, encoded once."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_core import from_json

from exchange.doors.challenge.common import Common
from exchange.doors.challenge.lines import LINE_MAX
from exchange.doors.challenge.messages import (
    IGNORED,
    RATE_LIMIT,
    TOO_LONG,
    Hello,
    Language,
    Malformed,
)
from exchange.gateway.link import Deferred


class Audience:
    """The door of their links."""

    def __init__(self, common: Common, language: Language) -> None:
        self.language = language
        self._common = common
        # The lines of books, with the ``seq`` at which they were made.
        self._books: dict[str, tuple[int, bytes]] = {}

    def decode(self, message: bytes) -> Sequence[Deferred]:
        """Return what a line says."""
        if len(message) > LINE_MAX:
            return [Deferred(Malformed(TOO_LONG, is_last=True))]
        if message == IGNORED:
            return [Deferred(Malformed(RATE_LIMIT))]
        said = self.language.read(message)
        return [Deferred(said, isinstance(said, Hello))]

    def encode(self, texts: list[str]) -> bytes:
        """Return public texts as lines.

        A book is only noted as changed: its line is made when a bot may get
        it. Anything else, such as a heartbeat, is dropped.
        """
        lines: list[bytes] = []
        for text in texts:
            if text.startswith('{"type":"trade"'):
                trade = from_json(text)
                lines.append(
                    self.language.trade(
                        trade["symbol"], trade["price"], trade["qty"]
                    )
                )
            elif text.startswith('{"type":"book"'):
                self._common.note_change(from_json(text)["symbol"])
        return b"".join(lines)

    def book(self, symbol: str) -> bytes:
        """Return the line of a whole book as it is now."""
        listing = self._common.engine.listings[symbol]
        seq, line = self._books.get(symbol, (-1, b""))
        if seq != listing.seq:
            book, levels = listing.book, self._common.terms.levels
            line = self.language.book(
                symbol, book.depth("buy", levels), book.depth("sell", levels)
            )
            self._books[symbol] = listing.seq, line
        return line
