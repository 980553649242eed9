"""Connections with small socket buffers, which are soon full."""

from __future__ import annotations

import asyncio
import socket

import pytest

from exchange.doors import listener

SMALL_BUFFER = 8_192  # bytes


def narrow_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the sockets that servers accept a small send buffer."""
    bind = listener.bind

    async def bind_narrow(hostname: str, port: int) -> list[socket.socket]:
        sockets = await bind(hostname, port)
        for sock in sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        return sockets

    monkeypatch.setattr(listener, "bind", bind_narrow)


async def narrow_socket(port: int) -> socket.socket:
    """Return a connected socket with a small receive buffer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    return sock
