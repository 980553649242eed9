"""Public channels and tables."""

from __future__ import annotations

import random
from typing import Any

import pytest

from orderbook import MAX_FRAME
from test.server.asking import PING, Message, follow, get, place, rows
from test.support import Wire, order, serving, wired, words

# Market data --------------------------------------------------------------


class Follower:
    """A book kept by the rules of the protocol; it checks them too."""

    def __init__(self) -> None:
        self.seq = -1
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self.trades: list[Message] = []
        self._uncovered: list[Message] = []

    def take(self, message: Message) -> None:
        if message["type"] == "trade":
            if self.trades:
                last = self.trades[-1]
                assert message["trade_id"] == last["trade_id"] + 1
                assert message["seq"] >= last["seq"]
            assert message["seq"] > self.seq, "before the book that covers it"
            self.trades.append(message)
            self._uncovered.append(message)
            return
        if message.get("snapshot"):
            assert "prev_seq" not in message
            self.bids.clear()
            self.asks.clear()
        else:
            assert message["prev_seq"] == self.seq < message["seq"]
            assert message["bids"] or message["asks"]
        for trade in self._uncovered:
            assert trade["seq"] <= message["seq"]
        self._uncovered.clear()
        self.seq = message["seq"]
        for side in ("bids", "asks"):
            levels = getattr(self, side)
            for price, qty in message[side]:
                if qty:
                    levels[price] = qty
                else:
                    levels.pop(price, None)

    def book(self) -> tuple[Any, Any]:
        return (
            [list(level) for level in sorted(self.bids.items(), reverse=True)],
            [list(level) for level in sorted(self.asks.items())],
        )


async def test_snapshot_and_updates_make_the_book(
    alice: Wire, bob: Wire, watcher: Wire
) -> None:
    follower = Follower()
    await place(alice, "buy", 5, 95)
    await watcher.send(follow("book", "trades"))
    assert (await watcher.receive())["type"] == "ok"
    dice = random.Random(7)
    for _ in range(60):
        for wire in (alice, bob):
            requests = [
                order(
                    dice.choice(["buy", "sell"]),
                    dice.randint(1, 9),
                    dice.randint(95, 105),
                    stp=dice.choice(["cancel_newest", "cancel_both"]),
                    time_in_force=dice.choice(["gtc", "ioc", "fok"]),
                )
                for _ in range(dice.randint(1, 3))
            ]
            if dice.random() < 0.1:
                requests.append({"type": "cancel_all"})
            await wire.send(*requests, PING)
            await wire.until(id="ping")
    (book,) = await rows(bob, "book")
    while follower.seq < book["seq"]:
        follower.take(await watcher.receive())
    assert follower.book() == (book["bids"], book["asks"])
    assert follower.trades == await rows(bob, "trades", after=0, limit=1_000)
    assert len(follower.trades) > 20 and follower.seq > 100


async def test_subscribing_again_gives_a_snapshot_again(
    alice: Wire, watcher: Wire
) -> None:
    for price in (90, 91):
        await place(alice, "buy", 5, price)
        await watcher.send(follow("book", id=price))
        await watcher.until(id=price)
        snapshot = await watcher.receive()
        assert snapshot["snapshot"] and snapshot["bids"][0] == [price, 5]
        if price == 90:
            continue
        assert snapshot["seq"] == 2


async def test_channels_and_symbols_are_chosen() -> None:
    async with serving(symbols=("BOND", "ETF", "ADR")) as exchange:
        async with (
            wired(exchange.url, "alice") as alice,
            wired(exchange.url) as all_books,
            wired(exchange.url) as some,
        ):
            await all_books.send(follow("book"))
            snapshots = (await all_books.take(4))[1:]
            assert [s["symbol"] for s in snapshots] == ["BOND", "ETF", "ADR"]
            await some.send(follow("book", symbols=["ETF", "ADR"]))
            await some.take(3)
            await some.ask(
                type="unsubscribe", channels=["book"], symbols=["ADR"]
            )
            for symbol in ("BOND", "ADR", "ETF"):
                await alice.ask(**order("buy", 1, 90, symbol=symbol))
            updates = await all_books.take(3)
            assert {(u["symbol"], u["seq"]) for u in updates} == {
                ("BOND", 1),
                ("ETF", 1),
                ("ADR", 1),
            }
            assert (await some.receive())["symbol"] == "ETF"
            assert words(await some.ask(type="ping")) == ["ok"]


async def test_a_market_of_several_symbols_needs_a_symbol() -> None:
    async with serving(symbols=("BOND", "ETF")) as exchange:
        async with wired(exchange.url, "alice") as alice:
            for request in (order("buy", 1, 90), get("trades"), get("book")):
                (error,) = await alice.ask(**request)
                assert error["code"] == "bad_request"
                assert error["field"] == "symbol"


# Tables -------------------------------------------------------------------


async def test_rows_are_complete_messages(
    alice: Wire, bob: Wire, watcher: Wire
) -> None:
    await watcher.ask(**follow("trades", "book"))
    await place(alice, "sell", 5, 101)
    new, filled, account = await bob.ask(**order("buy", 2, 101))
    await alice.take(2)
    await watcher.until(type="book", seq=1)
    trade, _ = await watcher.take(2)
    assert await rows(watcher, "trades") == [trade]
    assert await rows(bob, "fills") == [filled]
    assert await rows(bob, "account") == [account]
    (status,) = await rows(bob, "orders")
    assert status["exec_type"] == "status"
    assert status["order_status"] == "filled" and status["leaves_qty"] == 0
    assert status["order_id"] == new["order_id"]
    assert status["seq"] == account["seq"]
    (book,) = await rows(watcher, "book")
    assert book["type"] == "book" and book["snapshot"]
    assert (book["bids"], book["asks"]) == ([], [[101, 3]])
    assert book["seq"] == trade["seq"] == 2
    second = trade["ts"] // 1_000_000 * 1_000_000
    assert await rows(watcher, "candles", interval="1s") == [
        [second, 101, 101, 101, 101, 2]
    ]
    board = await rows(watcher, "leaderboard")
    assert board == [
        {
            "rank": 1,
            "user": user,
            "equity": 0,
            "cash": 0,
            "positions": {},
        }
        for user in ("alice", "bob")
    ]
    instruments = await rows(watcher, "instruments")
    assert instruments == (await watcher.login("carol"))["instruments"]


@pytest.mark.parametrize(
    "what, key",
    [("trades", "trade_id"), ("orders", "order_id"), ("fills", "seq")],
)
async def test_tables_are_paged(
    alice: Wire, bob: Wire, what: str, key: str
) -> None:
    await bob.ask(**order("sell", 600, 101))
    for _ in range(6):
        await alice.send(*[order("buy", 1, 101)] * MAX_FRAME)
        await alice.ask(type="ping")
    everything = await rows(alice, what, after=0, limit=1_000)
    keys = [row[key] for row in everything]
    assert len(keys) == 600 and keys == sorted(set(keys))
    # Without `after`: the newest, 500 by default.
    assert await rows(alice, what) == everything[-500:]
    assert await rows(alice, what, limit=7) == everything[-7:]
    assert await rows(alice, what, limit=1_000) == everything
    # With `after`: the oldest after that one.
    paged: list[Any] = []
    while page := await rows(
        alice, what, after=paged[-1][key] if paged else 0, limit=250
    ):
        assert len(page) in (250, 100)
        paged += page
    assert paged == everything
    assert await rows(alice, what, after=keys[-1]) == []
    assert await rows(alice, what, after=keys[-2]) == everything[-1:]
    (error,) = await alice.ask(**get(what, limit=1_001))
    assert error["code"] == "bad_request" and error["field"] == "limit"


async def test_private_tables_of_one_symbol() -> None:
    async with serving(symbols=("BOND", "ETF")) as exchange:
        async with (
            wired(exchange.url, "alice") as alice,
            wired(exchange.url, "bob") as bob,
        ):
            for symbol in ("BOND", "ETF", "BOND"):
                await alice.ask(**order("buy", 1, 90, symbol=symbol))
                await bob.ask(**order("sell", 1, 90, symbol=symbol))
            for what in ("orders", "fills"):
                assert len(await rows(bob, what)) == 3
                (row,) = await rows(bob, what, symbol="ETF")
                assert row["order_id"] == 4 and row["symbol"] == "ETF"
                (error,) = await bob.ask(**get(what, symbol="NONE"))
                assert error["code"] == "unknown_symbol"


async def test_a_table_longer_than_a_frame(alice: Wire) -> None:
    for _ in range(10):
        await alice.send(*[order("buy", 1, 50)] * MAX_FRAME)
        await alice.take(MAX_FRAME)
    requests = [get("orders", limit=1_000, id=n) for n in range(8)]
    await alice.send(*requests)
    for n in range(8):
        reply = await alice.receive()
        assert reply["id"] == n and len(reply["data"]) == 1_000
