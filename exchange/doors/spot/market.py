"""Public market data: what exists, books, trades, candles, tickers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from exchange.doors.spot.candles import INTERVALS, candles, next_start
from exchange.doors.spot.errors import SpotError
from exchange.doors.spot.params import Params
from exchange.doors.spot.values import ONE, ZERO, Listed, Symbols, decimal
from exchange.gateway.rates import Quotas
from exchange.journal.candles import Candle
from exchange.journal.history import History
from exchange.market.engine import Engine
from exchange.market.listing import SLICES_MAX
from orderbook import Trade

MS = 1_000  # microseconds
DEPTH = 100  # levels of a side, if no limit is given
DEPTH_MAX = 5_000
ROWS = 500  # trades and candles, if no limit is given
ROWS_MAX = 1_000
ORDERS_MAX = 1_000_000  # shown where the number of open orders has no limit
WEIGHT_PER_MINUTE = 6_000  # of an address's requests, where limits apply
ORDER_TYPES = (
    *("LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT"),
)
# Modes of self-trade prevention and ours.
STP = {
    "EXPIRE_MAKER": "cancel_oldest",
    "EXPIRE_TAKER": "cancel_newest",
    "EXPIRE_BOTH": "cancel_both",
    "NONE": "none",
}
STP_MODES = {ours: theirs for theirs, ours in STP.items()}


def ms(ts: int) -> int:
    """Return a time in milliseconds."""
    return ts // MS


class Market:
    """Answers about the market as it is now.

    ``now`` returns microseconds since the epoch.
    """

    def __init__(
        self,
        engine: Engine,
        history: History,
        symbols: Symbols,
        quotas: Quotas,
        now: Callable[[], int],
    ) -> None:
        self.symbols = symbols
        self.now = now
        self._engine = engine
        self._history = history
        self._quotas = quotas

    # What exists -------------------------------------------------------------

    def ping(self, params: Params) -> Any:
        """Say that the exchange is there."""
        return {}

    def time(self, params: Params) -> Any:
        """Tell the exchange's time."""
        return {"serverTime": ms(self.now())}

    def info(self, params: Params) -> Any:
        """Describe the symbols and the limits."""
        return {
            "timezone": "UTC",
            "serverTime": ms(self.now()),
            "rateLimits": self.rate_limits(),
            "exchangeFilters": [],
            "symbols": [self._symbol(one) for one in self.chosen(params)],
        }

    def rate_limits(self) -> list[dict[str, Any]]:
        """Return the limits of requests and of orders."""
        limits = [
            {
                "rateLimitType": "REQUEST_WEIGHT",
                "interval": "MINUTE",
                "intervalNum": 1,
                "limit": WEIGHT_PER_MINUTE,
            }
        ]
        rate = self._quotas.rate
        limits.append(
            {
                "rateLimitType": "ORDERS",
                "interval": "SECOND",
                "intervalNum": 1,
                "limit": rate.per_s or ORDERS_MAX,
            }
        )
        return limits

    def chosen(self, params: Params) -> list[Listed]:
        """Return the symbols that a request names; all if it names none."""
        name, names = params.get("symbol"), params.names("symbols")
        if name and names is not None:
            raise SpotError(
                -1128,
                "Combination of optional parameters invalid: symbol, symbols.",
            )
        if name:
            return [self.symbols.find(name)]
        if names is not None:
            return [self.symbols.find(one) for one in dict.fromkeys(names)]
        return [*self.symbols.of.values()]

    def named(self, params: Params) -> Listed:
        """Return the one symbol that a request must name."""
        return self.symbols.find(params.text("symbol"))

    def _symbol(self, listed: Listed) -> dict[str, Any]:
        listing = self._engine.listings[listed.base]
        instrument = listing.instrument
        modes = [mode for mode in STP if mode != "NONE"]
        if instrument.self_trades:
            modes.append("NONE")
        most = self._engine.configured.limits.open_orders or ORDERS_MAX
        tick, lot = decimal(listed.tick), decimal(listed.lot)
        low = max(instrument.min_price, 1)
        return {
            "symbol": listed.name,
            "status": "TRADING" if listing.phase == "open" else "BREAK",
            "baseAsset": listed.base,
            "baseAssetPrecision": 8,
            "quoteAsset": listed.quote,
            "quotePrecision": 8,
            "quoteAssetPrecision": 8,
            "baseCommissionPrecision": 8,
            "quoteCommissionPrecision": 8,
            "orderTypes": [*ORDER_TYPES],
            "icebergAllowed": True,
            "ocoAllowed": False,
            "otoAllowed": False,
            "opoAllowed": False,
            "quoteOrderQtyMarketAllowed": True,
            "allowTrailingStop": False,
            "cancelReplaceAllowed": True,
            "amendAllowed": False,
            "pegInstructionsAllowed": False,
            "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "filters": [
                {
                    "filterType": "PRICE_FILTER",
                    "minPrice": listed.price(instrument.min_price),
                    "maxPrice": listed.price(instrument.max_price),
                    "tickSize": tick,
                },
                {
                    "filterType": "LOT_SIZE",
                    "minQty": lot,
                    "maxQty": listed.qty(instrument.max_qty),
                    "stepSize": lot,
                },
                {
                    "filterType": "MARKET_LOT_SIZE",
                    "minQty": lot,
                    "maxQty": listed.qty(instrument.max_qty),
                    "stepSize": lot,
                },
                {
                    "filterType": "NOTIONAL",
                    "minNotional": listed.cost(low),
                    "applyMinToMarket": False,
                    "maxNotional": listed.cost(
                        max(low, instrument.max_price) * instrument.max_qty
                    ),
                    "applyMaxToMarket": False,
                    "avgPriceMins": 0,
                },
                {"filterType": "ICEBERG_PARTS", "limit": SLICES_MAX},
                {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": most},
                {
                    "filterType": "MAX_POSITION",
                    "maxPosition": listed.qty(
                        instrument.max_position or listing.position_max
                    ),
                },
            ],
            "permissions": [],
            "permissionSets": [["SPOT"]],
            "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
            "allowedSelfTradePreventionModes": modes,
        }

    # Books and trades --------------------------------------------------------

    def depth(self, params: Params) -> Any:
        """Return the top of a book."""
        listed = self.named(params)
        return self.book(listed, params.limit(DEPTH, DEPTH_MAX))

    def book(self, listed: Listed, levels: int) -> dict[str, Any]:
        """Return levels of a book, and the number of its last change."""
        listing = self._engine.listings[listed.base]
        price, qty = listed.price, listed.qty
        return {
            "lastUpdateId": listing.seq,
            "bids": [
                [price(p), qty(q)]
                for p, q in listing.book.depth("buy", levels)
            ],
            "asks": [
                [price(p), qty(q)]
                for p, q in listing.book.depth("sell", levels)
            ],
        }

    def trades(self, params: Params) -> Any:
        """Return the last trades."""
        listed = self.named(params)
        limit = params.limit(ROWS, ROWS_MAX)
        return [
            {
                "id": trade.trade_id,
                "price": listed.price(trade.price),
                "qty": listed.qty(trade.qty),
                "quoteQty": listed.cost(trade.price * trade.qty),
                "time": ms(trade.ts),
                "isBuyerMaker": trade.side == "sell",
                "isBestMatch": True,
            }
            for trade in self._history.trades(listed.base, None, limit)
            if not trade.busted
        ]

    def aggregated(self, params: Params) -> Any:
        """Return trades, each as an aggregate of its own."""
        listed = self.named(params)
        limit = params.limit(ROWS, ROWS_MAX)
        start, end = params.integer("startTime"), params.integer("endTime")
        first = params.integer("fromId")
        rows: Iterable[Trade]
        if first is not None:
            rows = self._history.trades(listed.base, first - 1, limit)
        elif start is not None:
            rows = self._history.trades_since(listed.base, start * MS, limit)
        else:
            rows = self._history.trades(listed.base, None, limit)
        return [
            {
                "a": trade.trade_id,
                "p": listed.price(trade.price),
                "q": listed.qty(trade.qty),
                "f": trade.trade_id,
                "l": trade.trade_id,
                "T": ms(trade.ts),
                "m": trade.side == "sell",
                "M": True,
            }
            for trade in rows
            if not trade.busted and (end is None or ms(trade.ts) <= end)
        ]

    # Candles -----------------------------------------------------------------

    def klines(self, params: Params) -> Any:
        """Return candles, without gaps."""
        listed = self.named(params)
        interval = params.text("interval")
        if interval not in INTERVALS:
            raise SpotError(-1120, "Invalid interval.")
        start, end = params.integer("startTime"), params.integer("endTime")
        rows = candles(
            self._history,
            listed.base,
            interval,
            now=self.now(),
            start=None if start is None else start * MS,
            end=None if end is None else end * MS,
            limit=params.limit(ROWS, ROWS_MAX),
        )
        return [self._kline(listed, interval, row) for row in rows]

    def _kline(self, listed: Listed, interval: str, row: Candle) -> list[Any]:
        start, first, high, low, close, volume = row
        return [
            ms(start),
            listed.price(first),
            listed.price(high),
            listed.price(low),
            listed.price(close),
            listed.qty(volume),
            ms(next_start(start, interval)) - 1,
            listed.cost(close * volume),
            0,
            ZERO,
            ZERO,
            "0",
        ]

    def last_candles(
        self, listed: Listed, interval: str, count: int
    ) -> list[Candle]:
        """Return the last candles; the very last one is running."""
        return candles(
            self._history,
            listed.base,
            interval,
            now=self.now(),
            start=None,
            end=None,
            limit=count,
        )

    # Of the other API --------------------------------------------------------

    def assets(self, params: Params) -> Any:
        """Describe the currency and the instruments as assets."""
        names = [self.symbols.currency, *self.symbols.of]
        return [
            {
                "coin": name,
                "depositAllEnable": False,
                "withdrawAllEnable": False,
                "name": name,
                "free": "0",
                "locked": "0",
                "freeze": "0",
                "withdrawing": "0",
                "ipoing": "0",
                "ipoable": "0",
                "storage": "0",
                "isLegalMoney": name == self.symbols.currency,
                "trading": True,
                "networkList": [],
            }
            for name in names
        ]

    def fees(self, params: Params) -> Any:
        """Return the fees in proportion to the amount, of each symbol."""
        rows = []
        for listed in self.chosen(params):
            instrument = self._engine.listings[listed.base].instrument
            rows.append(
                {
                    "symbol": listed.name,
                    "makerCommission": rate(instrument.maker_fee_bp),
                    "takerCommission": rate(instrument.taker_fee_bp),
                }
            )
        return rows

    def system_status(self, params: Params) -> Any:
        """Say that the exchange works."""
        return {"status": 0, "msg": "normal"}

    def nothing(self, params: Params) -> Any:
        """Return an empty list."""
        return []


def rate(basis_points: int) -> str:
    """Return a rate as a fraction of 1."""
    return decimal(basis_points * ONE // 10_000)
