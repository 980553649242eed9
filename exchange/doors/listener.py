"""Listening sockets, and limits on the connections they accept.

A ``Listener`` binds, accepts one connection at a time, and counts the
connections of each address. Messages go from a connection to a ``Receiver``
directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from websockets.http11 import Request

from exchange.doors.http import Reply
from exchange.doors.names import (
    Names,
    Proxies,
    Refusal,
    in_url,
    is_loopback,
    read_host,
    read_network,
    read_origin,
)
from exchange.doors.once import OncePerMinute
from exchange.doors.queue import Queue
from exchange.doors.tcp import (
    OPEN_TIMEOUT_S,
    Admission,
    Connection,
    Receiver,
)
from exchange.doors.websocket import Connection as Websocket

# Connections that the kernel holds until they are accepted: enough for a class
# that starts at once.
BACKLOG = 1_024
# Rounds of the loop that asyncio needs to make a connection of an accepted
# socket.
ACCEPT_ROUNDS = 3
# Time-out for looking up this machine's full name, so that the exchange starts
# although the name server is down.
OWN_NAME_S = 2.0
ACCEPT_AGAIN_S = 1.0  # until the next accept after one that failed
# Ended connections whose last requests are not carried out yet: in all, and
# from one address. At these numbers no connection is accepted, so that a
# client cannot connect, leave work, and connect again without end.
LEAVING_MAX = 100
LEAVING_FROM_ONE = 50
# Per-address counters kept (LRU). Bounds memory and /metrics.
ADDRESSES_COUNTED = 1_000

# Bytes that the kernel holds for a reader of another door, twice this with its
# overhead. The usual 2.5 MiB would hide for long that a bot is behind.
SEND_BUFFER = 32 * 1024

logger = logging.getLogger("exchange")


class Certificate(Protocol):
    """The context for TLS; it may be replaced at any time."""

    context: ssl.SSLContext


class MakeConnection(Protocol):
    """Makes the protocol of a socket that a door has accepted."""

    def __call__(
        self, receiver: Receiver, *, admission: Admission, queue: Queue
    ) -> Connection:
        """Return the protocol."""


class Listener:
    """The listening sockets of one exchange, and its open connections.

    Args:
        receiver: takes the messages of all connections.
        respond: answers plain HTTP requests.
        certificate: None: no TLS.
        proxies: networks of the proxies whose ``X-Forwarded-For`` is believed.
        per_address: connections that one address may have; 0: unlimited.
    """

    def __init__(
        self,
        receiver: Receiver,
        respond: Callable[[Request], Reply],
        *,
        certificate: Certificate | None,
        proxies: Iterable[str],
        per_address: int,
    ) -> None:
        self.names: Names | None = None  # set by `open`
        self.errors = 0  # exceptions that ended a connection
        self.refusals = {"host": 0, "origin": 0}  # HTTP requests, by header
        # All open sockets, with or without a completed handshake. A closed one
        # counts until its last requests are carried out.
        self.connections: set[Connection] = set()
        self.by_address: Counter[str] = Counter()  # open connections
        # Connections opened since the start.
        self.arrivals: OrderedDict[str, int] = OrderedDict()
        # Closed, with requests that are not carried out yet.
        self.leaving: set[Connection] = set()
        self.per_address = per_address
        self._loop = asyncio.get_running_loop()
        self._receiver = receiver
        self._respond = respond
        self._certificate = certificate
        self._proxies = Proxies(map(read_network, proxies))
        self._refusals_logged = OncePerMinute()
        self._connections_max = 0  # set by `open`
        self._sockets: list[socket.socket] = []
        # What makes the connections of other doors, by their sockets.
        self._others: dict[socket.socket, MakeConnection] = {}
        self._queue = Queue()
        self.protocol: type[Websocket] = Websocket  # of accepted sockets
        # Accepted sockets that are not connections yet.
        self._arriving: set[asyncio.Task[None]] = set()
        self._is_closed = False

    # Life

    async def bind(self, hostname: str, port: int) -> int:
        """Bind every address of a host name; return the port.

        Raises OSError.
        """
        self._sockets = await bind(hostname, port)
        return int(self._sockets[0].getsockname()[1])

    async def bind_other(
        self, hostname: str, port: int, make: MakeConnection
    ) -> None:
        """Bind a port of another door, without TLS; raises OSError.

        If the listener is open, it listens there at once.
        """
        for sock in await bind(hostname, port):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            self._others[sock] = make
            if self.names is not None:
                self._listen(sock)

    async def open(
        self, hostname: str, origins: Iterable[str], connections_max: int
    ) -> None:
        """Listen for requests to our names and from these origins."""
        self._connections_max = connections_max
        self.names = names_of(
            {hostname, *await machine_names()},
            self._sockets,
            origins,
            is_tls=self._certificate is not None,
        )
        for sock in (*self._sockets, *self._others):
            self._listen(sock)

    async def close(self) -> None:
        """Stop accepting; wait until accepted sockets are connections."""
        self._is_closed = True
        for sock in (*self._sockets, *self._others):
            self._loop.remove_reader(sock)
            sock.close()
        for _ in range(ACCEPT_ROUNDS):
            await asyncio.sleep(0)

    async def abort(self) -> None:
        """Cut off all connections."""
        for connection in list(self.connections):
            connection.abort()
        for task in self._arriving:  # incomplete TLS handshakes
            task.cancel()
        await asyncio.gather(*self._arriving)

    # Accepting

    def _listen(self, sock: socket.socket) -> None:
        sock.listen(BACKLOG)
        sock.setblocking(False)
        self._watch(sock)

    def _watch(self, listening: socket.socket) -> None:
        if not self._is_closed:
            self._loop.add_reader(listening, self._arrived, listening)

    def _arrived(self, listening: socket.socket) -> None:
        """Queue for one accept; the kernel holds further connections."""
        self._loop.remove_reader(listening)
        self._queue.join(partial(self._accept, listening))

    def _accept(self, listening: socket.socket) -> None:
        if self._is_closed:
            return
        try:
            sock, _ = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            pass  # the client has hung up
        except OSError as error:
            logger.error("no connection can be accepted: %s", error)
            self._loop.call_later(ACCEPT_AGAIN_S, self._watch, listening)
            return
        else:
            sock.setblocking(False)
            task = self._loop.create_task(
                self._make_connection(sock, self._others.get(listening))
            )
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)
        self._watch(listening)

    def make_connection(self) -> Websocket:
        """Return the protocol of a socket that has been accepted."""
        return self.protocol(
            self._receiver,
            admission=self,
            names=self.names,
            proxies=self._proxies,
            respond=self._respond,
            queue=self._queue,
        )

    def make_other(self, make: MakeConnection) -> Connection:
        """Return the protocol of a socket that another door has accepted."""
        return make(self._receiver, admission=self, queue=self._queue)

    async def _make_connection(
        self, sock: socket.socket, make: MakeConnection | None
    ) -> None:
        tls = None
        if make is None and self._certificate:
            tls = self._certificate.context
        # A failed TLS handshake concerns only the client.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._loop.connect_accepted_socket(
                (
                    partial(self.make_other, make)
                    if make
                    else self.make_connection
                ),
                sock,
                ssl=tls,
                ssl_handshake_timeout=OPEN_TIMEOUT_S if tls else None,
            )

    # Called by connections

    def opened(self, connection: Connection) -> bool:
        """Return whether there is room for this socket."""
        address = connection.remote
        if not connection.is_proxied:
            self._count_arrival(address)
        if (
            len(self.connections) >= self._connections_max
            or len(self.leaving) >= LEAVING_MAX
            # A proxy's connection counts for the address behind it.
            or not (connection.is_proxied or self._has_room_for(address))
        ):
            return False
        self.connections.add(connection)
        self.by_address[address] += 1
        return True

    def forwarded(self, connection: Connection, client: str) -> bool:
        """Count a proxy's connection for the client's address.

        Return whether that address may have one more; if not, the connection
        still counts for the proxy.
        """
        self._count_arrival(client)
        self._forget_one_from(connection.remote)
        is_welcome = self._has_room_for(client)
        if is_welcome:
            connection.remote = client
        self.by_address[connection.remote] += 1
        return is_welcome

    def refused(self, connection: Connection, refusal: Refusal) -> None:
        """Count a request that is refused, and log it once a minute."""
        self.refusals[refusal.header] += 1
        line = self._refusals_logged.line(refusal.reason, self._loop.time())
        if line is not None:
            address = connection.remote or "a closed connection"
            logger.warning("refused %s: %s", address, line)

    def closed(self, connection: Connection) -> None:
        """Make room for another socket, or let `release` do so."""
        if connection in self.connections and connection not in self.leaving:
            self.connections.remove(connection)
            self._forget_one_from(connection.remote)

    def failed(self, connection: Connection, error: Exception) -> None:
        """Count and log an exception inside a connection."""
        self.errors += 1
        logger.error("connection of %s", connection.remote, exc_info=error)

    # Called by the receiver

    def keep(self, connection: Connection) -> None:
        """Count a closed connection until `release`."""
        self.leaving.add(connection)

    def release(self, connection: Connection) -> None:
        """Make room: the last requests of a connection are carried out."""
        self.leaving.remove(connection)
        self.closed(connection)

    # Counts of addresses

    def busiest(self) -> dict[str, int]:
        """Return how many connections the busiest addresses have."""
        return dict(self.by_address.most_common(ADDRESSES_COUNTED))

    def _count_arrival(self, address: str) -> None:
        self.arrivals[address] = self.arrivals.get(address, 0) + 1
        self.arrivals.move_to_end(address)
        if len(self.arrivals) > ADDRESSES_COUNTED:
            self.arrivals.popitem(last=False)

    def _has_room_for(self, address: str) -> bool:
        """Return whether an address may have one more connection."""
        most = self.per_address
        leaving = [other.remote for other in self.leaving]
        return leaving.count(address) < LEAVING_FROM_ONE and not (
            most and self.by_address[address] >= most
        )

    def _forget_one_from(self, address: str) -> None:
        self.by_address[address] -= 1
        if not self.by_address[address]:
            del self.by_address[address]


# Addresses and names --------------------------------------------------------


def resolve(hostname: str) -> list[str]:
    """Return the addresses of a host name; raises OSError."""
    try:
        infos = socket.getaddrinfo(
            hostname, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise OSError(f"{hostname}: {error.strerror}") from error
    except UnicodeError as error:
        raise OSError(f"{hostname}: no host name: {error}") from error
    return [str(info[4][0]) for info in infos]


async def bind(hostname: str, port: int) -> list[socket.socket]:
    """Bind every address of a host name, and one port on all of them.

    Addresses that this machine does not have are skipped: "localhost" often
    resolves to an IPv6 address where there is no IPv6. Raises OSError if the
    port is in use on any address, or if no address is left.
    """
    loop = asyncio.get_running_loop()
    try:
        infos = await loop.getaddrinfo(
            hostname, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise OSError(f"{hostname}: {error.strerror}") from error
    except UnicodeError as error:
        raise OSError(f"{hostname}: no host name: {error}") from error
    sockets: list[socket.socket] = []
    unavailable = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    for family, kind, proto, _, address in dict.fromkeys(infos):
        sock = None
        try:
            sock = socket.socket(family, kind, proto)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address[0], port, *address[2:]))
        except OSError as error:
            if sock is not None:
                sock.close()
            if error.errno in unavailable:
                continue
            for other in sockets:
                other.close()
            where = f"{in_url(str(address[0]))}:{port}"
            raise OSError(f"{where}: {error.strerror}") from error
        sockets.append(sock)
        port = sock.getsockname()[1]
    if not sockets:
        raise OSError(f"{hostname} is not an address of this machine")
    return sockets


async def machine_names() -> set[str]:
    """Return the names of this machine that people type in a browser."""
    name = socket.gethostname()
    names = {name, f"{name.partition('.')[0]}.local"}  # the second: mDNS
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(OWN_NAME_S):
            infos = await asyncio.get_running_loop().getaddrinfo(
                name, None, flags=socket.AI_CANONNAME
            )
            names |= {info[3] for info in infos if info[3]}
    return names


def names_of(
    own: Iterable[str],
    sockets: list[socket.socket],
    origins: Iterable[str],
    *,
    is_tls: bool,
) -> Names:
    """Return the names and the origins by which an exchange may be opened.

    ``own`` are the names of the machine. The ``Host`` of programs is checked
    only if all addresses are loopback: on a network the machine may have names
    that it does not know.
    """
    names = {"localhost", "127.0.0.1", "[::1]", *map(in_url, own)}
    hosts = [host[0] for host in map(read_host, names) if host]
    port = sockets[0].getsockname()[1]
    scheme = "https" if is_tls else "http"
    ours = [(scheme, name, port) for name in hosts]
    return Names(
        hosts=hosts,
        origins=[*ours, *map(read_origin, origins)],
        is_tls=is_tls,
        checks_host=all(is_loopback(s.getsockname()[0]) for s in sockets),
    )
