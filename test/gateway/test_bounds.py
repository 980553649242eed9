"""Bounds of memory: what waits to be read, connections, what is remembered."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.frames import CLOSE, Frame

import exchange.gateway.tables as tables_module
from exchange.doors import listener
from exchange.doors.websocket import (
    MAX_MESSAGE,
    MAX_REQUEST,
    READ_SIZE,
    Connection,
)
from exchange.gateway.feed import Feed
from exchange.gateway.link import BYTES_WAITING
from exchange.gateway.pacing import SLOW_BYTES, STUCK_BYTES
from exchange.gateway.rates import CANCELS_RATE
from exchange.gateway.tables import (
    BOOK_CHARS_PER_ROW,
    ORDERS_PER_ROW,
    ROWS_PER_TURN,
)
from exchange.host.market_file import (
    BURST,
    OPEN_ORDERS,
    OPEN_ORDERS_HERE,
    ORDERS_PER_S,
)
from exchange.host.settings import (
    CONNECTIONS_PER_ACCOUNT,
    CONNECTIONS_PER_ADDRESS,
)
from exchange.market.accounts import ACCOUNTS_MAX, SESSIONS_REMEMBERED
from exchange.market.command import Connect
from exchange.market.engine import Engine
from orderbook import MAX_FRAME
from test.doors.test_transport import HANDSHAKE
from test.gateway.crowds import PING, Message, crowd, framed, is_dropped
from test.support import (
    PATIENCE_S,
    Floor,
    Peer,
    Wire,
    add_key,
    order,
    serving,
    until,
    wired,
    words,
)

# What waits to be read ------------------------------------------------------


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give accepted sockets a send buffer of 8 KiB."""
    bind = listener.bind

    async def bind_narrow(hostname: str, port: int) -> list[socket.socket]:
        sockets = await bind(hostname, port)
        for sock in sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
        return sockets

    monkeypatch.setattr(listener, "bind", bind_narrow)


async def test_a_link_with_4_mib_of_unread_events_is_closed(
    narrow: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events that another connection of the account causes."""
    most = 0
    write = Connection.write

    def spy(self: Connection, frames: bytes) -> None:
        nonlocal most
        write(self, frames)
        most = max(most, self.buffered)

    monkeypatch.setattr(Connection, "write", spy)
    async with serving() as server:
        async with (
            wired(server.url, "alice") as deaf,
            wired(server.url, "alice") as busy,
        ):
            deaf.pause()
            requests = [order("buy", 1, 1, time_in_force="ioc")] * MAX_FRAME
            while most <= STUCK_BYTES:
                await busy.send(*requests)
                await busy.take(2 * MAX_FRAME)
            # From here on only the close frame is added.
            before = most
            await busy.send(*requests)
            await busy.take(2 * MAX_FRAME)
            end = len(Frame(CLOSE, b"..slow reader").serialize(mask=False))
            assert most <= before + end < STUCK_BYTES + 2**20
            deaf.resume()
            assert (await deaf.rest())[1] == 4008


async def test_a_link_that_does_not_read_its_replies_is_not_read(
    narrow: None,
) -> None:
    """Its output stays within the soft limit and one turn's replies."""
    async with serving() as server:
        async with wired(server.url, "deaf") as deaf:
            deaf.pause()
            data = framed(json.dumps([PING] * 10).encode())
            deaf.connection.transport.write(data * 20_000)
            (connection,) = server.links
            session = server.links[connection]
            await until(lambda: connection.buffered)
            before = -1
            while before != connection.buffered:  # as long as it grows
                before = connection.buffered
                async with wired(server.url) as wire:
                    await wire.ask(type="ping")
            assert connection.buffered < SLOW_BYTES
            assert session.bytes_waiting < BYTES_WAITING + READ_SIZE
            deaf.connection.transport.abort()


# Who may be there -----------------------------------------------------------


@pytest.mark.parametrize(
    "limits, hosts",
    [
        ({"max_connections": 3}, ["", "127.0.0.2"]),
        ({"max_per_address": 3}, [""]),
    ],
)
async def test_a_connection_too_many_is_dropped_at_once(
    limits: dict[str, int], hosts: list[str]
) -> None:
    """In all, and of one address; a closed connection makes room."""
    async with serving(**limits) as server:
        async with crowd(server, "alice", "bob", "carol") as wires:
            for host in hosts:
                assert await is_dropped(server, host)
            if len(hosts) == 1:  # another address is another matter
                assert not await is_dropped(server, "127.0.0.2")
            for wire in wires:
                assert words(await wire.ask(type="ping")) == ["ok"]
        await until(lambda: not server.listener.connections)
        assert not await is_dropped(server)


async def test_sockets_that_say_nothing_count_too() -> None:
    async with serving(max_connections=3) as server:
        silent = [
            await asyncio.open_connection("127.0.0.1", server.port)
            for _ in range(3)
        ]
        assert await is_dropped(server)
        for _, writer in silent:
            writer.close()
            await writer.wait_closed()
        await until(lambda: not server.listener.connections)
        assert not await is_dropped(server)


@pytest.fixture
def guarded(tmp_path: Path) -> dict[str, Any]:
    """Settings with a key file, which has a key for alice."""
    keys = tmp_path / "keys.json"
    return {"keys": keys, "token": add_key(keys, "alice")}


async def test_the_default_limits_of_a_guarded_exchange(
    guarded: dict[str, Any],
) -> None:
    """Orders at once, open orders, and connections of an account."""
    token = guarded.pop("token")
    assert (ORDERS_PER_S, BURST, OPEN_ORDERS) == (100, 200, 200)
    assert OPEN_ORDERS_HERE == 1_000
    assert (CONNECTIONS_PER_ACCOUNT, CONNECTIONS_PER_ADDRESS) == (20, 1_000)
    async with serving(**guarded) as server:
        async with contextlib.AsyncExitStack() as stack:
            wires = [
                await stack.enter_async_context(wired(server.url))
                for _ in range(CONNECTIONS_PER_ACCOUNT + 1)
            ]
            *wires, last = wires
            login = {"type": "login", "user": "alice", "token": token}
            for wire in wires:
                assert words(await wire.ask(**login))[0] == "welcome"
            await last.send(login)
            (error,), code = await last.rest()
            assert (error["code"], code) == ("rate_limited", 4002)
            assert server.listener.per_address == CONNECTIONS_PER_ADDRESS
            places = [order("buy", 1, price) for price in range(1, 102)]
            replies = await ask_all(wires[0], places[:100])
            replies += await ask_all(wires[1], places[:100])
            assert words(replies) == ["new"] * OPEN_ORDERS
            replies = await ask_all(wires[2], places[:100])
            # The bucket refills at 100 tokens a second meanwhile.
            assert words(replies)[-1] == "rate_limited"
            assert set(words(replies)) <= {"rate_limited", "too_many_orders"}
            cancel = [{"type": "cancel", "order_id": 1}] * MAX_FRAME
            for wire in wires[: CANCELS_RATE * BURST // MAX_FRAME]:
                replies = await ask_all(wire, cancel)
                assert "rate_limited" not in words(replies)


async def ask_all(wire: Wire, requests: list[Message]) -> list[Message]:
    """Send requests in one frame; return their replies."""
    numbered = [{**r, "id": n} for n, r in enumerate(requests)]
    await wire.send(*numbered)
    replies: list[Message] = []
    while len(replies) < len(requests):
        message = await wire.receive()
        if "id" in message:
            replies.append(message)
    return replies


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
    floor = Floor()
    alice, bob = floor.join("alice"), floor.join("bob")
    made = 0
    make = Engine.leaderboard

    def spy(engine: Engine) -> list[dict[str, Any]]:
        nonlocal made
        made += 1
        return make(engine)

    monkeypatch.setattr(Engine, "leaderboard", spy)
    get = {"type": "get", "what": "leaderboard"}
    for times, ranked in ((1, ["alice", "bob"]), (2, ["bob", "alice"])):
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


# What is remembered of requests ---------------------------------------------


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
        channels, symbols = list(channels), list(symbols)
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


async def test_a_closed_connection_leaves_nothing_behind() -> None:
    """In the server, the gateway and the feed."""
    async with serving() as server:
        for _ in range(3):
            users = [f"user{n}" for n in range(5)]
            async with crowd(server, *users) as wires:
                for wire in wires:
                    channels = ["book", "trades", "ticker"]
                    await wire.ask(type="subscribe", channels=channels)
                    await wire.ask(**order("buy", 1, 50))
            await until(lambda: not server.gateway.links)
            gateway, feed = server.gateway, server.gateway.feed
            for structure in (
                *(
                    server.listener.connections,
                    server.listener.by_address,
                    server.links,
                ),
                server.listener.leaving,
                *(server.turns.fresh, server.turns.backlog),
                *(
                    gateway.routing.online,
                    gateway.outbox.links,
                    gateway.outbox.closings,
                ),
            ):
                assert not structure
            assert feed.size() == (0, 0, 0)
            book = gateway.engine.listings["BOND"].book
            assert not book.orders


# What is not complete -------------------------------------------------------


async def test_half_a_message_takes_no_more_than_a_whole_one() -> None:
    """In one frame, in fragments, or in both."""
    async with serving() as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        first = framed(b"x" * 60_000, fin=False)
        rest = framed(b"x" * 5_536)
        writer.write(HANDSHAKE + first + rest[:-1])
        await until(lambda: server.links)
        (connection,) = server.links
        await until(lambda: connection.incomplete == 60_000 + len(rest) - 1)
        writer.transport.abort()
        await until(lambda: not server.links)


async def test_a_request_takes_no_more_than_16_kib() -> None:
    """Though each header line is valid, and the request has no end."""
    async with serving() as server:
        port = server.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        header = b"X: %b\r\n" % (b"x" * 1_000)
        count = (MAX_REQUEST - len(HANDSHAKE)) // len(header)
        writer.write(HANDSHAKE[:-2] + header * count)
        await writer.drain()
        writer.write(header)
        async with asyncio.timeout(PATIENCE_S):
            assert b" 431 " in await reader.read()
        writer.close()
        await until(lambda: not server.listener.connections)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HANDSHAKE[:-2] + header * count + b"\r\n")
        async with asyncio.timeout(PATIENCE_S):
            assert b" 101 " in await reader.readline()
        writer.close()
        await until(lambda: not server.listener.connections)


async def test_accepting_is_retried_when_no_file_can_be_opened(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The process has as many open files as it may."""
    monkeypatch.setattr(listener, "ACCEPT_AGAIN_S", 0.01)
    full = OSError(errno.EMFILE, "Too many open files")
    troubles = [full, BlockingIOError(), ConnectionAbortedError()]

    class Listener(socket.socket):
        def accept(self) -> Any:
            if troubles:
                raise troubles.pop(0)
            return super().accept()

    bind = listener.bind

    async def bind_full(hostname: str, port: int) -> list[socket.socket]:
        return [
            Listener(fileno=sock.detach())
            for sock in await bind(hostname, port)
        ]

    monkeypatch.setattr(listener, "bind", bind_full)
    async with serving() as server, wired(server.url, "alice") as wire:
        assert words(await wire.ask(type="ping")) == ["ok"]
    assert not troubles
    [record] = caplog.records
    assert "Too many open files" in record.message
