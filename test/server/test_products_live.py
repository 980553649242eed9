"""Conversions and settlements over real sockets, and over a crash."""

from __future__ import annotations

from pathlib import Path

from test.server.test_administration import admin, all_in, keys_for, rows
from test.support import (
    address,
    ended,
    greeting,
    launched,
    order,
    wired,
    words,
)

MARKET = """
[instruments.GS]
reference_price = 20
[instruments.XLF]
reference_price = 50
[instruments.XLF.convert]
lot = 10
fee = 7
basket = { GS = 2 }
[instruments.CALL]
kind = "call"
underlying = "GS"
strike = 15
[instruments.SOON]
kind = "future"
underlying = "GS"
expires = 86_400
"""


async def test_lots_and_cash_survive_a_crash(tmp_path: Path) -> None:
    """Ann buys 5 CALL at 3 and 10 XLF for 20 GS; GS settles at 22."""
    keys, tokens = keys_for(tmp_path)
    market = tmp_path / "market.toml"
    market.write_text(MARKET)
    settings = {
        "journal": str(tmp_path / "exchange.db"),
        "keys": str(keys),
        "market": str(market),
        "debug": "0",
    }
    convert = {"type": "convert", "side": "buy", "qty": 10, "symbol": "XLF"}
    convert["client_order_id"] = "c-1"
    async with launched(**settings) as process:
        url = address(await greeting(process))
        async with all_in(url, tokens) as (boss, ann, bob):
            await bob.ask(**order("sell", 5, 3, symbol="CALL"))
            await ann.ask(**order("buy", 5, 3, symbol="CALL"))
            reply = await ann.ask(**convert)
            assert words(reply) == ["ok", "account"]
            seen = reply[-1]["seq"]
            held = {"CALL": 5, "XLF": 10, "GS": -20}
            assert reply[-1]["positions"] == held
            assert reply[-1]["cash"] == -22
            settle = admin("settle", prices={"GS": 22})
            assert "ok" in words(await boss.ask(**settle))
            first = await ann.until(type="settlement")
            second = await ann.until(type="settlement")
            account = await ann.until(type="account")
            before = [await rows(ann, w) for w in ("instruments", "account")]
            process.kill()
        await ended(process)
    assert (first["symbol"], first["position"]) == ("GS", -20)
    assert second == {
        "type": "settlement",
        "seq": seen + 1,
        "ts": first["ts"],
        "symbol": "CALL",
        "position": 5,
        "price": 7,
        "realized": 20,
    }
    assert account["seq"] == first["seq"] == seen + 1
    assert account["cash"] == -22 - 20 * 22 + 5 * 7
    assert account["positions"] == {"CALL": 0, "XLF": 10, "GS": 0}
    listed = {row["symbol"]: row for row in before[0]}
    assert [row.get("settlement_price") for row in before[0]] == [
        *(22, None, 7, None),
    ]
    assert listed["XLF"]["convert"] == {
        "lot": 10,
        "fee": 7,
        "basket": {"GS": 2},
    }
    assert listed["SOON"]["expires"] == 86_400 and listed["SOON"]["expire_ts"]
    async with launched(**settings) as process:
        url = address(await greeting(process))
        async with all_in(url, tokens) as (boss, ann, bob):
            after = [await rows(ann, w) for w in ("instruments", "account")]
            again = (await ann.ask(**convert))[-1]
            assert again["code"] == "duplicate_client_order_id"
            assert words(await boss.ask(**settle))[-1] == "market_closed"
    assert [{**r, "ts": 0} for r in after[1]] == [
        {**r, "ts": 0} for r in before[1]
    ]
    assert after[0] == before[0]


async def test_a_settlement_that_was_missed_is_sent_again(
    tmp_path: Path,
) -> None:
    keys, tokens = keys_for(tmp_path)
    async with launched(keys=str(keys), symbols="GS", debug="0") as process:
        url = address(await greeting(process))
        async with all_in(url, tokens) as (boss, _, bob):
            async with wired(url) as wire:
                login = {"token": tokens["ann"], "cancel_on_disconnect": False}
                welcome = await wire.login("ann", **login)
                await bob.ask(**order("sell", 5, 20))
                last = (await wire.ask(**order("buy", 5, 20)))[-1]
            await boss.ask(**admin("settle", symbol="GS", price=22))
            async with wired(url) as wire:
                _, *missed = await wire.ask(
                    type="login",
                    user="ann",
                    **login,
                    session=welcome["session"],
                    last_seq=last["seq"],
                )
    assert words(missed) == ["settlement", "account"]
    assert [event["seq"] for event in missed] == [last["seq"] + 1] * 2
