"""Orders of the dialect over REST."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from exchange.market.state import OPERATIONS_PER_SLICE
from orderbook import CancelAll, Place
from server import Server
from test.doors.spot.bots import Rest, now_ms
from test.support import until, wired

Bots = Callable[..., Rest]
BOND = {"symbol": "BONDUSD"}


def order(kind: str = "LIMIT", **more: Any) -> dict[str, Any]:
    return {**BOND, "side": "BUY", "type": kind, **more}


async def test_an_order_is_placed_filled_and_found(bot: Bots) -> None:
    ann, bob = bot(), bot("bob")
    placed = await ann.limit("BUY", 5, "99.50", newClientOrderId="a/b:1")
    assert (placed["orderId"], placed["status"]) == (1, "NEW")
    assert (placed["clientOrderId"], placed["fills"]) == ("a/b:1", [])
    assert placed["price"] == "99.50000000"
    taken = await bob.done(
        "POST", "order", **order("MARKET", side="SELL", quantity=2)
    )
    assert taken["status"] == "FILLED"
    assert taken["cummulativeQuoteQty"] == "199.00000000"
    assert taken["fills"] == [
        {
            "price": "99.50000000",
            "qty": "2.00000000",
            "commission": "0.00000000",
            "commissionAsset": "USD",
            "tradeId": 1,
        }
    ]
    for name, value in (("orderId", 1), ("origClientOrderId", "a/b:1")):
        found = await ann.done("GET", "order", **BOND, **{name: value})
        assert found["status"] == "PARTIALLY_FILLED"
        assert found["executedQty"] == "2.00000000"
        assert found["time"] == placed["transactTime"]
    (mine,) = await ann.done("GET", "myTrades", **BOND)
    assert (mine["orderId"], mine["isBuyer"], mine["isMaker"]) == (
        1,
        True,
        True,
    )
    assert await ann.done("GET", "myTrades", **BOND, orderId=7) == []
    assert await ann.done("GET", "myTrades", **BOND, fromId=2) == []
    assert len(await ann.done("GET", "myTrades", **BOND, fromId=1)) == 1
    account = await ann.done("GET", "account")
    assert account["canTrade"]
    usd, bond, _ = account["balances"]
    assert usd == {
        "asset": "USD",
        "free": "99502.50000000",
        "locked": "298.50000000",
    }
    assert bond["free"] == "2.00000000"
    (short,) = [
        row
        for row in (await bob.done("GET", "account", omitZeroBalances="true"))[
            "balances"
        ]
        if row["asset"] == "BOND"
    ]
    assert short["free"] == "-2.00000000"


async def test_orders_are_canceled_one_by_one_and_all(bot: Bots) -> None:
    ann = bot()
    first = await ann.limit("BUY", 1, 90)
    await ann.limit("BUY", 1, 91)
    await ann.limit("BUY", 1, 92, newClientOrderId="x")
    canceled = await ann.done(
        "DELETE", "order", **BOND, orderId=first["orderId"]
    )
    assert canceled["status"] == "CANCELED"
    assert canceled["origClientOrderId"] == first["clientOrderId"]
    canceled = await ann.done(
        "DELETE",
        "order",
        **BOND,
        origClientOrderId="x",
        newClientOrderId="y",
    )
    assert (canceled["origClientOrderId"], canceled["clientOrderId"]) == (
        "x",
        "y",
    )
    unknown = (-2011, "Unknown order sent.")
    for name in ("x", "never"):
        assert unknown == await ann.refused(
            "DELETE", "order", **BOND, origClientOrderId=name
        )
    (left,) = await ann.done("GET", "openOrders")
    assert left["price"] == "91.00000000"
    (canceled,) = await ann.done("DELETE", "openOrders", **BOND)
    assert canceled["status"] == "CANCELED"
    assert unknown == await ann.refused("DELETE", "openOrders", **BOND)
    rows = await ann.done("GET", "allOrders", **BOND)
    assert [row["status"] for row in rows] == ["CANCELED"] * 3
    rows = await ann.done("GET", "allOrders", **BOND, orderId=2, limit=1)
    assert [row["orderId"] for row in rows] == [2]


async def test_a_clients_name_is_free_again_after_the_order(bot: Bots) -> None:
    ann = bot()
    await ann.limit("BUY", 1, 90, newClientOrderId="mine")
    assert (-2010, "Duplicate order sent.") == await ann.refused(
        "POST",
        "order",
        **order(
            timeInForce="GTC", quantity=1, price=90, newClientOrderId="mine"
        ),
    )
    await ann.done("DELETE", "order", **BOND, origClientOrderId="mine")
    again = await ann.limit("BUY", 1, 80, newClientOrderId="mine")
    found = await ann.done("GET", "order", **BOND, origClientOrderId="mine")
    assert found["orderId"] == again["orderId"]
    unnamed = await ann.limit("BUY", 1, 70)
    found = await ann.done(
        "GET", "order", **BOND, origClientOrderId=unnamed["clientOrderId"]
    )
    assert found["orderId"] == unnamed["orderId"]


@pytest.mark.parametrize(
    "kind, more, shown",
    [
        ("LIMIT_MAKER", {"price": 90}, ("LIMIT_MAKER", "NEW")),
        ("STOP_LOSS", {"stopPrice": 110}, ("STOP_LOSS", "NEW")),
        (
            "STOP_LOSS_LIMIT",
            {"stopPrice": 110, "price": 111, "timeInForce": "GTC"},
            ("STOP_LOSS_LIMIT", "NEW"),
        ),
        (
            "LIMIT",
            {"price": 90, "timeInForce": "IOC"},
            ("LIMIT", "EXPIRED"),
        ),
        (
            "LIMIT",
            {"price": 90, "timeInForce": "FOK"},
            ("LIMIT", "EXPIRED"),
        ),
        ("MARKET", {}, ("MARKET", "EXPIRED")),
        (
            "LIMIT",
            {"price": 90, "timeInForce": "GTC", "icebergQty": 2},
            ("LIMIT", "NEW"),
        ),
    ],
)
async def test_every_type_of_order(
    bot: Bots, kind: str, more: dict[str, Any], shown: tuple[str, str]
) -> None:
    ann = bot()
    asked = order(kind, quantity=4, newOrderRespType="RESULT", **more)
    assert await ann.done("POST", "order/test", **asked) == {}
    placed = await ann.done("POST", "order", **asked)
    assert (placed["type"], placed["status"]) == shown
    found = await ann.done("GET", "order", **BOND, orderId=placed["orderId"])
    assert (found["type"], found["status"]) == shown
    assert "fills" not in placed


@pytest.mark.parametrize(
    "asked, code, words",
    [
        ({"side": None}, -1102, "'side'"),
        ({"side": "HOLD"}, -1100, "'side'"),
        ({"type": "TAKE_PROFIT"}, -1116, "orderType"),
        ({"timeInForce": None}, -1102, "'timeInForce'"),
        ({"timeInForce": "GTX"}, -1115, "timeInForce"),
        ({"quantity": None}, -1102, "'quantity'"),
        ({"quantity": "0.5"}, -1013, "LOT_SIZE"),
        ({"quantity": "0"}, -1013, "LOT_SIZE"),
        ({"quantity": "5000"}, -1013, "LOT_SIZE"),
        ({"quantity": "x"}, -1100, "'quantity'"),
        ({"price": None}, -1102, "'price'"),
        ({"price": "99.505"}, -1013, "PRICE_FILTER"),
        ({"price": "99.500000001"}, -1111, "'price'"),
        ({"price": "5000"}, -1013, "PRICE_FILTER"),
        ({"stopPrice": "5"}, -1106, "'stopPrice'"),
        ({"quoteOrderQty": "5"}, -1106, "'quoteOrderQty'"),
        ({"trailingDelta": "5"}, -1106, "'trailingDelta'"),
        ({"newClientOrderId": "ä"}, -1100, "'newClientOrderId'"),
        ({"newClientOrderId": "x" * 37}, -1100, "'newClientOrderId'"),
        ({"newOrderRespType": "ALL"}, -1100, "'newOrderRespType'"),
        ({"selfTradePreventionMode": "NONE"}, -1100, "selfTrade"),
        ({"quantity": 1000, "price": 1000}, -2010, "insufficient balance"),
        ({"symbol": "NOPE"}, -1121, "Invalid symbol."),
    ],
)
async def test_an_order_with_a_fault_is_refused(
    bot: Bots, asked: dict[str, Any], code: int, words: str
) -> None:
    fields = order(timeInForce="GTC", quantity=1, price=90) | asked
    fields = {n: v for n, v in fields.items() if v is not None}
    found, text = await bot().refused("POST", "order", **fields)
    assert found == code and words in text


async def test_an_amount_buys_what_it_can(bot: Bots) -> None:
    ann, bob = bot(), bot("bob")
    await bob.limit("SELL", 2, "10.00")
    await bob.limit("SELL", 9, "20.00")
    bought = await ann.done(
        "POST", "order", **order("MARKET", quoteOrderQty="61")
    )
    assert bought["executedQty"] == "4.00000000"
    assert bought["cummulativeQuoteQty"] == "60.00000000"
    assert len(bought["fills"]) == 2
    code, words = await ann.refused(
        "POST", "order", **order("MARKET", quoteOrderQty="19.99")
    )
    assert (code, words) == (-1013, "Filter failure: NOTIONAL")


async def test_an_order_replaces_another(bot: Bots) -> None:
    ann = bot()
    first = await ann.limit("BUY", 1, 90)
    new = {"timeInForce": "GTC", "quantity": 2, "price": 80}
    stop = {"cancelReplaceMode": "STOP_ON_FAILURE"}
    replaced = await ann.done(
        "POST",
        "order/cancelReplace",
        **order(**new),
        **stop,
        cancelOrderId=first["orderId"],
    )
    assert replaced["cancelResult"] == replaced["newOrderResult"] == "SUCCESS"
    assert replaced["cancelResponse"]["orderId"] == first["orderId"]
    second = replaced["newOrderResponse"]
    assert (second["status"], second["origQty"]) == ("NEW", "2.00000000")
    status, body = await ann.sign(
        "POST",
        "order/cancelReplace",
        **order(**new),
        **stop,
        cancelOrderId=first["orderId"],
    )
    assert (status, body["code"]) == (400, -2022)
    assert body["data"]["newOrderResult"] == "NOT_ATTEMPTED"
    assert body["data"]["cancelResponse"]["code"] == -2011
    status, body = await ann.sign(
        "POST",
        "order/cancelReplace",
        **order(**new),
        cancelReplaceMode="ALLOW_FAILURE",
        cancelOrderId=first["orderId"],
    )
    assert (
        body["code"] == -2021 and body["data"]["newOrderResult"] == "SUCCESS"
    )
    status, body = await ann.sign(
        "POST",
        "order/cancelReplace",
        **order(timeInForce="GTC", quantity=9999, price=80),
        **stop,
        cancelOrderId=second["orderId"],
    )
    assert body["code"] == -2021
    assert body["data"]["cancelResult"] == "SUCCESS"
    assert body["data"]["newOrderResponse"]["code"] == -1013


async def test_short_sales_that_are_not_allowed_lack_balance(
    bot: Bots,
) -> None:
    code, words = await bot().refused(
        "POST",
        "order",
        symbol="ETFUSD",
        side="SELL",
        type="LIMIT",
        timeInForce="GTC",
        quantity="0.25",
        price="50",
    )
    assert code == -2010 and "insufficient balance" in words


async def test_own_orders_that_meet(bot: Bots) -> None:
    ann = bot()
    await ann.limit("BUY", 1, 90)
    newest = await ann.limit(
        "SELL", 1, 90, selfTradePreventionMode="EXPIRE_TAKER"
    )
    assert newest["status"] == "EXPIRED_IN_MATCH"
    (left,) = await ann.done("GET", "openOrders", **BOND)
    assert left["side"] == "BUY"


async def test_orders_outlive_their_connection(
    server: Server, bot: Bots
) -> None:
    ann = bot()
    await ann.limit("BUY", 1, 90)
    ann.close()
    assert len(await ann.done("GET", "openOrders", **BOND)) == 1


async def test_native_orders_are_seen_too(server: Server, bot: Bots) -> None:
    ann = bot()
    async with wired(server.url, "ann") as wire:
        await wire.ask(
            type="place",
            symbol="BOND",
            side="buy",
            qty=1,
            price=9_000,
            client_order_id="native",
        )
        (found,) = await ann.done("GET", "openOrders", **BOND)
        assert (found["clientOrderId"], found["price"]) == (
            "native",
            "90.00000000",
        )
        await ann.done("DELETE", "order", **BOND, origClientOrderId="native")
        assert await ann.done("GET", "openOrders", **BOND) == []


async def test_a_request_has_its_time(bot: Bots) -> None:
    ann = bot()
    status, error = await ann.ask("GET", "/api/v3/account", signature="x")
    assert (status, error["code"]) == (400, -1102)
    for timestamp, more in (
        (now_ms() - 5_500, {}),
        (now_ms() - 200, {"recvWindow": 100}),
        (now_ms() + 90_000, {}),
    ):
        code, words = await ann.refused(
            "GET", "account", timestamp=timestamp, **more
        )
        assert code == -1021 and words.startswith("Timestamp for this request")
    code, _ = await ann.refused("GET", "account", recvWindow=60_001)
    assert code == -1131
    micro = now_ms() * 1_000
    assert await ann.done("GET", "account", timestamp=micro)


async def test_parameters_may_stand_in_a_body(bot: Bots) -> None:
    ann = bot()
    placed = await ann.limit("BUY", 1, 90)
    body = f"symbol=BONDUSD&timestamp={now_ms()}&signature=x"
    status, canceled = await ann.ask(
        "DELETE", "/api/v3/order", body, orderId=placed["orderId"]
    )
    assert (status, canceled["status"]) == (200, "CANCELED")


async def test_a_bug_in_the_door_ends_one_connection(
    server: Server,
    bot: Bots,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ann, bob = bot(), bot("bob")
    await bob.limit("BUY", 1, 90)
    for name in ("Ticket", "placed_row"):  # before the engine, and after
        with monkeypatch.context() as patch:
            patch.setattr(f"exchange.doors.spot.trading.{name}", None)
            asked = order(timeInForce="GTC", quantity=1, price=90)
            status, error = await ann.sign("POST", "order", **asked)
        assert (status, error["code"]) == (500, -1000)
        assert await ann.is_cut()
    assert len(caplog.messages) == 2
    assert len(await ann.done("GET", "openOrders", **BOND)) == 1
    await bob.limit("BUY", 1, 90)


async def test_requests_wait_for_long_work(
    server: Server, bot: Bots, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = bot()
    checked: list[object] = []
    monkeypatch.setattr(
        "exchange.doors.spot.rest.check_time",
        lambda params, now_ms: checked.append(now_ms),
    )
    first = await ann.limit("BUY", 1, 90)
    run = server.gateway.sequencer.run

    def crowd() -> None:
        for _ in range(3 * OPERATIONS_PER_SLICE):
            run(Place(symbol="BOND", side="buy", qty=1, price=1), "bob")
        run(CancelAll(), "bob")
        assert server.gateway.engine.work

    server.step(crowd)
    replaced = await ann.done(
        "POST",
        "order/cancelReplace",
        **order(timeInForce="GTC", quantity=2, price=80),
        cancelReplaceMode="STOP_ON_FAILURE",
        cancelOrderId=first["orderId"],
    )
    assert replaced["newOrderResponse"]["status"] == "NEW"
    assert len(checked) == 2  # of each request once, however long it waits
    assert not server.gateway.engine.work
    assert not server.gateway.engine.accounts["bob"].open_orders


async def test_an_answer_leaves_when_it_is_on_disk(
    server: Server, bot: Bots
) -> None:
    ann = bot()
    await ann.get("ping")
    gate = server.gateway.gate
    server.step(lambda: gate.commit(server.gateway.sequencer.seq))
    asked = ann.signed(**order(timeInForce="GTC", quantity=1, price=90))
    waiting = asyncio.ensure_future(ann.ask("POST", "/api/v3/order", **asked))
    await until(lambda: server.gateway.engine.order_id == 1)
    assert not waiting.done()
    gate.commit(server.gateway.sequencer.seq)
    server.step(lambda: None)
    assert (await waiting)[0] == 200
