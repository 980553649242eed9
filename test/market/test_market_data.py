"""Marks, snapshots, tickers, a new configuration."""

from __future__ import annotations

import json

import pytest

from exchange.market.command import PUBLIC, Command, Configure
from orderbook import BookUpdate, Exec, Refused, decode_events, encode
from test.script import SECOND, apply, listed, listing, parse, play, tell


def test_a_new_configuration_keeps_books_and_changes_bounds() -> None:
    engine = play("given ann buy 5@500 as=mine")
    changed = (listing("BOND", max_price=400, max_qty=3), listing("ETF"))
    assert apply(engine, Configure(instruments=changed)) == []
    play(
        """
        bob sell 1@500 symbol=BOND
            bob error invalid_price price
        bob sell 4@400 symbol=BOND
            bob error invalid_qty qty
        bob sell 3@400 symbol=BOND
            bob 1 new 2 new 0/3
            bob 2 trade 2 filled 3/3 3@500 taker #1
            ann 2 trade 1 partially_filled 3/5 3@500 maker #1
            bob 3 account 1500 BOND=-3 worth 0
            ann 3 account -1500 BOND=3 worth 0
            * trade BOND 2 #1 3@500 sell
            * book BOND 2 500=2 |
        bob buy 5@500 symbol=ETF
            bob 4 new 3 new 0/5
            * book ETF 1 500=5 |
        ann cancel as=mine
            ann 4 canceled 1 canceled 3/5 user
            * book BOND 3 500=0 |
        """,
        engine,
    )


def test_reports_between_commands_use_no_seq_up() -> None:
    engine = play("""
        given ann buy 5@99
        given bob sell 2@99
        given ann buy 1@98 ioc
        """)
    ann = engine.accounts["ann"]
    reports = [
        tell("ann", report)
        for text in engine.order_reports(ann.orders.values())
        for report in decode_events(text)
    ]
    reports.append(tell("ann", engine.account_report(ann)))
    assert reports == [
        "ann 5 status 1 partially_filled 2/5",
        "ann 5 status 3 expired 0/1",
        "ann 5 account -198 BOND=2 worth 0",
    ]
    partly, expired = (
        report
        for text in engine.order_reports(ann.orders.values())
        for report in decode_events(text)
    )
    assert isinstance(partly, Exec) and isinstance(expired, Exec)
    assert (partly.leaves_qty, partly.cum_cost) == (3, 198)
    assert expired.leaves_qty == 0
    play(
        """
        ann cancel 1
            ann 6 canceled 1 canceled 2/5 user
            * book BOND 3 99=0 |
        """,
        engine,
    )


def test_a_snapshot_is_the_whole_book_under_its_last_seq() -> None:
    engine = play("""
        given ann buy 5@99
        given ann buy 5@98
        given bob sell 5@101
        given bob sell 5@102
        given ann buy 1@101
        5s tick
        """)
    assert engine.snapshot(engine.listing("BOND")) == BookUpdate(
        symbol="BOND",
        seq=5,
        ts=5 * SECOND,
        snapshot=True,
        bids=((99, 5), (98, 5)),
        asks=((101, 4), (102, 5)),
    )


def test_changes_of_several_commands_are_published_net_and_once() -> None:
    engine = listed("BOND", "ETF")
    lines = """
        ann buy 5@99 symbol=BOND
        ann buy 5@98 symbol=ETF
        ann buy 5@97 symbol=BOND
        bob sell 2@99 symbol=BOND
        bob sell 9@101 symbol=BOND
        bob cancel 5
        """
    for seq, line in enumerate(lines.strip().splitlines(), start=2):
        account, *words = line.split()
        engine.apply(Command(seq, seq, account, "a", parse(words)))
    updates = engine.take_book_updates()
    assert [tell(PUBLIC, update) for update in updates] == [
        "* book BOND 0-5 99=3 97=5 | 101=0",
        "* book ETF 1 98=5 |",
    ]
    assert not engine.take_book_updates()


def test_the_ticker_shows_the_top_the_last_price_and_the_volume() -> None:
    engine = listed("BOND")
    bond = engine.listing(None)
    assert json.loads(encode(engine.ticker(bond, 7))) == {
        "type": "ticker",
        "symbol": "BOND",
        "ts": 7,
        "volume": 0,
    }
    play(
        """
        given ann buy 5@99
        given ann buy 4@98
        given bob sell 2@101
        given bob sell 3@99
        given bob sell 1@98
        """,
        engine,
    )
    assert json.loads(encode(engine.ticker(bond, 8))) == {
        "type": "ticker",
        "symbol": "BOND",
        "ts": 8,
        "bid": 99,
        "bid_qty": 1,
        "ask": 101,
        "ask_qty": 2,
        "last": 99,
        "volume": 4,
    }


def test_listings_are_found_by_symbol_or_as_the_only_one() -> None:
    assert listed("BOND").listing(None).instrument.symbol == "BOND"
    two = listed("BOND", "ETF")
    assert two.listing("ETF").instrument.symbol == "ETF"
    for symbol, code in [(None, "bad_request"), ("NONE", "unknown_symbol")]:
        with pytest.raises(Refused) as refused:
            two.listing(symbol)
        assert (refused.value.code, refused.value.field) == (code, "symbol")
