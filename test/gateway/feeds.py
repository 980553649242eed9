"""The public channels: their readers, the order of events, slow readers.

``Market`` stands for those who own the books: it has a level for each price,
and no orders. ``Reader`` keeps what it was told, in short::

    trade BOND 2 #1                 seq 2, trade id 1
    book BOND 1-2 99=5 | 101=0      from seq 1 to seq 2: bids | asks
    book BOND 2 99=5 | 102=7        a snapshot
    ticker BOND 99 102 last=100
"""

from __future__ import annotations

from typing import Any

from exchange.gateway.feed import Feed
from exchange.gateway.pacing import SLOW_BYTES
from orderbook import (
    BookUpdate,
    Channel,
    Event,
    Ticker,
    Trade,
    decode_events,
)
from test.support import Peer

Levels = dict[int, int]


class Book:
    """The levels of one symbol, and their changes."""

    def __init__(self) -> None:
        self.seq = self.published = self.trade_id = self.volume = 0
        self.last: int | None = None
        self.bids: Levels = {}
        self.asks: Levels = {}
        self.changes: tuple[Levels, Levels] = ({}, {})


class Market:
    """The books, and a feed of them."""

    def __init__(self) -> None:
        self.books = {symbol: Book() for symbol in SYMBOLS}
        self.framed: list[list[str]] = []  # what frames were made of
        self.feed: Feed[Reader] = Feed(self.snapshot, self.ticker)

    def snapshot(self, symbol: str) -> BookUpdate:
        book = self.books[symbol]
        return BookUpdate(
            symbol=symbol,
            seq=book.seq,
            ts=1,
            snapshot=True,
            **sides(book.bids, book.asks),
        )

    def ticker(self, symbol: str) -> Ticker:
        book = self.books[symbol]
        return Ticker(
            symbol=symbol,
            ts=1,
            bid=max(book.bids, default=None),
            ask=min(book.asks, default=None),
            last=book.last,
            volume=book.volume,
        )

    def deliver(
        self, deliveries: list[tuple[list[str], list[Reader]]]
    ) -> None:
        for texts, readers in deliveries:
            self.framed.append(texts)
            for reader in readers:
                reader.push(texts)

    def flush_tickers(self) -> None:
        self.deliver(self.feed.flush_tickers())

    def bid(self, price: int, qty: int, symbol: str = "BOND") -> None:
        self._change(symbol, 0, price, qty)

    def ask(self, price: int, qty: int, symbol: str = "BOND") -> None:
        self._change(symbol, 1, price, qty)

    def trade(self, price: int, symbol: str = "BOND") -> None:
        """Let one lot trade with the asks at a price."""
        book = self.books[symbol]
        book.trade_id += 1
        book.volume += 1
        book.last = price
        self.ask(price, max(book.asks.get(price, 0) - 1, 0), symbol)
        self.feed.record(
            Trade(
                symbol=symbol,
                seq=book.seq,
                ts=1,
                trade_id=book.trade_id,
                price=price,
                qty=1,
                side="buy",
            )
        )

    def flush(self) -> None:
        """Publish what happened, as the gateway does."""
        updates = []
        for symbol, book in self.books.items():
            if book.seq > book.published:
                self.feed.mark([symbol])
                if symbol in self.feed.followed:
                    updates.append(
                        BookUpdate(
                            symbol=symbol,
                            seq=book.seq,
                            prev_seq=book.published,
                            ts=1,
                            **sides(*book.changes),
                        )
                    )
                book.published, book.changes = book.seq, ({}, {})
        self.deliver(self.feed.flush(updates))

    def _change(self, symbol: str, side: int, price: int, qty: int) -> None:
        book = self.books[symbol]
        book.seq += 1
        book.changes[side][price] = qty
        levels = (book.bids, book.asks)[side]
        levels[price] = qty
        if not qty:
            del levels[price]


def sides(bids: Levels, asks: Levels) -> dict[str, Any]:
    best_first = tuple(sorted(bids.items(), reverse=True))
    return {"bids": best_first, "asks": tuple(sorted(asks.items()))}


class Reader:
    """A reader of the feed, which may be slow."""

    def __init__(self, market: Market, *channels: Channel) -> None:
        self.peer = Peer()
        self.sealed_bytes = 0
        self.may_be_slow = True
        self.door = None
        self.lots: list[list[str]] = []  # each that was pushed
        self.events: list[Event] = []
        self.feed = market.feed
        self.market = market
        if channels:
            self.subscribe(*channels)
            self.events.clear()

    @property
    def is_slow(self) -> bool:
        return self.sealed_bytes > 0

    @is_slow.setter
    def is_slow(self, is_slow: bool) -> None:
        self.sealed_bytes = SLOW_BYTES + 1 if is_slow else 0

    def subscribe(self, *channels: Channel, symbol: str = "BOND") -> None:
        seq = self.market.books[symbol].seq
        self.feed.subscribe(self, channels, {symbol: seq})

    def unsubscribe(self, *channels: Channel, symbol: str = "BOND") -> None:
        self.feed.unsubscribe(self, channels, [symbol])

    def push(self, texts: list[str]) -> None:
        self.lots.append(texts)
        for text in texts:
            self.events += decode_events(text)

    def send(self, text: str) -> None:
        self.events += decode_events(text)

    def news(self) -> list[str]:
        """Return the events since the last call, in short."""
        events, self.events = self.events, []
        return [short(event) for event in events]


def short(event: Event) -> str:
    match event:
        case Trade():
            return f"trade {event.symbol} {event.seq} #{event.trade_id}"
        case BookUpdate():
            assert event.snapshot == (event.prev_seq is None)
            since = "" if event.snapshot else f"{event.prev_seq}-"
            head = f"book {event.symbol} {since}{event.seq}"
            words = [head, *(f"{p}={q}" for p, q in event.bids), "|"]
            return " ".join(words + [f"{p}={q}" for p, q in event.asks])
        case Ticker():
            top = f"{event.bid} {event.ask} last={event.last}"
            return f"ticker {event.symbol} {top}"
    raise TypeError(event)


SYMBOLS = ("BOND", "ETF")


def update(seq: int, bids: Levels, asks: Levels) -> BookUpdate:
    return BookUpdate(
        symbol="BOND", seq=seq, prev_seq=seq - 1, ts=seq, **sides(bids, asks)
    )
