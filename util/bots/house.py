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
from typing import Any, TypeAlias

from client import (
    Exchange,
    ExchangeError,
    Market,
    Unauthorized,
    UnknownSymbol,
)
from orderbook import Refused

from ..cli import print_result
from .arbitrage import arbitrage
from .derivative import make_derived_market
from .fair_file import IDLE, TradingTime
from .informed import trade_on_knowledge
from .maker import Opinion, make_market, quote_an_opinion
from .model import derived_value, seconds_left
from .noise import trade_at_random
from .pace import Pace, keep_pace
from .plan import BadPlan, Kind, Plan
from .worth import Past, Worth, from_file, is_derived, means_of, walks

PAUSE_S = 1.0  # after a refusal or a loss; the client itself reconnects
LEAVE_S = 3.0  # for each of the last requests; a person waits for the prompt
FINAL = (Unauthorized, UnknownSymbol)  # a retry cannot succeed

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


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


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What the bots may know: the mean of each value, and its present one.

    ``past`` has the values of a file, also those of some seconds ago.
    """

    means: Mapping[str, int]
    values: dict[str, Worth]
    past: Mapping[str, Past]
    pace: Pace
    time: TradingTime | None = None


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

    It waits while the instrument does not trade, and after a refusal; pauses
    are in the exchange's time. The phase follows `status` messages, and the
    welcome after a lost connection.
    """
    while True:
        pause_s = PAUSE_S / bot.exchange.speed
        while market.instrument.phase in IDLE:
            await asyncio.sleep(pause_s)
        try:
            await trade()
        except FINAL:
            raise
        except Refused as refusal:
            bot.report_refusal(refusal)
            retry_after_ms = getattr(refusal, "retry_after_ms", None) or 0
            await asyncio.sleep(max(pause_s, retry_after_ms / 1_000))
        except ExchangeError:  # the client is connecting again
            await asyncio.sleep(PAUSE_S)


async def _connect(
    stack: AsyncExitStack, plan: Plan, kind: Kind, name: str
) -> Bot:
    """Connect a bot; raises what `run_house` does."""
    exchange = Exchange(plan.url, name, plan.tokens.get(name))
    try:
        await stack.enter_async_context(exchange)
        await exchange.cancel_all()  # of an earlier run that was killed
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
    for option, named in (("value", plan.values), ("fixed", plan.fixed)):
        for symbol in named:
            if symbol and symbol not in symbols:
                raise BadPlan(f"--{option}: {symbol} is not traded")
    markets = {
        bot.name: {s: await bot.exchange.market(s) for s in symbols}
        for bot in bots
    }
    first = markets[bots[0].name]
    known = await _knowledge(plan, bots[0].exchange, first)
    works: list[Work] = []
    for bot in bots:
        its = markets[bot.name]
        for symbol in symbols:
            trade = _trade(plan, bot, its, symbol, known)
            if trade is not None:
                works.append(partial(keep_trading, bot, its[symbol], trade))
    if plan.trades_per_s is not None:
        trades_per_s = plan.trades_per_s * bots[0].exchange.speed
        works.append(
            partial(keep_pace, known.pace, first.values(), trades_per_s)
        )
    if known.time is not None:
        works.append(known.time.keep_looking)
    return works, known.values


async def _knowledge(
    plan: Plan, exchange: Exchange, markets: Mapping[str, Market]
) -> Knowledge:
    """Return what there is to know; raises BadPlan."""

    def now() -> int:
        return exchange.now

    listed = {s: market.instrument for s, market in markets.items()}
    means, pace = means_of(plan, listed), Pace(plan.speed * exchange.speed)
    if plan.fair is None:
        return Knowledge(means, walks(plan, listed, means, now), {}, pace)
    time = TradingTime(exchange, markets, plan.fair.last_ms)
    await time.look()
    past = from_file(plan.fair, markets, time)
    values: dict[str, Worth] = {s: partial(p, 0.0) for s, p in past.items()}
    return Knowledge(means, values, past, pace, time)


def _trade(
    plan: Plan,
    bot: Bot,
    markets: Mapping[str, Market],
    symbol: str,
    known: Knowledge,
) -> Work | None:
    """Return what a bot does in an instrument; None: nothing."""
    market = markets[symbol]
    speed = plan.speed * bot.exchange.speed  # acts per real second
    instrument = market.instrument
    chance = Random(f"{plan.seed} {bot.name} {symbol}")
    match bot.kind:
        case "maker" if is_derived(instrument, markets):
            value = partial(_model_value, plan, bot.exchange, market, markets)
            return partial(make_derived_market, market, value, speed)
        case "maker" if symbol in known.past:
            opinion = Opinion(known.past[symbol], chance)
            return partial(quote_an_opinion, market, opinion, speed)
        case "maker":
            mean = known.means[symbol]
            return partial(make_market, bot.exchange, market, mean, speed)
        case "noise":
            return partial(trade_at_random, market, chance, known.pace)
        case "informed":
            worth = known.values[symbol]
            return partial(trade_on_knowledge, market, worth, speed)
        case "arbitrageur":
            convert = instrument.convert
            if convert is None or not markets.keys() >= convert.basket.keys():
                return None
            return partial(arbitrage, market, markets, speed)


def _model_value(
    plan: Plan,
    exchange: Exchange,
    market: Market,
    markets: Mapping[str, Market],
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
    seconds = seconds_left(market.instrument, exchange.now)
    return derived_value(market.instrument, price, seconds, plan.speed)


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
