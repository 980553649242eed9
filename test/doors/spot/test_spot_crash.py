"""What the dialect promises holds over ``kill -9`` and a restart."""

from __future__ import annotations

from pathlib import Path

from test.doors.spot.bots import MARKET, Rest
from test.support import address, greeting, launched
from util.replay import main as replay

BOND = {"symbol": "BONDUSD"}


async def test_names_numbers_and_listen_keys_survive(tmp_path: Path) -> None:
    market = tmp_path / "market.toml"
    market.write_text(MARKET)
    settings = {
        "market": str(market),
        "journal": str(tmp_path / "exchange.db"),
        "dialect": "spot",
        "port": "0",
    }
    async with launched(**settings) as process:
        port = int(address(await greeting(process)).rpartition(":")[2])
        ann, bob = Rest(port, "ann"), Rest(port, "bob")
        placed = await ann.limit("BUY", 5, "99.5", newClientOrderId="a/1")
        await ann.limit("BUY", 1, "98.5", newClientOrderId="a/2")
        await bob.limit("SELL", 2, "99.5")
        key = await ann.ask("POST", "/api/v3/userDataStream")
        before = [
            await ann.done("GET", "allOrders", **BOND),
            await ann.done("GET", "myTrades", **BOND),
            (await ann.done("GET", "account"))["balances"],
            await ann.get("depth", **BOND),
        ]
        process.kill()
        await process.wait()
        ann.close()
        bob.close()
    for form in ("text", "jsonl", "csv"):
        written = tmp_path / form
        arguments = ["--format", form, "--output", str(written)]
        assert replay([settings["journal"], *arguments]) == 0
        assert "a/2" in written.read_text()
    async with launched(**settings) as process:
        port = int(address(await greeting(process)).rpartition(":")[2])
        ann = Rest(port, "ann")
        after = [
            await ann.done("GET", "allOrders", **BOND),
            await ann.done("GET", "myTrades", **BOND),
            (await ann.done("GET", "account"))["balances"],
            await ann.get("depth", **BOND),
        ]
        for row in (*before[0], *after[0]):
            del row["updateTime"]  # of a fill only while it is remembered
        assert after == before
        assert await ann.ask("POST", "/api/v3/userDataStream") == key
        found = await ann.done("GET", "order", **BOND, origClientOrderId="a/1")
        assert found["orderId"] == placed["orderId"]
        assert found["time"] == placed["transactTime"]
        code, words = await ann.refused(
            "POST",
            "order",
            **BOND,
            side="BUY",
            type="LIMIT",
            timeInForce="GTC",
            quantity=1,
            price=90,
            newClientOrderId="a/2",
        )
        assert (code, words) == (-2010, "Duplicate order sent.")
        assert (await ann.limit("BUY", 1, 90))["orderId"] == 4
        ann.close()
