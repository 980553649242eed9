"""A desk, and peers that connect to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from test.doors.connection.desk import (
    HANDSHAKE,
    Clock,
    Desk,
    Peer,
    echo,
    stock,
)


@pytest.fixture(autouse=True)
async def silence() -> AsyncIterator[None]:
    """Check that nothing reaches the loop's exception handler."""
    unhandled: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: unhandled.append(context))
    yield
    assert unhandled == []


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    loop = asyncio.get_running_loop()
    clock = Clock(loop.time)
    monkeypatch.setattr(loop, "time", clock.time)
    return clock


@pytest.fixture
async def desk(silence: None) -> AsyncIterator[Desk]:
    """A desk that is not started yet: tests choose the arguments."""
    desk = Desk()
    yield desk
    await desk.stop()
    assert desk.errors == []


@pytest.fixture
async def dial(desk: Desk) -> AsyncIterator[Callable[..., Any]]:
    """Connect a peer that sends ``data``; ``open``: after a handshake."""
    peers: list[Peer] = []

    async def dial(*data: bytes, open: bool = False, **kwargs: Any) -> Peer:
        if not desk.port:
            await desk.start(**kwargs)
        peer = Peer(*await asyncio.open_connection("127.0.0.1", desk.port))
        peers.append(peer)
        if open:
            peer.send(HANDSHAKE)
            assert b" 101 " in await peer.head()
        peer.send(*data)
        return peer

    yield dial
    for peer in peers:
        peer.writer.transport.abort()


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[ClientConnection]:
    """A stock client at a desk that echoes."""
    desk.on["received"] = echo
    await desk.start()
    async with stock(desk) as client:
        yield client
