"""Public streams of the dialect."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from exchange.doors.spot.stream_link import StreamLink
from orderbook import Cancel, Place
from server import Server
from test.doors.spot.bots import Rest, socket
from test.support import PATIENCE_S, until

Bots = Callable[..., Rest]
CHANGES = 10_000  # of a book, which a client must follow without a gap
PER_TURN = 20


async def followed(server: Server, count: int = 1) -> None:
    """Wait until streams are followed."""
    await until(
        lambda: server.spot is not None and server.spot.followed >= count
    )


async def test_raw_and_combined_streams(server: Server, bot: Bots) -> None:
    ann, bob = bot(), bot("bob")
    combined = "/stream?streams=bondusd@trade/bondusd@bookTicker"
    async with (
        socket(server, "/ws/bondusd@trade") as raw,
        socket(server, combined) as both,
    ):
        await followed(server, 3)
        await ann.limit("BUY", 5, "99.5")
        await bob.limit("SELL", 2, "99.5")
        trade = await raw.event("trade")
        assert (trade["s"], trade["t"], trade["p"]) == (
            "BONDUSD",
            1,
            "99.50000000",
        )
        assert trade["m"] and trade["T"] <= trade["E"]
        first = await both.next()
        assert first["stream"] == "bondusd@bookTicker"
        names = {first["stream"]}
        while "bondusd@trade" not in names:
            message = await both.next()
            names.add(message["stream"])
        assert message["data"] == trade


async def test_streams_are_subscribed_and_unsubscribed(
    server: Server, bot: Bots
) -> None:
    ann, bob = bot(), bot("bob")
    await ann.limit("BUY", 50, "99.5")
    async with socket(server, "/ws/0") as ws:
        for _ in range(2):  # again is no fault
            answer = await ws.ask("SUBSCRIBE", ["BONDUSD@aggTrade"])
            assert answer["result"] is None
        await bob.limit("SELL", 2, "99.5")
        event = await ws.event("aggTrade")
        assert (event["a"], event["f"], event["q"]) == (1, 1, "2.00000000")
        answer = await ws.ask("UNSUBSCRIBE", ["bondusd@aggTrade"])
        assert answer["result"] is None
        await bob.limit("SELL", 2, "99.5")
        await ws.ask("SUBSCRIBE", ["bondusd@depth5"])
        book = await ws.next()
        assert book["bids"] == [["99.50000000", "46.00000000"]]
        assert book["asks"] == [] and book["lastUpdateId"] == 3


@pytest.mark.parametrize(
    "message, words",
    [
        ({"method": "SUBSCRIBE", "params": ["bondusd@nothing"]}, "no stream"),
        ({"method": "SUBSCRIBE", "params": ["none@trade"]}, "no stream"),
        ({"method": "SUBSCRIBE", "params": ["bondusd@kline_7m"]}, "no stream"),
        ({"method": "SUBSCRIBE", "params": "bondusd@trade"}, "a list"),
        ({"method": "LIST_SUBSCRIPTIONS"}, "LIST_SUBSCRIPTIONS"),
    ],
)
async def test_a_wrong_request_is_refused(
    server: Server, message: dict[str, Any], words: str
) -> None:
    async with socket(server, "/stream") as ws:
        answer = await ws.ask(message["method"], message.get("params"))
        assert words in answer["error"]["msg"]
        await ws.socket.send("{")
        assert (await ws.next())["error"]["msg"] == "Invalid JSON."
        for text in (r'{"id":"\ud800"}', r'{"method":"\ud800"}', "[]", "9"):
            await ws.socket.send(text)
            assert "error" in await ws.next()
        await ws.socket.send('{"id":%s,"method":"x"}' % ("9" * 4_000))
        assert "error" in await ws.next()


def merge(book: dict[str, dict[str, str]], side: str, levels: Any) -> None:
    for price, qty in levels:
        if qty == "0.00000000":
            book[side].pop(price, None)
        else:
            book[side][price] = qty


class Follower:
    """A client's own book: snapshot and changes joined without a gap."""

    def __init__(self) -> None:
        self.book: dict[str, dict[str, str]] = {"b": {}, "a": {}}
        self.last = -1

    def begin(self, snapshot: dict[str, Any]) -> None:
        self.book = {"b": {}, "a": {}}
        merge(self.book, "b", snapshot["bids"])
        merge(self.book, "a", snapshot["asks"])
        self.last = snapshot["lastUpdateId"]
        self.is_first = True

    def take(self, event: dict[str, Any]) -> None:
        if event["u"] <= self.last:
            return
        if self.is_first:
            assert event["U"] <= self.last + 1 <= event["u"]
        else:
            assert event["U"] == self.last + 1
        self.is_first = False
        merge(self.book, "b", event["b"])
        merge(self.book, "a", event["a"])
        self.last = event["u"]


def churn(server: Server, chance: random.Random, count: int) -> None:
    """Change the book by orders and cancels, in one step."""
    run = server.gateway.sequencer.run
    engine = server.gateway.engine
    for _ in range(count):
        resting = engine.listings["BOND"].book.orders
        if len(resting) > 200:
            order = resting[chance.choice([*resting])]
            run(Cancel(order_id=order.order_id), order.account)
            continue
        place = Place(
            symbol="BOND",
            side=chance.choice(("buy", "sell")),
            qty=chance.randrange(1, 20),
            price=chance.randrange(950, 1_050),
        )
        run(place, chance.choice(("ann", "bob", "cat")))


async def test_a_clients_book_equals_ours_after_many_changes(
    server: Server, bot: Bots
) -> None:
    ann, chance = bot(), random.Random(7)
    server.step(lambda: churn(server, chance, 300))
    follower = Follower()
    listing = server.gateway.engine.listings["BOND"]
    async with socket(server, "/ws/bondusd@depth@100ms") as ws:
        await followed(server)
        for turn in range(CHANGES // PER_TURN):
            server.step(lambda: churn(server, chance, PER_TURN))
            if turn == 100:
                await asyncio.sleep(0)
                follower.begin(
                    await ann.get("depth", symbol="BONDUSD", limit=5_000)
                )
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE_S):
            while follower.last < listing.seq:
                follower.take(await ws.event("depthUpdate"))
    snapshot = await ann.get("depth", symbol="BONDUSD", limit=5_000)
    ours = Follower()
    ours.begin(snapshot)
    assert follower.book == ours.book
    assert follower.last == snapshot["lastUpdateId"] == listing.seq


async def test_a_slow_reader_gets_one_wider_event(
    server: Server, bot: Bots, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, chance = bot(), random.Random(3)
    slow: list[object] = []
    monkeypatch.setattr(
        "exchange.doors.spot.streams.is_slow", lambda link: link in slow
    )
    async with (
        socket(server, "/ws/bondusd@depth@100ms") as ws,
        socket(server, "/ws/bondusd@depth@100ms") as other,
    ):
        await followed(server, 2)
        link = next(
            link
            for link in server.links.values()
            if isinstance(link, StreamLink)
        )
        slow.append(link)
        follower, fast = Follower(), Follower()
        for one in (follower, fast):
            one.begin(await ann.get("depth", symbol="BONDUSD", limit=5_000))
        seen = 0
        for _ in range(3):
            server.step(lambda: churn(server, chance, 50))
            event = await other.event("depthUpdate")
            fast.take(event)
            seen += 1
        slow.clear()
        event = await ws.event("depthUpdate")
        assert (event["U"], event["u"]) == (1, fast.last)
        follower.take(event)
        assert follower.book == fast.book
    assert seen == 3


async def test_candles_close_even_without_trades(
    server: Server, bot: Bots
) -> None:
    ann, bob = bot(), bot("bob")
    async with socket(server, "/ws/bondusd@kline_1s") as ws:
        await followed(server)
        await ann.limit("BUY", 5, "99.5")
        await bob.limit("SELL", 2, "99.5")
        closed: list[dict[str, Any]] = []
        while len(closed) < 2:
            candle = (await ws.event("kline"))["k"]
            if candle["x"]:
                closed.append(candle)
        assert closed[1]["t"] == closed[0]["T"] + 1
        assert closed[1]["v"] == "0.00000000"
        assert closed[1]["o"] == closed[1]["c"] == "99.50000000"


async def test_tickers_of_one_and_of_all(server: Server, bot: Bots) -> None:
    ann, bob = bot(), bot("bob")
    names = "!miniTicker@arr/bondusd@ticker/!ticker@arr/bondusd@miniTicker"
    async with socket(server, f"/stream?streams={names}") as ws:
        await followed(server, 4)
        await ann.limit("BUY", 5, "99.5")
        await bob.limit("SELL", 2, "99.5")
        found: dict[str, Any] = {}
        while len(found) < 4:
            message = await ws.next()
            rows = message["data"]
            row = rows if isinstance(rows, dict) else rows[0]
            if row["s"] == "BONDUSD" and row["v"] == "2.00000000":
                found[message["stream"]] = row
        assert {row["e"] for row in found.values()} == {
            "24hrMiniTicker",
            "24hrTicker",
        }
        assert all(row["c"] == "99.50000000" for row in found.values())


async def test_streams_that_nobody_follows_cost_nothing(
    server: Server,
) -> None:
    async with socket(server, "/ws/bondusd@depth") as ws:
        await followed(server)
        assert server.gateway.feed.readers == 1
        await ws.ask("SUBSCRIBE", ["bondusd@trade", "bondusd@kline_1m"])
        await ws.ask("UNSUBSCRIBE", ["bondusd@depth", "bondusd@kline_1m"])
        assert server.gateway.feed.size()[0] == 1
    await until(lambda: server.gateway.feed.readers == 0)
    assert server.spot is not None and not server.spot.followed


async def test_a_connection_may_follow_so_many_streams(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange.doors.spot.streams.STREAMS_MAX", 1)
    async with socket(server, "/ws") as ws:
        answer = await ws.ask("SUBSCRIBE", ["bondusd@trade", "etfusd@trade"])
        assert answer["result"] is None
        assert "1 streams" in (await ws.next())["error"]["msg"]
