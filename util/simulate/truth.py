"""What has happened in a world, by its journal.

`Truth` applies the journal to a new engine and checks each command.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from exchange.market.command import Command, Configure, Restart, TimePassed
from exchange.market.engine import Engine
from exchange.market.listing import Listing
from exchange.market.reports import in_full
from orderbook import (
    AccountReport,
    Convert,
    Error,
    Event,
    Exec,
    Place,
    Settlement,
    Trade,
)

CHECK_EVERY = 25  # commands between checks of the whole state


class Violation(Exception):
    """An invariant does not hold. ``trader`` is whom it concerns, if any."""

    def __init__(self, text: str, trader: str = "") -> None:
        super().__init__(text)
        self.trader = trader


def require(condition: object, text: str, trader: str = "") -> None:
    """Raise Violation unless a condition holds."""
    if not condition:
        raise Violation(text, trader)


# The market ----------------------------------------------------------------


def check_market(engine: Engine) -> None:
    """Check what is cheap to check, after any command."""
    for symbol, listing in engine.listings.items():
        bid, ask = _best(listing)
        if listing.phase == "open" and bid is not None and ask is not None:
            require(bid < ask, f"{symbol} is crossed: {bid} and {ask}")
    cash, opened = 0, 0
    lots: Counter[str] = Counter()
    for name, account in engine.accounts.items():
        cash += account.cash
        opened += engine.limits(name).cash
        for symbol, position in account.positions.items():
            lots[symbol] += position
    require(cash == opened, f"cash of all accounts: {cash}, not {opened}")
    for symbol, sum_ in lots.items():
        require(not sum_, f"lots of {symbol} over all accounts: {sum_}, not 0")


def _best(listing: Listing) -> tuple[int | None, int | None]:
    bids = listing.book.depth("buy", 1)
    asks = listing.book.depth("sell", 1)
    return (bids[0][0] if bids else None, asks[0][0] if asks else None)


def picture(engine: Engine) -> dict[str, Any]:
    """Return the state of a market as plain values, to compare two of them."""
    return {
        "seq": engine.seq,
        "ts": engine.ts,
        "order_id": engine.order_id,
        "deadline": engine.first_deadline,
        "accounts": {
            name: (
                account.cash,
                account.realized,
                account.seq,
                account.positions,
                account.costs,
                account.reserved,
                list(map(str, account.open_orders.values())),
                account.sessions,
            )
            for name, account in engine.accounts.items()
        },
        "listings": {
            symbol: (
                listing.phase,
                listing.seq,
                listing.trade_id,
                listing.last,
                listing.book.depth("buy"),
                listing.book.depth("sell"),
                list(listing.stops.orders),
            )
            for symbol, listing in engine.listings.items()
        },
    }


# The journal ---------------------------------------------------------------


class Truth:
    """The journal applied to a new engine, command by command.

    ``starts`` are the last commands that were on disk when a process began,
    ``slice_ops`` the operations of a slice of long work, ``wanted`` the books
    to keep in ``depths``, by symbol and seq. ``events`` are the private
    events by account and seq: an account's report with the settlements before
    it. Raises Violation where a command must not have been applied so.
    """

    def __init__(
        self,
        commands: Iterable[Command],
        starts: Collection[int],
        slice_ops: int,
        wanted: Collection[tuple[str, int]],
    ) -> None:
        self.engine = Engine()
        self.engine.slice_ops = slice_ops
        self.events: defaultdict[str, dict[int, list[Event]]]
        self.events = defaultdict(dict)
        self.trades: defaultdict[str, list[Trade]] = defaultdict(list)
        self.depths: dict[tuple[str, int], tuple[dict[int, int], ...]] = {}
        self.orders: dict[int, Exec] = {}  # the newest report of each
        self.names: dict[tuple[str, str], int] = {}  # accepted orders
        self.commands = 0
        self._seqs: Counter[str] = Counter()  # of each account
        self._book_seqs: Counter[str] = Counter()
        self._is_new = False  # a process began, and has not restarted yet
        self._starts = starts
        self._wanted = wanted
        self._conversions: set[tuple[str, str]] = set()
        for command in commands:
            try:
                self._apply(command)
            except (Violation, AssertionError) as error:
                raise Violation(
                    f"{error or 'the engine: an assertion fails'}, at command"
                    f" {command}"
                ) from error

    def _apply(self, command: Command) -> None:
        engine, action = self.engine, command.action
        require(command.seq == engine.seq + 1, "a gap of the seq")
        require(command.ts > engine.ts, "the time steps back")
        is_restart = isinstance(action, Restart)
        self._is_new |= engine.seq in self._starts and engine.seq > 0
        if self._is_new:
            # First it may finish long work, in which no time passes.
            goes_on = engine.work and command.ts == engine.ts + 1
            require(is_restart or goes_on, "a new process has not restarted")
        else:
            require(not is_restart, "a restart within a process")
        if is_restart:
            self._is_new = False
        due = engine.first_deadline
        if not isinstance(action, Restart | TimePassed | Configure):
            require(due is None or command.ts < due, "a deadline was due")
        doomed = self._doomed() if is_restart else []
        outputs = in_full(engine.apply(command))
        self.commands += 1
        for recipient, event in outputs:
            self._take(recipient, event)
        self._note_names(command, outputs)
        if is_restart:
            ended = [e.order_id for _, e in outputs if isinstance(e, Exec)]
            if not engine.work:
                require(ended == doomed, f"restart ends {ended}, not {doomed}")
        for symbol, listing in engine.listings.items():
            key = symbol, listing.seq
            if listing.seq == self._book_seqs[symbol]:
                continue
            self._book_seqs[symbol] += 1
            require(key[1] == self._book_seqs[symbol], f"a gap at {key}")
            if key in self._wanted:
                self.depths[key] = tuple(
                    dict(listing.book.depth(side)) for side in ("buy", "sell")
                )
        check_market(engine)
        if not command.seq % CHECK_EVERY:
            engine.check()

    def _doomed(self) -> list[int]:
        """Return the orders that a restart cancels."""
        return sorted(
            order_id
            for account in self.engine.accounts.values()
            for order_id, order in account.open_orders.items()
            if (session := account.sessions.get(order.session or ""))
            and session.cancel_on_disconnect
        )

    def _take(self, recipient: str, event: Event) -> None:
        match event:
            case Trade():
                trades = self.trades[event.symbol]
                trades.append(event)
                require(event.trade_id == len(trades), "a gap of trade ids")
            case Exec() | AccountReport() | Settlement():
                before = self._seqs[recipient]
                require(
                    before <= event.seq <= before + 1,
                    f"event {event.seq} of {recipient} follows {before}",
                )
                self._seqs[recipient] = event.seq
                self.events[recipient].setdefault(event.seq, []).append(event)
                if isinstance(event, Exec):
                    self._take_report(event)

    def _take_report(self, report: Exec) -> None:
        """Check what a report says of its order."""
        before = self.orders.get(report.order_id)
        order_id = report.order_id
        if before is None:
            require(report.exec_type == "new", f"order {order_id} is not new")
        else:
            require(before.leaves_qty, f"order {order_id} had ended")
            require(
                report.cum_qty == before.cum_qty + (report.last_qty or 0),
                f"fills of order {order_id} do not add up",
            )
        if report.leaves_qty:
            require(
                report.qty == report.cum_qty + report.leaves_qty,
                f"quantities of order {order_id} do not add up",
            )
        if report.last_price is not None and report.price is not None:
            better = report.price - report.last_price
            if report.side == "sell":
                better = -better
            require(better >= 0, f"order {order_id} beyond its limit")
        self.orders[order_id] = report

    def _note_names(
        self, command: Command, outputs: Sequence[tuple[str, Event]]
    ) -> None:
        """Check that a name takes effect once."""
        action, account = command.action, command.account
        if not outputs or isinstance(outputs[0][1], Error):
            return
        if isinstance(action, Place) and action.client_order_id:
            key = account, action.client_order_id
            require(key not in self.names, f"{key} takes effect twice")
            report = outputs[0][1]
            assert isinstance(report, Exec)
            self.names[key] = report.order_id
        elif isinstance(action, Convert) and action.client_order_id:
            key = account, action.client_order_id
            require(key not in self._conversions, f"{key} converts twice")
            self._conversions.add(key)
