"""Tables as pandas shows them."""

from __future__ import annotations

import builtins
from typing import Any

import pandas
import pytest

from client import BlockingExchange, Exchange
from test.support import serving


async def trade(exchange: Exchange, other: Exchange) -> None:
    for price in (100, 102, 101):
        await (await exchange.market("BOND")).sell(2, price)
        await (await other.market("BOND")).buy(2, price)


async def test_every_table_has_a_frame() -> None:
    async with (
        serving() as server,
        Exchange(server.url, "ann") as ann,
        Exchange(server.url, "bob") as bob,
    ):
        await trade(ann, bob)
        trades = await ann.frame("trades", symbol="BOND")
        assert list(trades["price"]) == [100, 102, 101]
        assert isinstance(trades.index, pandas.DatetimeIndex)
        assert trades.index.name == "ts" and str(trades.index.tz) == "UTC"
        rows = await ann.get("trades", symbol="BOND")
        stamps = trades.index.astype("datetime64[us, UTC]").astype("int64")
        assert list(stamps) == [row.ts for row in rows]
        assert "type" not in trades and "id" not in trades
        candles = await ann.frame("candles", symbol="BOND", interval="1d")
        assert list(candles.columns) == [
            *("open", "high", "low", "close", "volume")
        ]
        assert candles.iloc[-1].tolist() == [100, 102, 100, 101, 6]
        fills = await bob.frame("fills")
        assert list(fills["last_price"]) == [100, 102, 101]
        orders = await bob.frame("orders", limit=2)
        assert list(orders["order_status"]) == ["filled", "filled"]
        leaders = await ann.frame("leaderboard")
        assert set(leaders["user"]) == {"ann", "bob"}
        assert len(await ann.frame("trades", symbol="BOND", after=2)) == 1


async def test_a_table_without_rows_is_an_empty_frame() -> None:
    async with serving() as server, Exchange(server.url, "ann") as ann:
        assert (await ann.frame("trades", symbol="BOND")).empty
        assert (await ann.frame("candles", symbol="BOND")).empty


async def test_without_pandas_it_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "pandas":
            raise ImportError("No module named 'pandas'", name="pandas")
        return load(name, *arguments, **more)

    async with serving() as server, Exchange(server.url, "ann") as ann:
        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(ImportError, match="pandas"):
            await ann.frame("trades", symbol="BOND")


def test_the_blocking_client_has_it_too() -> None:
    assert BlockingExchange.frame.__doc__ == Exchange.frame.__doc__
