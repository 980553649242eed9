"""The methods of the dialect: who may call them, and what they weigh.

A method has one name, that of the websocket API; REST paths lead to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from exchange.doors.spot.market import DEPTH, Market
from exchange.doors.spot.params import Params
from exchange.doors.spot.tickers import Tickers
from exchange.doors.spot.trading import Trading

# "none": anybody; "key": whoever has an API key; "signed": whoever signs.
Security: TypeAlias = Literal["none", "key", "signed"]
# Public methods take the parameters, others the account's name before them.
Run: TypeAlias = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Method:
    """One method. A result that is a generator is carried out in steps."""

    name: str
    run: Run
    security: Security = "none"
    weight: int | Callable[[Params], int] = 1

    def weigh(self, params: Params) -> int:
        """Return what a request weighs."""
        if isinstance(self.weight, int):
            return self.weight
        return self.weight(params)


def _by_symbol(one: int, several: int) -> Callable[[Params], int]:
    return lambda params: one if params.get("symbol") else several


def _by_levels(params: Params) -> int:
    text = params.get("limit") or str(DEPTH)
    levels = int(text) if text.isdigit() and len(text) < 9 else DEPTH
    return 5 if levels <= 100 else 25 if levels <= 500 else 50


def methods(
    market: Market, tickers: Tickers, trading: Trading
) -> dict[str, Method]:
    """Return the methods of both APIs, by name."""
    rows = [
        Method("ping", market.ping),
        Method("time", market.time),
        Method("exchangeInfo", market.info, weight=20),
        Method("depth", market.depth, weight=_by_levels),
        Method("trades.recent", market.trades, weight=25),
        Method("trades.historical", market.trades, weight=25),
        Method("trades.aggregate", market.aggregated, weight=4),
        Method("klines", market.klines, weight=2),
        Method("ticker.24hr", tickers.day_tickers, weight=_by_symbol(2, 80)),
        Method("ticker.price", tickers.prices, weight=_by_symbol(2, 4)),
        Method("ticker.book", tickers.tops, weight=_by_symbol(2, 4)),
        Method("order.place", trading.place, "signed"),
        Method("order.test", trading.test, "signed"),
        Method("order.cancel", trading.cancel, "signed"),
        Method("order.status", trading.status, "signed", 4),
        Method("order.cancelReplace", trading.replace, "signed"),
        Method(
            "openOrders.status",
            trading.open_orders,
            "signed",
            _by_symbol(6, 80),
        ),
        Method("openOrders.cancelAll", trading.cancel_open, "signed"),
        Method("allOrders", trading.all_orders, "signed", 20),
        Method("myTrades", trading.fills, "signed", 20),
        Method("account.status", trading.account, "signed", 20),
        Method("sapi.assets", market.assets, weight=10),
        Method("sapi.fees", market.fees),
        Method("sapi.status", market.system_status),
        Method("sapi.nothing", market.nothing),
    ]
    return {method.name: method for method in rows}


# By HTTP method and path.
PATHS = {
    ("GET", "/api/v3/ping"): "ping",
    ("GET", "/api/v3/time"): "time",
    ("GET", "/api/v3/exchangeInfo"): "exchangeInfo",
    ("GET", "/api/v3/depth"): "depth",
    ("GET", "/api/v3/trades"): "trades.recent",
    ("GET", "/api/v3/aggTrades"): "trades.aggregate",
    ("GET", "/api/v3/klines"): "klines",
    ("GET", "/api/v3/ticker/24hr"): "ticker.24hr",
    ("GET", "/api/v3/ticker/price"): "ticker.price",
    ("GET", "/api/v3/ticker/bookTicker"): "ticker.book",
    ("POST", "/api/v3/order"): "order.place",
    ("POST", "/api/v3/order/test"): "order.test",
    ("GET", "/api/v3/order"): "order.status",
    ("DELETE", "/api/v3/order"): "order.cancel",
    ("POST", "/api/v3/order/cancelReplace"): "order.cancelReplace",
    ("GET", "/api/v3/openOrders"): "openOrders.status",
    ("DELETE", "/api/v3/openOrders"): "openOrders.cancelAll",
    ("GET", "/api/v3/allOrders"): "allOrders",
    ("GET", "/api/v3/myTrades"): "myTrades",
    ("GET", "/api/v3/account"): "account.status",
    ("POST", "/api/v3/userDataStream"): "userDataStream.start",
    ("PUT", "/api/v3/userDataStream"): "userDataStream.ping",
    ("DELETE", "/api/v3/userDataStream"): "userDataStream.stop",
    ("GET", "/sapi/v1/capital/config/getall"): "sapi.assets",
    ("GET", "/sapi/v1/margin/allPairs"): "sapi.nothing",
    ("GET", "/sapi/v1/margin/isolated/allPairs"): "sapi.nothing",
    ("GET", "/sapi/v1/asset/tradeFee"): "sapi.fees",
    ("GET", "/sapi/v1/spot/delist-schedule"): "sapi.nothing",
    ("GET", "/sapi/v1/system/status"): "sapi.status",
}
KNOWN_PATHS = frozenset(path for _, path in PATHS)
