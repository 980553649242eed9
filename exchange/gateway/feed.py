"""Public market data: events in, the same bytes for all readers out.

The feed gathers the trades of a batch of commands; `flush` hands each reader
what it subscribed to: for each symbol the trades, then the ``BookUpdate``
with the net change. A message is encoded once, its frames are made once for
all readers of the same subscriptions, and no reader is always the first to
get them.

A slow reader gets nothing until it has drained. Then one update covers what
it missed of each book, or a snapshot where too much has happened since, and
trades resume at the newest.

The feed keeps no book: snapshots come from the one who owns the books, at
moments when everything that happened has been flushed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

from orderbook import BookUpdate, Channel, Ticker, Trade, encode

# Updates of a book kept to cover what slow readers missed, and the levels of
# them that are merged for one. If it missed more, a snapshot is cheaper, which
# is made once for all.
UPDATES_KEPT = 1_000
LEVELS_MERGED = 2_000

Subscription: TypeAlias = tuple[str, Channel]  # symbol, channel
T = TypeVar("T")


class Reader(Protocol):
    """Whom the feed writes to; hashable by identity."""

    is_strained: bool  # it may be slow: where not, one need not look

    @property
    def is_slow(self) -> bool:
        """Whether too much already waits to be read."""

    def send(self, text: str) -> None:
        """Queue one message."""


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


class Feed:
    """The public channels of all symbols, and who follows them.

    ``snapshot`` returns the whole book of a symbol, ``ticker`` its ticker
    now; ``hand_out`` is called with messages, and all readers to get them.
    """

    def __init__(
        self,
        snapshot: Callable[[str], BookUpdate],
        ticker: Callable[[str], Ticker],
        hand_out: Callable[[list[str], list[Any]], None],
    ) -> None:
        self._snapshot = snapshot
        self._ticker = ticker
        self._hand_out = hand_out
        self._streams: dict[str, _Stream] = {}
        self._stirred: dict[str, None] = {}  # symbols with a ticker due
        self._follows: dict[Reader, frozenset[Subscription]] = {}
        # The seq of each symbol when a reader subscribed to its trades.
        self._since: dict[Reader, dict[str, int]] = {}
        self._groups: dict[frozenset[Subscription], dict[Reader, None]] = {}
        # Slow readers, with the seq they hold of each symbol.
        self._behind: dict[Reader, dict[str, int]] = {}
        self._turn = 0

    def record(self, trade: Trade) -> None:
        """Take in one trade; it leaves with the update that covers it."""
        self._stream(trade.symbol).trades.append(trade)

    def flush(self, updates: Iterable[BookUpdate]) -> None:
        """Hand every reader the trades recorded, and these updates.

        One for each book that changed since the last flush. Then those who
        were slow, and are no more, get what they missed.
        """
        texts: dict[Subscription, list[str]] = {}
        fresh: list[tuple[_Stream, BookUpdate]] = []
        for update in updates:
            symbol = update.symbol
            stream = self._stream(symbol)
            fresh.append((stream, update))
            self._stirred[symbol] = None
            if self._is_followed((symbol, "trades")):
                texts[symbol, "trades"] = [encode(t) for t in stream.trades]
            if self._is_followed((symbol, "book")):
                texts[symbol, "book"] = [encode(update)]
        if texts:
            self._turn += 1
            self._deliver(texts)
        for stream, update in fresh:
            stream.seq = update.seq
            if stream.trades:
                stream.trade_seq = stream.trades[-1].seq
                stream.trades.clear()
            stream.past.append(update)
        for reader in list(self._behind):
            if not reader.is_slow:
                self._catch_up(reader)

    def stir(self, symbol: str) -> None:
        """Look at a ticker with the next flush, though no book changed."""
        self._stirred[symbol] = None

    @property
    def readers(self) -> int:
        """How many follow anything."""
        return len(self._follows)

    @property
    def is_stirred(self) -> bool:
        """Whether a ticker may have changed since `flush_tickers`."""
        return bool(self._stirred)

    def flush_tickers(self) -> None:
        """Hand out the tickers that changed.

        To be called at the greatest rate a ticker may have.
        """
        texts: dict[Subscription, list[str]] = {}
        for symbol in self._stirred:
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
        self._stirred.clear()
        self._deliver(texts)

    def subscribe(
        self,
        reader: Reader,
        channels: Iterable[Channel],
        symbols: Iterable[str],
    ) -> None:
        """Let a reader follow channels, and send it their present state.

        Everything that has happened must have been flushed.
        """
        wanted = [(s, c) for s in symbols for c in channels]
        self._follow(
            reader, self._follows.get(reader, frozenset()).union(wanted)
        )
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
        reader: Reader,
        channels: Iterable[Channel],
        symbols: Iterable[str],
    ) -> None:
        """Let a reader follow channels no more."""
        unwanted = [(s, c) for s in symbols for c in channels]
        self._follow(
            reader, self._follows.get(reader, frozenset()).difference(unwanted)
        )

    def drop(self, reader: Reader) -> None:
        """Forget a reader that is gone."""
        self._follow(reader, frozenset())

    def held(self, reader: Reader) -> dict[str, int]:
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

    def _is_followed(self, subscription: Subscription) -> bool:
        return any(subscription in follows for follows in self._groups)

    def _latest(self, reader: Reader) -> dict[str, int]:
        latest: dict[str, int] = {}
        for symbol, channel in sorted(self._follows.get(reader, ())):
            stream = self._stream(symbol)
            if channel == "book":
                latest[symbol] = stream.seq
            elif channel == "trades":
                if stream.trade_seq > self._since[reader][symbol]:
                    latest.setdefault(symbol, stream.trade_seq)
        return latest

    def _deliver(self, texts: dict[Subscription, list[str]]) -> None:
        """Hand texts to their readers; note who is slow, and what it has."""
        behind = self._behind
        # Of a symbol the trades, then the book that covers them.
        in_order = sorted(texts.items(), reverse=True)
        for follows, members in rotated(self._groups.items(), self._turn):
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
                if not reader.is_strained:
                    continue
                if reader.is_slow and reader not in behind:
                    behind[reader] = self._latest(reader)
            if behind:
                readers = [r for r in readers if r not in behind]
            self._hand_out(messages, readers)

    def _catch_up(self, reader: Reader) -> None:
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

    def _send_ticker(self, reader: Reader, symbol: str) -> None:
        """Send the ticker as it is; if it is news, others get it in time."""
        stream = self._stream(symbol)
        ticker = self._ticker(symbol)
        if stream.ticker is None:
            stream.ticker = ticker
        elif _values(ticker) != _values(stream.ticker):
            stream.is_ticker_due = True
        reader.send(encode(ticker))

    def _send_snapshot(self, reader: Reader, symbol: str) -> None:
        stream = self._stream(symbol)
        reader.send(self.snapshot(symbol, stream.seq))
        if reader in self._behind:
            self._behind[reader][symbol] = stream.snapshot[0]

    def _follow(
        self, reader: Reader, follows: frozenset[Subscription]
    ) -> None:
        """Move a reader to the group of those who follow the same."""
        before = self._follows.pop(reader, None)
        if before is not None:
            del self._groups[before][reader]
            if not self._groups[before]:
                del self._groups[before]
        if follows:
            self._follows[reader] = follows
            self._groups.setdefault(follows, {})[reader] = None
        else:
            self._behind.pop(reader, None)
            self._since.pop(reader, None)


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
