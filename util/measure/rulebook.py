"""Edge cases of matching: ``rulebook.txt``, which says how it is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from orderbook import OrderBook, PriceLevel, Side
from util.measure.canonical import accepted, ended, modified, refused, traded
from util.measure.workloads import Kind, Message

RULEBOOK = Path(__file__).with_name("rulebook.txt")
KINDS: dict[str, Kind] = {
    "buy": "new",
    "sell": "new",
    "modify": "modify",
    "cancel": "cancel",
}
# Added to an order id that is used again, where an id may be used only once.
AGAIN = 1_000_000

Depth = tuple[tuple[PriceLevel, ...], tuple[PriceLevel, ...]]  # bids, asks


@dataclass(frozen=True, slots=True)
class Step:
    """A message, and what it causes besides its own report."""

    message: Message
    # Price, quantity and maker of each.
    trades: list[tuple[int, int, int]] = field(default_factory=list)
    is_dropped: bool = False  # the rest of an immediate-or-cancel order
    is_refused: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """A rule, the steps that show it, and the book after them."""

    number: int
    title: str
    steps: list[Step]
    left: Depth

    @property
    def messages(self) -> list[Message]:
        """The messages of all steps."""
        return [step.message for step in self.steps]

    def reports(self) -> list[str]:
        """Return the lines that `util.measure.canonical` describes."""
        lines = []
        resting: dict[int, int] = {}  # prices, by id
        for seq, step in enumerate(self.steps):
            kind, side, order_id, price, qty, _ = step.message
            if step.is_refused:
                lines.append(refused(seq, step.message))
                continue
            if kind == "new":
                lines.append(accepted(seq, side, order_id, price, qty))
            for at, lots, maker in step.trades:
                lines.append(traded(seq, at, lots, maker, order_id))
            if kind == "modify":
                lines.append(modified(seq, side, order_id, price, qty))
            if kind == "cancel":
                lines.append(ended(seq, side, order_id, resting[order_id]))
            elif step.is_dropped:
                lines.append(ended(seq, side, order_id, price))
            resting[order_id] = price
        return lines

    def with_new_ids(self) -> Case:
        """Return the case with a new id for each order that repeats one."""
        now: dict[int, int] = {}  # the id that stands for one of the case
        steps = []
        for step in self.steps:
            message = step.message
            order_id = message.order_id
            if message.kind == "new":
                is_known = order_id in now
                now[order_id] = order_id + AGAIN if is_known else order_id
            message = message._replace(order_id=now.get(order_id, order_id))
            trades = [
                (at, lots, now[maker]) for at, lots, maker in step.trades
            ]
            steps.append(replace(step, message=message, trades=trades))
        return replace(self, steps=steps)


def cases() -> list[Case]:
    """Read the rule book."""
    text = re.sub(r"^#.*\n", "", RULEBOOK.read_text("utf-8"), flags=re.M)
    return [_case(block) for block in text.strip().split("\n\n")]


def depth(book: OrderBook) -> Depth:
    """Return the levels of a book as a case has them."""
    return book.depth("buy"), book.depth("sell")


def _case(text: str) -> Case:
    title, *lines, left = text.splitlines()
    number, _, rule = title.partition(". ")
    sides: dict[int, Side] = {}  # of the orders, by id
    steps = [step for line in lines for step in _steps(line.strip(), sides)]
    return Case(int(number), rule, steps, _left(left.strip()))


def _steps(line: str, sides: dict[int, Side]) -> Iterator[Step]:
    """Yield the steps of a line: one, or one for each id of a range."""
    asked, _, answer = line.partition(" -> ")
    verb, ids, *rest = asked.split()
    qty, _, price = rest[0].partition("@") if rest else ("0", "", "0")
    parts = answer.split(", ") if answer else []
    trades = [trade for part in parts for trade in _trades(part)]
    kind = KINDS[verb]
    for order_id in _numbers(ids):
        if kind == "new":
            sides[order_id] = "buy" if verb == "buy" else "sell"
        side = sides.get(order_id, "buy")
        is_ioc = "ioc" in rest
        message = Message(kind, side, order_id, int(price), int(qty), is_ioc)
        is_dropped, is_refused = "rest dropped" in parts, "refused" in parts
        yield Step(message, trades, is_dropped, is_refused)


def _trades(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield the trades of ``10@100 with 1 3``."""
    found = re.fullmatch(r"(\d+)@(\d+) with ([\d. ]+)", text)
    if found:
        for makers in found[3].split():
            for maker in _numbers(makers):
                yield int(found[2]), int(found[1]), maker
    else:
        assert text in ("rest dropped", "refused"), text


def _numbers(text: str) -> range:
    """Read ``7``, or ``1..5000``."""
    first, _, last = text.partition("..")
    return range(int(first), int(last or first) + 1)


def _left(text: str) -> Depth:
    """Read ``left nothing``, ``left bids 100=10`` or ``left asks 100=10``."""
    _, side, *levels = text.split()
    found = tuple(
        (int(price), int(qty))
        for price, qty in (level.split("=") for level in levels)
    )
    return (found, ()) if side == "bids" else ((), found)
