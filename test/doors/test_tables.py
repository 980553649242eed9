"""The public tables as CSV over HTTP, after their commit."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pandas
import pytest

from orderbook import MAX_INT
from server import Server
from test.host.test_metrics import fetch
from test.journal.disks import slowed
from test.support import add_key, order, serving, until, wired

CSV = "text/csv; charset=utf-8"


async def table(server: Server, path: str) -> Any:
    """Return a table as pandas reads it."""
    status, content_type, body = await fetch(server, path)
    assert (status, content_type) == (200, CSV), body
    return pandas.read_csv(io.StringIO(body))


PUBLIC = """
public_positions = true
[instruments.BOND]
[instruments.ETF]
"""


async def test_trades_candles_and_leaderboard(tmp_path: Path) -> None:
    market = tmp_path / "market.toml"
    market.write_text(PUBLIC)
    async with (
        serving(market=market) as server,
        wired(server.url, "ann") as ann,
        wired(server.url, "bob") as bob,
    ):
        for price in (100, 102, 101):
            await ann.ask(**order("sell", 2, price, symbol="ETF"))
            await bob.ask(**order("buy", 2, price, symbol="ETF"))
        trades = await table(server, "/v1/trades.csv?symbol=ETF")
        first = await table(
            server, "/v1/trades.csv?symbol=ETF&limit=2&after=0"
        )
        candles = await table(server, "/v1/candles.csv?symbol=ETF&interval=1d")
        leaders = await table(server, "/v1/leaderboard.csv")
        [*_, reply] = await ann.ask(type="get", what="trades", symbol="ETF")
    assert list(trades["price"]) == [100, 102, 101]
    names = list(trades.columns)
    assert trades.values.tolist() == [
        [row[name] for name in names] for row in reply["data"]
    ]
    assert list(first["trade_id"]) == [1, 2]
    assert candles.values.tolist()[0][1:] == [100, 102, 100, 101, 6]
    assert list(leaders.columns) == [
        *("rank", "user", "equity", "cash", "BOND", "ETF")
    ]
    rows = {row["user"]: row for row in leaders.to_dict("records")}
    assert rows["ann"]["ETF"] == -6 and rows["bob"]["ETF"] == 6
    assert rows["ann"]["BOND"] == 0 and rows["ann"]["cash"] == 606


async def test_positions_of_others_are_private() -> None:
    async with (
        serving(symbols="BOND,ETF") as server,
        wired(server.url, "ann") as ann,
        wired(server.url, "bob") as bob,
    ):
        await ann.ask(**order("sell", 2, 100, symbol="ETF"))
        await bob.ask(**order("buy", 2, 100, symbol="ETF"))
        await bob.ask(**order("buy", 1, 106, symbol="ETF"))
        await ann.ask(**order("sell", 1, 106, symbol="ETF"))
        leaders = await table(server, "/v1/leaderboard.csv")
    assert list(leaders.columns) == [
        *("rank", "user", "equity", "cash", "BOND", "ETF")
    ]
    assert leaders["BOND"].isna().all() and leaders["ETF"].isna().all()
    assert list(leaders["cash"]) == list(leaders["equity"]) == [12, -12]


@pytest.mark.parametrize(
    "path, status, word",
    [
        ("/v1/trades.csv", 400, "symbol"),  # two are listed
        ("/v1/trades.csv?symbol=X", 404, "X is not listed"),
        ("/v1/trades.csv?symbol=ETF&limit=0", 400, "limit"),
        ("/v1/trades.csv?symbol=ETF&limit=1001", 400, "limit"),
        ("/v1/trades.csv?symbol=ETF&limit=ten", 400, "limit"),
        ("/v1/trades.csv?symbol=ETF&after=-1", 400, "after"),
        (f"/v1/trades.csv?symbol=ETF&after={MAX_INT}", 200, "trade_id"),
        (f"/v1/trades.csv?symbol=ETF&after={'9' * 5_000}", 400, "after"),
        (f"/v1/trades.csv?symbol=ETF&limit={'9' * 5_000}", 400, "limit"),
        ("/v1/trades.csv?symbol=ETF&colour=red", 400, "colour"),
        ("/v1/trades.csv?symbol=ETF&type=ping", 200, "trade_id"),
        ("/v1/candles.csv?symbol=ETF&interval=2m", 400, "interval"),
        ("/v1/leaderboard.csv?what=orders", 200, "rank"),
        ("/v1/orders.csv", 404, "Not found"),
    ],
)
async def test_an_invalid_query_is_refused_by_name(
    path: str, status: int, word: str
) -> None:
    async with serving(symbols="BOND,ETF") as server:
        got, _, body = await fetch(server, path)
    assert got == status and word in body


async def test_a_table_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = slowed(monkeypatch)
    async with (
        serving(journal=tmp_path / "j.db") as server,
        wired(server.url, "ann") as ann,
        wired(server.url, "bob") as bob,
    ):
        await ann.ask(**order("sell", 2, 100))
        with disk.held():
            await bob.send(order("buy", 2, 100))
            engine = server.gateway.engine
            await until(lambda: engine.listings["BOND"].trade_id)
            asking = asyncio.create_task(fetch(server, "/v1/trades.csv"))
            ready, *_ = await fetch(server, "/readyz")  # sent after the table
            assert ready == 200 and not asking.done()
        status, _, body = await asking
        assert status == 200 and len(body.splitlines()) == 2


async def test_a_client_that_hangs_up_before_the_answer_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = slowed(monkeypatch)
    table = b"GET /v1/trades.csv HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with (
        serving(journal=tmp_path / "j.db") as server,
        wired(server.url, "ann") as ann,
    ):
        with disk.held():
            await ann.send(order("sell", 2, 100))
            await until(lambda: server.gateway.engine.order_id)
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.port
            )
            writer.write(table)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n\x81\x00")
            await until(lambda: len(server.gateway.gate))
            await until(lambda: len(server.listener.connections) == 2)
            writer.transport.abort()
            await until(lambda: len(server.listener.connections) == 1)
        assert (await ann.until(exec_type="new"))["order_id"] == 1


async def test_what_is_played_and_until_when(tmp_path: Path) -> None:
    keys, market = tmp_path / "keys.json", tmp_path / "market.toml"
    token = add_key(keys, "boss", is_admin=True)
    market.write_text(
        '[instruments.BOND]\n[instruments.ETF]\nphase = "closed"\n'
        '[match]\nname = "A/01"\nteams = ["ann"]\n'
    )

    async def played(server: Server) -> Any:
        status, content_type, body = await fetch(server, "/v1/match")
        assert (status, content_type) == (200, "application/json")
        return json.loads(body)

    async with serving(keys=keys, market=market) as server:
        async with wired(server.url) as boss:
            welcome = await boss.login("boss", token=token)
            assert welcome["match"] == {"name": "A/01", "teams": ["ann"]}
            before = await played(server)
            for arguments in (
                {"action": "match", "name": "A/02", "round": "A"},
                {"action": "reset"},
                {"action": "phase", "phase": "open", "close_ms": 60_000},
                {"action": "phase", "phase": "halted", "symbol": "ETF"},
            ):
                await boss.ask(type="admin", reason="r", **arguments)
        after = await played(server)
    bond, etf = before["instruments"]
    assert before["match"] == welcome["match"] and before["round"] == 1
    assert bond == {"symbol": "BOND", "phase": "open"}
    assert etf == {"symbol": "ETF", "phase": "closed"}
    assert after["match"] == {"name": "A/02", "round": "A"}
    assert after["round"] == 2 and after["ts"] > before["ts"]
    bond, etf = after["instruments"]
    assert 0 < bond["close_ts"] - after["ts"] <= 60_000_000
    assert etf["phase"] == "halted" and 0 < etf["close_left_ms"] <= 60_000
    assert "close_ts" not in etf and "close_left_ms" not in bond
