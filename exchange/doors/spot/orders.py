"""Orders: from the parameters of a request, and as clients see them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from exchange.doors.spot.errors import (
    SpotError,
    filtered,
    illegal,
    invalid_order_type,
    missing,
    needless,
)
from exchange.doors.spot.market import ORDER_TYPES, STP, STP_MODES, ms
from exchange.doors.spot.params import Params
from exchange.doors.spot.values import ZERO, Listed, Symbols, read_decimal
from exchange.market.accounts import Account
from exchange.market.command import TaggedPlace
from exchange.market.engine import Engine
from orderbook import Order

REPLY = 1  # the ``id`` of all native requests: one is carried out at a time
TAG_LENGTH = 36
_TAG_SIGNS = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:/-"
)
# The name of an order that came without one, before its number.
UNNAMED = "order-"
SIDES = {"BUY": "buy", "SELL": "sell"}
TIMES = {"GTC": "gtc", "IOC": "ioc", "FOK": "fok"}
RESPONSES = {name: name for name in ("ACK", "RESULT", "FULL")}
KINDS = dict.fromkeys(ORDER_TYPES)
WITH_PRICE = ("LIMIT", "LIMIT_MAKER", "STOP_LOSS_LIMIT")
WITH_TRIGGER = ("STOP_LOSS", "STOP_LOSS_LIMIT")
NATIVE_TYPES = {
    "LIMIT": "limit",
    "LIMIT_MAKER": "limit",
    "MARKET": "market",
    "STOP_LOSS": "stop",
    "STOP_LOSS_LIMIT": "stop_limit",
}
TIMES_SEEN = 100_000  # orders whose last change is remembered
# Parameters of what is not built.
ABSENT = (
    "trailingDelta",
    "pegPriceType",
    "strategyPrice",
    "listClientOrderId",
)
STATUS = {
    "waiting": "NEW",
    "new": "NEW",
    "partially_filled": "PARTIALLY_FILLED",
    "filled": "FILLED",
    "canceled": "CANCELED",
    "expired": "EXPIRED",
}


def check_tag(name: str, tag: str) -> str:
    """Return a client's name of an order; raises SpotError."""
    if not (1 <= len(tag) <= TAG_LENGTH and _TAG_SIGNS.issuperset(tag)):
        raise illegal(
            name, f"legal range is '^[A-Za-z0-9_.:/-]{{1,{TAG_LENGTH}}}$'"
        )
    return tag


class Ticket:
    """A new order as a request describes it: ``place``, and how to answer."""

    def __init__(
        self, engine: Engine, symbols: Symbols, params: Params
    ) -> None:
        self.listed = listed = symbols.find(params.text("symbol"))
        side = params.text("side")
        if side not in SIDES:
            raise illegal("side", "it must be BUY or SELL")
        self.side = SIDES[side]
        kind = params.text("type")
        if kind not in KINDS:
            raise invalid_order_type(kind)
        self.kind = kind
        for name in ABSENT:
            if params.get(name):
                raise needless(name, "this exchange has no such orders")
        self.price = self._price(params, "price", WITH_PRICE)
        trigger_price = self._price(params, "stopPrice", WITH_TRIGGER)
        time_in_force = self._time_in_force(params)
        display_qty = self._display_qty(params, time_in_force)
        self.response = params.word(
            "newOrderRespType",
            RESPONSES,
            "FULL" if kind in ("LIMIT", "MARKET") else "ACK",
        )
        mode = params.get("selfTradePreventionMode") or "EXPIRE_MAKER"
        allowed = engine.listings[listed.base].instrument.self_trades
        if mode not in STP or (mode == "NONE" and not allowed):
            raise illegal(
                "selfTradePreventionMode", "the symbol does not allow it"
            )
        tag = params.get("newClientOrderId")
        qty = self._qty(engine, params)
        self.place = TaggedPlace(
            id=REPLY,
            symbol=listed.base,
            side=self.side,  # type: ignore[arg-type]
            qty=qty,
            price=self.price,
            order_type=NATIVE_TYPES[kind],  # type: ignore[arg-type]
            time_in_force=time_in_force,  # type: ignore[arg-type]
            post_only=kind == "LIMIT_MAKER",
            stp=STP[mode],  # type: ignore[arg-type]
            trigger_price=trigger_price,
            display_qty=display_qty,
            tag=(
                check_tag("newClientOrderId", tag)
                if tag
                else f"{UNNAMED}{engine.order_id + 1}"
            ),
        )

    def _price(
        self, params: Params, name: str, kinds: tuple[str, ...]
    ) -> int | None:
        """Return a price that some types of orders have, and others not."""
        text = params.get(name)
        if self.kind not in kinds:
            if text and read_decimal(name, text):
                raise needless(name, f"a {self.kind} order has none")
            return None
        return self.listed.ticks(name, params.text(name))

    def _time_in_force(self, params: Params) -> str | None:
        """Return how long an order with a limit stays; None: it has none."""
        word = params.get("timeInForce")
        if not word and self.kind == "LIMIT":
            raise missing("timeInForce")
        if word and word not in TIMES:
            raise SpotError(-1115, "Invalid timeInForce.")
        if self.kind not in ("LIMIT", "STOP_LOSS_LIMIT"):
            return None
        return TIMES[word or "GTC"]

    def _display_qty(
        self, params: Params, time_in_force: str | None
    ) -> int | None:
        """Return the lots that an iceberg shows; None: it is none."""
        text = params.get("icebergQty")
        if not text or not read_decimal("icebergQty", text):
            return None
        shown = self.listed.lots("icebergQty", text)
        if self.kind not in WITH_PRICE or time_in_force in ("ioc", "fok"):
            raise needless("icebergQty", "only a GTC limit order has one")
        return shown

    def _qty(self, engine: Engine, params: Params) -> int:
        """Return the lots; those that an amount buys, if that is given."""
        amount = params.get("quoteOrderQty")
        if not amount:
            return self.listed.lots("quantity", params.text("quantity"))
        if self.kind != "MARKET":
            raise needless("quoteOrderQty", "only a MARKET order has one")
        if params.get("quantity"):
            raise needless("quoteOrderQty", "quantity is given too")
        units = read_decimal("quoteOrderQty", amount)
        book = engine.listings[self.listed.base].book
        lots = 0
        one = self.listed.tick * self.listed.lot  # of a tick, in 10**-16
        left = units * 10**8
        for price, qty in book.depth("sell" if self.side == "buy" else "buy"):
            if price <= 0:
                break
            fits = min(qty, left // (price * one))
            lots += fits
            left -= fits * price * one
            if fits < qty:
                break
        if not lots:
            raise filtered("NOTIONAL" if book.orders else "LOT_SIZE")
        return min(lots, engine.listings[self.listed.base].instrument.max_qty)


class OrderTimes:
    """When orders last changed, as far as this process has seen it."""

    def __init__(self) -> None:
        self._seen: OrderedDict[int, tuple[int, int]] = OrderedDict()

    def note(self, order_id: int, ts: int) -> None:
        """Note a report of an order."""
        first = self._seen.get(order_id, (ts, ts))[0]
        self._seen[order_id] = first, ts
        if len(self._seen) > TIMES_SEEN:
            self._seen.popitem(last=False)

    def of(self, account: Account, order_id: int) -> tuple[int, int]:
        """Return when an order was placed, and when it last changed.

        0, of an order of another protocol that was placed before this
        process saw its account.
        """
        first, last = self._seen.get(order_id, (0, 0))
        _, placed = account.tags.by_order.get(order_id, ("", first))
        return placed, max(placed, last)


# What clients see ------------------------------------------------------------


def name_of(account: Account, order_id: int, client_order_id: Any) -> str:
    """Return the client's name of an order."""
    entry = account.tags.by_order.get(order_id)
    if entry is not None:
        return entry[0]
    return client_order_id or f"{UNNAMED}{order_id}"


def type_of(order: Mapping[str, Any]) -> str:
    """Return the type of an order, from the fields of its report."""
    has_price = order.get("price") is not None
    if order.get("trigger_price") is not None:
        return "STOP_LOSS_LIMIT" if has_price else "STOP_LOSS"
    if not has_price:
        return "MARKET"
    return "LIMIT_MAKER" if order.get("post_only") else "LIMIT"


def time_in_force_of(order: Mapping[str, Any]) -> str:
    """Return the time in force, from the fields of a report."""
    if order.get("price") is None:
        return "GTC"
    word: str = order.get("time_in_force", "gtc")
    return word.upper()


def status_of(order: Mapping[str, Any]) -> str:
    """Return the status, from the fields of a report."""
    status = STATUS.get(order["order_status"], "EXPIRED")
    if status != "CANCELED":
        return status
    if order.get("reason") == "stp":
        return "EXPIRED_IN_MATCH"
    if order.get("price") is None or order.get("time_in_force") in (
        "ioc",
        "fok",
    ):
        return "EXPIRED"
    return status


def fields_of(order: Order) -> dict[str, Any]:
    """Return the fields of an order, named as in its reports."""
    return {
        "price": order.price,
        "trigger_price": order.trigger_price,
        "post_only": order.post_only,
        "time_in_force": order.time_in_force,
        "order_status": order.order_status,
    }


def row_of(
    symbols: Symbols, account: Account, order: Order, times: tuple[int, int]
) -> dict[str, Any]:
    """Return an order as a row of a table."""
    listed = symbols.of[order.symbol]
    fields = fields_of(order)
    placed, changed = times
    row: dict[str, Any] = {
        "symbol": listed.name,
        "orderId": order.order_id,
        "orderListId": -1,
        "clientOrderId": name_of(
            account, order.order_id, order.client_order_id
        ),
        "price": listed.price(order.price),
        "origQty": listed.qty(order.qty),
        "executedQty": listed.qty(order.cum_qty),
        "cummulativeQuoteQty": listed.cost(order.cum_cost),
        "status": status_of(fields),
        "timeInForce": time_in_force_of(fields),
        "type": type_of(fields),
        "side": order.side.upper(),
        "stopPrice": listed.price(order.trigger_price),
        "icebergQty": listed.qty(order.display_qty),
        "time": ms(placed),
        "updateTime": ms(changed),
        "isWorking": not order.is_waiting,
        "workingTime": -1 if order.is_waiting else ms(placed),
        "origQuoteOrderQty": ZERO,
        "selfTradePreventionMode": STP_MODES[order.stp],
    }
    return row


def canceled_row(
    symbols: Symbols, account: Account, order: Order, ts: int, new_name: str
) -> dict[str, Any]:
    """Return an order as the answer to its cancel."""
    row = row_of(symbols, account, order, (ts, ts))
    answer = {
        "symbol": row["symbol"],
        "origClientOrderId": row["clientOrderId"],
        "orderId": row["orderId"],
        "orderListId": -1,
        "clientOrderId": new_name or row["clientOrderId"],
        "transactTime": ms(ts),
    }
    for name in (
        *("price", "origQty", "executedQty", "origQuoteOrderQty"),
        *("cummulativeQuoteQty", "status", "timeInForce", "type", "side"),
        "selfTradePreventionMode",
    ):
        answer[name] = row[name]
    answer["status"] = "CANCELED"
    if order.trigger_price is not None:
        answer["stopPrice"] = row["stopPrice"]
    if order.display_qty is not None:
        answer["icebergQty"] = row["icebergQty"]
    return answer


def placed_row(
    symbols: Symbols,
    account: Account,
    order: Order,
    reports: list[dict[str, Any]],
    response: str,
) -> dict[str, Any]:
    """Return the answer to a new order; the first report accepts it."""
    listed: Listed = symbols.of[order.symbol]
    ts = reports[0]["ts"]
    row = row_of(symbols, account, order, (ts, ts))
    answer = {
        "symbol": row["symbol"],
        "orderId": row["orderId"],
        "orderListId": -1,
        "clientOrderId": row["clientOrderId"],
        "transactTime": ms(ts),
    }
    if response == "ACK":
        return answer
    for name in (
        *("price", "origQty", "executedQty", "origQuoteOrderQty"),
        *("cummulativeQuoteQty", "status", "timeInForce", "type", "side"),
        *("workingTime", "selfTradePreventionMode"),
    ):
        answer[name] = row[name]
    if any(
        report.get("reason") == "stp" and report["order_id"] == order.order_id
        for report in reports
    ):
        answer["status"] = "EXPIRED_IN_MATCH"
    if order.trigger_price is not None:
        answer["stopPrice"] = row["stopPrice"]
    if order.display_qty is not None:
        answer["icebergQty"] = row["icebergQty"]
    if response == "FULL":
        answer["fills"] = [
            {
                "price": listed.price(report["last_price"]),
                "qty": listed.qty(report["last_qty"]),
                "commission": symbols.money(report.get("fee") or 0),
                "commissionAsset": symbols.currency,
                "tradeId": report["trade_id"],
            }
            for report in reports
            if report["type"] == "exec"
            and report["exec_type"] == "trade"
            and report["order_id"] == order.order_id
        ]
    return answer
