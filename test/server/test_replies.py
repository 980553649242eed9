"""Requests and their replies, before and after the login."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from exchange.doors.websocket import Connection
from orderbook import MAX_FRAME
from server import Server
from test.server.asking import (
    ABSENT,
    PING,
    Message,
    follow,
    get,
    place,
    rows,
    without_id,
)
from test.support import Wire, order, state_of, wired, words

# Requests and their replies -----------------------------------------------

# In this order: each request depends on the ones before it.
REPLIES: list[tuple[Message, Message]] = [
    (
        order("buy", 10, 99, client_order_id="a"),
        {"type": "exec", "exec_type": "new", "order_id": 1, "leaves_qty": 10},
    ),
    (
        {"type": "amend", "order_id": 1, "price": 98},
        {"type": "exec", "exec_type": "amended", "price": 98, "qty": 10},
    ),
    (
        {"type": "amend", "client_order_id": "a", "qty": 12, "price": 97},
        {"type": "exec", "exec_type": "amended", "price": 97, "qty": 12},
    ),
    (
        {"type": "cancel", "order_id": 1},
        {"type": "exec", "exec_type": "canceled", "reason": "user"},
    ),
    (
        {"type": "cancel", "client_order_id": "a"},
        {
            "type": "error",
            "code": "order_closed",
            "order_status": "canceled",
            "cum_qty": 0,
        },
    ),
    (
        order("buy", 1, 1, client_order_id="a"),
        {
            "type": "error",
            "code": "duplicate_client_order_id",
            "order_id": 1,
            "order_status": "canceled",
            "cum_qty": 0,
        },
    ),
    (
        {"type": "place", "order_type": "market", "side": "buy", "qty": 1},
        {"type": "exec", "exec_type": "new", "order_type": "market"},
    ),
    (
        order("buy", 1, 1, symbol="NONE"),
        {"type": "error", "code": "unknown_symbol", "field": "symbol"},
    ),
    (
        order("buy", 1_001, 1),
        {"type": "error", "code": "invalid_qty", "field": "qty"},
    ),
    (
        order("buy", 1, 0),
        {"type": "error", "code": "invalid_price", "field": "price"},
    ),
    (
        order("buy", 1, 1, time_in_force="gtd", expire_ts=1),
        {"type": "error", "code": "bad_request", "field": "expire_ts"},
    ),
    (
        {"type": "cancel", "order_id": 77},
        {"type": "error", "code": "unknown_order", "field": "order_id"},
    ),
    ({"type": "cancel_all"}, {"type": "ok", "count": 0}),
    (
        {"type": "cancel_all", "symbol": "BOND", "side": "buy"},
        {"type": "ok", "count": 0},
    ),
    ({"type": "cancel_after", "timeout_ms": 60_000}, {"type": "ok"}),
    ({"type": "cancel_after", "timeout_ms": 0}, {"type": "ok"}),
    (follow("book", "trades", "ticker"), {"type": "ok"}),
    (
        follow("book", symbols=["BOND", "NONE"]),
        {"type": "error", "code": "unknown_symbol", "field": "symbol"},
    ),
    ({"type": "unsubscribe", "channels": ["ticker"]}, {"type": "ok"}),
    (
        {"type": "unsubscribe", "channels": ["book"], "symbols": ["BOND"]},
        {"type": "ok"},
    ),
    (get("trades"), {"type": "ok", "data": []}),
    (get("fills"), {"type": "ok", "data": []}),
    (
        get("book", symbol="NONE"),
        {"type": "error", "code": "unknown_symbol", "field": "symbol"},
    ),
    ({"type": "ping"}, {"type": "ok"}),
    (
        {"type": "login", "user": "bob"},
        {"type": "error", "code": "bad_request", "field": "user"},
    ),
    (
        {"type": "stop"},
        {"type": "error", "code": "bad_request", "field": "type"},
    ),
]


@pytest.mark.parametrize(
    "request_id",
    [0, 7, -7, 2**53 - 1, "seven", "", 'é"\\,}', "x" * 36, ABSENT],
)
async def test_every_request_has_its_reply(
    alice: Wire, request_id: int | str
) -> None:
    extra = {} if request_id == ABSENT else {"id": request_id}
    for request, expected in REPLIES:
        reply, *more = await alice.ask(**request, **extra)
        assert reply.get("id", ABSENT) == request_id
        assert {key: reply.get(key) for key in expected} == expected
        if reply["type"] == "error":
            assert reply["message"] and not more
        assert all("id" not in message for message in more)


async def test_the_welcome(exchange: Server, watcher: Wire) -> None:
    messages = await watcher.ask(type="login", id=1, user="alice")
    assert words(messages) == ["welcome", "account"]
    welcome, account = messages
    assert isinstance(welcome.pop("ts"), int)
    assert len(bytes.fromhex(welcome.pop("session"))) == 16
    assert welcome == {
        "type": "welcome",
        "id": 1,
        "protocol": 1,
        "user": "alice",
        "seq": 0,
        "resumed": False,
        "durable": False,
        "limits": {
            "max_frame": 100,
            "orders_per_s": 0,
            "burst": 0,
            "open_orders": 1_000,
            "orders_remembered": 10_000,
            "resume_events": 2_000,
            "connections": 0,
        },
        "instruments": [
            {
                "symbol": "BOND",
                "tick_size": "1",
                "min_price": 1,
                "max_price": 100_000,
                "max_qty": 1_000,
                "phase": "open",
            }
        ],
        "rules": 3,
    }
    assert isinstance(account.pop("ts"), int)
    assert account == {
        "type": "account",
        "seq": 0,
        "cash": 0,
        "positions": {},
        "equity": 0,
    }


async def test_an_execution_report_has_the_whole_order(
    alice: Wire, bob: Wire
) -> None:
    details = {"client_order_id": "mm-17", "stp": "cancel_both"}
    (new,) = await alice.ask(
        **order("buy", 10, 99, id=2, post_only=True, **details)
    )
    ts = new.pop("ts")
    whole = {
        "type": "exec",
        "order_id": 1,
        "symbol": "BOND",
        "side": "buy",
        "price": 99,
        "qty": 10,
        "post_only": True,
        **details,
    }
    assert new == {
        **whole,
        "id": 2,
        "seq": 1,
        "exec_type": "new",
        "order_status": "new",
        "cum_qty": 0,
        "leaves_qty": 10,
    }
    await place(bob, "sell", 4, 99)
    trade, account = await alice.take(2)
    assert trade.pop("ts") == account.pop("ts") > ts
    assert trade == {
        **whole,
        "seq": 2,
        "exec_type": "trade",
        "order_status": "partially_filled",
        "cum_qty": 4,
        "leaves_qty": 6,
        "cum_cost": 396,
        "last_qty": 4,
        "last_price": 99,
        "trade_id": 1,
        "liquidity": "maker",
        "fee": 0,
    }
    assert account == {
        "type": "account",
        "seq": 3,
        "cash": -396,
        "positions": {"BOND": 4},
        "equity": 0,
    }


async def test_replies_come_in_the_order_of_the_requests(alice: Wire) -> None:
    requests: list[Any] = [
        {"type": "ping"},
        order("buy", 1, 90),
        order("buy", 0, 90),
        {"type": "nonsense"},
        follow("book"),
        {"type": "cancel", "order_id": 99},
        get("trades"),
        {"type": "login", "user": "eve"},
        {"type": "cancel_all"},
        {"type": "ping"},
    ]
    for request_id, request in enumerate(requests):
        await alice.send({**request, "id": request_id})
    await alice.send(PING)
    ids = []
    while (message := await alice.receive()).get("id") != "ping":
        if "id" in message:
            ids.append(message["id"])
    assert ids == list(range(len(requests)))


async def test_reply_and_private_events_share_a_frame_public_ones_follow(
    alice: Wire, bob: Wire
) -> None:
    await bob.ask(**follow("book", "trades"))
    await place(alice, "sell", 1, 101)
    await place(alice, "sell", 1, 102)
    await bob.until(type="book", seq=2)
    await bob.send(order("buy", 3, 102, id=5))
    frame = await bob.frame()
    assert words(frame[:4]) == ["new", "trade", "trade", "account"]
    assert [message.get("id") for message in frame[:4]] == [5] + [None] * 3
    bob.inbox = frame[4:]
    assert words(await bob.take(3)) == ["trade", "trade", "book"]


async def test_traders_are_written_to_before_watchers(
    exchange: Server,
    alice: Wire,
    bob: Wire,
    watcher: Wire,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await watcher.ask(**follow("book", "trades"))
    await alice.ask(**order("sell", 1, 50))
    await watcher.receive()
    written: list[str] = []
    real = Connection.write

    def write(connection: Connection, frames: bytes) -> None:
        written.append(exchange.links[connection].account)
        real(connection, frames)

    monkeypatch.setattr(Connection, "write", write)
    await bob.ask(**order("buy", 1, 50))
    assert words(await watcher.take(2)) == ["trade", "book"]
    assert written == ["bob", "alice", ""]


async def test_a_refusal_shares_no_frame_with_events_of_others(
    alice: Wire, bob: Wire
) -> None:
    await bob.send(order("buy", 0, 1, id=1))
    assert words(await bob.frame()) == ["bad_request"]


async def test_requests_of_a_frame_run_without_others_in_between(
    exchange: Server,
) -> None:
    users = ["alice", "bob", "carol"]
    async with contextlib.AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(wired(exchange.url, user))
            for user in users
        ]
        for _ in range(3):
            for wire in wires:
                await wire.send(*[order("buy", 1, 50)] * MAX_FRAME)
        for wire in wires:
            for _ in range(3):
                reports = await wire.take(MAX_FRAME)
                ids = [report["order_id"] for report in reports]
                assert ids == list(range(ids[0], ids[0] + MAX_FRAME))


async def test_a_bad_element_fails_alone(alice: Wire) -> None:
    await alice.send(
        order("buy", 1, 90, id=1),
        order("buy", -1, 90, id=2),
        {"type": "ping", "id": []},
        {"type": "ping", "id": 4, "more": 1},
        {"type": "cancel", "id": 5, "order_id": 1},
    )
    messages = await alice.take(5)
    assert words(messages) == [
        *("new", "bad_request", "bad_request", "bad_request", "canceled")
    ]
    assert [m.get("id") for m in messages] == [1, 2, None, 4, 5]
    fields = [m["field"] for m in messages if m["type"] == "error"]
    assert fields == ["qty", "id", "more"]


async def test_an_accounts_connections_all_get_its_events(
    exchange: Server, alice: Wire, bob: Wire
) -> None:
    async with wired(exchange.url, "alice") as second:
        await place(bob, "sell", 2, 101)
        replies = await alice.ask(**order("buy", 1, 101, id=1))
        replies += await alice.ask(**order("buy", 3, 90, id=2))
        replies += await alice.ask(type="amend", order_id=3, qty=2, id=3)
        replies += await alice.ask(type="cancel_all", id=4)
        expected = [without_id(m) for m in replies if m["type"] != "ok"]
        assert len(expected) == 6
        assert await second.take(6) == expected
        await place(alice, "buy", 5, 100)
        await second.receive()
        await place(bob, "sell", 1, 100)
        filled = await second.take(2)
        assert words(filled) == ["trade", "account"]
        assert await alice.take(2) == filled
        seqs = [m["seq"] for m in [*expected, *filled]]
        assert seqs == [1, 2, 3, 4, 5, 6, 8, 9]


async def test_nobody_else_gets_an_accounts_events(
    alice: Wire, bob: Wire, watcher: Wire
) -> None:
    await place(alice, "buy", 1, 90)
    await alice.ask(type="cancel_all")
    for wire in (bob, watcher):
        assert words(await wire.ask(type="ping")) == ["ok"]


async def test_each_command_has_a_later_time(alice: Wire) -> None:
    await alice.send(*[order("buy", 1, 50)] * MAX_FRAME)
    times = [report["ts"] for report in await alice.take(MAX_FRAME)]
    assert all(old < new for old, new in zip(times, times[1:]))


# Before and after the login -----------------------------------------------

PRIVATE = [
    order("buy", 1, 90),
    {"type": "amend", "order_id": 1, "qty": 1},
    {"type": "cancel", "order_id": 1},
    {"type": "cancel_all"},
    {"type": "cancel_after", "timeout_ms": 5_000},
    get("account"),
    get("fills"),
    get("orders"),
]
PUBLIC = [
    follow("book", "trades", "ticker"),
    {"type": "unsubscribe", "channels": ["book"]},
    get("instruments"),
    get("book"),
    get("trades"),
    get("candles"),
    get("leaderboard"),
    {"type": "ping"},
]


async def test_which_requests_need_a_login(
    exchange: Server, alice: Wire, watcher: Wire
) -> None:
    await place(alice, "buy", 1, 90)
    before = state_of(exchange)
    for request in PRIVATE:
        (error,) = await watcher.ask(**request, id=1)
        assert error["code"] == "unauthorized" and error["id"] == 1
    for request in PUBLIC:
        assert words(await watcher.ask(**request))[0] == "ok"
    assert state_of(exchange) == before


async def test_a_bad_request_is_refused_before_a_missing_login(
    watcher: Wire,
) -> None:
    (error,) = await watcher.ask(**order("buy", 0, 90))
    assert error["code"] == "bad_request"


async def test_public_data_without_login(alice: Wire, watcher: Wire) -> None:
    await watcher.ask(**follow("book", "trades"))
    await place(alice, "buy", 1, 90)
    update = await watcher.receive()
    assert update["bids"] == [[90, 1]] and update["prev_seq"] == 0


async def test_the_first_login_stands(alice: Wire) -> None:
    (error,) = await alice.ask(type="login", user="bob", id=9)
    assert error["code"] == "bad_request" and error["id"] == 9
    await place(alice, "buy", 1, 90)
    (account,) = await rows(alice, "account")
    assert account["seq"] == 1
