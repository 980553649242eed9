"""How an exchange ends: in order, or after a failure inside."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

import server as server_module
from exchange.host.settings import Settings
from exchange.market.command import Command, Output
from exchange.market.engine import Engine
from orderbook import MAX_FRAME, Place
from server import Server
from test.server.asking import follow, place
from test.support import (
    PATIENCE_S,
    order,
    serving,
    state_of,
    until,
    wired,
    words,
)

# The end ------------------------------------------------------------------


async def test_every_connection_gets_a_status_at_the_end() -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with serving() as exchange:
            dial = stack.enter_async_context
            alice = await dial(wired(exchange.url, "alice"))
            bob = await dial(
                wired(exchange.url, "bob", cancel_on_disconnect=False)
            )
            watcher = await dial(wired(exchange.url))
            await place(bob, "buy", 1, 80)
            await watcher.ask(**follow("book"))
            await alice.send(*[order("buy", 1, 90)] * MAX_FRAME)
            await until(lambda: exchange.turns.fresh)
            # Requests that have arrived are carried out.
        messages, code = await alice.rest()
        assert words(messages) == ["new"] * 100 + ["canceled"] * 100 + [
            "status"
        ]
        assert code == 1001 and messages[-1]["message"]
        assert {m.get("reason") for m in messages[100:-1]} == {"disconnect"}
        messages, code = await bob.rest()
        assert (words(messages), code) == (["status"], 1001)
        messages, code = await watcher.rest()
        assert words(messages)[-1] == "status" and code == 1001


async def test_the_end_does_not_wait_for_a_silent_socket() -> None:
    async with serving() as exchange:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", exchange.port
        )
        async with wired(exchange.url) as wire:
            await wire.ask(type="ping")
    async with asyncio.timeout(PATIENCE_S):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def test_after_the_end_the_port_is_closed() -> None:
    async with serving() as exchange:
        pass
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", exchange.port)


# A bug inside -------------------------------------------------------------


@pytest.fixture
def bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine raise at an order with this client_order_id."""
    apply = Engine.apply

    def explosive(engine: Engine, command: Command) -> list[Output]:
        action = command.action
        if isinstance(action, Place) and action.client_order_id == "bomb":
            raise RuntimeError("boom")
        return apply(engine, command)

    monkeypatch.setattr(Engine, "apply", explosive)
    monkeypatch.setattr(server_module, "SHUTDOWN_S", 0.01)


async def test_a_failure_inside_stops_the_exchange(
    bomb: None, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(Settings(hostname="127.0.0.1", port=0, debug=False))
    await server.start()
    async with wired(server.url, "alice") as alice:
        async with wired(server.url, "bob") as bob:
            await bob.ask(**follow("book"))
            await alice.send(
                order("buy", 1, 90, id=1),
                order("buy", 1, 91, id=2),
                order("buy", 1, 92, id=3, client_order_id="bomb"),
                order("buy", 1, 93, id=4),
            )
            # Requests before the failure are answered.
            assert [m["id"] for m in await alice.take(2)] == [1, 2]
            async with asyncio.timeout(PATIENCE_S):
                failure = await asyncio.shield(server.failure)
            assert isinstance(failure, RuntimeError)
            before = state_of(server)
            # Requests after it are not.
            await bob.send(order("buy", 1, 94, id=5))
            await alice.send({"type": "ping", "id": 6})
            async with asyncio.timeout(PATIENCE_S):
                await server.stop()
            for wire in (alice, bob):
                messages, _ = await wire.rest()
                # Public data are not sent: the books may be wrong.
                assert messages == []
            assert state_of(server) == before
    (record,) = [r for r in caplog.records if r.levelname == "CRITICAL"]
    assert record.exc_info and record.exc_info[1] is failure
    assert any("bomb" in note for note in failure.__notes__)
