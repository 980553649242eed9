"""The public channels: who gets what, in which order, and who is late.

``Market`` stands for those who own the books: it has a level for each price,
and no orders. ``Reader`` keeps what it was told, in short::

    trade BOND 2 #1                 seq 2, trade id 1
    book BOND 1-2 99=5 | 101=0      from seq 1 to seq 2: bids | asks
    book BOND 2 99=5 | 102=7        a snapshot
    ticker BOND 99 102 last=100
"""

from __future__ import annotations

import gc
import random
import weakref
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.gateway import feed as feed_module
from exchange.gateway.feed import Feed, merge
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

SYMBOLS = ("BOND", "ETF")
Levels = dict[int, int]


class Book:
    """The levels of one symbol, and what has changed in them."""

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
        """Let what happened be known, as the gateway does."""
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
    """One who reads, if not always at once."""

    def __init__(self, market: Market, *channels: Channel) -> None:
        self.peer = Peer()
        self.held = 0
        self.is_strained = True
        self.door = None
        self.lots: list[list[str]] = []  # each that was pushed
        self.events: list[Event] = []
        self.feed = market.feed
        self.books = market.books
        if channels:
            self.subscribe(*channels)
            self.events.clear()

    @property
    def is_slow(self) -> bool:
        return self.held > 0

    @is_slow.setter
    def is_slow(self, is_slow: bool) -> None:
        self.held = SLOW_BYTES + 1 if is_slow else 0

    def subscribe(self, *channels: Channel, symbol: str = "BOND") -> None:
        seq = self.books[symbol].seq
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
        """Return what was told since the last call, in short."""
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


# Subscriptions ------------------------------------------------------------


def test_a_reader_gets_what_it_follows_and_nothing_else() -> None:
    market = Market()
    reader = Reader(market)
    books = Reader(market, "book")
    trades = Reader(market, "trades")
    etfs = Reader(market)
    etfs.subscribe("trades", symbol="ETF")
    market.ask(101, 5)
    market.trade(101)
    market.flush()
    assert reader.news() == etfs.news() == []
    assert books.news() == ["book BOND 0-2 | 101=4"]
    assert trades.news() == ["trade BOND 2 #1"]


def test_a_snapshot_comes_first_and_updates_follow_on_it() -> None:
    market = Market()
    market.bid(99, 5)
    market.ask(101, 5)
    market.flush()
    reader = Reader(market)
    reader.subscribe("book", "trades")
    assert reader.news() == ["book BOND 2 99=5 | 101=5"]
    market.bid(99, 7)
    market.flush()
    assert reader.news() == ["book BOND 2-3 99=7 |"]


def test_a_book_nothing_ever_happened_to_has_a_snapshot() -> None:
    reader = Reader(Market())
    reader.subscribe("book")
    assert reader.news() == ["book BOND 0 |"]


def test_subscribing_again_gives_a_new_snapshot_and_nothing_twice() -> None:
    market = Market()
    reader = Reader(market, "book")
    market.bid(99, 5)
    market.flush()
    reader.news()
    reader.subscribe("book", "book")
    reader.subscribe("trades")
    assert reader.news() == ["book BOND 1 99=5 |"]
    market.bid(98, 5)
    market.flush()
    assert reader.news() == ["book BOND 1-2 98=5 |"]


def test_channels_are_left_one_by_one() -> None:
    market = Market()
    reader = Reader(market, "book", "trades")
    reader.unsubscribe("book", "ticker")
    market.trade(101)
    market.flush()
    assert reader.news() == ["trade BOND 1 #1"]
    reader.unsubscribe("trades")
    reader.unsubscribe("trades")
    market.trade(101)
    market.flush()
    assert reader.news() == []


def test_a_reader_that_is_gone_gets_nothing() -> None:
    market = Market()
    reader, stays = Reader(market, "book"), Reader(market, "book")
    market.feed.drop(reader)
    market.feed.drop(reader)
    market.bid(99, 5)
    market.flush()
    assert reader.news() == [] and stays.news()
    assert market.feed.held(reader) == {}


def test_a_reader_that_is_gone_is_not_kept() -> None:
    market = Market()
    reader = Reader(market, "book", "trades", "ticker")
    reader.is_slow = True
    market.trade(101)
    market.flush()
    market.feed.drop(reader)
    known = weakref.ref(reader)
    del reader
    gc.collect()
    assert known() is None


def test_a_slow_reader_that_is_gone_is_not_written_to() -> None:
    market = Market()
    reader = Reader(market, "book")
    reader.is_slow = True
    market.bid(99, 5)
    market.flush()
    market.feed.drop(reader)
    reader.is_slow = False
    market.bid(99, 6)
    market.flush()
    assert reader.news() == []


# Order and encoding -------------------------------------------------------


def test_trades_come_before_the_book_that_covers_them() -> None:
    market = Market()
    reader = Reader(market, "book", "trades", "ticker")
    reader.subscribe("trades", "book", symbol="ETF")
    reader.news()
    market.ask(101, 5, "ETF")
    market.ask(101, 5)
    market.trade(101)
    market.trade(101)
    market.trade(101, "ETF")
    market.flush()
    news = reader.news()
    for symbol, expected in {
        "BOND": ["trade 2 #1", "trade 3 #2", "book 0-3 | 101=3"],
        "ETF": ["trade 2 #1", "book 0-2 | 101=4"],
    }.items():
        mine = [line.split() for line in news if symbol in line]
        assert [f"{a} {' '.join(more)}" for a, _, *more in mine] == expected


def test_readers_of_the_same_share_the_same_frames() -> None:
    market = Market()
    readers = [Reader(market, "book", "trades") for _ in range(3)]
    also = Reader(market, "trades")
    also.subscribe("book")
    other = Reader(market, "book")
    market.trade(101)
    market.flush()
    (lot,) = readers[0].lots
    for reader in [*readers[1:], also]:
        assert reader.lots[0] is lot
    assert other.lots[0] is not lot
    assert len(market.framed) == 2, "one for each set of subscriptions"


def test_a_message_is_encoded_once_for_all() -> None:
    market = Market()
    Reader(market, "book", "trades")
    Reader(market, "book")
    market.trade(101)
    market.flush()
    (_, in_both), (alone,) = sorted(market.framed, key=len, reverse=True)
    assert in_both is alone


def test_a_snapshot_is_encoded_once_for_many() -> None:
    market = Market()
    sent: list[str] = []

    class Keeper(Reader):
        def send(self, text: str) -> None:
            sent.append(text)

    for _ in range(2):
        Keeper(market).subscribe("book")
    assert market.feed.snapshot("BOND", 0) is sent[0]
    market.bid(99, 5)
    market.flush()
    Keeper(market).subscribe("book")
    assert sent[0] is sent[1] and sent[1] != sent[2]


def firsts(market: Market, *readers: Reader, tickers: bool) -> set[int]:
    """Return which readers were ever the first to get an update."""
    order: list[int] = []
    for number, reader in enumerate(readers):

        def push(texts: list[str], number: int = number) -> None:
            order.append(number)

        reader.push = push  # type: ignore[method-assign]
    found = set()
    for qty in range(1, 7):
        market.bid(99, qty)
        order.clear()
        market.flush()
        found.add(order[0])
        assert sorted(order) == list(range(len(readers)))
        if tickers:
            market.flush_tickers()
    return found


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("tickers", [False, True])
def test_nobody_is_always_the_first(count: int, tickers: bool) -> None:
    market = Market()
    readers = [Reader(market, "book") for _ in range(count)]
    found = firsts(market, *readers, tickers=tickers)
    assert found == set(range(count))


def test_what_else_one_follows_does_not_make_one_the_first() -> None:
    market = Market()
    readers = Reader(market, "book"), Reader(market, "book", "trades")
    assert firsts(market, *readers, tickers=False) == {0, 1}


def test_a_flush_of_nothing_tells_nothing() -> None:
    market = Market()
    reader = Reader(market, "book", "trades", "ticker")
    market.flush()
    market.flush_tickers()
    assert reader.news() == [] and not market.framed


def test_nothing_is_kept_for_those_who_come_later() -> None:
    market = Market()
    market.trade(101)
    market.flush()
    reader = Reader(market, "book", "trades")
    market.bid(99, 5)
    market.flush()
    assert reader.news() == ["book BOND 1-2 99=5 |"]


# Merging ------------------------------------------------------------------


def update(seq: int, bids: Levels, asks: Levels) -> BookUpdate:
    return BookUpdate(
        symbol="BOND", seq=seq, prev_seq=seq - 1, ts=seq, **sides(bids, asks)
    )


def test_merged_updates_are_the_net_change() -> None:
    merged = merge(
        [
            update(3, {99: 5, 98: 1}, {101: 7}),
            update(4, {99: 0}, {}),
            update(5, {97: 2}, {100: 4, 101: 0}),
        ]
    )
    assert short(merged) == "book BOND 2-5 99=0 98=1 97=2 | 100=4 101=0"
    assert merged.ts == 5 and not merged.snapshot


def test_one_update_is_merged_as_it_is() -> None:
    only = update(3, {99: 5}, {})
    assert merge([only]) == only


# Slow readers -------------------------------------------------------------


def test_a_slow_reader_gets_nothing_and_then_one_update_of_it_all() -> None:
    market = Market()
    reader = Reader(market, "book", "trades")
    quick = Reader(market, "book", "trades")
    market.bid(99, 5)
    market.flush()
    assert reader.news() == ["book BOND 0-1 99=5 |"]
    reader.is_slow = True
    for price in (101, 102):
        market.ask(price, 1)
        market.flush()
        market.trade(price)
        market.flush()
    assert reader.news() == []
    reader.is_slow = False
    market.bid(99, 6)
    market.flush()
    assert reader.news() == ["book BOND 1-6 99=6 | 101=0 102=0"]
    market.trade(103)
    market.flush()
    assert reader.news() == ["trade BOND 7 #3", "book BOND 6-7 | 103=0"]
    assert len(quick.news()) == 10


def test_one_who_has_drained_need_not_wait_for_news() -> None:
    market = Market()
    reader = Reader(market, "book")
    reader.is_slow = True
    market.bid(99, 5)
    market.flush()
    reader.is_slow = False
    market.flush()
    assert reader.news() == ["book BOND 0-1 99=5 |"]
    market.flush()
    assert reader.news() == []


def test_one_who_was_slow_while_nothing_happened_missed_nothing() -> None:
    market = Market()
    reader = Reader(market, "book")
    reader.subscribe("book", symbol="ETF")
    reader.news()
    reader.is_slow = True
    market.flush()
    reader.is_slow = False
    market.bid(99, 5)
    market.flush()
    assert reader.news() == ["book BOND 0-1 99=5 |"]
    reader.is_slow = True
    market.bid(99, 6)
    market.flush()
    reader.is_slow = False
    market.flush()
    assert reader.news() == ["book BOND 1-2 99=6 |"], "and none of ETF"


@pytest.mark.parametrize("limit", ["UPDATES_KEPT", "LEVELS_MERGED"])
def test_one_who_missed_too_much_gets_a_snapshot(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, limit, 3)
    market = Market()
    reader = Reader(market, "book")
    for missed, told in [
        (3, ["book BOND 0-3 99=3 98=2 97=1 |"]),
        (4, ["book BOND 7 99=4 98=3 97=2 96=1 |"]),
    ]:
        reader.is_slow = True
        for number in range(missed):
            market.bid(99 - number, missed - number)
            market.flush()
        assert reader.news() == []
        reader.is_slow = False
        market.flush()
        assert reader.news() == told


def test_a_slow_reader_that_subscribes_is_answered_and_goes_on() -> None:
    market = Market()
    reader = Reader(market, "book")
    reader.is_slow = True
    market.bid(99, 5)
    market.flush()
    reader.subscribe("book")
    reader.subscribe("book", symbol="ETF")
    assert reader.news() == ["book BOND 1 99=5 |", "book ETF 0 |"]
    market.bid(98, 5)
    market.bid(97, 5, "ETF")
    market.flush()
    reader.is_slow = False
    market.flush()
    assert sorted(reader.news()) == [
        "book BOND 1-2 98=5 |",
        "book ETF 0-1 97=5 |",
    ]


def test_a_slow_reader_is_not_caught_up_with_what_it_left() -> None:
    market = Market()
    reader = Reader(market, "book")
    reader.subscribe("book", symbol="ETF")
    reader.news()
    reader.is_slow = True
    market.bid(99, 5)
    market.bid(99, 5, "ETF")
    market.flush()
    reader.unsubscribe("book")
    reader.is_slow = False
    market.flush()
    assert reader.news() == ["book ETF 0-1 99=5 |"]


@pytest.mark.parametrize("more", [[], ["trades"], ["book"]])
def test_a_slow_reader_gets_the_ticker_it_missed(more: list[Any]) -> None:
    market = Market()
    reader = Reader(market, "ticker", *more)
    reader.is_slow = True
    for price in (98, 99):
        market.bid(price, 5)
        market.flush()
        market.flush_tickers()
    assert reader.news() == []
    reader.is_slow = False
    market.flush()
    market.flush_tickers()
    news = [line for line in reader.news() if line.startswith("ticker")]
    assert news == ["ticker BOND 99 None last=None"]


# Tickers ------------------------------------------------------------------


def test_a_ticker_comes_at_once_and_then_on_change() -> None:
    market = Market()
    market.bid(99, 5)
    market.flush()
    market.flush_tickers()
    reader = Reader(market)
    reader.subscribe("ticker")
    assert reader.news() == ["ticker BOND 99 None last=None"]
    market.ask(101, 5)
    market.trade(101)
    market.flush()
    assert reader.news() == [] and market.feed.is_ticker_due
    market.flush_tickers()
    assert reader.news() == ["ticker BOND 99 101 last=101"]
    assert not market.feed.is_ticker_due


def test_a_change_behind_the_top_is_not_told() -> None:
    market = Market()
    reader = Reader(market, "ticker")
    market.bid(99, 5)
    market.flush()
    market.flush_tickers()
    assert reader.news() == ["ticker BOND 99 None last=None"]
    market.bid(98, 5)
    market.bid(97, 5, "ETF")
    market.flush()
    market.flush_tickers()
    assert reader.news() == []


def test_who_saw_a_ticker_in_passing_is_told_of_its_return() -> None:
    market = Market()
    market.bid(99, 5)
    market.flush()
    early = Reader(market, "ticker")
    market.flush_tickers()
    early.news()
    market.bid(100, 5)
    market.flush()
    late = Reader(market)
    late.subscribe("ticker")
    assert late.news() == ["ticker BOND 100 None last=None"]
    market.bid(100, 0)
    market.flush()
    market.flush_tickers()
    assert late.news() == ["ticker BOND 99 None last=None"]
    early.news()
    market.bid(90, 5)
    market.flush()
    market.flush_tickers()
    assert early.news() == late.news() == [], "and only once"


def test_any_value_of_a_ticker_counts() -> None:
    market = Market()
    reader = Reader(market, "ticker")
    values = {"bid": 1, "bid_qty": 2, "ask": 3, "ask_qty": 4, "last": 5}
    shown_so_far: dict[str, Any] = {}
    tickers = [Ticker(symbol="BOND", ts=0, volume=0)]
    for name, number in values.items():
        shown_so_far[name] = number
        tickers.append(Ticker(symbol="BOND", ts=0, volume=0, **shown_so_far))
    tickers.append(Ticker(symbol="BOND", ts=9, volume=1))
    shown = iter(tickers)
    feed: Feed[Reader] = Feed(market.snapshot, lambda _: next(shown))
    feed.subscribe(reader, ["ticker"], {"BOND": 0})
    reader.events.clear()
    for ticker in tickers[1:]:
        feed.mark(["BOND"])
        market.deliver(feed.flush_tickers())
        assert reader.events == [ticker]
        reader.events.clear()


# Heartbeats ---------------------------------------------------------------


def test_held_is_the_last_seq_that_was_sent() -> None:
    market = Market()
    market.trade(101)
    market.flush()
    held = market.feed.held
    reader = Reader(market)
    assert held(reader) == {}
    reader.subscribe("book", "trades")
    reader.subscribe("book", symbol="ETF")
    trades = Reader(market, "trades")
    assert held(reader) == {"BOND": 1, "ETF": 0}
    assert held(trades) == {}, "nothing yet"
    market.trade(101)
    assert held(reader) == {"BOND": 1, "ETF": 0}
    market.flush()
    assert held(reader) == {"BOND": 2, "ETF": 0}
    assert held(trades) == {"BOND": 2}
    reader.is_slow = trades.is_slow = True
    market.trade(101)
    market.flush()
    market.bid(98, 5)
    market.flush()
    assert held(reader) == {"BOND": 2, "ETF": 0}
    assert held(trades) == {"BOND": 2}
    reader.is_slow = trades.is_slow = False
    market.flush()
    assert held(reader) == {"BOND": 4, "ETF": 0}
    assert held(trades) == {"BOND": 3}
    reader.unsubscribe("book", "trades")
    assert held(reader) == {"ETF": 0}


def test_held_is_about_what_a_slow_reader_follows_now() -> None:
    market = Market()
    reader = Reader(market, "book")
    reader.is_slow = True
    market.bid(99, 5)
    market.flush()
    reader.subscribe("book", symbol="ETF")
    assert market.feed.held(reader) == {"BOND": 0, "ETF": 0}
    reader.unsubscribe("book")
    assert market.feed.held(reader) == {"ETF": 0}


# Random flows -------------------------------------------------------------


class Follower(Reader):
    """A reader that keeps the books, and minds every number."""

    def __init__(self, market: Market) -> None:
        super().__init__(market)
        self.books: dict[str, tuple[int, Levels, Levels]] = {}
        self.trade_ids: defaultdict[str, int] = defaultdict(int)

    def read(self) -> None:
        events, self.events = self.events, []
        uncovered: dict[str, int] = {}
        for event in events:
            if isinstance(event, Trade):
                assert event.trade_id > self.trade_ids[event.symbol]
                self.trade_ids[event.symbol] = event.trade_id
                uncovered[event.symbol] = event.seq
            elif isinstance(event, BookUpdate):
                self._read_book(event)
                assert uncovered.pop(event.symbol, 0) <= event.seq
        assert not uncovered.keys() & self.books.keys(), "book after trade"

    def _read_book(self, event: BookUpdate) -> None:
        if event.snapshot:
            self.books[event.symbol] = (event.seq, {}, {})
        held, *levels = self.books[event.symbol]
        assert event.snapshot or event.prev_seq == held < event.seq
        for side, changes in zip(levels, (event.bids, event.asks)):
            side.update(changes)
            for price in [price for price in side if not side[price]]:
                del side[price]
        self.books[event.symbol] = (event.seq, levels[0], levels[1])


def compare(market: Market, reader: Follower) -> None:
    held = market.feed.held(reader)
    for symbol, (seq, bids, asks) in reader.books.items():
        book = market.books[symbol]
        assert held[symbol] == seq
        if not reader.is_slow:
            assert seq == book.published
            assert (bids, asks) == (book.bids, book.asks)


def some_channels(rng: random.Random) -> list[Channel]:
    channels: list[Channel] = ["book", "trades", "ticker"]
    return rng.sample(channels, rng.randint(1, 3))


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 4))
def test_every_reader_ends_up_with_the_books(
    rng: random.Random, updates_kept: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed_module, "UPDATES_KEPT", updates_kept)
        market = Market()
        readers = [Follower(market) for _ in range(3)]
        for _ in range(60):
            symbol = rng.choice(SYMBOLS)
            reader = rng.choice(readers)
            match rng.randrange(10):
                case 0 | 1 | 2:
                    market.bid(rng.randint(95, 99), rng.randint(0, 3), symbol)
                case 3:
                    market.trade(rng.randint(101, 103), symbol)
                case 4 | 5:
                    reader.is_slow = not reader.is_slow
                case 6:
                    market.flush_tickers()
                case 7:
                    market.flush()
                    reader.subscribe(*some_channels(rng), symbol=symbol)
                case 8:
                    channels = some_channels(rng)
                    reader.unsubscribe(*channels, symbol=symbol)
                    if "book" in channels:
                        reader.read()
                        reader.books.pop(symbol, None)
            if rng.randrange(3):
                continue
            market.flush()
            for each in readers:
                each.read()
                compare(market, each)
