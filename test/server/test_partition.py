"""A host with the primary is cut off from all others, and connected again.

Each of four hosts is a network namespace. Where there can be none, the primary
loses its lines to the servers of NATS, and the reason is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from websockets.exceptions import WebSocketException

from exchange.host.membership import FENCED
from exchange.journal.address import Address
from exchange.journal.follower import Follower
from exchange.journal.servers import Unanswered
from exchange.journal.storage import Batch
from exchange.market.engine import Engine
from exchange.market.reports import in_full
from orderbook import Exec
from test.journal.streams import opening
from util.measure.cluster import STREAM, Member, primary_of
from util.measure.cut import Line
from util.measure.hosts import HERE, Host, network
from util.measure.nats_servers import NatsServers, nats_servers
from util.measure.prober import check_alone, probing
from util.measure.process import Trouble, add_key
from util.measure.wire import PATIENCE_S, Wire, order, wired

TRADERS = 4
ORDERS = 20  # of each trader, before the cut and again during it
SILENCE_S = 2.0  # a trader looks elsewhere after this
PAUSE_S = 0.02  # of a trader after an order
# nats-py forgets to close the transport of a connection that it has lost.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


class Trader:
    """Numbers its orders, and sends each until it is acknowledged."""

    def __init__(self, number: int, keys: Path) -> None:
        self.acknowledged: list[str] = []
        self._name = f"trader{number}"
        self._token = add_key(keys, self._name)

    async def live(self, urls: Sequence[str]) -> None:
        """Trade until canceled, with whichever exchange answers."""
        for url in itertools.cycle(urls):
            with contextlib.suppress(
                OSError, EOFError, TimeoutError, WebSocketException
            ):
                async with contextlib.AsyncExitStack() as stack:
                    way = wired(url, self._name, token=self._token)
                    async with asyncio.timeout(SILENCE_S):
                        wire = await stack.enter_async_context(way)
                    stack.callback(wire.connection.transport.abort)
                    await self._trade(wire)
            await asyncio.sleep(PAUSE_S)

    async def _trade(self, wire: Wire) -> None:
        while True:
            count = len(self.acknowledged)
            name = f"{self._name}-{count}"
            side = "sell" if count % 2 else "buy"
            place = order(side, 1, 100, symbol="BOND", client_order_id=name)
            async with asyncio.timeout(SILENCE_S):
                messages = await wire.ask(**place)
            if any(is_acknowledgment(one, name) for one in messages):
                self.acknowledged.append(name)
            await asyncio.sleep(PAUSE_S)


def is_acknowledgment(message: dict[str, Any], name: str) -> bool:
    """Return whether a message says that an order is in the market."""
    if message.get("code") == "duplicate_client_order_id":
        return True
    return (
        message.get("client_order_id") == name
        and message.get("exec_type") == "new"
    )


class Cluster(NamedTuple):
    """Servers of NATS, hosts, and how to cut the first one off."""

    servers: NatsServers
    hosts: Sequence[Host]
    journal: str  # of the first host
    cut: Callable[[], None]
    mend: Callable[[], None]


@contextlib.asynccontextmanager
async def hosts_with_nats(
    folder: Path, is_with_nats: bool
) -> AsyncIterator[Cluster]:
    """Start four hosts and three servers of NATS.

    The first host is that which is cut off. It has a nats-server if
    ``is_with_nats``.
    """
    async with contextlib.AsyncExitStack() as stack:
        try:
            net = stack.enter_context(network(4))
        except Trouble as trouble:
            print(f"no namespaces here, so lines are cut: {trouble}")
            servers = stack.enter_context(nats_servers(folder))
            line = await stack.enter_async_context(Line.to(servers))
            own = servers.all[:1] if is_with_nats else []

            def cut() -> None:
                line.hold()
                for one in own:
                    one.send(signal.SIGSTOP)

            def mend() -> None:
                line.release()
                for one in own:
                    one.send(signal.SIGCONT)

            yield Cluster(servers, [HERE] * 4, line.url(STREAM), cut, mend)
            return
        first, *others = net.hosts
        having = [first, *others[:2]] if is_with_nats else others
        servers = stack.enter_context(nats_servers(folder, having))
        yield Cluster(
            servers,
            net.hosts,
            servers.url(STREAM),
            lambda: net.cut_off(first),
            lambda: net.mend(first),
        )


async def until_each(
    traders: Sequence[Trader], condition: Callable[[Trader], bool]
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not all(map(condition, traders)):
            await asyncio.sleep(PAUSE_S)


async def orders_of(address: Address) -> Counter[str]:
    """Return how often each order became new, by the stream."""
    orders: Counter[str] = Counter()
    engine = Engine()

    def count(batch: Batch) -> None:
        for command in batch.commands:
            for _, event in in_full(engine.apply(command)):
                if isinstance(event, Exec) and event.exec_type == "new":
                    orders[event.client_order_id or ""] += 1

    async with opening(address) as stream:
        follower = Follower(stream, count)
        is_read = False
        async with asyncio.timeout(PATIENCE_S):
            while not is_read:
                try:
                    if not await follower.read(1):
                        await follower.look()
                        is_read = not follower.pending
                except Unanswered:  # a leader is being elected
                    await asyncio.sleep(PAUSE_S)
    return orders


@pytest.mark.parametrize(
    "is_with_nats", [True, False], ids=["with its nats-server", "without one"]
)
async def test_a_primary_on_a_host_that_is_cut_off_tells_nothing(
    tmp_path: Path, is_with_nats: bool
) -> None:
    keys = tmp_path / "keys.json"
    traders = [Trader(number, keys) for number in range(TRADERS)]
    async with (
        hosts_with_nats(tmp_path, is_with_nats) as cluster,
        contextlib.AsyncExitStack() as stack,
    ):
        servers, hosts, journal, cut, mend = cluster
        members = []
        for index, url in enumerate((journal, servers.url(STREAM))):
            start = partial(
                Member,
                f"exchange {index + 1}",
                journal=url,
                hostname=hosts[index].address,
                inside=hosts[index].inside,
                keys=keys,
                lease=1,
            )
            member = await asyncio.to_thread(start)
            stack.callback(member.end)
            members.append(member)
            if not index:
                await primary_of(member)
        first, second = members
        inner = await stack.enter_async_context(probing(hosts[0].inside))
        outer = await stack.enter_async_context(probing())
        await inner.watch("first", first.url)
        await outer.watch("second", second.url)
        await inner.hears("first")
        async with asyncio.TaskGroup() as group:
            urls = [first.url, second.url]
            tasks = [group.create_task(one.live(urls)) for one in traders]
            await until_each(
                traders, lambda one: len(one.acknowledged) >= ORDERS
            )
            cut()
            await outer.hears("second")
            # The others go on while the host is cut off.
            goals = {one: len(one.acknowledged) + ORDERS for one in traders}
            await until_each(
                traders, lambda one: len(one.acknowledged) >= goals[one]
            )
            assert first.status is None
            before = await inner.told()
            mend()
            status, errors = await first.server.ended()
            assert status == FENCED, errors
            assert await inner.told() == before
            for task in tasks:
                task.cancel()
        check_alone(before | await outer.told())
        orders = await orders_of(Address.read(servers.url(STREAM)))
        for one in traders:
            assert {orders[name] for name in one.acknowledged} == {1}
