"""The feed: subscriptions, the order of public data, merged updates."""

from __future__ import annotations

import gc
import weakref

import pytest

from exchange.gateway.feed import merge
from test.gateway.feeds import Market, Reader, short, update

# Subscriptions --------------------------------------------------------------


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


def test_an_untouched_book_has_a_snapshot() -> None:
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


def test_channels_are_unsubscribed_one_by_one() -> None:
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
    assert market.feed.last_seqs(reader) == {}


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


# Order and encoding ---------------------------------------------------------


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
def test_no_reader_is_always_first(count: int, tickers: bool) -> None:
    market = Market()
    readers = [Reader(market, "book") for _ in range(count)]
    found = firsts(market, *readers, tickers=tickers)
    assert found == set(range(count))


def test_other_subscriptions_do_not_change_the_order_of_readers() -> None:
    market = Market()
    readers = Reader(market, "book"), Reader(market, "book", "trades")
    assert firsts(market, *readers, tickers=False) == {0, 1}


def test_an_empty_flush_publishes_nothing() -> None:
    market = Market()
    reader = Reader(market, "book", "trades", "ticker")
    market.flush()
    market.flush_tickers()
    assert reader.news() == [] and not market.framed


def test_nothing_is_kept_for_later_readers() -> None:
    market = Market()
    market.trade(101)
    market.flush()
    reader = Reader(market, "book", "trades")
    market.bid(99, 5)
    market.flush()
    assert reader.news() == ["book BOND 1-2 99=5 |"]


# Merging --------------------------------------------------------------------


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
