"""What happens to an account, as its user data stream tells it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic_core import from_json

from exchange.doors.spot.common import Common
from exchange.doors.spot.market import STP_MODES, ms
from exchange.doors.spot.orders import (
    name_of,
    status_of,
    time_in_force_of,
    type_of,
)
from exchange.doors.spot.values import ZERO

EXEC_TYPES = {
    "new": "NEW",
    "triggered": "NEW",
    "trade": "TRADE",
    "amended": "REPLACED",
    "canceled": "CANCELED",
    "expired": "EXPIRED",
}


def events(
    common: Common, name: str, texts: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield what native texts of an account mean, in their order.

    An order that is placed or canceled also changes what is free.
    """
    symbols: dict[str, None] = {}
    for text in texts:
        if text.startswith('{"type":"exec"'):
            report = from_json(text)
            if report["exec_type"] in EXEC_TYPES:
                common.trading.times.note(report["order_id"], report["ts"])
                symbols[report["symbol"]] = None
                yield execution(common, name, report)
        elif text.startswith('{"type":"account"'):
            ts = from_json(text)["ts"]
            yield position(common, name, symbols or common.symbols.of, ts)
            symbols = {}
    if symbols:
        yield position(common, name, symbols, common.engine.ts)


def execution(
    common: Common, name: str, report: dict[str, Any]
) -> dict[str, Any]:
    """Return an ``executionReport``."""
    account = common.engine.accounts[name]
    listed = common.symbols.of[report["symbol"]]
    order_id = report["order_id"]
    own = name_of(account, order_id, report.get("client_order_id"))
    kind = report["exec_type"]
    status = status_of(report)
    word = EXEC_TYPES[kind]
    if kind == "canceled":
        word = {"EXPIRED_IN_MATCH": "TRADE_PREVENTION"}.get(status, status)
    time = ms(report["ts"])
    placed = ms(common.trading.times.of(account, order_id)[0]) or time
    last_price = report.get("last_price")
    last_qty = report.get("last_qty")
    is_working = report["order_status"] != "waiting"
    event = {
        "e": "executionReport",
        "E": common.now_ms(),
        "s": listed.name,
        "c": own,
        "S": report["side"].upper(),
        "o": type_of(report),
        "f": time_in_force_of(report),
        "q": listed.qty(report["qty"]),
        "p": listed.price(report.get("price")),
        "P": listed.price(report.get("trigger_price")),
        "F": listed.qty(report.get("display_qty")),
        "g": -1,
        "C": own if kind == "canceled" else "",
        "x": word,
        "X": status,
        "r": "NONE",
        "i": order_id,
        "l": listed.qty(last_qty),
        "z": listed.qty(report["cum_qty"]),
        "L": listed.price(last_price),
        "n": "0",
        "N": None,
        "T": time,
        "t": report.get("trade_id") or -1,
        "I": report["seq"],
        "w": is_working and bool(report["leaves_qty"]),
        "m": report.get("liquidity") == "maker",
        "M": False,
        "O": placed,
        "Z": listed.cost(report.get("cum_cost", 0)),
        "Y": ZERO,
        "Q": ZERO,
        "V": STP_MODES[report.get("stp", "cancel_oldest")],
    }
    if last_qty is not None and last_price is not None:
        event["Y"] = listed.cost(last_price * last_qty)
        event["n"] = common.symbols.money(report.get("fee") or 0)
        event["N"] = common.symbols.currency
    if is_working:
        event["W"] = placed
    return event


def position(
    common: Common, name: str, bases: Iterable[str], ts: int
) -> dict[str, Any]:
    """Return an ``outboundAccountPosition`` of the currency and instruments.

    It has the balances as they are now.
    """
    account = common.engine.accounts[name]
    symbols = common.symbols
    rows = [
        {
            "a": symbols.currency,
            "f": symbols.money(account.cash - account.reserved),
            "l": symbols.money(account.reserved),
        }
    ]
    for base in bases:
        row = common.trading.balance(account, symbols.of[base])
        rows.append({"a": row["asset"], "f": row["free"], "l": row["locked"]})
    return {
        "e": "outboundAccountPosition",
        "E": common.now_ms(),
        "u": ms(ts),
        "B": rows,
    }
