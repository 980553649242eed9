"""The next day: configuration, and deadlines that fell due meanwhile."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from exchange.gateway.gateway import Gateway
from exchange.host.market_file import InstrumentSettings
from exchange.journal.storage import Batch
from exchange.market.accounts import AccountLimits
from exchange.market.command import Configure, Restart
from test.support import NOON, SECOND, Floor


def restarted(batch: Batch, market: Configure) -> list[Any]:
    """Continue a journal; return the commands that this adds."""
    gateway = Gateway(lambda: NOON, durable=True)
    gateway.replay(batch)
    gateway.begin(market)
    return [c.action for c in gateway.sequencer.take().commands]


def test_a_market_is_configured_again_only_if_it_has_changed() -> None:
    def market(**fields: Any) -> Configure:
        bond = InstrumentSettings(**fields).listed_as("BOND")
        return Configure(instruments=(bond,))

    floor = Floor(market=market(), durable=True)
    floor.join("alice")
    batch = floor.gateway.sequencer.take()
    assert restarted(batch, market()) == [Restart()]
    for changed in (
        market(max_qty=7),
        replace(market(), limits=AccountLimits(cash=7)),
        replace(market(), accounts={"alice": AccountLimits()}),
    ):
        assert restarted(batch, changed) == [Restart(), changed]


JUMPY = InstrumentSettings(reference_price=100, band=5, auction_s=4)
STAY = {"cancel_on_disconnect": False}
GTD = f"gtd until={NOON + 2 * SECOND}"


def jumpy(**fields: Any) -> Configure:
    """Return a market where a trade beyond 5 from 100 starts an auction."""
    settings = JUMPY.model_copy(update=fields)
    return Configure(instruments=(settings.listed_as("BOND"),))


def after_a_crash(
    floor: Floor, down_s: int, market: Configure
) -> tuple[list[str], list[tuple[str, str]]]:
    """Continue the journal of a floor after some time.

    Return what is journaled, and what became of the orders: in which state,
    and why, by the account that is told.
    """
    later = floor.clock.now() + down_s * SECOND
    gateway = Gateway(lambda: later, durable=True)
    gateway.replay(floor.gateway.sequencer.take())
    seq = {name: a.seq for name, a in gateway.engine.accounts.items()}
    gateway.begin(market)
    actions = [c.action.type for c in gateway.sequencer.take().commands]
    told = []
    for name, account in gateway.engine.accounts.items():
        for text in (
            gateway.history.events_since(name, seq[name], account.seq) or ()
        ):
            event = json.loads(text)
            if event["type"] == "exec":
                told.append((event["exec_type"], event.get("reason", "")))
    return actions, told


@pytest.mark.parametrize("down_s", [0, 6])
@pytest.mark.parametrize("is_new", [False, True])
def test_connections_end_before_an_auction_that_ended_meanwhile(
    down_s: int, is_new: bool
) -> None:
    floor = Floor(market=jumpy(), durable=True)
    floor.do(floor.join("maker"), "sell 10@110")
    floor.do(floor.join("taker"), "buy 10@110")
    assert floor.gateway.engine.listings["BOND"].phase == "auction"
    market = jumpy(max_qty=7) if is_new else jumpy()
    actions, told = after_a_crash(floor, down_s, market)
    assert actions == [
        "restart",
        *(["tick"] if down_s else []),
        *(["configure"] if is_new else []),
    ]
    assert told == [("canceled", "disconnect")] * 2


def test_orders_that_outlive_their_connection_trade_meanwhile() -> None:
    floor = Floor(market=jumpy(), durable=True)
    floor.do(floor.join("maker", **STAY), "sell 10@110")
    floor.do(floor.join("taker", **STAY), "buy 10@110")
    actions, told = after_a_crash(floor, 6, jumpy())
    assert actions == ["restart", "tick"]
    assert told == [("trade", "")] * 2


def test_connections_end_before_a_phase_that_was_to_end_meanwhile() -> None:
    """A phase that an administrator began with ``reopen_ms``."""
    floor = Floor(market=jumpy(phase="auction", band=0), durable=True)
    boss = floor.join("boss")
    boss.role = "admin"
    reopen = {"phase": "auction", "symbol": "BOND", "reopen_ms": 2_000}
    request = {"type": "admin", "action": "phase", "reason": "r", **reopen}
    floor.do(boss, request)
    assert floor.gateway.engine.next_deadline is not None
    floor.do(floor.join("maker"), "sell 10@110")
    floor.do(floor.join("taker"), "buy 10@110")
    actions, told = after_a_crash(floor, 6, jumpy(phase="auction", band=0))
    assert actions == ["restart", "tick"]
    assert told == [("canceled", "disconnect")] * 2


def test_connections_end_before_what_else_was_due_meanwhile() -> None:
    floor = Floor(market=jumpy(), durable=True)
    stay, leave = floor.join("alice", **STAY), floor.join("alice")
    switch = {"type": "cancel_after", "timeout_ms": 3_000}
    floor.do(stay, f"buy 1@90 {GTD}", "buy 1@91", switch)
    floor.do(leave, f"buy 1@92 {GTD}", "buy 1@93")
    actions, told = after_a_crash(floor, 6, jumpy())
    assert actions == ["restart", "tick"]
    assert told == [
        *[("canceled", "disconnect")] * 2,
        ("expired", "gtd"),
        ("canceled", "cancel_after"),
    ]
