"""python-binance as it comes from the package index trades here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from binance import (
    AsyncClient,
    BinanceSocketManager,
    Client,
    DepthCacheManager,
)
from binance.exceptions import BinanceAPIException

from test.support import PATIENCE_S

BOND = "BONDUSD"


@pytest.fixture
def at(host: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for kind in (Client, AsyncClient):
        monkeypatch.setattr(kind, "API_URL", f"http://{host}/api")
        monkeypatch.setattr(kind, "MARGIN_API_URL", f"http://{host}/sapi")
        monkeypatch.setattr(kind, "WS_API_URL", f"ws://{host}/ws-api/v3")
    monkeypatch.setattr(BinanceSocketManager, "STREAM_URL", f"ws://{host}/")
    yield host


def test_the_blocking_client(at: str) -> None:
    ann, bob = Client("ann", "S"), Client("bob", "S")
    assert ann.get_system_status()["status"] == 0
    assert ann.get_symbol_info(BOND)["status"] == "TRADING"
    placed = ann.order_limit_buy(
        symbol=BOND, quantity=5, price="99.50", newClientOrderId="a/b:1"
    )
    taken = bob.order_market_sell(symbol=BOND, quantity=2)
    assert (taken["status"], len(taken["fills"])) == ("FILLED", 1)
    found = ann.get_order(symbol=BOND, origClientOrderId="a/b:1")
    assert (found["orderId"], found["status"]) == (
        placed["orderId"],
        "PARTIALLY_FILLED",
    )
    assert len(ann.get_open_orders()) == 1
    assert ann.get_my_trades(symbol=BOND)[0]["isMaker"]
    assert ann.get_asset_balance("BOND")["free"] == "2.00000000"
    assert ann.get_klines(symbol=BOND, interval="1m")[-1][4] == "99.50000000"
    assert ann.get_historical_klines(BOND, "1m", "1 hour ago UTC")
    assert ann.get_order_book(symbol=BOND)["bids"]
    assert ann.get_recent_trades(symbol=BOND)
    assert ann.get_aggregate_trades(symbol=BOND)
    assert ann.get_ticker(symbol=BOND)["lastPrice"] == "99.50000000"
    assert len(ann.get_all_tickers()) == len(ann.get_orderbook_tickers()) == 2
    assert len(ann.get_trade_fee()) == 2
    canceled = ann.cancel_order(symbol=BOND, orderId=placed["orderId"])
    assert canceled["status"] == "CANCELED"
    assert ann.get_all_orders(symbol=BOND)[0]["status"] == "CANCELED"
    for order, code in (
        ({"quantity": 1, "price": "99.505"}, -1013),
        ({"quantity": 1_000, "price": "999"}, -2010),
    ):
        with pytest.raises(BinanceAPIException) as error:
            ann.order_limit_buy(symbol=BOND, **order)
        assert error.value.code == code
    key = ann.stream_get_listen_key()
    assert ann.stream_keepalive(key) == ann.stream_close(key) == {}
    for client in (ann, bob):
        client.close_connection()


async def test_streams_user_data_and_the_depth_cache(at: str) -> None:
    ann, bob = [await AsyncClient.create(u, "S") for u in ("ann", "bob")]
    manager = BinanceSocketManager(ann)
    depth = DepthCacheManager(ann, BOND, ws_interval=100)
    async with (
        asyncio.timeout(PATIENCE_S),
        manager.user_socket() as user,
        manager.trade_socket(BOND) as trades,
        manager.multiplex_socket(["bondusd@bookTicker"]) as tops,
        depth as cache,
    ):
        placed = await ann.order_limit_buy(
            symbol=BOND, quantity=5, price="98.00"
        )
        report = await user.recv()
        assert (report["e"], report["i"]) == (
            "executionReport",
            placed["orderId"],
        )
        assert (await user.recv())["e"] == "outboundAccountPosition"
        await bob.order_market_sell(symbol=BOND, quantity=1)
        assert (await trades.recv())["p"] == "98.00000000"
        assert (await tops.recv())["stream"] == "bondusd@bookTicker"
        book: Any = await cache.recv()
        while book.get_bids() != [[98.0, 4.0]]:
            book = await cache.recv()
        placed = await ann.ws_create_order(
            symbol=BOND,
            side="BUY",
            type="LIMIT",
            timeInForce="GTC",
            quantity=1,
            price="97.5",
        )
        assert placed["status"] == "NEW"
        assert (await ann.ws_get_order_book(symbol=BOND))["bids"]
        await ann.cancel_order(symbol=BOND, orderId=placed["orderId"])
    for client in (ann, bob):
        await client.close_connection()
