"""Tables of the client as pandas DataFrames."""

from __future__ import annotations

import builtins
from typing import Any, get_args

import pandas
import pytest

from client import BlockingExchange, Exchange
from orderbook import Table
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


async def test_without_pandas_a_frame_raises_import_error(
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


def test_the_blocking_side_has_frames() -> None:
    assert BlockingExchange.frame.__doc__ == Exchange.frame.__doc__


def shape(table: pandas.DataFrame) -> dict[str, str]:
    """Return the columns of a table with their types, the index first."""
    names = [table.index.name, *table.columns]
    kinds = [table.index.dtype, *table.dtypes]
    return dict(zip(map(str, names), map(str, kinds)))


@pytest.mark.parametrize("what", get_args(Table))
async def test_a_table_has_the_same_columns_whatever_its_rows(
    what: Table,
) -> None:
    async with (
        serving() as server,
        Exchange(server.url, "ann") as ann,
        Exchange(server.url, "bob") as bob,
    ):
        symbol = "BOND" if what in ("trades", "candles") else None
        before = await ann.frame(what, symbol=symbol)
        market = await ann.market("BOND")
        await market.buy(1, 99)
        await trade(ann, bob)
        await market.sell(1)  # a market order has no price
        after = await ann.frame(what, symbol=symbol)
        is_told = what in ("news", "statuses")  # by an administrator
        assert shape(before) == shape(after)
        assert is_told or len(after) > 0
        kinds = shape(after)
        for name in ("price", "qty", "cash", "trade_id", "open", "position"):
            assert kinds.get(name, "Int64") == "Int64"
        for name in ("ts", "start_ts", "expire_ts"):
            assert kinds.get(name, "UTC").endswith("UTC]") or "UTC"


async def test_a_missing_value_is_na() -> None:
    async with serving() as server, Exchange(server.url, "ann") as ann:
        market = await ann.market("BOND")
        await market.sell(1)
        await market.buy(1, 99)
        orders = await ann.frame("orders")
        assert orders["price"].isna().tolist() == [True, False]
        assert orders["price"].sum() == 99
        assert orders["expire_ts"].isna().all()
