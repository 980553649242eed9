"""Run house bots: connect them, let them trade, and disconnect them.

What all bots share is here: to wait and try again after a refusal or a lost
connection, and to cancel the orders at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Literal, TypeAlias

from client import (
    Exchange,
    ExchangeError,
    Market,
    Unauthorized,
    UnknownSymbol,
)
from orderbook import Instrument, Refused

from ..cli import print_result
from .arbitrage import arbitrage
from .derivative import make_derived_market
from .informed import trade_on_knowledge
from .maker import make_market
from .model import basket_value, derived_value, seconds_left
from .noise import trade_at_random
from .value import FairValue, fair_values, mean_of

PAUSE_S = 1.0  # after a refusal or a loss; the client itself reconnects
LEAVE_S = 3.0  # for each of the last requests; a person waits for the prompt
NO_TRADING = ("pre_open", "halted", "closed")  # phases without trades
FINAL = (Unauthorized, UnknownSymbol)  # a retry cannot succeed

DERIVATIVES = ("future", "call", "put")
Kind: TypeAlias = Literal["maker", "noise", "informed", "arbitrageur"]
Worth: TypeAlias = Callable[[], int]  # the fair value of now, in ticks
Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class BadPlan(Exception):
    """The plan does not fit the instruments that are listed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which bots trade which instruments.

    ``values`` holds the mean of the fair value in ticks by symbol, and under
    "" that of all other instruments; ``speed`` is how often per second of the
    exchange's time each bot acts on each instrument. Empty ``symbols`` mean
    all instruments listed; ``tokens`` holds the keys of the bots by name, if
    the exchange asks for keys. ``now`` returns the exchange's time in
    microseconds; None: as the bots' clients know it.
    """

    url: str | None
    symbols: Sequence[str]
    makers: int
    noise: int
    informed: int
    arbitrageurs: int
    values: Mapping[str, int]
    seed: int
    speed: float
    user_prefix: str
    tokens: dict[str, str]
    now: Callable[[], int] | None = None

    def mean(self, instrument: Instrument) -> int:
        """Return the mean of an instrument's fair value; raises BadPlan."""
        wanted = self.values.get(instrument.symbol, self.values.get(""))
        mean = mean_of(instrument, wanted)
        if instrument.symbol in self.values and mean != wanted:
            raise BadPlan(
                f"--value {instrument.symbol}={wanted}: must lie between"
                f" {instrument.min_price} and {instrument.max_price}"
            )
        return mean

    def names(self) -> list[tuple[Kind, str]]:
        """Return the kind and the name of each bot."""
        kinds: tuple[tuple[Kind, int], ...] = (
            ("maker", self.makers),
            ("noise", self.noise),
            ("informed", self.informed),
            ("arbitrageur", self.arbitrageurs),
        )
        return [
            (kind, f"{self.user_prefix}{kind}-{number}")
            for kind, count in kinds
            for number in range(1, count + 1)
        ]


@dataclass(slots=True)
class Bot:
    """One connected account of the house; equities in units of money."""

    kind: Kind
    name: str
    exchange: Exchange
    equity_before: int
    equity: int
    codes_printed: set[str] = field(default_factory=set)

    def report_refusal(self, refusal: Refused) -> None:
        """Print why the bot pauses; each code only once."""
        if refusal.code not in self.codes_printed:
            self.codes_printed.add(refusal.code)
            print(f"{self.name}: {refusal.code}: {refusal}", file=sys.stderr)

    def report(self) -> str:
        """Return the result of the bot as a line."""
        lots = ", ".join(
            f"{symbol} {position}"
            for symbol, position in sorted(self.exchange.positions.items())
        )
        profit = self.equity - self.equity_before
        return f"{self.name}: position {lots or 'none'}, profit {profit}"


async def run_house(
    plan: Plan, say: Callable[[str], None] = print_result
) -> None:
    """Let the bots trade until canceled; then cancel their orders.

    Says a line at the start, and at the end one for each bot and one for
    each instrument with its fair value. Raises BadPlan, and ExchangeError or
    Refused if a login is refused.
    """
    async with AsyncExitStack() as stack:
        bots = [
            await _connect(stack, plan, kind, name)
            for kind, name in plan.names()
        ]
        works, values = await _assign(plan, bots)
        say(
            f"{len(bots)} house bots trade with --seed {plan.seed};"
            " Ctrl-C stops them"
        )
        tasks = [asyncio.create_task(work()) for work in works]
        try:
            await asyncio.gather(*tasks)  # ends only by an exception
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            # All cancel first: later trades would change equities.
            await asyncio.gather(*(_cancel_orders(bot) for bot in bots))
            await asyncio.gather(*(_count_equity(bot) for bot in bots))
            for bot in bots:
                say(bot.report())
            for symbol, worth in values.items():
                say(f"{symbol}: worth {worth()}")


async def keep_trading(bot: Bot, market: Market, trade: Work) -> None:
    """Let a bot trade, again after each temporary refusal or lost connection.

    After a refusal it pauses in the exchange's time. The phase of an
    instrument follows `status` messages, and the welcome after a lost
    connection.
    """
    while True:
        try:
            await trade()
        except FINAL:
            raise
        except Refused as refusal:
            bot.report_refusal(refusal)
            retry_after_ms = getattr(refusal, "retry_after_ms", None) or 0
            pause_s = PAUSE_S / bot.exchange.speed
            await asyncio.sleep(max(pause_s, retry_after_ms / 1_000))
            while market.instrument.phase in NO_TRADING:
                await asyncio.sleep(pause_s)
        except ExchangeError:  # the client is connecting again
            await asyncio.sleep(PAUSE_S)


async def _connect(
    stack: AsyncExitStack, plan: Plan, kind: Kind, name: str
) -> Bot:
    """Connect a bot; raises what `run_house` does."""
    exchange = Exchange(plan.url, name, plan.tokens.get(name))
    try:
        await stack.enter_async_context(exchange)
    except Unauthorized as refusal:
        text = f"{name}: {refusal}"
        if not plan.tokens:
            text += "; its key comes from a file: --tokens FILE"
        raise Unauthorized(refusal.code, text) from None
    return Bot(kind, name, exchange, exchange.equity, exchange.equity)


async def _assign(
    plan: Plan, bots: Sequence[Bot]
) -> tuple[list[Work], dict[str, Worth]]:
    """Return the work of each bot in each instrument, and the fair values.

    Raises BadPlan, and UnknownSymbol.
    """
    symbols = plan.symbols or [*bots[0].exchange.instruments]
    for symbol in plan.values:
        if symbol and symbol not in symbols:
            raise BadPlan(f"--value: {symbol} is not traded")
    markets = {
        bot.name: {s: await bot.exchange.market(s) for s in symbols}
        for bot in bots
    }
    exchange = bots[0].exchange
    listed = exchange.instruments
    values = _fair_values(plan, {s: listed[s] for s in symbols}, exchange)
    works: list[Work] = []
    for bot in bots:
        its = markets[bot.name]
        for symbol in symbols:
            trade = _trade(plan, bot, its, symbol, values[symbol])
            if trade is not None:
                works.append(partial(keep_trading, bot, its[symbol], trade))
    return works, values


def _fair_values(
    plan: Plan, instruments: Mapping[str, Instrument], exchange: Exchange
) -> dict[str, Worth]:
    """Return the fair value of each instrument; raises BadPlan.

    One that follows from the values of others is computed from them. The
    value of any other is a walk.
    """
    real_time, speed = asyncio.get_running_loop().time, exchange.speed
    now = plan.now or (lambda: exchange.now)
    values: dict[str, Worth] = {}

    def derived(instrument: Instrument) -> int:
        price = values[instrument.underlying or ""]()
        seconds = seconds_left(instrument, now())
        return round(derived_value(instrument, price, seconds, plan.speed))

    def of_basket(instrument: Instrument) -> int:
        return round(
            basket_value(instrument, lambda s: values[s](), instruments)
        )

    for symbol, instrument in instruments.items():
        mean = plan.mean(instrument)
        if symbol not in plan.values and _follows(instrument, instruments):
            is_basket = instrument.convert is not None
            worth = of_basket if is_basket else derived
            values[symbol] = partial(worth, instrument)
        else:
            walk = fair_values(plan.seed, instrument, mean)
            values[symbol] = FairValue(
                walk, plan.speed, lambda: real_time() * speed
            ).now
    return values


def _follows(
    instrument: Instrument, instruments: Mapping[str, Instrument]
) -> bool:
    """Return whether the values of others give the instrument's own."""
    if instrument.convert is not None:
        return all(s in instruments for s in instrument.convert.basket)
    if instrument.kind not in DERIVATIVES:
        return False
    return instrument.underlying in instruments


def _trade(
    plan: Plan,
    bot: Bot,
    markets: Mapping[str, Market],
    symbol: str,
    worth: Worth,
) -> Work | None:
    """Return what a bot does in an instrument; None: nothing."""
    market = markets[symbol]
    speed = plan.speed * bot.exchange.speed  # acts per real second
    instrument = market.instrument
    match bot.kind:
        case "maker" if instrument.kind in DERIVATIVES and (
            instrument.underlying in markets
        ):
            now = plan.now or (lambda: bot.exchange.now)
            value = partial(_model_value, market, markets, plan.speed, now)
            return partial(make_derived_market, market, value, speed)
        case "maker":
            mean = plan.mean(instrument)
            return partial(make_market, bot.exchange, market, mean, speed)
        case "noise":
            chance = Random(f"{plan.seed} {bot.name} {symbol}")
            return partial(trade_at_random, market, chance, speed)
        case "informed":
            return partial(trade_on_knowledge, market, worth, speed)
        case "arbitrageur":
            convert = instrument.convert
            if convert is None or not markets.keys() >= convert.basket.keys():
                return None
            return partial(arbitrage, market, markets, speed)


def _model_value(
    market: Market,
    markets: Mapping[str, Market],
    speed: float,
    now: Callable[[], int],
) -> float | None:
    """Return what a derivative is worth at the prices of its underlying.

    None while the book of the underlying has an empty side and no trade.
    """
    underlying = markets[market.instrument.underlying or ""]
    bid, ask = underlying.book.bid, underlying.book.ask
    price: float | None = underlying.last
    if bid is not None and ask is not None:
        price = (bid + ask) / 2
    if price is None:
        return None
    seconds = seconds_left(market.instrument, now())
    return derived_value(market.instrument, price, seconds, speed)


async def _cancel_orders(bot: Bot) -> None:
    # After a lost connection the exchange has canceled them itself.
    if bot.exchange.is_connected:
        with contextlib.suppress(Refused, ExchangeError, TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await bot.exchange.cancel_all()


async def _count_equity(bot: Bot) -> None:
    bot.equity = bot.exchange.equity
    if bot.exchange.is_connected:
        with contextlib.suppress(Refused, ExchangeError, TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                [account] = await bot.exchange.get("account")
                bot.equity = account.equity  # at the current marks
