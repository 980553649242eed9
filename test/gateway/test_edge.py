"""An edge shows what its primary shows, and makes no command."""

from __future__ import annotations

import random
from typing import Any

import pytest

from exchange.gateway.edge import READ_ONLY, EdgeGateway
from exchange.gateway.link import Link
from exchange.host.market_file import InstrumentSettings
from exchange.market.command import Configure
from test.support import FOLLOW, SECOND, Floor

FEES = InstrumentSettings(taker_fee=2, maker_fee=-1)
MARKET = Configure(instruments=(FEES.listed_as("BOND"), FEES.listed_as("ETF")))
TABLES: list[dict[str, Any]] = [
    {"type": "get", "what": what, **more}
    for what, more in (
        ("instruments", {}),
        ("book", {"symbol": "BOND"}),
        ("trades", {"symbol": "BOND"}),
        ("candles", {"symbol": "BOND", "interval": "1m"}),
        ("leaderboard", {}),
        ("news", {}),
        ("statuses", {}),
    )
]


class Pair:
    """A primary, and an edge that follows it."""

    def __init__(self) -> None:
        self.primary = Floor(market=MARKET, durable=True)
        self.primary.gateway.commit(10**9)
        self.edge = Floor.__new__(Floor)
        self.edge.clock, self.edge._batches = self.primary.clock, []
        self.edge.gateway = EdgeGateway(self.primary.clock.now)
        self.follow()

    def follow(self) -> None:
        """Let the edge apply what the primary has applied."""
        batch = self.primary.gateway.sequencer.take()
        if batch.commands:
            gateway = self.edge.gateway
            assert isinstance(gateway, EdgeGateway)
            gateway.follow(batch)
            gateway.seal()

    def ask(self, links: tuple[Link, Link], *requests: Any) -> Any:
        """Ask both; return the messages, which must be the same."""
        told = self.primary.do(links[0], *requests)
        assert self.edge.do(links[1], *requests) == told
        return told

    def join(self) -> tuple[Link, Link]:
        """Connect a reader to both."""
        return self.primary.join(), self.edge.join()


@pytest.fixture
def pair() -> Pair:
    return Pair()


def act(chance: random.Random) -> dict[str, Any] | str:
    symbol = chance.choice(["BOND", "ETF"])
    side, price = chance.choice(["buy", "sell"]), chance.randint(95, 105)
    return chance.choice(
        [
            f"{side} {chance.randint(1, 9)}@{price} symbol={symbol}",
            f"{side} {chance.randint(1, 9)}@market symbol={symbol}",
            f"{side} 5@{price} display=2 symbol={symbol}",
            {"type": "cancel_all"},
        ]
    )


def direct(chance: random.Random) -> dict[str, Any]:
    return {
        "type": "admin",
        "reason": "test",
        **chance.choice(
            [
                {"action": "phase", "phase": "auction", "symbol": "ETF"},
                {"action": "phase", "phase": "open"},
                {"action": "phase", "phase": "open", "close_ms": 20_000},
                {"action": "news", "headline": "rain"},
                {"action": "reference", "symbol": "BOND", "price": 99},
                {"action": "adjust", "user": "ann", "cash": 5},
                {"action": "reset"},
            ]
        ),
    }


@pytest.mark.parametrize("seed", range(5))
def test_readers_are_told_the_same_by_both(pair: Pair, seed: int) -> None:
    """Books, trades, tickers, news and tables, with the same numbers."""
    chance = random.Random(seed)
    primary, edge = pair.primary, pair.edge
    traders = [primary.join(user) for user in ("ann", "bob", "cat")]
    boss = primary.join("boss")
    boss.role = "admin"
    pair.follow()
    readers: list[tuple[Link, Link]] = []
    full: set[str] = set()  # tables that had rows
    for _ in range(400):
        primary.clock.ts += chance.randint(1, SECOND)
        if chance.random() < 0.05:
            readers.append(pair.join())
            pair.ask(readers[-1], FOLLOW)
        if chance.random() < 0.05:
            primary.do(boss, direct(chance))
            pair.follow()
        primary.do(chance.choice(traders), act(chance))
        pair.follow()
        if chance.random() < 0.2:
            for floor in (primary, edge):
                floor.gateway.routing.publish_tickers()
                floor.gateway.heartbeat()
                floor.gateway.seal()
        for of_primary, of_edge in readers:
            told = primary.read(of_primary)
            assert edge.read(of_edge) == told
        if readers and chance.random() < 0.05:
            for table in TABLES:
                *_, reply = pair.ask(readers[0], table)
                if reply["data"]:
                    full.add(table["what"])
    assert len(readers) > 3 and full == {table["what"] for table in TABLES}


def test_nobody_logs_in_at_an_edge(pair: Pair) -> None:
    link = pair.edge.join()
    (refusal,) = pair.edge.do(link, {"type": "login", "user": "ann"})
    assert refusal["code"] == "unauthorized"
    assert refusal["message"] == READ_ONLY
    (refusal,) = pair.edge.do(link, "buy 1@100 symbol=BOND")
    assert refusal["code"] == "unauthorized"
    assert pair.edge.seq == pair.primary.seq


def test_time_passes_at_the_edge_by_the_primary_only(pair: Pair) -> None:
    """A deadline that is due waits for the command of the primary."""
    boss = pair.primary.join("boss")
    boss.role = "admin"
    end = {"action": "phase", "phase": "open", "close_ms": 1_000}
    pair.primary.do(boss, {"type": "admin", "reason": "test", **end})
    pair.follow()
    assert pair.primary.gateway.next_deadline is not None
    assert pair.edge.gateway.next_deadline is None
    pair.primary.clock.ts += 2 * SECOND
    reader = pair.edge.join()
    ask = {"type": "get", "what": "instruments"}
    (reply,) = pair.edge.do(reader, ask)
    assert {row["phase"] for row in reply["data"]} == {"open"}
    pair.primary.gateway.pass_time()
    pair.follow()
    *_, reply = pair.edge.do(reader, ask)
    assert {row["phase"] for row in reply["data"]} == {"closed"}


def test_an_edge_ends_without_a_command(pair: Pair) -> None:
    gateway, reader = pair.edge.gateway, pair.edge.join()
    before = pair.edge.seq
    gateway.shut_down()
    gateway.seal()
    assert pair.edge.closings(reader) == [1001]
    assert pair.edge.seq == before
