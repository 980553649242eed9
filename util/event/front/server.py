"""The front as a process: it listens, counts, and follows its table."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from exchange.doors.listener import bind, machine_names, names_of
from exchange.doors.names import Names
from exchange.host.settings import CONNECTIONS, Settings
from exchange.host.tls import Certificate

from .doors import DoorEntrance
from .entrance import HEAD_S, LOOPBACK, Entrance
from .native import NativeEntrance
from .table import Table, TableError, read_table

LOOK_S = 0.05  # between two looks at the table
CERTIFICATE_S = 5.0  # between two looks at the files of the certificate
BACKLOG = 1_024


class Front:
    """The front of one event; ``path`` is that of its table.

    ``settings`` are those of a server: certificate, origins, and the most
    connections of one address.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.table: Table = read_table(path)
        self.names: Names | None = None
        self.is_open = False  # it accepts clients
        self._path = path
        self._settings = settings
        self._seen = _stamp(path)
        self._certificate = Certificate.of(settings)
        self._entrances: set[Entrance] = set()
        self._by_address: Counter[str] = Counter()
        self._per_address = settings.connections_per_address(True)

    # Called by entrances

    def enter(self, entrance: Entrance) -> bool:
        """Count a socket; return whether there is room for it."""
        address = entrance.address
        if (
            len(self._entrances) >= CONNECTIONS
            or self._by_address[address] >= self._per_address > 0
        ):
            return False
        self._entrances.add(entrance)
        self._by_address[address] += 1
        return True

    def leave(self, entrance: Entrance) -> None:
        """Forget a socket that has ended."""
        if entrance not in self._entrances:
            return
        self._entrances.remove(entrance)
        self._by_address[entrance.address] -= 1
        if not self._by_address[entrance.address]:
            del self._by_address[entrance.address]

    # Running

    async def run(self) -> None:
        """Serve until canceled; raises OSError if a port is in use."""
        listen = self.table.listen
        tls = None if self._certificate is None else self._context()
        native = partial(NativeEntrance, self)
        sockets = await bind(listen.host, listen.native)
        bound: list[tuple[list[Any], Any, ssl.SSLContext | None]] = [
            (sockets, native, tls)
        ]
        if listen.plain:
            bound.append((await bind(LOOPBACK, listen.plain), native, None))
        for port, is_json in ((listen.json, True), (listen.line, False)):
            if port:
                make = partial(DoorEntrance, self, is_json)
                bound.append((await bind(listen.host, port), make, None))
        self.names = names_of(
            {listen.host, *await machine_names()},
            sockets,
            self._settings.origins,
            is_tls=tls is not None,
        )
        with contextlib.ExitStack() as stack:
            for socks, make, context in bound:
                for sock in socks:
                    server = await self._serve(sock, make, context)
                    stack.callback(server.close)
            self.is_open = True
            try:
                await self._follow()
            finally:
                for entrance in list(self._entrances):
                    entrance.abort()

    async def _serve(
        self, sock: Any, make: Any, tls: ssl.SSLContext | None
    ) -> asyncio.Server:
        """Accept clients on a socket that is bound."""
        return await asyncio.get_running_loop().create_server(
            make,
            sock=sock,
            ssl=tls,
            backlog=BACKLOG,
            ssl_handshake_timeout=HEAD_S if tls else None,
        )

    def _context(self) -> ssl.SSLContext:
        """Return a context that takes the newest certificate each time."""
        certificate = self._certificate
        assert certificate is not None
        context = self._settings.tls()
        assert context is not None

        def choose(sock: Any, name: str | None, _: ssl.SSLContext) -> None:
            sock.context = certificate.context

        context.sni_callback = choose
        return context

    async def _follow(self) -> None:
        """Follow the table, and the files of the certificate."""
        loop = asyncio.get_running_loop()
        looked = loop.time()
        while True:
            await asyncio.sleep(LOOK_S)
            self._look()
            if self._certificate and loop.time() - looked > CERTIFICATE_S:
                looked = loop.time()
                await asyncio.to_thread(self._certificate.refresh)

    def _look(self) -> None:
        """Read the table if it is another one; cut what has ended.

        A table that cannot be read changes nothing.
        """
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return
        self._seen = stamp
        with contextlib.suppress(TableError):
            self.table = read_table(self._path)
        for entrance in list(self._entrances):
            if entrance.match and entrance.match not in self.table.matches:
                entrance.cut()


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what is different after each change of a file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
