"""Public market data: events in, the same messages for many readers out.

The feed collects the trades of a batch of commands. `flush` returns the
messages for each reader: for each symbol the trades, then the ``BookUpdate``
with the net change. A message is encoded once. Readers with the same door and
the same subscriptions form a group that shares its bytes, and each reader is
the first to get them in turn.

A slow reader gets nothing until it has drained. Then one update covers the
changes of each book since, or a snapshot if they are too many, and trades
resume at the newest; it gets the busts that it missed, because nothing else
shows that it did.

The feed keeps no book: it asks for snapshots when everything that happened
has been flushed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeAlias, TypeVar

from exchange.gateway.pacing import Reader, is_slow
from orderbook import BookUpdate, Bust, Channel, Ticker, Trade, encode

# Updates of a book that are kept for slow readers, and levels of them that are
# merged for one reader. Beyond either, a snapshot is cheaper: it is made once
# for all readers.
UPDATES_KEPT = 1_000
LEVELS_MERGED = 2_000
BUSTS_KEPT = 100  # of each symbol, for slow readers

T = TypeVar("T")
Subscription: TypeAlias = tuple[str, Channel]  # symbol, channel


class Subscriber(Reader, Hashable, Protocol):
    """A reader that subscribes; hashable by identity."""

    @property
    def door(self) -> object:
        """What encodes its messages."""

    def send(self, text: str) -> None:
        """Queue one message."""


R = TypeVar("R", bound=Subscriber)
# Messages, and the readers with one door that get them.
Delivery: TypeAlias = tuple[list[str], list[R]]
# A door, and the subscriptions of the readers with that door.
Group: TypeAlias = tuple[object, frozenset[Subscription]]
NOTHING: frozenset[Subscription] = frozenset()


@dataclass(slots=True)
class _SymbolState:
    """The state of one symbol's channels."""

    seq: int = 0  # of the last update flushed
    trade_seq: int = 0  # of the last trade flushed
    trades: list[Trade | Bust] = field(default_factory=list)  # not yet flushed
    updates: deque[BookUpdate] = field(  # the last ones flushed
        default_factory=lambda: deque(maxlen=UPDATES_KEPT)
    )
    busts: deque[Bust] = field(  # the last ones recorded
        default_factory=lambda: deque(maxlen=BUSTS_KEPT)
    )
    snapshot: tuple[int, str] = (-1, "")  # the last one made: seq, text
    ticker: Ticker | None = None  # the last one published
    is_ticker_due: bool = False  # even if its values equal the last one's


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
    """The public channels of all symbols, and their readers.

    ``snapshot`` returns the whole book of a symbol, ``ticker`` its current
    ticker.
    """

    def __init__(
        self,
        snapshot: Callable[[str], BookUpdate],
        ticker: Callable[[str], Ticker],
    ) -> None:
        self._snapshot = snapshot
        self._ticker = ticker
        self._states: dict[str, _SymbolState] = {}
        self._marked: dict[str, None] = {}  # symbols whose ticker may differ
        self._follows: dict[R, frozenset[Subscription]] = {}
        # The seq of each symbol when a reader subscribed to its trades.
        self._since: dict[R, dict[str, int]] = {}
        self._groups: dict[Group, dict[R, None]] = {}
        # Symbols whose book or trades are followed; only they need updates.
        self.followed: Counter[str] = Counter()
        self._readers_of: Counter[Subscription] = Counter()
        # Slow readers, with the last seq that they got of each symbol.
        self._slow_readers: dict[R, dict[str, int]] = {}
        self._turn = 0  # counts flushes, to rotate readers

    def record(self, trade: Trade | Bust) -> None:
        """Add one trade, or that one was undone.

        It is flushed with the update that covers it.
        """
        if (trade.symbol, "trades") in self._readers_of:
            state = self._state(trade.symbol)
            state.trades.append(trade)
            if isinstance(trade, Bust):
                state.busts.append(trade)

    def flush(self, updates: Iterable[BookUpdate]) -> list[Delivery[R]]:
        """Return the trades recorded and these updates, with their readers.

        ``updates`` has one for each book that is `followed` and has changed
        since the last flush. Readers that are no longer slow get the changes
        since they became slow.
        """
        texts: dict[Subscription, list[str]] = {}
        deliveries: list[Delivery[R]] = []
        changed: list[tuple[_SymbolState, BookUpdate]] = []
        for update in updates:
            symbol = update.symbol
            state = self._state(symbol)
            changed.append((state, update))
            if state.trades:
                texts[symbol, "trades"] = [encode(t) for t in state.trades]
            if (symbol, "book") in self._readers_of:
                texts[symbol, "book"] = [encode(update)]
        if texts:
            self._turn += 1
            deliveries = self._deliver(texts)
        for state, update in changed:
            state.seq = update.seq
            if state.trades:
                state.trade_seq = state.trades[-1].seq
                state.trades.clear()
            state.updates.append(update)
        for reader in list(self._slow_readers):
            if not is_slow(reader):
                self._catch_up(reader)
        return deliveries

    def mark(self, symbols: Iterable[str]) -> None:
        """Let the next `flush_tickers` compare these tickers."""
        self._marked.update(dict.fromkeys(symbols))

    @property
    def has_slow_readers(self) -> bool:
        """Whether there are readers that were slow at the last flush."""
        return bool(self._slow_readers)

    @property
    def readers(self) -> int:
        """The number of readers."""
        return len(self._follows)

    def size(self) -> tuple[int, ...]:
        """Return the numbers of subscriptions, groups and slow readers."""
        subscriptions = sum(map(len, self._follows.values()))
        return subscriptions, len(self._groups), len(self._slow_readers)

    @property
    def is_ticker_due(self) -> bool:
        """Whether a ticker may have changed since `flush_tickers`."""
        return bool(self._marked)

    def flush_tickers(self) -> list[Delivery[R]]:
        """Return the tickers that changed, with their readers.

        Call it as often as a ticker may be sent.
        """
        texts: dict[Subscription, list[str]] = {}
        for symbol in self._marked:
            state = self._state(symbol)
            ticker, last = self._ticker(symbol), state.ticker
            if (
                last is None
                or state.is_ticker_due
                or _values(ticker) != _values(last)
            ):
                state.ticker = ticker
                state.is_ticker_due = False
                texts[symbol, "ticker"] = [encode(ticker)]
        self._marked.clear()
        return self._deliver(texts)

    def subscribe(
        self,
        reader: R,
        channels: Iterable[Channel],
        symbols: Mapping[str, int],
    ) -> None:
        """Let a reader follow channels, and send it their current state.

        ``symbols`` has the seq of each book. Everything that happened must
        have been flushed.
        """
        for symbol, seq in symbols.items():
            self._state(symbol).seq = seq
        wanted = [(s, c) for s in symbols for c in channels]
        self._follow(reader, self._follows.get(reader, NOTHING).union(wanted))
        for symbol, channel in dict.fromkeys(wanted):
            if channel == "book":
                self._send_snapshot(reader, symbol)
            elif channel == "ticker":
                self._send_ticker(reader, symbol)
            else:
                since = self._since.setdefault(reader, {})
                since[symbol] = self._state(symbol).seq

    def unsubscribe(
        self,
        reader: R,
        channels: Iterable[Channel],
        symbols: Iterable[str],
    ) -> None:
        """Let a reader no longer follow channels."""
        unwanted = [(s, c) for s in symbols for c in channels]
        self._follow(
            reader, self._follows.get(reader, NOTHING).difference(unwanted)
        )

    def drop(self, reader: R) -> None:
        """Forget a reader that is gone."""
        self._follow(reader, NOTHING)

    def last_seqs(self, reader: R) -> dict[str, int]:
        """Return the last ``seq`` sent to a reader, by symbol."""
        sent = self._slow_readers.get(reader, {})
        return {
            symbol: sent.get(symbol, seq)
            for symbol, seq in self._current_seqs(reader).items()
        }

    def snapshot(self, symbol: str, seq: int) -> str:
        """Return the whole book at ``seq``, encoded once for all readers."""
        state = self._state(symbol)
        if state.snapshot[0] != seq:
            snapshot = self._snapshot(symbol)
            state.snapshot = (snapshot.seq, encode(snapshot))
        return state.snapshot[1]

    # Within

    def _state(self, symbol: str) -> _SymbolState:
        state = self._states.get(symbol)
        if state is None:
            state = self._states[symbol] = _SymbolState()
        return state

    def _current_seqs(self, reader: R) -> dict[str, int]:
        seqs: dict[str, int] = {}
        for symbol, channel in sorted(self._follows.get(reader, ())):
            state = self._state(symbol)
            if channel == "book":
                seqs[symbol] = state.seq
            elif channel == "trades":
                if state.trade_seq > self._since[reader][symbol]:
                    seqs.setdefault(symbol, state.trade_seq)
        return seqs

    def _deliver(
        self, texts: dict[Subscription, list[str]]
    ) -> list[Delivery[R]]:
        """Return texts with their readers; note readers that are slow now."""
        slow = self._slow_readers
        deliveries: list[Delivery[R]] = []
        # For each symbol the trades, then the book that covers them.
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
                if is_slow(reader) and reader not in slow:
                    slow[reader] = self._current_seqs(reader)
            if slow:
                readers = [r for r in readers if r not in slow]
            deliveries.append((messages, readers))
        return deliveries

    def _catch_up(self, reader: R) -> None:
        """Send a reader that was slow the changes since."""
        sent = self._slow_readers.pop(reader)
        for symbol, channel in sorted(self._follows[reader]):
            state = self._state(symbol)
            if channel == "ticker":
                self._send_ticker(reader, symbol)
            if channel == "trades":
                last = sent.get(symbol, self._since[reader][symbol])
                for bust in state.busts:
                    if bust.seq > last:
                        reader.send(encode(bust))
            if channel != "book" or state.seq == sent[symbol]:
                continue
            updates = [u for u in state.updates if u.seq > sent[symbol]]
            levels = sum(len(u.bids) + len(u.asks) for u in updates)
            is_known = updates[0].prev_seq == sent[symbol]
            if is_known and levels <= LEVELS_MERGED:
                reader.send(encode(merge(updates)))
            else:
                self._send_snapshot(reader, symbol)

    def _send_ticker(self, reader: R, symbol: str) -> None:
        """Send the current ticker; if it changed, others get it later."""
        state = self._state(symbol)
        ticker = self._ticker(symbol)
        if state.ticker is None:
            state.ticker = ticker
        elif _values(ticker) != _values(state.ticker):
            state.is_ticker_due = True
        reader.send(encode(ticker))

    def _send_snapshot(self, reader: R, symbol: str) -> None:
        state = self._state(symbol)
        reader.send(self.snapshot(symbol, state.seq))
        if reader in self._slow_readers:
            self._slow_readers[reader][symbol] = state.snapshot[0]

    def _follow(self, reader: R, follows: frozenset[Subscription]) -> None:
        """Move a reader to the group with these subscriptions."""
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
            self._slow_readers.pop(reader, None)
            self._since.pop(reader, None)

    def _count(self, changed: Iterable[Subscription], by: int) -> None:
        """Count readers that began (1) or stopped (-1) to follow."""
        for symbol, channel in changed:
            self._readers_of[symbol, channel] += by
            if not self._readers_of[symbol, channel]:
                del self._readers_of[symbol, channel]
                if channel == "trades":
                    self._state(symbol).trades.clear()
            if channel != "ticker":
                self.followed[symbol] += by
                if not self.followed[symbol]:
                    del self.followed[symbol]


def rotated(items: Iterable[T], turn: int) -> list[T]:
    """Return items in a rotation, which differs from turn to turn."""
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
