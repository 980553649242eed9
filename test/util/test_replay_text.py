"""Commands and events in words."""

from __future__ import annotations

from typing import Any

import pytest

from exchange.market.command import Action, BustTrade, Command
from orderbook import (
    AcceptTender,
    Admin,
    Amend,
    Bust,
    Convert,
    News,
    Place,
    Settlement,
    Tender,
)
from util.replay_text import Described, describe_command, describe_event

OFFER: dict[str, Any] = {
    **{"tender_id": "t-1", "symbol": "ETF", "side": "buy", "qty": 5},
    **{"price": 9, "valid_ms": 5_000},
}


@pytest.mark.parametrize(
    "action, text",
    [
        (
            Place(side="buy", qty=5, order_type="stop", trigger_price=105),
            "buy 5 at market stop 105",
        ),
        (
            Place(
                symbol="ETF",
                side="sell",
                qty=5,
                price=-1,
                order_type="stop_limit",
                trigger_price=0,
                display_qty=2,
                stp="none",
            ),
            "sell 5 ETF at -1 stop 0 showing 2 stp none",
        ),
        (
            Amend(order_id=7, trigger_price=0, display_qty=2, expire_ts=1),
            "amend order 7 stop 0 showing 2 until"
            " 1970-01-01T00:00:00.000001Z",
        ),
        (
            Convert(symbol="ETF", side="sell", qty=20, client_order_id="c"),
            "convert sell 20 ETF as c",
        ),
        (AcceptTender(tender_id="t-1"), "accept tender t-1"),
        (
            BustTrade(
                reason="slip",
                symbol="ETF",
                trade_id=7,
                price=9,
                qty=2,
                buyer="ann",
                buy_order_id=1,
                buy_fee=0,
                seller="bob",
                sell_order_id=2,
                sell_fee=0,
            ),
            "admin bust trade 7 of ETF: ann bought 2 from bob at 9"
            " because: slip",
        ),
        (
            Admin(
                action="phase",
                reason="go",
                phase="open",
                close_ms=9_000,
                client_request_id="r-1",
            ),
            "admin set all to open, to close after 9000 ms as r-1"
            " because: go",
        ),
        (
            Admin(action="settle", reason="x", prices={"A": 1, "B": -2}),
            "admin settle A=1 B=-2 because: x",
        ),
        (
            Admin(action="settle", reason="x", symbol="CALL"),
            "admin settle CALL because: x",
        ),
        (
            Admin(
                action="news",
                reason="x",
                headline="rain",
                symbol="ETF",
                value=5,
            ),
            "admin news about ETF: rain (5) because: x",
        ),
        (
            Admin(action="dividend", reason="x", symbol="ETF", amount=-3),
            "admin pay -3 for each lot of ETF because: x",
        ),
        (
            Admin(action="tender", reason="x", **OFFER),
            "admin offer all tender t-1: buy 5 ETF at 9 for 5000 ms"
            " because: x",
        ),
        (
            Admin(action="close_out", reason="x", user="ann", prices={"A": 1}),
            "admin close out ann at A=1 because: x",
        ),
        (
            Admin(action="bust", reason="x", symbol="ETF", trade_id=7),
            "admin bust trade 7 of ETF because: x",
        ),
        (
            Admin(action="reference", reason="x", symbol="ETF", price=0),
            "admin set the reference of ETF to 0 because: x",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_further_command_is_described(action: Action, text: str) -> None:
    assert describe_command(Command(1, 1, "ann", "", action)) == text


@pytest.mark.parametrize(
    "event, text",
    [
        (News(ts=1, news_id=3, headline="rain"), "news 3: rain"),
        (
            News(ts=1, news_id=3, headline="rain", symbol="ETF", value=0),
            "news 3 ETF: rain (0)",
        ),
        (
            Tender(
                ts=1,
                tender_id="t",
                symbol="ETF",
                side="buy",
                qty=5,
                price=9,
                expire_ts=1,
            ),
            "tender t: buy 5 ETF at 9 until 1970-01-01T00:00:00.000001Z",
        ),
        (
            Settlement(
                seq=1, ts=1, symbol="ETF", position=-3, price=9, realized=7
            ),
            "settled -3 ETF at 9; profit 7",
        ),
        (
            Bust(symbol="ETF", seq=1, ts=1, trade_id=7),
            "bust of trade 7 of ETF",
        ),
    ],
)
def test_a_further_event_is_described(event: Described, text: str) -> None:
    assert describe_event(event) == text
