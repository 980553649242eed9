"""Public market data over REST."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from server import Server
from test.doors.spot.bots import Rest

Bots = Callable[..., Rest]


async def test_what_exists_is_described(bot: Bots) -> None:
    info = await bot().get("exchangeInfo")
    assert info["timezone"] == "UTC" and info["exchangeFilters"] == []
    bond, etf = info["symbols"]
    assert (bond["symbol"], bond["status"]) == ("BONDUSD", "TRADING")
    assert (bond["baseAsset"], bond["quoteAsset"]) == ("BOND", "USD")
    assert [f["filterType"] for f in bond["filters"][:2]] == [
        "PRICE_FILTER",
        "LOT_SIZE",
    ]
    assert bond["filters"][0] == {
        "filterType": "PRICE_FILTER",
        "minPrice": "0.01000000",
        "maxPrice": "1000.00000000",
        "tickSize": "0.01000000",
    }
    filters = {one["filterType"]: one for one in etf["filters"]}
    assert filters["LOT_SIZE"]["stepSize"] == "0.25000000"
    assert filters["LOT_SIZE"]["maxQty"] == "250.00000000"
    assert filters["NOTIONAL"]["minNotional"] == "0.12500000"
    assert {"MARKET_LOT_SIZE", "MAX_NUM_ORDERS", "MAX_POSITION"} <= {*filters}
    assert "NONE" in etf["allowedSelfTradePreventionModes"]
    assert "NONE" not in bond["allowedSelfTradePreventionModes"]
    assert bond["permissions"] == []
    assert not any("TAKE_PROFIT" in kind for kind in bond["orderTypes"])


async def test_symbols_are_chosen_in_any_case(bot: Bots) -> None:
    ann = bot()
    info = await ann.get("exchangeInfo", symbol="etfUSD")
    assert [s["symbol"] for s in info["symbols"]] == ["ETFUSD"]
    info = await ann.get("exchangeInfo", symbols='["BONDUSD","ETFUSD"]')
    assert len(info["symbols"]) == 2
    for params, code in (
        ({"symbol": "NONE"}, -1121),
        ({"symbols": '["NONE"]'}, -1121),
        ({"symbols": "BONDUSD"}, -1100),
        ({"symbol": "BONDUSD", "symbols": "[]"}, -1128),
    ):
        status, error = await ann.ask("GET", "/api/v3/exchangeInfo", **params)
        assert (status, error["code"]) == (400, code)


async def test_a_closed_symbol_is_in_a_break(
    server: Server, bot: Bots
) -> None:
    from orderbook import Admin

    ann = bot()
    server.step(
        lambda: server.gateway.sequencer.run(
            Admin(action="phase", reason="x", symbol="BOND", phase="halted"),
            "boss",
        )
    )
    info = await ann.get("exchangeInfo", symbol="BONDUSD")
    assert info["symbols"][0]["status"] == "BREAK"
    code, words = await ann.refused(
        "POST",
        "order",
        symbol="BONDUSD",
        side="BUY",
        type="MARKET",
        quantity=1,
    )
    assert (code, words) == (-1013, "Market is closed.")


async def test_books_trades_and_tickers(bot: Bots) -> None:
    ann, bob = bot(), bot("bob")
    await ann.limit("BUY", 5, "99.5")
    await ann.limit("BUY", 1, "99.25")
    await bob.limit("SELL", 7, "100")
    await bob.limit("SELL", 2, "99.5")
    book = await ann.get("depth", symbol="BONDUSD", limit=1)
    assert book == {
        "lastUpdateId": 4,
        "bids": [["99.50000000", "3.00000000"]],
        "asks": [["100.00000000", "7.00000000"]],
    }
    (trade,) = await ann.get("trades", symbol="BONDUSD")
    assert (trade["id"], trade["price"], trade["qty"]) == (
        1,
        "99.50000000",
        "2.00000000",
    )
    assert trade["quoteQty"] == "199.00000000" and trade["isBuyerMaker"]
    (merged,) = await ann.get("aggTrades", symbol="BONDUSD", fromId=1)
    assert (merged["a"], merged["f"], merged["l"]) == (1, 1, 1)
    later = merged["T"] + 1
    assert not await ann.get("aggTrades", symbol="BONDUSD", startTime=later)
    day = await ann.get("ticker/24hr", symbol="BONDUSD")
    assert (day["lastPrice"], day["volume"]) == ("99.50000000", "2.00000000")
    assert (day["firstId"], day["lastId"], day["count"]) == (1, 1, 1)
    prices = await ann.get("ticker/price")
    assert [row["price"] for row in prices] == ["99.50000000", "50.00000000"]
    top = await ann.get("ticker/bookTicker", symbol="BONDUSD")
    assert (top["bidPrice"], top["askQty"]) == ("99.50000000", "7.00000000")
    (row,) = await ann.get("klines", symbol="BONDUSD", interval="1d")
    assert row[1:6] == ["99.50000000"] * 4 + ["2.00000000"]
    assert row[6] - row[0] == 86_400_000 - 1


@pytest.mark.parametrize(
    "path, params, code",
    [
        ("depth", {}, -1102),
        ("depth", {"symbol": ""}, -1102),
        ("depth", {"symbol": "BONDUSD", "limit": 0}, -1100),
        ("depth", {"symbol": "BONDUSD", "limit": "x"}, -1100),
        ("klines", {"symbol": "BONDUSD"}, -1102),
        ("klines", {"symbol": "BONDUSD", "interval": "7m"}, -1120),
        ("klines", {"symbol": "BOND", "interval": "1m"}, -1121),
        ("trades", {"symbol": "BONDUSD", "limit": "9" * 40}, -1100),
        ("avgPrice", {"symbol": "BONDUSD"}, -1000),
    ],
)
async def test_wrong_parameters_are_named(
    bot: Bots, path: str, params: dict[str, object], code: int
) -> None:
    status, error = await bot().ask("GET", f"/api/v3/{path}", **params)
    assert status in (400, 404) and error["code"] == code and error["msg"]


async def test_the_other_api_says_what_clients_need(bot: Bots) -> None:
    ann = bot()
    for path, found in (
        ("margin/allPairs", []),
        ("margin/isolated/allPairs", []),
        ("spot/delist-schedule", []),
        ("system/status", {"status": 0, "msg": "normal"}),
    ):
        assert await ann.ask("GET", f"/sapi/v1/{path}") == (200, found)
    _, assets = await ann.ask("GET", "/sapi/v1/capital/config/getall")
    assert [row["coin"] for row in assets] == ["USD", "BOND", "ETF"]
    _, fees = await ann.ask("GET", "/sapi/v1/asset/tradeFee")
    assert [row["makerCommission"] for row in fees] == ["0.00000000"] * 2
