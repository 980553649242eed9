"""Sessions: resumed, taken over, and what ends with a connection."""

from __future__ import annotations

import pytest

from exchange.gateway import turns
from orderbook import MAX_FRAME
from server import Server
from test.server.asking import follow, place, rows
from test.support import Wire, order, serving, wired, words


async def leave(wire: Wire) -> None:
    await wire.connection.close()


async def test_a_session_is_resumed(exchange: Server, bob: Wire) -> None:
    async with wired(exchange.url) as wire:
        welcome = await wire.login("alice", cancel_on_disconnect=False)
        (new,) = await place(wire, "buy", 5, 99)
    for qty in (1, 2):
        await place(bob, "sell", qty, 99)
    async with wired(exchange.url) as wire:
        again, *missed = await wire.ask(
            type="login",
            user="alice",
            session=welcome["session"],
            last_seq=new["seq"],
            cancel_on_disconnect=False,
        )
        assert again["resumed"] and again["session"] == welcome["session"]
        assert words(missed) == ["trade", "account"] * 2
        assert [m["seq"] for m in missed] == [2, 3, 4, 5]
        assert again["seq"] == 5
        assert [m.get("last_qty") for m in missed] == [1, None, 2, None]
        (canceled,) = await wire.ask(type="cancel", order_id=1)
        assert canceled["seq"] == 6
    async with wired(exchange.url) as wire:
        messages = await wire.ask(
            type="login", user="alice", session=welcome["session"], last_seq=6
        )
        assert words(messages) == ["welcome"]
        assert messages[0]["resumed"] and messages[0]["seq"] == 6


@pytest.mark.parametrize(
    "case", ["too old", "ahead", "unknown", "another's", "no last_seq"]
)
async def test_a_session_that_cannot_be_resumed(
    monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr("exchange.journal.history.RESUME_EVENTS", 4)
    async with serving() as exchange, wired(exchange.url, "bob") as bob:
        async with wired(exchange.url) as wire:
            welcome = await wire.login("alice", cancel_on_disconnect=False)
            for price in (91, 92, 93, 94, 95):
                await place(wire, "buy", 5, price)
            await wire.ask(type="cancel", order_id=3)
        await place(bob, "sell", 1, 95)
        async with wired(exchange.url) as stranger:
            theirs = await stranger.login("carol")
            session = {
                "unknown": "0" * 32,
                "another's": theirs["session"],
            }.get(case, welcome["session"])
            last_seq = {"too old": 3, "ahead": 99}.get(case, 8)
            resume = {"session": session, "last_seq": last_seq}
            if case == "no last_seq":
                del resume["last_seq"]
            async with wired(exchange.url) as wire:
                again, *state = await wire.ask(
                    type="login", user="alice", **resume
                )
                assert (await stranger.ask(type="ping"))[0]["type"] == "ok"
        is_known = session == welcome["session"]
        assert (again["session"] == welcome["session"]) is is_known
        assert again["session"] != theirs["session"]
        assert not again["resumed"] and again["seq"] == 8
        assert words(state) == ["status"] * 4 + ["account"]
        assert {message["seq"] for message in state} == {8}
        orders = [(m["order_id"], m["price"]) for m in state[:-1]]
        assert orders == [(1, 91), (2, 92), (4, 94), (5, 95)]
        last = state[-2]
        assert last["order_status"] == "partially_filled"
        assert (last["cum_qty"], last["leaves_qty"]) == (1, 4)
        assert state[-1]["positions"] == {"BOND": 1}


async def test_the_oldest_event_kept_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exchange.journal.history.RESUME_EVENTS", 4)
    async with serving() as exchange, wired(exchange.url, "alice") as wire:
        for price in (91, 92, 93, 94, 95, 96):
            await place(wire, "buy", 5, price)
        async with wired(exchange.url) as second:
            welcome = await second.login("alice")
        async with wired(exchange.url) as third:
            again, *missed = await third.ask(
                type="login",
                user="alice",
                session=welcome["session"],
                last_seq=2,
            )
        assert again["resumed"] and [m["seq"] for m in missed] == [3, 4, 5, 6]


async def test_a_session_is_taken_over(exchange: Server, bob: Wire) -> None:
    async with wired(exchange.url) as old, wired(exchange.url) as new:
        welcome = await old.login("alice")
        await place(old, "buy", 5, 99)
        again = await new.login(
            "alice", session=welcome["session"], last_seq=1
        )
        assert again["resumed"] and again["session"] == welcome["session"]
        await place(bob, "sell", 1, 99)
        assert words(await new.take(2)) == ["trade", "account"]
        assert await old.rest() == ([], 4009)
        # The orders belong to the new connection now.
        assert words(await new.ask(type="ping")) == ["ok"]
        assert len(await rows(bob, "book")) == 1
        assert (await rows(bob, "book"))[0]["bids"] == [[99, 4]]
        await bob.ask(**follow("book"))
        await leave(new)
        assert (await bob.until(type="book"))["bids"] == [[99, 0]]


async def test_another_session_of_the_account_goes_on(
    exchange: Server, alice: Wire
) -> None:
    await place(alice, "buy", 5, 99)
    async with wired(exchange.url, "alice") as second:
        await place(second, "buy", 6, 98)
        assert (await alice.receive())["order_id"] == 2
    canceled = await alice.receive()
    assert canceled["order_id"] == 2 and canceled["reason"] == "disconnect"
    order_, *rest = await rows(alice, "orders", after=0)
    assert order_["leaves_qty"] == 5


async def test_orders_die_with_their_connection(
    exchange: Server, bob: Wire
) -> None:
    await bob.ask(**follow("book"))
    async with wired(exchange.url) as wire:
        welcome = await wire.login("alice")
        for price in (91, 93, 92):
            await place(wire, "buy", 5, price)
    await bob.until(type="book", seq=4)
    async with wired(exchange.url) as wire:
        again, *missed = await wire.ask(
            type="login",
            user="alice",
            session=welcome["session"],
            last_seq=3,
        )
    assert again["resumed"] and words(missed) == ["canceled"] * 3
    assert [m["order_id"] for m in missed] == [1, 2, 3]
    assert {m["reason"] for m in missed} == {"disconnect"}
    assert len({m["ts"] for m in missed}) == 1


async def test_orders_may_outlive_their_connection(
    exchange: Server, bob: Wire
) -> None:
    async with wired(exchange.url) as wire:
        await wire.login("alice", cancel_on_disconnect=False)
        await place(wire, "buy", 5, 99)
    # Carol disconnects later: when her order ends, this one has ended too.
    await bob.ask(**follow("book"))
    async with wired(exchange.url, "carol") as wire:
        await place(wire, "buy", 5, 90)
    update = await bob.until(type="book", seq=3)
    assert update["bids"] == [[90, 0]]
    assert (await rows(bob, "book"))[0]["bids"] == [[99, 5]]


async def test_the_last_requests_of_a_connection_are_carried_out(
    exchange: Server, bob: Wire
) -> None:
    await bob.ask(**follow("book"))
    async with wired(exchange.url) as wire:
        await wire.login("alice", cancel_on_disconnect=False)
        for _ in range(5):
            await wire.send(*[order("buy", 1, 90)] * MAX_FRAME)
        await leave(wire)
    quantity = 0
    while quantity < 5 * MAX_FRAME:
        quantity = (await bob.until(type="book"))["bids"][0][1]
    assert quantity == 5 * MAX_FRAME


async def test_the_last_requests_are_carried_out_in_several_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "REQUESTS_AT_FIRST", 2)
    monkeypatch.setattr(turns, "REQUESTS_PER_TURN", 2)
    async with serving() as exchange, wired(exchange.url, "bob") as bob:
        await bob.ask(**follow("book"))
        async with wired(exchange.url) as wire:
            await wire.login("alice", cancel_on_disconnect=False)
            for _ in range(150):
                await wire.send(order("buy", 1, 90))
            wire.connection.transport.write_eof()
            await bob.until(type="book", bids=[[90, 150]])
