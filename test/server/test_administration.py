"""An administrator's acts over real sockets, over crashes, and as CSV."""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pandas

from server import Server
from test.host.test_metrics import fetch
from test.support import (
    Wire,
    add_key,
    address,
    ended,
    greeting,
    launched,
    order,
    serving,
    wired,
    words,
)

Message = dict[str, Any]
USERS = ("boss", "ann", "bob")


def admin(action: str, **arguments: Any) -> Message:
    return {"type": "admin", "action": action, "reason": "why", **arguments}


def keys_for(folder: Path) -> tuple[Path, dict[str, str]]:
    """Write a key file; return it and the tokens by user."""
    path = folder / "keys.json"
    return path, {user: add_key(path, user, user == "boss") for user in USERS}


@contextlib.asynccontextmanager
async def all_in(
    url: str, tokens: dict[str, str]
) -> AsyncIterator[list[Wire]]:
    """Connect everybody."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                wired(url, user, token=token, cancel_on_disconnect=False)
            )
            for user, token in tokens.items()
        ]


async def rows(wire: Wire, what: str) -> list[Any]:
    """Return the rows of a table."""
    await wire.send({"type": "get", "what": what, "id": "rows"})
    data: list[Any] = (await wire.until(id="rows"))["data"]
    return data


async def trade(ann: Wire, bob: Wire) -> None:
    """Let ann buy 5 at 100 and 5 at 102."""
    for price in (100, 102):
        await bob.ask(**order("sell", 5, price))
        await ann.ask(**order("buy", 5, price))


async def csv_of(server: Server, path: str) -> Any:
    _, _, body = await fetch(server, path)
    return pandas.read_csv(io.StringIO(body))


async def test_news_a_tender_and_a_bust(tmp_path: Path) -> None:
    keys, tokens = keys_for(tmp_path)
    async with (
        serving(keys=keys) as server,
        all_in(server.url, tokens) as all_,
    ):
        boss, ann, bob = all_
        await trade(ann, bob)
        async with wired(server.url) as stranger:
            await boss.ask(**admin("news", headline="hello"))
            assert (await stranger.until(type="news"))["news_id"] == 1
            await stranger.ask(type="subscribe", channels=["trades"])
            terms = {"side": "sell", "qty": 3, "price": 95, "valid_ms": 9_000}
            offer = admin("tender", tender_id="t-1", symbol="BOND", **terms)
            await boss.ask(**offer)
            assert (await ann.until(type="tender"))["tender_id"] == "t-1"
            accepted = await ann.ask(type="tender", tender_id="t-1")
            assert words(accepted) == ["status", "ok", "account"]
            bust = admin("bust", symbol="BOND", trade_id=2)
            await boss.ask(**bust)
            assert (await stranger.until(type="bust"))["trade_id"] == 2
        account = await ann.until(type="account")
        assert account["positions"] == {"BOND": 2}
        assert account["cash"] == -500 + 285
        trades = await csv_of(server, "/v1/trades.csv")
        assert list(trades["busted"]) == [False, True]
        assert "round" not in trades


async def test_the_csv_has_the_round_from_the_second_on(
    tmp_path: Path,
) -> None:
    keys, tokens = keys_for(tmp_path)
    async with (
        serving(keys=keys) as server,
        all_in(server.url, tokens) as all_,
    ):
        boss, ann, bob = all_
        await trade(ann, bob)
        trades = await csv_of(server, "/v1/trades.csv")
        assert list(trades)[-1] == "seq"
        await boss.ask(**admin("reset"))
        await trade(ann, bob)
        trades = await csv_of(server, "/v1/trades.csv")
        assert list(trades["round"]) == [1, 1, 2, 2]
        candles = await csv_of(server, "/v1/candles.csv")
        assert candles["volume"].sum() == 10


async def test_a_killed_exchange_knows_all_of_it_again(
    tmp_path: Path,
) -> None:
    keys, tokens = keys_for(tmp_path)
    settings = {
        "journal": str(tmp_path / "exchange.db"),
        "keys": str(keys),
        "debug": "0",
    }
    tables = ("news", "statuses", "trades", "fills", "candles", "orders")
    once = admin("adjust", user="ann", cash=7, client_request_id="r-1")
    terms = {"side": "buy", "qty": 3, "price": 95, "valid_ms": 86_400_000}
    offer = admin("tender", tender_id="t-1", symbol="BOND", **terms)
    async with launched(**settings) as process:
        url = address(await greeting(process))
        async with all_in(url, tokens) as (boss, ann, bob):
            await trade(ann, bob)
            await boss.ask(**admin("reset"))
            await trade(ann, bob)
            for request in (
                admin("news", headline="hello", body="a\nb"),
                once,
                offer,
                admin("bust", symbol="BOND", trade_id=3),
                admin("phase", phase="open", close_ms=86_400_000),
            ):
                assert "ok" in words(await boss.ask(**request))
            await ann.ask(type="tender", tender_id="t-1")
            before = [await rows(ann, what) for what in tables]
            [old] = await rows(ann, "instruments")
            [held] = await rows(ann, "account")
            process.kill()
        await ended(process)
    async with launched(**settings) as process:
        url = address(await greeting(process))
        async with all_in(url, tokens) as (boss, ann, bob):
            after = [await rows(ann, what) for what in tables]
            [new] = await rows(ann, "instruments")
            [account] = await rows(ann, "account")
            again = await ann.ask(type="tender", tender_id="t-1")
            assert words(again)[-1] == "duplicate_tender"
            accepted = await bob.ask(type="tender", tender_id="t-1")
            assert words(accepted)[-2:] == ["ok", "account"]
            repeated = words(await boss.ask(**once))
            assert repeated[-1] == "duplicate_client_request_id"
    for what, table, other in zip(tables, before, after, strict=True):
        if what == "orders":  # a row tells its own moment
            table, other = (
                [{**r, "ts": 0} for r in t] for t in (table, other)
            )
        assert table == other, what
    assert before[2][-1]["round"] == 2 and before[2][-2]["busted"]
    assert {**held, "ts": 0} == {**account, "ts": 0}
    assert new.pop("close_ts") > old.pop(
        "close_ts"
    ), "the outage is given back"
    assert new == old


async def test_a_pause_outlives_a_crash(tmp_path: Path) -> None:
    """What is left of the time stands still, and goes on at the next open."""
    keys, tokens = keys_for(tmp_path)
    settings = {
        "journal": str(tmp_path / "exchange.db"),
        "symbols": "BOND,ETF",
        "keys": str(keys),
        "debug": "0",
    }
    async with launched(**settings) as process:
        url = address(await greeting(process))
        async with wired(url, "boss", token=tokens["boss"]) as boss:
            opening = {"phase": "open", "close_ms": 3_600_000}
            assert "ok" in words(await boss.ask(**admin("phase", **opening)))
            running = await rows(boss, "instruments")
            halt = admin("phase", phase="halted")
            assert "ok" in words(await boss.ask(**halt))
            halted = await rows(boss, "instruments")
            process.kill()
        await ended(process)
    async with launched(**settings) as process:
        url = address(await greeting(process))
        async with wired(url, "boss", token=tokens["boss"]) as boss:
            assert await rows(boss, "instruments") == halted
            refused = await boss.ask(**order("buy", 1, 99), symbol="BOND")
            assert words(refused) == ["market_closed"]
            go_on = await boss.ask(**admin("phase", phase="open"))
            assert go_on[0]["type"] == "ok"
            again = await rows(boss, "instruments")
    for before, during, after in zip(running, halted, again, strict=True):
        assert "close_left_ms" not in {**before, **after}
        assert during["phase"] == "halted" and "close_ts" not in during
        left_us = after["close_ts"] - go_on[0]["ts"]
        assert left_us // 1_000 == during["close_left_ms"]
        assert 0 < left_us <= 3_600_000_000
