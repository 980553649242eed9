"""The worked tables of docs/PROTOCOL.md, played on an engine."""

from __future__ import annotations

import re
from typing import Any

import pytest

from exchange.market.engine import Engine
from orderbook import Exec, Trade
from test.script import act, listed, listing
from test.test_docs import PROTOCOL, section, table
from util.measure.naive import at_price

Row = list[str]


def events(engine: Engine, request: str, kind: type[Any]) -> list[Any]:
    """Do what a request says; return its events of one class."""
    found = act(engine, request.strip("`"))
    engine.check()
    return [event for _, event in found if isinstance(event, kind)]


def test_stop_orders_go_as_documented() -> None:
    engine = listed("BOND")
    bond = engine.listings["BOND"]
    for request, trades, last, waiting in table(
        section(PROTOCOL, "Stop orders"), "request"
    ):
        prints = events(engine, request, Trade)
        assert ", ".join(f"{t.qty}@{t.price}" for t in prints) == trades
        assert (str(bond.last) if bond.last else "") == last
        ids = sorted(bond.stops.orders)
        assert ", ".join(map(str, ids)) == waiting, request


def test_icebergs_go_as_documented() -> None:
    engine = listed("BOND")
    book = engine.listings["BOND"].book
    for request, trades, queue, shown in table(
        section(PROTOCOL, "Icebergs"), "request"
    ):
        fills = events(engine, request, Exec)
        met = [
            f"{fill.last_qty} with {fill.order_id}"
            for fill in fills
            if fill.liquidity == "maker"
        ]
        assert ", ".join(met) == trades
        orders = [
            f"{order.order_id}x{order.leaves_qty - order.hidden_qty}"
            + (f"+{order.hidden_qty}" if order.hidden_qty else "")
            for order in book.queue("sell")
        ]
        assert " ".join(orders) == queue, request
        assert book.depth("sell") == ((100, int(shown)),)


AUCTIONS = section(PROTOCOL, "Phases and auctions")


@pytest.mark.parametrize("row", table(AUCTIONS, "lots to buy"))
def test_an_auction_has_the_documented_price(row: Row) -> None:
    to_buy, to_sell, reference, price, _ = row
    known = 0 if reference == "none" else int(reference)
    engine = listed(listing(phase="pre_open", reference_price=known))
    for name, side, lots in (("ann", "buy", to_buy), ("bob", "sell", to_sell)):
        for order in lots.split():
            joins = " auction" if "market" in order else ""
            act(engine, f"{name} {side} {order}{joins}")
    act(engine, "op admin phase open")
    engine.check()
    last = engine.listings["BOND"].last
    assert (str(last) if last is not None else "none") == price


def test_the_long_example_of_an_auction_is_right() -> None:
    lots: list[list[tuple[int, int]]] = [[], []]
    for row in table(AUCTIONS, "order to buy"):
        for side, cell in zip(lots, row, strict=True):
            qty, price = re.findall(r"(\d+) lots at (\d+)", cell)[0]
            side.append((int(price), int(qty)))
    for row in table(AUCTIONS, "at the price"):
        found = at_price(int(row[0]), *lots)
        told = found.price, found.buy, found.sell, found.lots, found.rest
        assert list(map(str, told)) == row
