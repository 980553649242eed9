"""Bounds of what the gateway keeps and returns, without sockets."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

import exchange.gateway.tables as tables_module
from exchange.doors.tcp import MAX_MESSAGE
from exchange.gateway.feed import Feed
from exchange.gateway.tables import (
    BOOK_CHARS_PER_ROW,
    ORDERS_PER_ROW,
    ROWS_PER_TURN,
)
from exchange.market.accounts import ACCOUNTS_MAX, SESSIONS_REMEMBERED
from exchange.market.command import Connect
from exchange.market.engine import Engine
from orderbook import MAX_FRAME
from test.support import Floor, Peer, order, words


def test_the_number_of_open_orders_is_bounded() -> None:
    """Only resting orders count; a cancel makes room."""
    floor = Floor()
    alice = floor.join("alice")
    account = floor.gateway.engine.accounts["alice"]
    account.limits = replace(account.limits, open_orders=3)
    place = order("buy", 1, 50)
    got = floor.do(alice, *[place] * 4, {**place, "time_in_force": "ioc"})
    told = ["new", "new", "new", "too_many_orders", "new", "expired"]
    assert words(got) == told
    assert len(account.open_orders) == 3
    _, new = floor.do(alice, {"type": "cancel", "order_id": 1}, place)
    assert new["exec_type"] == "new"


def test_the_rows_returned_to_one_frame_are_bounded() -> None:
    """Further tables are refused; other requests are not."""
    floor = Floor()
    alice = floor.join("alice")
    for _ in range(5):
        floor.do(alice, *[order("buy", 1, 50)] * MAX_FRAME)
    most = ROWS_PER_TURN // (500 + 500 // ORDERS_PER_ROW) + 1
    tables = [{"type": "get", "what": "orders", "id": n} for n in range(most)]
    more = [
        {"type": "get", "what": what}
        for what in ("orders", "trades", "leaderboard", "account")
    ]
    for _ in range(2):
        told = floor.do(alice, *tables, *more, {"type": "ping"})
        assert words(told) == ["ok"] * most + ["busy"] * 4 + ["ok"]
        assert all(len(reply["data"]) == 500 for reply in told[:most])
        assert told[most]["retry_after_ms"] > 0
    assert words(floor.do(alice, *more)) == ["ok"] * 4


def test_expensive_tables_count_as_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whole books, fresh leaderboards, filtered fills."""
    monkeypatch.setattr(tables_module, "ROWS_PER_TURN", 30)
    floor = Floor()
    alice, bob = floor.join("alice"), floor.join("bob")
    for number in range(9):
        floor.join(f"user{number}")
    for price in range(1, 101):
        floor.do(alice, order("buy", 1, price))
        if price <= 2 * ORDERS_PER_ROW:
            floor.do(bob, order("sell", 1, price))
    snapshot = floor.do(alice, {"type": "get", "what": "book"})[0]["data"][0]
    worth = len(json.dumps(snapshot)) // BOOK_CHARS_PER_ROW
    assert worth > 5
    fail = {"type": "cancel", "order_id": 10**6}
    for table, enough in (
        ({"type": "get", "what": "book"}, 4),
        ({"type": "subscribe", "channels": ["book"]}, 4),
        ({"type": "get", "what": "leaderboard", "limit": 1}, 3),
        ({"type": "get", "what": "fills", "symbol": "BOND", "limit": 1}, 10),
    ):
        asked = [r for _ in range(enough + 2) for r in (fail, table)]
        told = words(floor.do(alice, *asked))
        assert [w for w in told if w not in ("unknown_order", "book")] == (
            ["ok"] * enough + ["busy"] * 2
        ), table
    book, orders = (
        {"type": "get", "what": what} for what in ("book", "orders")
    )
    told = words(floor.do(floor.join(), *[book] * 6, orders))
    assert told[-2:] == ["busy", "unauthorized"]  # what goes before, comes


def test_a_leaderboard_is_made_once_as_long_as_nothing_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    floor = Floor(public_positions=True)
    alice, bob = floor.join("alice"), floor.join("bob")
    made = 0
    make = Engine.leaderboard

    def spy(engine: Engine) -> list[dict[str, Any]]:
        nonlocal made
        made += 1
        return make(engine)

    monkeypatch.setattr(Engine, "leaderboard", spy)
    get = {"type": "get", "what": "leaderboard"}
    for times, ranked in ((1, []), (2, ["bob", "alice"])):
        replies = floor.do(alice, get, get) + floor.do(bob, get)
        told = [reply["data"] for reply in replies if "data" in reply]
        assert made == times and told == [told[0]] * 3
        assert [row["user"] for row in told[0]] == ranked
        floor.do(alice, order("buy", 1, 50))
        floor.do(bob, order("sell", 1, 50))
        floor.do(alice, order("sell", 1, 40))
        floor.do(bob, order("buy", 1, 40))


def test_the_number_of_accounts_is_bounded() -> None:
    floor = Floor()
    accounts = floor.gateway.engine.accounts
    while len(accounts) < ACCOUNTS_MAX:
        floor.gateway.sequencer.run(Connect(True), f"user{len(accounts)}", "s")
    seq = floor.seq
    session = floor.connect(Peer())
    (error,) = floor.do(session, {"type": "login", "user": "one-more"})
    assert error["code"] == "forbidden"
    assert floor.closings(session) == [4001]
    assert len(accounts) == ACCOUNTS_MAX and floor.seq == seq
    session = floor.connect(Peer())
    welcome, _ = floor.do(session, {"type": "login", "user": "user0"})
    assert welcome["type"] == "welcome"


def test_sessions_are_as_many_as_connections_or_the_last_ones() -> None:
    """Connected ones are kept; the oldest of the others is forgotten."""
    floor = Floor()
    sessions = [floor.join("alice") for _ in range(SESSIONS_REMEMBERED + 20)]
    remembered = floor.gateway.engine.accounts["alice"].sessions
    assert len(remembered) == len(sessions)
    for session in sessions[1:]:
        floor.gateway.disconnect(session)
    for _ in range(30):
        floor.gateway.disconnect(floor.join("alice"))
    assert len(remembered) <= len(sessions) + 1
    assert sessions[0].session_id in remembered


@pytest.mark.parametrize("kind", ["subscribe", "unsubscribe"])
def test_a_channel_named_a_thousand_times_counts_once(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 KiB can name 4,600 channels of 4,600 symbols: 21 million pairs."""
    floor = Floor("BOND", "ETF")
    session = floor.join()
    follow = getattr(Feed, kind)
    asked: list[int] = []

    def spy(feed: Feed, reader: Any, channels: Any, symbols: Any) -> None:
        channels = list(channels)
        asked.append(len(channels) * len(symbols))
        if asked[-1] < 10:
            follow(feed, reader, channels, symbols)

    monkeypatch.setattr(Feed, kind, spy)
    request = {
        "type": kind,
        "channels": ["book", "trades"] * 2_000,
        "symbols": ["BOND", "ETF"] * 1_900,
    }
    assert len(json.dumps(request)) < MAX_MESSAGE
    assert words(floor.do(session, request))[0] == "ok"
    assert asked == [4]


def test_following_everything_again_and_again_is_following_it_once() -> None:
    floor = Floor("BOND", "ETF")
    session = floor.join()
    request = {"type": "subscribe", "channels": ["book", "trades", "ticker"]}
    for _ in range(100):
        floor.do(session, request)
    feed = floor.gateway.feed
    assert feed.size() == (6, 1, 0)
    floor.gateway.disconnect(session)
    assert feed.size() == (0, 0, 0)


class Locked:
    """A key ring that refuses every login."""

    def lets_in(self, user: str) -> bool:
        return False

    def check(self, user: str, token: str | None) -> None:
        return None

    def is_valid(self, key: Any) -> bool:
        return False


def test_a_failed_login_leaves_nothing_behind() -> None:
    floor = Floor(keys=Locked())
    gateway = floor.gateway
    for number in range(100):
        session = floor.join(f"user{number}")
        assert session.is_cut
        gateway.disconnect(session)
    assert not gateway.engine.accounts and not gateway.limiter.buckets
    assert not gateway.routing.online and not gateway.links
    assert gateway.engine.seq == 1
