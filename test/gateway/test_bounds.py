"""Bounds of memory: unread output, subscriptions, incomplete messages."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from typing import Any

import pytest
from websockets.frames import CLOSE, Frame

from exchange.doors import listener
from exchange.doors.tcp import READ_SIZE
from exchange.doors.websocket import MAX_REQUEST, Connection
from exchange.gateway.link import BYTES_WAITING
from exchange.gateway.pacing import SLOW_BYTES, STUCK_BYTES
from orderbook import MAX_FRAME
from test.doors.connection.desk import HANDSHAKE
from test.gateway.crowds import PING, crowd, framed
from test.narrow import narrow_listener
from test.support import PATIENCE_S, order, serving, until, wired, words

# What waits to be read ------------------------------------------------------


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give accepted sockets a send buffer of 8 KiB."""
    narrow_listener(monkeypatch)


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


# What is remembered of requests ---------------------------------------------


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
