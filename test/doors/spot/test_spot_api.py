"""Methods over a websocket, and user data."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from exchange.doors.spot.signatures import Signatures
from server import Server
from test.doors.spot.bots import Rest, as_api, socket
from test.support import wired

Bots = Callable[..., Rest]
PATH = "/ws-api/v3"
ORDER = {
    "symbol": "BONDUSD",
    "side": "BUY",
    "type": "LIMIT",
    "timeInForce": "GTC",
    "quantity": "1",
    "price": "90.5",
}


async def test_orders_are_placed_changed_and_canceled(server: Server) -> None:
    async with socket(server, PATH) as ws:

        async def done(method: str, **params: Any) -> Any:
            answer = await ws.ask(method, as_api("ann", **params))
            assert answer["status"] == 200, answer
            return answer["result"]

        placed = await done("order.place", **ORDER)
        assert placed["status"] == "NEW" and placed["fills"] == []
        found = await done("order.status", symbol="BONDUSD", orderId=1)
        assert found["price"] == "90.50000000"
        assert await done("order.test", **ORDER) == {}
        replaced = await done(
            "order.cancelReplace",
            **{**ORDER, "price": 80.5},
            cancelReplaceMode="STOP_ON_FAILURE",
            cancelOrderId=1,
        )
        assert replaced["newOrderResponse"]["price"] == "80.50000000"
        (left,) = await done("openOrders.status")
        assert left["orderId"] == 2
        await done("order.place", **ORDER)
        canceled = await done("order.cancel", symbol="BONDUSD", orderId=2)
        assert canceled["status"] == "CANCELED"
        (canceled,) = await done("openOrders.cancelAll", symbol="BONDUSD")
        assert canceled["orderId"] == 3
        assert len(await done("allOrders", symbol="BONDUSD")) == 3
        assert await done("myTrades", symbol="BONDUSD") == []
        account = await done("account.status", omitZeroBalances=True)
        assert [row["asset"] for row in account["balances"]] == ["USD"]


async def test_public_methods_and_faults(server: Server) -> None:
    async with socket(server, PATH) as ws:
        assert (await ws.ask("ping"))["result"] == {}
        answer = await ws.ask("time", {})
        assert answer["result"]["serverTime"]
        assert answer["rateLimits"][0]["count"] == 2
        info = await ws.ask("exchangeInfo", {"symbols": ["BONDUSD"]})
        assert len(info["result"]["symbols"]) == 1
        params = {"symbol": "BONDUSD", "interval": "1m", "limit": 5}
        assert (await ws.ask("klines", params))["result"] == []
        for method, more, status, code in (
            ("nothing", None, 404, -1000),
            ("order.amend.keepPriority", None, 404, -1000),
            ("sapi.fees", None, 404, -1000),
            ("klines", {"symbol": "NONE", "interval": "1m"}, 400, -1121),
            ("order.place", {"symbol": "BONDUSD"}, 400, -1102),
            ("klines", [], 400, -1100),
        ):
            answer = await ws.ask(method, more)
            assert answer["status"] == status
            assert answer["error"]["code"] == code
        for text in ("{", "[]", "1", "[" * 60_000, '{"method":5,"id":"x"}'):
            await ws.socket.send(text)
            answer = await ws.next()
            assert answer["status"] == 400, text
        for text in (r'"\ud800"', '"x' + "y" * 40 + '"', "1.5", "9" * 5_000):
            await ws.socket.send(f'{{"id":{text},"method":"ping"}}')
            answer = await ws.next()
            assert (answer["status"], answer["id"]) == (400, None)
        for text in (r'"\ud800"', r'"ping\udfff"'):
            await ws.socket.send(f'{{"id":1,"method":{text}}}')
            assert (await ws.next())["status"] == 400
        for number in ("a-b", 2**40, 10**400, -1, None):
            await ws.socket.send(json.dumps({"id": number, "method": "ping"}))
            assert (await ws.next())["id"] == number


async def test_a_session_needs_no_more_signatures(server: Server) -> None:
    async with socket(server, PATH) as ws:
        refused = await ws.ask("userDataStream.subscribe", {})
        assert refused["status"] == 401
    async with socket(server, PATH) as ws:
        answer = await ws.ask("session.logon", as_api("ann"))
        assert answer["result"]["apiKey"] == "ann"
        placed = await ws.ask("order.place", ORDER)
        assert placed["status"] == 200
        answer = await ws.ask("userDataStream.subscribe")
        assert answer["result"] == {"subscriptionId": 0}
        assert (await ws.ask("session.status"))["result"]["userDataStream"]
        answer = await ws.ask("account.status", as_api("bob"))
        assert answer["status"] == 400
        assert "another account" in answer["error"]["msg"]
        answer = await ws.ask("userDataStream.unsubscribe")
        assert answer["result"] == {}
        answer = await ws.ask("account.status", as_api("bob"))
        assert answer["status"] == 200
        await ws.ask("session.logout")
        answer = await ws.ask("account.status")
        assert answer["error"]["code"] == -1102


async def test_events_come_in_their_order_after_the_answer(
    server: Server, bot: Bots
) -> None:
    bob = bot("bob")
    async with socket(server, PATH) as ws:
        answer = await ws.ask(
            "userDataStream.subscribe.signature", as_api("ann")
        )
        number = answer["result"]["subscriptionId"]
        params = as_api("ann", **ORDER, newClientOrderId="c/1")
        await ws.ask("order.place", params)
        assert not ws.events  # the answer was first
        placed = await ws.next()
        assert placed["subscriptionId"] == number
        report = placed["event"]
        assert (report["x"], report["X"], report["c"], report["C"]) == (
            "NEW",
            "NEW",
            "c/1",
            "",
        )
        assert report["q"] == "1.00000000" and report["w"] is True
        assert list(report)[:4] == ["e", "E", "s", "c"]
        held = (await ws.next())["event"]
        assert held["e"] == "outboundAccountPosition"
        assert held["B"] == [
            {"a": "USD", "f": "99909.50000000", "l": "90.50000000"},
            {"a": "BOND", "f": "0.00000000", "l": "0.00000000"},
        ]
        await bob.limit("SELL", 1, "90.5")
        fill = (await ws.next())["event"]
        assert (fill["x"], fill["X"], fill["t"]) == ("TRADE", "FILLED", 1)
        assert (fill["l"], fill["L"], fill["Y"], fill["m"]) == (
            "1.00000000",
            "90.50000000",
            "90.50000000",
            True,
        )
        assert fill["O"] == report["O"] and fill["N"] == "USD"
        moved = (await ws.next())["event"]
        assert moved["B"][1] == {
            "a": "BOND",
            "f": "1.00000000",
            "l": "0.00000000",
        }
        await ws.ask("order.place", as_api("ann", **ORDER))
        placed = await ws.event("executionReport")
        await ws.ask(
            "order.cancel",
            as_api("ann", symbol="BONDUSD", orderId=placed["i"]),
        )
        canceled = await ws.event("executionReport")
        assert (canceled["x"], canceled["X"]) == ("CANCELED", "CANCELED")
        assert canceled["c"] == canceled["C"] == placed["c"]


async def test_listen_keys_of_older_clients(server: Server, bot: Bots) -> None:
    ann, bob = bot(), bot("bob")
    status, body = await ann.ask("POST", "/api/v3/userDataStream")
    assert status == 200
    key = body["listenKey"]
    for method in ("PUT", "DELETE"):
        for name, code in ((key, 200), ("x", 400)):
            status, _ = await ann.ask(
                method, "/api/v3/userDataStream", listenKey=name
            )
            assert status == code
    async with (
        socket(server, f"/ws/{key}") as raw,
        socket(server, f"/stream?streams={key}/bondusd@trade") as combined,
        wired(server.url, "ann") as wire,
    ):
        await bob.get("ping")
        await wire.ask(
            type="place", symbol="BOND", side="buy", qty=1, price=9_000
        )
        report = await raw.event("executionReport")
        assert (report["x"], report["c"]) == ("NEW", "order-1")
        message = await combined.next()
        assert message["stream"] == key
        assert message["data"]["e"] == "executionReport"
        await bob.limit("SELL", 1, 90)
        assert (await combined.event("trade"))["t"] == 1
        fill = await raw.event("executionReport")
        assert fill["X"] == "FILLED"


@pytest.mark.parametrize(
    "key",
    [
        *("", "zz", "616e6e", "616e6e" + "0" * 40),
        Signatures(None).listen_key("@exchange", None),
        Signatures(None).listen_key('a"b', None),
    ],
)
async def test_what_is_no_listen_key_hears_nothing(
    server: Server, bot: Bots, key: str
) -> None:
    async with socket(server, f"/ws/{key}") as ws:
        await bot().limit("BUY", 1, 90)
        await ws.ask("SUBSCRIBE", ["bondusd@depth5"])
        assert "bids" in await ws.next()
        assert [*server.gateway.engine.accounts] == ["ann"]
