"""The feed: slow readers, tickers, heartbeats, and random flows."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.gateway import feed as feed_module
from exchange.gateway.feed import LEVELS_MERGED, UPDATES_KEPT, Feed
from orderbook import BookUpdate, Channel, Ticker, Trade
from test.gateway.feeds import SYMBOLS, Levels, Market, Reader

# Slow readers ---------------------------------------------------------------


def test_a_slow_reader_gets_one_update_once_it_has_drained() -> None:
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


def test_a_drained_reader_catches_up_with_the_next_flush() -> None:
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


def test_a_reader_slow_while_nothing_happened_missed_nothing() -> None:
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


@pytest.mark.parametrize(
    "updates, levels", [(UPDATES_KEPT, 1), (1, LEVELS_MERGED)]
)
def test_a_reader_that_missed_too_much_gets_a_snapshot(
    updates: int, levels: int
) -> None:
    market = Market()
    reader = Reader(market, "book")
    for more, is_snapshot in ((0, False), (1, True)):
        reader.is_slow = True
        for number in range(updates + more * (updates > 1)):
            for level in range(levels + more * (levels > 1)):
                market.bid(1 + level, 1 + number)
            market.flush()
        assert not reader.events
        reader.is_slow = False
        market.flush()
        (told,) = reader.events
        assert isinstance(told, BookUpdate)
        assert told.snapshot == is_snapshot
        assert len(told.bids) == levels + more * (levels > 1)
        reader.events.clear()


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


# Tickers --------------------------------------------------------------------


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


def test_a_change_below_the_top_publishes_no_ticker() -> None:
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


def test_a_ticker_that_returns_is_sent_to_a_reader_that_saw_another() -> None:
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


# Heartbeats -----------------------------------------------------------------


def test_held_is_the_last_seq_that_was_sent() -> None:
    market = Market()
    market.trade(101)
    market.flush()
    last_seqs = market.feed.last_seqs
    reader = Reader(market)
    assert last_seqs(reader) == {}
    reader.subscribe("book", "trades")
    reader.subscribe("book", symbol="ETF")
    trades = Reader(market, "trades")
    assert last_seqs(reader) == {"BOND": 1, "ETF": 0}
    assert last_seqs(trades) == {}, "nothing yet"
    market.trade(101)
    assert last_seqs(reader) == {"BOND": 1, "ETF": 0}
    market.flush()
    assert last_seqs(reader) == {"BOND": 2, "ETF": 0}
    assert last_seqs(trades) == {"BOND": 2}
    reader.is_slow = trades.is_slow = True
    market.trade(101)
    market.flush()
    market.bid(98, 5)
    market.flush()
    assert last_seqs(reader) == {"BOND": 2, "ETF": 0}
    assert last_seqs(trades) == {"BOND": 2}
    reader.is_slow = trades.is_slow = False
    market.flush()
    assert last_seqs(reader) == {"BOND": 4, "ETF": 0}
    assert last_seqs(trades) == {"BOND": 3}
    reader.unsubscribe("book", "trades")
    assert last_seqs(reader) == {"ETF": 0}


def test_held_covers_what_a_slow_reader_follows_now() -> None:
    market = Market()
    reader = Reader(market, "book")
    reader.is_slow = True
    market.bid(99, 5)
    market.flush()
    reader.subscribe("book", symbol="ETF")
    assert market.feed.last_seqs(reader) == {"BOND": 0, "ETF": 0}
    reader.unsubscribe("book")
    assert market.feed.last_seqs(reader) == {"ETF": 0}


# Random flows ---------------------------------------------------------------


class Follower(Reader):
    """A reader that keeps the books, and checks every seq."""

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
        last_seq, *levels = self.books[event.symbol]
        assert event.snapshot or event.prev_seq == last_seq < event.seq
        for side, changes in zip(levels, (event.bids, event.asks)):
            side.update(changes)
            for price in [price for price in side if not side[price]]:
                del side[price]
        self.books[event.symbol] = (event.seq, levels[0], levels[1])


def compare(market: Market, reader: Follower) -> None:
    last_seqs = market.feed.last_seqs(reader)
    for symbol, (seq, bids, asks) in reader.books.items():
        book = market.books[symbol]
        assert last_seqs[symbol] == seq
        if not reader.is_slow:
            assert seq == book.published
            assert (bids, asks) == (book.bids, book.asks)


def some_channels(rng: random.Random) -> list[Channel]:
    channels: list[Channel] = ["book", "trades", "ticker"]
    return rng.sample(channels, rng.randint(1, 3))


@settings(max_examples=150)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_every_reader_ends_up_with_the_books(
    seed: int, updates_kept: int
) -> None:
    rng = random.Random(seed)
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
