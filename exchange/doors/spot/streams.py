"""Public streams: their names, who follows them, and what they carry.

The hub follows the books and trades that anybody follows, as a reader of the
feed without a socket. Each event is encoded once for all who follow it. What
a client with too much unread does not get of a book is merged into one wider
event, so that no change is missing in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from pydantic_core import from_json, to_json

from exchange.doors.spot.candles import INTERVALS
from exchange.doors.spot.common import Common
from exchange.doors.spot.errors import SpotError
from exchange.doors.spot.events import (
    Changes,
    aggregate_event,
    depth_event,
    kline_event,
    ticker_event,
    trade_event,
)
from exchange.doors.spot.stream_names import (
    NEEDS,
    TICKS_PER_S,
    Stream,
    read_stream,
)
from exchange.doors.spot.values import Listed
from exchange.doors.websocket import frame
from exchange.gateway.feed import Feed
from exchange.gateway.link import Incoming, Link
from exchange.gateway.pacing import is_slow
from exchange.journal.candles import Candle

TICK_S = 0.1  # from one look at what is due to the next
STREAMS_MAX = 1_024  # of one connection


class Reader(Protocol):
    """A connection that follows streams."""

    behind: dict[str, Changes]  # by stream, of a book: what it did not get
    may_be_slow: bool
    sealed_bytes: int
    is_combined: bool  # events are told with the name of their stream

    @property
    def peer(self) -> Any:
        """Its connection."""

    def push(self, frames: bytes) -> None:
        """Queue bytes."""


class _NoSocket:
    """The peer of a link that writes nothing."""

    is_paused = is_congested = False
    buffered = 0

    def write(self, frames: bytes) -> None:
        """Drop bytes."""

    def close(self, code: int, reason: str = "") -> None:
        """Do nothing."""

    def fail(self, code: int, reason: str = "") -> None:
        """Do nothing."""

    def resume_reading(self) -> None:
        """Do nothing."""


class Hub(Link):
    """All public streams of one exchange. It is its own door."""

    def __init__(self, common: Common, feed: Feed[Link]) -> None:
        super().__init__(_NoSocket(), self, common.outbox.links)
        self.is_gone = True  # nothing is written to it
        self.may_be_slow = False
        self._common = common
        self._market = common.market
        self._tickers = common.tickers
        self._feed = feed
        self._streams: dict[str, Stream] = {}
        self._readers: dict[str, dict[Reader, None]] = {}
        self._of: dict[Reader, dict[str, None]] = {}
        # By symbol: the names of streams that its events go to.
        self._names: dict[str, dict[str, None]] = {}
        self._pending: dict[str, Changes] = {}  # by name, of books
        self._dirty: dict[str, None] = {}  # names with levels to send
        self._tops: dict[str, tuple[Any, ...]] = {}
        self._candles: dict[str, Candle] = {}  # by name, the last one sent
        self._told: dict[str, int] = {}  # by symbol, the seq of its ticker
        self._slow: dict[Reader, None] = {}
        self._ticks = 0

    # Who follows what --------------------------------------------------------

    @property
    def followed(self) -> int:
        """The number of streams that connections follow, each counted."""
        return sum(map(len, self._of.values()))

    def read(self, text: str) -> Stream:
        """Return the stream of a name; raises SpotError."""
        known = self._streams.get(text)
        return known or read_stream(text, self._common.symbols)

    def follow(self, reader: Reader, stream: Stream) -> None:
        """Let a reader follow a stream; nothing if it does."""
        names = self._of.get(reader, {})
        if stream.name in names:
            return
        if len(names) >= STREAMS_MAX:
            raise SpotError(
                2, f"a connection may follow {STREAMS_MAX} streams"
            )
        self._of[reader] = names
        names[stream.name] = None
        if stream.name not in self._readers:
            self._open(stream)
        self._readers[stream.name][reader] = None
        self._begin(reader, stream)

    def unfollow(self, reader: Reader, stream: Stream) -> None:
        """Undo `follow`; nothing if it does not."""
        names = self._of.get(reader)
        if names is None or stream.name not in names:
            return
        del names[stream.name]
        if not names:
            del self._of[reader]
        reader.behind.pop(stream.name, None)
        readers = self._readers[stream.name]
        del readers[reader]
        if not readers:
            self._close(stream)

    def drop(self, reader: Reader) -> None:
        """Forget a reader that is gone."""
        for name in list(self._of.get(reader, ())):
            self.unfollow(reader, self._streams[name])
        self._slow.pop(reader, None)

    def _open(self, stream: Stream) -> None:
        """Begin to follow what a stream needs."""
        self._readers[stream.name] = {}
        self._streams[stream.name] = stream
        if stream.listed is None:
            return
        base = stream.listed.base
        names = self._names.setdefault(base, {})
        self._common.publish()  # what happened before is not of this stream
        seq = self._common.engine.listings[base].seq
        channels = NEEDS.get(stream.kind, ())
        if channels:
            self._feed.subscribe(self, channels, {base: seq})
        names[stream.name] = None
        if stream.kind == "depth":
            self._pending[stream.name] = Changes(seq, seq)

    def _close(self, stream: Stream) -> None:
        """Stop following what only this stream needed."""
        del self._readers[stream.name], self._streams[stream.name]
        self._pending.pop(stream.name, None)
        self._dirty.pop(stream.name, None)
        self._candles.pop(stream.name, None)
        self._tops.pop(stream.name, None)
        if stream.listed is None:
            return
        base = stream.listed.base
        names = self._names[base]
        del names[stream.name]
        needed = {
            channel
            for name in names
            for channel in NEEDS.get(self._streams[name].kind, ())
        }
        for channel in NEEDS.get(stream.kind, ()):
            if channel not in needed:
                self._feed.unsubscribe(self, [channel], [base])
        if not names:
            del self._names[base]

    def _begin(self, reader: Reader, stream: Stream) -> None:
        """Send the state that a stream of whole states begins with."""
        listed = stream.listed
        if listed is None:
            return
        if stream.kind == "levels":
            self._send(reader, stream.name, self._levels(stream, listed))
        elif stream.kind == "bookTicker":
            self._send(reader, stream.name, self._top(listed))

    def _send(self, reader: Reader, name: str, event: Any) -> None:
        text = to_json(event)
        reader.push(_framed(name, text, reader.is_combined))

    # As a reader of the feed -------------------------------------------------

    def decode(self, message: bytes) -> Sequence[Incoming]:
        """Never called: nobody sends anything to the hub."""
        raise AssertionError(message)

    def send(self, *texts: str) -> None:
        """Drop snapshots: clients fetch their own."""

    def encode(self, texts: list[str]) -> bytes:
        """Publish what the feed brought; write nothing itself."""
        for text in texts:
            if text.startswith('{"type":"trade"'):
                self._traded(from_json(text))
            elif text.startswith('{"type":"book"'):
                self._changed(from_json(text))
        return b""

    def _traded(self, trade: dict[str, Any]) -> None:
        listed = self._common.symbols.of[trade["symbol"]]
        prefix = listed.name.lower()
        event = trade_event(listed, trade, self._common.now_ms())
        self._publish(f"{prefix}@trade", event)
        name = f"{prefix}@aggTrade"
        if name in self._readers:
            self._publish(name, aggregate_event(event))

    def _changed(self, update: dict[str, Any]) -> None:
        base = update["symbol"]
        listed = self._common.symbols.of[base]
        before = update.get("prev_seq")
        for name in self._names.get(base, ()):
            stream = self._streams[name]
            if stream.kind == "depth" and before is not None:
                changes = Changes(
                    before,
                    update["seq"],
                    dict(update["bids"]),
                    dict(update["asks"]),
                )
                if name in self._pending:
                    self._pending[name].add(changes)
            elif stream.kind == "levels":
                self._dirty[name] = None
            elif stream.kind == "bookTicker":
                top = self._top(listed)
                values = (top["b"], top["B"], top["a"], top["A"])
                if values != self._tops.get(name):
                    self._tops[name] = values
                    self._publish(name, top)

    def _top(self, listed: Listed) -> dict[str, Any]:
        top = self._tickers.top(listed)
        return {
            "u": self._common.engine.listings[listed.base].seq,
            "s": listed.name,
            "b": top["bidPrice"],
            "B": top["bidQty"],
            "a": top["askPrice"],
            "A": top["askQty"],
        }

    def _levels(self, stream: Stream, listed: Listed) -> dict[str, Any]:
        return self._market.book(listed, stream.levels)

    # By time -----------------------------------------------------------------

    def tick(self) -> None:
        """Send what is due; to be called every TICK_S."""
        self._ticks += 1
        for reader in [r for r in self._slow if not is_slow(r)]:
            del self._slow[reader]
            behind, reader.behind = reader.behind, {}
            for name, changes in behind.items():
                listed = self._streams[name].listed
                assert listed is not None
                self._send(reader, name, self._depth(listed, changes))
            for name in self._of.get(reader, ()):
                self._begin(reader, self._streams[name])
        is_second = self._ticks % TICKS_PER_S == 0
        for name in [*self._dirty]:
            stream = self._streams[name]
            if is_second or stream.ticks == 1:
                del self._dirty[name]
                assert stream.listed is not None
                self._publish(name, self._levels(stream, stream.listed))
        for name, changes in self._pending.items():
            stream = self._streams[name]
            if changes.last > changes.before and (
                is_second or stream.ticks == 1
            ):
                self._pending[name] = Changes(changes.last, changes.last)
                assert stream.listed is not None
                event = self._depth(stream.listed, changes)
                self._publish(name, event, changes)
        if is_second:
            self._every_second()

    def _depth(self, listed: Listed, changes: Changes) -> dict[str, Any]:
        return depth_event(listed, changes, self._common.now_ms())

    def _every_second(self) -> None:
        changed = self._changed_tickers()
        for name, stream in [*self._streams.items()]:
            if stream.kind == "kline":
                self._tell_candles(name, stream)
            elif stream.kind in ("miniTicker", "ticker"):
                listed = stream.listed
                is_mini = stream.kind == "miniTicker"
                if listed is None:
                    rows = [self._ticker(one, is_mini) for one in changed]
                    if rows:
                        self._publish(name, rows)
                elif listed in changed:
                    self._publish(name, self._ticker(listed, is_mini))

    def _changed_tickers(self) -> list[Listed]:
        """Return the symbols that changed since the last second."""
        changed: list[Listed] = []
        for base, listed in self._common.symbols.of.items():
            seq = self._common.engine.listings[base].seq
            if self._told.get(base) != seq:
                self._told[base] = seq
                changed.append(listed)
        return changed

    def _ticker(self, listed: Listed, is_mini: bool) -> dict[str, Any]:
        day = self._tickers.day(listed)
        return ticker_event(day, is_mini, self._common.now_ms())

    def _tell_candles(self, name: str, stream: Stream) -> None:
        """Send the running candle if it changed, and those that closed."""
        assert stream.listed is not None
        last = self._candles.get(name)
        rows = self._market.last_candles(stream.listed, stream.interval, 2)
        if last is not None and rows and rows[0][0] > last[0]:
            missed = (rows[-1][0] - last[0]) // INTERVALS[stream.interval][0]
            rows = self._market.last_candles(
                stream.listed, stream.interval, min(missed + 2, 1_000)
            )
        for index, row in enumerate(rows):
            is_closed = index < len(rows) - 1
            if last is not None and row[0] < last[0]:
                continue
            if last is None and is_closed or not is_closed and row == last:
                continue
            event = kline_event(
                stream.listed,
                stream.interval,
                row,
                is_closed,
                self._common.now_ms(),
            )
            self._publish(name, event)
        if rows:
            self._candles[name] = [*rows[-1]]

    def _publish(
        self, name: str, event: Any, changes: Changes | None = None
    ) -> None:
        """Send an event to all who follow a stream, encoded once."""
        readers = self._readers.get(name)
        if not readers:
            return
        text = to_json(event)
        frames: dict[bool, bytes] = {}
        for reader in readers:
            if reader in self._slow or (
                reader.may_be_slow and is_slow(reader)
            ):
                self._slow[reader] = None
                if changes is not None:
                    known = reader.behind.get(name)
                    if known is None:
                        reader.behind[name] = Changes(
                            changes.before,
                            changes.last,
                            {**changes.bids},
                            {**changes.asks},
                        )
                    else:
                        known.add(changes)
                continue
            is_combined = reader.is_combined
            if is_combined not in frames:
                frames[is_combined] = _framed(name, text, is_combined)
            reader.push(frames[is_combined])


def _framed(name: str, text: bytes, is_combined: bool) -> bytes:
    if is_combined:
        text = b'{"stream":"%s","data":%s}' % (name.encode(), text)
    return frame(text)
