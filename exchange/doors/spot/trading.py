"""What an account asks for and does: orders, cancels, its tables.

A request that changes something is a generator: it yields native requests,
one after the other, and gets the reports of each, the reply first. What it
returns is the answer. It raises SpotError if it is refused.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeAlias

from pydantic_core import from_json

from exchange.doors.spot.errors import (
    SpotError,
    missing,
    no_order,
    of_native,
    unknown_order,
)
from exchange.doors.spot.market import ROWS, ROWS_MAX, Market, ms, rate
from exchange.doors.spot.orders import (
    REPLY,
    UNNAMED,
    OrderTimes,
    Ticket,
    canceled_row,
    check_tag,
    placed_row,
    row_of,
)
from exchange.doors.spot.params import Params
from exchange.doors.spot.values import Listed
from exchange.journal.history import History, as_text
from exchange.market.accounts import Account
from exchange.market.engine import Engine
from orderbook import Cancel, CancelAll, Order, Request

Reports: TypeAlias = list[dict[str, Any]]
Steps: TypeAlias = Generator[Request, Reports, Any]
_REPLACE_MODES = {
    "STOP_ON_FAILURE": False,
    "ALLOW_FAILURE": True,
}
_RESTRICTIONS = {
    "": ("NEW", "PARTIALLY_FILLED"),
    "ONLY_NEW": ("NEW",),
    "ONLY_PARTIALLY_FILLED": ("PARTIALLY_FILLED",),
}


class Trading:
    """Requests of accounts. ``now`` returns microseconds since the epoch."""

    def __init__(
        self,
        engine: Engine,
        history: History,
        market: Market,
        now: Callable[[], int],
    ) -> None:
        self.times = OrderTimes()
        self._engine = engine
        self._history = history
        self._market = market
        self._symbols = market.symbols
        self._now = now

    # Orders ------------------------------------------------------------------

    def place(self, name: str, params: Params) -> Steps:
        """Place an order."""
        ticket = Ticket(self._engine, self._symbols, params)
        return (yield from self._place(name, ticket))

    def _place(self, name: str, ticket: Ticket) -> Steps:
        reports = yield ticket.place
        reply = reports[0]
        if reply["type"] == "error":
            listing = self._engine.listings[ticket.listed.base]
            raise of_native(
                reply, listing.instrument, ticket.side, ticket.price
            )
        account = self._engine.accounts[name]
        order = account.orders[reply["order_id"]]
        for report in reports:
            if report["type"] == "exec":
                self.times.note(report["order_id"], report["ts"])
        return placed_row(
            self._symbols, account, order, reports, ticket.response
        )

    def test(self, name: str, params: Params) -> Any:
        """Check the parameters of an order, and place none."""
        Ticket(self._engine, self._symbols, params)
        return {}

    def status(self, name: str, params: Params) -> Any:
        """Return one order."""
        account, listed = self._account(name), self._market.named(params)
        order = self._find(account, listed, params)
        if order is None:
            raise no_order()
        return self._row(account, order)

    def cancel(self, name: str, params: Params) -> Steps:
        """Cancel one order."""
        listed = self._market.named(params)
        new_name = params.get("newClientOrderId") or ""
        if new_name:
            check_tag("newClientOrderId", new_name)
        statuses = params.word("cancelRestrictions", _RESTRICTIONS, "")
        order = self._open_order(self._account(name), listed, params)
        row = self._row(self._account(name), order)
        if row["status"] not in statuses:
            raise SpotError(
                -2011,
                "Order was not canceled due to cancel restrictions.",
            )
        return (yield from self._cancel(name, order, new_name))

    def _cancel(self, name: str, order: Order, new_name: str) -> Steps:
        reports = yield Cancel(id=REPLY, order_id=order.order_id)
        reply = reports[0]
        if reply["type"] == "error":
            raise of_native(reply)
        self.times.note(order.order_id, reply["ts"])
        return canceled_row(
            self._symbols,
            self._engine.accounts[name],
            order,
            reply["ts"],
            new_name,
        )

    def cancel_open(self, name: str, params: Params) -> Steps:
        """Cancel all open orders of a symbol."""
        listed = self._market.named(params)
        account = self._account(name)
        orders = self._open_of(account, listed)
        if not orders:
            raise unknown_order()
        reports = yield CancelAll(id=REPLY, symbol=listed.base)
        reply = reports[0]
        if reply["type"] == "error":
            raise of_native(reply)
        return [
            canceled_row(self._symbols, account, order, reply["ts"], "")
            for order in orders
        ]

    def replace(self, name: str, params: Params) -> Steps:
        """Cancel an order, and place another one."""
        mode = params.get("cancelReplaceMode")
        if not mode:
            raise missing("cancelReplaceMode")
        goes_on = params.word("cancelReplaceMode", _REPLACE_MODES, mode)
        ticket = Ticket(self._engine, self._symbols, params)
        old = Params(symbol=params["symbol"])
        if params.get("cancelOrderId"):
            old["orderId"] = params["cancelOrderId"]
        if params.get("cancelOrigClientOrderId"):
            old["origClientOrderId"] = params["cancelOrigClientOrderId"]
        if params.get("cancelNewClientOrderId"):
            old["newClientOrderId"] = params["cancelNewClientOrderId"]
        if params.get("cancelRestrictions"):
            old["cancelRestrictions"] = params["cancelRestrictions"]
        answer: dict[str, Any] = {
            "cancelResult": "SUCCESS",
            "newOrderResult": "NOT_ATTEMPTED",
            "cancelResponse": None,
            "newOrderResponse": None,
        }
        try:
            answer["cancelResponse"] = yield from self.cancel(name, old)
        except SpotError as error:
            answer["cancelResult"] = "FAILURE"
            answer["cancelResponse"] = error.body
        is_canceled = answer["cancelResult"] == "SUCCESS"
        if is_canceled or goes_on:
            try:
                answer["newOrderResponse"] = yield from self._place(
                    name, ticket
                )
                answer["newOrderResult"] = "SUCCESS"
            except SpotError as error:
                answer["newOrderResult"] = "FAILURE"
                answer["newOrderResponse"] = error.body
        if is_canceled and answer["newOrderResult"] == "SUCCESS":
            return answer
        if is_canceled or answer["newOrderResult"] == "SUCCESS":
            raise SpotError(
                -2021, "Order cancel-replace partially failed.", data=answer
            )
        raise SpotError(-2022, "Order cancel-replace failed.", data=answer)

    # Tables ------------------------------------------------------------------

    def open_orders(self, name: str, params: Params) -> Any:
        """Return the open orders, all or of a symbol."""
        account = self._account(name)
        listed = self._market.named(params) if params.get("symbol") else None
        return [
            self._row(account, order)
            for order in self._open_of(account, listed)
        ]

    def all_orders(self, name: str, params: Params) -> Any:
        """Return orders of a symbol, open and finished."""
        account, listed = self._account(name), self._market.named(params)
        limit = params.limit(ROWS, ROWS_MAX)
        first = params.integer("orderId")
        start, end = params.integer("startTime"), params.integer("endTime")
        rows = []
        orders = sorted(
            (o for o in account.orders.values() if o.symbol == listed.base),
            key=lambda order: order.order_id,
        )
        for order in orders:
            if first is not None and order.order_id < first:
                continue
            placed = ms(self.times.of(account, order.order_id)[0])
            if start is not None and placed < start:
                continue
            if end is not None and placed > end:
                continue
            rows.append(order)
        is_forward = first is not None or start is not None
        chosen = rows[:limit] if is_forward else rows[-limit:]
        return [self._row(account, order) for order in chosen]

    def fills(self, name: str, params: Params) -> Any:
        """Return the account's own trades of a symbol."""
        account, listed = self._account(name), self._market.named(params)
        limit = params.limit(ROWS, ROWS_MAX)
        first = params.integer("fromId")
        start, end = params.integer("startTime"), params.integer("endTime")
        order_id = params.integer("orderId")
        found: list[dict[str, Any]] = []
        is_forward = first is not None or start is not None
        for fill in self._fills(account, listed, order_id):
            time = ms(fill["ts"])
            if first is not None and fill["trade_id"] < first:
                break
            if start is not None and time < start:
                break
            if end is not None and time > end:
                continue
            found.append(fill)
            if len(found) == limit and not is_forward:
                break
        found.reverse()  # they came from the newest on
        return [self._fill(listed, fill) for fill in found[:limit]]

    def _fills(
        self, account: Account, listed: Listed, order_id: int | None
    ) -> Iterator[dict[str, Any]]:
        """Yield fills of a symbol, newest first."""
        mark = f'"order_id":{order_id},'
        for _, symbol, fill in reversed(
            self._history.account(account.name).fills
        ):
            if symbol != listed.base:
                continue
            text = as_text(fill)
            if order_id is None or mark in text:
                report: dict[str, Any] = from_json(text)
                if not report.get("busted"):
                    yield report

    def _fill(self, listed: Listed, fill: dict[str, Any]) -> dict[str, Any]:
        return {
            "symbol": listed.name,
            "id": fill["trade_id"],
            "orderId": fill["order_id"],
            "orderListId": -1,
            "price": listed.price(fill["last_price"]),
            "qty": listed.qty(fill["last_qty"]),
            "quoteQty": listed.cost(fill["last_price"] * fill["last_qty"]),
            "commission": self._symbols.money(fill.get("fee") or 0),
            "commissionAsset": self._symbols.currency,
            "time": ms(fill["ts"]),
            "isBuyer": fill["side"] == "buy",
            "isMaker": fill.get("liquidity") == "maker",
            "isBestMatch": True,
        }

    def account(self, name: str, params: Params) -> Any:
        """Return balances and rights."""
        account = self._account(name)
        instruments = [x.instrument for x in self._engine.listings.values()]
        maker = max(i.maker_fee_bp for i in instruments)
        taker = max(i.taker_fee_bp for i in instruments)
        balances = self.balances(account)
        if params.boolean("omitZeroBalances"):
            balances = [
                row
                for row in balances
                if float(row["free"]) or float(row["locked"])
            ]
        return {
            "makerCommission": maker,
            "takerCommission": taker,
            "buyerCommission": 0,
            "sellerCommission": 0,
            "commissionRates": {
                "maker": rate(maker),
                "taker": rate(taker),
                "buyer": rate(0),
                "seller": rate(0),
            },
            "canTrade": account.may_trade,
            "canWithdraw": False,
            "canDeposit": False,
            "brokered": False,
            "requireSelfTradePrevention": False,
            "preventSor": False,
            "updateTime": ms(self._engine.ts),
            "accountType": "SPOT",
            "balances": balances,
            "permissions": ["SPOT"],
            "uid": zlib.crc32(name.encode()),
        }

    def balances(self, account: Account) -> list[dict[str, str]]:
        """Return what is free and locked of the currency and of each asset."""
        symbols = self._symbols
        rows = [
            {
                "asset": symbols.currency,
                "free": symbols.money(account.cash - account.reserved),
                "locked": symbols.money(account.reserved),
            }
        ]
        rows += [
            self.balance(account, listed) for listed in symbols.of.values()
        ]
        return rows

    def balance(self, account: Account, listed: Listed) -> dict[str, str]:
        """Return what is free and locked of one instrument.

        A short position is below zero.
        """
        selling = account.selling.get(listed.base, 0)
        position = account.positions.get(listed.base, 0)
        return {
            "asset": listed.base,
            "free": listed.qty(position - selling),
            "locked": listed.qty(selling),
        }

    # Within ------------------------------------------------------------------

    def _account(self, name: str) -> Account:
        return self._engine.accounts[name]

    def _row(self, account: Account, order: Order) -> dict[str, Any]:
        times = self.times.of(account, order.order_id)
        return row_of(self._symbols, account, order, times)

    def _open_of(self, account: Account, listed: Listed | None) -> list[Order]:
        return [
            order
            for order in account.open_orders.values()
            if listed is None or order.symbol == listed.base
        ]

    def _open_order(
        self, account: Account, listed: Listed, params: Params
    ) -> Order:
        """Return an open order that is to be canceled; raises SpotError."""
        order = self._find(account, listed, params)
        if order is None or not order.is_open:
            raise unknown_order()
        return order

    def _find(
        self, account: Account, listed: Listed, params: Params
    ) -> Order | None:
        """Return the order that a request names, by number or by name."""
        order_id = params.integer("orderId")
        name = params.get("origClientOrderId")
        if order_id is None and not name:
            raise SpotError(
                -1102,
                "Param 'origClientOrderId' or 'orderId' must be sent, but both"
                " were empty/null!",
            )
        if order_id is None:
            assert name is not None
            order_id = account.tags.newest.get(name)
        if order_id is None and name in account.by_client_order_id:
            order_id = account.by_client_order_id[name].order_id
        if order_id is None and name and name.startswith(UNNAMED):
            number = name[len(UNNAMED) :]
            if number.isascii() and number.isdigit() and len(number) < 18:
                order_id = int(number)
        order = account.orders.get(order_id or 0)
        return order if order and order.symbol == listed.base else None
