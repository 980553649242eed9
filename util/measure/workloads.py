"""Five workloads of 1,996,097 messages that other order books also play.

They are those of the *matching-engine-benchmark* of flash1-dev. The same
seed gives the same messages everywhere, and they contain integers only: floats
are used to draw them, and each is rounded before it becomes part of a message.
``docs/CONFORMANCE.md`` names the source.

All choices are uniform numbers from one Mersenne Twister, in a fixed order.
No choice depends on the scenario, so the five workloads differ in their
prices only, and share one `Draws`.
"""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, NamedTuple, TypeAlias

from orderbook import Side

Kind: TypeAlias = Literal["new", "modify", "cancel"]

ORDERS = 1_000_000  # new orders of a published workload
MESSAGES = 1_996_097  # new orders, modifies and cancels of these
SEED = 23
FIRST_MID = 167.52  # the middle of the market, in money
TICK = 0.005
DISTANCES = 800  # the most ticks between an order and the middle

IOC = 0.15  # share of the new orders
MODIFIED = 0.20  # share of the orders that may rest
NEARER = 0.80  # share of the modifies that move by a tick
CANCELED = 0.95
REPEATED = 0.02  # share of the cancels, and of the modifies before a cancel


class Scenario(NamedTuple):
    """How wild the prices of a workload are."""

    volatility: float
    swing: float


SCENARIOS = {
    "normal": Scenario(0.15, 0.02),
    "static": Scenario(0.0, 0.0),
    "swing-25": Scenario(0.50, 0.25),
    "swing-40": Scenario(0.50, 0.40),
    "flash-crash": Scenario(0.50, 0.60),
}


class Message(NamedTuple):
    """One message. A modify's ``qty`` is what is open after it."""

    kind: Kind
    side: Side
    order_id: int
    price: int  # ticks
    qty: int
    is_ioc: bool = False


@dataclass(frozen=True, slots=True)
class Draws:
    """The choices that all workloads share; by order, in order of its id."""

    moves: array[float]  # of the middle, from a normal distribution
    distances: array[int]  # from the middle, in ticks; 0: one tick away
    qtys: array[int]
    arrival: list[int]  # which order comes first, second, ...
    state: tuple[Any, ...]  # of the generator, before the orders' lives


def generator(seed: int) -> random.Random:
    """Return a generator that is seeded as that of C++ is, by one word.

    ``random.Random(seed)`` is seeded in another way.
    """
    words = [seed]
    for number in range(1, 624):
        last = words[-1]
        words.append((1_812_433_253 * (last ^ last >> 30) + number) % 2**32)
    made = random.Random()
    made.setstate((3, (*words, 624), None))
    return made


def draw(orders: int = ORDERS) -> Draws:
    """Draw everything but the orders' lives, for a number of new orders."""
    made = generator(SEED)
    uniform = made.random
    profile = list(accumulate(weight(k) for k in range(DISTANCES)))
    moves, distances, qtys = array("d"), array("i"), array("i")
    for _ in range(orders):
        radius = math.sqrt(-2 * math.log(max(uniform(), 1e-300)))
        moves.append(radius * math.cos(2 * math.pi * uniform()))
        distance = bisect_left(profile, uniform() * profile[-1])
        distances.append(min(distance, DISTANCES - 1))
        qtys.append(1 + int(uniform() * 100))
    arrival = list(range(orders))
    for last in range(orders - 1, 0, -1):
        other = int(uniform() * (last + 1))
        arrival[last], arrival[other] = arrival[other], arrival[last]
    return Draws(moves, distances, qtys, arrival, made.getstate())


def weight(distance: int) -> float:
    """Return how likely an order is at a distance; most at 0 and around 8."""
    z = distance - 8
    return 1 / math.pow(distance + 1, 2.23) + 5 * math.exp(-0.5 * z * z)


def prices(scenario: Scenario, draws: Draws) -> array[int]:
    """Return the price of each order, in ticks, in order of its id.

    The middle moves before each order. The lower half of the ids buy, below
    the middle; the upper half sell, above it.
    """
    orders = len(draws.moves)
    volatility, swing = scenario
    step = 0.0
    if volatility:
        step = volatility * math.sqrt((swing / volatility) ** 2 / orders)
    found = array("i")
    mid = FIRST_MID
    for number, move in enumerate(draws.moves):
        mid *= math.exp(-0.5 * step * step + step * move)
        ticks = math.floor(mid / TICK + 0.5)
        away = draws.distances[number] + 1
        if number < orders // 2:
            away = -away
        found.append(max(1, ticks + away))
    return found


def messages(scenario: Scenario, draws: Draws) -> Iterator[Message]:
    """Yield the messages of a workload.

    Each order lives its life before the next one arrives: it is perhaps
    modified, then perhaps canceled, each perhaps twice. The published
    description stamps messages with times, which change nothing; the
    numbers for them are drawn and dropped.
    """
    limits = prices(scenario, draws)
    buys = len(limits) // 2
    made = random.Random()
    made.setstate(draws.state)
    uniform = made.random
    for number in draws.arrival:
        side: Side = "buy" if number < buys else "sell"
        order_id, price, qty = number + 1, limits[number], draws.qtys[number]
        is_ioc = uniform() < IOC
        yield Message("new", side, order_id, price, qty, is_ioc)
        if is_ioc:
            continue
        modify = cancel = None
        if uniform() < MODIFIED:
            uniform()
            nearer = 1 if side == "buy" else -1
            new_price = price + nearer if uniform() < NEARER else price
            modify = Message("modify", side, order_id, new_price, qty + 1)
            yield modify
        if uniform() < CANCELED:
            uniform()
            cancel = Message("cancel", side, order_id, price, qty)
            yield cancel
            if uniform() < REPEATED:
                uniform()
                yield cancel
        if modify and cancel and uniform() < REPEATED:
            uniform()
            yield modify
