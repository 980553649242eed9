"""What each instrument is worth: from a file, from others, or at random."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import TypeAlias

from orderbook import Instrument

from .fair_file import FairFile, TradingTime
from .model import basket_value, derived_value, seconds_left
from .plan import BadPlan, Plan
from .value import FairValue, fair_values, mean_of

DERIVATIVES = ("future", "call", "put")
Worth: TypeAlias = Callable[[], int]  # the fair value of now, in ticks
Past: TypeAlias = Callable[[float], int]  # that of so many seconds ago
Listed: TypeAlias = Mapping[str, Instrument]


def means_of(plan: Plan, listed: Listed) -> dict[str, int]:
    """Return the mean of each fair value, in ticks; raises BadPlan.

    A basket without a mean of its own has that of its parts.
    """
    means: dict[str, int] = {}
    for symbol in sorted(listed, key=lambda symbol: _depth(symbol, listed)):
        instrument, wanted = listed[symbol], plan.values.get(symbol)
        if wanted is None and _is_basket(instrument, listed):
            worth = basket_value(instrument, means.__getitem__, listed)
            mean = mean_of(instrument, round(worth))
        else:
            mean = mean_of(
                instrument, plan.values.get("") if wanted is None else wanted
            )
        if wanted is not None and mean != wanted:
            raise BadPlan(
                f"--value {symbol}={wanted}: must lie between"
                f" {instrument.min_price} and {instrument.max_price}"
            )
        means[symbol] = mean
    return means


def walks(
    plan: Plan,
    listed: Listed,
    means: Mapping[str, int],
    now: Callable[[], int],
) -> dict[str, Worth]:
    """Return the fair value of each instrument, which moves at random.

    One that follows from the values of others is computed from them, unless
    it has a mean of its own. ``now`` returns the exchange's time in
    microseconds.
    """
    own = {*plan.values, *plan.fixed}
    values: dict[str, Worth] = {}

    def derived(instrument: Instrument) -> int:
        price = values[instrument.underlying or ""]()
        seconds = seconds_left(instrument, now())
        return round(derived_value(instrument, price, seconds, plan.speed))

    def of_basket(instrument: Instrument) -> int:
        return round(basket_value(instrument, lambda s: values[s](), listed))

    for symbol, instrument in listed.items():
        mean = means[symbol]
        if symbol not in own and _is_basket(instrument, listed):
            values[symbol] = partial(of_basket, instrument)
        elif symbol not in own and is_derived(instrument, listed):
            values[symbol] = partial(derived, instrument)
        elif symbol in plan.fixed:
            values[symbol] = partial(int, mean)
        else:
            walk = fair_values(plan.seed, instrument, mean)
            clock = partial(_seconds, now)
            values[symbol] = FairValue(walk, plan.speed, clock).now
    return values


def from_file(
    file: FairFile, symbols: Iterable[str], time: TradingTime
) -> dict[str, Past]:
    """Return the values of a file, by trading time; raises BadPlan."""

    def past(symbol: str, seconds: float) -> int:
        return file.at(time.ms(symbol) - seconds * 1_000, symbol)

    for symbol in symbols:
        if symbol not in file.symbols:
            raise BadPlan(f"--fair: the file has no {symbol}")
    return {symbol: partial(past, symbol) for symbol in symbols}


def _seconds(now: Callable[[], int]) -> float:
    return now() / 1e6


def is_derived(instrument: Instrument, listed: Collection[str]) -> bool:
    """Return whether it is a derivative of an instrument that is there."""
    return instrument.kind in DERIVATIVES and instrument.underlying in listed


def _is_basket(instrument: Instrument, listed: Listed) -> bool:
    """Return whether it is a basket of instruments that are there."""
    convert = instrument.convert
    return convert is not None and listed.keys() >= convert.basket.keys()


def _depth(symbol: str, listed: Listed) -> int:
    """Return how many baskets stand between it and what has none."""
    convert = listed[symbol].convert
    if convert is None or not _is_basket(listed[symbol], listed):
        return 0
    return 1 + max(_depth(part, listed) for part in convert.basket)
