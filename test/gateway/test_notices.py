"""What an administrator causes, as connections and tables show it.

News, statuses, tenders, busts and rounds; and that a restart keeps them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from exchange.gateway.gateway import Gateway
from exchange.gateway.link import Link
from exchange.gateway.pacing import SLOW_BYTES
from exchange.host.market_file import InstrumentSettings
from exchange.journal.history import NOTICES_KEPT, RESUME_EVENTS, History
from exchange.market.command import Configure
from orderbook import AccountReport, Settlement, encode
from test.support import FOLLOW, NOON, SECOND, Floor, Peer, words

Message = dict[str, Any]


def admin(action: str, **arguments: Any) -> Message:
    return {"type": "admin", "action": action, "reason": "why", **arguments}


def get(what: str, **more: Any) -> Message:
    return {"type": "get", "what": what, **more}


def tender(tender_id: str = "t-1", **more: Any) -> Message:
    offer = {"symbol": "BOND", "side": "buy", "qty": 5, "price": 99}
    terms = {"tender_id": tender_id, "valid_ms": 5_000, **offer}
    return admin("tender", **terms, **more)


ACCEPT = {"type": "tender", "tender_id": "t-1"}
FEES = InstrumentSettings(taker_fee=2, maker_fee=-1)
MARKET = Configure(instruments=(FEES.listed_as("BOND"), FEES.listed_as("ETF")))


@pytest.fixture
def floor() -> Floor:
    floor = Floor(market=MARKET, durable=True)
    floor.commit(10**9)  # whatever comes is committed at once
    return floor


def boss_of(floor: Floor) -> Link:
    """Log an administrator in."""
    boss = floor.join("boss")
    boss.role = "admin"
    return boss


def rows(floor: Floor, link: Link, what: str, **more: Any) -> list[Any]:
    *_, reply = floor.do(link, get(what, **more))
    data: list[Any] = reply["data"]
    return data


def restarted(floor: Floor) -> Floor:
    """Return a floor whose gateway went on from the journal of another."""
    later = Floor(market=MARKET, durable=True)
    later.gateway = Gateway(later.clock.now, durable=True)
    later.gateway.replay(floor.gateway.sequencer.take())
    later.gateway.begin(MARKET)
    later.commit(10**9)
    return later


# News and statuses --------------------------------------------------------


def test_news_reaches_every_connection_in_order(floor: Floor) -> None:
    boss, ann, stranger = boss_of(floor), floor.join("ann"), floor.join()
    reply, *told = floor.do(boss, {**admin("news", headline="hello"), "id": 1})
    assert reply == {"type": "ok", "id": 1, "ts": reply["ts"]}
    assert told == floor.read(ann) == floor.read(stranger)
    news, status = told
    assert news == {
        "type": "news",
        "ts": reply["ts"],
        "news_id": 1,
        "headline": "hello",
    }
    assert status["message"] == "news 1: why"


def test_nothing_old_is_sent_at_a_login(floor: Floor) -> None:
    floor.do(boss_of(floor), admin("news", headline="hello"))
    ann = floor.connect(Peer())
    assert [m["type"] for m in floor.do(ann, {"type": "login", "user": "a"})][
        1:
    ] == ["account"]


def test_the_tables_of_news_and_statuses(floor: Floor) -> None:
    boss, stranger = boss_of(floor), floor.join()
    floor.do(
        boss,
        admin("news", headline="one", symbol="ETF", value=-5),
        admin("news", headline="two"),
        admin("phase", phase="halted", symbol="BOND"),
        admin("news", headline="three", symbol="BOND", body="a\nb"),
    )
    told = [m for m in floor.read(stranger)]
    news = [m for m in told if m["type"] == "news"]
    statuses = [m for m in told if m["type"] == "status"]
    assert [row["headline"] for row in news] == ["one", "two", "three"]
    assert rows(floor, stranger, "news") == news
    assert rows(floor, stranger, "news", after=1) == news[1:]
    assert rows(floor, stranger, "news", limit=1) == news[2:]
    assert rows(floor, stranger, "news", after=0, limit=1) == news[:1]
    assert rows(floor, stranger, "news", symbol="ETF") == news[:1]
    assert rows(floor, stranger, "statuses") == statuses
    assert rows(floor, stranger, "statuses", limit=2) == statuses[2:]
    ts = statuses[1]["ts"]
    assert rows(floor, stranger, "statuses", after=ts) == statuses[2:]
    phases = rows(floor, stranger, "statuses", symbol="BOND")
    assert [row.get("phase") for row in phases] == ["halted", None]
    for what in ("news", "statuses"):
        refused = floor.do(stranger, get(what, symbol="NONE"))
        assert words(refused) == ["unknown_symbol"]


def test_the_last_1000_of_each_are_kept(floor: Floor) -> None:
    boss = boss_of(floor)
    for number in range(NOTICES_KEPT + 1):
        floor.do(boss, admin("news", headline=f"n{number}"))
    for what in ("news", "statuses"):
        assert len(rows(floor, boss, what, limit=1_000)) == NOTICES_KEPT
    assert rows(floor, boss, "news", after=0, limit=1)[0]["news_id"] == 2


def test_rows_of_instruments_have_reason_and_times(floor: Floor) -> None:
    boss = boss_of(floor)
    floor.do(
        boss,
        admin("phase", phase="halted", symbol="BOND", reopen_ms=5_000),
        admin("phase", phase="open", symbol="ETF", close_ms=60_000),
    )
    bond, etf = rows(floor, boss, "instruments")
    assert (bond["reason"], bond["phase"]) == ("why", "halted")
    assert bond["reopen_ts"] == NOON + 5 * SECOND + 2
    assert etf["close_ts"] == NOON + 60 * SECOND + 3
    assert "close_ts" not in bond and "reopen_ts" not in etf
    welcome, *_ = floor.do(floor.join(), {"type": "login", "user": "ann"})
    assert welcome["instruments"] == [bond, etf]


# Tenders ------------------------------------------------------------------


def test_a_tender_reaches_those_who_may_accept_and_no_stranger(
    floor: Floor,
) -> None:
    boss, ann, stranger = boss_of(floor), floor.join("ann"), floor.join()
    reply, *mine, status = floor.do(boss, tender())
    assert words([reply, status]) == ["ok", "status"]
    offer, last = floor.read(ann)
    assert mine == [offer] and last == status
    assert offer == {
        "type": "tender",
        "ts": reply["ts"],
        "tender_id": "t-1",
        "symbol": "BOND",
        "side": "buy",
        "qty": 5,
        "price": 99,
        "expire_ts": reply["ts"] + 5 * SECOND,
    }
    assert floor.read(stranger) == [status]


def test_an_accepted_tender_is_answered_and_then_the_account(
    floor: Floor,
) -> None:
    boss, ann, other = boss_of(floor), floor.join("ann"), floor.join("ann")
    floor.do(boss, tender())
    floor.read(ann), floor.read(other)
    reply, account = floor.do(ann, {**ACCEPT, "id": 7})
    assert reply == {"type": "ok", "id": 7, "ts": reply["ts"]}
    assert account["seq"] == 1, "a tender has no seq"
    assert (account["cash"], account["positions"]) == (-495, {"BOND": 5})
    assert floor.read(other) == [account]
    assert words(floor.do(ann, ACCEPT)) == ["duplicate_tender"]
    late = {**ACCEPT, "tender_id": "t-2"}
    assert words(floor.do(ann, late)) == ["unknown_tender"]


def test_a_login_is_sent_the_tenders_that_are_still_open(
    floor: Floor,
) -> None:
    boss, ann = boss_of(floor), floor.join("ann")
    floor.do(boss, tender("t-1"), tender("t-2", user="ann"), tender("t-3"))
    floor.do(ann, ACCEPT)

    def told(user: str, **more: Any) -> list[str]:
        login = {"type": "login", "user": user, **more}
        _, *events = floor.do(floor.join(), login)
        kinds = [m["type"] for m in events]
        assert kinds == sorted(kinds), "after the account"
        return [m["tender_id"] for m in events if m["type"] == "tender"]

    assert told("ann") == ["t-2", "t-3"]
    assert told("dan") == ["t-1", "t-3"]
    session = ann.session_id
    assert told("ann", session=session, last_seq=1) == ["t-2", "t-3"]
    floor.clock.ts += 6 * SECOND
    floor.gateway.pass_time()
    assert told("ann") == told("eve") == []


def test_no_tender_is_accepted_while_the_disk_is_in_trouble(
    floor: Floor,
) -> None:
    boss, ann = boss_of(floor), floor.join("ann")
    floor.do(boss, tender())
    floor.read(ann)
    floor.gateway.sequencer.disk_trouble = "the disk is full"
    (error,) = floor.do(ann, ACCEPT)
    assert error["code"] == "busy" and error["retry_after_ms"] > 0
    assert words(floor.do(ann, {"type": "cancel_all"})) == ["ok"]
    floor.gateway.sequencer.disk_trouble = ""
    assert words(floor.do(ann, ACCEPT)) == ["ok", "account"]


# Busts --------------------------------------------------------------------


def trade(floor: Floor) -> tuple[Link, Link, Link]:
    """Ann buys 2 and 3 BOND of bob; return boss, ann and bob."""
    boss, ann, bob = boss_of(floor), floor.join("ann"), floor.join("bob")
    floor.do(bob, "sell 2@100 symbol=BOND", "sell 3@101 symbol=BOND")
    floor.do(ann, "buy 5@101 symbol=BOND")
    for link in (boss, ann, bob):
        floor.read(link)
    return boss, ann, bob


def bust(trade_id: int, **more: Any) -> Message:
    return admin("bust", symbol="BOND", trade_id=trade_id, **more)


def test_a_bust_gives_back_what_the_history_says(floor: Floor) -> None:
    boss, ann, bob = trade(floor)
    engine = floor.gateway.engine
    before = {n: engine.accounts[n].cash for n in ("ann", "bob", "@exchange")}
    assert before == {"ann": -513, "bob": 508, "@exchange": 5}
    reply, status = floor.do(boss, {**bust(2), "id": 3})
    assert (reply["type"], reply["id"]) == ("ok", 3)
    assert status["message"] == "bust trade 2: why"
    mine, _ = floor.read(ann)
    theirs, _ = floor.read(bob)
    assert (mine["cash"], mine["positions"]) == (-204, {"BOND": 2})
    assert (theirs["cash"], theirs["positions"]) == (202, {"BOND": -2})
    assert engine.accounts["@exchange"].cash == 2
    assert engine.listings["BOND"].last == 100


def test_a_seller_may_be_offline(floor: Floor) -> None:
    """His fills count among the parties of trades as everybody's do."""
    boss, ann = boss_of(floor), floor.join("ann")
    bob = floor.join("bob", cancel_on_disconnect=False)
    floor.do(bob, "sell 2@100 symbol=BOND", "sell 3@101 symbol=BOND")
    floor.gateway.disconnect(bob)
    floor.do(ann, "buy 5@101 symbol=BOND")
    assert floor.do(boss, bust(1))[0]["type"] == "ok"
    accounts = floor.gateway.engine.accounts
    assert accounts["ann"].positions == {"BOND": 3}
    assert accounts["bob"].positions == {"BOND": -3}


def test_it_does_not_matter_which_side_arrived(floor: Floor) -> None:
    boss, ann, bob = trade(floor)
    floor.do(ann, "buy 4@90 symbol=BOND")
    floor.do(bob, "sell 4@90 symbol=BOND")
    for trade_id in (1, 2, 3):
        floor.do(boss, bust(trade_id))
    for account in floor.gateway.engine.accounts.values():
        assert account.cash == 0 and not any(account.positions.values())


def test_readers_of_trades_are_told_in_order(floor: Floor) -> None:
    boss, ann, bob = trade(floor)
    trades, books, nothing = (floor.join() for _ in range(3))
    floor.do(trades, {**FOLLOW, "channels": ["trades"]})
    floor.do(books, {**FOLLOW, "channels": ["book"]})
    floor.do(nothing, {**FOLLOW, "channels": ["trades"], "symbols": ["ETF"]})
    floor.do(bob, "sell 1@102 symbol=BOND")
    floor.do(ann, "buy 1@102 symbol=BOND")
    floor.do(boss, bust(1), bust(3))
    floor.do(bob, "sell 1@103 symbol=BOND")
    told = [m for m in floor.read(trades) if m["type"] != "status"]
    assert [(m["type"], m["seq"], m["trade_id"]) for m in told] == [
        ("trade", 5, 3),
        ("bust", 6, 1),
        ("bust", 7, 3),
    ]
    updates = [m for m in floor.read(books) if m["type"] == "book"]
    assert [m["prev_seq"] for m in updates[1:]] == [
        m["seq"] for m in updates[:-1]
    ], "no gap in the book"
    assert updates[-1]["seq"] == 8
    assert [m["type"] for m in floor.read(nothing)] == ["status"] * 2


def test_a_bust_changes_the_ticker(floor: Floor) -> None:
    boss, _, _ = trade(floor)
    watcher = floor.join()
    floor.do(watcher, {**FOLLOW, "channels": ["ticker"], "symbols": ["BOND"]})
    floor.do(boss, bust(2))
    floor.gateway.routing.publish_tickers()
    floor.gateway.seal()
    *_, ticker = floor.read(watcher)
    assert (ticker["last"], ticker["volume"]) == (100, 2)


def test_rows_of_trades_and_fills_carry_it(floor: Floor) -> None:
    boss, ann, bob = trade(floor)
    floor.do(boss, bust(2))
    marked = [
        row.get("busted") for row in rows(floor, ann, "trades", symbol="BOND")
    ]
    assert (
        marked
        == [None, True]
        == [row.get("busted") for row in rows(floor, ann, "fills")]
    )
    fills = rows(floor, bob, "fills")
    assert [row.get("busted") for row in fills] == [None, True]
    candles = rows(floor, ann, "candles", symbol="BOND")
    assert candles[0][2:] == [101, 100, 101, 5], "as printed"


def test_a_trade_can_be_busted_in_the_frame_that_made_it(
    floor: Floor,
) -> None:
    boss, _, bob = trade(floor)
    floor.do(bob, "sell 1@102 symbol=BOND")
    told = floor.do(
        boss,
        "buy 1@102 symbol=BOND",
        {**bust(3), "id": "b"},
        {**bust(3), "id": "c"},
    )
    replies = {m["id"]: m for m in told if "id" in m}
    assert replies["b"]["type"] == "ok"
    assert replies["c"]["field"] == "trade_id"
    assert floor.gateway.engine.accounts["boss"].positions == {"BOND": 0}


def test_a_bust_that_cannot_be_names_the_field(floor: Floor) -> None:
    boss, ann, _ = trade(floor)
    floor.do(boss, bust(1))
    for trade_id in (0, 1, 3, 10**9):
        (error,) = floor.do(boss, bust(trade_id))
        assert (error["code"], error["field"]) == ("bad_request", "trade_id")
    floor.do(boss, admin("reset"))
    (error,) = floor.do(boss, bust(2))
    assert error["message"] == "trade_id: trade 2 is of another round"
    (error,) = floor.do(boss, admin("bust", symbol="NONE", trade_id=1))
    assert error["code"] == "unknown_symbol"
    assert words(floor.do(ann, bust(2)))[-1] == "forbidden"


def test_a_repeated_bust_is_a_duplicate(floor: Floor) -> None:
    boss, _, _ = trade(floor)
    once = bust(1, client_request_id="r-1")
    assert words(floor.do(boss, once)) == ["ok", "status"]
    assert words(floor.do(boss, once)) == ["duplicate_client_request_id"]


def test_a_trade_with_a_fill_no_longer_kept_is_refused(floor: Floor) -> None:
    boss, _, _ = trade(floor)
    floor.gateway.history.account("bob").fills.clear()
    (error,) = floor.do(boss, bust(1))
    assert (error["code"], error["field"]) == ("bad_request", "trade_id")
    assert "not kept" in error["message"]


def test_a_slow_reader_gets_the_busts_that_it_missed(floor: Floor) -> None:
    boss, ann, bob = trade(floor)
    slow = floor.join()
    floor.do(slow, {**FOLLOW, "channels": ["trades"], "symbols": ["BOND"]})
    slow.peer.buffered = SLOW_BYTES + 1  # type: ignore
    floor.do(boss, bust(1))
    floor.do(bob, "sell 1@102 symbol=BOND")
    floor.do(ann, "buy 1@102 symbol=BOND")
    assert [m["type"] for m in floor.read(slow)] == ["status"]
    slow.peer.buffered = 0  # type: ignore
    floor.do(boss, bust(2))
    told = [m for m in floor.read(slow) if m["type"] != "status"]
    assert [(m["type"], m["trade_id"]) for m in told] == [
        ("bust", 1),
        ("bust", 2),
    ]


# Rounds -------------------------------------------------------------------


def test_a_round_is_in_welcome_and_rows_and_candles_start_anew(
    floor: Floor,
) -> None:
    boss, ann, bob = trade(floor)
    assert len(rows(floor, ann, "candles", symbol="BOND")) == 1
    floor.do(boss, admin("reset"))
    assert rows(floor, ann, "candles", symbol="BOND") == []
    floor.do(bob, "sell 1@50 symbol=BOND")
    floor.do(ann, "buy 1@50 symbol=BOND")
    trades = rows(floor, ann, "trades", symbol="BOND")
    assert [row.get("round") for row in trades] == [None, None, 2]
    assert [t["trade_id"] for t in trades] == [1, 2, 3]
    fills = rows(floor, ann, "fills")
    assert [row.get("round") for row in fills] == [None, None, 2]
    ((_, *candle),) = rows(floor, ann, "candles", symbol="BOND")
    assert candle == [50, 50, 50, 50, 1]
    welcome, *_ = floor.do(floor.join(), {"type": "login", "user": "dan"})
    assert welcome["round"] == 2
    floor.gateway.announce("lunch")
    floor.gateway.seal()
    *_, status = floor.read(ann)
    assert (status["message"], status["round"]) == ("lunch", 2)


def test_a_round_of_1_is_left_out(floor: Floor) -> None:
    welcome, *_ = floor.do(floor.join(), {"type": "login", "user": "ann"})
    assert "round" not in welcome


# A restart ----------------------------------------------------------------


def test_a_restart_keeps_all_of_it(floor: Floor) -> None:
    boss, ann, bob = trade(floor)
    floor.do(
        boss,
        admin("news", headline="old", client_request_id="r-1"),
        admin("reset"),
        admin("news", headline="new", symbol="ETF"),
        tender(),
        tender("t-2", user="bob"),
        admin("phase", phase="open", close_ms=60_000, symbol="ETF"),
        admin("reference", symbol="ETF", price=77),
    )
    floor.do(bob, "sell 2@100 symbol=BOND", "sell 3@101 symbol=BOND")
    floor.do(ann, ACCEPT, "buy 5@101 symbol=BOND")
    floor.do(boss, bust(3))
    asked = [
        get("news"),
        get("statuses"),
        get("trades", symbol="BOND"),
        get("candles", symbol="BOND"),
        get("fills"),
        get("account"),
        get("leaderboard"),
    ]

    def seen(at: Floor, link: Link) -> list[Any]:
        told = at.do(link, *asked)
        return [m["data"] for m in told if "data" in m]

    before = seen(floor, ann)
    seqs = {n: a.seq for n, a in floor.gateway.engine.accounts.items()}
    later = restarted(floor)
    again = boss_of(later)
    ann = later.connect(Peer())
    welcome, *state = later.do(ann, {"type": "login", "user": "ann"})
    assert welcome["round"] == 2 and welcome["seq"] == seqs["ann"]
    assert [m["type"] for m in state] == ["account"], "t-1 is accepted"
    after = seen(later, ann)
    for table, old, new in zip(asked, before, after, strict=True):
        if table["what"] == "account":
            old, new = old[0] | {"ts": 0}, new[0] | {"ts": 0}
        assert new == old, table
    etf = later.gateway.engine.listings["ETF"]
    assert etf.reference == 77 and etf.close_ts is not None
    assert words(later.do(ann, ACCEPT)) == ["duplicate_tender"]
    repeat = admin("news", headline="old", client_request_id="r-1")
    assert words(later.do(again, repeat)) == ["duplicate_client_request_id"]
    (error,) = later.do(again, bust(3))
    assert error["message"] == "trade_id: trade 3 is busted already"
    assert words(later.do(again, bust(4))) == ["ok", "status"]
    *_, newest = rows(later, again, "news")
    assert (newest["news_id"], newest["headline"]) == (2, "new")
    later.clock.ts += 6 * SECOND
    later.gateway.pass_time()
    assert later.gateway.engine.next_deadline == etf.close_ts


def test_an_outage_is_given_back_to_an_instrument_that_closes(
    floor: Floor,
) -> None:
    floor.do(boss_of(floor), admin("phase", phase="open", close_ms=60_000))
    closes = floor.gateway.engine.listings["ETF"].close_ts
    assert closes is not None
    later = Gateway(lambda: NOON + 500 * SECOND, durable=True)
    later.replay(floor.gateway.sequencer.take())
    last = later.engine.ts
    later.begin(MARKET)
    etf = later.engine.listings["ETF"]
    assert etf.phase == "open"
    assert etf.close_ts == closes + NOON + 500 * SECOND - last


# What a session resumes ---------------------------------------------------


@pytest.mark.parametrize("are_encoded", [False, True])
def test_settlements_are_resumed_with_their_account(are_encoded: bool) -> None:
    history, texts = History(), []
    for seq in range(1, 9):
        events: list[Settlement | AccountReport] = [
            Settlement(
                seq=seq, ts=1, symbol=s, position=5, price=9, realized=4
            )
            for s in ("BOND", "ETF")[: seq % 3]
        ]
        events.append(
            AccountReport(seq=seq, ts=1, cash=0, positions={}, equity=0)
        )
        texts.append([encode(event) for event in events])
        if are_encoded:
            for event, text in zip(events[:-1], texts[-1]):
                assert isinstance(event, Settlement)
                history.record_settlement("ann", event, text)
            history.account("ann").add_texts(texts[-1])
        else:
            history.record([("ann", event) for event in events])
    for seq in range(9):
        found = history.events_since("ann", seq, 8)
        assert found == sum(texts[seq:], [])


def test_a_session_that_missed_too_many_settlements_is_not_resumed() -> None:
    history = History()
    report = AccountReport(seq=1, ts=1, cash=0, positions={}, equity=0)
    for seq in (1, 2):
        settlement = Settlement(
            seq=seq, ts=1, symbol="BOND", position=5, price=9, realized=4
        )
        for _ in range(RESUME_EVENTS):
            history.record([("ann", settlement)])
        history.record([("ann", replace(report, seq=seq))])
    assert history.events_since("ann", 0, 2) is None
    found = history.events_since("ann", 1, 2)
    assert found is None  # it might have missed some with the number 2


def test_a_resumed_session_gets_the_account_after_a_tender(
    floor: Floor,
) -> None:
    boss, ann = boss_of(floor), floor.join("ann")
    floor.do(boss, tender())
    floor.do(ann, ACCEPT)
    login = {"type": "login", "user": "ann", "session": ann.session_id}
    welcome, *missed = floor.do(floor.join(), {**login, "last_seq": 0})
    assert welcome["resumed"] and words(missed) == ["account"]
