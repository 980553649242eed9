"""A client with several addresses: real servers, of which one takes over."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from client import BlockingExchange, ConnectionLost, Exchange
from exchange.host import timers
from test.journal.disks import slowed
from test.relay import relaying
from test.support import (
    NOBODY,
    PATIENCE_S,
    address,
    free_port,
    greeting,
    launched,
    running,
    serving,
    until,
    wired,
)
from util.measure.process import environment

# However long a server takes to start.
PATIENT: dict[str, Any] = {
    "cancel_on_disconnect": False,
    "request_timeout": PATIENCE_S,
}
STAY = {"user": "alice", **PATIENT}
STANDBY = b"standby: the primary is another\n"


def at(port: int) -> str:
    return f"ws://127.0.0.1:{port}"


@asynccontextmanager
async def refusing(status: str = "503 Service Unavailable") -> Any:
    """Run what answers every request as a standby does; yield its address."""

    async def refuse(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n"
        length = f"Content-Length: {len(STANDBY)}\r\n\r\n"
        writer.write(f"{head}{length}".encode() + STANDBY)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}"


# Another server with the same journal ---------------------------------------


async def test_a_session_goes_on_where_the_journal_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first server is killed; another one starts from its journal."""
    caplog.set_level(logging.INFO, "exchange.client")
    journal, second = str(tmp_path / "exchange.db"), free_port()
    async with launched(port="0", journal=journal) as first:
        url = address(await greeting(first))
        both = f"{url},{at(second)}"
        async with (
            Exchange(both, **STAY) as alice,
            Exchange(both, "bob", **PATIENT) as bob,
        ):
            bond, theirs = await alice.market("BOND"), await bob.market("BOND")
            fills, trades = alice.fills(), theirs.trades()
            kept = await bond.buy(10, 99)
            await theirs.sell(1, 99)
            assert (await anext(fills)).cum_qty == 1
            first.kill()
            await first.wait()
            await until(lambda: not alice.is_connected)
            placing = asyncio.create_task(bond.buy(5, 98))
            async with launched(port=str(second), journal=journal) as other:
                assert address(await greeting(other)) == at(second)
                async with asyncio.timeout(PATIENCE_S):
                    placed = await placing
                    await theirs.sell(2, 99)
                    # No fill is missing, none comes twice.
                    assert (await anext(fills)).cum_qty == 3
                    assert (await anext(trades)).trade_id == 1
                    assert (await anext(trades)).trade_id == 2
                assert kept.cum_qty == 3 and placed.is_open
                assert alice.cash == -297 and bond.position == 3
                said = [m for m in caplog.messages if m.startswith("alice")]
                assert said[0].startswith(f"alice at {url}: not connected: ")
                assert said[1].startswith(
                    f"alice at {at(second)}: connected again after "
                )


async def test_a_blocking_client_goes_on_there_too(tmp_path: Path) -> None:
    journal, second = str(tmp_path / "exchange.db"), free_port()
    killed, started = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(urls: list[str]) -> int:
        with BlockingExchange(urls, **STAY) as ex:
            bond = ex.market("BOND")
            bond.buy(10, 99)
            loop.call_soon_threadsafe(killed.set)
            asyncio.run_coroutine_threadsafe(started.wait(), loop).result()
            return ex.cancel_all()

    async with launched(port="0", journal=journal) as first:
        urls = [address(await greeting(first)), at(second)]
        working = asyncio.create_task(asyncio.to_thread(work, urls))
        await killed.wait()
        first.kill()
        await first.wait()
        async with launched(port=str(second), journal=journal) as other:
            await greeting(other)
            started.set()
            async with asyncio.timeout(PATIENCE_S):
                assert await working == 1


async def test_a_server_that_is_silent_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is stopped, as a machine that vanishes: its sockets say nothing."""
    first_journal, copy = tmp_path / "first.db", tmp_path / "second.db"
    second = free_port()
    async with launched(port="0", journal=str(first_journal)) as first:
        url = address(await greeting(first))
        async with Exchange(
            [url, at(second)], silence_timeout=0.5, **STAY
        ) as ex:
            order = await (await ex.market("BOND")).buy(10, 99)
            first.send_signal(signal.SIGSTOP)
            for name in ("", "-wal"):
                shutil.copy(f"{first_journal}{name}", f"{copy}{name}")
            async with launched(port=str(second), journal=str(copy)) as other:
                await greeting(other)
                await until(lambda: caplog.messages)
                assert caplog.messages == [
                    f"alice at {url}: not connected: no answer to a ping,"
                    " silent for 0.5 s"
                ]
                await until(lambda: ex.is_connected)
                assert order.is_open and await ex.cancel_all() == 1
            first.send_signal(signal.SIGCONT)


# Addresses that do not serve ------------------------------------------------


@pytest.mark.parametrize("is_first", [True, False])
async def test_an_address_that_is_wrong_for_ever_does_not_matter(
    is_first: bool,
) -> None:
    async with serving() as server, relaying(server.url) as relay:
        urls = [NOBODY, relay.url] if is_first else [relay.url, NOBODY]
        async with Exchange(urls, **STAY) as ex:
            order = await (await ex.market("BOND")).buy(10, 99)
            for cuts in range(1, 4):
                relay.cut()
                await until(lambda: not ex.is_connected)
                await until(lambda: ex.is_connected)
                assert relay.connections == 1 + cuts
            assert order.is_open and await ex.cancel_all() == 1


async def test_a_standby_is_named_and_left_at_once() -> None:
    async with refusing() as standby:
        ex = Exchange([standby, NOBODY], connect_timeout=0.3, **STAY)
        with pytest.raises(ConnectionLost) as caught:
            await ex.connect()
        assert f"{standby},{NOBODY}: " in str(caught.value)
        async with serving() as server:
            urls = f"{standby},{server.url}"
            async with Exchange(urls, **STAY) as ex:
                assert ex.is_connected and ex.trouble is None
                assert urls in repr(ex)
        said: list[str] = []
        ex = Exchange([standby, NOBODY], **STAY)
        connecting = asyncio.create_task(ex.connect())

        def note() -> bool:
            if ex.trouble and ex.trouble not in said:
                said.append(ex.trouble)
            return len(said) >= 4

        await until(note)
        await ex.close()
        with pytest.raises(ConnectionLost, match="closed"):
            await connecting
        assert said[1] == f"the first attempt has not ended, at {standby}"
        assert said[2] == (
            f"{standby}: the server answers HTTP 503: standby: the primary is"
            f" another; trying {NOBODY}"
        )
        assert said[3].startswith(f"{NOBODY}: ")
        assert said[3].endswith(f"; trying {standby}")


@pytest.mark.parametrize("which", [0, 1])
async def test_all_are_down_and_one_comes_back(
    tmp_path: Path, which: int
) -> None:
    journal, other = tmp_path / "exchange.db", free_port()
    async with serving(journal=journal) as server:
        ports = [server.port, other]
        ex = Exchange([at(port) for port in ports], **STAY)
        await ex.connect()
        await (await ex.market("BOND")).buy(10, 99)
    await until(lambda: not ex.is_connected)
    # Whole rounds fail before one of them serves again.
    seen: set[str] = set()

    def note() -> bool:
        seen.add((ex.trouble or "").partition(": ")[0])
        return seen >= {at(port) for port in ports}

    await until(note)
    async with serving(journal=journal, port=ports[which]):
        assert await ex.cancel_all() == 1 and ex.is_connected
        await ex.close()


# A process that stands still, and a disk that does --------------------------

BOT = """
import logging, sys
from client import BlockingExchange

logging.basicConfig(level=logging.INFO, format="%(message)s")
with BlockingExchange(user="alice", silence_timeout=0.5) as ex:
    bond = ex.market("BOND")
    bond.buy(1, 98)
    print("placed", flush=True)
    sys.stdin.readline()
    bond.buy(1, 99)
    print(ex.is_connected, len(ex.orders), flush=True)
"""


async def test_a_client_that_was_stopped_tells_no_false_story(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a debugger does it, or a laptop that sleeps."""
    monkeypatch.setattr(timers, "HEARTBEAT_S", 0.05)
    async with serving() as server, wired(server.url) as clock:
        env = {**environment(), "EXCHANGE_URL": server.url}
        async with running(
            "-c", BOT, env=env, stdin=asyncio.subprocess.PIPE
        ) as process:
            assert process.stdout is not None and process.stdin is not None
            assert await process.stdout.readline() == b"placed\n"
            process.send_signal(signal.SIGSTOP)
            clock.hears_heartbeats = True
            for _ in range(60):  # 3 s: its bound for heartbeats is 1.6 s
                await clock.until(type="heartbeat")
            process.send_signal(signal.SIGCONT)
            output, errors = await process.communicate(b"\n")
            assert output == b"True 2\n" and errors == b""


async def test_a_client_with_much_waiting_stays_while_the_disk_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More waits for it than is read for, so its pings are not answered."""
    monkeypatch.setattr(timers, "WAITING_S", 0.1)
    monkeypatch.setattr(timers, "CLOCK_S", 0.05)
    disk = slowed(monkeypatch)
    async with serving(journal=tmp_path / "exchange.db") as server:
        async with Exchange(server.url, silence_timeout=1.0, **STAY) as ex:
            bond = await ex.market("BOND")
            link = next(iter(server.links.values()))
            with disk.held():
                placing = asyncio.create_task(bond.buy(1, 90))
                tables = [
                    asyncio.create_task(ex.get("instruments"))
                    for _ in range(4_000)
                ]
                await until(lambda: link.is_full and link.peer.is_paused)
                async with wired(server.url) as clock:
                    clock.hears_heartbeats = True
                    for _ in range(30):  # 3 s
                        await clock.until(type="heartbeat")
                assert link.peer.is_paused and not placing.done()
                assert ex.is_connected
            assert (await placing).is_open
            await asyncio.gather(*tables)
            assert list(server.links.values()) == [link]
