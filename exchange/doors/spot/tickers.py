"""Tickers: last prices, best bids and asks, and the last 24 hours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from exchange.doors.spot.candles import DAY
from exchange.doors.spot.market import Market, ms
from exchange.doors.spot.params import Params
from exchange.doors.spot.values import Listed, decimal
from exchange.journal.history import History
from exchange.market.engine import Engine


class Tickers:
    """Answers about prices. ``now`` returns microseconds since the epoch."""

    def __init__(
        self,
        engine: Engine,
        history: History,
        market: Market,
        now: Callable[[], int],
    ) -> None:
        self.now = now
        self._engine = engine
        self._history = history
        self._market = market

    def day(self, listed: Listed) -> dict[str, Any]:
        """Return what happened to a symbol within 24 hours, in its terms."""
        now = self.now()
        listing = self._engine.listings[listed.base]
        _, rows = self._history.candles_since(listed.base, "1m", now - DAY)
        last = self.last_price(listed)
        first = rows[0][1] if rows else last
        volume = sum(row[5] for row in rows)
        quote = sum(row[4] * row[5] for row in rows)
        trades = self._history.trades_since(listed.base, now - DAY, 1)
        first_id = trades[0].trade_id if trades else -1
        last_id = listing.trade_id if trades else -1
        change = last - first
        percent = change * 100_000 // first if first else 0
        average = quote * listed.tick // volume if volume else 0
        bid = listing.book.best("buy") or (None, None)
        ask = listing.book.best("sell") or (None, None)
        return {
            "symbol": listed.name,
            "priceChange": listed.price(change),
            "priceChangePercent": f"{percent / 1_000:.3f}",
            "weightedAvgPrice": decimal(average),
            "prevClosePrice": listed.price(first),
            "lastPrice": listed.price(last),
            "lastQty": self._last_qty(listed),
            "bidPrice": listed.price(bid[0]),
            "bidQty": listed.qty(bid[1]),
            "askPrice": listed.price(ask[0]),
            "askQty": listed.qty(ask[1]),
            "openPrice": listed.price(first),
            "highPrice": listed.price(max((r[2] for r in rows), default=last)),
            "lowPrice": listed.price(min((r[3] for r in rows), default=last)),
            "volume": listed.qty(volume),
            "quoteVolume": listed.cost(quote),
            "openTime": ms(now - DAY),
            "closeTime": ms(now),
            "firstId": first_id,
            "lastId": last_id,
            "count": last_id - first_id + 1 if trades else 0,
        }

    def last_price(self, listed: Listed) -> int:
        """Return the last price, or the reference before the first trade."""
        listing = self._engine.listings[listed.base]
        if listing.last is not None:
            return listing.last
        return listing.known_reference or 0

    def _last_qty(self, listed: Listed) -> str:
        rows = self._history.trades(listed.base, None, 1)
        return listed.qty(rows[0].qty if rows else None)

    def day_tickers(self, params: Params) -> Any:
        """Return the tickers of 24 hours."""
        return self._tickers(params, self.day)

    def prices(self, params: Params) -> Any:
        """Return the last prices."""
        return self._tickers(
            params,
            lambda listed: {
                "symbol": listed.name,
                "price": listed.price(self.last_price(listed)),
            },
        )

    def tops(self, params: Params) -> Any:
        """Return the best bids and asks."""
        return self._tickers(params, self.top)

    def top(self, listed: Listed) -> dict[str, Any]:
        """Return the best bid and ask of a symbol."""
        book = self._engine.listings[listed.base].book
        bid = book.best("buy") or (None, None)
        ask = book.best("sell") or (None, None)
        return {
            "symbol": listed.name,
            "bidPrice": listed.price(bid[0]),
            "bidQty": listed.qty(bid[1]),
            "askPrice": listed.price(ask[0]),
            "askQty": listed.qty(ask[1]),
        }

    def _tickers(
        self, params: Params, ticker: Callable[[Listed], dict[str, Any]]
    ) -> Any:
        """Return one ticker, or a list if not exactly one is asked for."""
        rows = [ticker(listed) for listed in self._market.chosen(params)]
        return rows[0] if params.get("symbol") else rows
