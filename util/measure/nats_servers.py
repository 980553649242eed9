"""Three servers of NATS on this machine, as a cluster, to be broken."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from util.measure.hosts import HERE, Host
from util.measure.process import STOP_S, Trouble

BINARY = "nats-server"
COUNT = 3
# Each stream takes its limit from what a server may store, full or not.
_CONFIG = """
server_name: {name}
listen: "{host}:{port}"
http: "127.0.0.1:{http}"
max_payload: 1MB
jetstream {{
    store_dir: "{folder}/{name}"
    sync_interval: always
    max_memory_store: 64MB
    max_file_store: 2TB
}}
cluster {{
    name: exchange
    no_advertise: true
    listen: "{host}:{route}"
    routes: [{routes}]
}}
"""


class NatsServer:
    """One of them; ``host`` is where it runs."""

    def __init__(self, name: str, folder: Path, host: Host = HERE) -> None:
        self.name = name
        self.host = host
        self.port, self.http, self.route = free_ports(3)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, routes: list[str]) -> None:
        """Write its configuration; ``routes`` are the URLs of all."""
        text = _CONFIG.format(
            name=self.name,
            host=self.host.address,
            port=self.port,
            http=self.http,
            route=self.route,
            folder=self._folder,
            routes=", ".join(routes),
        )
        (self._folder / f"{self.name}.conf").write_text(text)

    def start(self) -> None:
        """Start it; do not wait until it serves."""
        with (self._folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self.host.inside,
                    *(binary(), "-c", str(self._folder / f"{self.name}.conf")),
                ],
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def send(self, signum: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(signum)

    def kill(self) -> None:
        """End it at once, as a power failure of its process would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """End it in any state that it is in."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()


class NatsServers:
    """All of them; ``url(name)`` is the address of a stream."""

    def __init__(
        self, folder: Path, hosts: Sequence[Host] = (HERE,) * COUNT
    ) -> None:
        self.all = [
            NatsServer(f"n{number}", folder, host)
            for number, host in enumerate(hosts, 1)
        ]
        routes = [
            f"nats://{server.host.address}:{server.route}"
            for server in self.all
        ]
        for server in self.all:
            server.configure(routes)

    def url(self, name: str) -> str:
        """Return the address of a stream on these servers."""
        hosts = ",".join(
            f"{server.host.address}:{server.port}" for server in self.all
        )
        return f"nats://{hosts}/{name}"

    def named(self, name: str) -> NatsServer:
        """Return the server of this name."""
        return next(server for server in self.all if server.name == name)


def binary() -> str:
    """Return the path of nats-server; raises Trouble if there is none."""
    beside = Path(sys.executable).parent / BINARY
    found = str(beside) if beside.exists() else shutil.which(BINARY)
    if found is None:
        raise Trouble(f"there is no {BINARY}: poetry install")
    return found


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback that nobody listens on."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            ports.append(int(sock.getsockname()[1]))
        return ports


@contextlib.contextmanager
def nats_servers(
    folder: Path | None = None, hosts: Sequence[Host] = (HERE,) * COUNT
) -> Iterator[NatsServers]:
    """Run three servers; they may not serve yet.

    ``folder`` keeps their streams; None: a temporary one. One server runs on
    each of the hosts. Raises Trouble.
    """
    binary()
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="exchange-nats-")
                )
            )
        os.makedirs(folder, exist_ok=True)
        servers = NatsServers(folder, hosts)
        for server in servers.all:
            stack.callback(server.end)
            server.start()
        yield servers
