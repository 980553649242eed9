"""A Gymnasium environment: an agent that trades in a simulation.

``TradingEnv`` wraps `util.simulate.Simulation`: the exchange, house bots, bots
and recorded orders, in virtual time. It needs the package gymnasium.
"""

from __future__ import annotations

from collections import deque
from typing import Any, TypeAlias

from client import Exchange, ExchangeError, Market
from orderbook import MAX_INT, Refused, Trade
from util.simulate import Simulation

try:
    import gymnasium
    import numpy as np
    from gymnasium import spaces
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"util.gym needs {error.name}, which is not installed;"
        " run: pip install gymnasium",
        name=error.name,
    ) from None

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
Observation: TypeAlias = dict[str, Array]

NOTHING, ORDER, QUOTE, WITHDRAW = range(4)  # action[0]
BUY = 0  # action[1]; 1 is to sell
SIDES = {"buy": 1, "sell": -1}  # of a trade, as observed
OPENING_S = 2.0  # market time in which house bots begin, before the first step


class TradingEnv(gymnasium.Env[Observation, Array]):
    """One account in a market with one instrument.

    A step is ``step_s`` of market time, and an episode ``seconds``. ``levels``
    and ``trades`` say how much of the book and of the last trades is observed,
    ``max_qty`` is the most lots of an order or a quote, and ``ticks`` how far
    from the middle its price may be. Requests take ``latency``. ``bots`` are
    files of other bots, and all other options are those of `Simulation`.

    The observation has whole numbers, and zeros where there is nothing:
    ``bids`` and ``asks`` have price and quantity of each level, the best
    first; ``trades`` have price, quantity and side (1: the buyer arrived, -1:
    the seller), the newest first; ``position`` is in lots, ``cash`` in units.

    An action is five numbers: kind, side, quantity - 1, price and width.

    * 0 does nothing; a quote stays.
    * 1 is an order to buy (side 0) or to sell (1). Its price is that many
      ticks above the lowest one, which is ``ticks`` below the middle. What
      is not filled at once is canceled.
    * 2 is a quote on both sides of that price, ``width`` + 1 ticks from it. It
      replaces the quote before.
    * 3 withdraws the quote.

    The reward is the change of equity. ``info`` has the market time in seconds
    and ``refused``, the code of a refusal or "". `reset` with a seed gives the
    same episode again.
    """

    metadata = {"render_modes": []}

    def __init__(
        self,
        *bots: str,
        symbol: str = "BOND",
        seconds: float = 300.0,
        step_s: float = 1.0,
        levels: int = 5,
        trades: int = 10,
        max_qty: int = 10,
        ticks: int = 5,
        user: str = "agent",
        latency: str = "1ms",
        **options: Any,
    ) -> None:
        self._shapes: dict[str, tuple[int, ...]] = {
            "bids": (levels, 2),
            "asks": (levels, 2),
            "trades": (trades, 3),
            "position": (1,),
            "cash": (1,),
        }
        observed: Any = spaces.Dict(
            {
                name: spaces.Box(-MAX_INT, MAX_INT, shape, np.int64)
                for name, shape in self._shapes.items()
            }
        )
        self.observation_space = observed
        self.action_space = spaces.MultiDiscrete(
            [4, 2, max_qty, 2 * ticks + 1, ticks + 1]
        )
        self._bots, self._options = bots, options
        self._symbol, self._user, self._latency = symbol, user, latency
        self._seconds, self._step_s = seconds, step_s
        self._levels, self._ticks = levels, ticks
        self._trades: deque[Trade] = deque(maxlen=trades)
        self._simulation: Simulation | None = None
        self._exchange: Exchange
        self._market: Market
        self._equity = 0
        self._ends = 0.0  # of the last step, in seconds of market time

    def reset(
        self,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        self.close()
        if seed is None:
            seed = int(self.np_random.integers(2**32))
        simulation = self._simulation = Simulation(
            *self._bots, seed=seed, **self._options
        )
        self._trades.clear()
        simulation.run_until(
            simulation.inject(
                self._enter(), name=self._user, latency=self._latency
            )
        )
        simulation.inject(self._watch(), name=self._user)
        self._ends = OPENING_S
        simulation.run_until(self._ends)
        self._equity = self._exchange.equity
        return self._observation(), self._info("")

    def step(
        self, action: Array
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Act, and let the market go on to the end of the step."""
        simulation = self._simulation
        if simulation is None:
            raise RuntimeError("call reset() before step()")
        refused = simulation.run_until(
            simulation.inject(self._act(*map(int, action)), name=self._user)
        )
        self._ends += self._step_s
        simulation.run_until(max(self._ends, simulation.time))
        before, self._equity = self._equity, self._exchange.equity
        return (
            self._observation(),
            float(self._equity - before),
            False,
            self._ends - OPENING_S >= self._seconds,
            self._info(refused or ""),
        )

    def close(self) -> None:
        """Stop the market."""
        if self._simulation is not None:
            self._simulation.close()
            self._simulation = None

    # Within

    async def _enter(self) -> None:
        self._exchange = Exchange(user=self._user)
        await self._exchange.connect()
        self._market = await self._exchange.market(self._symbol)

    async def _watch(self) -> None:
        async for trade in self._market.trades():
            self._trades.appendleft(trade)

    async def _act(
        self, kind: int, side: int, qty: int, price: int, width: int
    ) -> str:
        """Carry out an action; return the code of its refusal, or ""."""
        market = self._market
        price += self._middle() - self._ticks
        try:
            if kind == ORDER:
                send = market.buy if side == BUY else market.sell
                await send(qty + 1, self._bounded(price), time_in_force="ioc")
            elif kind == QUOTE:
                bid = self._bounded(price - width - 1)
                ask = self._bounded(price + width + 1)
                await market.quote(bid, ask, qty + 1)
            elif kind == WITHDRAW:
                await market.quote(None, None, 1)
        except Refused as refusal:
            return refusal.code
        except ExchangeError as error:  # the exchange does not answer
            return type(error).__name__
        return ""

    def _middle(self) -> int:
        """Return the middle of the book, or the price that is nearest."""
        market = self._market
        bid, ask = market.book.bid, market.book.ask
        if bid is not None and ask is not None:
            return (bid + ask) // 2
        for price in (bid, ask, market.last):
            if price is not None:
                return price
        return market.instrument.reference_price

    def _bounded(self, price: int) -> int:
        instrument = self._market.instrument
        return min(max(price, instrument.min_price), instrument.max_price)

    def _observation(self) -> Observation:
        book = self._market.book
        rows: dict[str, Any] = {
            "bids": book.bids[: self._levels],
            "asks": book.asks[: self._levels],
            "trades": [(t.price, t.qty, SIDES[t.side]) for t in self._trades],
            "position": [self._market.position],
            "cash": [self._exchange.cash],
        }
        observation = {}
        for name, shape in self._shapes.items():
            observation[name] = np.zeros(shape, np.int64)
            if found := rows[name]:
                observation[name][: len(found)] = found
        return observation

    def _info(self, refused: str) -> dict[str, Any]:
        assert self._simulation is not None
        return {"time": self._simulation.time, "refused": refused}


gymnasium.register("Exchange-v0", "util.gym:TradingEnv")
