"""Public market data: events in, the same messages for many readers out.

The feed gathers the trades of a batch of commands. `flush` returns what each
reader subscribed to: for each symbol the trades, then the ``BookUpdate`` with
the net change. A message is encoded once, readers with the same door and the
same subscriptions form a group that shares its bytes, and no reader is always
the first to get them.

A slow reader gets nothing until it has drained. Then one update covers what
it missed of each book, or a snapshot where too much has happened since, and
trades resume at the newest.

The feed keeps no book: it asks for snapshots, at moments when everything that
happened has been flushed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeAlias, TypeVar

from exchange.gateway import pacing
from exchange.gateway.pacing import is_slow
from orderbook import BookUpdate, Channel, Ticker, Trade, encode

# Updates of a book kept to cover what slow readers missed, and the levels of
# them that are merged for one. If it missed more, a snapshot is cheaper, which
# is made once for all.
UPDATES_KEPT = 1_000
LEVELS_MERGED = 2_000

T = TypeVar("T")
Subscription: TypeAlias = tuple[str, Channel]  # symbol, channel


class Reader(pacing.Reader, Hashable, Protocol):
    """Whom the feed writes to; hashable by identity."""

    @property
    def door(self) -> object:
        """What encodes its messages."""

    def send(self, text: str) -> None:
        """Queue one message."""


R = TypeVar("R", bound=Reader)
# Messages, and the readers with one door that get them.
Delivery: TypeAlias = tuple[list[str], list[R]]
Group: TypeAlias = tuple[object, frozenset[Subscription]]  # door, follows
NOTHING: frozenset[Subscription] = frozenset()


@dataclass(slots=True)
class _Stream:
    """The public events of one symbol."""

    seq: int = 0  # of the last update flushed
    trade_seq: int = 0  # of the last trade flushed
    trades: list[Trade] = field(default_factory=list)  # not yet flushed
    past: deque[BookUpdate] = field(
        default_factory=lambda: deque(maxlen=UPDATES_KEPT)
    )
    snapshot: tuple[int, str] = (-1, "")  # seq, text: made once for many
    ticker: Ticker | None = None  # the last one published
    is_ticker_due: bool = False  # even if it changes back to the last one


def merge(updates: list[BookUpdate]) -> BookUpdate:
    """Return one update that covers successive ones of a symbol."""
    if len(updates) == 1:
        return updates[0]
    bids: dict[int, int] = {}
    asks: dict[int, int] = {}
    for update in updates:
        bids.update(update.bids)
        asks.update(update.asks)
    return BookUpdate(
        symbol=updates[0].symbol,
        seq=updates[-1].seq,
        prev_seq=updates[0].prev_seq,
        ts=updates[-1].ts,
        bids=tuple(sorted(bids.items(), reverse=True)),
        asks=tuple(sorted(asks.items())),
    )


class Feed(Generic[R]):
    """The public channels of all symbols, and who follows them.

    ``snapshot`` returns the whole book of a symbol, ``ticker`` its ticker
    now.
    """

    def __init__(
        self,
        snapshot: Callable[[str], BookUpdate],
        ticker: Callable[[str], Ticker],
    ) -> None:
        self._snapshot = snapshot
        self._ticker = ticker
        self._streams: dict[str, _Stream] = {}
        self._marked: dict[str, None] = {}  # symbols with a ticker due
        self._follows: dict[R, frozenset[Subscription]] = {}
        # The seq of each symbol when a reader subscribed to its trades.
        self._since: dict[R, dict[str, int]] = {}
        self._groups: dict[Group, dict[R, None]] = {}
        # Symbols whose book or trades are followed; only they need updates.
        self.followed: Counter[str] = Counter()
        self._readers_of: Counter[Subscription] = Counter()
        # Slow readers, with the seq they hold of each symbol.
        self._behind: dict[R, dict[str, int]] = {}
        self._turn = 0

    def record(self, trade: Trade) -> None:
        """Take in one trade; it leaves with the update that covers it."""
        if (trade.symbol, "trades") in self._readers_of:
            self._stream(trade.symbol).trades.append(trade)

    def flush(self, updates: Iterable[BookUpdate]) -> list[Delivery[R]]:
        """Return for every reader the trades recorded, and these updates.

        One for each book that is `followed` and has changed since the last
        flush. Then those who were slow, and are no more, get what they missed.
        """
        texts: dict[Subscription, list[str]] = {}
        deliveries: list[Delivery[R]] = []
        fresh: list[tuple[_Stream, BookUpdate]] = []
        for update in updates:
            symbol = update.symbol
            stream = self._stream(symbol)
            fresh.append((stream, update))
            if stream.trades:
                texts[symbol, "trades"] = [encode(t) for t in stream.trades]
            if (symbol, "book") in self._readers_of:
                texts[symbol, "book"] = [encode(update)]
        if texts:
            self._turn += 1
            deliveries = self._deliver(texts)
        for stream, update in fresh:
            stream.seq = update.seq
            if stream.trades:
                stream.trade_seq = stream.trades[-1].seq
                stream.trades.clear()
            stream.past.append(update)
        for reader in list(self._behind):
            if not is_slow(reader):
                self._catch_up(reader)
        return deliveries

    def mark(self, symbols: Iterable[str]) -> None:
        """Let the next `flush_tickers` look at these tickers."""
        self._marked.update(dict.fromkeys(symbols))

    @property
    def has_slow_readers(self) -> bool:
        """Whether a reader may be waiting for what it missed."""
        return bool(self._behind)

    @property
    def readers(self) -> int:
        """How many follow anything."""
        return len(self._follows)

    def size(self) -> tuple[int, ...]:
        """Return the numbers of subscriptions, groups, and late readers."""
        subscriptions = sum(map(len, self._follows.values()))
        return subscriptions, len(self._groups), len(self._behind)

    @property
    def is_ticker_due(self) -> bool:
        """Whether a ticker may have changed since `flush_tickers`."""
        return bool(self._marked)

    def flush_tickers(self) -> list[Delivery[R]]:
        """Return the tickers that changed.

        To be called at the greatest rate a ticker may have.
        """
        texts: dict[Subscription, list[str]] = {}
        for symbol in self._marked:
            stream = self._stream(symbol)
            ticker, last = self._ticker(symbol), stream.ticker
            if (
                last is None
                or stream.is_ticker_due
                or _values(ticker) != _values(last)
            ):
                stream.ticker = ticker
                stream.is_ticker_due = False
                texts[symbol, "ticker"] = [encode(ticker)]
        self._marked.clear()
        return self._deliver(texts)

    def subscribe(
        self,
        reader: R,
        channels: Iterable[Channel],
        symbols: Mapping[str, int],
    ) -> None:
        """Let a reader follow channels, and send it their present state.

        ``symbols`` has the seq of each book. Everything that has happened
        must have been flushed.
        """
        for symbol, seq in symbols.items():
            self._stream(symbol).seq = seq
        wanted = [(s, c) for s in symbols for c in channels]
        self._follow(reader, self._follows.get(reader, NOTHING).union(wanted))
        for symbol, channel in dict.fromkeys(wanted):
            if channel == "book":
                self._send_snapshot(reader, symbol)
            elif channel == "ticker":
                self._send_ticker(reader, symbol)
            else:
                since = self._since.setdefault(reader, {})
                since[symbol] = self._stream(symbol).seq

    def unsubscribe(
        self,
        reader: R,
        channels: Iterable[Channel],
        symbols: Iterable[str],
    ) -> None:
        """Let a reader follow channels no more."""
        unwanted = [(s, c) for s in symbols for c in channels]
        self._follow(
            reader, self._follows.get(reader, NOTHING).difference(unwanted)
        )

    def drop(self, reader: R) -> None:
        """Forget a reader that is gone."""
        self._follow(reader, NOTHING)

    def held(self, reader: R) -> dict[str, int]:
        """Return the last ``seq`` sent to a reader, by symbol."""
        behind = self._behind.get(reader, {})
        return {
            symbol: behind.get(symbol, seq)
            for symbol, seq in self._latest(reader).items()
        }

    def snapshot(self, symbol: str, seq: int) -> str:
        """Return the whole book, which is at ``seq``: made once for many."""
        stream = self._stream(symbol)
        if stream.snapshot[0] != seq:
            snapshot = self._snapshot(symbol)
            stream.snapshot = (snapshot.seq, encode(snapshot))
        return stream.snapshot[1]

    # Within

    def _stream(self, symbol: str) -> _Stream:
        stream = self._streams.get(symbol)
        if stream is None:
            stream = self._streams[symbol] = _Stream()
        return stream

    def _latest(self, reader: R) -> dict[str, int]:
        latest: dict[str, int] = {}
        for symbol, channel in sorted(self._follows.get(reader, ())):
            stream = self._stream(symbol)
            if channel == "book":
                latest[symbol] = stream.seq
            elif channel == "trades":
                if stream.trade_seq > self._since[reader][symbol]:
                    latest.setdefault(symbol, stream.trade_seq)
        return latest

    def _deliver(
        self, texts: dict[Subscription, list[str]]
    ) -> list[Delivery[R]]:
        """Return texts with their readers; note who is slow, with its seq."""
        behind = self._behind
        deliveries: list[Delivery[R]] = []
        # Of a symbol the trades, then the book that covers them.
        in_order = sorted(texts.items(), reverse=True)
        for (_, follows), members in rotated(self._groups.items(), self._turn):
            messages = [
                text
                for subscription, several in in_order
                if subscription in follows
                for text in several
            ]
            if not messages:
                continue
            readers = rotated(members, self._turn)
            for reader in readers:
                if not reader.may_be_slow:
                    continue
                if is_slow(reader) and reader not in behind:
                    behind[reader] = self._latest(reader)
            if behind:
                readers = [r for r in readers if r not in behind]
            deliveries.append((messages, readers))
        return deliveries

    def _catch_up(self, reader: R) -> None:
        """Send a reader that was slow what it missed."""
        behind = self._behind.pop(reader)
        for symbol, channel in sorted(self._follows[reader]):
            stream = self._stream(symbol)
            if channel == "ticker":
                self._send_ticker(reader, symbol)
            if channel != "book" or stream.seq == behind[symbol]:
                continue
            missed = [u for u in stream.past if u.seq > behind[symbol]]
            levels = sum(len(u.bids) + len(u.asks) for u in missed)
            is_known = missed[0].prev_seq == behind[symbol]
            if is_known and levels <= LEVELS_MERGED:
                reader.send(encode(merge(missed)))
            else:
                self._send_snapshot(reader, symbol)

    def _send_ticker(self, reader: R, symbol: str) -> None:
        """Send the ticker as it is; if it is news, others get it in time."""
        stream = self._stream(symbol)
        ticker = self._ticker(symbol)
        if stream.ticker is None:
            stream.ticker = ticker
        elif _values(ticker) != _values(stream.ticker):
            stream.is_ticker_due = True
        reader.send(encode(ticker))

    def _send_snapshot(self, reader: R, symbol: str) -> None:
        stream = self._stream(symbol)
        reader.send(self.snapshot(symbol, stream.seq))
        if reader in self._behind:
            self._behind[reader][symbol] = stream.snapshot[0]

    def _follow(self, reader: R, follows: frozenset[Subscription]) -> None:
        """Move a reader to the group of those who follow the same."""
        before = self._follows.pop(reader, NOTHING)
        if before:
            group = (reader.door, before)
            del self._groups[group][reader]
            if not self._groups[group]:
                del self._groups[group]
        self._count(before - follows, -1)
        self._count(follows - before, 1)
        if follows:
            self._follows[reader] = follows
            group = (reader.door, follows)
            self._groups.setdefault(group, {})[reader] = None
        else:
            self._behind.pop(reader, None)
            self._since.pop(reader, None)

    def _count(self, changed: Iterable[Subscription], by: int) -> None:
        """Count readers that have come or gone."""
        for symbol, channel in changed:
            self._readers_of[symbol, channel] += by
            if not self._readers_of[symbol, channel]:
                del self._readers_of[symbol, channel]
                if channel == "trades":
                    self._stream(symbol).trades.clear()
            if channel != "ticker":
                self.followed[symbol] += by
                if not self.followed[symbol]:
                    del self.followed[symbol]


def rotated(items: Iterable[T], turn: int) -> list[T]:
    """Return items so that in the long run none comes before another."""
    row = [*items]
    first = turn % len(row) if row else 0
    return row[first:] + row[:first]


def _values(ticker: Ticker) -> tuple[object, ...]:
    return (
        ticker.bid,
        ticker.bid_qty,
        ticker.ask,
        ticker.ask_qty,
        ticker.last,
        ticker.volume,
    )
