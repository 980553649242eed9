"""ccxt as it comes from the package index trades here, blocking and not."""

from __future__ import annotations

from typing import Any

import ccxt
import ccxt.async_support
import pytest

from test.clients.bots import options

BOND, ETF = "BOND/USD", "ETF/USD"


def test_a_market_is_loaded_and_read(host: str) -> None:
    ann, bob = (ccxt.binance(options(host, u)) for u in ("ann", "bob"))
    markets = ann.load_markets()
    assert [*markets] == [BOND, ETF]
    assert markets[BOND]["active"] and markets[BOND]["spot"]
    assert markets[BOND]["precision"]["price"] == 0.01
    assert markets[ETF]["precision"]["amount"] == 0.25
    assert markets[ETF]["limits"]["amount"]["max"] == 250
    assert ann.fetch_time() and ann.fetch_status()["status"] == "ok"
    assert {"USD", "BOND", "ETF"} <= {*ann.fetch_currencies()}
    assert ann.fetch_trading_fees()[BOND]["maker"] == 0
    ann.create_order(BOND, "limit", "buy", 5, 99.5)
    bob.create_order(BOND, "limit", "sell", 2, 99)
    bob.create_order(BOND, "limit", "sell", 2, 101)
    book = ann.fetch_order_book(BOND)
    assert (book["bids"], book["asks"]) == ([[99.5, 3]], [[101, 2]])
    assert book["nonce"] == 3
    (trade,) = ann.fetch_trades(BOND)
    assert (trade["price"], trade["amount"], trade["side"]) == (
        99.5,
        2,
        "sell",
    )
    assert ann.fetch_ticker(BOND)["last"] == 99.5
    assert {*ann.fetch_tickers()} == {BOND, ETF}
    assert ann.fetch_bids_asks()[BOND]["ask"] == 101
    assert ann.fetch_last_prices()[BOND]["price"] == 99.5
    for timeframe in ("1m", "3m", "1h", "1d", "1w", "1M"):
        assert ann.fetch_ohlcv(BOND, timeframe)[-1][1:] == [99.5] * 4 + [2]


def test_orders_of_each_type(host: str) -> None:
    ann, bob = (ccxt.binance(options(host, u)) for u in ("ann", "bob"))
    rests = ann.create_order(BOND, "limit", "buy", 5, 99.5)
    assert rests["status"] == "open" and rests["remaining"] == 5
    taken = bob.create_order(BOND, "market", "sell", 2)
    assert (taken["status"], taken["average"]) == ("closed", 99.5)
    assert taken["trades"][0]["amount"] == 2
    for params, price in (
        ({"postOnly": True}, 90),
        ({"timeInForce": "IOC"}, 90),
        ({"timeInForce": "FOK"}, 90),
        ({"stopPrice": 120}, 121),
        ({"icebergAmount": 1}, 91),
    ):
        order = ann.create_order(BOND, "limit", "buy", 1, price, params)
        assert order["id"], params
    stop = ann.create_order(BOND, "market", "buy", 1, None, {"stopPrice": 130})
    found = ann.fetch_order(stop["id"], BOND)
    assert (found["status"], found["triggerPrice"]) == ("open", 130)
    cost = bob.create_market_sell_order(BOND, 1)
    assert cost["cost"] == 99.5
    edited = ann.edit_order(rests["id"], BOND, "limit", "buy", 4, 98.5)
    assert (edited["price"], edited["status"]) == (98.5, "open")
    assert edited["id"] != rests["id"]
    canceled = ann.cancel_order(edited["id"], BOND)
    assert canceled["status"] == "canceled"
    assert {o["status"] for o in ann.fetch_open_orders(BOND)} == {"open"}
    assert ann.fetch_orders(BOND)[0]["filled"] == 3
    assert len(ann.fetch_my_trades(BOND)) == 2
    assert ann.cancel_all_orders(BOND)
    assert ann.fetch_open_orders(BOND) == []
    assert ann.fetch_closed_orders(BOND) == []
    balance = ann.fetch_balance()
    assert balance["BOND"]["total"] == 3
    assert balance["USD"] == {
        "free": 100_000 - 3 * 99.5,
        "used": 0,
        "total": 100_000 - 3 * 99.5,
    }
    assert bob.fetch_balance()["BOND"]["free"] == -3


@pytest.mark.parametrize(
    "order, error",
    [
        ((BOND, "limit", "buy", 9_000, 99), ccxt.InvalidOrder),
        ((BOND, "limit", "buy", 1_000, 999), ccxt.InsufficientFunds),
        ((ETF, "limit", "sell", 1, 50), ccxt.InsufficientFunds),
        (
            (BOND, "limit", "buy", 1, 99, {"clientOrderId": "ä"}),
            ccxt.BadRequest,
        ),
    ],
)
def test_refusals_are_the_exceptions_that_bots_know(
    host: str, order: Any, error: type[Exception]
) -> None:
    ann = ccxt.binance(options(host, "ann"))
    with pytest.raises(error):
        ann.create_order(*order)
    with pytest.raises(ccxt.OrderNotFound):
        ann.cancel_order("99", BOND)
    with pytest.raises(ccxt.OrderNotFound):
        ann.fetch_order("99", BOND)


def test_a_maker_that_would_take_is_not_fillable(host: str) -> None:
    ann, bob = (ccxt.binance(options(host, u)) for u in ("ann", "bob"))
    bob.create_order(BOND, "limit", "sell", 1, 100)
    with pytest.raises(ccxt.OrderImmediatelyFillable):
        ann.create_order(BOND, "limit", "buy", 1, 100, {"postOnly": True})
    ann.create_order(BOND, "limit", "buy", 1, 90, {"clientOrderId": "x"})
    with pytest.raises(ccxt.InvalidOrder, match="Duplicate order sent."):
        ann.create_order(BOND, "limit", "buy", 1, 90, {"clientOrderId": "x"})


async def test_the_same_without_blocking(host: str) -> None:
    ann = ccxt.async_support.binance(options(host, "ann"))
    try:
        await ann.load_markets()
        placed = await ann.create_order(BOND, "limit", "buy", 5, 99.5)
        (found,) = await ann.fetch_open_orders(BOND)
        assert found["id"] == placed["id"]
        await ann.cancel_order(placed["id"], BOND)
        assert (await ann.fetch_balance())["USD"]["used"] == 0
    finally:
        await ann.close()
