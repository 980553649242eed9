"""The files in `deploy/` do what docs/OPERATIONS.md says of them.

Their own programs read them: NATS, systemd and HAProxy. What users of NATS may
do is tried on three servers that run with the configuration as it is; only
ports and folders are those of the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.errors import Error

from client import Exchange
from exchange.host.settings import ENV_PREFIX, Settings
from exchange.journal.address import Address
from exchange.journal.follower import Follower
from exchange.journal.message import BYE, Message, Position, Writer
from exchange.journal.servers import Unanswered, error_code
from exchange.journal.sqlite import JournalError
from exchange.journal.storage import Batch
from exchange.journal.stream import Refused, Stream
from exchange.market.command import Command
from test.journal.streams import COMMANDS, T_US, batch, opened
from test.server.members import get, joining, leading
from test.support import (
    FOLLOW,
    PATIENCE_S,
    ROOT,
    free_port,
    launched,
    order,
    serving,
    until,
    wired,
)
from test.test_proxies import find, is_listening
from util.measure.nats_servers import binary, free_ports

DEPLOY = ROOT / "deploy"
NATS = (DEPLOY / "nats.conf").read_text("utf-8")
COMPOSE = (DEPLOY / "compose.yaml").read_text("utf-8")
HAPROXY = (DEPLOY / "haproxy.cfg").read_text("utf-8")
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
ANSWER_S = 0.5  # for an answer that does not come


def variables(name: str) -> dict[str, str]:
    """Return what a file of variables sets."""
    lines = (DEPLOY / name).read_text("utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if line[:1] not in "#")
    return {name: value for name, _, value in pairs if name}


# NATS -----------------------------------------------------------------------


def test_each_variable_of_nats_is_in_its_file() -> None:
    named = set(re.findall(r"\$(EX_\w+)", NATS))
    assert named == variables("nats.env").keys()
    assert named - {"EX_NODE"} <= set(
        re.findall(r"^  (EX_\w+):", COMPOSE, re.M)
    )
    for name in named:
        given = {**os.environ, **variables("nats.env")}
        assert checked(given).returncode == 0
        del given[name]
        assert name in checked(given).stderr


def checked(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Let NATS check its configuration."""
    return subprocess.run(
        [binary(), "-t", "-c", DEPLOY / "nats.conf"],
        env=env,
        capture_output=True,
        text=True,
    )


class Cluster:
    """Three servers that run with `deploy/nats.conf`."""

    def __init__(self, folder: Path) -> None:
        ports = free_ports(9)
        self.clients, self.https, routes = ports[:3], ports[3:6], ports[6:]
        self._folder = folder
        self._envs: dict[str, dict[str, str]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for index, name in enumerate("abc"):
            text = NATS
            for old, new in {
                "0.0.0.0:4222": f"127.0.0.1:{self.clients[index]}",
                "127.0.0.1:8222": f"127.0.0.1:{self.https[index]}",
                "0.0.0.0:6222": f"127.0.0.1:{routes[index]}",
            }.items():
                assert text.count(old) == 1
                text = text.replace(old, new)
            file = folder / f"{name}.conf"
            file.write_text(text, "utf-8")
            env = {**os.environ, **variables("nats.env")}
            env |= {"EX_NODE": name, "EX_STORE": str(folder / name)}
            for other, port in zip("ABC", routes):
                route = f"nats://route:{env['EX_ROUTE']}@127.0.0.1:{port}"
                env[f"EX_ROUTE_{other}"] = route
            self._envs[name] = env
            self.start(name)

    def start(self, name: str) -> None:
        """Start a server."""
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [binary(), "-c", self._folder / f"{name}.conf"],
                env=self._envs[name],
                stdout=log,
                stderr=log,
            )

    def lose(self, name: str, disk: bool = False) -> None:
        """Kill a server; lose its disk too."""
        self._processes[name].kill()
        self._processes[name].wait()
        if disk:
            shutil.rmtree(self._folder / name)

    def address(
        self, user: str, password: str | None = None, name: str = "main"
    ) -> Address:
        """Return the address of a stream for a user."""
        if password is None:
            password = variables("nats.env")[f"EX_{user.upper()}"]
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.clients)
        return Address.read(f"nats://{user}:{password}@{hosts}/{name}")

    def end(self) -> None:
        for name in self._processes:
            self.lose(name)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("nats"))
    yield cluster
    cluster.end()


@contextlib.asynccontextmanager
async def connected(cluster: Cluster, user: str) -> AsyncIterator[Stream]:
    """Open the stream as a user; `trade` makes it."""
    if user != "trade":
        await (await opened(cluster.address("trade"))).close()
    stream = await opened(cluster.address(user))
    try:
        yield stream
    finally:
        await stream.close()


async def call(stream: Stream, request: str, **body: Any) -> Any:
    """Return the answer to a request to JetStream; None: there is none."""
    subject = f"$JS.API.STREAM.{request}.{stream.name}"
    try:
        answer = await stream.client.request(
            subject, json.dumps(body).encode(), ANSWER_S
        )
    except Error:
        return None
    return json.loads(answer.data)


async def test_the_servers_sync_before_they_acknowledge(
    cluster: Cluster,
) -> None:
    async with connected(cluster, "trade") as stream:
        for port in cluster.https:
            url = f"http://127.0.0.1:{port}/jsz"
            config = json.loads(await asyncio.to_thread(read, url))["config"]
            assert config["sync_always"] is True
        assert (await stream.state()).max_bytes * 4 <= 20 << 30


def read(url: str) -> str:
    """Return what a URL answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=PATIENCE_S) as answer:
        return str(answer.read().decode())


async def test_trade_appends_and_reads_what_read_only_reads(
    cluster: Cluster,
) -> None:
    applied: list[Command] = []

    def apply(batch: Batch) -> None:
        applied.extend(batch.commands)

    async with (
        connected(cluster, "trade") as trade,
        connected(cluster, "read") as edge,
    ):
        last = (await trade.state()).last
        assert last == 0, "no other test appends"
        writer = Writer("one", T_US)
        first = batch(writer, Position(), 3)
        await trade.append(first, 0)
        assert await trade.fetch(1) == first
        with pytest.raises(Refused):
            await trade.append(first, 0)
        for reader in (trade, edge):
            follower = Follower(reader, apply)
            async with asyncio.timeout(PATIENCE_S):
                while not await follower.read(0.5):
                    await follower.look()
            assert [*COMMANDS[:3]] == applied
            applied.clear()
            await follower.close()
        # An edge cannot append, not even what would be next.
        with pytest.raises(Unanswered):
            await edge.append(writer.sign(BYE, Position(3)), 1)
        assert (await trade.state()).last == 1


async def test_an_edge_works_as_the_user_who_may_only_read(
    cluster: Cluster, tmp_path: Path
) -> None:
    """With a stream of its own: it shows what the primary does.

    The second time it starts from its copy.
    """
    copy = {"journal_copy": tmp_path / "copy.db"}
    addresses = [
        cluster.address(user, name="edge") for user in ("trade", "read")
    ]
    async with joining(addresses[0]) as primary:
        await leading(primary)
        settings = {"role": "read", "hostname": "127.0.0.1", "port": 0} | copy
        for price in (91, 92):
            async with joining(addresses[1], **settings) as edge:
                await leading(edge)
                async with (
                    wired(primary.url, "ann") as ann,
                    wired(edge.url) as reader,
                ):
                    await reader.ask(**FOLLOW)
                    await ann.ask(**order("buy", 5, price, symbol="BOND"))
                    await reader.until(type="book", bids=[[price, 5]])
                assert await get(edge, "/readyz") == (200, "ok\n")


@pytest.mark.parametrize("user", ["trade", "read"])
async def test_no_process_may_delete_or_change_a_stream(
    cluster: Cluster, user: str
) -> None:
    async with connected(cluster, user) as stream:
        before = await call(stream, "INFO")
        for request, body in (
            ("DELETE", {}),
            ("PURGE", {}),
            ("MSG.DELETE", {"seq": 1}),
            ("UPDATE", {**before["config"], "max_bytes": 1}),
            ("PEER.REMOVE", {"peer": "a"}),
            ("SNAPSHOT", {"deliver_subject": "_INBOX.x"}),
        ):
            assert await call(stream, request, **body) is None, request
        after = await call(stream, "INFO")
        assert after["config"] == before["config"]
        assert after["state"]["last_seq"] == before["state"]["last_seq"]


@pytest.mark.parametrize("user", ["trade", "read"])
def test_the_chart_of_nats_gets_the_same_permissions(user: str) -> None:
    values = (ROOT / "k8s" / "nats.yaml").read_text("utf-8")
    (listed,) = re.findall(
        rf"- user: {user}\n.*?publish:\n((?: +- [^:\n]+\n)+)", values, re.S
    )
    (quoted,) = re.findall(rf"user: {user},.*?publish: \[(.*?)\]", NATS, re.S)
    subjects = re.findall(r'"(.+?)"', quoted)
    assert re.findall(r"- (\S+)", listed) == subjects != []


async def test_an_edge_makes_no_stream(cluster: Cluster) -> None:
    async with connected(cluster, "read") as edge:
        answer = await edge.client.request(
            "$JS.API.STREAM.INFO.EX_other", b"", ANSWER_S
        )
        assert error_code(json.loads(answer.data))  # it may ask
        config = {"name": "EX_other", "subjects": ["ex.other.x"]}
        with pytest.raises(Error):
            await edge.client.request(
                "$JS.API.STREAM.CREATE.EX_other",
                json.dumps(config).encode(),
                ANSWER_S,
            )


async def test_the_operator_may_raise_the_limit(cluster: Cluster) -> None:
    async with connected(cluster, "operator") as stream:
        config = (await call(stream, "INFO"))["config"]
        config["max_bytes"] += 1 << 20
        answer = await call(stream, "UPDATE", **config)
        assert answer["config"]["max_bytes"] == config["max_bytes"]


@pytest.mark.parametrize("user", ["trade", "read", "operator", "stranger"])
async def test_a_wrong_password_is_refused(
    cluster: Cluster, user: str
) -> None:
    await (await opened(cluster.address("trade"))).close()
    with pytest.raises((JournalError, Unanswered)):
        await Stream.open(cluster.address(user, "wrong"), None)


async def test_a_server_with_an_empty_disk_copies_the_stream(
    tmp_path: Path,
) -> None:
    """As the manual says to replace a machine, or a damaged disk."""
    cluster = Cluster(tmp_path)
    writer = Writer("one", T_US)
    try:
        async with connected(cluster, "trade") as stream:
            first = batch(writer, Position(), 3)
            await stored(stream, first, 0)
            cluster.lose("c", disk=True)
            cluster.start("c")
            async with asyncio.timeout(PATIENCE_S):
                while not await is_current(cluster.https[2]):
                    await asyncio.sleep(0.1)
            cluster.lose("a", disk=True)
            # Two are left, of which one began with nothing.
            second = writer.sign(BYE, Position(3, first.digest))
            await stored(stream, second, 1)
            for sequence, message in ((1, first), (2, second)):
                assert await stream.fetch(sequence) == message
    finally:
        cluster.end()


async def stored(stream: Stream, message: Message, expected: int) -> None:
    """Append a message however long the servers take."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await stream.append(message, expected)
                return
            except Unanswered:
                pass
            except Refused:  # for an earlier try, stored or under way
                with contextlib.suppress(Unanswered):
                    found = await stream.fetch(expected + 1)
                    if found is not None:
                        assert found == message
                        return
            await asyncio.sleep(0.1)


async def is_current(port: int) -> bool:
    """Return what the manual asks: whether a server says that it is well."""
    try:
        await asyncio.to_thread(read, f"http://127.0.0.1:{port}/healthz")
    except OSError:
        return False
    return True


async def test_a_client_goes_on_when_the_primary_is_killed(
    cluster: Cluster, tmp_path: Path
) -> None:
    """With the settings of the manual, and the addresses of both machines."""
    server, *_ = cluster.address("trade").servers
    hosts = ",".join(f"127.0.0.1:{port}" for port in cluster.clients)
    journal = f"{server.rpartition('@')[0]}@{hosts}/live"
    ports = free_ports(2)
    async with contextlib.AsyncExitStack() as stack:
        machines = {}
        for port in ports:
            machines[port] = await stack.enter_async_context(
                launched(
                    port=str(port),
                    journal=journal,
                    journal_copy=str(tmp_path / f"{port}.db"),
                    lease="0.5",
                )
            )
        urls = [f"ws://127.0.0.1:{port}" for port in ports]
        ex = Exchange(
            urls,
            "alice",
            cancel_on_disconnect=False,
            connect_timeout=PATIENCE_S,
            request_timeout=PATIENCE_S,
        )
        await ex.connect()
        bond = await ex.market("BOND")
        kept = await bond.buy(10, 99)
        async with asyncio.timeout(PATIENCE_S):
            while not (leaders := [p for p in ports if await is_ready(p)]):
                await asyncio.sleep(0.05)
        assert len(leaders) == 1
        machines[leaders[0]].kill()
        await until(lambda: not ex.is_connected)
        placed = await bond.buy(5, 98)
        assert kept.is_open and placed.is_open
        assert await ex.cancel_all() == 2
        (other,) = {*ports} - {*leaders}
        assert await is_ready(other)
        await ex.close()
        machines[other].terminate()
        assert await machines[other].wait() == 0


async def is_ready(port: int) -> bool:
    """Return whether an exchange takes orders."""
    try:
        await asyncio.to_thread(read, f"http://127.0.0.1:{port}/readyz")
    except OSError:
        return False
    return True


# Units, variables, Compose --------------------------------------------------


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_understands_a_unit(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text("utf-8")
    (program,) = re.findall(r"^ExecStart=(\S+)", text, re.M)
    copy = tmp_path / unit.name
    copy.write_text(text.replace(program, sys.executable), "utf-8")
    ran = subprocess.run(
        ["systemd-analyze", "verify", copy], capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    files = re.findall(r"^EnvironmentFile=/etc/exchange/(\S+)", text, re.M)
    assert [name for name in files if (DEPLOY / name).exists()] == files != []


@pytest.mark.parametrize("name", ["exchange.env", "edge.env"])
def test_the_variables_are_settings(name: str) -> None:
    given = {
        name.removeprefix(ENV_PREFIX).lower(): value
        for name, value in variables(name).items()
    }
    assert given.keys() <= Settings.model_fields.keys()
    known = given.keys() & Settings.model_fields.keys()
    assert Settings(**{name: given[name] for name in known})
    user = "read" if given.get("role") == "read" else "trade"
    address = Address.read(given["journal"])
    password = variables("nats.env")[f"EX_{user.upper()}"]
    assert address.servers[0] == f"nats://{user}:{password}@a:4222"
    assert len(address.servers) == 3


def test_compose_sets_what_is_a_setting() -> None:
    names = re.findall(rf"^ +{ENV_PREFIX}(\w+):", COMPOSE, re.M)
    known = Settings.model_fields.keys()
    assert names and {name.lower() for name in names} <= known
    asked = set(re.findall(r"\$\{(\w+)", COMPOSE))
    assert asked == variables("compose.env.example").keys()
    for file in re.findall(r'"\./([\w.]+):/', COMPOSE):
        assert (DEPLOY / file).is_file()
    given = {**variables("nats.env"), **variables("compose.env.example")}
    for journal in re.findall(r"JOURNAL: (\S+)", COMPOSE):
        for name in asked:
            journal = journal.replace(f"${{{name}}}", given[name])
        assert len(Address.read(journal).servers) == 3


# HAProxy --------------------------------------------------------------------


@contextlib.asynccontextmanager
async def fronted(folder: Path, one: str, two: str) -> AsyncIterator[str]:
    """Run HAProxy in front of two addresses; yield its URL."""
    port = free_port()
    text = HAPROXY
    for old, new in {
        "bind :8765": f"bind 127.0.0.1:{port}",
        "exchange-one:8765": one,
        "exchange-two:8765": two,
    }.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    file = folder / "haproxy.cfg"
    file.write_text(text, "utf-8")
    program = await find("haproxy")
    libraries = [str(p) for p in Path(program).parents[1].glob("lib/*-gnu")]
    env = {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}
    with (folder / "haproxy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(program, "-db", "-f", str(file)),
            env=env,
            stdin=DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await is_listening(port):
                assert process.returncode is None, Path(log.name).read_text()
                await asyncio.sleep(0.02)
        yield f"ws://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_standby_gets_no_requests(tmp_path: Path) -> None:
    checks = asyncio.Queue[bytes]()

    async def refuse(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        checks.put_nowait(await reader.readuntil(b"\r\n\r\n"))
        status = b"HTTP/1.1 503 Service Unavailable"
        writer.write(status + b"\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with (
        serving() as primary,
        await asyncio.start_server(refuse, "127.0.0.1", 0) as standby,
    ):
        port = standby.sockets[0].getsockname()[1]
        there = f"127.0.0.1:{port}", f"127.0.0.1:{primary.port}"
        async with fronted(tmp_path, *there) as url:
            async with asyncio.timeout(PATIENCE_S):
                for _ in range(3):  # after two it is out
                    assert (await checks.get()).startswith(b"GET /readyz ")
            page = url.replace("ws:", "http:") + "/healthz"
            for _ in range(10):
                assert await asyncio.to_thread(read, page) == "ok\n"


async def test_a_session_goes_on_behind_one_address(tmp_path: Path) -> None:
    """HAProxy finds the exchange that is ready; it has one address."""
    journal, second = tmp_path / "exchange.db", free_port()
    async with (
        serving(journal=journal) as one,
        fronted(
            tmp_path, f"127.0.0.1:{one.port}", f"127.0.0.1:{second}"
        ) as url,
    ):
        ex = Exchange(url, "alice", cancel_on_disconnect=False)
        await ex.connect()
        order = await (await ex.market("BOND")).buy(10, 99)
        metrics = url.replace("ws:", "http:") + "/metrics"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            await asyncio.to_thread(read, metrics)
        await one.stop()
        await until(lambda: not ex.is_connected)
        async with serving(journal=journal, port=second) as two:
            assert await ex.cancel_all() == 1
            assert not order.is_open and len(two.links) == 1
            await ex.close()
