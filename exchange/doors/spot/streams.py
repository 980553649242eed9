"""Public streams: their names, who follows them, and what they carry.

The hub follows the books and trades that anybody follows, as a reader of the
feed without a socket. Each event is encoded once for all who follow it. What
a client with too much unread does not get of a book is merged into one wider
event, so that no change is missing in the end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from pydantic_core import from_json, to_json

from exchange.doors.spot.candles import INTERVALS, next_start
from exchange.doors.spot.common import Common
from exchange.doors.spot.errors import SHOWN, SpotError
from exchange.doors.spot.market import ms
from exchange.doors.spot.values import ZERO, Listed
from exchange.doors.websocket import frame
from exchange.gateway.feed import Feed
from exchange.gateway.link import Incoming, Link
from exchange.gateway.pacing import is_slow
from exchange.journal.history import Candle
from orderbook import Channel

TICK_S = 0.1  # from one look at what is due to the next
TICKS_PER_S = 10
STREAMS_MAX = 1_024  # of one connection
_DEPTH = re.compile(r"depth(5|10|20)?(@100ms|@1000ms)?")
_KLINE = re.compile(r"kline_(.+)")
ALL = {"!miniTicker@arr": "miniTicker", "!ticker@arr": "ticker"}
Kind: TypeAlias = Literal[
    "trade",
    "aggTrade",
    "depth",
    "levels",
    "bookTicker",
    "kline",
    "miniTicker",
    "ticker",
]
# Which channels of the feed a kind needs.
NEEDS: dict[Kind, tuple[Channel, ...]] = {
    "trade": ("trades",),
    "aggTrade": ("trades",),
    "depth": ("book",),
    "levels": ("book",),
    "bookTicker": ("book",),
}


@dataclass(frozen=True, slots=True)
class Stream:
    """What one name stands for. ``listed`` None: all symbols."""

    name: str
    kind: Kind
    listed: Listed | None
    levels: int = 0
    interval: str = ""
    ticks: int = TICKS_PER_S  # from one event to the next, of some kinds


@dataclass(slots=True)
class Changes:
    """The levels of a book that changed since ``before``."""

    before: int
    last: int
    bids: dict[int, int] = field(default_factory=dict)
    asks: dict[int, int] = field(default_factory=dict)

    def add(self, other: Changes) -> None:
        """Add what changed after this."""
        self.last = other.last
        self.bids |= other.bids
        self.asks |= other.asks


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
        self._tickers: dict[str, int] = {}  # by symbol, the seq last sent
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
        return known or self._read(text)

    def _read(self, text: str) -> Stream:
        if text in ALL:
            kind: Any = ALL[text]
            return Stream(text, kind, None)
        symbol, _, what = text.partition("@")
        listed = self._common.symbols.by_name.get(symbol.upper())
        if listed is None:
            raise _unknown(text)
        name = f"{listed.name.lower()}@{what}"
        if what in ("trade", "aggTrade", "bookTicker", "miniTicker", "ticker"):
            plain: Any = what
            return Stream(name, plain, listed)
        depth = _DEPTH.fullmatch(what)
        if depth is not None:
            ticks = 1 if depth[2] == "@100ms" else TICKS_PER_S
            if depth[1]:
                return Stream(
                    name, "levels", listed, int(depth[1]), ticks=ticks
                )
            return Stream(name, "depth", listed, ticks=ticks)
        kline = _KLINE.fullmatch(what)
        if kline is not None and kline[1] in INTERVALS:
            return Stream(name, "kline", listed, interval=kline[1])
        raise _unknown(text)

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
        base = trade["symbol"]
        listed = self._common.symbols.of[base]
        prefix = listed.name.lower()
        time = ms(trade["ts"])
        event: dict[str, Any] = {
            "e": "trade",
            "E": self._common.now_ms(),
            "s": listed.name,
            "t": trade["trade_id"],
            "p": listed.price(trade["price"]),
            "q": listed.qty(trade["qty"]),
            "T": time,
            "m": trade["side"] == "sell",
            "M": True,
        }
        self._publish(f"{prefix}@trade", event)
        name = f"{prefix}@aggTrade"
        if name in self._readers:
            number = event.pop("t")
            event = {"e": "aggTrade", "a": number} | {
                key: value for key, value in event.items() if key != "e"
            }
            event |= {"f": number, "l": number}
            self._publish(name, event)

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
        top = self._market.top(listed)
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
        price, qty = listed.price, listed.qty
        return {
            "e": "depthUpdate",
            "E": self._common.now_ms(),
            "s": listed.name,
            "U": changes.before + 1,
            "u": changes.last,
            "b": [[price(p), qty(q)] for p, q in changes.bids.items()],
            "a": [[price(p), qty(q)] for p, q in changes.asks.items()],
        }

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
            if self._tickers.get(base) != seq:
                self._tickers[base] = seq
                changed.append(listed)
        return changed

    def _ticker(self, listed: Listed, is_mini: bool) -> dict[str, Any]:
        day = self._market.day(listed)
        event = {
            "e": "24hrMiniTicker" if is_mini else "24hrTicker",
            "E": self._common.now_ms(),
            "s": listed.name,
            "c": day["lastPrice"],
            "o": day["openPrice"],
            "h": day["highPrice"],
            "l": day["lowPrice"],
            "v": day["volume"],
            "q": day["quoteVolume"],
        }
        if is_mini:
            return event
        return event | {
            "p": day["priceChange"],
            "P": day["priceChangePercent"],
            "w": day["weightedAvgPrice"],
            "x": day["prevClosePrice"],
            "Q": day["lastQty"],
            "b": day["bidPrice"],
            "B": day["bidQty"],
            "a": day["askPrice"],
            "A": day["askQty"],
            "O": day["openTime"],
            "C": day["closeTime"],
            "F": day["firstId"],
            "L": day["lastId"],
            "n": day["count"],
        }

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
            self._publish(name, self._kline(stream, row, is_closed))
        if rows:
            self._candles[name] = [*rows[-1]]

    def _kline(
        self, stream: Stream, row: Candle, is_closed: bool
    ) -> dict[str, Any]:
        listed = stream.listed
        assert listed is not None
        start, first, high, low, close, volume = row
        return {
            "e": "kline",
            "E": self._common.now_ms(),
            "s": listed.name,
            "k": {
                "t": ms(start),
                "T": ms(next_start(start, stream.interval)) - 1,
                "s": listed.name,
                "i": stream.interval,
                "f": -1,
                "L": -1,
                "o": listed.price(first),
                "c": listed.price(close),
                "h": listed.price(high),
                "l": listed.price(low),
                "v": listed.qty(volume),
                "n": 0,
                "x": is_closed,
                "q": listed.cost(close * volume),
                "V": ZERO,
                "Q": ZERO,
                "B": "0",
            },
        }

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


def _unknown(text: str) -> SpotError:
    return SpotError(2, f"Invalid request: no stream {text[:SHOWN]}")
