"""What all links of the dialect share."""

from __future__ import annotations

from collections.abc import Callable

from exchange.doors.spot.market import Market
from exchange.doors.spot.methods import methods
from exchange.doors.spot.signatures import Signatures
from exchange.doors.spot.tickers import Tickers
from exchange.doors.spot.trading import Trading
from exchange.doors.spot.values import Symbols
from exchange.doors.spot.weights import Weights
from exchange.gateway.gateway import Gateway
from exchange.gateway.logins import Keys
from orderbook import Code


class Common:
    """The market, the methods and the limits.

    ``now`` returns microseconds since the epoch, ``elapsed`` counts real
    ones. ``keys`` None: a name is enough.
    """

    def __init__(
        self,
        gateway: Gateway,
        symbols: Symbols,
        keys: Keys | None,
        now: Callable[[], int],
        elapsed: Callable[[], int],
    ) -> None:
        self.engine = gateway.engine
        self.logins = gateway.logins
        self.outbox = gateway.outbox
        self.symbols = symbols
        self.signatures = Signatures(keys)
        quotas = gateway.limiter.quotas
        self.weights = Weights(bool(quotas.rate.per_s))
        self.market = Market(
            gateway.engine, gateway.history, symbols, quotas, now
        )
        self.tickers = Tickers(
            gateway.engine, gateway.history, self.market, now
        )
        self.trading = Trading(
            gateway.engine, gateway.history, self.market, now
        )
        self.methods = methods(self.market, self.tickers, self.trading)
        self._gateway = gateway
        self._now = now
        self._elapsed = elapsed

    def now_ms(self) -> int:
        """Return the exchange's time in milliseconds."""
        return self._now() // 1_000

    def charge(self, whose: str, weight: int) -> int:
        """Add a weight; return what was used. Raises SpotError."""
        return self.weights.charge(whose, weight, self._elapsed() // 1_000)

    def count_refusal(self, code: Code) -> None:
        """Count a request that the door refused by itself."""
        self._gateway.routing.refusals[code] += 1

    def publish(self) -> None:
        """Publish what happened, so that a new reader misses nothing."""
        self._gateway.routing.publish()
