"""Every bound, reached: nothing a client can make grow grows without end.

Bounds whose tests stand with the module that keeps them are in ELSEWHERE.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import WebSocketException
from websockets.frames import CLOSE, TEXT, Frame

import exchange.gateway.tables as tables_module
from exchange.doors import listener
from exchange.doors.websocket import (
    MAX_MESSAGE,
    MAX_REQUEST,
    MESSAGES_PER_TURN,
    READ_SIZE,
    Connection,
    Queue,
)
from exchange.gateway import pacing, turns
from exchange.gateway.feed import Feed
from exchange.gateway.gateway import Gateway
from exchange.gateway.link import BYTES_WAITING, Link
from exchange.gateway.pacing import SLOW_BYTES, STUCK_BYTES, Pacing
from exchange.gateway.rates import CANCELS_RATE
from exchange.gateway.requests import Requests
from exchange.gateway.tables import (
    BOOK_CHARS_PER_ROW,
    ORDERS_PER_ROW,
    ROWS_PER_TURN,
)
from exchange.gateway.turns import (
    REQUESTS_AT_FIRST,
    REQUESTS_PER_ROUND,
    REQUESTS_PER_TURN,
    TURN_COUNTS,
    Turns,
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
from exchange.host.writer import Writer
from exchange.market.accounts import ACCOUNTS_MAX, SESSIONS_REMEMBERED
from exchange.market.engine import Engine
from orderbook import MAX_FRAME, Login, Ping
from server import Server
from test.doors.test_transport import HANDSHAKE
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

# Bounds of the product, and the tests in other modules that hold them.
ELSEWHERE = {
    "exchange.market.accounts.ORDERS_REMEMBERED": (
        "test_ten_thousand_finished_orders_are_remembered"
    ),
    "exchange.market.accounts.SESSIONS_REMEMBERED": (
        "test_the_oldest_ended_sessions_are_forgotten"
    ),
    "exchange.market.timers.DEADLINES_PER_COMMAND": (
        "test_one_tick_fires_a_bounded_number_of_deadlines"
    ),
    "exchange.market.state.DEADLINES_MIN": (
        "test_what_is_over_does_not_pile_up"
    ),
    "exchange.gateway.feed.UPDATES_KEPT": (
        "test_one_who_missed_too_much_gets_a_snapshot"
    ),
    "exchange.gateway.sequencer.COMMANDS_UNCOMMITTED": (
        "test_too_far_ahead_of_the_disk_only_cancels_are_taken"
    ),
    "exchange.gateway.rates.STRIKES_BURST": (
        "test_a_flood_is_cut_off_and_nothing_after_it_is_done"
    ),
    "exchange.journal.history.TRADES_KEPT": ("test_only_the_newest_are_kept"),
    "exchange.journal.history.CANDLES_KEPT": ("test_only_the_newest_are_kept"),
    "exchange.journal.history.FILLS_KEPT": ("test_only_the_newest_are_kept"),
    "exchange.journal.history.RESUME_EVENTS": (
        "test_what_a_session_missed_is_known_while_it_is_in_the_ring"
    ),
    "exchange.gateway.pacing.SLOW_BYTES": (
        "test_a_slow_reader_gets_one_update_for_what_it_missed"
    ),
    "exchange.doors.native.FRAME_CHARS": ("test_frames_stay_under_a_mebibyte"),
    "exchange.doors.websocket.MAX_MESSAGE": ("test_what_is_wrong_ends_it"),
    "exchange.doors.websocket.READ_SIZE": (
        "test_thousands_of_empty_frames_in_one_segment"
    ),
    "exchange.doors.websocket.HIGH_WATER": (
        "test_unread_pongs_do_not_pile_up"
    ),
    "exchange.doors.websocket.OPEN_TIMEOUT_S": ("test_opening_timeout"),
    "exchange.doors.websocket.PING_TIMEOUT_S": (
        "test_silent_peer_is_pinged_and_then_cut_off"
    ),
    "exchange.doors.websocket.CLOSE_TIMEOUT_S": (
        "test_peer_that_ignores_the_close_is_cut_off"
    ),
    "orderbook.MAX_FRAME": ("test_a_frame_that_is_no_request_gets_one_error"),
    "orderbook.MAX_ROWS": ("test_a_request_that_makes_no_sense"),
    "exchange.doors.listener.ADDRESSES_COUNTED": (
        "test_who_came_long_ago_is_not_counted_any_more"
    ),
}
Message = dict[str, Any]
PING = {"type": "ping"}


def framed(text: bytes, fin: bool = True) -> bytes:
    """A client's frame."""
    return Frame(TEXT, text, fin).serialize(mask=True)


def test_each_bound_is_positive_and_has_its_test() -> None:
    found = {
        test
        for path in Path(__file__).parents[1].rglob("test_*.py")
        for test in re.findall(
            r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.M
        )
    }
    assert not set(ELSEWHERE.values()) - found
    for name in ELSEWHERE:
        module, _, bound = name.rpartition(".")
        assert getattr(importlib.import_module(module), bound) > 0


# What waits to be carried out ------------------------------------------------


def tiny(count: int) -> list[bytes]:
    """So many messages that are no requests, of 100 elements each."""
    return [b"[" + b"1," * (MAX_FRAME - 1) + b"1]"] * count


async def test_of_a_flood_of_junk_only_so_much_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the kernel does not take in keeps the flood waiting."""
    most = 0
    receive = Link.receive

    def spy(self: Link, messages: list[bytes], now: int) -> None:
        nonlocal most
        assert not self.is_full
        receive(self, messages, now)
        most = max(most, self._waiting)
        assert self._waiting == sum(len(text) for text, _ in self._inbox)

    monkeypatch.setattr(Link, "receive", spy)
    async with serving() as server, wired(server.url) as flood:
        frame = framed(b"x" * 50)
        flood.connection.transport.write(frame * 10_000)
        heard = 0
        while heard < 10_000:
            heard += len(await flood.frame())
    assert BYTES_WAITING <= most < BYTES_WAITING + READ_SIZE


class Queued:
    """In which rounds of the loop the queue gives turns."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.rounds: list[int] = []  # of each turn
        self._round = 0
        self._next_round()
        give = Queue._give

        def note(queue: Queue, turn: Callable[[], None]) -> None:
            self.rounds.append(self._round)
            give(queue, turn)

        patch.setattr(Queue, "_give", note)

    def _next_round(self) -> None:
        self._round += 1
        asyncio.get_running_loop().call_soon(self._next_round)


async def test_of_a_crowd_at_the_door_one_comes_in_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To be taken in, and again with a handshake."""
    queued = Queued(monkeypatch)
    async with serving() as server, contextlib.AsyncExitStack() as stack:
        writers: list[asyncio.StreamWriter] = []
        for _ in range(30):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            stack.callback(writer.transport.abort)
            writers.append(writer)
        await until(lambda: len(server.listener.connections) == 30)
        for writer in writers:
            writer.write(HANDSHAKE + framed(json.dumps(PING).encode()))
        strangers = server.gateway.limiter.counts[""]
        await until(lambda: strangers.get(Ping) == 30)
    assert len(queued.rounds) == len(set(queued.rounds)) == 60


async def test_of_many_messages_of_a_read_the_rest_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For others, too, of whom one has a turn at a time."""
    queued = Queued(monkeypatch)
    most = 0
    received = Server.received

    def spy(self: Server, connection: Connection, news: list[bytes]) -> None:
        nonlocal most
        most = max(most, len(news))
        received(self, connection, news)

    monkeypatch.setattr(Server, "received", spy)
    async with serving() as server, contextlib.AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(wired(server.url))
            for _ in range(8)
        ]
        count = 5 * MESSAGES_PER_TURN
        for wire in wires:
            frame = framed(json.dumps(PING).encode())
            wire.connection.transport.write(frame * count)
        for wire in wires:
            assert words(await wire.take(count)) == ["ok"] * count
    assert most == MESSAGES_PER_TURN
    assert len(queued.rounds) == len(set(queued.rounds)) >= 8 * (2 + 4)


async def test_one_who_comes_waits_inside_and_the_others_outside() -> None:
    loop = asyncio.get_running_loop()
    async with serving() as server, contextlib.AsyncExitStack() as stack:
        queue = server.listener._queue
        queue._is_open = False  # somebody has a turn
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", server.port))
        await until(lambda: bool(queue._waiting))
        for _ in range(20):
            await asyncio.sleep(0)
            assert len(queue._waiting) == 1 and not server.listener.connections
        queue._give_next()
        await until(lambda: len(server.listener.connections) == 3)


async def test_public_data_reach_so_many_readers_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of them in the end, each before what it is sent later."""
    monkeypatch.setattr(pacing, "READERS_PER_ROUND", 2)
    paid: list[int] = []  # in each round
    take = Pacing.take

    def note(pacing: Pacing[Link]) -> list[tuple[Link, bytes]]:
        taken = take(pacing)
        paid.append(len(taken))
        return taken

    monkeypatch.setattr(Pacing, "take", note)
    async with serving() as server, contextlib.AsyncExitStack() as stack:
        alice = await stack.enter_async_context(wired(server.url, "alice"))
        readers = [
            await stack.enter_async_context(wired(server.url))
            for _ in range(7)
        ]
        for reader in readers:
            await reader.ask(type="subscribe", channels=["book"])
        await alice.ask(**order("buy", 1, 50))
        for reader in readers:
            assert (await reader.until(type="book"))["bids"] == [[50, 1]]
        assert paid == [2, 2, 2, 1]
        monkeypatch.setattr(Writer, "flush", lambda writer: None)
        await alice.ask(**order("buy", 1, 51))
        await until(lambda: len(server.gateway.pacing.owed) == 7)
        assert words(await readers[5].ask(type="ping")) == ["book", "ok"]
        await alice.ask(**order("buy", 1, 52))
        await until(lambda: len(server.gateway.pacing.owed) == 7)
        await server.stop()
        for reader in readers:
            books = [m for m in (await reader.rest())[0] if "bids" in m]
            assert [b["prev_seq"] for b in books] == [1, 2, 3][-len(books) :]
            assert books[-1]["bids"] == [[52, 0], [51, 0], [50, 0]]


class Ticks:
    """What the server does between two looks at its sockets."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.turns: list[list[int]] = []  # the requests of each, by tick
        drain, handle = Server.drain, Requests.handle
        take = Turns._take

        def note_drain(server: Server) -> None:
            self.turns.append([])
            drain(server)

        def note_turn(turns: Turns, *args: Any) -> Any:
            self.turns[-1].append(0)
            return take(turns, *args)

        def note(gateway: Gateway, session: Link, requests: Any) -> None:
            self.turns[-1][-1] += len(requests)
            handle(gateway, session, requests)

        patch.setattr(Server, "drain", note_drain)
        patch.setattr(Turns, "_take", note_turn)
        patch.setattr(Requests, "handle", note)


async def test_one_tick_does_only_so_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many have something to do; the others come next."""
    ticks = Ticks(monkeypatch)
    count = 3 * REQUESTS_PER_ROUND // 10
    async with serving() as server, contextlib.AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(wired(server.url))
            for _ in range(count)
        ]
        for wire in wires:  # all before the loop turns
            frame = json.dumps([PING] * 10).encode()
            wire.connection.transport.write(framed(frame))
        for wire in wires:
            assert words(await wire.take(10)) == ["ok"] * 10
    sums = [sum(turns) for turns in ticks.turns]
    assert sum(sums) == 10 * count
    assert REQUESTS_PER_ROUND <= max(sums) < REQUESTS_PER_ROUND + 10


async def test_even_where_there_is_little_to_do_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A turn has a cost of its own."""
    ticks = Ticks(monkeypatch)
    most = REQUESTS_PER_ROUND // TURN_COUNTS
    async with serving() as server, contextlib.AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(wired(server.url))
            for _ in range(3 * most)
        ]
        for wire in wires:
            wire.connection.transport.write(framed(json.dumps(PING).encode()))
        for wire in wires:
            assert words(await wire.take(1)) == ["ok"]
    assert max(map(len, ticks.turns)) == most


async def test_of_a_long_queue_a_tick_takes_one_small_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the first, which is all that most who come need."""
    ticks = Ticks(monkeypatch)
    count = REQUESTS_AT_FIRST + 3 * REQUESTS_PER_TURN
    async with serving() as server, wired(server.url) as wire:
        frame = framed(json.dumps(PING).encode())
        wire.connection.transport.write(frame * count)
        assert words(await wire.take(count)) == ["ok"] * count
    turns = [turn for tick in ticks.turns for turn in tick if turn]
    assert turns == [REQUESTS_AT_FIRST] + 3 * [REQUESTS_PER_TURN]
    assert all(len(tick) <= 2 for tick in ticks.turns)


async def test_who_has_little_to_ask_comes_before_who_has_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By no more than one turn, however long the queues are."""
    asked: list[str] = []
    handle = Requests.handle

    def note(gateway: Gateway, session: Link, requests: Any) -> None:
        asked.extend([session.account] * len(requests))
        handle(gateway, session, requests)

    async with serving() as server, contextlib.AsyncExitStack() as stack:
        bots = [
            await stack.enter_async_context(wired(server.url, f"bot{number}"))
            for number in range(4)
        ]
        alice = await stack.enter_async_context(wired(server.url, "alice"))
        monkeypatch.setattr(Requests, "handle", note)
        frame = framed(json.dumps(PING).encode())
        for bot in bots:
            bot.connection.transport.write(frame * 2_000)
        await until(lambda: len(asked) > 200)
        for _ in range(20):
            before = len(asked)
            await alice.send(PING)
            await until(lambda: "alice" in asked[before:])
            # What was done before the loop could read her request.
            turns = asked[before:].index("alice")
            assert turns <= 2 * REQUESTS_PER_TURN
            await alice.receive()
        assert len(asked) < 8_000, "they were still at it"


async def test_who_asks_much_at_once_waits_behind_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when it comes again with nothing waiting."""
    async with serving() as server, contextlib.AsyncExitStack() as stack:
        greedy = await stack.enter_async_context(wired(server.url, "greedy"))
        alice = await stack.enter_async_context(wired(server.url, "alice"))
        by_name = {s.account: s for s in server.gateway.links}
        many = [PING] * (REQUESTS_AT_FIRST + 1)
        for requests, is_behind in (
            (many, False),  # nobody knows yet
            (many, True),
            ([PING], True),
            ([PING], False),  # modest again
        ):
            with monkeypatch.context() as patch:
                patch.setattr(server, "drain", lambda: None)
                for wire in (greedy, alice):
                    await wire.send(*(requests if wire is greedy else [PING]))
                await until(lambda: by_name["alice"].waiting)
                await until(lambda: by_name["greedy"].waiting)
                assert (by_name["greedy"] in server.turns.backlog) == is_behind
                assert (by_name["greedy"] in server.turns.fresh) != is_behind
                assert by_name["alice"] in server.turns.fresh
                await until(lambda: server._drain_due)
            server.drain()
            await greedy.take(len(requests))
            await alice.receive()


@pytest.mark.parametrize(
    "bound, is_for_all", [("LEAVING_MAX", True), ("LEAVING_FROM_ONE", False)]
)
async def test_nobody_is_taken_in_while_many_left_work_behind(
    monkeypatch: pytest.MonkeyPatch, bound: str, is_for_all: bool
) -> None:
    """Or one could leave more than is ever carried out."""
    monkeypatch.setattr(listener, bound, 2)
    async with serving() as server, wired(server.url) as wire:
        with monkeypatch.context() as patch:
            patch.setattr(Turns, "_take", lambda *args: (None, 1))
            for number in range(1, 3):
                _, writer = await asyncio.open_connection(
                    "127.0.0.1", server.port
                )
                writer.write(HANDSHAKE + b"".join(map(framed, tiny(1))))
                await until(lambda: len(server.links) == 2)
                writer.close()
                await until(lambda: len(server.listener.leaving) == number)
            assert not await comes_in(server, "127.0.0.1")
            assert await comes_in(server, "127.0.0.2") != is_for_all
        for session in server.gateway.links:
            server.schedule(session)
        await until(lambda: not server.listener.leaving)
        assert not await is_dropped(server)
        assert words(await wire.ask(type="ping")) == ["ok"]


async def test_who_hangs_up_counts_until_all_is_carried_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else one could come again and again, and leave work behind."""
    monkeypatch.setattr(turns, "REQUESTS_PER_ROUND", 1)
    async with serving(max_connections=3) as server:
        for _ in range(50):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(HANDSHAKE + b"".join(map(framed, tiny(50))))
            await asyncio.sleep(0)
            writer.close()
            await asyncio.sleep(0)
            assert len(server.gateway.links) <= 3
        await until(lambda: not server.gateway.links)
        assert (
            not server.listener.connections and not server.listener.by_address
        )
        async with wired(server.url) as wire:
            assert words(await wire.ask(type="ping")) == ["ok"]


# What waits to be read -------------------------------------------------------


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernel keep little of what is not read."""
    bind = listener.bind

    async def bind_narrow(hostname: str, port: int) -> list[socket.socket]:
        sockets = await bind(hostname, port)
        for sock in sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
        return sockets

    monkeypatch.setattr(listener, "bind", bind_narrow)


async def test_private_events_wait_up_to_4_mib_and_then_it_is_over(
    narrow: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that another connection of the account causes."""
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
            # From here on nothing is put in but the end.
            before = most
            await busy.send(*requests)
            await busy.take(2 * MAX_FRAME)
            end = len(Frame(CLOSE, b"..slow reader").serialize(mask=False))
            assert most <= before + end < STUCK_BYTES + 2**20
            deaf.resume()
            assert (await deaf.rest())[1] == 4008


async def test_one_who_does_not_read_its_replies_is_not_read(
    narrow: None,
) -> None:
    """So they stay within the soft limit, and what one turn adds."""
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
            assert session._waiting < BYTES_WAITING + READ_SIZE
            deaf.connection.transport.abort()


# Who may be there ------------------------------------------------------------


@contextlib.asynccontextmanager
async def crowd(server: Server, *users: str) -> AsyncIterator[list[Wire]]:
    """So many connections, logged in as these."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(wired(server.url, user))
            for user in users
        ]


async def comes_in(server: Server, host: str) -> bool:
    """Whether one from an address gets an answer to its handshake."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.port, local_addr=(host, 0)
    )
    try:
        writer.write(HANDSHAKE)
        return bool(await reader.read(1))
    except ConnectionError:
        return False
    finally:
        writer.transport.abort()


async def is_dropped(server: Server, host: str = "") -> bool:
    """Whether one more connection is refused at once."""
    try:
        async with wired(server.url, host=host) as wire:
            await wire.ask(type="ping")
    except (OSError, EOFError, WebSocketException):
        return True
    return False


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
    """In all, and of one address; and room is made by who goes."""
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
    """Settings under which strangers may come in, with a key for alice."""
    keys = tmp_path / "keys.json"
    return {"keys": keys, "token": add_key(keys, "alice")}


async def test_what_holds_for_strangers_unless_one_says_otherwise(
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
            # The bucket is filled at 100 a second meanwhile.
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


def test_only_so_many_orders_rest() -> None:
    """What does not rest does not count; a cancel makes room."""
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


def test_one_frame_is_told_so_many_rows() -> None:
    """More than that is refused, whatever it is; other requests go on."""
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


def test_what_takes_as_long_as_rows_counts_as_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whole books, leaderboards made anew, fills looked through."""
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


def test_only_so_many_accounts_exist() -> None:
    floor = Floor()
    gateway, accounts = floor.gateway, floor.gateway.engine.accounts
    while len(accounts) < ACCOUNTS_MAX:
        session = floor.connect(Peer())
        gateway.requests.handle(session, [Login(user=f"user{len(accounts)}")])
        gateway.disconnect(session)
    session = floor.connect(Peer())
    (error,) = floor.do(session, {"type": "login", "user": "one-more"})
    assert error["code"] == "forbidden"
    assert floor.closings(session) == [4001]
    assert len(accounts) == ACCOUNTS_MAX
    session = floor.connect(Peer())
    welcome, _ = floor.do(session, {"type": "login", "user": "user0"})
    assert welcome["type"] == "welcome"


def test_sessions_are_as_many_as_connections_or_the_last_ones() -> None:
    """None that is connected is forgotten, and of the others the oldest."""
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


# What is remembered of requests ----------------------------------------------


@pytest.mark.parametrize("kind", ["subscribe", "unsubscribe"])
def test_naming_a_thing_a_thousand_times_is_naming_it_once(
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
    assert [len(follows) for follows in feed._follows.values()] == [6]
    assert len(feed._groups) == len(feed._since) == 1
    floor.gateway.disconnect(session)
    assert not (feed._follows or feed._groups or feed._since or feed._behind)


class Locked:
    """Keys that fit nobody."""

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


async def test_who_is_gone_leaves_nothing_behind() -> None:
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
                *(feed._follows, feed._groups, feed._since, feed._behind),
            ):
                assert not structure
            book = gateway.engine.listings["BOND"].book
            assert not book.orders


# What is not complete --------------------------------------------------------


async def test_half_a_message_takes_no_more_than_a_whole_one() -> None:
    """In one frame, in fragments, or in both."""
    async with serving() as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        first = framed(b"x" * 60_000, fin=False)
        rest = framed(b"x" * 5_536)
        writer.write(HANDSHAKE + first + rest[:-1])
        await until(lambda: server.links)
        (connection,) = server.links
        await until(lambda: len(connection._unread) == len(rest) - 1)
        assert len(connection._fragments) == 60_000
        writer.transport.abort()
        await until(lambda: not server.links)


async def test_a_request_takes_no_more_than_16_kib() -> None:
    """Each of its lines may be good, and it need not come to an end."""
    async with serving() as server:
        port = server.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        header = b"X: %b\r\n" % (b"x" * 1_000)
        count = (MAX_REQUEST - len(HANDSHAKE)) // len(header)
        writer.write(HANDSHAKE[:-2] + header * count)
        (connection,) = await sockets(server)
        await until(lambda: connection._asked > MAX_REQUEST - len(header))
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


async def sockets(server: Server) -> list[Connection]:
    """Return the sockets there are, once there is one."""
    await until(lambda: server.listener.connections)
    return list(server.listener.connections)


async def test_where_there_is_no_room_for_a_socket_one_tries_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when all files that may be open are."""
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
