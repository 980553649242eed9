"""Deadlines, heartbeats and tickers."""

from __future__ import annotations

from typing import Any

import pytest

from exchange.host import timers
from exchange.host.clock import Clock
from orderbook import MAX_FRAME
from test.server.asking import PING, follow, place, rows
from test.support import Wire, order, serving, wired, words


async def test_cancel_after(alice: Wire) -> None:
    await place(alice, "buy", 1, 90)
    (armed,) = await alice.ask(type="cancel_after", timeout_ms=1_000)
    canceled = await alice.receive()
    assert canceled["reason"] == "cancel_after" and "id" not in canceled
    assert canceled["ts"] >= armed["ts"] + 1_000_000


async def test_gtd_expires(alice: Wire, watcher: Wire) -> None:
    await watcher.ask(**follow("book"))
    now = (await alice.ask(type="ping"))[0]["ts"]
    expire_ts = now + 200_000
    gtd = {"time_in_force": "gtd", "expire_ts": expire_ts}
    (new,) = await alice.ask(**order("buy", 1, 90, **gtd))
    assert {key: new[key] for key in gtd} == gtd
    expired = await alice.receive()
    assert expired["exec_type"] == expired["order_status"] == "expired"
    assert expired["reason"] == "gtd" and expired["ts"] >= expire_ts
    assert (await watcher.until(type="book", seq=2))["bids"] == [[90, 0]]


class Skipping(Clock):
    """A clock that a test sets forward."""

    skipped_us = 0

    def now(self) -> int:
        return super().now() + self.skipped_us


class Stepping(Clock):
    """A clock that advances by a step each time it is read."""

    def __init__(self, step_us: int) -> None:
        super().__init__()
        self.ts = 1_795_340_157_000_000
        self._step_us = step_us

    def now(self) -> int:
        self.ts += self._step_us
        return self.ts


async def test_a_deadline_comes_before_a_later_request() -> None:
    """The request is later even if the timer has not fired yet."""
    clock = Skipping()
    async with serving(clock) as exchange:
        async with (
            wired(exchange.url, "alice") as alice,
            wired(exchange.url, "bob") as bob,
        ):
            hour = 3_600_000_000
            expire_ts = (await alice.ask(type="ping"))[0]["ts"] + hour
            gtd = {"time_in_force": "gtd", "expire_ts": expire_ts}
            await alice.ask(**order("sell", 1, 101, **gtd))
            clock.skipped_us = hour
            assert words(await place(bob, "buy", 1, 101)) == ["new"]
            assert (await alice.receive())["reason"] == "gtd"


@pytest.mark.parametrize("step_us", [0, 1, 1_000])
async def test_a_deadline_within_a_batch_of_requests(step_us: int) -> None:
    """No order trades at or after its ``expire_ts``.

    The time may pass, or commands may outrun it, between two requests of one
    frame.
    """
    clock = Stepping(step_us)
    async with (
        serving(clock) as exchange,
        wired(exchange.url, "alice") as alice,
    ):
        async with wired(exchange.url, "bob") as bob:
            start = (await alice.ask(type="cancel_all"))[0]["ts"]
            expire_ts = start + 50 * max(step_us, 1)
            gtd = {"time_in_force": "gtd", "expire_ts": expire_ts}
            await alice.ask(**order("sell", 1_000, 101, **gtd))
            buy = order("buy", 1, 101, time_in_force="ioc")
            await bob.send(*[buy] * (MAX_FRAME - 1), PING)
            await bob.until(id="ping")
            clock.ts = expire_ts
            await bob.ask(type="ping")
            await alice.until(reason="gtd")
            fills = await rows(alice, "fills")
            assert fills and max(fill["ts"] for fill in fills) < expire_ts


async def test_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timers.HEARTBEAT_S == 5.0
    monkeypatch.setattr(timers, "HEARTBEAT_S", 0.01)
    async with serving(symbols=("BOND", "ETF")) as exchange:
        async with wired(exchange.url) as wire:
            wire.hears_heartbeats = True
            seen = []

            async def beat() -> Any:
                """Return the seq of the second next heartbeat."""
                await wire.until(type="heartbeat")
                heartbeat = await wire.until(type="heartbeat")
                seen.append(heartbeat["ts"])
                assert set(heartbeat) == {"type", "ts", "seq"}
                return heartbeat["seq"]

            assert await beat() == {}
            await wire.send(follow("book", symbols=["ETF"]))
            assert await beat() == {"ETF": 0}
            await wire.send({"type": "login", "user": "alice"})
            assert await beat() == {"ETF": 0, "@": 0}
            for symbol in ("BOND", "ETF", "ETF"):
                await wire.send(order("buy", 1, 90, symbol=symbol))
                await wire.until(exec_type="new")
            assert await beat() == {"ETF": 2, "@": 3}
            await wire.send(follow("trades", "book"))
            assert await beat() == {"BOND": 1, "ETF": 2, "@": 3}
            none = {"type": "unsubscribe", "channels": ["book", "trades"]}
            await wire.send({**none, "id": "none"})
            await wire.until(id="none")
            assert await beat() == {"@": 3}
            assert seen == sorted(set(seen))


async def test_a_ticker_at_once_and_on_change(
    alice: Wire, bob: Wire, watcher: Wire
) -> None:
    assert timers.TICKER_S == 0.1
    await place(alice, "buy", 5, 99)
    await watcher.send(follow("ticker", id=1))
    reply, ticker = await watcher.take(2)
    assert reply["type"] == "ok" and reply["id"] == 1
    assert isinstance(ticker.pop("ts"), int)
    assert ticker == {
        "type": "ticker",
        "symbol": "BOND",
        "bid": 99,
        "bid_qty": 5,
        "volume": 0,
    }
    await place(alice, "sell", 2, 101)
    await watcher.until(type="ticker", ask=101, ask_qty=2, bid=99)
    # An order below the best bid causes no ticker; the trade does.
    await place(alice, "buy", 5, 98)
    await place(bob, "buy", 1, 101)
    ticker = await watcher.receive()
    assert ticker["last"] == 101 and ticker["volume"] == 1
    assert ticker["ask_qty"] == 1
