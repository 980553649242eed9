"""Public market data: events in, the same bytes for all readers out.

The feed gathers the trades and book changes of a batch of commands, and
`flush` hands each reader what it subscribed to: for each symbol the trades,
then one ``BookUpdate`` with the net change. A message is encoded once, its
frames are made once for all readers of the same subscriptions, and no
reader is always the first to get them.

A slow reader gets nothing until it has drained. Then one update covers what
it missed of each book, or a snapshot where too much has happened since, and
trades resume at the newest.

The feed keeps no book: snapshots come from the one who owns the books, at
moments when everything recorded has been flushed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol, TypeAlias

from orderbook import BookUpdate, Channel, Ticker, Trade, encode

# Changes of a book kept to cover what slow readers missed. For one who
# missed more, a snapshot is cheaper.
CHANGES_KEPT = 1_000

Subscription: TypeAlias = tuple[str, Channel]  # symbol, channel


class Reader(Protocol):
    """Whom the feed writes to; hashable by identity."""

    @property
    def is_slow(self) -> bool:
        """Whether too much already waits to be read."""

    def push(self, frames: Iterable[bytes]) -> None:
        """Queue ready frames."""

    def send(self, text: str) -> None:
        """Queue one message."""


@dataclass(slots=True)
class _Stream:
    """The public events of one symbol."""

    seq: int = 0  # of the last update flushed
    trade_seq: int = 0  # of the last trade flushed
    trades: list[Trade] = field(default_factory=list)  # not yet flushed
    updates: list[BookUpdate] = field(default_factory=list)  # likewise
    past: deque[BookUpdate] = field(
        default_factory=lambda: deque(maxlen=CHANGES_KEPT)
    )
    snapshot: tuple[int, str] = (-1, "")  # seq, text: made once for many
    ticker: Ticker | None = None  # the last one published


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
    now; ``make_frames`` turns messages into the frames that carry them.
    """

    def __init__(
        self,
        snapshot: Callable[[str], BookUpdate],
        ticker: Callable[[str], Ticker],
        make_frames: Callable[[list[str]], list[bytes]],
    ) -> None:
        self._snapshot = snapshot
        self._ticker = ticker
        self._make_frames = make_frames
        self._streams: dict[str, _Stream] = {}
        self._pending: dict[str, None] = {}  # symbols with unflushed events
        self._stirred: dict[str, None] = {}  # with events since their ticker
        self._follows: dict[Reader, frozenset[Subscription]] = {}
        self._groups: dict[frozenset[Subscription], dict[Reader, None]] = {}
        # Slow readers, with the seq they hold of each symbol.
        self._behind: dict[Reader, dict[str, int]] = {}
        self._turn = 0

    def record(self, event: Trade | BookUpdate) -> None:
        """Take in one public event of the engine."""
        stream = self._stream(event.symbol)
        if isinstance(event, Trade):
            stream.trades.append(event)
        else:
            stream.updates.append(event)
        self._pending[event.symbol] = None

    def flush(self) -> None:
        """Hand every reader what was recorded since the last flush."""
        if not self._pending:
            return
        texts: dict[Subscription, list[str]] = {}
        followed = {sub for group in self._groups for sub in group}
        for symbol in self._pending:
            stream = self._streams[symbol]
            if (symbol, "trades") in followed:
                texts[symbol, "trades"] = list(map(encode, stream.trades))
            if (symbol, "book") in followed:
                texts[symbol, "book"] = [encode(merge(stream.updates))]
        late = self._deliver(texts)
        for symbol in self._pending:
            stream = self._streams[symbol]
            stream.seq = stream.updates[-1].seq
            if stream.trades:
                stream.trade_seq = stream.trades[-1].seq
            stream.past.extend(stream.updates)
            stream.trades.clear()
            stream.updates.clear()
        self._stirred |= self._pending
        self._pending.clear()
        for reader in late:
            self.catch_up(reader)

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
            ticker = self._ticker(symbol)
            last = self._stream(symbol).ticker
            if last is None or _values(ticker) != _values(last):
                self._stream(symbol).ticker = ticker
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

        Everything recorded must have been flushed.
        """
        assert not self._pending
        wanted = [(s, c) for s in symbols for c in channels]
        self._follow(
            reader, self._follows.get(reader, frozenset()).union(wanted)
        )
        for symbol, channel in dict.fromkeys(wanted):
            if channel == "book":
                self._send_snapshot(reader, symbol)
            elif channel == "ticker":
                reader.send(encode(self._ticker(symbol)))

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

    def catch_up(self, reader: Reader) -> None:
        """Send a reader that was slow, and has drained, what it missed."""
        if reader not in self._behind or reader.is_slow:
            return
        follows = self._follows[reader]
        for symbol, held in self._behind.pop(reader).items():
            stream = self._streams[symbol]
            if (symbol, "ticker") in follows and stream.ticker:
                reader.send(encode(stream.ticker))
            if (symbol, "book") not in follows or stream.seq == held:
                continue
            missed = stream.seq - held
            if missed > len(stream.past):
                self._send_snapshot(reader, symbol)
                continue
            start = len(stream.past) - missed
            reader.send(encode(merge(list(islice(stream.past, start, None)))))

    def held(self, reader: Reader) -> dict[str, int]:
        """Return the last ``seq`` sent to a reader, by symbol."""
        if reader in self._behind:
            return dict(self._behind[reader])
        return self._latest(reader)

    # Within

    def _stream(self, symbol: str) -> _Stream:
        stream = self._streams.get(symbol)
        if stream is None:
            stream = self._streams[symbol] = _Stream()
        return stream

    def _latest(self, reader: Reader) -> dict[str, int]:
        latest: dict[str, int] = {}
        for symbol, channel in sorted(self._follows.get(reader, ())):
            stream = self._stream(symbol)
            if channel == "book":
                latest[symbol] = stream.seq
            elif channel == "trades":
                latest.setdefault(symbol, stream.trade_seq)
        return latest

    def _deliver(self, texts: dict[Subscription, list[str]]) -> list[Reader]:
        """Push texts to their readers; return those that drained meanwhile.

        A reader that is slow is noted as behind, with what it holds.
        """
        late: list[Reader] = []
        self._turn += 1
        for follows, readers in self._groups.items():
            # Of a symbol the trades, then the book that covers them.
            messages = [
                text
                for subscription in sorted(follows, reverse=True)
                for text in texts.get(subscription, ())
            ]
            if not messages:
                continue
            frames = self._make_frames(messages)
            order = list(readers)
            first = self._turn % len(order)
            for reader in order[first:] + order[:first]:
                if reader in self._behind:
                    late.append(reader)
                elif reader.is_slow:
                    self._behind[reader] = self._latest(reader)
                else:
                    reader.push(frames)
        return late

    def _send_snapshot(self, reader: Reader, symbol: str) -> None:
        stream = self._stream(symbol)
        snapshot = self._snapshot(symbol)
        stream.seq = snapshot.seq
        if stream.snapshot[0] != snapshot.seq:
            stream.snapshot = (snapshot.seq, encode(snapshot))
        reader.send(stream.snapshot[1])
        if reader in self._behind:
            self._behind[reader][symbol] = snapshot.seq

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


def _values(ticker: Ticker) -> tuple[object, ...]:
    return (
        ticker.bid,
        ticker.bid_qty,
        ticker.ask,
        ticker.ask_qty,
        ticker.last,
        ticker.volume,
    )
