"""The life of a client: connect, close, failure and loss, in any order.

The tests look at what others see: orders in the book after their client is
gone, threads and sockets left over, and the messages of the client.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from client import (
    BlockingExchange,
    BlockingMarket,
    ConnectionLost,
    Exchange,
    InvalidPrice,
    Market,
    Order,
    Unauthorized,
    open_connection,
)
from exchange.host import timers
from test.client.test_client import desk, disable
from test.journal.disks import slowed
from test.relay import Fate, relaying
from test.support import (
    NOBODY,
    PATIENCE_S,
    add_key,
    address,
    greeting,
    launched,
    serving,
    until,
)

SOON_S = 0.2  # to try in vain


@pytest.fixture(autouse=True)
def _frequent_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers, "HEARTBEAT_S", 0.05)


async def bids(market: Market, *levels: tuple[int, int]) -> None:
    """Wait until a book has these bids."""
    async with asyncio.timeout(PATIENCE_S):
        async for book in market.books():
            if book.bids == levels:
                return


def threads() -> list[str]:
    """Return the threads of clients that are alive."""
    return [t.name for t in threading.enumerate() if t.name == "exchange"]


# Connect, close, and again ------------------------------------------------


async def test_connecting_twice_changes_nothing() -> None:
    async with serving() as server, relaying(server.url) as relay:
        async with Exchange(relay.url, "alice") as ex:
            bond = await ex.market("BOND")
            order = await bond.buy(10, 99)
            await ex.connect()
            await asyncio.gather(ex.connect(), ex.connect())
            assert ex.is_connected and relay.connections == 1
            assert await ex.cancel_all() == 1 and not order.is_open


async def test_concurrent_connects_make_one_connection() -> None:
    async with serving() as server, relaying(server.url) as relay:
        ex = Exchange(relay.url, "alice")
        await asyncio.gather(*(ex.connect() for _ in range(3)))
        assert ex.is_connected and relay.connections == 1
        await ex.close()


async def test_a_refused_login_may_be_tried_again(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    add_key(keys, "bob")
    async with serving(keys=keys) as server:
        ex = Exchange(server.url, "alice", "wrong")
        for _ in range(2):
            with pytest.raises(Unauthorized):
                await ex.connect()
        assert "wrong token" in (ex.trouble or "")


async def test_a_client_may_be_closed_and_connected_repeatedly() -> None:
    async with serving() as server, Exchange(server.url, "bob") as bob:
        seen = await bob.market("BOND")
        ex = Exchange(server.url, "alice")
        await ex.close()  # before anything
        await ex.connect()
        bond, fills = await ex.market("BOND"), ex.fills()
        for cycle in range(1, 4):
            order = await bond.buy(2, 99)
            await seen.sell(1, 99)
            assert (await anext(fills)).last_qty == 1
            await asyncio.gather(ex.close(), ex.close())
            await bids(seen)  # its order is canceled
            assert not ex.is_connected and "closed" in (ex.trouble or "")
            with pytest.raises(ConnectionLost, match="closed"):
                await bond.buy(1, 1)
            assert [fill async for fill in fills] == []
            await ex.connect()
            assert not order.is_open and bond.position == cycle
            assert await ex.market("BOND") is bond
        await ex.close()


async def test_a_close_ends_a_connect_under_way() -> None:
    ex = Exchange(NOBODY, "alice", connect_timeout=PATIENCE_S)
    connecting = asyncio.create_task(ex.connect())
    await until(lambda: "failed" in (ex.trouble or ""))
    await ex.close()
    with pytest.raises(ConnectionLost, match="closed"):
        await connecting


async def test_a_canceled_connect_leaves_nothing() -> None:
    async with serving() as server, relaying(server.url) as relay:
        relay.fault = lambda way, n, frame: "drop"  # no login gets through
        ex = Exchange(relay.url, "alice", connect_timeout=PATIENCE_S)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SOON_S):
                await ex.connect()
        assert relay.connections == 1
        await until(lambda: not relay.peers)
        with pytest.raises(ConnectionLost, match="canceled"):
            await ex.get("trades")


async def test_requests_before_connect_raise_at_once() -> None:
    ex = Exchange(NOBODY, "alice")
    with pytest.raises(ConnectionLost, match="connect"):
        await ex.market("BOND")
    with pytest.raises(ConnectionLost, match="connect"):
        await anext(ex.fills())


def test_a_client_may_use_one_loop_after_another() -> None:
    """A script may call ``asyncio.run`` several times."""
    serve = BlockingServer()
    with serve as url:
        ex = Exchange(url, "alice")

        async def place() -> Order:
            await ex.connect()
            bond = await ex.market("BOND")
            quotes = [bond.quote(90 + n, None, 1) for n in range(3)]
            await asyncio.gather(*quotes)  # one after the other, by a lock
            return await bond.buy(1, 50)

        first = asyncio.run(place())
        assert not ex.is_connected and "loop" in (ex.trouble or "")
        second = asyncio.run(place())
        assert not first.is_open or first.order_id != second.order_id


class BlockingServer:
    """An exchange in a thread, for a test that has loops of its own."""

    def __enter__(self) -> str:
        self._ready: Any = threading.Event()
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._serve(),)
        )
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)
        return self._url

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _serve(self) -> None:
        async with serving() as server:
            self._loop = asyncio.get_running_loop()
            self._over = asyncio.Event()
            self._url = server.url
            self._ready.set()
            await self._over.wait()


# Clients that nothing refers to -------------------------------------------


@contextmanager
def collecting_nothing() -> Iterator[None]:
    """Turn the collector off: objects end when nothing refers to them."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def test_a_cell_run_again_leaves_no_orders_behind() -> None:
    async with serving() as server, Exchange(server.url, "bob") as bob:
        seen = await bob.market("BOND")
        with collecting_nothing():
            for price in range(90, 94):  # run the cell four times
                ex = Exchange(server.url, "alice")
                await ex.connect()
                bond = await ex.market("BOND")
                order = await bond.buy(1, price)
                await bids(seen, (price, 1))
            del ex, bond
            assert order.is_open  # an order keeps its connection
            del order
            await bids(seen)


async def test_a_cell_run_again_leaves_no_threads_behind() -> None:
    def cells(url: str) -> None:
        for price in range(90, 94):
            ex = BlockingExchange(url, "alice")
            ex.connect()
            bond = ex.market("BOND")
            bond.buy(1, price)
            wait_for_bid(bond, price)
        del ex
        assert bond.buy(1, 50).is_open  # a market keeps its connection

    async with serving() as server, Exchange(server.url, "bob") as bob:
        seen = await bob.market("BOND")
        with collecting_nothing():
            await asyncio.to_thread(cells, server.url)
            await bids(seen)
            await until(lambda: not threads())


def wait_for_bid(market: BlockingMarket, price: int) -> None:
    """Wait until this is the only bid: older clients are gone."""
    for book in market.books():
        if book.bids == ((price, 1),):
            return


async def test_a_blocking_connect_may_be_tried_again() -> None:
    async with serving() as server:
        port = server.port

    def fail() -> BlockingExchange:
        ex = BlockingExchange(
            f"ws://127.0.0.1:{port}", "alice", connect_timeout=1.0
        )
        for _ in range(2):
            with pytest.raises(ConnectionLost, match="Connect call failed"):
                ex.connect()
            assert not threads()
        with pytest.raises(ConnectionLost, match="Connect call failed"):
            ex.market("BOND")
        return ex

    def go_on(ex: BlockingExchange) -> None:
        for _ in range(2):
            ex.connect()
            ex.connect()
            assert len(threads()) == 1
            assert ex.market("BOND").buy(1, 1).is_open
            ex.close()
            ex.close()
            assert not threads()

    ex = await asyncio.to_thread(fail)
    async with serving(port=port):
        await asyncio.to_thread(go_on, ex)


async def test_a_thread_ends_with_its_connection(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    token = add_key(keys, "alice")

    def work(url: str) -> None:
        ex = BlockingExchange(url, "alice", token)
        assert not threads()  # none before it connects
        ex.connect()
        order = ex.market("BOND").buy(1, 90)
        disable(keys, "alice")
        with pytest.raises(Unauthorized, match="revoked"):
            order.done()
        for _ in range(2):
            with pytest.raises(Unauthorized, match="revoked"):
                ex.get("orders")
        ex.close()
        assert not threads()

    async with serving(keys=keys) as server:
        await asyncio.to_thread(work, server.url)


async def test_threads_may_connect_and_close_at_the_same_time() -> None:
    def work(url: str) -> set[str]:
        ex = BlockingExchange(url, "alice")
        raised: set[str] = set()

        def live(*steps: Callable[[], None]) -> None:
            for step in steps * 5:
                try:
                    step()
                except Exception as error:
                    raised.add(str(error))

        both = [(ex.connect, ex.close), (ex.close, ex.connect)] * 8
        living = [threading.Thread(target=live, args=two) for two in both]
        for thread in living:
            thread.start()
        for thread in living:
            thread.join()
        ex.close()
        assert not threads()
        return raised

    async with serving() as server:
        raised = await asyncio.to_thread(work, server.url)
    assert raised <= {"this Exchange is closed"}


async def test_a_close_ends_the_waits_of_other_threads() -> None:
    def work(url: str) -> list[BaseException]:
        ex = BlockingExchange(url, "alice")
        told: list[BaseException] = []
        with ex:
            order = ex.market("BOND").buy(1, 1)

            def wait() -> None:
                try:
                    order.done()
                except ConnectionLost as error:
                    told.append(error)

            waiting = [threading.Thread(target=wait) for _ in range(5)]
            for thread in waiting:
                thread.start()
        for thread in waiting:
            thread.join(PATIENCE_S)
        return told

    async with serving() as server:
        assert len(await asyncio.to_thread(work, server.url)) == 5


# Requests given up --------------------------------------------------------


async def test_an_order_given_up_at_once_is_never_sent() -> None:
    async with desk() as d:
        unheard: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unheard.append(context))
        for price in (99, 10**9):  # the second would be refused
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await d.bond.buy(1, price)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await d.bond.quote(price, None, 1)
        with pytest.raises(InvalidPrice):
            await d.bond.buy(1, 10**9)
        assert d.sent("place") == 1 and d.ex.orders == []
        gc.collect()
        assert unheard == []


async def test_an_order_given_up_after_it_was_sent_appears() -> None:
    async with desk() as d:
        for ask in (d.bond.buy, d.bond.sell):
            placing = asyncio.create_task(ask(1, 99))
            sent = d.sent("place")
            await d.relay.until(lambda: d.sent("place") > sent)
            placing.cancel()
        await until(lambda: [o.side for o in d.ex.orders] == ["sell"])


async def test_a_quote_given_up_is_not_made_twice() -> None:
    async with desk() as d:
        for bid in range(90, 95):
            quoting = asyncio.create_task(d.bond.quote(bid, None, 5))
            words = d.sent("place") + d.sent("amend")
            await d.relay.until(
                lambda: d.sent("place") + d.sent("amend") > words
            )
            quoting.cancel()
        bid_now, _ = await d.bond.quote(80, None, 5)
        assert d.ex.orders == [bid_now] and d.sent("place") == 1


# Messages -----------------------------------------------------------------


async def test_a_client_says_why_it_is_not_connected(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "exchange.client")
    async with desk() as d:
        assert d.ex.trouble is None and not caplog.messages
        assert repr(d.ex) == (
            f"<Exchange alice at {d.relay.url}: connected, cash 0, equity 0>"
        )
        d.relay.upstream = NOBODY
        d.relay.cut()
        await until(lambda: d.ex.trouble)
        assert d.ex.trouble == "the connection broke off"
        assert f": not connected: {d.ex.trouble}>" in repr(d.ex)
        await until(lambda: d.relay.connections > 3)
        assert caplog.messages == [
            f"alice at {d.relay.url}: not connected: the connection broke off"
        ]
        d.relay.upstream = d.server.url
        await until(lambda: d.ex.is_connected)
        assert d.ex.trouble is None
        [_, again] = caplog.messages
        assert again.startswith(
            f"alice at {d.relay.url}: connected again after "
        )


@pytest.mark.parametrize(
    "fate, why",
    [
        ("drop", "data of BOND are missing"),
        ("cut_before", "the connection broke off"),
    ],
)
async def test_a_loss_is_named(
    caplog: pytest.LogCaptureFixture, fate: Fate, why: str
) -> None:
    async with desk() as d:
        d.lose("down", "book", fate)
        await d.bob.buy(1, 90)
        await until(lambda: caplog.messages)
        assert caplog.messages == [
            f"alice at {d.relay.url}: not connected: {why}"
        ]
        await until(lambda: d.bond.is_live and d.bond.book.bid == 90)


async def test_silence_cancels_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The old connection stays open until the new one has its session."""
    async with launched(port="0", journal="off") as process:
        url = address(await greeting(process))
        async with Exchange(url, "alice", silence_timeout=SOON_S) as ex:
            order = await (await ex.market("BOND")).buy(1, 99)
            process.send_signal(signal.SIGSTOP)
            await until(lambda: caplog.messages)
            assert caplog.messages[0].endswith("silent for 0.2 s")
            process.send_signal(signal.SIGCONT)
            await until(lambda: ex.is_connected)
            assert order.is_open
        # A ping of the library without an answer would close it.
        connection: Any = await open_connection(url)
        assert connection.ping_interval is None
        await connection.close()


async def test_a_slow_disk_breaks_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk takes longer than a silence may last."""
    disk = slowed(monkeypatch)
    settings = {"journal": tmp_path / "exchange.db"}
    async with desk(settings, silence_timeout=1.5) as d:
        await d.bond.buy(1, 90)
        with disk.held():
            placing = asyncio.create_task(d.bond.buy(1, 91))
            canceling = asyncio.create_task(d.bond.cancel_all())
            # A ping follows each heartbeat: these take 2 s.
            async with asyncio.timeout(PATIENCE_S):
                await d.relay.until(lambda: d.sent("ping") >= 40)
            assert d.ex.is_connected and not placing.done()
        assert (await placing).price == 91 and await canceling == 2
        assert d.relay.connections == 1 and d.sent("place") == 2


async def test_a_stopped_exchange_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as server:
        async with Exchange(server.url, "alice") as ex:
            await server.stop()
            await until(lambda: caplog.messages)
            assert caplog.messages == [
                f"alice at {server.url}: not connected: the exchange closed it"
                " (1001 shutdown)"
            ]
            assert not ex.is_connected


async def test_a_plain_address_of_a_tls_server_gets_a_hint() -> None:
    """A server that speaks TLS answers plain HTTP with an alert."""

    async def close(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"\x15\x03\x01\x00\x02\x02\x46")  # a TLS alert
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        ex = Exchange(
            f"ws://127.0.0.1:{port}", "alice", connect_timeout=SOON_S
        )
        with pytest.raises(ConnectionLost, match="its address is wss://"):
            await ex.connect()
        assert repr(ex).count("not connected") == 1


async def test_the_answer_of_another_server_is_shown() -> None:
    async with serving() as server:
        url = f"{server.url}/no/such/path"
        ex = Exchange(url, "alice", connect_timeout=SOON_S)
        with pytest.raises(ConnectionLost, match="HTTP 404: Not found"):
            await ex.connect()
