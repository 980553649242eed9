"""What a future, an option or a basket is worth, given the prices it hangs on.

An option is worth the mean of its payoffs. The price of the underlying at
expiry is taken as normally distributed around the price of now, with a
deviation that grows with the square root of the time (Bachelier, 1900).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist

from orderbook import Instrument

from .value import MOVE, SWING, grain

STANDARD = NormalDist()
# Time to expiry that is assumed for an instrument that settles with its
# underlying, which nobody knows beforehand.
ROUND_S = 600.0
# The fair value stays within SWING grains of its mean, so its deviation does
# not grow for ever. This is that of a value anywhere between the two bounds.
DEVIATION_MAX = SWING / math.sqrt(3)


def deviation(seconds: float, speed: float) -> float:
    """Return the deviation of a fair value after some time, in grains.

    ``speed`` is the number of steps per second; a step moves it by one grain
    with the probability MOVE.
    """
    return min(math.sqrt(MOVE * speed * max(0.0, seconds)), DEVIATION_MAX)


def call_value(price: float, strike: float, deviation: float) -> float:
    """Return the value of a call in ticks, for a price of its underlying.

    Without a deviation it is the payoff of now.
    """
    gain = price - strike
    if deviation <= 0:
        return max(0.0, gain)
    steps = gain / deviation
    return gain * STANDARD.cdf(steps) + deviation * STANDARD.pdf(steps)


def derived_value(
    instrument: Instrument, price: float, seconds: float, speed: float
) -> float:
    """Return the value of a future, call or put in ticks.

    ``price`` is that of the underlying, ``seconds`` the time to expiry.
    """
    if instrument.kind == "future":
        return price
    assert instrument.strike is not None
    sigma = deviation(seconds, speed) * grain(price)
    value = call_value(price, instrument.strike, sigma)
    if instrument.kind == "put":  # put-call parity
        value -= price - instrument.strike
    return value


def basket_value(
    instrument: Instrument,
    price: Callable[[str], float],
    instruments: Mapping[str, Instrument],
) -> float:
    """Return the value of one lot by its basket, in ticks of its own."""
    assert instrument.convert is not None
    money = sum(
        count * price(symbol) * instruments[symbol].tick_value
        for symbol, count in instrument.convert.basket.items()
    )
    return money / (instrument.tick_value * instrument.convert.per)


def seconds_left(instrument: Instrument, ts: int) -> float:
    """Return the time to expiry; ``ts`` is now, in microseconds."""
    if instrument.expire_ts is None:
        return ROUND_S
    return max(0.0, (instrument.expire_ts - ts) / 1e6)
