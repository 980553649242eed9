"""The running exchange, as its clients see it: over real sockets.

Most tests start a server on a free port of the loopback, within the test.
Where the process matters, they run ``python server.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pty
import random
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.typing import Origin

import server as server_module
from exchange.doors import listener
from exchange.doors.once import REPEATS_MAX
from exchange.doors.websocket import Connection
from exchange.gateway import turns
from exchange.gateway.pacing import SLOW_BYTES, STUCK_BYTES
from exchange.host import timers
from exchange.host.market_file import SettingsError
from exchange.host.settings import Settings
from exchange.market.command import Command, Output
from exchange.market.engine import Engine
from orderbook import MAX_FRAME, Place
from server import Server
from test.support import (
    PATIENCE_S,
    Wire,
    add_key,
    address,
    answer,
    ended,
    greeting,
    launched,
    order,
    serving,
    state_of,
    until,
    wired,
    words,
)

Message = dict[str, Any]
PING = {"type": "ping", "id": "ping"}
ABSENT = "absent"


@pytest.fixture
async def exchange() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


@pytest.fixture
async def alice(exchange: Server) -> AsyncIterator[Wire]:
    async with wired(exchange.url, "alice") as wire:
        yield wire


@pytest.fixture
async def bob(exchange: Server) -> AsyncIterator[Wire]:
    async with wired(exchange.url, "bob") as wire:
        yield wire


@pytest.fixture
async def watcher(exchange: Server) -> AsyncIterator[Wire]:
    """A connection that has not logged in."""
    async with wired(exchange.url) as wire:
        yield wire


def follow(*channels: str, **more: Any) -> Message:
    return {"type": "subscribe", "channels": channels, **more}


def get(what: str, **more: Any) -> Message:
    return {"type": "get", "what": what, **more}


def without_id(message: Message) -> Message:
    return {key: message[key] for key in message if key != "id"}


async def rows(wire: Wire, what: str, **more: Any) -> list[Any]:
    """Return the rows of a table."""
    (reply,) = await wire.ask(**get(what, **more))
    data: list[Any] = reply["data"]
    return data


async def place(wire: Wire, side: str, qty: int, price: int) -> list[Message]:
    return await wire.ask(**order(side, qty, price))


# Requests and their replies -----------------------------------------------

# In this order: each finds what those before it left.
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
    }
    assert isinstance(account.pop("ts"), int)
    assert account == {
        "type": "account",
        "seq": 0,
        "cash": 0,
        "positions": {},
        "equity": 0,
    }


async def test_an_execution_report_tells_the_whole_order(
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


async def test_who_trades_is_written_to_before_who_watches(
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


async def test_the_refused_share_no_frame_with_other_peoples_events(
    alice: Wire, bob: Wire
) -> None:
    await bob.send(order("buy", 0, 1, id=1))
    assert words(await bob.frame()) == ["bad_request"]


async def test_what_a_frame_asks_runs_with_nobody_elses_in_between(
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


async def test_times_rise_from_command_to_command(alice: Wire) -> None:
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


async def test_what_needs_a_login_and_what_does_not(
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


async def test_what_is_wrong_comes_before_who_asks(watcher: Wire) -> None:
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
    board = await rows(alice, "leaderboard")
    assert [row["user"] for row in board] == ["alice"]


# Sessions -----------------------------------------------------------------


async def leave(wire: Wire) -> None:
    await wire.connection.close()


async def test_a_session_is_resumed(exchange: Server, bob: Wire) -> None:
    async with wired(exchange.url) as wire:
        welcome = await wire.login("alice", cancel_on_disconnect=False)
        (new,) = await place(wire, "buy", 5, 99)
    for qty in (1, 2):
        await place(bob, "sell", qty, 99)
    async with wired(exchange.url) as wire:
        again, *missed = await wire.ask(
            type="login",
            user="alice",
            session=welcome["session"],
            last_seq=new["seq"],
            cancel_on_disconnect=False,
        )
        assert again["resumed"] and again["session"] == welcome["session"]
        assert words(missed) == ["trade", "account"] * 2
        assert [m["seq"] for m in missed] == [2, 3, 4, 5]
        assert again["seq"] == 5
        assert [m.get("last_qty") for m in missed] == [1, None, 2, None]
        (canceled,) = await wire.ask(type="cancel", order_id=1)
        assert canceled["seq"] == 6
    async with wired(exchange.url) as wire:
        messages = await wire.ask(
            type="login", user="alice", session=welcome["session"], last_seq=6
        )
        assert words(messages) == ["welcome"]
        assert messages[0]["resumed"] and messages[0]["seq"] == 6


@pytest.mark.parametrize(
    "case", ["too old", "ahead", "unknown", "another's", "no last_seq"]
)
async def test_a_session_that_cannot_be_resumed(
    monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr("exchange.journal.history.RESUME_EVENTS", 4)
    async with serving() as exchange, wired(exchange.url, "bob") as bob:
        async with wired(exchange.url) as wire:
            welcome = await wire.login("alice", cancel_on_disconnect=False)
            for price in (91, 92, 93, 94, 95):
                await place(wire, "buy", 5, price)
            await wire.ask(type="cancel", order_id=3)
        await place(bob, "sell", 1, 95)
        async with wired(exchange.url) as stranger:
            theirs = await stranger.login("carol")
            session = {
                "unknown": "0" * 32,
                "another's": theirs["session"],
            }.get(case, welcome["session"])
            last_seq = {"too old": 3, "ahead": 99}.get(case, 8)
            resume = {"session": session, "last_seq": last_seq}
            if case == "no last_seq":
                del resume["last_seq"]
            async with wired(exchange.url) as wire:
                again, *state = await wire.ask(
                    type="login", user="alice", **resume
                )
                assert (await stranger.ask(type="ping"))[0]["type"] == "ok"
        is_known = session == welcome["session"]
        assert (again["session"] == welcome["session"]) is is_known
        assert again["session"] != theirs["session"]
        assert not again["resumed"] and again["seq"] == 8
        assert words(state) == ["status"] * 4 + ["account"]
        assert {message["seq"] for message in state} == {8}
        orders = [(m["order_id"], m["price"]) for m in state[:-1]]
        assert orders == [(1, 91), (2, 92), (4, 94), (5, 95)]
        last = state[-2]
        assert last["order_status"] == "partially_filled"
        assert (last["cum_qty"], last["leaves_qty"]) == (1, 4)
        assert state[-1]["positions"] == {"BOND": 1}


async def test_the_oldest_event_kept_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exchange.journal.history.RESUME_EVENTS", 4)
    async with serving() as exchange, wired(exchange.url, "alice") as wire:
        for price in (91, 92, 93, 94, 95, 96):
            await place(wire, "buy", 5, price)
        async with wired(exchange.url) as second:
            welcome = await second.login("alice")
        async with wired(exchange.url) as third:
            again, *missed = await third.ask(
                type="login",
                user="alice",
                session=welcome["session"],
                last_seq=2,
            )
        assert again["resumed"] and [m["seq"] for m in missed] == [3, 4, 5, 6]


async def test_a_session_is_taken_over(exchange: Server, bob: Wire) -> None:
    async with wired(exchange.url) as old, wired(exchange.url) as new:
        welcome = await old.login("alice")
        await place(old, "buy", 5, 99)
        again = await new.login(
            "alice", session=welcome["session"], last_seq=1
        )
        assert again["resumed"] and again["session"] == welcome["session"]
        await place(bob, "sell", 1, 99)
        assert words(await new.take(2)) == ["trade", "account"]
        assert await old.rest() == ([], 4009)
        # The orders are now the new connection's, for better or worse.
        assert words(await new.ask(type="ping")) == ["ok"]
        assert len(await rows(bob, "book")) == 1
        assert (await rows(bob, "book"))[0]["bids"] == [[99, 4]]
        await bob.ask(**follow("book"))
        await leave(new)
        assert (await bob.until(type="book"))["bids"] == [[99, 0]]


async def test_another_session_of_the_account_is_left_alone(
    exchange: Server, alice: Wire
) -> None:
    await place(alice, "buy", 5, 99)
    async with wired(exchange.url, "alice") as second:
        await place(second, "buy", 6, 98)
        assert (await alice.receive())["order_id"] == 2
    canceled = await alice.receive()
    assert canceled["order_id"] == 2 and canceled["reason"] == "disconnect"
    order_, *rest = await rows(alice, "orders", after=0)
    assert order_["leaves_qty"] == 5


async def test_orders_die_with_their_connection(
    exchange: Server, bob: Wire
) -> None:
    await bob.ask(**follow("book"))
    async with wired(exchange.url) as wire:
        welcome = await wire.login("alice")
        for price in (91, 93, 92):
            await place(wire, "buy", 5, price)
    await bob.until(type="book", seq=4)
    async with wired(exchange.url) as wire:
        again, *missed = await wire.ask(
            type="login",
            user="alice",
            session=welcome["session"],
            last_seq=3,
        )
    assert again["resumed"] and words(missed) == ["canceled"] * 3
    assert [m["order_id"] for m in missed] == [1, 2, 3]
    assert {m["reason"] for m in missed} == {"disconnect"}
    assert len({m["ts"] for m in missed}) == 1


async def test_orders_may_outlive_their_connection(
    exchange: Server, bob: Wire
) -> None:
    async with wired(exchange.url) as wire:
        await wire.login("alice", cancel_on_disconnect=False)
        await place(wire, "buy", 5, 99)
    # Another's orders die, and by then this one's end has been seen.
    await bob.ask(**follow("book"))
    async with wired(exchange.url, "carol") as wire:
        await place(wire, "buy", 5, 90)
    update = await bob.until(type="book", seq=3)
    assert update["bids"] == [[90, 0]]
    assert (await rows(bob, "book"))[0]["bids"] == [[99, 5]]


async def test_the_last_words_of_a_connection_are_heard(
    exchange: Server, bob: Wire
) -> None:
    await bob.ask(**follow("book"))
    async with wired(exchange.url) as wire:
        await wire.login("alice", cancel_on_disconnect=False)
        for _ in range(5):
            await wire.send(*[order("buy", 1, 90)] * MAX_FRAME)
        await leave(wire)
    quantity = 0
    while quantity < 5 * MAX_FRAME:
        quantity = (await bob.until(type="book"))["bids"][0][1]
    assert quantity == 5 * MAX_FRAME


async def test_they_are_heard_however_long_they_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "REQUESTS_AT_FIRST", 2)
    monkeypatch.setattr(turns, "REQUESTS_PER_TURN", 2)
    async with serving() as exchange, wired(exchange.url, "bob") as bob:
        await bob.ask(**follow("book"))
        async with wired(exchange.url) as wire:
            await wire.login("alice", cancel_on_disconnect=False)
            for _ in range(150):
                await wire.send(order("buy", 1, 90))
            wire.connection.transport.write_eof()
            await bob.until(type="book", bids=[[90, 150]])


# Time ---------------------------------------------------------------------


async def test_cancel_after(alice: Wire) -> None:
    await place(alice, "buy", 1, 90)
    (armed,) = await alice.ask(type="cancel_after", timeout_ms=1_000)
    canceled = await alice.receive()
    assert canceled["reason"] == "cancel_after" and "id" not in canceled
    assert canceled["ts"] >= armed["ts"] + 1_000_000


async def test_gtd_expires(alice: Wire, watcher: Wire) -> None:
    await watcher.ask(**follow("book"))
    now = (await alice.ask(type="ping"))[0]["ts"]
    expire_ts = now + 200_000
    gtd = {"time_in_force": "gtd", "expire_ts": expire_ts}
    (new,) = await alice.ask(**order("buy", 1, 90, **gtd))
    assert {key: new[key] for key in gtd} == gtd
    expired = await alice.receive()
    assert expired["exec_type"] == expired["order_status"] == "expired"
    assert expired["reason"] == "gtd" and expired["ts"] >= expire_ts
    assert (await watcher.until(type="book", seq=2))["bids"] == [[90, 0]]


async def test_a_deadline_comes_before_a_request_that_is_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even where the timer for it has not gone off yet."""
    now = server_module.Clock.now
    ahead = {"us": 0}
    monkeypatch.setattr(
        server_module.Clock, "now", lambda clock: now(clock) + ahead["us"]
    )
    async with serving() as exchange:
        async with (
            wired(exchange.url, "alice") as alice,
            wired(exchange.url, "bob") as bob,
        ):
            hour = 3_600_000_000
            expire_ts = (await alice.ask(type="ping"))[0]["ts"] + hour
            gtd = {"time_in_force": "gtd", "expire_ts": expire_ts}
            await alice.ask(**order("sell", 1, 101, **gtd))
            ahead["us"] = hour
            assert words(await place(bob, "buy", 1, 101)) == ["new"]
            assert (await alice.receive())["reason"] == "gtd"


@pytest.mark.parametrize("step_us", [0, 1, 1_000])
async def test_a_deadline_within_a_batch_of_requests(
    monkeypatch: pytest.MonkeyPatch, step_us: int
) -> None:
    """Nobody trades with an order at or after its ``expire_ts``.

    Not even where time passes, or commands outrun it, between two requests
    of one frame.
    """
    clock = {"now": 1_795_340_157_000_000}

    def now(self: server_module.Clock) -> int:
        clock["now"] += step_us
        return clock["now"]

    monkeypatch.setattr(server_module.Clock, "now", now)
    async with serving() as exchange, wired(exchange.url, "alice") as alice:
        async with wired(exchange.url, "bob") as bob:
            start = (await alice.ask(type="cancel_all"))[0]["ts"]
            expire_ts = start + 50 * max(step_us, 1)
            gtd = {"time_in_force": "gtd", "expire_ts": expire_ts}
            await alice.ask(**order("sell", 1_000, 101, **gtd))
            buy = order("buy", 1, 101, time_in_force="ioc")
            await bob.send(*[buy] * (MAX_FRAME - 1), PING)
            await bob.until(id="ping")
            clock["now"] = expire_ts
            await bob.ask(type="ping")
            await alice.until(reason="gtd")
            fills = await rows(alice, "fills")
            assert fills and max(fill["ts"] for fill in fills) < expire_ts


async def test_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timers.HEARTBEAT_S == 5.0
    monkeypatch.setattr(timers, "HEARTBEAT_S", 0.01)
    async with serving(symbols=("BOND", "ETF")) as exchange:
        async with wired(exchange.url) as wire:
            wire.hears_heartbeats = True
            seen = []

            async def beat() -> Any:
                """Return the seq of a heartbeat that was not yet due."""
                await wire.until(type="heartbeat")
                heartbeat = await wire.until(type="heartbeat")
                seen.append(heartbeat["ts"])
                assert set(heartbeat) == {"type", "ts", "seq"}
                return heartbeat["seq"]

            assert await beat() == {}
            await wire.send(follow("book", symbols=["ETF"]))
            assert await beat() == {"ETF": 0}
            await wire.send({"type": "login", "user": "alice"})
            assert await beat() == {"ETF": 0, "@": 0}
            for symbol in ("BOND", "ETF", "ETF"):
                await wire.send(order("buy", 1, 90, symbol=symbol))
                await wire.until(exec_type="new")
            assert await beat() == {"ETF": 2, "@": 3}
            await wire.send(follow("trades", "book"))
            assert await beat() == {"BOND": 1, "ETF": 2, "@": 3}
            none = {"type": "unsubscribe", "channels": ["book", "trades"]}
            await wire.send({**none, "id": "none"})
            await wire.until(id="none")
            assert await beat() == {"@": 3}
            assert seen == sorted(set(seen))


async def test_a_ticker_at_once_and_on_change(
    alice: Wire, bob: Wire, watcher: Wire
) -> None:
    assert timers.TICKER_S == 0.1
    await place(alice, "buy", 5, 99)
    await watcher.send(follow("ticker", id=1))
    reply, ticker = await watcher.take(2)
    assert reply["type"] == "ok" and reply["id"] == 1
    assert isinstance(ticker.pop("ts"), int)
    assert ticker == {
        "type": "ticker",
        "symbol": "BOND",
        "bid": 99,
        "bid_qty": 5,
        "volume": 0,
    }
    await place(alice, "sell", 2, 101)
    await watcher.until(type="ticker", ask=101, ask_qty=2, bid=99)
    # Below the best nothing changes, so the next to come is about the trade.
    await place(alice, "buy", 5, 98)
    await place(bob, "buy", 1, 101)
    ticker = await watcher.receive()
    assert ticker["last"] == 101 and ticker["volume"] == 1
    assert ticker["ask_qty"] == 1


# Market data --------------------------------------------------------------


class Follower:
    """A book kept by the rules of the protocol, which it also checks."""

    def __init__(self) -> None:
        self.seq = -1
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self.trades: list[Message] = []
        self._uncovered: list[Message] = []

    def take(self, message: Message) -> None:
        if message["type"] == "trade":
            if self.trades:
                last = self.trades[-1]
                assert message["trade_id"] == last["trade_id"] + 1
                assert message["seq"] >= last["seq"]
            assert message["seq"] > self.seq, "before the book that covers it"
            self.trades.append(message)
            self._uncovered.append(message)
            return
        if message.get("snapshot"):
            assert "prev_seq" not in message
            self.bids.clear()
            self.asks.clear()
        else:
            assert message["prev_seq"] == self.seq < message["seq"]
            assert message["bids"] or message["asks"]
        for trade in self._uncovered:
            assert trade["seq"] <= message["seq"]
        self._uncovered.clear()
        self.seq = message["seq"]
        for side in ("bids", "asks"):
            levels = getattr(self, side)
            for price, qty in message[side]:
                if qty:
                    levels[price] = qty
                else:
                    levels.pop(price, None)

    def book(self) -> tuple[Any, Any]:
        return (
            [list(level) for level in sorted(self.bids.items(), reverse=True)],
            [list(level) for level in sorted(self.asks.items())],
        )


async def test_snapshot_and_updates_make_the_book(
    alice: Wire, bob: Wire, watcher: Wire
) -> None:
    follower = Follower()
    await place(alice, "buy", 5, 95)
    await watcher.send(follow("book", "trades"))
    assert (await watcher.receive())["type"] == "ok"
    dice = random.Random(7)
    for _ in range(60):
        for wire in (alice, bob):
            requests = [
                order(
                    dice.choice(["buy", "sell"]),
                    dice.randint(1, 9),
                    dice.randint(95, 105),
                    stp=dice.choice(["cancel_newest", "cancel_both"]),
                    time_in_force=dice.choice(["gtc", "ioc", "fok"]),
                )
                for _ in range(dice.randint(1, 3))
            ]
            if dice.random() < 0.1:
                requests.append({"type": "cancel_all"})
            await wire.send(*requests, PING)
            await wire.until(id="ping")
    (book,) = await rows(bob, "book")
    while follower.seq < book["seq"]:
        follower.take(await watcher.receive())
    assert follower.book() == (book["bids"], book["asks"])
    assert follower.trades == await rows(bob, "trades", after=0, limit=1_000)
    assert len(follower.trades) > 20 and follower.seq > 100


async def test_subscribing_again_gives_a_snapshot_again(
    alice: Wire, watcher: Wire
) -> None:
    for price in (90, 91):
        await place(alice, "buy", 5, price)
        await watcher.send(follow("book", id=price))
        await watcher.until(id=price)
        snapshot = await watcher.receive()
        assert snapshot["snapshot"] and snapshot["bids"][0] == [price, 5]
        if price == 90:
            continue
        assert snapshot["seq"] == 2


async def test_channels_and_symbols_are_chosen() -> None:
    async with serving(symbols=("BOND", "ETF", "ADR")) as exchange:
        async with (
            wired(exchange.url, "alice") as alice,
            wired(exchange.url) as all_books,
            wired(exchange.url) as some,
        ):
            await all_books.send(follow("book"))
            snapshots = (await all_books.take(4))[1:]
            assert [s["symbol"] for s in snapshots] == ["BOND", "ETF", "ADR"]
            await some.send(follow("book", symbols=["ETF", "ADR"]))
            await some.take(3)
            await some.ask(
                type="unsubscribe", channels=["book"], symbols=["ADR"]
            )
            for symbol in ("BOND", "ADR", "ETF"):
                await alice.ask(**order("buy", 1, 90, symbol=symbol))
            updates = await all_books.take(3)
            assert {(u["symbol"], u["seq"]) for u in updates} == {
                ("BOND", 1),
                ("ETF", 1),
                ("ADR", 1),
            }
            assert (await some.receive())["symbol"] == "ETF"
            assert words(await some.ask(type="ping")) == ["ok"]


async def test_where_several_are_listed_a_symbol_is_needed() -> None:
    async with serving(symbols=("BOND", "ETF")) as exchange:
        async with wired(exchange.url, "alice") as alice:
            for request in (order("buy", 1, 90), get("trades"), get("book")):
                (error,) = await alice.ask(**request)
                assert error["code"] == "bad_request"
                assert error["field"] == "symbol"


# Tables -------------------------------------------------------------------


async def test_rows_are_complete_messages(
    alice: Wire, bob: Wire, watcher: Wire
) -> None:
    await watcher.ask(**follow("trades", "book"))
    await place(alice, "sell", 5, 101)
    new, filled, account = await bob.ask(**order("buy", 2, 101))
    await alice.take(2)
    await watcher.until(type="book", seq=1)
    trade, _ = await watcher.take(2)
    assert await rows(watcher, "trades") == [trade]
    assert await rows(bob, "fills") == [filled]
    assert await rows(bob, "account") == [account]
    (status,) = await rows(bob, "orders")
    assert status["exec_type"] == "status"
    assert status["order_status"] == "filled" and status["leaves_qty"] == 0
    assert status["order_id"] == new["order_id"]
    assert status["seq"] == account["seq"]
    (book,) = await rows(watcher, "book")
    assert book["type"] == "book" and book["snapshot"]
    assert (book["bids"], book["asks"]) == ([], [[101, 3]])
    assert book["seq"] == trade["seq"] == 2
    second = trade["ts"] // 1_000_000 * 1_000_000
    assert await rows(watcher, "candles", interval="1s") == [
        [second, 101, 101, 101, 101, 2]
    ]
    board = await rows(watcher, "leaderboard")
    assert board == [
        {
            "rank": 1,
            "user": user,
            "equity": 0,
            "cash": cash,
            "positions": {"BOND": position},
        }
        for user, cash, position in (("alice", 202, -2), ("bob", -202, 2))
    ]
    instruments = await rows(watcher, "instruments")
    assert instruments == (await watcher.login("carol"))["instruments"]


@pytest.mark.parametrize(
    "what, key",
    [("trades", "trade_id"), ("orders", "order_id"), ("fills", "seq")],
)
async def test_tables_are_paged(
    alice: Wire, bob: Wire, what: str, key: str
) -> None:
    await bob.ask(**order("sell", 600, 101))
    for _ in range(6):
        await alice.send(*[order("buy", 1, 101)] * MAX_FRAME)
        await alice.ask(type="ping")
    everything = await rows(alice, what, after=0, limit=1_000)
    keys = [row[key] for row in everything]
    assert len(keys) == 600 and keys == sorted(set(keys))
    # Without `after` the newest, 500 unless told otherwise.
    assert await rows(alice, what) == everything[-500:]
    assert await rows(alice, what, limit=7) == everything[-7:]
    assert await rows(alice, what, limit=1_000) == everything
    # With it the oldest after that one.
    paged: list[Any] = []
    while page := await rows(
        alice, what, after=paged[-1][key] if paged else 0, limit=250
    ):
        assert len(page) in (250, 100)
        paged += page
    assert paged == everything
    assert await rows(alice, what, after=keys[-1]) == []
    assert await rows(alice, what, after=keys[-2]) == everything[-1:]
    (error,) = await alice.ask(**get(what, limit=1_001))
    assert error["code"] == "bad_request" and error["field"] == "limit"


async def test_private_tables_of_one_symbol() -> None:
    async with serving(symbols=("BOND", "ETF")) as exchange:
        async with (
            wired(exchange.url, "alice") as alice,
            wired(exchange.url, "bob") as bob,
        ):
            for symbol in ("BOND", "ETF", "BOND"):
                await alice.ask(**order("buy", 1, 90, symbol=symbol))
                await bob.ask(**order("sell", 1, 90, symbol=symbol))
            for what in ("orders", "fills"):
                assert len(await rows(bob, what)) == 3
                (row,) = await rows(bob, what, symbol="ETF")
                assert row["order_id"] == 4 and row["symbol"] == "ETF"
                (error,) = await bob.ask(**get(what, symbol="NONE"))
                assert error["code"] == "unknown_symbol"


async def test_a_table_longer_than_a_frame(alice: Wire) -> None:
    for _ in range(10):
        await alice.send(*[order("buy", 1, 50)] * MAX_FRAME)
        await alice.take(MAX_FRAME)
    requests = [get("orders", limit=1_000, id=n) for n in range(8)]
    await alice.send(*requests)
    for n in range(8):
        reply = await alice.receive()
        assert reply["id"] == n and len(reply["data"]) == 1_000


# Readers that are slow ----------------------------------------------------

SMALL_BUFFER = 8_192


@pytest.fixture
async def narrow(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Callable[..., Any]]:
    """Sockets in which the kernel keeps little, so that it soon waits."""
    bind = listener.bind

    async def bind_narrow(hostname: str, port: int) -> list[socket.socket]:
        sockets = await bind(hostname, port)
        for sock in sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        return sockets

    monkeypatch.setattr(listener, "bind", bind_narrow)
    wires: list[Wire] = []
    async with contextlib.AsyncExitStack() as stack:

        async def dial(server: Server, user: str = "", **more: Any) -> Wire:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", server.port))
            wire = Wire(
                await stack.enter_async_context(
                    connect(
                        server.url,
                        sock=sock,
                        compression=None,
                        proxy=None,
                        max_queue=None,
                    )
                )
            )
            wires.append(wire)
            if user:
                await wire.login(user, **more)
            return wire

        yield dial
        for wire in wires:
            wire.resume()


async def stuff(wire: Wire, other: Wire, size: int) -> int:
    """Let so many bytes wait for a reader; return in how many answers.

    An order behind the requests for them, which another connection of the
    account sees, tells that they have been carried out.
    """
    wire.pause()
    # A table of 100 orders has some 20,000 bytes.
    count = size // 20_000 + 1
    for _ in range(count):
        await wire.send(get("orders", limit=100))
    await wire.send(order("buy", 1, 1, time_in_force="ioc"))
    await other.until(exec_type="expired")
    return count


async def open_orders(wire: Wire, count: int = MAX_FRAME) -> None:
    await wire.send(*[order("buy", 1, 50)] * count)
    await wire.take(count)


async def test_a_slow_reader_gets_one_update_for_what_it_missed(
    narrow: Callable[..., Any],
) -> None:
    async with (
        serving() as exchange,
        wired(exchange.url, "alice") as alice,
        wired(exchange.url, "bob") as bob,
    ):
        slow = await narrow(exchange, "alice")
        await open_orders(slow)
        await slow.send(follow("book", "trades"))
        held = (await slow.until(snapshot=True))["seq"] + 1
        await place(bob, "buy", 1, 30)  # while it is a reader like any other
        await slow.until(type="book", seq=held)
        tables = await stuff(slow, alice, 2 * SLOW_BYTES)
        await place(alice, "sell", 100, 60)
        for qty in range(1, 31):
            await place(bob, "buy", 1, 60)
            await place(bob, "buy", qty, 40)
        last = held + 61
        slow.resume()
        # The tables, then what is private, all of it; then the book.
        replies = await slow.take(tables)
        assert all(len(reply["data"]) == 100 for reply in replies)
        private = await slow.take(63)
        assert (
            words(private)
            == ["new", "expired", "new"] + [*("trade", "account")] * 30
        )
        seqs = [message["seq"] for message in private]
        assert seqs == list(range(seqs[0], seqs[0] + 63))
        update = await slow.receive()
        assert update["prev_seq"] == held and update["seq"] == last
        assert update["bids"] == [[40, 465]] and update["asks"] == [[60, 70]]
        # From here on it is a reader like any other.
        await place(bob, "buy", 1, 60)
        messages = await slow.take(4)
        assert words(messages) == ["trade", "account", "trade", "book"]
        assert messages[2]["trade_id"] == 31


async def test_a_slow_reader_that_missed_too_much_gets_a_snapshot(
    monkeypatch: pytest.MonkeyPatch, narrow: Callable[..., Any]
) -> None:
    monkeypatch.setattr("exchange.gateway.feed.UPDATES_KEPT", 5)
    async with (
        serving() as exchange,
        wired(exchange.url, "alice") as alice,
        wired(exchange.url, "bob") as bob,
    ):
        slow = await narrow(exchange, "alice")
        await open_orders(slow)
        await slow.send(follow("book"))
        held = (await slow.until(snapshot=True))["seq"]
        await stuff(slow, alice, 2 * SLOW_BYTES)
        for price in range(10, 20):
            await place(bob, "buy", 1, price)
        slow.resume()
        snapshot = await slow.until(type="book")
        assert snapshot["snapshot"] and snapshot["seq"] == held + 10
        assert len(snapshot["bids"]) == 11


async def test_a_reader_that_never_reads_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, narrow: Callable[..., Any]
) -> None:
    monkeypatch.setattr("exchange.gateway.pacing.STUCK_BYTES", 2 * SLOW_BYTES)
    async with (
        serving() as exchange,
        wired(exchange.url, "alice") as alice,
        wired(exchange.url, "bob") as bob,
    ):
        slow = await narrow(exchange, "alice")
        await open_orders(slow)
        await stuff(slow, alice, 4 * SLOW_BYTES)
        # Others go on.
        for _ in range(20):
            assert words(await place(bob, "buy", 1, 40)) == ["new"]
        slow.resume()
        messages, code = await slow.rest()
        # What was on its way arrives, and then the reason.
        assert code == 4008 and words(messages)[:2] == ["ok", "ok"]
        for _ in range(MAX_FRAME):
            canceled = await alice.receive()
            assert canceled["reason"] == "disconnect"
        assert (await rows(bob, "book"))[0]["bids"] == [[40, 20]]


async def test_the_limits_of_slow_readers() -> None:
    assert STUCK_BYTES == 4 * 2**20
    assert SLOW_BYTES < STUCK_BYTES


# Fairness and limits ------------------------------------------------------


async def test_a_flood_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    applied: list[str] = []
    apply = Engine.apply

    def spy(engine: Engine, command: Command) -> list[Output]:
        applied.append(command.account)
        return apply(engine, command)

    monkeypatch.setattr(Engine, "apply", spy)
    async with serving() as exchange:
        async with (
            wired(exchange.url, "flood") as flood,
            wired(exchange.url, "alice") as alice,
            wired(exchange.url, "bob") as bob,
        ):
            for _ in range(40):
                await flood.send(*[{"type": "cancel_all"}] * MAX_FRAME)
            before = len(applied)
            await alice.send({"type": "cancel_all"})
            await bob.send({"type": "cancel_all"})
            await alice.receive()
            await bob.receive()
            await flood.take(40 * MAX_FRAME)
            turns = applied[before:]
            assert turns.index("alice") <= 2 * MAX_FRAME
            assert turns.index("bob") <= 2 * MAX_FRAME + 1
            assert applied.count("flood") == 40 * MAX_FRAME + 1


async def test_public_data_that_had_to_wait_come_by_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exchange.gateway.pacing.MANY_READERS", 1)
    async with (
        serving() as exchange,
        wired(exchange.url, "alice") as alice,
        wired(exchange.url) as reader,
    ):
        await reader.ask(**follow("book"))
        for qty in range(1, 21):
            await alice.ask(**order("buy", 1, 90))
        await reader.until(type="book", bids=[[90, 20]])


async def test_who_is_just_being_taken_in_is_let_go_at_the_end() -> None:
    for rounds in range(6):
        async with serving() as exchange:
            sockets = []
            for _ in range(5):
                sock = socket.socket()
                sockets.append(sock)
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", exchange.port))
            for _ in range(rounds):
                await asyncio.sleep(0)
            await exchange.stop()
        gc.collect()  # a socket that nobody owns warns, which fails a test
        for sock in sockets:
            sock.close()


# Who may connect ----------------------------------------------------------


@pytest.mark.parametrize(
    "host, status",
    [
        ("localhost", 101),
        ("localhost:{port}", 101),
        ("LocalHost:{port}", 101),
        ("127.0.0.1:{port}", 101),
        ("[::1]:{port}", 101),
        ("example.org", 403),
        ("example.org:{port}", 403),
        ("localhost.example.org:{port}", 403),
        ("", 403),
    ],
)
async def test_hosts_on_the_loopback(
    exchange: Server, host: str, status: int
) -> None:
    host = host.format(port=exchange.port)
    assert await answer(exchange.port, f"Host: {host}") == status


async def test_no_host_and_two_hosts(exchange: Server) -> None:
    assert await answer(exchange.port) == 403
    twice = ["Host: localhost"] * 2
    assert await answer(exchange.port, *twice) == 403


async def test_any_host_where_others_can_reach() -> None:
    async with serving(hostname="0.0.0.0", open=True) as exchange:
        port = exchange.port
        assert await answer(port, f"Host: example.org:{port}") == 101


@pytest.mark.parametrize(
    "origin, status",
    [
        ("http://localhost:{port}", 101),
        ("http://127.0.0.1:{port}", 101),
        ("http://[::1]:{port}", 101),
        ("https://localhost:{port}", 101),  # by a proxy that speaks TLS
        ("https://trade.example.org", 101),
        ("http://trade.example.org", 403),
        ("http://localhost", 403),
        ("http://example.org", 403),
        ("http://example.org:{port}", 403),
        ("null", 403),
    ],
)
async def test_origins(origin: str, status: int) -> None:
    async with serving(origins=("https://trade.example.org",)) as exchange:
        port = exchange.port
        header = f"Origin: {origin.format(port=port)}"
        assert await answer(port, f"Host: localhost:{port}", header) == status


OWN_NAME = socket.gethostname()


@pytest.mark.parametrize("hostname", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize(
    "host, status",
    [
        ("127.0.0.2:{port}", 101),  # as on the desk of somebody else
        ("localhost:9000", 101),  # another port, as of ssh -L or docker -p
        ("10.0.0.7:9000", 101),
        ("[::1]:9000", 101),
        ("10.0.0.7", 101),
        (f"{OWN_NAME}:{{port}}", 101),
        (f"{OWN_NAME}:9000", 101),
        ("TRADE.example.org", 101),
        ("trade.example.org:9000", 101),
        ("example.org:{port}", 403),  # a name that was bent to this machine
        ("localhost.example.org", 403),
    ],
)
async def test_a_page_may_connect_to_where_it_was_opened(
    hostname: str, host: str, status: int
) -> None:
    settings = {"hostname": hostname, "open": True}
    listed = ("https://trade.example.org",)
    async with serving(origins=listed, **settings) as exchange:
        host = host.format(port=exchange.port)
        for scheme in ("http", "https"):
            headers = f"Host: {host}", f"Origin: {scheme}://{host.lower()}"
            assert await answer(exchange.port, *headers) == status


async def test_a_refusal_is_logged_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as exchange:
        port = exchange.port
        for origin in ("https://x.example", "https://y.example") * 3:
            headers = f"Host: localhost:{port}", f"Origin: {origin}"
            assert await answer(port, *headers) == 403
        for host in ("x.example", "x.example:80", "x.example"):
            assert await answer(port, f"Host: {host}") == 403
        figures = exchange.answers.figures()
    assert figures.http_refusals == {"host": 3, "origin": 6}
    assert caplog.messages == [
        "refused 127.0.0.1: origin https://x.example is not in"
        " EXCHANGE_SERVER_ORIGINS",
        "refused 127.0.0.1: origin https://y.example is not in"
        " EXCHANGE_SERVER_ORIGINS",
        "refused 127.0.0.1: host x.example is not in an origin of"
        " EXCHANGE_SERVER_ORIGINS",
        "refused 127.0.0.1: host x.example:80 is not in an origin of"
        " EXCHANGE_SERVER_ORIGINS",
    ]


async def test_a_flood_of_origins_fills_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as exchange:
        for n in range(REPEATS_MAX + 10):
            headers = "Host: localhost", f"Origin: https://{n}.example"
            assert await answer(exchange.port, *headers) == 403
        assert exchange.answers.figures().http_refusals["origin"] == n + 1
    assert len(caplog.messages) == REPEATS_MAX + 1


@pytest.mark.parametrize(
    "query, host, status, text",
    [
        (
            "?origin=http://localhost:9000",
            "localhost:9000",
            200,
            "ok: a name is enough to log in\n",
        ),
        ("", "localhost:9000", 200, "ok: a name is enough to log in\n"),
        (
            "?origin=https%3A%2F%2Fx.example",
            "localhost",
            403,
            "origin https://x.example is not in EXCHANGE_SERVER_ORIGINS\n",
        ),
        (
            "?origin=https://x.example",
            "x.example",
            403,
            "origin https://x.example is not in EXCHANGE_SERVER_ORIGINS\n",
        ),
    ],
)
async def test_a_page_can_ask_why_it_may_not_connect(
    query: str, host: str, status: int, text: str
) -> None:
    async with serving(hostname="0.0.0.0", open=True) as exchange:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", exchange.port
        )
        request = f"GET /v1/access{query} HTTP/1.1\r\nHost: {host}\r\n\r\n"
        writer.write(request.encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        assert int(head.split()[1]) == status
        assert body == text


# Behind a proxy -----------------------------------------------------------


async def through(port: int, client: str, **more: Any) -> ClientConnection:
    """Connect as a proxy on this machine does for somebody."""
    return await connect(
        f"ws://127.0.0.1:{port}",
        proxy=None,
        additional_headers={"X-Forwarded-For": client},
        **more,
    )


async def test_limits_of_an_address_are_of_people() -> None:
    settings = {"proxies": ("127.0.0.1",), "max_per_address": 2}
    async with serving(open=True, **settings) as exchange:
        port = exchange.port
        ann = [await through(port, "10.0.0.1") for _ in range(2)]
        bob = [await through(port, "10.0.0.2, 127.0.0.1") for _ in range(2)]
        for client in ("10.0.0.1", "6.6.6.6, 10.0.0.2"):
            with pytest.raises(InvalidStatus) as caught:
                await through(port, client)
            assert caught.value.response.status_code == 429
        await until(lambda: "127.0.0.1" not in exchange.listener.by_address)
        figures = exchange.answers.figures()
        assert figures.connections == {"10.0.0.1": 2, "10.0.0.2": 2}
        assert figures.came == {"10.0.0.1": 3, "10.0.0.2": 3}
        await ann[0].close()
        await until(lambda: exchange.listener.by_address["10.0.0.1"] == 1)
        ann.append(await through(port, "10.0.0.1"))
        # A proxy that does not say has the limit of one address.
        own = [await through(port, "unknown") for _ in range(2)]
        with pytest.raises(InvalidStatus):
            await through(port, "unknown")
        for connection in (*ann, *bob, *own):
            await connection.close()
        await until(lambda: not exchange.listener.connections)
        assert not exchange.listener.by_address


async def test_who_is_no_proxy_cannot_choose_an_address() -> None:
    settings = {"proxies": ("10.0.0.0/8",), "max_per_address": 1}
    async with serving(open=True, **settings) as exchange:
        first = await through(exchange.port, "10.0.0.1")
        with pytest.raises((OSError, EOFError, WebSocketException)):
            await through(exchange.port, "10.0.0.2")
        assert exchange.answers.figures().connections == {"127.0.0.1": 1}
        await first.close()


async def test_what_a_proxy_opens_in_advance_takes_nobodys_place() -> None:
    """No address is known before the request is; all in all it counts."""
    limits = {"max_per_address": 1, "max_connections": 3}
    async with serving(
        open=True, proxies=("127.0.0.1",), **limits
    ) as exchange:
        port = exchange.port
        silent = [
            await asyncio.open_connection("127.0.0.1", port) for _ in range(2)
        ]
        await until(lambda: len(exchange.listener.connections) == 2)
        ann = await through(port, "10.0.0.1")
        with pytest.raises((OSError, EOFError, WebSocketException)):
            await through(port, "10.0.0.2")
        for _, writer in silent:
            writer.close()
            await writer.wait_closed()
        await ann.close()
        await until(lambda: not exchange.listener.connections)
        assert not exchange.listener.by_address


@pytest.mark.parametrize("is_open", [False, True])
async def test_a_proxy_brings_strangers(
    is_open: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The limits of strangers hold; without keys the log says what is open."""
    async with serving(open=is_open, proxies=("127.0.0.1",)) as exchange:
        async with wired(exchange.url) as wire:
            welcome = await wire.login("alice")
        assert welcome["limits"]["orders_per_s"] == 100
    told = [m for m in caplog.messages if "EXCHANGE_SERVER_PROXIES" in m]
    assert len(told) == (0 if is_open else 1)


async def test_the_log_names_who_is_behind_a_proxy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(open=True, proxies=("127.0.0.1",)) as exchange:
        with pytest.raises(InvalidStatus) as caught:
            await through(
                exchange.port, "10.0.0.1", origin=Origin("http://x.example")
            )
        body = caught.value.response.body
        assert body is not None and b"http://x.example is not in" in body
    (line,) = caplog.messages
    assert line.startswith("refused 10.0.0.1: origin http://x.example")


async def test_the_url_of_an_address_of_ipv6() -> None:
    server = Server(Settings(hostname="::1", port=80, debug=False))
    assert server.url == "ws://[::1]:80"


# Where others can reach ---------------------------------------------------

REFUSED = "others can reach 0.0.0.0, and there are no keys in"


async def test_strangers_are_not_let_in_by_mistake(tmp_path: Path) -> None:
    keys, journal = tmp_path / "keys.json", tmp_path / "exchange.db"
    settings = {
        "hostname": "0.0.0.0",
        "keys": str(keys),
        "journal": str(journal),
    }
    journal.write_bytes(b"not even looked at")
    for more in ({}, {"open": "0"}):
        async with launched(**settings, **more) as process:
            status, output, errors = await ended(process)
        assert (status, output) == (2, "")
        (line,) = errors.splitlines()
        assert REFUSED in line and str(keys) in line
        assert "EXCHANGE_SERVER_OPEN=1" in line and "util.accounts" in line
    assert journal.read_bytes() == b"not even looked at"
    assert list(tmp_path.iterdir()) == [journal]


async def test_strangers_are_let_in_on_purpose(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    settings = {"hostname": "0.0.0.0", "keys": str(keys)}
    async with launched(**settings, open="1") as process:
        line = await greeting(process)
        assert " | open: a name is enough | " in line
        async with wired(address(line), "alice"):
            pass
    token = add_key(keys, "alice")
    async with launched(**settings) as process:
        line = await greeting(process)
        assert f" | keys {keys} | " in line
        async with wired(address(line), "alice", token=token):
            pass
    async with launched(keys=str(tmp_path / "none.json")) as process:
        line = await greeting(process)
        assert " | no keys: a name is enough | " in line


@pytest.mark.parametrize(
    "addresses, is_refused",
    [
        (["127.0.0.1"], False),
        (["127.0.0.1", "::1"], False),
        (["127.0.0.1", "192.0.2.7"], True),
        (["2001:db8::7", "::1"], True),
        (["::"], True),
    ],
)
async def test_every_address_of_the_name_counts(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str], is_refused: bool
) -> None:
    monkeypatch.setattr(server_module, "resolve", lambda name: addresses)
    settings = Settings(hostname="here", port=0, debug=False)
    if is_refused:
        with pytest.raises(SettingsError, match="others can reach here"):
            Server(settings)
    else:
        Server(settings)


@pytest.mark.parametrize(
    "settings, has_keys, is_guarded",
    [
        ({}, False, False),
        ({"open": True}, False, False),
        ({}, True, True),
        ({"open": True}, True, True),
        ({"hostname": "0.0.0.0", "open": True}, False, True),
    ],
)
async def test_where_strangers_come_in_everything_has_a_limit(
    tmp_path: Path,
    settings: dict[str, Any],
    has_keys: bool,
    is_guarded: bool,
) -> None:
    path = tmp_path / "keys.json"
    token = add_key(path, "alice") if has_keys else "any"
    async with serving(keys=path, **settings) as exchange:
        async with wired(exchange.url) as wire:
            limits = (await wire.login("alice", token=token))["limits"]
        assert exchange.listener.per_address == (1_000 if is_guarded else 0)
    names = ("orders_per_s", "burst", "open_orders", "connections")
    most = (100, 200, 200, 20) if is_guarded else (0, 0, 1_000, 0)
    assert tuple(limits[name] for name in names) == most
    assert "min_cash" not in limits


async def test_an_account_is_told_its_own_limits(tmp_path: Path) -> None:
    market = tmp_path / "market.toml"
    market.write_text("""
        [instruments.BOND]
        max_position = 500
        short_selling = false
        [account]
        cash = 1_000
        min_cash = -50
        open_orders = 9
        [accounts.alice]
        min_cash = 0
        orders_per_s = 30
        open_orders = 0
        max_position = { BOND = 20 }
        """)
    settings = {"market": market, "max_per_account": 3}
    async with serving(**settings) as exchange:
        async with (
            wired(exchange.url) as alice,
            wired(exchange.url) as bob,
        ):
            hers, account = await alice.ask(type="login", user="alice")
            his = await bob.login("bob")
            assert account["cash"] == 1_000
            common = {
                "max_frame": 100,
                "orders_remembered": 10_000,
                "resume_events": 2_000,
                "connections": 3,
            }
            assert hers["limits"] == {
                **common,
                "orders_per_s": 30,
                "burst": 30,
                "open_orders": 0,
                "min_cash": 0,
            }
            assert his["limits"] == {
                **common,
                "orders_per_s": 0,
                "burst": 0,
                "open_orders": 9,
                "min_cash": -50,
            }
            (bond,), (same,) = hers["instruments"], his["instruments"]
            assert bond == {**same, "max_position": 20}
            assert same["max_position"] == 500
            assert same["short_selling"] is False
            # To everybody an instrument is what it is to most.
            assert await rows(alice, "instruments") == [same]
            too_much = await place(alice, "buy", 21, 1)
            assert words(too_much) == ["position_limit"]


# The end ------------------------------------------------------------------


async def test_everybody_is_told_of_the_end() -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with serving() as exchange:
            dial = stack.enter_async_context
            alice = await dial(wired(exchange.url, "alice"))
            bob = await dial(
                wired(exchange.url, "bob", cancel_on_disconnect=False)
            )
            watcher = await dial(wired(exchange.url))
            await place(bob, "buy", 1, 80)
            await watcher.ask(**follow("book"))
            await alice.send(*[order("buy", 1, 90)] * MAX_FRAME)
            await until(lambda: exchange.turns.fresh)
            # What has arrived is still carried out.
        messages, code = await alice.rest()
        assert words(messages) == ["new"] * 100 + ["canceled"] * 100 + [
            "status"
        ]
        assert code == 1001 and messages[-1]["message"]
        assert {m.get("reason") for m in messages[100:-1]} == {"disconnect"}
        messages, code = await bob.rest()
        assert (words(messages), code) == (["status"], 1001)
        messages, code = await watcher.rest()
        assert words(messages)[-1] == "status" and code == 1001


async def test_the_end_waits_for_nobody_who_has_not_said_hello() -> None:
    async with serving() as exchange:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", exchange.port
        )
        async with wired(exchange.url) as wire:
            await wire.ask(type="ping")
    async with asyncio.timeout(PATIENCE_S):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def test_after_the_end_nobody_listens() -> None:
    async with serving() as exchange:
        pass
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", exchange.port)


# A bug inside -------------------------------------------------------------


@pytest.fixture
def bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an order with this client_order_id be one the engine dies of."""
    apply = Engine.apply

    def explosive(engine: Engine, command: Command) -> list[Output]:
        action = command.action
        if isinstance(action, Place) and action.client_order_id == "bomb":
            raise RuntimeError("boom")
        return apply(engine, command)

    monkeypatch.setattr(Engine, "apply", explosive)
    monkeypatch.setattr(server_module, "SHUTDOWN_S", 0.01)


async def test_a_failure_inside_stops_the_exchange(
    bomb: None, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(Settings(hostname="127.0.0.1", port=0, debug=False))
    await server.start()
    async with wired(server.url, "alice") as alice:
        async with wired(server.url, "bob") as bob:
            await bob.ask(**follow("book"))
            await alice.send(
                order("buy", 1, 90, id=1),
                order("buy", 1, 91, id=2),
                order("buy", 1, 92, id=3, client_order_id="bomb"),
                order("buy", 1, 93, id=4),
            )
            # What came before it did happen, and is told whom it concerns.
            assert [m["id"] for m in await alice.take(2)] == [1, 2]
            async with asyncio.timeout(PATIENCE_S):
                failure = await asyncio.shield(server.failure)
            assert isinstance(failure, RuntimeError)
            before = state_of(server)
            # What comes after it does not.
            await bob.send(order("buy", 1, 94, id=5))
            await alice.send({"type": "ping", "id": 6})
            async with asyncio.timeout(PATIENCE_S):
                await server.stop()
            for wire in (alice, bob):
                messages, _ = await wire.rest()
                # Nor are the books told: who knows what is in them.
                assert messages == []
            assert state_of(server) == before
    (record,) = [r for r in caplog.records if r.levelname == "CRITICAL"]
    assert record.exc_info and record.exc_info[1] is failure
    assert any("bomb" in note for note in failure.__notes__)


# The process --------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_process_in_order(
    signum: signal.Signals,
) -> None:
    async with launched() as process:
        line = await greeting(process)
        assert "BOND" in line
        async with wired(address(line), "alice") as alice:
            await place(alice, "buy", 1, 90)
            process.send_signal(signum)
            messages, code = await alice.rest()
        assert words(messages) == ["canceled", "status"] and code == 1001
        status, _, errors = await ended(process)
    assert (status, errors) == (0, "")


async def test_a_hangup_signal_ends_nothing() -> None:
    async with launched() as process:
        async with wired(address(await greeting(process)), "alice") as alice:
            for _ in range(3):
                process.send_signal(signal.SIGHUP)
                assert words(await alice.ask(type="ping")) == ["ok"]
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[0] == 0


async def test_a_terminal_that_is_closed_ends_the_process_in_order() -> None:
    """The system sends SIGHUP to the processes that it controls."""
    code = """
import fcntl
import os
import sys
import termios
import server

os.setsid()
fcntl.ioctl(1, termios.TIOCSCTTY, 0)
sys.argv = ["server.py"]
sys.exit(server.main())
"""
    person, tty = pty.openpty()
    async with launched(code=code, output=tty) as process:
        os.close(tty)
        line = await asyncio.to_thread(os.read, person, 10_000)
        async with wired(address(line.decode()), "alice") as alice:
            await place(alice, "buy", 1, 90)
            os.close(person)
            messages, code_ = await alice.rest()
        assert words(messages) == ["canceled", "status"] and code_ == 1001
        assert (await ended(process))[0] == 0


async def test_a_port_in_use_is_one_clear_line() -> None:
    async with serving() as exchange:
        async with launched(port=str(exchange.port)) as process:
            status, output, errors = await ended(process)
    assert status not in (0, None) and output == ""
    (line,) = errors.splitlines()
    assert "in use" in line and str(exchange.port) in line


@pytest.mark.parametrize(
    "environment, name",
    [
        ({"port": "none"}, "EXCHANGE_SERVER_PORT"),
        ({"symbols": "bond"}, "EXCHANGE_SERVER_SYMBOLS"),
        ({"market": "/nowhere/market.toml"}, "/nowhere/market.toml"),
        ({"hostname": "no such host"}, "no such host"),
    ],
)
async def test_a_wrong_setting_is_one_clear_line(
    environment: dict[str, str], name: str
) -> None:
    async with launched(**environment) as process:
        status, output, errors = await ended(process)
    assert status == 2 and output == ""
    (line,) = errors.splitlines()
    assert name in line


async def test_help_names_every_setting() -> None:
    async with launched("--help") as process:
        status, output, errors = await ended(process)
    assert (status, errors) == (0, "")
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in output
    assert "EXCHANGE_SERVER_" in output


@pytest.mark.parametrize("debug", ["", "1", "0"])
async def test_debug_mode_prints_new_orders_and_the_book(debug: str) -> None:
    environment = {"debug": debug} if debug else {}
    async with launched(**environment) as process:
        url = address(await greeting(process))
        async with wired(url, "alice", cancel_on_disconnect=False) as alice:
            await place(alice, "buy", 25, 97)
            await place(alice, "sell", 31, 103)
            await alice.ask(type="cancel", order_id=1)
            await alice.ask(**order("buy", 0, 97))
            process.send_signal(signal.SIGTERM)
            await alice.rest()
        status, output, _ = await ended(process)
    assert status == 0
    if debug == "0":
        assert output == ""
        return
    first, second = filter(None, map(str.strip, output.split("\n\n")))
    line, head, *levels = first.splitlines()
    assert line == "alice buy 25 BOND @ 97 is order 1"
    assert head.split() == ["BOND", "qty", "bid", "|", "ask", "qty"]
    assert [level.split() for level in levels] == [["25", "97", "|"]]
    line, head, *levels = second.splitlines()
    assert line == "alice sell 31 BOND @ 103 is order 2"
    assert [level.split() for level in levels] == [
        ["25", "97", "|", "103", "31"]
    ]


async def test_it_goes_on_when_nobody_reads_what_it_prints() -> None:
    """As in ``make run | head``."""
    reading, writing = os.pipe()
    async with launched(debug="1", output=writing) as process:
        os.close(writing)
        with open(reading) as lines:
            url = address(lines.readline())
        async with wired(url, "alice") as alice:
            assert await place(alice, "buy", 25, 97)
            assert await place(alice, "sell", 31, 103)
        process.send_signal(signal.SIGTERM)
        status, _, errors = await ended(process)
    assert status == 0
    assert errors.count("printing stops") == 1
    assert "Traceback" not in errors and "BrokenPipe" not in errors


async def test_a_recovery_can_be_stopped(tmp_path: Path) -> None:
    """Also as the first process of a container, so by a handler."""
    code = """
import os
import signal
import sys
import server
from exchange.journal.sqlite import Journal

def recover(journal):
    os.kill(os.getpid(), signal.SIGTERM)
    while True:
        pass

Journal.recover = recover
sys.argv = ["server.py"]
sys.exit(server.main())
"""
    path = tmp_path / "exchange.db"
    async with launched(code=code, journal=str(path)) as process:
        assert await ended(process) == (130, "", "")


async def test_settings_of_the_process(tmp_path: Path) -> None:
    with socket.socket() as sock:
        # Bound but not listening it keeps others off, not who reuses it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        settings = {"port": str(port), "symbols": "BOND, ETF"}
        async with launched(**settings) as process:
            line = await greeting(process)
            assert address(line) == f"ws://127.0.0.1:{port}"
            assert "BOND" in line and "ETF" in line
            async with wired(address(line)) as wire:
                welcome = await wire.login("alice")
    listed = [i["symbol"] for i in welcome["instruments"]]
    assert listed == ["BOND", "ETF"]

    market = tmp_path / "market.toml"
    market.write_text('[instruments.ADR]\nmax_qty = 5\ntick_size = "0.5"\n')
    local = {"market": str(market), "hostname": "localhost"}
    async with launched(**local) as process:
        line = await greeting(process)
        assert address(line).startswith("ws://localhost:")
        async with wired(address(line)) as wire:
            (instrument,) = (await wire.login("alice"))["instruments"]
            assert words(await place(wire, "buy", 6, 9)) == ["invalid_qty"]
            assert words(await place(wire, "buy", 5, 9)) == ["new"]
    assert instrument["symbol"] == "ADR" and instrument["tick_size"] == "0.5"


FAILING = """
import sys
import exchange.market.engine
import server

apply = exchange.market.engine.Engine.apply

def explosive(engine, command):
    if isinstance(command.action, exchange.market.engine.CancelAll):
        raise RuntimeError("boom")
    return apply(engine, command)

exchange.market.engine.Engine.apply = explosive
server.SHUTDOWN_S = 0.01
sys.exit(server.main())
"""


async def test_the_exit_status_tells_of_a_failure_inside() -> None:
    async with launched(code=FAILING) as process:
        async with wired(address(await greeting(process)), "alice") as alice:
            await place(alice, "buy", 1, 90)
            await alice.send({"type": "cancel_all", "id": 1})
            messages, _ = await alice.rest()
            assert not [m for m in messages if m.get("id") == 1]
        status, _, errors = await ended(process)
    assert status == 1
    assert "boom" in errors and "CancelAll" in errors
