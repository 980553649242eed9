"""Measure only book or engine: ``core.py book RESTING`` or ``core.py engine``.

It prints operations per second of CPU. `util.measure.bench` runs it in the
folder of any checkout, including older ones, so it finds the classes of the
engine by name and imports nothing of this package.
"""

from __future__ import annotations

import gc
import random
import re
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from orderbook import Amend, Cancel, Instrument, Order, OrderBook, Place, Side

OPERATIONS = 200_000
MID = 50_000  # the price around which everything happens
ACCOUNTS = 10


def steps() -> list[tuple[float, Side, int, int, float]]:
    """Return random numbers for each operation.

    Half of the operations place, a tenth cross, a tenth amend, and the rest
    cancel; all are within ten ticks of the top.
    """
    dice = random.Random(1)
    return [
        (
            dice.random(),
            "buy" if dice.random() < 0.5 else "sell",
            dice.randint(1, 20),
            dice.randint(1, 10),
            dice.random(),
        )
        for _ in range(OPERATIONS)
    ]


def price_of(side: Side, kind: float, offset: int) -> int:
    """Return a price near the top, or across it."""
    away = -3 if 0.5 <= kind < 0.6 else offset
    return MID - away if side == "buy" else MID + away


def book_rate(resting: int) -> float:
    """Measure the book with ``resting`` orders far from the top."""
    book = OrderBook()
    for number in range(resting):
        side: Side = "buy" if number % 2 else "sell"
        offset = 20 + number // 2 % 2_000
        price = MID - offset if side == "buy" else MID + offset
        book.place(Order(number + 1, "deep", side, 1, price=price))
    book.take_changes()
    operations = steps()
    live: list[int] = []
    order_id = resting
    gc.freeze()
    start = time.process_time()
    for kind, side, qty, offset, pick in operations:
        if kind < 0.6 or not live:
            order_id += 1
            account = f"a{order_id % 7}"
            price = price_of(side, kind, offset)
            order = Order(order_id, account, side, qty, price=price)
            book.place(order)
            if order.leaves_qty:
                live.append(order_id)
        else:
            index = int(pick * len(live))
            chosen = live[index]
            if kind < 0.7 and chosen in book.orders:
                book.amend(chosen, qty=max(1, qty - 1))
            else:
                live[index] = live[-1]
                live.pop()
                if chosen in book.orders:
                    book.cancel(chosen)
        book.take_changes()
    return OPERATIONS / (time.process_time() - start)


def definition(name: str) -> Any:
    """Return the class of the exchange with this name."""
    for path in sorted(Path("exchange").rglob("*.py")):
        if re.search(rf"^class {name}\b", path.read_text("utf-8"), re.M):
            return getattr(
                import_module(".".join(path.with_suffix("").parts)), name
            )
    raise LookupError(f"no class {name} in {Path.cwd()}")


def commands() -> list[Any]:
    """Return the same operations as commands, from ten accounts."""
    bond = Instrument(
        symbol="BOND",
        tick_size="1",
        min_price=1,
        max_price=2 * MID,
        max_qty=1_000,
        phase="open",
    )
    connect = definition("Connect")(True)
    accounts = [f"bot{number}" for number in range(ACCOUNTS)]
    actions = [("", definition("Configure")(instruments=(bond,)))]
    actions += [(account, connect) for account in accounts]
    live: list[tuple[str, str]] = []
    for number, (kind, side, qty, offset, pick) in enumerate(steps()):
        action: Place | Amend | Cancel
        if kind < 0.6 or not live:
            account = accounts[int(pick * ACCOUNTS)]
            name = f"{account}-{number}"
            action = Place(
                symbol="BOND",
                side=side,
                qty=qty,
                price=price_of(side, kind, offset),
                client_order_id=name,
            )
            live.append((account, name))
        else:
            index = int(pick * len(live))
            account, name = live[index]
            if kind < 0.7:
                action = Amend(client_order_id=name, qty=qty)
            else:
                action = Cancel(client_order_id=name)
                live[index] = live[-1]
                live.pop()
        actions.append((account, action))
    make = definition("Command")
    return [
        make(seq, 10**15 + seq, account, account, action)
        for seq, (account, action) in enumerate(actions, start=1)
    ]


def engine_rate() -> float:
    """Measure `Engine.apply`, reports included."""
    stamped = commands()
    apply = definition("Engine")().apply
    gc.freeze()
    start = time.process_time()
    for command in stamped:
        apply(command)
    return len(stamped) / (time.process_time() - start)


if __name__ == "__main__":
    gc.set_threshold(50_000, 50, 1_000)  # as the server does
    if sys.argv[1] == "book":
        print(book_rate(int(sys.argv[2])))
    else:
        print(engine_rate())
