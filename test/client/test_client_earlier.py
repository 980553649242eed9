"""A client of the first release against what came later, over real sockets.

It does not know the newer events, and accepts only the words of orders that
it knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from client import Exchange
from orderbook import Event
from test.server.test_administration import keys_for
from test.support import serving, until

EARLIER = {
    *("welcome", "ok", "error", "exec", "account", "book", "trade"),
    *("ticker", "status", "heartbeat"),
}
WORDS = {
    "order_type": ("limit", "market"),
    "time_in_force": ("gtc", "ioc", "fok", "gtd"),
}
MARKET = """
[instruments.GS]
reference_price = 100
[instruments.XLF]
reference_price = 100
[instruments.XLF.convert]
lot = 10
fee = 7
basket = { GS = 2 }
[instruments.CALL]
kind = "call"
underlying = "GS"
strike = 90
"""


class Desk:
    """Ann with an earlier client, and with a newer one that is the truth."""

    def __init__(self, old: Exchange, new: Exchange) -> None:
        self.old, self.new = old, new
        self.logins = 0
        connected, receive = old._core.connected, old._core.receive

        def count() -> None:
            self.logins += 1
            connected()

        def hear(event: Event) -> None:
            """Drop an unknown event; refuse an unknown word of an order."""
            for name, words in WORDS.items():
                assert getattr(event, name, words[0]) in words, event
            if event.type in EARLIER:
                receive(event)

        old._core.connected = count  # type: ignore[method-assign]
        old._core.receive = hear  # type: ignore[method-assign]

    async def agree(self) -> None:
        """Wait until both have what the exchange has; no login was needed."""
        [truth] = await self.new.get("account")
        held = {s: n for s, n in truth.positions.items() if n}
        for ex in (self.old, self.new):
            await until(lambda: ex.cash == truth.cash)
            found = {s: n for s, n in ex.positions.items() if n}
            assert found == held
        await until(
            lambda: [o.order_id for o in self.old.orders]
            == [o.order_id for o in self.new.orders]
        )
        assert self.old.is_connected and not self.logins, self.old.trouble


async def test_an_earlier_client_follows_all_that_came_later(
    tmp_path: Path,
) -> None:
    keys, tokens = keys_for(tmp_path)
    market = tmp_path / "market.toml"
    market.write_text(MARKET)
    async with serving(keys=keys, market=market) as server:

        def enter(user: str) -> Exchange:
            return Exchange(server.url, user, tokens[user])

        async with (
            enter("boss") as boss,
            enter("bob") as bob,
            enter("ann") as new,
            enter("ann") as old,
        ):
            await play(Desk(old, new), boss, bob)


async def play(d: Desk, boss: Exchange, bob: Exchange) -> None:
    gs, xlf = await d.new.market("GS"), await d.new.market("XLF")
    call, theirs = await d.new.market("CALL"), await bob.market("GS")

    async def act(action: str, **arguments: Any) -> None:
        await boss.admin(action, "why", **arguments)  # type: ignore
        await d.agree()

    await theirs.sell(40, 100)
    await gs.buy(5, 100)
    await act("news", headline="rain")
    await act("match", name="A/03", teams=["ann", "bob"])
    offer = {"side": "buy", "qty": 2, "price": 99, "valid_ms": 60_000}
    await act("tender", tender_id="t-1", symbol="GS", **offer)
    await d.new.accept("t-1")
    await act("bust", symbol="GS", trade_id=1)
    await xlf.convert("buy", 10)
    await act("dividend", symbol="XLF", amount=2)
    await (await bob.market("CALL")).sell(5, 12)
    await call.buy(5, 12)
    assert (await gs.buy(3, 105, trigger_price=100)).cum_qty == 0
    waiting = await gs.sell(2, trigger_price=90)
    assert waiting.is_waiting and waiting.order_type == "market"
    await d.agree()
    await theirs.buy(1, 100, stp="cancel_newest")
    hidden = await gs.sell(9, 120, display_qty=3)
    await hidden.amend(qty=8, display_qty=2)
    await waiting.amend(trigger_price=91)
    await d.agree()
    await theirs.buy(4, 120)
    await act("phase", symbol="GS", phase="auction")
    joined = await gs.buy(3, time_in_force="auction")
    assert joined.is_open
    await d.agree()
    await act("phase", symbol="GS", phase="open")
    prices = {"GS": 100, "XLF": 100, "CALL": 10}
    await act("close_out", user="ann", prices=prices)
    await act("adjust", user="ann", symbol="GS", qty=7)
    await act("adjust", user="ann", symbol="CALL", qty=7)
    settled = d.new.settlements()
    await act("settle", prices={"GS": 95})
    found = [await anext(settled) for _ in range(2)]
    assert [(s.symbol, s.position, s.price) for s in found] == [
        ("GS", 7, 95),
        ("CALL", 7, 5),
    ]
    await act("reset")
    assert d.new.round == 2 and d.old.cash == 0
