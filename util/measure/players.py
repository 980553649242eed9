"""Play messages on the order book and on the engine, both as shipped.

Both players return the lines of `util.measure.canonical`. Orders and commands
are made before the clock starts, and lines after it has stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from exchange.market.command import (
    Action,
    Command,
    Configure,
    Connect,
    Output,
)
from exchange.market.engine import Engine
from exchange.market.reports import in_full
from orderbook import (
    Amend,
    Cancel,
    Error,
    Exec,
    Instrument,
    Match,
    Order,
    OrderBook,
    Place,
)
from util.measure.canonical import accepted, ended, modified, refused, traded
from util.measure.workloads import Message

# Accounts of each side. Buyers and sellers differ, so that self-trade
# prevention, which the published rules do not have, never acts.
ACCOUNTS = 8
SYMBOL = "BOND"
# Bounds that no message reaches: prices up to 200,000 and 5,000 lots.
INSTRUMENT = Instrument(
    symbol=SYMBOL,
    tick_size="0.005",
    min_price=1,
    max_price=1_000_000,
    max_qty=10_000,
    phase="open",
)


class Player(Protocol):
    """Plays messages; ``seconds`` is the CPU time in book or engine."""

    book: OrderBook
    seconds: float

    def play(self, messages: Sequence[Message]) -> list[str]:
        """Play messages and return the lines of their reports."""

    def check(self) -> None:
        """Verify all invariants; raise AssertionError."""


class _Answer(NamedTuple):
    """What the book did: price, quantity and maker of each trade."""

    trades: Sequence[tuple[int | None, int, int]] = ()
    ended: Order | None = None  # what was canceled, or dropped
    is_refused: bool = False


class BookPlayer:
    """Plays messages on an `OrderBook`."""

    def __init__(self) -> None:
        self.book = OrderBook(SYMBOL)
        self.seconds = 0.0
        self._seq = 0

    def play(self, messages: Sequence[Message]) -> list[str]:
        orders = [_order(message) for message in messages]
        book = self.book
        answers: list[_Answer] = []
        start = time.process_time()
        for message, order in zip(messages, orders):
            if message.kind == "new":
                sweep = book.place(order)
                end = order if sweep.reason else None
                answers.append(_Answer(_trades(sweep.matches), end))
            elif message.order_id not in book.orders:
                answers.append(_Answer(is_refused=True))
            elif message.kind == "cancel":
                answers.append(_Answer(ended=book.cancel(message.order_id)))
            else:
                resting = book.orders[message.order_id]
                total = resting.cum_qty + message.qty
                sweep = book.amend(message.order_id, message.price, total)
                assert sweep.reason is None
                answers.append(_Answer(_trades(sweep.matches)))
        self.seconds += time.process_time() - start
        book.drop_changes()
        lines: list[str] = []
        for message, answer in zip(messages, answers):
            lines += _lines_of_book(self._seq, message, answer)
            self._seq += 1
        return lines

    def check(self) -> None:
        self.book.check()


def _order(message: Message) -> Order:
    return Order(
        message.order_id,
        message.side,
        message.side,
        message.qty,
        SYMBOL,
        message.price,
        time_in_force="ioc" if message.is_ioc else "gtc",
    )


def _trades(matches: Iterable[Match]) -> list[tuple[int | None, int, int]]:
    return [(maker.price, qty, maker.order_id) for maker, qty in matches]


def _lines_of_book(seq: int, message: Message, answer: _Answer) -> list[str]:
    kind, side, order_id, price, qty, _ = message
    if answer.is_refused:
        return [refused(seq, message)]
    lines = []
    if kind == "new":
        lines.append(accepted(seq, side, order_id, price, qty))
    for at, lots, maker in answer.trades:
        assert at is not None
        lines.append(traded(seq, at, lots, maker, order_id))
    if kind == "modify":
        lines.append(modified(seq, side, order_id, price, qty))
    if answer.ended is not None:
        order = answer.ended
        assert order.price is not None
        lines.append(ended(seq, order.side, order.order_id, order.price))
    return lines


class EnginePlayer:
    """Plays messages on an `Engine`, as requests of several accounts.

    An order id of a message is the client's; each may be used once.
    """

    def __init__(self) -> None:
        self._engine = Engine()
        self.seconds = 0.0
        self._seq = 0
        self._apply("", Configure(instruments=(INSTRUMENT,)))
        for side in ("buy", "sell"):
            for number in range(ACCOUNTS):
                self._apply(f"{side}{number}", Connect(True))
        self.book = self._engine.listings[SYMBOL].book

    def play(self, messages: Sequence[Message]) -> list[str]:
        engine = self._engine
        asked = [(_account(m), _action(m), m) for m in messages]
        seq = engine.seq
        commands = [
            Command(seq + n, seq + n, account, account, action)
            for n, (account, action, _) in enumerate(asked, start=1)
        ]
        answers: list[list[Output]] = []
        start = time.process_time()
        for command, message in zip(commands, messages):
            if message.kind == "modify":
                self._add_filled(command)
            answers.append(engine.apply(command))
        self.seconds += time.process_time() - start
        engine.take_book_updates(())
        lines: list[str] = []
        for message, outputs in zip(messages, answers):
            lines += _lines_of_engine(self._seq, message, outputs)
            self._seq += 1
        return lines

    def check(self) -> None:
        self._engine.check()

    def _apply(self, account: str, action: Action) -> None:
        seq = self._engine.seq + 1
        self._engine.apply(Command(seq, seq, account, account, action))

    def _add_filled(self, command: Command) -> None:
        """Ask for a total: what a modify wants open, and what is filled."""
        action = command.action
        assert isinstance(action, Amend) and action.qty is not None
        names = self._engine.accounts[command.account].by_client_order_id
        order = names.get(action.client_order_id or "")
        if order is not None and order.cum_qty:
            command.action = Amend(
                client_order_id=action.client_order_id,
                price=action.price,
                qty=order.cum_qty + action.qty,
            )


def _account(message: Message) -> str:
    return f"{message.side}{message.order_id % ACCOUNTS}"


def _action(message: Message) -> Place | Amend | Cancel:
    kind, side, order_id, price, qty, is_ioc = message
    name = str(order_id)
    if kind == "cancel":
        return Cancel(client_order_id=name)
    if kind == "modify":
        return Amend(client_order_id=name, price=price, qty=qty)
    return Place(
        symbol=SYMBOL,
        side=side,
        qty=qty,
        price=price,
        time_in_force="ioc" if is_ioc else "gtc",
        client_order_id=name,
    )


def _lines_of_engine(
    seq: int, message: Message, outputs: Iterable[Output]
) -> list[str]:
    """Return the lines of what the traders are told about their orders."""
    lines = []
    taker = 0
    for _, event in in_full(outputs):
        if isinstance(event, Error):
            assert event.code in ("unknown_order", "order_closed"), event
            lines.append(refused(seq, message))
        if not isinstance(event, Exec):
            continue
        order_id, price = int(event.client_order_id or 0), event.price
        assert price is not None
        if event.exec_type == "new":
            line = accepted(seq, event.side, order_id, price, event.qty)
        elif event.exec_type == "amended":
            open_qty = event.leaves_qty
            line = modified(seq, event.side, order_id, price, open_qty)
        elif event.exec_type != "trade":
            line = ended(seq, event.side, order_id, price)
        elif event.liquidity == "taker":
            taker = order_id  # its maker's report is the next
            continue
        else:
            assert event.last_price is not None and event.last_qty is not None
            at, lots = event.last_price, event.last_qty
            line = traded(seq, at, lots, order_id, taker)
        lines.append(line)
    return sorted(lines, key=lambda line: line[0])
